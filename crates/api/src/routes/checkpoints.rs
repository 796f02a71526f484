//! Checkpoints: list, get one, ask for one, delete one.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use stillpoint_catalog::{CatalogError, Cluster, Page};
use stillpoint_core::checkpoint::Checkpoint;
use stillpoint_core::{CheckpointId, ProjectId, Role};

use super::Room;
use crate::auth::Ask;
use crate::document::{CheckpointDocument, Link, ListDocument, Place, View};
use crate::error::{Code, Refusal};
use crate::query::Paging;

/// The largest request body that is read.
const LARGEST_BODY: usize = 64 * 1024;

pub(super) fn routes(room: Room) -> Router {
    let collection =
        format!("{}/groups/{{group}}/clusters/{{cluster}}/{}", room.surface.prefix, room.surface.checkpoints);
    let item = format!("{collection}/{{checkpoint}}");
    Router::new().route(&collection, get(list).post(create)).route(&item, get(get_one).delete(delete)).with_state(room)
}

async fn list(State(room): State<Room>, ask: Ask) -> Result<Response, Refusal> {
    let project = room.project(&ask, Role::GroupReadOnly).await?;
    let cluster = room.cluster(&ask, project).await?;
    let paging = Paging::parse(ask.uri.query().unwrap_or_default())?;

    // One more than asked for, to see whether there is a next page.
    let page = Page { skip: (paging.page - 1) * paging.per_page, take: paging.per_page + 1 };
    let mut found = room.api.catalog().checkpoints(cluster.id, page).await?;
    let more = found.len() as u64 > paging.per_page;
    found.truncate(paging.per_page as usize);
    let total_count = match paging.count {
        true => Some(room.api.catalog().count_checkpoints(cluster.id).await?),
        false => None,
    };

    let place = place(&room, &ask, project, &cluster);
    ask.style.list(ListDocument {
        links: Link::paging(&place.checkpoints_url, paging.page, paging.per_page, more),
        results: found.iter().map(|checkpoint| CheckpointDocument::item(&View { place: &place, checkpoint })).collect(),
        status: None,
        total_count,
    })
}

/// A reply that is remembered was given at the gate already.
async fn get_one(State(room): State<Room>, ask: Ask) -> Result<Response, Refusal> {
    let project = room.project(&ask, Role::GroupReadOnly).await?;
    let cluster = room.cluster(&ask, project).await?;
    let id = id(&room, &ask)?;
    let checkpoint = room.api.catalog().checkpoint(cluster.id, id).await?.ok_or_else(|| not_found(id, &cluster))?;

    let place = place(&room, &ask, project, &cluster);
    let document = CheckpointDocument::one(&View { place: &place, checkpoint: &checkpoint });
    let reply = ask.style.render(StatusCode::OK, &document)?;
    let mut response = Response::new(Body::empty());
    reply.fill(&mut response);
    room.api.reads.remember(ask.version, ask.asked(), reply);
    Ok(response)
}

async fn create(State(room): State<Room>, ask: Ask, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let project = room.project(&ask, Role::GroupOwner).await?;
    let cluster = room.cluster(&ask, project).await?;
    check_nothing_asked(&headers, &read(body).await?)?;

    let id = CheckpointId::new(ask.now, (room.api.outside.chance)());
    let checkpoint = Checkpoint::queued(id, cluster.id, ask.now);
    room.api.catalog().queue_checkpoint(&checkpoint).await.map_err(|error| match error {
        CatalogError::CheckpointUnderWay(other) => under_way(other, &cluster),
        // Removed since it was looked up.
        CatalogError::Gone(_) => Refusal::new(Code::ClusterNotFound, [&cluster.name, &project.to_string()]),
        other => other.into(),
    })?;
    room.api.outside.wake.notify_waiters();

    let place = place(&room, &ask, project, &cluster);
    let document = CheckpointDocument::one(&View { place: &place, checkpoint: &checkpoint });
    let mut response = ask.style.one(StatusCode::CREATED, &document)?;
    if let Ok(url) = HeaderValue::try_from(place.checkpoint_url(id)) {
        response.headers_mut().insert(LOCATION, url);
    }
    Ok(response)
}

async fn delete(State(room): State<Room>, ask: Ask) -> Result<Response, Refusal> {
    let project = room.project(&ask, Role::GroupOwner).await?;
    let cluster = room.cluster(&ask, project).await?;
    let id = id(&room, &ask)?;
    room.api.catalog().delete_checkpoint(cluster.id, id).await.map_err(|error| match error {
        CatalogError::Gone(_) => not_found(id, &cluster),
        CatalogError::InUse(_) => under_way(id, &cluster),
        other => other.into(),
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn place(room: &Room, ask: &Ask, project: ProjectId, cluster: &Cluster) -> Place {
    Place::new(&ask.base, room.surface, project, &cluster.name)
}

fn id(room: &Room, ask: &Ask) -> Result<CheckpointId, Refusal> {
    let text = room.segment(ask, 5);
    text.parse().map_err(|_| Refusal::new(Code::InvalidCheckpointId, [&text]))
}

fn not_found(id: CheckpointId, cluster: &Cluster) -> Refusal {
    Refusal::new(Code::CheckpointNotFound, [&id.to_string(), &cluster.name])
}

fn under_way(id: CheckpointId, cluster: &Cluster) -> Refusal {
    Refusal::new(Code::CheckpointUnderWay, [&id.to_string(), &cluster.name])
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Refusal::new(Code::BodyTooLarge, [&LARGEST_BODY.to_string()]))
        }
        // The client broke off.
        Err(_) => Err(Refusal::new(Code::MalformedJson, [])),
    }
}

/// A checkpoint has no settings: the body is nothing or `{}`.
fn check_nothing_asked(headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(Refusal::new(Code::UnsupportedMediaType, []));
    }
    match serde_json::from_slice(body) {
        Err(_) => Err(Refusal::new(Code::MalformedJson, [])),
        Ok(serde_json::Value::Object(attributes)) => match attributes.keys().next() {
            Some(attribute) => Err(Refusal::new(Code::InvalidAttribute, [attribute])),
            None => Ok(()),
        },
        Ok(_) => Err(Refusal::new(Code::InvalidJson, [])),
    }
}
