//! Where one chunk ends and the next begins.
//!
//! A boundary stands before a document if the hash of its key says so. So it moves with the key, whatever
//! is inserted, deleted or updated elsewhere: two snapshots have the same chunks but around what changed.
//! How many documents a chunk has so far counts only against very short chunks, and its length only
//! against very long ones: an update, which changes no `_id`, moves no boundary of a chunk below [`LARGE`].

use crate::reference::KeyBound;

/// What a chunk's length should be about, before compression. Of documents of 520 bytes, chunks twice as long
/// are 1 % shorter in all when stored, and half as long 1.5 % longer; but a chunk is what is stored again when
/// one of its documents changes.
pub const TARGET: u64 = 256 << 10;

/// From this length on, a boundary is found sixteen times as easily.
pub const LARGE: u64 = 4 * TARGET;

/// From this length on, a chunk ends before whatever comes next.
pub const FULL: u64 = 8 << 20;

/// The longest document: the server's limit is 16 MiB, and 16 KiB for what it adds to one.
pub const MAX_DOCUMENT: usize = (16 << 20) + (64 << 10);

/// The longest chunk: one that is nearly full, and the longest document.
pub const MAX_CHUNK: usize = FULL as usize + MAX_DOCUMENT;

/// The rule for one collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cut {
    bits: u8,
}

impl Cut {
    /// The most bits: then a chunk has 131,072 documents on average.
    pub const MAX_BITS: u8 = 17;

    /// A boundary before one in 2^`bits` documents. None above [`Cut::MAX_BITS`].
    pub const fn new(bits: u8) -> Option<Cut> {
        if bits <= Cut::MAX_BITS { Some(Cut { bits }) } else { None }
    }

    /// For documents of this length on average. The rule is a collection's own as long as it lives: with
    /// another one it shares no chunk with its past. So take another only when the average is far off.
    pub fn for_average(document_bytes: u64) -> Cut {
        let documents = TARGET / document_bytes.clamp(5, TARGET);
        // To the nearest power of two, by its ratio.
        let bits = (documents as f64).log2().round() as u8;
        Cut { bits: bits.min(Cut::MAX_BITS) }
    }

    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Whether a chunk that has so many documents and bytes ends before the document with this key.
    pub fn before(self, key: &[u8], documents: u64, bytes: u64) -> bool {
        if documents == 0 || bytes >= FULL {
            return documents > 0;
        }
        let bits = if bytes >= LARGE { self.bits.saturating_sub(4) } else { self.bits };
        documents >= 1 << self.bits.saturating_sub(3) && zeros(key) >= u32::from(bits)
    }

    /// The same for the first key of a chunk, as far as its reference has it. None if it has too little of
    /// the key to say.
    pub fn before_chunk(self, first: &KeyBound, documents: u64, bytes: u64) -> Option<bool> {
        match first.whole() {
            Some(key) => Some(self.before(key, documents, bytes)),
            None if documents == 0 || bytes >= FULL => Some(documents > 0),
            None => None,
        }
    }
}

/// The zero bits at the end of the hash's first eight bytes as a little-endian number.
fn zeros(key: &[u8]) -> u32 {
    let hash = blake3::hash(key);
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes).trailing_zeros())
}
