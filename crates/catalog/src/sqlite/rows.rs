//! Rows to records and back: what all kinds share, then organisations, projects and clusters.

use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stillpoint_core::schedule::Schedule;
use stillpoint_core::{ClusterId, ProjectId};

use super::{checkpoints, drills, restores, retention, snapshots, store};
use crate::seal::Sealer;
use crate::{CatalogError, Cluster, Organization, Project, Result};

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
pub(super) fn count(connection: &Connection, sql: &str, of: &str) -> Result<u64> {
    let n = one(connection, sql, params![of], |row| row.get::<_, i64>("n").map_err(store))?;
    Ok(n.unwrap_or(0) as u64)
}

pub(super) fn execute(transaction: &Transaction, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<usize> {
    transaction.prepare_cached(sql)?.execute(params)
}

/// A number of rows as SQLite takes it.
pub(super) fn limit(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The column `record` of a row, read.
pub(super) fn record_of<T: DeserializeOwned>(row: &Row, what: &str) -> Result<T> {
    let text: &str = row.get_ref("record").map_err(store)?.as_str().map_err(|e| corrupt(what, e))?;
    serde_json::from_str(text).map_err(|e| corrupt(what, e))
}

pub(super) fn text_of<T: Serialize>(record: &T, what: &str) -> Result<String> {
    serde_json::to_string(record).map_err(|e| corrupt(what, e))
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

/// Its blobs are doomed; whatever else refers to it goes with it.
pub fn delete_cluster(transaction: &Transaction, id: ClusterId, now: Timestamp) -> Result<()> {
    let restored = restores::unfinished(transaction, id)?.or(restores::unfinished_into(transaction, id)?);
    let drilled = drills::unfinished(transaction, id)?;
    if restored.is_some() || drilled.is_some() || checkpoints::unfinished(transaction, id)?.is_some() {
        return Err(CatalogError::InUse("the cluster"));
    }
    snapshots::delete_all(transaction, id, now)?;
    retention::doom_cluster(transaction, id, now)?;
    match execute(transaction, "DELETE FROM clusters WHERE id = ?1", params![id.to_string()]).map_err(store)? {
        0 => Err(CatalogError::Gone("cluster")),
        _ => Ok(()),
    }
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
