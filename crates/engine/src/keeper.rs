//! One cluster's lease, schedule and checkpoints.

use std::sync::Arc;
use std::time::Duration;

use stillpoint_catalog::{CatalogError, Cluster, Lease, Page};
use stillpoint_core::CheckpointId;
use stillpoint_core::checkpoint::{Checkpoint, End};
use stillpoint_core::schedule::next_due;
use tokio_util::sync::CancellationToken;

use crate::actions::Connection;
use crate::{Setup, capture, drill, restore, retention, runner, snapshots};

/// Keeps a cluster until `stop`: claims its lease whenever that can be had, and does under it what
/// there is to do.
pub(crate) async fn keep(setup: Setup, cluster: Cluster, stop: CancellationToken) {
    let connection = Arc::new(Connection::new(cluster));
    let cluster = connection.cluster.id;
    while !stop.is_cancelled() {
        match setup.catalog.claim_lease(cluster, &setup.instance, setup.now(), setup.lease_ttl).await {
            Ok(Some(lease)) => {
                let lost = CancellationToken::new();
                // Not stopped with the rest: a checkpoint's end waits for its tokens to be stored.
                let stop_capture = CancellationToken::new();
                let capture = capture::capture(setup.clone(), lease.clone(), connection.clone(), stop_capture.clone());
                let capture = tokio::spawn(capture);
                let snapshots = snapshots::take(setup.clone(), lease.clone(), connection.clone(), stop_capture.clone());
                let snapshots = tokio::spawn(snapshots);
                let verify = snapshots::watch(setup.clone(), lease.clone(), connection.clone(), stop_capture.clone());
                let restores = restore::perform(setup.clone(), lease.clone(), connection.clone(), stop_capture.clone());
                let restores = tokio::spawn(restores);
                let drills = tokio::spawn(drill::perform(setup.clone(), lease.clone(), stop_capture.clone()));
                let expire = retention::expire(setup.clone(), lease.clone(), stop_capture.clone());
                let all = async {
                    tokio::join!(
                        async {
                            work(&setup, &lease, &connection, &stop, &lost).await;
                            stop_capture.cancel();
                        },
                        async {
                            // It ends by itself when the lease is lost, and when it panicked, which was
                            // reported where it happened: then all begins anew.
                            let _ = capture.await;
                            lost.cancel();
                        },
                        async {
                            // As above; it ends by itself when all is stopped.
                            let _ = snapshots.await;
                            lost.cancel();
                        },
                        async {
                            let _ = restores.await;
                            lost.cancel();
                        },
                        async {
                            let _ = drills.await;
                            lost.cancel();
                        },
                        expire,
                        verify
                    )
                };
                tokio::select! {
                    () = renew(&setup, &lease, &lost) => {}
                    _ = all => {}
                }
                if let Err(e) = setup.catalog.release_lease(&lease).await {
                    tracing::warn!(%cluster, error = %e, "the lease could not be given up; it ends by itself");
                }
            }
            Ok(None) => {}
            Err(CatalogError::Gone(_)) => return,
            Err(e) => tracing::error!(%cluster, error = %e, "the catalog gives no lease, trying again"),
        }
        pause(&setup, &stop).await;
    }
}

async fn pause(setup: &Setup, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(setup.poll) => {}
        () = setup.wake.notified() => {}
        () = stop.cancelled() => {}
    }
}

/// Renews the lease until it is lost. The work under way then finds out by itself, when its next
/// write is fenced, and must not be dropped: it may owe the balancer.
async fn renew(setup: &Setup, lease: &Lease, lost: &CancellationToken) {
    loop {
        tokio::time::sleep(setup.lease_ttl / 3).await;
        match setup.catalog.renew_lease(lease, setup.now(), setup.lease_ttl).await {
            Ok(()) => {}
            Err(CatalogError::Fenced) => {
                lost.cancel();
                return std::future::pending().await;
            }
            Err(e) => {
                tracing::warn!(cluster = %lease.cluster, error = %e, "the lease could not be renewed, trying again")
            }
        }
    }
}

/// Does what there is to do, until the server stops or the lease is lost.
async fn work(
    setup: &Setup,
    lease: &Lease,
    connection: &Arc<Connection>,
    stop: &CancellationToken,
    lost: &CancellationToken,
) {
    let mut failures = 0;
    while !stop.is_cancelled() && !lost.is_cancelled() {
        match next(setup, lease, &connection.cluster).await {
            Ok(Some(record)) => {
                if runner::run(setup, lease.clone(), record, connection.clone(), stop).await == End::Deposed {
                    return;
                }
                failures = 0;
            }
            Ok(None) => {
                failures = 0;
                pause(setup, stop).await;
            }
            Err(e) => {
                tracing::error!(cluster = %lease.cluster, error = %e, "the catalog does not answer, trying again");
                let wait = Duration::from_millis(250).saturating_mul(1 << failures.min(6));
                failures += 1;
                tokio::select! { () = tokio::time::sleep(wait) => {}, () = stop.cancelled() => {} }
            }
        }
    }
}

/// The checkpoint to work on: one that is unfinished, or a new one when its time has come.
async fn next(setup: &Setup, lease: &Lease, cluster: &Cluster) -> Result<Option<Checkpoint>, CatalogError> {
    let catalog = &setup.catalog;
    if let Some(unfinished) = catalog.unfinished_checkpoint(lease.cluster).await? {
        return Ok(Some(unfinished));
    }
    let Some(interval) = catalog.schedule(lease.cluster).await?.interval(setup.interval) else {
        return Ok(None);
    };
    let last = catalog.checkpoints(lease.cluster, Page::FIRST).await?;
    let since = last.first().and_then(|checkpoint| checkpoint.ended).unwrap_or(cluster.created);
    let now = setup.now();
    if next_due(since, interval, now) > now {
        return Ok(None);
    }
    let new = Checkpoint::queued(CheckpointId::new(now, rand::random()), lease.cluster, now);
    match catalog.queue_checkpoint(&new).await {
        Ok(()) => Ok(Some(new)),
        // Somebody asked for one at this very moment: that one is found in the next round.
        Err(CatalogError::CheckpointUnderWay(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use stillpoint_core::checkpoint::{Failure, Reason, State};
    use stillpoint_core::schedule::Setting;

    use super::*;
    use crate::fixture::Fixture;

    /// The interval that was set for a cluster counts at once, whatever the server's is.
    #[tokio::test]
    async fn a_checkpoint_is_due_as_the_clusters_own_schedule_says() {
        let created: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let Fixture { folder: _folder, catalog, vault, cluster, lease } = Fixture::new(created).await;
        let at = |minutes: i64, interval: Option<u64>| {
            let now = created + SignedDuration::from_mins(minutes);
            let mut setup = Setup::new(catalog.clone(), vault.clone(), Arc::new(move || now), "here".into());
            setup.interval = interval.map(|minutes| Duration::from_secs(60 * minutes));
            setup
        };
        let is_due = async |minutes, interval| {
            let found = next(&at(minutes, interval), &lease, &cluster).await.unwrap();
            if let Some(queued) = &found {
                assert!(catalog.withdraw_checkpoint(cluster.id, queued.id).await.unwrap());
            }
            found.is_some()
        };
        assert!(!is_due(10_000, None).await, "none is configured");
        assert!(!is_due(59, Some(60)).await);
        assert!(is_due(60, Some(60)).await);

        catalog.change_schedule(cluster.id, &[(Setting::ClusterCheckpointIntervalMin, 15)]).await.unwrap();
        assert!(!is_due(14, Some(60)).await);
        assert!(is_due(15, Some(60)).await);
        assert!(is_due(15, None).await, "though the server takes none by itself");

        // It counts from the end of the last, which may be one that failed.
        let ended = created + SignedDuration::from_mins(20);
        let failure = Some(Failure { reason: Reason::Unreachable, detail: "gone".into() });
        let last = Checkpoint::queued(CheckpointId::new(ended, 1), cluster.id, ended);
        let last = Checkpoint { state: State::Failed, ended: Some(ended), failure, ..last };
        catalog.queue_checkpoint(&last).await.unwrap();
        assert!(!is_due(34, Some(60)).await);
        assert!(is_due(35, Some(60)).await);
    }
}
