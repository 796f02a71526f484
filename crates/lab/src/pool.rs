//! One client's idle connections to the primaries and idle sessions, and the cluster time it has seen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bson::Document;

use crate::endpoint::Topology;
use crate::transaction::new_lsid;
use crate::wire::{Connection, Gossip};

/// Cheap to clone; the clones share connections and cluster time.
#[derive(Debug, Clone)]
pub struct Pool {
    pub topology: Topology,
    gossip: Gossip,
    /// By shard. At most as many as the client has used at once.
    idle: Arc<Mutex<Vec<(String, Connection)>>>,
    sessions: Arc<Mutex<Vec<Session>>>,
}

/// A logical session, and the number that its next transaction or retryable write is to have. A server
/// keeps each one that it has seen in memory (half an hour, with a mongos), so they are used again.
#[derive(Debug, Clone)]
pub struct Session {
    pub lsid: Document,
    pub number: i64,
}

impl Pool {
    pub fn new(topology: &Topology) -> Self {
        Self { topology: topology.clone(), gossip: Gossip::default(), idle: Arc::default(), sessions: Arc::default() }
    }

    /// A connection to what was the shard's primary when it was made, or is now.
    pub async fn take(&self, shard: &str) -> Result<Connection> {
        let known = {
            let mut idle = self.lock();
            let index = idle.iter().position(|(name, _)| name == shard);
            index.map(|index| idle.swap_remove(index).1)
        };
        match known {
            Some(connection) => Ok(connection),
            None => {
                let connection = self.topology.shard(shard)?.connect_primary().await?;
                Ok(connection.gossiping(self.gossip.clone()))
            }
        }
    }

    /// Gives back a connection on which nothing has failed.
    pub fn put(&self, shard: &str, connection: Connection) {
        self.lock().push((shard.to_owned(), connection));
    }

    /// An idle session, or a new one.
    pub fn session(&self) -> Session {
        let idle = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| Session { lsid: new_lsid(), number: 1 })
    }

    /// Gives back a session whose last number has a definite outcome.
    pub fn reuse(&self, session: &Session) {
        let next = Session { lsid: session.lsid.clone(), number: session.number + 1 };
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(next);
    }

    /// Closes all idle connections, as after an election.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
