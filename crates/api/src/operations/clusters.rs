//! The clusters of a project.

use http::{Method, StatusCode};
use stillpoint_core::Role;

use super::{Access, Call, Operation, Query, VERSIONS};
use crate::document::{ClusterDocument, ListDocument};
use crate::error::Refusal;
use crate::query::Paging;
use crate::respond::Reply;

pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "listClusters",
        method: Method::GET,
        path: "/groups/{groupId}/clusters",
        access: Access::Project(Role::GroupReadOnly),
        summary: "List the clusters of a project",
        about: "By name.",
        tag: "Clusters",
        query: Query::List,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<ListDocument<ClusterDocument>>()),
        refusals: &[],
        versions: VERSIONS,
        handler: |call| Box::pin(list(call)),
    },
    Operation {
        id: "getCluster",
        method: Method::GET,
        path: "/groups/{groupId}/clusters/{cluster}",
        access: Access::Project(Role::GroupReadOnly),
        summary: "Get one cluster",
        about: "",
        tag: "Clusters",
        query: Query::Common,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<ClusterDocument>()),
        refusals: &[],
        versions: VERSIONS,
        handler: |call| Box::pin(get(call)),
    },
];

async fn list(call: &Call) -> Result<Reply, Refusal> {
    let (project, surface) = (call.project()?, call.surface()?);
    let paging = Paging::parse(call.query())?;
    let clusters = call.catalog().clusters(Some(project)).await?;
    let (page, more) = paging.of(&clusters);
    let mut placed = Vec::new();
    for cluster in page {
        placed.push((call.place(cluster)?, cluster, call.catalog().gaps(cluster.id).await?));
    }
    let url = format!("{}/clusters", call.group_url(project)?);
    let items = placed.iter().map(|(place, cluster, gaps)| ClusterDocument::new(place, surface, cluster, gaps));
    call.list(&url, paging, items.collect(), more, paging.count.then_some(clusters.len() as u64))
}

async fn get(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let place = call.place(&cluster)?;
    let gaps = call.catalog().gaps(cluster.id).await?;
    call.one(StatusCode::OK, &ClusterDocument::new(&place, call.surface()?, &cluster, &gaps))
}
