//! A cluster's restores: its data as of a time, written into another cluster, compared, and only then shown.
//!
//! One restore of a cluster is done at a time, under the cluster's lease. Whatever happens to this process, the
//! next one goes on: each step can be done again, and what is done is noted. Until a restore is finished its
//! target has a mark, and no router shows anything of what was written.
//!
//! # Layout
//! - [`plan`]: which part goes where, and whether the target will do
//! - [`naming`]: which collections, and what they are called in the target
//! - [`routing`]: what config servers know of collections
//! - [`load`]: documents and indexes, into the target
//! - [`compare`]: whether they are there
//! - [`open`]: the last step, which shows them
//! - [`expect`]: what would have been written, to compare a target with

mod compare;
mod error;
mod expect;
mod load;
pub mod naming;
mod open;
pub mod plan;
mod routing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use stillpoint_catalog::{CatalogError, Lease};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::{Amount, Mark, Restore, State, Target as Place};
use stillpoint_core::verification::{Verdict, Verification};
use stillpoint_core::{ClusterTime, RestoreId};
use stillpoint_fold::Uuid;
use stillpoint_fold::ownership::Ownership;
use stillpoint_mongo::Destination;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use error::RestoreError;
pub use expect::against;
use load::{Loader, Note, Progress, Setting, Target, Trying, Written};
use open::Opening;
use plan::Plan;
use routing::Routing;

use crate::Setup;
use crate::actions::Connection;
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
}

impl Default for Restores {
    fn default() -> Restores {
        Restores { patience: Duration::from_secs(600) }
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
    destination: Destination,
    plan: Arc<Plan>,
    /// Each shard's data, to be poured, and its collections' notes.
    shards: Vec<(PartId, Folded)>,
    routing: Arc<Routing>,
    ownerships: Arc<BTreeMap<Uuid, Ownership>>,
    /// The collections that the target has.
    made: Made,
}

/// What the collections that a part of the target has are called.
type Made = BTreeMap<PartId, BTreeMap<Uuid, String>>;

impl Run {
    /// Goes on with a restore until it has ended.
    async fn to_the_end(&self, mut restore: Restore, stop: &CancellationToken) -> Result<(), RestoreError> {
        let mut since: Option<(Instant, Amount)> = None;
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
            let written = restore.written();
            let begun = match since {
                Some((begun, before)) if before == written => begun,
                _ => Instant::now(),
            };
            since = Some((begun, written));
            if why.is_lasting() || begun.elapsed() > self.setup.restores.patience {
                let text = failure(&restore, &why);
                tracing::error!(cluster = %self.lease.cluster, restore = %restore.id, "restore: broken: {text}");
                return self.end(&mut restore, State::Broken, Some(text)).await;
            }
            tracing::warn!(cluster = %self.lease.cluster, restore = %restore.id, error = %why, "restore: trying again");
            restore.trouble = Some(why.to_string());
            self.save(&restore, &[]).await?;
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return Err(RestoreError::Stopped),
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
        Ok(())
    }

    /// From where it is to its end.
    async fn attempt(&self, restore: &mut Restore, stop: &CancellationToken) -> Result<(), RestoreError> {
        let stop = stop.child_token();
        // Whatever ends this ends what it began.
        let _guard = stop.clone().drop_guard();
        let destination = Destination::connect(&self.uri(restore).await?).await?;
        // The mark goes last: without it there is nothing left to do but to say so.
        if restore.state == State::Opening && destination.marked().marks().await?.is_empty() {
            return self.finish(restore).await;
        }
        let work = self.check(restore, destination, &stop).await?;
        restore.trouble = None;
        let written = self.load(restore, work.shards, &work.plan, &work.made, &work.ownerships, &stop).await?;
        if restore.state < State::Opening {
            if restore.options.verify {
                self.verify(restore, &work.plan, &written, &stop).await?;
            }
            restore.state = State::Opening;
            self.save(restore, &[]).await?;
            self.setup.done("restore-verified");
        }
        let opening = Opening {
            plan: &work.plan,
            destination: &work.destination,
            options: &restore.options,
            routing: &work.routing,
            written: &written,
            trying: &self.trying(&stop),
        };
        opening
            .open(|what| tracing::info!(cluster = %self.lease.cluster, restore = %restore.id, "restore: {what}"))
            .await?;
        self.setup.done("restore-opened");
        self.finish(restore).await
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
        }
    }

    /// Looks at all that is needed, and marks the target.
    async fn check(
        &self,
        restore: &mut Restore,
        destination: Destination,
        stop: &CancellationToken,
    ) -> Result<Work, RestoreError> {
        if restore.state == State::Queued {
            restore.state = State::Checking;
            self.save(restore, &[]).await?;
        }
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
        let plan = Arc::new(Plan::make(&archive, &destination, &restore.options, restore.time).await?);
        let outlook = plan.check(&archive, &destination, &self.connection.cluster.identity, Some(restore.id)).await?;
        outlook.warnings.iter().for_each(|warning| tracing::warn!(restore = %restore.id, "restore: {warning}"));
        let (shards, routing) = self
            .watching(restore, stop, fold(&archive, &plan, restore.time, self.setup.snapshots.parts_at_once))
            .await?;
        if let Some(under_way) = routing.under_way() {
            return Err(RestoreError::Refused(format!(
                "an operation that changes sharded collections was under way at that time ({under_way}): choose a time \
                 before or after it; at a checkpoint there is none"
            )));
        }
        one_name_each(&plan, &shards)?;
        let made = made(&plan).await?;
        none_elsewhere(&plan, &shards, &made)?;
        let ownerships = Arc::new(routing.ownerships()?);
        // Known to be of use before the first write.
        for table in routing::TABLES {
            if plan.has_config() {
                routing.rows(table, &plan.naming, &plan.shards)?;
            }
        }
        if restore.state == State::Checking {
            self.begin(restore, &plan, &destination).await?;
        }
        Ok(Work { destination, plan, shards, routing: Arc::new(routing), ownerships, made })
    }

    async fn begin(&self, restore: &mut Restore, plan: &Plan, destination: &Destination) -> Result<(), RestoreError> {
        let known = restore.parts.clone();
        restore.parts = plan.parts(|part| {
            let job = known.iter().find(|known| known.id == *part).map(|known| known.job);
            job.unwrap_or_else(|| RestoreId::new(self.setup.now(), rand::random()))
        });
        destination.marked().mark(&Plan::mark(restore, self.setup.now())).await?;
        self.setup.done("restore-marked");
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
        shards: Vec<(PartId, Folded)>,
        plan: &Plan,
        made: &Made,
        ownerships: &Arc<BTreeMap<Uuid, Ownership>>,
        stop: &CancellationToken,
    ) -> Result<BTreeMap<PartId, BTreeMap<Uuid, Written>>, RestoreError> {
        let noted = self.noted(restore).await?;
        let naming = Arc::new(plan.naming.clone());
        let mut targets = BTreeMap::new();
        for link in plan.targets() {
            let made = made.get(&link.id).into_iter().flatten().map(|(uuid, _)| *uuid).collect();
            targets.insert(link.id.clone(), Arc::new(Target::new(link.clone(), made)));
        }
        let (notes, mut marks) = mpsc::unbounded_channel();
        let stop = stop.child_token();
        let mut progress = BTreeMap::new();
        let mut loads = tokio::task::JoinSet::new();
        for (part, folded) in shards {
            let Some(to) = plan.steps.iter().find(|step| step.part == part).map(|step| step.to.id.clone()) else {
                continue;
            };
            let its = Arc::new(Progress::default());
            progress.insert(part.clone(), its.clone());
            let setting = Setting {
                part: part.clone(),
                target: targets[&to].clone(),
                naming: naming.clone(),
                ownerships: ownerships.clone(),
                progress: its.clone(),
                notes: notes.clone(),
                noted: noted.get(&part).cloned().unwrap_or_default(),
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
                    Some(Ok(Ok((to, its)))) => merge(written.entry(to).or_default(), its)?,
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
        let compare = targets.iter().map(|target| {
            let written = written.get(&target.id).unwrap_or(&none);
            compare::compare(target, written, &plan.naming, compare::Stage::Loaded)
        });
        let parts = self.watching(restore, stop, futures::future::try_join_all(compare)).await?;
        let verification = Verification { at: self.setup.now(), time: restore.time, parts };
        let verdict = verification.verdict();
        let first = verification.parts.iter().flat_map(|part| &part.different.named).next().cloned();
        restore.verification = Some(verification);
        match (verdict, first) {
            (Verdict::Equal, _) => Ok(()),
            (verdict, first) => {
                let first = first.map(|one| format!(": {}: {}", one.ns, one.why)).unwrap_or_default();
                Err(RestoreError::Different(format!(
                    "the target is not what was written into it ({verdict}){first}. Did somebody else write there?"
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
) -> Result<(Vec<(PartId, Folded)>, Routing), RestoreError> {
    let permits = Semaphore::new(parts_at_once);
    let folds = plan.steps.iter().filter(|step| step.part != PartId::ConfigServers).map(|step| {
        let permits = &permits;
        async move {
            let _permit = permits.acquire().await;
            let source = archive.source(&step.part, &step.base, time).await?;
            let folded = blocking(move || source.at(time)).await?;
            Ok::<_, RestoreError>((step.part.clone(), folded))
        }
    });
    let shards = futures::future::try_join_all(folds).await?;
    // Needed for one shard alone, too: it tells what that one owns.
    let config = PartId::ConfigServers;
    let base = archive.base(&config, time).map_err(|why| {
        let why: Vec<_> = why.iter().map(ToString::to_string).collect();
        RestoreError::Refused(format!("{time} cannot be restored: {}", why.join(" ")))
    })?;
    let source = archive.source(&config, &base, time).await?;
    let routing = blocking(move || {
        let mut routing = Routing::default();
        source.at(time)?.into(&mut routing, &Routing::is_wanted)?;
        Ok(routing)
    });
    Ok((shards, routing.await?))
}

/// The data of several parts in one part of the target.
fn merge(all: &mut BTreeMap<Uuid, Written>, more: BTreeMap<Uuid, Written>) -> Result<(), RestoreError> {
    for (uuid, more) in more {
        match all.get_mut(&uuid) {
            None => drop(all.insert(uuid, more)),
            Some(one) => {
                if one.collection.options != more.collection.options {
                    let ns = &one.collection.ns;
                    return Err(RestoreError::Refused(format!("{ns} has other options on one shard than on another")));
                }
                // An index may be on one shard only while it is made or dropped.
                one.collection.indexes.extend(more.collection.indexes);
                one.documents.combine(&more.documents);
            }
        }
    }
    Ok(())
}

/// Where one shard takes the data of several, a name must be one collection.
fn one_name_each(plan: &Plan, shards: &[(PartId, Folded)]) -> Result<(), RestoreError> {
    let mut names = BTreeMap::<(&PartId, String), (Uuid, &PartId)>::new();
    for step in &plan.steps {
        let Some((part, folded)) = shards.iter().find(|(part, _)| *part == step.part) else { continue };
        for (uuid, collection) in folded.catalogue().iter() {
            let Some(ns) = plan.naming.of(&collection.ns) else { continue };
            if let Some((other, from)) = names.insert((&step.to.id, ns.clone()), (uuid, part))
                && other != uuid
            {
                return Err(RestoreError::Refused(format!(
                    "{ns} is one collection on {from} and another on {part}, and both would go to {}: map them to \
                     different shards",
                    step.to.id
                )));
            }
        }
    }
    Ok(())
}

async fn made(plan: &Plan) -> Result<Made, RestoreError> {
    let mut made = Made::new();
    for target in plan.targets() {
        let there = listed(&target.catalogue_now().await?)?;
        made.insert(target.id.clone(), there.into_iter().map(|(uuid, one)| (uuid, one.ns)).collect());
    }
    Ok(made)
}

/// A part of the target may have other databases, but none of the collections under another name.
fn none_elsewhere(plan: &Plan, shards: &[(PartId, Folded)], made: &Made) -> Result<(), RestoreError> {
    for step in &plan.steps {
        let (Some((_, folded)), Some(there)) =
            (shards.iter().find(|(part, _)| *part == step.part), made.get(&step.to.id))
        else {
            continue;
        };
        for (uuid, collection) in folded.catalogue().iter() {
            let Some(ns) = plan.naming.of(&collection.ns) else { continue };
            if let Some(other) = there.get(&uuid).filter(|other| **other != ns) {
                return Err(RestoreError::Refused(format!(
                    "{} has {} already, as {other}: two collections cannot have one UUID",
                    step.to.id, collection.ns
                )));
            }
        }
    }
    Ok(())
}

/// For the record: what went wrong, what the target holds, and what to do.
fn failure(restore: &Restore, why: &RestoreError) -> String {
    let next = match restore.state.has_begun() {
        true => {
            "The target holds a part of the data, and is marked so: mend the cause, empty it (drop its databases, then \
             config.stillpoint.restore), and restore again."
        }
        false => "Nothing was written into the target: mend the cause, and restore again.",
    };
    let why = why.to_string();
    format!("{}{} {next}", why, if why.ends_with('.') { "" } else { "." })
}
