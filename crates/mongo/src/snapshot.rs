//! A part's collections as of a cluster time: raw, in batches, with snapshot read concern.
//!
//! The server keeps the past for `minSnapshotHistoryWindowInSeconds`, 300 by default. A collection is read by
//! its UUID, so that a rename does not matter; one that was made, renamed or changed after the time that is
//! asked for cannot be read as of it, on MongoDB 6.0 and before.

use std::time::Duration;

use bson::raw::cstr;
use bson::raw::{RawDocument, RawDocumentBuf};
use bson::spec::BinarySubtype;
use bson::{Binary, RawBson, doc, rawdoc};
use futures::StreamExt;
use mongodb::error::{Error, ErrorKind};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use stillpoint_core::ClusterTime;
use tokio::time::timeout;

use crate::error::{MongoError, Result};
use crate::part::{PartLink, timestamp};
use crate::privileges::READ_DATA;
use crate::tail::{documents, secondaries_first};

/// `SnapshotTooOld` and `SnapshotUnavailable`.
const TOO_OLD: i32 = 239;
const UNAVAILABLE: i32 = 246;
const NAMESPACE_NOT_FOUND: i32 = 26;
const CATALOGUE_LIMIT_MS: i32 = 60_000;
/// For one batch. A limit of the server's own would count all batches of a cursor together.
const BATCH_LIMIT: Duration = Duration::from_secs(60);

/// What the server has in a first batch that nothing is said of.
const FIRST: usize = 101;
/// What batches are to hold, in bytes. The server's own limit is 16 MiB: memory that would be given back to the system
/// after each. Where the round trip takes 20 ms, these are 100 MB a second.
const BATCH: usize = 2 << 20;
/// In documents: should those that come be shorter than those that were measured.
const FEWEST: usize = 500;

/// In which order documents are read.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// That of the `_id` index, from this `_id` on, itself included, or from the beginning.
    ById { from: Option<RawBson> },
    /// That in which the collection has them: of a capped collection, or where the index of `_id` has a collation.
    Natural,
}

/// As of when documents are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    At(ClusterTime),
    /// As a majority has them at some time that is not before this one: capped collections cannot be read as of
    /// a time.
    NotBefore(ClusterTime),
}

/// Why documents cannot be read as of a time.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Another, later time may do.
    #[error("{part} cannot read {what} as of {at}: {why}")]
    Unavailable { part: String, what: String, at: ClusterTime, why: String },
    #[error("{part} has no such collection any more: {what}")]
    Gone { part: String, what: String },
    #[error(transparent)]
    Mongo(#[from] MongoError),
}

/// The documents of a collection, being read.
pub struct Documents {
    part: PartLink,
    what: String,
    at: Option<ClusterTime>,
    /// What was read to see how long they are.
    first: Option<Batch>,
    cursor: Box<RawBatchCursor>,
}

/// Some documents, in order.
pub struct Batch(RawBatch);

impl Batch {
    pub fn documents(&self) -> impl Iterator<Item = std::result::Result<&RawDocument, String>> {
        documents(&self.0)
    }

    /// How many documents like these a batch is to hold, if more may come.
    fn fitting(&self) -> Option<u32> {
        let (mut number, mut bytes) = (0, 0);
        for document in self.documents() {
            number += 1;
            bytes += document.ok()?.as_bytes().len();
        }
        let fitting = (BATCH * number).checked_div(bytes)?.max(FEWEST);
        (number >= FIRST).then(|| u32::try_from(fitting).ok()).flatten()
    }
}

impl PartLink {
    /// Every collection and view of the part as of `at`, each as `$listCatalog` has it.
    pub async fn catalogue_at(&self, at: ClusterTime) -> std::result::Result<Vec<RawDocumentBuf>, ReadError> {
        let command = rawdoc! {
            "aggregate": 1,
            "pipeline": [{"$listCatalog": {}}],
            "cursor": {},
            "readConcern": {"level": "snapshot", "atClusterTime": timestamp(at)},
            "maxTimeMS": CATALOGUE_LIMIT_MS,
        };
        let what = "the catalogue".to_owned();
        let mut documents = self.open("admin", command, what, Some(at), None).await?;
        let mut all = Vec::new();
        while let Some(batch) = documents.next().await? {
            for document in batch.documents() {
                let document = document.map_err(|why| self.not_understood(&READ_DATA, why))?;
                all.push(document.to_owned());
            }
        }
        Ok(all)
    }

    /// A collection's documents.
    pub async fn documents(
        &self,
        db: &str,
        collection: [u8; 16],
        when: When,
        order: Order,
    ) -> std::result::Result<Documents, ReadError> {
        let uuid = Binary { subtype: BinarySubtype::Uuid, bytes: collection.to_vec() };
        let (concern, at) = match when {
            When::At(at) => (rawdoc! {"level": "snapshot", "atClusterTime": timestamp(at)}, Some(at)),
            When::NotBefore(time) => (rawdoc! {"level": "majority", "afterClusterTime": timestamp(time)}, None),
        };
        let mut command = rawdoc! {"find": uuid, "readConcern": concern, "noCursorTimeout": false};
        match order {
            Order::Natural => command.append(cstr!("hint"), rawdoc! {"$natural": 1}),
            Order::ById { from } => {
                command.append(cstr!("hint"), rawdoc! {"_id": 1});
                if let Some(from) = from {
                    // Unlike a comparison in a filter, it goes on among values of other types.
                    let mut min = RawDocumentBuf::new();
                    min.append(cstr!("_id"), from);
                    command.append(cstr!("min"), min);
                }
            }
        }
        let what = format!("collection {} of {db}", bson::Uuid::from_bytes(collection));
        let mut documents = self.open(db, command.clone(), what.clone(), at, None).await?;
        let first = documents.next().await?;
        if let Some(fitting) = first.as_ref().and_then(Batch::fitting) {
            return self.open(db, command, what, at, Some(fitting)).await;
        }
        documents.first = first;
        Ok(documents)
    }

    /// `featureCompatibilityVersion`.
    pub async fn compatibility(&self) -> Result<String> {
        let command = doc! {
            "find": "system.version",
            "filter": {"_id": "featureCompatibilityVersion"},
            "limit": 1,
            "singleBatch": true,
            "readConcern": {"level": "majority"},
            "maxTimeMS": 10_000,
        };
        let found = self.first_batch("admin", &READ_DATA, command).await?;
        let version = found.first().and_then(|document| document.get_str("version").ok());
        version.map(str::to_owned).ok_or_else(|| self.not_understood(&READ_DATA, "it has no version"))
    }

    async fn open(
        &self,
        db: &str,
        mut command: RawDocumentBuf,
        what: String,
        at: Option<ClusterTime>,
        batch: Option<u32>,
    ) -> std::result::Result<Documents, ReadError> {
        if let Some(batch) = batch {
            command.append(cstr!("batchSize"), i64::from(batch));
        }
        let database = self.client.database(db);
        let mut cursor = database.run_raw_cursor_command(command).selection_criteria(secondaries_first());
        if let Some(batch) = batch {
            cursor = cursor.batch_size(batch);
        }
        let cursor = cursor.batch();
        let Ok(cursor) = timeout(BATCH_LIMIT, cursor).await else { return Err(self.too_slow()) };
        match cursor {
            Ok(cursor) => Ok(Documents { part: self.clone(), what, at, first: None, cursor: Box::new(cursor) }),
            Err(error) => Err(self.read_error(&error, what, at)),
        }
    }

    fn too_slow(&self) -> ReadError {
        ReadError::Mongo(MongoError::TooSlow { part: self.id.to_string(), what: READ_DATA.what })
    }

    fn read_error(&self, error: &Error, what: String, at: Option<ClusterTime>) -> ReadError {
        let part = self.id.to_string();
        match (error.kind.as_ref(), at) {
            (ErrorKind::Command(e), Some(at)) if matches!(e.code, TOO_OLD | UNAVAILABLE) => {
                ReadError::Unavailable { part, what, at, why: e.message.clone() }
            }
            (ErrorKind::Command(e), _) if e.code == NAMESPACE_NOT_FOUND => ReadError::Gone { part, what },
            _ => ReadError::Mongo(MongoError::from_driver(&self.id, &READ_DATA, error)),
        }
    }
}

impl Documents {
    /// The next batch; none at the end.
    pub async fn next(&mut self) -> std::result::Result<Option<Batch>, ReadError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Ok(next) = timeout(BATCH_LIMIT, self.cursor.next()).await else { return Err(self.part.too_slow()) };
        match next {
            None => Ok(None),
            Some(Ok(batch)) => Ok(Some(Batch(batch))),
            Some(Err(error)) => Err(self.part.read_error(&error, self.what.clone(), self.at)),
        }
    }
}
