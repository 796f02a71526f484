//! Drills: one unfinished of a cluster at a time, written only under its newest lease, the newest of them kept; and
//! when the next are.

use super::*;
use stillpoint_catalog::{CatalogError, DRILLS_KEPT, Lease, Page};
use stillpoint_core::drill::{self, Drill, Loss, Schedule, Split, Stage};
use stillpoint_core::restore::Amount;
use stillpoint_core::{DrillId, RestoreId};

/// `second` decides where it stands among others.
pub fn queued_drill(cluster: &Cluster, second: i64) -> Drill {
    let stage = Stage { mongod: Some("/opt/mongod".into()), folder: Some("/srv/drills".into()), to_file: None };
    Drill::queued(DrillId::new(at(second), second as u64), cluster.id, at(second), true, stage)
}

pub fn restoring_drill(cluster: &Cluster, second: i64) -> Drill {
    Drill {
        state: drill::State::Restoring,
        begun: Some(at(second + 1)),
        checkpoint: Some(CheckpointId::new(at(0), 9)),
        time: Some(time(second)),
        restore: Some(RestoreId::new(at(second), second as u64)),
        loss: Some(Loss { checkpoint_seconds: 3_000, stream_seconds: 12 }),
        split: Split { preparing: 5_000, checking: 700, ..Split::default() },
        ..queued_drill(cluster, second)
    }
}

pub fn passed_drill(cluster: &Cluster, second: i64) -> Drill {
    Drill {
        state: drill::State::Passed,
        ended: Some(at(second + 60)),
        split: Split { preparing: 5_000, checking: 700, loading: 40_000, verifying: 9_000, opening: 30 },
        written: Amount { collections: 3, documents: 4_000, bytes: 2_000_000 },
        ..restoring_drill(cluster, second)
    }
}

fn failed_drill(cluster: &Cluster, second: i64) -> Drill {
    let failure = Some("there is no mongod: name one with --mongod".into());
    Drill { state: drill::State::Failed, ended: Some(at(second + 9)), failure, ..queued_drill(cluster, second) }
}

pub fn weekly() -> Schedule {
    Schedule { every: "7d".parse().unwrap(), stage: Stage::default(), since: at(1) }
}

async fn with_lease(catalog: &dyn Catalog) -> (Cluster, Lease) {
    let (_, cluster) = with_cluster(catalog).await;
    let lease = claim(catalog, &cluster, "a", 0).await;
    (cluster, lease)
}

pub async fn one_drill_of_a_cluster_is_unfinished_at_a_time(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    assert_eq!(catalog.unfinished_drill(cluster.id).await.unwrap(), None);
    let queued = queued_drill(&cluster, 1);
    catalog.queue_drill(&queued).await.unwrap();
    let preparing = Drill { state: drill::State::Preparing, begun: Some(at(2)), ..queued.clone() };
    for unfinished in [queued, preparing, restoring_drill(&cluster, 1)] {
        catalog.save_drill(&lease, &unfinished).await.unwrap();
        assert_eq!(catalog.unfinished_drill(cluster.id).await.unwrap().as_ref(), Some(&unfinished));
        let refused = catalog.queue_drill(&queued_drill(&cluster, 2)).await;
        assert!(matches!(refused, Err(CatalogError::DrillUnderWay(id)) if id == unfinished.id), "{refused:?}");
        assert_eq!(catalog.drill(cluster.id, unfinished.id).await.unwrap(), Some(unfinished));
    }
    // Another cluster's is not in its way.
    let project = catalog.project(cluster.project).await.unwrap().unwrap();
    let other = super::cluster(&project, "other", 2);
    catalog.add_cluster(&other).await.unwrap();
    catalog.queue_drill(&queued_drill(&other, 2)).await.unwrap();

    catalog.save_drill(&lease, &passed_drill(&cluster, 1)).await.unwrap();
    catalog.queue_drill(&queued_drill(&cluster, 2)).await.unwrap();
    let all = catalog.drills(cluster.id, Page::ALL).await.unwrap();
    assert_eq!(all, [queued_drill(&cluster, 2), passed_drill(&cluster, 1)], "newest first");
    assert_eq!(catalog.drills(cluster.id, Page { skip: 1, take: 1 }).await.unwrap(), all[1..]);

    let nowhere = Cluster { id: ClusterId::new(at(9), 9), ..cluster };
    let refused = catalog.queue_drill(&queued_drill(&nowhere, 1)).await;
    assert!(matches!(refused, Err(CatalogError::Gone("cluster"))), "{refused:?}");
}

pub async fn a_drill_is_written_under_the_newest_lease_never_goes_back_nor_breaks_a_rule(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let refused = catalog.save_drill(&lease, &queued_drill(&cluster, 1)).await;
    assert!(matches!(refused, Err(CatalogError::Gone("drill"))), "{refused:?}");
    catalog.queue_drill(&queued_drill(&cluster, 1)).await.unwrap();
    let restoring = restoring_drill(&cluster, 1);
    catalog.save_drill(&lease, &restoring).await.unwrap();
    let back = catalog.save_drill(&lease, &queued_drill(&cluster, 1)).await;
    assert!(matches!(back, Err(CatalogError::DrillOutdated(id)) if id == restoring.id), "{back:?}");
    let broken = Drill { loss: None, ..passed_drill(&cluster, 1) };
    for refused in [
        catalog.save_drill(&lease, &broken).await,
        catalog.queue_drill(&Drill { id: DrillId::new(at(2), 2), ..broken.clone() }).await,
    ] {
        assert!(matches!(refused, Err(CatalogError::BrokenRule(_))), "{refused:?}");
    }
    let newer = claim(catalog, &cluster, "b", 100).await;
    let fenced = catalog.save_drill(&lease, &passed_drill(&cluster, 1)).await;
    assert!(matches!(fenced, Err(CatalogError::Fenced)), "{fenced:?}");
    let passed = passed_drill(&cluster, 1);
    catalog.save_drill(&newer, &passed).await.unwrap();
    catalog.save_drill(&newer, &passed).await.unwrap();
    let outdated = catalog.save_drill(&newer, &Drill { ended: Some(at(99)), ..passed.clone() }).await;
    assert!(matches!(outdated, Err(CatalogError::DrillOutdated(_))), "{outdated:?}");
    assert_eq!(catalog.drill(cluster.id, passed.id).await.unwrap(), Some(passed));
}

pub async fn the_newest_drills_are_kept_and_the_restores_of_others_go_with_them(catalog: &dyn Catalog) {
    let (cluster, _) = with_lease(catalog).await;
    let oldest = passed_drill(&cluster, 1);
    let ids = [oldest.restore.unwrap(), RestoreId::new(at(2), 2)];
    for id in ids {
        let restore = stillpoint_core::restore::Restore { id, ..broken_restore(&cluster, 1) };
        catalog.queue_restore(&restore, None).await.unwrap();
    }
    catalog.queue_drill(&oldest).await.unwrap();
    let kept: Vec<_> = (2..=1 + DRILLS_KEPT as i64).rev().map(|second| failed_drill(&cluster, second)).collect();
    for drill in kept[1..].iter().rev() {
        catalog.queue_drill(drill).await.unwrap();
    }
    assert!(catalog.drill(cluster.id, oldest.id).await.unwrap().is_some());
    catalog.queue_drill(&kept[0]).await.unwrap();
    assert_eq!(catalog.drills(cluster.id, Page::ALL).await.unwrap(), kept);
    let restores = catalog.restores(cluster.id, Page::ALL).await.unwrap();
    assert_eq!(restores.iter().map(|restore| restore.id).collect::<Vec<_>>(), ids[1..]);
}

pub async fn drills_are_scheduled_until_they_are_not_and_go_with_their_cluster(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    assert_eq!(catalog.drill_schedule(cluster.id).await.unwrap(), None);
    catalog.set_drill_schedule(cluster.id, None).await.unwrap();
    let stage = queued_drill(&cluster, 1).stage;
    for schedule in [weekly(), Schedule { every: "12h".parse().unwrap(), stage, since: at(5) }] {
        catalog.set_drill_schedule(cluster.id, Some(&schedule)).await.unwrap();
        assert_eq!(catalog.drill_schedule(cluster.id).await.unwrap(), Some(schedule));
    }
    catalog.set_drill_schedule(cluster.id, None).await.unwrap();
    assert_eq!(catalog.drill_schedule(cluster.id).await.unwrap(), None);
    let nowhere = ClusterId::new(at(9), 9);
    let refused = catalog.set_drill_schedule(nowhere, Some(&weekly())).await;
    assert!(matches!(refused, Err(CatalogError::Gone("cluster"))), "{refused:?}");

    catalog.set_drill_schedule(cluster.id, Some(&weekly())).await.unwrap();
    catalog.queue_drill(&queued_drill(&cluster, 1)).await.unwrap();
    let in_use = catalog.remove_cluster(cluster.id, at(60)).await;
    assert!(matches!(in_use, Err(CatalogError::InUse("the cluster"))), "{in_use:?}");
    catalog.save_drill(&lease, &failed_drill(&cluster, 1)).await.unwrap();
    catalog.remove_cluster(cluster.id, at(60)).await.unwrap();
    catalog.add_cluster(&cluster).await.unwrap();
    assert_eq!(catalog.drills(cluster.id, Page::ALL).await.unwrap(), []);
    assert_eq!(catalog.drill_schedule(cluster.id).await.unwrap(), None);
}
