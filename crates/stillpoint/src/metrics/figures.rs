//! What the catalog and capture say.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use stillpoint_catalog::{Catalog, CatalogError, Cluster, DRILLS_KEPT, Page, SegmentTotals};
use stillpoint_core::checkpoint::{Checkpoint, PartId, State};
use stillpoint_core::drill::{newest_passed, newest_told, to_be_told};
use stillpoint_core::snapshot::Snapshot;
use stillpoint_core::stream::{CaptureReport, GapCause};
use stillpoint_core::{ClusterId, ClusterTime, restore, snapshot};

/// Checkpoints that are looked at first: one of them has completed, usually.
const RECENT: u64 = 10;
/// Checkpoints in further looks for one that has completed, and how many looks there are.
const OLDER: u64 = 100;
const LOOKS: u64 = 10;

#[derive(Debug)]
pub struct OfCluster {
    pub project: String,
    pub cluster: String,
    pub parts: Vec<OfPart>,
    pub last_completed: Option<Timestamp>,
    /// Seconds since then, or since the cluster was added if none has completed.
    pub age: f64,
    /// Whether the last that ended failed.
    pub last_failed: bool,
    /// Seconds; 0 if it is not held.
    pub balancer_held: f64,
    /// Seconds, of the last that completed.
    pub discovery: Option<f64>,
    pub snapshots: OfSnapshots,
    pub restores: OfRestores,
    pub drills: OfDrills,
}

/// A cluster's drills; nothing of what there was none of.
#[derive(Debug, Default)]
pub struct OfDrills {
    /// Whether the last that could tell failed.
    pub last_failed: Option<bool>,
    pub last_passed: Option<Timestamp>,
    /// Seconds, of the last that passed.
    pub recovery: Option<f64>,
    /// Seconds, of the last that passed: with the stored oplogs, and with the checkpoint alone.
    pub loss: Option<(f64, f64)>,
    /// If they are scheduled.
    pub overdue: Option<bool>,
}

#[derive(Debug, Default)]
pub struct OfSnapshots {
    /// What the newest sound one is as of.
    pub newest: Option<Timestamp>,
    /// Seconds since then, or since the cluster was added if there is none.
    pub age: f64,
    pub is_running: bool,
    /// Whether the last that ended failed.
    pub last_failed: bool,
    /// When one last failed, as far back as they are kept.
    pub failed: Option<Timestamp>,
    /// How many are damaged.
    pub damaged: u64,
}

/// Of restores from the cluster.
#[derive(Debug, Default)]
pub struct OfRestores {
    pub is_running: bool,
    /// Of the last that ended: when, and whether it broke.
    pub last: Option<(Timestamp, bool)>,
}

#[derive(Debug)]
pub struct OfPart {
    pub part: PartId,
    /// If this process captures it.
    pub capture: Option<CaptureReport>,
    /// The newest entry in the vault; nothing of a shard that has left the cluster.
    pub stored_until: Option<ClusterTime>,
    /// If there is a stream of it.
    pub totals: Option<SegmentTotals>,
    /// How many of each cause, as in [`GapCause::ALL`].
    pub gaps: [u64; GapCause::ALL.len()],
}

type Reports = Vec<(ClusterId, PartId, CaptureReport)>;

/// Of every cluster in the catalog; a few looks at the catalog for a cluster, and one for each part.
pub async fn gather(catalog: &dyn Catalog, reports: Reports, now: Timestamp) -> Result<Vec<OfCluster>, CatalogError> {
    let projects: HashMap<_, _> =
        catalog.projects().await?.into_iter().map(|project| (project.id, project.name)).collect();
    let mut live: HashMap<ClusterId, BTreeMap<PartId, CaptureReport>> = HashMap::new();
    for (cluster, part, report) in reports {
        live.entry(cluster).or_default().insert(part, report);
    }
    let mut clusters = Vec::new();
    for cluster in catalog.clusters(None).await? {
        // Added since, with its cluster.
        let Some(project) = projects.get(&cluster.project) else { continue };
        let parts = parts(catalog, cluster.id, live.remove(&cluster.id).unwrap_or_default()).await?;
        let (snapshots, restores) = (snapshots(catalog, &cluster, now).await?, restores(catalog, cluster.id).await?);
        let of = with_checkpoints(catalog, project.clone(), cluster, parts, now).await?;
        clusters.push(OfCluster { snapshots, restores, ..of });
    }
    Ok(clusters)
}

async fn parts(
    catalog: &dyn Catalog,
    cluster: ClusterId,
    mut live: BTreeMap<PartId, CaptureReport>,
) -> Result<Vec<OfPart>, CatalogError> {
    let streams: BTreeMap<_, _> =
        catalog.streams(cluster).await?.into_iter().map(|stream| (stream.part, stream.ended)).collect();
    let gaps = if streams.is_empty() { Vec::new() } else { catalog.gaps(cluster).await? };
    // A part that cannot be reached has none here, but what was stored last is known.
    let silent = streams.iter().any(|(part, ended)| ended.is_none() && !live.contains_key(part));
    let mut noted: BTreeMap<_, _> = match silent {
        true => catalog.capture_reports(cluster).await?.into_iter().collect(),
        false => BTreeMap::new(),
    };
    let ids: BTreeSet<_> = streams.keys().chain(live.keys()).cloned().collect();
    let mut parts = Vec::new();
    for part in ids {
        let capture = live.remove(&part);
        let stored_until = match (&capture, streams.get(&part)) {
            (Some(report), _) => report.stored,
            (None, Some(None)) => noted.remove(&part).and_then(|report| report.stored),
            (None, _) => None,
        };
        let totals = match streams.contains_key(&part) {
            true => Some(catalog.segment_totals(cluster, &part).await?),
            false => None,
        };
        let count = |cause| gaps.iter().filter(|gap| gap.part == part && gap.cause == cause).count() as u64;
        parts.push(OfPart { gaps: GapCause::ALL.map(count), part, capture, stored_until, totals });
    }
    Ok(parts)
}

async fn with_checkpoints(
    catalog: &dyn Catalog,
    project: String,
    cluster: Cluster,
    parts: Vec<OfPart>,
    now: Timestamp,
) -> Result<OfCluster, CatalogError> {
    let recent = catalog.checkpoints(cluster.id, Page { skip: 0, take: RECENT }).await?;
    let last = last_completed(catalog, cluster.id, &recent).await?;
    let last_completed = last.as_ref().and_then(Checkpoint::completed);
    let held_since = recent.iter().find(|checkpoint| checkpoint.owes_put_back()).and_then(|held| held.held_since);
    let ended = recent.iter().find(|checkpoint| checkpoint.state.ended());
    let since = |then| since(now, then);
    Ok(OfCluster {
        project,
        parts,
        last_completed,
        age: since(last_completed.unwrap_or(cluster.created)),
        last_failed: ended.is_some_and(|checkpoint| checkpoint.state == State::Failed),
        balancer_held: held_since.map_or(0.0, since),
        drills: drills(catalog, cluster.id, now).await?,
        discovery: last.and_then(|checkpoint| checkpoint.discovery()).map(|time| time.as_secs_f64()),
        snapshots: OfSnapshots::default(),
        restores: OfRestores::default(),
        cluster: cluster.name,
    })
}

async fn drills(catalog: &dyn Catalog, cluster: ClusterId, now: Timestamp) -> Result<OfDrills, CatalogError> {
    let all = catalog.drills(cluster, Page::ALL).await?;
    let (passed, schedule) = (newest_passed(&all), catalog.drill_schedule(cluster).await?);
    Ok(OfDrills {
        last_failed: newest_told(&all).map(|_| to_be_told(&all, schedule.as_ref(), now).is_some()),
        last_passed: passed.and_then(|drill| drill.ended),
        recovery: passed.and_then(|drill| drill.recovery()).map(|milliseconds| milliseconds as f64 / 1_000.0),
        loss: passed
            .and_then(|drill| drill.loss)
            .map(|loss| (loss.stream_seconds as f64, loss.checkpoint_seconds as f64)),
        overdue: schedule.map(|schedule| schedule.overdue(&all, now).is_some()),
    })
}

async fn snapshots(catalog: &dyn Catalog, cluster: &Cluster, now: Timestamp) -> Result<OfSnapshots, CatalogError> {
    // A schedule keeps some dozens of a cluster.
    let all = catalog.snapshots(cluster.id, Page::ALL).await?;
    let newest = all.iter().find(|one| one.is_sound()).and_then(|one| one.cut).map(|cut| cut.date());
    let ended = |one: &&Snapshot| one.state.ended();
    let failed = |one: &&Snapshot| one.state == snapshot::State::Failed;
    Ok(OfSnapshots {
        newest,
        age: since(now, newest.unwrap_or(cluster.created)),
        is_running: !all.iter().all(|one| ended(&one)),
        last_failed: all.iter().find(ended).is_some_and(|one| failed(&one)),
        failed: all.iter().find(failed).and_then(|one| one.ended),
        damaged: all.iter().filter(|one| one.damage.is_some()).count() as u64,
    })
}

async fn restores(catalog: &dyn Catalog, cluster: ClusterId) -> Result<OfRestores, CatalogError> {
    // One is done at a time, and those of drills are told of as drills.
    let newest = catalog.restores(cluster, Page { skip: 0, take: DRILLS_KEPT + 2 }).await?;
    let newest: Vec<_> = newest.into_iter().filter(|one| one.drill.is_none()).collect();
    let last = newest.iter().find(|one| one.state.ended());
    Ok(OfRestores {
        is_running: !newest.iter().all(|one| one.state.ended()),
        last: last.and_then(|one| Some((one.ended?, one.state == restore::State::Broken))),
    })
}

/// In seconds. A clock that was set back makes no negative times.
fn since(now: Timestamp, then: Timestamp) -> f64 {
    now.duration_since(then).as_secs_f64().max(0.0)
}

/// Among the recent ones, or the older ones behind them.
async fn last_completed(
    catalog: &dyn Catalog,
    cluster: ClusterId,
    recent: &[Checkpoint],
) -> Result<Option<Checkpoint>, CatalogError> {
    let completed = |checkpoint: &&Checkpoint| checkpoint.state == State::Completed;
    if let Some(found) = recent.iter().find(completed) {
        return Ok(Some(found.clone()));
    }
    if (recent.len() as u64) < RECENT {
        return Ok(None);
    }
    for look in 0..LOOKS {
        let page = catalog.checkpoints(cluster, Page { skip: RECENT + look * OLDER, take: OLDER }).await?;
        if let Some(found) = page.iter().find(completed) {
            return Ok(Some(found.clone()));
        }
        if (page.len() as u64) < OLDER {
            break;
        }
    }
    Ok(None)
}
