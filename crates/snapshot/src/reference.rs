//! What is known of a chunk or a node without reading it, and where it is.

use std::fmt;

use stillpoint_core::stream::BlobId;

use crate::Digest;

/// What a chunk or a node is called by: the BLAKE3 hash of its content, not keyed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub [u8; 32]);

impl ContentId {
    pub fn of(content: &[u8]) -> ContentId {
        ContentId(*blake3::hash(content).as_bytes())
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

/// In what order a collection's documents are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// By their keys, as bytes.
    Sorted,
    /// As they were inserted: a capped collection's.
    Insertion,
}

/// The longest key of which a reference has all.
pub const MAX_BOUND: usize = 256;

/// A chunk's first or last key, cut off after [`MAX_BOUND`] bytes: a key can be as long as a document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyBound(Box<[u8]>);

impl KeyBound {
    pub fn of(key: &[u8]) -> KeyBound {
        KeyBound(cut(key).into())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key, if this surely is all of it.
    pub fn whole(&self) -> Option<&[u8]> {
        (self.0.len() < MAX_BOUND).then_some(&self.0)
    }

    /// Whether the key can be before `other` or equal to it.
    pub(crate) fn can_be_at_or_before(&self, other: &[u8]) -> bool {
        *self.0 <= *cut(other)
    }

    /// Whether the key can be after `other` or equal to it.
    pub(crate) fn can_be_at_or_after(&self, other: &[u8]) -> bool {
        *self.0 >= *cut(other)
    }

    /// Whether the key can be before the one that `next` is of.
    pub(crate) fn can_be_before(&self, next: &KeyBound) -> bool {
        self < next || self == next && self.whole().is_none()
    }
}

fn cut(key: &[u8]) -> &[u8] {
    &key[..key.len().min(MAX_BOUND)]
}

impl fmt::Debug for KeyBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBound({}{})", hex::encode(&self.0), if self.whole().is_some() { "" } else { "…" })
    }
}

/// What is known of a chunk, or of all chunks below a node, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    pub id: ContentId,
    /// The key of its first document, in the collection's layout.
    pub first: KeyBound,
    pub last: KeyBound,
    /// Of its documents; it says how many they are, and how long before compression.
    pub digest: Digest,
}

/// Where a chunk or a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub pack: BlobId,
    /// Its length in the pack.
    pub stored: u32,
}

/// A chunk or a node, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    pub entry: Entry,
    pub place: Place,
}

/// The node that all of a collection's chunks are below.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Root {
    pub layout: Layout,
    /// Of the root: 1 if its references are of chunks.
    pub level: u8,
    pub reference: Reference,
}
