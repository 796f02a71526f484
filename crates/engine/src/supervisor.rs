//! Starts and stops a keeper for each cluster in the catalog.

use std::collections::BTreeMap;
use std::time::Duration;

use stillpoint_catalog::CatalogError;
use stillpoint_core::ClusterId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Setup, downloads, keeper, retention};

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
    let clear = || tokio::spawn(downloads::sweep(setup.clone(), stop.clone()));
    let mut clearer = clear();
    while !stop.is_cancelled() {
        // What ended or panicked is started again.
        if sweeper.is_finished() {
            sweeper = sweep();
        }
        if clearer.is_finished() {
            clearer = clear();
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
    let _ = tokio::join!(sweeper, clearer);
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use jiff::Timestamp;
    use stillpoint_catalog::{Catalog, Cluster};
    use tokio::time::sleep;

    use super::*;
    use crate::Captures;
    use crate::fixture::Fixture;

    struct World {
        catalog: Arc<dyn Catalog>,
        cluster: Cluster,
        engine: Engine,
        /// Held by all that runs.
        held: Arc<Captures>,
        _folder: tempfile::TempDir,
    }

    impl World {
        /// An engine without a cluster.
        async fn new() -> World {
            let now = Timestamp::UNIX_EPOCH;
            let Fixture { folder, catalog, vault, cluster, .. } = Fixture::new(now).await;
            catalog.remove_cluster(cluster.id, now).await.unwrap();
            let setup = Setup::new(catalog.clone(), vault, Arc::new(move || now), "here".into());
            let held = setup.captures.clone();
            let engine = Engine::start(setup).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            World { catalog, cluster, engine, held, _folder: folder }
        }

        /// Adds a cluster and waits until its keeper has the lease.
        async fn add(&self, number: u64, uri: String) -> ClusterId {
            let id = ClusterId::new(Timestamp::UNIX_EPOCH, number);
            let (name, identity) = (format!("Cluster{number}"), format!("identity {number}"));
            let cluster = Cluster { id, name, identity, uri: uri.into(), ..self.cluster.clone() };
            self.catalog.add_cluster(&cluster).await.unwrap();
            let leased = async {
                while self.catalog.lease(id).await.unwrap().is_none() {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), leased).await.expect("no keeper has taken the lease");
            // It looks for the parts now.
            sleep(Duration::from_millis(100)).await;
            id
        }

        async fn remove(&self, id: ClusterId) {
            self.catalog.remove_cluster(id, Timestamp::UNIX_EPOCH).await.unwrap();
        }
    }

    /// A member that takes connections and never answers: a keeper takes its time to end.
    fn silent() -> (TcpListener, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let uri = format!("mongodb://{}/?replicaSet=cfg", listener.local_addr().unwrap());
        (listener, uri)
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_clusters_keeper_ends() {
        let world = World::new().await;
        let without = Arc::strong_count(&world.held);
        let (_listener, uri) = silent();
        let id = world.add(2, uri).await;
        assert!(Arc::strong_count(&world.held) > without);
        world.remove(id).await;
        let ended = async {
            while Arc::strong_count(&world.held) > without {
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it goes on");
        assert!(world.engine.stop(Duration::from_secs(60)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_the_keeper_of_a_cluster_that_was_removed_just_before() {
        let world = World::new().await;
        let (_listener, uri) = silent();
        let id = world.add(2, uri).await;
        world.remove(id).await;
        // When this one is kept, the other's removal has been seen; it has nothing to end.
        world.add(3, "nonsense".into()).await;
        assert!(world.engine.stop(Duration::from_secs(60)).await);
        assert_eq!(Arc::strong_count(&world.held), 1, "something still runs");
    }
}
