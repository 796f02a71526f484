//! The record of a snapshot, as the catalog keeps it: the data of every part of a cluster as of one time.
//!
//! A part that no snapshot has yet is read from the cluster, piece by piece, each piece at a time of its own
//! ([`Part::read`]). From that, or from what the last snapshot has of it, and the stored oplog follows what its
//! data was at the snapshot's one time ([`Part::data`]).

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::checkpoint::PartId;
use crate::stream::BlobId;
use crate::{ClusterId, ClusterTime, SnapshotId};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    pub id: SnapshotId,
    pub cluster: ClusterId,
    pub state: State,
    /// When it was asked for.
    pub requested: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The snapshot that it goes on from; none if all of the cluster is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<SnapshotId>,
    /// The newest time of the cluster when it was begun: what was written before it was asked for is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<ClusterTime>,
    /// T: the time that it is as of. Known when all that must be read has been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<ClusterTime>,
    pub parts: Vec<Part>,
    /// When it may go; while it is not known, it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// It stays until somebody says otherwise.
    #[serde(default)]
    pub do_not_delete: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What is in the way now, while something is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What of it was found missing or damaged in the vault: nothing goes on from it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// How far a snapshot has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Asked for; nobody has begun it.
    Queued,
    /// Parts are read from the cluster.
    Reading,
    /// Its time is known: the stored oplog is folded up to it.
    Folding,
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
            State::Reading => "READING",
            State::Folding => "FOLDING",
            State::Completed => "COMPLETED",
            State::Failed => "FAILED",
        }
    }
}

/// One replica set of the cluster, and its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    pub id: PartId,
    pub replica_set: String,
    /// What was read from the cluster, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Data>,
    /// As of the snapshot's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
}

/// The data of a part, in the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    /// The blob that says what it is.
    pub manifest: BlobId,
    /// The latest time of it: all of it, unless it was read.
    pub at: ClusterTime,
    /// From here on the stream is needed to go on from it.
    pub stream: ClusterTime,
    pub collections: u64,
    pub documents: u64,
    /// Of the documents, as BSON.
    pub bytes: u64,
    /// What had to be stored for it, in the vault.
    pub stored: u64,
}

impl Snapshot {
    pub fn queued(id: SnapshotId, cluster: ClusterId, now: Timestamp) -> Snapshot {
        Snapshot {
            id,
            cluster,
            state: State::Queued,
            requested: now,
            ended: None,
            base: None,
            since: None,
            cut: None,
            parts: Vec::new(),
            expires: None,
            do_not_delete: false,
            failure: None,
            trouble: None,
            damage: None,
        }
    }

    pub fn is_complete(&self) -> bool {
        self.state == State::Completed
    }

    /// Whether it is complete, as far as is known.
    pub fn is_sound(&self) -> bool {
        self.is_complete() && self.damage.is_none()
    }

    /// What it has of a part, if it is sound.
    pub fn data(&self, part: &PartId) -> Option<&Data> {
        self.parts.iter().find(|one| one.id == *part)?.data.as_ref().filter(|_| self.is_sound())
    }

    /// What it had of a part, if it is damaged.
    pub fn unsound(&self, part: &PartId) -> Option<&Data> {
        let is_damaged = self.is_complete() && self.damage.is_some();
        self.parts.iter().find(|one| one.id == *part)?.data.as_ref().filter(|_| is_damaged)
    }

    /// A rule that it breaks: a record that does is never written.
    pub fn broken_rule(&self) -> Option<&'static str> {
        let folded = |part: &Part| part.data.is_none_or(|data| Some(data.at) == self.cut);
        let rules = [
            (self.ended.is_some() == self.state.ended(), "it has an end if and only if it has ended"),
            (self.failure.is_some() == (self.state == State::Failed), "it has a failure if and only if it failed"),
            (!self.is_complete() || !self.parts.is_empty(), "it is complete and has no parts"),
            (!self.is_complete() || self.parts.iter().all(|part| part.data.is_some()), "it is complete without a part"),
            (self.state < State::Folding || self.state == State::Failed || self.cut.is_some(), "it has no time"),
            (
                self.cut.is_none_or(|cut| self.since.is_none_or(|since| cut >= since)),
                "it is older than what asked for it",
            ),
            (self.parts.iter().all(folded), "a part is of another time"),
            (!self.state.ended() || self.trouble.is_none(), "it has ended and something is in its way"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, rule)| rule)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_contradicts_itself_breaks_a_rule() {
        let now = Timestamp::UNIX_EPOCH;
        let queued = Snapshot::queued(SnapshotId::new(now, 1), ClusterId::new(now, 1), now);
        assert_eq!(queued.broken_rule(), None);
        let at = ClusterTime::new(7, 1);
        let data =
            Data { manifest: BlobId([1; 32]), at, stream: at, collections: 1, documents: 1, bytes: 5, stored: 5 };
        let part = Part { id: PartId::ConfigServers, replica_set: "cfg".into(), read: None, data: Some(data) };
        let complete = Snapshot {
            state: State::Completed,
            ended: Some(now),
            cut: Some(at),
            parts: vec![part.clone()],
            ..queued.clone()
        };
        assert_eq!(complete.broken_rule(), None);
        assert_eq!(complete.data(&PartId::ConfigServers), Some(&data));
        let damaged = Snapshot { damage: Some("a pack".into()), ..complete.clone() };
        assert_eq!((damaged.broken_rule(), damaged.data(&PartId::ConfigServers)), (None, None));
        let folding = Snapshot { state: State::Folding, ended: None, ..complete.clone() };
        assert_eq!((folding.broken_rule(), folding.data(&PartId::ConfigServers)), (None, None));
        let broken = [
            Snapshot { ended: None, ..complete.clone() },
            Snapshot { failure: Some("no".into()), ..complete.clone() },
            Snapshot { state: State::Failed, ..complete.clone() },
            Snapshot { parts: vec![], ..complete.clone() },
            Snapshot { parts: vec![Part { data: None, ..part }], ..complete.clone() },
            Snapshot { cut: Some(at.after()), ..complete.clone() },
            Snapshot { since: Some(at.after()), ..complete.clone() },
            Snapshot { cut: None, ..folding },
            Snapshot { trouble: Some("the vault".into()), ..complete },
        ];
        for snapshot in broken {
            assert!(snapshot.broken_rule().is_some(), "{snapshot:?}");
        }
    }
}
