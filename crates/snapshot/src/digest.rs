//! The digest of a set of documents: the same in whatever order they come and however they are cut.

use std::fmt;
use std::iter::Sum;

/// How many documents, their length in all, and the sum of their hashes.
///
/// Made document by document, so that it can be made of a live cluster's read, too. It tells accidents: a
/// sum of hashes is no proof against somebody who chooses the documents.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest {
    pub documents: u64,
    pub bytes: u64,
    /// The sum of the BLAKE3 hashes as little-endian numbers of 256 bits, modulo 2²⁵⁶.
    pub hash: [u8; 32],
}

impl Digest {
    /// Of no documents.
    pub const EMPTY: Digest = Digest { documents: 0, bytes: 0, hash: [0; 32] };

    /// Of one document.
    pub fn of(document: &[u8]) -> Digest {
        Digest { documents: 1, bytes: document.len() as u64, hash: *blake3::hash(document).as_bytes() }
    }

    pub fn add(&mut self, document: &[u8]) {
        self.combine(&Digest::of(document));
    }

    /// Adds a document to the numbers alone, where nobody compares.
    pub fn count(&mut self, document: &[u8]) {
        self.combine(&Digest { documents: 1, bytes: document.len() as u64, hash: [0; 32] });
    }

    /// Adds the documents of another set.
    pub fn combine(&mut self, other: &Digest) {
        // Wrapping: the counts may be a hostile file's.
        self.documents = self.documents.wrapping_add(other.documents);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        let mut carry = false;
        for (limb, more) in self.hash.chunks_exact_mut(8).zip(other.hash.chunks_exact(8)) {
            let (sum, first) = number(limb).overflowing_add(number(more));
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            carry = first || second;
            limb.copy_from_slice(&sum.to_le_bytes());
        }
    }
}

fn number(limb: &[u8]) -> u64 {
    limb.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Sum for Digest {
    fn sum<I: Iterator<Item = Digest>>(digests: I) -> Digest {
        digests.fold(Digest::EMPTY, |mut sum, digest| {
            sum.combine(&digest);
            sum
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} documents, {} bytes, {}", self.documents, self.bytes, hex::encode(self.hash))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
