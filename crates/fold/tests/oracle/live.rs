//! What a real cluster had at a time, as its servers themselves say.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bson::raw::{RawDocument, RawDocumentBuf};
use bson::{Document, doc};
use mongodb::options::ReadConcern;
use stillpoint_core::ClusterTime;
use stillpoint_fold::catalogue::Fields;
use stillpoint_fold::gather::is_derived;
use stillpoint_fold::{Catalogue, Collection, Key, Uuid};
use stillpoint_lab::wait::until;
use stillpoint_lab::wire::{code, operation_time};
use stillpoint_lab::{Lab, ReplicaSet};
use stillpoint_mongo::PartLink;
use stillpoint_mongo::snapshot::{Order, ReadError, When};
use stillpoint_oplog::Entry;

/// Of a note: a server does not wait for its lock for longer than a millisecond.
const LOCK_FAILED: i32 = 107;
const LIMIT: Duration = Duration::from_secs(30);

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

/// One time for all parts, which each of them has come to, as a checkpoint's tokens make one.
pub async fn cut(lab: &Lab) -> ClusterTime {
    let topology = lab.topology();
    let gossip = topology.gossip().await.unwrap();
    let mut lowest = ClusterTime::MAX;
    for part in topology.parts() {
        let write = || async {
            let mut connection = part.connect_primary().await.unwrap().gossiping(gossip.clone());
            let note = doc! {"appendOplogNote": 1, "data": {"cut": 1}, "writeConcern": {"w": "majority"}};
            match connection.run("admin", note).await {
                Err(e) if code(&e) == Some(LOCK_FAILED) => None,
                written => Some(operation_time(&written.unwrap()).unwrap()),
            }
        };
        let time = until(LIMIT, write).await.unwrap_or_else(|| panic!("{} writes no note", part.name));
        lowest = lowest.min(ClusterTime::new(time.time, time.increment));
    }
    lowest
}

fn db_of(ns: &str) -> &str {
    ns.split_once('.').unwrap().0
}

pub async fn catalogue(link: &PartLink, at: ClusterTime) -> Result<Catalogue, ReadError> {
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
pub fn order(collection: &Collection) -> Order {
    let collated = collection.options.contains_key("collation");
    if collection.is_capped() || collated { Order::Natural } else { Order::ById { from: None } }
}

pub async fn read(
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

pub fn key(document: &RawDocument) -> Vec<u8> {
    Key::of_document(document).unwrap().as_bytes().to_vec()
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

/// Where what was found differs from what was to be found, for a person.
pub struct Difference<'a>(pub &'a State, pub &'a State);

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference(State(found), State(live)) = self;
        for ns in found.keys().filter(|ns| !live.contains_key(*ns)) {
            writeln!(f, "{ns}: found, and not live")?;
        }
        for (ns, live) in live {
            let Some(found) = found.get(ns) else {
                writeln!(f, "{ns}: live, and not found")?;
                continue;
            };
            if (found.uuid, &found.options, &found.indexes) != (live.uuid, &live.options, &live.indexes) {
                writeln!(f, "{ns}: found {} {:?} {:?}", found.uuid, found.options, found.indexes)?;
                writeln!(f, "{ns}: live  {} {:?} {:?}", live.uuid, live.options, live.indexes)?;
            }
            let text = |one: &RawDocumentBuf| Document::try_from(one).map(|one| one.to_string()).unwrap_or_default();
            if found.documents != live.documents {
                let found: Vec<_> = found.documents.iter().map(text).collect();
                let live: Vec<_> = live.documents.iter().map(text).collect();
                writeln!(f, "{ns}: found\n{found:#?}\nlive\n{live:#?}")?;
            }
        }
        Ok(())
    }
}
