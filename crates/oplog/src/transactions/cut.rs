//! The transactions that a time cuts through.

use stillpoint_core::stream::OpenTransaction;
use stillpoint_core::{ClusterTime, OpTime};

use super::{Outcome, Resolution, TransactionError, Transactions};
use crate::entry::{Entry, EntryError};

/// A transaction that is prepared at or before a time and ended by an entry after it, or by none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// As in [`OpenTransaction`].
    pub session: String,
    pub number: i64,
    /// Its first entry.
    pub first: OpTime,
    pub prepared: ClusterTime,
    /// The entry that ended it, if that has been read.
    pub ending: Option<Ending>,
}

/// How a transaction was ended, and by which entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    pub at: OpTime,
    pub outcome: Outcome,
}

/// What a time T cuts through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    pub at: ClusterTime,
    /// The prepared ones, the oldest first.
    pub transactions: Vec<Prepared>,
    /// The first entry of the oldest transaction that is open at T, prepared or not: from there on
    /// entries must be kept to go on from T.
    pub oldest: Option<OpTime>,
    /// The last entry that was read.
    pub read: Option<OpTime>,
}

impl Unresolved {
    /// Reads `entries` until T is passed and every transaction that T cuts through has ended, or to
    /// their end. They begin where a segment begins, and `open` are the transactions open there.
    pub fn at<B, E>(
        t: ClusterTime,
        open: Vec<OpenTransaction>,
        complete_from: ClusterTime,
        entries: impl IntoIterator<Item = Result<B, E>>,
    ) -> Result<Unresolved, E>
    where
        B: AsRef<[u8]>,
        E: From<EntryError> + From<TransactionError>,
    {
        let mut cut = Cut::new(t, open, complete_from)?;
        for entry in entries {
            cut.see(&Entry::read(entry?.as_ref())?)?;
            if cut.is_complete() {
                break;
            }
        }
        Ok(cut.end())
    }

    /// Whether T was passed: if not, there may be more that it cuts through.
    pub fn passed(&self) -> bool {
        self.read.is_some_and(|read| read.time > self.at)
    }

    /// Those whose end has not been read.
    pub fn pending(&self) -> impl Iterator<Item = &Prepared> {
        self.transactions.iter().filter(|transaction| transaction.ending.is_none())
    }

    /// The entry to which one must read until all have ended; without those that are pending.
    pub fn until(&self) -> Option<OpTime> {
        self.transactions.iter().filter_map(|transaction| Some(transaction.ending?.at)).max()
    }

    /// Those that belong to the state at T although their ends come after it, each with its commit time.
    pub fn committed(&self) -> impl Iterator<Item = (&Prepared, ClusterTime)> {
        self.transactions.iter().filter_map(|transaction| match transaction.ending?.outcome {
            Outcome::Committed(commit) if commit <= self.at => Some((transaction, commit)),
            _ => None,
        })
    }
}

/// Finds what a time cuts through, entry by entry.
#[derive(Debug, Clone)]
pub struct Cut {
    table: Transactions,
    found: Unresolved,
    pending: usize,
}

impl Cut {
    /// As [`Unresolved::at`].
    pub fn new(
        t: ClusterTime,
        open: Vec<OpenTransaction>,
        complete_from: ClusterTime,
    ) -> Result<Self, TransactionError> {
        let table = Transactions::new(open, complete_from)?;
        let found = Unresolved { at: t, transactions: Vec::new(), oldest: None, read: None };
        Ok(Cut { table, found, pending: 0 })
    }

    /// Takes the next entry: the end of a transaction, if it is one.
    pub fn see<'a>(&mut self, entry: &Entry<'a>) -> Result<Option<Resolution<'a>>, TransactionError> {
        if !self.found.passed() && entry.at.time > self.found.at {
            self.pass();
        }
        let resolution = self.table.see(entry)?;
        self.found.read = Some(entry.at);
        if let Some(resolution) = &resolution
            && self.pending > 0
            && resolution.prepared.is_some_and(|prepared| prepared <= self.found.at)
            && let Some(session) = resolution.session
        {
            let id = hex::encode(session.id);
            let ended = |one: &&mut Prepared| one.number == session.number && one.session == id && one.ending.is_none();
            if let Some(transaction) = self.found.transactions.iter_mut().find(ended) {
                transaction.ending = Some(Ending { at: resolution.at, outcome: resolution.outcome });
                self.pending -= 1;
            }
        }
        Ok(resolution)
    }

    /// Whether no more entries are needed.
    pub fn is_complete(&self) -> bool {
        self.found.passed() && self.pending == 0
    }

    /// What is known by now.
    pub fn end(mut self) -> Unresolved {
        if !self.found.passed() {
            self.pass();
        }
        self.found
    }

    /// The table is now as it is at T.
    fn pass(&mut self) {
        self.found.oldest = self.table.oldest();
        let open = self.table.open().into_iter();
        self.found.transactions = open
            .filter_map(|OpenTransaction { session, number, first, prepared, .. }| {
                Some(Prepared { session, number, first, prepared: prepared?, ending: None })
            })
            .collect();
        self.pending = self.found.transactions.len();
    }
}
