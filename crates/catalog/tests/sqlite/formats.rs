//! Every format that was ever released opens, is brought up to date, and reads back.
//!
//! `fixtures/format-N.db` and its key are kept for ever. When a step is added to the migrations,
//! [`each_format_has_its_fixture`] fails; then
//! `cargo test -p stillpoint-catalog --test sqlite -- --ignored write_the_fixture` makes the new one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret;
use stillpoint_catalog::{AccessToken, AuditEntry, Catalog, Cluster, Credential, CredentialKind, Page, Project};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::schedule::{Schedule, Setting};
use stillpoint_core::snapshot::Snapshot;
use stillpoint_core::stream::{OpenTransaction, Stream};
use stillpoint_core::{Role, VaultId};

use crate::Place;
use crate::conformance::{
    append, assert_stored, at, blobs, cluster, completed, completed_snapshot, failed, finished_download,
    finished_restore, gap, holding, key, loading_restore, mark, open_transaction, passed_drill, project, queued_drill,
    queued_restore, reading_snapshot, report, restoring_drill, run_of, stream, target_uri, time, token, weekly,
};

fn fixture(format: i64) -> (PathBuf, PathBuf) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    (folder.join(format!("format-{format}.db")), folder.join(format!("format-{format}.key")))
}

fn format_of(path: &Path) -> i64 {
    let raw = rusqlite::Connection::open(path).unwrap();
    raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

fn newest_format() -> i64 {
    let place = Place::empty();
    drop(place.open().unwrap());
    format_of(&place.catalog)
}

/// What each fixture holds; `write` is false for those that exist.
async fn fill_or_check(catalog: &dyn Catalog, format: i64, write: bool) {
    let projects = [project(catalog, 1).await, project(catalog, 2).await];
    let read_only = [(projects[0].id, Role::GroupReadOnly)].into();
    let keys = [
        key(&projects[0], "abcdefgh", 1),
        Credential { roles: read_only, access_list: vec![], ..key(&projects[0], "ijklmnop", 2) },
    ];
    let clusters = [cluster(&projects[0], "Cluster0", 1), cluster(&projects[1], "Cluster0", 2)];
    let checkpoints = [holding(&clusters[0], 30), failed(&clusters[0], 20), completed(&clusters[0], 10)];
    if write {
        for project in &projects {
            catalog.create_project(project).await.unwrap();
        }
        for key in &keys {
            catalog.create_credential(key).await.unwrap();
        }
        for cluster in &clusters {
            catalog.add_cluster(cluster).await.unwrap();
        }
        for _ in 0..3 {
            catalog.claim_lease(clusters[0].id, "4711-0badcafe", at(30), Duration::from_secs(15)).await.unwrap();
        }
        for checkpoint in checkpoints.iter().rev() {
            catalog.queue_checkpoint(checkpoint).await.unwrap();
        }
    }
    assert_eq!(catalog.projects().await.unwrap(), projects);
    assert_eq!(catalog.credentials(CredentialKind::Key, projects[0].id).await.unwrap(), keys);
    assert_eq!(catalog.clusters(Some(projects[0].id)).await.unwrap(), clusters[..1]);
    assert_eq!(catalog.clusters(Some(projects[1].id)).await.unwrap(), clusters[1..]);
    assert_eq!(catalog.checkpoints(clusters[0].id, Page { skip: 0, take: 9 }).await.unwrap(), checkpoints);
    assert_eq!(catalog.unfinished_checkpoint(clusters[0].id).await.unwrap().as_ref(), Some(&checkpoints[0]));
    let lease = catalog.lease(clusters[0].id).await.unwrap().unwrap();
    assert_eq!((lease.lease.holder.as_str(), lease.lease.epoch, lease.until), ("4711-0badcafe", 3, at(45)));
    if format < 4 {
        assert_eq!(catalog.lease(clusters[1].id).await.unwrap(), None);
    }
    assert_eq!(catalog.schedule(clusters[1].id).await.unwrap(), Schedule::default());
    if format >= 2 {
        fill_or_check_2(catalog, &projects, &clusters, write).await;
    }
    if format >= 3 {
        fill_or_check_3(catalog, &clusters[0], format, write).await;
    }
    if format >= 4 {
        fill_or_check_4(catalog, &clusters[1], write).await;
    }
    if format >= 5 {
        fill_or_check_5(catalog, &clusters[1], write).await;
    }
}

/// What came with format 2.
async fn fill_or_check_2(catalog: &dyn Catalog, projects: &[Project; 2], clusters: &[Cluster; 2], write: bool) {
    let roles = projects.iter().map(|project| (project.id, Role::GroupOwner)).collect();
    let kind = CredentialKind::ServiceAccount;
    let account = Credential { kind, roles, ..key(&projects[0], "mdb_sa_id_6b8cd6d580eef54711017e89", 3) };
    let token = AccessToken { hash: [7; 32], account: account.id, expires: at(3_600) };
    let entry = AuditEntry {
        at: at(50),
        actor: Some("abcdefgh".into()),
        from: Some("192.0.2.7".into()),
        action: "DELETE /api".into(),
        status: Some(403),
        error: Some("ACCESS_FORBIDDEN".into()),
        refused: true,
        times: Some(2),
    };
    if write {
        catalog.create_credential(&account).await.unwrap();
        catalog.create_token(&token, &account.proof, at(0)).await.unwrap();
        catalog.change_schedule(clusters[0].id, &[(Setting::ClusterCheckpointIntervalMin, 30)]).await.unwrap();
        catalog.append_audit(std::slice::from_ref(&entry)).await.unwrap();
    }
    assert_eq!(catalog.credentials(kind, projects[1].id).await.unwrap(), std::slice::from_ref(&account));
    assert_eq!(catalog.token(&token.hash).await.unwrap(), Some((account, token.expires)));
    let schedule = Schedule { cluster_checkpoint_interval_min: Some(30), ..Schedule::default() };
    assert_eq!(catalog.schedule(clusters[0].id).await.unwrap(), schedule);
    assert_eq!(catalog.audit(Page { skip: 0, take: 9 }).await.unwrap(), [entry]);
}

/// What came with format 3: a stream that lost entries and began anew, and one that ended.
async fn fill_or_check_3(catalog: &dyn Catalog, cluster: &Cluster, format: i64, write: bool) {
    let (shard, config) = (PartId::Shard("a/b c".into()), PartId::ConfigServers);
    let mut before = run_of(cluster, &shard, None, 0..4);
    before[3].tokens = vec![token(cluster, 1, 31), token(cluster, 2, 32)];
    before[3].open = vec![open_transaction(5), OpenTransaction { prepared: None, ..open_transaction(6) }];
    let after = run_of(cluster, &shard, None, 9..11);
    let ended = Stream { ended: Some(at(70)), ..stream(cluster, &config) };
    // What was given up is noted since the fixture of format 4 was made.
    let kept_from = (format >= 5).then(|| before[1].last.time.after());
    let anew = Stream { from: time(90), complete_from: time(91), began: at(95), kept_from, ..stream(cluster, &shard) };
    let known = gap(&shard, 39, 90);
    let vault = VaultId::new(at(0), 7);
    if write {
        catalog.bind_vault(vault).await.unwrap();
        // The same holder's, and its epoch as it was.
        let lease = catalog.lease(cluster.id).await.unwrap().unwrap().lease;
        catalog.begin_stream(&lease, &stream(cluster, &shard), None).await.unwrap();
        append(catalog, &lease, &before).await;
        assert_eq!(catalog.drop_segments(&lease, &shard, before[2].first, at(50)).await.unwrap(), 2);
        catalog.begin_stream(&lease, &anew, Some(&known)).await.unwrap();
        append(catalog, &lease, &after).await;
        catalog.begin_stream(&lease, &stream(cluster, &config), None).await.unwrap();
        catalog.end_stream(&lease, &config, at(70)).await.unwrap();
        catalog.report_capture(cluster.id, &shard, &report(110)).await.unwrap();
    }
    assert_eq!(catalog.vault().await.unwrap(), Some(vault));
    assert_eq!(catalog.streams(cluster.id).await.unwrap(), [ended, anew]);
    assert_eq!(catalog.gaps(cluster.id).await.unwrap(), [known]);
    assert_eq!(catalog.capture_reports(cluster.id).await.unwrap(), [(shard.clone(), report(110))]);
    assert_stored(catalog, cluster, &shard, &[&before[2..], &after].concat()).await;
    assert_eq!(catalog.last_segment(cluster.id, &shard).await.unwrap().as_ref(), after.last());
    let tokens = before[3].tokens.iter().map(|token| (shard.clone(), token.clone())).collect::<Vec<_>>();
    assert_eq!(catalog.stored_tokens(cluster.id, tokens[0].1.checkpoint).await.unwrap(), tokens);
    let doomed = [before[0].name(), before[1].name()];
    assert_eq!(catalog.doomed(at(51), 9).await.unwrap(), doomed);
    assert_eq!(catalog.doomed(at(50), 9).await.unwrap(), [""; 0]);
}

/// What came with format 4, of a cluster of its own: a snapshot that was deleted, one that is kept, one that is
/// under way, and a stream with a transaction that is not ended.
async fn fill_or_check_4(catalog: &dyn Catalog, cluster: &Cluster, write: bool) {
    let part = PartId::Shard("a/b c".into());
    let [gone, kept] = [completed_snapshot(cluster, 10), completed_snapshot(cluster, 20)];
    let kept = Snapshot { do_not_delete: true, ..kept };
    let reading = reading_snapshot(cluster, 30);
    let mut run = run_of(cluster, &part, None, 0..1);
    run[0].open = vec![open_transaction(5)];
    if write {
        let lease = catalog.claim_lease(cluster.id, "4711-0badcafe", at(0), Duration::from_secs(15)).await.unwrap();
        let lease = lease.unwrap();
        for (ended, names) in [(&gone, ["data/1", "data/2"]), (&kept, ["data/2", "data/3"])] {
            catalog.queue_snapshot(ended).await.unwrap();
            catalog.save_snapshot(&lease, ended, &blobs(&names)).await.unwrap();
        }
        catalog.delete_snapshot(cluster.id, gone.id, at(60)).await.unwrap();
        catalog.queue_snapshot(&reading).await.unwrap();
        catalog.add_pieces(&lease, reading.id, &part, &blobs(&["2", "1"]), &blobs(&["data/4"])).await.unwrap();
        catalog.begin_stream(&lease, &stream(cluster, &part), None).await.unwrap();
        append(catalog, &lease, &run).await;
        catalog.release_lease(&lease).await.unwrap();
    }
    let id = reading.id;
    assert_eq!(catalog.snapshots(cluster.id, Page::ALL).await.unwrap(), [reading, kept]);
    assert_eq!(catalog.pieces(cluster.id, id, &part).await.unwrap(), ["2", "1"]);
    let names = blobs(&["data/1", "data/2", "data/3", "data/4", "stray"]);
    assert_eq!(catalog.unreferenced(&names).await.unwrap(), ["stray"]);
    assert_eq!(catalog.doomed(at(61), 9).await.unwrap().last().map(String::as_str), Some("data/1"));
    assert_eq!(
        catalog.streams(cluster.id).await.unwrap(),
        [Stream { unresolved: Some(time(5)), ..stream(cluster, &part) }]
    );
}

/// What came with format 5: a restore that is finished, one whose files can be downloaded, and one that is under way;
/// the same of drills, and when the next are.
async fn fill_or_check_5(catalog: &dyn Catalog, cluster: &Cluster, write: bool) {
    let [finished, loading] = [finished_restore(cluster, 10), loading_restore(cluster, 20)];
    let marks = [mark(&PartId::ConfigServers, "01", "all"), mark(&PartId::Shard("a/b c".into()), "02", "half")];
    if write {
        let lease = catalog.claim_lease(cluster.id, "4711-0badcafe", at(0), Duration::from_secs(15)).await.unwrap();
        let lease = lease.unwrap();
        catalog.queue_restore(&finished_download(cluster, 5), None).await.unwrap();
        for (second, restore, marks) in [(10, &finished, &marks[..0]), (20, &loading, &marks)] {
            catalog.queue_restore(&queued_restore(cluster, second), Some(&target_uri())).await.unwrap();
            catalog.save_restore(&lease, restore, marks).await.unwrap();
        }
        for (second, drill) in [(10, passed_drill(cluster, 10)), (20, restoring_drill(cluster, 20))] {
            catalog.queue_drill(&queued_drill(cluster, second)).await.unwrap();
            catalog.save_drill(&lease, &drill).await.unwrap();
        }
        catalog.set_drill_schedule(cluster.id, Some(&weekly())).await.unwrap();
        catalog.release_lease(&lease).await.unwrap();
    }
    let drills = [restoring_drill(cluster, 20), passed_drill(cluster, 10)];
    assert_eq!(catalog.drills(cluster.id, Page::ALL).await.unwrap(), drills);
    assert_eq!(catalog.drill_schedule(cluster.id).await.unwrap(), Some(weekly()));
    let download = finished_download(cluster, 5);
    for part in &download.parts {
        assert_eq!(catalog.download(part.job).await.unwrap().as_ref(), Some(&download));
    }
    let mut uris = Vec::new();
    for restore in [&finished, &loading] {
        let uri = catalog.restore_uri(cluster.id, restore.id).await.unwrap();
        uris.push(uri.map(|uri| uri.expose_secret().to_owned()));
    }
    assert_eq!(uris, [None, Some(target_uri().expose_secret().to_owned())]);
    assert_eq!(catalog.restore_marks(cluster.id, loading.id).await.unwrap(), marks);
    assert_eq!(catalog.restores(cluster.id, Page::ALL).await.unwrap(), [loading, finished, download]);
}

/// A place with a copy of the fixture.
fn with_fixture(format: i64) -> Place {
    let place = Place::empty();
    let (db, key) = fixture(format);
    std::fs::copy(db, &place.catalog).unwrap();
    std::fs::copy(key, &place.key).unwrap();
    std::fs::set_permissions(&place.key, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(format_of(&place.catalog), format);
    place
}

#[tokio::test]
async fn every_format_that_ever_was_reads_back() {
    let newest = newest_format();
    for format in 1..=newest {
        let place = with_fixture(format);
        // Twice: as it was, and as it was left.
        let mut ids = Vec::new();
        for _ in 0..2 {
            let catalog = place.open().unwrap();
            fill_or_check(&catalog, format, false).await;
            ids.push(catalog.id().await.unwrap());
            assert_eq!(format_of(&place.catalog), newest);
        }
        assert_eq!(ids[0], ids[1]);
    }
}

/// What came later is no less there in a catalog that was made before it.
#[tokio::test]
async fn a_catalog_of_every_format_keeps_streams_snapshots_and_restores_and_counts_their_changes() {
    for format in 1..=newest_format() {
        let place = with_fixture(format);
        let catalog = place.open().unwrap();
        let cluster = catalog.clusters(None).await.unwrap().into_iter().min_by_key(|cluster| cluster.id).unwrap();
        let part = PartId::Shard("rs7".into());
        let lease = catalog.claim_lease(cluster.id, "b", at(100), Duration::from_secs(15)).await.unwrap().unwrap();
        let mut versions = vec![catalog.version().unwrap()];
        catalog.begin_stream(&lease, &stream(&cluster, &part), None).await.unwrap();
        versions.push(catalog.version().unwrap());
        catalog.add_gap(cluster.id, &gap(&part, 1, 2)).await.unwrap();
        versions.push(catalog.version().unwrap());
        catalog.remove_gap(cluster.id, &part, time(1), time(2)).await.unwrap();
        versions.push(catalog.version().unwrap());
        let snapshot = completed_snapshot(&cluster, 99);
        catalog.queue_snapshot(&snapshot).await.unwrap();
        versions.push(catalog.version().unwrap());
        assert_eq!(catalog.snapshots(cluster.id, Page::ALL).await.unwrap(), [snapshot]);
        let restore = queued_restore(&cluster, 99);
        catalog.queue_restore(&restore, Some(&target_uri())).await.unwrap();
        versions.push(catalog.version().unwrap());
        assert_eq!(catalog.restores(cluster.id, Page::ALL).await.unwrap(), [restore]);
        assert!(versions.is_sorted_by(|a, b| a < b), "format {format}: {versions:?}");
        let run = run_of(&cluster, &part, None, 0..2);
        append(&catalog, &lease, &run).await;
        assert_stored(&catalog, &cluster, &part, &run).await;
    }
}

#[tokio::test]
async fn two_catalogs_have_two_ids() {
    let places = [with_fixture(1), with_fixture(1), Place::empty(), Place::empty()];
    let mut ids = Vec::new();
    for place in &places {
        ids.push(place.open().unwrap().id().await.unwrap());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), places.len());
}

#[tokio::test]
async fn each_format_has_its_fixture() {
    let newest = newest_format();
    assert!(newest >= 1);
    for format in 1..=newest {
        let (db, key) = fixture(format);
        assert!(db.exists() && key.exists(), "{} is missing", db.display());
    }
}

#[tokio::test]
#[ignore = "writes a file that is to be committed, and never again"]
async fn write_the_fixture() {
    let place = Place::empty();
    fill_or_check(&place.open().unwrap(), newest_format(), true).await;
    let (db, key) = fixture(format_of(&place.catalog));
    assert!(!db.exists() && !key.exists(), "a fixture is never changed");
    std::fs::copy(&place.catalog, db).unwrap();
    std::fs::copy(&place.key, key).unwrap();
}
