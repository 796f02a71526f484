//! What stands in for libFuzzer where there is no C++ compiler to build it with: the seeds, then the
//! seeds changed at random. It understands the few of libFuzzer's flags that `scripts/fuzz` gives.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Characters that mean something to one of the readers.
const TELLING: &[u8] = b"\"\\,=&%;/+.:{}[]*- \t\0\n019aA\xc3\xa9\xff";

pub fn run(check: fn(&[u8])) -> io::Result<()> {
    let (mut seed, mut runs, mut seconds) = (1, u64::MAX, 0);
    let (mut seeds, mut artifacts) = (Vec::new(), String::new());
    for argument in std::env::args().skip(1) {
        let number = |text: &str| text.parse::<u64>().map_err(|_| io::Error::other(argument.clone()));
        match argument.strip_prefix('-').and_then(|flag| flag.split_once('=')) {
            Some(("seed", value)) => seed = number(value)?,
            Some(("runs", value)) => runs = number(value)?,
            Some(("max_total_time", value)) => seconds = number(value)?,
            Some(("artifact_prefix", value)) => artifacts = value.to_owned(),
            Some(_) => {}
            None => read(Path::new(&argument), &mut seeds)?,
        }
    }

    let started = Instant::now();
    let limit = if seconds == 0 { Duration::MAX } else { Duration::from_secs(seconds) };
    let mut chance = Chance(seed.wrapping_mul(2).wrapping_add(1));
    let mut done = 0;
    while done < runs.max(seeds.len() as u64) && started.elapsed() < limit {
        let input = match seeds.get(done as usize) {
            Some(seed) => seed.clone(),
            None => changed(&seeds, &mut chance),
        };
        if catch_unwind(AssertUnwindSafe(|| check(&input))).is_err() {
            let file = format!("{artifacts}crash-blind-{done}");
            std::fs::write(&file, &input)?;
            return Err(io::Error::other(format!("the input is in {file}")));
        }
        done += 1;
    }
    eprintln!("Done {done} runs in {} second(s), blind", started.elapsed().as_secs());
    Ok(())
}

/// A file, or all of a folder, in the order of the names.
fn read(path: &Path, seeds: &mut Vec<Vec<u8>>) -> io::Result<()> {
    if path.is_file() {
        seeds.push(std::fs::read(path)?);
        return Ok(());
    }
    let mut files = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    files.iter().try_for_each(|file| read(file, seeds))
}

fn changed(seeds: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let pick = |chance: &mut Chance| seeds.get(chance.below(seeds.len())).cloned().unwrap_or_default();
    let mut input = pick(chance);
    for _ in 0..=chance.below(4) {
        let from = chance.below(input.len() + 1);
        let to = (from + chance.below(5)).min(input.len());
        let other = pick(chance);
        let with = match chance.below(4) {
            0 => Vec::new(),
            1 => vec![TELLING[chance.below(TELLING.len())]; 1 + chance.below(3)],
            2 => input[from..to].repeat(2),
            _ => {
                let start = chance.below(other.len() + 1);
                other[start..(start + chance.below(40)).min(other.len())].to_vec()
            }
        };
        input.splice(from..to, with);
    }
    input
}

/// Xorshift: which numbers come depends on the seed alone.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % (end.max(1) as u64)) as usize
    }
}
