//! Rows of checkpoints.

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};
use stillpoint_core::checkpoint::{Checkpoint, State};
use stillpoint_core::verification::Verification;
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime};

use super::rows::{self, all, execute, limit, one, parsed, record_of, text_of};
use super::{leases, store, unless_gone};
use crate::{CatalogError, Lease, Page, Result};

const WHAT: &str = "a checkpoint";

fn checkpoint_of(row: &Row) -> Result<Checkpoint> {
    record_of(row, WHAT)
}

pub fn queue(transaction: &Transaction, checkpoint: &Checkpoint) -> Result<()> {
    if let Some(unfinished) = unfinished(transaction, checkpoint.cluster)? {
        return Err(CatalogError::CheckpointUnderWay(unfinished.id));
    }
    let sql = "INSERT INTO checkpoints (cluster, id, ended, record) VALUES (?1, ?2, ?3, ?4)";
    let inserted = execute(transaction, sql, values(checkpoint, &text_of(checkpoint, WHAT)?));
    inserted.map(drop).map_err(|e| unless_gone(e, "cluster", store))
}

pub fn save(transaction: &Transaction, lease: &Lease, checkpoint: &Checkpoint) -> Result<()> {
    if let Some(rule) = checkpoint.broken_rule() {
        return Err(CatalogError::BrokenRule(rule));
    }
    leases::fence(transaction, lease, checkpoint.cluster)?;
    let stored = one_of(transaction, checkpoint.cluster, checkpoint.id)?.ok_or(CatalogError::Gone("checkpoint"))?;
    if stored != *checkpoint && (stored.state.ended() || stored.state > checkpoint.state) {
        return Err(CatalogError::Outdated(checkpoint.id));
    }
    let sql = "UPDATE checkpoints SET ended = ?3, record = ?4 WHERE cluster = ?1 AND id = ?2";
    match execute(transaction, sql, values(checkpoint, &text_of(checkpoint, WHAT)?)).map_err(store)? {
        0 => Err(CatalogError::Gone("checkpoint")),
        _ => Ok(()),
    }
}

pub fn verified(transaction: &Transaction, lease: &Lease, id: CheckpointId, verification: Verification) -> Result<()> {
    leases::fence(transaction, lease, lease.cluster)?;
    let mut checkpoint = one_of(transaction, lease.cluster, id)?.ok_or(CatalogError::Gone("checkpoint"))?;
    if !checkpoint.state.ended() {
        return Err(CatalogError::InUse("the checkpoint"));
    }
    checkpoint.verification = Some(verification);
    let sql = "UPDATE checkpoints SET ended = ?3, record = ?4 WHERE cluster = ?1 AND id = ?2";
    let record = text_of(&checkpoint, WHAT)?;
    execute(transaction, sql, values(&checkpoint, &record)).map(drop).map_err(store)
}

fn values<'a>(checkpoint: &Checkpoint, record: &'a str) -> (String, String, bool, &'a str) {
    (checkpoint.cluster.to_string(), checkpoint.id.to_string(), checkpoint.state.ended(), record)
}

pub fn one_of(connection: &Connection, cluster: ClusterId, id: CheckpointId) -> Result<Option<Checkpoint>> {
    let sql = "SELECT record FROM checkpoints WHERE cluster = ?1 AND id = ?2";
    one(connection, sql, params![cluster.to_string(), id.to_string()], checkpoint_of)
}

pub fn page(connection: &Connection, cluster: ClusterId, page: Page) -> Result<Vec<Checkpoint>> {
    // Ids begin with the time of creation, so their order is that of time.
    let sql = "SELECT record FROM checkpoints WHERE cluster = ?1 AND id IN (
                   SELECT id FROM checkpoints INDEXED BY checkpoints_in_order WHERE cluster = ?1
                   ORDER BY id DESC LIMIT ?2 OFFSET ?3)
               ORDER BY id DESC";
    all(connection, sql, params![cluster.to_string(), limit(page.take), limit(page.skip)], checkpoint_of)
}

pub fn count(connection: &Connection, cluster: ClusterId) -> Result<u64> {
    let sql = "SELECT count(*) AS n FROM checkpoints INDEXED BY checkpoints_in_order WHERE cluster = ?1";
    rows::count(connection, sql, &cluster.to_string())
}

pub fn unfinished(connection: &Connection, cluster: ClusterId) -> Result<Option<Checkpoint>> {
    let sql = "SELECT record FROM checkpoints WHERE cluster = ?1 AND ended = 0";
    one(connection, sql, params![cluster.to_string()], checkpoint_of)
}

pub fn delete(transaction: &Transaction, cluster: ClusterId, id: CheckpointId) -> Result<()> {
    let checkpoint = one_of(transaction, cluster, id)?.ok_or(CatalogError::Gone("checkpoint"))?;
    match checkpoint.state.ended() {
        true => delete_row(transaction, cluster, id),
        false => Err(CatalogError::InUse("the checkpoint")),
    }
}

pub fn withdraw(transaction: &Transaction, cluster: ClusterId, id: CheckpointId) -> Result<bool> {
    let queued = one_of(transaction, cluster, id)?.is_some_and(|checkpoint| checkpoint.state == State::Queued);
    if queued {
        delete_row(transaction, cluster, id)?;
    }
    Ok(queued)
}

fn delete_row(transaction: &Transaction, cluster: ClusterId, id: CheckpointId) -> Result<()> {
    let sql = "DELETE FROM checkpoints WHERE cluster = ?1 AND id = ?2";
    execute(transaction, sql, params![cluster.to_string(), id.to_string()]).map(drop).map_err(store)
}

/// In no order of their ids: those are in the order of this host's clock, which may have been put back.
pub fn oldest_cut(connection: &Connection, cluster: ClusterId) -> Result<Option<ClusterTime>> {
    let sql = "SELECT record FROM checkpoints WHERE cluster = ?1 AND record ->> '$.cut.seconds' IS NOT NULL
               ORDER BY record ->> '$.cut.seconds', record ->> '$.cut.increment' LIMIT 1";
    let oldest = one(connection, sql, params![cluster.to_string()], checkpoint_of)?;
    Ok(oldest.and_then(|checkpoint| checkpoint.cut))
}

pub fn expired(connection: &Connection, cluster: ClusterId, before: Timestamp, most: u64) -> Result<Vec<CheckpointId>> {
    let sql = "SELECT id FROM checkpoints WHERE cluster = ?1 AND record ->> 'state' = 'COMPLETED'
               ORDER BY id DESC LIMIT 1";
    let newest: Option<CheckpointId> = one(connection, sql, params![cluster.to_string()], |row| parsed(row, "id"))?;
    let sql = "SELECT record FROM checkpoints WHERE cluster = ?1 AND ended = 1 ORDER BY id";
    let mut statement = connection.prepare_cached(sql).map_err(store)?;
    let mut rows = statement.query(params![cluster.to_string()]).map_err(store)?;
    let mut expired = Vec::new();
    while let Some(row) = rows.next().map_err(store)? {
        let checkpoint = checkpoint_of(row)?;
        // One is under way at a time: those that were begun later ended later.
        if expired.len() as u64 >= most || checkpoint.ended.is_none_or(|ended| ended >= before) {
            break;
        }
        if Some(checkpoint.id) != newest {
            expired.push(checkpoint.id);
        }
    }
    Ok(expired)
}
