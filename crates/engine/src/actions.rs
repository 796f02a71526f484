//! Each command of the protocol, done on a real cluster.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use stillpoint_catalog::{CatalogError, Cluster, Lease};
use stillpoint_core::checkpoint::{Action, Command, Outcome, PartId, Reply, Seen, Token};
use stillpoint_core::stream::StoredToken;
use stillpoint_core::{CheckpointId, ClusterTime};
use stillpoint_mongo::balancer::{StopConnection, put_back};
use stillpoint_mongo::token::Clock;
use stillpoint_mongo::{ClusterLink, MongoError, PartLink, movement, token};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

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

    pub async fn link(&self) -> Result<&ClusterLink, MongoError> {
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
        self.setup.done(command.action.name());
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
                Reply::Seen(self.find_stored(part, *token, *clock, command.limit).await?)
            }
            Action::Save(_) => return Err(out_of_order("the record is saved elsewhere")),
        })
    }

    /// A token's entry in what is stored; waits for it until most of the limit is over.
    async fn find_stored(
        &self,
        part: &PartId,
        token: Token,
        clock: ClusterTime,
        limit: Duration,
    ) -> Result<Option<Seen>, MongoError> {
        let until = Instant::now() + limit.mul_f64(0.8);
        loop {
            // Made before the look, so that what is stored right after it is not slept through.
            let stored = self.setup.stored.notified();
            let tokens = self.setup.catalog.stored_tokens(self.lease.cluster, self.checkpoint).await;
            let tokens = tokens.map_err(|e| MongoError::Settings(e.to_string()))?;
            let is_it = |of: &PartId, found: &StoredToken| {
                of == part && found.attempt == token.attempt && found.at.time > clock && found.at.time <= token.time
            };
            if let Some((_, found)) = tokens.iter().find(|(of, found)| is_it(of, found)) {
                return Ok(Some(Seen { time: found.at.time, term: found.at.term }));
            }
            if timeout_at(until, stored).await.is_err() {
                return match self.setup.captures.trouble(self.lease.cluster, part) {
                    Some(why) => Err(MongoError::Unreachable { part: format!("the stored oplog of {part}"), why }),
                    None => Ok(None),
                };
            }
        }
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
