//! The protocol under generated interleavings, lost replies, repeated replies, crashes, lost leases
//! and an operator who uses the balancer's switch at the same time.
//!
//! What a real cluster does is shown by the tests of the binary; here every order of events can be
//! had, in the small and exact [`world`].

mod world;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::ClusterTime;
use world::{Sim, Step, parts, step};

/// Enough for each commit; `PROPTEST_CASES` sets more, as `make soak` does.
fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(5_000),
    }
}

proptest! {
    #![proptest_config(cases())]

    /// The invariants: the balancer ends as it began, or as the operator left it; T is after every
    /// write acknowledged before the tokens; no completed checkpoint without every token; never two
    /// holders; and every checkpoint ends.
    #[test]
    fn the_invariants_hold_whatever_happens(began_on: bool, steps in prop::collection::vec(step(), 0..80)) {
        let mut sim = Sim::new(began_on);
        for step in &steps {
            sim.step(step);
        }
        sim.settle();
        sim.check();
    }
}

/// Drives one checkpoint with no fault, and gives the names of its actions in order.
fn plain_run(began_on: bool) -> (Sim, Vec<&'static str>) {
    let mut sim = Sim::new(began_on);
    let mut names = Vec::new();
    while let Some((holder, command)) = sim.take(0) {
        names.push(command.action.name());
        let outcome = sim.effect(holder, &command.action);
        sim.answer(holder, Event { ticket: command.ticket, now: sim.now, outcome });
    }
    (sim, names)
}

#[test]
fn an_undisturbed_checkpoint_takes_each_step_once_and_completes() {
    let (sim, names) = plain_run(true);
    assert_eq!(sim.stored.state, State::Completed);
    assert_eq!(sim.stored.released.as_ref().unwrap().how, PutBack::AsFound);
    let steps: Vec<_> = names.into_iter().filter(|name| !name.starts_with("save")).collect();
    assert_eq!(
        steps,
        [
            "survey",
            "read-balancer",
            "note-hold",
            "look-for-movement",
            "stop-balancer",
            "read-clock",
            "write-token",
            "write-token",
            "write-token",
            "put-back-balancer",
            "find-token",
            "find-token",
            "find-token",
            "survey",
        ]
    );
}

#[test]
fn a_balancer_that_was_off_is_never_touched() {
    let (sim, names) = plain_run(false);
    assert_eq!(sim.stored.state, State::Completed);
    assert!(!names.contains(&"note-hold"));
    assert!(sim.world.changes.is_empty());
}

#[test]
fn a_crash_before_any_step_ends_completed_or_failed_with_the_balancer_back() {
    let steps = plain_run(true).1.len();
    let mut completed = 0;
    for at in 0..steps {
        let mut sim = Sim::new(true);
        (0..at).for_each(|_| sim.step(&Step::Perform(0)));
        sim.step(&Step::Crash);
        sim.settle();
        sim.check();
        completed += usize::from(sim.stored.state == State::Completed);
    }
    // Those after the tokens were saved go on to the end; all others fail.
    assert!((1..steps / 2).contains(&completed), "{completed} of {steps}");
}

/// Runs until the named action comes up, and answers it with the given outcome.
fn answer_at(sim: &mut Sim, name: &str, outcome: impl Fn() -> Outcome) {
    for _ in 0..100 {
        let found = sim.holders.first().and_then(|holder| holder.pending.iter().position(|c| c.action.name() == name));
        if let Some(index) = found {
            let command = sim.holders[0].pending.remove(index);
            return sim.answer(0, Event { ticket: command.ticket, now: sim.now, outcome: outcome() });
        }
        sim.step(&Step::Perform(0));
    }
    panic!("{name} never came up");
}

fn failure(sim: &Sim) -> Reason {
    sim.stored.failure.as_ref().unwrap().reason
}

#[test]
fn a_token_at_or_before_the_clock_is_refused() {
    let mut sim = Sim::new(true);
    answer_at(&mut sim, "write-token", || Outcome::Done(Reply::Time(ClusterTime::new(1, 1))));
    sim.settle();
    sim.check();
    assert_eq!(failure(&sim), Reason::TokenTooEarly);
}

#[test]
fn a_token_that_cannot_be_written_is_tried_again_and_then_given_up() {
    let mut sim = Sim::new(true);
    answer_at(&mut sim, "write-token", || Outcome::Failed("not primary".into()));
    sim.settle();
    assert_eq!(sim.stored.state, State::Completed, "one failure is tried again");
    assert!(sim.stored.parts.iter().all(|part| part.token.unwrap().attempt == 2), "all tokens, with a new clock");

    // The first part that comes up fails each time; the others are written.
    let mut sim = Sim::new(true);
    let mut failing = None;
    while !sim.holders.is_empty() {
        let command = sim.holders[0].pending.remove(0);
        let outcome = match &command.action {
            Action::WriteToken { part, .. } if failing.get_or_insert(part.clone()) == part => {
                Outcome::Failed("not primary".into())
            }
            action => sim.effect(0, &action.clone()),
        };
        sim.answer(0, Event { ticket: command.ticket, now: sim.now, outcome });
    }
    sim.check();
    assert_eq!(failure(&sim), Reason::TokenNotWritten);
    assert!(sim.stored.failure.as_ref().unwrap().detail.contains("after 3 attempts: not primary"));
}

#[test]
fn what_moves_is_waited_for_and_then_given_up() {
    let mut sim = Sim::new(true);
    answer_at(&mut sim, "look-for-movement", || Outcome::Done(Reply::Moving(vec!["a migration".into()])));
    sim.settle();
    assert_eq!(sim.stored.state, State::Completed);

    let mut sim = Sim::new(true);
    answer_at(&mut sim, "stop-balancer", || Outcome::Done(Reply::Done));
    answer_at(&mut sim, "look-for-movement", || Outcome::Done(Reply::Moving(vec!["a migration".into()])));
    sim.now += SignedDuration::try_from(Limits::default().quiet).unwrap();
    answer_at(&mut sim, "look-for-movement", || Outcome::Done(Reply::Moving(vec!["a migration".into()])));
    sim.settle();
    sim.check();
    assert_eq!(failure(&sim), Reason::DataMoving);
    assert_eq!(sim.stored.failure.as_ref().unwrap().detail, "a migration");
}

#[test]
fn a_look_that_is_old_when_the_balancer_has_stopped_is_taken_again() {
    for (pause, looks) in [(0, 1), (60, 2)] {
        let mut sim = Sim::new(true);
        answer_at(&mut sim, "look-for-movement", || Outcome::Done(Reply::Moving(vec![])));
        sim.now += SignedDuration::from_secs(pause);
        answer_at(&mut sim, "stop-balancer", || Outcome::Done(Reply::Done));
        let again = sim.holders[0].pending.iter().any(|command| command.action == Action::LookForMovement);
        assert_eq!(again, looks == 2);
        sim.settle();
        assert_eq!(sim.stored.state, State::Completed);
    }
}

#[test]
fn an_election_before_anything_is_touched_is_waited_for() {
    for name in ["survey", "read-balancer"] {
        let mut sim = Sim::new(true);
        answer_at(&mut sim, name, || Outcome::Failed("not primary".into()));
        sim.settle();
        sim.check();
        assert_eq!((sim.stored.state, &sim.stored.trouble), (State::Completed, &None));

        let mut sim = Sim::new(true);
        for _ in 0..Limits::default().early_attempts {
            answer_at(&mut sim, name, || Outcome::Failed("not primary".into()));
        }
        sim.settle();
        sim.check();
        assert_eq!(sim.stored.state, State::Failed);
        assert_eq!(sim.stored.found, None, "nothing was touched");
    }
}

#[test]
fn what_is_denied_is_not_tried_again() {
    for (name, reason) in [
        ("survey", Reason::Unreachable),
        ("read-balancer", Reason::BalancerUnreadable),
        ("look-for-movement", Reason::Unreachable),
        ("read-clock", Reason::NoClock),
        ("write-token", Reason::TokenNotWritten),
        ("find-token", Reason::TokenNotFound),
    ] {
        let mut sim = Sim::new(true);
        answer_at(&mut sim, name, || Outcome::Denied("not authorized".into()));
        sim.settle();
        sim.check();
        assert_eq!(failure(&sim), reason);
        assert!(sim.stored.failure.as_ref().unwrap().detail.contains("not authorized"));
    }
}

#[test]
fn a_token_that_is_not_stored_in_time_fails_the_checkpoint() {
    let mut sim = Sim::new(true);
    answer_at(&mut sim, "find-token", || Outcome::Done(Reply::Seen(None)));
    let name = sim.stored.parts.iter().find(|part| part.token.is_none_or(|t| !t.discovered)).map(|p| p.id.clone());
    sim.world.tokens.remove(&name.unwrap());
    sim.settle();
    assert_eq!(failure(&sim), Reason::TokenNotFound);
    assert!(sim.stored.released.is_some());
}

#[test]
fn a_token_of_another_term_than_the_clocks_fails_the_checkpoint() {
    let mut sim = Sim::new(true);
    answer_at(&mut sim, "put-back-balancer", || Outcome::Done(Reply::PutBack(PutBack::AsFound)));
    let seen = Seen { time: ClusterTime::new(1, 99), term: 2 };
    answer_at(&mut sim, "find-token", || Outcome::Done(Reply::Seen(Some(seen))));
    sim.settle();
    assert_eq!(failure(&sim), Reason::PrimaryChanged);
}

#[test]
fn a_balancer_of_which_nothing_is_known_any_more_fails_the_checkpoint_and_is_not_tried_again() {
    let mut sim = Sim::new(true);
    answer_at(&mut sim, "put-back-balancer", || Outcome::Done(Reply::PutBack(PutBack::HistoryLost)));
    sim.settle();
    assert_eq!(failure(&sim), Reason::BalancerHistoryLost);
    assert_eq!(sim.stored.released.as_ref().unwrap().how, PutBack::HistoryLost);
}

#[test]
fn a_shard_that_comes_meanwhile_fails_the_checkpoint() {
    let mut sim = Sim::new(true);
    answer_at(&mut sim, "put-back-balancer", || Outcome::Done(Reply::PutBack(PutBack::AsFound)));
    let mut more = parts();
    more.push((PartId::Shard("rs9".into()), "rs9".into()));
    answer_at(&mut sim, "survey", || Outcome::Done(Reply::Parts(more.clone())));
    sim.settle();
    assert_eq!(failure(&sim), Reason::PartsChanged);
}

#[test]
fn a_balancer_that_cannot_be_put_back_is_tried_for_ever_and_the_record_says_so() {
    let mut sim = Sim::new(true);
    for _ in 0..50 {
        answer_at(&mut sim, "put-back-balancer", || Outcome::Failed("no primary".into()));
    }
    let record = sim.holders[0].machine.record();
    assert!(record.owes_put_back());
    assert!(record.trouble.as_ref().unwrap().text.contains("no primary"));
    sim.settle();
    sim.check();
    assert_eq!(sim.stored.state, State::Completed);
    assert_eq!(sim.stored.trouble, None);
}
