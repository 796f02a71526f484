//! `kill -9` after every step of the protocol.

use stillpoint_core::checkpoint::{Reason, State};
use stillpoint_lab::sharding::BalancerDocuments;

use crate::support::{
    SOON, Server, assert_balancer, assert_failed, assert_tokens, is_off, lab, never_configured, stopped_by_command,
    with_window,
};

/// Every action of a checkpoint that meets no trouble, with whether the checkpoint can still complete
/// when the process dies after it.
const STEPS: [(&str, bool); 14] = [
    ("save-started", false),
    ("survey", false),
    ("read-balancer", false),
    ("save-holding", false),
    ("note-hold", false),
    ("stop-balancer", false),
    ("look-for-movement", false),
    ("read-clock", false),
    ("write-token", false),
    ("put-back-balancer", true),
    ("save-releasing", true),
    ("save-discovering", true),
    ("find-token", true),
    ("save-completed", true),
];

async fn dies_after_each_step(found: BalancerDocuments) {
    let lab = lab().await;
    let mut server = Server::of(&lab).await;
    server.stop().await;
    lab.set_balancer_documents(&found).await.unwrap();
    for (step, can_complete) in STEPS {
        server.serve(Some(step)).await;
        let id = server.ask().await;
        server.crashed().await;
        server.serve(None).await;
        let record = server.end_of(id, SOON).await;
        let when = format!("killed after {step}");
        match record.state {
            State::Completed if can_complete => assert_tokens(&lab, &record).await,
            _ => assert_failed(&record, Reason::Interrupted),
        }
        assert_balancer(&lab, &found, &when).await;
        let next = server.complete().await;
        assert_tokens(&lab, &next).await;
        assert_balancer(&lab, &found, &format!("{when}, after the next checkpoint")).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_balancer_that_was_never_configured_survives_every_crash() {
    dies_after_each_step(never_configured()).await;
}

#[tokio::test]
async fn a_balancer_with_a_window_survives_every_crash() {
    dies_after_each_step(with_window()).await;
}

#[tokio::test]
async fn what_an_operator_stops_after_a_crash_stays_off() {
    let lab = lab().await;
    let mut server = Server::of(&lab).await;
    server.stop().await;
    for step in ["stop-balancer", "look-for-movement", "write-token"] {
        lab.set_balancer_documents(&never_configured()).await.unwrap();
        server.serve(Some(step)).await;
        let id = server.ask().await;
        server.crashed().await;
        assert!(is_off(&lab.balancer_documents().await.unwrap()), "nothing was held after {step}");
        lab.operator_stops_balancer().await.unwrap();
        server.serve(None).await;
        let record = server.end_of(id, SOON).await;
        assert_failed(&record, Reason::Interrupted);
        assert_balancer(&lab, &stopped_by_command(), step).await;
        server.complete().await;
        assert_balancer(&lab, &stopped_by_command(), step).await;
        server.stop().await;
    }
}
