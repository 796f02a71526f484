//! Transactions leave in the oplog what MongoDB's own leave there.

use bson::{Document, Timestamp, doc};
use stillpoint_lab::transaction::Transaction;
use stillpoint_lab::wire::Gossip;
use stillpoint_lab::{Lab, snapshot};

const NS: &str = "bank.acct";

async fn bank() -> Lab {
    let lab = Lab::builder().start().await.unwrap();
    lab.create_database("bank", 0).await.unwrap();
    lab.shard_collection(NS, &[0.into()], &[0, 1]).await.unwrap();
    lab
}

async fn insert(transaction: &mut Transaction, shard: &str, id: i32) {
    let statement = doc! {"insert": "acct", "documents": [{"_id": id}]};
    transaction.run(shard, "bank", statement).await.unwrap();
}

/// The transaction entries of a shard's oplog that touch the bank or settle something.
async fn entries(lab: &Lab, shard: usize) -> Vec<Document> {
    let filter = doc! {
        "op": "c",
        "$or": [
            {"o.applyOps.ns": NS},
            {"o.commitTransaction": {"$exists": true}},
            {"o.abortTransaction": {"$exists": true}},
        ],
    };
    let collection = lab.shard(shard).client().database("local").collection("oplog.rs");
    let mut cursor = collection.find(filter).sort(doc! {"$natural": 1}).await.unwrap();
    let mut entries = Vec::new();
    while cursor.advance().await.unwrap() {
        entries.push(cursor.deserialize_current().unwrap());
    }
    entries
}

fn is_prepare(entry: &Document) -> bool {
    entry.get_document("o").unwrap().get_bool("prepare").unwrap_or(false)
}

fn commit_timestamp(entry: &Document) -> Timestamp {
    entry.get_document("o").unwrap().get_timestamp("commitTimestamp").unwrap()
}

#[tokio::test]
async fn a_held_transaction_is_prepared_on_both_shards_until_it_is_committed() {
    let lab = bank().await;
    let mut transaction = Transaction::begin(&lab.topology());
    insert(&mut transaction, "rs0", -1).await;
    insert(&mut transaction, "rs1", 1).await;
    let mut prepared = transaction.prepare().await.unwrap();
    for shard in 0..2 {
        let entries = entries(&lab, shard).await;
        assert_eq!(entries.len(), 1);
        assert!(is_prepare(&entries[0]));
        assert_eq!(entries[0].get_timestamp("ts").unwrap(), prepared.prepare_timestamps()[shard]);
    }
    let time = prepared.commit_timestamp();
    prepared.commit_on("rs0").await.unwrap();
    assert_eq!(entries(&lab, 1).await.len(), 1);
    prepared.commit().await.unwrap();
    for shard in 0..2 {
        let commit = entries(&lab, shard).await.pop().unwrap();
        assert_eq!(commit_timestamp(&commit), time);
        assert!(commit.get_timestamp("ts").unwrap() > time);
    }
    let ids = |documents: Vec<Document>| documents.iter().map(|d| d.get_i32("_id").unwrap()).collect::<Vec<_>>();
    assert_eq!(ids(snapshot::find_at(&lab, NS, time, doc! {}).await.unwrap()), [-1, 1]);
    let before = Timestamp { increment: time.increment - 1, ..time };
    assert!(snapshot::find_at(&lab, NS, before, doc! {}).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_coordinated_transaction_leaves_prepare_and_commit_on_both_shards() {
    let lab = bank().await;
    let mut transaction = Transaction::begin(&lab.topology());
    insert(&mut transaction, "rs0", -1).await;
    insert(&mut transaction, "rs1", 1).await;
    let time = transaction.commit().await.unwrap();
    assert_eq!(snapshot::find_at(&lab, NS, time, doc! {}).await.unwrap().len(), 2);
    // The coordinator answers when it has decided; the oplogs follow.
    let mut times = Vec::new();
    for shard in 0..2 {
        let settled = stillpoint_lab::wait::until(std::time::Duration::from_secs(10), || async {
            let entries = entries(&lab, shard).await;
            (entries.len() == 2).then_some(entries)
        })
        .await
        .unwrap();
        assert!(is_prepare(&settled[0]));
        times.push(commit_timestamp(&settled[1]));
    }
    assert_eq!(times[0], times[1]);
}

#[tokio::test]
async fn a_transaction_on_one_shard_is_one_entry_and_an_aborted_one_none() {
    let lab = bank().await;
    let mut transaction = Transaction::begin(&lab.topology());
    insert(&mut transaction, "rs1", 1).await;
    transaction.commit().await.unwrap();
    let mut transaction = Transaction::begin(&lab.topology());
    insert(&mut transaction, "rs1", 2).await;
    transaction.abort().await.unwrap();
    let entries = entries(&lab, 1).await;
    assert_eq!(entries.len(), 1);
    assert!(!is_prepare(&entries[0]));
}

#[tokio::test]
async fn a_prepared_transaction_outlives_kill_9_and_can_be_aborted() {
    let lab = bank().await;
    let mut transaction = Transaction::begin(&lab.topology());
    insert(&mut transaction, "rs0", -1).await;
    insert(&mut transaction, "rs1", 1).await;
    let prepared = transaction.prepare().await.unwrap();
    lab.shard(1).kill(0).await.unwrap();
    lab.shard(1).restart(0).await.unwrap();
    prepared.abort().await.unwrap();
    let last = entries(&lab, 1).await.pop().unwrap();
    assert!(last.get_document("o").unwrap().contains_key("abortTransaction"));
    let documents =
        snapshot::find(&lab.topology().shards[1], &Gossip::default(), NS, snapshot::ReadAt::Majority, doc! {})
            .await
            .unwrap();
    assert!(documents.is_empty());
}
