//! Rows of streams, and of the reports on their capture.

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{CaptureReport, Gap, GapCause, Segment, Stream};
use stillpoint_core::{ClusterId, ClusterTime};

use super::rows::{all, execute, one, record_of, text_of};
use super::{gaps, leases, store, unless_gone};
use crate::{CatalogError, Lease, Result};

const WHAT: &str = "a stream";
const REPORT: &str = "a report on capture";

fn stream_of(row: &Row) -> Result<Stream> {
    record_of(row, WHAT)
}

pub fn all_of(connection: &Connection, cluster: ClusterId) -> Result<Vec<Stream>> {
    let sql = "SELECT record FROM streams WHERE cluster = ?1 ORDER BY part";
    all(connection, sql, params![cluster.to_string()], stream_of)
}

pub fn stream(connection: &Connection, cluster: ClusterId, part: &PartId) -> Result<Option<Stream>> {
    let sql = "SELECT record FROM streams WHERE cluster = ?1 AND part = ?2";
    one(connection, sql, params![cluster.to_string(), part.key()], stream_of)
}

/// What the segments of a stream refer to.
#[derive(Clone, Copy)]
pub struct Key {
    pub stream: i64,
    /// How often it has begun. A segment's predecessor is one of the same run.
    pub run: i64,
}

pub fn key(connection: &Connection, cluster: ClusterId, part: &PartId) -> Result<Option<Key>> {
    let sql = "SELECT id, run FROM streams WHERE cluster = ?1 AND part = ?2";
    one(connection, sql, params![cluster.to_string(), part.key()], |row| {
        Ok(Key { stream: row.get("id").map_err(store)?, run: row.get("run").map_err(store)? })
    })
}

pub fn begin(transaction: &Transaction, lease: &Lease, stream: &Stream, gap: Option<&Gap>) -> Result<()> {
    leases::fence(transaction, lease, stream.cluster)?;
    if gap.is_some_and(|gap| gap.part != stream.part) {
        return Err(CatalogError::BrokenRule("the gap before a stream is of the same part"));
    }
    let sql = "INSERT INTO streams (cluster, part, run, record) VALUES (?1, ?2, 1, ?3)
               ON CONFLICT (cluster, part) DO UPDATE SET run = run + 1, record = ?3";
    // What was given up of its earlier segments stays so.
    let before = self::stream(transaction, stream.cluster, &stream.part)?;
    let stream = &Stream { kept_from: before.and_then(|before| before.kept_from), ..stream.clone() };
    let values = params![stream.cluster.to_string(), stream.part.key(), text_of(stream, WHAT)?];
    execute(transaction, sql, values).map_err(store)?;
    let Some(gap) = gap else { return Ok(()) };
    if gap.cause == GapCause::ShardAway {
        gaps::delete_endless(transaction, stream.cluster, &stream.part)?;
    }
    gaps::insert(transaction, stream.cluster, gap)
}

pub fn end(transaction: &Transaction, lease: &Lease, part: &PartId, at: Timestamp) -> Result<()> {
    leases::fence(transaction, lease, lease.cluster)?;
    let mut stream = stream(transaction, lease.cluster, part)?.ok_or(CatalogError::Gone("stream"))?;
    if stream.ended.is_some() {
        return Ok(());
    }
    stream.ended = Some(at);
    update(transaction, &stream)
}

/// Notes what is unresolved now that a segment is the last one. The record seldom changes: replies are made
/// of it, and segments come all the time.
pub fn unresolved(transaction: &Transaction, last: &Segment) -> Result<()> {
    let mut stream = stream(transaction, last.cluster, &last.part)?.ok_or(CatalogError::Gone("stream"))?;
    let unresolved = last.open.iter().filter_map(|transaction| transaction.prepared).min();
    if stream.unresolved == unresolved {
        return Ok(());
    }
    stream.unresolved = unresolved;
    update(transaction, &stream)
}

/// Notes that what is before a time is no longer there.
pub fn given_up(transaction: &Transaction, cluster: ClusterId, part: &PartId, before: ClusterTime) -> Result<()> {
    let mut stream = stream(transaction, cluster, part)?.ok_or(CatalogError::Gone("stream"))?;
    stream.kept_from = stream.kept_from.max(Some(before));
    update(transaction, &stream)
}

fn update(transaction: &Transaction, stream: &Stream) -> Result<()> {
    let sql = "UPDATE streams SET record = ?3 WHERE cluster = ?1 AND part = ?2";
    let values = params![stream.cluster.to_string(), stream.part.key(), text_of(stream, WHAT)?];
    execute(transaction, sql, values).map(drop).map_err(store)
}

pub fn report(transaction: &Transaction, cluster: ClusterId, part: &PartId, report: &CaptureReport) -> Result<()> {
    let sql = "INSERT INTO capture_reports (cluster, part, record) VALUES (?1, ?2, ?3)
               ON CONFLICT (cluster, part) DO UPDATE SET record = ?3";
    let values = params![cluster.to_string(), part.key(), text_of(&(part, report), REPORT)?];
    execute(transaction, sql, values).map(drop).map_err(|e| unless_gone(e, "cluster", store))
}

pub fn reports(connection: &Connection, cluster: ClusterId) -> Result<Vec<(PartId, CaptureReport)>> {
    let sql = "SELECT record FROM capture_reports WHERE cluster = ?1 ORDER BY part";
    all(connection, sql, params![cluster.to_string()], |row| record_of(row, REPORT))
}
