//! A checkpoint.

use schemars::JsonSchema;
use serde::Serialize;
use stillpoint_core::checkpoint::{Checkpoint, Part, PartId, Reason, State};
use stillpoint_core::coverage::{Obstacle, Stored};
use stillpoint_core::verification::Verification;
use stillpoint_core::{CheckpointId, ClusterId, ProjectId};

use super::{Date, Id, Link, Place, TimestampDocument};

/// All that a checkpoint's document is made of.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub place: &'a Place,
    pub checkpoint: &'a Checkpoint,
    /// Of its cluster; without a stream, nothing is said of what it lacks.
    pub stored: Stored<'a>,
}

/// The document of one checkpoint, as Get One gives it.
pub fn checkpoint_document(view: &View) -> serde_json::Value {
    // Every key is a string and nothing in it can fail to be written.
    serde_json::to_value(CheckpointDocument::one(view)).unwrap_or_default()
}

/// A point in time that all parts of a cluster have in common.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Checkpoint")]
pub struct CheckpointDocument<'a> {
    #[schemars(with = "Id")]
    cluster_id: ClusterId,
    /// When it completed and the balancer ran again; not there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Date>,
    #[schemars(with = "Id")]
    group_id: ProjectId,
    #[schemars(with = "Id")]
    id: CheckpointId,
    links: Vec<Link<'a>>,
    /// One for each shard, and one for the config servers.
    parts: Vec<PartDocument<'a>>,
    /// Whether a restore can be made from it now.
    restorable: bool,
    /// When the balancer was stopped and the checkpoint began.
    started: Date,
    /// This product's own: what the published document has no field for. In that of a completed checkpoint
    /// only if something keeps it from being restored, or it was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    stillpoint: Option<Progress>,
    /// The point in time that it restores to.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Date>,
}

impl<'a> CheckpointDocument<'a> {
    /// As Get One gives it: its `self` is the collection, as in the published example.
    pub fn one(view: &View<'a>) -> CheckpointDocument<'a> {
        let place = view.place;
        let links = vec![
            Link::new(&place.checkpoints_url, "self"),
            Link::new(&place.cluster_url, "http://mms.mongodb.com/cluster"),
            Link::new(&place.group_url, "http://mms.mongodb.com/group"),
        ];
        CheckpointDocument::with(view, links)
    }

    /// As an item of a list.
    pub fn item(view: &View<'a>) -> CheckpointDocument<'a> {
        CheckpointDocument::with(view, vec![Link::item(&view.place.checkpoints_url, view.checkpoint.id)])
    }

    fn with(view: &View<'a>, links: Vec<Link<'a>>) -> CheckpointDocument<'a> {
        let checkpoint = view.checkpoint;
        CheckpointDocument {
            cluster_id: checkpoint.cluster,
            completed: checkpoint.completed().map(Date),
            group_id: view.place.project,
            id: checkpoint.id,
            links,
            parts: checkpoint.parts.iter().map(PartDocument::of).collect(),
            restorable: view.stored.restorable(checkpoint),
            started: Date(checkpoint.started),
            stillpoint: Progress::of(view),
            timestamp: checkpoint.cut.map(|cut| Date(cut.date())),
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "CheckpointPart")]
struct PartDocument<'a> {
    replica_set_name: &'a str,
    /// Of a shard only.
    #[serde(skip_serializing_if = "Option::is_none")]
    shard_name: Option<&'a str>,
    /// Whether the token was found in the oplog.
    token_discovered: bool,
    /// The token's entry in the oplog; not there until it is discovered.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_timestamp: Option<TimestampDocument>,
    /// `REPLICA_SET`, a shard, or `CONFIG_SERVER_REPLICA_SET`.
    type_name: &'static str,
}

impl<'a> PartDocument<'a> {
    fn of(part: &'a Part) -> PartDocument<'a> {
        let (shard_name, type_name) = match &part.id {
            PartId::Shard(name) => (Some(name.as_str()), "REPLICA_SET"),
            PartId::ConfigServers => (None, "CONFIG_SERVER_REPLICA_SET"),
        };
        let discovered = part.token.filter(|token| token.discovered);
        PartDocument {
            replica_set_name: &part.replica_set,
            shard_name,
            token_discovered: discovered.is_some(),
            token_timestamp: discovered.map(|token| TimestampDocument::of(token.time)),
            type_name,
        }
    }
}

/// How far a checkpoint that has not completed has come, or what keeps one that has from being restored.
#[derive(Debug, Serialize, JsonSchema)]
struct Progress {
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureDocument>,
    /// What keeps a completed checkpoint from being restored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    obstacles: Vec<ObstacleDocument>,
    /// `QUEUED`, `STARTED`, `HOLDING`, `RELEASING` and the like, `FAILED`, or `COMPLETED`.
    #[schemars(with = "String")]
    state: State,
    /// Something is in its way, and is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'static str>,
    /// What came of comparing what is stored of it with the cluster, if that was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<VerificationDocument>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Verification")]
pub(super) struct VerificationDocument {
    /// When it was compared.
    at: Date,
    /// `EQUAL`; `PARTLY_COMPARED`, what could be compared is equal; `NOT_VERIFIABLE`, the servers could not read
    /// that time; or `DIFFERENT`.
    verdict: &'static str,
}

impl VerificationDocument {
    pub(super) fn of(verification: &Verification) -> VerificationDocument {
        VerificationDocument { at: Date(verification.at), verdict: verification.verdict().name() }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Failure")]
struct FailureDocument {
    #[schemars(with = "String")]
    code: Reason,
    detail: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Obstacle")]
struct ObstacleDocument {
    /// `NOT_CAPTURED`, `BEFORE_CAPTURE`, a gap's cause, `TRANSACTION_UNRESOLVED`, `NO_SNAPSHOT` or `SNAPSHOT_DAMAGED`.
    code: &'static str,
    /// A sentence that names the part.
    detail: String,
}

impl ObstacleDocument {
    fn of(obstacle: Obstacle) -> ObstacleDocument {
        ObstacleDocument { code: obstacle.code(), detail: obstacle.to_string() }
    }
}

impl Progress {
    /// The record's own texts may name hosts: only what is safe for any client goes in.
    fn of(view: &View) -> Option<Progress> {
        let checkpoint = view.checkpoint;
        let found = match checkpoint.state == State::Completed && !view.stored.streams.is_empty() {
            true => view.stored.obstacles(checkpoint),
            false => Vec::new(),
        };
        let verification = checkpoint.verification.as_ref().map(VerificationDocument::of);
        if checkpoint.state == State::Completed && found.is_empty() && verification.is_none() {
            return None;
        }
        let failed = checkpoint.failure.as_ref().filter(|_| checkpoint.state == State::Failed);
        Some(Progress {
            failure: failed.map(|failure| FailureDocument { code: failure.reason, detail: failure.reason.sentence() }),
            obstacles: found.into_iter().map(ObstacleDocument::of).collect(),
            state: checkpoint.state,
            trouble: checkpoint.trouble.as_ref().filter(|_| !checkpoint.state.ended()).map(|_| "retrying"),
            verification,
        })
    }
}
