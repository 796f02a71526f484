//! The words and the rules of stillpoint, without I/O, without async, without a clock.
//!
//! Everything here is a value or a pure function: time and chance are passed in, so that tests can
//! drive the protocol through every interleaving and crash. No other room's types appear here.
//!
//! # Layout
//! - [`ids`]: identifiers of 24 hex digits, one type for each kind of thing
//! - [`time`]: cluster times, the `Timestamp` of an oplog entry
//! - [`checkpoint`]: the record of a checkpoint and the state machine that takes one
//! - [`schedule`]: what is to be taken and kept, and when the next checkpoint is due
//! - [`role`]: what a key or a service account may do

pub mod checkpoint;
pub mod ids;
pub mod role;
pub mod schedule;
pub mod time;

pub use ids::{CheckpointId, ClusterId, CredentialId, OrganizationId, ProjectId};
pub use role::Role;
pub use time::ClusterTime;
