//! A stop waits for the balancer's round. While it waits nothing but the running operation tells of it.

use std::time::Duration;

use bson::{Document, doc};
use stillpoint_core::checkpoint::Reason;
use stillpoint_lab::wait::until;

use crate::support::{NS, SOON, Server, assert_balancer, assert_failed, lab, never_configured, stopped_by_command};

const HOLD: &str = "moveChunkHangAtStep4";

#[tokio::test]
async fn an_operators_stop_that_waits_for_the_round_stays() {
    let lab = lab().await;
    lab.set_balancer_documents(&never_configured()).await.unwrap();
    let server = Server::with(&lab, "interval = \"off\"\nbalancer_stop = \"4s\"\n").await;

    // A round that does not end: the balancer drains a shard, and the first migration hangs.
    let hang = |mode: &str| doc! {"configureFailPoint": HOLD, "mode": mode};
    lab.shard(1).run("admin", hang("alwaysOn")).await.unwrap();
    let shards = lab.config().client().database("config").collection::<Document>("shards");
    shards.update_one(doc! {"_id": "rs1"}, doc! {"$set": {"draining": true}}).await.unwrap();
    let reached = doc! {"waitForFailPoint": HOLD, "timesEntered": 1, "maxTimeMS": 60_000};
    lab.shard(1).run("admin", reached).await.unwrap_or_else(|e| panic!("no migration of {NS} began: {e}"));

    let id = server.ask().await;
    let stops = async |wanted: usize| {
        until(SOON, || async { (stops_under_way(&lab).await == wanted).then_some(()) }).await.expect("the stop")
    };
    stops(1).await;
    let operator = lab.operator_stops_balancer();
    let checkpoint = async {
        stops(2).await;
        let record = server.end_of(id, SOON).await;
        assert_failed(&record, Reason::BalancerNotStopped);
        assert_balancer(&lab, &stopped_by_command(), "while the operator's stop waits").await;
        lab.shard(1).run("admin", hang("off")).await.unwrap();
    };
    let (stopped, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(120), operator), checkpoint);
    stopped.expect("the operator's stop ends").unwrap();
    assert_balancer(&lab, &stopped_by_command(), "after the operator's stop").await;
}

async fn stops_under_way(lab: &stillpoint_lab::Lab) -> usize {
    let command = doc! {
        "aggregate": 1,
        "pipeline": [
            {"$currentOp": {"allUsers": true}},
            {"$match": {"command._configsvrBalancerStop": {"$exists": true}}},
        ],
        "cursor": {},
    };
    let reply = lab.config().run("admin", command).await.unwrap();
    reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap().len()
}
