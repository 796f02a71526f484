//! When each transaction was committed: the first of the two passes over a stream.
//!
//! What a prepared transaction did is in the stream before it is known whether, and as of when, it is
//! committed; and a commit that lies after T may be as of a time before it.

use std::collections::HashMap;

use stillpoint_core::stream::OpenTransaction;
use stillpoint_core::{ClusterTime, OpTime};
use stillpoint_oplog::{Cut, Entry, Outcome, TransactionError};

#[cfg(test)]
mod tests;

/// The commit times of the transactions that are more than one entry, by their first entry.
#[derive(Debug)]
pub struct Outcomes {
    committed: HashMap<OpTime, ClusterTime>,
    cut: Cut,
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
    /// As [`Cut::new`].
    pub fn new(
        until: ClusterTime,
        open: Vec<OpenTransaction>,
        complete_from: ClusterTime,
    ) -> Result<Self, TransactionError> {
        Ok(Outcomes { committed: HashMap::new(), cut: Cut::new(until, open, complete_from)? })
    }

    pub fn see(&mut self, entry: &Entry<'_>) -> Result<(), TransactionError> {
        if let Some(end) = self.cut.see(entry)?
            && end.first != entry.at
            && let Outcome::Committed(commit) = end.outcome
        {
            self.committed.insert(end.first, commit);
        }
        Ok(())
    }

    /// Whether T is passed and every transaction that it cuts through has ended: no more entries are needed.
    pub fn is_complete(&self) -> bool {
        self.cut.is_complete()
    }

    /// After the last entry that there is.
    pub fn end(self) -> Result<Committed, NotResolved> {
        let unresolved = self.cut.end();
        let mut pending = unresolved.pending();
        match pending.next() {
            Some(oldest) => Err(NotResolved { until: unresolved.at, count: 1 + pending.count(), oldest: oldest.first }),
            None => Ok(Committed { until: unresolved.at, committed: self.committed }),
        }
    }
}

/// See [`Outcomes`].
#[derive(Debug)]
pub struct Committed {
    until: ClusterTime,
    committed: HashMap<OpTime, ClusterTime>,
}

impl Committed {
    /// T.
    pub fn until(&self) -> ClusterTime {
        self.until
    }

    /// As of when the transaction that begins with this entry is committed, if it is.
    pub fn at(&self, first: OpTime) -> Option<ClusterTime> {
        self.committed.get(&first).copied()
    }
}
