//! Performs the commands of one checkpoint until it has ended.

use std::sync::Arc;
use std::time::Duration;

use stillpoint_catalog::Lease;
use stillpoint_core::checkpoint::{Action, Checkpoint, Command, End, Event, Machine, Outcome, State, Ticket};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Setup;
use crate::actions::{Actions, Connection};

/// How long a server that is to stop waits for tokens to be stored.
const LEAVE: Duration = Duration::from_secs(5);

/// Runs a checkpoint to its end. `stop` makes one that is not yet past its tokens fail and put the
/// balancer back at once.
pub(crate) async fn run(
    setup: &Setup,
    lease: Lease,
    record: Checkpoint,
    connection: Arc<Connection>,
    stop: &CancellationToken,
) -> End {
    let actions = Arc::new(Actions::new(setup.clone(), lease, record.id, connection));
    let (mut machine, commands) = Machine::new(record, setup.limits.clone(), setup.now());
    let mut tasks = Tasks { actions, under_way: JoinSet::new(), stop: None };
    tasks.start(commands);
    let mut told = Told::default();
    let mut stopped = None;
    loop {
        told.tell(machine.record());
        if let Some(end) = machine.end() {
            return end;
        }
        let commands = tokio::select! {
            _ = stop.cancelled(), if stopped.is_none() => {
                stopped = Some(Instant::now());
                machine.interrupt(setup.now())
            }
            // Nothing is owed to the cluster any more: the rest can be done at the next start.
            () = sleep_until(stopped.unwrap_or_else(Instant::now) + LEAVE),
                if stopped.is_some() && machine.record().state == State::Discovering =>
            {
                tracing::info!(checkpoint = %machine.id(), "checkpoint: its tokens are looked for again at the next start");
                return End::Deposed;
            }
            Some((ticket, outcome)) = tasks.next() => machine.handle(Event { ticket, now: setup.now(), outcome }),
            else => {
                tracing::error!(checkpoint = %machine.id(), "the protocol stands still: a defect, please report it; beginning anew");
                return End::Deposed;
            }
        };
        tasks.start(commands);
    }
}

/// The commands under way; those still there when the checkpoint ends are dropped with it.
struct Tasks {
    actions: Arc<Actions>,
    under_way: JoinSet<(Ticket, Outcome)>,
    /// The balancer's stop.
    stop: Option<AbortHandle>,
}

impl Tasks {
    fn start(&mut self, commands: Vec<Command>) {
        for command in commands {
            let actions = self.actions.clone();
            // A stop that is still under way when the balancer is put back has been given up: with it
            // goes its connection, and the putting back waits for that to be gone.
            if matches!(command.action, Action::PutBackBalancer { .. })
                && let Some(stop) = self.stop.take()
            {
                stop.abort();
            }
            let is_stop = matches!(command.action, Action::StopBalancer(_));
            let task = self.under_way.spawn(async move {
                tracing::debug!(action = command.action.name(), "begins");
                let outcome = actions.perform(&command).await;
                match &outcome {
                    Outcome::Failed(why) => tracing::debug!(action = command.action.name(), why, "failed"),
                    _ => tracing::debug!(action = command.action.name(), "done"),
                }
                (command.ticket, outcome)
            });
            if is_stop {
                self.stop = Some(task);
            }
        }
    }

    async fn next(&mut self) -> Option<(Ticket, Outcome)> {
        loop {
            match self.under_way.join_next().await? {
                Ok(done) => return Some(done),
                Err(e) if e.is_cancelled() => {}
                // A panic in an action is a defect, but must not leave the balancer off: this run ends,
                // and the supervisor starts a keeper that resumes from the record.
                Err(e) => std::panic::resume_unwind(e.into_panic()),
            }
        }
    }
}

/// Says in the log what changes, once.
#[derive(Default)]
struct Told {
    state: Option<State>,
    trouble: Option<String>,
}

impl Told {
    fn tell(&mut self, record: &Checkpoint) {
        let checkpoint = record.id.to_string();
        let trouble = record.trouble.as_ref().map(|trouble| trouble.text.clone());
        if trouble != self.trouble
            && let Some(trouble) = &trouble
        {
            tracing::warn!(checkpoint, trouble, "checkpoint: trying again");
        }
        self.trouble = trouble;
        if self.state == Some(record.state) {
            return;
        }
        self.state = Some(record.state);
        match record.state {
            State::Failed => {
                let why = record.failure.as_ref().map(|f| format!("{} ({})", f.reason.sentence(), f.detail));
                tracing::error!(checkpoint, why, "checkpoint failed");
            }
            State::Completed => {
                let cut = record.cut.map(|cut| cut.to_string());
                let held = record.held_since.zip(record.released.as_ref()).map(|(from, to)| to.at.duration_since(from));
                let held_ms = held.map(|held| held.as_millis());
                tracing::info!(checkpoint, cut, held_ms, "checkpoint completed");
            }
            State::Holding if record.found.as_ref().is_some_and(|found| !found.running) => {
                tracing::info!(checkpoint, "checkpoint: the balancer is off already, and is left so");
            }
            state => tracing::info!(checkpoint, state = state.name(), "checkpoint"),
        }
    }
}
