//! Capture: every part's oplog, into the vault, for good.
//!
//! One task for each part that is in the cluster, under the cluster's lease. A shard that is added is
//! found within [`SURVEY`], and captured from the moment it was added; one that was removed is captured to
//! its end.
//!
//! # Layout
//! - [`part`]: reads one part's oplog, seals segments, stores and notes them
//! - [`sealer`]: the segment that is being filled
//! - [`ports`]: what that needs from outside
//! - [`figures`]: how it stands

mod figures;
mod part;
mod ports;
mod sealer;
#[cfg(test)]
mod simulation;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use stillpoint_catalog::{CatalogError, Lease};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{CaptureReport, Gap, GapCause, Stream};
use stillpoint_core::{ClusterId, ClusterTime};
use stillpoint_mongo::{MongoError, PartLink};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use part::Pace;

use crate::Setup;
use crate::actions::Connection;
use figures::Figures;
use part::{End, PartCapture, stored_until};
use ports::CatalogLedger;
use sealer::Of;

/// How often the shards are looked for.
const SURVEY: Duration = Duration::from_secs(5);
/// How often each part's figures are noted in the catalog, for the command line.
const REPORT: Duration = Duration::from_secs(5);
/// How often a part is asked how far its oplog reaches.
const EXTENT: Duration = Duration::from_secs(30);
/// For one survey, or one question about an oplog's extent.
const ANSWER: Duration = Duration::from_secs(10);
/// Large batches in memory at once, of all parts of all clusters.
pub(crate) const ROOM: usize = 3;

/// How the capture of every part stands that this process captures.
#[derive(Debug, Default)]
pub struct Captures(Mutex<BTreeMap<(ClusterId, PartId), Arc<Figures>>>);

impl Captures {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(ClusterId, PartId), Arc<Figures>>> {
        // Nothing here can panic while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of each part, as of now.
    pub fn reports(&self, now: jiff::Timestamp) -> Vec<(ClusterId, PartId, CaptureReport)> {
        let all = self.all();
        all.iter().map(|((cluster, part), figures)| (*cluster, part.clone(), figures.report(now))).collect()
    }

    /// What is in a part's way, if anything is.
    pub(crate) fn trouble(&self, cluster: ClusterId, part: &PartId) -> Option<String> {
        self.all().get(&(cluster, part.clone()))?.in_the_way()
    }
}

/// Captures a cluster until `stop`, or until the lease is lost.
pub(crate) async fn capture(setup: Setup, lease: Lease, connection: Arc<Connection>, stop: CancellationToken) {
    let deposed = CancellationToken::new();
    let mut cluster = ClusterCapture {
        setup,
        lease,
        connection,
        deposed: deposed.clone(),
        tasks: BTreeMap::new(),
        gone: BTreeMap::new(),
        reported: None,
    };
    while !stop.is_cancelled() && !deposed.is_cancelled() {
        cluster.look(&stop).await;
        cluster.report().await;
        tokio::select! {
            () = sleep(SURVEY) => {}
            () = stop.cancelled() => {}
            () = deposed.cancelled() => {}
        }
    }
    stop.cancel();
    let (id, limit) = (cluster.lease.cluster, cluster.limit());
    join_all(std::mem::take(&mut cluster.tasks).into_values().map(|task| task.end(limit))).await;
    // What was stored last is noted, too.
    cluster.reported = None;
    cluster.report().await;
    cluster.setup.captures.all().retain(|(of, _), _| *of != id);
}

struct ClusterCapture {
    setup: Setup,
    lease: Lease,
    connection: Arc<Connection>,
    /// Another holder has the lease.
    deposed: CancellationToken,
    tasks: BTreeMap<PartId, Task>,
    /// Shards that are no longer in the cluster, whose end is not yet noted: whether all of them is stored.
    gone: BTreeMap<PartId, bool>,
    reported: Option<Instant>,
}

struct Task {
    link: PartLink,
    stop: CancellationToken,
    task: JoinHandle<()>,
    figures: Arc<Figures>,
    asked: Option<Instant>,
}

impl Task {
    /// Ends it. What it cannot store within the limit is read again by the next.
    async fn end(mut self, limit: Duration) {
        self.stop.cancel();
        // A panic was already reported where it happened.
        if timeout(limit, &mut self.task).await.is_err() {
            self.task.abort();
            let _ = self.task.await;
        }
    }
}

impl ClusterCapture {
    /// For a task to end: it stores what it can in less.
    fn limit(&self) -> Duration {
        2 * self.setup.pace.finish
    }

    /// Begins with the shards that are new, and ends with those that are gone.
    async fn look(&mut self, stop: &CancellationToken) {
        let survey = async { self.connection.link().await?.parts().await };
        let parts = match timeout(ANSWER, survey)
            .await
            .unwrap_or(Err(MongoError::TooSlow { part: PartId::ConfigServers.to_string(), what: "find the shards" }))
        {
            Ok(parts) => parts,
            Err(e) => {
                tracing::debug!(cluster = %self.lease.cluster, error = %e, "capture: the shards cannot be found, trying again");
                return;
            }
        };
        if let Err(e) = self.follow(parts, stop).await {
            tracing::warn!(cluster = %self.lease.cluster, error = %e, "capture: the catalog does not answer, trying again");
        }
    }

    async fn follow(&mut self, parts: Vec<PartLink>, stop: &CancellationToken) -> Result<(), CatalogError> {
        let streams = self.setup.catalog.streams(self.lease.cluster).await?;
        let gone: Vec<_> = streams
            .iter()
            .filter(|stream| stream.ended.is_none() && !parts.iter().any(|part| part.id == stream.part))
            .collect();
        for stream in gone {
            self.end(stream).await?;
        }
        // One that panicked is begun again.
        self.tasks.retain(|_, task| !task.task.is_finished());
        // What the cluster had before this shard was added is in the other parts' streams.
        let captured_since = streams.iter().map(|stream| stream.complete_from).min();
        for part in parts {
            if self.tasks.get(&part.id).is_some_and(|task| task.link.replica_set == part.replica_set) {
                continue;
            }
            // Another replica set has come under its name.
            if let Some(other) = self.tasks.remove(&part.id) {
                other.end(self.limit()).await;
            }
            let since = part.added.filter(|added| captured_since.is_some_and(|since| since < *added));
            self.begin(part, since, stop);
        }
        Ok(())
    }

    fn begin(&mut self, part: PartLink, since: Option<ClusterTime>, stop: &CancellationToken) {
        let (setup, cluster) = (&self.setup, self.lease.cluster);
        let figures = Arc::new(Figures::new(format!("{} of {}", part.id, self.connection.cluster.name)));
        setup.captures.all().insert((cluster, part.id.clone()), figures.clone());
        self.gone.remove(&part.id);
        let capture = PartCapture {
            of: Of { cluster, part: part.id.clone() },
            replica_set: part.replica_set.clone(),
            since,
            source: part.clone(),
            blobs: setup.vault.clone(),
            ledger: CatalogLedger { setup: setup.clone(), lease: self.lease.clone(), part: part.id.clone() },
            pace: setup.pace.clone(),
            clock: setup.clock.clone(),
            room: setup.room.clone(),
            figures: figures.clone(),
            after_action: setup.after_action.clone(),
        };
        let stop = stop.child_token();
        let (stopped, deposed) = (stop.clone(), self.deposed.clone());
        let task = tokio::spawn(async move {
            if capture.run(&stopped).await == End::Deposed {
                deposed.cancel();
            }
        });
        self.tasks.insert(part.id.clone(), Task { link: part, stop, task, figures, asked: None });
    }

    /// A shard is no longer in the cluster. Its last entries are those of its chunks' leaving, so its oplog
    /// is captured to its end, if it still can be.
    async fn end(&mut self, stream: &Stream) -> Result<(), CatalogError> {
        if let Some(task) = self.tasks.remove(&stream.part) {
            let whole = self.capture_to_its_end(task).await;
            self.gone.insert(stream.part.clone(), whole);
        }
        // Without a task it has gone while no server ran.
        let whole = self.gone.get(&stream.part).is_some_and(|whole| *whole);
        let now = self.setup.now();
        let catalog = &self.setup.catalog;
        if !whole {
            let last = catalog.last_segment(stream.cluster, &stream.part).await?;
            let gap = Gap {
                part: stream.part.clone(),
                after: stored_until(stream, last.as_ref()),
                // Until it is back.
                until: ClusterTime::MAX,
                cause: GapCause::ShardAway,
                found: now,
                detail: "its oplog could not be captured to its end before the shard was gone".into(),
            };
            tracing::warn!(cluster = %stream.cluster, "capture: a gap. {gap} ({})", gap.detail);
            catalog.add_gap(stream.cluster, &gap).await?;
        }
        tracing::info!(cluster = %stream.cluster, part = %stream.part, "capture ends: the shard is no longer in the cluster");
        self.setup.captures.all().remove(&(stream.cluster, stream.part.clone()));
        catalog.end_stream(&self.lease, &stream.part, now).await?;
        self.gone.remove(&stream.part);
        Ok(())
    }

    /// Whether all that a majority of the shard's members has now is stored.
    async fn capture_to_its_end(&self, task: Task) -> bool {
        let caught_up = async {
            // The member that is read from may know less.
            let newest = task.link.committed().await.ok()?;
            task.figures.read(Some(newest));
            while !task.figures.has_caught_up() {
                sleep(Duration::from_millis(100)).await;
            }
            Some(())
        };
        let caught_up = timeout(self.setup.pace.finish, caught_up).await.ok().flatten().is_some();
        let figures = task.figures.clone();
        task.end(self.limit()).await;
        caught_up && figures.has_stored_all()
    }

    async fn report(&mut self) {
        if self.reported.is_some_and(|at| at.elapsed() < REPORT) {
            return;
        }
        self.reported = Some(Instant::now());
        let extents = self.tasks.values_mut().filter(|task| task.asked.is_none_or(|at| at.elapsed() >= EXTENT));
        join_all(extents.map(|task| {
            task.asked = Some(Instant::now());
            async {
                if let Ok(Ok(extent)) = timeout(ANSWER, task.link.oplog_extent()).await {
                    task.figures.extent(extent);
                }
            }
        }))
        .await;
        for (part, task) in &self.tasks {
            let report = task.figures.report(self.setup.now());
            if let Err(e) = self.setup.catalog.report_capture(self.lease.cluster, part, &report).await {
                tracing::debug!(cluster = %self.lease.cluster, error = %e, "capture: the figures could not be noted");
            }
        }
    }
}
