//! Rows of leases, and the fence before every write under one.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};
use stillpoint_core::ClusterId;

use super::rows::{corrupt, execute, one};
use super::{store, unless_gone};
use crate::{CatalogError, Lease, LeaseState, Result};

pub fn lease(connection: &Connection, cluster: ClusterId) -> Result<Option<LeaseState>> {
    one(connection, "SELECT * FROM leases WHERE cluster = ?1", params![cluster.to_string()], |row| {
        let epoch: i64 = row.get("epoch").map_err(store)?;
        let until: i64 = row.get("until_ms").map_err(store)?;
        Ok(LeaseState {
            lease: Lease { cluster, holder: row.get("holder").map_err(store)?, epoch: epoch as u64 },
            until: Timestamp::from_millisecond(until).map_err(|e| corrupt(format!("lease of {cluster}"), e))?,
        })
    })
}

/// Whether `lease` is the newest of its cluster.
fn holds(transaction: &Transaction, held: &Lease) -> Result<bool> {
    let newest = lease(transaction, held.cluster)?;
    Ok(newest.is_some_and(|newest| newest.lease == *held))
}

/// `Fenced` unless `lease` is the newest of this cluster.
pub fn fence(transaction: &Transaction, lease: &Lease, cluster: ClusterId) -> Result<()> {
    match lease.cluster == cluster && holds(transaction, lease)? {
        true => Ok(()),
        false => Err(CatalogError::Fenced),
    }
}

pub fn claim(
    transaction: &Transaction,
    cluster: ClusterId,
    holder: String,
    now: Timestamp,
    ttl: Duration,
) -> Result<Option<Lease>> {
    let before = lease(transaction, cluster)?;
    if before.as_ref().is_some_and(|state| state.lease.holder != holder && state.until > now) {
        return Ok(None);
    }
    let epoch = before.map_or(1, |state| state.lease.epoch + 1);
    execute(
        transaction,
        "INSERT INTO leases (cluster, holder, epoch, until_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (cluster) DO UPDATE SET holder = ?2, epoch = ?3, until_ms = ?4",
        params![cluster.to_string(), holder, epoch as i64, until(now, ttl)],
    )
    .map_err(|e| unless_gone(e, "cluster", store))?;
    Ok(Some(Lease { cluster, holder, epoch }))
}

pub fn renew(transaction: &Transaction, lease: &Lease, now: Timestamp, ttl: Duration) -> Result<()> {
    fence(transaction, lease, lease.cluster)?;
    let sql = "UPDATE leases SET until_ms = ?2 WHERE cluster = ?1";
    execute(transaction, sql, params![lease.cluster.to_string(), until(now, ttl)]).map(drop).map_err(store)
}

pub fn release(transaction: &Transaction, lease: &Lease) -> Result<()> {
    if holds(transaction, lease)? {
        // The row stays: the next lease must have a higher epoch.
        let sql = "UPDATE leases SET until_ms = 0 WHERE cluster = ?1";
        execute(transaction, sql, params![lease.cluster.to_string()]).map_err(store)?;
    }
    Ok(())
}

pub fn end_all(transaction: &Transaction) -> Result<()> {
    execute(transaction, "UPDATE leases SET until_ms = 0", []).map(drop).map_err(store)
}

/// The end of a lease in milliseconds since the Unix epoch.
fn until(now: Timestamp, ttl: Duration) -> i64 {
    now.as_millisecond().saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
}
