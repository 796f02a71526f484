//! The cluster's clock, and tokens.
//!
//! A token is a no-op oplog entry (`op: "n"`) whose `o` is
//! `{stillpoint: "token", checkpoint: <24 hex>, part: <name>, attempt: <int>}`.

use std::collections::BTreeMap;

use bson::{Document, doc};
use futures::future::try_join_all;
use mongodb::ClusterTime as SignedTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::{CheckpointId, ClusterTime};

use crate::error::{MongoError, Result};
use crate::part::{PartLink, cluster_time, hello};
use crate::privileges::WRITE_NOTE;

/// The highest cluster time that any part has seen, with the cluster's signature.
#[derive(Debug, Clone)]
pub struct Clock {
    pub time: ClusterTime,
    signed: SignedTime,
    /// Of the primary that each part's time came from.
    pub terms: BTreeMap<PartId, i64>,
}

/// The highest cluster time of all parts: no write acknowledged before this call is later than it, as
/// far as those asked are still primaries; a token of the same term shows that they were.
pub async fn read_clock(parts: &[PartLink]) -> Result<Clock> {
    let clocks = try_join_all(parts.iter().map(clock_of)).await?;
    let terms = parts.iter().zip(&clocks).map(|(part, (_, _, term))| (part.id.clone(), *term)).collect();
    match clocks.into_iter().max_by_key(|(time, ..)| *time) {
        Some((time, signed, _)) => Ok(Clock { time, signed, terms }),
        None => Err(MongoError::Unreachable { part: "the cluster".into(), why: "it has no parts".into() }),
    }
}

async fn clock_of(part: &PartLink) -> Result<(ClusterTime, SignedTime, i64)> {
    let reply = hello(part).await?;
    let wrong = |why: &str| MongoError::Reply { part: part.id.to_string(), what: "read its clock", why: why.into() };
    if !reply.get_bool("isWritablePrimary").unwrap_or(false) {
        let why = "it has no primary now".into();
        return Err(MongoError::Unreachable { part: part.id.to_string(), why });
    }
    // A primary's newest entry is of its own term: an election begins with one.
    let newest = reply.get_document("lastWrite").and_then(|write| write.get_document("opTime"));
    let term = newest.and_then(|optime| optime.get_i64("t")).map_err(|_| wrong("it has no lastWrite.opTime.t"))?;
    let gossip = reply.get_document("$clusterTime").map_err(|_| wrong("it has no $clusterTime"))?;
    let time = gossip.get("clusterTime").and_then(cluster_time).ok_or_else(|| wrong("$clusterTime has no time"))?;
    let signed = bson::deserialize_from_document(gossip.clone()).map_err(|e| wrong(&e.to_string()))?;
    Ok((time, signed, term))
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
