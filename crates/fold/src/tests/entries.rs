//! Entries as a server writes them, for the tests.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, Timestamp, doc};
use stillpoint_core::{ClusterTime, OpTime};

use crate::operation::Uuid;

/// The database and collection that the writes here are of, unless a test says otherwise.
pub const NS: &str = "db.c";
/// Its UUID.
pub const C: Uuid = Uuid([7; 16]);

pub fn time(increment: u32) -> ClusterTime {
    ClusterTime::new(100, increment)
}

pub fn at(increment: u32) -> OpTime {
    OpTime::new(time(increment), 1)
}

pub fn stamp(time: ClusterTime) -> Bson {
    Bson::Timestamp(Timestamp { time: time.seconds, increment: time.increment })
}

pub fn ui(uuid: Uuid) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: uuid.0.to_vec() })
}

pub fn insert(document: Document) -> Document {
    doc! {"op": "i", "ns": NS, "ui": ui(C), "o": document}
}

pub fn update(id: impl Into<Bson>, update: Document) -> Document {
    doc! {"op": "u", "ns": NS, "ui": ui(C), "o": update, "o2": {"_id": id}}
}

/// An update that sets `a`.
pub fn set(id: impl Into<Bson>, a: i32) -> Document {
    update(id, doc! {"$v": 2, "diff": {"u": {"a": a}}})
}

pub fn delete(id: impl Into<Bson>) -> Document {
    doc! {"op": "d", "ns": NS, "ui": ui(C), "o": {"_id": id}}
}

/// Of the collection with this UUID, in the database `db`.
pub fn command(uuid: Uuid, o: Document) -> Document {
    doc! {"op": "c", "ns": "db.$cmd", "ui": ui(uuid), "o": o}
}

pub fn create(uuid: Uuid, name: &str) -> Document {
    command(uuid, doc! {"create": name, "idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"}})
}

/// By an operator.
pub fn apply_ops(operations: Vec<Document>) -> Document {
    doc! {"op": "c", "ns": "admin.$cmd", "o": {"applyOps": operations}}
}

pub fn entry(at: OpTime, operation: Document) -> Vec<u8> {
    let mut entry = operation;
    entry.extend(doc! {"ts": stamp(at.time), "t": at.term, "v": 2_i64, "wall": bson::DateTime::from_millis(0)});
    entry.to_vec().unwrap()
}

/// A step of a session's transaction, whose last entry was `previous`.
fn step(at: OpTime, session: i32, previous: Option<OpTime>, o: Document) -> Vec<u8> {
    let previous = previous.unwrap_or(OpTime::new(ClusterTime::ZERO, -1));
    let step = doc! {
        "lsid": {"id": session}, "txnNumber": 1_i64, "op": "c", "ns": "admin.$cmd", "o": o,
        "prevOpTime": {"ts": stamp(previous.time), "t": previous.term},
    };
    entry(at, step)
}

pub fn part(at: OpTime, session: i32, previous: Option<OpTime>, operations: Vec<Document>) -> Vec<u8> {
    step(at, session, previous, doc! {"applyOps": operations, "partialTxn": true})
}

pub fn prepare(at: OpTime, session: i32, previous: Option<OpTime>, operations: Vec<Document>) -> Vec<u8> {
    step(at, session, previous, doc! {"applyOps": operations, "prepare": true})
}

/// Its last operations, and with them its commit.
pub fn whole(at: OpTime, session: i32, previous: Option<OpTime>, operations: Vec<Document>) -> Vec<u8> {
    step(at, session, previous, doc! {"applyOps": operations})
}

pub fn commit(at: OpTime, session: i32, previous: OpTime, commit: ClusterTime) -> Vec<u8> {
    step(at, session, Some(previous), doc! {"commitTransaction": 1, "commitTimestamp": stamp(commit)})
}

pub fn abort(at: OpTime, session: i32, previous: OpTime) -> Vec<u8> {
    step(at, session, Some(previous), doc! {"abortTransaction": 1})
}
