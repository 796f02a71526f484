//! Which times the stored streams can restore, what stands in the way of the others, and which segments
//! nothing needs any more.
//!
//! To restore a part to T takes its entries up to T, and on until every transaction is resolved that was
//! prepared by T: it belongs to T if it committed at or before T, wherever its commit entry is.

use std::fmt;

use crate::ClusterTime;
use crate::checkpoint::{Checkpoint, PartId};
use crate::stream::{Gap, Segment, Stream};

/// What keeps a time from being restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// There is no stream of the part.
    NotCaptured(PartId),
    /// The part's stream begins after it.
    BeforeCapture { part: PartId, since: ClusterTime },
    /// Entries are missing.
    Gap(Gap),
}

impl Obstacle {
    /// A name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Obstacle::NotCaptured(_) => "NOT_CAPTURED",
            Obstacle::BeforeCapture { .. } => "BEFORE_CAPTURE",
            Obstacle::Gap(gap) => gap.cause.name(),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NotCaptured(part) => write!(f, "{part}: its oplog is not stored."),
            Obstacle::BeforeCapture { part, since } => write!(f, "{part}: its oplog is stored from {since} on."),
            Obstacle::Gap(gap) => gap.fmt(f),
        }
    }
}

/// What of the streams keeps a checkpoint from being restored; nothing of one that has no cut.
pub fn obstacles(checkpoint: &Checkpoint, streams: &[Stream], gaps: &[Gap]) -> Vec<Obstacle> {
    let Some(cut) = checkpoint.cut else { return Vec::new() };
    checkpoint.parts.iter().flat_map(|part| obstacles_of(&part.id, cut, streams, gaps)).collect()
}

fn obstacles_of(part: &PartId, time: ClusterTime, streams: &[Stream], gaps: &[Gap]) -> Vec<Obstacle> {
    let Some(stream) = streams.iter().find(|stream| stream.part == *part) else {
        return vec![Obstacle::NotCaptured(part.clone())];
    };
    if time < stream.since {
        return vec![Obstacle::BeforeCapture { part: part.clone(), since: stream.since }];
    }
    let touching = gaps.iter().filter(|gap| gap.part == *part && gap.touches(time, time));
    touching.map(|gap| Obstacle::Gap(gap.clone())).collect()
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
    use crate::checkpoint::{Part, State};
    use crate::stream::{BlobId, GapCause, OpenTransaction};
    use crate::{CheckpointId, ClusterId, OpTime};

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
        };
        let part = |id: &PartId| Part { id: id.clone(), replica_set: "set".into(), term: None, token: None };
        let mut checkpoint =
            Checkpoint::queued(CheckpointId::new(Timestamp::UNIX_EPOCH, 1), cluster(), Timestamp::UNIX_EPOCH);
        checkpoint.parts = vec![part(&shard), part(&PartId::ConfigServers)];
        assert_eq!(obstacles(&checkpoint, &[], &[]), [], "it has no cut yet");
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
        let found = obstacles(&checkpoint, &streams, &[gap.clone(), elsewhere.clone()]);
        assert_eq!(found, [Obstacle::Gap(gap)]);
        assert_eq!(found[0].code(), "ROLLED_OVER");
        assert!(!found[0].to_string().contains("larger"), "that is for the operator: {}", found[0]);
        assert_eq!(obstacles(&checkpoint, &streams, &[elsewhere]), []);

        let late = [stream(&shard, 51)];
        let missing = obstacles(&checkpoint, &late, &[]);
        assert_eq!(missing[0], Obstacle::BeforeCapture { part: shard, since: time(51) });
        assert_eq!(missing[1], Obstacle::NotCaptured(PartId::ConfigServers));
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
