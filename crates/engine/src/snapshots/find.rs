//! The documents of one collection, or the one of them that has an `_id`, handed to whoever wants them.

use bson::raw::RawDocument;
use stillpoint_fold::{Collection, Uuid};
use stillpoint_snapshot::{Reference, manifest};

use super::SnapshotError;
use super::state::Sink;

/// Hands each document on.
pub struct Finder<F> {
    key: Option<Vec<u8>>,
    found: F,
    /// The collection, once it was there.
    seen: Option<Uuid>,
    sorted: bool,
}

impl<F> Finder<F> {
    /// Of all documents, or of the one with a key.
    pub fn new(key: Option<Vec<u8>>, found: F) -> Finder<F> {
        Finder { key, found, seen: None, sorted: true }
    }

    /// Whether the collection is there.
    pub fn has_seen(&self) -> bool {
        self.seen.is_some()
    }
}

impl<F: FnMut(Uuid, &RawDocument) -> Result<(), SnapshotError>> Sink for Finder<F> {
    fn begin(
        &mut self,
        uuid: Uuid,
        collection: &Collection,
        _: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        self.seen = Some(uuid);
        // In a chunk of a capped collection any key may be.
        self.sorted = !collection.is_in_insertion_order();
        Ok(())
    }

    fn chunk(&mut self, chunk: &Reference, _: Option<&[u8]>) -> Result<bool, SnapshotError> {
        let (Some(key), true) = (&self.key, self.sorted) else { return Ok(false) };
        let (first, last) = (&chunk.entry.first, &chunk.entry.last);
        let before = first.whole().is_some_and(|first| key[..] < *first);
        Ok(before || last.whole().is_some_and(|last| key[..] > *last))
    }

    fn document(&mut self, key: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        match (&self.key, self.seen) {
            (Some(wanted), _) if wanted[..] != *key => Ok(()),
            (_, Some(uuid)) => (self.found)(uuid, document),
            (_, None) => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        Ok(())
    }
}
