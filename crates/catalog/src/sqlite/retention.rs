//! Segments that are forgotten, and the blobs that are to go with them.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::Segment;
use stillpoint_core::{ClusterId, OpTime};

use super::rows::{all, execute, limit, one};
use super::{leases, segments, store, streams};
use crate::{CatalogError, DROPPED_AT_ONCE, Lease, Result};

/// Stands for the time at which a blob was doomed when it is condemned: earlier than all.
const CONDEMNED: i64 = i64::MIN;

pub(super) const NEWEST: &str =
    "SELECT id FROM segments WHERE stream = ?1 ORDER BY run DESC, last_s DESC, last_i DESC LIMIT 1";
pub(super) const UNTIL: &str = "SELECT id, record FROM segments
     WHERE stream = ?1 AND run = ?2 AND (last_s, last_i) <= (?3, ?4) ORDER BY last_s, last_i LIMIT ?5";
/// A blob that another segment has too stays: the same entries may have been captured twice.
pub(super) const DOOM: &str =
    "INSERT INTO doomed (name, at_ms) SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM segments WHERE name = ?1)
     AND NOT EXISTS (SELECT 1 FROM blobs WHERE name = ?1) ON CONFLICT (name) DO NOTHING";
pub(super) const DOOM_CLUSTER: &str = "INSERT INTO doomed (name, at_ms)
     SELECT name, ?2 FROM streams CROSS JOIN segments ON stream = streams.id WHERE cluster = ?1
     ON CONFLICT (name) DO NOTHING";
/// The blobs at a place are called by it and their ids, with `-` in between; `.` is what comes after that.
pub(super) const DOOMED_AT: &str = "SELECT at_ms FROM doomed WHERE name >= ?1 || '-' AND name < ?1 || '.'";
pub(super) const SAVE: &str = "DELETE FROM doomed WHERE name >= ?1 || '-' AND name < ?1 || '.'";
pub(super) const CONDEMN: &str = "UPDATE doomed SET at_ms = ?2 WHERE name = ?1";
pub(super) const DOOMED: &str = "SELECT name FROM doomed WHERE at_ms < ?1 ORDER BY at_ms, name LIMIT ?2";
pub(super) const REFERENCED: &str =
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM segments WHERE name = ?1) OR EXISTS (SELECT 1 FROM blobs WHERE name = ?1)
     OR EXISTS (SELECT 1 FROM doomed WHERE name = ?1)";
pub(super) const DOOMED_SINCE: &str = "SELECT at_ms FROM doomed WHERE name = ?1";
pub(super) const FORGET: &str = "DELETE FROM doomed WHERE name = ?1";

pub fn drop_segments(
    transaction: &Transaction,
    lease: &Lease,
    part: &PartId,
    before: OpTime,
    now: Timestamp,
) -> Result<u64> {
    leases::fence(transaction, lease, lease.cluster)?;
    let Some(streams::Key { stream, .. }) = streams::key(transaction, lease.cluster, part)? else { return Ok(0) };
    let newest = one(transaction, NEWEST, params![stream], |row| row.get::<_, i64>("id").map_err(store))?;
    let mut gone: Vec<Segment> = Vec::new();
    for run in segments::runs(transaction, stream)? {
        let left = DROPPED_AT_ONCE - gone.len() as u64;
        let place = params![stream, run, before.time.seconds, before.time.increment, limit(left)];
        let old = all(transaction, UNTIL, place, |row| {
            Ok((row.get::<_, i64>("id").map_err(store)?, segments::segment_of(row)?))
        })?;
        for (id, segment) in old.into_iter().filter(|(id, segment)| Some(*id) != newest && segment.last < before) {
            execute(transaction, "DELETE FROM segments WHERE id = ?1", params![id]).map_err(store)?;
            execute(transaction, DOOM, params![segment.name(), now.as_millisecond()]).map_err(store)?;
            gone.push(segment);
        }
    }
    segments::count(transaction, stream, &gone, -1)?;
    if let Some(last) = gone.iter().map(|segment| segment.last.time).max() {
        streams::given_up(transaction, lease.cluster, part, last.after())?;
    }
    Ok(gone.len() as u64)
}

pub fn doom_cluster(transaction: &Transaction, cluster: ClusterId, now: Timestamp) -> Result<()> {
    execute(transaction, DOOM_CLUSTER, params![cluster.to_string(), now.as_millisecond()]).map(drop).map_err(store)
}

/// Whether any of the blobs at a place is doomed.
pub fn is_doomed(connection: &Connection, place: &str) -> Result<bool> {
    Ok(one(connection, DOOMED_AT, params![place], |_| Ok(()))?.is_some())
}

pub fn is_doomed_itself(connection: &Connection, name: &str) -> Result<bool> {
    Ok(one(connection, DOOMED_SINCE, params![name], |_| Ok(()))?.is_some())
}

/// Saves the blobs at a place, unless one is condemned.
pub fn save(transaction: &Transaction, place: &str) -> Result<()> {
    let since = all(transaction, DOOMED_AT, params![place], |row| row.get::<_, i64>("at_ms").map_err(store))?;
    if since.contains(&CONDEMNED) {
        return Err(CatalogError::BeingDeleted(place.to_owned()));
    }
    if !since.is_empty() {
        execute(transaction, SAVE, params![place]).map_err(store)?;
    }
    Ok(())
}

/// Saves one blob, unless it is condemned.
pub fn save_one(transaction: &Transaction, name: &str) -> Result<()> {
    match one(transaction, DOOMED_SINCE, params![name], |row| row.get::<_, i64>("at_ms").map_err(store))? {
        Some(CONDEMNED) => Err(CatalogError::BeingDeleted(name.to_owned())),
        Some(_) => execute(transaction, FORGET, params![name]).map(drop).map_err(store),
        None => Ok(()),
    }
}

pub fn doom(transaction: &Transaction, names: &[String], now: Timestamp) -> Result<u64> {
    let mut doomed = 0;
    for name in names {
        doomed += execute(transaction, DOOM, params![name, now.as_millisecond()]).map_err(store)? as u64;
    }
    Ok(doomed)
}

pub fn condemn(transaction: &Transaction, names: &[String]) -> Result<Vec<String>> {
    let mut condemned = Vec::new();
    for name in names {
        if execute(transaction, CONDEMN, params![name, CONDEMNED]).map_err(store)? > 0 {
            condemned.push(name.clone());
        }
    }
    Ok(condemned)
}

pub fn doomed(connection: &Connection, before: Timestamp, most: u64) -> Result<Vec<String>> {
    let until = params![before.as_millisecond(), limit(most)];
    all(connection, DOOMED, until, |row| row.get("name").map_err(store))
}

pub fn forget(transaction: &Transaction, names: &[String]) -> Result<()> {
    names.iter().try_for_each(|name| execute(transaction, FORGET, params![name]).map(drop).map_err(store))
}

pub fn unreferenced(connection: &Connection, names: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in names {
        if one(connection, REFERENCED, params![name], |_| Ok(()))?.is_none() {
            found.push(name.clone());
        }
    }
    Ok(found)
}
