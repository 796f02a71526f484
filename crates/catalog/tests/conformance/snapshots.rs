//! Snapshots: one unfinished at a time, written only under the newest lease; their blobs live as long as any
//! that has them.

use super::*;
use stillpoint_catalog::{CatalogError, Lease, Page};
use stillpoint_core::SnapshotId;
use stillpoint_core::snapshot::{self, Data, Snapshot};

/// `second` decides where it stands among others.
pub fn queued_snapshot(cluster: &Cluster, second: i64) -> Snapshot {
    Snapshot::queued(SnapshotId::new(at(second), second as u64), cluster.id, at(second))
}

fn data(second: i64) -> Data {
    Data {
        manifest: BlobId([second as u8; 32]),
        at: time(second),
        stream: time(second - 1),
        collections: 3,
        documents: 1_000_000,
        bytes: 600_000_000,
        stored: 90_000_000,
    }
}

pub fn reading_snapshot(cluster: &Cluster, second: i64) -> Snapshot {
    let part = |id, read| snapshot::Part { id, replica_set: "set".into(), read, data: None };
    Snapshot {
        state: snapshot::State::Reading,
        parts: vec![part(PartId::Shard("a/b c".into()), Some(data(second))), part(PartId::ConfigServers, None)],
        trouble: Some("the shard a/b c does not answer".into()),
        ..queued_snapshot(cluster, second)
    }
}

pub fn folding_snapshot(cluster: &Cluster, second: i64) -> Snapshot {
    let base = Some(SnapshotId::new(at(0), 9));
    Snapshot {
        state: snapshot::State::Folding,
        cut: Some(time(second + 5)),
        base,
        trouble: None,
        ..reading_snapshot(cluster, second)
    }
}

pub fn completed_snapshot(cluster: &Cluster, second: i64) -> Snapshot {
    let mut snapshot = folding_snapshot(cluster, second);
    snapshot.parts.iter_mut().for_each(|part| part.data = Some(data(second + 5)));
    Snapshot {
        state: snapshot::State::Completed,
        ended: Some(at(second + 9)),
        expires: Some(at(second + 900)),
        ..snapshot
    }
}

pub fn failed_snapshot(cluster: &Cluster, second: i64) -> Snapshot {
    Snapshot {
        state: snapshot::State::Failed,
        ended: Some(at(second + 9)),
        failure: Some("the disk is full".into()),
        ..queued_snapshot(cluster, second)
    }
}

pub fn blobs(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// A cluster with a lease.
async fn with_lease(catalog: &dyn Catalog) -> (Cluster, Lease) {
    let (_, cluster) = with_cluster(catalog).await;
    let lease = claim(catalog, &cluster, "a", 0).await;
    (cluster, lease)
}

/// Queues a snapshot and completes it with these blobs.
async fn complete(catalog: &dyn Catalog, lease: &Lease, cluster: &Cluster, second: i64, names: &[&str]) -> Snapshot {
    let snapshot = completed_snapshot(cluster, second);
    catalog.queue_snapshot(&queued_snapshot(cluster, second)).await.unwrap();
    catalog.save_snapshot(lease, &snapshot, &blobs(names)).await.unwrap();
    snapshot
}

async fn doomed(catalog: &dyn Catalog) -> Vec<String> {
    let mut names = catalog.doomed(at(1_000_000), 99).await.unwrap();
    names.sort();
    names
}

fn in_use<T>(result: Result<T, CatalogError>) -> bool {
    matches!(result, Err(CatalogError::InUse(_)))
}

pub async fn one_snapshot_is_unfinished_at_a_time(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    assert_eq!(catalog.unfinished_snapshot(cluster.id).await.unwrap(), None);
    let first = queued_snapshot(&cluster, 1);
    catalog.queue_snapshot(&first).await.unwrap();
    for unfinished in [first.clone(), reading_snapshot(&cluster, 1), folding_snapshot(&cluster, 1)] {
        catalog.save_snapshot(&lease, &unfinished, &[]).await.unwrap();
        assert_eq!(catalog.unfinished_snapshot(cluster.id).await.unwrap().as_ref(), Some(&unfinished));
        let refused = catalog.queue_snapshot(&queued_snapshot(&cluster, 2)).await;
        assert!(matches!(refused, Err(CatalogError::SnapshotUnderWay(id)) if id == first.id), "{refused:?}");
        assert_eq!(catalog.snapshots(cluster.id, Page::ALL).await.unwrap(), [unfinished]);
    }
    // Neither another cluster's nor a checkpoint is in its way.
    let project = catalog.project(cluster.project).await.unwrap().unwrap();
    let other = super::cluster(&project, "other", 2);
    catalog.add_cluster(&other).await.unwrap();
    catalog.queue_snapshot(&queued_snapshot(&other, 2)).await.unwrap();
    catalog.queue_checkpoint(&queued(&cluster, 2)).await.unwrap();

    catalog.save_snapshot(&lease, &completed_snapshot(&cluster, 1), &[]).await.unwrap();
    assert_eq!(catalog.unfinished_snapshot(cluster.id).await.unwrap(), None);
    catalog.queue_snapshot(&queued_snapshot(&cluster, 2)).await.unwrap();
    assert_eq!(catalog.count_snapshots(cluster.id).await.unwrap(), 2);

    let nowhere = Cluster { id: ClusterId::new(at(9), 9), ..cluster };
    let refused = catalog.queue_snapshot(&queued_snapshot(&nowhere, 1)).await;
    assert!(matches!(refused, Err(CatalogError::Gone("cluster"))), "{refused:?}");
}

pub async fn a_snapshot_reads_back_in_every_state(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let first = queued_snapshot(&cluster, 1);
    catalog.queue_snapshot(&first).await.unwrap();
    assert_eq!(catalog.snapshot(cluster.id, first.id).await.unwrap(), Some(first.clone()));
    for next in [reading_snapshot(&cluster, 1), folding_snapshot(&cluster, 1), completed_snapshot(&cluster, 1)] {
        catalog.save_snapshot(&lease, &next, &[]).await.unwrap();
        assert_eq!(catalog.snapshot(cluster.id, first.id).await.unwrap(), Some(next));
    }
    let second = failed_snapshot(&cluster, 2);
    catalog.queue_snapshot(&queued_snapshot(&cluster, 2)).await.unwrap();
    catalog.save_snapshot(&lease, &second, &[]).await.unwrap();
    assert_eq!(catalog.snapshot(cluster.id, second.id).await.unwrap(), Some(second));
    assert_eq!(catalog.snapshot(cluster.id, queued_snapshot(&cluster, 3).id).await.unwrap(), None);
    assert_eq!(catalog.snapshot(ClusterId::new(at(9), 9), first.id).await.unwrap(), None);
}

pub async fn snapshots_are_listed_newest_first_and_in_pages(catalog: &dyn Catalog) {
    let (cluster, _) = with_lease(catalog).await;
    let project = catalog.project(cluster.project).await.unwrap().unwrap();
    let other = super::cluster(&project, "other", 2);
    catalog.add_cluster(&other).await.unwrap();
    catalog.queue_snapshot(&failed_snapshot(&other, 3)).await.unwrap();
    for second in [5, 1, 4, 2, 3] {
        catalog.queue_snapshot(&failed_snapshot(&cluster, second)).await.unwrap();
    }
    for (skip, take, expected) in
        [(0, 9, &[5, 4, 3, 2, 1][..]), (0, 2, &[5, 4]), (2, 2, &[3, 2]), (4, 2, &[1]), (5, 2, &[]), (0, 0, &[])]
    {
        let found = catalog.snapshots(cluster.id, Page { skip, take }).await.unwrap();
        let seconds: Vec<_> = found.iter().map(|snapshot| snapshot.requested.as_second() - NOON).collect();
        assert_eq!(seconds, expected);
    }
    assert_eq!(catalog.snapshots(cluster.id, Page::ALL).await.unwrap().len(), 5);
    assert_eq!(catalog.count_snapshots(cluster.id).await.unwrap(), 5);
}

pub async fn a_snapshot_is_written_under_the_newest_lease_only(catalog: &dyn Catalog) {
    let (cluster, early) = with_lease(catalog).await;
    let queued = queued_snapshot(&cluster, 1);
    catalog.queue_snapshot(&queued).await.unwrap();
    let late = claim(catalog, &cluster, "b", 60).await;
    let part = PartId::ConfigServers;
    let refused = [
        catalog.save_snapshot(&early, &reading_snapshot(&cluster, 1), &blobs(&["data/1"])).await,
        catalog.add_pieces(&early, queued.id, &part, &blobs(&["piece"]), &blobs(&["data/1"])).await,
    ];
    assert!(refused.iter().all(|one| matches!(one, Err(CatalogError::Fenced))), "{refused:?}");
    assert_eq!(catalog.snapshot(cluster.id, queued.id).await.unwrap().as_ref(), Some(&queued));
    assert_eq!(catalog.pieces(cluster.id, queued.id, &part).await.unwrap(), [""; 0]);
    assert_eq!(catalog.unreferenced(&blobs(&["data/1"])).await.unwrap(), ["data/1"]);
    catalog.save_snapshot(&late, &reading_snapshot(&cluster, 1), &[]).await.unwrap();

    // Another cluster's is no better.
    let project = catalog.project(cluster.project).await.unwrap().unwrap();
    let other = super::cluster(&project, "other", 2);
    catalog.add_cluster(&other).await.unwrap();
    let of_other = claim(catalog, &other, "b", 60).await;
    let refused = catalog.save_snapshot(&of_other, &folding_snapshot(&cluster, 1), &[]).await;
    assert!(matches!(refused, Err(CatalogError::Fenced)), "{refused:?}");
    let refused = catalog.add_pieces(&of_other, queued.id, &part, &[], &[]).await;
    assert!(matches!(refused, Err(CatalogError::Gone("snapshot"))), "{refused:?}");
}

pub async fn a_snapshot_never_goes_back_nor_breaks_a_rule(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    catalog.queue_snapshot(&queued_snapshot(&cluster, 1)).await.unwrap();
    let save = |snapshot| async move { catalog.save_snapshot(&claimed(catalog).await, &snapshot, &[]).await };
    let outdated = |saved: &Result<(), CatalogError>| matches!(saved, Err(CatalogError::SnapshotOutdated(_)));
    save(folding_snapshot(&cluster, 1)).await.unwrap();
    let saved = save(reading_snapshot(&cluster, 1)).await;
    assert!(outdated(&saved), "an earlier state: {saved:?}");
    let saved = save(Snapshot { parts: vec![], ..completed_snapshot(&cluster, 1) }).await;
    assert!(matches!(saved, Err(CatalogError::BrokenRule(_))), "{saved:?}");

    let ended = completed_snapshot(&cluster, 1);
    save(ended.clone()).await.unwrap();
    let saved = save(failed_snapshot(&cluster, 1)).await;
    assert!(outdated(&saved), "an ended one: {saved:?}");
    let saved = catalog.add_pieces(&lease, ended.id, &PartId::ConfigServers, &blobs(&["late"]), &[]).await;
    assert!(outdated(&saved), "{saved:?}");
    // The same once more is what a write whose reply was lost is followed by.
    save(ended.clone()).await.unwrap();
    assert_eq!(catalog.snapshot(cluster.id, ended.id).await.unwrap().as_ref(), Some(&ended));

    catalog.delete_snapshot(cluster.id, ended.id, at(60)).await.unwrap();
    let saved = save(ended.clone()).await;
    assert!(matches!(saved, Err(CatalogError::Gone("snapshot"))), "a late write: {saved:?}");
    assert_eq!(catalog.count_snapshots(cluster.id).await.unwrap(), 0);
}

/// The lease of the one cluster.
async fn claimed(catalog: &dyn Catalog) -> Lease {
    let cluster = catalog.clusters(None).await.unwrap().remove(0);
    catalog.lease(cluster.id).await.unwrap().unwrap().lease
}

pub async fn a_blob_lives_as_long_as_a_snapshot_has_it(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let first = queued_snapshot(&cluster, 1);
    catalog.queue_snapshot(&first).await.unwrap();
    catalog.save_snapshot(&lease, &reading_snapshot(&cluster, 1), &blobs(&["data/1", "data/2"])).await.unwrap();
    // Those that were noted before stay, and once is enough.
    catalog.add_pieces(&lease, first.id, &PartId::ConfigServers, &[], &blobs(&["data/2", "data/3"])).await.unwrap();
    catalog.save_snapshot(&lease, &completed_snapshot(&cluster, 1), &blobs(&["data/3"])).await.unwrap();
    let second = complete(catalog, &lease, &cluster, 20, &["data/2", "data/4"]).await;
    let all = blobs(&["data/1", "data/2", "data/3", "data/4", "stray"]);
    assert_eq!(catalog.unreferenced(&all).await.unwrap(), ["stray"]);
    assert_eq!(catalog.doom(&all[..4], at(50)).await.unwrap(), 0, "they are snapshots'");

    catalog.delete_snapshot(cluster.id, first.id, at(60)).await.unwrap();
    assert_eq!(doomed(catalog).await, ["data/1", "data/3"], "the second has data/2");
    assert_eq!(catalog.doomed(at(60), 9).await.unwrap(), [""; 0]);
    assert_eq!(catalog.doomed(at(61), 9).await.unwrap().len(), 2);
    assert_eq!(catalog.unreferenced(&all).await.unwrap(), ["stray"], "what is doomed is known");
    catalog.delete_snapshot(cluster.id, second.id, at(70)).await.unwrap();
    assert_eq!(doomed(catalog).await, ["data/1", "data/2", "data/3", "data/4"]);
    assert_eq!(catalog.doomed(at(61), 9).await.unwrap().len(), 2, "the first two since then");
    catalog.forget_doomed(&all).await.unwrap();
    assert_eq!(catalog.unreferenced(&all).await.unwrap(), all);
}

pub async fn a_blob_that_a_snapshot_notes_again_is_saved_unless_it_is_condemned(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let gone = complete(catalog, &lease, &cluster, 1, &["data/1", "data/2", "data/3"]).await;
    catalog.delete_snapshot(cluster.id, gone.id, at(60)).await.unwrap();
    let next = queued_snapshot(&cluster, 20);
    catalog.queue_snapshot(&next).await.unwrap();
    catalog.save_snapshot(&lease, &reading_snapshot(&cluster, 20), &blobs(&["data/1"])).await.unwrap();
    assert_eq!(doomed(catalog).await, ["data/2", "data/3"]);
    let part = PartId::ConfigServers;
    catalog.add_pieces(&lease, next.id, &part, &blobs(&["one"]), &blobs(&["data/2"])).await.unwrap();
    assert_eq!(doomed(catalog).await, ["data/3"]);

    assert_eq!(catalog.condemn(&blobs(&["data/2", "data/3"])).await.unwrap(), ["data/3"]);
    let late = blobs(&["data/4", "data/3"]);
    let refused = [
        catalog.save_snapshot(&lease, &folding_snapshot(&cluster, 20), &late).await,
        catalog.add_pieces(&lease, next.id, &part, &blobs(&["two"]), &late).await,
    ];
    for refused in refused {
        assert!(matches!(&refused, Err(CatalogError::BeingDeleted(name)) if name == "data/3"), "{refused:?}");
    }
    // All of it or nothing.
    assert_eq!(catalog.snapshot(cluster.id, next.id).await.unwrap(), Some(reading_snapshot(&cluster, 20)));
    assert_eq!(catalog.pieces(cluster.id, next.id, &part).await.unwrap(), ["one"]);
    assert_eq!(catalog.unreferenced(&late).await.unwrap(), ["data/4"]);
    catalog.forget_doomed(&late).await.unwrap();
    catalog.save_snapshot(&lease, &folding_snapshot(&cluster, 20), &late).await.unwrap();
    assert_eq!(catalog.unreferenced(&late).await.unwrap(), [""; 0]);
}

pub async fn pieces_are_in_their_order_until_the_snapshot_ends(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let id = queued_snapshot(&cluster, 1).id;
    let (config, shard) = (PartId::ConfigServers, PartId::Shard("a/b c".into()));
    let added = catalog.add_pieces(&lease, id, &config, &blobs(&["1"]), &[]).await;
    assert!(matches!(added, Err(CatalogError::Gone("snapshot"))), "{added:?}");
    let found = catalog.pieces(cluster.id, id, &config).await;
    assert!(matches!(found, Err(CatalogError::Gone("snapshot"))), "{found:?}");
    catalog.queue_snapshot(&queued_snapshot(&cluster, 1)).await.unwrap();

    catalog.add_pieces(&lease, id, &config, &blobs(&["z", "a"]), &[]).await.unwrap();
    catalog.add_pieces(&lease, id, &shard, &blobs(&["of the shard"]), &[]).await.unwrap();
    catalog.add_pieces(&lease, id, &config, &blobs(&["m", "a"]), &blobs(&["data/1"])).await.unwrap();
    for state in [reading_snapshot(&cluster, 1), folding_snapshot(&cluster, 1)] {
        catalog.save_snapshot(&lease, &state, &[]).await.unwrap();
        assert_eq!(catalog.pieces(cluster.id, id, &config).await.unwrap(), ["z", "a", "m", "a"]);
        assert_eq!(catalog.pieces(cluster.id, id, &shard).await.unwrap(), ["of the shard"]);
    }
    catalog.save_snapshot(&lease, &completed_snapshot(&cluster, 1), &[]).await.unwrap();
    for part in [&config, &shard] {
        assert_eq!(catalog.pieces(cluster.id, id, part).await.unwrap(), [""; 0]);
    }
    assert_eq!(catalog.unreferenced(&blobs(&["data/1"])).await.unwrap(), [""; 0], "the blobs stay");
}

pub async fn a_snapshot_that_is_in_use_is_not_deleted(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let base = complete(catalog, &lease, &cluster, 1, &["data/1"]).await;
    let next = |snapshot| Snapshot { base: Some(base.id), ..snapshot };
    let id = queued_snapshot(&cluster, 20).id;
    catalog.queue_snapshot(&queued_snapshot(&cluster, 20)).await.unwrap();
    for unfinished in
        [queued_snapshot(&cluster, 20), reading_snapshot(&cluster, 20), folding_snapshot(&cluster, 20)].map(next)
    {
        catalog.save_snapshot(&lease, &unfinished, &[]).await.unwrap();
        assert!(in_use(catalog.delete_snapshot(cluster.id, id, at(60)).await), "itself");
        assert!(in_use(catalog.delete_snapshot(cluster.id, base.id, at(60)).await), "what it goes on from");
        assert_eq!(catalog.count_snapshots(cluster.id).await.unwrap(), 2);
    }
    assert_eq!(doomed(catalog).await, [""; 0]);
    catalog.save_snapshot(&lease, &next(completed_snapshot(&cluster, 20)), &blobs(&["data/1"])).await.unwrap();
    catalog.delete_snapshot(cluster.id, base.id, at(60)).await.unwrap();
    assert_eq!(doomed(catalog).await, [""; 0], "the next has it");
    assert_eq!(catalog.snapshot(cluster.id, base.id).await.unwrap(), None);
    let again = catalog.delete_snapshot(cluster.id, base.id, at(60)).await;
    assert!(matches!(again, Err(CatalogError::Gone("snapshot"))), "{again:?}");
}

pub async fn how_long_a_snapshot_is_kept_changes_once_it_has_ended(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let id = queued_snapshot(&cluster, 1).id;
    let keep = |expires, stays| catalog.keep_snapshot(cluster.id, id, expires, stays);
    assert!(matches!(keep(None, true).await, Err(CatalogError::Gone("snapshot"))));
    catalog.queue_snapshot(&queued_snapshot(&cluster, 1)).await.unwrap();
    for unfinished in [queued_snapshot(&cluster, 1), reading_snapshot(&cluster, 1), folding_snapshot(&cluster, 1)] {
        catalog.save_snapshot(&lease, &unfinished, &[]).await.unwrap();
        assert!(in_use(keep(None, true).await));
        assert_eq!(catalog.snapshot(cluster.id, id).await.unwrap(), Some(unfinished));
    }
    let ended = completed_snapshot(&cluster, 1);
    catalog.save_snapshot(&lease, &ended, &blobs(&["data/1"])).await.unwrap();
    for (expires, do_not_delete) in [(Some(at(5_000)), false), (None, true), (Some(at(6_000)), true)] {
        let expected = Snapshot { expires, do_not_delete, ..ended.clone() };
        assert_eq!(keep(expires, do_not_delete).await.unwrap(), expected);
        assert_eq!(catalog.snapshot(cluster.id, id).await.unwrap(), Some(expected));
    }
    assert_eq!(catalog.unreferenced(&blobs(&["data/1"])).await.unwrap(), [""; 0]);
}

pub async fn damage_of_a_snapshot_is_noted_and_taken_back_once_it_has_ended(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let id = queued_snapshot(&cluster, 1).id;
    let note = |damage| catalog.note_damage(cluster.id, id, damage);
    assert!(matches!(note(Some("a pack")).await, Err(CatalogError::Gone("snapshot"))));
    catalog.queue_snapshot(&queued_snapshot(&cluster, 1)).await.unwrap();
    assert!(in_use(note(Some("a pack")).await));
    let ended = completed_snapshot(&cluster, 1);
    catalog.save_snapshot(&lease, &ended, &[]).await.unwrap();
    for damage in [Some("a pack"), Some("another"), None] {
        note(damage).await.unwrap();
        let expected = Snapshot { damage: damage.map(str::to_owned), ..ended.clone() };
        assert_eq!(catalog.snapshot(cluster.id, id).await.unwrap(), Some(expected));
    }
}

pub async fn one_blob_is_saved_from_doom_by_its_name(catalog: &dyn Catalog) {
    let names = blobs(&["data/a-1", "data/a-2"]);
    catalog.keep_blob(&names[0]).await.unwrap();
    catalog.doom(&names, at(1)).await.unwrap();
    catalog.keep_blob(&names[0]).await.unwrap();
    assert_eq!(doomed(catalog).await, ["data/a-2"]);
    catalog.condemn(&names).await.unwrap();
    let late = catalog.keep_blob(&names[1]).await;
    assert!(matches!(late, Err(CatalogError::BeingDeleted(_))), "{late:?}");
    catalog.forget_doomed(&names).await.unwrap();
    catalog.keep_blob(&names[1]).await.unwrap();
}

pub async fn removing_a_cluster_dooms_the_blobs_of_its_snapshots(catalog: &dyn Catalog) {
    let (gone, lease) = with_lease(catalog).await;
    let project = catalog.project(gone.project).await.unwrap().unwrap();
    let stays = super::cluster(&project, "stays", 2);
    catalog.add_cluster(&stays).await.unwrap();
    let of_stays = claim(catalog, &stays, "a", 0).await;
    complete(catalog, &lease, &gone, 1, &["data/gone/1", "data/gone/2"]).await;
    complete(catalog, &lease, &gone, 20, &["data/gone/2", "data/gone/3"]).await;
    let kept = complete(catalog, &of_stays, &stays, 1, &["data/stays/1"]).await;
    // One that is under way does not keep the cluster.
    catalog.queue_snapshot(&queued_snapshot(&gone, 30)).await.unwrap();
    let part = PartId::ConfigServers;
    let under_way = queued_snapshot(&gone, 30).id;
    catalog.add_pieces(&lease, under_way, &part, &blobs(&["1"]), &blobs(&["data/gone/4"])).await.unwrap();

    catalog.remove_cluster(gone.id, at(90)).await.unwrap();
    assert_eq!(doomed(catalog).await, ["data/gone/1", "data/gone/2", "data/gone/3", "data/gone/4"]);
    assert_eq!(catalog.doomed(at(90), 9).await.unwrap(), [""; 0]);
    assert_eq!(catalog.snapshots(gone.id, Page::ALL).await.unwrap(), []);
    let refused = catalog.add_pieces(&lease, under_way, &part, &[], &[]).await;
    assert!(matches!(refused, Err(CatalogError::Fenced)), "{refused:?}");
    catalog.add_cluster(&gone).await.unwrap();
    assert_eq!(catalog.count_snapshots(gone.id).await.unwrap(), 0);
    assert_eq!(catalog.unfinished_snapshot(gone.id).await.unwrap(), None);

    assert_eq!(catalog.snapshots(stays.id, Page::ALL).await.unwrap(), [kept]);
    assert_eq!(catalog.unreferenced(&blobs(&["data/stays/1"])).await.unwrap(), [""; 0]);
}

pub async fn the_version_counts_snapshots_but_not_their_pieces(catalog: &dyn Catalog) {
    let (cluster, lease) = with_lease(catalog).await;
    let Some(mut before) = catalog.version().unwrap() else { return };
    let mut changes = || {
        let now = catalog.version().unwrap().unwrap();
        std::mem::replace(&mut before, now) != now
    };
    let id = queued_snapshot(&cluster, 1).id;
    catalog.queue_snapshot(&queued_snapshot(&cluster, 1)).await.unwrap();
    assert!(changes(), "a snapshot");
    let part = PartId::ConfigServers;
    catalog.add_pieces(&lease, id, &part, &blobs(&["1", "2"]), &blobs(&["data/1", "data/2"])).await.unwrap();
    catalog.doom(&blobs(&["stray"]), at(5)).await.unwrap();
    assert!(!changes(), "pieces, blobs");
    catalog.save_snapshot(&lease, &completed_snapshot(&cluster, 1), &[]).await.unwrap();
    assert!(changes(), "its progress");
    catalog.keep_snapshot(cluster.id, id, None, true).await.unwrap();
    assert!(changes(), "how long it is kept");
    catalog.delete_snapshot(cluster.id, id, at(9)).await.unwrap();
    assert!(changes(), "no snapshot");
}
