//! An operator at a shell, a server that is running, and servers that cannot be had for real.

mod fake;
mod mongosh;
mod operator;
mod server;
mod store;

pub use fake::Fake;
pub use mongosh::command;
pub use operator::{Operator, Ran};
pub use server::Server;
pub use store::{Store, ago, entries, shard};
