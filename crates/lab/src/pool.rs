//! One client's idle connections to the primaries, and the cluster time it has seen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use crate::endpoint::Topology;
use crate::wire::{Connection, Gossip};

/// Cheap to clone; the clones share connections and cluster time.
#[derive(Debug, Clone)]
pub struct Pool {
    pub topology: Topology,
    gossip: Gossip,
    /// By shard. At most as many as the client has used at once.
    idle: Arc<Mutex<Vec<(String, Connection)>>>,
}

impl Pool {
    pub fn new(topology: &Topology) -> Self {
        Self { topology: topology.clone(), gossip: Gossip::default(), idle: Arc::default() }
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

    /// Closes all idle connections, as after an election.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
