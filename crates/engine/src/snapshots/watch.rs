//! Verifies each checkpoint as soon as it can be restored, if the operator wants that: while the servers still
//! keep their past, against a snapshot read of the cluster.

use std::sync::Arc;

use jiff::SignedDuration;
use stillpoint_catalog::{CatalogError, Lease, Page};
use stillpoint_core::checkpoint::{Checkpoint, State};
use stillpoint_core::verification::{PartVerification, Verdict, Verification};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Archive, SnapshotError, verify};
use crate::Setup;
use crate::actions::Connection;

/// Checkpoints that ended longer ago are left alone: no server is expected to keep its past for so long.
const RECENT: SignedDuration = SignedDuration::from_hours(1);
/// So many checkpoints are looked at.
const NEWEST: Page = Page { skip: 0, take: 20 };

/// Verifies a cluster's checkpoints until `stop`, or until the lease is lost.
pub(crate) async fn watch(setup: Setup, lease: Lease, connection: Arc<Connection>, stop: CancellationToken) {
    if !setup.snapshots.verify {
        return;
    }
    while !stop.is_cancelled() {
        let done = tokio::select! {
            done = verify_next(&setup, &lease, &connection, &stop) => done,
            () = stop.cancelled() => return,
        };
        match done {
            Ok(true) => continue,
            Ok(false) => {}
            Err(SnapshotError::Catalog(CatalogError::Fenced)) => return,
            Err(why) => {
                tracing::warn!(cluster = %lease.cluster, error = %why, "verification: trying again")
            }
        }
        tokio::select! {
            () = sleep(setup.poll * 4) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Verifies the oldest of those that wait for it; whether there was one.
async fn verify_next(
    setup: &Setup,
    lease: &Lease,
    connection: &Connection,
    stop: &CancellationToken,
) -> Result<bool, SnapshotError> {
    let (catalog, cluster) = (&setup.catalog, lease.cluster);
    let now = setup.now();
    let waits = |one: &Checkpoint| {
        one.state == State::Completed
            && one.verification.is_none()
            && one.ended.is_some_and(|ended| now.duration_since(ended) < RECENT)
    };
    let mut waiting: Vec<_> = catalog.checkpoints(cluster, NEWEST).await?.into_iter().filter(waits).collect();
    waiting.reverse();
    if waiting.is_empty() {
        return Ok(false);
    }
    let (vault, room) = (setup.vault.vault().await?.clone(), setup.snapshots.room.clone());
    let mut archive = Archive::open(catalog.clone(), vault, setup.clock.clone(), cluster, room).await?;
    archive.stop = stop.clone();
    let Some(checkpoint) = waiting.into_iter().find(|one| archive.stored().restorable(one)) else { return Ok(false) };
    let Some(time) = checkpoint.cut else { return Ok(false) };
    let links = connection.link().await?.parts().await?;
    let mut parts = Vec::new();
    for part in &checkpoint.parts {
        let nothing = |problem: &str| PartVerification {
            problem: Some(problem.into()),
            ..PartVerification::new(part.id.clone())
        };
        let base = archive.base(&part.id, time).ok();
        let link = links.iter().find(|link| link.id == part.id);
        parts.push(match (base, link) {
            (Some(base), Some(link)) => {
                let stored = async { verify::stored(archive.source(&part.id, &base, time).await?, time).await };
                match stored.await {
                    Ok(stored) => verify::compare(&stored, link, time).await?,
                    // It will not be otherwise the next time.
                    Err(why) if why.is_lasting() => {
                        tracing::error!(%cluster, checkpoint = %checkpoint.id, error = %why, "verification: it cannot be folded");
                        nothing(&format!("what is stored of it cannot be read or folded: {why}"))
                    }
                    Err(why) => return Err(why),
                }
            }
            (None, _) => nothing("it cannot be restored any more"),
            (_, None) => nothing("it is not in the cluster any more"),
        });
    }
    let verification = Verification { at: setup.now(), time, parts };
    catalog.note_verification(lease, checkpoint.id, &verification).await?;
    match verification.verdict() {
        Verdict::Different => tracing::error!(
            %cluster, checkpoint = %checkpoint.id,
            "verification: what is stored is NOT what the cluster has: see `stillpoint checkpoint show`"
        ),
        verdict => tracing::info!(%cluster, checkpoint = %checkpoint.id, %verdict, "verification: done"),
    }
    Ok(true)
}
