//! Which times the stored streams can restore, what stands in the way of the others, and which segments
//! nothing needs any more.
//!
//! To restore a part to T takes its entries up to T, and on until every transaction is resolved that was
//! prepared by T: it belongs to T if it committed at or before T, wherever its commit entry is.

use std::fmt;

use crate::checkpoint::{Checkpoint, PartId, State};
use crate::snapshot::{Data, Snapshot};
use crate::stream::{Gap, Segment, Stream};
use crate::{ClusterTime, SnapshotId};

/// What is stored of a cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stored<'a> {
    pub streams: &'a [Stream],
    pub gaps: &'a [Gap],
    pub snapshots: &'a [Snapshot],
}

/// What keeps a time from being restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// There is no stream of the part.
    NotCaptured(PartId),
    /// The part's stream begins after it.
    BeforeCapture { part: PartId, since: ClusterTime },
    /// Entries are missing.
    Gap(Gap),
    /// A transaction that was prepared by then is not ended in what is stored of the part.
    Unresolved { part: PartId, prepared: ClusterTime },
    /// No snapshot has the part as of then or before.
    NoSnapshot(PartId),
    /// This one has, and something of it is missing or damaged.
    Damaged { part: PartId, snapshot: SnapshotId },
}

impl Obstacle {
    /// A name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Obstacle::NotCaptured(_) => "NOT_CAPTURED",
            Obstacle::BeforeCapture { .. } => "BEFORE_CAPTURE",
            Obstacle::Gap(gap) => gap.cause.name(),
            Obstacle::Unresolved { .. } => "TRANSACTION_UNRESOLVED",
            Obstacle::NoSnapshot(_) => "NO_SNAPSHOT",
            Obstacle::Damaged { .. } => "SNAPSHOT_DAMAGED",
        }
    }
}

impl Obstacle {
    /// All of them, one after the other.
    pub fn all(obstacles: &[Obstacle]) -> String {
        obstacles.iter().map(Obstacle::to_string).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NotCaptured(part) => write!(f, "{part}: its oplog is not stored."),
            Obstacle::BeforeCapture { part, since } => write!(f, "{part}: its oplog is stored from {since} on."),
            Obstacle::Gap(gap) => gap.fmt(f),
            Obstacle::Unresolved { part, prepared } => {
                write!(
                    f,
                    "{part}: a transaction that was prepared at {} ({prepared}) is not known to have ended: try again once \
                     more is stored, or choose a time before it.",
                    prepared.date()
                )
            }
            Obstacle::NoSnapshot(part) => write!(f, "{part}: no snapshot has it as of then or before."),
            Obstacle::Damaged { part, snapshot } => {
                write!(
                    f,
                    "{part}: of the snapshot {snapshot}, which it would go on from, something is missing or damaged."
                )
            }
        }
    }
}

impl<'a> Stored<'a> {
    /// Whether the cluster can be restored to a checkpoint now.
    pub fn restorable(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.state == State::Completed && checkpoint.cut.is_some() && self.obstacles(checkpoint).is_empty()
    }

    /// What keeps a checkpoint from being restored; nothing of one that has no cut.
    pub fn obstacles(&self, checkpoint: &Checkpoint) -> Vec<Obstacle> {
        let Some(cut) = checkpoint.cut else { return Vec::new() };
        checkpoint.parts.iter().flat_map(|part| self.base(&part.id, cut).err().unwrap_or_default()).collect()
    }

    /// The parts that the cluster had at a time: those of the newest sound snapshot as of then or before, and
    /// those whose streams say that they were there, of which that snapshot may know nothing yet. Without such
    /// a snapshot there are none.
    pub fn parts(&self, time: ClusterTime) -> Vec<PartId> {
        let sound = self.snapshots.iter().filter(|snapshot| snapshot.is_sound());
        let before = sound.filter(|snapshot| snapshot.cut.is_some_and(|cut| cut <= time));
        let Some(newest) = before.max_by_key(|snapshot| snapshot.cut) else { return Vec::new() };
        let mut parts: Vec<_> = newest.parts.iter().map(|part| part.id.clone()).collect();
        let was_there =
            |stream: &&Stream| stream.from <= time && stream.ended.is_none_or(|ended| ClusterTime::at(ended) > time);
        for stream in self.streams.iter().filter(was_there) {
            if !parts.contains(&stream.part) {
                parts.push(stream.part.clone());
            }
        }
        parts
    }

    /// The newest data of a part from which its state at a time follows.
    pub fn base(&self, part: &PartId, time: ClusterTime) -> Result<&'a Data, Vec<Obstacle>> {
        let Some(stream) = self.streams.iter().find(|stream| stream.part == *part) else {
            return Err(vec![Obstacle::NotCaptured(part.clone())]);
        };
        if time < stream.since {
            return Err(vec![Obstacle::BeforeCapture { part: part.clone(), since: stream.since }]);
        }
        let touching =
            |from: ClusterTime| self.gaps.iter().filter(move |gap| gap.part == *part && gap.touches(from, time));
        let mut obstacles: Vec<_> = touching(time).map(|gap| Obstacle::Gap(gap.clone())).collect();
        if let Some(prepared) = stream.unresolved.filter(|prepared| *prepared <= time) {
            obstacles.push(Obstacle::Unresolved { part: part.clone(), prepared });
        }
        if !obstacles.is_empty() {
            return Err(obstacles);
        }
        // As it is it needs nothing more.
        let can_go_on = |data: &&Data| data.at == time || data.at < time && stream.is_kept_from(data.stream);
        let data = self.snapshots.iter().filter_map(|snapshot| snapshot.data(part)).filter(can_go_on);
        let mut data: Vec<_> = data.collect();
        data.sort_by_key(|data| std::cmp::Reverse(data.at));
        let newest = data.first().map(|data| data.stream);
        match data.into_iter().find(|data| touching(data.stream).next().is_none()) {
            Some(data) => Ok(data),
            None => Err(match newest.and_then(|from| touching(from).next()) {
                Some(gap) => vec![Obstacle::Gap(gap.clone())],
                None => {
                    let has_it = |snapshot: &&Snapshot| snapshot.unsound(part).is_some_and(|data| can_go_on(&data));
                    let damaged = self.snapshots.iter().filter(has_it).max_by_key(|snapshot| snapshot.cut);
                    vec![match damaged {
                        Some(damaged) => Obstacle::Damaged { part: part.clone(), snapshot: damaged.id },
                        None => Obstacle::NoSnapshot(part.clone()),
                    }]
                }
            }),
        }
    }
}

/// The last time that is whole when nothing comes after `last`: every transaction prepared by then is
/// resolved.
pub fn whole_until(last: &Segment) -> ClusterTime {
    let prepared = last.open.iter().filter_map(|transaction| transaction.prepared).min();
    prepared.map_or(last.last.time, |time| time.before())
}

/// The first time that is whole again when `lost` is missing and `later` are the segments after it: the
/// transactions that have entries in it are over by then. `None` if they are not yet.
pub fn whole_from<'a>(lost: &Segment, later: impl IntoIterator<Item = &'a Segment>) -> Option<ClusterTime> {
    let torn = |segment: &Segment| {
        segment.open.iter().any(|transaction| transaction.first <= lost.last && transaction.last >= lost.first)
    };
    if !torn(lost) {
        return Some(lost.last.time.after());
    }
    later.into_iter().find(|segment| !torn(segment)).map(|segment| segment.last.time)
}

/// Segments that end before the result may go, given the last one that ends before the first time to be
/// kept: it and all before it, but for what a transaction needs that is open after it.
pub fn may_go_before(last: &Segment) -> ClusterTime {
    let needed = last.open.iter().map(|transaction| transaction.first.time).min();
    needed.unwrap_or(ClusterTime::MAX).min(last.last.time.after())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::checkpoint::Part;
    use crate::stream::{BlobId, GapCause, OpenTransaction};
    use crate::{CheckpointId, ClusterId, OpTime, SnapshotId, snapshot};

    fn time(seconds: u32) -> ClusterTime {
        ClusterTime::new(seconds, 1)
    }

    fn at(seconds: u32) -> OpTime {
        OpTime::new(time(seconds), 1)
    }

    fn cluster() -> ClusterId {
        ClusterId::new(Timestamp::UNIX_EPOCH, 1)
    }

    fn open(first: u32, last: u32, prepared: Option<u32>) -> OpenTransaction {
        OpenTransaction {
            session: "00".into(),
            number: 1,
            first: at(first),
            last: at(last),
            prepared: prepared.map(time),
        }
    }

    fn segment(first: u32, last: u32, open: Vec<OpenTransaction>) -> Segment {
        Segment {
            cluster: cluster(),
            part: PartId::ConfigServers,
            blob: BlobId([0; 32]),
            previous: None,
            first: at(first),
            last: at(last),
            entries: 1,
            bytes: 1,
            stored: 1,
            sealed: Timestamp::UNIX_EPOCH,
            tokens: Vec::new(),
            open,
        }
    }

    #[test]
    fn a_checkpoint_says_what_of_its_streams_is_missing() {
        let shard = PartId::Shard("rs0".into());
        let stream = |part: &PartId, since| Stream {
            cluster: cluster(),
            part: part.clone(),
            replica_set: "set".into(),
            from: time(since),
            complete_from: time(since),
            since: time(since),
            began: Timestamp::UNIX_EPOCH,
            ended: None,
            unresolved: None,
            kept_from: None,
        };
        let part = |id: &PartId| Part { id: id.clone(), replica_set: "set".into(), term: None, token: None };
        let mut checkpoint =
            Checkpoint::queued(CheckpointId::new(Timestamp::UNIX_EPOCH, 1), cluster(), Timestamp::UNIX_EPOCH);
        checkpoint.parts = vec![part(&shard), part(&PartId::ConfigServers)];
        assert_eq!(Stored::default().obstacles(&checkpoint), [], "it has no cut yet");
        (checkpoint.state, checkpoint.cut) = (State::Completed, Some(time(50)));

        let gap = Gap {
            part: shard.clone(),
            after: time(40),
            until: time(60),
            cause: GapCause::RolledOver,
            found: Timestamp::UNIX_EPOCH,
            detail: "make it larger".into(),
        };
        let elsewhere = Gap { part: PartId::ConfigServers, after: time(60), until: time(70), ..gap.clone() };
        let streams = [stream(&shard, 10), stream(&PartId::ConfigServers, 10)];
        let snapshots = [snapshot(30, 20, &[&shard, &PartId::ConfigServers])];
        let stored = Stored { streams: &streams, gaps: &[], snapshots: &snapshots };
        assert!(stored.restorable(&checkpoint));
        let gaps = [gap.clone(), elsewhere.clone()];
        let torn = Stored { gaps: &gaps, ..stored };
        let found = torn.obstacles(&checkpoint);
        assert_eq!(found, [Obstacle::Gap(gap)]);
        assert!(!torn.restorable(&checkpoint));
        assert_eq!(found[0].code(), "ROLLED_OVER");
        assert!(!found[0].to_string().contains("larger"), "that is for the operator: {}", found[0]);
        assert_eq!(Stored { gaps: &[elsewhere], ..stored }.obstacles(&checkpoint), []);

        let late = [stream(&shard, 51)];
        let missing = Stored { streams: &late, ..stored }.obstacles(&checkpoint);
        assert_eq!(missing[0], Obstacle::BeforeCapture { part: shard.clone(), since: time(51) });
        assert_eq!(missing[1], Obstacle::NotCaptured(PartId::ConfigServers));

        // A transaction that was prepared by the cut belongs to it or not, and nobody knows.
        let prepared = |at| Stream { unresolved: Some(time(at)), ..stream(&shard, 10) };
        let open = [prepared(50), stream(&PartId::ConfigServers, 10)];
        let unresolved = Obstacle::Unresolved { part: shard.clone(), prepared: time(50) };
        assert_eq!(Stored { streams: &open, ..stored }.obstacles(&checkpoint), [unresolved]);
        let later = [prepared(51), stream(&PartId::ConfigServers, 10)];
        assert!(Stored { streams: &later, ..stored }.restorable(&checkpoint));

        checkpoint.state = State::Failed;
        assert!(!stored.restorable(&checkpoint));
    }

    fn snapshot(at: u32, stream: u32, parts: &[&PartId]) -> Snapshot {
        let now = Timestamp::UNIX_EPOCH;
        let data = Data {
            manifest: BlobId([at as u8; 32]),
            at: time(at),
            stream: time(stream),
            collections: 1,
            documents: 1,
            bytes: 5,
            stored: 5,
        };
        let part = |id: &&PartId| snapshot::Part {
            id: (*id).clone(),
            replica_set: "set".into(),
            read: None,
            data: Some(data),
        };
        Snapshot {
            state: snapshot::State::Completed,
            ended: Some(now),
            cut: Some(time(at)),
            parts: parts.iter().map(part).collect(),
            ..Snapshot::queued(SnapshotId::new(now, at.into()), cluster(), now)
        }
    }

    #[test]
    fn a_part_goes_on_from_the_newest_snapshot_that_no_gap_cuts_off() {
        let part = PartId::ConfigServers;
        let streams = [Stream {
            cluster: cluster(),
            part: part.clone(),
            replica_set: "set".into(),
            from: time(1),
            complete_from: time(1),
            since: time(1),
            began: Timestamp::UNIX_EPOCH,
            ended: None,
            unresolved: None,
            kept_from: None,
        }];
        let gap = |after, until| Gap {
            part: part.clone(),
            after: time(after),
            until: time(until),
            cause: GapCause::RolledOver,
            found: Timestamp::UNIX_EPOCH,
            detail: String::new(),
        };
        let unfinished = Snapshot { state: snapshot::State::Folding, ended: None, ..snapshot(45, 44, &[&part]) };
        let snapshots =
            [snapshot(20, 15, &[&part]), snapshot(40, 25, &[&part]), snapshot(60, 60, &[&part]), unfinished];
        let base = |gaps: &[Gap], at| {
            let stored = Stored { streams: &streams, gaps, snapshots: &snapshots };
            stored.base(&part, time(at)).map(|data| data.at)
        };
        assert_eq!(base(&[], 50), Ok(time(40)), "one that is not complete is none, nor is a later one");
        assert_eq!(base(&[], 40), Ok(time(40)));
        assert_eq!(base(&[], 39), Ok(time(20)));
        assert_eq!(base(&[], 19), Err(vec![Obstacle::NoSnapshot(part.clone())]));
        assert_eq!(base(&[], 19).unwrap_err()[0].code(), "NO_SNAPSHOT");
        // What the newest needs begins before its own time.
        assert_eq!(base(&[gap(26, 27)], 50), Err(vec![Obstacle::Gap(gap(26, 27))]));
        assert_eq!(base(&[gap(10, 15)], 50), Ok(time(40)));
        assert_eq!(base(&[gap(41, 45)], 39), Ok(time(20)));
        assert_eq!(base(&[gap(16, 17)], 39), Err(vec![Obstacle::Gap(gap(16, 17))]));
        // What it would go on with was given up: only the time that it is of is left.
        let streams = [Stream { kept_from: Some(time(26)), ..streams[0].clone() }];
        let trimmed = Stored { streams: &streams, gaps: &[], snapshots: &snapshots };
        let at = |at| trimmed.base(&part, time(at)).map(|data| data.at);
        assert_eq!((at(40), at(20)), (Ok(time(40)), Ok(time(20))));
        assert_eq!(
            (at(50), at(39)),
            (Err(vec![Obstacle::NoSnapshot(part.clone())]), Err(vec![Obstacle::NoSnapshot(part.clone())]))
        );
        assert_eq!(at(61), Ok(time(60)));
        // The newest that has it is named, if that is damaged; one that is sound is gone on from all the same.
        let damaged = snapshots.clone().map(|snapshot| Snapshot { damage: Some("a pack".into()), ..snapshot });
        let stored = Stored { streams: &streams, gaps: &[], snapshots: &damaged };
        let named = Obstacle::Damaged { part: part.clone(), snapshot: snapshots[1].id };
        assert_eq!(stored.base(&part, time(40)), Err(vec![named.clone()]));
        assert_eq!(named.code(), "SNAPSHOT_DAMAGED");
        assert_eq!(stored.base(&part, time(19)), Err(vec![Obstacle::NoSnapshot(part.clone())]));
        let one = [snapshots[0].clone(), damaged[1].clone()];
        let streams = [Stream { kept_from: None, ..streams[0].clone() }];
        let stored = Stored { streams: &streams, gaps: &[], snapshots: &one };
        assert_eq!(stored.base(&part, time(50)).map(|data| data.at), Ok(time(20)));
        // Of another part nothing is known.
        let other = PartId::Shard("rs0".into());
        let stored = Stored { streams: &streams, gaps: &[], snapshots: &snapshots };
        assert_eq!(stored.base(&other, time(50)), Err(vec![Obstacle::NotCaptured(other)]));
    }

    #[test]
    fn the_parts_of_a_time_are_those_of_the_snapshot_before_it_and_of_the_streams_that_were_there() {
        let [old, kept, added] = ["old", "kept", "added"].map(|name| PartId::Shard(name.into()));
        let stream = |part: &PartId, from: u32, ended: Option<u32>| Stream {
            cluster: cluster(),
            part: part.clone(),
            replica_set: "set".into(),
            from: time(from),
            complete_from: time(from),
            since: time(from),
            began: Timestamp::UNIX_EPOCH,
            ended: ended.map(|second| time(second).date()),
            unresolved: None,
            kept_from: None,
        };
        let streams = [stream(&old, 1, Some(30)), stream(&kept, 1, None), stream(&added, 50, None)];
        let damaged = Snapshot { damage: Some("a pack".into()), ..snapshot(42, 41, &[&added]) };
        let snapshots = [snapshot(20, 15, &[&old, &kept]), snapshot(40, 20, &[&kept]), damaged];
        let stored = Stored { streams: &streams, gaps: &[], snapshots: &snapshots };
        for (second, expected) in [
            (19, &[][..]),
            (20, &[&old, &kept]),
            (39, &[&old, &kept]),
            (40, &[&kept]),
            (49, &[&kept]),
            (50, &[&kept, &added]),
        ] {
            assert_eq!(stored.parts(time(second)).iter().collect::<Vec<_>>(), expected, "{second}");
        }
        // One that went is there until then.
        let snapshots = [snapshot(20, 15, &[&kept])];
        let stored = Stored { snapshots: &snapshots, ..stored };
        assert_eq!(stored.parts(time(29)), [kept.clone(), old]);
        assert_eq!(stored.parts(time(30)), [kept]);
    }

    #[test]
    fn before_a_gap_only_what_is_resolved_is_whole() {
        assert_eq!(whole_until(&segment(1, 20, vec![])), time(20));
        let segment = segment(1, 20, vec![open(5, 5, Some(5)), open(9, 9, Some(9)), open(3, 4, None)]);
        assert_eq!(whole_until(&segment), time(5).before());
    }

    #[test]
    fn after_a_lost_segment_all_is_whole_once_its_transactions_are_over() {
        let quiet = segment(10, 20, vec![open(5, 5, Some(5))]);
        assert_eq!(whole_from(&quiet, []), Some(time(20).after()), "that one has no entry in it");
        let lost = segment(10, 20, vec![open(5, 12, None), open(15, 15, Some(15))]);
        let still = segment(21, 30, vec![open(15, 15, Some(15)), open(25, 25, Some(25))]);
        let over = segment(31, 40, vec![open(25, 25, Some(25))]);
        assert_eq!(whole_from(&lost, [&still]), None);
        assert_eq!(whole_from(&lost, [&still, &over]), Some(time(40)));
    }

    #[test]
    fn what_an_open_transaction_needs_stays() {
        assert_eq!(may_go_before(&segment(10, 20, vec![])), time(20).after());
        assert_eq!(may_go_before(&segment(10, 20, vec![open(7, 7, Some(7))])), time(7));
    }
}
