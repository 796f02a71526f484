//! state(T) = fold(snapshot, stream, T): what a part's data was at a time, without a MongoDB server.
//!
//! Bytes in, values out, exact to the byte; nothing is asked of a network, and the only files are temporary.
//! Nothing here trusts what it reads: whatever the bytes are, the answer is a value or an error that says
//! where, and never a panic.
//!
//! # How it goes
//! The snapshot's catalogue is as of one time, and each piece of a collection as of a later time of its own.
//! The stream is read twice, from the first entry of the oldest transaction that is open at the first of these
//! times, until T is passed and every transaction that T cuts through has ended:
//! 1. [`Outcomes`]: which transactions are committed, and as of when.
//! 2. [`Gather`]: commands change the catalogue; changes of documents are sorted by collection, document and
//!    time.
//!
//! Then [`Merge`] goes through each collection that is there at T: its stored documents and its changes, both
//! in the order of the documents' keys, make its documents at T. A change counts if it is later than the
//! piece that its document is in, and at T or before; and so it must fit, or the fold stops.
//!
//! # Layout
//! - [`operation`]: what an entry does
//! - [`outcomes`], [`gather`], [`merge`]: the three steps
//! - [`catalogue`]: collections, their options and indexes, and how commands change them
//! - [`update`]: the document that an update makes of another
//! - [`key`]: the order of documents
//! - [`ownership`]: which shard owns a document
//! - [`sort`]: changes in order, in bounded memory

pub mod catalogue;
mod error;
pub mod gather;
pub mod key;
pub mod merge;
pub mod operation;
pub mod outcomes;
pub mod ownership;
pub mod sort;
pub mod update;

pub use catalogue::{Catalogue, Collection};
pub use error::{DocumentError, FoldError, Place};
pub use gather::{Gather, Gathered};
pub use key::Key;
pub use merge::{Kept, Merge, Piece};
pub use operation::Uuid;
pub use outcomes::{Committed, NotResolved, Outcomes};
pub use ownership::{Ownership, OwnershipError};
pub use sort::Budget;

/// How deep documents may be nested: as deep as the server's `maxBSONDepth` can be set (it is 200 unless an
/// operator raised it).
pub(crate) const DEPTH: usize = 250;

#[cfg(test)]
mod tests {
    pub mod entries;
    pub mod story;
}
