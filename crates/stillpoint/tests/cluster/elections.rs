//! Primaries that step down or die during checkpoints: each ends, and the balancer is as it was.

use std::time::Duration;

use bson::doc;
use stillpoint_core::checkpoint::{PutBack, State};
use stillpoint_lab::{Lab, ReplicaSet};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::support::{
    LIMITS, Server, assert_balancer, assert_tokens, command_failed, fail_command, hold_migration, is_off, lab_of,
    never_configured, set_balancer, with_window,
};

const CHECKPOINTS: usize = 8;
/// What the limits of one checkpoint add up to, and then some.
const END: Duration = Duration::from_secs(90);

async fn three_of_each() -> (Lab, Server) {
    let lab = lab_of(Lab::builder().shards(2).members(3).config_members(3)).await;
    let server = Server::with(&lab, &format!("interval = \"off\"\n{LIMITS}")).await;
    (lab, server)
}

/// Makes primaries step down, one set after the other, at moments that vary, until told to stop.
async fn step_down(sets: &[&ReplicaSet], stop: watch::Receiver<bool>) -> u32 {
    let mut steps = 0;
    for (n, set) in sets.iter().cycle().enumerate() {
        if *stop.borrow() {
            break;
        }
        // Spread over the tens of milliseconds that a checkpoint takes.
        sleep(Duration::from_millis(37 * (n as u64 % 8))).await;
        set.step_down().await.unwrap();
        steps += 1;
    }
    steps
}

#[tokio::test]
async fn a_step_down_ends_in_a_completed_or_a_cleanly_failed_checkpoint() {
    let (lab, server) = three_of_each().await;
    let sets = [lab.config(), lab.shard(0)];
    let (stop, stopped) = watch::channel(false);
    let checkpoints = async {
        let mut completed = 0;
        for n in 0..CHECKPOINTS {
            let found = if n % 2 == 0 { never_configured() } else { with_window() };
            set_balancer(&lab, &found).await;
            let id = server.ask().await;
            let record = server.end_of(id, END).await;
            if record.state == State::Completed {
                assert_tokens(&lab, &record).await;
                completed += 1;
            } else {
                eprintln!("{:?}", record.failure);
            }
            assert_balancer(&lab, &found, &format!("{record:?}")).await;
        }
        stop.send(true).unwrap();
        completed
    };
    let (completed, steps) = tokio::join!(checkpoints, step_down(&sets, stopped));
    eprintln!("{completed} of {CHECKPOINTS} completed through {steps} step-downs");
    assert!(steps >= 5, "only {steps} step-downs");
    server.complete().await;
}

#[tokio::test]
async fn a_shards_primary_that_dies_does_not_leave_the_balancer_off() {
    let (lab, server) = three_of_each().await;
    for n in 0..3 {
        let id = server.ask().await;
        sleep(Duration::from_millis(60 * n)).await;
        let shard = lab.shard(0);
        let dead = shard.kill_primary().await.unwrap();
        let record = server.end_of(id, END).await;
        if record.state == State::Completed {
            assert_tokens(&lab, &record).await;
        }
        assert_balancer(&lab, &never_configured(), "after a primary died").await;
        // Two of three are enough.
        shard.wait_for_primary(END).await.unwrap();
        server.complete().await;
        shard.restart(dead).await.unwrap();
        shard.wait_for_all(END).await.unwrap();
    }
}

/// The server dies at some moment while the config servers elect another primary.
#[tokio::test]
async fn a_crash_in_the_middle_of_an_election_does_not_leave_the_balancer_off() {
    let (lab, mut server) = three_of_each().await;
    for n in 0..8_u64 {
        let found = if n % 2 == 0 { with_window() } else { never_configured() };
        set_balancer(&lab, &found).await;
        let id = server.ask().await;
        let crash = async {
            sleep(Duration::from_millis(20 * n)).await;
            server.signal(libc::SIGKILL);
            server.crashed().await;
            server.serve(None).await;
            server.end_of(id, END).await
        };
        let election = async {
            sleep(Duration::from_millis(15 * (7 - n))).await;
            lab.config().step_down().await.unwrap();
        };
        let (record, ()) = tokio::join!(crash, election);
        assert!(record.released.is_some() || record.found.is_none(), "{record:?}");
        if record.state == State::Completed {
            assert_tokens(&lab, &record).await;
        }
        assert_balancer(&lab, &found, &format!("{record:?}")).await;
    }
    server.complete().await;
}

#[tokio::test]
async fn a_checkpoint_goes_on_when_a_primary_steps_down_during_the_hold() {
    let lab = lab_of(Lab::builder().test_commands(true).members(3).config_members(3)).await;
    let server = Server::of(&lab).await;
    set_balancer(&lab, &with_window()).await;
    let migration = hold_migration(&lab).await;
    let id = server.held_up(&lab).await;
    lab.config().step_down().await.unwrap();
    assert!(is_off(&lab.balancer_documents().await.unwrap()), "the stop did not survive the election");
    // The command that began it may have ended with its primary; what it began has not.
    let _ = migration.release().await;
    let record = server.end_of(id, END).await;
    assert_eq!(record.state, State::Completed, "{record:?}");
    assert_eq!(record.released.as_ref().unwrap().how, PutBack::AsFound);
    assert_tokens(&lab, &record).await;
    assert_balancer(&lab, &with_window(), "after an election of the config servers").await;

    // A primary that steps down with a token on its way: the next one writes it.
    let shard = lab.shard(0);
    let late = doc! {"blockConnection": true, "blockTimeMS": 20_000};
    let before = fail_command(shard, "appendOplogNote", "alwaysOn", late).await;
    let id = server.ask().await;
    command_failed(shard, before).await;
    shard.step_down().await.unwrap();
    let record = server.end_of(id, END).await;
    assert_tokens(&lab, &record).await;
    assert!(record.parts[0].token.unwrap().attempt > 1, "{record:?}");
    assert_balancer(&lab, &with_window(), "after an election of a shard").await;
}

/// The address that a stop is to come from is asked for just before it is sent; between the two the
/// config servers elect another primary, to which the stop would go by another connection.
#[tokio::test]
async fn a_stop_that_would_go_to_another_primary_is_not_taken_for_an_operators() {
    let lab = lab_of(Lab::builder().test_commands(true).config_members(3)).await;
    let server = Server::of(&lab).await;
    for found in [never_configured(), with_window()] {
        set_balancer(&lab, &found).await;
        // The first is asked when the settings are read.
        let late = doc! {"blockConnection": true, "blockTimeMS": 3000};
        let before = fail_command(lab.config(), "whatsmyuri", doc! {"skip": 1}, late).await;
        let id = server.ask().await;
        command_failed(lab.config(), before).await;
        lab.config().step_down().await.unwrap();
        let record = server.end_of(id, END).await;
        assert_balancer(&lab, &found, &format!("{record:?}")).await;
        lab.config().wait_for_all(END).await.unwrap();
        server.complete().await;
        assert_balancer(&lab, &found, "after the next").await;
    }
}
