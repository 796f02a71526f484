//! One file for each command, and `taken.rs` for what two of them share.

pub mod audit;
pub mod cat;
pub mod checkpoint;
pub mod cluster;
pub mod credential;
pub mod diff;
pub mod doctor;
pub mod drill;
pub mod export;
pub mod oplog;
pub mod organization;
mod point;
pub mod project;
pub mod restore;
pub mod restore_job;
pub mod serve;
pub mod snapshot;
pub mod status;
mod taken;
pub mod vault;
pub mod verify;

use serde_json::{Value, json};
use stillpoint_core::stream::Gap;

use crate::error::CliError;

/// A gap, for programs.
fn gap_document(gap: &Gap) -> Value {
    json!({
        "part": gap.part.name(),
        "after": gap.after.to_string(),
        "until": gap.until.to_string(),
        "cause": gap.cause.name(),
        "found": gap.found,
        "detail": gap.detail,
    })
}

/// Warnings and errors of the rooms below, for commands other than `serve`.
pub fn log_to_standard_error() {
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).try_init();
}

/// Names go into paths, tables and links.
fn check_name(kind: &str, name: &str) -> Result<(), CliError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let article = if kind.starts_with('o') { "an" } else { "a" };
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) || name.starts_with('.') {
        return Err(CliError::Usage(format!(
            "{name:?} cannot be {article} {kind}'s name: use 1 to 64 letters, digits, - and _ (a dot not first)"
        )));
    }
    Ok(())
}
