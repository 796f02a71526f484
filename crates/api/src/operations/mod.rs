//! What can be asked: one description of each operation, from which its routes on every surface, its
//! authorisation and its entry in the OpenAPI document are made. One file a resource.

mod call;
mod checkpoints;
mod clusters;
mod common;
mod downloads;
mod projects;
mod restore_jobs;
mod routes;
mod schedule;
mod snapshots;

use futures::future::BoxFuture;
use http::{Method, StatusCode};
use schemars::{Schema, SchemaGenerator};
use stillpoint_core::Role;

use crate::body;
use crate::error::{Code, Refusal};
use crate::respond::Reply;
use crate::version::{FIRST, Version};

pub use call::Call;
pub use downloads::{url as download_url, without_token};
pub use routes::{Found, Route, Routes};
pub use snapshots::FIELDS as SNAPSHOT_FIELDS;

/// Answers a request that was let in.
pub type Handler = for<'a> fn(&'a Call) -> BoxFuture<'a, Result<Reply, Refusal>>;

/// One thing that can be asked.
pub struct Operation {
    /// Its `operationId`; on surfaces other than v2 with the surface's name before it.
    pub id: &'static str,
    pub method: Method,
    /// Below a surface's prefix, with `{cluster}` and `{checkpoints}` for what surfaces call
    /// differently; for what is common to all, the whole path.
    pub path: &'static str,
    pub access: Access,
    pub summary: &'static str,
    /// What its documents say beyond that.
    pub about: &'static str,
    /// The group of operations that the reference shows it in.
    pub tag: &'static str,
    pub query: Query,
    pub body: Option<RequestBody>,
    pub status: StatusCode,
    /// What it answers with; nothing with 204.
    pub document: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// What it may answer instead, besides what follows from its access, path, query and body.
    pub refusals: &'static [Code],
    /// Of v2, in order.
    pub versions: &'static [Version],
    pub handler: Handler,
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// A service account that comes with its secret.
    Client,
    /// Every key and service account.
    SignedIn,
    /// Those that have this role, or a stronger one, in the project of the path.
    Project(Role),
}

impl Query {
    pub fn is_list(self) -> bool {
        matches!(self, Query::List | Query::ListOfSnapshots | Query::ListOfRestoreJobs)
    }
}

impl Access {
    /// Whether the gate asks for credentials.
    pub fn needs_credential(self) -> bool {
        matches!(self, Access::SignedIn | Access::Project(_))
    }
}

/// The query parameters that an operation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// None.
    Nothing,
    /// `pretty` and `envelope`.
    Common,
    /// Those, and the parameters of a list.
    List,
    /// Those, and `completed`.
    ListOfSnapshots,
    /// Those, and `batchId`.
    ListOfRestoreJobs,
}

/// What an operation takes.
pub struct RequestBody {
    pub media_type: &'static str,
    pub required: bool,
    /// Bytes that are read of it.
    pub largest: usize,
    pub schema: fn() -> serde_json::Value,
}

impl RequestBody {
    /// A document in JSON.
    const fn json(required: bool, schema: fn() -> serde_json::Value) -> RequestBody {
        RequestBody { media_type: "application/json", required, largest: body::LARGEST, schema }
    }
}

const VERSIONS: &[Version] = &[FIRST];

/// All there is on each surface.
pub fn all() -> impl Iterator<Item = &'static Operation> {
    let resources = [
        projects::OPERATIONS,
        clusters::OPERATIONS,
        checkpoints::OPERATIONS,
        snapshots::OPERATIONS,
        restore_jobs::OPERATIONS,
        schedule::OPERATIONS,
    ];
    resources.into_iter().flatten()
}

/// What is there once.
pub fn common() -> impl Iterator<Item = &'static Operation> {
    common::OPERATIONS.iter().chain(downloads::OPERATIONS)
}
