//! A part's data, written into the part of the target that takes it.
//!
//! The fold runs on a thread of its own and gives document after document; those that the part's shard does not
//! own are left out. Each collection has a task that makes it, writes its batches side by side, builds its
//! indexes, and notes how far it is. A batch waits for a permit before it is made, so that no more than a few of
//! them are in memory, whatever the target does.
//!
//! All of it can be done again: a collection or a document that is there counts as written. What is noted of a
//! collection is the document up to which all is with a majority of the target's members, so that a restore that
//! goes on skips that much.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::raw::{RawArrayBuf, RawDocument, RawDocumentBuf};
use serde::{Deserialize, Serialize};
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::{Amount, Mark};
use stillpoint_fold::catalogue::Fields;
use stillpoint_fold::{Catalogue, Collection, Uuid};
use stillpoint_mongo::snapshot::ReadError;
use stillpoint_mongo::{MongoError, PartLink};
use stillpoint_oplog::document::fields;
use stillpoint_snapshot::{Digest, manifest};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::RestoreError;
use super::capped::{Limits, Passed};
use super::naming::VIEWS;
use super::selection::Selection;
use crate::snapshots::SnapshotError;
use crate::snapshots::state::Sink;

/// Bytes of documents that are sent at once, and so many documents at most. Each is copied more than once on its way
/// to the server: what fits into a processor's cache, and is never given back to the system, is copied faster.
const BATCH: usize = 480 << 10;
const DOCUMENTS: u64 = 10_000;
/// Batches to one part of the target at a time, in memory or under way.
const WORKERS: usize = 8;
/// Collections of one part of the target that are open at a time, and indexes that are built of it.
const COLLECTIONS: usize = 16;
const BUILDS: usize = 2;
/// Bytes after which is noted how far a collection is.
const NOTE_EVERY: u64 = 64 << 20;
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A collection as it was written: in the target's words, and what its documents are.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pub collection: Collection,
    pub documents: Digest,
}

impl Written {
    /// The limits of a capped collection that its documents pass.
    pub fn passed(&self) -> Passed {
        Limits::of(&self.collection).passed(&self.documents)
    }

    /// The collection as it is before its last step: without what lets documents go.
    pub fn lasting(&self) -> Collection {
        let mut collection = self.passed().lifted(self.collection.clone());
        collection.options.remove("expireAfterSeconds");
        collection.indexes.retain(|_, spec| !expires(spec));
        collection
    }
}

/// How far a part is.
#[derive(Debug, Default)]
pub struct Progress {
    collections: AtomicU64,
    documents: AtomicU64,
    bytes: AtomicU64,
    doing: Mutex<Option<String>>,
}

impl Progress {
    pub fn amount(&self) -> Amount {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Amount { collections: read(&self.collections), documents: read(&self.documents), bytes: read(&self.bytes) }
    }

    pub fn add(&self, amount: Amount) {
        self.collections.fetch_add(amount.collections, Ordering::Relaxed);
        self.documents.fetch_add(amount.documents, Ordering::Relaxed);
        self.bytes.fetch_add(amount.bytes, Ordering::Relaxed);
    }

    pub fn doing(&self) -> Option<String> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn begin(&self, what: impl Into<String>) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.into());
    }

    pub fn end(&self) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A part of the target, shared by all whose data goes into it.
#[derive(Debug)]
pub struct Target {
    pub link: PartLink,
    made: tokio::sync::Mutex<BTreeSet<Uuid>>,
    workers: Arc<Semaphore>,
    open: Arc<Semaphore>,
    builds: Semaphore,
}

impl Target {
    /// `made` are the collections that it has of this restore.
    pub fn new(link: PartLink, made: BTreeSet<Uuid>) -> Target {
        Target {
            link,
            made: tokio::sync::Mutex::new(made),
            workers: Arc::new(Semaphore::new(WORKERS)),
            open: Arc::new(Semaphore::new(COLLECTIONS)),
            builds: Semaphore::new(BUILDS),
        }
    }

    async fn make(&self, uuid: Uuid, collection: &Collection, trying: &Trying) -> Result<(), RestoreError> {
        let mut made = self.made.lock().await;
        if made.contains(&uuid) {
            return Ok(());
        }
        let (db, name) = parts_of(&collection.ns);
        let definition = definition(collection)?;
        trying.again(|| self.link.create(db, name, uuid.0, &definition)).await?;
        made.insert(uuid);
        Ok(())
    }
}

/// What is noted of a collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Note {
    /// All up to the document with this key, in Base64, is written.
    Upto { key: String },
    /// All is written, and so are its indexes.
    Done { documents: u64, bytes: u64, hash: String },
}

impl Note {
    fn done(digest: &Digest) -> Note {
        Note::Done { documents: digest.documents, bytes: digest.bytes, hash: BASE64.encode(digest.hash.to_le_bytes()) }
    }

    /// The digest of a collection that is done.
    pub fn digest(&self) -> Option<Digest> {
        let Note::Done { documents, bytes, hash } = self else { return None };
        let hash = u128::from_le_bytes(BASE64.decode(hash).ok()?.try_into().ok()?);
        Some(Digest { documents: *documents, bytes: *bytes, hash })
    }

    fn key(&self) -> Option<Vec<u8>> {
        match self {
            Note::Upto { key } => BASE64.decode(key).ok(),
            Note::Done { .. } => None,
        }
    }
}

/// What loads a part.
pub struct Loader {
    handle: Handle,
    setting: Setting,
    tasks: JoinSet<Result<(), RestoreError>>,
    open: Option<Open>,
    written: BTreeMap<Uuid, Written>,
    failure: Option<RestoreError>,
}

/// What a loader works with.
pub struct Setting {
    pub selection: Selection,
    pub target: Arc<Target>,
    pub progress: Arc<Progress>,
    pub notes: mpsc::UnboundedSender<Mark>,
    /// What was noted of its collections before.
    pub noted: BTreeMap<Uuid, Note>,
    pub trying: Trying,
}

/// A collection whose documents come.
struct Open {
    uuid: Uuid,
    written: Written,
    /// Of `system.views`: each is written by itself.
    views: bool,
    limits: Limits,
    /// Those that are lifted.
    lifted: Passed,
    /// Up to here all is written.
    after: Option<Vec<u8>>,
    batch: RawArrayBuf,
    amount: Amount,
    /// The key of the batch's last document.
    last: Vec<u8>,
    sender: mpsc::UnboundedSender<Step>,
}

enum Step {
    Batch(Batch),
    /// What comes passes these limits.
    Lift(Passed),
    View(RawDocumentBuf),
    /// A document that an insert would change.
    Exactly(RawDocumentBuf),
    /// All has been sent.
    End(Digest),
}

struct Batch {
    documents: RawArrayBuf,
    amount: Amount,
    /// Of its last document.
    last: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl Loader {
    /// For a part with these collections.
    pub fn new(handle: Handle, setting: Setting, catalogue: &Catalogue) -> Loader {
        let mut written = BTreeMap::new();
        for (uuid, collection, ns) in setting.selection.collections(catalogue) {
            if let Some(documents) = setting.noted.get(&uuid).and_then(Note::digest) {
                let amount = Amount { collections: 1, documents: documents.documents, bytes: documents.bytes };
                setting.progress.add(amount);
                written.insert(uuid, Written { collection: Collection { ns, ..collection.clone() }, documents });
            }
        }
        Loader { handle, setting, tasks: JoinSet::new(), open: None, written, failure: None }
    }

    /// Which collections of the part are poured: what is restored, unless it is done.
    pub fn wants(&self) -> impl Fn(Uuid, &Collection) -> bool + use<> {
        let selection = self.setting.selection.clone();
        let done: BTreeSet<_> = self.written.keys().copied().collect();
        move |uuid, collection| !done.contains(&uuid) && selection.name(uuid, collection).is_some()
    }

    /// Waits until all is written. What was poured ended with `poured`.
    pub fn finish(mut self, poured: Result<(), SnapshotError>) -> Result<BTreeMap<Uuid, Written>, RestoreError> {
        self.open = None;
        if poured.is_err() {
            self.setting.trying.stop.cancel();
        }
        let handle = self.handle.clone();
        let mut first = self.failure.take();
        while let Some(ended) = handle.block_on(self.tasks.join_next()) {
            match ended {
                Ok(Ok(())) => {}
                // Others end because of the first.
                Ok(Err(why)) if first.is_none() || matches!(first, Some(RestoreError::Stopped)) => {
                    first = Some(why);
                    self.setting.trying.stop.cancel();
                }
                Ok(Err(_)) => {}
                Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                Err(_) => first = first.or(Some(RestoreError::Stopped)),
            }
        }
        match (first, poured) {
            (Some(RestoreError::Stopped) | None, Err(why)) if !matches!(why, SnapshotError::Stopped) => Err(why.into()),
            (Some(why), _) => Err(why),
            (None, Err(_)) => Err(RestoreError::Stopped),
            (None, Ok(())) => Ok(self.written),
        }
    }

    /// Ends the pouring for a reason of the restore's own.
    fn fail(&mut self, why: RestoreError) -> SnapshotError {
        self.failure = Some(why);
        SnapshotError::Stopped
    }

    fn permit(&self, semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, SnapshotError> {
        self.handle.block_on(async {
            tokio::select! {
                permit = semaphore.clone().acquire_owned() => permit.map_err(|_| SnapshotError::Stopped),
                () = self.setting.trying.stop.cancelled() => Err(SnapshotError::Stopped),
            }
        })
    }

    fn send(&mut self, last: &[u8]) -> Result<(), SnapshotError> {
        let permit = self.permit(&self.setting.target.workers)?;
        let Some(open) = &mut self.open else { return Ok(()) };
        let documents = std::mem::take(&mut open.batch);
        let amount = std::mem::take(&mut open.amount);
        let batch = Batch { documents, amount, last: last.to_vec(), _permit: permit };
        open.sender.send(Step::Batch(batch)).map_err(|_| SnapshotError::Stopped)
    }
}

impl Sink for Loader {
    fn begin(
        &mut self,
        uuid: Uuid,
        collection: &Collection,
        _: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        let Some(ns) = self.setting.selection.name(uuid, collection) else {
            self.open = None;
            return Ok(());
        };
        let collection = Collection { ns, ..collection.clone() };
        let permit = self.permit(&self.setting.target.open)?;
        self.setting.progress.begin(format!("writing {}", collection.ns));
        let (sender, steps) = mpsc::unbounded_channel();
        let filling = Filling {
            part: self.setting.selection.owner.part().clone(),
            uuid,
            collection: collection.clone(),
            target: self.setting.target.clone(),
            progress: self.setting.progress.clone(),
            notes: self.setting.notes.clone(),
            trying: self.setting.trying.clone(),
        };
        self.tasks.spawn_on(
            async move {
                let _permit = permit;
                let filled = filling.fill(steps).await;
                if filled.is_err() {
                    filling.trying.stop.cancel();
                }
                filled
            },
            &self.handle,
        );
        self.open = Some(Open {
            uuid,
            views: parts_of(&collection.ns).1 == VIEWS,
            limits: Limits::of(&collection),
            lifted: Passed::default(),
            written: Written { collection, documents: Digest::EMPTY },
            after: self.setting.noted.get(&uuid).and_then(Note::key),
            batch: RawArrayBuf::new(),
            amount: Amount::default(),
            last: Vec::new(),
            sender,
        });
        Ok(())
    }

    fn document(&mut self, key: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let kept = self.setting.selection.document(open.uuid, &open.written.collection.ns, document);
        let document = match kept {
            Ok(Some(document)) => document,
            Ok(None) => return Ok(()),
            Err(why) => return Err(self.fail(why)),
        };
        open.written.documents.add(document.as_bytes());
        let passed = open.limits.passed(&open.written.documents);
        if passed != open.lifted {
            open.lifted = passed;
            open.sender.send(Step::Lift(passed)).map_err(|_| SnapshotError::Stopped)?;
        }
        if open.views {
            return open.sender.send(Step::View(document.into_owned())).map_err(|_| SnapshotError::Stopped);
        }
        let amount = Amount { collections: 0, documents: 1, bytes: document.as_bytes().len() as u64 };
        if open.after.as_deref().is_some_and(|after| key <= after) {
            self.setting.progress.add(amount);
            return Ok(());
        }
        let alone = has_zero_timestamp(&document);
        let full = open.amount.documents >= DOCUMENTS || (open.amount.bytes + amount.bytes) as usize > BATCH;
        if open.amount.documents > 0 && (full || alone) {
            let last = std::mem::take(&mut open.last);
            self.send(&last)?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if alone {
            return open.sender.send(Step::Exactly(document.into_owned())).map_err(|_| SnapshotError::Stopped);
        }
        open.batch.push(&*document);
        open.amount = open.amount + amount;
        open.last.clear();
        open.last.extend_from_slice(key);
        Ok(())
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        if self.open.as_ref().is_some_and(|open| open.amount.documents > 0) {
            self.send(&[])?;
        }
        let Some(Open { uuid, written, sender, .. }) = self.open.take() else { return Ok(()) };
        sender.send(Step::End(written.documents)).map_err(|_| SnapshotError::Stopped)?;
        self.written.insert(uuid, written);
        Ok(())
    }
}

/// A collection that is filled.
struct Filling {
    part: PartId,
    uuid: Uuid,
    collection: Collection,
    target: Arc<Target>,
    progress: Arc<Progress>,
    notes: mpsc::UnboundedSender<Mark>,
    trying: Trying,
}

impl Filling {
    async fn fill(&self, mut steps: mpsc::UnboundedReceiver<Step>) -> Result<(), RestoreError> {
        self.target.make(self.uuid, &self.collection, &self.trying).await?;
        let (db, name) = parts_of(&self.collection.ns);
        let in_order = self.collection.is_in_insertion_order();
        let mut writing = JoinSet::new();
        let mut reached = Reached::default();
        let mut ended = None;
        loop {
            tokio::select! {
                step = steps.recv(), if ended.is_none() => match step {
                    // The pouring was given up.
                    None => return Err(RestoreError::Stopped),
                    Some(Step::End(digest)) => ended = Some(digest),
                    Some(Step::Lift(passed)) => {
                        let lifted = passed.lifted(self.collection.clone());
                        let fields = passed.fields(&lifted);
                        self.trying.again(|| self.target.link.modify(db, name, &fields)).await?;
                    }
                    // Both before any batch after them is sent: so no note of one tells of these too early.
                    Some(Step::View(view)) => {
                        self.trying.again(|| self.target.link.insert_view(db, self.uuid.0, &view)).await?;
                        self.progress.add(Amount { collections: 0, documents: 1, bytes: view.as_bytes().len() as u64 });
                    }
                    Some(Step::Exactly(document)) => {
                        self.trying.again(|| self.target.link.insert_exactly(db, name, &document)).await?;
                        let bytes = document.as_bytes().len() as u64;
                        self.progress.add(Amount { collections: 0, documents: 1, bytes });
                    }
                    Some(Step::Batch(batch)) => {
                        let place = reached.sent();
                        let (link, trying) = (self.target.link.clone(), self.trying.clone());
                        let (db, name) = (db.to_owned(), name.to_owned());
                        let write = async move {
                            trying.again(|| link.insert(&db, &name, &batch.documents)).await?;
                            Ok::<_, RestoreError>((place, batch))
                        };
                        match in_order {
                            true => self.progress.add(write.await?.1.amount),
                            false => drop(writing.spawn(write)),
                        }
                    }
                },
                Some(done) = writing.join_next() => match done {
                    Ok(done) => {
                        let (place, batch) = done?;
                        self.progress.add(batch.amount);
                        if let Some(key) = reached.done(place, batch) {
                            self.note(&Note::Upto { key: BASE64.encode(key) })?;
                        }
                    }
                    Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                    Err(_) => return Err(RestoreError::Stopped),
                },
                else => break,
            }
        }
        self.build_indexes(db, name).await?;
        let digest = ended.ok_or(RestoreError::Stopped)?;
        self.progress.add(Amount { collections: 1, documents: 0, bytes: 0 });
        self.note(&Note::done(&digest))
    }

    async fn build_indexes(&self, db: &str, name: &str) -> Result<(), RestoreError> {
        let specs = specs(&self.collection, |spec| !expires(spec))?;
        if specs.is_empty() {
            return Ok(());
        }
        let _permit = tokio::select! {
            permit = self.target.builds.acquire() => permit,
            () = self.trying.stop.cancelled() => return Err(RestoreError::Stopped),
        };
        self.progress.begin(format!("building indexes of {}", self.collection.ns));
        self.trying.again(|| self.target.link.build_indexes(db, name, &specs)).await
    }

    fn note(&self, note: &Note) -> Result<(), RestoreError> {
        let record = serde_json::to_string(note).map_err(|e| RestoreError::Refused(format!("a note: {e}")))?;
        let mark = Mark { part: self.part.clone(), collection: self.uuid.to_string(), record };
        self.notes.send(mark).map_err(|_| RestoreError::Stopped)
    }
}

/// Which batches of a collection are written, all before them included.
#[derive(Debug, Default)]
struct Reached {
    sent: u64,
    /// All before it are.
    next: u64,
    ahead: BTreeMap<u64, (Vec<u8>, u64)>,
    bytes: u64,
}

impl Reached {
    fn sent(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }

    /// The key that may be noted, when it is time to.
    fn done(&mut self, place: u64, batch: Batch) -> Option<Vec<u8>> {
        self.ahead.insert(place, (batch.last, batch.amount.bytes));
        let mut key = None;
        while let Some((last, bytes)) = self.ahead.remove(&self.next) {
            self.next += 1;
            self.bytes += bytes;
            key = Some(last);
        }
        // The last batch has none: the collection is done with it.
        let key = key.filter(|key| !key.is_empty() && self.bytes >= NOTE_EVERY)?;
        self.bytes = 0;
        Some(key)
    }
}

/// An error of a target, which may pass.
pub trait Passing: std::fmt::Display {
    fn is_lasting(&self) -> bool;
    fn of_target(self) -> RestoreError;
}

impl Passing for MongoError {
    fn is_lasting(&self) -> bool {
        MongoError::is_lasting(self)
    }

    fn of_target(self) -> RestoreError {
        self.into()
    }
}

impl Passing for SnapshotError {
    fn is_lasting(&self) -> bool {
        SnapshotError::is_lasting(self)
    }

    fn of_target(self) -> RestoreError {
        match self {
            SnapshotError::Mongo(why) | SnapshotError::Read(ReadError::Mongo(why)) => why.into(),
            why => RestoreError::Refused(format!("the target: {why}")),
        }
    }
}

/// How writes to the target are tried.
#[derive(Debug, Clone)]
pub struct Trying {
    pub stop: CancellationToken,
    /// How long one is tried again when the target does not take it, as while it elects a primary.
    pub patience: Duration,
}

impl Trying {
    /// Tries it again while it fails for what may pass.
    pub async fn again<T, E: Passing, F: Future<Output = Result<T, E>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, RestoreError> {
        // Only time in which nothing works counts: what is tried may take long by itself.
        let mut failing = None;
        let mut pause = PAUSE;
        loop {
            let done = tokio::select! {
                done = attempt() => done,
                () = self.stop.cancelled() => return Err(RestoreError::Stopped),
            };
            match done {
                Err(why) if !why.is_lasting() && failing.get_or_insert_with(Instant::now).elapsed() < self.patience => {
                    tracing::warn!(error = %why, "restore: trying again");
                }
                done => return done.map_err(E::of_target),
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.cancelled() => return Err(RestoreError::Stopped),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Whether a field of the document itself is a timestamp of zero: the insert command would set the time there.
fn has_zero_timestamp(document: &RawDocument) -> bool {
    let zero = Some(ClusterTime::new(0, 0));
    fields(document.as_bytes())
        .is_ok_and(|mut fields| fields.any(|field| field.is_ok_and(|field| field.value.timestamp() == zero)))
}

/// Database and name.
pub fn parts_of(ns: &str) -> (&str, &str) {
    ns.split_once('.').unwrap_or((ns, ""))
}

/// Whether documents go by themselves by an index. It is built last: what is written would be gone before it is
/// compared.
pub fn expires(spec: &Fields) -> bool {
    spec.contains_key("expireAfterSeconds")
}

/// The specifications of a collection's indexes, but for that of `_id`.
pub fn specs(collection: &Collection, wanted: impl Fn(&Fields) -> bool) -> Result<RawArrayBuf, RestoreError> {
    let mut specs = RawArrayBuf::new();
    for (name, spec) in &collection.indexes {
        if name != "_id_" && wanted(spec) {
            specs.push(document(spec)?);
        }
    }
    Ok(specs)
}

/// As an entry that makes the collection has it.
fn definition(collection: &Collection) -> Result<RawDocumentBuf, RestoreError> {
    let mut options = collection.options.clone();
    options.remove("expireAfterSeconds");
    let mut definition = document(&options)?;
    if let Some(spec) = collection.indexes.get("_id_") {
        definition.append(bson::raw::cstr!("idIndex"), document(spec)?);
    }
    Ok(definition)
}

fn document(fields: &Fields) -> Result<RawDocumentBuf, RestoreError> {
    let mut document = RawDocumentBuf::new();
    for (name, value) in fields {
        let name = bson::raw::CString::try_from(name.as_str());
        document.append(name.map_err(|e| RestoreError::Refused(format!("an option or an index: {e}")))?, value.clone());
    }
    Ok(document)
}
