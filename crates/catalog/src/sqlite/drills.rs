//! Rows of drills, the newest of each cluster, and when the next ones are.

use rusqlite::{Connection, Row, Transaction, params};
use stillpoint_core::drill::{Drill, Schedule};
use stillpoint_core::{ClusterId, DrillId};

use super::rows::{all, execute, limit, one, record_of, text_of};
use super::{leases, store, unless_gone};
use crate::{CatalogError, DRILLS_KEPT, Lease, Page, Result};

const WHAT: &str = "a drill";
const SCHEDULE: &str = "a schedule of drills";

pub(super) const PAGE: &str = "SELECT record FROM drills WHERE cluster = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3";
pub(super) const ONE: &str = "SELECT record FROM drills WHERE cluster = ?1 AND id = ?2";
pub(super) const UNFINISHED: &str = "SELECT record FROM drills WHERE cluster = ?1 AND ended = 0";
pub(super) const WRITE: &str = "UPDATE drills SET ended = ?3, record = ?4 WHERE cluster = ?1 AND id = ?2";
pub(super) const FORGET: &str = "DELETE FROM drills WHERE cluster = ?1 AND id = ?2 AND ended";
pub(super) const FORGET_RESTORE: &str = "DELETE FROM restores WHERE cluster = ?1 AND id = ?2 AND ended";
pub(super) const SCHEDULED: &str = "SELECT record FROM drill_schedules WHERE cluster = ?1";

fn drill_of(row: &Row) -> Result<Drill> {
    record_of(row, WHAT)
}

/// The oldest beyond those that are kept go, and their restores with them; but for one that has left something, by
/// whose restore that is known.
pub fn queue(transaction: &Transaction, drill: &Drill) -> Result<()> {
    if let Some(rule) = drill.broken_rule() {
        return Err(CatalogError::BrokenRule(rule));
    }
    if let Some(unfinished) = unfinished(transaction, drill.cluster)? {
        return Err(CatalogError::DrillUnderWay(unfinished.id));
    }
    let cluster = drill.cluster.to_string();
    let sql = "INSERT INTO drills (cluster, id, ended, record) VALUES (?1, ?2, ?3, ?4)";
    let values = params![cluster, drill.id.to_string(), drill.state.ended(), text_of(drill, WHAT)?];
    execute(transaction, sql, values).map_err(|e| unless_gone(e, "cluster", store))?;
    for old in page(transaction, drill.cluster, Page { skip: DRILLS_KEPT, take: u64::MAX })? {
        if old.left.is_some() {
            continue;
        }
        execute(transaction, FORGET, params![cluster, old.id.to_string()]).map_err(store)?;
        if let Some(restore) = old.restore {
            execute(transaction, FORGET_RESTORE, params![cluster, restore.to_string()]).map_err(store)?;
        }
    }
    Ok(())
}

pub fn save(transaction: &Transaction, lease: &Lease, drill: &Drill) -> Result<()> {
    leases::fence(transaction, lease, drill.cluster)?;
    if let Some(rule) = drill.broken_rule() {
        return Err(CatalogError::BrokenRule(rule));
    }
    let stored = one_of(transaction, drill.cluster, drill.id)?.ok_or(CatalogError::Gone("drill"))?;
    if stored != *drill && (stored.state.ended() || stored.state > drill.state) {
        return Err(CatalogError::DrillOutdated(drill.id));
    }
    let values = params![drill.cluster.to_string(), drill.id.to_string(), drill.state.ended(), text_of(drill, WHAT)?];
    execute(transaction, WRITE, values).map(drop).map_err(store)
}

pub fn one_of(connection: &Connection, cluster: ClusterId, id: DrillId) -> Result<Option<Drill>> {
    one(connection, ONE, params![cluster.to_string(), id.to_string()], drill_of)
}

pub fn page(connection: &Connection, cluster: ClusterId, page: Page) -> Result<Vec<Drill>> {
    all(connection, PAGE, params![cluster.to_string(), limit(page.take), limit(page.skip)], drill_of)
}

pub fn unfinished(connection: &Connection, cluster: ClusterId) -> Result<Option<Drill>> {
    one(connection, UNFINISHED, params![cluster.to_string()], drill_of)
}

pub fn schedule(connection: &Connection, cluster: ClusterId) -> Result<Option<Schedule>> {
    one(connection, SCHEDULED, params![cluster.to_string()], |row| record_of(row, SCHEDULE))
}

pub fn set_schedule(transaction: &Transaction, cluster: ClusterId, schedule: Option<&Schedule>) -> Result<()> {
    let cluster = cluster.to_string();
    let done = match schedule {
        Some(schedule) => execute(
            transaction,
            "INSERT INTO drill_schedules (cluster, record) VALUES (?1, ?2) ON CONFLICT (cluster) DO UPDATE SET record = ?2",
            params![cluster, text_of(schedule, SCHEDULE)?],
        ),
        None => execute(transaction, "DELETE FROM drill_schedules WHERE cluster = ?1", params![cluster]),
    };
    done.map(drop).map_err(|e| unless_gone(e, "cluster", store))
}
