//! However the balancer is set, a checkpoint stops it and leaves it as it was, field for field.

use bson::{Document, doc};
use stillpoint_core::checkpoint::{PutBack, Reason, State};
use stillpoint_lab::Lab;
use stillpoint_lab::sharding::BalancerDocuments;

use crate::support::{
    SOON, Server, assert_balancer, assert_failed, assert_tokens, documents, hold_migration, is_off, lab, lab_of,
    never_configured, started_by_command, stopped_by_command, with_window,
};

fn balancer(fields: Document) -> Option<Document> {
    let mut document = doc! {"_id": "balancer"};
    document.extend(fields);
    Some(document)
}

fn autosplit(enabled: bool) -> Option<Document> {
    Some(doc! {"_id": "autosplit", "enabled": enabled})
}

fn on() -> Vec<BalancerDocuments> {
    vec![
        never_configured(),
        started_by_command(),
        with_window(),
        documents(balancer(doc! {"stopped": false, "mode": "full"}), None),
        documents(None, autosplit(true)),
        documents(balancer(doc! {"mode": "full", "stopped": false}), autosplit(false)),
        documents(balancer(doc! {"mode": "autoSplitOnly", "stopped": false}), autosplit(true)),
        documents(balancer(doc! {"activeWindow": {"start": "1:00", "stop": "2:00"}}), autosplit(true)),
        documents(None, Some(doc! {"_id": "autosplit", "comment": "by ops", "enabled": true, "since": 7_i64})),
    ]
}

fn off() -> Vec<BalancerDocuments> {
    vec![
        stopped_by_command(),
        documents(balancer(doc! {"stopped": true}), None),
        documents(balancer(doc! {"mode": "off", "activeWindow": {"start": "1:00", "stop": "2:00"}}), autosplit(true)),
    ]
}

/// A checkpoint whose hold lasts until it was seen that the balancer is off, or untouched if it was off.
async fn round_trip(lab: &Lab, server: &Server, found: &BalancerDocuments) {
    lab.set_balancer_documents(found).await.unwrap();
    let migration = hold_migration(lab).await;
    let id = server.held_up(lab).await;
    if is_off(found) {
        assert_balancer(lab, found, "while it is held, off as found").await;
    }
    migration.release().await.unwrap();
    let record = server.end_of(id, SOON).await;
    assert_eq!(record.state, State::Completed, "{record:?}");
    assert_eq!(record.released.as_ref().unwrap().how, PutBack::AsFound);
    assert_eq!(record.found.as_ref().unwrap().running, !is_off(found));
    assert_tokens(lab, &record).await;
    assert_balancer(lab, found, "after a checkpoint").await;
}

#[tokio::test]
async fn a_balancer_that_is_on_is_off_while_held_and_then_as_it_was() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    for found in on() {
        round_trip(&lab, &server, &found).await;
    }
}

#[tokio::test]
async fn a_balancer_that_is_off_is_not_touched() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    for found in off() {
        round_trip(&lab, &server, &found).await;
    }
    lab.operator_starts_balancer().await.unwrap();
    lab.operator_stops_balancer().await.unwrap();
    let found = lab.balancer_documents().await.unwrap();
    server.complete().await;
    assert_balancer(&lab, &found, "stopped by command").await;
}

#[tokio::test]
async fn the_least_privileged_user_may_do_it_all() {
    let lab = lab_of(Lab::builder().test_commands(true).auth(true)).await;
    let server = Server::of(&lab).await;
    for found in [never_configured(), with_window(), started_by_command(), stopped_by_command()] {
        round_trip(&lab, &server, &found).await;
    }
}

#[tokio::test]
async fn a_balancer_whose_settings_are_not_understood_is_not_touched() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    for fields in [doc! {"mode": "sometimes"}, doc! {"mode": "full", "stopped": "no"}] {
        let found = documents(balancer(fields), None);
        lab.set_balancer_documents(&found).await.unwrap();
        assert_failed(&server.take().await, Reason::BalancerUnreadable);
        assert_balancer(&lab, &found, "not understood").await;
    }
    lab.set_balancer_documents(&never_configured()).await.unwrap();
    server.complete().await;
}
