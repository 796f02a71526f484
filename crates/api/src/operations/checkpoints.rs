//! Checkpoints: list, get one; and this product's own: ask for one, delete one.

use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;
use stillpoint_catalog::{CatalogError, Holdings, Page};
use stillpoint_core::checkpoint::{Checkpoint, State};
use stillpoint_core::coverage::Stored;
use stillpoint_core::{CheckpointId, ClusterId, Role};

use super::{Access, Call, Operation, Query, RequestBody, VERSIONS};
use crate::body;
use crate::document::{CheckpointDocument, ListDocument, View};
use crate::error::{Code, Refusal};
use crate::query::Paging;
use crate::respond::Reply;

const COLLECTION: &str = "/groups/{groupId}/clusters/{cluster}/{checkpoints}";
const ITEM: &str = "/groups/{groupId}/clusters/{cluster}/{checkpoints}/{checkpointId}";
const TAG: &str = "Legacy Backup";

pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "listGroupClusterBackupCheckpoints",
        method: Method::GET,
        path: COLLECTION,
        access: Access::Project(Role::GroupReadOnly),
        summary: "List the checkpoints of a cluster",
        about: "Newest first.",
        tag: TAG,
        query: Query::List,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<ListDocument<CheckpointDocument>>()),
        refusals: &[],
        versions: VERSIONS,
        handler: |call| Box::pin(list(call)),
    },
    Operation {
        id: "getGroupClusterBackupCheckpoint",
        method: Method::GET,
        path: ITEM,
        access: Access::Project(Role::GroupReadOnly),
        summary: "Get one checkpoint",
        about: "As in the published example, its `self` is the collection.",
        tag: TAG,
        query: Query::Common,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<CheckpointDocument>()),
        refusals: &[],
        versions: VERSIONS,
        handler: |call| Box::pin(get(call)),
    },
    Operation {
        id: "createGroupClusterBackupCheckpoint",
        method: Method::POST,
        path: COLLECTION,
        access: Access::Project(Role::GroupOwner),
        summary: "Take a checkpoint",
        about: "This product's own. The checkpoint is queued, and begins within moments; ask for it until `completed` \
                is there. One of a cluster is taken at a time.",
        tag: TAG,
        query: Query::Common,
        body: Some(RequestBody::json(
            false,
            || json!({"type": "object", "maxProperties": 0, "description": "A checkpoint has no settings."}),
        )),
        status: StatusCode::CREATED,
        document: Some(|generator| generator.subschema_for::<CheckpointDocument>()),
        refusals: &[Code::CheckpointUnderWay],
        versions: VERSIONS,
        handler: |call| Box::pin(create(call)),
    },
    Operation {
        id: "deleteGroupClusterBackupCheckpoint",
        method: Method::DELETE,
        path: ITEM,
        access: Access::Project(Role::GroupOwner),
        summary: "Delete a checkpoint",
        about: "This product's own. Not while it is being taken.",
        tag: TAG,
        query: Query::Common,
        body: None,
        status: StatusCode::NO_CONTENT,
        document: None,
        refusals: &[Code::CheckpointUnderWay],
        versions: VERSIONS,
        handler: |call| Box::pin(delete(call)),
    },
];

async fn list(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let paging = Paging::parse(call.query())?;

    // One more than asked for, to see whether there is a next page.
    let page = Page { skip: paging.skip(), take: paging.per_page + 1 };
    let mut found = call.catalog().checkpoints(cluster.id, page).await?;
    let more = found.len() as u64 > paging.per_page;
    found.truncate(paging.per_page as usize);
    let total_count = match paging.count {
        true => Some(call.catalog().count_checkpoints(cluster.id).await?),
        false => None,
    };

    let place = call.place(&cluster)?;
    let held = holdings(call, cluster.id, &found).await?;
    let view = |checkpoint| View { place: &place, checkpoint, stored: held.stored() };
    let items = found.iter().map(|checkpoint| CheckpointDocument::item(&view(checkpoint))).collect();
    call.list(&place.checkpoints_url, paging, items, more, total_count)
}

async fn get(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let id = id(call)?;
    let checkpoint = call.catalog().checkpoint(cluster.id, id).await?.ok_or_else(|| not_found(id, call))?;
    let place = call.place(&cluster)?;
    let held = holdings(call, cluster.id, std::slice::from_ref(&checkpoint)).await?;
    let view = View { place: &place, checkpoint: &checkpoint, stored: held.stored() };
    call.one(StatusCode::OK, &CheckpointDocument::one(&view))
}

/// What their restorability depends on, read once for all of them; nothing where it makes no difference.
async fn holdings(call: &Call, cluster: ClusterId, found: &[Checkpoint]) -> Result<Holdings, Refusal> {
    match found.iter().any(|checkpoint| checkpoint.state == State::Completed) {
        true => Ok(Holdings::of(call.catalog(), cluster).await?),
        false => Ok(Holdings::default()),
    }
}

async fn create(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    // A checkpoint has no settings: the body is nothing or `{}`.
    body::optional_object(call.headers(), &call.body, &[])?;

    let id = CheckpointId::new(call.now, call.chance());
    let checkpoint = Checkpoint::queued(id, cluster.id, call.now);
    call.catalog().queue_checkpoint(&checkpoint).await.map_err(|error| match error {
        CatalogError::CheckpointUnderWay(other) => under_way(other, call),
        // Removed since it was looked up.
        CatalogError::Gone(_) => call.no_cluster(cluster.project),
        other => other.into(),
    })?;
    call.interface.outside.wake.notify_waiters();

    let place = call.place(&cluster)?;
    let document = CheckpointDocument::one(&View { place: &place, checkpoint: &checkpoint, stored: Stored::default() });
    let reply = call.one(StatusCode::CREATED, &document)?;
    // A URL of unreserved characters is always a header value.
    Ok(match HeaderValue::try_from(place.checkpoint_url(id)) {
        Ok(url) => reply.with(LOCATION, url),
        Err(_) => reply,
    })
}

async fn delete(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let id = id(call)?;
    call.catalog().delete_checkpoint(cluster.id, id).await.map_err(|error| match error {
        CatalogError::Gone(_) => not_found(id, call),
        CatalogError::InUse(_) => under_way(id, call),
        other => other.into(),
    })?;
    Ok(Reply::nothing())
}

fn id(call: &Call) -> Result<CheckpointId, Refusal> {
    let text = call.parameter("checkpointId");
    text.parse().map_err(|_| Refusal::new(Code::InvalidCheckpointId, [text]))
}

fn not_found(id: CheckpointId, call: &Call) -> Refusal {
    Refusal::new(Code::CheckpointNotFound, [&id.to_string(), call.cluster_text()])
}

fn under_way(id: CheckpointId, call: &Call) -> Refusal {
    Refusal::new(Code::CheckpointUnderWay, [&id.to_string(), call.cluster_text()])
}
