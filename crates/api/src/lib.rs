//! The HTTP interface: what clients of the Atlas backup API read and ask for.
//!
//! It reads from the catalog and queues or deletes checkpoints there; it never talks to a cluster,
//! never takes a checkpoint and never sees a private key. What it must answer is fixed by the
//! published pages and real clients: documents with alphabetical keys, defined answers for every
//! malformed request, one form of Digest challenge.
//!
//! One request: [`server`] reads it, [`auth`] lets it in (or challenges it) and works out how the
//! client wants its reply written, a handler in [`routes`] finds the records and gives them as a
//! [`document`], [`respond`] writes that. A handler that cannot answer gives a [`error::Refusal`],
//! which the gate in [`auth`] writes.
//!
//! # Layout
//! - [`state`]: what comes in from outside: catalog, clock, chance, the public URL
//! - [`server`], [`tls`]: connections, their limits, graceful shutdown
//! - [`auth`]: the gate before every route, and what it finds out about a request
//! - [`digest`]: HTTP Digest: header, nonces, verification
//! - [`base`]: the beginning of every link
//! - [`query`]: query parameters
//! - [`reads`]: records remembered while the catalog is unchanged
//! - [`routes`]: one file a resource
//! - [`document`]: the documents, and the surfaces they are rendered for
//! - [`respond`]: JSON, pretty or not, enveloped or not, compressed or not
//! - [`error`]: the table of errors

pub mod auth;
pub mod base;
pub mod digest;
pub mod document;
pub mod error;
pub mod query;
pub mod reads;
pub mod respond;
pub mod routes;
pub mod server;
pub mod state;
pub mod tls;

pub use base::PublicUrl;
pub use digest::ha1;
pub use document::{ATLAS_V1, Place, Surface, View, checkpoint_document};
pub use routes::router;
pub use server::{Limits, Options, Peer, serve};
pub use state::ApiState;
