//! What an operator does to the balancer while a checkpoint holds it is kept.

use bson::{Document, doc};
use stillpoint_core::checkpoint::{Checkpoint, PutBack, Reason, State};
use stillpoint_lab::Lab;
use stillpoint_lab::sharding::BalancerDocuments;

use crate::support::{
    SOON, Server, assert_balancer, assert_failed, command_failed, documents, fail_command, hold_migration, lab,
    never_configured, started_by_command, stopped_by_command, with_window,
};

/// A checkpoint that finds `found`; `act` is done while it holds the balancer.
async fn during_a_hold(lab: &Lab, server: &Server, found: &BalancerDocuments, act: impl AsyncFnOnce()) -> Checkpoint {
    lab.set_balancer_documents(found).await.unwrap();
    let migration = hold_migration(lab).await;
    let id = server.held_up(lab).await;
    act().await;
    migration.release().await.unwrap();
    server.end_of(id, SOON).await
}

async fn set(lab: &Lab, id: &str, fields: Document) {
    let settings = lab.config().client().database("config").collection::<Document>("settings");
    settings.update_one(doc! {"_id": id}, doc! {"$set": fields}).upsert(true).await.unwrap();
}

#[tokio::test]
async fn a_stop_by_an_operator_stays() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    for found in [never_configured(), started_by_command(), stopped_by_command()] {
        let stop = async || lab.operator_stops_balancer().await.unwrap();
        let record = during_a_hold(&lab, &server, &found, stop).await;
        assert_eq!(record.state, State::Completed, "{record:?}");
        assert_balancer(&lab, &stopped_by_command(), "stopped while held").await;
        server.complete().await;
        assert_balancer(&lab, &stopped_by_command(), "and after the next").await;
    }
    // By hand, as it was done before there were commands.
    let by_hand = async || set(&lab, "balancer", doc! {"stopped": true, "who": "ops"}).await;
    let record = during_a_hold(&lab, &server, &started_by_command(), by_hand).await;
    assert_eq!(record.state, State::Completed, "{record:?}");
}

#[tokio::test]
async fn a_start_by_an_operator_stays_and_fails_the_checkpoint() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    for found in [never_configured(), stopped_by_command()] {
        let start = async || lab.operator_starts_balancer().await.unwrap();
        let record = during_a_hold(&lab, &server, &found, start).await;
        assert_failed(&record, Reason::BalancerStartedByOthers);
        assert_eq!(record.released.as_ref().unwrap().how, PutBack::StartedByOthers);
        assert_eq!(record.completed(), None);
        assert_balancer(&lab, &started_by_command(), "started while held").await;
    }
    let start_and_stop = async || {
        lab.operator_starts_balancer().await.unwrap();
        lab.operator_stops_balancer().await.unwrap();
    };
    let record = during_a_hold(&lab, &server, &never_configured(), start_and_stop).await;
    assert_failed(&record, Reason::BalancerStartedByOthers);
    assert_balancer(&lab, &stopped_by_command(), "started and stopped while held").await;
    lab.set_balancer_documents(&never_configured()).await.unwrap();
    server.complete().await;
    assert_balancer(&lab, &never_configured(), "after the next").await;
}

#[tokio::test]
async fn an_edit_by_an_operator_is_kept() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    let window = doc! {"start": "4:00", "stop": "5:00"};
    let edit = async || set(&lab, "balancer", doc! {"activeWindow": window.clone()}).await;

    let record = during_a_hold(&lab, &server, &with_window(), edit).await;
    assert_eq!(record.state, State::Completed, "{record:?}");
    let mut expected = with_window();
    expected.balancer.as_mut().unwrap().insert("activeWindow", window.clone());
    assert_balancer(&lab, &expected, "another window while held").await;

    let record = during_a_hold(&lab, &server, &never_configured(), edit).await;
    assert_eq!(record.state, State::Completed, "{record:?}");
    let expected = documents(Some(doc! {"_id": "balancer", "activeWindow": window.clone()}), None);
    assert_balancer(&lab, &expected, "a first window while held").await;

    let split = async || set(&lab, "autosplit", doc! {"enabled": true}).await;
    let record = during_a_hold(&lab, &server, &never_configured(), split).await;
    assert_eq!(record.state, State::Completed, "{record:?}");
    let expected = documents(None, Some(doc! {"_id": "autosplit", "enabled": true}));
    assert_balancer(&lab, &expected, "splits allowed while held").await;
}

#[tokio::test]
async fn a_stop_between_the_last_look_and_the_putting_back_stays() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    lab.set_balancer_documents(&started_by_command()).await.unwrap();
    let migration = hold_migration(&lab).await;
    let id = server.held_up(&lab).await;
    // The write that puts the balancer back is held up, after all that it was decided from was read.
    let entered = fail_command(
        lab.config(),
        "update",
        doc! {"times": 1},
        doc! {"blockConnection": true, "blockTimeMS": 3_000, "appName": "stillpoint"},
    )
    .await;
    migration.release().await.unwrap();
    command_failed(lab.config(), entered).await;
    lab.operator_stops_balancer().await.unwrap();
    let record = server.end_of(id, SOON).await;
    assert_eq!(record.state, State::Completed, "{record:?}");
    assert_eq!(record.released.as_ref().unwrap().how, PutBack::AsChangedByOthers);
    assert_balancer(&lab, &stopped_by_command(), "stopped while it was being put back").await;
}
