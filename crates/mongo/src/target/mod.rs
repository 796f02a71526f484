//! A cluster, or a single replica set, that data is written into.
//!
//! Collections are made with their own UUIDs, and everything is written to the primaries of the shards, as no
//! router would let it be; the config servers get to know of it last. What is written may be written again:
//! a document, a row or a collection that is there already counts as written.
//!
//! # Layout
//! - [`survey`]: what a target is like before anything is written
//! - [`write`]: collections, documents, indexes
//! - [`routing`]: what the config servers know of collections, and the mark of an unfinished restore
//! - [`empty`]: the target of a drill, when it is over

pub mod empty;
pub mod routing;
pub mod survey;
pub mod write;

use secrecy::SecretString;

use crate::error::Result;
use crate::link::{ClusterLink, Seeds};
use crate::part::PartLink;

/// Connections to each member: workers that insert, index builds, and looks at what is there.
const POOL: u32 = 16;

/// Where data is written to.
#[derive(Debug)]
pub enum Destination {
    Cluster(Box<ClusterLink>),
    ReplicaSet(PartLink),
}

impl Destination {
    /// Connects to config servers, or to a replica set that is no part of a sharded cluster.
    pub async fn connect(uri: &SecretString) -> Result<Destination> {
        let seeds = Seeds::examine(uri, POOL).await?;
        match seeds.is_config {
            true => seeds.cluster().map(|cluster| Destination::Cluster(Box::new(cluster))),
            false => seeds.replica_set().map(Destination::ReplicaSet),
        }
    }

    /// The shards by name, then the config servers; or the replica set.
    pub async fn parts(&self) -> Result<Vec<PartLink>> {
        match self {
            Destination::Cluster(cluster) => cluster.parts().await,
            Destination::ReplicaSet(set) => Ok(vec![set.clone()]),
        }
    }

    /// Where the mark of an unfinished restore is.
    pub fn marked(&self) -> &PartLink {
        match self {
            Destination::Cluster(cluster) => &cluster.config,
            Destination::ReplicaSet(set) => set,
        }
    }

    /// The id that the cluster gave itself; a replica set has none.
    pub async fn identity(&self) -> Result<Option<String>> {
        match self {
            Destination::Cluster(cluster) => cluster.identity().await.map(Some),
            Destination::ReplicaSet(_) => Ok(None),
        }
    }
}
