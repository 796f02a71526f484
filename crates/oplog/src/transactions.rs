//! The transactions that are open at a place in the stream.
//!
//! A prepared transaction is spread over the stream: its operations, the last of them with the prepare,
//! and some time later an entry that commits it as of a time of its own, or aborts it. An unprepared one
//! commits with its last entry. Nothing that does not fit is passed over: it is an error that says where.

use std::collections::HashMap;

use stillpoint_core::stream::OpenTransaction;
use stillpoint_core::{ClusterTime, OpTime};

use crate::entry::{Entry, Kind, Session, Step, What};

mod cut;
#[cfg(test)]
mod tests;

pub use cut::{Cut, Ending, Prepared, Unresolved};

/// The table of open transactions, from entry to entry.
#[derive(Debug, Clone)]
pub struct Transactions {
    complete_from: ClusterTime,
    /// By `lsid`: a session has one transaction at a time.
    sessions: HashMap<Vec<u8>, Open>,
    /// Batches of writes in several entries, which have no session and are known by their last entry.
    batches: Vec<Batch>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    number: i64,
    first: OpTime,
    last: OpTime,
    prepared: Option<ClusterTime>,
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    first: OpTime,
    last: OpTime,
}

/// What an [`OpenTransaction`] has as its number if it is a batch of writes, which has no session.
const NO_NUMBER: i64 = -1;

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution<'a> {
    /// None for a batch of writes.
    pub session: Option<Session<'a>>,
    /// Its first entry.
    pub first: OpTime,
    /// The `ts` of its prepare, if it was prepared.
    pub prepared: Option<ClusterTime>,
    /// The entry that ended it.
    pub at: OpTime,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As of this time, at or before the entry that says so.
    Committed(ClusterTime),
    Aborted,
}

/// Why a stream cannot be followed: an entry is missing from it, or means what this program does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    #[error("{at}: {session} is ended, and no entry before tells of it")]
    Unknown { at: OpTime, session: String },
    #[error("{at}: {session} is committed with a commit time, and it is not prepared")]
    NotPrepared { at: OpTime, session: String },
    #[error("{at}: {session} goes on from {}, and its last entry known is {}", optime(.previous), optime(.last))]
    Chain { at: OpTime, session: String, previous: Option<OpTime>, last: Option<OpTime> },
    #[error("{at}: {session} begins while transaction {number} of it is prepared and not ended")]
    Superseded { at: OpTime, session: String, number: i64 },
    #[error("{at}: {session} is older than transaction {number} of it, which is open")]
    Older { at: OpTime, session: String, number: i64 },
    #[error("{at}: {session} is committed as of {commit}, which is not between its prepare and this entry")]
    CommitTime { at: OpTime, session: String, commit: ClusterTime },
    #[error("of the transactions that are open at the beginning, {0}")]
    Open(&'static str),
}

fn optime(at: &Option<OpTime>) -> String {
    at.map_or("none".into(), |at| at.to_string())
}

fn named(session: Option<Session<'_>>) -> String {
    session.map_or("a batch of writes".into(), |session| session.to_string())
}

impl Transactions {
    /// At a place where `open` are open, in a stream that has all entries of every transaction that is
    /// open at `complete_from` or later.
    pub fn new(open: Vec<OpenTransaction>, complete_from: ClusterTime) -> Result<Self, TransactionError> {
        let mut table = Transactions { complete_from, sessions: HashMap::new(), batches: Vec::new() };
        for OpenTransaction { session, number, first, last, prepared } in open {
            if session.is_empty() {
                table.batches.push(Batch { first, last });
                continue;
            }
            let id = hex::decode(&session).map_err(|_| TransactionError::Open("one has a session that is no hex"))?;
            if table.sessions.insert(id, Open { number, first, last, prepared }).is_some() {
                return Err(TransactionError::Open("two are of one session"));
            }
        }
        Ok(table)
    }

    /// Takes the next entry of the stream: the end of a transaction, if it is one. After an error
    /// the table is of no more use.
    pub fn see<'a>(&mut self, entry: &Entry<'a>) -> Result<Option<Resolution<'a>>, TransactionError> {
        // A batch is written at once, by one primary: what it had not written when it went is never written.
        if !self.batches.is_empty() {
            self.batches.retain(|batch| batch.last.term >= entry.at.term);
        }
        match (entry.kind, entry.session) {
            (Kind::Step(step), Some(session)) => self.step(entry.at, session, step),
            (Kind::Step(step), None) => self.batch(entry.at, step),
            (_, Some(session)) if !self.sessions.is_empty() => {
                self.begins(entry.at, session)?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The open ones, the oldest first.
    pub fn open(&self) -> Vec<OpenTransaction> {
        let sessions = self.sessions.iter().map(|(id, open)| OpenTransaction {
            session: hex::encode(id),
            number: open.number,
            first: open.first,
            last: open.last,
            prepared: open.prepared,
        });
        let batches = self.batches.iter().map(|batch| OpenTransaction {
            session: String::new(),
            number: NO_NUMBER,
            first: batch.first,
            last: batch.last,
            prepared: None,
        });
        let mut open: Vec<_> = sessions.chain(batches).collect();
        open.sort_by(|a, b| (a.first, a.last, &a.session).cmp(&(b.first, b.last, &b.session)));
        open
    }

    /// The first entry of the transaction that the entry just [seen](Self::see) left open.
    pub fn first(&self, entry: &Entry<'_>) -> Option<OpTime> {
        match entry.session {
            Some(session) => self.sessions.get(session.id).filter(|open| open.last == entry.at).map(|open| open.first),
            None => self.batches.iter().find(|batch| batch.last == entry.at).map(|batch| batch.first),
        }
    }

    /// The first entry of the oldest that is open: what must be kept to go on from here.
    pub fn oldest(&self) -> Option<OpTime> {
        let sessions = self.sessions.values().map(|open| open.first);
        sessions.chain(self.batches.iter().map(|batch| batch.first)).min()
    }

    /// An older transaction of a session ends unnoted when a newer one or a retryable write begins,
    /// unless it is prepared: then none can begin.
    fn begins(&mut self, at: OpTime, session: Session<'_>) -> Result<(), TransactionError> {
        match self.sessions.get(session.id) {
            Some(open) if open.number < session.number => {
                if open.prepared.is_some() {
                    let number = open.number;
                    return Err(TransactionError::Superseded { at, session: session.to_string(), number });
                }
                self.sessions.remove(session.id);
            }
            _ => {}
        }
        Ok(())
    }

    fn step<'a>(
        &mut self,
        at: OpTime,
        session: Session<'a>,
        step: Step,
    ) -> Result<Option<Resolution<'a>>, TransactionError> {
        self.begins(at, session)?;
        let open = self.sessions.get(session.id).copied();
        if let Some(Open { number, .. }) = open
            && number > session.number
        {
            return Err(TransactionError::Older { at, session: session.to_string(), number });
        }
        let Some(first) = self.follows(at, session, step, open)? else { return Ok(None) };

        let prepared = open.and_then(|open| open.prepared);
        let next = Open { number: session.number, first, last: at, prepared: None };
        let outcome = match step.what {
            What::Part => {
                self.sessions.insert(session.id.to_vec(), next);
                return Ok(None);
            }
            What::Prepare => {
                self.sessions.insert(session.id.to_vec(), Open { prepared: Some(at.time), ..next });
                return Ok(None);
            }
            What::Whole => Outcome::Committed(at.time),
            What::Commit(commit) => Outcome::Committed(commit),
            What::Abort => Outcome::Aborted,
        };
        self.sessions.remove(session.id);
        Ok(Some(Resolution { session: Some(session), first, prepared, at, outcome }))
    }

    /// The first entry of the transaction that this step is a step of, or none if the stream began in
    /// the middle of it, or nothing of it was written.
    fn follows(
        &self,
        at: OpTime,
        session: Session<'_>,
        step: Step,
        open: Option<Open>,
    ) -> Result<Option<OpTime>, TransactionError> {
        let last = open.map(|open| open.last);
        let previous = step.previous;
        let chain = || TransactionError::Chain { at, session: session.to_string(), previous, last };
        match (step.what, open) {
            (What::Commit(commit), Some(open)) => {
                let Some(prepared) = open.prepared else {
                    return Err(TransactionError::NotPrepared { at, session: session.to_string() });
                };
                if commit < prepared || commit > at.time {
                    return Err(TransactionError::CommitTime { at, session: session.to_string(), commit });
                }
                if previous.is_some() && previous != last { Err(chain()) } else { Ok(Some(open.first)) }
            }
            // A new primary aborts what an older one did not finish, and does not know its last entry.
            (What::Abort, Some(open)) => {
                let known = open.prepared.is_some() && previous.is_some();
                if known && previous != last { Err(chain()) } else { Ok(Some(open.first)) }
            }
            // A primary that is interrupted while it prepares aborts what it has written nothing of.
            (What::Abort, None) if previous.is_none() => Ok(None),
            (What::Commit(_) | What::Abort, None) => {
                self.cut_off(at, TransactionError::Unknown { at, session: session.to_string() })
            }
            (_, None) if previous.is_none() => Ok(Some(at)),
            (_, Some(open)) if previous == last && open.prepared.is_none() => Ok(Some(open.first)),
            (_, Some(_)) => Err(chain()),
            (_, None) => self.cut_off(at, chain()),
        }
    }

    /// What is tolerated at the beginning of the stream, which may be in the middle of a transaction.
    fn cut_off<T>(&self, at: OpTime, error: TransactionError) -> Result<Option<T>, TransactionError> {
        if at.time <= self.complete_from { Ok(None) } else { Err(error) }
    }

    fn batch<'a>(&mut self, at: OpTime, step: Step) -> Result<Option<Resolution<'a>>, TransactionError> {
        let previous = step.previous;
        let open = self.batches.iter().position(|batch| Some(batch.last) == previous);
        let (first, open) = match (previous, open) {
            (None, _) => (at, None),
            (Some(_), Some(open)) => (self.batches[open].first, Some(open)),
            (Some(_), None) => {
                return self.cut_off(at, TransactionError::Chain { at, session: named(None), previous, last: None });
            }
        };
        if let Some(open) = open {
            self.batches.swap_remove(open);
        }
        if step.what == What::Part {
            self.batches.push(Batch { first, last: at });
            return Ok(None);
        }
        let outcome = Outcome::Committed(at.time);
        Ok(Some(Resolution { session: None, first, prepared: None, at, outcome }))
    }
}
