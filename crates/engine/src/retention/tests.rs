use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use stillpoint_catalog::{Catalog, Lease, Page};
use stillpoint_core::checkpoint::{Checkpoint, Failure, Part, PartId, Reason, State};
use stillpoint_core::restore::{Options, Point, Restore, Target};
use stillpoint_core::snapshot::{self, Data};
use stillpoint_core::stream::{Gap, GapCause, OpenTransaction, Segment, Stream, place};
use stillpoint_core::{CheckpointId, ClusterTime, OpTime, RestoreId, SnapshotId};
use stillpoint_vault::Vault;

use super::*;
use crate::fixture::Fixture;
use crate::snapshots::stream_from;

struct World {
    folder: tempfile::TempDir,
    catalog: Arc<dyn Catalog>,
    vault: Vault,
    lease: Lease,
    /// What the disk's clock said at the beginning.
    began: Timestamp,
}

const PART: PartId = PartId::ConfigServers;

impl World {
    /// A cluster that goes on and on: another part's newest entry is later than all that the tests ask for.
    async fn new() -> World {
        let world = World::at_rest().await;
        let part = PartId::Shard("rs0".into());
        world.begin(&part).await;
        world.segment_of(&part, 200_000, 200_001, vec![]).await;
        world
    }

    async fn at_rest() -> World {
        // As the disk's clock has it; cluster times have no fractions of a second.
        let file = tempfile::NamedTempFile::new().unwrap();
        let began = Timestamp::try_from(file.as_file().metadata().unwrap().modified().unwrap()).unwrap();
        let began = Timestamp::from_second(began.as_second()).unwrap();
        let Fixture { folder, catalog, vault, cluster, lease } = Fixture::new(began).await;
        assert_eq!(cluster.id, lease.cluster);
        let world = World { folder, catalog, vault, lease, began };
        world.begin(&PART).await;
        world
    }

    async fn begin(&self, part: &PartId) {
        let stream = Stream {
            cluster: self.lease.cluster,
            part: part.clone(),
            replica_set: "set".into(),
            from: self.time(0),
            complete_from: self.time(0),
            since: self.time(0),
            began: self.began,
            ended: None,
            unresolved: None,
            kept_from: None,
        };
        self.catalog.begin_stream(&self.lease, &stream, None).await.unwrap();
    }

    fn after(&self, hours: i64) -> Timestamp {
        self.began + SignedDuration::from_hours(hours)
    }

    fn time(&self, hours: i64) -> ClusterTime {
        ClusterTime::at(self.after(hours))
    }

    fn setup(&self, hours: i64) -> Setup {
        let now = self.after(hours);
        Setup::new(self.catalog.clone(), self.vault.clone(), Arc::new(move || now), "here".into())
    }

    /// Stores a segment from one hour to just before another.
    async fn segment(&self, from: i64, to: i64, open: Vec<OpenTransaction>) -> Segment {
        self.segment_of(&PART, from, to, open).await
    }

    async fn segment_of(&self, part: &PartId, from: i64, to: i64, open: Vec<OpenTransaction>) -> Segment {
        let (first, last) = (OpTime::new(self.time(from), 1), OpTime::new(self.time(to).before(), 1));
        let name = place(self.lease.cluster, part, first.time);
        let stored = self.vault.put(&name, Bytes::from(format!("{from} to {to}"))).await.unwrap();
        let stream = self.catalog.stream(self.lease.cluster, part).await.unwrap().unwrap();
        let previous = self.catalog.last_segment(self.lease.cluster, part).await.unwrap();
        let previous = previous.filter(|last| last.first.time >= stream.from).map(|last| last.blob);
        let segment = Segment {
            cluster: self.lease.cluster,
            part: part.clone(),
            blob: stored.blob,
            previous,
            first,
            last,
            entries: 1,
            bytes: 1,
            stored: stored.stored,
            sealed: self.after(to),
            tokens: vec![],
            open,
        };
        self.catalog.append_segment(&self.lease, &segment).await.unwrap();
        segment
    }

    async fn checkpoint(&self, hour: i64) -> CheckpointId {
        self.checkpoint_called(hour, hour).await
    }

    /// As if the host's clock had said another hour when it was asked for.
    async fn checkpoint_called(&self, clock: i64, hour: i64) -> CheckpointId {
        let at = self.after(hour);
        let failure = Some(Failure { reason: Reason::TokenNotFound, detail: "gone".into() });
        let id = CheckpointId::new(self.after(clock), 1);
        let queued = Checkpoint::queued(id, self.lease.cluster, at);
        let ended = Checkpoint { state: State::Failed, ended: Some(at), failure, cut: Some(self.time(hour)), ..queued };
        self.catalog.queue_checkpoint(&ended).await.unwrap();
        id
    }

    /// The hours at which the segments begin that the catalog knows.
    async fn known(&self) -> Vec<i64> {
        let all = self.catalog.segments(self.lease.cluster, &PART, ClusterTime::ZERO, ClusterTime::MAX, 100);
        let hours = |segment: &Segment| segment.first.time.date().duration_since(self.began).as_hours();
        all.await.unwrap().iter().map(hours).collect()
    }

    async fn blobs(&self) -> usize {
        let of_part = place(self.lease.cluster, &PART, ClusterTime::ZERO);
        self.vault.list(of_part.rsplit_once('/').unwrap().0).count().await
    }

    /// Where a blob is on the disk.
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("vault").join(name)
    }

    async fn expire(&self, hours: i64) {
        expire_once(&self.setup(hours), &self.lease).await.unwrap();
    }

    async fn sweep(&self, hours: i64) -> u64 {
        sweep_once(&self.setup(hours)).await.unwrap()
    }
}

#[tokio::test]
async fn what_neither_the_window_nor_a_checkpoint_needs_goes_and_its_blob_later() {
    let world = World::new().await;
    for hour in 0..40 {
        world.segment(hour, hour + 1, vec![]).await;
    }
    let old = world.checkpoint(10).await;
    world.expire(33).await;
    assert_eq!(world.known().await, (9..40).collect::<Vec<_>>(), "a day, and an hour begun");
    // A checkpoint that is kept longer than the window keeps what it needs.
    let mut longer = world.setup(36);
    longer.retention.checkpoints = SignedDuration::from_hours(48);
    expire_once(&longer, &world.lease).await.unwrap();
    assert_eq!(world.known().await, (10..40).collect::<Vec<_>>());
    assert!(world.catalog.checkpoint(world.lease.cluster, old).await.unwrap().is_some());
    assert_eq!(world.blobs().await, 40, "somebody may be reading them");

    world.expire(36).await;
    assert!(world.catalog.checkpoint(world.lease.cluster, old).await.unwrap().is_none());
    assert_eq!(world.catalog.checkpoints(world.lease.cluster, Page::FIRST).await.unwrap(), []);
    world.expire(36).await;
    assert_eq!(world.known().await, (12..40).collect::<Vec<_>>());
    assert_eq!(world.sweep(50).await, 0, "the grace is not over");
    assert_eq!(world.sweep(61).await, 12);
    assert_eq!((world.blobs().await, world.sweep(61).await), (28, 0));
}

#[tokio::test]
async fn what_an_open_transaction_needs_stays_and_so_does_the_newest_segment() {
    let world = World::new().await;
    let first = OpTime::new(world.time(1), 1);
    let open = OpenTransaction { session: "00".into(), number: 1, first, last: first, prepared: Some(first.time) };
    for hour in 0..10 {
        let open = if (1..8).contains(&hour) { vec![open.clone()] } else { vec![] };
        world.segment(hour, hour + 1, open).await;
    }
    world.expire(24 + 6).await;
    assert_eq!(world.known().await, (1..10).collect::<Vec<_>>());
    world.expire(24 + 9).await;
    assert_eq!(world.known().await, [9]);
    world.expire(1_000).await;
    assert_eq!(world.known().await, [9], "capture goes on after it");
}

#[tokio::test]
async fn data_since_a_gap_needs_nothing_from_before_it() {
    let world = World::new().await;
    let first = OpTime::new(world.time(1), 1);
    let open = OpenTransaction { session: "00".into(), number: 1, first, last: first, prepared: Some(first.time) };
    world.segment(0, 1, vec![]).await;
    world.segment(1, 3, vec![open]).await;
    let needed = async |at| stream_from(&*world.catalog, world.lease.cluster, &PART, world.time(at)).await.unwrap();
    assert_eq!(needed(4).await, world.time(1), "the transaction is open");

    let before = world.catalog.stream(world.lease.cluster, &PART).await.unwrap().unwrap();
    let gap = Gap {
        part: PART,
        after: world.time(3).before(),
        until: world.time(11),
        cause: GapCause::RolledOver,
        detail: "too late".into(),
        found: world.after(12),
    };
    let anew = Stream { from: world.time(10), complete_from: world.time(11), ..before };
    world.catalog.begin_stream(&world.lease, &anew, Some(&gap)).await.unwrap();
    assert_eq!(needed(4).await, world.time(1), "data from before the gap");
    assert_eq!(needed(12).await, world.time(10), "all that is open since is in the new stream");
    world.segment(10, 13, vec![]).await;
    assert_eq!(needed(12).await, world.time(10));
    assert_eq!(needed(14).await, world.time(13));
}

#[tokio::test]
async fn a_crash_at_any_moment_leaves_at_most_blobs_that_the_next_sweep_takes() {
    let world = World::new().await;
    for hour in 0..10 {
        world.segment(hour, hour + 1, vec![]).await;
    }
    // Stored, and killed before it was noted.
    world.vault.put("oplog/lost/config/1-1", Bytes::from_static(b"x")).await.unwrap();
    // Killed while it was stored.
    std::fs::write(world.folder.path().join("vault/oplog/lost/config/2-1#1"), "hal").unwrap();
    assert_eq!(world.sweep(23).await, 0, "it may be noted in a moment");
    assert_eq!(world.sweep(25).await, 1);
    assert_eq!(world.vault.leftovers().count().await, 0);
    assert_eq!(world.sweep(48).await, 0, "a catalog that names it may be put back");
    assert_eq!(world.sweep(50).await, 1);

    // Killed in the middle of a sweep: some blobs are gone, and still doomed.
    world.expire(24 + 5).await;
    let doomed = world.catalog.doomed(world.after(60), 100).await.unwrap();
    assert_eq!(doomed.len(), 5);
    for name in &doomed[..2] {
        world.vault.delete(name).await.unwrap();
    }
    assert_eq!(world.sweep(60).await, 5);
    assert_eq!((world.blobs().await, world.catalog.doomed(world.after(60), 100).await.unwrap().len()), (5, 0));
    // What the catalog knows is never among what a sweep takes.
    assert_eq!((world.known().await.len(), world.sweep(10_000).await), (5, 0));
}

#[tokio::test]
async fn the_blobs_of_a_removed_cluster_go_after_the_grace() {
    let world = World::at_rest().await;
    world.segment(0, 1, vec![]).await;
    world.catalog.remove_cluster(world.lease.cluster, world.after(30)).await.unwrap();
    assert_eq!(world.sweep(53).await, 0);
    assert_eq!((world.sweep(55).await, world.blobs().await), (1, 0));
}

#[tokio::test]
async fn the_oldest_cut_is_kept_whatever_the_clock_said_when_its_checkpoint_was_asked_for() {
    let world = World::new().await;
    for hour in 0..40 {
        world.segment(hour, hour + 1, vec![]).await;
    }
    // The clock was put back between the two.
    world.checkpoint_called(20, 10).await;
    world.checkpoint_called(5, 15).await;
    let mut longer = world.setup(39);
    longer.retention.checkpoints = SignedDuration::from_hours(48);
    expire_once(&longer, &world.lease).await.unwrap();
    assert_eq!(world.known().await, (10..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_clock_that_is_far_ahead_gives_nothing_up() {
    let world = World::at_rest().await;
    for hour in 0..30 {
        world.segment(hour, hour + 1, vec![]).await;
    }
    let kept = world.checkpoint(20).await;
    world.expire(100_000).await;
    assert_eq!(world.known().await, (5..30).collect::<Vec<_>>(), "a day before the newest entry, and an hour begun");
    assert!(world.catalog.checkpoint(world.lease.cluster, kept).await.unwrap().is_some());
    // One that is behind keeps more.
    world.expire(20).await;
    assert_eq!(world.known().await, (5..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_transaction_that_was_open_over_many_segments_does_not_keep_what_is_before_it_for_ever() {
    let world = World::new().await;
    let first = OpTime::new(world.time(0), 1);
    let open = OpenTransaction { session: "00".into(), number: 1, first, last: first, prepared: Some(first.time) };
    let many = BATCH as i64 + 10;
    for hour in 0..many {
        world.segment(hour, hour + 1, vec![open.clone()]).await;
    }
    world.expire(many + 20).await;
    assert_eq!(world.catalog.segment_totals(world.lease.cluster, &PART).await.unwrap().segments, many as u64);
    for hour in many..many + 3 {
        world.segment(hour, hour + 1, vec![]).await;
    }
    world.expire(many + 24 + 2).await;
    assert_eq!(world.known().await, [many + 2]);
}

#[tokio::test]
async fn a_gap_stays_while_a_segment_before_it_does() {
    let world = World::new().await;
    let first = OpTime::new(world.time(0), 1);
    let open = OpenTransaction { session: "00".into(), number: 1, first, last: first, prepared: None };
    for hour in 0..10 {
        let open = if hour < 8 { vec![open.clone()] } else { vec![] };
        world.segment(hour, hour + 1, open).await;
    }
    let gap = Gap {
        part: PART,
        after: world.time(2),
        until: world.time(3),
        cause: GapCause::SegmentMissing,
        found: world.began,
        detail: String::new(),
    };
    world.catalog.add_gap(world.lease.cluster, &gap).await.unwrap();
    world.expire(24 + 6).await;
    assert_eq!(world.known().await.len(), 10);
    assert_eq!(world.catalog.gaps(world.lease.cluster).await.unwrap(), [gap]);
    world.expire(24 + 9).await;
    assert_eq!(world.known().await, [9]);
    assert_eq!(world.catalog.gaps(world.lease.cluster).await.unwrap(), []);
}

#[tokio::test]
async fn a_blob_that_cannot_be_deleted_is_in_no_others_way() {
    let world = World::new().await;
    for hour in 0..10 {
        world.segment(hour, hour + 1, vec![]).await;
    }
    world.expire(24 + 5).await;
    let stuck = world.catalog.doomed(world.after(60), 1).await.unwrap().pop().unwrap();
    // No file has this name any more.
    std::fs::remove_file(world.file(&stuck)).unwrap();
    std::fs::create_dir(world.file(&stuck)).unwrap();
    for _ in 0..2 {
        let left = sweep_once(&world.setup(60)).await.unwrap_err().to_string();
        assert!(left.starts_with(&format!("1 blobs could not be deleted, first {stuck}: ")), "{left}");
        assert_eq!(world.catalog.doomed(world.after(60), 100).await.unwrap(), [stuck.as_str()]);
        assert_eq!(world.blobs().await, 5);
    }
    std::fs::remove_dir(world.file(&stuck)).unwrap();
    assert_eq!(world.sweep(60).await, 1);
}

#[tokio::test]
async fn a_blob_that_is_stored_again_is_saved_unless_its_deletion_has_begun() {
    let world = World::new().await;
    let (name, content) = ("oplog/again/config/1-1", Bytes::from_static(b"the same"));
    let stored = world.vault.put(name, content.clone()).await.unwrap();
    world.sweep(25).await;
    let all = world.catalog.doomed(world.after(60), 100).await.unwrap();
    assert_eq!(all, [format!("{name}-{}", stored.blob)]);
    world.catalog.keep_blobs(name).await.unwrap();
    assert_eq!(world.sweep(60).await, 0, "it is doomed anew");
    assert_eq!(world.catalog.condemn(&all).await.unwrap(), all);
    let refused = world.catalog.keep_blobs(name).await;
    assert!(matches!(refused, Err(CatalogError::BeingDeleted(_))), "{refused:?}");
    // As after a kill in between.
    assert_eq!(world.sweep(60).await, 1);
    world.catalog.keep_blobs(name).await.unwrap();
}

impl World {
    /// A complete snapshot as of an hour, which needs the stream from another on, in a blob of its own and
    /// one that all share.
    async fn snapshot(&self, stream: i64, hour: i64, expires: i64) -> SnapshotId {
        let (cluster, cut) = (self.lease.cluster, self.time(hour));
        let mut snapshot = Snapshot::queued(SnapshotId::new(self.after(hour), hour as u64), cluster, self.after(hour));
        self.catalog.queue_snapshot(&snapshot).await.unwrap();
        let mut blobs = Vec::new();
        for content in ["shared".to_owned(), format!("of {hour}")] {
            let place = format!("{SNAPSHOTS}/{cluster}/config/pack");
            let put = self.vault.put(&place, Bytes::from(content)).await.unwrap();
            blobs.push((format!("{place}-{}", put.blob), put.blob));
        }
        let data = Data {
            manifest: blobs[1].1,
            at: cut,
            stream: self.time(stream),
            collections: 1,
            documents: 1,
            bytes: 5,
            stored: 5,
        };
        let part = snapshot::Part { id: PART, replica_set: "set".into(), read: None, data: Some(data) };
        (snapshot.state, snapshot.ended) = (snapshot::State::Completed, Some(self.after(hour)));
        (snapshot.cut, snapshot.parts, snapshot.expires) = (Some(cut), vec![part], Some(self.after(expires)));
        let names: Vec<_> = blobs.into_iter().map(|(name, _)| name).collect();
        self.catalog.save_snapshot(&self.lease, &snapshot, &names).await.unwrap();
        snapshot.id
    }

    async fn snapshots(&self) -> Vec<SnapshotId> {
        let all = self.catalog.snapshots(self.lease.cluster, Page::ALL).await.unwrap();
        all.into_iter().rev().map(|snapshot| snapshot.id).collect()
    }

    /// Blobs of snapshots in the vault.
    async fn packs(&self) -> usize {
        self.vault.list(SNAPSHOTS).try_collect::<Vec<_>>().await.unwrap().len()
    }
}

#[tokio::test]
async fn a_snapshot_goes_when_its_time_is_over_and_nothing_that_is_kept_needs_it() {
    let world = World::new().await;
    for hour in 0..100 {
        world.segment(hour, hour + 1, vec![]).await;
    }
    let first = world.snapshot(8, 10, 20).await;
    let second = world.snapshot(28, 30, 40).await;
    let third = world.snapshot(58, 60, 70).await;
    assert_eq!(world.packs().await, 4, "one that all share, and one of each");
    // The window of 24 hours begins at 71: its times are restored from the third.
    let setup = world.setup(95);
    expire_once(&setup, &world.lease).await.unwrap();
    assert_eq!(world.snapshots().await, [third]);
    let oldest = world.catalog.segments(world.lease.cluster, &PART, ClusterTime::ZERO, ClusterTime::MAX, 1).await;
    let oldest = oldest.unwrap().remove(0);
    assert!(oldest.first.time <= world.time(58), "{} is needed from {} on", oldest.first, world.time(58));
    assert!(oldest.last.time >= world.time(57), "what is before it is not: {}", oldest.last);
    assert!(![first, second].contains(&third));
    // Their own blobs go after the grace, the shared one stays.
    sweep_once(&world.setup(95 + 25)).await.unwrap();
    assert_eq!(world.packs().await, 2);
}

#[tokio::test]
async fn what_the_oldest_checkpoint_and_a_snapshot_under_way_need_stays() {
    let world = World::new().await;
    for hour in 0..100 {
        world.segment(hour, hour + 1, vec![]).await;
    }
    let first = world.snapshot(8, 10, 20).await;
    let second = world.snapshot(58, 60, 70).await;
    let needed = |snapshots: &[Snapshot], keep_from: i64| needed_from(snapshots, &PART, world.time(keep_from));
    let all = world.catalog.snapshots(world.lease.cluster, Page::ALL).await.unwrap();
    assert_eq!(needed(&all, 71), world.time(58));
    assert_eq!(needed(&all, 59), world.time(8), "the times from 59 to 60 go on from the first");
    assert_eq!(needed(&all, 5), world.time(5));
    assert_eq!(needed(&[], 71), world.time(71));
    let mut open = Snapshot::queued(SnapshotId::new(world.after(40), 9), world.lease.cluster, world.after(40));
    open.state = snapshot::State::Reading;
    assert_eq!(needed(&[open.clone()], 71), world.time(39), "it may have begun to read then");
    // A checkpoint from between them is kept: so is the snapshot before it.
    let mut setup = world.setup(95);
    setup.retention.checkpoints = SignedDuration::from_hours(1000);
    world.checkpoint(40).await;
    expire_once(&setup, &world.lease).await.unwrap();
    assert_eq!(world.snapshots().await, [first, second]);
}

#[tokio::test]
async fn a_pack_that_no_record_names_goes_after_two_graces() {
    let world = World::new().await;
    let place = format!("{SNAPSHOTS}/{}/config/pack", world.lease.cluster);
    world.vault.put(&place, Bytes::from_static(b"orphan")).await.unwrap();
    for (hours, left) in [(20, 1), (25, 1), (60, 0)] {
        sweep_once(&world.setup(hours)).await.unwrap();
        assert_eq!(world.packs().await, left, "after {hours} hours");
    }
}

#[tokio::test]
async fn a_snapshot_that_alone_makes_a_kept_checkpoint_restorable_stays() {
    let world = World::new().await;
    for hour in 0..100 {
        world.segment(hour, hour + 1, vec![]).await;
    }
    world.snapshot(8, 10, 20).await;
    // After it there is a gap: what is later goes on from the second one, which is soon over.
    let gap = Gap {
        part: PART,
        after: world.time(12),
        until: world.time(14),
        cause: GapCause::RolledOver,
        found: world.after(14),
        detail: String::new(),
    };
    world.catalog.add_gap(world.lease.cluster, &gap).await.unwrap();
    let second = world.snapshot(14, 15, 20).await;
    world.snapshot(80, 82, 90).await;
    let mut setup = world.setup(95);
    setup.retention.checkpoints = SignedDuration::from_hours(1000);
    world.checkpoint(11).await;
    let completed = world.completed(16).await;
    expire_once(&setup, &world.lease).await.unwrap();
    assert!(world.snapshots().await.contains(&second));
    // Without that checkpoint nothing needs it.
    world.catalog.delete_checkpoint(world.lease.cluster, completed).await.unwrap();
    expire_once(&setup, &world.lease).await.unwrap();
    assert!(!world.snapshots().await.contains(&second));
}

#[tokio::test]
async fn what_is_being_restored_is_kept_like_a_checkpoint_until_that_is_done() {
    let world = World::new().await;
    for hour in 0..100 {
        world.segment(hour, hour + 1, vec![]).await;
    }
    let first = world.snapshot(8, 10, 20).await;
    let second = world.snapshot(28, 30, 40).await;
    let third = world.snapshot(58, 60, 70).await;
    let restore = world.restoring(40).await;
    // The second has lost something: the first has to do for it.
    world.catalog.note_damage(world.lease.cluster, second, Some("a pack")).await.unwrap();
    for _ in 0..2 {
        world.expire(95).await;
        assert_eq!(world.snapshots().await, [first, second, third]);
        assert_eq!(world.known().await, (8..100).collect::<Vec<_>>());
    }
    let Holdings { streams, gaps, snapshots } = Holdings::of(&*world.catalog, world.lease.cluster).await.unwrap();
    let stored = Stored { streams: &streams, gaps: &gaps, snapshots: &snapshots };
    assert_eq!(stored.base(&PART, restore.time).unwrap().at, world.time(10));

    world.catalog.cancel_restore(world.lease.cluster, restore.id, world.after(96)).await.unwrap();
    world.expire(96).await;
    assert_eq!(world.snapshots().await, [third]);
    assert_eq!(world.known().await, (58..100).collect::<Vec<_>>());
}

impl World {
    /// A restore to an hour that waits for somebody to begin it.
    async fn restoring(&self, hour: i64) -> Restore {
        let time = self.time(hour);
        let (id, now) = (RestoreId::new(self.after(94), 1), self.after(94));
        let target = Target::Hosts("target.example".into());
        let options = Options { verify: true, ..Options::default() };
        let restore = Restore::queued(id, self.lease.cluster, now, Point::Time(time), time, target, options);
        self.catalog.queue_restore(&restore, Some(&"mongodb://target.example".into())).await.unwrap();
        restore
    }

    async fn completed(&self, hour: i64) -> CheckpointId {
        let (id, cut) = (CheckpointId::new(self.after(hour), 2), self.time(hour));
        let queued = Checkpoint::queued(id, self.lease.cluster, self.after(hour));
        let part = Part { id: PART, replica_set: "set".into(), term: None, token: None };
        let ended = Some(self.after(hour));
        let record = Checkpoint { state: State::Completed, ended, cut: Some(cut), parts: vec![part], ..queued };
        self.catalog.queue_checkpoint(&record).await.unwrap();
        id
    }
}
