//! The parts' clocks may be far apart; the tokens are after all of them.

use bson::{Binary, Document, Timestamp, doc, spec::BinarySubtype};
use stillpoint_lab::ReplicaSet;

use crate::support::{Server, assert_tokens, lab, timestamp};

/// A cluster time as a cluster without users signs it.
fn unsigned(time: Timestamp) -> Document {
    let hash = Binary { subtype: BinarySubtype::Generic, bytes: vec![0; 20] };
    doc! {"clusterTime": time, "signature": {"hash": hash, "keyId": 0_i64}}
}

async fn clock(set: &ReplicaSet) -> Timestamp {
    let reply = set.run("admin", doc! {"ping": 1}).await.unwrap();
    reply.get_document("$clusterTime").unwrap().get_timestamp("clusterTime").unwrap()
}

#[tokio::test]
async fn every_token_is_after_the_clock_of_a_shard_that_is_far_ahead() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    let mut last = Timestamp { time: 0, increment: 0 };
    for ahead in [0, 1] {
        let now = clock(lab.shard(ahead)).await;
        let future = Timestamp { time: now.time + 300, increment: 7 };
        let note = doc! {"appendOplogNote": 1, "data": {"test": "ahead"}, "$clusterTime": unsigned(future)};
        lab.shard(ahead).run("admin", note).await.unwrap();
        assert!(clock(lab.shard(ahead)).await > future);
        // The shards tell each other nothing by themselves; should that change, this test needs another way.
        assert!(clock(lab.shard(1 - ahead)).await < future, "the clocks are not apart");
        let record = server.complete().await;
        assert!(timestamp(record.clock.unwrap()) > future, "the clock that is ahead was not seen");
        assert_tokens(&lab, &record).await;
        assert!(timestamp(record.cut.unwrap()) > last);
        last = timestamp(record.cut.unwrap());
    }
}
