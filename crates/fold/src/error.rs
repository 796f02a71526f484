//! Why a fold stops: always with the place, since what comes after it cannot be trusted.

use std::io;

use stillpoint_core::{ClusterTime, OpTime};
use stillpoint_oplog::{EntryError, TransactionError};

use crate::catalogue::CatalogueError;
use crate::key::KeyError;
use crate::operation::{OperationError, Uuid};
use crate::outcomes::NotResolved;
use crate::update::UpdateError;

#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    #[error(transparent)]
    NotResolved(#[from] NotResolved),
    #[error("the oplog entry at {at} cannot be folded: {error}")]
    Operation { at: OpTime, error: OperationError },
    #[error("the oplog entry at {at} cannot be folded: {error}")]
    Catalogue { at: OpTime, error: CatalogueError },
    #[error("the oplog entry at {at} cannot be folded: its document's _id is {error}")]
    Key { at: OpTime, error: KeyError },
    #[error("the oplog entry at {at} belongs to a transaction that began before what is stored, and counts")]
    Headless { at: OpTime },
    #[error("the oplog entry at {at} changes the catalogue as of {commit}, and a change as of {after} came before it")]
    Disorder { at: OpTime, commit: ClusterTime, after: ClusterTime },
    #[error("the oplog entry at {at} writes to a collection of which nothing is known, {ns} ({collection})")]
    UnknownCollection { at: OpTime, ns: String, collection: Uuid },
    #[error("{place}: {what}")]
    Document { place: Place, what: DocumentError },
    #[error("a stored document of {collection} is {error}")]
    Stored { collection: Uuid, error: KeyError },
    #[error("of {collection}, the stored documents are not in order")]
    Order { collection: Uuid },
    #[error("temporary files cannot be used: {0}")]
    Spill(#[from] io::Error),
}

/// Where a change stands that does not fit its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The `ts` of the entry.
    pub entry: ClusterTime,
    pub collection: Uuid,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the oplog entry at {}, for a document of {}", self.entry, self.collection)
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DocumentError {
    #[error("inserts a document that is there")]
    Present,
    #[error("updates a document that is not there")]
    NothingToUpdate,
    #[error("deletes a document that is not there")]
    NothingToDelete,
    #[error("is an update that cannot be applied: {0}")]
    Update(#[from] UpdateError),
    #[error("is malformed: {0}")]
    Malformed(String),
}
