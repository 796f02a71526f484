//! A node: references to chunks, or to nodes of the level below.
//!
//! Its id is the hash of its content only. Where its children are stands behind the content: the same
//! chunks make the same node, whichever packs they are in.

use stillpoint_core::stream::BlobId;

use super::{MAX_CHILDREN, MAX_LEVEL};
use crate::Digest;
use crate::chunk::SHORTEST;
use crate::cut::MAX_CHUNK;
use crate::pack::Item;
use crate::reference::{ContentId, Entry, KeyBound, Layout, MAX_BOUND, Place, Reference};

const MAGIC: [u8; 8] = *b"stillnod";

/// The version that is written, and the only one that is read.
const FORMAT: u32 = 2;

/// Instead of a pack's id: the pack that the node is in, whose id nobody knows before it is full.
pub(crate) const HERE: BlobId = BlobId([0; 32]);

/// A node that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: ContentId,
    pub layout: Layout,
    /// 1 if its references are of chunks, else one more than the level of the nodes it refers to.
    pub level: u8,
    /// At least one.
    pub references: Vec<Reference>,
}

/// Why bytes are no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    #[error("this is no node: it does not begin as one")]
    NoNode,
    #[error("this node is of format {0}, and this program reads format {FORMAT} only")]
    Format(u32),
    #[error("the node ends in its reference {reference}")]
    Short { reference: usize },
    #[error("the node's {0} is not what it can be")]
    Head(&'static str),
    #[error("reference {reference} of the node contradicts the rest of it: {what}")]
    Reference { reference: usize, what: &'static str },
}

impl Node {
    /// Reads an item of the pack `pack`.
    pub fn read(item: &Item, pack: BlobId) -> Result<Node, NodeError> {
        let mut rest = Rest(&item.content);
        if rest.take() != Some(&MAGIC) {
            return Err(NodeError::NoNode);
        }
        match rest.take().copied().map(u32::from_le_bytes).ok_or(NodeError::Head("beginning"))? {
            FORMAT => {}
            other => return Err(NodeError::Format(other)),
        }
        let [layout, level] = *rest.take().ok_or(NodeError::Head("beginning"))?;
        let layout = match layout {
            0 => Layout::Sorted,
            1 => Layout::Insertion,
            _ => return Err(NodeError::Head("layout")),
        };
        if level == 0 || level > MAX_LEVEL {
            return Err(NodeError::Head("level"));
        }
        let count = rest.take().copied().map(u16::from_le_bytes).map_or(0, usize::from);
        if count == 0 || count > MAX_CHILDREN {
            return Err(NodeError::Head("number of references"));
        }
        let mut places = Rest(&item.places);
        let mut references: Vec<Reference> = Vec::with_capacity(count);
        for reference in 0..count {
            let short = NodeError::Short { reference };
            let entry = rest.entry().ok_or(short)?;
            let mut place = places.place().ok_or(short)?;
            if place.pack == HERE {
                place.pack = pack;
            }
            let last = references.last().map(|before| &before.entry.last);
            if let Some(what) = fault(&entry, place, layout, level, last) {
                return Err(NodeError::Reference { reference, what });
            }
            references.push(Reference { entry, place });
        }
        if !rest.0.is_empty() || !places.0.is_empty() {
            return Err(NodeError::Reference { reference: count - 1, what: "something follows it, the last" });
        }
        Ok(Node { id: item.id, layout, level, references })
    }

    /// Of all documents below it.
    pub fn digest(&self) -> Digest {
        self.references.iter().map(|reference| reference.entry.digest).sum()
    }
}

/// What is wrong with a reference, after one whose last key is `last`.
fn fault(entry: &Entry, place: Place, layout: Layout, level: u8, last: Option<&KeyBound>) -> Option<&'static str> {
    let Digest { documents, bytes, .. } = entry.digest;
    let sorted = layout == Layout::Sorted;
    let rules = [
        (documents > 0 && place.stored > 0, "it is empty"),
        (documents.checked_mul(SHORTEST as u64).is_some_and(|least| least <= bytes), "more documents than bytes"),
        (level > 1 || bytes <= MAX_CHUNK as u64, "a chunk that is too long"),
        (!sorted || entry.first <= entry.last, "its last key is before its first"),
        (!sorted || last.is_none_or(|last| last.can_be_before(&entry.first)), "it is not after the one before it"),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map(|(_, what)| what)
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }

    fn bound(&mut self) -> Option<KeyBound> {
        let length = usize::from(u16::from_le_bytes(*self.take()?));
        let bytes = self.0.get(..length).filter(|_| length <= MAX_BOUND)?;
        self.0 = &self.0[length..];
        Some(KeyBound::of(bytes))
    }

    fn entry(&mut self) -> Option<Entry> {
        let id = ContentId(*self.take()?);
        let documents = u64::from_le_bytes(*self.take()?);
        let bytes = u64::from_le_bytes(*self.take()?);
        let digest = Digest { documents, bytes, hash: u128::from_le_bytes(*self.take()?) };
        Some(Entry { id, first: self.bound()?, last: self.bound()?, digest })
    }

    fn place(&mut self) -> Option<Place> {
        Some(Place { pack: BlobId(*self.take()?), stored: u32::from_le_bytes(*self.take()?) })
    }
}

/// A node's content and places, as they are written.
pub(crate) struct Encoder;

impl Encoder {
    pub fn content<'a>(layout: Layout, level: u8, entries: impl ExactSizeIterator<Item = &'a Entry>) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.push(match layout {
            Layout::Sorted => 0,
            Layout::Insertion => 1,
        });
        bytes.push(level);
        bytes.extend_from_slice(&(entries.len() as u16).to_le_bytes());
        for entry in entries {
            bytes.extend_from_slice(&entry.id.0);
            bytes.extend_from_slice(&entry.digest.documents.to_le_bytes());
            bytes.extend_from_slice(&entry.digest.bytes.to_le_bytes());
            bytes.extend_from_slice(&entry.digest.hash.to_le_bytes());
            for bound in [&entry.first, &entry.last] {
                bytes.extend_from_slice(&(bound.bytes().len() as u16).to_le_bytes());
                bytes.extend_from_slice(bound.bytes());
            }
        }
        bytes
    }

    /// Appends where a child is; `None` for the pack that the node is in.
    pub fn place(bytes: &mut Vec<u8>, pack: Option<BlobId>, stored: u32) {
        bytes.extend_from_slice(&pack.unwrap_or(HERE).0);
        bytes.extend_from_slice(&stored.to_le_bytes());
    }
}
