//! Rows to records and back.

use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};
use secrecy::ExposeSecret;
use stillpoint_core::checkpoint::Checkpoint;
use stillpoint_core::schedule::Schedule;
use stillpoint_core::{CheckpointId, ClusterId, ProjectId};

use super::store;
use crate::seal::Sealer;
use crate::{CatalogError, Cluster, Lease, LeaseState, Organization, Page, Project, Result};

/// The inner result is a statement's own, for the caller to say what a broken uniqueness means.
pub(super) type Inserted = Result<rusqlite::Result<()>>;

pub(super) fn corrupt(what: impl Into<String>, why: impl ToString) -> CatalogError {
    CatalogError::Corrupt { what: what.into(), why: why.to_string() }
}

pub(super) fn parsed<T: FromStr>(row: &Row, column: &str) -> Result<T>
where
    T::Err: ToString,
{
    let text: String = row.get(column).map_err(store)?;
    text.parse().map_err(|e: T::Err| corrupt(format!("column {column}"), e))
}

/// The first row of a query, turned into a record.
pub(super) fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    record: impl FnOnce(&Row) -> Result<T>,
) -> Result<Option<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(store)?;
    let mut rows = statement.query(params).map_err(store)?;
    rows.next().map_err(store)?.map(record).transpose()
}

/// All rows of a query, turned into records.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    record: impl Fn(&Row) -> Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(store)?;
    let mut rows = statement.query(params).map_err(store)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(store)? {
        records.push(record(row)?);
    }
    Ok(records)
}

/// What a query counts, as `n`.
fn count(connection: &Connection, sql: &str, of: &str) -> Result<u64> {
    let n = one(connection, sql, params![of], |row| row.get::<_, i64>("n").map_err(store))?;
    Ok(n.unwrap_or(0) as u64)
}

pub(super) fn execute(transaction: &Transaction, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<usize> {
    transaction.prepare_cached(sql)?.execute(params)
}

// Organisations and projects

pub fn organizations(connection: &Connection) -> Result<Vec<Organization>> {
    all(connection, "SELECT * FROM organizations ORDER BY name", [], |row| {
        Ok(Organization {
            id: parsed(row, "id")?,
            name: row.get("name").map_err(store)?,
            created: parsed(row, "created")?,
        })
    })
}

fn project_of(row: &Row) -> Result<Project> {
    Ok(Project {
        id: parsed(row, "id")?,
        organization: parsed(row, "organization")?,
        name: row.get("name").map_err(store)?,
        created: parsed(row, "created")?,
    })
}

pub fn project(connection: &Connection, column: &'static str, value: &str) -> Result<Option<Project>> {
    one(connection, &format!("SELECT * FROM projects WHERE {column} = ?1"), params![value], project_of)
}

pub fn projects(connection: &Connection) -> Result<Vec<Project>> {
    all(connection, "SELECT * FROM projects ORDER BY name", [], project_of)
}

// Clusters

fn cluster_owner(id: ClusterId) -> String {
    format!("cluster {id}")
}

fn cluster_of(row: &Row, sealer: &Sealer) -> Result<Cluster> {
    let id: ClusterId = parsed(row, "id")?;
    let sealed: Vec<u8> = row.get("uri_sealed").map_err(store)?;
    Ok(Cluster {
        id,
        project: parsed(row, "project")?,
        name: row.get("name").map_err(store)?,
        identity: row.get("identity").map_err(store)?,
        uri: sealer.open(&cluster_owner(id), &sealed)?,
        created: parsed(row, "created")?,
    })
}

pub fn insert_cluster(transaction: &Transaction, sealer: &Sealer, cluster: &Cluster) -> Inserted {
    let sealed = sealer.seal(&cluster_owner(cluster.id), cluster.uri.expose_secret())?;
    let inserted = execute(
        transaction,
        "INSERT INTO clusters (id, project, name, identity, uri_sealed, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            cluster.id.to_string(),
            cluster.project.to_string(),
            cluster.name,
            cluster.identity,
            sealed,
            cluster.created.to_string()
        ],
    );
    Ok(inserted.map(drop))
}

/// The name of the cluster that has this identity, if one has.
pub fn cluster_of_identity(connection: &Connection, identity: &str) -> Result<Option<String>> {
    let sql = "SELECT name FROM clusters WHERE identity = ?1";
    one(connection, sql, params![identity], |row| row.get("name").map_err(store))
}

pub fn cluster(connection: &Connection, sealer: &Sealer, id: ClusterId) -> Result<Option<Cluster>> {
    let sql = "SELECT * FROM clusters WHERE id = ?1";
    one(connection, sql, params![id.to_string()], |row| cluster_of(row, sealer))
}

pub fn cluster_named(
    connection: &Connection,
    sealer: &Sealer,
    project: ProjectId,
    name: &str,
) -> Result<Option<Cluster>> {
    let sql = "SELECT * FROM clusters WHERE project = ?1 AND name = ?2";
    one(connection, sql, params![project.to_string(), name], |row| cluster_of(row, sealer))
}

pub fn count_clusters(connection: &Connection, project: ProjectId) -> Result<u64> {
    count(connection, "SELECT count(*) AS n FROM clusters WHERE project = ?1", &project.to_string())
}

pub fn clusters(connection: &Connection, sealer: &Sealer, project: Option<ProjectId>) -> Result<Vec<Cluster>> {
    let sql = "SELECT * FROM clusters WHERE ?1 IS NULL OR project = ?1 ORDER BY name";
    all(connection, sql, params![project.map(|id| id.to_string())], |row| cluster_of(row, sealer))
}

pub fn schedule(connection: &Connection, cluster: ClusterId) -> Result<Schedule> {
    let sql = "SELECT record FROM schedules WHERE cluster = ?1";
    let found = one(connection, sql, params![cluster.to_string()], |row| {
        let text: String = row.get("record").map_err(store)?;
        serde_json::from_str(&text).map_err(|e| corrupt(format!("the schedule of {cluster}"), e))
    })?;
    Ok(found.unwrap_or_default())
}

pub fn save_schedule(transaction: &Transaction, cluster: ClusterId, schedule: &Schedule) -> Inserted {
    let text = serde_json::to_string(schedule).map_err(|e| corrupt(format!("the schedule of {cluster}"), e))?;
    let sql = "INSERT INTO schedules (cluster, record) VALUES (?1, ?2) ON CONFLICT (cluster) DO UPDATE SET record = ?2";
    Ok(execute(transaction, sql, params![cluster.to_string(), text]).map(drop))
}

// Leases

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

// Checkpoints

fn checkpoint_of(row: &Row) -> Result<Checkpoint> {
    let text: &str = row.get_ref("record").map_err(store)?.as_str().map_err(|e| corrupt("a checkpoint", e))?;
    serde_json::from_str(text).map_err(|e| corrupt("a checkpoint", e))
}

fn text_of(checkpoint: &Checkpoint) -> Result<String> {
    serde_json::to_string(checkpoint).map_err(|e| corrupt(format!("checkpoint {}", checkpoint.id), e))
}

pub fn insert_checkpoint(transaction: &Transaction, checkpoint: &Checkpoint) -> Inserted {
    let inserted = execute(
        transaction,
        "INSERT INTO checkpoints (cluster, id, ended, record) VALUES (?1, ?2, ?3, ?4)",
        params![
            checkpoint.cluster.to_string(),
            checkpoint.id.to_string(),
            checkpoint.state.ended(),
            text_of(checkpoint)?
        ],
    );
    Ok(inserted.map(drop))
}

pub fn update_checkpoint(transaction: &Transaction, checkpoint: &Checkpoint) -> Result<()> {
    let updated = execute(
        transaction,
        "UPDATE checkpoints SET ended = ?3, record = ?4 WHERE cluster = ?1 AND id = ?2",
        params![
            checkpoint.cluster.to_string(),
            checkpoint.id.to_string(),
            checkpoint.state.ended(),
            text_of(checkpoint)?
        ],
    );
    match updated.map_err(store)? {
        0 => Err(CatalogError::Gone("checkpoint")),
        _ => Ok(()),
    }
}

pub fn checkpoint(connection: &Connection, cluster: ClusterId, id: CheckpointId) -> Result<Option<Checkpoint>> {
    let sql = "SELECT record FROM checkpoints WHERE cluster = ?1 AND id = ?2";
    one(connection, sql, params![cluster.to_string(), id.to_string()], checkpoint_of)
}

pub fn checkpoints(connection: &Connection, cluster: ClusterId, page: Page) -> Result<Vec<Checkpoint>> {
    // Ids begin with the time of creation, so their order is that of time.
    let sql = "SELECT record FROM checkpoints WHERE cluster = ?1 AND id IN (
                   SELECT id FROM checkpoints INDEXED BY checkpoints_in_order WHERE cluster = ?1
                   ORDER BY id DESC LIMIT ?2 OFFSET ?3)
               ORDER BY id DESC";
    let limit = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    all(connection, sql, params![cluster.to_string(), limit(page.take), limit(page.skip)], checkpoint_of)
}

pub fn count_checkpoints(connection: &Connection, cluster: ClusterId) -> Result<u64> {
    let sql = "SELECT count(*) AS n FROM checkpoints INDEXED BY checkpoints_in_order WHERE cluster = ?1";
    count(connection, sql, &cluster.to_string())
}

pub fn unfinished_checkpoint(connection: &Connection, cluster: ClusterId) -> Result<Option<Checkpoint>> {
    let sql = "SELECT record FROM checkpoints WHERE cluster = ?1 AND ended = 0";
    one(connection, sql, params![cluster.to_string()], checkpoint_of)
}

pub fn delete_checkpoint(transaction: &Transaction, cluster: ClusterId, id: CheckpointId) -> Result<()> {
    let sql = "DELETE FROM checkpoints WHERE cluster = ?1 AND id = ?2";
    execute(transaction, sql, params![cluster.to_string(), id.to_string()]).map(drop).map_err(store)
}
