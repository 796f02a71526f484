use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use stillpoint_catalog::{Catalog, Lease, Page};
use stillpoint_core::checkpoint::{Checkpoint, Failure, PartId, Reason, State};
use stillpoint_core::stream::{OpenTransaction, Segment, Stream, place};
use stillpoint_core::{CheckpointId, ClusterTime, OpTime};
use stillpoint_vault::Vault;

use super::*;
use crate::fixture::Fixture;

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
    async fn new() -> World {
        // As the disk's clock has it; cluster times have no fractions of a second.
        let file = tempfile::NamedTempFile::new().unwrap();
        let began = Timestamp::try_from(file.as_file().metadata().unwrap().modified().unwrap()).unwrap();
        let began = Timestamp::from_second(began.as_second()).unwrap();
        let Fixture { folder, catalog, vault, cluster, lease } = Fixture::new(began).await;
        let stream = Stream {
            cluster: cluster.id,
            part: PART,
            replica_set: "cfg".into(),
            from: ClusterTime::at(began),
            complete_from: ClusterTime::at(began),
            since: ClusterTime::at(began),
            began,
            ended: None,
        };
        catalog.begin_stream(&lease, &stream, None).await.unwrap();
        World { folder, catalog, vault, lease, began }
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
        let (first, last) = (OpTime::new(self.time(from), 1), OpTime::new(self.time(to).before(), 1));
        let name = place(self.lease.cluster, &PART, first.time);
        let stored = self.vault.put(&name, Bytes::from(format!("{from} to {to}"))).await.unwrap();
        let previous = self.catalog.last_segment(self.lease.cluster, &PART).await.unwrap().map(|last| last.blob);
        let segment = Segment {
            cluster: self.lease.cluster,
            part: PART,
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
        let at = self.after(hour);
        let failure = Some(Failure { reason: Reason::TokenNotFound, detail: "gone".into() });
        let id = CheckpointId::new(at, 1);
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
        self.vault.list(SEGMENTS).count().await
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
    assert_eq!(world.sweep(25).await, 2);
    assert_eq!(world.vault.leftovers().count().await, 0);

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
    let world = World::new().await;
    world.segment(0, 1, vec![]).await;
    world.catalog.remove_cluster(world.lease.cluster, world.after(30)).await.unwrap();
    assert_eq!(world.sweep(53).await, 0);
    assert_eq!((world.sweep(55).await, world.blobs().await), (1, 0));
}
