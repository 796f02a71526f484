//! The flavours of the API: the same resources under other paths.

/// One flavour.
#[derive(Debug, PartialEq, Eq)]
pub struct Surface {
    /// As the documentation calls it.
    pub name: &'static str,
    pub prefix: &'static str,
    /// What names a cluster in a path.
    pub cluster: ClusterBy,
    /// What the collection of checkpoints is called.
    pub checkpoints: &'static str,
    /// Whether clients ask for a version by date, see [`crate::version`].
    pub versioned: bool,
    /// Whether service accounts may come with a bearer token.
    pub bearer: bool,
    /// Other paths of the same resources, that clients of this flavour know.
    pub aliases: &'static [(&'static str, &'static str)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterBy {
    Name,
    Id,
}

/// Atlas Administration API v1.0.
pub const ATLAS_V1: Surface = Surface {
    name: "Atlas v1.0",
    prefix: "/api/atlas/v1.0",
    cluster: ClusterBy::Name,
    checkpoints: "backupCheckpoints",
    versioned: false,
    bearer: false,
    aliases: &[],
};

/// Atlas Administration API v2.
pub const ATLAS_V2: Surface =
    Surface { name: "Atlas v2", prefix: "/api/atlas/v2", versioned: true, bearer: true, ..ATLAS_V1 };

/// Ops Manager and Cloud Manager.
pub const OPS_MANAGER: Surface = Surface {
    name: "Ops Manager",
    prefix: "/api/public/v1.0",
    cluster: ClusterBy::Id,
    checkpoints: "checkpoints",
    versioned: false,
    bearer: false,
    aliases: &[(
        "/groups/{groupId}/clusters/{cluster}/snapshotSchedule",
        "/groups/{groupId}/backupConfigs/{cluster}/snapshotSchedule",
    )],
};

pub static ALL: [&Surface; 3] = [&ATLAS_V1, &ATLAS_V2, &OPS_MANAGER];

impl Surface {
    /// The surface that a path belongs to.
    pub fn of(path: &str) -> Option<&'static Surface> {
        ALL.into_iter().find(|surface| {
            path.strip_prefix(surface.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The paths of a template such as `/groups/{groupId}/clusters/{cluster}/{checkpoints}`; the first
    /// is the one that links use.
    pub fn paths(&self, template: &str) -> Vec<String> {
        let aliases = self.aliases.iter().filter(|(of, _)| *of == template).map(|(_, alias)| *alias);
        std::iter::once(template)
            .chain(aliases)
            .map(|path| {
                let path = path.replace("{cluster}", &format!("{{{}}}", self.cluster.parameter()));
                format!("{}{}", self.prefix, path.replace("{checkpoints}", self.checkpoints))
            })
            .collect()
    }
}

impl ClusterBy {
    pub fn parameter(self) -> &'static str {
        match self {
            ClusterBy::Name => "clusterName",
            ClusterBy::Id => "clusterId",
        }
    }
}
