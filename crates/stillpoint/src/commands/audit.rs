//! `stillpoint audit`

use stillpoint_catalog::{AuditEntry, Page};

use crate::config::Config;
use crate::context::open_catalog;
use crate::error::CliError;
use crate::output::{Output, table};

pub async fn run(config: &Config, output: &Output, limit: u64) -> Result<(), CliError> {
    let entries = open_catalog(config)?.audit(Page { skip: 0, take: limit }).await?;
    let document = serde_json::to_value(&entries).map_err(|e| CliError::Failed(e.to_string()))?;
    output.print(&document, || {
        let row = |entry: &AuditEntry| {
            let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
            let status = entry.status.map_or("done".into(), |status| status.to_string());
            let done = entry.error.as_ref().map_or(status.clone(), |error| format!("{status} {error}"));
            let times = entry.times.map(|times| format!(" ({times} times)")).unwrap_or_default();
            let action = format!("{}{times}", entry.action);
            vec![entry.at.to_string(), or_none(&entry.actor), or_none(&entry.from), done, action]
        };
        table(&["AT", "WHO", "FROM", "OUTCOME", "WHAT"], &entries.iter().map(row).collect::<Vec<_>>())
    });
    Ok(())
}
