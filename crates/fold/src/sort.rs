//! Changes sorted by collection, document and time, in bounded memory: what does not fit is spilled to
//! temporary files, compressed and encrypted with a key that only this process ever has.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::io;
use std::path::PathBuf;

use stillpoint_core::ClusterTime;

use crate::operation::Uuid;

mod run;
#[cfg(test)]
mod tests;

use run::{Run, RunReader, RunWriter};

/// When a change counts: changes apply in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The entry's `ts`, or the commit time of its transaction.
    pub commit: ClusterTime,
    /// The `ts` of the entry in which it is.
    pub entry: ClusterTime,
    /// Its place among the changes of that entry.
    pub index: u32,
}

/// A change, as it is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub collection: Uuid,
    /// Of the document, see [`Key`](crate::key).
    pub key: &'a [u8],
    pub at: Moment,
    pub payload: &'a [u8],
}

/// What is kept of memory while sorting.
#[derive(Debug, Clone)]
pub struct Budget {
    /// For records that are not spilled yet, in bytes.
    pub memory: usize,
    /// Where to spill.
    pub folder: PathBuf,
}

/// So many files are merged at once: each needs a frame of memory.
const FAN_IN: usize = 64;

/// uuid, key length, key, moment (commit, entry, index), payload.
const HEADER: usize = 16 + 4;
const MOMENT: usize = 8 + 8 + 4;

#[derive(Debug)]
pub struct Sorter {
    budget: Budget,
    /// Records one after the other, and where each is.
    arena: Vec<u8>,
    places: Vec<(usize, usize)>,
    /// Runs, and runs that were merged of runs of the level before: so that each record is written once a level.
    levels: Vec<Vec<Run>>,
    key: run::Key,
}

impl Sorter {
    pub fn new(budget: Budget) -> Sorter {
        Sorter { budget, arena: Vec::new(), places: Vec::new(), levels: Vec::new(), key: run::Key::new() }
    }

    /// `payload` in pieces, so that the caller need not put them together.
    pub fn push(&mut self, collection: Uuid, key: &[u8], at: Moment, payload: &[&[u8]]) -> io::Result<()> {
        let length = HEADER + key.len() + MOMENT + payload.iter().map(|piece| piece.len()).sum::<usize>();
        let place = size_of::<(usize, usize)>();
        if !self.places.is_empty() && self.arena.len() + length + (self.places.len() + 1) * place > self.budget.memory {
            self.spill()?;
        }
        let begin = self.arena.len();
        if self.arena.capacity() - begin < length {
            // By itself it would grow to twice the budget.
            let wanted = (2 * self.arena.capacity()).min(self.budget.memory).max(begin + length);
            self.arena.reserve_exact(wanted - begin);
        }
        self.arena.extend_from_slice(&collection.0);
        self.arena.extend_from_slice(&(key.len() as u32).to_be_bytes());
        self.arena.extend_from_slice(key);
        for time in [at.commit, at.entry] {
            self.arena.extend_from_slice(&time.seconds.to_be_bytes());
            self.arena.extend_from_slice(&time.increment.to_be_bytes());
        }
        self.arena.extend_from_slice(&at.index.to_be_bytes());
        for piece in payload {
            self.arena.extend_from_slice(piece);
        }
        self.places.push((begin, self.arena.len()));
        Ok(())
    }

    /// How many bytes are on disk.
    pub fn spilled(&self) -> u64 {
        self.levels.iter().flatten().map(Run::bytes).sum()
    }

    /// How many bytes of memory are taken.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.arena.capacity() + self.places.len() * size_of::<(usize, usize)>()
    }

    fn sort(&mut self) {
        let arena = &self.arena;
        self.places.sort_unstable_by(|a, b| order(&arena[a.0..a.1], &arena[b.0..b.1]));
    }

    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        let mut writer = RunWriter::new(&self.budget.folder, &self.key)?;
        for (begin, end) in &self.places {
            writer.push(&self.arena[*begin..*end])?;
        }
        let mut run = writer.end()?;
        self.arena.clear();
        // One record may have been larger than the budget.
        self.arena.shrink_to(self.budget.memory);
        self.places.clear();
        let mut level = 0;
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(run);
            if self.levels[level].len() < FAN_IN {
                return Ok(());
            }
            let runs = std::mem::take(&mut self.levels[level]);
            run = self.merge(runs)?;
            level += 1;
        }
    }

    fn merge(&self, runs: Vec<Run>) -> io::Result<Run> {
        let mut writer = RunWriter::new(&self.budget.folder, &self.key)?;
        let mut merged = Merged::new(runs, &self.key)?;
        while let Some(record) = merged.next()? {
            writer.push(&record)?;
        }
        writer.end()
    }

    /// All records in order: by collection, key and moment.
    pub fn end(mut self) -> io::Result<Sorted> {
        if self.levels.is_empty() {
            self.sort();
            return Ok(Sorted {
                source: Source::Memory { arena: self.arena, places: self.places.into_iter() },
                next: None,
            });
        }
        if !self.places.is_empty() {
            self.spill()?;
        }
        // The smallest first, until what is left can be merged at once.
        let mut runs: Vec<Run> = std::mem::take(&mut self.levels).into_iter().flatten().collect();
        while runs.len() > FAN_IN {
            let few = (runs.len() + 1 - FAN_IN).min(FAN_IN);
            let rest = runs.split_off(few);
            let run = self.merge(runs)?;
            runs = rest;
            runs.push(run);
        }
        let merged = Merged::new(runs, &self.key)?;
        Ok(Sorted { source: Source::Disk(merged), next: None })
    }
}

/// Records in order.
#[derive(Debug)]
pub struct Sorted {
    source: Source,
    /// The one that was looked at and not taken.
    next: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Source {
    Memory { arena: Vec<u8>, places: std::vec::IntoIter<(usize, usize)> },
    Disk(Merged),
}

impl Sorted {
    /// The next record, which stays the next.
    pub fn peek(&mut self) -> io::Result<Option<Record<'_>>> {
        if self.next.is_none() {
            self.next = self.read()?;
        }
        Ok(self.next.as_deref().map(decode))
    }

    /// Passes the record that was looked at.
    pub fn pass(&mut self) {
        self.next = None;
    }

    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        match &mut self.source {
            Source::Memory { arena, places } => Ok(places.next().map(|(begin, end)| arena[begin..end].to_vec())),
            Source::Disk(merged) => merged.next(),
        }
    }
}

fn split(record: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (collection, rest) = record.split_at(16);
    let (length, rest) = rest.split_at(4);
    let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
    let (key, rest) = rest.split_at(length);
    (collection, key, rest)
}

fn order(a: &[u8], b: &[u8]) -> Ordering {
    let ((a, a_key, a_rest), (b, b_key, b_rest)) = (split(a), split(b));
    (a, a_key, &a_rest[..MOMENT]).cmp(&(b, b_key, &b_rest[..MOMENT]))
}

fn decode(record: &[u8]) -> Record<'_> {
    let (collection, key, rest) = split(record);
    let number = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().expect("four bytes"));
    let time = |at: usize| ClusterTime::new(number(at), number(at + 4));
    Record {
        collection: Uuid(collection.try_into().expect("sixteen bytes")),
        key,
        at: Moment { commit: time(0), entry: time(8), index: number(16) },
        payload: &rest[MOMENT..],
    }
}

/// Several sorted runs as one.
#[derive(Debug)]
struct Merged {
    runs: Vec<RunReader>,
    heads: BinaryHeap<Head>,
}

#[derive(Debug)]
struct Head {
    record: Vec<u8>,
    run: usize,
}

// The heap gives its greatest first, and the least record is wanted.
impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&other.record, &self.record).then(other.run.cmp(&self.run))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

impl Merged {
    fn new(runs: Vec<Run>, key: &run::Key) -> io::Result<Merged> {
        let mut merged = Merged { runs: Vec::new(), heads: BinaryHeap::new() };
        for run in runs {
            merged.runs.push(run.read(key)?);
            merged.refill(merged.runs.len() - 1)?;
        }
        Ok(merged)
    }

    fn refill(&mut self, run: usize) -> io::Result<()> {
        if let Some(record) = self.runs[run].next()? {
            self.heads.push(Head { record, run });
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(head) = self.heads.pop() else { return Ok(None) };
        self.refill(head.run)?;
        Ok(Some(head.record))
    }
}
