//! The first snapshot of a cluster that changes while it is read.

use bson::{Bson, doc};
use stillpoint_catalog::Catalog;
use stillpoint_core::SnapshotId;
use stillpoint_core::snapshot::{Part, Snapshot, State};
use stillpoint_core::verification::Verdict;
use stillpoint_lab::wait::until;
use stillpoint_lab::{Lab, ReplicaSet};
use stillpoint_vault::Vault;

use crate::captured::{majority, server_of, shard, until_stored};
use crate::snapshots::{ask, ask_of, complete, fill, verified};
use crate::support::{SOON, Server, command_failed, fail_command, lab_of};

async fn assert_equal(lab: &Lab, server: &Server, vault: &Vault, snapshot: &Snapshot) {
    for part in verified(lab, server, vault, snapshot).await {
        assert_eq!(part.verdict(), Verdict::Equal, "{part:?}");
    }
}

async fn until_snapshot(server: &Server, id: SnapshotId, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let find = || async { server.catalog().snapshot(server.cluster(), id).await.unwrap().unwrap() };
    match until(SOON, || async { Some(find().await).filter(&wanted) }).await {
        Some(snapshot) => snapshot,
        None => panic!("{:?}", find().await),
    }
}

/// From now on the primary is the only member that can be read from, or elected.
async fn hide_secondaries(set: &ReplicaSet) -> Vec<usize> {
    let primary = set.primary().await.unwrap();
    let config = set.run("admin", doc! {"replSetGetConfig": 1}).await.unwrap();
    let mut config = config.get_document("config").unwrap().clone();
    config.insert("version", config.get_i32("version").unwrap() + 1);
    for (i, member) in config.get_array_mut("members").unwrap().iter_mut().enumerate() {
        let Bson::Document(member) = member else { panic!("{member}") };
        if i != primary {
            member.insert("priority", 0);
            member.insert("hidden", true);
        }
    }
    set.run("admin", doc! {"replSetReconfig": config}).await.unwrap();
    (0..set.members()).filter(|member| *member != primary).collect()
}

/// The member that is read from has dropped it, and that may be rolled back.
#[tokio::test]
async fn a_collection_is_taken_for_dropped_only_once_a_majority_says_so() {
    let lab = Lab::builder().shards(1).members(3).test_commands(true).start().await.unwrap();
    let set = lab.shard(0);
    for name in ["dropped", "stays"] {
        set.run("shop", doc! {"insert": name, "documents": [{"_id": 1}]}).await.unwrap();
    }
    let secondaries = hide_secondaries(set).await;
    let (server, vault) = server_of(&lab).await;
    until_stored(&lab, &server, &shard(0), SOON).await;
    let replicate = async |mode: &str| {
        for member in &secondaries {
            let mut connection = set.endpoint().connect(*member).await.unwrap();
            connection.run("admin", doc! {"configureFailPoint": "stopReplProducer", "mode": mode}).await.unwrap();
        }
    };
    replicate("alwaysOn").await;
    set.run("shop", doc! {"drop": "dropped", "writeConcern": {"w": 1}}).await.unwrap();
    let id = ask(&server).await;
    let gone = |trouble: &String| trouble.contains("no such collection any more");
    until_snapshot(&server, id, |snapshot| snapshot.trouble.as_ref().is_some_and(gone)).await;
    let pieces = server.catalog().pieces(server.cluster(), id, &shard(0)).await.unwrap();
    assert!(!pieces.is_empty() && !pieces.iter().any(|piece| piece.contains(r#""is":"Gone""#)), "{pieces:?}");

    replicate("off").await;
    let snapshot = complete(&server, id).await;
    assert_equal(&lab, &server, &vault, &snapshot).await;
    let of = snapshot.id.to_string();
    let cat = async |ns| {
        let cat = ["cat", "--project", "tests", "--cluster", "Cluster0", "--snapshot", &of, "--ns", ns];
        server.run(&cat, &[]).await
    };
    assert_eq!(cat("shop.stays").await.out.lines().count(), 1);
    let dropped = cat("shop.dropped").await;
    assert!(!dropped.status.success() && dropped.err.contains("no collection shop.dropped"), "{}", dropped.err);
}

#[tokio::test]
async fn a_shard_that_is_removed_meanwhile_ends_it_and_the_next_one_has_the_others() {
    let lab = Lab::builder().test_commands(true).start().await.unwrap();
    let set = lab.shard(0);
    fill(set, 4).await;
    // One of them is more than a batch.
    let more: Vec<_> = (1000..2000).map(|id| doc! {"_id": id, "text": "y".repeat(4096)}).collect();
    set.run("big", doc! {"insert": "c0", "documents": more}).await.unwrap();
    let (server, vault) = server_of(&lab).await;
    until_stored(&lab, &server, &shard(1), SOON).await;
    // What of it is read last, is read as of a time after the shard has gone.
    let slow = doc! {"blockConnection": true, "blockTimeMS": 5_000, "namespace": "big.c0"};
    let before = fail_command(set, "getMore", "alwaysOn", slow).await;
    let id = ask(&server).await;
    command_failed(set, before).await;
    lab.remove_shard(1).await.unwrap();
    set.run("big", doc! {"insert": "later", "documents": [{"_id": 1}]}).await.unwrap();
    let gone = majority(lab.shard(1)).await;
    assert!(majority(set).await > gone);
    fail_command(set, "getMore", "off", doc! {}).await;

    let ended = until_snapshot(&server, id, |snapshot| snapshot.state.ended()).await;
    let failure = ended.failure.as_deref().unwrap_or_default();
    assert_eq!((ended.state, failure), (State::Failed, "shard rs1 cannot be found in the cluster any more"));
    let next = complete(&server, ask(&server).await).await;
    assert_eq!((next.base, next.parts.len()), (None, 2), "{next:?}");
    assert!(next.parts.iter().all(|part| part.id != shard(1)), "{next:?}");
    assert_equal(&lab, &server, &vault, &next).await;
}

#[tokio::test]
async fn a_part_counts_as_read_as_soon_as_it_is() {
    let lab = lab_of(Lab::builder()).await;
    for set in lab.shards() {
        fill(set, 1).await;
    }
    let (mut server, vault) = server_of(&lab).await;
    let id = ask_of(&mut server).await;
    let read = async |server: &Server| {
        let snapshot = server.catalog().snapshot(server.cluster(), id).await.unwrap().unwrap();
        snapshot.parts.into_iter().filter(|part| part.read.is_some()).collect::<Vec<Part>>()
    };
    let mut noted = Vec::<Part>::new();
    for parts in 1..=3 {
        server.serve(Some("part-read")).await;
        server.crashed().await;
        let now = read(&server).await;
        assert_eq!(now.len(), parts, "{now:?}");
        // A manifest says when it was made: one that was read again has another.
        assert!(noted.iter().all(|part| now.contains(part)), "{noted:?} {now:?}");
        noted = now;
    }
    server.serve(None).await;
    let snapshot = complete(&server, id).await;
    let reads = |parts: &[Part]| parts.iter().map(|part| (part.id.clone(), part.read)).collect::<Vec<_>>();
    assert_eq!(reads(&snapshot.parts), reads(&noted));
    assert_equal(&lab, &server, &vault, &snapshot).await;
}
