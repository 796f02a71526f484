//! What the machine asks of its runner, and what the runner answers.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Checkpoint, Found, PartId, PutBack, State, Token};
use crate::ClusterTime;

/// Ties a reply to its command. A reply to a command that is not under way is ignored, so a late or
/// repeated one does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Something for the runner to do, within `limit`; past it the runner answers that it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub ticket: Ticket,
    pub limit: Duration,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write the record, if the lease is still held. → `Saved`, or `Fenced`
    Save(Box<Checkpoint>),
    /// Find the parts from the config servers. → `Parts`
    Survey,
    /// Read the balancer's settings; if an earlier hold was never ended, end it first. → `Balancer`
    ReadBalancer,
    /// Note the settings in the config servers' oplog, majority-committed. → `Done`
    NoteHold(Found),
    /// Stop the balancer if it was running, and in any case wait for its round to end. → `Done`
    StopBalancer(Found),
    /// What still moves data or changes the catalogue: nothing is quiet. → `Moving`
    LookForMovement,
    /// The highest `$clusterTime` of all parts, which the runner keeps, signed, for the tokens; and each
    /// part's term. → `Clock`
    ReadClock,
    /// Write a token, majority-committed, gossiping the clock. → `Time`
    WriteToken { part: PartId, attempt: u32 },
    /// Make the settings what they would be without this checkpoint. Where the stop may have been sent
    /// and was not answered it may still arrive: then it is done only when the connection for the stop
    /// is gone from the config servers, and has failed, to be tried again, until then. → `PutBack`
    ///
    /// A start by somebody else counts only up to `held_until`, the config servers' token, and not at all
    /// when there is none because the checkpoint failed.
    PutBackBalancer { found: Found, stop_answered: bool, held_until: Option<ClusterTime> },
    /// Wait for a token, between the clock and its time as far as known, in the stored oplog. → `Seen`
    FindToken { part: PartId, token: Token, clock: ClusterTime },
    /// Nothing, for a time. → `Done`
    Wait(Duration),
}

impl Action {
    /// A name for logs, for the crash tests and for the operator's guide.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Save(record) => match record.state {
                State::Queued | State::Started => "save-started",
                State::Holding => "save-holding",
                State::Releasing => "save-releasing",
                State::Discovering => "save-discovering",
                State::Completed => "save-completed",
                State::Failed => "save-failed",
            },
            Action::Survey => "survey",
            Action::ReadBalancer => "read-balancer",
            Action::NoteHold(_) => "note-hold",
            Action::StopBalancer(_) => "stop-balancer",
            Action::LookForMovement => "look-for-movement",
            Action::ReadClock => "read-clock",
            Action::WriteToken { .. } => "write-token",
            Action::PutBackBalancer { .. } => "put-back-balancer",
            Action::FindToken { .. } => "find-token",
            Action::Wait(_) => "wait",
        }
    }
}

/// What became of a command.
#[derive(Debug, Clone)]
pub struct Event {
    pub ticket: Ticket,
    pub now: Timestamp,
    pub outcome: Outcome,
}

#[derive(Debug, Clone)]
pub enum Outcome {
    Done(Reply),
    /// It failed, or its limit passed: what it should have done may or may not have happened.
    Failed(String),
    /// It failed in a way that no further try can mend, such as a privilege that is missing.
    Denied(String),
    /// The lease is another holder's: this machine must not write the record again.
    Fenced,
}

#[derive(Debug, Clone)]
pub enum Reply {
    Saved,
    Done,
    Parts(Vec<(PartId, String)>),
    Balancer(Found),
    Moving(Vec<String>),
    Clock { time: ClusterTime, terms: BTreeMap<PartId, i64> },
    Time(ClusterTime),
    PutBack(PutBack),
    Seen(Option<Seen>),
}

/// A token's entry, as it is in the oplog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub time: ClusterTime,
    /// The term of the primary that wrote it.
    pub term: i64,
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Completed,
    Failed,
    /// Another holder has the lease, and ends the record.
    Deposed,
}
