//! The record of a restore, as the catalog keeps it: a cluster's data as of a time, written into another cluster.
//!
//! The target shows nothing of it before it is whole: the data is loaded and compared with what was to be
//! written first, and only then do the target's config servers get to know of it ([`State::Opening`]).

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::checkpoint::PartId;
use crate::verification::Verification;
use crate::{CheckpointId, ClusterId, ClusterTime, RestoreId, SnapshotId};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// The API's `batchId`: it shows a job for each part.
    pub id: RestoreId,
    /// The cluster whose data it is.
    pub cluster: ClusterId,
    pub state: State,
    /// When it was asked for.
    pub requested: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    pub point: Point,
    /// T: the time as of which the data is.
    pub time: ClusterTime,
    pub target: Target,
    pub options: Options,
    pub parts: Vec<Part>,
    /// The target's config servers know all of it: it can only be finished from here on.
    #[serde(default)]
    pub told: bool,
    /// Somebody asked to end it.
    #[serde(default)]
    pub cancelled: bool,
    /// Why it could not be done, and what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What is in the way now, while something is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What came of comparing the target with what was to be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

/// How far a restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Asked for; nobody has begun it.
    Queued,
    /// Target and stored data are looked at; nothing has been written.
    Checking,
    /// Documents and indexes are written.
    Loading,
    /// What was written is read back and compared.
    Verifying,
    /// The target's config servers get to know of the collections.
    Opening,
    Finished,
    /// It could not be done.
    Broken,
    /// Somebody ended it.
    Killed,
}

/// What was asked to be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Point {
    Checkpoint(CheckpointId),
    Snapshot(SnapshotId),
    /// A millisecond since the Unix epoch, UTC. What is restored is all that was written before its second
    /// began, and nothing later: see [`Point::of_millisecond`].
    Millisecond(i64),
    /// A cluster time as such.
    Time(ClusterTime),
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// A cluster that is kept in the same catalog.
    Cluster(ClusterId),
    /// One that was named by its connection string, which is kept apart and sealed; here are its hosts.
    Hosts(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// Which of the target's shards takes a shard's data. Those that are not named are taken in the order of
    /// their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shards: BTreeMap<String, String>,
    /// The only part to be restored, into a single replica set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<PartId>,
    /// Only these databases or collections; all if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<Only>,
    /// Users and roles, too.
    #[serde(default)]
    pub users: bool,
    /// Compares the target with what was to be written.
    pub verify: bool,
}

/// A database or a collection, and how it is to be called in the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Only {
    pub from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// The data of a part, and how much of it is in the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    pub job: RestoreId,
    pub id: PartId,
    /// The target's shard that takes it; none for the config servers, and for a single replica set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// As far as the stored data tells beforehand.
    pub expected: Amount,
    pub written: Amount,
    /// What is being done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
}

/// Collections and their documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Amount {
    pub collections: u64,
    pub documents: u64,
    pub bytes: u64,
}

/// How far a collection of a part is in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub part: PartId,
    /// Its UUID, in hex.
    pub collection: String,
    /// In the words of who writes it.
    pub record: String,
}

impl State {
    pub fn ended(self) -> bool {
        self >= State::Finished
    }

    /// Whether the target may hold something of it, and not all.
    pub fn has_begun(self) -> bool {
        matches!(self, State::Loading | State::Verifying | State::Opening)
    }

    pub fn name(self) -> &'static str {
        match self {
            State::Queued => "QUEUED",
            State::Checking => "CHECKING",
            State::Loading => "LOADING",
            State::Verifying => "VERIFYING",
            State::Opening => "OPENING",
            State::Finished => "FINISHED",
            State::Broken => "BROKEN",
            State::Killed => "KILLED",
        }
    }
}

impl Point {
    /// The time as of which a millisecond since the Unix epoch is restored. Cluster times tell the entries of
    /// a second apart by their order only, so it is up to its second, and not into it; nothing if there is no
    /// such cluster time.
    pub fn of_millisecond(millisecond: i64) -> Option<ClusterTime> {
        // No entry has the increment 0: it is before the first of its second.
        u32::try_from(millisecond.div_euclid(1_000)).ok().map(|second| ClusterTime::new(second, 0))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Restore {
    /// As it is asked for, without its parts.
    pub fn queued(
        id: RestoreId,
        cluster: ClusterId,
        now: Timestamp,
        point: Point,
        time: ClusterTime,
        target: Target,
        options: Options,
    ) -> Restore {
        Restore {
            id,
            cluster,
            state: State::Queued,
            requested: now,
            ended: None,
            point,
            time,
            target,
            options,
            parts: Vec::new(),
            told: false,
            cancelled: false,
            failure: None,
            trouble: None,
            verification: None,
        }
    }

    /// A rule that it breaks: a record that does is never written.
    pub fn broken_rule(&self) -> Option<&'static str> {
        let rules = [
            (self.ended.is_some() == self.state.ended(), "it has an end if and only if it has ended"),
            (self.failure.is_some() == (self.state == State::Broken), "it has a failure if and only if it is broken"),
            (self.state != State::Killed || self.cancelled, "it was killed and nobody asked for it"),
            (!self.state.ended() || self.trouble.is_none(), "it has ended and something is in its way"),
            (self.state != State::Finished || !self.parts.is_empty(), "it is finished and has no parts"),
            (
                self.state != State::Finished || self.verification.is_some() == self.options.verify,
                "it is finished and was not compared, though it was to be",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, rule)| rule)
    }

    /// All parts together.
    pub fn written(&self) -> Amount {
        self.parts.iter().fold(Amount::default(), |all, part| all + part.written)
    }

    pub fn expected(&self) -> Amount {
        self.parts.iter().fold(Amount::default(), |all, part| all + part.expected)
    }
}

impl std::ops::Add for Amount {
    type Output = Amount;

    fn add(self, other: Amount) -> Amount {
        Amount {
            collections: self.collections + other.collections,
            documents: self.documents + other.documents,
            bytes: self.bytes + other.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_millisecond_is_all_before_its_second() {
        for (millisecond, expected) in [
            (0, Some(ClusterTime::new(0, 0))),
            (7_000, Some(ClusterTime::new(7, 0))),
            (7_999, Some(ClusterTime::new(7, 0))),
            (8_000, Some(ClusterTime::new(8, 0))),
            (i64::from(u32::MAX) * 1_000 + 999, Some(ClusterTime::new(u32::MAX, 0))),
            (i64::from(u32::MAX) * 1_000 + 1_000, None),
            (-1, None),
            (i64::MIN, None),
            (i64::MAX, None),
        ] {
            assert_eq!(Point::of_millisecond(millisecond), expected, "{millisecond}");
        }
    }

    #[test]
    fn a_record_that_contradicts_itself_breaks_a_rule() {
        let now = Timestamp::UNIX_EPOCH;
        let time = ClusterTime::new(7, 1);
        let options = Options { verify: true, ..Options::default() };
        let (id, cluster) = (RestoreId::new(now, 1), ClusterId::new(now, 1));
        let queued = Restore::queued(id, cluster, now, Point::Time(time), time, Target::Hosts("h:1".into()), options);
        assert_eq!(queued.broken_rule(), None);
        let part = Part {
            job: queued.id,
            id: PartId::ConfigServers,
            shard: None,
            expected: Amount { collections: 1, documents: 2, bytes: 3 },
            written: Amount::default(),
            doing: None,
        };
        let verification = Verification { at: now, time: queued.time, parts: Vec::new() };
        let finished = Restore {
            state: State::Finished,
            ended: Some(now),
            parts: vec![part.clone(), part],
            verification: Some(verification),
            ..queued.clone()
        };
        assert_eq!(finished.broken_rule(), None);
        assert_eq!(finished.expected(), Amount { collections: 2, documents: 4, bytes: 6 });
        let killed = Restore { state: State::Killed, ended: Some(now), cancelled: true, ..queued.clone() };
        assert_eq!(killed.broken_rule(), None);
        let broken = [
            Restore { ended: None, ..finished.clone() },
            Restore { parts: Vec::new(), ..finished.clone() },
            Restore { verification: None, ..finished.clone() },
            Restore { trouble: Some("the target".into()), ..finished.clone() },
            Restore { failure: Some("no".into()), ..finished.clone() },
            Restore { state: State::Broken, ..finished },
            Restore { cancelled: false, ..killed },
            Restore { ended: Some(now), ..queued },
        ];
        for restore in broken {
            assert!(restore.broken_rule().is_some(), "{restore:?}");
        }
    }
}
