//! The real binary, as a user drives it: what it prints and where, how it ends, and what it refuses.
//!
//! No output of any of these tests may hold a secret: [`support::Operator`] looks at each.

mod clusters;
mod configuration;
mod doctor;
mod drill;
mod help;
mod keys;
mod metrics;
mod oplog;
mod path;
mod privileges;
mod projects;
mod refusals;
mod removal;
mod snapshots;
mod status;
mod support;
mod vault;
mod vaults;
