//! One part of a real cluster: a snapshot of it, its stream, what the fold makes of them, and what the server
//! itself says of the same time.

use std::collections::BTreeMap;
use std::fmt;

use bson::raw::{RawDocument, RawDocumentBuf};
use bson::{Document, doc};
use mongodb::options::ReadConcern;
use stillpoint_core::ClusterTime;
use stillpoint_fold::catalogue::Fields;
use stillpoint_fold::gather::is_derived;
use stillpoint_fold::merge::{Since, Stored};
use stillpoint_fold::{Budget, Catalogue, Collection, FoldError, Gather, Key, Merge, Outcomes, Piece, Uuid};
use stillpoint_lab::ReplicaSet;
use stillpoint_mongo::PartLink;
use stillpoint_mongo::snapshot::{Order, ReadError, When};
use stillpoint_mongo::tail::Beginning;
use stillpoint_oplog::Entry;

/// So many documents are a piece: few, so that a snapshot has many times.
const PIECE: usize = 12;

/// A part's data as of a time.
#[derive(Debug, Clone, PartialEq)]
pub struct State(pub BTreeMap<String, CollectionState>);

#[derive(Debug, Clone, PartialEq)]
pub struct CollectionState {
    pub uuid: Uuid,
    pub options: Fields,
    pub indexes: BTreeMap<String, Fields>,
    /// In the order of their keys; a capped collection's in its own.
    pub documents: Vec<RawDocumentBuf>,
}

impl State {
    /// The capped collections that an entry after `cut` may have written to.
    pub fn written_since(&self, stream: &[Vec<u8>], cut: ClusterTime) -> Vec<String> {
        let later = stream.iter().filter(|bytes| Entry::read(bytes).unwrap().at.time > cut);
        let later: Vec<_> = later.collect();
        let is_written = |one: &CollectionState| later.iter().any(|entry| contains(entry, &one.uuid.0));
        let capped = |one: &CollectionState| one.options.contains_key("capped");
        self.0.iter().filter(|(_, one)| capped(one) && is_written(one)).map(|(ns, _)| ns.clone()).collect()
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// A snapshot that is being taken, piece by piece, while others write.
#[derive(Clone)]
pub struct Snapshot {
    pub beginning: Beginning,
    pub at: ClusterTime,
    pub catalogue: Catalogue,
    pieces: BTreeMap<Uuid, Vec<Piece>>,
    documents: BTreeMap<Uuid, Vec<Stored>>,
    /// Collections of which there is more to read.
    left: Vec<Uuid>,
    /// When the last piece was read.
    pub until: ClusterTime,
}

pub fn db_of(ns: &str) -> &str {
    ns.split_once('.').unwrap().0
}

async fn catalogue(link: &PartLink, at: ClusterTime) -> Result<Catalogue, ReadError> {
    let mut catalogue = Catalogue::default();
    for document in link.catalogue_at(at).await? {
        if document.get_str("type").unwrap() == "collection" && document.get_str("db").unwrap() != "local" {
            let (uuid, collection) = Collection::listed(&document).unwrap();
            catalogue.add(uuid, collection).unwrap();
        }
    }
    Ok(catalogue)
}

/// In which order a collection is read: an index with a collation has another order than the keys.
fn order(collection: &Collection) -> Order {
    let collated = collection.options.contains_key("collation");
    if collection.is_capped() || collated { Order::Natural } else { Order::ById { from: None } }
}

async fn read(
    link: &PartLink,
    uuid: Uuid,
    collection: &Collection,
    when: When,
    order: Order,
    limit: usize,
) -> Result<Vec<RawDocumentBuf>, ReadError> {
    let mut documents = link.documents(db_of(&collection.ns), uuid.0, when, order).await?;
    let mut all = Vec::new();
    while let Some(batch) = documents.next().await? {
        all.extend(batch.documents().map(|document| document.unwrap().to_owned()));
        if all.len() > limit {
            all.truncate(limit);
            break;
        }
    }
    Ok(all)
}

fn key(document: &RawDocument) -> Vec<u8> {
    Key::of_document(document).unwrap().as_bytes().to_vec()
}

impl Snapshot {
    pub async fn begin(link: &PartLink) -> Snapshot {
        let beginning = link.beginning(None).await.unwrap();
        let at = link.committed().await.unwrap().max(beginning.complete_from);
        let catalogue = catalogue(link, at).await.unwrap();
        let left = catalogue.iter().filter(|(_, one)| !is_derived(&one.ns)).map(|(uuid, _)| uuid).collect();
        Snapshot { beginning, at, catalogue, pieces: BTreeMap::new(), documents: BTreeMap::new(), left, until: at }
    }

    /// Reads one more piece, at a time of its own; says whether there is more.
    pub async fn read(&mut self, link: &PartLink) -> bool {
        let Some(uuid) = self.left.pop() else { return false };
        let collection = self.catalogue.get(uuid).unwrap();
        let at = link.committed().await.unwrap();
        let pieces = self.pieces.entry(uuid).or_default();
        let documents = self.documents.entry(uuid).or_default();
        let whole = order(collection) == Order::Natural;
        let read = if collection.is_capped() {
            read(link, uuid, collection, When::NotBefore(at), Order::Natural, usize::MAX).await
        } else if whole {
            read(link, uuid, collection, When::At(at), Order::Natural, usize::MAX).await
        } else {
            let from = documents.last().map(|last| last.document.get("_id").unwrap().unwrap().into());
            // The first of them is the last of the piece before, or what is there now instead.
            read(link, uuid, collection, When::At(at), Order::ById { from }, PIECE).await
        };
        let read = match read {
            Ok(read) => read,
            // It was dropped since the catalogue was read, and its drop is in the stream.
            Err(ReadError::Gone { .. }) => {
                self.pieces.remove(&uuid);
                self.documents.remove(&uuid);
                return true;
            }
            // A majority has not come to its last change yet.
            Err(ReadError::Unavailable { .. }) => {
                self.left.push(uuid);
                return true;
            }
            Err(e) => panic!("{e}"),
        };
        let settled = if collection.is_capped() { link.committed().await.unwrap() } else { at };
        self.until = self.until.max(settled);
        let last = documents.last().map(|last| key(&last.document));
        let more = !whole && read.len() == PIECE;
        let new: Vec<_> = read.into_iter().filter(|one| last.as_ref().is_none_or(|last| key(one) > *last)).collect();
        let begin = documents.len() as u64;
        documents.extend(new.into_iter().zip(begin..).map(|(document, place)| Stored { document, place }));
        documents.sort_by_cached_key(|one| key(&one.document));
        let until = more.then(|| {
            let mut end = key(&documents.last().unwrap().document);
            end.push(0);
            end
        });
        pieces.push(Piece { until, at, settled });
        if more {
            self.left.push(uuid);
        }
        true
    }

    /// Claims of all its pieces that they were read at a time.
    pub fn read_at(&mut self, at: ClusterTime) {
        for piece in self.pieces.values_mut().flatten() {
            (piece.at, piece.settled) = (at, at);
        }
    }

    /// What the fold makes of this and the stream.
    pub fn fold(&self, entries: &[Vec<u8>], until: ClusterTime) -> Result<State, FoldError> {
        let entries = || entries.iter().map(|bytes| Entry::read(bytes).unwrap());
        // So little that most is spilled.
        let budget = Budget { memory: 4 << 10, folder: std::env::temp_dir() };
        let few = Budget { memory: 200, ..budget.clone() };
        let mut outcomes = Outcomes::new(until, vec![], self.beginning.complete_from, few)?;
        for entry in entries() {
            outcomes.see(&entry)?;
            if outcomes.is_complete() {
                break;
            }
        }
        let committed = outcomes.end()?;
        let (catalogue, complete_from) = (self.catalogue.clone(), self.beginning.complete_from);
        let mut gather = Gather::new(catalogue, self.at, committed, vec![], complete_from, budget)?;
        for entry in entries() {
            gather.see(&entry)?;
        }
        let mut gathered = gather.end()?;
        let mut state = State(BTreeMap::new());
        for (uuid, collection) in gathered.catalogue.iter().filter(|(_, one)| !is_derived(&one.ns)) {
            let base = self.documents.get(&uuid).cloned().unwrap_or_default();
            let created = [Piece::whole(self.at)];
            let pieces = self.pieces.get(&uuid).map_or(&created[..], |pieces| &pieces[..]);
            let emptied = gathered.emptied.get(&uuid).copied();
            let base = base.into_iter().map(Ok::<_, FoldError>);
            let mut kept =
                Merge::new(uuid, base, &mut gathered.changes, pieces, emptied)?.collect::<Result<Vec<_>, _>>()?;
            if collection.is_in_insertion_order() {
                kept.sort_by_key(|one| one.since);
            }
            assert!(kept.iter().all(|one| matches!(one.since, Since::Stored(_)) || one.key == key(&one.document)));
            state.0.insert(
                collection.ns.clone(),
                CollectionState {
                    uuid,
                    options: collection.options.clone(),
                    indexes: collection.indexes.clone(),
                    documents: kept.into_iter().map(|one| one.document).collect(),
                },
            );
        }
        Ok(state)
    }
}

/// What the server says that was there at a time.
pub async fn live(link: &PartLink, at: ClusterTime) -> State {
    let mut state = State(BTreeMap::new());
    for (uuid, collection) in catalogue(link, at).await.unwrap().iter().filter(|(_, one)| !is_derived(&one.ns)) {
        let capped = collection.is_capped();
        // See `written_since`.
        let when = if capped { When::NotBefore(at) } else { When::At(at) };
        let mut documents = read(link, uuid, collection, when, order(collection), usize::MAX).await.unwrap();
        if !collection.is_in_insertion_order() {
            documents.sort_by_cached_key(|one| key(one));
        }
        let Collection { ns, options, indexes } = collection.clone();
        state.0.insert(ns, CollectionState { uuid, options, indexes, documents });
    }
    state
}

/// The oplog from a time on, as a majority has it.
pub async fn entries(set: &ReplicaSet, from: ClusterTime) -> Vec<Vec<u8>> {
    let oplog = set.client().database("local").collection::<RawDocumentBuf>("oplog.rs");
    let from = bson::Timestamp { time: from.seconds, increment: from.increment };
    let find = oplog.find(doc! {"ts": {"$gte": from}}).sort(doc! {"$natural": 1});
    let mut cursor = find.read_concern(ReadConcern::majority()).await.unwrap();
    let mut all = Vec::new();
    while cursor.advance().await.unwrap() {
        all.push(cursor.current().as_bytes().to_vec());
    }
    all
}

/// Where two states differ, for a person.
pub struct Difference<'a>(pub &'a State, pub &'a State);

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference(State(folded), State(live)) = self;
        for ns in folded.keys().filter(|ns| !live.contains_key(*ns)) {
            writeln!(f, "{ns}: folded, and not live")?;
        }
        for (ns, live) in live {
            let Some(folded) = folded.get(ns) else {
                writeln!(f, "{ns}: live, and not folded")?;
                continue;
            };
            if (folded.uuid, &folded.options, &folded.indexes) != (live.uuid, &live.options, &live.indexes) {
                writeln!(f, "{ns}: folded {} {:?} {:?}", folded.uuid, folded.options, folded.indexes)?;
                writeln!(f, "{ns}: live   {} {:?} {:?}", live.uuid, live.options, live.indexes)?;
            }
            let text = |one: &RawDocumentBuf| Document::try_from(one).map(|one| one.to_string()).unwrap_or_default();
            if folded.documents != live.documents {
                let folded: Vec<_> = folded.documents.iter().map(text).collect();
                let live: Vec<_> = live.documents.iter().map(text).collect();
                writeln!(f, "{ns}: folded\n{folded:#?}\nlive\n{live:#?}")?;
            }
        }
        Ok(())
    }
}
