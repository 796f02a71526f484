//! The record of a checkpoint, as the catalog keeps it.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::verification::Verification;
use crate::{CheckpointId, ClusterId, ClusterTime};

/// One checkpoint. Only the [`Machine`](super::Machine) changes it once it is queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub id: CheckpointId,
    pub cluster: ClusterId,
    /// When it was asked for; from its beginning on, when it began.
    pub started: Timestamp,
    pub state: State,
    pub parts: Vec<Part>,
    /// C: the highest cluster time of all parts just before the tokens. Every write acknowledged
    /// before then is at or before it.
    pub clock: Option<ClusterTime>,
    /// T: the lowest token time, which the checkpoint restores to.
    pub cut: Option<ClusterTime>,
    /// The balancer's settings as they were found, from the moment it may have been stopped.
    pub found: Option<Found>,
    pub held_since: Option<Timestamp>,
    pub released: Option<Released>,
    pub ended: Option<Timestamp>,
    pub failure: Option<Failure>,
    /// What is in the way now, while something is tried again.
    pub trouble: Option<Trouble>,
    /// What came of comparing it with the cluster, if that was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

/// How far a checkpoint has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Asked for; nobody has begun it.
    Queued,
    /// Looking at the cluster; nothing has been touched.
    Started,
    /// The balancer may have been stopped: putting it back is owed.
    Holding,
    /// All tokens are in, or it failed: the balancer is being put back.
    Releasing,
    /// The balancer is back; the tokens are waited for in the stored oplog.
    Discovering,
    Completed,
    Failed,
}

impl State {
    pub fn ended(self) -> bool {
        matches!(self, State::Completed | State::Failed)
    }

    pub fn name(self) -> &'static str {
        match self {
            State::Queued => "QUEUED",
            State::Started => "STARTED",
            State::Holding => "HOLDING",
            State::Releasing => "RELEASING",
            State::Discovering => "DISCOVERING",
            State::Completed => "COMPLETED",
            State::Failed => "FAILED",
        }
    }
}

/// Which part of the cluster: a shard, by its name in `config.shards`, or the config servers.
/// Shards sort before the config servers, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PartId {
    Shard(String),
    ConfigServers,
}

impl PartId {
    /// As people name it: the shard's name, or `config`.
    pub fn name(&self) -> &str {
        match self {
            PartId::Shard(name) => name,
            PartId::ConfigServers => "config",
        }
    }

    /// A text that names it in a path and in the catalog: `config`, or `shard-` and the shard's name, with
    /// all but letters, digits, `_`, `-` and `.` as %XX.
    pub fn key(&self) -> String {
        let PartId::Shard(name) = self else { return "config".into() };
        let escaped = name.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        });
        format!("shard-{}", escaped.collect::<String>())
    }
}

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PartId::Shard(name) => write!(f, "shard {name}"),
            PartId::ConfigServers => f.write_str("the config servers"),
        }
    }
}

/// One replica set of the cluster, and its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub id: PartId,
    pub replica_set: String,
    /// The term of the primary that told its clock.
    #[serde(default)]
    pub term: Option<i64>,
    pub token: Option<Token>,
}

/// A token that a majority of the part's members has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Which attempt wrote it. An attempt whose reply was lost may have left another entry.
    pub attempt: u32,
    /// Its `ts` as far as known: from the write's reply, then from the entry itself.
    pub time: ClusterTime,
    /// Whether the entry itself was found in the stored oplog.
    pub discovered: bool,
    /// When it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovered_at: Option<Timestamp>,
}

/// The balancer as it was found, and what is needed to put it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Whether it may move chunks. If not, stillpoint does not touch it.
    pub running: bool,
    /// The documents `balancer` and `autosplit` of `config.settings`, whole, as extended JSON.
    pub settings: String,
    /// A cluster time at or before the reading: changes by others are looked for after it.
    pub seen: ClusterTime,
    /// The address that the config servers will see the stop come from, to tell it from others'.
    pub from: String,
}

/// The end of the hold on the balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub at: Timestamp,
    pub how: PutBack,
}

/// How the balancer's settings were left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PutBack {
    /// They are as they were found.
    AsFound,
    /// Somebody else changed them meanwhile, and they are as that left them.
    AsChangedByOthers,
    /// Somebody else started the balancer meanwhile: the cluster was not held still.
    StartedByOthers,
    /// They are as they were when this was seen: the config servers' oplog no longer tells who
    /// changed what since the balancer was stopped, so the operator must compare and decide.
    HistoryLost,
}

/// Why a checkpoint failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub reason: Reason,
    /// For the operator: may name hosts, so it never goes into an API reply.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// The parts could not be found or a part could not be read.
    Unreachable,
    /// The balancer's settings could not be read, understood or noted.
    BalancerUnreadable,
    /// The balancer did not stop in time.
    BalancerNotStopped,
    /// Somebody else started the balancer while the checkpoint held it.
    BalancerStartedByOthers,
    /// The config servers' oplog no longer tells how the balancer is to be put back.
    BalancerHistoryLost,
    /// A migration, resharding or DDL operation did not end in time.
    DataMoving,
    /// No highest cluster time could be had.
    NoClock,
    /// A token could not be written with majority write concern.
    TokenNotWritten,
    /// A token is not later than the cluster time that its part was told.
    TokenTooEarly,
    /// A token was not found in the stored oplog.
    TokenNotFound,
    /// A part's primary was another when it wrote the token than when its clock was read.
    PrimaryChanged,
    /// A shard came or went meanwhile.
    PartsChanged,
    /// The server stopped in the middle of it.
    Interrupted,
    /// The catalog was too slow or not to be written.
    Catalog,
}

impl Reason {
    /// One sentence that is safe to show to any client.
    pub fn sentence(self) -> &'static str {
        match self {
            Reason::Unreachable => "A part of the cluster could not be reached.",
            Reason::BalancerUnreadable => "The balancer's settings could not be read or noted.",
            Reason::BalancerNotStopped => "The balancer did not stop in time.",
            Reason::BalancerStartedByOthers => "The balancer was started by someone else while it was to be off.",
            Reason::BalancerHistoryLost => {
                "It can no longer be told how the balancer is to be put back; compare its settings by hand."
            }
            Reason::DataMoving => "A migration, resharding or DDL operation did not end in time.",
            Reason::NoClock => "The cluster's time could not be read.",
            Reason::TokenNotWritten => "A token could not be written with majority write concern.",
            Reason::TokenTooEarly => "A token was earlier than the cluster's time.",
            Reason::TokenNotFound => "A token was not found in the stored oplog in time.",
            Reason::PrimaryChanged => "A primary changed between the reading of the clock and the token.",
            Reason::PartsChanged => "A shard was added or removed meanwhile.",
            Reason::Interrupted => "The server stopped before the tokens were written.",
            Reason::Catalog => "The catalog could not be written in time.",
        }
    }
}

/// Something that is being tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub since: Timestamp,
    /// For the operator: may name hosts, so it never goes into an API reply.
    pub text: String,
}

impl Checkpoint {
    /// A checkpoint that was asked for and waits for a server to begin it.
    pub fn queued(id: CheckpointId, cluster: ClusterId, now: Timestamp) -> Self {
        Checkpoint {
            id,
            cluster,
            started: now,
            state: State::Queued,
            parts: Vec::new(),
            clock: None,
            cut: None,
            found: None,
            held_since: None,
            released: None,
            ended: None,
            failure: None,
            trouble: None,
            verification: None,
        }
    }

    /// When it completed and the balancer ran again; `None` unless it has completed.
    pub fn completed(&self) -> Option<Timestamp> {
        match (self.state, &self.released) {
            (State::Completed, Some(released)) => Some(released.at),
            _ => None,
        }
    }

    /// From the balancer's return until the last token was found in the stored oplog; `None` unless all are.
    pub fn discovery(&self) -> Option<SignedDuration> {
        let found = self.parts.iter().map(|part| part.token?.discovered_at).collect::<Option<Vec<_>>>()?;
        Some(found.into_iter().max()?.duration_since(self.released.as_ref()?.at))
    }

    /// Whether the balancer may be off because of this checkpoint.
    pub fn owes_put_back(&self) -> bool {
        matches!(self.state, State::Holding | State::Releasing) && self.released.is_none()
    }

    /// The rule that this record breaks, if any. Checked by the machine after each step, by every
    /// catalog before each write, and by the tests.
    pub fn broken_rule(&self) -> Option<&'static str> {
        let tokens = || self.parts.iter().map(|part| part.token);
        let all_tokens = !self.parts.is_empty() && tokens().all(|token| token.is_some());
        let rules = [
            (
                self.state < State::Holding || self.found.is_some() || self.state == State::Failed,
                "a hold without what was found",
            ),
            (self.found.is_some() == self.held_since.is_some(), "a hold has a beginning"),
            (self.state.ended() == self.ended.is_some(), "an end has a time"),
            ((self.state == State::Failed) <= self.failure.is_some(), "a failed checkpoint says why"),
            ((self.state == State::Completed) <= self.failure.is_none(), "a completed checkpoint has no failure"),
            (
                self.state != State::Failed || self.found.is_none() || self.released.is_some(),
                "failed with the balancer still held",
            ),
            (
                self.state < State::Discovering || self.state == State::Failed || self.released.is_some(),
                "discovering with the balancer still held",
            ),
            (
                (self.state == State::Discovering) <= (all_tokens && self.cut.is_some()),
                "discovering without every token",
            ),
            (
                self.state != State::Completed
                    || tokens().all(|token| token.is_some_and(|t| t.discovered)) && all_tokens,
                "completed without every token discovered",
            ),
            (
                self.state != State::Completed || self.cut == tokens().flatten().map(|t| t.time).min(),
                "completed with a cut that is not the lowest token",
            ),
            (self.cut.is_none() || self.clock < self.cut, "a cut that is not after the cluster's clock"),
            (
                self.parts.iter().filter(|part| part.id == PartId::ConfigServers).count()
                    == usize::from(!self.parts.is_empty()),
                "one part is the config servers",
            ),
        ];
        rules.into_iter().find_map(|(holds, rule)| (!holds).then_some(rule))
    }
}
