//! Why a drill does not pass, and what to do next.

use std::path::PathBuf;

use stillpoint_catalog::CatalogError;
use stillpoint_mongo::MongoError;
use stillpoint_mongod::ServerError;
use stillpoint_vault::VaultError;

use crate::snapshots::SnapshotError;

#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("the vault: {0}")]
    Vault(#[from] VaultError),
    #[error("what is stored: {0}")]
    Stored(#[from] SnapshotError),
    #[error("the throw-away cluster: {0}")]
    Cluster(#[from] MongoError),
    #[error("the throw-away cluster: {0}")]
    Server(#[from] ServerError),
    #[error("{path}: {why}", path = .path.display())]
    File { path: PathBuf, why: std::io::Error },
    #[error("the cluster for drills: {0}")]
    Given(MongoError),
    /// The cluster for drills will not do: why, and what to do.
    #[error("the cluster for drills: {0}")]
    Unfit(String),
    #[error("what is stored has no config servers, so no cluster can be made of it")]
    NoConfigServers,
    #[error(
        "{path} is a mongod {version}, and the data is of featureCompatibilityVersion {needed}: name a mongod {needed} with \
         --mongod",
        path = .path.display()
    )]
    Version { path: PathBuf, version: String, needed: String },
    #[error(
        "{needed} bytes are needed in {folder}, and {free} are free: make room, or name another folder with --folder",
        folder = .folder.display()
    )]
    NoRoom { folder: PathBuf, needed: u64, free: u64 },
    /// Nothing of what is stored will do.
    #[error("{0}")]
    Nothing(String),
    /// The checkpoint could not be restored: in the words of its restore.
    #[error("{why}")]
    NotRestored { why: String, given: bool },
    /// It was ended before it could tell.
    #[error("{0}")]
    Interrupted(String),
    /// The server stops, and the cluster for drills is not empty yet: the next one does that.
    #[error("the server was stopped")]
    Unfinished,
}

impl DrillError {
    /// Whether it says something of the checkpoint, or of what a drill is given: not that a vault did not answer.
    pub fn could_tell(&self) -> bool {
        match self {
            DrillError::Interrupted(_) | DrillError::Unfinished | DrillError::Catalog(_) => false,
            DrillError::Vault(why) => why.is_loss(),
            DrillError::Stored(why) => why.is_lasting(),
            _ => true,
        }
    }

    /// For the record: what went wrong, and what to do.
    pub fn told(&self) -> String {
        let why = self.to_string();
        let next = match self {
            DrillError::Server(ServerError::NoBinary) => "Install one for the server, or name one with --mongod.",
            DrillError::Server(ServerError::NotRun { .. } | ServerError::NoVersion { .. }) => {
                "Name a mongod that the server's user may run with --mongod."
            }
            DrillError::Server(_) | DrillError::Cluster(_) => {
                "The checkpoint was not tried: mend the cause on this machine, and run the drill again."
            }
            DrillError::Vault(_) | DrillError::Stored(_) => {
                "See with `stillpoint vault check` what is missing or damaged, and put it back."
            }
            DrillError::File { .. } => {
                "Name a file with a connection string that the server's user can read: --to-file."
            }
            DrillError::Given(_) => "The checkpoint was not tried: mend the cause there, and run the drill again.",
            DrillError::NotRestored { given: true, .. } => {
                "If that is the cluster for drills, mend it there; if it is the checkpoint, see with `stillpoint vault \
                 check` what of the vault is missing or damaged. Then run the drill again."
            }
            DrillError::NotRestored { given: false, .. } => {
                "This checkpoint cannot be restored: see with `stillpoint vault check` what of the vault is missing or \
                 damaged, mend it, and run the drill again."
            }
            DrillError::Interrupted(_) => "It says nothing of the checkpoint: run it again.",
            _ => return why,
        };
        format!("{why}{} {next}", if why.ends_with('.') { "" } else { "." })
    }
}
