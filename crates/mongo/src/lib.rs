//! Talking to a sharded cluster, replica set by replica set, without a mongos.
//!
//! This room knows MongoDB's commands and collections; it decides nothing about a checkpoint. To a cluster that
//! is watched it writes two things only: no-op notes into oplogs, and the balancer's switch in `config.settings`.
//! What a restore writes into its [`target`] is all else.
//!
//! # Layout
//! - [`link`]: connections to the config servers and the shards
//! - [`part`]: one replica set, and how commands are sent to it
//! - [`topology`]: which shards there are
//! - [`balancer`]: reading, stopping and putting back the balancer
//! - [`movement`]: migrations, resharding and DDL operations under way
//! - [`token`]: the cluster's clock, and tokens
//! - [`tail`]: the oplog, read as it grows
//! - [`snapshot`]: the collections, read as of a cluster time
//! - [`target`]: what data is restored into
//! - [`fresh`]: servers with nothing in them, made a cluster to restore into
//! - [`privileges`]: what the user must be allowed, and the commands that allow it
//! - [`doctor`]: looks at a cluster and says what is wrong
//! - [`error`]: what can go wrong, for the operator

pub mod balancer;
pub mod doctor;
pub mod error;
pub mod fresh;
pub mod link;
pub mod movement;
pub mod part;
pub mod privileges;
pub mod snapshot;
pub mod tail;
pub mod target;
pub mod token;
pub mod topology;

pub use error::MongoError;
pub use link::ClusterLink;
pub use part::PartLink;
pub use target::Destination;
