//! What has changed of a part from one time to another, from what is stored.
//!
//! Each side is a state that is poured on a thread of its own. Its sink hands what comes over a bounded
//! channel, and of a tree or a chunk it asks whether it may be left unread. One merger walks over both, in the
//! order of UUIDs and keys, and answers: both sides' tree or chunk of the same content is left unread on both.
//!
//! A chunk that both have is met by both at once: it is asked about when it is at the head of its side, and the
//! other side is then either before it, and is gone on with, or asks about it, too. Nothing of the other side
//! can be at or after its first key, and yet before the chunk. (Where all that is known of two keys is the same,
//! as of some that are longer than a bound, chunks are read that need not be.)
//!
//! No side waits for the other: one that hands something over waits for the merger, which takes from the other
//! whatever it needs to go on; one that asks is at its head, and the merger never waits for more of a side that
//! has a head. Whoever ends, for whatever reason, drops its end of the channels, and so ends who waits there.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, ScopedJoinHandle};
use std::{io, vec};

use bson::raw::{RawBson, RawDocument};
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_fold::catalogue::Fields;
use stillpoint_fold::{Catalogue, Collection, Uuid};
use stillpoint_snapshot::{ContentId, Digest, Entry, Reference, Root, manifest};
use tokio_util::sync::CancellationToken;

use super::read::blocking;
use super::state::{Sink, Source, State};
use super::{Archive, SnapshotError};

#[cfg(test)]
mod tests;

/// Documents, or bytes of their keys and ids, that are handed over at once.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 256 << 10;
/// Batches that may wait for the merger.
const WAITING: usize = 2;

/// What a comparison of a part came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartDiff {
    /// Those that are not the same, by their UUIDs.
    pub different: Vec<CollectionDiff>,
    /// How many are.
    pub same: u64,
    pub reading: Reading,
}

/// How much of what is stored had to be read to compare it; bytes of documents, of both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    pub chunks_read: u64,
    pub bytes_read: u64,
    pub bytes_skipped: u64,
}

/// A collection that is not the same at both times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionDiff {
    pub uuid: Uuid,
    /// Its names; none at a time at which it was not there.
    pub before: Option<String>,
    pub after: Option<String>,
    pub documents: Documents,
    /// Of a collection that was there at both times, what is not the same by its name.
    pub options: Vec<String>,
    pub indexes: Indexes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Documents {
    Compared(Counts),
    /// In the order of insertion there are no keys to go by: how many there were, and whether they were the same.
    Digested {
        before: u64,
        after: u64,
        same: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub added: u64,
    pub removed: u64,
    pub changed: u64,
    pub same: u64,
}

impl Documents {
    fn are_same(&self) -> bool {
        match self {
            Documents::Compared(counts) => counts.added == 0 && counts.removed == 0 && counts.changed == 0,
            Documents::Digested { same, .. } => *same,
        }
    }
}

/// Indexes by their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Indexes {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

impl Indexes {
    pub fn are_same(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Added,
    Removed,
    Changed,
}

/// Is told of each document that is not the same: the collection's name, and the document's `_id`.
pub type Teller<'a> = dyn FnMut(Change, &str, &RawBson) -> io::Result<()> + Send + 'a;

/// Which collections are compared, by one of their names.
pub type Wanted = dyn Fn(&str) -> bool + Send + Sync;

/// One of the two times: no state of a part that was not there.
pub struct Side {
    pub time: ClusterTime,
    pub source: Option<Source>,
}

impl Archive {
    /// What has changed of a part. If nobody is to be told of each document they are only counted, and less is
    /// read.
    pub async fn diff(
        &self,
        part: PartId,
        sides: [Side; 2],
        wanted: Box<Wanted>,
        tell: Option<Box<Teller<'static>>>,
    ) -> Result<PartDiff, SnapshotError> {
        // If one side fails the other does not go on.
        let stop = self.stop.child_token();
        let mut tell = tell;
        blocking(move || {
            let [before, after] = sides.map(|mut side| {
                if let Some(source) = &mut side.source {
                    // Both together keep to what one may have.
                    source.room.memory /= 2;
                    source.stop = stop.clone();
                }
                side
            });
            run(&part, before, after, &stop, &*wanted, tell.as_deref_mut())
        })
        .await
    }
}

fn run(
    part: &PartId,
    before: Side,
    after: Side,
    stop: &CancellationToken,
    wanted: &Wanted,
    tell: Option<&mut Teller<'_>>,
) -> Result<PartDiff, SnapshotError> {
    let named = |time: ClusterTime| {
        move |why: SnapshotError| match why {
            SnapshotError::Stopped => SnapshotError::Stopped,
            why => SnapshotError::Side { part: part.clone(), time, why: Box::new(why) },
        }
    };
    let (from, to) = (named(before.time), named(after.time));
    let (before, after) = thread::scope(|scope| {
        let fold = |side: Side| {
            scope.spawn(move || {
                let state = side.source.map(|source| source.at(side.time)).transpose();
                if state.is_err() {
                    stop.cancel();
                }
                state
            })
        };
        let (before, after) = (fold(before), fold(after));
        both(joined(before).map_err(&from), joined(after).map_err(&to))
    })?;
    let nothing = Catalogue::default();
    let catalogue = |state: &Option<State>| state.as_ref().map_or(nothing.clone(), |state| state.catalogue().clone());
    let (was, is) = (catalogue(&before), catalogue(&after));
    // By their name at either time.
    let named = |catalogue: &Catalogue, uuid| catalogue.get(uuid).is_some_and(|one| wanted(&one.ns));
    let wanted = |uuid: Uuid, _: &Collection| named(&was, uuid) || named(&is, uuid);
    let ids = tell.is_some();
    let ((mut left, mine), (mut right, theirs)) = (connected(ids), connected(ids));
    let (merged, (one, other)) = thread::scope(|scope| {
        let pour = |state: Option<State>, mut courier: Courier| {
            scope.spawn(move || {
                if let Some(state) = state {
                    state.into(&mut courier, &wanted)?;
                }
                courier.finish()
            })
        };
        let (before, after) = (pour(before, mine), pour(after, theirs));
        let merged = merge(&mut left, &mut right, tell);
        drop((left, right));
        let read = both(joined(before).map_err(&from), joined(after).map_err(&to));
        // The merger has no more to say than why a side ended, unless nothing did.
        match (merged, read) {
            (Ok(merged), Ok(read)) => Ok((merged, read)),
            (Err(why), Ok(_) | Err(SnapshotError::Stopped)) | (_, Err(why)) => Err(why),
        }
    })?;
    let reading = Reading {
        chunks_read: one.chunks + other.chunks,
        bytes_read: one.bytes + other.bytes,
        bytes_skipped: merged.reading.bytes_skipped,
    };
    Ok(PartDiff { reading, ..merged })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Of two failures the one that is no consequence of the other.
fn both<T>(one: Result<T, SnapshotError>, other: Result<T, SnapshotError>) -> Result<(T, T), SnapshotError> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(SnapshotError::Stopped), Err(why)) | (Err(why), _) | (_, Err(why)) => Err(why),
    }
}

/// A document on its way to the merger.
#[derive(Debug)]
struct Document {
    key: Vec<u8>,
    digest: Digest,
    /// If it is to be told.
    id: Option<RawBson>,
}

enum Message {
    Documents(Vec<Document>),
    Head(Head),
}

/// What a side goes on with.
#[derive(Debug)]
enum Head {
    Begin(Uuid, Box<Collection>),
    Document(Document),
    /// Asks whether it may be left unread.
    Tree(ContentId, Digest),
    Chunk(Box<Entry>),
    /// Of the collection.
    End,
    /// Of all.
    Done,
}

impl Head {
    /// Whether nothing more of a collection comes: of one that this side does not have, from the beginning.
    fn is_past(&self) -> bool {
        matches!(self, Head::Begin(..) | Head::End | Head::Done)
    }
}

/// What one side had to read.
#[derive(Debug, Clone, Copy, Default)]
struct Read {
    chunks: u64,
    bytes: u64,
}

/// Hands a state to the merger.
struct Courier {
    to: SyncSender<Message>,
    answer: Receiver<bool>,
    ids: bool,
    batch: Vec<Document>,
    bytes: usize,
    read: Read,
}

impl Courier {
    fn send(&mut self, head: Head) -> Result<(), SnapshotError> {
        self.flush()?;
        self.to.send(Message::Head(head)).map_err(|_| SnapshotError::Stopped)
    }

    fn flush(&mut self) -> Result<(), SnapshotError> {
        self.bytes = 0;
        match std::mem::take(&mut self.batch) {
            batch if batch.is_empty() => Ok(()),
            batch => self.to.send(Message::Documents(batch)).map_err(|_| SnapshotError::Stopped),
        }
    }

    fn ask(&mut self, head: Head) -> Result<bool, SnapshotError> {
        self.send(head)?;
        self.answer.recv().map_err(|_| SnapshotError::Stopped)
    }

    fn finish(mut self) -> Result<Read, SnapshotError> {
        self.send(Head::Done)?;
        Ok(self.read)
    }
}

impl Sink for Courier {
    fn begin(
        &mut self,
        uuid: Uuid,
        collection: &Collection,
        _: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        self.send(Head::Begin(uuid, Box::new(collection.clone())))
    }

    fn tree(&mut self, root: &Root) -> Result<bool, SnapshotError> {
        let Entry { id, digest, .. } = root.reference.entry;
        self.ask(Head::Tree(id, digest))
    }

    fn chunk(&mut self, chunk: &Reference, _: Option<&[u8]>) -> Result<bool, SnapshotError> {
        self.ask(Head::Chunk(Box::new(chunk.entry.clone())))
    }

    fn read(&mut self, chunk: &Reference) {
        self.read.chunks += 1;
        self.read.bytes += chunk.entry.digest.bytes;
    }

    fn document(&mut self, key: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        let id = match self.ids {
            true => document.get("_id").ok().flatten().map(RawBson::from),
            false => None,
        };
        // An _id is about as long as its key.
        self.bytes += key.len() * (1 + usize::from(self.ids));
        self.batch.push(Document { key: key.to_vec(), digest: Digest::of(document.as_bytes()), id });
        if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        self.send(Head::End)
    }
}

/// A side as the merger sees it.
struct Stream {
    from: Receiver<Message>,
    answer: Sender<bool>,
    batch: vec::IntoIter<Document>,
    head: Option<Head>,
}

fn connected(ids: bool) -> (Stream, Courier) {
    let (to, from) = sync_channel(WAITING);
    let (answer, answered) = channel();
    let stream = Stream { from, answer, batch: Vec::new().into_iter(), head: None };
    (stream, Courier { to, answer: answered, ids, batch: Vec::new(), bytes: 0, read: Read::default() })
}

impl Stream {
    fn head(&mut self) -> Result<&Head, SnapshotError> {
        let head = match self.head.take() {
            Some(head) => head,
            None => self.next()?,
        };
        Ok(self.head.insert(head))
    }

    fn take(&mut self) -> Result<Head, SnapshotError> {
        match self.head.take() {
            Some(head) => Ok(head),
            None => self.next(),
        }
    }

    fn next(&mut self) -> Result<Head, SnapshotError> {
        loop {
            if let Some(document) = self.batch.next() {
                return Ok(Head::Document(document));
            }
            // A side that ends without a word has failed: it says why where it is joined.
            match self.from.recv().map_err(|_| SnapshotError::Stopped)? {
                Message::Documents(batch) => self.batch = batch.into_iter(),
                Message::Head(head) => return Ok(head),
            }
        }
    }

    /// Answers the question at the head.
    fn answer(&mut self, unread: bool) -> Result<(), SnapshotError> {
        self.head = None;
        self.answer.send(unread).map_err(|_| SnapshotError::Stopped)
    }

    /// Leaves the tree or chunk at the head unread, and gives its digest.
    fn skip(&mut self, reading: &mut Reading) -> Result<Digest, SnapshotError> {
        let digest = match self.head()? {
            Head::Tree(_, digest) => *digest,
            Head::Chunk(chunk) => chunk.digest,
            _ => return Ok(Digest::EMPTY),
        };
        reading.bytes_skipped += digest.bytes;
        self.answer(true)?;
        Ok(digest)
    }

    /// The digest of the rest of the collection.
    fn digest(&mut self, reading: &mut Reading) -> Result<Digest, SnapshotError> {
        let mut all = Digest::EMPTY;
        loop {
            match self.head()? {
                Head::Tree(..) | Head::Chunk(_) => all.combine(&self.skip(reading)?),
                Head::Document(document) => {
                    all.combine(&document.digest);
                    self.head = None;
                }
                head if head.is_past() => return Ok(all),
                _ => return Err(SnapshotError::Stopped),
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Before,
    After,
}

/// What is to be done with the two heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Trees or chunks of the same content.
    Same,
    /// It may hold what the other side has, too.
    Read(Which),
    ReadBoth,
    /// Trees or chunks of which the other side surely has nothing.
    Alone(Which),
    Document(Which),
    /// A document of both.
    Pair,
    End,
}

fn step(before: &Head, after: &Head) -> Step {
    use Which::{After, Before};
    match (before, after) {
        (before, after) if before.is_past() && after.is_past() => Step::End,
        (Head::Document(_), after) if after.is_past() => Step::Document(Before),
        (before, Head::Document(_)) if before.is_past() => Step::Document(After),
        (_, after) if after.is_past() => Step::Alone(Before),
        (before, _) if before.is_past() => Step::Alone(After),
        (Head::Tree(one, _), Head::Tree(other, _)) if one == other => Step::Same,
        (Head::Tree(..), Head::Tree(..)) => Step::ReadBoth,
        (Head::Tree(..), _) => Step::Read(Before),
        (_, Head::Tree(..)) => Step::Read(After),
        (Head::Chunk(one), Head::Chunk(other)) => match (one, other) {
            (one, other) if one.id == other.id => Step::Same,
            // What is left out of a bound is at its end.
            (one, other) if one.last.bytes() < other.first.bytes() => Step::Alone(Before),
            (one, other) if other.last.bytes() < one.first.bytes() => Step::Alone(After),
            (one, other) => match one.first.bytes().cmp(other.first.bytes()) {
                Ordering::Less => Step::Read(Before),
                Ordering::Greater => Step::Read(After),
                Ordering::Equal => Step::ReadBoth,
            },
        },
        (Head::Chunk(chunk), Head::Document(document)) => beside(chunk, Before, document, After),
        (Head::Document(document), Head::Chunk(chunk)) => beside(chunk, After, document, Before),
        (Head::Document(one), Head::Document(other)) => match one.key.cmp(&other.key) {
            Ordering::Less => Step::Document(Before),
            Ordering::Greater => Step::Document(After),
            Ordering::Equal => Step::Pair,
        },
        // Past a collection's end was looked for above.
        (Head::Begin(..) | Head::End | Head::Done, _) | (_, Head::Begin(..) | Head::End | Head::Done) => Step::End,
    }
}

/// A chunk of one side, and a document of the other.
fn beside(chunk: &Entry, its: Which, document: &Document, other: Which) -> Step {
    if document.key[..] < *chunk.first.bytes() {
        Step::Document(other)
    } else if chunk.last.whole().is_some_and(|last| last < &document.key[..]) {
        Step::Alone(its)
    } else {
        Step::Read(its)
    }
}

/// All collections of both sides.
fn merge(before: &mut Stream, after: &mut Stream, tell: Option<&mut Teller<'_>>) -> Result<PartDiff, SnapshotError> {
    let (mut diff, mut tell) = (PartDiff::default(), tell);
    loop {
        let uuid = |head: &Head| match head {
            Head::Begin(uuid, _) => Some(*uuid),
            _ => None,
        };
        let (was, is) = (uuid(before.head()?), uuid(after.head()?));
        let Some(uuid) = was.into_iter().chain(is).min() else { return Ok(diff) };
        let begin = |side: &mut Stream, at: Option<Uuid>| match at == Some(uuid) {
            true => side.take().map(|head| match head {
                Head::Begin(_, collection) => Some(collection),
                _ => None,
            }),
            false => Ok(None),
        };
        let (was, is) = (begin(before, was)?, begin(after, is)?);
        let mut of = Of { before, after, reading: &mut diff.reading, tell: tell.as_deref_mut() };
        let documents = of.documents(was.as_deref(), is.as_deref())?;
        for side in [was.is_some().then_some(&mut *before), is.is_some().then_some(&mut *after)] {
            side.map(Stream::take).transpose()?;
        }
        match compared(uuid, was.as_deref(), is.as_deref(), documents) {
            Some(different) => diff.different.push(different),
            None => diff.same += 1,
        }
    }
}

/// A collection whose documents are compared.
struct Of<'a, 'b> {
    before: &'a mut Stream,
    after: &'a mut Stream,
    reading: &'a mut Reading,
    tell: Option<&'a mut Teller<'b>>,
}

impl Of<'_, '_> {
    fn documents(&mut self, was: Option<&Collection>, is: Option<&Collection>) -> Result<Documents, SnapshotError> {
        if let (Some(was), Some(is)) = (was, is)
            && (was.is_in_insertion_order() || is.is_in_insertion_order())
        {
            let (before, after) = (self.before.digest(self.reading)?, self.after.digest(self.reading)?);
            let same = before == after;
            return Ok(Documents::Digested { before: before.documents, after: after.documents, same });
        }
        let ns = is.or(was).map_or("", |collection| &collection.ns);
        let mut counts = Counts::default();
        loop {
            match step(self.before.head()?, self.after.head()?) {
                Step::End => return Ok(Documents::Compared(counts)),
                Step::Same => {
                    counts.same += self.before.skip(self.reading)?.documents;
                    self.after.skip(self.reading)?;
                }
                // Whoever is told of each document has to know its _id.
                Step::Alone(which) if self.tell.is_some() => self.side(which).answer(false)?,
                Step::Alone(which) => {
                    let side = match which {
                        Which::Before => &mut *self.before,
                        Which::After => &mut *self.after,
                    };
                    let documents = side.skip(self.reading)?.documents;
                    *count(&mut counts, change(which)) += documents;
                }
                Step::Read(which) => self.side(which).answer(false)?,
                Step::ReadBoth => {
                    self.before.answer(false)?;
                    self.after.answer(false)?;
                }
                Step::Document(which) => {
                    if let Head::Document(document) = self.side(which).take()? {
                        *count(&mut counts, change(which)) += 1;
                        self.tell(change(which), ns, &document)?;
                    }
                }
                Step::Pair => {
                    if let (Head::Document(was), Head::Document(is)) = (self.before.take()?, self.after.take()?) {
                        match was.digest == is.digest {
                            true => counts.same += 1,
                            false => {
                                counts.changed += 1;
                                self.tell(Change::Changed, ns, &is)?;
                            }
                        }
                    }
                }
            }
        }
    }

    fn side(&mut self, which: Which) -> &mut Stream {
        match which {
            Which::Before => self.before,
            Which::After => self.after,
        }
    }

    fn tell(&mut self, change: Change, ns: &str, document: &Document) -> Result<(), SnapshotError> {
        let (Some(tell), Some(id)) = (&mut self.tell, &document.id) else { return Ok(()) };
        tell(change, ns, id).map_err(|why| SnapshotError::Output { path: "standard output".into(), why })
    }
}

/// What a document of one side only is.
fn change(which: Which) -> Change {
    match which {
        Which::Before => Change::Removed,
        Which::After => Change::Added,
    }
}

fn count(counts: &mut Counts, change: Change) -> &mut u64 {
    match change {
        Change::Added => &mut counts.added,
        Change::Removed => &mut counts.removed,
        Change::Changed => &mut counts.changed,
    }
}

/// None if nothing has changed.
fn compared(
    uuid: Uuid,
    was: Option<&Collection>,
    is: Option<&Collection>,
    documents: Documents,
) -> Option<CollectionDiff> {
    let (mut options, mut indexes) = (Vec::new(), Indexes::default());
    if let (Some(was), Some(is)) = (was, is) {
        let (added, removed, changed) = by_name(&was.options, &is.options);
        options = [added, removed, changed].concat();
        options.sort();
        let (added, removed, changed) = by_name::<Fields>(&was.indexes, &is.indexes);
        indexes = Indexes { added, removed, changed };
        if was.ns == is.ns && options.is_empty() && indexes.are_same() && documents.are_same() {
            return None;
        }
    }
    let name = |collection: Option<&Collection>| collection.map(|one| one.ns.clone());
    Some(CollectionDiff { uuid, before: name(was), after: name(is), documents, options, indexes })
}

/// The names of what came, went, and is another.
fn by_name<T: PartialEq>(
    was: &BTreeMap<String, T>,
    is: &BTreeMap<String, T>,
) -> (Vec<String>, Vec<String>, Vec<String>) {
    let without = |one: &BTreeMap<String, T>, other: &BTreeMap<String, T>| {
        one.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
    };
    let changed = was.iter().filter(|(name, value)| is.get(*name).is_some_and(|now| now != *value));
    (without(is, was), without(was, is), changed.map(|(name, _)| name.clone()).collect())
}
