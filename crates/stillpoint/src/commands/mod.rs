//! One file for each command.

pub mod audit;
pub mod checkpoint;
pub mod cluster;
pub mod credential;
pub mod doctor;
pub mod organization;
pub mod project;
pub mod serve;
pub mod status;

use crate::error::CliError;

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
