//! Collections, documents and indexes, written to the primary of a part.
//!
//! A write counts when a majority has it: what an election undoes was never said to be done.

use std::future::IntoFuture;
use std::time::Duration;

use bson::raw::{CString, RawArrayBuf, RawDocument, RawDocumentBuf, cstr};
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc, rawdoc};
use tokio::time::timeout;

use crate::error::{MongoError, Result};
use crate::part::PartLink;
use crate::privileges::{
    BUILD_INDEXES, CREATE_COLLECTIONS, CREATE_VIEWS, INSERT_DATA, MODIFY_COLLECTIONS, Need, UPDATE_DATA,
};

const DUPLICATE_KEY: i32 = 11_000;
const WRITE_LIMIT_MS: i32 = 60_000;
/// For the reply to one write; a majority that does not confirm it says so before.
pub(super) const WRITE_LIMIT: Duration = Duration::from_secs(90);
/// For the indexes of one collection.
const INDEX_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// A write concern of the majority.
fn majority() -> RawDocumentBuf {
    rawdoc! {"w": "majority", "wtimeout": WRITE_LIMIT_MS}
}

impl PartLink {
    /// Makes a collection as an oplog entry would: `definition` is that of the entry, with the options and the
    /// index of `_id`, but without its name.
    pub async fn create(&self, db: &str, name: &str, uuid: [u8; 16], definition: &RawDocument) -> Result<()> {
        let mut create = rawdoc! {"create": name};
        for field in definition {
            let (name, value) = field.map_err(|e| self.not_understood(&CREATE_COLLECTIONS, e.to_string()))?;
            create.append(name, value);
        }
        let entry = rawdoc! {"op": "c", "ns": format!("{db}.$cmd"), "ui": binary(uuid), "o": create};
        self.apply(db, &CREATE_COLLECTIONS, entry).await
    }

    /// Inserts a document into `system.views`, which takes no other writes. One that is there is replaced.
    pub async fn insert_view(&self, db: &str, uuid: [u8; 16], view: &RawDocument) -> Result<()> {
        let mut entry = rawdoc! {"op": "i", "ns": format!("{db}.system.views"), "ui": binary(uuid)};
        entry.append(cstr!("o"), view);
        self.apply(db, &CREATE_VIEWS, entry).await
    }

    /// Inserts a document to the byte: an insert puts the time in the place of a timestamp of zero, an oplog entry
    /// too, and an update by a pipeline does not. One that is there is replaced.
    pub async fn insert_exactly(&self, db: &str, collection: &str, document: &RawDocument) -> Result<()> {
        let wrong = |why: String| self.not_understood(&UPDATE_DATA, why);
        let id = document.get("_id").map_err(|e| wrong(e.to_string()))?.ok_or_else(|| wrong("no _id".into()))?;
        let mut query = RawDocumentBuf::new();
        query.append(cstr!("$eq"), id);
        let mut literal = RawDocumentBuf::new();
        literal.append(cstr!("$literal"), document);
        let command = rawdoc! {
            "update": collection,
            "updates": [{"q": {"_id": query}, "u": [{"$replaceWith": literal}], "upsert": true}],
            "bypassDocumentValidation": true,
            "writeConcern": majority(),
        };
        let reply = self.write(db, &UPDATE_DATA, command, WRITE_LIMIT).await?;
        self.none_refused(db, collection, &UPDATE_DATA, &reply)
    }

    async fn apply(&self, db: &str, need: &Need, entry: RawDocumentBuf) -> Result<()> {
        let mut entries = RawArrayBuf::new();
        entries.push(entry);
        self.write(db, need, rawdoc! {"applyOps": entries, "writeConcern": majority()}, WRITE_LIMIT).await.map(drop)
    }

    /// Inserts documents in their order, whatever a validator says of them. Those whose `_id` is there count as
    /// written.
    pub async fn insert(&self, db: &str, collection: &str, documents: &RawArrayBuf) -> Result<()> {
        self.insert_all(db, collection, documents, &INSERT_DATA, true).await
    }

    /// The same, with or without what a validator says.
    pub(super) async fn insert_all(
        &self,
        db: &str,
        collection: &str,
        documents: &RawArrayBuf,
        need: &Need,
        bypass: bool,
    ) -> Result<()> {
        let mut command = rawdoc! {
            "insert": collection,
            "ordered": false,
            "bypassDocumentValidation": bypass,
            "writeConcern": majority(),
        };
        command.append(cstr!("documents"), documents);
        let reply = self.write(db, need, command, WRITE_LIMIT).await?;
        self.none_refused(db, collection, need, &reply)
    }

    fn none_refused(&self, db: &str, collection: &str, need: &Need, reply: &Document) -> Result<()> {
        match refused(reply) {
            None => Ok(()),
            Some(why) => Err(self.failed(need, format!("a document of {db}.{collection}: {why}"))),
        }
    }

    /// Builds indexes by their specifications.
    pub async fn build_indexes(&self, db: &str, collection: &str, specs: &RawArrayBuf) -> Result<()> {
        let mut command = rawdoc! {"createIndexes": collection, "writeConcern": majority()};
        command.append(cstr!("indexes"), specs);
        self.write(db, &BUILD_INDEXES, command, INDEX_LIMIT).await.map(drop)
    }

    /// Sets options of a collection, by the names that `collMod` has for them.
    pub async fn modify(&self, db: &str, collection: &str, options: &[(&str, &bson::RawBson)]) -> Result<()> {
        let mut command = rawdoc! {"collMod": collection};
        for (name, value) in options {
            let name = CString::try_from(*name).map_err(|e| self.not_understood(&MODIFY_COLLECTIONS, e.to_string()))?;
            command.append(name, (*value).clone());
        }
        command.append(cstr!("writeConcern"), majority());
        self.write(db, &MODIFY_COLLECTIONS, command, WRITE_LIMIT).await.map(drop)
    }

    /// What may be otherwise at the next try: right after an election a shard refuses what it has to ask the
    /// config servers about first, document by document.
    fn failed(&self, need: &Need, why: String) -> MongoError {
        MongoError::Command { part: self.id.to_string(), what: need.what, why }
    }

    async fn write(&self, db: &str, need: &Need, command: RawDocumentBuf, limit: Duration) -> Result<Document> {
        let database = self.client.database(db);
        let reply = database.run_raw_command(command);
        let Ok(reply) = timeout(limit, reply.into_future()).await else {
            return Err(MongoError::TooSlow { part: self.id.to_string(), what: need.what });
        };
        let reply = reply.map_err(|e| MongoError::from_driver(&self.id, need, &e))?;
        match reply.get_document("writeConcernError") {
            Ok(error) => {
                let why = error.get_str("errmsg").unwrap_or("no message").to_owned();
                Err(self.failed(need, why))
            }
            Err(_) => Ok(reply),
        }
    }
}

/// Why a document was not inserted, unless it is there already.
fn refused(reply: &Document) -> Option<String> {
    let is_there = |error: &&Document| {
        error.get_i32("code").is_ok_and(|code| code == DUPLICATE_KEY)
            && error.get_document("keyPattern").is_ok_and(|key| *key == doc! {"_id": 1})
    };
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let error = errors.iter().filter_map(Bson::as_document).find(|error| !is_there(error))?;
    Some(error.get_str("errmsg").unwrap_or("no message").to_owned())
}

fn binary(uuid: [u8; 16]) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: uuid.to_vec() }
}
