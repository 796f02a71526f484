//! The documents of one collection at T: those of the snapshot, and what the stream says of each.

use std::iter::Fuse;

use bson::raw::{RawDocument, RawDocumentBuf};
use stillpoint_core::ClusterTime;

use crate::error::{DocumentError, FoldError, Place};
use crate::gather::Payload;
use crate::key::Key;
use crate::operation::Uuid;
use crate::sort::{Moment, Sorted};
use crate::update;

#[cfg(test)]
mod tests;

/// A range of a collection's keys that was read as of one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The first key that is no more of it; none at the collection's end.
    pub until: Option<Vec<u8>>,
    /// Its cluster time: a change counts if it is later.
    pub at: ClusterTime,
    /// What was read without a cluster time, as capped collections must be, is as of some time from `at` to
    /// here; otherwise the same as `at`. A change in between may be in it, and counts as if it were not.
    pub settled: ClusterTime,
}

impl Piece {
    /// A whole collection as of a time.
    pub fn whole(at: ClusterTime) -> Piece {
        Piece { until: None, at, settled: at }
    }
}

/// A document of the snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub document: RawDocumentBuf,
    /// Its place in the collection, where that means something: see [`Kept::since`].
    pub place: u64,
}

/// Since when a document is in its collection: the order of a capped one's documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Since {
    /// [`Stored::place`].
    Stored(u64),
    Inserted(Moment),
}

/// The documents of a collection at T, in the order of their keys. `base` are its stored documents in that
/// order.
pub struct Merge<'a, B: Iterator> {
    collection: Uuid,
    base: Fuse<B>,
    /// The first of `base` that is not taken yet, and its key.
    stored: Option<(Vec<u8>, Stored)>,
    changes: &'a mut Sorted,
    pieces: &'a [Piece],
    emptied: Option<Moment>,
    /// The first key that is no longer wanted.
    limit: Option<&'a [u8]>,
    /// The last key of `base` that was taken.
    last: Option<Vec<u8>>,
}

/// A document that is there at T.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub key: Vec<u8>,
    pub document: RawDocumentBuf,
    pub since: Since,
}

impl<'a, B, E> Merge<'a, B>
where
    B: Iterator<Item = Result<Stored, E>>,
    E: From<FoldError>,
{
    /// `pieces` are in order, and the last of them reaches to the end. `changes` stand at this collection's or
    /// before: those of collections before it are passed over, since nobody can ask for them any more.
    pub fn new(
        collection: Uuid,
        base: B,
        changes: &'a mut Sorted,
        pieces: &'a [Piece],
        emptied: Option<Moment>,
    ) -> Result<Self, FoldError> {
        while changes.peek()?.is_some_and(|record| record.collection < collection) {
            changes.pass();
        }
        Ok(Merge { collection, base: base.fuse(), stored: None, changes, pieces, emptied, limit: None, last: None })
    }

    /// Ends before a key: changes from there on are left. All keys of `base` must be before it.
    pub fn before(self, limit: Option<&'a [u8]>) -> Self {
        Merge { limit, ..self }
    }

    fn step(&mut self) -> Result<Option<Kept>, E> {
        loop {
            if self.stored.is_none()
                && let Some(stored) = self.base.next().transpose()?
            {
                self.stored = Some((key_of(self.collection, &stored.document)?, stored));
            }
            let collection = self.collection;
            let changed = self.changes.peek().map_err(FoldError::from)?;
            let changed = changed.filter(|record| record.collection == collection).map(|record| record.key);
            let changed = changed.filter(|key| self.limit.is_none_or(|limit| *key < limit));
            let is_next = |stored: &mut (Vec<u8>, Stored)| changed.is_none_or(|changed| stored.0[..] <= *changed);
            let (key, stored) = match (self.stored.take_if(is_next), changed) {
                (Some((key, stored)), _) => (key, Some(stored)),
                (None, Some(changed)) => (changed.to_vec(), None),
                (None, None) => return Ok(None),
            };
            let (at, settled) = self.read(&key);
            if stored.is_some() {
                if self.last.as_ref().is_some_and(|last| *last >= key) {
                    return Err(FoldError::Order { collection }.into());
                }
                self.last = Some(key.clone());
            }
            // What was read before the collection was emptied is gone.
            let mut present = stored
                .filter(|_| self.emptied.is_none_or(|emptied| emptied.commit <= at))
                .map(|stored| (stored.document, Since::Stored(stored.place)));
            self.change(&key, at, settled, &mut present)?;
            if let Some((document, since)) = present {
                return Ok(Some(Kept { key, document, since }));
            }
        }
    }

    /// When the piece was read in which a key is; the pieces before it are done with.
    fn read(&mut self, key: &[u8]) -> (ClusterTime, ClusterTime) {
        while let [piece, rest @ ..] = self.pieces
            && !rest.is_empty()
            && piece.until.as_deref().is_some_and(|until| until <= key)
        {
            self.pieces = rest;
        }
        self.pieces.first().map_or((ClusterTime::ZERO, ClusterTime::ZERO), |piece| (piece.at, piece.settled))
    }

    /// Applies the changes of one document.
    fn change(
        &mut self,
        key: &[u8],
        at: ClusterTime,
        settled: ClusterTime,
        present: &mut Option<(RawDocumentBuf, Since)>,
    ) -> Result<(), FoldError> {
        while let Some(record) = self.changes.peek()?
            && record.collection == self.collection
            && record.key == key
        {
            if record.at.commit > at && self.emptied.is_none_or(|emptied| emptied < record.at) {
                match apply(record.payload, record.at, present) {
                    // It may have been in what was read.
                    Err(DocumentError::NothingToUpdate | DocumentError::NothingToDelete | DocumentError::Update(_))
                        if record.at.commit <= settled => {}
                    Err(DocumentError::Present) if record.at.commit <= settled => {
                        *present = None;
                        continue;
                    }
                    Err(what) => {
                        let place = Place { entry: record.at.entry, collection: self.collection };
                        return Err(FoldError::Document { place, what });
                    }
                    Ok(()) => {}
                }
            }
            self.changes.pass();
        }
        Ok(())
    }
}

impl<B, E> Iterator for Merge<'_, B>
where
    B: Iterator<Item = Result<Stored, E>>,
    E: From<FoldError>,
{
    type Item = Result<Kept, E>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

fn key_of(collection: Uuid, document: &RawDocument) -> Result<Vec<u8>, FoldError> {
    let key = Key::of_document(document).map_err(|error| FoldError::Stored { collection, error })?;
    Ok(key.as_bytes().to_vec())
}

/// What one change makes of a document. Nothing is applied twice, and nothing is left out: one that does not
/// fit proves that a rule is broken.
fn apply(payload: &[u8], at: Moment, present: &mut Option<(RawDocumentBuf, Since)>) -> Result<(), DocumentError> {
    let malformed = |why: String| DocumentError::Malformed(why);
    let parse = |bytes| RawDocument::from_bytes(bytes).map_err(|error| malformed(error.to_string()));
    match Payload::split(payload).ok_or_else(|| malformed("a change of no kind".into()))? {
        Payload::Insert { document, upsert } => {
            if present.is_some() && !upsert {
                return Err(DocumentError::Present);
            }
            let since = present.take().map_or(Since::Inserted(at), |(_, since)| since);
            *present = Some((parse(document)?.to_owned(), since));
        }
        Payload::Update { update, upsert } => {
            let (old, since): (&RawDocument, _) = match (present.as_ref(), upsert) {
                (Some((old, since)), _) => (old, *since),
                (None, Some(id)) => (parse(id)?, Since::Inserted(at)),
                (None, None) => return Err(DocumentError::NothingToUpdate),
            };
            *present = Some((update::apply(old, parse(update)?)?, since));
        }
        Payload::Delete { upsert } => {
            if present.take().is_none() && !upsert {
                return Err(DocumentError::NothingToDelete);
            }
        }
    }
    Ok(())
}
