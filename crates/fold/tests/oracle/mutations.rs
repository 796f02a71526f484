//! What the fold would be with a rule broken or an operation not handled, done to what it is given: the
//! oracle must see each of them.

use bson::raw::{RawBsonRef, RawDocument};
use bson::{Bson, Document};
use stillpoint_core::ClusterTime;
use stillpoint_oplog::entry::What;
use stillpoint_oplog::{Entry, Kind};

use crate::part::Snapshot;

/// What is folded instead.
type Mutate = fn(&mut Snapshot, &mut Vec<Vec<u8>>, ClusterTime);

const RULES: &[(&str, Mutate)] = &[
    // As if all of the snapshot were as of its beginning: what a piece has is applied to it again.
    ("pieces at the catalogue's time", |snapshot, _, _| snapshot.read_at(snapshot.at)),
    // As if all of it were as of its end: what came between is lost.
    ("pieces at the snapshot's end", |snapshot, _, _| snapshot.read_at(snapshot.until)),
    // A transaction that is prepared by T and committed after it is left out.
    ("no look-ahead", |_, entries, cut| {
        let later: Vec<_> = entries.iter().filter_map(|bytes| ends(bytes).filter(|end| end.0 > cut)).collect();
        entries.retain(|bytes| {
            let entry = Entry::read(bytes).unwrap();
            let is_of = |session| later.iter().any(|(_, later)| *later == session);
            !entry.session.map(|session| (session.id.to_vec(), session.number)).is_some_and(is_of)
        });
    }),
    // It counts, as of when it was prepared, whether it is committed by T or not.
    ("commit time", |_, entries, cut| {
        entries.retain(|bytes| ends(bytes).is_none_or(|end| end.0 <= cut));
        for bytes in entries.iter_mut() {
            unprepare(bytes);
        }
    }),
];

/// Commands, and operations in transactions, of which none is handled.
const OPERATIONS: &[&str] = &[
    "i",
    "u",
    "d",
    "applyOps",
    "create",
    "drop",
    "renameCollection",
    "createIndexes",
    "commitIndexBuild",
    "dropIndexes",
    "collMod",
    "emptycapped",
];

type Mutation = Box<dyn Fn(&mut Snapshot, &mut Vec<Vec<u8>>, ClusterTime)>;

/// All of them by name.
pub fn all() -> Vec<(&'static str, Mutation)> {
    let rules = RULES.iter().map(|(name, mutate)| (*name, Box::new(*mutate) as Mutation));
    let operations = OPERATIONS.iter().map(|name| {
        let without = move |_: &mut Snapshot, entries: &mut Vec<Vec<u8>>, _| entries.retain(|bytes| !does(bytes, name));
        (*name, Box::new(without) as Mutation)
    });
    rules.chain(operations).collect()
}

/// When the entry ends a prepared transaction, and whose.
fn ends(bytes: &[u8]) -> Option<(ClusterTime, (Vec<u8>, i64))> {
    let entry = Entry::read(bytes).unwrap();
    match (entry.kind, entry.session) {
        (Kind::Step(step), Some(session)) if matches!(step.what, What::Commit(_)) => {
            Some((entry.at.time, (session.id.to_vec(), session.number)))
        }
        _ => None,
    }
}

/// Makes a prepare an ordinary commit.
fn unprepare(bytes: &mut Vec<u8>) {
    let entry = Entry::read(bytes).unwrap();
    if let Kind::Step(step) = entry.kind {
        match step.what {
            What::Prepare => {
                let mut entry = Document::try_from(RawDocument::from_bytes(bytes).unwrap()).unwrap();
                entry.get_document_mut("o").unwrap().remove("prepare");
                *bytes = entry.to_vec().unwrap();
            }
            What::Commit(_) => {
                let mut entry = Document::try_from(RawDocument::from_bytes(bytes).unwrap()).unwrap();
                entry.insert("op", "n");
                entry.remove("lsid");
                entry.remove("txnNumber");
                entry.insert("o", Bson::Document(Document::new()));
                *bytes = entry.to_vec().unwrap();
            }
            _ => {}
        }
    }
}

/// Whether an entry is an operation of this name, or its command.
fn does(bytes: &[u8], name: &str) -> bool {
    let entry = RawDocument::from_bytes(bytes).unwrap();
    let command = entry.get_document("o").unwrap().iter().next();
    match entry.get("op").unwrap().unwrap() {
        RawBsonRef::String("c") => command.is_some_and(|command| command.unwrap().0.as_str() == name),
        op => op == RawBsonRef::String(name),
    }
}
