//! Restore jobs: list, get one, ask for a restore; and this product's own: cancel one.
//!
//! A restore is shown as a job for each part. They begin and end together, so what is done to one is done to
//! all of them.

mod asked;

use std::ops::Range;
use std::sync::Arc;

use http::{Method, StatusCode};
use secrecy::ExposeSecret;
use stillpoint_catalog::{CatalogError, Cluster, Holdings, Page};
use stillpoint_core::checkpoint::{PartId, State as CheckpointState};
use stillpoint_core::restore::{Amount, Options, Part, Point, Restore, Standing, Target};
use stillpoint_core::{ClusterTime, RestoreId, Role};

use super::{Access, Call, Operation, Query, RequestBody, VERSIONS, download_url};
use crate::body;
use crate::document::{ListDocument, Place, RestoreJobDocument, RestoreJobView};
use crate::error::{Code, Refusal};
use crate::query::{self, Paging};
use crate::respond::Reply;
use asked::{Asked, Delivery, Destination, FIELDS, Named, POINT_IN_TIME, asked, body_schema};

const COLLECTION: &str = "/groups/{groupId}/clusters/{cluster}/restoreJobs";
const ITEM: &str = "/groups/{groupId}/clusters/{cluster}/restoreJobs/{jobId}";
const TAG: &str = "Legacy Backup";

/// Records in memory at once, of which a few are on a page.
const RESTORES_AT_ONCE: u64 = 100;

pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "listGroupClusterRestoreJobs",
        method: Method::GET,
        path: COLLECTION,
        access: Access::Project(Role::GroupReadOnly),
        summary: "List the restore jobs of a cluster",
        about: "Those from the cluster, the newest restore first. A restore has a job for each shard, and one for the \
                config servers. The links of files to be downloaded are told to those who have `GROUP_OWNER` only.",
        tag: TAG,
        query: Query::ListOfRestoreJobs,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<ListDocument<RestoreJobDocument>>()),
        refusals: &[],
        versions: VERSIONS,
        handler: |call| Box::pin(list(call)),
    },
    Operation {
        id: "getGroupClusterRestoreJob",
        method: Method::GET,
        path: ITEM,
        access: Access::Project(Role::GroupReadOnly),
        summary: "Get one restore job",
        about: "",
        tag: TAG,
        query: Query::Common,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<RestoreJobDocument>()),
        refusals: &[],
        versions: VERSIONS,
        handler: |call| Box::pin(get(call)),
    },
    Operation {
        id: "createGroupClusterRestoreJob",
        method: Method::POST,
        path: COLLECTION,
        access: Access::Project(Role::GroupOwner),
        summary: "Restore a cluster into another, or as files to be downloaded",
        about: "Into a cluster that is kept here and is empty; the client needs `GROUP_OWNER` in its project, too. Or, \
                with the delivery method `HTTP`, as an archive of each part: once they are `FINISHED`, each job has \
                the `delivery.url` of its file, its hash, and until when it can be downloaded, once. The \
                restore is queued, and begins within moments; ask for its jobs until they are no longer \
                `IN_PROGRESS`. Of restores from a cluster one is done at a time, and of those into a cluster. The \
                reply lists the jobs.",
        tag: TAG,
        query: Query::List,
        body: Some(RequestBody::json(true, body_schema)),
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<ListDocument<RestoreJobDocument>>()),
        refusals: &[
            Code::MissingAttribute,
            Code::InvalidEnumValue,
            Code::RestoreIntoItself,
            Code::CheckpointNotFound,
            Code::SnapshotNotFound,
            Code::NoCheckpointForRestore,
            Code::RestoreInProgress,
        ],
        versions: VERSIONS,
        handler: |call| Box::pin(create(call)),
    },
    Operation {
        id: "cancelGroupClusterRestoreJob",
        method: Method::DELETE,
        path: ITEM,
        access: Access::Project(Role::GroupOwner),
        summary: "Cancel a restore",
        about: "This product's own. The whole restore ends, with all of its jobs, and they can still be read: ask for \
                one until it is `KILLED`. What was written by then stays in the target. Files that can be downloaded \
                still go, and their links with them.",
        tag: TAG,
        query: Query::Common,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<RestoreJobDocument>()),
        refusals: &[Code::RestoreEnded],
        versions: VERSIONS,
        handler: |call| Box::pin(cancel(call)),
    },
];

async fn list(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    if let Some(id) = query::batch(call.query())? {
        let found: Vec<_> = call.catalog().restore(cluster.id, id).await?.into_iter().collect();
        return reply_batch(call, &cluster, &found, id).await;
    }
    let paging = Paging::parse(call.query())?;
    // A restore has several jobs: a page is read until it is full, and one more, to see whether there is a next.
    let (mut read, mut before, mut shown) = (0, 0, Vec::new());
    let (first, last) = (paging.skip(), paging.skip() + paging.per_page);
    let mut more = false;
    while !more {
        let restores = call.catalog().restores(cluster.id, Page { skip: read, take: RESTORES_AT_ONCE }).await?;
        read += restores.len() as u64;
        let is_last = (restores.len() as u64) < RESTORES_AT_ONCE;
        for restore in restores {
            let jobs = restore.parts.len() as u64;
            let of = |job: u64| job.saturating_sub(before).min(jobs) as usize;
            let range = of(first)..of(last);
            more |= before + jobs > last;
            before += jobs;
            if !range.is_empty() {
                shown.push((restore, range));
            }
        }
        if is_last {
            break;
        }
    }
    let total_count = match paging.count {
        true => Some(call.catalog().count_restored_parts(cluster.id).await?),
        false => None,
    };
    let place = call.place(&cluster)?;
    let jobs = jobs(call, shown.iter().map(|(restore, range)| (restore, range.clone()))).await?;
    let items = jobs.iter().map(|job| RestoreJobDocument::item(&job.view(call, &place))).collect();
    call.list(&place.restore_jobs_url, paging, items, more, total_count)
}

async fn get(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let (restore, part) = find(call, &cluster).await?;
    reply(call, &cluster, &restore, part).await
}

async fn create(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    // What is wrong with the query is said before anything is done.
    Paging::parse(call.query())?;
    let members = body::object(call.headers(), &call.body, FIELDS)?;
    let Asked { delivery, point } = asked(members)?;
    let (into, target) = match &delivery {
        Delivery::Into(destination) => {
            let target = target(call, &cluster, destination).await?;
            (Target::Cluster(target.id), Some(target))
        }
        Delivery::Download { hours } => (Target::Download { hours: *hours }, None),
    };
    let (time, parts) = stored(call, &cluster, point).await?;

    let job = |(part, expected)| Part::new(RestoreId::new(call.now, call.chance()), part, expected);
    // Files are not read again: who downloads one has its hash.
    let options = Options { verify: target.is_some(), ..Options::default() };
    let id = RestoreId::new(call.now, call.chance());
    let restore = Restore {
        parts: parts.into_iter().map(job).collect(),
        ..Restore::queued(id, cluster.id, call.now, point, time, into, options)
    };
    if let Err(error) = call.catalog().queue_restore(&restore, None).await {
        return Err(match error {
            CatalogError::RestoreUnderWay(other) => {
                let from_here = call.catalog().restore(cluster.id, other).await?.is_some();
                let name = target.as_ref().filter(|_| !from_here).map_or(call.cluster_text(), |target| &target.name);
                Refusal::new(Code::RestoreInProgress, [name])
            }
            // Removed since they were looked up.
            CatalogError::Gone("cluster") => call.no_cluster(cluster.project),
            CatalogError::Gone(_) => match &delivery {
                Delivery::Into(destination) => destination.no_cluster(),
                Delivery::Download { .. } => call.no_cluster(cluster.project),
            },
            other => other.into(),
        });
    }
    call.interface.outside.wake.notify_waiters();
    reply_batch(call, &cluster, std::slice::from_ref(&restore), restore.id).await
}

async fn cancel(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let (found, part) = find(call, &cluster).await?;
    let cancelled = call.catalog().cancel_restore(cluster.id, found.id, call.now).await;
    let restore = cancelled.map_err(|error| match error {
        CatalogError::RestoreEnded(_) => {
            Refusal::new(Code::RestoreEnded, [call.parameter("jobId"), call.cluster_text()])
        }
        // Its cluster was removed since it was looked up.
        CatalogError::Gone(_) => not_found(call),
        other => other.into(),
    })?;
    call.interface.outside.wake.notify_waiters();
    reply(call, &cluster, &restore, part).await
}

/// The document of one job: that of the part at a place in the restore's list.
async fn reply(call: &Call, cluster: &Cluster, restore: &Restore, part: usize) -> Result<Reply, Refusal> {
    let place = call.place(cluster)?;
    let part = restore.parts.get(part).ok_or_else(|| not_found(call))?;
    let job = Job { restore, part, target: kept_target(call, restore).await?, url: link(call, restore, part)? };
    call.one(StatusCode::OK, &RestoreJobDocument::one(&job.view(call, &place)))
}

/// A page of the jobs of one batch.
async fn reply_batch(call: &Call, cluster: &Cluster, found: &[Restore], id: RestoreId) -> Result<Reply, Refusal> {
    let place = call.place(cluster)?;
    let url = format!("{}?batchId={id}", place.restore_jobs_url);
    let jobs = jobs(call, found.iter().map(|restore| (restore, 0..restore.parts.len()))).await?;
    call.list_of(&url, &jobs, |job| RestoreJobDocument::item(&job.view(call, &place)))
}

/// What a restore does for one of its parts.
struct Job<'r> {
    restore: &'r Restore,
    part: &'r Part,
    target: Option<Arc<Cluster>>,
    url: Option<String>,
}

impl Job<'_> {
    fn view<'a>(&'a self, call: &Call, place: &'a Place) -> RestoreJobView<'a> {
        let (restore, part) = (self.restore, self.part);
        RestoreJobView { place, restore, part, target: self.target.as_deref(), now: call.now, url: self.url.as_deref() }
    }
}

/// Some of the jobs of restores.
async fn jobs<'r>(
    call: &Call,
    restores: impl Iterator<Item = (&'r Restore, Range<usize>)>,
) -> Result<Vec<Job<'r>>, Refusal> {
    let mut jobs = Vec::new();
    for (restore, range) in restores {
        let target = kept_target(call, restore).await?;
        for part in &restore.parts[range] {
            jobs.push(Job { restore, part, target: target.clone(), url: link(call, restore, part)? });
        }
    }
    Ok(jobs)
}

/// Where the file of a part is to be had, for those who may ask for a restore: whoever has the link has all data.
fn link(call: &Call, restore: &Restore, part: &Part) -> Result<Option<String>, Refusal> {
    let role = call.credential()?.roles.get(&call.project()?);
    let may = role.is_some_and(|role| *role >= Role::GroupOwner);
    let is_ready = matches!(restore.standing(part, call.now), Some(Standing::Ready(_)));
    let token = || call.catalog().download_token(part.job);
    Ok((may && is_ready).then(|| download_url(&call.base, token().expose_secret())))
}

/// The cluster that a restore is into, if it is kept here still.
async fn kept_target(call: &Call, restore: &Restore) -> Result<Option<Arc<Cluster>>, Refusal> {
    match restore.target {
        Target::Cluster(id) => Ok(call.interface.reads.cluster(call.catalog(), call.version, id).await?),
        Target::Hosts(_) | Target::Download { .. } => Ok(None),
    }
}

/// The restore that has the job of the path, and where its part is among the parts. What is no id at all is
/// none of a job: there is no error of its own for it.
async fn find(call: &Call, cluster: &Cluster) -> Result<(Restore, usize), Refusal> {
    let job: RestoreId = call.parameter("jobId").parse().map_err(|_| not_found(call))?;
    let all = call.catalog().restores(cluster.id, Page::ALL).await?;
    let part_of = |restore: Restore| {
        let part = restore.parts.iter().position(|part| part.job == job)?;
        Some((restore, part))
    };
    all.into_iter().find_map(part_of).ok_or_else(|| not_found(call))
}

fn not_found(call: &Call) -> Refusal {
    Refusal::new(Code::RestoreJobNotFound, [call.parameter("jobId"), call.cluster_text()])
}

/// The cluster to restore into: the client must own its project, too.
async fn target(call: &Call, source: &Cluster, delivery: &Destination) -> Result<Cluster, Refusal> {
    // Nothing is told of a project to whom it does not belong.
    if call.credential()?.roles.get(&delivery.project).is_none_or(|role| *role < Role::GroupOwner) {
        return Err(Refusal::new(Code::AccessForbidden, [&delivery.project.to_string()]));
    }
    let found = match &delivery.cluster {
        Named::Id(id) => call.catalog().cluster(*id).await?.filter(|cluster| cluster.project == delivery.project),
        Named::Name(name) => call.catalog().cluster_named(delivery.project, name).await?,
    };
    let target = found.ok_or_else(|| delivery.no_cluster())?;
    match target.id == source.id {
        true => Err(Refusal::new(Code::RestoreIntoItself, [delivery.cluster.attribute()])),
        false => Ok(target),
    }
}

/// The time that a point means, the parts that the cluster had then, and how much each of them goes on from.
async fn stored(call: &Call, cluster: &Cluster, point: Point) -> Result<(ClusterTime, Vec<(PartId, Amount)>), Refusal> {
    let catalog = call.catalog();
    let what = match point {
        Point::Checkpoint(id) => format!("checkpoint {id}"),
        Point::Snapshot(id) => format!("snapshot {id}"),
        Point::Millisecond(millisecond) => format!("{millisecond} ms"),
        Point::Time(time) => time.to_string(),
    };
    let refused = |why: &str| Refusal::new(Code::NoCheckpointForRestore, [call.cluster_text(), &what, why]);
    let held = Holdings::of(catalog, cluster.id).await?;
    let (time, parts) = match point {
        Point::Checkpoint(id) => {
            let none = || Refusal::new(Code::CheckpointNotFound, [&id.to_string(), call.cluster_text()]);
            let found = catalog.checkpoint(cluster.id, id).await?.ok_or_else(none)?;
            let time = found.cut.filter(|_| found.state == CheckpointState::Completed);
            let time = time.ok_or_else(|| refused("it is not completed."))?;
            (time, found.parts.into_iter().map(|part| part.id).collect())
        }
        Point::Snapshot(id) => {
            let none = || Refusal::new(Code::SnapshotNotFound, [&id.to_string(), call.cluster_text()]);
            let found = held.snapshots.iter().find(|snapshot| snapshot.id == id).ok_or_else(none)?;
            let time = found.cut.filter(|_| found.is_sound());
            let time = time.ok_or_else(|| refused("it is not complete, or damaged."))?;
            (time, found.parts.iter().map(|part| part.id.clone()).collect())
        }
        Point::Millisecond(millisecond) => {
            let time = Point::of_millisecond(millisecond);
            let time = time.ok_or_else(|| Refusal::new(Code::InvalidAttribute, [POINT_IN_TIME]))?;
            (time, held.stored().parts(time))
        }
        Point::Time(time) => (time, held.stored().parts(time)),
    };
    if parts.is_empty() {
        return Err(refused("no snapshot is as of then or before."));
    }
    let mut found = Vec::new();
    for part in parts {
        let base = held.stored().base(&part, time);
        let base = base.map_err(|why| refused(&why.first().map(ToString::to_string).unwrap_or_default()))?;
        // A time that nobody has marked may be one that is yet to come.
        if base.at < time && catalog.segments(cluster.id, &part, time, ClusterTime::MAX, 1).await?.is_empty() {
            return Err(refused(&format!("{part}: its oplog is not stored up to then.")));
        }
        found.push((part, Amount::from(base)));
    }
    Ok((time, found))
}
