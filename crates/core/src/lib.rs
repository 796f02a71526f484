//! The words and the rules of stillpoint, without I/O, without async, without a clock.
//!
//! Everything here is a value or a pure function: time and chance are passed in, so that tests can
//! drive the protocol through every interleaving and crash. No other room's types appear here.
//!
//! # Layout
//! - [`ids`]: identifiers of 24 hex digits, one type for each kind of thing
//! - [`time`]: cluster times, the `Timestamp` of an oplog entry, and optimes
//! - [`checkpoint`]: the record of a checkpoint and the state machine that takes one
//! - [`stream`]: a part's oplog as it is kept: segments, gaps, open transactions
//! - [`snapshot`]: the record of a snapshot
//! - [`restore`]: the record of a restore
//! - [`drill`]: the record of a drill, and when the next is due
//! - [`coverage`]: which times can be restored, and what of a stream may go
//! - [`keeping`]: until when a snapshot is kept
//! - [`verification`]: what came of comparing a cluster with what is stored of it
//! - [`schedule`]: what is to be taken and kept, and when the next checkpoint is due
//! - [`role`]: what a key or a service account may do

pub mod checkpoint;
pub mod coverage;
pub mod drill;
pub mod ids;
pub mod keeping;
pub mod restore;
pub mod role;
pub mod schedule;
pub mod snapshot;
pub mod stream;
pub mod time;
pub mod verification;
pub mod wanted;

pub use ids::{
    CatalogId, CheckpointId, ClusterId, CredentialId, DrillId, OrganizationId, ProjectId, RestoreId, SnapshotId,
    VaultId,
};
pub use role::Role;
pub use time::{ClusterTime, OpTime};
