//! What a stored snapshot is made of: chunks of documents, packs of chunks, and the tree that names them.
//!
//! Bytes in, values out: no I/O, no async, no clock. Nothing here trusts what it reads: whatever the
//! bytes are, the answer is a value or an error that says where, and never a panic.
//!
//! # Layout
//! - [`digest`]: the order-independent hash of a set of documents
//! - [`cut`]: where one chunk ends and the next begins
//! - [`chunk`]: cutting a collection's documents into chunks, and walking over a chunk's documents
//! - [`reference`](mod@reference): what is known of a chunk or a node without reading it, and where it is
//! - [`pack`]: the file in which chunks and nodes are kept
//! - [`tree`]: the nodes that name a collection's chunks: built, walked, compared
//! - [`writer`]: chunks and nodes into packs
//! - [`manifest`]: the file that says what a snapshot of a part is
//!
//! docs/formats/snapshot.md describes the files to the byte.

pub mod chunk;
pub mod cut;
pub mod digest;
pub mod manifest;
pub mod pack;
pub mod reference;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod writer;

pub use chunk::{Chunk, ChunkBuilder, ChunkError, documents};
pub use cut::Cut;
pub use digest::Digest;
pub use manifest::Manifest;
pub use pack::{PackError, PackReader, Unpacker};
pub use reference::{ContentId, Entry, KeyBound, Layout, Place, Reference, Root};
pub use tree::{Diff, Node, NodeError, Side, Step, TreeBuilder, TreeError, Walk};
pub use writer::{Next, Sealed, Unplaced, WriteError, Writer};
