//! A checkpoint: one cluster time T that every part of a sharded cluster can be restored to.
//!
//! [`Checkpoint`] is the record, kept in the catalog; [`Machine`] is the protocol. The machine does
//! no I/O: it is given events and answers with commands, and a thin runner in the engine performs
//! them. So a test can drive it through any order of replies, crashes, lost leases and time-outs.
//!
//! The protocol, step by step, is in the module [`machine`]; what must always hold of a record is
//! [`Checkpoint::broken_rule`].

mod command;
mod limits;
pub mod machine;
mod pending;
mod record;
#[cfg(test)]
mod tests;

pub use command::{Action, Command, End, Event, Outcome, Reply, Seen, Ticket};
pub use limits::{Limits, backoff};
pub use machine::Machine;
pub use record::{Checkpoint, Failure, Found, Part, PartId, PutBack, Reason, Released, State, Token, Trouble};
