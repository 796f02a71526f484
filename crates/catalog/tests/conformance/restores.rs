//! Restores: one unfinished from a cluster and one into it at a time, written only under the newest lease of
//! the cluster that they are from, cancelled by anybody; what only one under way needs goes when it ends.

use super::*;
use secrecy::{ExposeSecret, SecretString};
use stillpoint_catalog::{CatalogError, Lease, Page};
use stillpoint_core::restore::{self, Amount, File, Gone, Mark, Only, Options, Point, Restore, Target};
use stillpoint_core::verification::{PartVerification, Verification};
use stillpoint_core::{RestoreId, SnapshotId};

fn amount(n: u64) -> Amount {
    Amount { collections: n, documents: 1_000 * n, bytes: 600_000 * n }
}

fn restore_part(cluster: &Cluster, id: PartId, second: i64, n: u64) -> restore::Part {
    let shard = match &id {
        PartId::Shard(_) => Some("of-the-target".into()),
        PartId::ConfigServers => None,
    };
    let job = RestoreId::new(cluster.created, 1_000 * second as u64 + n);
    restore::Part { job, id, shard, expected: amount(9), written: Amount::default(), doing: None, file: None }
}

/// Into a target that is named by its connection string, [`target_uri`]. `second` decides where it stands
/// among others.
pub fn queued_restore(cluster: &Cluster, second: i64) -> Restore {
    let (config, shard) = (PartId::ConfigServers, PartId::Shard("a/b c".into()));
    let only = vec![
        Only { from: "shop.orders".into(), to: Some("shop.orders_before".into()) },
        Only { from: "bank".into(), to: None },
    ];
    let options = Options {
        shards: [("a/b c".to_owned(), "of-the-target".to_owned())].into(),
        part: None,
        only,
        users: true,
        verify: true,
    };
    let (id, now) = (RestoreId::new(at(second), second as u64), at(second));
    let point = Point::Checkpoint(CheckpointId::new(at(0), 9));
    let target = Target::Hosts("target1.example:27019,target2.example".into());
    Restore {
        parts: vec![restore_part(cluster, shard, second, 1), restore_part(cluster, config, second, 2)],
        ..Restore::queued(id, cluster.id, now, point, time(second), target, options)
    }
}

pub fn target_uri() -> SecretString {
    format!("mongodb://restorer:{PASSWORD}@target1.example:27019,target2.example/?tls=true").into()
}

pub fn checking_restore(cluster: &Cluster, second: i64) -> Restore {
    Restore { state: restore::State::Checking, ..queued_restore(cluster, second) }
}

pub fn loading_restore(cluster: &Cluster, second: i64) -> Restore {
    let mut restore = queued_restore(cluster, second);
    restore.parts[0].written = amount(4);
    restore.parts[0].doing = Some("shop.orders".into());
    Restore { state: restore::State::Loading, trouble: Some("the target does not answer".into()), ..restore }
}

pub fn verifying_restore(cluster: &Cluster, second: i64) -> Restore {
    Restore { state: restore::State::Verifying, trouble: None, ..loading_restore(cluster, second) }
}

pub fn finished_restore(cluster: &Cluster, second: i64) -> Restore {
    let restore = verifying_restore(cluster, second);
    let mut part = PartVerification::new(PartId::ConfigServers);
    part.open.add("shop.log", "capped");
    let verification = Some(Verification { at: at(second + 8), time: restore.time, parts: vec![part] });
    Restore { state: restore::State::Finished, ended: Some(at(second + 9)), verification, ..restore }
}

pub fn broken_restore(cluster: &Cluster, second: i64) -> Restore {
    Restore {
        state: restore::State::Broken,
        ended: Some(at(second + 9)),
        failure: Some("the target is not empty: restore into one that is".into()),
        ..queued_restore(cluster, second)
    }
}

/// Into files that are to be downloaded.
pub fn queued_download(cluster: &Cluster, second: i64) -> Restore {
    let mut restore = Restore { target: Target::Download { hours: 2 }, ..queued_restore(cluster, second) };
    restore.options = Options::default();
    restore.parts.iter_mut().for_each(|part| part.shard = None);
    restore
}

/// All of it is there.
pub fn finished_download(cluster: &Cluster, second: i64) -> Restore {
    let mut restore = queued_download(cluster, second);
    for (n, part) in restore.parts.iter_mut().enumerate() {
        let file = File { name: format!("{n}.archive.gz"), bytes: 7, sha256: "0f".repeat(32), gone: None };
        (part.file, part.written) = (Some(file), amount(9));
    }
    Restore { state: restore::State::Finished, ended: Some(at(second + 9)), ..restore }
}

/// Into a cluster of the catalog.
fn into(target: &Cluster, restore: Restore) -> Restore {
    Restore { target: Target::Cluster(target.id), ..restore }
}

pub fn mark(part: &PartId, collection: &str, record: &str) -> Mark {
    Mark { part: part.clone(), collection: collection.into(), record: record.into() }
}

/// A cluster with a lease.
async fn with_lease(catalog: &dyn Catalog) -> (Cluster, Lease) {
    let (_, cluster) = with_cluster(catalog).await;
    let lease = claim(catalog, &cluster, "a", 0).await;
    (cluster, lease)
}

/// Another cluster of the same project.
async fn another(catalog: &dyn Catalog, beside: &Cluster, n: u64) -> Cluster {
    let project = catalog.project(beside.project).await.unwrap().unwrap();
    let other = super::cluster(&project, &format!("other-{n}"), n);
    catalog.add_cluster(&other).await.unwrap();
    other
}

async fn queue(catalog: &dyn Catalog, restore: &Restore) -> Result<(), CatalogError> {
    let uri = matches!(restore.target, Target::Hosts(_)).then(target_uri);
    catalog.queue_restore(restore, uri.as_ref()).await
}

/// The connection string that is kept of a restore.
async fn kept_uri(catalog: &dyn Catalog, restore: &Restore) -> Option<String> {
    let uri = catalog.restore_uri(restore.cluster, restore.id).await.unwrap();
    uri.map(|uri| uri.expose_secret().to_owned())
}

fn under_way<T: std::fmt::Debug>(refused: Result<T, CatalogError>, id: RestoreId) {
    assert!(matches!(refused, Err(CatalogError::RestoreUnderWay(other)) if other == id), "{refused:?}");
}

pub async fn one_restore_from_a_cluster_is_unfinished_at_a_time(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    assert_eq!(catalog.unfinished_restore(cluster.id).await.unwrap(), None);
    let first = queued_restore(&cluster, 1);
    queue(catalog, &first).await.unwrap();
    let [checking, loading] = [checking_restore(&cluster, 1), loading_restore(&cluster, 1)];
    let opening = Restore { state: restore::State::Opening, ..verifying_restore(&cluster, 1) };
    for unfinished in [first.clone(), checking, loading, verifying_restore(&cluster, 1), opening] {
        catalog.save_restore(&lease, &unfinished, &[]).await.unwrap();
        assert_eq!(catalog.unfinished_restore(cluster.id).await.unwrap().as_ref(), Some(&unfinished));
        under_way(queue(catalog, &queued_restore(&cluster, 2)).await, first.id);
        assert_eq!(catalog.restores(cluster.id, Page::ALL).await.unwrap(), [unfinished]);
    }
    // Neither another cluster's nor a checkpoint nor a snapshot is in its way.
    let other = another(catalog, &cluster, 2).await;
    queue(catalog, &queued_restore(&other, 2)).await.unwrap();
    catalog.queue_checkpoint(&queued(&cluster, 2)).await.unwrap();
    catalog.queue_snapshot(&queued_snapshot(&cluster, 2)).await.unwrap();

    catalog.save_restore(&lease, &finished_restore(&cluster, 1), &[]).await.unwrap();
    assert_eq!(catalog.unfinished_restore(cluster.id).await.unwrap(), None);
    queue(catalog, &queued_restore(&cluster, 2)).await.unwrap();
    assert_eq!(catalog.count_restores(cluster.id).await.unwrap(), 2);

    let nowhere = Cluster { id: ClusterId::new(at(9), 9), ..cluster };
    let refused = queue(catalog, &queued_restore(&nowhere, 1)).await;
    assert!(matches!(refused, Err(CatalogError::Gone("cluster"))), "{refused:?}");
}

pub async fn one_restore_into_a_cluster_is_unfinished_at_a_time(catalog: &dyn Catalog) {
    let (one, lease) = with_lease(catalog).await;
    let (two, target) = (another(catalog, &one, 2).await, another(catalog, &one, 3).await);
    let first = into(&target, queued_restore(&one, 1));
    queue(catalog, &first).await.unwrap();
    under_way(queue(catalog, &into(&target, queued_restore(&two, 2))).await, first.id);
    assert_eq!(catalog.count_restores(two.id).await.unwrap(), 0);
    // It is one from the first cluster, not from the target.
    assert_eq!(catalog.unfinished_restore(target.id).await.unwrap(), None);
    queue(catalog, &queued_restore(&target, 2)).await.unwrap();
    queue(catalog, &into(&one, queued_restore(&two, 2))).await.unwrap();

    catalog.save_restore(&lease, &into(&target, broken_restore(&one, 1)), &[]).await.unwrap();
    let next = into(&target, queued_restore(&one, 3));
    queue(catalog, &next).await.unwrap();
    let gone = Cluster { id: ClusterId::new(at(9), 9), ..target };
    let other = another(catalog, &one, 4).await;
    let refused = queue(catalog, &into(&gone, queued_restore(&other, 1))).await;
    assert!(matches!(refused, Err(CatalogError::Gone("target cluster"))), "{refused:?}");
}

pub async fn a_restore_reads_back_in_every_state(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let first = queued_restore(&cluster, 1);
    queue(catalog, &first).await.unwrap();
    assert_eq!(catalog.restore(cluster.id, first.id).await.unwrap(), Some(first.clone()));
    let [checking, loading] = [checking_restore(&cluster, 1), loading_restore(&cluster, 1)];
    for next in [checking, loading, verifying_restore(&cluster, 1), finished_restore(&cluster, 1)] {
        catalog.save_restore(&lease, &next, &[]).await.unwrap();
        assert_eq!(catalog.restore(cluster.id, first.id).await.unwrap(), Some(next));
    }
    let points = [
        Point::Snapshot(SnapshotId::new(at(0), 9)),
        Point::Millisecond(1_795_521_600_123),
        Point::Time(ClusterTime::new(7, 8)),
    ];
    for (second, point) in (2..).zip(points) {
        let second = Restore { point, ..broken_restore(&cluster, second) };
        queue(catalog, &Restore { state: restore::State::Queued, ended: None, failure: None, ..second.clone() })
            .await
            .unwrap();
        catalog.save_restore(&lease, &second, &[]).await.unwrap();
        assert_eq!(catalog.restore(cluster.id, second.id).await.unwrap(), Some(second));
    }
    assert_eq!(catalog.restore(cluster.id, queued_restore(&cluster, 9).id).await.unwrap(), None);
    assert_eq!(catalog.restore(ClusterId::new(at(9), 9), first.id).await.unwrap(), None);
}

pub async fn restores_are_listed_newest_first_and_in_pages(catalog: &dyn Catalog) {
    let (cluster, _) = with_lease(catalog).await;
    let other = another(catalog, &cluster, 2).await;
    queue(catalog, &broken_restore(&other, 3)).await.unwrap();
    for second in [5, 1, 4, 2, 3] {
        queue(catalog, &broken_restore(&cluster, second)).await.unwrap();
    }
    for (skip, take, expected) in
        [(0, 9, &[5, 4, 3, 2, 1][..]), (0, 2, &[5, 4]), (2, 2, &[3, 2]), (4, 2, &[1]), (5, 2, &[]), (0, 0, &[])]
    {
        let found = catalog.restores(cluster.id, Page { skip, take }).await.unwrap();
        let seconds: Vec<_> = found.iter().map(|restore| restore.requested.as_second() - NOON).collect();
        assert_eq!(seconds, expected);
    }
    assert_eq!(catalog.restores(cluster.id, Page::ALL).await.unwrap().len(), 5);
    assert_eq!(catalog.count_restores(cluster.id).await.unwrap(), 5);
}

pub async fn a_restore_is_written_under_the_newest_lease_only(catalog: &dyn Catalog) {
    let (cluster, early) = with_lease(catalog).await;
    let target = another(catalog, &cluster, 2).await;
    let of_target = claim(catalog, &target, "b", 60).await;
    let queued = into(&target, queued_restore(&cluster, 1));
    queue(catalog, &queued).await.unwrap();
    let late = claim(catalog, &cluster, "b", 60).await;
    let next = into(&target, loading_restore(&cluster, 1));
    let marks = [mark(&PartId::ConfigServers, "1", "x")];
    for lease in [&early, &of_target] {
        let refused = catalog.save_restore(lease, &next, &marks).await;
        assert!(matches!(refused, Err(CatalogError::Fenced)), "{refused:?}");
    }
    assert_eq!(catalog.restore(cluster.id, queued.id).await.unwrap(), Some(queued.clone()));
    assert_eq!(catalog.restore_marks(cluster.id, queued.id).await.unwrap(), []);
    catalog.save_restore(&late, &next, &marks).await.unwrap();
    assert_eq!(catalog.restore(cluster.id, queued.id).await.unwrap(), Some(next));
}

pub async fn a_restore_never_goes_back_nor_breaks_a_rule(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let save = |restore: Restore| {
        let lease = &lease;
        async move { catalog.save_restore(lease, &restore, &[mark(&PartId::ConfigServers, "late", "x")]).await }
    };
    let outdated = |saved: &Result<(), CatalogError>| matches!(saved, Err(CatalogError::RestoreOutdated(_)));
    let saved = save(queued_restore(&cluster, 1)).await;
    assert!(matches!(saved, Err(CatalogError::Gone("restore"))), "{saved:?}");
    queue(catalog, &queued_restore(&cluster, 1)).await.unwrap();
    catalog.save_restore(&lease, &verifying_restore(&cluster, 1), &[]).await.unwrap();
    let saved = save(loading_restore(&cluster, 1)).await;
    assert!(outdated(&saved), "an earlier state: {saved:?}");
    let saved = save(Restore { verification: None, ..finished_restore(&cluster, 1) }).await;
    assert!(matches!(saved, Err(CatalogError::BrokenRule(_))), "{saved:?}");
    let id = queued_restore(&cluster, 1).id;
    assert_eq!(catalog.restore(cluster.id, id).await.unwrap(), Some(verifying_restore(&cluster, 1)));
    assert_eq!(catalog.restore_marks(cluster.id, id).await.unwrap(), []);

    let ended = finished_restore(&cluster, 1);
    save(ended.clone()).await.unwrap();
    let saved = save(broken_restore(&cluster, 1)).await;
    assert!(outdated(&saved), "an ended one: {saved:?}");
    // The same once more is what a write whose reply was lost is followed by.
    save(ended.clone()).await.unwrap();
    assert_eq!(catalog.restore(cluster.id, id).await.unwrap(), Some(ended));
    assert_eq!(catalog.restore_marks(cluster.id, id).await.unwrap(), []);
}

pub async fn the_connection_string_of_a_target_is_kept_until_the_restore_ends(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let (other, target) = (another(catalog, &cluster, 2).await, another(catalog, &cluster, 3).await);
    let first = queued_restore(&cluster, 1);
    assert_eq!(kept_uri(catalog, &first).await, None);
    queue(catalog, &first).await.unwrap();
    let uri = Some(target_uri().expose_secret().to_owned());
    for next in [first.clone(), loading_restore(&cluster, 1), verifying_restore(&cluster, 1)] {
        catalog.save_restore(&lease, &next, &[]).await.unwrap();
        assert_eq!(kept_uri(catalog, &first).await, uri);
    }
    assert_eq!(catalog.restore_uri(other.id, first.id).await.unwrap().map(drop), None);
    catalog.save_restore(&lease, &broken_restore(&cluster, 1), &[]).await.unwrap();
    assert_eq!(kept_uri(catalog, &first).await, None);

    let second = queued_restore(&cluster, 2);
    queue(catalog, &second).await.unwrap();
    assert_eq!(kept_uri(catalog, &second).await, uri);
    catalog.cancel_restore(cluster.id, second.id, at(60)).await.unwrap();
    assert_eq!(kept_uri(catalog, &second).await, None);

    // The catalog has that of a cluster of its own already, and no other way to a target that it does not have.
    let third = into(&target, queued_restore(&other, 3));
    let hosts = queued_restore(&other, 3);
    for (restore, uri) in [(&third, Some(target_uri())), (&hosts, None)] {
        let refused = catalog.queue_restore(restore, uri.as_ref()).await;
        assert!(matches!(refused, Err(CatalogError::BrokenRule(_))), "{refused:?}");
    }
    queue(catalog, &third).await.unwrap();
    assert_eq!(kept_uri(catalog, &third).await, None);
}

pub async fn of_the_marks_of_a_collection_the_last_counts_until_the_restore_ends(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let id = queued_restore(&cluster, 1).id;
    let found = catalog.restore_marks(cluster.id, id).await;
    assert!(matches!(found, Err(CatalogError::Gone("restore"))), "{found:?}");
    queue(catalog, &queued_restore(&cluster, 1)).await.unwrap();
    assert_eq!(catalog.restore_marks(cluster.id, id).await.unwrap(), []);
    let (config, shard) = (PartId::ConfigServers, PartId::Shard("a/b c".into()));
    let loading = loading_restore(&cluster, 1);
    let save = |marks: Vec<Mark>| {
        let (lease, loading) = (&lease, &loading);
        async move { catalog.save_restore(lease, loading, &marks).await.unwrap() }
    };
    save(vec![mark(&shard, "02", "begun"), mark(&config, "02", "of the config servers")]).await;
    save(vec![mark(&shard, "01", "{\"a\":\"b\"}"), mark(&shard, "02", "half"), mark(&shard, "02", "all")]).await;
    save(vec![]).await;
    let expected =
        [mark(&config, "02", "of the config servers"), mark(&shard, "01", "{\"a\":\"b\"}"), mark(&shard, "02", "all")];
    assert_eq!(catalog.restore_marks(cluster.id, id).await.unwrap(), expected);

    let other = another(catalog, &cluster, 2).await;
    let found = catalog.restore_marks(other.id, id).await;
    assert!(matches!(found, Err(CatalogError::Gone("restore"))), "{found:?}");
    catalog.save_restore(&lease, &finished_restore(&cluster, 1), &[mark(&shard, "03", "late")]).await.unwrap();
    assert_eq!(catalog.restore_marks(cluster.id, id).await.unwrap(), []);
}

pub async fn a_restore_that_nobody_has_begun_is_killed_when_it_is_cancelled(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let queued = Restore { trouble: Some("no server is running".into()), ..queued_restore(&cluster, 1) };
    let missing = catalog.cancel_restore(cluster.id, queued.id, at(5)).await;
    assert!(matches!(missing, Err(CatalogError::Gone("restore"))), "{missing:?}");
    queue(catalog, &queued).await.unwrap();
    let killed = Restore {
        state: restore::State::Killed,
        ended: Some(at(5)),
        cancelled: true,
        trouble: None,
        ..queued_restore(&cluster, 1)
    };
    assert_eq!(catalog.cancel_restore(cluster.id, queued.id, at(5)).await.unwrap(), killed);
    assert_eq!(catalog.restore(cluster.id, queued.id).await.unwrap(), Some(killed.clone()));
    assert_eq!(killed.broken_rule(), None);
    assert_eq!(catalog.unfinished_restore(cluster.id).await.unwrap(), None);
    // Who was about to begin it comes too late.
    let refused = catalog.save_restore(&lease, &checking_restore(&cluster, 1), &[]).await;
    assert!(matches!(refused, Err(CatalogError::RestoreOutdated(_))), "{refused:?}");
    let again = catalog.cancel_restore(cluster.id, queued.id, at(6)).await;
    assert!(matches!(again, Err(CatalogError::RestoreEnded(id)) if id == queued.id), "{again:?}");
    assert_eq!(catalog.restore(cluster.id, queued.id).await.unwrap(), Some(killed));
}

pub async fn a_restore_that_is_under_way_stays_cancelled_whatever_is_written(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let marks = [mark(&PartId::ConfigServers, "1", "x")];
    queue(catalog, &queued_restore(&cluster, 1)).await.unwrap();
    let loading = loading_restore(&cluster, 1);
    catalog.save_restore(&lease, &loading, &marks).await.unwrap();
    let cancelled = |restore| Restore { cancelled: true, ..restore };
    for second in [5, 6] {
        let became = catalog.cancel_restore(cluster.id, loading.id, at(second)).await.unwrap();
        assert_eq!(became, cancelled(loading.clone()));
    }
    // It is not over before whoever is at it says so.
    assert_eq!(catalog.restore_marks(cluster.id, loading.id).await.unwrap(), marks);
    assert!(kept_uri(catalog, &loading).await.is_some());
    let verifying = verifying_restore(&cluster, 1);
    catalog.save_restore(&lease, &verifying, &[]).await.unwrap();
    assert_eq!(catalog.unfinished_restore(cluster.id).await.unwrap(), Some(cancelled(verifying)));
    // It may also have come too late.
    let finished = finished_restore(&cluster, 1);
    for _ in 0..2 {
        catalog.save_restore(&lease, &finished, &[]).await.unwrap();
        assert_eq!(catalog.restore(cluster.id, loading.id).await.unwrap(), Some(cancelled(finished.clone())));
    }
    let late = catalog.cancel_restore(cluster.id, loading.id, at(60)).await;
    assert!(matches!(late, Err(CatalogError::RestoreEnded(_))), "{late:?}");
}

pub async fn a_snapshot_stays_while_a_restore_may_go_on_from_it(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let other = another(catalog, &cluster, 2).await;
    // Their times are five seconds later.
    let [before, at_it, after] = [1, 5, 6].map(|second| completed_snapshot(&cluster, second));
    let of_other = completed_snapshot(&other, 1);
    let failed = failed_snapshot(&cluster, 2);
    for snapshot in [&before, &at_it, &after, &of_other, &failed] {
        catalog.queue_snapshot(snapshot).await.unwrap();
    }
    let restore = queued_restore(&cluster, 10);
    assert_eq!((at_it.cut, after.cut), (Some(restore.time), Some(time(11))));
    queue(catalog, &restore).await.unwrap();
    for state in [checking_restore(&cluster, 10), loading_restore(&cluster, 10)] {
        catalog.save_restore(&lease, &state, &[]).await.unwrap();
        for snapshot in [&before, &at_it] {
            let refused = catalog.delete_snapshot(cluster.id, snapshot.id, at(60)).await;
            assert!(matches!(refused, Err(CatalogError::InUse(_))), "{refused:?}");
        }
    }
    for snapshot in [&after, &of_other, &failed] {
        catalog.delete_snapshot(snapshot.cluster, snapshot.id, at(60)).await.unwrap();
    }
    catalog.save_restore(&lease, &finished_restore(&cluster, 10), &[]).await.unwrap();
    for snapshot in [&before, &at_it] {
        catalog.delete_snapshot(cluster.id, snapshot.id, at(60)).await.unwrap();
    }
}

pub async fn removing_a_cluster_waits_for_restores_and_takes_those_from_it_along(catalog: &dyn Catalog) {
    let (gone, lease) = with_lease(catalog).await;
    let stays = another(catalog, &gone, 2).await;
    let of_stays = claim(catalog, &stays, "a", 0).await;
    let (from, back) = (queued_restore(&gone, 1), into(&gone, queued_restore(&stays, 2)));
    let in_use = |removed: Result<(), CatalogError>| {
        assert!(matches!(removed, Err(CatalogError::InUse("the cluster"))), "{removed:?}");
    };
    queue(catalog, &from).await.unwrap();
    catalog.save_restore(&lease, &loading_restore(&gone, 1), &[mark(&PartId::ConfigServers, "1", "x")]).await.unwrap();
    in_use(catalog.remove_cluster(gone.id, at(60)).await);
    catalog.save_restore(&lease, &finished_restore(&gone, 1), &[]).await.unwrap();
    queue(catalog, &back).await.unwrap();
    in_use(catalog.remove_cluster(gone.id, at(60)).await);
    in_use(catalog.remove_cluster(stays.id, at(60)).await);
    let back = into(&gone, broken_restore(&stays, 2));
    catalog.save_restore(&of_stays, &back, &[]).await.unwrap();

    catalog.remove_cluster(gone.id, at(60)).await.unwrap();
    assert_eq!(catalog.restores(gone.id, Page::ALL).await.unwrap(), []);
    catalog.add_cluster(&gone).await.unwrap();
    assert_eq!(catalog.count_restores(gone.id).await.unwrap(), 0);
    assert_eq!(catalog.restore(gone.id, from.id).await.unwrap(), None);
    assert_eq!(catalog.restores(stays.id, Page::ALL).await.unwrap(), [back], "what came of it stays");
}

pub async fn ended_restores_are_forgotten_by_age_and_number(catalog: &dyn Catalog) {
    let (cluster, _) = with_lease(catalog).await;
    let other = another(catalog, &cluster, 2).await;
    queue(catalog, &broken_restore(&other, 1)).await.unwrap();
    let all = [1, 2, 3, 4, 5].map(|second| broken_restore(&cluster, second));
    for restore in &all {
        queue(catalog, restore).await.unwrap();
    }
    let parts: u64 = all.iter().map(|restore| restore.parts.len() as u64).sum();
    assert!(parts >= 5);
    assert_eq!(catalog.count_restored_parts(cluster.id).await.unwrap(), parts);
    // One that has not ended stays, however old, and is none of the number.
    let unfinished = queued_restore(&cluster, 0);
    queue(catalog, &unfinished).await.unwrap();
    let left = async || {
        let left = catalog.restores(cluster.id, Page::ALL).await.unwrap();
        left.iter().map(|restore| restore.requested.as_second() - NOON).collect::<Vec<_>>()
    };
    assert_eq!(catalog.forget_restores(cluster.id, at(1), 5).await.unwrap(), 0);
    assert_eq!(catalog.forget_restores(cluster.id, at(2), 5).await.unwrap(), 1);
    assert_eq!(left().await, [5, 4, 3, 2, 0]);
    assert_eq!(catalog.forget_restores(cluster.id, at(1), 3).await.unwrap(), 1);
    assert_eq!(left().await, [5, 4, 3, 0]);
    assert_eq!(catalog.forget_restores(cluster.id, at(5), 2).await.unwrap(), 2, "whichever is more");
    assert_eq!(left().await, [5, 0]);
    assert_eq!(catalog.forget_restores(cluster.id, at(60), 2).await.unwrap(), 1);
    assert_eq!(left().await, [0]);
    assert_eq!(catalog.count_restores(other.id).await.unwrap(), 1);
    assert_eq!(catalog.count_restored_parts(cluster.id).await.unwrap(), unfinished.parts.len() as u64);
}

pub async fn the_version_counts_restores(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let Some(mut before) = catalog.version().unwrap() else { return };
    let mut changes = || {
        let now = catalog.version().unwrap().unwrap();
        std::mem::replace(&mut before, now) != now
    };
    let restore = queued_restore(&cluster, 1);
    queue(catalog, &restore).await.unwrap();
    assert!(changes(), "a restore");
    catalog.save_restore(&lease, &loading_restore(&cluster, 1), &[]).await.unwrap();
    assert!(changes(), "its progress");
    catalog.cancel_restore(cluster.id, restore.id, at(5)).await.unwrap();
    assert!(changes(), "that it is cancelled");
    assert!(!changes(), "nothing");
}

pub async fn what_is_to_be_downloaded_is_found_by_its_job(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let queued = queued_download(&cluster, 1);
    let refused = catalog.queue_restore(&queued, Some(&target_uri())).await;
    assert!(matches!(refused, Err(CatalogError::BrokenRule(_))), "it has no target: {refused:?}");
    let job = queued.parts[1].job;
    assert_eq!(catalog.download(job).await.unwrap(), None);
    catalog.queue_restore(&queued, None).await.unwrap();
    assert_eq!(catalog.download(job).await.unwrap(), Some(queued.clone()));
    assert_eq!(catalog.unfinished_restore(cluster.id).await.unwrap(), Some(queued.clone()));
    let finished = finished_download(&cluster, 1);
    catalog.save_restore(&lease, &finished, &[]).await.unwrap();
    assert_eq!(catalog.download(job).await.unwrap(), Some(finished.clone()));
    // The batch is no job, and neither are those of restores into something else.
    assert_eq!(catalog.download(queued.id).await.unwrap(), None);
    queue(catalog, &queued_restore(&cluster, 2)).await.unwrap();
    assert_eq!(catalog.download(queued_restore(&cluster, 2).parts[0].job).await.unwrap(), None);
    catalog.cancel_restore(cluster.id, queued_restore(&cluster, 2).id, at(20)).await.unwrap();
    catalog.remove_cluster(cluster.id, at(20)).await.unwrap();
    assert_eq!(catalog.download(job).await.unwrap(), None);
}

pub async fn a_file_goes_once_and_what_was_noted_first_stays(catalog: &dyn Catalog) {
    let (cluster, _) = with_lease(catalog).await;
    let finished = finished_download(&cluster, 1);
    let [first, second] = [finished.parts[0].job, finished.parts[1].job];
    let missing = catalog.end_download(first, Gone::Downloaded(at(20))).await;
    assert!(matches!(missing, Err(CatalogError::Gone("download"))), "{missing:?}");
    catalog.queue_restore(&finished, None).await.unwrap();
    let version = catalog.version().unwrap();
    catalog.end_download(first, Gone::Downloaded(at(20))).await.unwrap();
    assert!(catalog.version().unwrap() > version, "what shows it is made anew");
    catalog.end_download(first, Gone::Expired(at(30))).await.unwrap();
    let gone = |restore: Restore| restore.parts.into_iter().map(|part| part.file.unwrap().gone).collect::<Vec<_>>();
    let now = catalog.download(second).await.unwrap().unwrap();
    assert_eq!(gone(now), [Some(Gone::Downloaded(at(20))), None]);
    catalog.end_download(second, Gone::Expired(at(30))).await.unwrap();
    let now = catalog.download(second).await.unwrap().unwrap();
    assert_eq!(gone(now), [Some(Gone::Downloaded(at(20))), Some(Gone::Expired(at(30)))]);
}

pub async fn a_finished_download_is_cancelled_while_some_of_it_is_to_be_had(catalog: &dyn Catalog) {
    let (cluster, _) = with_lease(catalog).await;
    let cancel = async |restore: &Restore, second| catalog.cancel_restore(cluster.id, restore.id, at(second)).await;
    let over = |cancelled: Result<Restore, CatalogError>| {
        assert!(matches!(cancelled, Err(CatalogError::RestoreEnded(_))), "{cancelled:?}");
    };
    let (expired, used, open) =
        (finished_download(&cluster, 1), finished_download(&cluster, 2), finished_download(&cluster, 3));
    for restore in [&expired, &used, &open] {
        catalog.queue_restore(restore, None).await.unwrap();
    }
    over(cancel(&expired, 10 + 2 * 3_600).await);
    for part in &used.parts {
        catalog.end_download(part.job, Gone::Downloaded(at(20))).await.unwrap();
    }
    over(cancel(&used, 30).await);
    catalog.end_download(open.parts[0].job, Gone::Downloaded(at(20))).await.unwrap();
    let killed = cancel(&open, 30).await.unwrap();
    assert_eq!((killed.state, killed.ended, killed.cancelled), (restore::State::Killed, Some(at(30)), true));
    assert_eq!(catalog.restore(cluster.id, open.id).await.unwrap(), Some(killed));
    over(cancel(&open, 31).await);
}

pub async fn a_download_that_is_cancelled_just_before_its_end_has_no_links(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let finished = finished_download(&cluster, 1);
    let unmade = finished.parts.iter().map(|part| restore::Part { file: None, ..part.clone() }).collect();
    let queued = Restore { state: restore::State::Queued, ended: None, parts: unmade, ..finished.clone() };
    catalog.queue_restore(&queued, None).await.unwrap();
    let loading = Restore { state: restore::State::Loading, ..queued };
    catalog.save_restore(&lease, &loading, &[]).await.unwrap();
    catalog.cancel_restore(cluster.id, finished.id, at(9)).await.unwrap();
    catalog.save_restore(&lease, &finished, &[]).await.unwrap();
    let stored = catalog.restore(cluster.id, finished.id).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.can_be_downloaded(at(10))), (restore::State::Killed, false));
}

pub async fn a_link_follows_from_the_key_and_the_job(catalog: &dyn Catalog) {
    let (cluster, _) = with_lease(catalog).await;
    let jobs = finished_download(&cluster, 1).parts.into_iter().map(|part| part.job).collect::<Vec<_>>();
    let tokens: Vec<_> = jobs.iter().map(|job| catalog.download_token(*job).expose_secret().to_owned()).collect();
    assert_eq!(tokens[0].len(), 24 + 64, "256 bits, and whose they are");
    assert_eq!(catalog.job_of_token(&tokens[0]), Some(jobs[0]));
    assert_eq!(catalog.job_of_token(&tokens[1]), Some(jobs[1]));
    let mixed = format!("{}{}", jobs[0], &tokens[1][24..]);
    let longer = format!("{}00", tokens[0]);
    for wrong in ["", "0", &jobs[0].to_string(), &tokens[0][..86], &longer, &mixed, &"ü".repeat(44)] {
        assert_eq!(catalog.job_of_token(wrong), None, "{wrong}");
    }
    for i in 0..88 {
        let mut wrong = tokens[0].clone().into_bytes();
        wrong[i] = if wrong[i] == b'0' { b'1' } else { b'0' };
        assert_eq!(catalog.job_of_token(std::str::from_utf8(&wrong).unwrap()), None, "{i}");
    }
}
