//! Starts and stops a keeper for each cluster in the catalog.

use std::collections::BTreeMap;
use std::time::Duration;

use stillpoint_catalog::CatalogError;
use stillpoint_core::ClusterId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Setup, keeper, retention};

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Kept {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Engine {
    /// Makes this process the catalog's server, and begins to keep its clusters.
    pub async fn start(setup: Setup) -> Result<Engine, CatalogError> {
        setup.catalog.begin_serving().await?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(supervise(setup, stop.clone()));
        Ok(Engine { stop, task })
    }

    /// Stops: unfinished checkpoints fail, or end, with the balancer put back. Past `limit` they are
    /// left as they are, for the next start; whether all ended in time.
    pub async fn stop(self, limit: Duration) -> bool {
        self.stop.cancel();
        tokio::time::timeout(limit, self.task).await.is_ok()
    }
}

async fn supervise(setup: Setup, stop: CancellationToken) {
    let mut kept: BTreeMap<ClusterId, Kept> = BTreeMap::new();
    let sweep = || tokio::spawn(retention::sweep(setup.clone(), stop.clone()));
    let mut sweeper = sweep();
    while !stop.is_cancelled() {
        // What ended or panicked is started again.
        if sweeper.is_finished() {
            sweeper = sweep();
        }
        match setup.catalog.clusters(None).await {
            Ok(clusters) => {
                for (_, keeper) in kept.iter().filter(|(id, _)| !clusters.iter().any(|cluster| cluster.id == **id)) {
                    keeper.stop.cancel();
                }
                // What still ends is waited for.
                kept.retain(|_, keeper| !keeper.task.is_finished());
                for cluster in clusters {
                    kept.entry(cluster.id).or_insert_with(|| {
                        let stop = stop.child_token();
                        let task = tokio::spawn(keeper::keep(setup.clone(), cluster, stop.clone()));
                        Kept { stop, task }
                    });
                }
            }
            Err(e) => tracing::error!(error = %e, "the catalog does not answer, trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(setup.poll) => {}
            () = setup.wake.notified() => {}
            () = stop.cancelled() => {}
        }
    }
    for (_, keeper) in kept {
        // A panic was already reported where it happened.
        let _ = keeper.task.await;
    }
    let _ = sweeper.await;
}
