//! The cluster as it was at a cluster time: the oracle against which checkpoints are held.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bson::{Bson, Document, Timestamp, doc};

use crate::cluster::Lab;
use crate::endpoint::Endpoint;
use crate::routing::Routing;
use crate::wire::{COMMAND_LIMIT, Gossip};

/// Read concern of a read.
#[derive(Debug, Clone, Copy)]
pub enum ReadAt {
    /// What is majority-committed now.
    Majority,
    /// What was at this cluster time, at most `minSnapshotHistoryWindowInSeconds` ago.
    Time(Timestamp),
}

impl ReadAt {
    fn concern(self) -> Document {
        match self {
            Self::Majority => doc! {"level": "majority"},
            Self::Time(time) => doc! {"level": "snapshot", "atClusterTime": time},
        }
    }
}

/// All documents of one part's `ns` that match, in `_id` order, orphans of migrations included.
/// For a time that the part's clock may not have come to, gossip it.
pub async fn find(part: &Endpoint, gossip: &Gossip, ns: &str, at: ReadAt, filter: Document) -> Result<Vec<Document>> {
    let (db, collection) = split(ns)?;
    let mut connection = part.connect_primary().await?.gossiping(gossip.clone());
    let command = doc! {
        "find": collection,
        "filter": filter,
        "sort": {"_id": 1},
        "readConcern": at.concern(),
        // Just short of the connection's own limit, so that the server says what it waited for.
        "maxTimeMS": (COMMAND_LIMIT - Duration::from_secs(2)).as_millis() as i64,
    };
    let mut reply = connection.run(db, command).await.with_context(|| format!("cannot read {ns} of {}", part.name))?;
    let mut documents = Vec::new();
    loop {
        let cursor = reply.get_document_mut("cursor")?;
        let id = cursor.get_i64("id")?;
        for batch in ["firstBatch", "nextBatch"] {
            if let Some(Bson::Array(batch)) = cursor.remove(batch) {
                for document in batch {
                    let Bson::Document(document) = document else {
                        bail!("a batch holds {document}");
                    };
                    documents.push(document);
                }
            }
        }
        if id == 0 {
            return Ok(documents);
        }
        reply = connection
            .run(db, doc! {"getMore": id, "collection": collection})
            .await
            .with_context(|| format!("cannot read on in {ns} of {}", part.name))?;
    }
}

/// All documents of a sharded collection as of `time` that match, from the shards that owned
/// them then: without the orphans of migrations.
pub async fn find_at(lab: &Lab, ns: &str, time: Timestamp, filter: Document) -> Result<Vec<Document>> {
    let topology = lab.topology();
    // A part whose clock has not come to `time` yet refuses it (72), until it is told.
    let gossip = topology.gossip().await?;
    let routing = Routing::load_at(&topology, &gossip, ns, ReadAt::Time(time)).await?;
    let mut all = Vec::new();
    for shard in topology.shards.iter() {
        if !routing.chunks.iter().any(|chunk| chunk.shard == shard.name) {
            continue;
        }
        for document in find(shard, &gossip, ns, ReadAt::Time(time), filter.clone()).await? {
            let id = document.get("_id").context("a document without _id")?;
            if routing.owner(id)? == shard.name {
                all.push(document);
            }
        }
    }
    Ok(all)
}

/// `db.collection` in its two halves.
pub(crate) fn split(ns: &str) -> Result<(&str, &str)> {
    ns.split_once('.').with_context(|| format!("{ns} is not of the form db.collection"))
}
