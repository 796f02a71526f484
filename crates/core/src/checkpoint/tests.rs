//! The protocol under generated interleavings, lost replies, repeated replies, crashes, lost leases
//! and an operator who uses the balancer's switch at the same time.
//!
//! The world here is small and exact: a balancer with a history of who changed it, one logical
//! clock, an oplog of tokens for each part, a catalog with a lease. What a real cluster does is
//! shown by the engine's tests; here every order of events can be had.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{CheckpointId, ClusterId, ClusterTime};

const SHARDS: usize = 2;

fn parts() -> Vec<(PartId, String)> {
    let mut parts: Vec<_> = (0..SHARDS).map(|n| (PartId::Shard(format!("rs{n}")), format!("rs{n}"))).collect();
    parts.push((PartId::ConfigServers, "cfg".into()));
    parts
}

/// Somebody changed the balancer's switch.
#[derive(Debug, Clone)]
struct Change {
    at: u32,
    by: String,
    on: bool,
}

/// A cluster, as far as the protocol touches it.
#[derive(Debug)]
struct World {
    began_on: bool,
    on: bool,
    changes: Vec<Change>,
    /// The cluster's clock: every write takes the next tick, as gossip makes it.
    tick: u32,
    /// Cluster times of acknowledged application writes.
    acknowledged: Vec<u32>,
    tokens: BTreeMap<PartId, Vec<(u32, u32)>>,
    /// The highest acknowledged write before each reading of the clock.
    before_clock: Option<u32>,
}

impl World {
    fn next(&mut self) -> u32 {
        self.tick += 1;
        self.tick
    }

    fn change(&mut self, by: &str, on: bool) {
        let at = self.next();
        // A stop of a stopped balancer still leaves its entry in config.actionlog.
        self.changes.push(Change { at, by: by.into(), on });
        self.on = on;
    }

    /// What the switch would be had `found.from` never touched it.
    fn intended(&self, found: &Found) -> (bool, Vec<&Change>) {
        let others: Vec<_> =
            self.changes.iter().filter(|c| c.at > found.seen.increment && c.by != found.from).collect();
        (others.last().map_or(found.running, |change| change.on), others)
    }
}

struct Holder {
    machine: Machine,
    epoch: u32,
    address: String,
    pending: Vec<Command>,
    /// Replies that were given once, to be given again.
    given: Vec<Event>,
}

struct Sim {
    world: World,
    now: Timestamp,
    stored: Checkpoint,
    epoch: u32,
    addresses: u32,
    holders: Vec<Holder>,
    ends: Vec<(u32, End)>,
    /// A stop whose holder is gone, and which has not reached the server yet.
    stray_stops: Vec<String>,
}

#[derive(Debug, Clone)]
enum Step {
    /// Perform the pending command with this index, and answer.
    Perform(usize),
    /// Perform it, and lose the reply.
    LoseReply(usize),
    /// Do not perform it, and say that it failed.
    Fail(usize),
    /// Give an old reply again.
    Repeat(usize),
    /// A stop on its way arrives.
    StrayStop,
    Crash,
    /// The server is asked to stop.
    Interrupt,
    /// Another holder takes the lease while this one still runs.
    TakeOver,
    Operator(bool),
    Write,
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..6usize).prop_map(Step::Perform),
        1 => (0..6usize).prop_map(Step::LoseReply),
        1 => (0..6usize).prop_map(Step::Fail),
        1 => (0..20usize).prop_map(Step::Repeat),
        1 => Just(Step::StrayStop),
        1 => Just(Step::Crash),
        1 => Just(Step::Interrupt),
        1 => Just(Step::TakeOver),
        1 => any::<bool>().prop_map(Step::Operator),
        3 => Just(Step::Write),
        1 => (0..90u32).prop_map(Step::Pass),
    ]
}

impl Sim {
    fn new(began_on: bool) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let stored = Checkpoint::queued(CheckpointId::new(now, 1), ClusterId::new(now, 2), now);
        let world = World {
            began_on,
            on: began_on,
            changes: Vec::new(),
            tick: 10,
            acknowledged: Vec::new(),
            tokens: BTreeMap::new(),
            before_clock: None,
        };
        let mut sim = Sim {
            world,
            now,
            stored,
            epoch: 0,
            addresses: 0,
            holders: Vec::new(),
            ends: Vec::new(),
            stray_stops: Vec::new(),
        };
        sim.start_holder();
        sim
    }

    /// A server starts, or another takes over: a new epoch, a machine from the stored record.
    fn start_holder(&mut self) {
        self.epoch += 1;
        self.addresses += 1;
        let (machine, pending) = Machine::new(self.stored.clone(), Limits::default(), self.now);
        let address = format!("client:{}", self.addresses);
        self.holders.push(Holder { machine, epoch: self.epoch, address, pending, given: Vec::new() });
        self.reap();
    }

    fn reap(&mut self) {
        for holder in &self.holders {
            if let Some(end) = holder.machine.end() {
                self.ends.push((holder.epoch, end));
            }
        }
        self.holders.retain(|holder| holder.machine.end().is_none());
    }

    fn pick(&self, index: usize) -> Option<(usize, usize)> {
        let all: Vec<_> = self
            .holders
            .iter()
            .enumerate()
            .flat_map(|(h, holder)| (0..holder.pending.len()).map(move |c| (h, c)))
            .collect();
        (!all.is_empty()).then(|| all[index % all.len()])
    }

    /// What the action does to the world, and its reply.
    fn effect(&mut self, holder: usize, action: &Action) -> Outcome {
        let (address, epoch) = (self.holders[holder].address.clone(), self.holders[holder].epoch);
        let world = &mut self.world;
        let reply = match action {
            Action::Save(_) if epoch != self.epoch => return Outcome::Fenced,
            Action::Save(record) => {
                assert_eq!(record.broken_rule(), None);
                assert!(!self.stored.state.ended() || self.stored == **record, "an ended record was changed");
                assert!(record.state >= self.stored.state, "a record went back");
                self.stored = (**record).clone();
                Reply::Saved
            }
            Action::Survey => Reply::Parts(parts()),
            Action::ReadBalancer => {
                let seen = ClusterTime::new(1, world.tick);
                Reply::Balancer(Found { running: world.on, settings: String::new(), seen, from: address })
            }
            Action::NoteHold(_) => {
                world.next();
                assert_eq!(self.stored.state.max(State::Holding), self.stored.state, "noted before it was saved");
                Reply::Done
            }
            Action::StopBalancer(found) => {
                assert!(self.stored.found.is_some(), "stopped before what was found was saved");
                if found.running {
                    world.change(&found.from, false);
                }
                Reply::Done
            }
            Action::LookForMovement => Reply::Moving(Vec::new()),
            Action::ReadClock => {
                world.before_clock = world.acknowledged.last().copied();
                Reply::Time(ClusterTime::new(1, world.next()))
            }
            Action::WriteToken { part, attempt } => {
                let at = world.next();
                world.tokens.entry(part.clone()).or_default().push((*attempt, at));
                Reply::Time(ClusterTime::new(1, at))
            }
            Action::PutBackBalancer { found, stop_answered, held_until } => {
                // A holder keeps the connection for its stop until that is answered.
                let stopping =
                    |holder: &Holder| holder.pending.iter().any(|c| matches!(c.action, Action::StopBalancer(_)));
                let other_holder =
                    |(n, other): (usize, &Holder)| other.address == found.from && (n != holder || stopping(other));
                let still_open = !stop_answered
                    && (self.stray_stops.contains(&found.from) || self.holders.iter().enumerate().any(other_holder));
                let (intended, others) = world.intended(found);
                let touched = !others.is_empty();
                let held = |change: &&&Change| held_until.is_some_and(|until| change.at <= until.increment);
                let started = others.iter().filter(held).any(|change| change.on);
                if world.on != intended {
                    world.change("stillpoint's put-back", intended);
                }
                let how = match (touched, started) {
                    (_, true) => PutBack::StartedByOthers,
                    (true, _) => PutBack::AsChangedByOthers,
                    (false, _) => PutBack::AsFound,
                };
                if still_open {
                    return Outcome::Failed("put back, but the connection for the stop is still open".into());
                }
                Reply::PutBack(how)
            }
            Action::FindToken { part, token, .. } => {
                let found = world.tokens.get(part).into_iter().flatten().find(|(attempt, _)| *attempt == token.attempt);
                Reply::Seen(found.map(|(_, at)| ClusterTime::new(1, *at)))
            }
            Action::Wait(pause) => {
                self.now += SignedDuration::try_from(*pause).unwrap();
                Reply::Done
            }
        };
        Outcome::Done(reply)
    }

    fn answer(&mut self, holder: usize, event: Event) {
        let more = self.holders[holder].machine.handle(event.clone());
        self.holders[holder].given.push(event);
        self.holders[holder].pending.extend(more);
        self.reap();
    }

    fn take(&mut self, index: usize) -> Option<(usize, Command)> {
        let (holder, command) = self.pick(index)?;
        Some((holder, self.holders[holder].pending.remove(command)))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Perform(index) => {
                let Some((holder, command)) = self.take(*index) else { return };
                let outcome = self.effect(holder, &command.action);
                self.answer(holder, Event { ticket: command.ticket, now: self.now, outcome });
            }
            Step::LoseReply(index) | Step::Fail(index) => {
                let Some((holder, command)) = self.take(*index) else { return };
                if matches!(step, Step::LoseReply(_)) {
                    self.effect(holder, &command.action);
                } else if let Action::StopBalancer(found) = &command.action {
                    // Given up by this side; it may still be on its way.
                    self.stray_stops.push(found.from.clone());
                }
                self.now += SignedDuration::try_from(command.limit).unwrap();
                let outcome = Outcome::Failed("timed out".into());
                self.answer(holder, Event { ticket: command.ticket, now: self.now, outcome });
            }
            Step::Repeat(index) => {
                let Some(holder) = (!self.holders.is_empty()).then(|| index % self.holders.len()) else { return };
                let given = &self.holders[holder].given;
                if let Some(event) = given.get(index % given.len().max(1)).cloned() {
                    let before = format!("{:?}", self.holders[holder].machine.record());
                    assert_eq!(self.holders[holder].machine.handle(event), vec![], "a repeated reply did something");
                    assert_eq!(format!("{:?}", self.holders[holder].machine.record()), before);
                }
            }
            Step::StrayStop => {
                if let Some(from) = self.stray_stops.pop() {
                    self.world.change(&from, false);
                }
            }
            Step::Crash => {
                for holder in std::mem::take(&mut self.holders) {
                    self.leave_stops(&holder);
                }
                if !self.stored.state.ended() {
                    self.start_holder();
                }
            }
            Step::Interrupt => {
                if let Some(holder) = self.holders.first_mut() {
                    let more = holder.machine.interrupt(self.now);
                    holder.pending.extend(more);
                    self.reap();
                }
            }
            Step::TakeOver => {
                if !self.stored.state.ended() && self.holders.len() < 3 {
                    self.start_holder();
                }
            }
            Step::Operator(on) => self.world.change("operator", *on),
            Step::Write => {
                let at = self.world.next();
                self.world.acknowledged.push(at);
            }
            Step::Pass(seconds) => self.now += SignedDuration::from_secs(i64::from(*seconds)),
        }
    }

    fn leave_stops(&mut self, holder: &Holder) {
        for command in &holder.pending {
            if let Action::StopBalancer(found) = &command.action
                && found.running
            {
                self.stray_stops.push(found.from.clone());
            }
        }
    }

    /// Everything works from here on: what is under way must end, in a bounded number of steps.
    fn settle(&mut self) {
        while !self.stray_stops.is_empty() {
            self.step(&Step::StrayStop);
        }
        for _ in 0..2_000 {
            if self.holders.is_empty() {
                if self.stored.state.ended() {
                    return;
                }
                self.start_holder();
            }
            // Newest first or oldest first makes no difference to the end.
            self.step(&Step::Perform(0));
        }
        panic!("it never ends: {:?}", self.stored);
    }

    fn check(&self) {
        assert_eq!(self.stored.broken_rule(), None);
        let operator = self.world.changes.iter().rev().find(|change| change.by == "operator");
        let expected = operator.map_or(self.world.began_on, |change| change.on);
        assert_eq!(self.world.on, expected, "the balancer: {:?}", self.world.changes);

        if self.stored.state == State::Completed {
            let cut = self.stored.cut.unwrap();
            if let Some(acknowledged) = self.world.before_clock {
                assert!(cut.increment > acknowledged, "T is not after every acknowledged write");
            }
            for part in &self.stored.parts {
                let token = part.token.unwrap();
                let written = self.world.tokens[&part.id].contains(&(token.attempt, token.time.increment));
                assert!(written, "a token that is not in the oplog");
                assert!(token.time >= cut);
            }
        }
        let completed = self.ends.iter().filter(|(_, end)| *end == End::Completed).count();
        assert!(completed <= 1, "two holders completed it");
    }
}

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
            "stop-balancer",
            "look-for-movement",
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
    assert!(sim.stored.parts.iter().any(|part| part.token.unwrap().attempt == 2));

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
    answer_at(&mut sim, "look-for-movement", || Outcome::Done(Reply::Moving(vec!["a migration".into()])));
    sim.now += SignedDuration::try_from(Limits::default().quiet).unwrap();
    answer_at(&mut sim, "look-for-movement", || Outcome::Done(Reply::Moving(vec!["a migration".into()])));
    sim.settle();
    sim.check();
    assert_eq!(failure(&sim), Reason::DataMoving);
    assert_eq!(sim.stored.failure.as_ref().unwrap().detail, "a migration");
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
fn a_token_that_is_not_in_the_oplog_fails_the_checkpoint() {
    let mut sim = Sim::new(true);
    answer_at(&mut sim, "find-token", || Outcome::Done(Reply::Seen(None)));
    let name = sim.stored.parts.iter().find(|part| part.token.is_none_or(|t| !t.discovered)).map(|p| p.id.clone());
    sim.world.tokens.remove(&name.unwrap());
    sim.settle();
    assert_eq!(failure(&sim), Reason::TokenNotFound);
    assert!(sim.stored.released.is_some());
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
