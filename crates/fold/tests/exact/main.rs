//! Updates and keys against an independent model, and against a real server: what the fold makes of a document
//! is what the server makes of it, byte for byte, and the order of keys is the server's.
//!
//! `SEED=…` tries a run again, `CASES=…` more of it.

mod commands;
mod diffs;
mod generate;
mod keys;
mod model;
mod modifiers;
mod server;
