//! What is stored of the oplogs, read again and checked.
//!
//! Every blob is checked against its id, and what is in it against the catalog's record. One that is missing
//! or damaged becomes a gap in the catalog, so that no time is offered any more which needs it.
//!
//! # Layout
//! - [`StoredOplog`]: the entries of one part between two times
//! - [`Check`]: every segment of every part
//! - `segments`: the records, page by page; `chain`: whether each follows the one before it
//! - `fetch`: a segment out of the vault; `lost`: the gap that a lost one leaves

mod chain;
mod check;
mod fetch;
mod lost;
mod read;
mod segments;
#[cfg(test)]
mod tests;

use stillpoint_catalog::CatalogError;
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::Gap;
use stillpoint_vault::VaultError;

pub use check::{Check, Found, Progress, Report};
pub use fetch::Fault;
pub use read::StoredOplog;
pub(crate) use segments::oldest;

/// Why entries cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error("{0}: nothing of its oplog is stored: `stillpoint status` says how its capture stands")]
    Nothing(PartId),
    #[error("{part}: its oplog is stored from {begins} on, and {from} was asked for")]
    BeginsLater { part: PartId, begins: ClusterTime, from: ClusterTime },
    #[error("{gap} ({detail})", detail = gap.detail)]
    Gap { gap: Box<Gap> },
    #[error(
        "{part}: the entries from {first} to {last} are lost, their segment {name} is not in the vault: put it back from a \
         backup of the vault and run `stillpoint vault check`"
    )]
    Missing { part: PartId, name: String, first: ClusterTime, last: ClusterTime },
    #[error(
        "{part}: the entries from {first} to {last} are lost, their segment {name} is damaged ({why}): put it back from a \
         backup of the vault and run `stillpoint vault check`"
    )]
    Damaged { part: PartId, name: String, first: ClusterTime, last: ClusterTime, why: String },
    #[error(
        "{part}: the entries up to {last} were given up while they were read, since their time was over: begin later"
    )]
    Expired { part: PartId, last: ClusterTime },
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("the vault: {0}")]
    Vault(#[from] VaultError),
}
