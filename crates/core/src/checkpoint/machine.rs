//! The protocol: events in, commands out, no I/O.
//!
//! | state | what happens | and then |
//! |---|---|---|
//! | `Started` | find the parts; read the balancer's settings | the record is saved as `Holding` **before** anything is touched |
//! | `Holding` | note the settings in the config servers' oplog; look for what moves; stop the balancer (unless it was off), and wait until nothing moves; read the highest clock C; write all tokens, each later than C | T = the lowest token |
//! | `Releasing` | put the balancer back, for as long as it takes | |
//! | `Discovering` | find each token in the stored oplog; find the parts again, to see that they are the same | `Completed` |
//!
//! Whatever fails before the tokens are all in leads to `Releasing` with the failure noted, and from
//! there to `Failed`. A machine made from a record after a crash does the same: what was touched is
//! put back, and only a record whose tokens were all in goes on to `Completed`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::pending::{Next, Pending};
use super::{
    Action, Checkpoint, Command, End, Event, Failure, Found, Limits, Outcome, Part, PartId, PutBack, Reason, Released,
    Reply, Seen, State, Ticket, Token, Trouble,
};
use crate::{CheckpointId, ClusterTime};

/// How old a look may be when the balancer has stopped.
const FRESH: SignedDuration = SignedDuration::from_secs(1);

/// The state machine of one checkpoint.
#[derive(Debug)]
pub struct Machine {
    record: Checkpoint,
    limits: Limits,
    now: Timestamp,
    tickets: u64,
    pending: BTreeMap<Ticket, Pending>,
    out: Vec<Command>,
    /// The record has changed since the write that is under way.
    unsaved: bool,
    save_failures: u32,
    put_back_failures: u32,
    look_failures: u32,
    /// Whether it is known that no stop can still arrive: none was sent, or it was answered.
    stop_answered: bool,
    early_failures: u32,
    clock_failures: u32,
    find_failures: u32,
    /// At writing the tokens, all of them.
    attempt: u32,
    /// Set once the balancer is stopped.
    look_until: Option<Timestamp>,
    quiet_at: Option<Timestamp>,
    discover_until: Option<Timestamp>,
    parts_confirmed: bool,
    deposed: bool,
    end: Option<End>,
}

impl Machine {
    /// Begins a queued record, or ends one that an earlier holder left unfinished.
    pub fn new(record: Checkpoint, limits: Limits, now: Timestamp) -> (Machine, Vec<Command>) {
        let mut machine = Machine {
            record,
            limits,
            now,
            tickets: 0,
            pending: BTreeMap::new(),
            out: Vec::new(),
            unsaved: false,
            save_failures: 0,
            put_back_failures: 0,
            look_failures: 0,
            stop_answered: false,
            early_failures: 0,
            clock_failures: 0,
            find_failures: 0,
            attempt: 1,
            look_until: None,
            quiet_at: None,
            discover_until: None,
            parts_confirmed: false,
            deposed: false,
            end: None,
        };
        match machine.record.state {
            State::Queued => {
                machine.record.started = now;
                machine.record.state = State::Started;
                machine.stop_answered = true;
                machine.save();
                machine.survey();
            }
            // The old holder's note may be missing and its stop may or may not have been sent:
            // putting back is right in each case.
            State::Started | State::Holding => machine
                .fail(Reason::Interrupted, "the server that took it stopped before the tokens were all written".into()),
            State::Releasing => machine.put_back(),
            State::Discovering => machine.discover(),
            State::Completed => machine.end = Some(End::Completed),
            State::Failed => machine.end = Some(End::Failed),
        }
        let commands = machine.take_commands();
        (machine, commands)
    }

    pub fn record(&self) -> &Checkpoint {
        &self.record
    }

    pub fn id(&self) -> CheckpointId {
        self.record.id
    }

    /// Set once there is nothing more to do; no command is under way then.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Takes the outcome of one command and answers with what to do next.
    pub fn handle(&mut self, event: Event) -> Vec<Command> {
        // A clock that is set back must not lengthen a limit.
        self.now = self.now.max(event.now);
        let Some(pending) = self.pending.remove(&event.ticket) else {
            return Vec::new();
        };
        match event.outcome {
            Outcome::Fenced => self.depose(),
            Outcome::Done(reply) => self.done(pending, reply),
            Outcome::Failed(why) => self.failed(pending, why),
            Outcome::Denied(why) => self.denied(pending, why),
        }
        self.take_commands()
    }

    /// The server is to stop: a checkpoint whose tokens are not all in fails now, and puts the balancer
    /// back; a later one goes on to its end, which is near.
    pub fn interrupt(&mut self, now: Timestamp) -> Vec<Command> {
        self.now = self.now.max(now);
        if matches!(self.record.state, State::Started | State::Holding) {
            self.fail(Reason::Interrupted, "the server was stopped".into());
        }
        self.take_commands()
    }

    fn take_commands(&mut self) -> Vec<Command> {
        debug_assert_eq!(self.record.broken_rule(), None, "{:?}", self.record);
        if self.end.is_some() {
            self.pending.clear();
            self.out.clear();
        }
        std::mem::take(&mut self.out)
    }

    fn send(&mut self, limit: Duration, pending: Pending, action: Action) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.pending.insert(ticket, pending);
        self.out.push(Command { ticket, limit, action });
    }

    fn wait(&mut self, pause: Duration, next: Next) {
        // The limit of a pause is the pause itself, with room for a busy machine.
        self.send(pause * 2 + Duration::from_secs(5), Pending::Wait(next), Action::Wait(pause));
    }

    fn done(&mut self, pending: Pending, reply: Reply) {
        match (pending, reply) {
            (Pending::Save, Reply::Saved) => self.saved(),
            (Pending::Survey, Reply::Parts(parts)) => self.surveyed(parts),
            (Pending::ReadBalancer, Reply::Balancer(found)) => self.hold(found),
            (Pending::NoteHold, Reply::Done) => self.stop(),
            (Pending::Stop, Reply::Done) => self.stopped(),
            (Pending::Look, Reply::Moving(moving)) if moving.is_empty() => self.quiet(),
            (Pending::Look, Reply::Moving(moving)) => self.look_again(Reason::DataMoving, moving.join("; ")),
            (Pending::Clock, Reply::Clock { time, terms }) => self.clock_read(time, &terms),
            (Pending::Token(part), Reply::Time(time)) => self.token_written(part, time),
            (Pending::PutBack, Reply::PutBack(how)) => self.put_back_done(how),
            (Pending::Find(part, token), Reply::Seen(Some(seen))) => self.token_seen(part, token, seen),
            (Pending::Find(part, token), Reply::Seen(None)) => {
                self.find_again(
                    part.clone(),
                    token,
                    Reason::TokenNotFound,
                    format!("the token of {part} is not yet in the stored oplog"),
                );
            }
            (Pending::Resurvey, Reply::Parts(parts)) => self.resurveyed(parts),
            (Pending::Wait(next), Reply::Done) => self.go_on(next),
            (pending, reply) => self.failed(pending, format!("the runner gave an unfitting reply: {reply:?}")),
        }
    }

    fn failed(&mut self, pending: Pending, why: String) {
        match pending {
            Pending::Save => {
                let pause = self.limits.backoff(self.save_failures);
                self.save_failures += 1;
                self.wait(pause, Next::Save);
            }
            // Nothing has been touched: an election, say, is waited for.
            Pending::Survey | Pending::ReadBalancer if self.early_failures + 1 < self.limits.early_attempts => {
                self.note_trouble(why);
                self.wait(self.limits.backoff(self.early_failures), Next::Survey);
                self.early_failures += 1;
            }
            Pending::Survey => self.fail(Reason::Unreachable, why),
            Pending::ReadBalancer | Pending::NoteHold => self.fail(Reason::BalancerUnreadable, why),
            Pending::Stop => self.fail(Reason::BalancerNotStopped, why),
            Pending::Look => self.look_again(Reason::Unreachable, why),
            Pending::Clock if self.clock_failures + 1 < self.limits.token_attempts => {
                self.note_trouble(why);
                self.wait(self.limits.backoff(self.clock_failures), Next::Clock);
                self.clock_failures += 1;
            }
            Pending::Clock => self.fail(Reason::NoClock, why),
            Pending::Token(part) if self.attempt < self.limits.token_attempts => {
                // The clock that the others were told may be that of a primary that is no more: all
                // over again, with a new one.
                self.note_trouble(format!("{part}: {why}"));
                self.pending.retain(|_, pending| pending.is_owed());
                self.wait(self.limits.backoff(self.attempt - 1), Next::Clock);
                self.attempt += 1;
            }
            Pending::Token(part) => {
                self.fail(Reason::TokenNotWritten, format!("{part}, after {} attempts: {why}", self.attempt))
            }
            Pending::PutBack => self.put_back_again(why),
            Pending::Find(part, token) => {
                self.find_again(part.clone(), token, Reason::Unreachable, format!("{part}: {why}"));
            }
            Pending::Resurvey => {
                if self.past(self.discover_until) {
                    self.fail(Reason::Unreachable, why);
                } else {
                    self.note_trouble(why);
                    self.wait(self.limits.pause, Next::Resurvey);
                }
            }
            // A pause that failed was long enough.
            Pending::Wait(next) => self.go_on(next),
        }
    }

    /// What would be tried again is given up; what is owed is not.
    fn denied(&mut self, pending: Pending, why: String) {
        match pending {
            Pending::Survey | Pending::Look | Pending::Resurvey => self.fail(Reason::Unreachable, why),
            Pending::ReadBalancer => self.fail(Reason::BalancerUnreadable, why),
            Pending::Clock => self.fail(Reason::NoClock, why),
            Pending::Token(part) => self.fail(Reason::TokenNotWritten, format!("{part}: {why}")),
            Pending::Find(part, _) => self.fail(Reason::TokenNotFound, format!("{part}: {why}")),
            pending => self.failed(pending, why),
        }
    }

    fn go_on(&mut self, next: Next) {
        match next {
            Next::Save => self.send_save(),
            Next::Survey => self.survey(),
            Next::PutBack => self.put_back(),
            Next::Look => self.look(),
            Next::Clock => self.read_clock(),
            Next::Find(part, token) => self.find(part, token),
            Next::Resurvey => self.resurvey(),
        }
    }

    fn past(&self, until: Option<Timestamp>) -> bool {
        until.is_some_and(|until| self.now >= until)
    }

    fn note_trouble(&mut self, text: String) {
        let since = self.record.trouble.as_ref().map_or(self.now, |trouble| trouble.since);
        let trouble = Some(Trouble { since, text });
        if self.record.trouble != trouble {
            self.record.trouble = trouble;
            self.save();
        }
    }

    // Saving

    fn save(&mut self) {
        if self.deposed {
            return;
        }
        if self.pending.values().any(Pending::is_save) {
            self.unsaved = true;
        } else {
            self.send_save();
        }
    }

    fn send_save(&mut self) {
        if self.deposed {
            return;
        }
        self.unsaved = false;
        let record = Box::new(self.record.clone());
        self.send(self.limits.save, Pending::Save, Action::Save(record));
    }

    fn saved(&mut self) {
        self.save_failures = 0;
        if self.unsaved {
            self.send_save();
            return;
        }
        match self.record.state {
            State::Completed => self.end = Some(End::Completed),
            State::Failed => self.end = Some(End::Failed),
            State::Holding if self.hold_is_new() => self.held(),
            _ => {}
        }
    }

    /// Nothing has been touched yet: this write of the record is what the hold waits for.
    fn hold_is_new(&self) -> bool {
        self.look_until.is_none() && !self.pending.values().any(|p| matches!(p, Pending::NoteHold | Pending::Stop))
    }

    // Started

    fn survey(&mut self) {
        self.send(self.limits.survey, Pending::Survey, Action::Survey);
    }

    fn surveyed(&mut self, parts: Vec<(PartId, String)>) {
        if let Some(detail) = unfit(&parts) {
            return self.fail(Reason::Unreachable, detail);
        }
        self.record.parts =
            parts.into_iter().map(|(id, replica_set)| Part { id, replica_set, term: None, token: None }).collect();
        self.record.parts.sort_by(|a, b| a.id.cmp(&b.id));
        self.send(self.limits.survey, Pending::ReadBalancer, Action::ReadBalancer);
    }

    // Holding

    fn hold(&mut self, found: Found) {
        self.record.trouble = None;
        self.record.found = Some(found);
        self.record.held_since = Some(self.now);
        self.record.state = State::Holding;
        self.save();
    }

    fn held(&mut self) {
        // The settings were read before the catalog took its time: too long ago is not trusted.
        let stale = self.record.held_since.and_then(|since| since.checked_add(self.limits.save).ok());
        match &self.record.found {
            _ if self.past(stale) => {
                self.fail(Reason::Catalog, "the record could not be written in time".into());
            }
            Some(found) if found.running => {
                let found = found.clone();
                self.send(self.limits.token, Pending::NoteHold, Action::NoteHold(found));
                // Before the hold begins: what the balancer itself begins after it, its stop waits for,
                // and what others began is seen now as well as then.
                self.look();
            }
            _ => self.stop(),
        }
    }

    fn stop(&mut self) {
        if let Some(found) = self.record.found.clone() {
            self.stop_answered = false;
            let running = found.running;
            self.send(self.limits.balancer_stop, Pending::Stop, Action::StopBalancer(found));
            if !running {
                self.look();
            }
        }
    }

    fn stopped(&mut self) {
        self.stop_answered = true;
        self.look_until = self.now.checked_add(self.limits.quiet).ok();
        let looking = |pending: &Pending| matches!(pending, Pending::Look | Pending::Wait(Next::Look));
        match self.quiet_at {
            // The stop took long: the look is out of date.
            Some(at) if self.now.duration_since(at) > FRESH => self.look(),
            Some(_) => self.quiet(),
            None if self.pending.values().any(looking) => {}
            None => self.look(),
        }
    }

    /// Nothing moves; if the balancer is stopped, too, the cluster is still.
    fn quiet(&mut self) {
        self.quiet_at = Some(self.now);
        if self.look_until.is_some() {
            self.record.trouble = None;
            self.read_clock();
        }
    }

    fn look(&mut self) {
        self.send(self.limits.token, Pending::Look, Action::LookForMovement);
    }

    fn look_again(&mut self, reason: Reason, why: String) {
        if self.past(self.look_until) {
            return self.fail(reason, why);
        }
        self.quiet_at = None;
        self.note_trouble(why);
        let pause = self.limits.backoff(self.look_failures.min(3));
        self.look_failures += 1;
        self.wait(pause, Next::Look);
    }

    fn read_clock(&mut self) {
        self.send(self.limits.token, Pending::Clock, Action::ReadClock);
    }

    fn clock_read(&mut self, clock: ClusterTime, terms: &BTreeMap<PartId, i64>) {
        self.record.clock = Some(clock);
        for part in &mut self.record.parts {
            part.term = terms.get(&part.id).copied();
            part.token = None;
        }
        let parts: Vec<_> = self.record.parts.iter().map(|part| part.id.clone()).collect();
        parts.into_iter().for_each(|part| self.write_token(part));
    }

    fn write_token(&mut self, part: PartId) {
        let pending = Pending::Token(part.clone());
        self.send(self.limits.token, pending, Action::WriteToken { part, attempt: self.attempt });
    }

    fn token_written(&mut self, id: PartId, time: ClusterTime) {
        if self.record.clock.is_none_or(|clock| time <= clock) {
            let clock = self.record.clock.map(|c| c.to_string()).unwrap_or_default();
            let detail =
                format!("{id}: the token is at {time}, the clock was {clock}; is this part of the same cluster?");
            return self.fail(Reason::TokenTooEarly, detail);
        }
        if let Some(part) = self.record.parts.iter_mut().find(|part| part.id == id) {
            part.token = Some(Token { attempt: self.attempt, time, discovered: false, discovered_at: None });
        }
        let tokens: Option<Vec<_>> = self.record.parts.iter().map(|part| part.token).collect();
        if let Some(tokens) = tokens {
            self.record.cut = tokens.iter().map(|token| token.time).min();
            self.record.trouble = None;
            self.release();
        }
    }

    // Releasing

    fn release(&mut self) {
        self.record.state = State::Releasing;
        // Both at once: the balancer does not wait for the catalog. A crash between the two leaves
        // a record in `Holding`, which fails, with the balancer as it was found.
        self.put_back();
        self.save();
    }

    fn put_back(&mut self) {
        let Some(found) = self.record.found.clone() else { return };
        let stop_answered = self.stop_answered;
        // The config servers' own token: their oplog is where the balancer's history is, and another
        // part's token may be later than a write of theirs that came after.
        let mut parts = self.record.parts.iter();
        let config = parts.find(|part| part.id == PartId::ConfigServers).and_then(|part| part.token);
        let held_until = config.filter(|_| self.record.failure.is_none()).map(|token| token.time);
        let action = Action::PutBackBalancer { found, stop_answered, held_until };
        // Each try has more history to read than the last.
        let limit = self.limits.put_back.saturating_mul(1 << self.put_back_failures.min(6));
        self.send(limit, Pending::PutBack, action);
    }

    fn put_back_again(&mut self, why: String) {
        let pause = self.limits.backoff(self.put_back_failures);
        self.put_back_failures += 1;
        // A deposed holder leaves it to the new one, after an honest try.
        if self.deposed && self.put_back_failures >= 3 {
            self.end = Some(End::Deposed);
            return;
        }
        if !self.deposed {
            self.note_trouble(format!("the balancer is not yet put back, trying again: {why}"));
        }
        self.wait(pause, Next::PutBack);
    }

    fn put_back_done(&mut self, how: PutBack) {
        self.record.released = Some(Released { at: self.now, how });
        self.record.trouble = None;
        if self.deposed {
            self.end = Some(End::Deposed);
            return;
        }
        let lost = "the config servers' oplog no longer reaches back to when the balancer was read; compare what was \
                    found (in this record) with config.settings, and start the balancer if it should run";
        let failure = match how {
            PutBack::StartedByOthers => Some((
                Reason::BalancerStartedByOthers,
                "the balancer was started while the checkpoint held it; take another",
            )),
            PutBack::HistoryLost => Some((Reason::BalancerHistoryLost, lost)),
            PutBack::AsFound | PutBack::AsChangedByOthers => None,
        };
        if let Some((reason, detail)) = failure {
            self.record.failure = Some(Failure { reason, detail: detail.into() });
        }
        if self.record.failure.is_some() {
            self.finish(State::Failed);
        } else {
            self.record.state = State::Discovering;
            self.save();
            self.discover();
        }
    }

    // Discovering

    fn discover(&mut self) {
        self.discover_until = self.now.checked_add(self.limits.discover).ok();
        let undiscovered: Vec<_> = self
            .record
            .parts
            .iter()
            .filter_map(|part| part.token.filter(|token| !token.discovered).map(|token| (part.id.clone(), token)))
            .collect();
        undiscovered.into_iter().for_each(|(part, token)| self.find(part, token));
        self.resurvey();
    }

    fn find(&mut self, part: PartId, token: Token) {
        let Some(clock) = self.record.clock else { return };
        let pending = Pending::Find(part.clone(), token);
        self.send(self.limits.token, pending, Action::FindToken { part, token, clock });
    }

    fn find_again(&mut self, part: PartId, token: Token, reason: Reason, why: String) {
        if self.past(self.discover_until) {
            return self.fail(reason, why);
        }
        self.note_trouble(why);
        self.wait(self.limits.backoff(self.find_failures), Next::Find(part, token));
        self.find_failures = self.find_failures.saturating_add(1);
    }

    fn token_seen(&mut self, id: PartId, token: Token, seen: Seen) {
        let Some(part) = self.record.parts.iter_mut().find(|part| part.id == id) else { return };
        // A primary that was deposed and does not know it tells a clock that may be behind its
        // successor's; but it cannot have a majority confirm a token in its own term.
        if part.term != Some(seen.term) {
            let term = part.term.map_or("none".into(), |term| term.to_string());
            let detail = format!("{id}: the clock was read in term {term}, the token written in term {}", seen.term);
            return self.fail(Reason::PrimaryChanged, detail);
        }
        let time = seen.time;
        part.token = Some(Token { time, discovered: true, discovered_at: Some(self.now), ..token });
        // The entry's own time is the truth; the reply's may be another write's that came later.
        self.record.cut = self.record.parts.iter().filter_map(|part| part.token).map(|token| token.time).min();
        if self.record.cut <= self.record.clock {
            self.record.cut = None;
            let clock = self.record.clock.map(|c| c.to_string()).unwrap_or_default();
            return self.fail(Reason::TokenTooEarly, format!("{id}: the token is at {time}, the clock was {clock}"));
        }
        self.complete_if_all_is_known();
    }

    fn resurvey(&mut self) {
        self.send(self.limits.survey, Pending::Resurvey, Action::Survey);
    }

    fn resurveyed(&mut self, mut parts: Vec<(PartId, String)>) {
        parts.sort();
        let before = self.record.parts.iter().map(|part| (&part.id, &part.replica_set));
        if !before.eq(parts.iter().map(|(id, set)| (id, set))) {
            let detail = "the shards of config.shards are not those that got a token; take another checkpoint".into();
            return self.fail(Reason::PartsChanged, detail);
        }
        self.parts_confirmed = true;
        self.complete_if_all_is_known();
    }

    fn complete_if_all_is_known(&mut self) {
        let discovered = self.record.parts.iter().all(|part| part.token.is_some_and(|token| token.discovered));
        if discovered && self.parts_confirmed {
            self.record.trouble = None;
            self.finish(State::Completed);
        }
    }

    // Ends

    /// Notes the first failure, and goes on to what is owed.
    fn fail(&mut self, reason: Reason, detail: String) {
        if self.record.failure.is_some() || self.deposed {
            return;
        }
        self.record.failure = Some(Failure { reason, detail });
        self.record.trouble = None;
        // Replies of the course that ends here mean nothing any more.
        self.pending.retain(|_, pending| pending.is_owed());
        match self.record.state {
            State::Holding => self.release(),
            _ => self.finish(State::Failed),
        }
    }

    fn finish(&mut self, state: State) {
        self.record.state = state;
        self.record.ended = Some(self.now);
        self.save();
    }

    fn depose(&mut self) {
        if self.deposed {
            return;
        }
        self.deposed = true;
        if !self.record.owes_put_back() {
            self.end = Some(End::Deposed);
            return;
        }
        // Any reply of the old course is ignored from here on, but what was sent may still happen:
        // so the balancer is put back once more, which is right however the new holder stands.
        self.pending.retain(|_, pending| pending.is_owed() && !pending.is_save());
        if self.pending.is_empty() {
            self.put_back();
        }
    }
}

/// Why these cannot be the parts of a sharded cluster.
fn unfit(parts: &[(PartId, String)]) -> Option<String> {
    let config = parts.iter().filter(|(id, _)| *id == PartId::ConfigServers).count();
    if config != 1 {
        return Some(format!("{config} config server sets were found in place of one"));
    }
    if parts.len() < 2 {
        return Some("the cluster has no shard".into());
    }
    None
}
