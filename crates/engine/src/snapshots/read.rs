//! The first data of a part: read from the cluster, while it works.
//!
//! The list of collections is read as of one time, then each collection in its order, in pieces that are each
//! as of a later time of their own: so no piece has to be read for longer than the server keeps its past, and
//! reading can stop and go on. What was read is noted haul by haul; a crash loses the haul that is under way.
//!
//! One cursor of a part is open at a time, on a secondary where there is one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::raw::{RawBson, RawDocument, RawDocumentBuf};
use serde::{Deserialize, Serialize};
use stillpoint_catalog::Lease;
use stillpoint_core::snapshot::Data;
use stillpoint_core::{ClusterTime, SnapshotId};
use stillpoint_fold::gather::is_derived;
use stillpoint_fold::sort::{Moment, Sorter};
use stillpoint_fold::{Budget, Collection, Key, Uuid, key};
use stillpoint_mongo::PartLink;
use stillpoint_mongo::snapshot::{Batch, Documents, Order, ReadError, When};
use stillpoint_snapshot::{Cut, Manifest, Reference, Root, TreeBuilder, Walk, manifest};
use stillpoint_vault::Vault;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::make::{Chunks, named};
use super::pack::Packer;
use super::state::{Room, layout};
use super::unpack::Packs;
use super::{SnapshotError, stream_from};
use crate::Setup;

/// A piece is read for so long at most: far less than the 300 seconds for which a server keeps its past unless
/// it was told otherwise.
const PIECE: Duration = Duration::from_secs(60);
/// What was read is noted after so long at the latest.
const HAUL: Duration = Duration::from_secs(60);
/// Batches of up to 16 MiB that wait to be taken in.
const AHEAD: usize = 1;

/// What is noted of a part's reading, one after the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
enum Record {
    /// The list of collections was read as of a time; each of them follows.
    Begun { at: ClusterTime, compatibility: String },
    /// As `$listCatalog` has it, BSON in Base64.
    Listed { definition: String },
    /// A range of a collection, as a manifest has collections; with the `_id` to go on from, if it is not the
    /// last.
    Piece { collection: String, next: Option<String> },
    /// A collection was dropped by then.
    Gone { collection: String, at: ClusterTime },
    /// What the last haul took in the vault.
    Stored { bytes: u64 },
}

/// How far a part has been read.
#[derive(Default)]
struct Progress {
    begun: Option<(ClusterTime, String)>,
    collections: Vec<(Uuid, Collection)>,
    pieces: BTreeMap<Uuid, Vec<manifest::Collection>>,
    /// Where to go on in a collection of which some is read.
    next: BTreeMap<Uuid, RawDocumentBuf>,
    gone: BTreeMap<Uuid, ClusterTime>,
    stored: u64,
}

impl Progress {
    fn of(records: &[String]) -> Result<Progress, String> {
        let mut progress = Progress::default();
        for record in records {
            progress.add(serde_json::from_str(record).map_err(|e| e.to_string())?)?;
        }
        Ok(progress)
    }

    fn add(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Begun { at, compatibility } => self.begun = Some((at, compatibility)),
            Record::Listed { definition } => {
                let definition = document(&definition)?;
                self.collections.push(Collection::listed(&definition).map_err(|e| e.to_string())?);
            }
            Record::Piece { collection, next } => {
                let bytes = BASE64.decode(collection).map_err(|e| e.to_string())?;
                let read = manifest::Collection::from_document(&bytes).ok_or("a piece is malformed")?;
                let uuid = Uuid(read.uuid);
                match next.as_deref().map(document).transpose()? {
                    Some(next) => self.next.insert(uuid, next),
                    None => self.next.remove(&uuid),
                };
                self.pieces.entry(uuid).or_default().push(read);
            }
            Record::Gone { collection, at } => {
                let uuid = collection.parse::<bson::Uuid>().map_err(|e| e.to_string())?;
                self.gone.insert(Uuid(uuid.bytes()), at);
            }
            Record::Stored { bytes } => self.stored += bytes,
        }
        Ok(())
    }

    /// Of what there is to read, the first: a collection, and what of it is read already.
    fn todo(&self) -> Vec<Todo> {
        let left = self.collections.iter().filter(|(uuid, collection)| {
            let begun = self.pieces.contains_key(uuid) && !self.next.contains_key(uuid);
            !is_derived(&collection.ns) && !begun && !self.gone.contains_key(uuid)
        });
        left.map(|(uuid, collection)| {
            let last = self.pieces.get(uuid).and_then(|pieces| pieces.last());
            let from = last.and_then(|last| last.pieces.first()).and_then(|piece| piece.to.clone());
            Todo {
                uuid: *uuid,
                collection: collection.clone(),
                cut: last.map(|last| last.cut),
                from: from.zip(self.next.get(uuid).cloned()),
            }
        })
        .collect()
    }
}

fn document(base64: &str) -> Result<RawDocumentBuf, String> {
    let bytes = BASE64.decode(base64).map_err(|e| e.to_string())?;
    RawDocumentBuf::from_bytes(bytes).map_err(|e| e.to_string())
}

/// A collection of which there is more to read.
struct Todo {
    uuid: Uuid,
    collection: Collection,
    cut: Option<Cut>,
    /// The first key that is not read yet, and an `_id` at or before it.
    from: Option<(Vec<u8>, RawDocumentBuf)>,
}

/// In which way a collection can be read.
enum Way {
    /// As of a time, in the order of its keys, in pieces.
    ById,
    /// As of a time, at once: its index of `_id` has another order than the keys, or there is none.
    Whole,
    /// As of now, at once.
    Capped,
}

fn way(collection: &Collection) -> Way {
    let indexed = collection.indexes.contains_key("_id_") || collection.options.contains_key("clusteredIndex");
    match collection {
        one if one.is_capped() => Way::Capped,
        one if one.options.contains_key("collation") || !indexed => Way::Whole,
        _ => Way::ById,
    }
}

/// Reads one part.
#[derive(Clone)]
pub(super) struct PartReader {
    pub setup: Setup,
    pub lease: Lease,
    pub snapshot: SnapshotId,
    pub link: PartLink,
    pub vault: Vault,
    pub room: Room,
    pub stop: CancellationToken,
}

/// What was read until it is to be noted.
struct Hauled {
    records: Vec<Record>,
    names: Vec<String>,
    /// What ended it before its time.
    error: Option<SnapshotError>,
}

impl PartReader {
    /// Reads what is left to read, and stores the manifest; gives it and the names of the blobs that are not
    /// noted yet.
    pub async fn read(&self) -> Result<(Data, Vec<String>), SnapshotError> {
        let (catalog, cluster) = (&self.setup.catalog, self.lease.cluster);
        let part = &self.link.id;
        let broken = |why| SnapshotError::Records { part: part.clone(), why };
        let mut progress = Progress::of(&catalog.pieces(cluster, self.snapshot, part).await?).map_err(broken)?;
        if progress.begun.is_none() {
            let records = self.begin().await?;
            self.note(&records, &[]).await?;
            records.into_iter().try_for_each(|record| progress.add(record)).map_err(broken)?;
        }
        loop {
            let todo = progress.todo();
            if todo.is_empty() {
                break;
            }
            let (reader, at) = (self.clone(), progress.begun.as_ref().map_or(ClusterTime::ZERO, |(at, _)| *at));
            let handle = Handle::current();
            let Hauled { records, names, error } = blocking(move || reader.haul(&handle, at, todo)).await?;
            self.note(&records, &names).await?;
            records.into_iter().try_for_each(|record| progress.add(record)).map_err(broken)?;
            if let Some(error) = error {
                return Err(error);
            }
        }
        self.finish(progress).await
    }

    /// Reads the list of collections.
    async fn begin(&self) -> Result<Vec<Record>, SnapshotError> {
        let part = &self.link.id;
        let stream = self.setup.catalog.stream(self.lease.cluster, part).await?;
        let stream = stream.ok_or_else(|| SnapshotError::NotCaptured(part.clone()))?;
        let compatibility = self.link.compatibility().await?;
        let at = self.link.committed().await?.max(stream.complete_from);
        let mut records = vec![Record::Begun { at, compatibility }];
        for (uuid, collection) in listed(&self.link.catalogue_at(at).await?)? {
            records.push(Record::Listed { definition: BASE64.encode(collection.to_listed(uuid).as_bytes()) });
        }
        Ok(records)
    }

    async fn note(&self, records: &[Record], names: &[String]) -> Result<(), SnapshotError> {
        let part = &self.link.id;
        let lines = records.iter().map(|record| {
            serde_json::to_string(record).map_err(|e| SnapshotError::Records { part: part.clone(), why: e.to_string() })
        });
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        self.setup.catalog.add_pieces(&self.lease, self.snapshot, part, &lines, names).await?;
        self.setup.done("pieces-noted");
        Ok(())
    }

    /// Reads until it is time to note what was read, or something is in the way.
    fn haul(&self, handle: &Handle, listed: ClusterTime, todo: Vec<Todo>) -> Result<Hauled, SnapshotError> {
        let (cluster, part) = (self.lease.cluster, &self.link.id);
        let mut haul = Haul {
            reader: self,
            handle,
            listed,
            packer: Packer::new(
                handle.clone(),
                self.setup.catalog.clone(),
                self.vault.clone(),
                cluster,
                part,
                self.setup.snapshots.level,
            )?,
            begun: Instant::now(),
            bytes: 0,
            read: Vec::new(),
            gone: Vec::new(),
        };
        let mut error = None;
        for todo in todo {
            match haul.collection(todo) {
                Ok(()) if haul.is_full() => break,
                Ok(()) => {}
                Err(why) => {
                    error = Some(why);
                    break;
                }
            }
        }
        let Haul { packer, read, gone, .. } = haul;
        let packed = packer.finish()?;
        let mut records = vec![Record::Stored { bytes: packed.stored }];
        for mut piece in read {
            piece.collection.root =
                match &piece.root {
                    Some(root) => Some(packed.root(root).ok_or_else(|| {
                        SnapshotError::damaged(&piece.collection.namespace, "its root was not stored")
                    })?),
                    None => None,
                };
            let written = piece
                .collection
                .to_document()
                .ok_or_else(|| SnapshotError::Records { part: part.clone(), why: "a number is too high".into() })?;
            let next = piece.next.map(|next| BASE64.encode(next.as_bytes()));
            records.push(Record::Piece { collection: BASE64.encode(written), next });
        }
        records.extend(gone);
        Ok(Hauled { records, names: packed.names(), error })
    }

    /// The manifest of all that was read.
    async fn finish(&self, progress: Progress) -> Result<(Data, Vec<String>), SnapshotError> {
        let (catalog, cluster, part) = (&self.setup.catalog, self.lease.cluster, &self.link.id);
        let Progress { begun, collections, mut pieces, gone, stored, .. } = progress;
        let Some((at, compatibility)) = begun else {
            return Err(SnapshotError::Records { part: part.clone(), why: "its beginning is missing".into() });
        };
        let settled = pieces.values().flatten().flat_map(|one| &one.pieces).map(|piece| piece.settled);
        let latest = settled.chain(gone.values().copied()).max().unwrap_or(at).max(at);
        let stream = stream_from(&**catalog, cluster, part, at).await?;
        let (handle, vault, id, records) = (Handle::current(), self.vault.clone(), part.clone(), catalog.clone());
        let level = self.setup.snapshots.level;
        let (told, packed, names) = blocking(move || {
            let mut packer = Packer::new(handle.clone(), records, vault.clone(), cluster, &id, level)?;
            let mut packs = Packs::new(handle, vault, cluster, &id)?;
            let mut told = Vec::new();
            // In the order of the UUIDs, a collection's pieces in theirs.
            for (uuid, collection) in collections {
                let read = pieces.remove(&uuid).filter(|_| !gone.contains_key(&uuid)).unwrap_or_default();
                let whole = join(&mut packer, &mut packs, uuid, &collection, at, read)?;
                told.push(whole);
            }
            let packed = packer.finish()?;
            let mut collections = Vec::new();
            for (mut collection, root) in told {
                if let Some(root) = root {
                    collection.root = packed.root(&root);
                }
                collections.push(collection);
            }
            let names = packed.names();
            Ok((collections, packed.stored, names))
        })
        .await?;
        let mut told = told;
        told.sort_by(|a, b| a.namespace.cmp(&b.namespace));
        let manifest = Manifest {
            cluster,
            part: part.key(),
            catalog: at,
            earliest: at,
            latest,
            stream,
            made: self.setup.now().as_millisecond(),
            base: None,
            compatibility,
            keys: key::VERSION,
            collections: told,
        };
        super::store(&**catalog, &self.vault, part, manifest, stored + packed, names).await
    }
}

/// The pieces of a collection as one.
fn join(
    packer: &mut Packer,
    packs: &mut Packs,
    uuid: Uuid,
    collection: &Collection,
    at: ClusterTime,
    read: Vec<manifest::Collection>,
) -> Result<(manifest::Collection, Option<stillpoint_snapshot::Unplaced>), SnapshotError> {
    let mut whole = manifest::Collection {
        namespace: collection.ns.clone(),
        uuid: uuid.0,
        definition: collection.to_listed(uuid).as_bytes().to_vec(),
        layout: layout(collection),
        cut: read.first().map_or(Cut::for_average(512), |first| first.cut),
        root: None,
        pieces: read.iter().flat_map(|one| one.pieces.clone()).collect(),
    };
    if whole.pieces.is_empty() {
        // It was dropped, or each server writes it by itself.
        whole.pieces.push(manifest::Piece { from: None, to: None, at, settled: at });
    }
    let roots: Vec<&Root> = read.iter().filter_map(|one| one.root.as_ref()).collect();
    if let [root] = roots[..] {
        whole.root = Some(root.clone());
        return Ok((whole, None));
    }
    let mut tree = TreeBuilder::new(whole.layout);
    for root in roots {
        let mut walk = Walk::all(Some(root));
        let mut nodes = Vec::new();
        loop {
            let chunk: Option<Reference> = packs.next(&mut walk, |node, at| nodes.push((node.clone(), at.clone())))?;
            for (node, at) in nodes.drain(..) {
                packer.know(&mut tree, &node, &at);
            }
            match chunk {
                Some(chunk) => packer.keep(&mut tree, &chunk)?,
                None => break,
            }
        }
    }
    let root = packer.end(tree)?;
    Ok((whole, root))
}

/// A haul under way.
struct Haul<'a> {
    reader: &'a PartReader,
    handle: &'a Handle,
    /// When the collections were listed: nothing is read as of an earlier time.
    listed: ClusterTime,
    packer: Packer,
    begun: Instant,
    bytes: u64,
    read: Vec<Read>,
    gone: Vec<Record>,
}

/// A piece that was read.
struct Read {
    collection: manifest::Collection,
    root: Option<stillpoint_snapshot::Unplaced>,
    next: Option<RawDocumentBuf>,
}

impl Haul<'_> {
    fn is_full(&self) -> bool {
        self.bytes >= self.reader.setup.snapshots.haul || self.begun.elapsed() >= HAUL
    }

    /// Reads a piece of a collection, or all that is left of it.
    fn collection(&mut self, todo: Todo) -> Result<(), SnapshotError> {
        let PartReader { link, stop, .. } = self.reader;
        if stop.is_cancelled() {
            return Err(SnapshotError::Stopped);
        }
        let at = self.handle.block_on(link.committed())?.max(self.listed);
        let read = match way(&todo.collection) {
            Way::ById => self.by_id(&todo, at),
            Way::Whole => self.at_once(&todo, at, When::At(at)),
            Way::Capped => self.at_once(&todo, at, When::NotBefore(at)),
        };
        match read {
            Err(SnapshotError::Read(gone @ ReadError::Gone { .. })) => {
                // The member may know of a drop that no majority has yet, and that may be rolled back.
                let at = self.handle.block_on(link.committed())?.max(at);
                let there = listed(&self.handle.block_on(link.catalogue_at(at))?)?;
                if there.iter().any(|(uuid, _)| *uuid == todo.uuid) {
                    return Err(gone.into());
                }
                let collection = bson::Uuid::from_bytes(todo.uuid.0).to_string();
                self.gone.push(Record::Gone { collection, at });
                Ok(())
            }
            done => done.map_err(|why| named(why, &todo.collection.ns)),
        }
    }

    /// The batches of a collection, read while those before them are taken in.
    fn batches(
        &self,
        todo: &Todo,
        when: When,
        order: Order,
    ) -> Result<mpsc::Receiver<Result<Batch, ReadError>>, SnapshotError> {
        let db = todo.collection.ns.split('.').next().unwrap_or_default();
        let documents = self.reader.link.documents(db, todo.uuid.0, when, order);
        let mut documents: Documents = self.handle.block_on(documents)?;
        let (send, batches) = mpsc::channel(AHEAD);
        self.handle.spawn(async move {
            while let Some(batch) = documents.next().await.transpose() {
                let failed = batch.is_err();
                if send.send(batch).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(batches)
    }

    fn by_id(&mut self, todo: &Todo, at: ClusterTime) -> Result<(), SnapshotError> {
        let (from, id) = match &todo.from {
            Some((key, document)) => (Some(key.clone()), document.get("_id").ok().flatten().map(RawBson::from)),
            None => (None, None),
        };
        let mut batches = self.batches(todo, When::At(at), Order::ById { from: id })?;
        let mut chunks = Chunks::new(&todo.collection, todo.cut);
        let mut tree = TreeBuilder::new(layout(&todo.collection));
        let begun = Instant::now();
        let mut last: Option<(Vec<u8>, RawDocumentBuf)> = None;
        // Why it ends before the collection does.
        let mut error = None;
        let more = loop {
            match batches.blocking_recv() {
                None => break false,
                Some(Err(why)) => {
                    error = Some(why);
                    break true;
                }
                Some(Ok(batch)) => {
                    let mut newest = None;
                    for document in batch.documents() {
                        let document = document.map_err(|why| unreadable(&todo.collection.ns, why))?;
                        let key = key_of(&todo.collection.ns, document)?;
                        // Those before it were in the piece before.
                        if from.as_ref().is_some_and(|from| key.as_bytes() < &from[..]) {
                            continue;
                        }
                        self.bytes += document.as_bytes().len() as u64;
                        chunks.push(key.as_bytes(), document.as_bytes(), &mut |chunk| {
                            self.packer.add(&mut tree, chunk)
                        })?;
                        newest = Some((key, document));
                    }
                    if let Some((key, document)) = newest {
                        last = Some((key.as_bytes().to_vec(), id_of(&todo.collection.ns, document)?));
                    }
                    if self.reader.stop.is_cancelled() || self.is_full() || begun.elapsed() >= PIECE {
                        break true;
                    }
                }
            }
        };
        if more && last.is_none() {
            // Nothing came of it.
            return error.map_or(Ok(()), |why| Err(why.into()));
        }
        let cut = chunks.end(&mut |chunk| self.packer.add(&mut tree, chunk))?;
        let root = self.packer.end(tree)?;
        let (to, next) = match last.filter(|_| more) {
            // No key comes between a key and this.
            Some((mut key, id)) => {
                key.push(0);
                (Some(key), Some(id))
            }
            None => (None, None),
        };
        self.read.push(read(todo, cut, root, manifest::Piece { from, to, at, settled: at }, next));
        error.map_or(Ok(()), |why| Err(why.into()))
    }

    /// A collection that cannot be read in pieces: all of it or nothing.
    fn at_once(&mut self, todo: &Todo, at: ClusterTime, when: When) -> Result<(), SnapshotError> {
        let ns = &todo.collection.ns;
        let mut batches = self.batches(todo, when, Order::Natural)?;
        let mut chunks = Chunks::new(&todo.collection, None);
        let mut tree = TreeBuilder::new(layout(&todo.collection));
        let in_order = todo.collection.is_in_insertion_order();
        let PartReader { room, stop, link, .. } = self.reader;
        let mut sorter = Sorter::new(Budget { memory: room.memory, folder: room.folder.clone() });
        let moment = Moment { commit: at, entry: at, index: 0 };
        let begun = Instant::now();
        while let Some(batch) = batches.blocking_recv() {
            let batch = batch.map_err(|why| match why {
                ReadError::Unavailable { what, why, part: _, at: _ } if begun.elapsed() >= PIECE => {
                    SnapshotError::TooSlow { part: link.id.clone(), what, why }
                }
                other => other.into(),
            })?;
            for document in batch.documents() {
                let document = document.map_err(|why| unreadable(ns, why))?;
                let key = key_of(ns, document)?;
                self.bytes += document.as_bytes().len() as u64;
                if in_order {
                    chunks.push(key.as_bytes(), document.as_bytes(), &mut |chunk| self.packer.add(&mut tree, chunk))?;
                } else {
                    let pushed = sorter.push(todo.uuid, key.as_bytes(), moment, &[document.as_bytes()]);
                    pushed.map_err(SnapshotError::Spill)?;
                }
            }
            if stop.is_cancelled() {
                return Err(SnapshotError::Stopped);
            }
        }
        let settled = match when {
            When::At(at) => at,
            When::NotBefore(at) => self.handle.block_on(link.committed())?.max(at),
        };
        let mut sorted = sorter.end().map_err(SnapshotError::Spill)?;
        while let Some(record) = sorted.peek().map_err(SnapshotError::Spill)? {
            chunks.push(record.key, record.payload, &mut |chunk| self.packer.add(&mut tree, chunk))?;
            sorted.pass();
        }
        let cut = chunks.end(&mut |chunk| self.packer.add(&mut tree, chunk))?;
        let root = self.packer.end(tree)?;
        self.read.push(read(todo, cut, root, manifest::Piece { from: None, to: None, at, settled }, None));
        Ok(())
    }
}

fn read(
    todo: &Todo,
    cut: Cut,
    root: Option<stillpoint_snapshot::Unplaced>,
    piece: manifest::Piece,
    next: Option<RawDocumentBuf>,
) -> Read {
    let collection = manifest::Collection {
        namespace: todo.collection.ns.clone(),
        uuid: todo.uuid.0,
        definition: RawDocumentBuf::new().into_bytes(),
        layout: layout(&todo.collection),
        cut,
        root: None,
        pieces: vec![piece],
    };
    Read { collection, root, next }
}

fn unreadable(ns: &str, why: impl ToString) -> SnapshotError {
    SnapshotError::Document { ns: ns.to_owned(), why: why.to_string() }
}

fn key_of(ns: &str, document: &RawDocument) -> Result<Key, SnapshotError> {
    Key::of_document(document).map_err(|why| unreadable(ns, why))
}

/// The `_id` by itself.
fn id_of(ns: &str, document: &RawDocument) -> Result<RawDocumentBuf, SnapshotError> {
    let id = document.get("_id").map_err(|why| unreadable(ns, why))?.ok_or_else(|| unreadable(ns, "it has no _id"))?;
    let mut alone = RawDocumentBuf::new();
    alone.append(bson::raw::cstr!("_id"), id);
    Ok(alone)
}

/// The collections among what a part's catalogue lists. Those of the database `local` are each member's own.
pub fn listed(documents: &[RawDocumentBuf]) -> Result<Vec<(Uuid, Collection)>, SnapshotError> {
    let mut collections = Vec::with_capacity(documents.len());
    for document in documents {
        let text = |name| document.get_str(name).unwrap_or_default();
        let ns = text("ns").to_owned();
        match text("type") {
            _ if text("db") == "local" => {}
            "collection" => {
                let listed = Collection::listed(document);
                collections.push(listed.map_err(|why| SnapshotError::Definition { ns, why: why.to_string() })?);
            }
            // They are documents of `system.views`.
            "view" | "timeseries" => {}
            other => {
                let why = format!("it is a {other:?}");
                return Err(SnapshotError::Definition { ns, why });
            }
        }
    }
    Ok(collections)
}

/// On a thread that may wait.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, SnapshotError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(SnapshotError::Stopped),
    }
}
