//! What the catalog keeps, apart from checkpoints, which are [`stillpoint_core`]'s.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use stillpoint_core::{ClusterId, CredentialId, OrganizationId, ProjectId, Role};

/// An organisation owns projects, keys and service accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    pub id: OrganizationId,
    pub name: String,
    pub created: Timestamp,
}

/// A project owns clusters. The API also calls it a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub id: ProjectId,
    pub organization: OrganizationId,
    pub name: String,
    pub created: Timestamp,
}

/// What a client logs in as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CredentialKind {
    /// A programmatic API key, for Digest.
    Key,
    /// A service account, for OAuth.
    ServiceAccount,
}

/// A key or a service account.
#[derive(Clone)]
pub struct Credential {
    pub id: CredentialId,
    pub kind: CredentialKind,
    pub organization: OrganizationId,
    /// A key's public part, a service account's client id.
    pub login: String,
    /// What its secret is checked against, in hex; the secret itself is shown once and never kept.
    /// A key's HA1 = MD5(public ":" realm ":" private), all that Digest needs; the SHA-256 of a
    /// service account's secret.
    pub proof: SecretString,
    /// What it may do in each of its organisation's projects; nothing in those that are not here.
    pub roles: BTreeMap<ProjectId, Role>,
    /// Where requests may come from; anywhere if empty.
    pub access_list: Vec<IpNet>,
    pub created: Timestamp,
}

/// A bearer token of a service account. It is kept as its hash: who reads the catalog cannot use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    pub hash: [u8; 32],
    pub account: CredentialId,
    pub expires: Timestamp,
}

/// Who did what, when, from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    pub at: Timestamp,
    /// A key's public part, a service account's client id, or the user of the command line; if the
    /// request was let in as somebody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The method and the path of a request, or a command.
    pub action: String,
    /// The status of the reply to a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The error's code, if nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it was refused for who it was or where it came from. Such entries have room of their own:
    /// however many there are, they displace no others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// How often it happened, if more than once within a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
}

impl AuditEntry {
    /// A command or a request that was let in.
    pub fn done(at: Timestamp, action: String) -> AuditEntry {
        AuditEntry { at, actor: None, from: None, action, status: None, error: None, refused: false, times: None }
    }
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

/// What the segments of a part add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentTotals {
    pub segments: u64,
    pub entries: u64,
    /// Of the entries as the server wrote them.
    pub bytes: u64,
    /// Of the blobs.
    pub stored: u64,
}

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub skip: u64,
    pub take: u64,
}

impl Page {
    pub const FIRST: Page = Page { skip: 0, take: 1 };
    pub const ALL: Page = Page { skip: 0, take: u64::MAX };
}

// Written by hand, so that a secret cannot come into a log with a record.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("kind", &self.kind)
            .field("login", &self.login)
            .field("roles", &self.roles)
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

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        let Credential { id, kind, organization, login, proof, roles, access_list, created } = self;
        (id, kind, organization, login, roles, access_list, created)
            == (
                &other.id,
                &other.kind,
                &other.organization,
                &other.login,
                &other.roles,
                &other.access_list,
                &other.created,
            )
            && proof.expose_secret() == other.proof.expose_secret()
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
