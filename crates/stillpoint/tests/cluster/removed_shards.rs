//! Shards that leave: all that they had is stored, or what is missing is known.

use bson::{Bson, Document, doc};
use stillpoint_catalog::Catalog;
use stillpoint_core::ClusterTime;
use stillpoint_core::stream::{GapCause, Stream};
use stillpoint_lab::wait::until;
use stillpoint_lab::{Lab, ReplicaSet};

use crate::captured::{assert_part, majority, server_of, shard, until_stored, until_stored_up_to};
use crate::support::{SOON, Server};

async fn note(set: &ReplicaSet, text: &str) {
    let note = doc! {"appendOplogNote": 1, "data": {"test": text}, "writeConcern": {"w": "majority"}};
    set.run("admin", note).await.unwrap();
}

async fn until_ended(server: &Server, i: usize) -> Stream {
    let stream = || async { server.catalog().stream(server.cluster(), &shard(i)).await.unwrap() };
    let ended = || async { stream().await.filter(|stream| stream.ended.is_some()) };
    until(SOON, ended).await.expect("the removed shard's stream has not ended")
}

/// That it has gone cannot be noted at once; by then its capture has ended.
#[tokio::test]
async fn a_shard_that_was_stored_to_its_end_has_no_gap_though_its_end_is_noted_late() {
    let lab = Lab::builder().start().await.unwrap();
    let (server, vault) = server_of(&lab).await;
    until_stored(&lab, &server, &shard(1), SOON).await;
    let catalog = rusqlite::Connection::open(server.folder().join("data/stillpoint.db")).unwrap();
    catalog.busy_timeout(SOON).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON streams BEGIN SELECT RAISE(ABORT, 'not now'); END";
    catalog.execute_batch(refuse).unwrap();
    note(lab.shard(1), "the last").await;
    let last = majority(lab.shard(1)).await;
    lab.remove_shard(1).await.unwrap();
    let refused = || async { server.log().contains("not now").then_some(()) };
    until(SOON, refused).await.expect("its end could be noted");
    catalog.execute_batch("DROP TRIGGER refuse").unwrap();
    until_ended(&server, 1).await;
    until_stored_up_to(&server, &shard(1), last, SOON).await;
    assert_part(&lab, &server, &vault, &shard(1)).await;
    assert_eq!(server.gaps().await, []);
}

/// The member that capture reads from does not know that there is more.
#[tokio::test]
async fn a_shard_has_gone_too_soon_if_a_majority_had_more_than_the_member_that_was_read_from() {
    // Of what comes in one batch the failpoint sees the first only.
    let builder = Lab::builder().members(3).test_commands(true).parameter("bgSyncOplogFetcherBatchSize=1");
    let lab = builder.start().await.unwrap();
    let set = lab.shard(1);
    let primary = set.primary().await.unwrap();
    let [read, hidden] = [1, 2].map(|next| (primary + next) % 3);
    // The one makes a majority with the primary, the other is the only secondary that can be read from.
    let config = set.run("admin", doc! {"replSetGetConfig": 1}).await.unwrap();
    let mut config = config.get_document("config").unwrap().clone();
    config.insert("version", config.get_i32("version").unwrap() + 1);
    config.get_document_mut("settings").unwrap().insert("chainingAllowed", false);
    for (i, member) in config.get_array_mut("members").unwrap().iter_mut().enumerate() {
        let Bson::Document(member) = member else { panic!("{member}") };
        if i != primary {
            member.insert("priority", 0);
        }
        member.insert("hidden", i == hidden);
    }
    set.run("admin", doc! {"replSetReconfig": config}).await.unwrap();
    let (server, _) = server_of(&lab).await;
    until_stored(&lab, &server, &shard(1), SOON).await;

    // It gets nothing of the next term. What is committed in a term of which it has nothing it does not know.
    let mut connection = set.endpoint().connect(read).await.unwrap();
    let stop = doc! {"configureFailPoint": "stopReplProducerOnDocument", "mode": "alwaysOn",
    "data": {"document": {"msg": "new primary"}}};
    connection.run("admin", stop).await.unwrap();
    let term = term(set).await;
    let step_down = doc! {"replSetStepDown": 1, "secondaryCatchUpPeriodSecs": 0, "force": true};
    set.run("admin", step_down).await.unwrap();
    let elected = || async { (self::term(set).await? > term?).then_some(()) };
    until(SOON, elected).await.expect("nobody was elected");
    note(set, "the last").await;
    let last = majority(set).await;
    lab.remove_shard(1).await.unwrap();
    until_ended(&server, 1).await;
    let gaps = server.gaps().await;
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((&gap.part, gap.cause, gap.until), (&shard(1), GapCause::ShardAway, ClusterTime::MAX));
    assert!(gap.after < last, "{gap:?} {last}");
}

/// In which the primary was elected.
async fn term(set: &ReplicaSet) -> Option<i64> {
    let status: Document = set.run("admin", doc! {"replSetGetStatus": 1}).await.ok()?;
    status.get_i64("term").ok()
}
