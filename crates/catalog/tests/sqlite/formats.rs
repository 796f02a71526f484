//! Every format that was ever released opens, is brought up to date, and reads back.
//!
//! `fixtures/format-N.db` and its key are kept for ever. When a step is added to the migrations,
//! [`each_format_has_its_fixture`] fails; then
//! `cargo test -p stillpoint-catalog --test sqlite -- --ignored write_the_fixture` makes the new one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stillpoint_catalog::{AccessToken, AuditEntry, Catalog, Cluster, Credential, CredentialKind, Page, Project};
use stillpoint_core::Role;
use stillpoint_core::schedule::{Schedule, Setting};

use crate::Place;
use crate::conformance::{at, cluster, completed, failed, holding, key, project};

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
    assert_eq!(catalog.lease(clusters[1].id).await.unwrap(), None);
    assert_eq!(catalog.schedule(clusters[1].id).await.unwrap(), Schedule::default());
    if format >= 2 {
        fill_or_check_2(catalog, &projects, &clusters, write).await;
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

#[tokio::test]
async fn every_format_that_ever_was_reads_back() {
    let newest = newest_format();
    for format in 1..=newest {
        let place = Place::empty();
        let (db, key) = fixture(format);
        std::fs::copy(db, &place.catalog).unwrap();
        std::fs::copy(key, &place.key).unwrap();
        std::fs::set_permissions(&place.key, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(format_of(&place.catalog), format);
        // Twice: as it was, and as it was left.
        for _ in 0..2 {
            fill_or_check(&place.open().unwrap(), format, false).await;
            assert_eq!(format_of(&place.catalog), newest);
        }
    }
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
