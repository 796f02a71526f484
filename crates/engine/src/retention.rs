//! What nothing needs any more: old checkpoints, snapshots and restores, the oldest segments, and blobs that no record names.
//!
//! Mark and sweep. The catalog forgets a segment and keeps its blob's name as doomed (the mark); the blob is
//! deleted once it has been doomed for a time of grace (the sweep), so that whoever is reading it can end.
//! A crash between any two steps leaves at most blobs that no record names. Those are doomed, too, once they
//! are as old as the grace, and so have another one: capture may make the very same again, or a catalog that
//! names them may be put back.
//!
//! What capture is about to store is no longer doomed, unless the sweep has condemned it: then capture waits
//! until it is deleted.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use stillpoint_catalog::{CatalogError, Holdings, Lease, Page};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::coverage::{Stored, may_go_before};
use stillpoint_core::keeping::{keep_from, may_go};
use stillpoint_core::snapshot::{Data, Snapshot, State};
use stillpoint_core::stream::SEGMENTS;
use stillpoint_core::{ClusterId, ClusterTime, OpTime};
use stillpoint_snapshot::manifest::SNAPSHOTS;
use stillpoint_vault::{Vault, VaultError};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Setup;
use crate::stored::oldest;

/// Records or blobs at a time.
const BATCH: u64 = 1_000;
/// Restores that have ended are kept for a year, and so many of them.
const RESTORES_FOR: SignedDuration = SignedDuration::from_hours(365 * 24);
const RESTORES: u64 = 1_000;
/// So far this host's clock and the newest stored entry may be apart before somebody should know.
const APART: SignedDuration = SignedDuration::from_hours(1);

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
    #[error("{blobs} blobs could not be deleted, first {name}: {why}")]
    Left { blobs: usize, name: String, why: VaultError },
}

/// Lets a cluster's old checkpoints, snapshots and segments go, round after round, until `stop`.
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
    let (catalog, cluster) = (&setup.catalog, lease.cluster);
    let Some(now) = now(setup, cluster).await? else { return Ok(()) };
    let schedule = catalog.schedule(cluster).await?;
    let window = SignedDuration::from_hours(i64::from(schedule.point_in_time_window_hours));
    let checkpoints = window.max(setup.retention.checkpoints);
    for id in catalog.expired_checkpoints(cluster, earlier(now, checkpoints), BATCH).await? {
        catalog.delete_checkpoint(cluster, id).await?;
        tracing::info!(checkpoint = %id, "checkpoint: its time is over");
    }
    let forgotten = catalog.forget_restores(cluster, earlier(now, RESTORES_FOR), RESTORES).await?;
    if forgotten > 0 {
        tracing::info!(%cluster, restores = forgotten, "restores: their time is over");
    }
    // What is being restored is kept like a checkpoint.
    let restored = catalog.unfinished_restore(cluster).await?.map(|restore| restore.time);
    let oldest_kept = catalog.oldest_cut(cluster).await?.into_iter().chain(restored).min();
    let keep_from = keep_from(&schedule, oldest_kept, now);
    let Holdings { streams, gaps, mut snapshots } = Holdings::of(&**catalog, cluster).await?;
    let failed = |snapshot: &Snapshot| snapshot.state == State::Failed && snapshot.ended < Some(earlier(now, window));
    let failed: Vec<_> = snapshots.iter().filter(|snapshot| failed(snapshot)).map(|snapshot| snapshot.id).collect();
    let checkpoints = catalog.checkpoints(cluster, Page::ALL).await?;
    let restorable = |snapshots: &[Snapshot]| {
        let stored = Stored { streams: &streams, gaps: &gaps, snapshots };
        checkpoints.iter().filter(|checkpoint| stored.restorable(checkpoint)).count()
    };
    for id in may_go(&snapshots, keep_from, now).into_iter().chain(failed) {
        // Beside what its class keeps: a gap, or a shard that was added, may leave checkpoints to it alone.
        let others: Vec<_> = snapshots.iter().filter(|snapshot| snapshot.id != id).cloned().collect();
        if restorable(&others) < restorable(&snapshots) {
            continue;
        }
        match catalog.delete_snapshot(cluster, id, setup.now()).await {
            Ok(()) => {
                snapshots.retain(|snapshot| snapshot.id != id);
                tracing::info!(snapshot = %id, "snapshot: its time is over");
            }
            // The next one or a restore goes on from it: it stays until that is done.
            Err(CatalogError::InUse(_) | CatalogError::Gone(_)) => {}
            Err(e) => return Err(e),
        }
    }
    for stream in streams {
        let needed = needed_from(&snapshots, &stream.part, keep_from);
        let Some(last) = catalog.segment_before(cluster, &stream.part, needed).await? else { continue };
        let before = may_go_before(&last);
        loop {
            let gone = catalog.drop_segments(lease, &stream.part, OpTime::new(before, i64::MIN), setup.now()).await?;
            if gone == 0 {
                break;
            }
            tracing::info!(%cluster, part = %stream.part, segments = gone, %before, "retention: segments that nothing needs");
        }
    }
    for gap in gaps.into_iter().filter(|gap| gap.until < keep_from) {
        // While segments from before it are kept, it says why those after it do not follow them.
        let oldest = oldest(&**catalog, cluster, &gap.part).await?;
        if oldest.is_none_or(|oldest| gap.until <= oldest.first.time) {
            catalog.remove_gap(cluster, &gap.part, gap.after, gap.until).await?;
        }
    }
    Ok(())
}

/// The time from which a part's oplog is needed: to restore what is kept, and to go on with snapshots.
fn needed_from(snapshots: &[Snapshot], part: &PartId, keep_from: ClusterTime) -> ClusterTime {
    let data = |wanted: fn(&Snapshot) -> bool| {
        let parts = snapshots.iter().filter(|snapshot| wanted(snapshot)).flat_map(|snapshot| &snapshot.parts);
        parts.filter(|one| one.id == *part).filter_map(|one| one.data).collect::<Vec<_>>()
    };
    // One that is damaged may be whole again; as long as it is not, what is sound has to do without it.
    let needed = [data(Snapshot::is_complete), data(Snapshot::is_sound)].map(|data| needed_by(&data, keep_from));
    // One that is under way needs all since it began.
    let open = snapshots.iter().filter(|snapshot| !snapshot.state.ended());
    let open = open.map(|snapshot| ClusterTime::at(earlier(snapshot.requested, APART)));
    open.chain(needed).fold(keep_from, ClusterTime::min)
}

/// The same, if this is all there is of the part.
fn needed_by(data: &[Data], keep_from: ClusterTime) -> ClusterTime {
    // The oldest times that are kept go on from this one; if all are later, from the first of them.
    let oldest = data.iter().filter(|data| data.at <= keep_from).max_by_key(|data| data.at);
    let oldest = oldest.or_else(|| data.iter().min_by_key(|data| data.at));
    let newest = data.iter().max_by_key(|data| data.at);
    oldest.into_iter().chain(newest).map(|data| data.stream).fold(keep_from, ClusterTime::min)
}

/// What the windows are counted from: this host's clock, but no later than the newest stored entry, so that
/// a clock that is wrong gives nothing up. A cluster writes an entry every ten seconds at least; one of which
/// nothing new is stored keeps all it has.
async fn now(setup: &Setup, cluster: ClusterId) -> Result<Option<Timestamp>, CatalogError> {
    let mut newest = None;
    for stream in setup.catalog.streams(cluster).await? {
        let last = setup.catalog.last_segment(cluster, &stream.part).await?;
        newest = newest.max(last.map(|segment| segment.last.time.date()));
    }
    let now = setup.now();
    if let Some(newest) = newest.filter(|newest| now.duration_since(*newest).abs() > APART) {
        tracing::warn!(
            %cluster, clock = %now, %newest,
            "retention: this host's clock and the newest stored entry are far apart, the earlier one counts: \
             if capture goes on, set the clocks"
        );
    }
    Ok(newest.map(|newest| newest.min(now)))
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
    let now = setup.now();
    let before = earlier(now, setup.retention.grace);
    let mut sweep = Sweep { vault: setup.vault.vault().await?, deleted: 0, left: BTreeSet::new(), why: None };
    loop {
        // Those that could not be deleted are condemned, and so come first.
        let mut doomed = setup.catalog.doomed(before, BATCH + sweep.left.len() as u64).await?;
        doomed.retain(|name| !sweep.left.contains(name));
        if doomed.is_empty() {
            break;
        }
        let mut gone = Vec::new();
        for name in setup.catalog.condemn(&doomed).await? {
            if sweep.delete(&name).await {
                gone.push(name);
            }
        }
        // Only now: what is deleted and still doomed is deleted once more, which does nothing.
        setup.catalog.forget_doomed(&gone).await?;
    }
    for kind in [SEGMENTS, SNAPSHOTS] {
        let listed = sweep.vault.list(kind).try_filter(|blob| std::future::ready(blob.modified < before));
        let mut pages = std::pin::pin!(listed.map_ok(|blob| blob.name).try_chunks(BATCH as usize));
        while let Some(page) = pages.next().await {
            let names = page.map_err(|e| e.1)?;
            let unreferenced = setup.catalog.unreferenced(&names).await?;
            if !unreferenced.is_empty() {
                setup.catalog.doom(&unreferenced, now).await?;
            }
        }
    }
    // What a killed server left half-written.
    let mut leftovers = sweep.vault.leftovers().try_filter(|leftover| std::future::ready(leftover.modified < before));
    while let Some(leftover) = leftovers.try_next().await? {
        sweep.delete(&leftover.name).await;
    }
    match (sweep.left.len(), sweep.why) {
        (blobs, Some((name, why))) => Err(Failed::Left { blobs, name, why }),
        (_, None) => Ok(sweep.deleted),
    }
}

struct Sweep<'a> {
    vault: &'a Vault,
    deleted: u64,
    /// What could not be deleted: the rest is none the worse for it.
    left: BTreeSet<String>,
    /// The first of them, and why.
    why: Option<(String, VaultError)>,
}

impl Sweep<'_> {
    /// Whether it is gone.
    async fn delete(&mut self, name: &str) -> bool {
        match self.vault.delete(name).await {
            Ok(()) => {
                self.deleted += 1;
                true
            }
            Err(why) => {
                self.left.insert(name.to_owned());
                self.why.get_or_insert((name.to_owned(), why));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
