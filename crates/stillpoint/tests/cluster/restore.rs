//! A cluster's data as of a time, restored into another cluster, held against the source as it was then.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, Document, Timestamp, doc};
use serde_json::Value;
use stillpoint_core::ClusterTime;
use stillpoint_lab::routing::Routing;
use stillpoint_lab::snapshot::{ReadAt, find};
use stillpoint_lab::transaction::Transaction;
use stillpoint_lab::wait::until;
use stillpoint_lab::wire::Gossip;
use stillpoint_lab::workload::{self, Workload};
use stillpoint_lab::{Lab, ReplicaSet};

use crate::captured::server_of;
use crate::snapshots::{ask, complete, furnish};
use crate::support::{NS, Ran, SOON, Server, lab_of};

const OF: [&str; 4] = ["--project", "tests", "--cluster", "Cluster0"];

fn timestamp(time: ClusterTime) -> Timestamp {
    Timestamp { time: time.seconds, increment: time.increment }
}

/// A cluster with everything in it, under load, and a server that has a snapshot of it.
async fn source() -> (Lab, Server, Workload) {
    let lab = lab_of(Lab::builder().auth(true)).await;
    for shard in lab.shards() {
        furnish(shard).await;
    }
    // The database that both have is the first one's.
    let (server, _) = server_of(&lab).await;
    let workload = Workload::start(&lab, NS, 4).await.unwrap();
    complete(&server, ask(&server).await).await;
    (lab, server, workload)
}

/// A checkpoint that can be restored.
async fn checkpoint(server: &Server) -> (String, ClusterTime) {
    let record = server.complete().await;
    let id = record.id.to_string();
    let show = [&["checkpoint", "show"], &OF[..], &[&id]].concat();
    let restorable = || async { (server.json(&show).await["restorable"] == true).then_some(()) };
    until(SOON, restorable).await.unwrap_or_else(|| panic!("{id} is not restorable"));
    (id, record.cut.unwrap())
}

async fn restore(server: &Server, checkpoint: &str, uri: &str, more: &[&str]) -> Ran {
    let file = server.folder().join("target");
    std::fs::write(&file, uri).unwrap();
    let file = file.to_str().unwrap();
    let args = [&["restore"], &OF[..], &["--checkpoint", checkpoint, "--to-file", file], more, &["--json"]].concat();
    server.run(&args, &[]).await
}

async fn restored(server: &Server, checkpoint: &str, uri: &str, more: &[&str]) -> Value {
    let ran = restore(server, checkpoint, uri, more).await;
    assert!(ran.status.success(), "{}{}\n{}", ran.err, ran.out, server.log());
    serde_json::from_str(&ran.out).unwrap()
}

/// What a part has, or had: of each collection what there is to say of it, and its documents.
type Data = BTreeMap<String, (Document, Vec<Document>)>;

async fn data(set: &ReplicaSet, at: ReadAt, gossip: &Gossip) -> Data {
    let mut data = Data::new();
    let concern = match at {
        ReadAt::Majority => doc! {"level": "majority"},
        ReadAt::Time(time) => doc! {"level": "snapshot", "atClusterTime": time},
    };
    let list = doc! {"aggregate": 1, "pipeline": [{"$listCatalog": {}}], "cursor": {"batchSize": 1000}, "readConcern": concern};
    let listed = set.run("admin", list).await.unwrap();
    for listed in listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap() {
        let listed = listed.as_document().unwrap();
        let (db, ns) = (listed.get_str("db").unwrap(), listed.get_str("ns").unwrap());
        let is_view = listed.get_str("type").unwrap() != "collection";
        if ["admin", "config", "local"].contains(&db) || is_view || ns.ends_with(".system.profile") {
            continue;
        }
        let md = listed.get_document("md").unwrap();
        let mut indexes: Vec<_> = md
            .get_array("indexes")
            .unwrap()
            .iter()
            .map(|index| {
                let spec = index.as_document().unwrap().get_document("spec").unwrap();
                sorted(spec)
            })
            .collect();
        indexes.sort_by_key(|spec| spec.to_string());
        let about = doc! {"options": sorted(md.get_document("options").unwrap()), "indexes": indexes};
        // A capped collection cannot be read as of a time, and nobody writes to this one.
        let capped = md.get_document("options").unwrap().get_bool("capped").unwrap_or(false);
        let at = if capped { ReadAt::Majority } else { at };
        let documents = find(set.endpoint(), gossip, ns, at, doc! {}).await.unwrap();
        data.insert(ns.to_owned(), (about, documents));
    }
    data
}

fn sorted(document: &Document) -> Document {
    let fields: BTreeMap<_, _> = document.iter().collect();
    fields.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Rows of the config servers' collections, with the names of shards as the target has them.
async fn routing(lab: &Lab, at: ReadAt, gossip: &Gossip, names: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for table in ["databases", "collections", "chunks", "tags"] {
        let filter = doc! {"_id": {"$ne": "config.system.sessions"}};
        let rows = find(lab.config().endpoint(), gossip, &format!("config.{table}"), at, filter).await.unwrap();
        let sessions = Routing::load(&lab.topology(), "config.system.sessions").await.is_ok();
        assert!(!sessions, "this test does not tell its chunks from others");
        let rows = rows.iter().map(|row| {
            let mut text = row.to_string();
            for (from, to) in names {
                text = text.replace(&format!("\"{from}\""), &format!("\"{to}\""));
            }
            text
        });
        all.insert(table.to_owned(), rows.collect());
    }
    all
}

/// What the source had at a time, but for what a shard did not own.
async fn owned(lab: &Lab, i: usize, time: Timestamp, gossip: &Gossip) -> Data {
    let shard = lab.shard(i);
    let mut data = data(shard, ReadAt::Time(time), gossip).await;
    let routing = Routing::load_at(&lab.topology(), gossip, NS, ReadAt::Time(time)).await.unwrap();
    let documents = &mut data.get_mut(NS).unwrap().1;
    documents.retain(|document| routing.owner(document.get("_id").unwrap()).unwrap() == shard.name());
    data
}

fn assert_same(found: &Data, expected: &Data) {
    let names = |data: &Data| data.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (ns, (about, documents)) in expected {
        assert_eq!(found[ns].0, *about, "{ns}");
        assert_eq!(found[ns].1.len(), documents.len(), "{ns}");
        assert!(found[ns].1 == *documents, "{ns}: the documents differ");
    }
}

#[tokio::test]
async fn a_restored_cluster_is_what_the_source_was_and_lives() {
    let (lab, server, workload) = source().await;
    let (id, cut) = checkpoint(&server).await;
    let target = Lab::builder().auth(true).named("new").start().await.unwrap();

    // A plan writes nothing.
    let planned = restored(&server, &id, &target.restore_uri(), &["--dry-run"]).await;
    assert_eq!(planned["parts"].as_array().unwrap().len(), 3, "{planned}");
    let nothing = Gossip::default();
    assert!(data(target.shard(0), ReadAt::Majority, &nothing).await.is_empty());

    // The source's balancer is on, the target's is off: that stays as it is.
    target.operator_stops_balancer().await.unwrap();
    let balancer = target.balancer_documents().await.unwrap();
    let done =
        restored(&server, &id, &target.restore_uri(), &["--shard-map", "rs0=new1", "--shard-map", "rs1=new0"]).await;
    assert_eq!((&done["state"], &done["verdict"]), (&"FINISHED".into(), &"EQUAL".into()), "{done}");

    let time = timestamp(cut);
    let gossip = lab.topology().gossip().await.unwrap();
    for (from, to) in [(0, 1), (1, 0)] {
        let expected = owned(&lab, from, time, &gossip).await;
        assert!(expected.len() > 8 && expected[NS].1.len() > 10, "{expected:?}");
        assert_same(&data(target.shard(to), ReadAt::Majority, &nothing).await, &expected);
    }
    workload.stop().await.unwrap();
    let names = [("rs0", "new1"), ("rs1", "new0")];
    let expected = routing(&lab, ReadAt::Time(time), &gossip, &names).await;
    assert!(!expected["chunks"].is_empty() && !expected["databases"].is_empty());
    assert_eq!(routing(&target, ReadAt::Majority, &nothing, &[]).await, expected);
    assert_eq!(target.balancer_documents().await.unwrap(), balancer);
    let marks =
        find(target.config().endpoint(), &nothing, "config.stillpoint.restore", ReadAt::Majority, doc! {}).await;
    assert_eq!(marks.unwrap(), Vec::<Document>::new());

    // It lives: the money is all there, a chunk moves, transactions span shards, and new collections can be made.
    let now = target.topology().gossip().await.unwrap();
    let total = |lab: Lab, time| async move { (workload::total_at(&lab, NS, time).await.unwrap(), lab) };
    let (was, lab) = total(lab, time).await;
    let chunk = Routing::load(&target.topology(), NS).await.unwrap().chunks[0].clone();
    let other = if chunk.shard == "new0" { "new1" } else { "new0" };
    target.move_range(NS, chunk.min.clone(), other).await.unwrap();
    let again = Workload::start(&target, NS, 2).await;
    again.unwrap().stop().await.unwrap();
    target.create_database("fresh", 1).await.unwrap();
    target.shard_collection("fresh.made", &[Bson::Int32(0)], &[0, 1]).await.unwrap();
    let topology = target.topology();
    let mut transaction = Transaction::begin(&topology);
    for (shard, id) in [("new0", -1), ("new1", 1)] {
        let insert = doc! {"insert": "made", "documents": [{"_id": id}]};
        transaction.run(shard, "fresh", insert).await.unwrap();
    }
    let committed = transaction.commit().await.unwrap();
    let (is, _target) = total(target, committed).await;
    assert_eq!(is, was);
    drop((lab, now));
}
