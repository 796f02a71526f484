//! The file in which a run of entries is kept: a header that says what is in it, then blocks of entries,
//! each compressed by itself. docs/formats/segment.md describes it to the byte.
//!
//! Whether the bytes are the ones that were stored is the vault's question. Here it is asked only
//! whether they are a segment.

use stillpoint_core::stream::{BlobId, OpenTransaction};
use stillpoint_core::{ClusterId, OpTime};

mod format;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use format::{FORMAT, MAX_BLOCK, MAX_ENTRY, MAX_HEADER};
pub use read::{Entries, Limits, RawEntry, SegmentError, SegmentReader};
pub use write::{DEFAULT_BLOCK, DEFAULT_LEVEL, Seal, SegmentWriter, WriteError};

/// What a segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub cluster: ClusterId,
    /// The part, as [`PartId::key`](stillpoint_core::checkpoint::PartId::key) has it.
    pub part: String,
    pub first: OpTime,
    pub last: OpTime,
    pub entries: u64,
    /// Of the entries as the server wrote them.
    pub bytes: u64,
    /// The segment that ends where this one begins.
    pub previous: Option<BlobId>,
    /// The transactions that are open just before the first entry.
    pub open: Vec<OpenTransaction>,
}
