//! Rows of snapshots, of the blobs that they are made of, and of what was read for one that is under way.
//!
//! A blob may be in many snapshots: it is doomed when the last of them goes.

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::snapshot::Snapshot;
use stillpoint_core::{ClusterId, SnapshotId};

use super::rows::{self, all, execute, limit, one, record_of, text_of};
use super::{leases, restores, retention, store, unless_gone};
use crate::{CatalogError, Lease, Page, Result};

const WHAT: &str = "a snapshot";

pub(super) const PAGE: &str = "SELECT record FROM snapshots WHERE cluster = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3";
pub(super) const ONE: &str = "SELECT record FROM snapshots WHERE cluster = ?1 AND id = ?2";
pub(super) const NUMBER: &str = "SELECT n FROM snapshots WHERE cluster = ?1 AND id = ?2";
pub(super) const COUNT: &str = "SELECT count(*) AS n FROM snapshots WHERE cluster = ?1";
pub(super) const UNFINISHED: &str = "SELECT record FROM snapshots WHERE cluster = ?1 AND ended = 0";
/// One under way that goes on from another.
pub(super) const FROM: &str =
    "SELECT record FROM snapshots WHERE cluster = ?1 AND ended = 0 AND record ->> 'base' = ?2";
pub(super) const WRITE: &str = "UPDATE snapshots SET ended = ?2, record = ?3 WHERE n = ?1";
pub(super) const DELETE: &str = "DELETE FROM snapshots WHERE n = ?1";
pub(super) const DELETE_ALL: &str = "DELETE FROM snapshots WHERE cluster = ?1";
pub(super) const BLOB: &str = "INSERT INTO blobs (name) VALUES (?1) ON CONFLICT DO NOTHING";
pub(super) const FORGET: &str = "DELETE FROM blobs WHERE n = ?1";
pub(super) const NOTE: &str = "INSERT INTO snapshot_blobs (snapshot, blob) SELECT ?1, n FROM blobs WHERE name = ?2
     ON CONFLICT DO NOTHING";
/// Those of a snapshot that no other has.
pub(super) const ITS_OWN: &str = "SELECT blobs.n AS n, blobs.name AS name
     FROM snapshot_blobs AS its CROSS JOIN blobs ON blobs.n = its.blob
     WHERE its.snapshot = ?1 AND NOT EXISTS (
         SELECT 1 FROM snapshot_blobs AS other WHERE other.blob = its.blob AND other.snapshot <> ?1)";
pub(super) const OF_CLUSTER: &str = "SELECT DISTINCT blobs.n AS n, blobs.name AS name
     FROM snapshots CROSS JOIN snapshot_blobs ON snapshot = snapshots.n CROSS JOIN blobs ON blobs.n = blob
     WHERE cluster = ?1";
pub(super) const PIECES: &str = "SELECT record FROM snapshot_pieces WHERE snapshot = ?1 AND part = ?2 ORDER BY n";
pub(super) const LAST_PIECE: &str = "SELECT max(n) AS n FROM snapshot_pieces WHERE snapshot = ?1 AND part = ?2";
pub(super) const FORGET_PIECES: &str = "DELETE FROM snapshot_pieces WHERE snapshot = ?1";

fn snapshot_of(row: &Row) -> Result<Snapshot> {
    record_of(row, WHAT)
}

pub fn queue(transaction: &Transaction, snapshot: &Snapshot) -> Result<()> {
    if let Some(unfinished) = unfinished(transaction, snapshot.cluster)? {
        return Err(CatalogError::SnapshotUnderWay(unfinished.id));
    }
    let sql = "INSERT INTO snapshots (cluster, id, ended, record) VALUES (?1, ?2, ?3, ?4)";
    let record = text_of(snapshot, WHAT)?;
    let values = params![snapshot.cluster.to_string(), snapshot.id.to_string(), snapshot.state.ended(), record];
    execute(transaction, sql, values).map(drop).map_err(|e| unless_gone(e, "cluster", store))
}

/// Writes it, and notes blobs as its own.
pub fn save(transaction: &Transaction, lease: &Lease, snapshot: &Snapshot, blobs: &[String]) -> Result<()> {
    if let Some(rule) = snapshot.broken_rule() {
        return Err(CatalogError::BrokenRule(rule));
    }
    leases::fence(transaction, lease, snapshot.cluster)?;
    let stored = one_of(transaction, snapshot.cluster, snapshot.id)?.ok_or(CatalogError::Gone("snapshot"))?;
    if stored != *snapshot && (stored.state.ended() || stored.state > snapshot.state) {
        return Err(CatalogError::SnapshotOutdated(snapshot.id));
    }
    let n = number(transaction, snapshot.cluster, snapshot.id)?;
    note(transaction, n, blobs)?;
    write(transaction, n, snapshot)?;
    if snapshot.state.ended() {
        execute(transaction, FORGET_PIECES, params![n]).map_err(store)?;
    }
    Ok(())
}

fn write(transaction: &Transaction, n: i64, snapshot: &Snapshot) -> Result<()> {
    let values = params![n, snapshot.state.ended(), text_of(snapshot, WHAT)?];
    execute(transaction, WRITE, values).map(drop).map_err(store)
}

fn note(transaction: &Transaction, n: i64, blobs: &[String]) -> Result<()> {
    for name in blobs {
        retention::save_one(transaction, name)?;
        execute(transaction, BLOB, params![name]).map_err(store)?;
        execute(transaction, NOTE, params![n, name]).map_err(store)?;
    }
    Ok(())
}

/// One that has ended, to be changed.
fn ended(transaction: &Transaction, cluster: ClusterId, id: SnapshotId) -> Result<Snapshot> {
    let snapshot = one_of(transaction, cluster, id)?.ok_or(CatalogError::Gone("snapshot"))?;
    if snapshot.state.ended() { Ok(snapshot) } else { Err(CatalogError::InUse("the snapshot")) }
}

pub fn damaged(transaction: &Transaction, cluster: ClusterId, id: SnapshotId, damage: Option<String>) -> Result<()> {
    let mut snapshot = ended(transaction, cluster, id)?;
    if snapshot.damage == damage {
        return Ok(());
    }
    snapshot.damage = damage;
    write(transaction, number(transaction, cluster, id)?, &snapshot)
}

/// Changes how long it is kept.
pub fn keep(
    transaction: &Transaction,
    cluster: ClusterId,
    id: SnapshotId,
    expires: Option<Timestamp>,
    do_not_delete: bool,
) -> Result<Snapshot> {
    let mut snapshot = ended(transaction, cluster, id)?;
    (snapshot.expires, snapshot.do_not_delete) = (expires, do_not_delete);
    write(transaction, number(transaction, cluster, id)?, &snapshot)?;
    Ok(snapshot)
}

fn number(connection: &Connection, cluster: ClusterId, id: SnapshotId) -> Result<i64> {
    let n = one(connection, NUMBER, params![cluster.to_string(), id.to_string()], |row| row.get("n").map_err(store))?;
    n.ok_or(CatalogError::Gone("snapshot"))
}

pub fn one_of(connection: &Connection, cluster: ClusterId, id: SnapshotId) -> Result<Option<Snapshot>> {
    one(connection, ONE, params![cluster.to_string(), id.to_string()], snapshot_of)
}

pub fn page(connection: &Connection, cluster: ClusterId, page: Page) -> Result<Vec<Snapshot>> {
    all(connection, PAGE, params![cluster.to_string(), limit(page.take), limit(page.skip)], snapshot_of)
}

pub fn count(connection: &Connection, cluster: ClusterId) -> Result<u64> {
    rows::count(connection, COUNT, &cluster.to_string())
}

pub fn unfinished(connection: &Connection, cluster: ClusterId) -> Result<Option<Snapshot>> {
    one(connection, UNFINISHED, params![cluster.to_string()], snapshot_of)
}

pub fn delete(transaction: &Transaction, cluster: ClusterId, id: SnapshotId, now: Timestamp) -> Result<()> {
    let snapshot = one_of(transaction, cluster, id)?.ok_or(CatalogError::Gone("snapshot"))?;
    if !snapshot.state.ended() {
        return Err(CatalogError::InUse("the snapshot"));
    }
    if one(transaction, FROM, params![cluster.to_string(), id.to_string()], |_| Ok(()))?.is_some() {
        return Err(CatalogError::InUse("the snapshot"));
    }
    // The one that a restore goes on from is known to whoever is at it: it may be any that is not too late.
    let restored = restores::unfinished(transaction, cluster)?.map(|restore| restore.time);
    if snapshot.cut.is_some_and(|cut| restored.is_some_and(|time| cut <= time)) {
        return Err(CatalogError::InUse("the snapshot"));
    }
    let n = number(transaction, cluster, id)?;
    let blobs = blobs_of(transaction, ITS_OWN, params![n])?;
    execute(transaction, DELETE, params![n]).map_err(store)?;
    forget(transaction, &blobs, now)
}

/// Dooms the blobs of a cluster's snapshots, and forgets these.
pub fn delete_all(transaction: &Transaction, cluster: ClusterId, now: Timestamp) -> Result<()> {
    let blobs = blobs_of(transaction, OF_CLUSTER, params![cluster.to_string()])?;
    execute(transaction, DELETE_ALL, params![cluster.to_string()]).map_err(store)?;
    forget(transaction, &blobs, now)
}

fn blobs_of(connection: &Connection, sql: &str, of: impl rusqlite::Params) -> Result<Vec<(i64, String)>> {
    all(connection, sql, of, |row| Ok((row.get("n").map_err(store)?, row.get("name").map_err(store)?)))
}

fn forget(transaction: &Transaction, blobs: &[(i64, String)], now: Timestamp) -> Result<()> {
    for (n, name) in blobs {
        execute(transaction, FORGET, params![n]).map_err(store)?;
        execute(transaction, retention::DOOM, params![name, now.as_millisecond()]).map_err(store)?;
    }
    Ok(())
}

pub fn add_pieces(
    transaction: &Transaction,
    lease: &Lease,
    id: SnapshotId,
    part: &PartId,
    pieces: &[String],
    blobs: &[String],
) -> Result<()> {
    leases::fence(transaction, lease, lease.cluster)?;
    let stored = one_of(transaction, lease.cluster, id)?.ok_or(CatalogError::Gone("snapshot"))?;
    if stored.state.ended() {
        return Err(CatalogError::SnapshotOutdated(id));
    }
    let n = number(transaction, lease.cluster, id)?;
    note(transaction, n, blobs)?;
    let last =
        one(transaction, LAST_PIECE, params![n, part.key()], |row| row.get::<_, Option<i64>>("n").map_err(store))?;
    let first = last.flatten().map_or(0, |last| last + 1);
    for (place, piece) in (first..).zip(pieces) {
        let sql = "INSERT INTO snapshot_pieces (snapshot, part, n, record) VALUES (?1, ?2, ?3, ?4)";
        execute(transaction, sql, params![n, part.key(), place, piece]).map_err(store)?;
    }
    Ok(())
}

pub fn pieces(connection: &Connection, cluster: ClusterId, id: SnapshotId, part: &PartId) -> Result<Vec<String>> {
    let n = number(connection, cluster, id)?;
    all(connection, PIECES, params![n, part.key()], |row| row.get("record").map_err(store))
}
