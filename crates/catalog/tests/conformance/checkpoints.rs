//! Checkpoints: one unfinished at a time, written only under the newest lease.

use super::*;
use std::time::Duration;
use stillpoint_catalog::{CatalogError, Lease, Page};
use stillpoint_core::verification::Verification;

const TTL: Duration = Duration::from_secs(10);
const ALL: Page = Page { skip: 0, take: 1000 };

async fn claim(catalog: &dyn Catalog, cluster: &Cluster, holder: &str, second: i64) -> Lease {
    catalog.claim_lease(cluster.id, holder, at(second), TTL).await.unwrap().unwrap()
}

pub async fn one_checkpoint_is_unfinished_at_a_time(catalog: &dyn Catalog) {
    let (project, cluster) = with_cluster(catalog).await;
    assert_eq!(catalog.unfinished_checkpoint(cluster.id).await.unwrap(), None);
    let first = queued(&cluster, 1);
    catalog.queue_checkpoint(&first).await.unwrap();
    let lease = claim(catalog, &cluster, "a", 1).await;
    for unfinished in [first.clone(), started(&cluster, 1), holding(&cluster, 1)] {
        catalog.save_checkpoint(&lease, &unfinished).await.unwrap();
        assert_eq!(catalog.unfinished_checkpoint(cluster.id).await.unwrap().as_ref(), Some(&unfinished));
        let refused = catalog.queue_checkpoint(&queued(&cluster, 2)).await;
        assert!(matches!(refused, Err(CatalogError::CheckpointUnderWay(id)) if id == first.id), "{refused:?}");
        assert_eq!(catalog.checkpoints(cluster.id, ALL).await.unwrap(), [unfinished]);
    }
    let other = super::cluster(&project, "other", 2);
    catalog.add_cluster(&other).await.unwrap();
    catalog.queue_checkpoint(&queued(&other, 2)).await.unwrap();

    catalog.save_checkpoint(&lease, &completed(&cluster, 1)).await.unwrap();
    assert_eq!(catalog.unfinished_checkpoint(cluster.id).await.unwrap(), None);
    catalog.queue_checkpoint(&queued(&cluster, 2)).await.unwrap();
    assert_eq!(catalog.count_checkpoints(cluster.id).await.unwrap(), 2);
}

pub async fn a_checkpoint_of_no_cluster_is_refused(catalog: &dyn Catalog) {
    let cluster = cluster(&project(catalog, 1).await, "Cluster0", 1);
    let refused = catalog.queue_checkpoint(&queued(&cluster, 1)).await;
    assert!(matches!(refused, Err(CatalogError::Gone("cluster"))), "{refused:?}");
    assert_eq!(catalog.count_checkpoints(cluster.id).await.unwrap(), 0);
}

pub async fn a_checkpoint_reads_back_in_every_state(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let lease = claim(catalog, &cluster, "a", 0).await;
    let first = queued(&cluster, 1);
    catalog.queue_checkpoint(&first).await.unwrap();
    assert_eq!(catalog.checkpoint(cluster.id, first.id).await.unwrap(), Some(first.clone()));
    for next in [started(&cluster, 1), holding(&cluster, 1), completed(&cluster, 1)] {
        catalog.save_checkpoint(&lease, &next).await.unwrap();
        assert_eq!(catalog.checkpoint(cluster.id, first.id).await.unwrap(), Some(next));
    }
    let second = failed(&cluster, 2);
    catalog.queue_checkpoint(&queued(&cluster, 2)).await.unwrap();
    catalog.save_checkpoint(&lease, &second).await.unwrap();
    assert_eq!(catalog.checkpoint(cluster.id, second.id).await.unwrap(), Some(second));
    assert_eq!(catalog.checkpoint(cluster.id, queued(&cluster, 3).id).await.unwrap(), None);
}

/// What a save under `lease` is answered, and that it changed nothing when it was refused.
async fn is_fenced(catalog: &dyn Catalog, lease: &Lease, checkpoint: &Checkpoint) -> bool {
    let before = catalog.checkpoint(checkpoint.cluster, checkpoint.id).await.unwrap();
    match catalog.save_checkpoint(lease, checkpoint).await {
        Ok(()) => false,
        Err(CatalogError::Fenced) => {
            assert_eq!(catalog.checkpoint(checkpoint.cluster, checkpoint.id).await.unwrap(), before);
            true
        }
        Err(e) => panic!("{e}"),
    }
}

pub async fn a_write_under_a_lease_that_another_took_is_fenced(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    catalog.queue_checkpoint(&queued(&cluster, 1)).await.unwrap();
    let early = claim(catalog, &cluster, "a", 0).await;
    assert!(!is_fenced(catalog, &early, &started(&cluster, 1)).await);
    let late = claim(catalog, &cluster, "b", 10).await;
    assert!(is_fenced(catalog, &early, &holding(&cluster, 1)).await);
    assert!(is_fenced(catalog, &Lease { epoch: late.epoch, ..early.clone() }, &holding(&cluster, 1)).await);
    assert!(is_fenced(catalog, &Lease { epoch: late.epoch + 1, ..late.clone() }, &holding(&cluster, 1)).await);
    assert!(!is_fenced(catalog, &late, &holding(&cluster, 1)).await);
    // Nor does it help that the later lease was given up.
    catalog.release_lease(&late).await.unwrap();
    assert!(is_fenced(catalog, &early, &completed(&cluster, 1)).await);
}

pub async fn a_write_under_a_lease_that_the_same_holder_took_again_is_fenced(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    catalog.queue_checkpoint(&queued(&cluster, 1)).await.unwrap();
    let early = claim(catalog, &cluster, "a", 0).await;
    let late = claim(catalog, &cluster, "a", 1).await;
    assert!(late.epoch > early.epoch);
    assert!(is_fenced(catalog, &early, &started(&cluster, 1)).await);
    assert!(!is_fenced(catalog, &late, &started(&cluster, 1)).await);
}

pub async fn a_checkpoint_never_goes_back_nor_breaks_a_rule(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    catalog.queue_checkpoint(&queued(&cluster, 1)).await.unwrap();
    let lease = claim(catalog, &cluster, "a", 0).await;
    let refused = |saved| matches!(saved, Err(CatalogError::Outdated(_)));
    catalog.save_checkpoint(&lease, &holding(&cluster, 1)).await.unwrap();
    assert!(refused(catalog.save_checkpoint(&lease, &started(&cluster, 1)).await), "an earlier state");

    let mut impossible = completed(&cluster, 1);
    impossible.cut = None;
    let saved = catalog.save_checkpoint(&lease, &impossible).await;
    assert!(matches!(saved, Err(CatalogError::BrokenRule(_))), "{saved:?}");

    let ended = completed(&cluster, 1);
    catalog.save_checkpoint(&lease, &ended).await.unwrap();
    assert!(refused(catalog.save_checkpoint(&lease, &failed(&cluster, 1)).await), "an ended one");
    // The same once more is what a write whose reply was lost is followed by.
    catalog.save_checkpoint(&lease, &ended).await.unwrap();
    assert_eq!(catalog.checkpoint(cluster.id, ended.id).await.unwrap(), Some(ended));
}

pub async fn a_write_under_another_clusters_lease_is_fenced(catalog: &dyn Catalog) {
    let (project, cluster) = with_cluster(catalog).await;
    let other = super::cluster(&project, "other", 2);
    catalog.add_cluster(&other).await.unwrap();
    catalog.queue_checkpoint(&queued(&cluster, 1)).await.unwrap();
    let of_other = claim(catalog, &other, "a", 0).await;
    assert!(is_fenced(catalog, &of_other, &started(&cluster, 1)).await, "and there is no lease of this one at all");
    claim(catalog, &cluster, "a", 0).await;
    assert!(is_fenced(catalog, &of_other, &started(&cluster, 1)).await);
}

pub async fn a_deleted_checkpoint_does_not_come_back_by_a_late_write(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let lease = claim(catalog, &cluster, "a", 0).await;
    let done = completed(&cluster, 1);
    catalog.queue_checkpoint(&done).await.unwrap();
    catalog.delete_checkpoint(cluster.id, done.id).await.unwrap();
    assert!(matches!(catalog.save_checkpoint(&lease, &done).await, Err(CatalogError::Gone("checkpoint"))));
    assert_eq!(catalog.checkpoint(cluster.id, done.id).await.unwrap(), None);
    assert!(matches!(catalog.delete_checkpoint(cluster.id, done.id).await, Err(CatalogError::Gone("checkpoint"))));
}

pub async fn lists_are_newest_first_and_in_pages(catalog: &dyn Catalog) {
    let (project, cluster) = with_cluster(catalog).await;
    let other = super::cluster(&project, "other", 2);
    catalog.add_cluster(&other).await.unwrap();
    catalog.queue_checkpoint(&failed(&other, 3)).await.unwrap();
    let seconds = [5, 1, 4, 2, 3];
    for second in seconds {
        catalog.queue_checkpoint(&failed(&cluster, second)).await.unwrap();
    }
    let list = |skip, take| async move {
        let found = catalog.checkpoints(cluster.id, Page { skip, take }).await.unwrap();
        found.iter().map(|checkpoint| checkpoint.started.as_second() - NOON).collect::<Vec<_>>()
    };
    assert_eq!(list(0, 1000).await, [5, 4, 3, 2, 1]);
    assert_eq!(list(0, 2).await, [5, 4]);
    assert_eq!(list(2, 2).await, [3, 2]);
    assert_eq!(list(4, 2).await, [1]);
    assert!(list(5, 2).await.is_empty());
    assert!(list(0, 0).await.is_empty());
    assert!(list(u64::MAX, u64::MAX).await.is_empty());
    assert_eq!(list(0, u64::MAX).await.len(), 5);
    assert_eq!(catalog.count_checkpoints(cluster.id).await.unwrap(), 5);
}

pub async fn an_unfinished_checkpoint_is_not_deleted(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let lease = claim(catalog, &cluster, "a", 0).await;
    catalog.queue_checkpoint(&queued(&cluster, 1)).await.unwrap();
    for unfinished in [queued(&cluster, 1), started(&cluster, 1), holding(&cluster, 1)] {
        catalog.save_checkpoint(&lease, &unfinished).await.unwrap();
        let refused = catalog.delete_checkpoint(cluster.id, unfinished.id).await;
        assert!(matches!(refused, Err(CatalogError::InUse(_))), "{refused:?}");
        assert_eq!(catalog.checkpoint(cluster.id, unfinished.id).await.unwrap(), Some(unfinished));
    }
    let done = completed(&cluster, 1);
    catalog.save_checkpoint(&lease, &done).await.unwrap();
    catalog.delete_checkpoint(cluster.id, done.id).await.unwrap();
    assert_eq!(catalog.count_checkpoints(cluster.id).await.unwrap(), 0);
}

pub async fn only_a_queued_checkpoint_is_withdrawn(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let asked = queued(&cluster, 1);
    assert!(!catalog.withdraw_checkpoint(cluster.id, asked.id).await.unwrap(), "there is none");
    catalog.queue_checkpoint(&asked).await.unwrap();
    assert!(catalog.withdraw_checkpoint(cluster.id, asked.id).await.unwrap());
    assert_eq!(catalog.checkpoint(cluster.id, asked.id).await.unwrap(), None);

    let lease = claim(catalog, &cluster, "a", 0).await;
    catalog.queue_checkpoint(&asked).await.unwrap();
    for begun in [started(&cluster, 1), holding(&cluster, 1), completed(&cluster, 1)] {
        catalog.save_checkpoint(&lease, &begun).await.unwrap();
        assert!(!catalog.withdraw_checkpoint(cluster.id, begun.id).await.unwrap());
        assert_eq!(catalog.checkpoint(cluster.id, begun.id).await.unwrap(), Some(begun));
    }
}

pub async fn what_came_of_verifying_a_checkpoint_is_noted_once_it_has_ended(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let lease = claim(catalog, &cluster, "a", 0).await;
    let verification = Verification { at: at(30), time: ClusterTime::new(7, 1), parts: vec![] };
    let done = completed(&cluster, 1);
    catalog.queue_checkpoint(&queued(&cluster, 1)).await.unwrap();
    let early = catalog.note_verification(&lease, done.id, &verification).await;
    assert!(matches!(early, Err(CatalogError::InUse(_))), "{early:?}");
    catalog.save_checkpoint(&lease, &done).await.unwrap();
    let again = Verification { at: at(40), ..verification.clone() };
    for noted in [verification, again] {
        catalog.note_verification(&lease, done.id, &noted).await.unwrap();
        let expected = Checkpoint { verification: Some(noted), ..done.clone() };
        assert_eq!(catalog.checkpoint(cluster.id, done.id).await.unwrap(), Some(expected));
    }
    let newer = claim(catalog, &cluster, "b", 100).await;
    let none = Verification { at: at(50), time: ClusterTime::new(7, 1), parts: vec![] };
    let fenced = catalog.note_verification(&lease, done.id, &none).await;
    assert!(matches!(fenced, Err(CatalogError::Fenced)), "{fenced:?}");
    catalog.delete_checkpoint(cluster.id, done.id).await.unwrap();
    let gone = catalog.note_verification(&newer, done.id, &none).await;
    assert!(matches!(gone, Err(CatalogError::Gone(_))), "{gone:?}");
}
