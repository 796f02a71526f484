//! A real server, and what it makes of updates.

use std::collections::BTreeMap;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, Timestamp, doc};
use futures::TryStreamExt;
use mongodb::{Client, Collection};
use stillpoint_fold::key::Key;
use stillpoint_fold::update::apply;
use stillpoint_lab::{Lab, ReplicaSet};

pub const NS: &str = "test.c";
/// Operations of one command.
const BATCH: usize = 500;

pub struct Server {
    set: ReplicaSet,
}

impl Server {
    pub async fn start() -> Self {
        let set = Lab::plain_replica_set().await.unwrap();
        let server = Self { set };
        server.run("test", doc! {"create": "c"}).await.unwrap();
        server
    }

    pub fn client(&self) -> &Client {
        self.set.client()
    }

    pub async fn run(&self, db: &str, command: Document) -> Result<Document, mongodb::error::Error> {
        self.client().database(db).run_command(command).await
    }

    pub fn collection(&self) -> Collection<RawDocumentBuf> {
        self.client().database("test").collection("c")
    }

    pub async fn insert(&self, documents: &[Document]) {
        for batch in documents.chunks(BATCH) {
            let batch: Vec<_> = batch.iter().map(raw).collect();
            self.collection().insert_many(batch).await.unwrap();
        }
    }

    /// All documents, their bytes as they are, in the order of `_id`.
    pub async fn documents(&self) -> Vec<RawDocumentBuf> {
        let found = self.collection().find(doc! {}).sort(doc! {"_id": 1}).await.unwrap();
        found.try_collect().await.unwrap()
    }

    pub async fn apply_ops(&self, operations: Vec<Document>) {
        for batch in operations.chunks(BATCH) {
            self.run("admin", doc! {"applyOps": batch.to_vec()}).await.unwrap();
        }
    }

    /// Runs updates and says which the server did not take.
    pub async fn updates(&self, updates: &[Document]) -> Vec<Document> {
        let mut refused = Vec::new();
        for batch in updates.chunks(BATCH) {
            let command = doc! {"update": "c", "updates": batch.to_vec(), "ordered": false};
            let reply = self.run("test", command).await.unwrap();
            let errors = reply.get_array("writeErrors").into_iter().flatten();
            refused.extend(errors.filter_map(Bson::as_document).cloned());
        }
        refused
    }

    /// The entries of the oplog about the collection, after a time.
    pub async fn entries(&self, after: Timestamp) -> Vec<Document> {
        let oplog = self.client().database("local").collection::<Document>("oplog.rs");
        let filter = doc! {"ns": NS, "ts": {"$gt": after}};
        oplog.find(filter).sort(doc! {"$natural": 1}).await.unwrap().try_collect().await.unwrap()
    }

    pub async fn now(&self) -> Timestamp {
        let reply = self.run("admin", doc! {"appendOplogNote": 1, "data": {}}).await.unwrap();
        reply.get_timestamp("operationTime").unwrap()
    }
}

pub fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

/// What these entries make of the documents, in the order of `_id`.
pub fn folded(pre: &[Document], entries: &[Document]) -> Vec<RawDocumentBuf> {
    let key = |document: &Document| Key::of_document(&raw(document)).unwrap();
    let mut documents: BTreeMap<Key, RawDocumentBuf> = pre.iter().map(|pre| (key(pre), raw(pre))).collect();
    for entry in entries {
        let o = entry.get_document("o").unwrap();
        match entry.get_str("op").unwrap() {
            "i" => assert_eq!(documents.insert(key(o), raw(o)), None, "{entry}"),
            "u" => {
                let document = documents.get_mut(&key(entry.get_document("o2").unwrap())).unwrap();
                *document = apply(document, &raw(o)).unwrap_or_else(|error| panic!("{error}: {document:?} {entry}"));
            }
            other => panic!("{other}: {entry}"),
        }
    }
    documents.into_values().collect()
}

#[track_caller]
pub fn same(folded: &[RawDocumentBuf], found: &[RawDocumentBuf]) {
    assert_eq!(folded.len(), found.len());
    for (folded, found) in folded.iter().zip(found) {
        assert_eq!(folded, found, "\n{folded:?}\n{found:?}");
    }
}
