//! Rows of segments, of the tokens in them, and their totals.
//!
//! A catalog may hold hundreds of thousands: every statement finds its rows by an index, in the order in
//! which they are wanted, see `plans`.

use rusqlite::{Connection, Row, Transaction, params};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{Segment, StoredToken, Stream};
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime};

use super::rows::{all, corrupt, execute, limit, one, record_of, text_of};
use super::{leases, retention, store, streams};
use crate::{CatalogError, Lease, Result, SegmentTotals};

const TOKEN: &str = "a stored token";

pub(super) const INSERT: &str =
    "INSERT INTO segments (stream, run, last_s, last_i, name, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
pub(super) const LAST: &str = "SELECT record FROM segments WHERE stream = ?1 AND run = ?2
     ORDER BY last_s DESC, last_i DESC LIMIT 1";
pub(super) const ENDING_AT: &str =
    "SELECT record FROM segments WHERE stream = ?1 AND run = ?2 AND last_s = ?3 AND last_i = ?4";
pub(super) const FROM: &str = "SELECT record FROM segments
     WHERE stream = ?1 AND run = ?2 AND (last_s, last_i) >= (?3, ?4) ORDER BY last_s, last_i LIMIT ?5";
pub(super) const BEFORE: &str = "SELECT record FROM segments
     WHERE stream = ?1 AND run = ?2 AND (last_s, last_i) < (?3, ?4) ORDER BY last_s DESC, last_i DESC LIMIT 1";
/// One step for each run, not for each segment.
pub(super) const RUNS: &str = "WITH RECURSIVE runs (run) AS (
         SELECT min(run) FROM segments WHERE stream = ?1
         UNION ALL
         SELECT (SELECT min(run) FROM segments WHERE stream = ?1 AND run > runs.run) FROM runs WHERE run IS NOT NULL)
     SELECT run FROM runs WHERE run IS NOT NULL";
pub(super) const TOTALS: &str = "SELECT totals.* FROM streams CROSS JOIN totals ON totals.stream = streams.id
     WHERE cluster = ?1 AND part = ?2";
/// CROSS JOIN keeps the order of the tables: there are few tokens of a checkpoint.
pub(super) const TOKENS: &str = "SELECT streams.record AS stream, stored_tokens.record AS record
     FROM stored_tokens CROSS JOIN segments ON segments.id = segment CROSS JOIN streams ON streams.id = stream
     WHERE checkpoint = ?1 AND cluster = ?2";
const COUNT: &str = "INSERT INTO totals (stream, segments, entries, bytes, stored) VALUES (?1, ?2, ?3, ?4, ?5)
     ON CONFLICT (stream) DO UPDATE SET
         segments = segments + ?2, entries = entries + ?3, bytes = bytes + ?4, stored = stored + ?5";

pub(super) fn segment_of(row: &Row) -> Result<Segment> {
    record_of(row, "a segment")
}

fn last_of(connection: &Connection, key: streams::Key) -> Result<Option<Segment>> {
    one(connection, LAST, params![key.stream, key.run], segment_of)
}

pub fn last(connection: &Connection, cluster: ClusterId, part: &PartId) -> Result<Option<Segment>> {
    match streams::key(connection, cluster, part)? {
        Some(key) => last_of(connection, key),
        None => Ok(None),
    }
}

pub fn append(transaction: &Transaction, lease: &Lease, segment: &Segment) -> Result<()> {
    leases::fence(transaction, lease, segment.cluster)?;
    let found = streams::key(transaction, segment.cluster, &segment.part)?;
    let key = found.ok_or(CatalogError::Gone("stream"))?;
    let last = last_of(transaction, key)?;
    if let Some(why) = obstacle(segment, last.as_ref()) {
        let place = params![key.stream, key.run, segment.last.time.seconds, segment.last.time.increment];
        let stored = one(transaction, ENDING_AT, place, segment_of)?;
        return match stored.is_some_and(|stored| stored == *segment) {
            true => Ok(()),
            false => Err(CatalogError::NotContiguous(format!("{}: {why}", segment.part))),
        };
    }
    retention::save(transaction, &segment.place())?;
    insert(transaction, key, segment)?;
    streams::unresolved(transaction, segment)?;
    count(transaction, key.stream, [segment], 1)
}

/// Why `segment` cannot follow the last one of its run, if it cannot.
fn obstacle(segment: &Segment, last: Option<&Segment>) -> Option<String> {
    let Segment { previous, first, .. } = segment;
    if *first > segment.last {
        return Some(format!("its first entry, {first}, is after its last, {}", segment.last));
    }
    match (last, previous) {
        (None, None) => None,
        (None, Some(previous)) => Some(format!("it follows {previous}, and the stream has just begun")),
        (Some(last), None) => Some(format!("it follows nothing, and the stream goes on from {}", last.blob)),
        (Some(last), Some(previous)) if *previous != last.blob => {
            Some(format!("it follows {previous}, and the last one is {}", last.blob))
        }
        (Some(last), _) if first.time <= last.last.time => {
            Some(format!("it begins at {first}, and what is stored ends at {}", last.last))
        }
        _ => None,
    }
}

fn insert(transaction: &Transaction, key: streams::Key, segment: &Segment) -> Result<()> {
    let ClusterTime { seconds, increment } = segment.last.time;
    let record = text_of(segment, "a segment")?;
    let values = params![key.stream, key.run, seconds, increment, segment.name(), record];
    execute(transaction, INSERT, values).map_err(store)?;
    let id = transaction.last_insert_rowid();
    for (n, token) in segment.tokens.iter().enumerate() {
        let sql = "INSERT INTO stored_tokens (segment, n, checkpoint, record) VALUES (?1, ?2, ?3, ?4)";
        let values = params![id, n as i64, token.checkpoint.to_string(), text_of(token, TOKEN)?];
        execute(transaction, sql, values).map_err(store)?;
    }
    Ok(())
}

/// Adds segments to the totals of their stream, or takes them off: `sign` is 1 or -1.
pub(super) fn count<'a>(
    transaction: &Transaction,
    stream: i64,
    segments: impl IntoIterator<Item = &'a Segment>,
    sign: i64,
) -> Result<()> {
    let [mut n, mut entries, mut bytes, mut stored] = [0; 4];
    for segment in segments {
        n += sign;
        entries += sign * segment.entries as i64;
        bytes += sign * segment.bytes as i64;
        stored += sign * segment.stored as i64;
    }
    execute(transaction, COUNT, params![stream, n, entries, bytes, stored]).map(drop).map_err(store)
}

pub fn totals(connection: &Connection, cluster: ClusterId, part: &PartId) -> Result<SegmentTotals> {
    let found = one(connection, TOTALS, params![cluster.to_string(), part.key()], |row| {
        let column = |name: &str| row.get::<_, i64>(name).map(|n| n as u64).map_err(store);
        Ok(SegmentTotals {
            segments: column("segments")?,
            entries: column("entries")?,
            bytes: column("bytes")?,
            stored: column("stored")?,
        })
    })?;
    Ok(found.unwrap_or_default())
}

pub(super) fn runs(connection: &Connection, stream: i64) -> Result<Vec<i64>> {
    all(connection, RUNS, params![stream], |row| row.get("run").map_err(store))
}

/// By their last entries. Those of one run do not overlap; those of two may.
pub fn between(
    connection: &Connection,
    cluster: ClusterId,
    part: &PartId,
    from: ClusterTime,
    to: ClusterTime,
    most: u64,
) -> Result<Vec<Segment>> {
    let Some(streams::Key { stream, .. }) = streams::key(connection, cluster, part)? else { return Ok(vec![]) };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut found: Vec<Segment> = Vec::new();
    for run in runs(connection, stream)? {
        // Where the page ends already.
        let end = found.last().filter(|_| found.len() == most).map(|segment| segment.last.time);
        let mut statement = connection.prepare_cached(FROM).map_err(store)?;
        let place = params![stream, run, from.seconds, from.increment, limit(most as u64)];
        let mut rows = statement.query(place).map_err(store)?;
        while let Some(row) = rows.next().map_err(store)? {
            let segment = segment_of(row)?;
            if segment.first.time > to || end.is_some_and(|end| segment.last.time > end) {
                break;
            }
            found.push(segment);
        }
        found.sort_by_key(|segment| segment.last.time);
        found.truncate(most);
    }
    Ok(found)
}

pub fn before(
    connection: &Connection,
    cluster: ClusterId,
    part: &PartId,
    time: ClusterTime,
) -> Result<Option<Segment>> {
    let Some(streams::Key { stream, .. }) = streams::key(connection, cluster, part)? else { return Ok(None) };
    let mut last: Option<Segment> = None;
    for run in runs(connection, stream)? {
        let found = one(connection, BEFORE, params![stream, run, time.seconds, time.increment], segment_of)?;
        last = last.into_iter().chain(found).max_by_key(|segment| segment.last.time);
    }
    Ok(last)
}

pub fn tokens(connection: &Connection, cluster: ClusterId, id: CheckpointId) -> Result<Vec<(PartId, StoredToken)>> {
    let mut found = all(connection, TOKENS, params![id.to_string(), cluster.to_string()], |row| {
        let stream: String = row.get("stream").map_err(store)?;
        let stream: Stream = serde_json::from_str(&stream).map_err(|e| corrupt("a stream", e))?;
        Ok((stream.part, record_of::<StoredToken>(row, TOKEN)?))
    })?;
    found.sort_by_key(|(part, token)| (part.key(), token.at));
    Ok(found)
}
