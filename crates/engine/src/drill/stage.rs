//! Where a drill is done.

use secrecy::SecretString;
use stillpoint_core::restore::Target;
use stillpoint_mongod::ServerError;

use super::given::Given;
use super::throwaway::Throwaway;

/// A cluster that is ready to be restored into.
pub enum Stage {
    Throwaway(Throwaway),
    Given(Box<Given>),
}

impl Stage {
    pub fn uri(&self) -> &SecretString {
        match self {
            Stage::Throwaway(cluster) => cluster.uri(),
            Stage::Given(cluster) => cluster.uri(),
        }
    }

    /// What the record of the restore calls it.
    pub fn target(&self) -> Target {
        Target::Hosts(match self {
            Stage::Throwaway(_) => "a throw-away cluster".into(),
            Stage::Given(cluster) => format!("{}, which is for drills", cluster.name()),
        })
    }

    /// What a server of a throw-away cluster left that ended by itself.
    pub fn failed(&mut self) -> Option<ServerError> {
        match self {
            Stage::Throwaway(cluster) => cluster.failed(),
            Stage::Given(_) => None,
        }
    }
}
