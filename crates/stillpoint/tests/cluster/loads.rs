//! A checkpoint is a point in the history of a cluster at work.

use bson::doc;
use stillpoint_core::ClusterTime;
use stillpoint_lab::transaction::Transaction;
use stillpoint_lab::workload::{Workload, total_at};

use crate::support::{NS, Server, assert_balancer, assert_tokens, lab, never_configured, oplog, timestamp};

#[tokio::test]
async fn a_checkpoint_under_load_has_all_acknowledged_writes_and_no_half_transfer() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    let workload = Workload::start(&lab, NS, 4).await.unwrap();
    let mut last = ClusterTime::new(0, 0);
    for _ in 0..4 {
        let acknowledged = workload.acknowledged();
        let (document, record) = server.take_document().await;
        assert_tokens(&lab, &record).await;
        let cut = record.cut.unwrap();
        assert!(timestamp(cut) > acknowledged, "{cut} is not after {acknowledged}");
        assert!(cut > last, "{cut} is not after the checkpoint before it, {last}");
        assert!(document["completed"].is_string(), "{document}");
        assert_eq!(document["restorable"], false);
        assert_eq!(document["parts"].as_array().unwrap().len(), 3);
        assert_eq!(total_at(&lab, NS, timestamp(cut)).await.unwrap(), workload.summary().total);
        assert_balancer(&lab, &never_configured(), "after a checkpoint").await;
        last = cut;
    }
    let summary = workload.stop().await.unwrap();
    assert!(summary.inserts > 0 && summary.held > 0, "{summary:?}");
}

#[tokio::test]
async fn a_prepared_transaction_does_not_hold_a_checkpoint_up_and_can_commit_after_it() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    let mut transaction = Transaction::begin(&lab.topology());
    for (shard, id) in [("rs0", -1), ("rs1", 1)] {
        let insert = doc! {"insert": "accounts", "documents": [{"_id": id}]};
        transaction.run(shard, "bank", insert).await.unwrap();
    }
    let prepared = transaction.prepare().await.unwrap();
    let record = server.complete().await;
    assert_tokens(&lab, &record).await;
    let cut = timestamp(record.cut.unwrap());
    assert!(cut > prepared.commit_timestamp());
    prepared.commit().await.unwrap();
    for shard in lab.shards() {
        let commits = oplog(shard, doc! {"op": "c", "o.commitTransaction": 1}).await;
        assert_eq!(commits.len(), 1, "{commits:?}");
        assert!(commits[0].get_timestamp("ts").unwrap() > cut, "it committed before the cut");
    }
    server.complete().await;
}
