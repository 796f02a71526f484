//! A sharded cluster.

use schemars::JsonSchema;
use serde::Serialize;
use stillpoint_catalog::Cluster;
use stillpoint_core::stream::{Gap, GapCause};
use stillpoint_core::{ClusterId, ProjectId};

use super::{Date, Id, Link, Place, TimestampDocument};
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
    /// This product's own: what the published document has no field for, if there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    stillpoint: Option<Kept>,
    /// `SHARDED_REPLICA_SET`; on the Ops Manager surface.
    #[serde(skip_serializing_if = "Option::is_none")]
    type_name: Option<&'static str>,
}

/// What is kept of a cluster.
#[derive(Debug, Serialize, JsonSchema)]
struct Kept {
    /// Where entries are missing from the stored oplogs: no time within can be restored.
    gaps: Vec<GapDocument>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Gap")]
struct GapDocument {
    /// The last time before it that can be restored.
    after: TimestampDocument,
    /// `ROLLED_OVER`, `SHARD_AWAY`, `SEGMENT_MISSING` or `SEGMENT_DAMAGED`.
    #[schemars(with = "String")]
    cause: GapCause,
    /// The cause as a sentence.
    detail: &'static str,
    /// `config`, or `shard-` and the shard's name, with all but letters, digits, `_`, `-` and `.` as %XX.
    part: String,
    /// The first time after it that can be restored.
    until: TimestampDocument,
}

impl GapDocument {
    /// The record's own text is for the operator: it does not go in.
    fn of(gap: &Gap) -> GapDocument {
        GapDocument {
            after: TimestampDocument::of(gap.after),
            cause: gap.cause,
            detail: gap.cause.sentence(),
            part: gap.part.key(),
            until: TimestampDocument::of(gap.until),
        }
    }
}

impl<'a> ClusterDocument<'a> {
    pub fn new(place: &'a Place, surface: &'static Surface, cluster: &'a Cluster, gaps: &[Gap]) -> ClusterDocument<'a> {
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
                Link::new(&place.restore_jobs_url, "http://mms.mongodb.com/restoreJobs"),
                Link::below(&place.cluster_url, "snapshotSchedule", "http://mms.mongodb.com/snapshotSchedule"),
                Link::new(&place.snapshots_url, "http://mms.mongodb.com/snapshots"),
            ],
            name: atlas.then_some(&cluster.name),
            stillpoint: (!gaps.is_empty()).then(|| Kept { gaps: gaps.iter().map(GapDocument::of).collect() }),
            type_name: (!atlas).then_some("SHARDED_REPLICA_SET"),
        }
    }
}
