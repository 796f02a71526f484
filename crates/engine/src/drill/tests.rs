//! What is done when, without a throw-away cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use stillpoint_core::drill::{Schedule, Stage};
use stillpoint_core::restore::Target;
use stillpoint_core::{ClusterTime, RestoreId};

use super::*;
use crate::fixture::Fixture;

struct World {
    run: Run,
    now: Arc<AtomicI64>,
    fixture: Fixture,
}

fn begin() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

impl World {
    async fn new() -> World {
        let fixture = Fixture::new(begin()).await;
        let now = Arc::new(AtomicI64::new(0));
        let minutes = now.clone();
        let clock = move || begin() + SignedDuration::from_mins(minutes.load(Ordering::Relaxed));
        let mut setup = Setup::new(fixture.catalog.clone(), fixture.vault.clone(), Arc::new(clock), "here".into());
        setup.snapshots.room.folder = fixture.folder.path().to_owned();
        World { run: Run { setup, lease: fixture.lease.clone() }, now, fixture }
    }

    /// All that is due when so many minutes have passed, done; the newest drill.
    async fn at(&self, minutes: i64) -> Option<Drill> {
        self.now.store(minutes, Ordering::Relaxed);
        let stop = CancellationToken::new();
        // First it is queued, then found.
        for _ in 0..2 {
            if let Some(drill) = self.run.next().await.unwrap() {
                self.run.to_the_end(drill, &stop).await.unwrap();
            }
        }
        self.drills().await.into_iter().next()
    }

    async fn drills(&self) -> Vec<Drill> {
        self.fixture.catalog.drills(self.fixture.cluster.id, Page::ALL).await.unwrap()
    }

    async fn schedule(&self, every: &str) {
        let schedule = Schedule { every: every.parse().unwrap(), stage: Stage::default(), since: self.run.setup.now() };
        self.fixture.catalog.set_drill_schedule(self.fixture.cluster.id, Some(&schedule)).await.unwrap();
    }

    fn restore(&self) -> Restore {
        let (now, time) = (begin(), ClusterTime::new(7, 1));
        let target = Target::Hosts("other".into());
        let id = RestoreId::new(now, 1);
        Restore::queued(id, self.fixture.cluster.id, now, Point::Time(time), time, target, Options::default())
    }
}

#[tokio::test]
async fn a_drill_is_done_when_the_schedule_says_and_again_when_it_failed_ever_more_rarely() {
    let world = World::new().await;
    assert_eq!(world.at(0).await, None, "none is scheduled");
    world.schedule("7d").await;
    let first = world.at(1).await.unwrap();
    assert_eq!((first.state, first.scheduled), (State::Failed, true));
    let failure = first.failure.unwrap();
    assert!(failure.contains("there is no completed checkpoint") && failure.contains("checkpoint take"), "{failure}");
    let mut ended = vec![1];
    for minutes in 2..200 {
        world.at(minutes).await;
        if world.drills().await.len() > ended.len() {
            ended.push(minutes);
        }
    }
    assert_eq!(ended, [1, 16, 46, 106]);
    world.fixture.catalog.set_drill_schedule(world.fixture.cluster.id, None).await.unwrap();
    world.at(1_000_000).await;
    assert_eq!(world.drills().await.len(), 4, "it is off");
}

#[tokio::test]
async fn one_that_was_asked_for_waits_for_a_restore_that_somebody_wants() {
    let world = World::new().await;
    let catalog = &world.fixture.catalog;
    let restore = world.restore();
    catalog.queue_restore(&restore, Some(&"mongodb://other".to_owned().into())).await.unwrap();
    let id = DrillId::new(begin(), 1);
    let asked = Drill::queued(id, world.fixture.cluster.id, begin(), false, Stage::default());
    catalog.queue_drill(&asked).await.unwrap();
    assert_eq!(world.at(1).await.unwrap().state, State::Queued);
    catalog.cancel_restore(restore.cluster, restore.id, begin()).await.unwrap();
    assert_eq!(world.at(2).await.unwrap().state, State::Failed);
}

#[tokio::test]
async fn one_that_a_killed_server_began_is_ended_with_its_restore_and_is_no_failure() {
    let world = World::new().await;
    let catalog = &world.fixture.catalog;
    let id = DrillId::new(begin(), 1);
    let restore = Restore { drill: Some(id), ..world.restore() };
    let queued = Drill::queued(id, world.fixture.cluster.id, begin(), true, Stage::default());
    catalog.queue_drill(&queued).await.unwrap();
    let begun = Drill { state: State::Restoring, begun: Some(begin()), restore: Some(restore.id), ..queued };
    catalog.save_drill(&world.fixture.lease, &begun).await.unwrap();
    catalog.queue_restore(&restore, Some(&"mongodb://gone".to_owned().into())).await.unwrap();
    let ended = world.at(1).await.unwrap();
    assert_eq!(ended.state, State::Interrupted);
    assert!(ended.failure.unwrap().contains("run it again"));
    assert_eq!(catalog.unfinished_restore(restore.cluster).await.unwrap(), None);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_drill_of_another_cluster() {
    let world = World::new().await;
    let id = DrillId::new(begin(), 1);
    let asked = Drill::queued(id, world.fixture.cluster.id, begin(), false, Stage::default());
    world.fixture.catalog.queue_drill(&asked).await.unwrap();
    let _other = world.run.setup.drilling.acquire().await.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    world.run.to_the_end(asked.clone(), &stop).await.unwrap();
    assert_eq!(world.drills().await, [asked]);
}
