//! A stop of the balancer that the config servers perform long after it was sent, when everybody
//! could think that it is over.

use std::time::Duration;

use bson::doc;
use stillpoint_core::checkpoint::{Checkpoint, PutBack, Reason, State};
use stillpoint_lab::Lab;

use crate::support::{
    LIMITS, SOON, Server, assert_balancer, assert_failed, command_failed, fail_command, is_off, lab_of,
    never_configured, oplog, with_window,
};

/// How long the config servers let the stop lie before they perform it: less than the time that the
/// stop itself gives them, or they would not perform it at all.
const LATE: Duration = Duration::from_secs(5);
const END: Duration = Duration::from_secs(30);

/// Makes the next stop late.
async fn delay_next_stop(lab: &Lab) -> i64 {
    let late = doc! {"blockConnection": true, "blockTimeMS": LATE.as_millis() as i64};
    fail_command(lab.config(), "_configsvrBalancerStop", doc! {"times": 1}, late).await
}

/// How often the balancer was stopped.
async fn stops(lab: &Lab) -> usize {
    oplog(lab.config(), doc! {"ns": "config.actionlog", "op": "i", "o.what": "balancer.stop"}).await.len()
}

fn waits_for_the_connection(record: &Checkpoint) -> bool {
    let waits = |text: &str| text.contains("not yet put back") && text.contains("may still carry a stop");
    record.state == State::Releasing && record.trouble.as_ref().is_some_and(|trouble| waits(&trouble.text))
}

#[tokio::test]
async fn a_stop_whose_connection_broke_and_that_comes_late_is_undone() {
    let lab = lab_of(Lab::builder().test_commands(true).cuttable(true)).await;
    let server = Server::of(&lab).await;
    for (n, found) in [never_configured(), with_window()].iter().enumerate() {
        lab.set_balancer_documents(found).await.unwrap();
        let late = delay_next_stop(&lab).await;
        let id = server.ask().await;
        command_failed(lab.config(), late).await;
        lab.config().cut(0).await.unwrap();
        lab.config().mend(0).await.unwrap();
        server.until(id, SOON, waits_for_the_connection).await;
        assert!(!is_off(&lab.balancer_documents().await.unwrap()), "the stop was not late");
        let record = server.end_of(id, END).await;
        assert_failed(&record, Reason::BalancerNotStopped);
        assert_eq!(record.released.unwrap().how, PutBack::AsFound);
        assert_eq!(stops(&lab).await, n + 1, "the late stop was not performed");
        assert_balancer(&lab, found, "after a late stop").await;
    }
    server.complete().await;
}

#[tokio::test]
async fn a_stop_whose_sender_was_killed_and_that_comes_late_is_undone() {
    let lab = lab_of(Lab::builder().test_commands(true)).await;
    let mut server = Server::of(&lab).await;
    lab.set_balancer_documents(&with_window()).await.unwrap();
    let late = delay_next_stop(&lab).await;
    let id = server.ask().await;
    command_failed(lab.config(), late).await;
    server.signal(libc::SIGKILL);
    server.crashed().await;
    server.serve(None).await;
    server.until(id, SOON, waits_for_the_connection).await;
    assert!(!is_off(&lab.balancer_documents().await.unwrap()), "the stop was not late");
    let record = server.end_of(id, END).await;
    assert_failed(&record, Reason::Interrupted);
    assert_eq!(stops(&lab).await, 1, "the late stop was not performed");
    assert_balancer(&lab, &with_window(), "after a late stop").await;
    server.complete().await;
    assert_balancer(&lab, &with_window(), "after the next").await;
}

/// Lets the secondaries of the config servers go on voting, but copy nothing (or again).
async fn hold_replication(lab: &Lab, hold: bool) {
    let primary = lab.config().primary().await.unwrap();
    let mode = if hold { "alwaysOn" } else { "off" };
    for member in (0..lab.config().members()).filter(|member| *member != primary) {
        let mut connection = lab.config().endpoint().connect(member).await.unwrap();
        connection.run("admin", doc! {"configureFailPoint": "stopReplProducer", "mode": mode}).await.unwrap();
    }
}

#[tokio::test]
async fn a_stop_that_failed_before_a_majority_had_it_is_undone_when_a_majority_gets_it() {
    let lab = lab_of(Lab::builder().test_commands(true).config_members(3)).await;
    let limits = LIMITS.replace("balancer_stop = \"10s\"", "balancer_stop = \"6s\"");
    let server = Server::with(&lab, &format!("interval = \"off\"\n{limits}")).await;
    lab.set_balancer_documents(&with_window()).await.unwrap();
    let late = doc! {"blockConnection": true, "blockTimeMS": 1500};
    let before = fail_command(lab.config(), "_configsvrBalancerStop", doc! {"times": 1}, late).await;
    let id = server.ask().await;
    command_failed(lab.config(), before).await;
    hold_replication(&lab, true).await;
    let record = server.until(id, SOON, |record| record.failure.is_some()).await;
    assert_eq!(record.failure.unwrap().reason, Reason::BalancerNotStopped);
    assert!(is_off(&lab.balancer_documents().await.unwrap()), "the primary alone has no stop");
    server.until(id, SOON, |record| record.trouble.is_some()).await;
    hold_replication(&lab, false).await;
    let record = server.end_of(id, END).await;
    assert_eq!(record.released.unwrap().how, PutBack::AsFound);
    assert_balancer(&lab, &with_window(), "when a majority has it").await;
    server.complete().await;
}
