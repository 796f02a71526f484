//! Real sharded clusters on this machine, for the demo, tests and benches. Never shipped.
//!
//! It may run processes, use the network (to fetch `mongod`, once) and write below the temporary
//! folder and the cache. It stops what it started, and never touches a process it did not start.
//!
//! # Layout
//! - [`mongod`]: where the server's binary comes from
//! - [`process`], [`folder`], [`ports`], [`proxy`]: one member, its data, port and network
//! - [`replica_set`], [`endpoint`], [`users`], [`cluster`]: sets of members, their faults, how
//!   clients find them, the cluster made of them
//! - [`sharding`], [`routing`]: databases, chunks, migrations, the balancer; who owns what
//! - [`wire`], `scram`, [`pool`]: raw commands
//! - [`transaction`], [`workload`]: what clients of the cluster do
//! - [`product`]: the product's binary, driven from outside
//! - [`snapshot`]: the cluster at a cluster time, the oracle of the tests

pub mod cluster;
pub mod endpoint;
pub mod folder;
pub mod mongod;
pub mod pool;
pub mod process;
pub mod product;
pub mod proxy;
pub mod replica_set;
pub mod routing;
mod scram;
pub mod sharding;
pub mod snapshot;
pub mod transaction;
pub mod users;
pub mod wait;
pub mod wire;
pub mod workload;

pub use stillpoint_mongod::ports;

pub use cluster::Lab;
pub use replica_set::ReplicaSet;
pub use workload::Workload;
