//! Snapshots of a cluster at work, held against what the cluster itself says of the same time.

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use jiff::Timestamp;
use serde_json::Value;
use stillpoint_catalog::Catalog;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::snapshot::{Snapshot, State};
use stillpoint_core::verification::{PartVerification, Verdict};
use stillpoint_core::{ClusterTime, SnapshotId};
use stillpoint_engine::snapshots::Archive;
use stillpoint_engine::snapshots::state::Room;
use stillpoint_engine::snapshots::verify::{compare, stored};
use stillpoint_lab::wait::until;
use stillpoint_lab::workload::Workload;
use stillpoint_lab::{Lab, ReplicaSet};
use stillpoint_mongo::ClusterLink;
use stillpoint_vault::Vault;

use crate::captured::{majority, server_of};
use crate::support::{NS, SOON, Server, lab_of};

const LIMIT: Duration = Duration::from_secs(120);

#[expect(clippy::disallowed_methods, reason = "records of a test are of now")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Collections of every kind that is read in its own way.
pub async fn furnish(set: &ReplicaSet) {
    let run = |command: Document| async move { set.run("shop", command).await.unwrap() };
    run(doc! {"create": "capped", "capped": true, "size": 65536}).await;
    run(doc! {"create": "words", "collation": {"locale": "de", "strength": 2}}).await;
    run(doc! {"create": "clustered", "clusteredIndex": {"key": {"_id": 1}, "unique": true}}).await;
    run(doc! {"create": "weather", "timeseries": {"timeField": "at", "metaField": "place"}}).await;
    run(doc! {"create": "cheap", "viewOn": "goods", "pipeline": [{"$match": {"price": {"$lt": 10}}}]}).await;
    run(doc! {"create": "empty", "validator": {"price": {"$gt": 0}}}).await;
    let index = doc! {"key": {"price": 1}, "name": "price_1", "partialFilterExpression": {"price": {"$gt": 5}}};
    run(doc! {"createIndexes": "goods", "indexes": [index]}).await;
    for (name, documents) in [("goods", 3000), ("capped", 300), ("words", 200), ("clustered", 400)] {
        let documents: Vec<_> = (0..documents)
            .map(|n| doc! {"_id": format!("{name}-{n}"), "price": n, "text": "x".repeat(n as usize % 400)})
            .collect();
        run(doc! {"insert": name, "documents": documents}).await;
    }
    run(doc! {"insert": "system.js", "documents": [{"_id": "one", "value": bson::Bson::JavaScriptCode("function () { return 1 }".into())}]}).await;
    run(doc! {"createRole": "clerk", "privileges": [], "roles": ["read"]}).await;
    run(doc! {"createUser": "ada", "pwd": "secret-of-ada", "roles": ["clerk"]}).await;
    // What each member writes by itself is not the cluster's data.
    run(doc! {"profile": 2}).await;
    let at = |n: i64| bson::DateTime::from_millis(1_795_521_600_000 + n * 1000);
    let weather: Vec<_> = (0..100).map(|n| doc! {"at": at(n), "place": n % 3, "warm": n}).collect();
    run(doc! {"insert": "weather", "documents": weather}).await;
}

pub async fn ask(server: &Server) -> SnapshotId {
    let now = now();
    let snapshot = Snapshot::queued(SnapshotId::new(now, rand::random()), server.cluster(), now);
    server.catalog().queue_snapshot(&snapshot).await.unwrap();
    snapshot.id
}

pub async fn complete(server: &Server, id: SnapshotId) -> Snapshot {
    let catalog = server.catalog();
    let find = || async { catalog.snapshot(server.cluster(), id).await.unwrap().unwrap() };
    let ended = until(LIMIT, || async { Some(find().await).filter(|snapshot| snapshot.state.ended()) }).await;
    let snapshot = match ended {
        Some(snapshot) => snapshot,
        None => panic!("{:?}\n{}", find().await, server.log()),
    };
    assert_eq!(snapshot.state, State::Completed, "{snapshot:?}\n{}", server.log());
    snapshot
}

pub async fn verified(lab: &Lab, server: &Server, vault: &Vault, snapshot: &Snapshot) -> Vec<PartVerification> {
    let room = Room::new(64 << 20, server.folder().to_owned());
    let (catalog, cut) = (Arc::new(server.catalog()), snapshot.cut.unwrap());
    let clock = Arc::new(now);
    let archive = Archive::open(catalog, vault.clone(), clock, server.cluster(), room).await.unwrap();
    let cluster = ClusterLink::connect(&lab.uri().into()).await.unwrap();
    let mut all = Vec::new();
    for link in cluster.parts().await.unwrap() {
        let base = archive.base(&link.id, cut).unwrap();
        let source = archive.source(&link.id, &base, cut).await.unwrap();
        let stored = stored(source, cut).await.unwrap();
        all.push(compare(&stored, &link, cut).await.unwrap());
    }
    all
}

#[tokio::test]
async fn a_snapshot_of_a_cluster_at_work_is_what_the_cluster_was_and_the_next_reads_nothing() {
    let lab = lab_of(Lab::builder().auth(true)).await;
    for shard in lab.shards() {
        furnish(shard).await;
    }
    let (server, vault) = server_of(&lab).await;
    let workload = Workload::start(&lab, NS, 4).await.unwrap();
    let first = complete(&server, ask(&server).await).await;
    assert_eq!((first.base, first.parts.len()), (None, 3));
    for part in verified(&lab, &server, &vault, &first).await {
        assert_eq!(part.verdict(), Verdict::Equal, "{part:?}");
        assert!(part.equal > 3 && part.documents > 0, "{part:?}");
    }
    let mut newest = ClusterTime::ZERO;
    for part in lab.parts() {
        newest = newest.max(majority(part).await);
    }
    let second = complete(&server, ask(&server).await).await;
    assert_eq!(second.base, Some(first.id));
    assert!(second.cut >= Some(newest), "what was written before it was asked for is not in it: {second:?}");
    assert!(second.cut > first.cut && second.parts.iter().all(|part| part.read.is_none()), "{second:?}");
    for part in verified(&lab, &server, &vault, &second).await {
        assert_eq!(part.verdict(), Verdict::Equal, "{part:?}");
    }
    // Any checkpoint since the first one can be gone back to, and is what the cluster was.
    for _ in 0..2 {
        let id = server.complete().await.id.to_string();
        // As soon as the transactions have ended that were prepared by then.
        let show = ["checkpoint", "show", "--project", "tests", "--cluster", "Cluster0", &id];
        let restorable = || async { (server.json(&show).await["restorable"] == true).then_some(()) };
        until(SOON, restorable).await.unwrap_or_else(|| panic!("{id} is not restorable"));
        let verified = server.json(&verify(&id)).await;
        assert_eq!(verified["verdict"], "EQUAL", "{verified}");
    }
    workload.stop().await.unwrap();
}

fn verify(checkpoint: &str) -> [&str; 7] {
    ["verify", "--project", "tests", "--cluster", "Cluster0", "--checkpoint", checkpoint]
}

/// Documents of a megabyte in all, in a collection of each shard: pieces are noted after one.
pub async fn fill(set: &ReplicaSet, collections: usize) {
    for n in 0..collections {
        let documents: Vec<_> = (0..256).map(|id| doc! {"_id": id, "text": "y".repeat(4096)}).collect();
        set.run("big", doc! {"insert": format!("c{n}"), "documents": documents}).await.unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_goes_on_after_a_crash_from_what_was_noted() {
    let lab = lab_of(Lab::builder()).await;
    for shard in lab.shards() {
        fill(shard, 4).await;
    }
    let (mut server, vault) = server_of(&lab).await;
    let id = ask_of(&mut server).await;
    let mut noted = 0;
    for step in ["pieces-noted", "pieces-noted", "pieces-noted", "part-read", "time-chosen", "part-folded"] {
        server.serve(Some(step)).await;
        server.crashed().await;
        let catalog = server.catalog();
        let pieces = catalog.pieces(server.cluster(), id, &PartId::Shard("rs0".into())).await.unwrap();
        let begun = pieces.iter().filter(|piece| piece.contains("begun")).count();
        assert!(begun <= 1, "it was begun anew after {step}");
        assert!(pieces.len() >= noted, "after {step} there are {} records, and there were {noted}", pieces.len());
        noted = pieces.len();
    }
    assert!(noted > 3);
    server.serve(None).await;
    let snapshot = complete(&server, id).await;
    for part in verified(&lab, &server, &vault, &snapshot).await {
        assert_eq!(part.verdict(), Verdict::Equal, "{part:?}");
    }
    let left = server.catalog().pieces(server.cluster(), id, &PartId::Shard("rs0".into())).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// Asks while no server runs.
pub async fn ask_of(server: &mut Server) -> SnapshotId {
    server.stop().await;
    ask(server).await
}

pub fn of(command: &'static str, more: &[&'static str]) -> Vec<&'static str> {
    [&[command, "--project", "tests", "--cluster", "Cluster0"], more].concat()
}

#[tokio::test]
async fn what_is_stored_is_exported_as_files_and_printed() {
    let lab = lab_of(Lab::builder().shards(2)).await;
    furnish(lab.shard(0)).await;
    let (server, _) = server_of(&lab).await;
    let snapshot = complete(&server, ask(&server).await).await;
    let set = lab.shard(0);
    set.run("shop", doc! {"update": "goods", "updates": [{"q": {"_id": "goods-7"}, "u": {"$set": {"price": 7.5}}}]})
        .await
        .unwrap();
    let since = server.complete().await;

    // The files are what the server itself says.
    let out = server.folder().join("out");
    let id: &'static str = snapshot.id.to_string().leak();
    let folder: &'static str = out.to_str().unwrap().to_owned().leak();
    let exported = server.json(&of("export", &["--snapshot", id, "--out", folder])).await;
    assert_eq!(exported["parts"].as_array().unwrap().len(), 3, "{exported}");
    let documents = |name: &str| {
        let bytes = std::fs::read(out.join("rs0/shop").join(name)).unwrap();
        let found: Vec<_> = split(&bytes).into_iter().map(|bytes| Document::from_reader(bytes).unwrap()).collect();
        found
    };
    let live = |name: &'static str| async move {
        let collection = set.client().database("shop").collection::<Document>(name);
        collection.find(doc! {}).sort(doc! {"$natural": 1}).await.unwrap().try_collect::<Vec<_>>().await.unwrap()
    };
    assert_eq!(documents("capped.bson"), live("capped").await, "in their order");
    assert_eq!(documents("clustered.bson"), live("clustered").await);
    let mut words = live("words").await;
    words.sort_by_key(|word| word.get_str("_id").unwrap().to_owned());
    assert_eq!(documents("words.bson"), words);
    let price = |all: &[Document]| all.iter().find(|one| one.get_str("_id").unwrap() == "goods-7").unwrap().clone();
    assert_eq!(price(&documents("goods.bson")).get_i32("price").unwrap(), 7, "as it was before the update");
    let metadata = |name: &str| -> Value {
        let text = std::fs::read_to_string(out.join("rs0/shop").join(format!("{name}.metadata.json"))).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let goods = metadata("goods");
    assert_eq!((&goods["type"], &goods["collectionName"]), (&"collection".into(), &"goods".into()));
    let indexes: Vec<_> = goods["indexes"].as_array().unwrap().iter().map(|index| index["name"].clone()).collect();
    assert_eq!(indexes, ["_id_", "price_1"], "{goods}");
    let uuid = set.run("shop", doc! {"listCollections": 1, "filter": {"name": "goods"}}).await.unwrap();
    let uuid = uuid.get_document("cursor").unwrap().get_array("firstBatch").unwrap()[0].as_document().unwrap().clone();
    let Some(Bson::Binary(uuid)) = uuid.get_document("info").unwrap().get("uuid") else { panic!("{uuid}") };
    assert_eq!(goods["uuid"], hex(&uuid.bytes));
    assert_eq!(metadata("cheap")["type"], "view");
    assert_eq!(metadata("cheap")["options"]["viewOn"], "goods");
    assert_eq!(metadata("weather")["type"], "timeseries");
    assert_eq!(metadata("weather")["options"]["timeseries"]["metaField"], "place");
    assert!(!out.join("rs0/shop/system.views.bson").exists());
    assert!(out.join("config/config/chunks.bson").exists() && !out.join("config/config/transactions.bson").exists());

    // A folder that is there is not written into.
    let again = server.run(&of("export", &["--snapshot", id, "--out", folder]), &[]).await;
    assert!(!again.status.success() && again.err.contains("is there already"), "{}", again.err);

    // One document, after the update.
    let since: &'static str = since.id.to_string().leak();
    let cat = of("cat", &["--checkpoint", since, "--ns", "shop.goods", "--id", "\"goods-7\""]);
    let restorable = || async { server.run(&cat, &[]).await.status.success().then_some(()) };
    until(SOON, restorable).await.expect("the checkpoint cannot be read");
    let printed = server.run(&cat, &[]).await;
    let lines: Vec<Value> = printed.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{}", printed.out);
    assert_eq!(lines[0]["price"], serde_json::json!({"$numberDouble": "7.5"}));
    let all = server.run(&of("cat", &["--checkpoint", since, "--ns", "shop.goods"]), &[]).await;
    assert_eq!(all.out.lines().count(), 3000);
    for (args, says) in [
        (["--ns", "shop.goods", "--id", "\"none\""], "no document with _id"),
        (["--ns", "shop.none", "--id", "7"], "no collection shop.none"),
        (["--ns", "shop.goods", "--id", "{seven}"], "write extended JSON"),
    ] {
        let refused = server.run(&[&of("cat", &["--checkpoint", since])[..], &args].concat(), &[]).await;
        assert!(!refused.status.success() && refused.err.contains(says), "{args:?}: {}", refused.err);
    }
    let early = server.run(&of("cat", &["--at", "1000:1", "--ns", "shop.goods"]), &[]).await;
    assert!(early.err.contains("no snapshot is as of 1000:1 or before"), "{}", early.err);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// BSON documents one after the other.
pub fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some(length) = bytes.first_chunk() {
        let (document, rest) = bytes.split_at(i32::from_le_bytes(*length) as usize);
        all.push(document);
        bytes = rest;
    }
    all
}

#[tokio::test]
async fn each_checkpoint_is_verified_by_itself_if_the_operator_wants_that() {
    let lab = lab_of(Lab::builder()).await;
    let more = "interval = \"off\"\n[capture]\nseal_after = \"1s\"\n";
    let mut server = Server::with(&lab, more).await;
    server.stop().await;
    server.configure("[snapshots]\nscheduled = false\n", "[snapshots]\nscheduled = false\nverify = true\n");
    server.serve(None).await;
    let workload = Workload::start(&lab, NS, 2).await.unwrap();
    complete(&server, ask(&server).await).await;
    let id = server.complete().await.id;
    let verified = || async { server.record(id).await.verification };
    let verification = until(LIMIT, verified).await.unwrap_or_else(|| panic!("it is not verified\n{}", server.log()));
    assert_eq!(verification.verdict(), Verdict::Equal, "{verification:?}");
    assert_eq!((verification.parts.len(), Some(verification.time)), (3, server.record(id).await.cut));
    workload.stop().await.unwrap();
}

/// The packs of a part, by their paths.
pub fn packs(server: &Server, part: &str) -> Vec<std::path::PathBuf> {
    let folder = server.folder().join("vault/snapshot").join(server.cluster().to_string()).join(part);
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut packs: Vec<_> = files.filter(|path| path.to_str().unwrap().contains("/pack-")).collect();
    packs.sort();
    packs
}

#[tokio::test]
async fn a_damaged_snapshot_is_found_and_nothing_goes_on_from_it() {
    let lab = lab_of(Lab::builder().shards(2)).await;
    fill(lab.shard(0), 1).await;
    let (server, _) = server_of(&lab).await;
    let first = complete(&server, ask(&server).await).await;
    let checkpoint = server.complete().await.id.to_string();
    let show = ["checkpoint", "show", "--project", "tests", "--cluster", "Cluster0", &checkpoint];
    assert_eq!(server.json(&show).await["restorable"], true);
    // At once: what is stored of a part that nobody writes to ends with its token.
    assert_eq!(server.json(&verify(&checkpoint)).await["verdict"], "EQUAL");
    let whole = server.json(&["vault", "check"]).await;
    assert_eq!((&whole["snapshots"]["checked"], &whole["snapshots"]["damaged"]), (&1.into(), &serde_json::json!([])));
    assert!(whole["snapshots"]["chunks"].as_u64().unwrap() > 3, "{whole}");

    let pack = packs(&server, "shard-rs0").remove(0);
    let aside = server.folder().join("aside");
    std::fs::rename(&pack, &aside).unwrap();
    let checked = server.run(&["vault", "check", "--json"], &[]).await;
    assert!(!checked.status.success() && checked.err.contains("1 snapshots damaged"), "{}", checked.err);
    let found: Value = serde_json::from_str(&checked.out).unwrap();
    assert_eq!(found["snapshots"]["damaged"][0]["id"], first.id.to_string(), "{found}");
    assert_eq!(server.json(&show).await["restorable"], false, "it needs what is missing");

    // The next one reads the cluster again.
    let second = complete(&server, ask(&server).await).await;
    assert_eq!(second.base, None);
    assert_eq!(server.json(&show).await["restorable"], false, "the second is later than it");

    std::fs::rename(&aside, &pack).unwrap();
    let mended = server.json(&["vault", "check"]).await;
    assert_eq!(mended["snapshots"]["mended"][0]["id"], first.id.to_string(), "{mended}");
    assert_eq!(server.json(&show).await["restorable"], true);
}
