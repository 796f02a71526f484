//! What a stored stream is made of: oplog entries, the transactions in them, and the segment files.
//!
//! Bytes in, values out: no I/O, no async, no clock. Nothing here trusts what it reads: whatever the
//! bytes are, the answer is a value or an error that says where, and never a panic.
//!
//! # Layout
//! - [`document`]: the fields of a BSON document, in place
//! - [`entry`]: one entry, read as far as routing and sealing need it
//! - [`transactions`]: which transactions are open at a place in the stream, and which are at a time
//! - [`segment`]: the file in which a run of entries is kept (docs/formats/segment.md)

pub mod document;
pub mod entry;
pub mod segment;
pub mod transactions;

pub use document::Malformed;
pub use entry::{Entry, EntryError, Kind, Session, Step, TokenNote, split};
pub use segment::{SegmentReader, SegmentWriter};
pub use transactions::{Cut, Outcome, Resolution, TransactionError, Transactions, Unresolved};
