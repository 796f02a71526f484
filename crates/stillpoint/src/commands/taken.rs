//! What checkpoints and snapshots have in common: the server takes them, and a command waits for the end.

use std::time::Duration;

use stillpoint_catalog::{Catalog, Cluster, Project};
use stillpoint_core::ClusterTime;

use crate::context::now;
use crate::error::CliError;

/// A server that has just started, or has just been told of a new cluster, needs a moment.
const SERVER_WITHIN: Duration = Duration::from_secs(5);
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// `kind` is `checkpoint` or `snapshot`.
pub fn not_found(kind: &'static str, project: &Project, cluster: &Cluster, id: impl ToString) -> CliError {
    let list = format!("{kind} list --project {} --cluster {}", project.name, cluster.name);
    CliError::NotFound { kind, name: id.to_string(), list }
}

pub async fn is_served(catalog: &dyn Catalog, cluster: &Cluster) -> Result<bool, CliError> {
    Ok(catalog.lease(cluster.id).await?.is_some_and(|state| state.until > now()))
}

pub async fn wait_for_server(catalog: &dyn Catalog, cluster: &Cluster) -> Result<(), CliError> {
    let served = async {
        while !is_served(catalog, cluster).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    };
    tokio::time::timeout(SERVER_WITHIN, served).await.unwrap_or(Err(CliError::NoServer))
}

/// The time that it is as of.
pub fn cut(cut: Option<ClusterTime>) -> String {
    cut.map_or("-".into(), |cut| format!("{} ({cut})", cut.date()))
}
