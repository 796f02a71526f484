//! A project, which the API calls a group.

use schemars::JsonSchema;
use serde::Serialize;
use stillpoint_catalog::Project;
use stillpoint_core::{OrganizationId, ProjectId};

use super::{Date, Id, Link};

/// A project, which the API calls a group.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Group")]
pub struct ProjectDocument<'a> {
    /// How many clusters it has here.
    cluster_count: u64,
    created: Date,
    #[schemars(with = "Id")]
    id: ProjectId,
    links: Vec<Link<'a>>,
    name: &'a str,
    /// The organisation that owns it.
    #[schemars(with = "Id")]
    org_id: OrganizationId,
}

impl<'a> ProjectDocument<'a> {
    /// `url` is the project's own.
    pub fn new(url: &'a str, project: &'a Project, clusters: u64) -> ProjectDocument<'a> {
        ProjectDocument {
            cluster_count: clusters,
            created: Date(project.created),
            id: project.id,
            links: vec![Link::new(url, "self"), Link::below(url, "clusters", "http://mms.mongodb.com/clusters")],
            name: &project.name,
            org_id: project.organization,
        }
    }
}
