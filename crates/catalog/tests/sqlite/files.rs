//! Files that are no catalog, or not for this version: refused with a clear error, and left as they
//! were.

use std::os::unix::fs::PermissionsExt;

use stillpoint_catalog::seal::SealError;
use stillpoint_catalog::{Catalog, CatalogError};

use crate::Place;
use crate::conformance::{with_cluster, with_project};

/// Opening must fail, and must leave the catalog's bytes and the folder as they were.
fn refused(place: &Place) -> CatalogError {
    let (bytes, names) = (std::fs::read(&place.catalog).unwrap(), place.names());
    let error = place.open().unwrap_err();
    assert!(std::fs::read(&place.catalog).unwrap() == bytes, "the file has changed");
    assert_eq!(place.names(), names, "something was left beside it");
    assert!(error.to_string().contains(&place.catalog.display().to_string()), "{error}");
    error
}

/// With a key file that is right, so that it is not that which is refused.
fn with_key() -> Place {
    let place = Place::empty();
    stillpoint_catalog::seal::Sealer::from_file(&place.key).unwrap();
    place
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let place = Place::empty();
    drop(place.open().unwrap());
    let raw = rusqlite::Connection::open(&place.catalog).unwrap();
    let known: i64 = raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    raw.pragma_update(None, "user_version", known + 1).unwrap();
    drop(raw);
    let error = refused(&place);
    assert!(
        matches!(&error, CatalogError::Newer { found, known: k, .. } if (*found, *k) == (known + 1, known)),
        "{error}"
    );
    assert!(error.to_string().contains("newer stillpoint"), "{error}");
}

#[tokio::test]
async fn garbage_is_refused() {
    for garbage in
        [b"not a database at all, but long enough to have a header".repeat(40), vec![0; 4096], vec![b'x'; 100]]
    {
        let place = with_key();
        std::fs::write(&place.catalog, garbage).unwrap();
        let error = refused(&place);
        assert!(matches!(error, CatalogError::Unreadable { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_catalog_whose_header_was_overwritten_is_refused() {
    let place = Place::empty();
    with_cluster(&place.open().unwrap()).await;
    let mut bytes = std::fs::read(&place.catalog).unwrap();
    bytes[..100].fill(0xa5);
    std::fs::write(&place.catalog, bytes).unwrap();
    assert!(matches!(refused(&place), CatalogError::Unreadable { .. }));
}

#[tokio::test]
async fn an_sqlite_file_of_something_else_is_refused() {
    let place = with_key();
    let raw = rusqlite::Connection::open(&place.catalog).unwrap();
    raw.execute_batch("CREATE TABLE bookmarks (url TEXT); INSERT INTO bookmarks VALUES ('https://example.net')")
        .unwrap();
    drop(raw);
    let error = refused(&place);
    assert!(matches!(&error, CatalogError::Unreadable { why, .. } if why.contains("something else")), "{error}");
}

#[tokio::test]
async fn a_folder_in_its_place_is_refused() {
    let place = with_key();
    std::fs::create_dir(&place.catalog).unwrap();
    let error = place.open().unwrap_err();
    assert!(matches!(error, CatalogError::Unreadable { .. }), "{error}");
    assert_eq!(std::fs::read_dir(&place.catalog).unwrap().count(), 0);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let mut place = with_key();
    place.catalog = place.folder.path().join("nowhere/stillpoint.db");
    let error = place.open().unwrap_err();
    assert!(matches!(error, CatalogError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("nowhere/stillpoint.db"), "{error}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_refused() {
    let mut place = with_key();
    let closed = place.folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o500)).unwrap();
    if std::fs::write(closed.join("root writes everywhere"), "").is_ok() {
        return;
    }
    place.catalog = closed.join("stillpoint.db");
    let error = place.open().unwrap_err();
    assert!(matches!(error, CatalogError::Unreadable { .. }), "{error}");
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(std::fs::read_dir(&closed).unwrap().count(), 0);
}

#[tokio::test]
async fn another_key_is_noticed_at_once() {
    let place = Place::empty();
    with_cluster(&place.open().unwrap()).await;
    let before = std::fs::read(&place.catalog).unwrap();
    let right = std::fs::read(&place.key).unwrap();
    std::fs::remove_file(&place.key).unwrap();
    stillpoint_catalog::seal::Sealer::from_file(&place.key).unwrap();
    let error = place.open().unwrap_err();
    assert!(matches!(error, CatalogError::Seal(SealError::WrongKey(_))), "{error}");
    assert!(std::fs::read(&place.catalog).unwrap() == before);
    std::fs::write(&place.key, right).unwrap();
    assert_eq!(place.open().unwrap().clusters(None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_catalog_whose_key_file_is_missing_gets_no_new_one() {
    let place = Place::empty();
    with_cluster(&place.open().unwrap()).await;
    std::fs::remove_file(&place.key).unwrap();
    let error = refused(&place);
    assert!(
        matches!(&error, CatalogError::KeyFileMissing { key, .. } if *key == place.key.display().to_string()),
        "{error}"
    );
    assert!(!place.key.exists());
}

#[tokio::test]
async fn one_server_at_a_time() {
    let place = Place::empty();
    let (first, second) = (place.open().unwrap(), place.open().unwrap());
    first.begin_serving().await.unwrap();
    let refused = second.begin_serving().await;
    assert!(
        matches!(&refused, Err(CatalogError::AnotherServer(path)) if *path == place.catalog.display().to_string()),
        "{refused:?}"
    );
    // The command line works meanwhile.
    with_project(&second, 1).await;
    assert_eq!(first.projects().await.unwrap().len(), 1);
    drop(first);
    second.begin_serving().await.unwrap();
}

#[tokio::test]
async fn a_new_server_ends_the_leases_of_one_that_died() {
    let place = Place::empty();
    let died = place.open().unwrap();
    died.begin_serving().await.unwrap();
    let (_, cluster) = with_cluster(&died).await;
    let now = crate::conformance::at(0);
    let hour = std::time::Duration::from_secs(3600);
    let old = died.claim_lease(cluster.id, "died", now, hour).await.unwrap().unwrap();
    drop(died);

    let next = place.open().unwrap();
    assert_eq!(next.claim_lease(cluster.id, "next", now, hour).await.unwrap(), None);
    next.begin_serving().await.unwrap();
    let lease = next.claim_lease(cluster.id, "next", now, hour).await.unwrap().unwrap();
    assert!(lease.epoch > old.epoch);
    assert!(matches!(next.renew_lease(&old, now, hour).await, Err(CatalogError::Fenced)));
}
