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
use stillpoint_lab::wire::{Gossip, majority};
use stillpoint_lab::workload::{self, Workload};
use stillpoint_lab::{Lab, ReplicaSet};

use crate::captured::server_of;
use crate::snapshots::{ask, complete, furnish};
use crate::support::{NS, Ran, SOON, Server, lab_of};

const LIMIT: Duration = Duration::from_secs(180);
pub const OF: [&str; 4] = ["--project", "tests", "--cluster", "Cluster0"];
const SESSIONS: &str = "config.system.sessions";

pub fn timestamp(time: ClusterTime) -> Timestamp {
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
pub async fn checkpoint(server: &Server) -> (String, ClusterTime) {
    let record = server.complete().await;
    let id = record.id.to_string();
    let show = [&["checkpoint", "show"], &OF[..], &[&id]].concat();
    let restorable = || async { (server.json(&show).await["restorable"] == true).then_some(()) };
    until(SOON, restorable).await.unwrap_or_else(|| panic!("{id} is not restorable"));
    (id, record.cut.unwrap())
}

pub async fn restore(server: &Server, checkpoint: &str, uri: &str, more: &[&str]) -> Ran {
    restore_to(server, ["--checkpoint", checkpoint], uri, more).await
}

/// The same to any point.
pub async fn restore_to(server: &Server, point: [&str; 2], uri: &str, more: &[&str]) -> Ran {
    let file = server.folder().join("target");
    std::fs::write(&file, uri).unwrap();
    let to = ["--to-file", file.to_str().unwrap(), "--json"];
    server.run(&[&["restore"], &OF[..], &point, &to, more].concat(), &[]).await
}

pub async fn restored(server: &Server, checkpoint: &str, uri: &str, more: &[&str]) -> Value {
    let ran = restore(server, checkpoint, uri, more).await;
    assert!(ran.status.success(), "{}{}\n{}", ran.err, ran.out, server.log());
    serde_json::from_str(&ran.out).unwrap()
}

/// What a part has, or had: of each collection what there is to say of it, and its documents.
pub type Data = BTreeMap<String, (Document, Vec<Document>)>;

pub async fn data(set: &ReplicaSet, at: ReadAt, gossip: &Gossip) -> Data {
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

/// Rows of the config servers' collections, with the names of shards as the target has them. The sessions of clients
/// are each cluster's own.
pub async fn routing(lab: &Lab, at: ReadAt, gossip: &Gossip, names: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    let rows = async |table: &str, filter| {
        find(lab.config().endpoint(), gossip, &format!("config.{table}"), at, filter).await.unwrap()
    };
    let mut filter = doc! {"_id": {"$ne": SESSIONS}};
    if let Some(sessions) = rows("collections", doc! {"_id": SESSIONS}).await.pop() {
        filter.insert("uuid", doc! {"$ne": sessions.get("uuid").unwrap()});
    }
    for table in ["databases", "collections", "chunks", "tags"] {
        let rows = rows(table, filter.clone()).await;
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

pub fn assert_finished(done: &Value) {
    assert_eq!((&done["state"], &done["verdict"]), (&"FINISHED".into(), &"EQUAL".into()), "{done}");
}

/// Each of the first two shards has what the source's had at a time, in their order.
pub async fn assert_restored(lab: &Lab, target: &Lab, time: ClusterTime) {
    let gossip = lab.topology().gossip().await.unwrap();
    for i in 0..2 {
        let found = data(target.shard(i), ReadAt::Majority, &Gossip::default()).await;
        assert_same(&found, &owned(lab, i, timestamp(time), &gossip).await);
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
    assert_finished(&done);

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

/// Asks for a restore and does not wait.
pub async fn ask_restore(server: &Server, checkpoint: &str, uri: &str) -> String {
    let document = restored(server, checkpoint, uri, &["--no-wait"]).await;
    document["id"].as_str().unwrap().to_owned()
}

pub async fn job(server: &Server, id: &str) -> Value {
    server.json(&[&["restore-job", "show"], &OF[..], &[id]].concat()).await
}

pub async fn until_job(server: &Server, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let look = || async { Some(job(server, id).await).filter(&wanted) };
    match until(LIMIT, look).await {
        Some(job) => job,
        None => panic!("{}\n{}", job(server, id).await, server.log()),
    }
}

pub fn is_over(job: &Value) -> bool {
    ["FINISHED", "BROKEN", "KILLED"].iter().any(|state| job["state"] == *state)
}

#[tokio::test]
async fn what_was_noted_counts_only_while_it_is_there() {
    let lab = lab_of(Lab::builder()).await;
    much(&lab, 3_000).await;
    let (mut server, _) = server_of(&lab).await;
    complete(&server, ask(&server).await).await;
    let (id, cut) = checkpoint(&server).await;

    // All is written and noted; then somebody drops some of it, and the server goes on.
    let target = Lab::builder().named("new").start().await.unwrap();
    let restore = ask_restore(&server, &id, &target.restore_uri()).await;
    server.stop().await;
    server.serve(Some("restore-loaded")).await;
    server.crashed().await;
    target.shard(0).run("shop", doc! {"drop": "much"}).await.unwrap();
    server.serve(None).await;
    let done = until_job(&server, &restore, is_over).await;
    assert_finished(&done);
    assert_restored(&lab, &target, cut).await;

    // Another cluster in its place is not taken for it.
    let target = Lab::builder().named("next").start().await.unwrap();
    let restore = ask_restore(&server, &id, &target.restore_uri()).await;
    server.stop().await;
    server.serve(Some("restore-verified")).await;
    server.crashed().await;
    for shard in target.shards() {
        for db in ["shop", "bank"] {
            shard.run(db, doc! {"dropDatabase": 1}).await.unwrap();
        }
    }
    target.config().run("config", doc! {"drop": "stillpoint.restore"}).await.unwrap();
    server.serve(None).await;
    let done = until_job(&server, &restore, is_over).await;
    let failure = done["failure"].as_str().unwrap_or_default();
    assert!(done["state"] == "BROKEN" && failure.contains("does not have the mark"), "{done}");
}

/// So much that it takes more than a moment to write.
pub async fn much(lab: &Lab, documents: i32) {
    for shard in lab.shards() {
        for from in (0..documents).step_by(1000) {
            let documents: Vec<_> =
                (from..from + 1000).map(|n| doc! {"_id": n, "n": n % 7, "text": "x".repeat(900)}).collect();
            shard.run("shop", doc! {"insert": "much", "documents": documents}).await.unwrap();
        }
        let index = doc! {"key": {"n": 1}, "name": "n_1"};
        shard.run("shop", doc! {"createIndexes": "much", "indexes": [index]}).await.unwrap();
    }
}

#[tokio::test]
async fn a_restore_goes_on_after_a_crash_at_every_step() {
    let lab = lab_of(Lab::builder()).await;
    much(&lab, 20_000).await;
    let (mut server, _) = server_of(&lab).await;
    complete(&server, ask(&server).await).await;
    let (id, cut) = checkpoint(&server).await;
    let target = Lab::builder().named("new").start().await.unwrap();
    // Asked of the server that crashes first: another could be past that step before it is stopped.
    server.stop().await;
    server.serve(Some("restore-marked")).await;
    let restore = ask_restore(&server, &id, &target.restore_uri()).await;
    let after = ["restore-noted", "restore-loaded", "restore-verified", "restore-told", "restore-opened"];
    for next in after.map(Some).into_iter().chain([None]) {
        server.crashed().await;
        let half = job(&server, &restore).await;
        assert!(!is_over(&half), "before {next:?}: {half}");
        server.serve(next).await;
    }
    let done = until_job(&server, &restore, is_over).await;
    assert_finished(&done);
    assert_restored(&lab, &target, cut).await;

    // It can be compared at any time, and one document is enough to tell.
    let file = server.folder().join("target");
    let verify =
        [&["verify"], &OF[..], &["--checkpoint", &id, "--against-file", file.to_str().unwrap(), "--json"]].concat();
    let compared = server.run(&verify, &[]).await;
    assert!(compared.status.success() && compared.out.contains("\"EQUAL\""), "{}{}", compared.err, compared.out);
    target
        .shard(1)
        .run("shop", doc! {"update": "much", "updates": [{"q": {"_id": 7}, "u": {"$inc": {"n": 1}}}]})
        .await
        .unwrap();
    let compared = server.run(&verify, &[]).await;
    assert!(!compared.status.success() && compared.out.contains("shop.much"), "{}{}", compared.err, compared.out);
}

#[tokio::test]
async fn a_restore_goes_on_through_an_election_and_ends_when_it_is_told_to() {
    let lab = lab_of(Lab::builder()).await;
    much(&lab, 40_000).await;
    let (server, _) = server_of(&lab).await;
    complete(&server, ask(&server).await).await;
    let (id, cut) = checkpoint(&server).await;
    let target = Lab::builder().named("new").members(3).start().await.unwrap();
    let restore = ask_restore(&server, &id, &target.restore_uri()).await;
    let has_begun = |job: &Value| job["parts"][0]["written"]["documents"].as_u64() > Some(0) || is_over(job);
    until_job(&server, &restore, has_begun).await;
    target.shard(0).step_down().await.unwrap();
    let done = until_job(&server, &restore, is_over).await;
    assert_finished(&done);
    assert_restored(&lab, &target, cut).await;

    let nothing = Gossip::default();
    // One that is ended leaves its mark, and nobody takes the target for a whole one.
    let other = Lab::builder().named("other").start().await.unwrap();
    let file = server.folder().join("other");
    std::fs::write(&file, other.uri()).unwrap();
    server
        .json(&["cluster", "add", "--project", "tests", "--name", "Other", "--uri-file", file.to_str().unwrap()])
        .await;
    let asked = [&["restore"], &OF[..], &["--checkpoint", &id, "--to-cluster", "Other", "--no-wait"]].concat();
    let restore = server.json(&asked).await["id"].as_str().unwrap().to_owned();
    until_job(&server, &restore, has_begun).await;
    server.json(&[&["restore-job", "cancel"], &OF[..], &[&restore]].concat()).await;
    let done = until_job(&server, &restore, is_over).await;
    assert_eq!(done["state"], "KILLED", "{done}");
    let marks = find(other.config().endpoint(), &nothing, "config.stillpoint.restore", ReadAt::Majority, doc! {}).await;
    assert_eq!(marks.unwrap()[0].get_str("restore").unwrap(), restore);
    let databases = find(other.config().endpoint(), &nothing, "config.databases", ReadAt::Majority, doc! {}).await;
    assert_eq!(databases.unwrap(), Vec::<Document>::new());
    let ran = super::restore::restore(&server, &id, &other.restore_uri(), &[]).await;
    assert!(
        !ran.status.success() && ran.err.contains(&restore) && ran.err.contains("Nothing was written"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn what_will_not_do_is_refused_before_anything_is_written() {
    let (lab, server, workload) = source().await;
    let (id, _) = checkpoint(&server).await;
    let nothing = Gossip::default();
    let refused = async |uri: &str, more: &[&str], why: &str| {
        let ran = restore(&server, &id, uri, more).await;
        assert!(!ran.status.success() && ran.err.contains(why), "{more:?}: {}", ran.err);
    };
    refused(&lab.uri(), &[], "the target is the source itself").await;
    refused(&lab.shard(0).restore_uri(), &["--part", "rs0"], "is the shard rs0 of a sharded cluster").await;

    let plain = Lab::plain_replica_set().await.unwrap();
    let uri = plain.restore_uri();
    refused(&uri, &[], "name the one part that it is to have with --part (rs0, rs1)").await;
    refused(&uri, &["--part", "config"], "name a shard").await;
    refused(&uri, &["--part", "rs7"], "there is no shard rs7").await;
    refused(&uri, &["--part", "rs0", "--only", "config"], "the servers' own").await;
    refused(&uri, &["--part", "rs0", "--only", "bank.acounts"], "no collection bank.acounts: there was accounts").await;
    refused(&uri, &["--part", "rs0", "--only", "shops=copy"], "no database shops: there was bank, ").await;
    // A plan is of what was asked for.
    let plan = async |only: &str| restore(&server, &id, &uri, &["--part", "rs0", "--only", only, "--dry-run"]).await;
    let planned: Value = serde_json::from_str(&plan("shop.goods=copy.goods").await.out).unwrap();
    let expected = &planned["parts"][0]["expected"];
    assert_eq!((&expected["collections"], &expected["documents"]), (&1.into(), &3000.into()), "{planned}");
    let planned = plan("bank.acounts").await;
    assert!(
        planned.status.success() && planned.err.contains("there was no collection bank.acounts"),
        "{}",
        planned.err
    );
    plain.run("admin", doc! {"setFeatureCompatibilityVersion": "5.0"}).await.unwrap();
    refused(&uri, &["--part", "rs0"], "featureCompatibilityVersion is 5.0, and the data is of 6.0").await;
    plain.run("admin", doc! {"setFeatureCompatibilityVersion": "6.0"}).await.unwrap();
    plain.run("old", doc! {"insert": "left", "documents": [{"_id": 1}]}).await.unwrap();
    refused(&uri, &["--part", "rs0"], "the target is not empty: it has old.left").await;
    assert_eq!(data(&plain, ReadAt::Majority, &nothing).await.len(), 1);

    // What is there is none of its business if it is elsewhere.
    let more = ["--part", "rs0", "--only", "shop=copy", "--only", "bank.accounts=bank2.money"];
    let done = restored(&server, &id, &uri, &more).await;
    assert_finished(&done);
    let there = data(&plain, ReadAt::Majority, &nothing).await;
    assert_eq!((there["copy.goods"].1.len(), there["old.left"].1.len()), (3000, 1));
    assert!(there["bank2.money"].1.len() > 5);
    let count = async |name: &str| {
        let reply =
            plain.run("copy", doc! {"aggregate": name, "pipeline": [{"$count": "n"}], "cursor": {}}).await.unwrap();
        let first = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap()[0].clone();
        first.as_document().unwrap().get_i32("n").unwrap()
    };
    assert_eq!(
        (count("cheap").await, count("weather").await),
        (10, 100),
        "a view and a time-series, by their new names"
    );
    refused(&uri, &["--part", "rs0", "--only", "shop=third"], "two collections cannot have one UUID").await;

    // Fewer shards: what is one collection everywhere is merged, what is not is refused.
    let target = Lab::builder().auth(true).named("one").shards(1).start().await.unwrap();
    let uri = target.restore_uri();
    refused(&target.uri(), &[], "the user of the target may not").await;
    refused(&uri, &["--shard-map", "rs0=two"], "the target has no shard two").await;
    refused(&uri, &[], "is one collection on shard rs0 and another on shard rs1").await;
    assert!(data(target.shard(0), ReadAt::Majority, &nothing).await.is_empty());
    let done = restored(&server, &id, &uri, &["--only", "bank"]).await;
    assert_finished(&done);
    workload.stop().await.unwrap();
    let cut = server.record(id.parse().unwrap()).await.cut.unwrap();
    let time = timestamp(cut);
    let now = target.topology().gossip().await.unwrap();
    let restored = find(target.shard(0).endpoint(), &now, NS, ReadAt::Majority, doc! {}).await.unwrap();
    let mut expected = stillpoint_lab::snapshot::find_at(&lab, NS, time, doc! {}).await.unwrap();
    expected.sort_by_key(|document| document.get_i64("_id").unwrap());
    assert!(expected.len() > 10 && restored == expected, "{} and {}", restored.len(), expected.len());
}

/// Documents that are long past their time, of an index and of a time-series; a collection that is sharded by a
/// hash, whose documents both shards have, each the other's as orphans; capped collections with more than they may
/// hold; zones; users and roles.
async fn what_is_special(lab: &Lab) {
    lab.create_database("store", 0).await.unwrap();
    let config = lab.config().endpoint();
    let nothing = Gossip::default();
    let row =
        find(config, &nothing, "config.databases", ReadAt::Majority, doc! {"_id": "store"}).await.unwrap().remove(0);
    let shard = doc! {
        "_shardsvrCreateCollection": "hashed", "shardKey": {"_id": "hashed"}, "writeConcern": majority(),
        "databaseVersion": row.get("version").unwrap(),
    };
    lab.shard(0).run("store", shard).await.unwrap();
    for shard in lab.shards() {
        let documents: Vec<_> = (0..1000).map(|n| doc! {"_id": n}).collect();
        shard.run("store", doc! {"insert": "hashed", "documents": documents}).await.unwrap();
    }
    let past = |n: i64| bson::DateTime::from_millis(1_000_000_000_000 + n * 1000);
    let index = doc! {"key": {"at": 1}, "name": "at_1", "expireAfterSeconds": 60};
    let run = |command: Document| async move { lab.shard(0).run("store", command).await.unwrap() };
    run(doc! {"createIndexes": "old", "indexes": [index]}).await;
    run(doc! {"insert": "old", "documents": (0..50).map(|n| doc! {"_id": n, "at": past(n)}).collect::<Vec<_>>()}).await;
    run(doc! {"create": "past", "timeseries": {"timeField": "at"}, "expireAfterSeconds": 3600}).await;
    run(doc! {"insert": "past", "documents": (0..50).map(|n| doc! {"at": past(n)}).collect::<Vec<_>>()}).await;
    // By an update: an insert would put the time there.
    let zero = doc! {"$set": {"at": Timestamp { time: 0, increment: 0 }}};
    run(doc! {"insert": "zero", "documents": [{"_id": 0}, {"_id": 1, "at": 1, "n": 1}, {"_id": 2}]}).await;
    run(doc! {"update": "zero", "updates": [{"q": {"_id": 1}, "u": zero}]}).await;
    // The next insert would let what is too much go.
    for (name, limit) in [("fewer", doc! {"cappedMax": 3}), ("less", doc! {"cappedSize": 1024})] {
        let documents: Vec<_> = (0..12).map(|n| doc! {"_id": n, "text": "x".repeat(200)}).collect();
        run(doc! {"create": name, "capped": true, "size": 65536, "max": 100}).await;
        run(doc! {"insert": name, "documents": documents}).await;
        let mut lower = doc! {"collMod": name};
        lower.extend(limit);
        run(lower).await;
    }
    let unique = doc! {"key": {"n": -1}, "name": "n", "unique": true, "sparse": true};
    run(doc! {"createIndexes": "old", "indexes": [unique]}).await;

    let zone = doc! {"_configsvrAddShardToZone": "rs1", "zone": "north", "writeConcern": majority()};
    config.run("admin", zone).await.unwrap();
    let range = doc! {
        "_configsvrUpdateZoneKeyRange": NS, "min": {"_id": 0}, "max": {"_id": 1000}, "zone": "north",
        "writeConcern": majority(),
    };
    config.run("admin", range).await.unwrap();
    let role = doc! {"createRole": "clerk", "privileges": [], "roles": ["read"]};
    config.run("admin", role).await.unwrap();
    let user = doc! {"createUser": "ada", "pwd": "secret-of-ada", "roles": ["clerk"]};
    config.run("admin", user).await.unwrap();
}

#[tokio::test]
async fn what_expires_is_sharded_by_a_hash_or_is_in_a_zone_is_restored_as_it_was() {
    // Nothing expires in the source, and all at once in the target.
    let lab = lab_of(Lab::builder().auth(true).parameter("ttlMonitorEnabled=false")).await;
    what_is_special(&lab).await;
    let (server, _) = server_of(&lab).await;
    complete(&server, ask(&server).await).await;
    let (id, cut) = checkpoint(&server).await;
    let target =
        Lab::builder().auth(true).named("new").shards(3).parameter("ttlMonitorSleepSecs=1").start().await.unwrap();
    // Only what an insert cannot write takes a further privilege.
    for shard in target.shards() {
        let privilege = doc! {"resource": {"db": "", "collection": ""}, "actions": ["update"]};
        let grant = doc! {"grantPrivilegesToRole": "stillpointRestore", "privileges": [privilege]};
        shard.run("admin", grant).await.unwrap();
    }
    let done = restored(&server, &id, &target.restore_uri(), &["--users"]).await;
    assert_finished(&done);

    let (time, nothing) = (timestamp(cut), Gossip::default());
    let gossip = lab.topology().gossip().await.unwrap();
    let mut ids = Vec::new();
    for i in 0..2 {
        let there = data(target.shard(i), ReadAt::Majority, &nothing).await;
        let source = data(lab.shard(i), ReadAt::Time(time), &gossip).await;
        for (ns, (about, _)) in &source {
            assert_eq!(there[ns].0, *about, "{ns}");
        }
        if i == 0 {
            let zero = &source["store.zero"].1;
            assert_eq!(zero[1].get_timestamp("at").unwrap().time, 0);
            assert_eq!(there["store.zero"].1, *zero);
            for ns in ["store.fewer", "store.less"] {
                assert_eq!((&there[ns].1, there[ns].1.len()), (&source[ns].1, 12), "{ns}");
            }
        }
        assert_eq!((source["store.hashed"].1.len(), there["store.hashed"].1.len() < 1000), (1000, true));
        ids.extend(there["store.hashed"].1.iter().map(|document| document.get_i32("_id").unwrap()));
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..1000).collect::<Vec<_>>(), "each document is where its shard is, and nowhere else");
    assert!(data(target.shard(2), ReadAt::Majority, &nothing).await.is_empty());
    let gone = || async {
        let there = data(target.shard(0), ReadAt::Majority, &nothing).await;
        there["store.old"].1.is_empty().then_some(())
    };
    until(LIMIT, gone).await.expect("what is past its time goes once the restore is finished");

    let names = [("rs0", "new0"), ("rs1", "new1")];
    let expected = routing(&lab, ReadAt::Time(time), &gossip, &names).await;
    assert_eq!(expected["tags"].len(), 1);
    assert_eq!(routing(&target, ReadAt::Majority, &nothing, &[]).await, expected);
    let config = target.config().endpoint();
    let zones = find(config, &nothing, "config.shards", ReadAt::Majority, doc! {"tags": "north"}).await.unwrap();
    assert_eq!((zones.len(), zones[0].get_str("_id").unwrap()), (1, "new1"));
    let users = find(config, &nothing, "admin.system.users", ReadAt::Majority, doc! {}).await.unwrap();
    let expected =
        find(lab.config().endpoint(), &gossip, "admin.system.users", ReadAt::Time(time), doc! {"user": "ada"});
    assert!(users.contains(&expected.await.unwrap()[0]));
    // The target's own keep their passwords: this one has just been used.
    assert_eq!(users.iter().filter(|user| user.get_str("user").unwrap() == "admin").count(), 1);
    let roles = find(config, &nothing, "admin.system.roles", ReadAt::Majority, doc! {"role": "clerk"}).await.unwrap();
    assert_eq!(roles.len(), 1);
}

/// `RESTORES` of them, for a soak; else a few.
#[tokio::test]
async fn at_any_time_the_money_is_all_there_whatever_failed_meanwhile() {
    let restores: u64 = std::env::var("RESTORES").ok().map_or(2, |number| number.parse().unwrap());
    let lab = lab_of(Lab::builder().members(3)).await;
    let (server, _) = server_of(&lab).await;
    let workload = Workload::start(&lab, NS, 4).await.unwrap();
    let first = complete(&server, ask(&server).await).await.cut.unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut chance = seed;
    let mut next = move || {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chance >> 33
    };
    // What the cluster says that it was: read soon, as a member can't be read as of a time before its last start.
    let mut known = Vec::new();
    let mut since = first;
    for turn in 0..restores {
        // Something fails, and then there is a time to go back to, before, in or after it.
        match turn % 2 {
            0 => drop(lab.shard(0).step_down().await.unwrap()),
            _ => {
                let killed = lab.shard(1).kill_primary().await.unwrap();
                lab.shard(1).wait_for_primary(SOON).await.unwrap();
                lab.shard(1).restart(killed).await.unwrap();
            }
        }
        let last = server.complete().await.cut.unwrap();
        let span = u64::from(last.seconds - since.seconds);
        let seconds = since.seconds + (next() % span.max(1)) as u32 + u32::from(span > 0);
        let time = ClusterTime::new(seconds.min(last.seconds), next() as u32 % 60).clamp(since, last);
        since = last;
        let was = stillpoint_lab::snapshot::find_at(&lab, NS, timestamp(time), doc! {}).await.unwrap();
        known.push((time, was));
        let (time, was) = &known[next() as usize % known.len()];

        let target = Lab::builder().named("new").start().await.unwrap();
        let at = time.to_string();
        // As soon as the transactions have ended that were prepared by then.
        let done = until(LIMIT, || async {
            let ran = restore_to(&server, ["--at", &at], &target.restore_uri(), &[]).await;
            if !ran.status.success() && ran.err.contains("is not known to have ended") {
                return None;
            }
            assert!(ran.status.success(), "{time}: {}{}\n{}", ran.err, ran.out, server.log());
            Some(serde_json::from_str::<Value>(&ran.out).unwrap())
        });
        let done = done.await.expect("its transactions end");
        assert_eq!(done["verdict"], "EQUAL", "{done}");
        let now = target.topology().gossip().await.unwrap();
        let mut restored = Vec::new();
        for shard in target.shards() {
            restored.extend(find(shard.endpoint(), &now, NS, ReadAt::Majority, doc! {}).await.unwrap());
        }
        let mut expected = was.clone();
        for documents in [&mut restored, &mut expected] {
            documents.sort_by_key(|document| document.get_i64("_id").unwrap());
        }
        assert!(restored == expected, "{time}: {} documents, and {} were there", restored.len(), expected.len());
        let money: i64 = restored.iter().filter_map(|document| document.get_i64("balance").ok()).sum();
        assert_eq!(money, workload.summary().total, "{time}");
        println!("restored {time}: {} documents, all the money", restored.len());
    }
    workload.stop().await.unwrap();
}

pub fn files(folder: &std::path::Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path.display().to_string()),
        }
    }
    all
}
