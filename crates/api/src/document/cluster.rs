//! A sharded cluster.

use schemars::JsonSchema;
use serde::Serialize;
use stillpoint_catalog::Cluster;
use stillpoint_core::{ClusterId, ProjectId};

use super::{Date, Id, Link, Place};
use crate::surface::{ClusterBy, Surface};

/// A sharded cluster. Atlas and Ops Manager call its name and its type differently: a surface has the
/// one pair or the other.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Cluster")]
pub struct ClusterDocument<'a> {
    /// On the Ops Manager surface.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_name: Option<&'a str>,
    /// `SHARDED`; on the Atlas surfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_type: Option<&'static str>,
    /// When it was added here.
    create_date: Date,
    #[schemars(with = "Id")]
    group_id: ProjectId,
    #[schemars(with = "Id")]
    id: ClusterId,
    links: Vec<Link<'a>>,
    /// On the Atlas surfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// `SHARDED_REPLICA_SET`; on the Ops Manager surface.
    #[serde(skip_serializing_if = "Option::is_none")]
    type_name: Option<&'static str>,
}

impl<'a> ClusterDocument<'a> {
    pub fn new(place: &'a Place, surface: &'static Surface, cluster: &'a Cluster) -> ClusterDocument<'a> {
        let atlas = surface.cluster == ClusterBy::Name;
        ClusterDocument {
            cluster_name: (!atlas).then_some(&cluster.name),
            cluster_type: atlas.then_some("SHARDED"),
            create_date: Date(cluster.created),
            group_id: cluster.project,
            id: cluster.id,
            links: vec![
                Link::new(&place.cluster_url, "self"),
                Link::new(&place.checkpoints_url, "http://mms.mongodb.com/checkpoints"),
                Link::new(&place.group_url, "http://mms.mongodb.com/group"),
                Link::below(&place.cluster_url, "snapshotSchedule", "http://mms.mongodb.com/snapshotSchedule"),
            ],
            name: atlas.then_some(&cluster.name),
            type_name: (!atlas).then_some("SHARDED_REPLICA_SET"),
        }
    }
}
