//! The record of a restore, as the catalog keeps it: a cluster's data as of a time, written into another cluster, or
//! into files that are downloaded.
//!
//! The target shows nothing of it before it is whole: the data is loaded and compared with what was to be
//! written first, and only then do the target's config servers get to know of it ([`State::Opening`]). Files, one a
//! part, are had by a link each, once all of them are ready; see [`Standing`].

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::checkpoint::PartId;
use crate::snapshot::Data;
use crate::verification::Verification;
use crate::{CheckpointId, ClusterId, ClusterTime, DrillId, RestoreId, SnapshotId};

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
    /// The drill that it belongs to: then its target goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillId>,
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
    /// Documents and indexes are written: into the target, or into files.
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
    /// Files that are downloaded, each once, within so many hours since all of them are ready.
    Download { hours: u32 },
}

/// The hours that a link may live; those of one for which nobody says how many.
pub const LINK_HOURS: std::ops::RangeInclusive<u32> = 1..=168;
pub const USUAL_LINK_HOURS: u32 = 24;

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
    /// Of one that is to be downloaded, once it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<File>,
}

/// A part's archive, compressed with gzip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// As whoever downloads it gets to see it.
    pub name: String,
    pub bytes: u64,
    /// In hex.
    pub sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
}

/// Why a file that was ready is there no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Gone {
    Downloaded(Timestamp),
    Expired(Timestamp),
}

/// How it stands with what is to be downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Preparing,
    /// Its link is good until then.
    Ready(Timestamp),
    Downloaded(Timestamp),
    Expired(Timestamp),
    /// Its restore was cancelled, or could not be done.
    Withdrawn,
}

impl Part {
    /// Of a restore that nobody has begun.
    pub fn new(job: RestoreId, id: PartId, expected: Amount) -> Part {
        Part { job, id, shard: None, expected, written: Amount::default(), doing: None, file: None }
    }
}

impl From<&Data> for Amount {
    fn from(data: &Data) -> Amount {
        Amount { collections: data.collections, documents: data.documents, bytes: data.bytes }
    }
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

impl File {
    /// What the file of a job is called among the server's own.
    pub fn stored_as(job: RestoreId) -> String {
        format!("{job}.archive.gz")
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
            drill: None,
            told: false,
            cancelled: false,
            failure: None,
            trouble: None,
            verification: None,
        }
    }

    /// Until when what is to be downloaded may be.
    pub fn expires(&self) -> Option<Timestamp> {
        let Target::Download { hours } = self.target else { return None };
        let ended = self.ended.filter(|_| self.state == State::Finished)?;
        Some(ended.checked_add(SignedDuration::from_hours(hours.into())).unwrap_or(Timestamp::MAX))
    }

    /// How it stands with a part that is to be downloaded; nothing if it is not.
    pub fn standing(&self, part: &Part, now: Timestamp) -> Option<Standing> {
        if !matches!(self.target, Target::Download { .. }) {
            return None;
        }
        Some(match (self.expires(), part.file.as_ref().and_then(|file| file.gone)) {
            (_, Some(Gone::Downloaded(at))) => Standing::Downloaded(at),
            (_, Some(Gone::Expired(at))) => Standing::Expired(at),
            (Some(expires), None) if expires <= now => Standing::Expired(expires),
            (Some(expires), None) => Standing::Ready(expires),
            (None, None) if self.state.ended() => Standing::Withdrawn,
            (None, None) => Standing::Preparing,
        })
    }

    /// Whether any part of it can be downloaded still.
    pub fn can_be_downloaded(&self, now: Timestamp) -> bool {
        self.parts.iter().any(|part| matches!(self.standing(part, now), Some(Standing::Ready(_))))
    }

    /// A rule that it breaks: a record that does is never written.
    pub fn broken_rule(&self) -> Option<&'static str> {
        let is_download = matches!(self.target, Target::Download { .. });
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
            (
                self.state != State::Finished || self.parts.iter().all(|part| part.file.is_some() == is_download),
                "it is finished and has no file of a part, or has one that nobody asked for",
            ),
            (!is_download || !self.options.verify, "there is no target to be compared, and it was to be"),
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
            file: None,
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
    #[test]
    fn a_file_is_had_from_when_all_are_ready_until_it_was_or_its_time_is_over() {
        let (now, time) = (Timestamp::UNIX_EPOCH, ClusterTime::new(7, 1));
        let after = |hours: i64| now + SignedDuration::from_hours(hours);
        let (id, cluster, target) = (RestoreId::new(now, 1), ClusterId::new(now, 1), Target::Download { hours: 3 });
        let queued = Restore::queued(id, cluster, now, Point::Time(time), time, target, Options::default());
        let file = File { name: "a".into(), bytes: 7, sha256: "00".into(), gone: None };
        let part = |n, file| Part {
            job: RestoreId::new(now, n),
            id: PartId::ConfigServers,
            shard: None,
            expected: Amount::default(),
            written: Amount::default(),
            doing: None,
            file,
        };
        let gone = |gone| Some(File { gone: Some(gone), ..file.clone() });
        let loading =
            Restore { state: State::Loading, parts: vec![part(2, Some(file.clone())), part(3, None)], ..queued };
        let standings = |restore: &Restore, now| {
            let all = restore.parts.iter().map(|part| restore.standing(part, now).unwrap());
            all.collect::<Vec<_>>()
        };
        assert_eq!(standings(&loading, now), [Standing::Preparing; 2], "all or none");
        assert_eq!(loading.broken_rule(), None);
        let finished = Restore { state: State::Finished, ended: Some(now), ..loading.clone() };
        assert!(finished.broken_rule().is_some(), "one is not there");
        let finished = Restore { parts: vec![part(2, Some(file.clone())), part(3, Some(file.clone()))], ..finished };
        assert_eq!(finished.broken_rule(), None);
        assert_eq!(standings(&finished, after(2)), [Standing::Ready(after(3)); 2]);
        assert_eq!(standings(&finished, after(3)), [Standing::Expired(after(3)); 2]);
        assert!(finished.can_be_downloaded(after(2)) && !finished.can_be_downloaded(after(3)));
        let used = Restore {
            parts: vec![part(2, gone(Gone::Downloaded(after(1)))), part(3, gone(Gone::Expired(after(4))))],
            ..finished.clone()
        };
        assert_eq!(standings(&used, after(2)), [Standing::Downloaded(after(1)), Standing::Expired(after(4))]);
        assert!(!used.can_be_downloaded(after(2)));
        let killed = Restore { state: State::Killed, cancelled: true, ..finished.clone() };
        assert_eq!(standings(&killed, now), [Standing::Withdrawn; 2]);

        let into_a_cluster = Restore { target: Target::Cluster(cluster), ..finished.clone() };
        assert_eq!(into_a_cluster.standing(&into_a_cluster.parts[0], now), None);
        assert!(into_a_cluster.broken_rule().is_some(), "it has files");
        let compared = Options { verify: true, ..Options::default() };
        assert!(Restore { options: compared, ..loading }.broken_rule().is_some(), "with what?");
    }
}
