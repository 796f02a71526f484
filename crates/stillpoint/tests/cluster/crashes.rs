//! `kill -9` after every step of the protocol.

use stillpoint_core::checkpoint::{Reason, State};
use stillpoint_lab::sharding::BalancerDocuments;

use crate::support::{
    LIMITS, SOON, Server, assert_balancer, assert_failed, assert_tokens, hold_migration, is_off, lab, never_configured,
    stopped_by_command, with_window,
};

/// How a checkpoint ends whose server died.
enum Ends {
    Failed,
    /// What was written last decides: a later action was under way at the same time.
    Either,
    Completed,
}

/// Every action of a checkpoint that meets no trouble.
const STEPS: [(&str, Ends); 14] = [
    ("save-started", Ends::Failed),
    ("survey", Ends::Either),
    ("read-balancer", Ends::Either),
    ("save-holding", Ends::Failed),
    ("note-hold", Ends::Failed),
    ("stop-balancer", Ends::Failed),
    ("look-for-movement", Ends::Failed),
    ("read-clock", Ends::Failed),
    ("write-token", Ends::Failed),
    ("put-back-balancer", Ends::Either),
    ("save-releasing", Ends::Completed),
    ("save-discovering", Ends::Completed),
    ("find-token", Ends::Either),
    ("save-completed", Ends::Completed),
];

async fn dies_after_each_step(found: BalancerDocuments) {
    let lab = lab().await;
    let mut server = Server::of(&lab).await;
    server.stop().await;
    lab.set_balancer_documents(&found).await.unwrap();
    for (step, ends) in STEPS {
        server.serve(Some(step)).await;
        let id = server.ask().await;
        server.crashed().await;
        server.serve(None).await;
        let record = server.end_of(id, SOON).await;
        let when = format!("killed after {step}");
        match (ends, record.state) {
            (Ends::Completed, _) | (Ends::Either, State::Completed) => assert_tokens(&lab, &record).await,
            (Ends::Failed, _) | (Ends::Either, _) => assert_failed(&record, Reason::Interrupted),
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
    for step in ["stop-balancer", "read-clock", "write-token"] {
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

/// A checkpoint that fails has steps of its own.
#[tokio::test]
async fn a_failed_checkpoint_survives_every_crash_too() {
    let lab = lab().await;
    let limits = LIMITS.replace("quiet = \"30s\"", "quiet = \"1s\"");
    let mut server = Server::with(&lab, &format!("interval = \"off\"\n{limits}")).await;
    server.stop().await;
    for found in [never_configured(), with_window()] {
        lab.set_balancer_documents(&found).await.unwrap();
        let migration = hold_migration(&lab).await;
        for step in ["wait", "put-back-balancer", "save-releasing", "save-failed"] {
            server.serve(Some(step)).await;
            let id = server.ask().await;
            server.crashed().await;
            server.serve(None).await;
            let record = server.end_of(id, SOON).await;
            assert_eq!(record.state, State::Failed, "{record:?}");
            let reason = record.failure.unwrap().reason;
            assert!(matches!(reason, Reason::Interrupted | Reason::DataMoving), "{reason:?}");
            assert_balancer(&lab, &found, &format!("killed after {step}")).await;
            server.stop().await;
        }
        migration.release().await.unwrap();
    }
    server.serve(None).await;
    server.complete().await;
}
