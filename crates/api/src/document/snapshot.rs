//! A snapshot.

use schemars::JsonSchema;
use serde::Serialize;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::snapshot::{Part, Snapshot, State};
use stillpoint_core::{ClusterId, ProjectId, SnapshotId};

use super::{Date, Id, Link, Place, TimestampDocument};

/// All that a snapshot's document is made of.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotView<'a> {
    pub place: &'a Place,
    pub cluster_name: &'a str,
    pub snapshot: &'a Snapshot,
}

/// The document of one snapshot, as Get One gives it.
pub fn snapshot_document(view: &SnapshotView) -> serde_json::Value {
    // Every key is a string and nothing in it can fail to be written.
    serde_json::to_value(SnapshotDocument::one(view)).unwrap_or_default()
}

/// The data of all parts of a cluster as of one time.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Snapshot")]
pub struct SnapshotDocument<'a> {
    #[schemars(with = "Id")]
    cluster_id: ClusterId,
    cluster_name: &'a str,
    /// Whether all of it is stored.
    complete: bool,
    /// The time that it is as of; not there before that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<TimestampDocument>,
    /// Whether it stays until somebody says otherwise.
    do_not_delete: bool,
    /// When it may go; not there as long as that is not known, nor while `doNotDelete` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Date>,
    #[schemars(with = "Id")]
    group_id: ProjectId,
    #[schemars(with = "Id")]
    id: SnapshotId,
    /// Whether it goes on from the snapshot before it, and nothing was read from the cluster.
    incremental: bool,
    /// The last entry of the oplogs that may be in it; the same as `created`.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_oplog_applied_timestamp: Option<TimestampDocument>,
    links: Vec<Link<'a>>,
    /// One for each shard, and one for the config servers.
    parts: Vec<PartDocument<'a>>,
    /// This product's own: what the published document has no field for. Not in that of a snapshot that is
    /// complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    stillpoint: Option<Progress>,
}

impl<'a> SnapshotDocument<'a> {
    /// As Get One gives it.
    pub fn one(view: &SnapshotView<'a>) -> SnapshotDocument<'a> {
        let place = view.place;
        let links = vec![
            Link::below(&place.snapshots_url, view.snapshot.id.to_string(), "self"),
            Link::new(&place.cluster_url, "http://mms.mongodb.com/cluster"),
            Link::new(&place.group_url, "http://mms.mongodb.com/group"),
        ];
        SnapshotDocument::with(view, links)
    }

    /// As an item of a list.
    pub fn item(view: &SnapshotView<'a>) -> SnapshotDocument<'a> {
        let link = Link::below(&view.place.snapshots_url, view.snapshot.id.to_string(), "self");
        SnapshotDocument::with(view, vec![link])
    }

    fn with(view: &SnapshotView<'a>, links: Vec<Link<'a>>) -> SnapshotDocument<'a> {
        let snapshot = view.snapshot;
        SnapshotDocument {
            cluster_id: snapshot.cluster,
            cluster_name: view.cluster_name,
            complete: snapshot.is_complete(),
            created: snapshot.cut.map(TimestampDocument::of),
            do_not_delete: snapshot.do_not_delete,
            expires: snapshot.expires.filter(|_| !snapshot.do_not_delete).map(Date),
            group_id: view.place.project,
            id: snapshot.id,
            incremental: snapshot.base.is_some(),
            last_oplog_applied_timestamp: snapshot.cut.map(TimestampDocument::of),
            links,
            parts: snapshot.parts.iter().map(|part| PartDocument::of(snapshot, part)).collect(),
            stillpoint: Progress::of(snapshot),
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SnapshotPart")]
struct PartDocument<'a> {
    #[schemars(with = "Id")]
    cluster_id: ClusterId,
    /// When the snapshot was complete; not there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_time: Option<Date>,
    /// Of all documents, as BSON; not there before that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_size_bytes: Option<u64>,
    replica_set_name: &'a str,
    /// Of a shard only.
    #[serde(skip_serializing_if = "Option::is_none")]
    shard_name: Option<&'a str>,
    /// What had to be stored for it, compressed, beside what was there; not there before that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_size_bytes: Option<u64>,
    /// `REPLICA_SET`, a shard, or `CONFIG_SERVER_REPLICA_SET`.
    type_name: &'static str,
}

impl<'a> PartDocument<'a> {
    fn of(snapshot: &Snapshot, part: &'a Part) -> PartDocument<'a> {
        let (shard_name, type_name) = match &part.id {
            PartId::Shard(name) => (Some(name.as_str()), "REPLICA_SET"),
            PartId::ConfigServers => (None, "CONFIG_SERVER_REPLICA_SET"),
        };
        PartDocument {
            cluster_id: snapshot.cluster,
            completed_time: snapshot.ended.filter(|_| snapshot.is_complete()).map(Date),
            data_size_bytes: part.data.map(|data| data.bytes),
            replica_set_name: &part.replica_set,
            shard_name,
            storage_size_bytes: part.data.map(|data| data.stored + part.read.map_or(0, |read| read.stored)),
            type_name,
        }
    }
}

/// How far a snapshot that is not complete has come, or that one is damaged.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SnapshotProgress")]
struct Progress {
    /// Something of it is missing from the vault, or is not what was stored: nothing can be restored from it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    damaged: bool,
    /// What to do about one that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    /// `QUEUED`, `READING`, `FOLDING`, `FAILED`, or `COMPLETED`.
    #[schemars(with = "String")]
    state: State,
    /// Something is in its way, and is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'static str>,
}

impl Progress {
    /// The record's own texts may name hosts: they do not go in.
    fn of(snapshot: &Snapshot) -> Option<Progress> {
        let failure = "Who runs the server sees why with `stillpoint snapshot show`.";
        (!snapshot.is_sound()).then(|| Progress {
            damaged: snapshot.damage.is_some(),
            failure: snapshot.failure.as_ref().map(|_| failure),
            state: snapshot.state,
            trouble: snapshot.trouble.as_ref().map(|_| "retrying"),
        })
    }
}
