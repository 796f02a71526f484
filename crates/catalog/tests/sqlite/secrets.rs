//! What is in the files: no secret in the clear, and nothing that others may read.

use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;
use stillpoint_catalog::Catalog;

use crate::Place;
use crate::conformance::{HA1, PASSWORD, at, finished_download, key, queued_restore, target_uri, with_cluster};

#[tokio::test]
async fn no_file_holds_a_secret_and_none_may_be_read_by_others() {
    let place = Place::empty();
    let catalog = place.open().unwrap();
    catalog.begin_serving().await.unwrap();
    let (project, cluster) = with_cluster(&catalog).await;
    let key = key(&project, "abcdefgh", 1);
    catalog.create_credential(&key).await.unwrap();
    // The links of what is to be downloaded are made of the key, and nowhere.
    let download = finished_download(&cluster, 2);
    catalog.queue_restore(&download, None).await.unwrap();
    let links = download.parts.iter().map(|part| catalog.download_token(part.job).expose_secret()[24..].to_owned());
    let links = links.collect::<Vec<_>>();
    let restore = queued_restore(&cluster, 1);
    catalog.queue_restore(&restore, Some(&target_uri())).await.unwrap();
    // Open, so that the write-ahead log is there; then closed, when all is in the one file.
    let open = look(&place, &links);
    assert!(open.contains(&"stillpoint.db-wal".to_owned()), "{open:?}");
    drop(catalog);
    look(&place, &links);

    let catalog = place.open().unwrap();
    assert!(catalog.delete_credential(key.id).await.unwrap());
    catalog.cancel_restore(cluster.id, restore.id, at(9)).await.unwrap();
    catalog.remove_cluster(cluster.id, at(9)).await.unwrap();
    look(&place, &links);
}

/// Looks into each file, and says which there are.
fn look(place: &Place, links: &[String]) -> Vec<String> {
    let names = place.names();
    for name in &names {
        let path = place.folder.path().join(name);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        let bytes = std::fs::read(&path).unwrap();
        let ha1_bytes: Vec<u8> = (0..16).map(|i| u8::from_str_radix(&HA1[2 * i..2 * i + 2], 16).unwrap()).collect();
        let links = links.iter().map(String::as_bytes);
        for secret in [PASSWORD.as_bytes(), HA1.as_bytes(), &ha1_bytes, b"mongodb://"].into_iter().chain(links) {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "a secret is in {name}");
        }
    }
    names
}

#[tokio::test]
async fn nothing_shows_a_secret_in_its_debug_text() {
    let (catalog, _kept) = crate::fresh().await;
    let (project, cluster) = with_cluster(&catalog).await;
    let text = format!("{catalog:?} {project:?} {cluster:?} {:?}", key(&project, "abcdefgh", 1));
    assert!(!text.contains(PASSWORD) && !text.contains(HA1), "{text}");
}
