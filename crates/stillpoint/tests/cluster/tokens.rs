//! Tokens that are not written at the first attempt.

use bson::doc;
use stillpoint_core::checkpoint::{PutBack, Reason};

use crate::support::{
    Server, assert_balancer, assert_failed, assert_tokens, fail_command, lab, never_configured, oplog, timestamp,
    with_window,
};

const NOTE: &str = "appendOplogNote";

#[tokio::test]
async fn a_token_whose_reply_is_lost_is_written_again_and_the_one_that_is_known_counts() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    // Written, but its majority is not confirmed.
    let unconfirmed = doc! {"writeConcernError": {"code": 64, "errmsg": "as when a majority is slow"}};
    fail_command(lab.shard(0), NOTE, doc! {"times": 1}, unconfirmed).await;
    let record = server.complete().await;
    assert_tokens(&lab, &record).await;
    let token = record.parts[0].token.unwrap();
    assert_eq!(token.attempt, 2);
    let of_this = doc! {"op": "n", "o.stillpoint": "token", "o.checkpoint": record.id.to_string()};
    let entries = oplog(lab.shard(0), of_this).await;
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert_eq!(entries[1].get_timestamp("ts").unwrap(), timestamp(token.time));

    fail_command(lab.shard(1), NOTE, doc! {"times": 2}, doc! {"closeConnection": true}).await;
    let record = server.complete().await;
    assert_tokens(&lab, &record).await;
    assert!(record.parts[1].token.unwrap().attempt > 1, "{record:?}");
    assert_balancer(&lab, &never_configured(), "after tokens that took several attempts").await;
}

#[tokio::test]
async fn a_token_that_cannot_be_written_fails_the_checkpoint() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    lab.set_balancer_documents(&with_window()).await.unwrap();
    for how in [doc! {"errorCode": 8, "errorLabels": []}, doc! {"closeConnection": true}] {
        fail_command(lab.shard(1), NOTE, "alwaysOn", how).await;
        let record = server.take().await;
        assert_failed(&record, Reason::TokenNotWritten);
        assert_eq!(record.released.unwrap().how, PutBack::AsFound);
        assert_balancer(&lab, &with_window(), "after a token that was not written").await;
    }
    let off = doc! {"configureFailPoint": "failCommand", "mode": "off"};
    lab.shard(1).run("admin", off).await.unwrap();
    server.complete().await;
}

#[tokio::test]
async fn a_hold_that_cannot_be_noted_is_not_begun() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    fail_command(lab.config(), NOTE, doc! {"times": 1}, doc! {"errorCode": 8}).await;
    let record = server.take().await;
    assert_failed(&record, Reason::BalancerUnreadable);
    let stops = oplog(lab.config(), doc! {"ns": {"$in": ["config.settings", "config.actionlog"]}}).await;
    assert!(stops.iter().all(|entry| !entry.to_string().contains("balancer")), "{stops:?}");
    assert_balancer(&lab, &never_configured(), "after a hold that was not noted").await;
}
