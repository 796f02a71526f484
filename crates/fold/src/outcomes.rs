//! When each transaction was committed: the first of the two passes over a stream.
//!
//! What a prepared transaction did is in the stream before it is known whether, and as of when, it is
//! committed; and a commit that lies after T may be as of a time before it.
//!
//! There may be any number of them: they are sorted by their first entries, on disk if they are many. The second
//! pass meets these entries in the same order, and needs in memory what is open at its place, no more.

use std::collections::HashMap;
use std::io;

use stillpoint_core::stream::OpenTransaction;
use stillpoint_core::{ClusterTime, OpTime};
use stillpoint_oplog::{Cut, Entry, Outcome, TransactionError};

use crate::error::FoldError;
use crate::operation::Uuid;
use crate::sort::{Budget, Moment, Sorted, Sorter};

#[cfg(test)]
mod tests;

/// The commit times of the transactions that are more than one entry and committed by T, by their first entry.
#[derive(Debug)]
pub struct Outcomes {
    until: ClusterTime,
    committed: Sorter,
    cut: Cut,
}

/// They are of no collection.
const NONE: Uuid = Uuid([0; 16]);

/// Orders as the entries do.
fn key(first: OpTime) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&first.time.seconds.to_be_bytes());
    key[4..8].copy_from_slice(&first.time.increment.to_be_bytes());
    key[8..].copy_from_slice(&first.term.to_be_bytes());
    key
}

/// Transactions that are prepared at or before T and whose end is not in what was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{count} transactions are prepared by {until} and not ended in what is stored, the oldest since {oldest}")]
pub struct NotResolved {
    pub until: ClusterTime,
    pub count: usize,
    pub oldest: OpTime,
}

impl Outcomes {
    /// As [`Cut::new`]; `budget` is kept until the second pass has ended.
    pub fn new(
        until: ClusterTime,
        open: Vec<OpenTransaction>,
        complete_from: ClusterTime,
        budget: Budget,
    ) -> Result<Self, TransactionError> {
        Ok(Outcomes { until, committed: Sorter::new(budget), cut: Cut::new(until, open, complete_from)? })
    }

    pub fn see(&mut self, entry: &Entry<'_>) -> Result<(), FoldError> {
        if let Some(end) = self.cut.see(entry)?
            && end.first != entry.at
            && let Outcome::Committed(commit) = end.outcome
            && commit <= self.until
        {
            let at = Moment { commit, entry: entry.at.time, index: 0 };
            self.committed.push(NONE, &key(end.first), at, &[])?;
        }
        Ok(())
    }

    /// Whether T is passed and every transaction that it cuts through has ended: no more entries are needed.
    pub fn is_complete(&self) -> bool {
        self.cut.is_complete()
    }

    /// After the last entry that there is.
    pub fn end(self) -> Result<Committed, FoldError> {
        let unresolved = self.cut.end();
        let mut pending = unresolved.pending();
        if let Some(oldest) = pending.next() {
            let (until, count) = (unresolved.at, 1 + pending.count());
            return Err(NotResolved { until, count, oldest: oldest.first }.into());
        }
        Ok(Committed { until: self.until, committed: self.committed.end()?, open: HashMap::new() })
    }
}

/// See [`Outcomes`]. It is asked in the order of the stream: for a transaction when it [begins](Self::begins),
/// then for as long as it has not [ended](Self::ends).
#[derive(Debug)]
pub struct Committed {
    until: ClusterTime,
    /// Those that have not begun yet.
    committed: Sorted,
    open: HashMap<OpTime, ClusterTime>,
}

impl Committed {
    /// T.
    pub fn until(&self) -> ClusterTime {
        self.until
    }

    /// A transaction begins with this entry, later than every one before.
    pub fn begins(&mut self, first: OpTime) -> io::Result<()> {
        let wanted = key(first);
        while let Some(next) = self.committed.peek()?
            && *next.key <= wanted[..]
        {
            if *next.key == wanted[..] {
                self.open.insert(first, next.at.commit);
            }
            self.committed.pass();
        }
        Ok(())
    }

    /// As of when the transaction that began with this entry is committed, if it is by T.
    pub fn at(&self, first: OpTime) -> Option<ClusterTime> {
        self.open.get(&first).copied()
    }

    /// The transaction that began with this entry is not asked for any more.
    pub fn ends(&mut self, first: OpTime) {
        self.open.remove(&first);
    }

    /// So many are in memory because they have begun and not ended.
    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }
}
