//! Why a restore cannot go on.

use stillpoint_catalog::CatalogError;
use stillpoint_fold::ownership::OwnershipError;
use stillpoint_mongo::MongoError;
use stillpoint_vault::VaultError;

use crate::snapshots::SnapshotError;

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("the target: {0}")]
    Target(#[from] MongoError),
    #[error("what is stored: {0}")]
    Stored(#[from] SnapshotError),
    #[error("the vault: {0}")]
    Vault(#[from] VaultError),
    /// The target, or what was asked of it, will not do.
    #[error("{0}")]
    Refused(String),
    #[error("it cannot be known which shard owns the documents of {ns}: {why}")]
    Ownership { ns: String, why: OwnershipError },
    #[error(
        "the files may take {needed} bytes in {folder}, and {free} are free: make room there, or set `restore.downloads`"
    )]
    NoRoom { folder: String, needed: u64, free: u64 },
    #[error("{path} cannot be used for what is to be downloaded: {why}; set `restore.downloads` to a folder that can")]
    Downloads { path: String, why: std::io::Error },
    /// What is in the target is not what was written into it.
    #[error("{0}")]
    Different(String),
    #[error("somebody ended it")]
    Killed,
    #[error("the server is stopping")]
    Stopped,
}

impl RestoreError {
    /// Whether trying again is of no use.
    pub fn is_lasting(&self) -> bool {
        match self {
            RestoreError::Refused(_)
            | RestoreError::Ownership { .. }
            | RestoreError::Different(_)
            | RestoreError::Killed => true,
            RestoreError::Target(why) => why.is_lasting(),
            RestoreError::Stored(why) => why.is_lasting(),
            RestoreError::Vault(why) => why.is_loss(),
            RestoreError::Catalog(_)
            | RestoreError::NoRoom { .. }
            | RestoreError::Downloads { .. }
            | RestoreError::Stopped => false,
        }
    }

    /// That it is not known who owns what.
    pub(super) fn of_ownership(why: SnapshotError) -> RestoreError {
        match why {
            SnapshotError::Ownership { ns, why } => RestoreError::Ownership { ns, why },
            why => RestoreError::Stored(why),
        }
    }

    pub(super) fn refused(why: impl Into<String>) -> RestoreError {
        RestoreError::Refused(why.into())
    }
}
