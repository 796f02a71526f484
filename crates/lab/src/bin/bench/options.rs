//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The sets of measures that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    Hold,
    Requests,
    List,
    Latency,
    Memory,
    Capture,
    Snapshot,
    Restore,
}

impl Measure {
    const NAMED: [(&str, Measure); 8] = [
        ("hold", Measure::Hold),
        ("requests", Measure::Requests),
        ("list", Measure::List),
        ("latency", Measure::Latency),
        ("memory", Measure::Memory),
        ("capture", Measure::Capture),
        ("snapshot", Measure::Snapshot),
        ("restore", Measure::Restore),
    ];
}

pub struct Options {
    pub binary: PathBuf,
    /// All if empty.
    only: Vec<Measure>,
    pub round: Duration,
}

const USAGE: &str =
    "usage: bench --binary PATH [--only hold|requests|list|latency|memory|capture|snapshot|restore]… [--seconds N]";

impl Options {
    pub fn parse(args: &[String]) -> Result<Options> {
        let (mut binary, mut only, mut seconds) = (None, Vec::new(), 2);
        for pair in args.chunks(2) {
            let [name, value] = pair else { bail!(USAGE) };
            match name.as_str() {
                "--binary" => binary = Some(std::fs::canonicalize(value).with_context(|| format!("no {value}"))?),
                "--only" => only.push(Measure::NAMED.iter().find(|(name, _)| name == value).context(USAGE)?.1),
                "--seconds" => seconds = value.parse().context(USAGE)?,
                _ => bail!(USAGE),
            }
        }
        // A nonce is good for five minutes, and a client asks for one a round.
        ensure!((1..=240).contains(&seconds), "--seconds must be from 1 to 240");
        Ok(Options { binary: binary.context(USAGE)?, only, round: Duration::from_secs(seconds) })
    }

    pub fn wants(&self, measure: Measure) -> bool {
        self.only.is_empty() || self.only.contains(&measure)
    }
}
