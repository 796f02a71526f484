//! The file that says what a snapshot of a part is: its times, its collections, and their roots.

mod format;
mod read;
mod rules;
mod write;

pub use read::ManifestError;

use bson::RawDocument;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::BlobId;
use stillpoint_core::{ClusterId, ClusterTime};

use crate::reference::{Layout, Root};
use crate::{Cut, Digest};

/// Where the snapshots of all clusters are in the vault.
pub const SNAPSHOTS: &str = "snapshot";

/// The blob's name of a manifest, without its id: so they sort as in time.
pub fn place(cluster: ClusterId, part: &PartId, latest: ClusterTime) -> String {
    format!("{SNAPSHOTS}/{cluster}/{}/at-{:010}-{:010}", part.key(), latest.seconds, latest.increment)
}

/// What a manifest begins with.
const MAGIC: [u8; 8] = *b"stillman";

/// The version that is written, and the only one that is read.
pub const FORMAT: u32 = 2;

/// The longest document that a manifest is, before compression.
pub const MAX_MANIFEST: usize = 256 << 20;

/// The most collections.
pub const MAX_COLLECTIONS: usize = 1_000_000;

/// The longest namespace: MongoDB's limit is 255 bytes.
pub const MAX_NAMESPACE: usize = 512;

/// The longest definition of a collection, as the longest document.
pub const MAX_DEFINITION: usize = crate::cut::MAX_DOCUMENT;

/// The most pieces of a collection.
pub const MAX_PIECES: usize = 65_536;

/// The longest key that a piece begins or ends with.
pub const MAX_PIECE_KEY: usize = 64 << 10;

/// The data of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub cluster: ClusterId,
    /// The part, as [`PartId::key`](stillpoint_core::checkpoint::PartId::key) has it.
    pub part: String,
    /// The time at which the list of collections was read.
    pub catalog: ClusterTime,
    /// The earliest time at which something of it was read, and the latest. A part whose times are all one
    /// is its data as of that time.
    pub earliest: ClusterTime,
    pub latest: ClusterTime,
    /// From here on the stream is needed to go on from it: `earliest`, or the first entry of the oldest
    /// transaction that was open then.
    pub stream: ClusterTime,
    /// When it was made, in milliseconds since the Unix epoch.
    pub made: i64,
    /// The manifest of the snapshot that it was folded from; none if the cluster was read.
    pub base: Option<BlobId>,
    /// `featureCompatibilityVersion` of the part.
    pub compatibility: String,
    /// How keys are made of documents.
    pub keys: u32,
    /// By their namespaces.
    pub collections: Vec<Collection>,
}

/// One collection of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    pub namespace: String,
    pub uuid: [u8; 16],
    /// What the server's catalogue has of it, with its options and indexes: raw BSON.
    pub definition: Vec<u8>,
    pub layout: Layout,
    /// The rule that its documents were cut with, for the next snapshot.
    pub cut: Cut,
    /// None without documents.
    pub root: Option<Root>,
    /// The ranges in which it was read, in order; all keys are in one of them.
    pub pieces: Vec<Piece>,
}

/// A range of keys that was read at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The first key that can be in it; none at the beginning.
    pub from: Option<Vec<u8>>,
    /// The first key that is after it; none at the end.
    pub to: Option<Vec<u8>>,
    pub at: ClusterTime,
    /// What could be read without a cluster time only is as of some time from `at` to here; else the same.
    pub settled: ClusterTime,
}

impl Manifest {
    /// Of all its documents.
    pub fn digest(&self) -> Digest {
        self.collections.iter().map(Collection::digest).sum()
    }
}

impl Collection {
    /// The document that it is in a manifest; none if a number is too high.
    pub fn to_document(&self) -> Option<Vec<u8>> {
        Some(format::collection_document(self)?.into_bytes())
    }

    /// Reads that document. Whether it fits into a manifest is not looked at.
    pub fn from_document(document: &[u8]) -> Option<Collection> {
        format::collection(RawDocument::from_bytes(document).ok()?)
    }

    /// Of its documents.
    pub fn digest(&self) -> Digest {
        self.root.as_ref().map_or(Digest::EMPTY, |root| root.reference.entry.digest)
    }
}
