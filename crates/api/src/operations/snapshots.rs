//! Snapshots: list, get one, change how long one is kept, delete one; and this product's own: ask for one.

use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use stillpoint_catalog::{CatalogError, Cluster, Page};
use stillpoint_core::keeping::{Need, keep_from, need};
use stillpoint_core::snapshot::Snapshot;
use stillpoint_core::{Role, SnapshotId};

use super::{Access, Call, Operation, Query, RequestBody, VERSIONS};
use crate::body;
use crate::document::{ListDocument, SnapshotDocument, SnapshotView, snapshot_document};
use crate::error::{Code, Refusal};
use crate::query;
use crate::respond::Reply;

const COLLECTION: &str = "/groups/{groupId}/clusters/{cluster}/snapshots";
const ITEM: &str = "/groups/{groupId}/clusters/{cluster}/snapshots/{snapshotId}";
const TAG: &str = "Legacy Backup";

pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "listGroupClusterSnapshots",
        method: Method::GET,
        path: COLLECTION,
        access: Access::Project(Role::GroupReadOnly),
        summary: "List the snapshots of a cluster",
        about: "Newest first.",
        tag: TAG,
        query: Query::ListOfSnapshots,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<ListDocument<SnapshotDocument>>()),
        refusals: &[],
        versions: VERSIONS,
        handler: |call| Box::pin(list(call)),
    },
    Operation {
        id: "getGroupClusterSnapshot",
        method: Method::GET,
        path: ITEM,
        access: Access::Project(Role::GroupReadOnly),
        summary: "Get one snapshot",
        about: "",
        tag: TAG,
        query: Query::Common,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<SnapshotDocument>()),
        refusals: &[],
        versions: VERSIONS,
        handler: |call| Box::pin(get(call)),
    },
    Operation {
        id: "createGroupClusterSnapshot",
        method: Method::POST,
        path: COLLECTION,
        access: Access::Project(Role::GroupOwner),
        summary: "Take a snapshot",
        about: "This product's own. The snapshot is queued, and begins within moments; ask for it until `complete` is \
                true. One of a cluster is taken at a time.",
        tag: TAG,
        query: Query::Common,
        body: Some(RequestBody::json(
            false,
            || json!({"type": "object", "maxProperties": 0, "description": "A snapshot has no settings."}),
        )),
        status: StatusCode::CREATED,
        document: Some(|generator| generator.subschema_for::<SnapshotDocument>()),
        refusals: &[Code::SnapshotUnderWay],
        versions: VERSIONS,
        handler: |call| Box::pin(create(call)),
    },
    Operation {
        id: "updateGroupClusterSnapshot",
        method: Method::PATCH,
        path: ITEM,
        access: Access::Project(Role::GroupOwner),
        summary: "Change how long a snapshot is kept",
        about: "Of one that is complete. One that kept checkpoints need stays beyond that.",
        tag: TAG,
        query: Query::Common,
        body: Some(RequestBody::json(true, body_schema)),
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<SnapshotDocument>()),
        refusals: &[Code::SnapshotNotComplete],
        versions: VERSIONS,
        handler: |call| Box::pin(change(call)),
    },
    Operation {
        id: "deleteGroupClusterSnapshot",
        method: Method::DELETE,
        path: ITEM,
        access: Access::Project(Role::GroupOwner),
        summary: "Delete a snapshot",
        about: "Not while it is being taken, nor while checkpoints or times that are kept, the next snapshot, or a \
                restore need it.",
        tag: TAG,
        query: Query::Common,
        body: None,
        status: StatusCode::NO_CONTENT,
        document: None,
        refusals: &[
            Code::SnapshotUnfinished,
            Code::SnapshotNeeded,
            Code::SnapshotNewest,
            Code::SnapshotStays,
            Code::SnapshotRestored,
        ],
        versions: VERSIONS,
        handler: |call| Box::pin(delete(call)),
    },
];

async fn list(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let completed = query::completed(call.query())?;
    // A schedule keeps some dozens of a cluster.
    let mut found = call.catalog().snapshots(cluster.id, Page::ALL).await?;
    found.retain(|snapshot| completed.is_none_or(|completed| snapshot.is_complete() == completed));
    let place = call.place(&cluster)?;
    let url = match completed {
        Some(true) => place.snapshots_url.clone(),
        Some(false) => format!("{}?completed=false", place.snapshots_url),
        None => format!("{}?completed=all", place.snapshots_url),
    };
    let view = |snapshot| SnapshotView { place: &place, cluster_name: &cluster.name, snapshot };
    call.list_of(&url, &found, |snapshot| SnapshotDocument::item(&view(snapshot)))
}

async fn get(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let snapshot = find(call, &cluster).await?;
    reply(call, StatusCode::OK, &cluster, &snapshot)
}

async fn create(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    // A snapshot has no settings: the body is nothing or `{}`.
    body::optional_object(call.headers(), &call.body, &[])?;

    let snapshot = Snapshot::queued(SnapshotId::new(call.now, call.chance()), cluster.id, call.now);
    call.catalog().queue_snapshot(&snapshot).await.map_err(|error| match error {
        CatalogError::SnapshotUnderWay(other) => refused(Code::SnapshotUnderWay, other, call),
        // Removed since it was looked up.
        CatalogError::Gone(_) => call.no_cluster(cluster.project),
        other => other.into(),
    })?;
    call.interface.outside.wake.notify_waiters();

    let reply = reply(call, StatusCode::CREATED, &cluster, &snapshot)?;
    // A URL of unreserved characters is always a header value.
    Ok(match HeaderValue::try_from(format!("{}/{}", call.place(&cluster)?.snapshots_url, snapshot.id)) {
        Ok(url) => reply.with(LOCATION, url),
        Err(_) => reply,
    })
}

async fn change(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let snapshot = find(call, &cluster).await?;
    let members = body::object(call.headers(), &call.body, FIELDS)?;
    let place = call.place(&cluster)?;
    let shown = snapshot_document(&SnapshotView { place: &place, cluster_name: &cluster.name, snapshot: &snapshot });
    let (expires, do_not_delete) = changes(members, &snapshot, &shown)?;
    if !snapshot.is_complete() {
        return Err(refused(Code::SnapshotNotComplete, snapshot.id, call));
    }
    if (expires, do_not_delete) == (snapshot.expires, snapshot.do_not_delete) {
        return reply(call, StatusCode::OK, &cluster, &snapshot);
    }
    let kept = call.catalog().keep_snapshot(cluster.id, snapshot.id, expires, do_not_delete).await;
    let after = kept.map_err(|error| match error {
        // Deleted since it was looked up.
        CatalogError::Gone(_) => not_found(call),
        other => other.into(),
    })?;
    reply(call, StatusCode::OK, &cluster, &after)
}

async fn delete(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let snapshot = find(call, &cluster).await?;
    if !snapshot.state.ended() {
        return Err(refused(Code::SnapshotUnfinished, snapshot.id, call));
    }
    if snapshot.do_not_delete {
        return Err(refused(Code::SnapshotStays, snapshot.id, call));
    }
    let catalog = call.catalog();
    let (schedule, oldest_cut) = (catalog.schedule(cluster.id).await?, catalog.oldest_cut(cluster.id).await?);
    let all = catalog.snapshots(cluster.id, Page::ALL).await?;
    match need(&all, snapshot.id, keep_from(&schedule, oldest_cut, call.now)) {
        Some(Need::Oldest) => return Err(refused(Code::SnapshotNeeded, snapshot.id, call)),
        Some(Need::Newest) => return Err(refused(Code::SnapshotNewest, snapshot.id, call)),
        None => {}
    }
    let restored = catalog.unfinished_restore(cluster.id).await?;
    if snapshot.cut.is_some_and(|cut| restored.is_some_and(|restore| cut <= restore.time)) {
        return Err(refused(Code::SnapshotRestored, snapshot.id, call));
    }
    catalog.delete_snapshot(cluster.id, snapshot.id, call.now).await.map_err(|error| match error {
        CatalogError::Gone(_) => not_found(call),
        // One that is under way goes on from it.
        CatalogError::InUse(_) => refused(Code::SnapshotNewest, snapshot.id, call),
        other => other.into(),
    })?;
    Ok(Reply::nothing())
}

fn reply(call: &Call, status: StatusCode, cluster: &Cluster, snapshot: &Snapshot) -> Result<Reply, Refusal> {
    let place = call.place(cluster)?;
    call.one(status, &SnapshotDocument::one(&SnapshotView { place: &place, cluster_name: &cluster.name, snapshot }))
}

/// The snapshot of the path. What is no id at all is none of a snapshot: there is no error of its own for it.
async fn find(call: &Call, cluster: &Cluster) -> Result<Snapshot, Refusal> {
    let id = call.parameter("snapshotId").parse().map_err(|_| not_found(call))?;
    call.catalog().snapshot(cluster.id, id).await?.ok_or_else(|| not_found(call))
}

fn not_found(call: &Call) -> Refusal {
    Refusal::new(Code::SnapshotNotFound, [call.parameter("snapshotId"), call.cluster_text()])
}

fn refused(code: Code, id: SnapshotId, call: &Call) -> Refusal {
    Refusal::new(code, [&id.to_string(), call.cluster_text()])
}

const EXPIRES: &str = "expires";
const DO_NOT_DELETE: &str = "doNotDelete";

/// The fields that a body may have: what can be changed, and what a client that read the snapshot sends back.
pub const FIELDS: &[&str] = &[
    "clusterId",
    "clusterName",
    "complete",
    "created",
    DO_NOT_DELETE,
    EXPIRES,
    "groupId",
    "id",
    "incremental",
    "lastOplogAppliedTimestamp",
    "links",
    "parts",
    "stillpoint",
];

/// What the members of a body make of how long the snapshot is kept. `shown` is the document that the client
/// was told: it may say so again.
fn changes(
    members: Vec<(String, Value)>,
    snapshot: &Snapshot,
    shown: &Value,
) -> Result<(Option<Timestamp>, bool), Refusal> {
    let (mut expires, mut do_not_delete) = (snapshot.expires, snapshot.do_not_delete);
    for (name, value) in members {
        let invalid = || Refusal::new(Code::InvalidAttribute, [&name]);
        // What is shown is cut to whole seconds.
        let same = shown.get(&name) == Some(&value) || (name == "links" && value.is_array());
        match name.as_str() {
            _ if same => {}
            DO_NOT_DELETE => do_not_delete = value.as_bool().ok_or_else(invalid)?,
            EXPIRES => expires = Some(value.as_str().and_then(date).ok_or_else(invalid)?),
            _ => return Err(invalid()),
        }
    }
    // As it is published: the one or the other.
    if do_not_delete && expires != snapshot.expires {
        return Err(Refusal::new(Code::InvalidAttribute, [EXPIRES]));
    }
    Ok((expires, do_not_delete))
}

/// A date of ISO 8601; of UTC, if it does not say otherwise.
fn date(text: &str) -> Option<Timestamp> {
    let civil = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|date| date.timestamp());
    text.parse().ok().or_else(civil).filter(|date: &Timestamp| date.to_zoned(TimeZone::UTC).year() >= 0)
}

fn body_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            EXPIRES: {
                "type": "string",
                "format": "date-time",
                "description": "When it may go, as a date of ISO 8601; not for one that stays.",
            },
            DO_NOT_DELETE: {"type": "boolean", "description": "Whether it stays until somebody says otherwise."},
        },
        "additionalProperties": false,
        "not": {"properties": {DO_NOT_DELETE: {"const": true}}, "required": [DO_NOT_DELETE, EXPIRES]},
        "description": "What is to change, not both at once unless `doNotDelete` is false; all else stays. The other fields may stand in it as they were read.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_iso_8601() {
        for (text, expected) in [
            ("2026-12-01T10:20:30Z", "2026-12-01T10:20:30Z"),
            ("2026-12-01T10:20:30.5+02:00", "2026-12-01T08:20:30.5Z"),
            ("2026-12-01T10:20:30", "2026-12-01T10:20:30Z"),
            ("2026-12-01", "2026-12-01T00:00:00Z"),
        ] {
            assert_eq!(date(text), Some(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "x", "15", "tomorrow", "2026-13-01", "2026-02-30T00:00:00Z", "-000001-01-01T00:00:00Z"] {
            assert_eq!(date(text), None, "{text}");
        }
    }
}
