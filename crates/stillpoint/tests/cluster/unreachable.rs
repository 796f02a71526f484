//! Parts that do not answer: at a restart with the balancer held, and in the middle.

use std::time::{Duration, Instant};

use stillpoint_core::checkpoint::{PutBack, Reason, State};
use stillpoint_lab::Lab;
use stillpoint_lab::wait::until;

use crate::support::{
    LIMITS, SOON, Server, assert_balancer, assert_failed, is_off, lab, lab_of, never_configured, with_window,
};

/// Held, killed, and started again while the config servers do not answer.
async fn restarts_without_config_servers(away: impl AsyncFnOnce(&Lab), back: impl AsyncFnOnce(&Lab)) {
    let lab = lab().await;
    let mut server = Server::of(&lab).await;
    server.stop().await;
    lab.set_balancer_documents(&with_window()).await.unwrap();
    server.serve(Some("read-clock")).await;
    let id = server.ask().await;
    server.crashed().await;
    assert!(is_off(&lab.balancer_documents().await.unwrap()), "nothing was held");
    away(&lab).await;

    server.serve(None).await;
    let record = server.until(id, SOON, |record| record.trouble.is_some()).await;
    assert_eq!(record.state, State::Releasing, "{record:?}");
    assert!(record.owes_put_back());
    assert!(record.trouble.unwrap().text.contains("not yet put back"));
    let status = server.status().await;
    assert_eq!(status["newest"]["state"], "RELEASING");
    assert!(status["newest"]["balancerHeldSince"].is_string(), "{status}");
    assert!(status["newest"]["trouble"]["text"].as_str().unwrap().contains("not yet put back"), "{status}");
    let ran = server.run(&["status"], &[]).await;
    assert!(ran.out.contains("the balancer is held since"), "{}", ran.out);
    let told = || async { server.log().contains("not yet put back").then_some(()) };
    until(SOON, told).await.expect("the log does not say it");

    back(&lab).await;
    let record = server.end_of(id, SOON).await;
    assert_failed(&record, Reason::Interrupted);
    assert_eq!((record.released.unwrap().how, record.trouble), (PutBack::AsFound, None));
    assert_balancer(&lab, &with_window(), "when the config servers are back").await;
    server.complete().await;
}

#[tokio::test]
async fn a_restart_keeps_trying_while_the_config_servers_are_down() {
    let down = async |lab: &Lab| lab.config().kill(0).await.unwrap();
    let up = async |lab: &Lab| lab.config().restart(0).await.unwrap();
    restarts_without_config_servers(down, up).await;
}

#[tokio::test]
async fn a_restart_keeps_trying_while_the_config_servers_do_not_answer() {
    let freeze = async |lab: &Lab| lab.config().freeze(0).await.unwrap();
    let thaw = async |lab: &Lab| lab.config().thaw(0).await.unwrap();
    restarts_without_config_servers(freeze, thaw).await;
}

const IMPATIENT: &str = "interval = \"off\"\nsurvey = \"5s\"\nbalancer_stop = \"5s\"\nquiet = \"2s\"\ntoken = \"2s\"\n\
                         token_attempts = 2\nput_back = \"5s\"\ndiscover = \"3s\"\nsave = \"5s\"\n";

#[tokio::test]
async fn a_shard_that_does_not_answer_fails_the_checkpoint_in_time() {
    let lab = lab_of(Lab::builder().cuttable(true)).await;
    let server = Server::with(&lab, IMPATIENT).await;
    server.complete().await;
    let shard = lab.shard(1);
    for frozen in [true, false] {
        match frozen {
            true => shard.freeze(0).await.unwrap(),
            false => shard.cut(0).await.unwrap(),
        }
        let begin = Instant::now();
        let record = server.take().await;
        // The balancer's round may be waiting for the shard, too, and the stop for that.
        let reason = record.failure.as_ref().map(|failure| failure.reason);
        assert!(matches!(reason, Some(Reason::Unreachable | Reason::BalancerNotStopped)), "{record:?}");
        assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
        assert_eq!(record.released.as_ref().unwrap().how, PutBack::AsFound);
        assert_balancer(&lab, &never_configured(), "after a shard was away").await;
        match frozen {
            true => shard.thaw(0).await.unwrap(),
            false => shard.mend(0).await.unwrap(),
        }
        shard.wait_for_primary(SOON).await.unwrap();
        server.complete().await;
    }
}

#[tokio::test]
async fn a_cluster_that_goes_away_during_the_hold_gets_its_balancer_back_later() {
    let lab = lab().await;
    let server = Server::with(&lab, &format!("interval = \"off\"\n{LIMITS}")).await;
    let migration = crate::support::hold_migration(&lab).await;
    let id = server.held_up(&lab).await;
    lab.config().freeze(0).await.unwrap();
    let trouble = |text: &'static str| {
        move |record: &stillpoint_core::checkpoint::Checkpoint| {
            record.trouble.as_ref().is_some_and(|trouble| !trouble.text.contains(text))
        }
    };
    server.until(id, SOON, trouble("a migration of")).await;
    lab.config().thaw(0).await.unwrap();
    migration.release().await.unwrap();
    let record = server.end_of(id, Duration::from_secs(60)).await;
    assert_eq!(record.released.unwrap().how, PutBack::AsFound);
    assert_balancer(&lab, &never_configured(), "when the cluster is back").await;
    server.complete().await;
}
