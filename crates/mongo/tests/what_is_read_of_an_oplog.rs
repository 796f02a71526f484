//! What of a real oplog is read: what a majority has, and of a large transaction all or nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, RawDocument, doc};
use secrecy::SecretString;
use stillpoint_core::ClusterTime;
use stillpoint_core::stream::Position;
use stillpoint_lab::transaction::Transaction;
use stillpoint_lab::wait::until;
use stillpoint_lab::{Lab, ReplicaSet};
use stillpoint_mongo::tail::{Batch, Opened};
use stillpoint_mongo::{ClusterLink, PartLink};

const LIMIT: Duration = Duration::from_secs(30);
/// The reply of a command is held up.
const HELD: &str = "waitAfterCommandFinishesExecution";
const STOP: &str = "stopReplProducerOnDocument";
/// Of what a secondary gets in one batch that sees the first only.
const ONE_BY_ONE: &str = "bgSyncOplogFetcherBatchSize=1";

async fn on_member(set: &ReplicaSet, member: usize, name: &str, mode: &str, data: Document) -> Result<i64> {
    let command = doc! {"configureFailPoint": name, "mode": mode, "data": data};
    let reply = set.endpoint().connect(member).await?.run("admin", command).await?;
    Ok(reply.get_i64("count").or_else(|_| reply.get_i32("count").map(i64::from)).unwrap_or(0))
}

/// The newest entry that a majority has.
async fn majority(set: &ReplicaSet) -> Option<ClusterTime> {
    let hello = set.run("admin", doc! {"hello": 1}).await.ok()?;
    let optime = hello.get_document("lastWrite").ok()?.get_document("majorityOpTime").ok()?;
    let ts = optime.get_timestamp("ts").ok()?;
    Some(ClusterTime::new(ts.time, ts.increment))
}

/// The times of the transaction's entries that the primary has.
async fn chain(set: &ReplicaSet) -> Result<Vec<ClusterTime>> {
    let find = doc! {"find": "oplog.rs", "filter": {"o.applyOps.ns": "bank.accounts", "lsid": {"$exists": true}}};
    let reply = set.run("local", find).await?;
    let batch = reply.get_document("cursor")?.get_array("firstBatch")?;
    let times = batch.iter().map(|entry| {
        let ts = entry.as_document().context("no document")?.get_timestamp("ts")?;
        Ok(ClusterTime::new(ts.time, ts.increment))
    });
    times.collect()
}

async fn shard_of(lab: &Lab) -> Result<PartLink> {
    Ok(ClusterLink::connect(&SecretString::from(lab.uri())).await?.parts().await?.swap_remove(0))
}

/// A majority has two of its three entries when it is asked first, all when it is asked last, and none of it is
/// prepared when the transactions are read in between.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_becomes_prepared_between_two_questions_is_not_begun_in() -> Result<()> {
    let lab = Lab::builder()
        .shards(1)
        .members(3)
        .test_commands(true)
        .parameter("maxNumberOfTransactionOperationsInSingleOplogEntry=1")
        .parameter(ONE_BY_ONE)
        .start()
        .await?;
    lab.create_database("bank", 0).await?;
    let set = lab.shard(0);
    set.client().database("bank").create_collection("accounts").await?;
    let part = shard_of(&lab).await?;
    let primary = set.primary().await?;
    let secondaries: Vec<_> = (0..3).filter(|member| *member != primary).collect();
    for member in &secondaries {
        on_member(set, *member, STOP, "alwaysOn", doc! {"document": {"applyOps.o._id": 3}}).await?;
    }

    let mut transaction = Transaction::begin(&lab.topology());
    for id in [1, 2, 3] {
        transaction.run("rs0", "bank", doc! {"insert": "accounts", "documents": [{"_id": id}]}).await?;
    }
    // It waits for a majority.
    let prepared = tokio::spawn(transaction.prepare());
    let entries = until(LIMIT, || async { chain(set).await.ok().filter(|entries| entries.len() == 3) }).await;
    let entries = entries.context("the transaction has not three entries")?;
    let second = || async { majority(set).await.filter(|time| *time == entries[1]) };
    until(LIMIT, second).await.context("a majority does not have two of the entries, and no more")?;

    let before = on_member(set, primary, HELD, "alwaysOn", doc! {"ns": "config.transactions"}).await?;
    let first = tokio::spawn({
        let part = part.clone();
        async move { part.beginning(None).await }
    });
    let entered = doc! {"waitForFailPoint": HELD, "timesEntered": before + 1, "maxTimeMS": 15_000};
    set.run("admin", entered).await?;
    for member in &secondaries {
        on_member(set, *member, STOP, "off", doc! {}).await?;
    }
    let last = || async { majority(set).await.filter(|time| *time >= entries[2]) };
    until(LIMIT, last).await.context("a majority does not have all entries")?;
    on_member(set, primary, HELD, "off", doc! {}).await?;

    let refused = first.await?.map_err(|e| e.to_string());
    ensure!(refused.as_ref().is_err_and(|why| why.contains("only a part")), "{refused:?} of {entries:?}");
    let prepared = prepared.await??;
    let beginning = part.beginning(None).await?;
    ensure!(beginning.from == entries[0] && beginning.complete_from >= entries[2], "{beginning:?} of {entries:?}");
    prepared.abort().await
}

fn has(batch: &Batch, text: &str) -> bool {
    batch
        .entries()
        .flatten()
        .filter_map(|entry| RawDocument::from_bytes(entry).ok())
        .any(|entry| entry.get_document("o").and_then(|note| note.get_str("test")).is_ok_and(|note| note == text))
}

/// On the primary, which has it at once; the secondaries are hidden, and so not read from.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_read_only_when_a_majority_has_it() -> Result<()> {
    let builder = Lab::builder().shards(1).members(3).test_commands(true).parameter(ONE_BY_ONE);
    let lab = builder.start().await?;
    let set = lab.shard(0);
    let primary = set.primary().await?;
    let mut config = set.run("admin", doc! {"replSetGetConfig": 1}).await?.get_document("config")?.clone();
    config.insert("version", config.get_i32("version")? + 1);
    for (i, member) in config.get_array_mut("members")?.iter_mut().enumerate() {
        if let Bson::Document(member) = member
            && i != primary
        {
            member.extend(doc! {"priority": 0, "hidden": true});
        }
    }
    set.run("admin", doc! {"replSetReconfig": config}).await?;
    let part = shard_of(&lab).await?;
    let Opened::Tail(mut tail, _) = part.tail(Position::At(part.committed().await?)).await? else {
        anyhow::bail!("the newest entry is not there");
    };

    let note = |text: &str| doc! {"appendOplogNote": 1, "data": {"test": text}};
    let secondaries = (0..3).filter(|member| *member != primary);
    for member in secondaries.clone() {
        on_member(set, member, STOP, "alwaysOn", doc! {"document": {"test": "late"}}).await?;
    }
    set.run("admin", note("late")).await?;
    let find = doc! {"find": "oplog.rs", "filter": {"o.test": "late"}};
    let there = set.run("local", find).await?;
    ensure!(there.get_document("cursor")?.get_array("firstBatch")?.len() == 1, "{there}");
    // The first may have been asked for before it was there.
    for _ in 0..3 {
        ensure!(!has(&tail.next().await?, "late"), "read, and only one of three has it");
    }
    for member in secondaries {
        on_member(set, member, STOP, "off", doc! {}).await?;
    }
    let read = async {
        while !has(&tail.next().await?, "late") {}
        Ok(())
    };
    tokio::time::timeout(LIMIT, read).await.context("it is not read")?
}
