//! One replica set of a cluster, and how commands are sent to it.
//!
//! Every command names its read or write concern itself: a cluster-wide default is ignored on direct
//! connections to shards by several server releases.

use std::future::IntoFuture;
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::StreamExt;
use mongodb::options::SelectionCriteria;
use mongodb::{Client, ClientSession};
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use tokio::time::timeout;

use crate::error::{MongoError, Result};
use crate::privileges::{NOTHING, Need};
use crate::tail::documents;

/// For one batch of a cursor.
const BATCH_LIMIT: Duration = Duration::from_secs(60);

/// A replica set of the cluster.
#[derive(Debug, Clone)]
pub struct PartLink {
    pub id: PartId,
    pub replica_set: String,
    /// When the shard was added to the cluster, where that is known.
    pub added: Option<ClusterTime>,
    pub(crate) client: Client,
}

impl PartLink {
    /// Runs a command on the primary and gives the reply. A write that a majority did not confirm in
    /// time is an error.
    pub(crate) async fn run(&self, database: &str, need: &Need, command: Document) -> Result<Document> {
        let reply = self.client.database(database).run_command(command).await;
        self.confirmed(need, reply)
    }

    /// The same, in a session: its cluster time is gossiped.
    pub(crate) async fn run_in(&self, session: &mut ClientSession, need: &Need, command: Document) -> Result<Document> {
        let reply = self.client.database("admin").run_command(command).session(session).await;
        self.confirmed(need, reply)
    }

    pub(crate) fn confirmed(&self, need: &Need, reply: mongodb::error::Result<Document>) -> Result<Document> {
        let reply = reply.map_err(|e| MongoError::from_driver(&self.id, need, &e))?;
        let first_write_error = reply.get_array("writeErrors").ok().and_then(|errors| errors.first());
        match reply.get("writeConcernError").or(first_write_error) {
            None => Ok(reply),
            Some(error) => {
                let message = error.as_document().and_then(|e| e.get_str("errmsg").ok()).unwrap_or("no message");
                Err(MongoError::Command { part: self.id.to_string(), what: need.what, why: message.into() })
            }
        }
    }

    /// One batch of a query: the first documents, up to the `limit` in the command.
    pub(crate) async fn first_batch(&self, database: &str, need: &Need, command: Document) -> Result<Vec<Document>> {
        Ok(self.first_batch_at(database, need, command).await?.0)
    }

    /// The same, and the cluster time at or before which it was read.
    pub(crate) async fn first_batch_at(
        &self,
        database: &str,
        need: &Need,
        command: Document,
    ) -> Result<(Vec<Document>, ClusterTime)> {
        let reply = self.run(database, need, command).await?;
        Ok((self.only_batch(need, &reply)?, self.operation_time(need, &reply)?))
    }

    /// The same as [`first_batch`](Self::first_batch) from a member that need not be the primary.
    pub(crate) async fn first_batch_of(
        &self,
        member: SelectionCriteria,
        database: &str,
        need: &Need,
        command: Document,
    ) -> Result<Vec<Document>> {
        let reply = self.client.database(database).run_command(command).selection_criteria(member).await;
        self.only_batch(need, &self.confirmed(need, reply)?)
    }

    fn only_batch(&self, need: &Need, reply: &Document) -> Result<Vec<Document>> {
        let wrong = |why: &str| self.not_understood(need, why);
        let cursor = reply.get_document("cursor").map_err(|_| wrong("it has no cursor"))?;
        if cursor.get_i64("id").is_ok_and(|id| id != 0) {
            return Err(wrong("it does not fit into one batch"));
        }
        let batch = cursor.get_array("firstBatch").map_err(|_| wrong("it has no firstBatch"))?;
        let documents = batch.iter().map(|item| {
            item.as_document().cloned().ok_or_else(|| wrong("firstBatch holds something else than documents"))
        });
        documents.collect()
    }

    /// All documents of a cursor of the primary.
    pub(crate) async fn all(
        &self,
        database: &str,
        need: &Need,
        command: RawDocumentBuf,
    ) -> Result<Vec<RawDocumentBuf>> {
        let failed = |e| MongoError::from_driver(&self.id, need, &e);
        let slow = |_| MongoError::TooSlow { part: self.id.to_string(), what: need.what };
        let database = self.client.database(database);
        let cursor = database.run_raw_cursor_command(command).batch();
        let mut cursor = timeout(BATCH_LIMIT, cursor.into_future()).await.map_err(slow)?.map_err(failed)?;
        let mut all = Vec::new();
        while let Some(batch) = timeout(BATCH_LIMIT, cursor.next()).await.map_err(slow)?.transpose().map_err(failed)? {
            for document in documents(&batch) {
                all.push(document.map_err(|why| self.not_understood(need, why))?.to_owned());
            }
        }
        Ok(all)
    }

    pub(crate) fn operation_time(&self, need: &Need, reply: &Document) -> Result<ClusterTime> {
        let time = reply.get("operationTime").and_then(cluster_time);
        time.ok_or_else(|| self.not_understood(need, "it has no operationTime"))
    }

    /// The reply to what `need` is needed for does not have what it should.
    pub(crate) fn not_understood(&self, need: &Need, why: impl Into<String>) -> MongoError {
        MongoError::Reply { part: self.id.to_string(), what: need.what, why: why.into() }
    }
}

/// A BSON timestamp as a cluster time.
pub(crate) fn cluster_time(value: &Bson) -> Option<ClusterTime> {
    value.as_timestamp().map(|ts| ClusterTime::new(ts.time, ts.increment))
}

pub(crate) fn timestamp(time: ClusterTime) -> bson::Timestamp {
    bson::Timestamp { time: time.seconds, increment: time.increment }
}

/// Reads up to `limit` documents of a collection of `config`.
pub(crate) async fn read_config(
    part: &PartLink,
    need: &Need,
    collection: &str,
    filter: Document,
    limit: i64,
) -> Result<Vec<Document>> {
    let command = doc! {
        "find": collection,
        "filter": filter,
        "limit": limit,
        "singleBatch": true,
        "batchSize": limit,
        "readConcern": {"level": "majority"},
        "maxTimeMS": 10_000,
    };
    part.first_batch("config", need, command).await
}

/// Asks a part for its own view of itself.
pub(crate) async fn hello(part: &PartLink) -> Result<Document> {
    part.run("admin", &NOTHING, doc! {"hello": 1}).await
}
