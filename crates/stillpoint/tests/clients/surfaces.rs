//! The surfaces of the API that every client is tried on.

use crate::seed::{CLUSTER, Seed};

#[derive(Debug)]
pub struct Surface {
    pub prefix: &'static str,
    /// What the collection of checkpoints is called.
    pub checkpoints: &'static str,
    /// What the path and the errors call the cluster.
    pub cluster: fn(&Seed) -> String,
    /// What is to be asked for, and what a success then is.
    pub accept: &'static str,
}

pub const SURFACES: [Surface; 3] = [
    Surface { prefix: "/api/atlas/v1.0", checkpoints: "backupCheckpoints", cluster: by_name, accept: "" },
    Surface { prefix: "/api/atlas/v2", checkpoints: "backupCheckpoints", cluster: by_name, accept: V2 },
    Surface { prefix: "/api/public/v1.0", checkpoints: "checkpoints", cluster: by_id, accept: "" },
];

const V2: &str = "application/vnd.atlas.2023-01-01+json";

impl Surface {
    /// The path of the collection of checkpoints.
    pub fn collection(&self, seed: &Seed) -> String {
        let (project, cluster) = (seed.project, (self.cluster)(seed));
        format!("{}/groups/{project}/clusters/{cluster}/{}", self.prefix, self.checkpoints)
    }
}

fn by_name(_: &Seed) -> String {
    CLUSTER.into()
}

fn by_id(seed: &Seed) -> String {
    seed.cluster.to_string()
}
