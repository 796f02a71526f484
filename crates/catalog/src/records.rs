//! What the catalog keeps, apart from checkpoints, which are [`stillpoint_core`]'s.

use std::fmt;

use ipnet::IpNet;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use stillpoint_core::{ClusterId, KeyId, ProjectId, Role};

/// A project owns clusters and keys. The API also calls it a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub id: ProjectId,
    pub name: String,
    pub created: Timestamp,
}

/// A programmatic API key.
#[derive(Clone)]
pub struct ApiKey {
    pub id: KeyId,
    pub project: ProjectId,
    /// What a client logs in with.
    pub public: String,
    /// HA1 = MD5(public ":" realm ":" private) in hex: all that Digest needs. The private key itself
    /// is shown once and never kept.
    pub ha1: SecretString,
    pub role: Role,
    /// Where requests may come from; anywhere if empty.
    pub access_list: Vec<IpNet>,
    pub created: Timestamp,
}

/// A sharded cluster.
#[derive(Clone)]
pub struct Cluster {
    pub id: ClusterId,
    pub project: ProjectId,
    pub name: String,
    /// The cluster's own id (`clusterId` in `config.version`): no cluster is kept twice, since two
    /// keepers would stop each other's balancer.
    pub identity: String,
    /// The connection string of its config servers, credentials and all.
    pub uri: SecretString,
    pub created: Timestamp,
}

/// The right to work on a cluster. Every write under it is refused once a later one was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub cluster: ClusterId,
    pub holder: String,
    pub epoch: u64,
}

/// Who has the lease of a cluster, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseState {
    pub lease: Lease,
    pub until: Timestamp,
}

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub skip: u64,
    pub take: u64,
}

impl Page {
    pub const FIRST: Page = Page { skip: 0, take: 1 };
}

// Written by hand, so that a secret cannot come into a log with a record.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("public", &self.public)
            .field("project", &self.project)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("id", &self.id)
            .field("project", &self.project)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl PartialEq for ApiKey {
    fn eq(&self, other: &Self) -> bool {
        let plain =
            |key: &ApiKey| (key.id, key.project, key.public.clone(), key.role, key.access_list.clone(), key.created);
        plain(self) == plain(other) && self.ha1.expose_secret() == other.ha1.expose_secret()
    }
}

impl PartialEq for Cluster {
    fn eq(&self, other: &Self) -> bool {
        let plain = |cluster: &Cluster| {
            (cluster.id, cluster.project, cluster.name.clone(), cluster.identity.clone(), cluster.created)
        };
        plain(self) == plain(other) && self.uri.expose_secret() == other.uri.expose_secret()
    }
}
