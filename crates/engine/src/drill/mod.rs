//! A cluster's drills: the newest checkpoint that can be restored, restored into a throw-away cluster, or one that is
//! given for it, compared, and removed again. What it took is recorded, and what would have been lost.
//!
//! One drill of a cluster is done at a time, under the cluster's lease, and one in a server. A drill does not go on
//! after a crash: its cluster may have gone with the process. What that left is removed at the next start.
//!
//! # Layout
//! - [`stage`]: where it is done
//! - [`throwaway`]: a cluster on this machine that is made for it
//! - [`given`]: a cluster that it fills and empties
//! - [`loss`]: what would have been lost
//! - [`error`]: why one does not pass, and what to do next

mod error;
mod given;
mod loss;
mod stage;
#[cfg(test)]
mod tests;
mod throwaway;

use std::path::Path;
use std::time::Duration;

use stillpoint_catalog::{CatalogError, DRILLS_KEPT, Lease, Page};
use stillpoint_core::checkpoint::{Checkpoint, PartId, State as CheckpointState};
use stillpoint_core::coverage::{Obstacle, Stored};
use stillpoint_core::drill::{Drill, State};
use stillpoint_core::restore::{Options, Point, Restore, State as RestoreState};
use stillpoint_core::{DrillId, RestoreId};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use error::DrillError;
use given::Given;
use stage::Stage;
use throwaway::{Needs, Throwaway};

use crate::Setup;
use crate::restore::{RestoreError, Trying};
use crate::snapshots::Archive;

/// From one look at its restore to the next.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_secs(1);
/// How long a restore that was cancelled may take to end.
const CANCELLED_WITHIN: Duration = Duration::from_secs(30);
/// Checkpoints that are looked at together, and how many looks there are.
const AT_ONCE: u64 = 100;
const LOOKS: u64 = 20;

/// Does a cluster's drills until `stop`, or until the lease is lost.
pub(crate) async fn perform(setup: Setup, lease: Lease, stop: CancellationToken) {
    let run = Run { setup, lease };
    run.sweep().await;
    while !stop.is_cancelled() {
        let done = match run.next().await {
            Ok(Some(drill)) => run.to_the_end(drill, &stop).await,
            Ok(None) => {
                tokio::select! {
                    () = sleep(run.setup.poll) => {}
                    () = run.setup.wake.notified() => {}
                    () = stop.cancelled() => {}
                }
                Ok(())
            }
            Err(why) => Err(why),
        };
        match done {
            Ok(()) => {}
            Err(CatalogError::Fenced | CatalogError::Gone(_)) => return,
            Err(why) => {
                tracing::error!(cluster = %run.lease.cluster, error = %why, "drill: the catalog does not answer, trying again");
                tokio::select! { () = sleep(PAUSE) => {}, () = stop.cancelled() => {} }
            }
        }
    }
}

struct Run {
    setup: Setup,
    lease: Lease,
}

impl Run {
    /// Removes what killed servers left, wherever the cluster's drills are.
    async fn sweep(&self) {
        let temporary = &self.setup.snapshots.room.folder;
        let mut parents = vec![temporary.clone()];
        let catalog = &self.setup.catalog;
        if let Ok(Some(schedule)) = catalog.drill_schedule(self.lease.cluster).await {
            parents.push(throwaway::parent(&schedule.stage, temporary));
        }
        if let Ok(Some(drill)) = catalog.unfinished_drill(self.lease.cluster).await {
            parents.push(throwaway::parent(&drill.stage, temporary));
        }
        parents.sort();
        parents.dedup();
        for parent in parents {
            throwaway::sweep(parent).await;
        }
    }

    /// The drill to be done: one that was asked for, or a new one when its time has come; or the one that a server
    /// before this one began.
    async fn next(&self) -> Result<Option<Drill>, CatalogError> {
        let (catalog, cluster, now) = (&self.setup.catalog, self.lease.cluster, self.setup.now());
        match catalog.unfinished_drill(cluster).await? {
            Some(begun) if begun.state > State::Queued => Ok(Some(begun)),
            // A restore that somebody wants goes first.
            Some(queued) => Ok(catalog.unfinished_restore(cluster).await?.is_none().then_some(queued)),
            None => {
                let Some(schedule) = catalog.drill_schedule(cluster).await? else { return Ok(None) };
                let drills = catalog.drills(cluster, Page { skip: 0, take: DRILLS_KEPT }).await?;
                if schedule.next_due(&drills, now) > now {
                    return Ok(None);
                }
                let due = Drill::queued(DrillId::new(now, rand::random()), cluster, now, true, schedule.stage);
                match catalog.queue_drill(&due).await {
                    // Somebody asked for one at this very moment: that one is found in the next round.
                    Ok(()) | Err(CatalogError::DrillUnderWay(_)) => Ok(None),
                    Err(why) => Err(why),
                }
            }
        }
    }

    async fn save(&self, drill: &Drill) -> Result<(), CatalogError> {
        self.setup.catalog.save_drill(&self.lease, drill).await
    }

    async fn end(&self, mut drill: Drill, state: State, failure: Option<String>) -> Result<(), CatalogError> {
        (drill.state, drill.failure, drill.ended) = (state, failure, Some(self.setup.now()));
        self.save(&drill).await?;
        self.setup.done("drill-ended");
        Ok(())
    }

    /// Ends one that a server before this one began, and removes what it left.
    async fn interrupted(&self, mut drill: Drill, stop: &CancellationToken) -> Result<(), CatalogError> {
        if let Some(restore) = drill.restore {
            self.cancel(restore).await?;
        }
        if let Some(file) = &drill.stage.to_file
            && drill.restore.is_some()
        {
            let emptied = async { self.empty(&drill, &self.given(file).await?, stop).await };
            drill.left = match emptied.await {
                Err(DrillError::Unfinished) => return Ok(()),
                Err(DrillError::Catalog(why)) => return Err(why),
                emptied => emptied.err().map(|why| why.to_string()),
            };
        }
        let why = DrillError::Interrupted("its server was stopped or killed in the middle of it".into());
        self.end(drill, State::Interrupted, Some(why.told())).await
    }

    async fn to_the_end(&self, mut drill: Drill, stop: &CancellationToken) -> Result<(), CatalogError> {
        if drill.state > State::Queued {
            return self.interrupted(drill, stop).await;
        }
        // Two at once would take the room and the time that the other was promised.
        let _alone = tokio::select! {
            permit = self.setup.drilling.acquire() => permit,
            () = stop.cancelled() => return Ok(()),
        };
        (drill.state, drill.begun) = (State::Preparing, Some(self.setup.now()));
        self.save(&drill).await?;
        self.setup.done("drill-begun");
        let (cluster, id) = (self.lease.cluster, drill.id);
        let (state, failure) = match self.attempt(&mut drill, stop).await {
            Ok(()) => {
                tracing::info!(%cluster, drill = %id, milliseconds = drill.split.total(), "drill: passed");
                (State::Passed, None)
            }
            Err(DrillError::Catalog(why @ (CatalogError::Fenced | CatalogError::Gone(_)))) => return Err(why),
            // What was restored may be there still: it is ended as one that another server began.
            Err(DrillError::Catalog(why)) if drill.restore.is_some() => return Err(why),
            Err(DrillError::Unfinished) => return Ok(()),
            Err(why) if !why.could_tell() => {
                tracing::warn!(%cluster, drill = %id, error = %why, "drill: interrupted");
                (State::Interrupted, Some(why.told()))
            }
            Err(why) => {
                tracing::error!(%cluster, drill = %id, error = %why, "drill: failed");
                (State::Failed, Some(why.told()))
            }
        };
        self.end(drill, state, failure).await
    }

    async fn attempt(&self, drill: &mut Drill, stop: &CancellationToken) -> Result<(), DrillError> {
        let begun = Instant::now();
        let (checkpoint, mut stage) = tokio::select! {
            prepared = self.prepare(drill, stop) => prepared?,
            () = stop.cancelled() => return Err(stopped()),
        };
        drill.split.preparing = milliseconds(begun);
        self.setup.done("drill-prepared");
        let tried = self.restore(drill, &checkpoint, &mut stage, stop).await;
        let removed = match stage {
            Stage::Throwaway(cluster) => cluster.remove().await.map_err(DrillError::from),
            Stage::Given(cluster) => self.empty(drill, &cluster, stop).await,
        };
        match removed {
            Ok(()) => {}
            Err(why @ (DrillError::Unfinished | DrillError::Catalog(_))) => return Err(why),
            Err(why) => {
                tracing::error!(cluster = %self.lease.cluster, drill = %drill.id, error = %why, "drill: what it left is removed later");
                drill.left = drill.stage.to_file.is_some().then(|| why.to_string());
            }
        }
        tried
    }

    fn trying(&self, stop: &CancellationToken) -> Trying {
        Trying { stop: stop.clone(), patience: self.setup.restores.patience }
    }

    async fn given(&self, file: &Path) -> Result<Given, DrillError> {
        let kept = self.setup.catalog.clusters(None).await?;
        let kept: Vec<_> = kept.into_iter().map(|cluster| cluster.identity).collect();
        Given::connect(file, &kept).await
    }

    /// Empties a cluster once the restore into it has ended.
    async fn empty(&self, drill: &Drill, given: &Given, stop: &CancellationToken) -> Result<(), DrillError> {
        let Some(restore) = drill.restore else { return Ok(()) };
        if !self.until_ended(restore, stop).await? {
            return Err(match stop.is_cancelled() {
                true => DrillError::Unfinished,
                false => DrillError::Unfit(format!("restore {restore} into it does not end")),
            });
        }
        // Whoever has lost the lease empties nothing.
        self.save(drill).await?;
        let record = self.setup.catalog.restore(self.lease.cluster, restore).await?;
        match given.empty(restore, &self.trying(stop)).await {
            Err(RestoreError::Stopped) => Err(DrillError::Unfinished),
            Err(why) => {
                Err(DrillError::Unfit(format!("it could not be emptied: {why}. The next drill tries it first")))
            }
            Ok(false) if record.is_some_and(|record| record.written().documents > 0) => {
                Err(DrillError::Unfit(format!(
                    "it does not have the mark of restore {restore} any more, or the file names another cluster by now: \
                     look whether what was restored is there, and drop it"
                )))
            }
            Ok(_) => Ok(()),
        }
    }

    /// Finds out what is to be restored, and makes ready what it is to be restored into.
    async fn prepare(&self, drill: &mut Drill, stop: &CancellationToken) -> Result<(Checkpoint, Stage), DrillError> {
        let setup = &self.setup;
        let parent = throwaway::parent(&drill.stage, &setup.snapshots.room.folder);
        throwaway::sweep(parent.clone()).await;
        let vault = setup.vault.vault().await?.clone();
        let (catalog, room) = (setup.catalog.clone(), setup.snapshots.room.clone());
        let archive = Archive::open(catalog, vault, setup.clock.clone(), drill.cluster, room).await?;
        let checkpoint = self.newest(archive.stored()).await?;
        let Some(time) = checkpoint.cut else { return Err(DrillError::Nothing("a checkpoint without a time".into())) };
        (drill.checkpoint, drill.time) = (Some(checkpoint.id), Some(time));
        drill.loss = Some(loss::of(&archive, drill.begun.unwrap_or(drill.requested), time).await?);
        self.save(drill).await?;

        if let Some(file) = &drill.stage.to_file {
            let given = self.given(file).await?;
            given.prepare(&*setup.catalog, drill.cluster, &self.trying(stop)).await?;
            return Ok((checkpoint, Stage::Given(Box::new(given))));
        }
        let parts = archive.parts(time);
        let (mut bytes, mut compatibility) = (0_u64, None);
        for part in &parts {
            let base = archive.base(part, time).map_err(|why| DrillError::Nothing(Obstacle::all(&why)))?;
            bytes = bytes.saturating_add(base.bytes);
            if *part == PartId::ConfigServers {
                compatibility = Some(archive.compatibility(part, &base).await?);
            }
        }
        let compatibility = compatibility.ok_or(DrillError::NoConfigServers)?;
        let stage = Throwaway::start(&drill.stage, &parent, &Needs { parts, bytes, compatibility }).await?;
        Ok((checkpoint, Stage::Throwaway(stage)))
    }

    /// The newest checkpoint that can be restored.
    async fn newest(&self, stored: Stored<'_>) -> Result<Checkpoint, DrillError> {
        let mut completed = None;
        for look in 0..LOOKS {
            let page = Page { skip: look * AT_ONCE, take: AT_ONCE };
            let checkpoints = self.setup.catalog.checkpoints(self.lease.cluster, page).await?;
            let last = (checkpoints.len() as u64) < AT_ONCE;
            for checkpoint in checkpoints {
                if stored.restorable(&checkpoint) {
                    return Ok(checkpoint);
                }
                if checkpoint.state == CheckpointState::Completed {
                    completed.get_or_insert(checkpoint);
                }
            }
            if last {
                break;
            }
        }
        Err(DrillError::Nothing(match completed {
            None => {
                "there is no completed checkpoint to be restored: take one with `stillpoint checkpoint take`".into()
            }
            Some(newest) => format!(
                "no checkpoint can be restored. What is in the way of the newest, {}: {} `stillpoint status` says what to do",
                newest.id,
                Obstacle::all(&stored.obstacles(&newest))
            ),
        }))
    }

    /// Restores a checkpoint, and waits for the end of that.
    async fn restore(
        &self,
        drill: &mut Drill,
        checkpoint: &Checkpoint,
        stage: &mut Stage,
        stop: &CancellationToken,
    ) -> Result<(), DrillError> {
        let (catalog, now) = (&self.setup.catalog, self.setup.now());
        let Some(time) = checkpoint.cut else { return Err(DrillError::Nothing("a checkpoint without a time".into())) };
        let id = RestoreId::new(now, rand::random());
        (drill.restore, drill.state) = (Some(id), State::Restoring);
        self.save(drill).await?;
        let options = Options { verify: true, ..Options::default() };
        let point = Point::Checkpoint(checkpoint.id);
        let queued = Restore::queued(id, drill.cluster, now, point, time, stage.target(), options);
        let restore = Restore { drill: Some(drill.id), ..queued };
        match catalog.queue_restore(&restore, Some(stage.uri())).await {
            Err(CatalogError::RestoreUnderWay(other)) => {
                return Err(DrillError::Interrupted(format!(
                    "restore {other} was asked for meanwhile, and goes first"
                )));
            }
            queued => queued?,
        }
        self.setup.done("drill-asked");
        let followed = self.follow(drill, id, stage, stop).await;
        if followed.is_err() {
            // It must not go on with a cluster that is gone.
            self.cancel(id).await?;
            if !stop.is_cancelled() {
                self.until_ended(id, stop).await?;
            }
        }
        followed
    }

    async fn follow(
        &self,
        drill: &mut Drill,
        id: RestoreId,
        stage: &mut Stage,
        stop: &CancellationToken,
    ) -> Result<(), DrillError> {
        let (mut at, mut since) = (RestoreState::Queued, Instant::now());
        loop {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return Err(stopped()),
            }
            let restore = self.setup.catalog.restore(drill.cluster, id).await?.ok_or(CatalogError::Gone("restore"))?;
            if restore.state != at {
                drill.split.add(at, milliseconds(since));
                (at, since) = (restore.state, Instant::now());
            }
            drill.written = restore.written();
            match restore.state {
                RestoreState::Finished => return Ok(()),
                RestoreState::Broken => {
                    let why = restore.failure.unwrap_or("its restore is broken".into());
                    return Err(DrillError::NotRestored { why, given: drill.stage.to_file.is_some() });
                }
                RestoreState::Killed => return Err(DrillError::Interrupted("somebody cancelled its restore".into())),
                _ => {}
            }
            if let Some(why) = stage.failed() {
                return Err(why.into());
            }
        }
    }

    /// Cancels a restore, if it is there and has not ended.
    async fn cancel(&self, id: RestoreId) -> Result<(), CatalogError> {
        match self.setup.catalog.cancel_restore(self.lease.cluster, id, self.setup.now()).await {
            Ok(_) | Err(CatalogError::RestoreEnded(_) | CatalogError::Gone(_)) => Ok(()),
            Err(why) => Err(why),
        }
    }

    /// Waits for the end of a restore; whether it has ended.
    async fn until_ended(&self, id: RestoreId, stop: &CancellationToken) -> Result<bool, CatalogError> {
        let end = Instant::now() + CANCELLED_WITHIN;
        loop {
            let restore = self.setup.catalog.restore(self.lease.cluster, id).await?;
            if restore.is_none_or(|restore| restore.state.ended()) {
                return Ok(true);
            }
            if Instant::now() > end || stop.is_cancelled() {
                return Ok(false);
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

fn stopped() -> DrillError {
    DrillError::Interrupted("the server was stopped".into())
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
