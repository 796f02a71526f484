//! The digest of a set of documents: the same in whatever order they come and however they are cut.

use std::fmt;
use std::iter::Sum;

use twox_hash::XxHash3_128;

/// How many documents, their length in all, and the sum of their hashes.
///
/// Made document by document, so that it can be made of a live cluster's read, too. It tells accidents: a
/// sum of hashes is no proof against somebody who chooses the documents. So the hash need not be a cryptographic one,
/// and is one that costs next to nothing: hashing each document with BLAKE3 took an eighth of a snapshot's time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest {
    pub documents: u64,
    pub bytes: u64,
    /// The sum of the XXH3 hashes of 128 bits, modulo 2¹²⁸.
    pub hash: u128,
}

impl Digest {
    /// Of no documents.
    pub const EMPTY: Digest = Digest { documents: 0, bytes: 0, hash: 0 };

    /// Of one document.
    pub fn of(document: &[u8]) -> Digest {
        Digest { documents: 1, bytes: document.len() as u64, hash: XxHash3_128::oneshot(document) }
    }

    pub fn add(&mut self, document: &[u8]) {
        self.combine(&Digest::of(document));
    }

    /// Adds the documents of another set.
    pub fn combine(&mut self, other: &Digest) {
        // Wrapping: the counts may be a hostile file's.
        self.documents = self.documents.wrapping_add(other.documents);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.hash = self.hash.wrapping_add(other.hash);
    }
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
        write!(f, "{} documents, {} bytes, {:032x}", self.documents, self.bytes, self.hash)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
