//! The cluster's clock, tokens, and finding them again.
//!
//! A token is a no-op oplog entry (`op: "n"`) whose `o` is
//! `{stillpoint: "token", checkpoint: <24 hex>, part: <name>, attempt: <int>}`.

use bson::{Document, doc};
use futures::future::try_join_all;
use mongodb::ClusterTime as SignedTime;
use stillpoint_core::checkpoint::{PartId, Token};
use stillpoint_core::{CheckpointId, ClusterTime};

use crate::error::{MongoError, Result};
use crate::part::{PartLink, cluster_time, timestamp};
use crate::privileges::{READ_OPLOG, WRITE_NOTE};

/// The highest cluster time that any part has seen, with the cluster's signature.
#[derive(Debug, Clone)]
pub struct Clock {
    pub time: ClusterTime,
    signed: SignedTime,
}

/// The highest cluster time of all parts: no write acknowledged before this call is later than it.
///
/// Each part is asked with a note that a majority must confirm: a primary that was deposed and does
/// not know it yet, whose clock may be behind its successor's, cannot answer.
pub async fn read_clock(parts: &[PartLink], checkpoint: CheckpointId) -> Result<Clock> {
    let clocks = try_join_all(parts.iter().map(|part| clock_of(part, checkpoint))).await?;
    let highest = clocks.into_iter().max_by_key(|clock| clock.time);
    highest.ok_or_else(|| MongoError::Unreachable { part: "the cluster".into(), why: "it has no parts".into() })
}

async fn clock_of(part: &PartLink, checkpoint: CheckpointId) -> Result<Clock> {
    let data = doc! {"stillpoint": "clock", "checkpoint": checkpoint.to_string()};
    let reply = part.run("admin", &WRITE_NOTE, note(data)).await?;
    let wrong = |why: &str| MongoError::Reply { part: part.id.to_string(), what: "read its clock", why: why.into() };
    let gossip = reply.get_document("$clusterTime").map_err(|_| wrong("it has no $clusterTime"))?;
    let time = gossip.get("clusterTime").and_then(cluster_time).ok_or_else(|| wrong("$clusterTime has no time"))?;
    let signed = bson::deserialize_from_document(gossip.clone()).map_err(|e| wrong(&e.to_string()))?;
    Ok(Clock { time, signed })
}

/// Writes a token with majority write concern, telling the part the clock, so that the entry's `ts`
/// is after it. The reply's time: the entry's `ts`, or a later one if another write raced it.
pub async fn write(part: &PartLink, checkpoint: CheckpointId, attempt: u32, clock: &Clock) -> Result<ClusterTime> {
    let data = token(&part.id, checkpoint, attempt);
    let mut session =
        part.client.start_session().await.map_err(|e| MongoError::from_driver(&part.id, &WRITE_NOTE, &e))?;
    session.advance_cluster_time(&clock.signed);
    let reply = part.run_in(&mut session, &WRITE_NOTE, note(data)).await?;
    part.operation_time(&WRITE_NOTE, &reply)
}

/// The `ts` of a token, if its entry is in the majority-committed oplog.
pub async fn find(
    part: &PartLink,
    checkpoint: CheckpointId,
    token: Token,
    clock: ClusterTime,
) -> Result<Option<ClusterTime>> {
    let command = doc! {
        "find": "oplog.rs",
        // The bounds on ts are what lets the server begin at the right place.
        "filter": {
            "ts": {"$gt": timestamp(clock), "$lte": timestamp(token.time)},
            "op": "n",
            "o.stillpoint": "token",
            "o.checkpoint": checkpoint.to_string(),
            "o.part": part.id.to_string(),
            "o.attempt": token.attempt,
        },
        "projection": {"ts": 1},
        "limit": 1,
        "singleBatch": true,
        "readConcern": {"level": "majority"},
        "maxTimeMS": 10_000,
    };
    let found = part.first_batch("local", &READ_OPLOG, command).await?;
    Ok(found.first().and_then(|entry| entry.get("ts")).and_then(cluster_time))
}

fn token(part: &PartId, checkpoint: CheckpointId, attempt: u32) -> Document {
    doc! {
        "stillpoint": "token",
        "checkpoint": checkpoint.to_string(),
        "part": part.to_string(),
        "attempt": attempt,
    }
}

/// The command that writes a no-op entry with `data` as its `o`.
pub(crate) fn note(data: Document) -> Document {
    doc! {
        "appendOplogNote": 1,
        "data": data,
        "writeConcern": {"w": "majority", "wtimeout": 10_000},
        "maxTimeMS": 10_000,
    }
}
