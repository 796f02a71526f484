//! Rows of the audit trail.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::rows::{all, corrupt, execute, limit};
use super::store;
use crate::{AuditEntry, Page, Result};

pub fn insert(transaction: &Transaction, entry: &AuditEntry) -> Result<()> {
    let text = serde_json::to_string(entry).map_err(|e| corrupt("an audit entry", e))?;
    let sql = "INSERT INTO audit (at_ms, refused, record) VALUES (?1, ?2, ?3)";
    execute(transaction, sql, params![entry.at.as_millisecond(), entry.refused, text]).map(drop).map_err(store)
}

pub fn page(connection: &Connection, page: Page) -> Result<Vec<AuditEntry>> {
    let sql = "SELECT record FROM audit ORDER BY at_ms DESC, n DESC LIMIT ?1 OFFSET ?2";
    all(connection, sql, params![limit(page.take), limit(page.skip)], |row| {
        let text: String = row.get("record").map_err(store)?;
        serde_json::from_str(&text).map_err(|e| corrupt("an audit entry", e))
    })
}

pub fn trim(transaction: &Transaction, before: Timestamp, most: u64) -> Result<u64> {
    let old = execute(transaction, "DELETE FROM audit WHERE at_ms < ?1", params![before.as_millisecond()]);
    let mut gone = old.map_err(store)?;
    for refused in [false, true] {
        let sql = "DELETE FROM audit WHERE refused = ?1 AND n <= (
                       SELECT n FROM audit WHERE refused = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2)";
        gone += execute(transaction, sql, params![refused, limit(most)]).map_err(store)?;
    }
    Ok(gone as u64)
}
