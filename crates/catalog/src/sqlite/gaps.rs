//! Rows of gaps.

use rusqlite::{Connection, Transaction, params};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::Gap;
use stillpoint_core::{ClusterId, ClusterTime};

use super::rows::{all, execute, record_of, text_of};
use super::{store, unless_gone};
use crate::Result;

const WHAT: &str = "a gap";

pub fn all_of(connection: &Connection, cluster: ClusterId) -> Result<Vec<Gap>> {
    let sql = "SELECT record FROM gaps WHERE cluster = ?1 ORDER BY part, after_s, after_i, until_s, until_i";
    all(connection, sql, params![cluster.to_string()], |row| record_of(row, WHAT))
}

pub fn insert(transaction: &Transaction, cluster: ClusterId, gap: &Gap) -> Result<()> {
    let Gap { part, after, until, .. } = gap;
    execute(
        transaction,
        "INSERT INTO gaps (cluster, part, after_s, after_i, until_s, until_i, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (cluster, part, after_s, after_i, until_s, until_i) DO UPDATE SET record = ?7",
        params![
            cluster.to_string(),
            part.key(),
            after.seconds,
            after.increment,
            until.seconds,
            until.increment,
            text_of(gap, WHAT)?
        ],
    )
    .map(drop)
    .map_err(|e| unless_gone(e, "cluster", store))
}

/// The shard is back: the gap that was noted when it went is replaced by one that has an end.
pub fn delete_endless(transaction: &Transaction, cluster: ClusterId, part: &PartId) -> Result<()> {
    let sql = "DELETE FROM gaps WHERE cluster = ?1 AND part = ?2 AND (until_s, until_i) = (?3, ?4)
               AND record ->> 'cause' = 'SHARD_AWAY'";
    let ClusterTime { seconds, increment } = ClusterTime::MAX;
    execute(transaction, sql, params![cluster.to_string(), part.key(), seconds, increment]).map(drop).map_err(store)
}

pub fn delete(
    transaction: &Transaction,
    cluster: ClusterId,
    part: &PartId,
    after: ClusterTime,
    until: ClusterTime,
) -> Result<()> {
    let sql = "DELETE FROM gaps
               WHERE cluster = ?1 AND part = ?2 AND (after_s, after_i) = (?3, ?4) AND (until_s, until_i) = (?5, ?6)";
    let key = params![cluster.to_string(), part.key(), after.seconds, after.increment, until.seconds, until.increment];
    execute(transaction, sql, key).map(drop).map_err(store)
}
