//! A part's data at a time: stored data of it, brought up to that time by its stored oplog.
//!
//! Runs on a thread of its own, which may wait for the vault. What is made of the data is a [`Sink`]'s
//! business. Of what has not changed since the stored data a sink may take whole trees or chunks, unread.

use std::collections::BTreeMap;

use bson::raw::{RawDocument, RawDocumentBuf};
use bytes::Bytes;
use futures::StreamExt;
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_fold::catalogue::CatalogueError;
use stillpoint_fold::gather::is_derived;
use stillpoint_fold::merge::{Since, Stored};
use stillpoint_fold::sort::{Moment, Sorted, Sorter};
use stillpoint_fold::{Catalogue, Collection, FoldError, Gather, Gathered, Key, Merge, Outcomes, Piece, Uuid};
use stillpoint_oplog::Entry;
use stillpoint_snapshot::reference::Layout;
use stillpoint_snapshot::{Manifest, Node, Reference, Root, Walk, manifest};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::SnapshotError;
use super::origin::Origin;
use super::room::Claim;
pub use super::room::Room;
use super::unpack::Packs;
use crate::stored::StoredOplog;

/// Entries or documents between two looks whether to stop.
const LOOK_EVERY: u64 = 4096;

/// What a part's data is made into. Collections come by their UUIDs; each is begun, then its documents come in
/// their order, then it is ended.
pub trait Sink {
    /// `stored` is what the stored data has of it, if it has.
    fn begin(
        &mut self,
        uuid: Uuid,
        collection: &Collection,
        stored: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError>;

    /// All documents of the collection, which has not changed. If it is not taken, they come one by one.
    fn tree(&mut self, _root: &Root) -> Result<bool, SnapshotError> {
        Ok(false)
    }

    /// A node of the collection's stored tree.
    fn node(&mut self, _node: &Node, _reference: &Reference) {}

    /// Documents of which none has changed; the next key after them that is known. If it is not taken, they
    /// come one by one.
    fn chunk(&mut self, _chunk: &Reference, _next: Option<&[u8]>) -> Result<bool, SnapshotError> {
        Ok(false)
    }

    /// A chunk that was not taken, or that has changed, is read.
    fn read(&mut self, _chunk: &Reference) {}

    fn document(&mut self, key: &[u8], document: &RawDocument) -> Result<(), SnapshotError>;

    fn end(&mut self) -> Result<(), SnapshotError>;
}

/// A part's stored data, what its oplog says since, and the time that is asked for.
pub struct State {
    handle: Handle,
    part: PartId,
    packs: Packs,
    base: Manifest,
    origin: Origin,
    gathered: Gathered,
    room: Room,
    stop: CancellationToken,
    steps: u64,
}

/// Where a state comes from.
pub struct Source {
    pub handle: Handle,
    pub part: PartId,
    pub packs: Packs,
    pub base: Manifest,
    pub origin: Origin,
    pub oplog: StoredOplog,
    pub room: Room,
    /// For the temporary files of what the oplog says.
    pub claim: Claim,
    pub stop: CancellationToken,
}

impl Source {
    /// Reads the stored oplog from where the stored data needs it to `until`, and on until every transaction
    /// that was prepared by then is resolved.
    pub fn at(self, until: ClusterTime) -> Result<State, SnapshotError> {
        let Source { handle, part, packs, base, origin, oplog, room, mut claim, stop } = self;
        let failed = |why: FoldError| SnapshotError::Fold { part: part.clone(), why };
        // Of what was open then, all is in what is read.
        let complete_from = base.earliest;
        let (few, rest) = room.budgets();
        let mut outcomes = Outcomes::new(until, Vec::new(), complete_from, few)?;
        // Data of one time is what it was at that time, whatever of the oplog is left.
        let as_it_is = base.earliest == until && base.latest == until;
        let mut reached = base.stream;
        let (mut entries, mut seen) = (oplog.entries(Some(base.stream), None), 0_u64);
        while !as_it_is && !outcomes.is_complete() {
            let Some(entry) = handle.block_on(entries.next()).transpose()? else {
                // What is stored may end with the very entry of that time, as a token's segment does.
                if reached >= until {
                    break;
                }
                return Err(SnapshotError::NotReached { part: part.clone(), reached, wanted: until });
            };
            let entry = Entry::read(&entry.bytes)?;
            reached = entry.at.time;
            outcomes.see(&entry).map_err(failed)?;
            seen += 1;
            if seen.is_multiple_of(LOOK_EVERY) && stop.is_cancelled() {
                return Err(SnapshotError::Stopped);
            }
        }
        let committed = outcomes.end().map_err(failed)?;
        let catalogue = handle.block_on(origin.noted(catalogue(&base)))?;
        let mut gather =
            Gather::new(catalogue, base.catalog, committed, Vec::new(), complete_from, rest).map_err(failed)?;
        let mut entries = oplog.entries(Some(base.stream), Some(reached));
        while !as_it_is && let Some(entry) = handle.block_on(entries.next()).transpose()? {
            gather.see(&Entry::read(&entry.bytes)?).map_err(failed)?;
            seen += 1;
            if seen.is_multiple_of(LOOK_EVERY) {
                if stop.is_cancelled() {
                    return Err(SnapshotError::Stopped);
                }
                claim.written(gather.spilled());
            }
        }
        let gathered = gather.end().map_err(failed)?;
        Ok(State { handle, part, packs, base, origin, gathered, room, stop, steps: 0 })
    }
}

/// The collections of stored data, as of the time at which they were listed.
fn catalogue(base: &Manifest) -> Result<Catalogue, SnapshotError> {
    let mut catalogue = Catalogue::default();
    for told in &base.collections {
        let wrong =
            |why: CatalogueError| SnapshotError::Definition { ns: told.namespace.clone(), why: why.to_string() };
        let definition = RawDocument::from_bytes(&told.definition);
        let definition = definition.map_err(|why| SnapshotError::damaged(&told.namespace, why))?;
        let (uuid, collection) = Collection::listed(definition).map_err(wrong)?;
        catalogue.add(uuid, collection).map_err(wrong)?;
    }
    Ok(catalogue)
}

impl State {
    /// How much of the oplog's changes is on disk.
    pub fn spilled(&self) -> u64 {
        self.gathered.spilled
    }

    /// Which collections there are.
    pub fn catalogue(&self) -> &Catalogue {
        &self.gathered.catalogue
    }

    /// Gives all of it to a sink, but for collections that are not `wanted`, and those that servers
    /// write for themselves.
    pub fn into(self, sink: &mut dyn Sink, wanted: &dyn Fn(Uuid, &Collection) -> bool) -> Result<(), SnapshotError> {
        let (handle, origin) = (self.handle.clone(), self.origin.clone());
        handle.block_on(origin.noted(self.pour(sink, wanted)))
    }

    fn pour(self, sink: &mut dyn Sink, wanted: &dyn Fn(Uuid, &Collection) -> bool) -> Result<(), SnapshotError> {
        let State { part, packs, base, gathered, room, stop, steps, .. } = self;
        let Gathered { catalogue, changes, emptied, .. } = gathered;
        let stored: BTreeMap<Uuid, &manifest::Collection> =
            base.collections.iter().map(|told| (Uuid(told.uuid), told)).collect();
        let mut pouring = Pouring { part, packs, changes, room, stop, steps };
        for (uuid, collection) in catalogue.iter().filter(|(uuid, one)| !is_derived(&one.ns) && wanted(*uuid, one)) {
            let told = stored.get(&uuid).copied();
            if told.is_some_and(|told| told.layout != layout(collection)) {
                return Err(SnapshotError::damaged(&collection.ns, "its documents are stored in another order"));
            }
            sink.begin(uuid, collection, told)?;
            let of = Of {
                uuid,
                root: told.and_then(|told| told.root.as_ref()),
                pieces: told.map_or_else(|| vec![Piece::whole(base.catalog)], pieces),
                emptied: emptied.get(&uuid).copied(),
            };
            match collection.is_in_insertion_order() {
                true => pouring.in_insertion_order(&of, sink)?,
                false => pouring.sorted(&of, sink)?,
            }
            sink.end()?;
        }
        Ok(())
    }
}

fn pieces(told: &manifest::Collection) -> Vec<Piece> {
    let piece = |piece: &manifest::Piece| Piece { until: piece.to.clone(), at: piece.at, settled: piece.settled };
    told.pieces.iter().map(piece).collect()
}

/// One collection.
struct Of<'a> {
    uuid: Uuid,
    root: Option<&'a Root>,
    pieces: Vec<Piece>,
    emptied: Option<Moment>,
}

impl<'a> Of<'a> {
    /// What is stored of it, unless the collection was emptied after all of it was read.
    fn root(&self) -> Option<&'a Root> {
        let Some(emptied) = self.emptied else { return self.root };
        self.root.filter(|_| self.pieces.iter().any(|piece| piece.at >= emptied.commit))
    }
}

struct Pouring {
    part: PartId,
    packs: Packs,
    changes: Sorted,
    room: Room,
    stop: CancellationToken,
    steps: u64,
}

impl Pouring {
    fn fold<T>(&self, done: Result<T, FoldError>) -> Result<T, SnapshotError> {
        done.map_err(|why| SnapshotError::Fold { part: self.part.clone(), why })
    }

    fn look(&mut self) -> Result<(), SnapshotError> {
        self.steps += 1;
        match self.steps.is_multiple_of(LOOK_EVERY) && self.stop.is_cancelled() {
            true => Err(SnapshotError::Stopped),
            false => Ok(()),
        }
    }

    /// The key of the collection's next change.
    fn next_change(&mut self, uuid: Uuid) -> Result<Option<Vec<u8>>, SnapshotError> {
        loop {
            match self.changes.peek().map_err(SnapshotError::Spill)? {
                // Of a collection that is not there any more, or not wanted.
                Some(record) if record.collection < uuid => {}
                Some(record) if record.collection == uuid => return Ok(Some(record.key.to_vec())),
                _ => return Ok(None),
            }
            self.changes.pass();
        }
    }

    fn sorted(&mut self, of: &Of<'_>, sink: &mut dyn Sink) -> Result<(), SnapshotError> {
        let (root, stands) = (of.root(), of.emptied.is_none());
        if let Some(root) = root
            && stands
            && self.next_change(of.uuid)?.is_none()
            && sink.tree(root)?
        {
            return Ok(());
        }
        let mut walk = Walk::all(root);
        let mut chunk = self.packs.next(&mut walk, |node, reference| sink.node(node, reference))?;
        let mut first = chunk.as_ref().map(|chunk| self.first_key(chunk)).transpose()?;
        // What was inserted before the first.
        self.merge(of, None, first.as_deref(), sink)?;
        while let Some(this) = chunk {
            chunk = self.packs.next(&mut walk, |node, reference| sink.node(node, reference))?;
            first = chunk.as_ref().map(|chunk| self.first_key(chunk)).transpose()?;
            let limit = first.as_deref();
            let change = self.next_change(of.uuid)?.filter(|key| limit.is_none_or(|limit| key[..] < *limit));
            let is_after = |key: &Vec<u8>| this.entry.last.whole().is_some_and(|last| last < &key[..]);
            let stands =
                stands && change.as_ref().is_none_or(is_after) && sink.chunk(&this, change.as_deref().or(limit))?;
            let documents = if stands { None } else { Some(self.read(&this, sink)?) };
            if documents.is_some() || change.is_some() {
                self.merge(of, documents, limit, sink)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, chunk: &Reference, sink: &mut dyn Sink) -> Result<Bytes, SnapshotError> {
        sink.read(chunk);
        self.packs.chunk(chunk)
    }

    fn first_key(&mut self, chunk: &Reference) -> Result<Vec<u8>, SnapshotError> {
        if let Some(whole) = chunk.entry.first.whole() {
            return Ok(whole.to_vec());
        }
        let documents = self.packs.chunk(chunk)?;
        let first = stillpoint_snapshot::documents(&documents).next();
        let first = first.and_then(Result::ok).and_then(|bytes| RawDocument::from_bytes(bytes).ok());
        let key = first.and_then(|document| Key::of_document(document).ok());
        let key = key.ok_or_else(|| SnapshotError::damaged("a chunk", "its first document has no key"))?;
        Ok(key.as_bytes().to_vec())
    }

    /// Documents of a chunk, and all changes before `limit`.
    fn merge(
        &mut self,
        of: &Of<'_>,
        documents: Option<Bytes>,
        limit: Option<&[u8]>,
        sink: &mut dyn Sink,
    ) -> Result<(), SnapshotError> {
        let base = stored(documents.as_deref().unwrap_or_default());
        let (part, uuid) = (self.part.clone(), of.uuid);
        let failed = |why| SnapshotError::Fold { part: part.clone(), why };
        let mut steps = 0;
        let merge = Merge::new(uuid, base, &mut self.changes, &of.pieces, of.emptied).map_err(failed)?;
        for kept in merge.before(limit) {
            let kept = kept.map_err(|why: Broken| why.of(&part))?;
            sink.document(&kept.key, &kept.document)?;
            steps += 1;
            if steps % LOOK_EVERY == 0 && self.stop.is_cancelled() {
                return Err(SnapshotError::Stopped);
            }
        }
        self.look()
    }

    /// A capped collection's documents are stored in their own order: to be merged with their changes they are
    /// sorted by their keys, and then back.
    fn in_insertion_order(&mut self, of: &Of<'_>, sink: &mut dyn Sink) -> Result<(), SnapshotError> {
        let root = of.root();
        let changed = of.emptied.is_some() || self.next_change(of.uuid)?.is_some();
        if let Some(root) = root
            && !changed
            && sink.tree(root)?
        {
            return Ok(());
        }
        let mut walk = Walk::all(root);
        let mut sorter = Sorter::new(self.room.budget());
        let mut place = 0_u64;
        while let Some(chunk) = self.packs.next(&mut walk, |node, reference| sink.node(node, reference))? {
            if !changed && sink.chunk(&chunk, None)? {
                continue;
            }
            let documents = self.read(&chunk, sink)?;
            for stored in stored(&documents) {
                let Stored { document, .. } = stored.map_err(|why| why.of(&self.part))?;
                self.look()?;
                let key = Key::of_document(&document);
                let key = self.fold(key.map_err(|error| FoldError::Stored { collection: of.uuid, error }))?;
                if !changed {
                    sink.document(key.as_bytes(), &document)?;
                    continue;
                }
                sorter
                    .push(of.uuid, key.as_bytes(), moment(place), &[document.as_bytes()])
                    .map_err(SnapshotError::Spill)?;
                place += 1;
            }
        }
        if !changed {
            return Ok(());
        }
        let mut base = sorter.end().map_err(SnapshotError::Spill)?;
        let base = std::iter::from_fn(move || next_stored(&mut base).transpose());
        let mut back = Sorter::new(self.room.budget());
        let part = self.part.clone();
        let failed = |why| SnapshotError::Fold { part: part.clone(), why };
        for kept in Merge::new(of.uuid, base, &mut self.changes, &of.pieces, of.emptied).map_err(failed)? {
            let kept = kept.map_err(|why: Broken| why.of(&part))?;
            let (first, at) = match kept.since {
                Since::Stored(place) => (0, moment(place)),
                Since::Inserted(at) => (1, at),
            };
            back.push(of.uuid, &[first], at, &[kept.document.as_bytes()]).map_err(SnapshotError::Spill)?;
        }
        let mut back = back.end().map_err(SnapshotError::Spill)?;
        while let Some(record) = back.peek().map_err(SnapshotError::Spill)? {
            let document = RawDocument::from_bytes(record.payload);
            let document = document.map_err(|why| SnapshotError::damaged("a temporary file", why))?;
            let key =
                Key::of_document(document).map_err(|error| failed(FoldError::Stored { collection: of.uuid, error }))?;
            sink.document(key.as_bytes(), document)?;
            back.pass();
            self.look()?;
        }
        Ok(())
    }
}

/// A place in a collection, as something that is sorted by.
fn moment(place: u64) -> Moment {
    let commit = ClusterTime::new((place >> 32) as u32, place as u32);
    Moment { commit, entry: ClusterTime::ZERO, index: 0 }
}

fn next_stored(sorted: &mut Sorted) -> Result<Option<Stored>, Broken> {
    let Some(record) = sorted.peek().map_err(FoldError::from)? else { return Ok(None) };
    let ClusterTime { seconds, increment } = record.at.commit;
    let place = u64::from(seconds) << 32 | u64::from(increment);
    let document = RawDocumentBuf::from_bytes(record.payload.to_vec()).map_err(|why| Broken::Chunk(why.to_string()))?;
    sorted.pass();
    Ok(Some(Stored { document, place }))
}

/// Why a stored document, or what became of it, cannot be had.
enum Broken {
    Fold(FoldError),
    Chunk(String),
}

impl From<FoldError> for Broken {
    fn from(why: FoldError) -> Broken {
        Broken::Fold(why)
    }
}

impl Broken {
    fn of(self, part: &PartId) -> SnapshotError {
        match self {
            Broken::Fold(why) => SnapshotError::Fold { part: part.clone(), why },
            Broken::Chunk(why) => SnapshotError::damaged("a chunk", why),
        }
    }
}

/// The documents of a chunk.
fn stored(chunk: &[u8]) -> impl Iterator<Item = Result<Stored, Broken>> {
    stillpoint_snapshot::documents(chunk).map(|bytes| {
        let bytes = bytes.map_err(|why| Broken::Chunk(why.to_string()))?;
        let document = RawDocumentBuf::from_bytes(bytes.to_vec()).map_err(|why| Broken::Chunk(why.to_string()))?;
        Ok(Stored { document, place: 0 })
    })
}

/// The layout of a collection's documents.
pub fn layout(collection: &Collection) -> Layout {
    if collection.is_in_insertion_order() { Layout::Insertion } else { Layout::Sorted }
}
