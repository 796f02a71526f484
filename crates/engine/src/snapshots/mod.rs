//! A cluster's snapshots: read once, then folded from the last one and the stored oplogs.
//!
//! A snapshot is every part's data as of one time, T. Parts that no snapshot has yet are read from the cluster,
//! while it works; all others go on from the newest that has them, and nothing is read. T is as late as every
//! part's stored oplog allows. One snapshot of a cluster is taken at a time, under the cluster's lease; whatever
//! fails is tried again from what the catalog has of it, but for what trying again cannot mend.
//!
//! # Layout
//! - [`read`]: a part's data out of the cluster
//! - `room`: memory and disk for that
//! - [`state`]: a part's data at a time, for whoever wants it
//! - [`make`]: a snapshot out of that
//! - [`verify`]: whether that is what the cluster itself says
//! - [`diff`]: what has changed from one time to another
//! - [`watch`]: each checkpoint is verified as soon as it can be
//! - [`export`], [`dump`], [`find`]: as files; as one archive; one collection or document of it
//! - [`owners`]: which documents of a shard are its own
//! - [`origin`]: which snapshot data is of, to be noted as damaged if it is
//! - [`check`]: whether all that is stored is whole
//! - [`point`]: what is stored of a cluster, to be asked for a time
//! - [`pack`], [`unpack`]: chunks into the vault, and out of it

pub mod check;
pub mod diff;
pub mod dump;
mod error;
pub mod export;
pub mod find;
mod make;
mod metadata;
pub mod origin;
pub mod owners;
mod pack;
mod point;
pub(crate) mod read;
pub(crate) mod room;
pub mod state;
pub mod unpack;
pub mod verify;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use rand::random;
use stillpoint_catalog::{Catalog, CatalogError, Lease, Page};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::coverage::{may_go_before, whole_until};
use stillpoint_core::keeping::kept_until;
use stillpoint_core::schedule::next_snapshot_due;
use stillpoint_core::snapshot::{Data, Part, Snapshot, State};
use stillpoint_core::{ClusterId, ClusterTime, SnapshotId};
use stillpoint_mongo::PartLink;
use stillpoint_snapshot::writer::DEFAULT_LEVEL;
use stillpoint_snapshot::{Manifest, manifest};
use stillpoint_vault::Vault;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use error::SnapshotError;
pub use point::Archive;
pub(crate) use watch::watch;

use crate::Setup;
use crate::actions::Connection;
use crate::stored::StoredOplog;
use make::{About, Maker};
use origin::Origin;
use pack::Packer;
use read::PartReader;
pub use read::blocking;
use room::{Claim, Room};
use state::Source;
use unpack::Packs;

/// The longest pause before something is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Those that are looked at to see how many failed one after the other.
const RECENT: Page = Page { skip: 0, take: 5 };
/// From one look whether the stored oplogs reach far enough to the next: the shards are asked for, too.
const WAIT: Duration = Duration::from_secs(1);
/// How long the stored oplogs may need to reach a time before somebody should know.
const PATIENCE: Duration = Duration::from_secs(180);

/// How snapshots are taken.
#[derive(Debug, Clone)]
pub struct Snapshots {
    /// Whether they are taken by the cluster's schedule; else only when somebody asks for one.
    pub scheduled: bool,
    /// Whether each checkpoint is compared with the cluster as soon as it can be restored.
    pub verify: bool,
    /// Parts that are read or folded at once.
    pub parts_at_once: usize,
    /// Bytes of documents that are read until it is noted: what a crash may cost.
    pub haul: u64,
    /// How much what is stored is compressed: zstd's level.
    pub level: i32,
    pub room: Room,
}

impl Default for Snapshots {
    fn default() -> Snapshots {
        let room = Room::new(64 << 20, std::env::temp_dir());
        Snapshots { scheduled: true, verify: false, parts_at_once: 2, haul: 256 << 20, level: DEFAULT_LEVEL, room }
    }
}

/// Takes a cluster's snapshots until `stop`, or until the lease is lost.
pub(crate) async fn take(setup: Setup, lease: Lease, connection: Arc<Connection>, stop: CancellationToken) {
    let task = Task { setup, lease, connection, stop };
    let mut failures = 0;
    while !task.stop.is_cancelled() {
        let done = match task.next().await {
            Ok(Some(snapshot)) => task.advance(snapshot).await.map(|more| if more { Duration::ZERO } else { WAIT }),
            Ok(None) => Ok(task.setup.poll),
            Err(why) => Err(why),
        };
        let pause = match done {
            Ok(pause) => {
                failures = 0;
                if pause.is_zero() {
                    continue;
                }
                pause
            }
            Err(SnapshotError::Catalog(CatalogError::Fenced | CatalogError::Gone(_))) => return,
            Err(SnapshotError::Stopped) if task.stop.is_cancelled() => return,
            Err(why) => {
                tracing::warn!(cluster = %task.lease.cluster, error = %why, "snapshot: trying again");
                failures += 1;
                LONGEST_PAUSE.min(Duration::from_millis(500).saturating_mul(1 << (failures - 1).min(8)))
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = task.setup.wake.notified(), if failures == 0 => {}
            () = task.stop.cancelled() => return,
        }
    }
}

struct Task {
    setup: Setup,
    lease: Lease,
    connection: Arc<Connection>,
    stop: CancellationToken,
}

impl Task {
    /// The snapshot to work on: one that is unfinished, or a new one when its time has come.
    async fn next(&self) -> Result<Option<Snapshot>, SnapshotError> {
        let (catalog, cluster) = (&self.setup.catalog, self.lease.cluster);
        if let Some(unfinished) = catalog.unfinished_snapshot(cluster).await? {
            return Ok(Some(unfinished));
        }
        if !self.setup.snapshots.scheduled {
            return Ok(None);
        }
        let now = self.setup.now();
        let recent = catalog.snapshots(cluster, RECENT).await?;
        let due = next_snapshot_due(&catalog.schedule(cluster).await?, &recent, now);
        if due > now {
            return Ok(None);
        }
        let new = Snapshot::queued(SnapshotId::new(now, random()), cluster, now);
        match catalog.queue_snapshot(&new).await {
            Ok(()) => Ok(Some(new)),
            // Somebody asked for one at this very moment: that one is found in the next round.
            Err(CatalogError::SnapshotUnderWay(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Does the next step of a snapshot; whether there is another at once. What cannot be mended ends it.
    async fn advance(&self, mut snapshot: Snapshot) -> Result<bool, SnapshotError> {
        let done = match snapshot.state {
            State::Queued => self.plan(&mut snapshot).await,
            State::Reading => self.read(&mut snapshot).await,
            State::Folding => self.fold(&mut snapshot).await,
            State::Completed | State::Failed => return Ok(true),
        };
        match done {
            Err(why) if why.is_lasting() => {
                tracing::error!(cluster = %self.lease.cluster, snapshot = %snapshot.id, error = %why, "snapshot: it failed");
                (snapshot.state, snapshot.ended) = (State::Failed, Some(self.setup.now()));
                (snapshot.failure, snapshot.trouble) = (Some(why.to_string()), None);
                self.save(&snapshot, &[]).await?;
                Ok(true)
            }
            Err(why @ (SnapshotError::NotReached { .. } | SnapshotError::NotCaptured(_))) => {
                // It will be within moments, if capture goes on.
                if self.setup.now().duration_since(snapshot.requested).unsigned_abs() > PATIENCE {
                    self.trouble(&mut snapshot, &why).await?;
                }
                Ok(false)
            }
            Err(why) => {
                self.trouble(&mut snapshot, &why).await?;
                Err(why)
            }
            Ok(()) => Ok(true),
        }
    }

    async fn trouble(&self, snapshot: &mut Snapshot, why: &SnapshotError) -> Result<(), SnapshotError> {
        let text = Some(why.to_string());
        if matches!(why, SnapshotError::Stopped | SnapshotError::Catalog(_)) || snapshot.trouble == text {
            return Ok(());
        }
        snapshot.trouble = text;
        self.save(snapshot, &[]).await
    }

    async fn save(&self, snapshot: &Snapshot, blobs: &[String]) -> Result<(), SnapshotError> {
        Ok(self.setup.catalog.save_snapshot(&self.lease, snapshot, blobs).await?)
    }

    async fn parts(&self) -> Result<Vec<PartLink>, SnapshotError> {
        Ok(self.connection.link().await?.parts().await?)
    }

    /// Which parts there are, and what each goes on from.
    async fn plan(&self, snapshot: &mut Snapshot) -> Result<(), SnapshotError> {
        let (catalog, cluster) = (&self.setup.catalog, self.lease.cluster);
        let links = self.parts().await?;
        snapshot.since = try_join_all(links.iter().map(PartLink::committed)).await?.into_iter().max();
        let part = |part: PartLink| Part { id: part.id, replica_set: part.replica_set, read: None, data: None };
        snapshot.parts = links.into_iter().map(part).collect();
        let all = catalog.snapshots(cluster, Page::ALL).await?;
        // What could not be folded once cannot be folded the next time: then the cluster is read again.
        let base = all.iter().find(|other| other.is_sound()).map(|base| base.id);
        let failed = |base| all.iter().any(|other| other.state == State::Failed && other.base == Some(base));
        snapshot.base = base.filter(|base| !failed(*base));
        snapshot.state = State::Reading;
        let from = if snapshot.base.is_some() { "the last one" } else { "the cluster" };
        tracing::info!(%cluster, snapshot = %snapshot.id, parts = snapshot.parts.len(), "snapshot: begins, from {from}");
        self.save(snapshot, &[]).await
    }

    /// What each part goes on from: none for those that must be read.
    async fn bases(&self, snapshot: &Snapshot) -> Result<Vec<Option<Data>>, SnapshotError> {
        let (catalog, cluster) = (&self.setup.catalog, self.lease.cluster);
        let base = match snapshot.base {
            Some(id) => catalog.snapshot(cluster, id).await?,
            None => None,
        };
        let (streams, gaps) = (catalog.streams(cluster).await?, catalog.gaps(cluster).await?);
        let snapshots: Vec<_> = base.into_iter().collect();
        let mut bases = Vec::with_capacity(snapshot.parts.len());
        for part in &snapshot.parts {
            let reached = catalog.last_segment(cluster, &part.id).await?.map(|last| last.last.time);
            let time = snapshot.cut.or(reached).unwrap_or(ClusterTime::ZERO);
            let stands = snapshots.first().and_then(|base| base.data(&part.id)).copied().filter(|data| {
                let touched =
                    |gap: &&stillpoint_core::stream::Gap| gap.part == part.id && gap.touches(data.stream, time);
                let kept = streams.iter().any(|stream| stream.part == part.id && stream.is_kept_from(data.stream));
                kept && !gaps.iter().any(|gap| touched(&gap))
            });
            bases.push(part.read.or(stands));
        }
        Ok(bases)
    }

    /// Reads the parts that must be read; then, as soon as the stored oplogs reach far enough, says the time.
    async fn read(&self, snapshot: &mut Snapshot) -> Result<(), SnapshotError> {
        let bases = self.bases(snapshot).await?;
        let vault = self.setup.vault.vault().await?.clone();
        let links = self.parts().await?;
        // What is stored of a shard that was removed never reaches the time of the others.
        if let Some(gone) = snapshot.parts.iter().find(|part| !links.iter().any(|link| link.id == part.id)) {
            return Err(SnapshotError::NoPart(gone.id.clone()));
        }
        let permits = Semaphore::new(self.setup.snapshots.parts_at_once);
        let missing =
            snapshot.parts.iter().zip(&bases).filter(|(_, base)| base.is_none()).map(|(part, _)| part.id.clone());
        let reads = missing.map(|id| {
            let (links, vault, permits) = (&links, vault.clone(), &permits);
            let snapshot = snapshot.id;
            async move {
                let link = links.iter().find(|link| link.id == id).cloned();
                let link = link.ok_or_else(|| SnapshotError::NoPart(id.clone()))?;
                let _permit = permits.acquire().await;
                let reader = PartReader {
                    setup: self.setup.clone(),
                    lease: self.lease.clone(),
                    snapshot,
                    link,
                    vault,
                    room: self.setup.snapshots.room.clone(),
                    stop: self.stop.clone(),
                };
                Ok((id, reader.read().await?))
            }
        });
        // What was read of one is kept though another failed, and noted at once.
        let mut failed = None;
        let mut reads: FuturesUnordered<_> = reads.collect();
        while let Some(read) = reads.next().await {
            match read {
                Ok((id, (data, names))) => {
                    if let Some(part) = snapshot.parts.iter_mut().find(|part| part.id == id) {
                        part.read = Some(data);
                    }
                    snapshot.trouble = None;
                    self.save(snapshot, &names).await?;
                    self.setup.done("part-read");
                    tracing::info!(
                        cluster = %self.lease.cluster, part = %id, documents = data.documents, bytes = data.bytes,
                        stored = data.stored, "snapshot: read"
                    );
                }
                Err(why) => failed = Some(why),
            }
        }
        if let Some(why) = failed {
            return Err(why);
        }
        let bases = self.bases(snapshot).await?;
        snapshot.cut = Some(self.cut(snapshot, &bases).await?);
        (snapshot.state, snapshot.trouble) = (State::Folding, None);
        self.save(snapshot, &[]).await?;
        self.setup.done("time-chosen");
        Ok(())
    }

    /// The latest time to which every part can be folded.
    async fn cut(&self, snapshot: &Snapshot, bases: &[Option<Data>]) -> Result<ClusterTime, SnapshotError> {
        let wanted = bases.iter().flatten().map(|data| data.at).chain(snapshot.since).max();
        let wanted = wanted.unwrap_or(ClusterTime::ZERO);
        let mut cut = ClusterTime::MAX;
        for part in &snapshot.parts {
            let last = self.setup.catalog.last_segment(self.lease.cluster, &part.id).await?;
            let reached = last.map_or(ClusterTime::ZERO, |last| whole_until(&last));
            if reached < wanted {
                return Err(SnapshotError::NotReached { part: part.id.clone(), reached, wanted });
            }
            cut = cut.min(reached);
        }
        Ok(cut)
    }

    /// Brings every part to the snapshot's time.
    async fn fold(&self, snapshot: &mut Snapshot) -> Result<(), SnapshotError> {
        let bases = self.bases(snapshot).await?;
        let Some(cut) = snapshot.cut else { return Err(SnapshotError::Stopped) };
        let vault = self.setup.vault.vault().await?.clone();
        let permits = Semaphore::new(self.setup.snapshots.parts_at_once);
        let left = snapshot.parts.iter().zip(bases).filter(|(part, _)| part.data.is_none());
        let mut folds: FuturesUnordered<_> = left
            .map(|(part, base)| {
                let (id, vault, permits) = (part.id.clone(), vault.clone(), &permits);
                let from = snapshot.base.filter(|_| part.read.is_none());
                let origin = Origin::new(self.setup.catalog.clone(), self.lease.cluster, from);
                async move {
                    let _permit = permits.acquire().await;
                    let base = base.ok_or_else(|| SnapshotError::CutOff(id.clone()))?;
                    let made = self.fold_part(&vault, &id, &base, origin, cut).await?;
                    Ok((id, made))
                }
            })
            .collect();
        let mut failed = None;
        while let Some(folded) = folds.next().await {
            match folded {
                Ok((id, (data, names))) => {
                    if let Some(part) = snapshot.parts.iter_mut().find(|part| part.id == id) {
                        part.data = Some(data);
                    }
                    self.save(snapshot, &names).await?;
                    self.setup.done("part-folded");
                }
                Err(why) => failed = Some(why),
            }
        }
        if let Some(why) = failed {
            return Err(why);
        }
        let (catalog, cluster) = (&self.setup.catalog, self.lease.cluster);
        let others = catalog.snapshots(cluster, Page::ALL).await?;
        let others: Vec<_> = others.iter().filter(|one| one.is_complete()).filter_map(|one| one.cut).collect();
        let dates: Vec<_> = others.iter().map(|cut| cut.date()).collect();
        snapshot.expires = Some(kept_until(&catalog.schedule(cluster).await?, cut.date(), &dates));
        (snapshot.state, snapshot.ended, snapshot.trouble) = (State::Completed, Some(self.setup.now()), None);
        self.save(snapshot, &[]).await?;
        let stored: u64 = snapshot.parts.iter().filter_map(|part| part.data).map(|data| data.stored).sum();
        tracing::info!(cluster = %self.lease.cluster, snapshot = %snapshot.id, %cut, stored, "snapshot: completed");
        Ok(())
    }

    async fn fold_part(
        &self,
        vault: &Vault,
        part: &PartId,
        base: &Data,
        origin: Origin,
        cut: ClusterTime,
    ) -> Result<(Data, Vec<String>), SnapshotError> {
        let (catalog, cluster) = (&self.setup.catalog, self.lease.cluster);
        let from = origin.noted(unpack::manifest(vault, cluster, part, base).await).await?;
        let room = self.setup.snapshots.room.clone();
        let claim = room_for(&**catalog, cluster, part, base.stream, cut, &room, &self.stop).await?;
        let compatibility = from.compatibility.clone();
        let oplog =
            StoredOplog::new(catalog.clone(), Arc::new(vault.clone()), self.setup.clock.clone(), cluster, part.clone());
        let handle = Handle::current();
        let packs = Packs::new(handle.clone(), vault.clone(), cluster, part)?;
        let level = self.setup.snapshots.level;
        let packer = Packer::new(handle.clone(), catalog.clone(), vault.clone(), cluster, part, level)?;
        let stop = self.stop.clone();
        let source = Source { handle, part: part.clone(), packs, base: from, origin, oplog, room, claim, stop };
        let made = blocking(move || {
            let mut maker = Maker::new(packer);
            source.at(cut)?.into(&mut maker, &|_, _| true)?;
            maker.finish()
        })
        .await?;
        let stream = stream_from(&**catalog, cluster, part, cut).await?;
        let about =
            About { cluster, part, at: cut, stream, made: self.setup.now(), base: Some(base.manifest), compatibility };
        store(&**catalog, vault, part, made.manifest(&about)?, made.stored(), made.names()).await
    }
}

/// From where on a stream is needed to go on from data as of a time.
pub(crate) async fn stream_from(
    catalog: &dyn Catalog,
    cluster: ClusterId,
    part: &PartId,
    at: ClusterTime,
) -> Result<ClusterTime, SnapshotError> {
    let stream = catalog.stream(cluster, part).await?;
    let stream = stream.ok_or_else(|| SnapshotError::NotCaptured(part.clone()))?;
    Ok(match catalog.segment_before(cluster, part, at).await? {
        // The last one before may be of before a gap, since which all is there that is open.
        Some(before) if at >= stream.complete_from => may_go_before(&before).max(stream.from),
        Some(before) => may_go_before(&before),
        None => stream.from,
    })
}

/// Stores a part's manifest; what there is to say of it, and the names of all its blobs.
async fn store(
    catalog: &dyn Catalog,
    vault: &Vault,
    part: &PartId,
    manifest: Manifest,
    stored: u64,
    mut names: Vec<String>,
) -> Result<(Data, Vec<String>), SnapshotError> {
    let (digest, place) = (manifest.digest(), manifest::place(manifest.cluster, part, manifest.latest));
    let (cluster, at, stream) = (manifest.cluster, manifest.latest, manifest.stream);
    let collections = manifest.collections.len() as u64;
    let bytes = blocking(move || Ok(manifest.write()?)).await?;
    let put = pack::put(catalog, vault, &place, bytes.into()).await?;
    let data = Data {
        manifest: put.blob,
        at,
        stream,
        collections,
        documents: digest.documents,
        bytes: digest.bytes,
        stored: stored + put.stored,
    };
    names.push(unpack::manifest_name(cluster, part, &data));
    Ok((data, names))
}

/// Claims room for the temporary files of a fold: they are at most as long as the oplog that is folded.
async fn room_for(
    catalog: &dyn Catalog,
    cluster: ClusterId,
    part: &PartId,
    from: ClusterTime,
    until: ClusterTime,
    room: &Room,
    stop: &CancellationToken,
) -> Result<Claim, SnapshotError> {
    let mut needed = 0;
    let mut next = from;
    loop {
        let page = catalog.segments(cluster, part, next, until, 1_000).await?;
        needed += page.iter().map(|segment| segment.bytes).sum::<u64>();
        match page.last() {
            Some(last) if page.len() == 1_000 => next = last.last.time.after(),
            _ => break,
        }
    }
    room.wait_for(needed.saturating_sub(room.memory as u64), stop).await
}
