//! A catalog that is lost while the balancer is off loses nothing.

use std::time::{Duration, Instant};

use bson::doc;
use jiff::Timestamp;
use stillpoint_core::checkpoint::{Reason, State};

use crate::support::{
    SOON, Server, assert_balancer, assert_failed, assert_tokens, is_off, lab, oplog, stopped_by_command, with_window,
};

/// The shortest there are, so that the hold is soon over.
const SHORTEST: &str = "interval = \"off\"\nsurvey = \"5s\"\nbalancer_stop = \"1s\"\nquiet = \"1s\"\ntoken = \"1s\"\n\
                        token_attempts = 1\nput_back = \"1s\"\ndiscover = \"5s\"\nsave = \"1s\"\n";
const HOLD: Duration = Duration::from_secs(40);

#[tokio::test]
async fn the_next_checkpoint_ends_a_hold_that_nobody_knows_of() {
    let lab = lab().await;
    let mut server = Server::with(&lab, SHORTEST).await;
    server.stop().await;
    lab.set_balancer_documents(&with_window()).await.unwrap();
    server.serve(Some("read-clock")).await;
    server.ask().await;
    server.crashed().await;
    let held = lab.balancer_documents().await.unwrap();
    assert!(is_off(&held), "nothing was held");
    let notes = oplog(lab.config(), doc! {"op": "n", "o.stillpoint": "hold"}).await;
    let until: Timestamp = notes.last().unwrap().get_document("o").unwrap().get_str("until").unwrap().parse().unwrap();

    server.lose_everything().await;
    server.serve(None).await;
    server.add_cluster(&lab).await;
    let begin = Instant::now();
    // Another stillpoint may hold it: until its time is over it is left alone.
    let mut refused = 0;
    let record = loop {
        let record = server.take().await;
        if record.state == State::Completed {
            break record;
        }
        assert_failed(&record, Reason::BalancerUnreadable);
        if record.ended.unwrap() < until {
            assert_balancer(&lab, &held, "held by another").await;
        }
        refused += 1;
        assert!(begin.elapsed() < HOLD, "{record:?}");
    };
    assert!(refused > 0, "the other's hold was not respected");
    assert!(record.started >= until.saturating_sub(Duration::from_secs(1)).unwrap(), "{record:?} but it was {until}");
    assert_tokens(&lab, &record).await;
    assert_balancer(&lab, &with_window(), "after the next checkpoint").await;
    let found: serde_json::Value = serde_json::from_str(&record.found.unwrap().settings).unwrap();
    assert_eq!(found["balancer"]["stopped"], false, "what the lost hold had made of it was taken for what was found");
}

#[tokio::test]
async fn a_balancer_that_an_operator_stopped_meanwhile_is_no_lost_hold() {
    let lab = lab().await;
    let mut server = Server::of(&lab).await;
    server.stop().await;
    server.serve(Some("read-clock")).await;
    server.ask().await;
    server.crashed().await;
    lab.operator_stops_balancer().await.unwrap();
    server.lose_everything().await;
    server.serve(None).await;
    server.add_cluster(&lab).await;
    let id = server.ask().await;
    assert_eq!(server.end_of(id, SOON).await.state, State::Completed);
    assert_balancer(&lab, &stopped_by_command(), "stopped by an operator").await;
}
