//! Why a snapshot cannot go on.

use std::io;

use stillpoint_catalog::CatalogError;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::{ClusterTime, SnapshotId};
use stillpoint_fold::{FoldError, OwnershipError};
use stillpoint_mongo::MongoError;
use stillpoint_mongo::snapshot::ReadError;
use stillpoint_oplog::{EntryError, TransactionError};
use stillpoint_snapshot::WriteError;
use stillpoint_snapshot::manifest::ManifestError;
use stillpoint_vault::VaultError;

use crate::stored::StoredError;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("the vault: {0}")]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Mongo(#[from] MongoError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error("{part}: its oplog is stored up to {reached}, and {wanted} is waited for")]
    NotReached { part: PartId, reached: ClusterTime, wanted: ClusterTime },
    #[error("{0}: its oplog is not captured yet")]
    NotCaptured(PartId),
    #[error(
        "{0}: entries of its oplog are missing since what it was to go on from: the next snapshot reads the cluster"
    )]
    CutOff(PartId),
    #[error("{0} cannot be found in the cluster any more")]
    NoPart(PartId),
    #[error("{part}: {what} cannot be read within the time that the server keeps its past: {why}")]
    TooSlow { part: PartId, what: String, why: String },
    #[error(
        "temporary files: {needed} bytes may be needed in {folder}, beside {others} for what is folded at the same time, and {free} are free: make room, or set `snapshots.temp_folder`"
    )]
    NoRoom { folder: String, needed: u64, others: u64, free: u64 },
    #[error("{path} cannot be written: {why}")]
    Output { path: String, why: io::Error },
    #[error("temporary files: {0}")]
    Spill(io::Error),

    // What trying again would not help.
    #[error("{part}: {why}")]
    Fold { part: PartId, why: FoldError },
    #[error("the collection {ns} has a definition that this program does not understand: {why}")]
    Definition { ns: String, why: String },
    #[error("a document of {ns} cannot be stored: {why}")]
    Document { ns: String, why: String },
    #[error("{name} in the vault is not what was stored there: {why}")]
    Damaged { name: String, why: String },
    #[error(
        "the snapshot {snapshot} is damaged: {why}: put it back from a backup of the vault and run `stillpoint vault check`"
    )]
    Unsound { snapshot: SnapshotId, why: Box<SnapshotError> },
    #[error("what was read of {part} cannot be found in its records: {why}")]
    Records { part: PartId, why: String },
    #[error("it cannot be known which shard owns the documents of {ns}: {why}")]
    Ownership { ns: String, why: OwnershipError },
    #[error("the config servers' data as of {time}, which says which shard owns what, cannot be made: {why}")]
    Routing { time: ClusterTime, why: String },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("a manifest: {0}")]
    Manifest(#[from] ManifestError),
    #[error("an entry of the stored oplog: {0}")]
    Entry(#[from] EntryError),
    #[error("the transactions of the stored oplog: {0}")]
    Transactions(#[from] TransactionError),

    /// Of the two times that are compared.
    #[error("{part} as of {time}: {why}")]
    Side { part: PartId, time: ClusterTime, why: Box<SnapshotError> },

    #[error("the server is stopping")]
    Stopped,
}

impl SnapshotError {
    /// Whether trying again is of no use.
    pub fn is_lasting(&self) -> bool {
        match self {
            SnapshotError::Fold { why, .. } => !matches!(why, FoldError::Spill(_) | FoldError::NotResolved(_)),
            SnapshotError::Stored(why) => !matches!(why, StoredError::Catalog(_) | StoredError::Vault(_)),
            SnapshotError::Vault(why) => why.is_loss(),
            SnapshotError::Definition { .. }
            | SnapshotError::Document { .. }
            | SnapshotError::Damaged { .. }
            | SnapshotError::Unsound { .. }
            | SnapshotError::Records { .. }
            | SnapshotError::Ownership { .. }
            | SnapshotError::Routing { .. }
            | SnapshotError::Write(_)
            | SnapshotError::Manifest(_)
            | SnapshotError::Entry(_)
            | SnapshotError::Transactions(_)
            | SnapshotError::TooSlow { .. }
            | SnapshotError::CutOff(_)
            | SnapshotError::NoPart(_) => true,
            SnapshotError::Side { why, .. } => why.is_lasting(),
            SnapshotError::Mongo(why) | SnapshotError::Read(ReadError::Mongo(why)) => why.is_lasting(),
            SnapshotError::Catalog(_)
            | SnapshotError::Read(_)
            | SnapshotError::NotReached { .. }
            | SnapshotError::NotCaptured(_)
            | SnapshotError::NoRoom { .. }
            | SnapshotError::Spill(_)
            | SnapshotError::Output { .. }
            | SnapshotError::Stopped => false,
        }
    }

    pub(super) fn damaged(name: &str, why: impl ToString) -> SnapshotError {
        SnapshotError::Damaged { name: name.to_owned(), why: why.to_string() }
    }
}
