//! A cluster that is forgotten while the server reads it: the server lets go of it, and what it had stored goes.

use bson::doc;
use futures::TryStreamExt;
use jiff::Timestamp;
use stillpoint_catalog::Catalog;
use stillpoint_lab::wait::until;
use stillpoint_lab::{Lab, ReplicaSet};

use crate::captured::server_of;
use crate::snapshots::{ask, complete};
use crate::support::{SOON, command_failed, fail_command, lab};

const READ: &str = "shop.much";

/// How many cursors are open on the collection.
async fn cursors(set: &ReplicaSet) -> usize {
    let pipeline = [doc! {"$currentOp": {"allUsers": true, "idleCursors": true}}, doc! {"$match": {"ns": READ}}];
    let asked = set.run("admin", doc! {"aggregate": 1, "pipeline": pipeline.to_vec(), "cursor": {}}).await.unwrap();
    asked.get_document("cursor").unwrap().get_array("firstBatch").unwrap().len()
}

#[tokio::test]
async fn a_cluster_is_removed_while_its_first_snapshot_is_read() {
    let lab: Lab = lab().await;
    let set = lab.shard(0);
    let (db, name) = READ.split_once('.').unwrap();
    for from in (0..40_000).step_by(1000) {
        let documents: Vec<_> = (from..from + 1000).map(|n| doc! {"_id": n, "text": "x".repeat(900)}).collect();
        set.run(db, doc! {"insert": name, "documents": documents}).await.unwrap();
    }
    let (mut server, vault) = server_of(&lab).await;
    let (catalog, removed) = (server.catalog(), server.cluster());
    // The second of its batches, and each further one, takes long.
    let slow = doc! {"blockConnection": true, "blockTimeMS": 6_000, "namespace": READ};
    let before = fail_command(set, "getMore", "alwaysOn", slow).await;
    let snapshot = ask(&server).await;
    command_failed(set, before).await;
    // What was read by then is noted, and stored.
    let noted = || async {
        let part = crate::captured::shard(0);
        (!catalog.pieces(removed, snapshot, &part).await.unwrap().is_empty()).then_some(())
    };
    until(SOON, noted).await.expect("nothing was noted");

    let ran = server.run(&["cluster", "remove", "--project", "tests", "Cluster0"], &[]).await;
    assert!(
        ran.status.success() && ran.out.contains(&format!("snapshot {snapshot}, which was under way")),
        "{}{}",
        ran.err,
        ran.out
    );
    fail_command(set, "getMore", "off", doc! {}).await;
    until(SOON, || async { (cursors(set).await == 0).then_some(()) }).await.expect("it is read still");
    assert_eq!(catalog.snapshot(removed, snapshot).await.unwrap(), None);
    // All that was stored is to be deleted, or will be found to be nobody's.
    let blobs: Vec<_> = vault.list("").map_ok(|blob| blob.name).try_collect().await.unwrap();
    let blobs: Vec<_> = blobs.into_iter().filter(|name| name.contains(&removed.to_string())).collect();
    assert!(blobs.iter().any(|name| name.starts_with("snapshot/")), "{blobs:?}");
    let doomed = catalog.doomed(Timestamp::MAX, u64::MAX).await.unwrap();
    let nobodys = catalog.unreferenced(&blobs).await.unwrap();
    assert!(blobs.iter().all(|name| doomed.contains(name) || nobodys.contains(name)), "{blobs:?}");

    // It is a new one to the server that runs, and is read from its beginning.
    server.add_to_project(&lab).await;
    assert_ne!(server.cluster(), removed);
    let again = complete(&server, ask(&server).await).await;
    assert!(again.base.is_none() && again.parts.iter().all(|part| part.read.is_some()), "{again:?}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
