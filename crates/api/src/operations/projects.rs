//! Projects, which the API calls groups.

use http::{Method, StatusCode};
use stillpoint_catalog::Project;
use stillpoint_core::Role;

use super::{Access, Call, Operation, Query, VERSIONS};
use crate::document::{ListDocument, ProjectDocument};
use crate::error::{Code, Refusal};
use crate::respond::Reply;

pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "listGroups",
        method: Method::GET,
        path: "/groups",
        access: Access::SignedIn,
        summary: "List the projects",
        about: "Those in which the key or service account has a role, by name.",
        tag: "Projects",
        query: Query::List,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<ListDocument<ProjectDocument>>()),
        refusals: &[],
        versions: VERSIONS,
        handler: |call| Box::pin(list(call)),
    },
    Operation {
        id: "getGroup",
        method: Method::GET,
        path: "/groups/{groupId}",
        access: Access::Project(Role::GroupReadOnly),
        summary: "Get one project",
        about: "",
        tag: "Projects",
        query: Query::Common,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<ProjectDocument>()),
        refusals: &[],
        versions: VERSIONS,
        handler: |call| Box::pin(get(call)),
    },
];

async fn list(call: &Call) -> Result<Reply, Refusal> {
    let roles = &call.credential()?.roles;
    let mut mine = Vec::new();
    for project in call.catalog().projects().await?.into_iter().filter(|project| roles.contains_key(&project.id)) {
        mine.push((call.group_url(project.id)?, clusters(call, &project).await?, project));
    }
    let url = format!("{}{}/groups", call.base, call.surface()?.prefix);
    call.list_of(&url, &mine, |(url, clusters, project)| ProjectDocument::new(url, project, *clusters))
}

async fn get(call: &Call) -> Result<Reply, Refusal> {
    let id = call.project()?;
    let project = call.catalog().project(id).await?;
    let project = project.ok_or_else(|| Refusal::new(Code::GroupNotFound, [&id.to_string()]))?;
    let url = call.group_url(id)?;
    call.one(StatusCode::OK, &ProjectDocument::new(&url, &project, clusters(call, &project).await?))
}

async fn clusters(call: &Call, project: &Project) -> Result<u64, Refusal> {
    Ok(call.catalog().count_clusters(project.id).await?)
}
