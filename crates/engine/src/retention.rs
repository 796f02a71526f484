//! What nothing needs any more: old checkpoints, the oldest segments, and blobs that no record names.
//!
//! Mark and sweep. The catalog forgets a segment and keeps its blob's name as doomed (the mark); the blob is
//! deleted once it has been doomed for a time of grace (the sweep), so that whoever is reading it can end.
//! A crash between any two steps leaves at most blobs that no record names, which the next sweep takes once
//! they are as old as the grace: what was just stored and is about to be noted is younger.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use stillpoint_catalog::{CatalogError, Lease, Page};
use stillpoint_core::coverage::may_go_before;
use stillpoint_core::stream::SEGMENTS;
use stillpoint_core::{ClusterId, ClusterTime, OpTime};
use stillpoint_vault::VaultError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Setup;

/// Records or blobs at a time.
const BATCH: u64 = 1_000;

/// How long things are kept.
#[derive(Debug, Clone)]
pub struct Retention {
    /// Checkpoints are kept for the cluster's point-in-time window, and for so long if that is longer.
    pub checkpoints: SignedDuration,
    /// From when a blob is doomed, or was stored without being noted, until it is deleted.
    pub grace: SignedDuration,
    /// From one round to the next.
    pub every: Duration,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            checkpoints: SignedDuration::ZERO,
            grace: SignedDuration::from_hours(24),
            every: Duration::from_secs(600),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Lets a cluster's old checkpoints and segments go, round after round, until `stop`.
pub(crate) async fn expire(setup: Setup, lease: Lease, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match expire_once(&setup, &lease).await {
            Ok(()) => {}
            Err(CatalogError::Fenced) => return,
            Err(e) => {
                tracing::warn!(cluster = %lease.cluster, error = %e, "retention: the catalog does not answer, trying again")
            }
        }
        tokio::select! {
            () = sleep(setup.retention.every) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn expire_once(setup: &Setup, lease: &Lease) -> Result<(), CatalogError> {
    let (catalog, cluster, now) = (&setup.catalog, lease.cluster, setup.now());
    let window = SignedDuration::from_hours(i64::from(catalog.schedule(cluster).await?.point_in_time_window_hours));
    let checkpoints = window.max(setup.retention.checkpoints);
    for id in catalog.expired_checkpoints(cluster, earlier(now, checkpoints), BATCH).await? {
        catalog.delete_checkpoint(cluster, id).await?;
        tracing::info!(checkpoint = %id, "checkpoint: its time is over");
    }
    // What is older than the window is kept for the checkpoints that are.
    let oldest_cut = oldest_cut(setup, cluster).await?;
    let keep_from = ClusterTime::at(earlier(now, window)).min(oldest_cut.unwrap_or(ClusterTime::MAX));
    for stream in catalog.streams(cluster).await? {
        loop {
            let mut oldest = catalog.segments(cluster, &stream.part, ClusterTime::ZERO, keep_from, BATCH).await?;
            oldest.retain(|segment| segment.last.time < keep_from);
            let before = may_go_before(&oldest);
            let gone = catalog.drop_segments(lease, &stream.part, OpTime::new(before, i64::MIN), now).await?;
            if gone == 0 {
                break;
            }
            tracing::info!(%cluster, part = %stream.part, segments = gone, %before, "retention: segments that nothing needs");
        }
    }
    for gap in catalog.gaps(cluster).await?.into_iter().filter(|gap| gap.until < keep_from) {
        catalog.remove_gap(cluster, &gap.part, gap.after, gap.until).await?;
    }
    Ok(())
}

/// What the oldest checkpoint restores to that has a cut.
async fn oldest_cut(setup: &Setup, cluster: ClusterId) -> Result<Option<ClusterTime>, CatalogError> {
    let mut end = setup.catalog.count_checkpoints(cluster).await?;
    while end > 0 {
        let take = end.min(BATCH);
        end -= take;
        let newest_first = setup.catalog.checkpoints(cluster, Page { skip: end, take }).await?;
        if let Some(cut) = newest_first.iter().rev().find_map(|checkpoint| checkpoint.cut) {
            return Ok(Some(cut));
        }
    }
    Ok(None)
}

fn earlier(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// Deletes blobs that nothing names, round after round, until `stop`. One server at a time does it: the
/// one that has the catalog.
pub(crate) async fn sweep(setup: Setup, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            swept = sweep_once(&setup) => match swept {
                Ok(0) => {}
                Ok(blobs) => tracing::info!(blobs, "retention: deleted from the vault"),
                Err(e) => tracing::warn!(error = %e, "retention: the vault could not be swept, trying again"),
            },
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = sleep(setup.retention.every) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// How many blobs were deleted.
async fn sweep_once(setup: &Setup) -> Result<u64, Failed> {
    let before = earlier(setup.now(), setup.retention.grace);
    let vault = setup.vault.vault().await?;
    let mut deleted = 0;
    loop {
        let doomed = setup.catalog.doomed(before, BATCH).await?;
        if doomed.is_empty() {
            break;
        }
        for name in &doomed {
            vault.delete(name).await?;
        }
        // Only now: what is deleted and still doomed is deleted once more, which does nothing.
        setup.catalog.forget_doomed(&doomed).await?;
        deleted += doomed.len() as u64;
    }
    let listed = vault.list(SEGMENTS).try_filter(|blob| std::future::ready(blob.modified < before));
    let mut pages = std::pin::pin!(listed.map_ok(|blob| blob.name).try_chunks(BATCH as usize));
    while let Some(page) = pages.next().await {
        let names = page.map_err(|e| e.1)?;
        for name in setup.catalog.unreferenced(&names).await? {
            vault.delete(&name).await?;
            deleted += 1;
        }
    }
    // What a killed server left half-written.
    let mut leftovers = vault.leftovers().try_filter(|leftover| std::future::ready(leftover.modified < before));
    while let Some(leftover) = leftovers.try_next().await? {
        vault.delete(&leftover.name).await?;
        deleted += 1;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests;
