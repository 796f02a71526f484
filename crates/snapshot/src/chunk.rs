//! Cutting a collection's documents into chunks, and walking over a chunk's documents.

use crate::Digest;
use crate::cut::{Cut, MAX_DOCUMENT};
use crate::reference::{ContentId, Entry, KeyBound, Layout};

/// The shortest document: its length and its end.
pub(crate) const SHORTEST: usize = 5;

/// A chunk that is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk<'a> {
    pub entry: Entry,
    /// Raw BSON, one document after the other.
    pub documents: &'a [u8],
}

/// Documents that make no chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("document {document} of the collection does not come after the one before it")]
    Order { document: u64 },
    #[error("document {document} of the collection is no BSON document by its length")]
    NoDocument { document: u64 },
    #[error("document {document} of the collection is {length} bytes long, and the limit is {MAX_DOCUMENT}")]
    TooLong { document: u64, length: usize },
}

/// Takes documents one by one and gives them back as chunks. It holds two chunks at most.
pub struct ChunkBuilder {
    cut: Cut,
    layout: Layout,
    open: Open,
    /// The documents of the chunk that was given back last.
    full: Vec<u8>,
    /// How many documents came.
    taken: u64,
    last: Option<Vec<u8>>,
}

/// The chunk that is filling up.
#[derive(Default)]
struct Open {
    documents: Vec<u8>,
    first: Vec<u8>,
    digest: Digest,
}

impl ChunkBuilder {
    pub fn new(cut: Cut, layout: Layout) -> ChunkBuilder {
        ChunkBuilder { cut, layout, open: Open::default(), full: Vec::new(), taken: 0, last: None }
    }

    /// Adds a document, and gives the chunk that ends before it, if one does. Sorted, its key must be after
    /// the last one's. After an error nothing of it has been added.
    pub fn push(&mut self, key: &[u8], document: &[u8]) -> Result<Option<Chunk<'_>>, ChunkError> {
        let at = self.taken;
        if self.layout == Layout::Sorted && self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(ChunkError::Order { document: at });
        }
        if document.len() > MAX_DOCUMENT {
            return Err(ChunkError::TooLong { document: at, length: document.len() });
        }
        if split(document).map(<[u8]>::len) != Some(document.len()) {
            return Err(ChunkError::NoDocument { document: at });
        }
        let ended = self.ends_before(key).then(|| self.end());
        if self.open.documents.is_empty() {
            self.open.first.clear();
            self.open.first.extend_from_slice(key);
        }
        self.open.documents.extend_from_slice(document);
        self.open.digest.add(document);
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        self.taken += 1;
        Ok(ended.flatten().map(|entry| Chunk { entry, documents: &self.full }))
    }

    /// Whether the chunk that is filling up ends before a document with this key.
    pub fn ends_before(&self, key: &[u8]) -> bool {
        self.cut.before(key, self.open.digest.documents, self.open.digest.bytes)
    }

    /// Whether no document waits for its chunk to end: what was pushed has been given back.
    pub fn is_empty(&self) -> bool {
        self.open.documents.is_empty()
    }

    /// The documents that wait for their chunk to end, and their length.
    pub fn waiting(&self) -> (u64, u64) {
        (self.open.digest.documents, self.open.digest.bytes)
    }

    /// Ends the chunk that is filling up: after the last document, or before a chunk of an earlier snapshot
    /// that is to stand as it is.
    pub fn flush(&mut self) -> Option<Chunk<'_>> {
        let entry = self.end()?;
        Some(Chunk { entry, documents: &self.full })
    }

    fn end(&mut self) -> Option<Entry> {
        if self.open.documents.is_empty() {
            return None;
        }
        std::mem::swap(&mut self.full, &mut self.open.documents);
        self.open.documents.clear();
        // One long chunk is not to hold its memory for all that come after it.
        self.open.documents.shrink_to(crate::cut::LARGE as usize);
        Some(Entry {
            id: ContentId::of(&self.full),
            first: KeyBound::of(&self.open.first),
            last: KeyBound::of(self.last.as_deref().unwrap_or_default()),
            digest: std::mem::take(&mut self.open.digest),
        })
    }
}

/// The documents that a chunk is. Their lengths are looked at, and what is in them is not; it ends after
/// the first place that is no document, which it gives as an error.
pub fn documents(chunk: &[u8]) -> impl Iterator<Item = Result<&[u8], NoDocument>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = chunk.get(at..).filter(|rest| !rest.is_empty())?;
        let document = split(rest).ok_or(NoDocument { at });
        at = document.map_or(chunk.len(), |document| at + document.len());
        Some(document)
    })
}

/// A place in a chunk where no document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no BSON document at byte {at} of the chunk")]
pub struct NoDocument {
    pub at: usize,
}

/// The document that `bytes` begin with.
fn split(bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(i32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let document = bytes.get(..length).filter(|_| (SHORTEST..=MAX_DOCUMENT).contains(&length))?;
    document.ends_with(&[0]).then_some(document)
}
