//! The routes: one file a resource. Also what all of them look up first, the project and the cluster.

mod checkpoints;

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use percent_encoding::percent_decode_str;
use stillpoint_catalog::Cluster;
use stillpoint_core::{ProjectId, Role};

use crate::auth::{Ask, gate};
use crate::document::{ATLAS_V1, Surface};
use crate::error::{Code, Refusal};
use crate::state::{Api, ApiState};

/// The longest cluster name that is looked up.
const LONGEST_NAME: usize = 255;

/// The whole interface. It wants a [`crate::Peer`] with each request, as [`crate::serve`] gives.
pub fn router(state: ApiState) -> Router {
    let api = Arc::new(Api::new(state));
    checkpoints::routes(Room { api: api.clone(), surface: &ATLAS_V1 })
        .fallback(no_such_resource)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(api, gate))
}

async fn no_such_resource(request: Request) -> Refusal {
    Refusal::new(Code::ResourceNotFound, [request.uri().path()])
}

/// `Allow` is set by axum.
async fn no_such_method(request: Request) -> Refusal {
    Refusal::new(Code::MethodNotAllowed, [request.method().as_str()])
}

/// What the handlers of one surface work with.
#[derive(Clone)]
struct Room {
    api: Arc<Api>,
    surface: &'static Surface,
}

impl Room {
    /// Segment `n` of the path after the surface's prefix, decoded; counted from 0. What is not UTF-8
    /// comes out with replacement characters, which are in no id and no name.
    fn segment<'a>(&self, ask: &'a Ask, n: usize) -> Cow<'a, str> {
        let path = ask.uri.path();
        // Split before it is decoded: an encoded slash is part of a segment.
        let segment = path.strip_prefix(self.surface.prefix).and_then(|rest| rest.split('/').nth(n + 1));
        percent_decode_str(segment.unwrap_or_default()).decode_utf8_lossy()
    }

    /// The project of the path, if the key is one of its own and has the role.
    async fn project(&self, ask: &Ask, needed: Role) -> Result<ProjectId, Refusal> {
        let text = self.segment(ask, 1);
        let id: ProjectId = text.parse().map_err(|_| Refusal::new(Code::InvalidGroupId, [&text]))?;
        // A key belongs to a project that exists, so only another project's has to be looked up.
        if id != ask.project && self.api.catalog().project(id).await?.is_none() {
            return Err(Refusal::new(Code::GroupNotFound, [&text]));
        }
        if id != ask.project || ask.role < needed {
            return Err(Refusal::new(Code::AccessForbidden, [&text]));
        }
        Ok(id)
    }

    /// The cluster of the path.
    async fn cluster(&self, ask: &Ask, project: ProjectId) -> Result<Arc<Cluster>, Refusal> {
        let name = self.segment(ask, 3);
        let cluster = match name.len() <= LONGEST_NAME && !name.contains(char::is_control) {
            true => self.api.reads.cluster(self.api.catalog(), ask.version, project, &name).await?,
            false => None,
        };
        cluster.ok_or_else(|| Refusal::new(Code::ClusterNotFound, [&name, &project.to_string()]))
    }
}
