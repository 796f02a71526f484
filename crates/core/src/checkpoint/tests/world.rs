//! A small world for the protocol: a balancer with a history of who changed it, one logical clock, an
//! oplog of tokens for each part, a catalog with a lease; and holders that take a checkpoint in it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::checkpoint::*;
use crate::{CheckpointId, ClusterId, ClusterTime};

const SHARDS: usize = 2;

pub(super) fn parts() -> Vec<(PartId, String)> {
    let mut parts: Vec<_> = (0..SHARDS).map(|n| (PartId::Shard(format!("rs{n}")), format!("rs{n}"))).collect();
    parts.push((PartId::ConfigServers, "cfg".into()));
    parts
}

/// Somebody changed the balancer's switch.
#[derive(Debug, Clone)]
pub(super) struct Change {
    at: u32,
    by: String,
    on: bool,
}

/// A cluster, as far as the protocol touches it.
#[derive(Debug)]
pub(super) struct World {
    began_on: bool,
    on: bool,
    pub changes: Vec<Change>,
    /// The cluster's clock: every write takes the next tick, as gossip makes it.
    tick: u32,
    /// Cluster times of acknowledged application writes.
    acknowledged: Vec<u32>,
    /// Attempt, time, term.
    pub tokens: BTreeMap<PartId, Vec<(u32, u32, i64)>>,
    /// Of all primaries at once.
    term: i64,
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

pub(super) struct Holder {
    pub machine: Machine,
    epoch: u32,
    address: String,
    pub pending: Vec<Command>,
    /// Replies that were given once, to be given again.
    given: Vec<Event>,
}

pub(super) struct Sim {
    pub world: World,
    pub now: Timestamp,
    pub stored: Checkpoint,
    epoch: u32,
    addresses: u32,
    pub holders: Vec<Holder>,
    ends: Vec<(u32, End)>,
    /// A stop whose holder is gone, and which has not reached the server yet.
    stray_stops: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
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
    /// Every part elects another primary.
    Election,
    Write,
    Pass(u32),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
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
        1 => Just(Step::Election),
        3 => Just(Step::Write),
        1 => (0..90u32).prop_map(Step::Pass),
    ]
}

impl Sim {
    pub(super) fn new(began_on: bool) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let stored = Checkpoint::queued(CheckpointId::new(now, 1), ClusterId::new(now, 2), now);
        let world = World {
            began_on,
            on: began_on,
            changes: Vec::new(),
            tick: 10,
            acknowledged: Vec::new(),
            tokens: BTreeMap::new(),
            term: 1,
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
    pub(super) fn start_holder(&mut self) {
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
    pub(super) fn effect(&mut self, holder: usize, action: &Action) -> Outcome {
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
                let terms = parts().into_iter().map(|(part, _)| (part, world.term)).collect();
                Reply::Clock { time: ClusterTime::new(1, world.next()), terms }
            }
            Action::WriteToken { part, attempt } => {
                let at = world.next();
                world.tokens.entry(part.clone()).or_default().push((*attempt, at, world.term));
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
                let found =
                    world.tokens.get(part).into_iter().flatten().find(|(attempt, ..)| *attempt == token.attempt);
                Reply::Seen(found.map(|(_, at, term)| Seen { time: ClusterTime::new(1, *at), term: *term }))
            }
            Action::Wait(pause) => {
                self.now += SignedDuration::try_from(*pause).unwrap();
                Reply::Done
            }
        };
        Outcome::Done(reply)
    }

    pub(super) fn answer(&mut self, holder: usize, event: Event) {
        let more = self.holders[holder].machine.handle(event.clone());
        self.holders[holder].given.push(event);
        self.holders[holder].pending.extend(more);
        self.reap();
    }

    pub(super) fn take(&mut self, index: usize) -> Option<(usize, Command)> {
        let (holder, command) = self.pick(index)?;
        Some((holder, self.holders[holder].pending.remove(command)))
    }

    pub(super) fn step(&mut self, step: &Step) {
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
            Step::Election => self.world.term += 1,
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
    pub(super) fn settle(&mut self) {
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

    pub(super) fn check(&self) {
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
                let entry = (token.attempt, token.time.increment, part.term.unwrap());
                let written = self.world.tokens[&part.id].contains(&entry);
                assert!(written, "a token that is not in the oplog");
                assert!(token.time >= cut);
            }
        }
        let completed = self.ends.iter().filter(|(_, end)| *end == End::Completed).count();
        assert!(completed <= 1, "two holders completed it");
    }
}
