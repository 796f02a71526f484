//! A restore job: what a restore is for one part.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use stillpoint_catalog::Cluster;
use stillpoint_core::restore::{Amount, File, Part, Point, Restore, Standing, State, Target};
use stillpoint_core::{CheckpointId, ClusterId, ProjectId, RestoreId, SnapshotId};

use super::checkpoint::VerificationDocument;
use super::{Date, Id, Link, Place, TimestampDocument};

/// All that a restore job's document is made of.
#[derive(Debug, Clone, Copy)]
pub struct RestoreJobView<'a> {
    /// Of the cluster that the restore is from.
    pub place: &'a Place,
    pub restore: &'a Restore,
    pub part: &'a Part,
    /// The cluster that it is into, if it is kept here still.
    pub target: Option<&'a Cluster>,
    pub now: Timestamp,
    /// Where its file is to be had, if that is to be told.
    pub url: Option<&'a str>,
}

/// What a restore does for one part of the cluster that it is from: it has one for each shard, and one for the
/// config servers.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RestoreJob")]
pub struct RestoreJobDocument<'a> {
    /// The restore that it belongs to; all of its jobs have the same.
    #[schemars(with = "Id")]
    batch_id: RestoreId,
    /// The cluster that is restored.
    #[schemars(with = "Id")]
    cluster_id: ClusterId,
    /// When it was asked for.
    created: Date,
    /// Where to.
    delivery: DeliveryDocument<'a>,
    #[schemars(with = "Id")]
    group_id: ProjectId,
    /// Of the file that is to be downloaded, once it is ready.
    hashes: Vec<HashDocument<'a>>,
    #[schemars(with = "Id")]
    id: RestoreId,
    links: Vec<Link<'a>>,
    /// Whether it is to a time that was named as such, not to a checkpoint or a snapshot.
    point_in_time: bool,
    /// The snapshot that was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id>")]
    snapshot_id: Option<SnapshotId>,
    /// `IN_PROGRESS`, `FINISHED`, `BROKEN` or `KILLED`; the same for all jobs of a restore.
    status_name: &'static str,
    /// This product's own: what the published document has no field for.
    stillpoint: Progress,
    /// The time as of which the data is: what was written then or before is in it.
    timestamp: TimestampDocument,
}

impl<'a> RestoreJobDocument<'a> {
    /// As Get One gives it.
    pub fn one(view: &RestoreJobView<'a>) -> RestoreJobDocument<'a> {
        let place = view.place;
        let links = vec![
            Link::below(&place.restore_jobs_url, view.part.job.to_string(), "self"),
            Link::new(&place.cluster_url, "http://mms.mongodb.com/cluster"),
            Link::new(&place.group_url, "http://mms.mongodb.com/group"),
        ];
        RestoreJobDocument::with(view, links)
    }

    /// As an item of a list.
    pub fn item(view: &RestoreJobView<'a>) -> RestoreJobDocument<'a> {
        let link = Link::below(&view.place.restore_jobs_url, view.part.job.to_string(), "self");
        RestoreJobDocument::with(view, vec![link])
    }

    fn with(view: &RestoreJobView<'a>, links: Vec<Link<'a>>) -> RestoreJobDocument<'a> {
        let restore = view.restore;
        RestoreJobDocument {
            batch_id: restore.id,
            cluster_id: restore.cluster,
            created: Date(restore.requested),
            delivery: DeliveryDocument::of(view),
            group_id: view.place.project,
            hashes: view.part.file.iter().map(HashDocument::of).collect(),
            id: view.part.job,
            links,
            point_in_time: matches!(restore.point, Point::Millisecond(_) | Point::Time(_)),
            snapshot_id: match restore.point {
                Point::Snapshot(id) => Some(id),
                _ => None,
            },
            status_name: status_name(restore.state),
            stillpoint: Progress::of(view),
            timestamp: TimestampDocument::of(restore.time),
        }
    }
}

fn status_name(state: State) -> &'static str {
    match state {
        State::Queued | State::Checking | State::Loading | State::Verifying | State::Opening => "IN_PROGRESS",
        State::Finished => "FINISHED",
        State::Broken => "BROKEN",
        State::Killed => "KILLED",
    }
}

/// What of a file stays the same when it is downloaded.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RestoreJobHash")]
struct HashDocument<'a> {
    file_name: &'a str,
    /// In hexadecimal digits.
    hash: &'a str,
    /// `SHA256`.
    type_name: &'static str,
}

impl<'a> HashDocument<'a> {
    fn of(file: &'a File) -> HashDocument<'a> {
        HashDocument { file_name: &file.name, hash: &file.sha256, type_name: "SHA256" }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RestoreJobDelivery")]
struct DeliveryDocument<'a> {
    /// How many hours the file can be downloaded; this and the next three with `HTTP` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_hours: Option<u32>,
    /// Until when, once it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Date>,
    /// How often it can be: once.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_downloads: Option<u32>,
    /// `AUTOMATED_RESTORE` or `HTTP`.
    method_name: &'static str,
    /// `READY`, `EXPIRED` or, once it was downloaded, `MAX_DOWNLOADS_EXCEEDED`; not before it is ready, nor when its
    /// restore was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_name: Option<&'static str>,
    /// If the target is kept here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id>")]
    target_cluster_id: Option<ClusterId>,
    /// As long as the target is kept here.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_cluster_name: Option<&'a str>,
    /// The project of the target, as long as that is kept here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id>")]
    target_group_id: Option<ProjectId>,
    /// The link of the file while it is `READY`: whoever has it can download the file. For those with `GROUP_OWNER`.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
}

impl<'a> DeliveryDocument<'a> {
    /// The hosts of a target that is not kept here are for the operator: they do not go in.
    fn of(view: &RestoreJobView<'a>) -> DeliveryDocument<'a> {
        let restore = view.restore;
        let (hours, target) = match restore.target {
            Target::Download { hours } => (Some(hours), None),
            Target::Cluster(id) => (None, Some(id)),
            Target::Hosts(_) => (None, None),
        };
        DeliveryDocument {
            expiration_hours: hours,
            expires: restore.expires().map(Date),
            max_downloads: hours.map(|_| 1),
            method_name: if hours.is_some() { "HTTP" } else { "AUTOMATED_RESTORE" },
            status_name: restore.standing(view.part, view.now).and_then(delivery_status),
            target_cluster_id: target,
            target_cluster_name: view.target.map(|cluster| cluster.name.as_str()),
            target_group_id: view.target.map(|cluster| cluster.project),
            url: view.url,
        }
    }
}

fn delivery_status(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Ready(_) => Some("READY"),
        Standing::Expired(_) => Some("EXPIRED"),
        Standing::Downloaded(_) => Some("MAX_DOWNLOADS_EXCEEDED"),
        Standing::Preparing | Standing::Withdrawn => None,
    }
}

/// How far a restore is, of the part of this job.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RestoreProgress")]
struct Progress {
    /// Somebody asked to end it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cancelled: bool,
    /// The checkpoint that was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id>")]
    checkpoint_id: Option<CheckpointId>,
    /// When the restore ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Date>,
    /// What is to be written, as far as that was known beforehand.
    expected: AmountDocument,
    /// What to do about one that is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    /// Of the file, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_size: Option<u64>,
    /// `config`, or `shard-` and the shard's name, with all but letters, digits, `_`, `-` and `.` as %XX.
    part: String,
    /// `QUEUED`, `CHECKING`, `LOADING`, `VERIFYING`, `OPENING`, `FINISHED`, `BROKEN` or `KILLED`: of the restore.
    #[schemars(with = "String")]
    state: State,
    /// The shard of the target that takes it, once that is known; not for the config servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_shard: Option<String>,
    /// Something is in its way, and is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'static str>,
    /// What came of comparing all of the target with what was to be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<VerificationDocument>,
    /// What is in the target, or in the file, already.
    written: AmountDocument,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Amount")]
struct AmountDocument {
    /// Of all documents, as BSON.
    bytes: u64,
    collections: u64,
    documents: u64,
}

impl AmountDocument {
    fn of(amount: Amount) -> AmountDocument {
        let Amount { collections, documents, bytes } = amount;
        AmountDocument { bytes, collections, documents }
    }
}

impl Progress {
    /// The record's own texts may name hosts: they do not go in.
    fn of(view: &RestoreJobView) -> Progress {
        let (restore, part) = (view.restore, view.part);
        let failure = "Who runs the server sees why with `stillpoint restore-job show`.";
        Progress {
            cancelled: restore.cancelled,
            checkpoint_id: match restore.point {
                Point::Checkpoint(id) => Some(id),
                _ => None,
            },
            ended: restore.ended.map(Date),
            expected: AmountDocument::of(part.expected),
            failure: restore.failure.as_ref().map(|_| failure),
            file_size: part.file.as_ref().map(|file| file.bytes),
            part: part.id.key(),
            state: restore.state,
            target_shard: part.shard.clone(),
            trouble: restore.trouble.as_ref().map(|_| "retrying"),
            verification: restore.verification.as_ref().map(VerificationDocument::of),
            written: AmountDocument::of(part.written),
        }
    }
}
