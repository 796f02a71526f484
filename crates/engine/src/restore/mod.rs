//! A cluster's restores: its data as of a time, written into another cluster, compared, and only then shown; or
//! into files that are downloaded.
//!
//! One restore of a cluster is done at a time, under the cluster's lease. Whatever happens to this process, the
//! next one goes on: each step can be done again, and what is done is noted. Until a restore is finished its
//! target has a mark, and no router shows anything of what was written.
//!
//! # Layout
//! - [`plan`]: which part goes where, and whether the target will do
//! - [`naming`]: which collections, and what they are called in the target
//! - [`selection`]: what of a part's data goes into the target
//! - [`routing`]: what config servers know of collections
//! - [`load`]: documents and indexes, into the target
//! - [`capped`]: collections that hold more than they may
//! - [`compare`]: whether they are there
//! - [`open`]: the last step, which shows them
//! - [`download`]: files instead of a target
//! - [`expect`]: what would have been written, to compare a target with

mod capped;
mod compare;
pub(crate) mod download;
mod error;
mod expect;
mod load;
pub mod naming;
mod open;
pub mod plan;
mod routing;
mod selection;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use stillpoint_catalog::{CatalogError, Lease};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::{Mark, Point, Restore, State, Target as Place};
use stillpoint_core::snapshot::Data;
use stillpoint_core::verification::{Verdict, Verification};
use stillpoint_core::{ClusterTime, RestoreId};
use stillpoint_fold::{Collection, Uuid};
use stillpoint_mongo::Destination;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use error::RestoreError;
pub use expect::against;
pub(crate) use load::Trying;
use load::{Loader, Note, Progress, Setting, Target, Written, parts_of};
use naming::{Naming, is_internal};
use open::Opening;
use plan::Plan;
pub(crate) use plan::nothing_missing;
use routing::Routing;

use crate::Setup;
use crate::actions::Connection;
use crate::snapshots::owners::Ownerships;
use crate::snapshots::read::listed;
use crate::snapshots::state::State as Folded;
use crate::snapshots::{Archive, blocking};

/// From one look at the record, and one note in it, to the next.
const NOTE_EVERY: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How restores are done.
#[derive(Debug, Clone)]
pub struct Restores {
    /// How long what may pass is tried again without getting any further: a target that does not answer.
    pub patience: Duration,
    /// A folder of the server's own, for files that are to be downloaded.
    pub downloads: PathBuf,
}

impl Default for Restores {
    fn default() -> Restores {
        Restores { patience: Duration::from_secs(600), downloads: std::env::temp_dir().join("stillpoint.downloads") }
    }
}

/// Does a cluster's restores until `stop`, or until the lease is lost.
pub(crate) async fn perform(setup: Setup, lease: Lease, connection: Arc<Connection>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause = match setup.catalog.unfinished_restore(lease.cluster).await {
            Ok(Some(restore)) => {
                let run = Run { setup: setup.clone(), lease: lease.clone(), connection: connection.clone() };
                match run.to_the_end(restore, &stop).await {
                    Ok(()) => continue,
                    Err(RestoreError::Catalog(CatalogError::Fenced | CatalogError::Gone(_))) => return,
                    Err(RestoreError::Stopped) if stop.is_cancelled() => return,
                    Err(why) => {
                        tracing::error!(cluster = %lease.cluster, error = %why, "restore: its record cannot be written, trying again");
                        PAUSE
                    }
                }
            }
            Ok(None) => setup.poll,
            Err(CatalogError::Gone(_)) => return,
            Err(why) => {
                tracing::error!(cluster = %lease.cluster, error = %why, "the catalog does not answer, trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = setup.wake.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

struct Run {
    setup: Setup,
    lease: Lease,
    connection: Arc<Connection>,
}

/// All that a restore is made of, once it is known.
struct Work {
    plan: Arc<Plan>,
    /// Each shard's data, to be poured, in the order of the plan's.
    shards: Vec<Folded>,
    routing: Arc<Routing>,
    ownerships: Arc<Ownerships>,
    /// The collections that the target has.
    made: Made,
}

/// What the collections that a part of the target has are called.
type Made = BTreeMap<PartId, BTreeMap<Uuid, String>>;

impl Run {
    /// Goes on with a restore until it has ended.
    async fn to_the_end(&self, mut restore: Restore, stop: &CancellationToken) -> Result<(), RestoreError> {
        let mut standstill = Standstill { furthest: None };
        let mut pause = PAUSE;
        loop {
            let why = match self.attempt(&mut restore, stop).await {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            match &why {
                RestoreError::Catalog(CatalogError::Fenced | CatalogError::Gone(_)) => return Err(why),
                RestoreError::Stopped if stop.is_cancelled() => return Err(why),
                RestoreError::Catalog(CatalogError::RestoreOutdated(_)) => return Ok(()),
                RestoreError::Killed => return self.end(&mut restore, State::Killed, None).await,
                _ => {}
            }
            let still = standstill.at(how_far(&restore), Instant::now());
            if why.is_lasting() || still > self.setup.restores.patience {
                let text = failure(&restore, &why);
                tracing::error!(cluster = %self.lease.cluster, restore = %restore.id, "restore: broken: {text}");
                return self.end(&mut restore, State::Broken, Some(text)).await;
            }
            tracing::warn!(cluster = %self.lease.cluster, restore = %restore.id, error = %why, "restore: trying again");
            restore.trouble = Some(why.to_string());
            self.save(&restore, &[]).await?;
            let mut left = pause;
            while !left.is_zero() && !self.is_cancelled(&restore).await? {
                let step = left.min(NOTE_EVERY);
                tokio::select! {
                    () = sleep(step) => {}
                    () = stop.cancelled() => return Err(RestoreError::Stopped),
                }
                left -= step;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn trying(&self, stop: &CancellationToken) -> Trying {
        Trying { stop: stop.clone(), patience: self.setup.restores.patience }
    }

    async fn save(&self, restore: &Restore, marks: &[Mark]) -> Result<(), RestoreError> {
        Ok(self.setup.catalog.save_restore(&self.lease, restore, marks).await?)
    }

    async fn end(&self, restore: &mut Restore, state: State, failure: Option<String>) -> Result<(), RestoreError> {
        (restore.state, restore.failure, restore.trouble) = (state, failure, None);
        restore.ended = Some(self.setup.now());
        restore.cancelled |= state == State::Killed;
        restore.parts.iter_mut().for_each(|part| part.doing = None);
        self.save(restore, &[]).await?;
        self.setup.done("restore-ended");
        if state != State::Finished && matches!(restore.target, Place::Download { .. }) {
            download::discard(&self.setup.restores.downloads, restore);
        }
        Ok(())
    }

    /// From where it is to its end.
    async fn attempt(&self, restore: &mut Restore, stop: &CancellationToken) -> Result<(), RestoreError> {
        let stop = stop.child_token();
        // Whatever ends this ends what it began.
        let _guard = stop.clone().drop_guard();
        // The cluster of a drill that was cancelled is gone: there is nothing to be finished.
        if (!restore.told || restore.drill.is_some()) && self.is_cancelled(restore).await? {
            return Err(RestoreError::Killed);
        }
        if let Place::Download { .. } = restore.target {
            return self.prepare(restore, &stop).await;
        }
        let destination = Destination::connect(&self.uri(restore).await?).await?;
        if !restore.told {
            self.write(restore, &destination, &stop).await?;
            restore.told = true;
            self.save(restore, &[]).await?;
            self.setup.done("restore-told");
        }
        // From here on clients may work with it, and nothing is written or compared again.
        let naming = Naming::new(&restore.options.only)?;
        let trying = self.trying(&stop);
        open::introduce(&destination, &naming, &trying).await?;
        // A drill's stays until its cluster is emptied: what is in it is not to be kept.
        if restore.drill.is_none() {
            trying.again(|| destination.marked().unmark()).await?;
        }
        self.setup.done("restore-opened");
        self.finish(restore).await
    }

    /// All that is written into the target.
    async fn write(
        &self,
        restore: &mut Restore,
        destination: &Destination,
        stop: &CancellationToken,
    ) -> Result<(), RestoreError> {
        let work = self.check(restore, destination, stop).await?;
        restore.trouble = None;
        let written = self.load(restore, work.shards, &work.plan, &work.made, &work.ownerships, stop).await?;
        if restore.state < State::Opening {
            if restore.options.verify {
                self.verify(restore, &work.plan, &written, stop).await?;
            }
            restore.state = State::Opening;
            self.save(restore, &[]).await?;
            self.setup.done("restore-verified");
        }
        let opening = Opening {
            plan: &work.plan,
            destination,
            options: &restore.options,
            routing: &work.routing,
            written: &written,
            trying: &self.trying(stop),
        };
        opening
            .open(|what| tracing::info!(cluster = %self.lease.cluster, restore = %restore.id, "restore: {what}"))
            .await
    }

    async fn finish(&self, restore: &mut Restore) -> Result<(), RestoreError> {
        if let Some(config) = restore.parts.iter_mut().find(|part| part.id == PartId::ConfigServers) {
            config.written = config.expected;
        }
        tracing::info!(cluster = %self.lease.cluster, restore = %restore.id, time = %restore.time, "restore: finished");
        self.end(restore, State::Finished, None).await
    }

    async fn uri(&self, restore: &Restore) -> Result<SecretString, RestoreError> {
        let catalog = &self.setup.catalog;
        match &restore.target {
            Place::Cluster(id) => match catalog.cluster(*id).await? {
                Some(cluster) => Ok(cluster.uri),
                None => Err(RestoreError::refused("the cluster that it was to go into is not kept here any more")),
            },
            Place::Hosts(_) => match catalog.restore_uri(restore.cluster, restore.id).await? {
                Some(uri) => Ok(uri),
                None => Err(RestoreError::refused("the connection string of its target is not there")),
            },
            Place::Download { .. } => Err(RestoreError::refused("it has no target")),
        }
    }

    /// What is stored of the cluster; reading it ends with `stop`.
    async fn archive(&self, restore: &Restore, stop: &CancellationToken) -> Result<Archive, RestoreError> {
        let vault = self.setup.vault.vault().await?.clone();
        let mut archive = Archive::open(
            self.setup.catalog.clone(),
            vault,
            self.setup.clock.clone(),
            restore.cluster,
            self.setup.snapshots.room.clone(),
        )
        .await?;
        archive.stop = stop.clone();
        Ok(archive)
    }

    /// Looks at all that is needed, and marks the target.
    async fn check(
        &self,
        restore: &mut Restore,
        destination: &Destination,
        stop: &CancellationToken,
    ) -> Result<Work, RestoreError> {
        if restore.state == State::Queued {
            restore.state = State::Checking;
            self.save(restore, &[]).await?;
        }
        let archive = self.archive(restore, stop).await?;
        let mut options = restore.options.clone();
        if restore.state.has_begun() {
            // Which shard takes what was settled, whatever shards there are by now.
            let settled = restore.parts.iter().filter_map(|part| match &part.id {
                PartId::Shard(name) => Some((name.clone(), part.shard.clone()?)),
                PartId::ConfigServers => None,
            });
            options.shards.extend(settled);
        }
        let plan = Arc::new(Plan::make(&archive, destination, &options, restore.time).await?);
        if plan.steps.iter().any(|step| plan.merges(&step.to.id)) {
            // Two shards may have different documents with one `_id`: what is lost then must be seen.
            restore.options.verify = true;
        }
        // The mark may have been written, and the process have died before the record said so.
        let is_ours = restore.state.has_begun() || self.is_marked(restore, destination).await?;
        let ours = Some(restore.id).filter(|_| is_ours);
        let outlook = plan.check(&archive, destination, &self.connection.cluster.identity, ours).await?;
        outlook.warnings.iter().for_each(|warning| tracing::warn!(restore = %restore.id, "restore: {warning}"));
        let at_once = self.setup.snapshots.parts_at_once;
        let folding = async {
            let is_quiet = matches!(restore.point, Point::Checkpoint(_));
            if !is_quiet {
                let loads = plan.loads().map(|step| (&step.part, &step.base));
                nothing_under_way(&archive, loads, restore.time).await?;
            }
            let folded = fold(&archive, &plan, restore.time, at_once).await?;
            if !is_quiet && plan.has_config() {
                not_under_way(&PartId::ConfigServers, &folded.1)?;
            }
            Ok(folded)
        };
        let (shards, routing) = self.watching(restore, stop, folding).await?;
        all_is_there(&plan, &shards)?;
        let ownerships = Arc::new(routing.ownerships()?);
        one_name_each(&plan, &shards, &ownerships)?;
        let made = made(&plan).await?;
        none_elsewhere(&plan, &shards, &ownerships, &made)?;
        zones_are_free(&plan, &routing, destination).await?;
        // Known to be of use before the first write.
        for table in routing::TABLES {
            if plan.has_config() {
                routing.rows(table, &plan.naming, &plan.shards)?;
            }
        }
        if restore.state == State::Checking {
            self.begin(restore, &plan, destination).await?;
        }
        Ok(Work { plan, shards, routing: Arc::new(routing), ownerships, made })
    }

    async fn is_marked(&self, restore: &Restore, destination: &Destination) -> Result<bool, RestoreError> {
        Ok(destination.marked().marked().await? == Some(restore.id.to_string()))
    }

    async fn begin(&self, restore: &mut Restore, plan: &Plan, destination: &Destination) -> Result<(), RestoreError> {
        let known = restore.parts.clone();
        restore.parts = plan.parts(|part| {
            let job = known.iter().find(|known| known.id == *part).map(|known| known.job);
            job.unwrap_or_else(|| RestoreId::new(self.setup.now(), rand::random()))
        });
        let mark = destination.marked().mark(&Plan::mark(restore, self.setup.now())).await?;
        match mark {
            Some(mark) if mark == restore.id.to_string() => {}
            mark => return Err(plan.marked_by_another(destination, &mark.unwrap_or_default())),
        }
        self.setup.done("restore-marked");
        // Much may have happened since it was looked at; from here on nobody else restores into it.
        if let Err(why) = plan.is_empty(destination).await {
            if why.is_lasting() {
                destination.marked().unmark().await?;
            }
            return Err(why);
        }
        // What allows a drill to empty it again.
        if restore.drill.is_some() {
            destination.mark_empty(&restore.id.to_string()).await?;
        }
        restore.state = State::Loading;
        self.save(restore, &[]).await?;
        tracing::info!(
            cluster = %self.lease.cluster, restore = %restore.id, time = %restore.time, documents = restore.expected().documents,
            "restore: begins"
        );
        Ok(())
    }

    /// Does something while looking whether somebody ends the restore.
    async fn watching<T>(
        &self,
        restore: &Restore,
        stop: &CancellationToken,
        work: impl Future<Output = Result<T, RestoreError>>,
    ) -> Result<T, RestoreError> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep(NOTE_EVERY) => {
                    if self.is_cancelled(restore).await? {
                        stop.cancel();
                        // It ends at the next look, and nothing of it goes on behind our back.
                        let _ = work.await;
                        return Err(RestoreError::Killed);
                    }
                }
            }
        }
    }

    async fn is_cancelled(&self, restore: &Restore) -> Result<bool, RestoreError> {
        let stored = self.setup.catalog.restore(restore.cluster, restore.id).await?;
        Ok(stored.ok_or(CatalogError::Gone("restore"))?.cancelled)
    }

    /// Writes the documents of all shards, and builds indexes.
    async fn load(
        &self,
        restore: &mut Restore,
        shards: Vec<Folded>,
        plan: &Plan,
        made: &Made,
        ownerships: &Arc<Ownerships>,
        stop: &CancellationToken,
    ) -> Result<BTreeMap<PartId, BTreeMap<Uuid, Written>>, RestoreError> {
        let mut noted = self.noted(restore).await?;
        // What is not there is not done, whatever was noted.
        let is_made = |to: &PartId, uuid: &Uuid| made.get(to).is_some_and(|made| made.contains_key(uuid));
        let mut targets = BTreeMap::new();
        for link in plan.targets() {
            let made = made.get(&link.id).into_iter().flatten().map(|(uuid, _)| *uuid).collect();
            targets.insert(link.id.clone(), Arc::new(Target::new(link.clone(), made)));
        }
        let (notes, mut marks) = mpsc::unbounded_channel();
        let stop = stop.child_token();
        let mut progress = BTreeMap::new();
        let mut loads = tokio::task::JoinSet::new();
        for (step, folded) in plan.loads().zip(shards) {
            let to = step.to.id.clone();
            let its = Arc::new(Progress::default());
            progress.insert(step.part.clone(), its.clone());
            let mut noted = noted.remove(&step.part).unwrap_or_default();
            noted.retain(|uuid, _| is_made(&to, uuid));
            let setting = Setting {
                selection: plan.selection(step, ownerships),
                target: targets[&to].clone(),
                progress: its.clone(),
                notes: notes.clone(),
                noted,
                trying: self.trying(&stop),
            };
            let handle = Handle::current();
            loads.spawn_blocking(move || {
                let mut loader = Loader::new(handle, setting, folded.catalogue());
                let wants = loader.wants();
                let poured = folded.into(&mut loader, &wants);
                let written = loader.finish(poured);
                its.end();
                written.map(|written| (to, written))
            });
        }
        drop(notes);
        let mut written = BTreeMap::<PartId, BTreeMap<Uuid, Written>>::new();
        let mut failed = None::<RestoreError>;
        let mut next = Instant::now() + NOTE_EVERY;
        loop {
            tokio::select! {
                done = loads.join_next() => match done {
                    None => break,
                    Some(Ok(Ok((to, its)))) => merge(written.entry(to).or_default(), its),
                    Some(Ok(Err(why))) => {
                        stop.cancel();
                        if failed.as_ref().is_none_or(|first| matches!(first, RestoreError::Stopped)) {
                            failed = Some(why);
                        }
                    }
                    Some(Err(e)) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                    Some(Err(_)) => failed = failed.or(Some(RestoreError::Stopped)),
                },
                () = tokio::time::sleep_until(next) => {
                    next = Instant::now() + NOTE_EVERY;
                    if let Err(why) = self.note(restore, &progress, &mut marks).await {
                        stop.cancel();
                        failed = Some(why);
                    }
                }
            }
        }
        if !matches!(failed, Some(RestoreError::Killed | RestoreError::Catalog(_))) {
            self.note(restore, &progress, &mut marks).await?;
        }
        self.setup.done("restore-loaded");
        match failed {
            Some(why) => Err(why),
            None => Ok(written),
        }
    }

    /// Notes how far all parts are, and learns whether somebody ends it.
    async fn note(
        &self,
        restore: &mut Restore,
        progress: &BTreeMap<PartId, Arc<Progress>>,
        marks: &mut mpsc::UnboundedReceiver<Mark>,
    ) -> Result<(), RestoreError> {
        if self.is_cancelled(restore).await? {
            return Err(RestoreError::Killed);
        }
        let mut newest = BTreeMap::new();
        while let Ok(mark) = marks.try_recv() {
            newest.insert((mark.part.key(), mark.collection.clone()), mark);
        }
        for part in &mut restore.parts {
            if let Some(its) = progress.get(&part.id) {
                (part.written, part.doing) = (its.amount(), its.doing());
            }
        }
        let marks: Vec<_> = newest.into_values().collect();
        self.save(restore, &marks).await?;
        self.setup.done("restore-noted");
        Ok(())
    }

    /// What is noted of each part's collections.
    async fn noted(&self, restore: &Restore) -> Result<BTreeMap<PartId, BTreeMap<Uuid, Note>>, RestoreError> {
        let mut noted = BTreeMap::<PartId, BTreeMap<Uuid, Note>>::new();
        for mark in self.setup.catalog.restore_marks(restore.cluster, restore.id).await? {
            let wrong = |why: String| RestoreError::Refused(format!("a note of how far it was cannot be read: {why}"));
            let uuid = bson::Uuid::parse_str(&mark.collection).map_err(|e| wrong(e.to_string()))?;
            let note = serde_json::from_str(&mark.record).map_err(|e| wrong(e.to_string()))?;
            noted.entry(mark.part).or_default().insert(Uuid(uuid.bytes()), note);
        }
        Ok(noted)
    }

    /// Compares every part of the target with what was written into it.
    async fn verify(
        &self,
        restore: &mut Restore,
        plan: &Plan,
        written: &BTreeMap<PartId, BTreeMap<Uuid, Written>>,
        stop: &CancellationToken,
    ) -> Result<(), RestoreError> {
        restore.state = State::Verifying;
        self.save(restore, &[]).await?;
        let targets: Vec<_> = plan.targets().into_iter().filter(|target| target.id != PartId::ConfigServers).collect();
        let none = BTreeMap::new();
        let trying = self.trying(stop);
        let compare = targets.iter().map(|target| {
            let written = written.get(&target.id).unwrap_or(&none);
            compare::compare(target, written, &plan.naming, compare::Stage::Loaded, &trying)
        });
        let compare = async {
            tokio::select! {
                parts = futures::future::try_join_all(compare) => parts,
                () = stop.cancelled() => Err(RestoreError::Stopped),
            }
        };
        let parts = self.watching(restore, stop, compare).await?;
        let verification = Verification { at: self.setup.now(), time: restore.time, parts };
        let verdict = verification.verdict();
        let first = verification.parts.iter().flat_map(|part| &part.different.named).next().cloned();
        restore.verification = Some(verification);
        match (verdict, first) {
            (Verdict::Equal, _) => Ok(()),
            (verdict, first) => {
                let first = first.map(|one| format!(": {}: {}", one.ns, one.why)).unwrap_or_default();
                Err(RestoreError::Different(format!(
                    "the target is not what was written into it ({verdict}){first}. Either somebody else wrote there, or, \
                     where one shard takes the data of several, these had different documents with one _id: then map \
                     them to different shards"
                )))
            }
        }
    }
}

/// The data of each shard at the time, and what its config servers knew.
async fn fold(
    archive: &Archive,
    plan: &Plan,
    time: ClusterTime,
    parts_at_once: usize,
) -> Result<(Vec<Folded>, Routing), RestoreError> {
    let permits = Semaphore::new(parts_at_once);
    let folds = plan.loads().map(|step| {
        let permits = &permits;
        async move {
            let _permit = permits.acquire().await;
            let source = archive.source(&step.part, &step.base, time).await?;
            Ok::<_, RestoreError>(blocking(move || source.at(time)).await?)
        }
    });
    let shards = futures::future::try_join_all(folds).await?;
    // Needed for one shard alone, too: it tells what that one owns.
    let config = PartId::ConfigServers;
    let source = archive.source(&config, &plan::base(archive, &config, time)?, time).await?;
    let routing = blocking(move || {
        let mut routing = Routing::default();
        source.at(time)?.into(&mut routing, &Routing::is_wanted)?;
        Ok(routing)
    });
    Ok((shards, routing.await?))
}

/// The data of several parts in one part of the target: of a collection all say the same, as was looked at before.
fn merge(all: &mut BTreeMap<Uuid, Written>, more: BTreeMap<Uuid, Written>) {
    for (uuid, more) in more {
        match all.entry(uuid) {
            Entry::Vacant(entry) => drop(entry.insert(more)),
            Entry::Occupied(mut entry) => entry.get_mut().documents.combine(&more.documents),
        }
    }
}

/// Where one shard takes the data of several, a name must be one collection, and that be the same on all.
fn one_name_each(plan: &Plan, shards: &[Folded], ownerships: &Arc<Ownerships>) -> Result<(), RestoreError> {
    let mut names = BTreeMap::<(&PartId, String), (Uuid, &PartId, &Collection)>::new();
    for (step, folded) in plan.loads().zip(shards) {
        let selection = plan.selection(step, ownerships);
        for (uuid, collection, ns) in selection.collections(folded.catalogue()) {
            let Some((other, from, was)) = names.insert((&step.to.id, ns.clone()), (uuid, &step.part, collection))
            else {
                continue;
            };
            let differs = match other == uuid {
                false => format!("{ns} is one collection on {from} and another on {}", step.part),
                true if was.options != collection.options || was.indexes != collection.indexes => {
                    format!("{ns} does not have the same options and indexes on {from} and on {}", step.part)
                }
                true => continue,
            };
            return Err(RestoreError::Refused(format!(
                "{differs}, and both would go to {}: map them to different shards",
                step.to.id
            )));
        }
    }
    Ok(())
}

/// What was named must be something: a restore of nothing would be told of as a whole one.
fn all_is_there(plan: &Plan, shards: &[Folded]) -> Result<(), RestoreError> {
    let collections = shards.iter().flat_map(|folded| folded.catalogue().iter().map(|(_, one)| one.ns.clone()));
    match plan.naming.missing(&collections.filter(|ns| !is_internal(parts_of(ns).0)).collect()) {
        Some(why) => Err(RestoreError::Refused(format!("--only: {why}"))),
        None => Ok(()),
    }
}

async fn made(plan: &Plan) -> Result<Made, RestoreError> {
    let mut made = Made::new();
    for target in plan.targets() {
        let there = listed(&target.catalogue_now().await?)?;
        made.insert(target.id.clone(), there.into_iter().map(|(uuid, one)| (uuid, one.ns)).collect());
    }
    Ok(made)
}

/// A part of the target may have other databases, but none of the collections under another name, and no other
/// under the name of one: making it would put that one aside.
fn none_elsewhere(
    plan: &Plan,
    shards: &[Folded],
    ownerships: &Arc<Ownerships>,
    made: &Made,
) -> Result<(), RestoreError> {
    for (step, folded) in plan.loads().zip(shards) {
        let Some(there) = made.get(&step.to.id) else { continue };
        let names: BTreeMap<_, _> = there.iter().map(|(uuid, ns)| (ns.as_str(), *uuid)).collect();
        let selection = plan.selection(step, ownerships);
        for (uuid, collection, ns) in selection.collections(folded.catalogue()) {
            if let Some(other) = there.get(&uuid).filter(|other| **other != ns) {
                return Err(RestoreError::Refused(format!(
                    "{} has this very collection already, as {other}, so that {} cannot become {ns}: two collections \
                     cannot have one UUID. Drop {other} first, or restore into another target",
                    step.to.id, collection.ns
                )));
            }
            if names.get(ns.as_str()).is_some_and(|other| *other != uuid) {
                return Err(RestoreError::Refused(format!(
                    "{} has another collection with the name {ns}: somebody made it meanwhile",
                    step.to.id
                )));
            }
        }
    }
    Ok(())
}

/// A zone that has ranges of other collections in the target would pull them onto the shards that get it.
async fn zones_are_free(plan: &Plan, routing: &Routing, destination: &Destination) -> Result<(), RestoreError> {
    if !plan.has_config() {
        return Ok(());
    }
    let zones: Vec<_> = routing.zones(&plan.naming)?.into_iter().flat_map(|(_, zones)| zones).collect();
    for row in destination.marked().config_rows("tags").await? {
        let (ns, tag) = (row.get_str("ns").unwrap_or_default(), row.get_str("tag").unwrap_or_default());
        let theirs = !plan.naming.writes(ns);
        if theirs && zones.iter().any(|zone| zone == tag) {
            return Err(RestoreError::Refused(format!(
                "the target has {ns} in a zone {tag}, and so has the source: its data would move to the shards that get \
                 the zone. Rename one of them first"
            )));
        }
    }
    Ok(())
}

/// At any time but a checkpoint's an operation that changes collections as a whole may be under way. What tells of it
/// is among the data of the part that performs it.
async fn nothing_under_way(
    archive: &Archive,
    parts: impl Iterator<Item = (&PartId, &Data)>,
    time: ClusterTime,
) -> Result<(), RestoreError> {
    for (part, base) in parts {
        let source = archive.source(part, base, time).await?;
        let found = blocking(move || {
            let mut found = Routing::default();
            source.at(time)?.into(&mut found, &Routing::is_under_way)?;
            Ok(found)
        });
        not_under_way(part, &found.await?)?;
    }
    Ok(())
}

fn not_under_way(part: &PartId, found: &Routing) -> Result<(), RestoreError> {
    match found.under_way() {
        None => Ok(()),
        Some(under_way) => Err(RestoreError::Refused(format!(
            "{part}: an operation that changes collections was under way at that time ({under_way}): choose a time before \
             or after it; at a checkpoint there is none"
        ))),
    }
}

/// State, collections and documents written, files ready: what must have grown for a restore not to be given up. A file
/// that was not made to its end is begun anew.
fn how_far(restore: &Restore) -> (State, [u64; 3]) {
    let amounts = match restore.target {
        Place::Download { .. } => [0, 0, restore.parts.iter().filter(|part| part.file.is_some()).count() as u64],
        _ => [restore.written().collections, restore.written().documents, 0],
    };
    (restore.state, amounts)
}

/// For how long a restore that fails again and again has not got further than ever before. One that fell back and
/// comes to the same place again has not.
struct Standstill<Far> {
    furthest: Option<(Far, Instant)>,
}

impl<Far: PartialOrd> Standstill<Far> {
    fn at(&mut self, far: Far, now: Instant) -> Duration {
        match &self.furthest {
            Some((furthest, since)) if far <= *furthest => now - *since,
            _ => {
                self.furthest = Some((far, now));
                Duration::ZERO
            }
        }
    }
}

/// For the record: what went wrong, what the target holds, and what to do.
fn failure(restore: &Restore, why: &RestoreError) -> String {
    let next = match restore.state.has_begun() {
        _ if restore.drill.is_some() => return why.to_string(),
        _ if matches!(restore.target, Place::Download { .. }) => {
            "There is nothing to be downloaded: mend the cause, and ask again."
        }
        true if restore.told => {
            "The target is whole, and its config servers know all of it: drop config.stillpoint.restore on them, and use it."
        }
        true => {
            "The target holds a part of the data, and is marked so: mend the cause, empty it (drop its databases, then \
             config.stillpoint.restore), and restore again."
        }
        false => "Nothing was written into the target: mend the cause, and restore again.",
    };
    let why = why.to_string();
    format!("{}{} {next}", why, if why.ends_with('.') { "" } else { "." })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_comes_and_goes_stands_still() {
        let begun = Instant::now();
        let mut standstill = Standstill { furthest: None };
        let stood = [(3, 0), (5, 1), (2, 4), (5, 7), (4, 9), (6, 11), (6, 12)]
            .map(|(far, second)| standstill.at((State::Loading, far), begun + Duration::from_secs(second)).as_secs());
        assert_eq!(stood, [0, 0, 3, 6, 8, 0, 1]);
        assert_eq!(standstill.at((State::Verifying, 0), begun + Duration::from_secs(20)), Duration::ZERO);
    }
}
