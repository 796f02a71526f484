//! Each command of the protocol, done on a real cluster.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use stillpoint_catalog::{CatalogError, Cluster, Lease};
use stillpoint_core::CheckpointId;
use stillpoint_core::checkpoint::{Action, Command, Outcome, PartId, Reply};
use stillpoint_mongo::balancer::{StopConnection, put_back};
use stillpoint_mongo::token::Clock;
use stillpoint_mongo::{ClusterLink, MongoError, PartLink, movement, token};
use tokio::sync::OnceCell;

use crate::Setup;

/// The connections to a cluster, made when first needed and then kept.
#[derive(Debug)]
pub(crate) struct Connection {
    pub cluster: Cluster,
    link: OnceCell<ClusterLink>,
}

impl Connection {
    pub fn new(cluster: Cluster) -> Connection {
        Connection { cluster, link: OnceCell::new() }
    }

    async fn link(&self) -> Result<&ClusterLink, MongoError> {
        self.link.get_or_try_init(|| ClusterLink::connect(&self.cluster.uri)).await
    }
}

/// What the actions of one checkpoint share.
pub(crate) struct Actions {
    setup: Setup,
    lease: Lease,
    checkpoint: CheckpointId,
    connection: Arc<Connection>,
    /// Kept from the reading of the balancer until its stop.
    stop: Mutex<Option<StopConnection>>,
    clock: Mutex<Option<Clock>>,
    /// As the last survey found them.
    parts: Mutex<Vec<PartLink>>,
}

impl Actions {
    pub fn new(setup: Setup, lease: Lease, checkpoint: CheckpointId, connection: Arc<Connection>) -> Actions {
        Actions {
            setup,
            lease,
            checkpoint,
            connection,
            stop: Mutex::default(),
            clock: Mutex::default(),
            parts: Mutex::default(),
        }
    }

    /// Performs a command within its limit. Past it whatever was under way is dropped, connections
    /// that waited for a reply with it.
    pub async fn perform(&self, command: &Command) -> Outcome {
        let outcome = match tokio::time::timeout(command.limit, self.attempt(command)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(format!("it took longer than {:?}", command.limit)),
        };
        if let Some(hook) = &self.setup.after_action {
            hook(command.action.name());
        }
        outcome
    }

    async fn attempt(&self, command: &Command) -> Outcome {
        if let Action::Save(record) = &command.action {
            return match self.setup.catalog.save_checkpoint(&self.lease, record).await {
                Ok(()) => Outcome::Done(Reply::Saved),
                Err(CatalogError::Fenced) => Outcome::Fenced,
                Err(e) => Outcome::Failed(e.to_string()),
            };
        }
        match self.on_cluster(command).await {
            Ok(reply) => Outcome::Done(reply),
            Err(e) if e.is_lasting() => Outcome::Denied(e.to_string()),
            Err(e) => Outcome::Failed(e.to_string()),
        }
    }

    async fn on_cluster(&self, command: &Command) -> Result<Reply, MongoError> {
        Ok(match &command.action {
            Action::Wait(pause) => {
                tokio::time::sleep(*pause).await;
                Reply::Done
            }
            Action::Survey => {
                let parts = self.connection.link().await?.parts().await?;
                *lock(&self.parts) = parts.clone();
                Reply::Parts(parts.into_iter().map(|part| (part.id, part.replica_set)).collect())
            }
            Action::ReadBalancer => {
                let connection = StopConnection::open(self.connection.link().await?).await?;
                let found = connection.read_balancer(self.setup.now()).await?;
                *lock(&self.stop) = Some(connection);
                Reply::Balancer(found)
            }
            Action::NoteHold(found) => {
                let connection = self.take_stop_connection()?;
                let hold = self.setup.limits.longest_hold();
                let until =
                    self.setup.now().saturating_add(SignedDuration::try_from(hold).unwrap_or(SignedDuration::MAX));
                connection.note_hold(self.checkpoint, found, until.unwrap_or(jiff::Timestamp::MAX)).await?;
                *lock(&self.stop) = Some(connection);
                Reply::Done
            }
            Action::StopBalancer(found) => {
                self.take_stop_connection()?.stop(found, command.limit).await?;
                Reply::Done
            }
            Action::LookForMovement => Reply::Moving(movement::look(&self.parts().await?).await?),
            Action::ReadClock => {
                let clock = token::read_clock(&self.parts().await?).await?;
                let (time, terms) = (clock.time, clock.terms.clone());
                *lock(&self.clock) = Some(clock);
                Reply::Clock { time, terms }
            }
            Action::WriteToken { part, attempt } => {
                let clock = lock(&self.clock).clone();
                let clock = clock.ok_or_else(|| out_of_order("a token before the clock"))?;
                Reply::Time(token::write(&self.part(part).await?, self.checkpoint, *attempt, &clock).await?)
            }
            Action::PutBackBalancer { found, stop_answered, held_until } => {
                // A stop that was not sent shall not be.
                drop(lock(&self.stop).take());
                let link = self.connection.link().await?;
                Reply::PutBack(put_back(&link.config, found, *stop_answered, *held_until).await?)
            }
            Action::FindToken { part, token, clock } => {
                Reply::Seen(token::find(&self.part(part).await?, self.checkpoint, *token, *clock).await?)
            }
            Action::Save(_) => return Err(out_of_order("the record is saved elsewhere")),
        })
    }

    fn take_stop_connection(&self) -> Result<StopConnection, MongoError> {
        lock(&self.stop).take().ok_or(MongoError::StopConnectionLost)
    }

    /// The parts that were surveyed; of a checkpoint taken up again, those there are now.
    async fn parts(&self) -> Result<Vec<PartLink>, MongoError> {
        let parts = lock(&self.parts).clone();
        match parts.is_empty() {
            true => self.connection.link().await?.parts().await,
            false => Ok(parts),
        }
    }

    async fn part(&self, id: &PartId) -> Result<PartLink, MongoError> {
        let found = self.parts().await?.into_iter().find(|part| part.id == *id);
        found.ok_or_else(|| MongoError::Unreachable {
            part: id.to_string(),
            why: "it is no longer in config.shards".into(),
        })
    }
}

fn out_of_order(what: &str) -> MongoError {
    MongoError::Settings(format!("the protocol was run out of order: {what}"))
}

/// Nothing here can panic while it is held.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
