//! Restores that cannot be finished: what they say, what they leave, and that what they say to do next is enough.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use bson::{Binary, Document, doc};
use serde_json::{Value, json};
use stillpoint_catalog::Catalog;
use stillpoint_core::ClusterTime;
use stillpoint_core::snapshot::Snapshot;
use stillpoint_lab::snapshot::{ReadAt, find};
use stillpoint_lab::wire::Gossip;
use stillpoint_lab::{Lab, ReplicaSet};

use crate::captured::{segments, server_of, shard};
use crate::restore::{
    OF, ask_restore, assert_finished, assert_restored, checkpoint, data, files, is_over, much, restore, restored,
    until_job,
};
use crate::snapshots::{ask, complete, packs};
use crate::support::{SOON, Server, lab_of};

/// Documents that no compression makes shorter, in a collection of each shard: packs of more than a megabyte.
async fn noise(lab: &Lab) {
    for set in lab.shards() {
        for from in (0..4096).step_by(512) {
            let random = || Binary {
                subtype: bson::spec::BinarySubtype::Generic,
                bytes: rand::random_iter().take(1024).collect(),
            };
            let documents: Vec<_> = (from..from + 512).map(|n| doc! {"_id": n, "noise": random()}).collect();
            set.run("shop", doc! {"insert": "noise", "documents": documents}).await.unwrap();
        }
    }
}

/// A restore that ends broken: its id, and what it says.
async fn broken(server: &Server, checkpoint: &str, target: &Lab) -> (String, String) {
    let id = ask_restore(server, checkpoint, &target.restore_uri()).await;
    let done = until_job(server, &id, is_over).await;
    assert_eq!(done["state"], "BROKEN", "{done}");
    (id, done["failure"].as_str().unwrap().to_owned())
}

/// What the target's config servers have: the mark, and the databases that a router shows.
async fn shown(target: &Lab) -> (Option<String>, usize) {
    let rows =
        async |ns| find(target.config().endpoint(), &Gossip::default(), ns, ReadAt::Majority, doc! {}).await.unwrap();
    let marks: Vec<Document> = rows("config.stillpoint.restore").await;
    let mark = marks.first().map(|mark| mark.get_str("restore").unwrap().to_owned());
    (mark, rows("config.databases").await.len() + rows("config.collections").await.len())
}

async fn is_empty(set: &ReplicaSet) -> bool {
    data(set, ReadAt::Majority, &Gossip::default()).await.is_empty()
}

/// What the operator is told keeps a checkpoint from being restored; nothing of one that can be.
async fn obstacles(server: &Server, id: &str) -> Vec<String> {
    let ran = server.run(&[&["checkpoint", "show"], &OF[..], &[id, "--json"]].concat(), &[]).await;
    let shown: Value = serde_json::from_str(&ran.out).unwrap();
    let told: Vec<_> = ran.err.lines().filter_map(|line| line.strip_prefix("not restorable: ")).collect();
    assert_eq!(shown["restorable"], told.is_empty(), "{shown} {}", ran.err);
    told.into_iter().map(str::to_owned).collect()
}

/// One bit of a file becomes another; done twice, it is whole again.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A blob of a segment of `rs0` that a restore to a time has to read.
async fn segment_of(server: &Server, snapshot: &Snapshot, cut: ClusterTime) -> String {
    let from = snapshot.data(&shard(0)).unwrap().stream;
    let all = segments(server, &shard(0), from).await;
    all.iter().find(|one| one.first.time <= cut && cut <= one.last.time).unwrap().name()
}

fn largest(packs: Vec<PathBuf>) -> PathBuf {
    packs.into_iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap()
}

#[tokio::test]
async fn a_blob_with_a_changed_bit_breaks_a_restore_and_is_named_until_it_is_put_back() {
    let lab = lab_of(Lab::builder()).await;
    noise(&lab).await;
    let (server, _) = server_of(&lab).await;
    let snapshot = complete(&server, ask(&server).await).await;
    let (id, cut) = checkpoint(&server).await;
    let target = Lab::builder().named("new").start().await.unwrap();

    // What the oplog says since the snapshot is read before anything is written.
    let name = segment_of(&server, &snapshot, cut).await;
    let segment = server.folder().join("vault").join(&name);
    flip(&segment);
    let (_, failure) = broken(&server, &id, &target).await;
    for says in [&name, "is damaged", "`stillpoint vault check`", "Nothing was written into the target"] {
        assert!(failure.contains(says), "{says}: {failure}");
    }
    assert_eq!(shown(&target).await, (None, 0));
    assert!(is_empty(target.shard(0)).await && is_empty(target.shard(1)).await);
    let found = obstacles(&server, &id).await;
    let [why] = &found[..] else { panic!("{found:?}") };
    for says in ["shard rs0", "is damaged", &name, "`stillpoint vault check`"] {
        assert!(why.contains(says), "{says}: {why}");
    }
    let ran = restore(&server, &id, &target.restore_uri(), &[]).await;
    assert!(!ran.status.success() && ran.err.contains("cannot be restored") && ran.err.contains("rs0"), "{}", ran.err);
    flip(&segment);
    server.json(&["vault", "check"]).await;
    assert_eq!(obstacles(&server, &id).await, [""; 0]);

    // The documents are read while they are written.
    let pack = largest(packs(&server, "shard-rs0"));
    let name = pack.file_name().unwrap().to_str().unwrap();
    flip(&pack);
    let (broke, failure) = broken(&server, &id, &target).await;
    let of = snapshot.id.to_string();
    for says in [name, "is damaged", &of, "`stillpoint vault check`", "The target holds a part of the data"] {
        assert!(failure.contains(says), "{says}: {failure}");
    }
    assert_eq!(shown(&target).await, (Some(broke.clone()), 0));
    let found = obstacles(&server, &id).await;
    assert_eq!(found.len(), 3, "a snapshot is of all parts: {found:?}");
    let is_told =
        |why: &String| why.contains(&of) && why.contains("damaged") && why.contains("`stillpoint vault check`");
    assert!(found.iter().all(is_told), "{found:?}");
    let noted = server.catalog().snapshot(server.cluster(), snapshot.id).await.unwrap().unwrap();
    assert!(noted.damage.is_some_and(|damage| damage.contains(name)));
    let ran = restore(&server, &id, &target.restore_uri(), &[]).await;
    assert!(!ran.status.success() && ran.err.contains("cannot be restored") && ran.err.contains(&of), "{}", ran.err);

    // What it said to do: put it back and check, empty the target, restore again.
    flip(&pack);
    let mended = server.json(&["vault", "check"]).await;
    assert_eq!(mended["snapshots"]["mended"][0]["id"], json!(of), "{mended}");
    assert_eq!(obstacles(&server, &id).await, [""; 0]);
    let ran = restore(&server, &id, &target.restore_uri(), &[]).await;
    assert!(!ran.status.success() && ran.err.contains(&broke), "it holds a part still: {}", ran.err);
    empty(&target).await;
    assert_finished(&restored(&server, &id, &target.restore_uri(), &[]).await);
    assert_restored(&lab, &target, cut).await;
}

/// As a failure says to.
async fn empty(target: &Lab) {
    for shard in target.shards() {
        for db in ["bank", "shop"] {
            shard.run(db, doc! {"dropDatabase": 1}).await.unwrap();
        }
    }
    target.config().run("config", doc! {"drop": "stillpoint.restore"}).await.unwrap();
}

#[tokio::test]
async fn a_target_whose_disk_is_full_breaks_a_restore_by_name() {
    let lab = lab_of(Lab::builder()).await;
    noise(&lab).await;
    let (mut server, _) = server_of(&lab).await;
    server.stop().await;
    server.configure("[snapshots]", "[restore]\npatience = \"5s\"\n\n[snapshots]");
    server.serve(None).await;
    complete(&server, ask(&server).await).await;
    let (id, cut) = checkpoint(&server).await;
    let target = Lab::builder().named("new").start().await.unwrap();
    let set = target.shard(0);
    // A file that may not become longer ends it as a disk does that is full: with an error of its journal.
    set.limit_files(0, 1 << 20).await.unwrap();
    let (broke, failure) = broken(&server, &id, &target).await;
    let (status, log) = set.until_ended(0, SOON).await.unwrap();
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    assert!(log.contains("WT_PANIC") && log.contains("File too large"), "{log}");
    for says in ["shard new0 cannot be reached", "The target holds a part of the data", "empty it"] {
        assert!(failure.contains(says), "{says}: {failure}");
    }
    assert_eq!(shown(&target).await, (Some(broke), 0));

    // Room is made.
    set.restart(0).await.unwrap();
    set.wait_for_primary(SOON).await.unwrap();
    empty(&target).await;
    assert_finished(&restored(&server, &id, &target.restore_uri(), &[]).await);
    assert_restored(&lab, &target, cut).await;
}

#[tokio::test]
async fn a_target_or_a_vault_that_fails_breaks_a_restore_by_name() {
    let lab = lab_of(Lab::builder()).await;
    much(&lab, 40_000).await;
    let (mut server, _) = server_of(&lab).await;
    server.stop().await;
    server.configure("[snapshots]", "[restore]\npatience = \"2s\"\n\n[snapshots]");
    server.serve(None).await;
    complete(&server, ask(&server).await).await;
    let (id, _) = checkpoint(&server).await;
    let target = Lab::builder().named("new").start().await.unwrap();
    let restore = ask_restore(&server, &id, &target.restore_uri()).await;
    let has_begun = |job: &Value| job["parts"][0]["written"]["documents"].as_u64() > Some(0) || is_over(job);
    until_job(&server, &restore, has_begun).await;
    target.shard(0).kill_primary().await.unwrap();
    let done = until_job(&server, &restore, is_over).await;
    let failure = done["failure"].as_str().unwrap_or_default();
    assert!(done["state"] == "BROKEN" && failure.contains("new0") && failure.contains("holds a part"), "{done}");

    let packs: Vec<_> =
        files(&server.folder().join("vault")).into_iter().filter(|name| name.contains("/pack-")).collect();
    assert!(!packs.is_empty());
    for pack in &packs {
        std::fs::remove_file(pack).unwrap();
    }
    let target = Lab::builder().named("next").start().await.unwrap();
    let restore = ask_restore(&server, &id, &target.restore_uri()).await;
    let done = until_job(&server, &restore, is_over).await;
    let failure = done["failure"].as_str().unwrap_or_default();
    assert!(done["state"] == "BROKEN" && failure.contains("pack"), "{done}");
}
