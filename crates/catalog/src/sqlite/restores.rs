//! Rows of restores, the sealed connection strings of their targets, and the marks of one that is under way.
//!
//! A restore belongs to the cluster that it is from. What is to be downloaded is found by its job alone.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, Row, Transaction, params};
use secrecy::{ExposeSecret, SecretString};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::{Gone, Mark, Restore, State, Target};
use stillpoint_core::{ClusterId, RestoreId};

use super::rows::{self, all, execute, limit, one, record_of, text_of};
use super::{leases, store, unless_gone};
use crate::seal::Sealer;
use crate::{CatalogError, Lease, Page, Result};

const WHAT: &str = "a restore";
const MARK: &str = "a mark of a restore";

pub(super) const PAGE: &str = "SELECT record FROM restores WHERE cluster = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3";
pub(super) const ONE: &str = "SELECT record FROM restores WHERE cluster = ?1 AND id = ?2";
pub(super) const NUMBER: &str = "SELECT n FROM restores WHERE cluster = ?1 AND id = ?2";
pub(super) const URI: &str = "SELECT uri_sealed FROM restores WHERE cluster = ?1 AND id = ?2";
pub(super) const COUNT: &str = "SELECT count(*) AS n FROM restores WHERE cluster = ?1";
pub(super) const COUNT_PARTS: &str =
    "SELECT coalesce(sum(json_array_length(record, '$.parts')), 0) AS n FROM restores WHERE cluster = ?1";
/// Of those that have ended the last that so many come after.
pub(super) const BEYOND: &str =
    "SELECT id FROM restores WHERE cluster = ?1 AND ended = 1 ORDER BY id DESC LIMIT 1 OFFSET ?2";
/// Ids are in the order of the times at which they were made.
pub(super) const FORGET: &str = "DELETE FROM restores WHERE cluster = ?1 AND ended = 1 AND id <= ?2";
pub(super) const UNFINISHED: &str = "SELECT record FROM restores WHERE cluster = ?1 AND ended = 0";
pub(super) const UNFINISHED_INTO: &str = "SELECT record FROM restores WHERE target = ?1 AND ended = 0";
/// What has ended needs no connection string.
pub(super) const WRITE: &str =
    "UPDATE restores SET ended = ?2, record = ?3, uri_sealed = iif(?2, NULL, uri_sealed) WHERE n = ?1";
pub(super) const ADD_MARK: &str =
    "INSERT INTO restore_marks (restore, part, collection, record) VALUES (?1, ?2, ?3, ?4)
     ON CONFLICT (restore, part, collection) DO UPDATE SET record = ?4";
pub(super) const MARKS: &str =
    "SELECT collection, record FROM restore_marks WHERE restore = ?1 ORDER BY part, collection";
pub(super) const FORGET_MARKS: &str = "DELETE FROM restore_marks WHERE restore = ?1";
pub(super) const ADD_DOWNLOAD: &str = "INSERT INTO downloads (job, restore) VALUES (?1, ?2)";
pub(super) const DOWNLOAD: &str =
    "SELECT record FROM restores JOIN downloads ON restores.n = downloads.restore WHERE downloads.job = ?1";

fn restore_of(row: &Row) -> Result<Restore> {
    record_of(row, WHAT)
}

/// What a connection string is sealed for: it opens for no other restore.
fn owner(id: RestoreId) -> String {
    format!("restore {id}")
}

pub fn queue(transaction: &Transaction, sealer: &Sealer, restore: &Restore, uri: Option<&SecretString>) -> Result<()> {
    let target = match restore.target {
        Target::Cluster(target) => Some(target),
        Target::Hosts(_) | Target::Download { .. } => None,
    };
    if !restore.state.ended() && matches!(restore.target, Target::Hosts(_)) != uri.is_some() {
        return Err(CatalogError::BrokenRule("it has a connection string if and only if its target is not kept here"));
    }
    if let Some(unfinished) = unfinished(transaction, restore.cluster)? {
        return Err(CatalogError::RestoreUnderWay(unfinished.id));
    }
    if let Some(target) = target {
        if let Some(unfinished) = unfinished_into(transaction, target)? {
            return Err(CatalogError::RestoreUnderWay(unfinished.id));
        }
        let sql = "SELECT 1 FROM clusters WHERE id = ?1";
        one(transaction, sql, params![target.to_string()], |_| Ok(()))?.ok_or(CatalogError::Gone("target cluster"))?;
    }
    let uri = uri.filter(|_| !restore.state.ended());
    let sealed = uri.map(|uri| sealer.seal(&owner(restore.id), uri.expose_secret())).transpose()?;
    let sql = "INSERT INTO restores (cluster, id, ended, target, uri_sealed, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![
        restore.cluster.to_string(),
        restore.id.to_string(),
        restore.state.ended(),
        target.map(|target| target.to_string()),
        sealed,
        text_of(restore, WHAT)?
    ];
    execute(transaction, sql, values).map_err(|e| unless_gone(e, "cluster", store))?;
    if let Target::Download { .. } = restore.target {
        let n = transaction.last_insert_rowid();
        for part in &restore.parts {
            execute(transaction, ADD_DOWNLOAD, params![part.job.to_string(), n]).map_err(store)?;
        }
    }
    Ok(())
}

pub fn uri(
    connection: &Connection,
    sealer: &Sealer,
    cluster: ClusterId,
    id: RestoreId,
) -> Result<Option<SecretString>> {
    let sealed = one(connection, URI, params![cluster.to_string(), id.to_string()], |row| {
        row.get::<_, Option<Vec<u8>>>("uri_sealed").map_err(store)
    })?;
    sealed.flatten().map(|sealed| Ok(sealer.open(&owner(id), &sealed)?)).transpose()
}

pub fn save(transaction: &Transaction, lease: &Lease, mut restore: Restore, marks: &[Mark]) -> Result<()> {
    leases::fence(transaction, lease, restore.cluster)?;
    let stored = one_of(transaction, restore.cluster, restore.id)?.ok_or(CatalogError::Gone("restore"))?;
    // Whoever is at it may not know yet.
    restore.cancelled |= stored.cancelled;
    if let Some(rule) = restore.broken_rule() {
        return Err(CatalogError::BrokenRule(rule));
    }
    if restore.cancelled
        && matches!(restore.target, Target::Download { .. })
        && restore.state == State::Finished
        && !stored.state.ended()
    {
        // Whoever cancelled it was told that there will be no links.
        restore.state = State::Killed;
    }
    if stored != restore && (stored.state.ended() || stored.state > restore.state) {
        return Err(CatalogError::RestoreOutdated(restore.id));
    }
    write(transaction, &restore)?;
    if restore.state.ended() {
        return Ok(());
    }
    let n = number(transaction, restore.cluster, restore.id)?;
    for Mark { part, collection, record } in marks {
        let values = params![n, part.key(), collection, text_of(&(part, record), MARK)?];
        execute(transaction, ADD_MARK, values).map_err(store)?;
    }
    Ok(())
}

/// With what has ended, what only one under way needs goes.
fn write(transaction: &Transaction, restore: &Restore) -> Result<()> {
    let n = number(transaction, restore.cluster, restore.id)?;
    execute(transaction, WRITE, params![n, restore.state.ended(), text_of(restore, WHAT)?]).map_err(store)?;
    if restore.state.ended() {
        execute(transaction, FORGET_MARKS, params![n]).map_err(store)?;
    }
    Ok(())
}

pub fn cancel(transaction: &Transaction, cluster: ClusterId, id: RestoreId, now: Timestamp) -> Result<Restore> {
    let mut restore = one_of(transaction, cluster, id)?.ok_or(CatalogError::Gone("restore"))?;
    let can_be_downloaded = restore.can_be_downloaded(now);
    if restore.state.ended() && !can_be_downloaded {
        return Err(CatalogError::RestoreEnded(id));
    }
    restore.cancelled = true;
    if restore.state == State::Queued || can_be_downloaded {
        (restore.state, restore.ended, restore.trouble) = (State::Killed, Some(now), None);
    }
    write(transaction, &restore)?;
    Ok(restore)
}

/// The restore that a job belongs to, if that is to be downloaded.
pub fn download(connection: &Connection, job: RestoreId) -> Result<Option<Restore>> {
    one(connection, DOWNLOAD, params![job.to_string()], restore_of)
}

/// What was noted first stays.
pub fn end_download(transaction: &Transaction, job: RestoreId, gone: Gone) -> Result<()> {
    let mut restore = download(transaction, job)?.ok_or(CatalogError::Gone("download"))?;
    let file = restore.parts.iter_mut().find(|part| part.job == job).and_then(|part| part.file.as_mut());
    match file {
        Some(file) if file.gone.is_none() => file.gone = Some(gone),
        _ => return Ok(()),
    }
    write(transaction, &restore)
}

/// What a link is proved by.
fn link(job: RestoreId) -> String {
    format!("download {job}")
}

/// The job, and what only who has the key can say of it.
pub fn token(sealer: &Sealer, job: RestoreId) -> SecretString {
    format!("{job}{}", hex::encode(sealer.proof(&link(job)))).into()
}

/// Looks nothing up: whoever has no link is told so without a question to the store.
pub fn job_of(sealer: &Sealer, token: &str) -> Option<RestoreId> {
    let (job, proof) = token.split_at_checked(24)?;
    let job = job.parse().ok()?;
    sealer.proves(&link(job), &hex::decode(proof).ok()?).then_some(job)
}

fn number(connection: &Connection, cluster: ClusterId, id: RestoreId) -> Result<i64> {
    let n = one(connection, NUMBER, params![cluster.to_string(), id.to_string()], |row| row.get("n").map_err(store))?;
    n.ok_or(CatalogError::Gone("restore"))
}

pub fn marks(connection: &Connection, cluster: ClusterId, id: RestoreId) -> Result<Vec<Mark>> {
    let n = number(connection, cluster, id)?;
    all(connection, MARKS, params![n], |row| {
        let (part, record): (PartId, String) = record_of(row, MARK)?;
        Ok(Mark { part, collection: row.get("collection").map_err(store)?, record })
    })
}

pub fn one_of(connection: &Connection, cluster: ClusterId, id: RestoreId) -> Result<Option<Restore>> {
    one(connection, ONE, params![cluster.to_string(), id.to_string()], restore_of)
}

pub fn page(connection: &Connection, cluster: ClusterId, page: Page) -> Result<Vec<Restore>> {
    all(connection, PAGE, params![cluster.to_string(), limit(page.take), limit(page.skip)], restore_of)
}

pub fn count(connection: &Connection, cluster: ClusterId) -> Result<u64> {
    rows::count(connection, COUNT, &cluster.to_string())
}

pub fn count_parts(connection: &Connection, cluster: ClusterId) -> Result<u64> {
    rows::count(connection, COUNT_PARTS, &cluster.to_string())
}

pub fn forget(transaction: &Transaction, cluster: ClusterId, before: Timestamp, most: u64) -> Result<u64> {
    let beyond =
        one(transaction, BEYOND, params![cluster.to_string(), limit(most)], |row| row.get("id").map_err(store))?;
    // No time of an id is before that.
    let last = before.checked_sub(SignedDuration::from_nanos(1)).ok().filter(|last| *last >= Timestamp::UNIX_EPOCH);
    let before = last.map(|last| RestoreId::new(last, u64::MAX).to_string());
    let Some(until) = before.max(beyond) else { return Ok(0) };
    Ok(execute(transaction, FORGET, params![cluster.to_string(), until]).map_err(store)? as u64)
}

/// The one from a cluster.
pub fn unfinished(connection: &Connection, cluster: ClusterId) -> Result<Option<Restore>> {
    one(connection, UNFINISHED, params![cluster.to_string()], restore_of)
}

/// The one into a cluster.
pub fn unfinished_into(connection: &Connection, target: ClusterId) -> Result<Option<Restore>> {
    one(connection, UNFINISHED_INTO, params![target.to_string()], restore_of)
}
