//! Where the resources of a project and a cluster are, on one surface.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use stillpoint_core::{CheckpointId, ClusterId, ProjectId};

use crate::surface::{ClusterBy, Surface};

/// What is left of a cluster's name in a link: RFC 3986's unreserved characters.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The URLs above a checkpoint, a snapshot and a restore job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub project: ProjectId,
    pub cluster: ClusterId,
    pub group_url: String,
    pub cluster_url: String,
    /// Of the collection.
    pub checkpoints_url: String,
    /// Of the collection.
    pub snapshots_url: String,
    /// Of the collection.
    pub restore_jobs_url: String,
}

impl Place {
    /// `base` is where clients reach the server, without a slash at its end.
    pub fn new(base: &str, surface: &Surface, project: ProjectId, cluster: ClusterId, name: &str) -> Place {
        let group_url = format!("{base}{}/groups/{project}", surface.prefix);
        let cluster_url = match surface.cluster {
            ClusterBy::Name => format!("{group_url}/clusters/{}", utf8_percent_encode(name, UNRESERVED)),
            ClusterBy::Id => format!("{group_url}/clusters/{cluster}"),
        };
        let checkpoints_url = [&cluster_url, "/", surface.checkpoints].concat();
        let snapshots_url = format!("{cluster_url}/snapshots");
        let restore_jobs_url = format!("{cluster_url}/restoreJobs");
        Place { project, cluster, group_url, cluster_url, checkpoints_url, snapshots_url, restore_jobs_url }
    }

    pub fn checkpoint_url(&self, id: CheckpointId) -> String {
        format!("{}/{id}", self.checkpoints_url)
    }
}
