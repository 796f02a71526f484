//! Updates and keys against an independent model, and against a real server: what the fold makes of a document
//! is what the server makes of it, byte for byte, the order of keys is the server's, and so is what a shard owns.
//!
//! `SEED=…` tries a run again, `CASES=…` more of it.

mod commands;
mod diffs;
mod generate;
mod hashed;
mod keys;
mod model;
mod modifiers;
mod owners;
mod server;
