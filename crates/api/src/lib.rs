//! The HTTP interface: what clients of the Atlas backup API read and ask for.
//!
//! It reads from the catalog, queues or deletes checkpoints and snapshots there, queues or cancels restores, and sends
//! the files that the engine made for those; it never talks to a cluster, never does any of it and never sees a private
//! key. What it must answer is fixed by the published pages and real clients: documents with alphabetical keys, defined
//! answers for every malformed request, one form of Digest challenge.
//!
//! One request: [`server`] reads it, [`gate`] lets it in (or challenges it) and works out how the
//! client wants its reply written, its handler in [`operations`] finds the records and gives them as a
//! [`document`], [`respond`] writes that. A handler that cannot answer gives an [`error::Refusal`],
//! which the gate writes. An operation is described once, in [`operations`]; its routes on every
//! [`surface`], who may ask for it, and the reference in [`describe`] come from there.
//!
//! # Layout
//! - [`state`]: what comes in from outside: catalog, clock, chance, the operator's settings
//! - [`server`], [`tls`]: connections, their limits, graceful shutdown
//! - [`gate`]: the way of every request
//! - [`digest`], [`oauth`]: how keys and service accounts prove who they are
//! - [`rates`], [`audit`]: how often, and who did what
//! - [`operations`]: what can be asked, one file a resource
//! - [`surface`], [`version`]: the flavours of the API, and the dates of v2
//! - [`document`]: the documents
//! - [`describe`]: the OpenAPI document and the reference page
//! - [`query`], [`headers`], [`body`], [`base`]: parameters, headers, request bodies, the beginning of every link
//! - [`reads`]: records and replies remembered while the catalog is unchanged
//! - [`sending`]: files on their way to clients
//! - [`respond`]: JSON, pretty or not, enveloped or not, compressed or not
//! - [`error`]: the table of errors

pub mod audit;
pub mod base;
pub mod body;
pub mod describe;
pub mod digest;
pub mod document;
pub mod error;
pub mod gate;
pub mod headers;
pub mod oauth;
pub mod operations;
pub mod query;
pub mod rates;
pub mod reads;
pub mod respond;
pub mod sending;
pub mod server;
pub mod state;
pub mod surface;
pub mod tls;
pub mod version;

pub use base::PublicUrl;
pub use digest::ha1;
pub use document::{Place, SnapshotView, View, checkpoint_document, snapshot_document};
pub use gate::Interface;
pub use operations::download_url;
pub use respond::Body;
pub use server::{Limits, Options, Peer, Service, serve};
pub use state::{ApiState, Settings};
pub use surface::ATLAS_V1;
