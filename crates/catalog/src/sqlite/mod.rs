//! The embedded catalog: one SQLite file, in WAL mode, that the server and the command line open at
//! the same time.
//!
//! Reads are done where they are asked for: they take microseconds and WAL readers wait for nobody.
//! Writes wait for the disk, so they go to the blocking pool, one at a time from this process;
//! another process's write is waited for up to [`BUSY`].

mod audit;
mod credentials;
mod migrations;
mod open;
mod rows;
mod watch;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, ffi, params};
use secrecy::SecretString;
use stillpoint_core::checkpoint::Checkpoint;
use stillpoint_core::schedule::{Schedule, Setting};
use stillpoint_core::{CheckpointId, ClusterId, CredentialId, ProjectId, Role};

use watch::Watch;

use crate::seal::Sealer;
use crate::{
    AccessToken, AuditEntry, Catalog, CatalogError, Cluster, Credential, CredentialKind, Lease, LeaseState,
    Organization, Page, Project, Result,
};

/// How long a write waits for another process's.
pub const BUSY: Duration = Duration::from_secs(5);
/// Connections for reading that are kept open.
const IDLE_READERS: usize = 8;

/// The embedded catalog.
#[derive(Clone)]
pub struct SqliteCatalog(Arc<Inner>);

struct Inner {
    path: PathBuf,
    sealer: Sealer,
    decoy: credentials::Decoy,
    readers: Mutex<Vec<Connection>>,
    watch: Watch,
    /// Closed after those that only read: the last to close puts the write-ahead log into the file.
    writer: Mutex<Connection>,
    serving: OnceLock<File>,
}

impl std::fmt::Debug for SqliteCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SqliteCatalog({})", self.0.path.display())
    }
}

impl SqliteCatalog {
    fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = lock(&self.0.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open::connect(&self.0.path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(store)?,
        };
        let answer = query(&connection);
        let mut readers = lock(&self.0.readers);
        if readers.len() < IDLE_READERS {
            readers.push(connection);
        }
        answer
    }

    /// A read of several rows as of one moment.
    fn read_as_one<T>(&self, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.read(|connection| {
            let snapshot = connection.unchecked_transaction().map_err(store)?;
            query(&snapshot)
        })
    }

    /// Runs one write transaction; it is rolled back unless `write` succeeds.
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Transaction, &Sealer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut writer = lock(&inner.writer);
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store)?;
            let answer = write(&transaction, &inner.sealer)?;
            transaction.commit().map_err(store)?;
            inner.watch.written();
            Ok(answer)
        });
        done.await.map_err(|e| CatalogError::Store(e.to_string()))?
    }
}

/// A panic in another thread leaves the connection itself sound: its transaction was rolled back.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn store(error: rusqlite::Error) -> CatalogError {
    CatalogError::Store(error.to_string())
}

/// Turns a broken uniqueness into the caller's own error.
fn unless_taken(error: rusqlite::Error, taken: impl FnOnce() -> CatalogError) -> CatalogError {
    match error.sqlite_extended_error_code() {
        Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_UNIQUE) => taken(),
        _ => store(error),
    }
}

/// Turns a reference to what is not there into an error that names it.
fn unless_gone(
    error: rusqlite::Error,
    what: &'static str,
    other: impl FnOnce(rusqlite::Error) -> CatalogError,
) -> CatalogError {
    match error.sqlite_extended_error_code() {
        Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => CatalogError::Gone(what),
        _ => other(error),
    }
}

/// Whether `lease` is the newest of its cluster.
fn holds(transaction: &Transaction, lease: &Lease) -> Result<bool> {
    let newest = rows::lease(transaction, lease.cluster)?;
    Ok(newest.is_some_and(|newest| newest.lease == *lease))
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn begin_serving(&self) -> Result<()> {
        let mut path = self.0.path.as_os_str().to_owned();
        path.push(".serve");
        let failed = |e: std::io::Error| CatalogError::Store(e.to_string());
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        // The kernel gives the lock up when the process ends, however it ends.
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(CatalogError::AnotherServer(self.0.path.display().to_string()));
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(failed(e)),
        }
        let _ = self.0.serving.set(file);
        self.write(|transaction, _| {
            transaction.execute("UPDATE leases SET until_ms = 0", []).map_err(store)?;
            Ok(())
        })
        .await
    }

    fn version(&self) -> Result<Option<u64>> {
        Ok(Some(self.0.watch.version()?))
    }

    async fn create_organization(&self, organization: &Organization) -> Result<()> {
        let Organization { id, name, created } = organization.clone();
        self.write(move |transaction, _| {
            let sql = "INSERT INTO organizations (id, name, created) VALUES (?1, ?2, ?3)";
            let inserted = transaction.execute(sql, params![id.to_string(), name, created.to_string()]);
            let taken = || CatalogError::Duplicate { kind: "organisation", name: name.clone() };
            inserted.map(drop).map_err(|e| unless_taken(e, taken))
        })
        .await
    }

    async fn organizations(&self) -> Result<Vec<Organization>> {
        self.read(rows::organizations)
    }

    async fn create_project(&self, project: &Project) -> Result<()> {
        let Project { id, organization, name, created } = project.clone();
        self.write(move |transaction, _| {
            let sql = "INSERT INTO projects (id, organization, name, created) VALUES (?1, ?2, ?3, ?4)";
            let values = params![id.to_string(), organization.to_string(), name, created.to_string()];
            let taken = || CatalogError::Duplicate { kind: "project", name: name.clone() };
            let inserted = transaction.execute(sql, values);
            inserted.map(drop).map_err(|e| unless_gone(e, "organisation", |e| unless_taken(e, taken)))
        })
        .await
    }

    async fn project(&self, id: ProjectId) -> Result<Option<Project>> {
        self.read(|connection| rows::project(connection, "id", &id.to_string()))
    }

    async fn project_named(&self, name: &str) -> Result<Option<Project>> {
        self.read(|connection| rows::project(connection, "name", name))
    }

    async fn projects(&self) -> Result<Vec<Project>> {
        self.read(rows::projects)
    }

    async fn create_credential(&self, credential: &Credential) -> Result<()> {
        let credential = credential.clone();
        self.write(move |transaction, sealer| credentials::insert(transaction, sealer, &credential)).await
    }

    async fn credential(&self, kind: CredentialKind, login: &str) -> Result<Option<Credential>> {
        self.read_as_one(|connection| credentials::by_login(connection, &self.0.sealer, &self.0.decoy, kind, login))
    }

    async fn credentials(&self, kind: CredentialKind, project: ProjectId) -> Result<Vec<Credential>> {
        self.read_as_one(|connection| credentials::of_project(connection, &self.0.sealer, kind, project))
    }

    async fn rotate_credential(&self, id: CredentialId, proof: &SecretString) -> Result<bool> {
        let proof = proof.clone();
        self.write(move |transaction, sealer| credentials::rotate(transaction, sealer, id, &proof)).await
    }

    async fn grant(&self, id: CredentialId, project: ProjectId, role: Option<Role>) -> Result<()> {
        self.write(move |transaction, _| credentials::grant(transaction, id, project, role)).await
    }

    async fn restrict_credential(&self, id: CredentialId, access_list: &[IpNet]) -> Result<bool> {
        let access_list = access_list.to_vec();
        self.write(move |transaction, _| credentials::restrict(transaction, id, &access_list)).await
    }

    async fn delete_credential(&self, id: CredentialId) -> Result<bool> {
        self.write(move |transaction, _| credentials::delete(transaction, id)).await
    }

    async fn create_token(&self, token: &AccessToken, proof: &SecretString, now: Timestamp) -> Result<()> {
        let (token, proof) = (token.clone(), proof.clone());
        self.write(move |transaction, sealer| credentials::insert_token(transaction, sealer, &token, &proof, now)).await
    }

    async fn token(&self, hash: &[u8; 32]) -> Result<Option<(Credential, Timestamp)>> {
        self.read_as_one(|connection| credentials::token(connection, &self.0.sealer, hash))
    }

    async fn revoke_token(&self, account: CredentialId, hash: &[u8; 32]) -> Result<()> {
        let hash = *hash;
        self.write(move |transaction, _| credentials::delete_token(transaction, account, &hash)).await
    }

    async fn add_cluster(&self, cluster: &Cluster) -> Result<()> {
        let cluster = cluster.clone();
        self.write(move |transaction, sealer| {
            if let Some(name) = rows::cluster_of_identity(transaction, &cluster.identity)? {
                return Err(CatalogError::SameCluster(name));
            }
            let taken = || CatalogError::Duplicate { kind: "cluster", name: cluster.name.clone() };
            rows::insert_cluster(transaction, sealer, &cluster)?
                .map_err(|e| unless_gone(e, "project", |e| unless_taken(e, taken)))
        })
        .await
    }

    async fn cluster(&self, id: ClusterId) -> Result<Option<Cluster>> {
        self.read(|connection| rows::cluster(connection, &self.0.sealer, id))
    }

    async fn cluster_named(&self, project: ProjectId, name: &str) -> Result<Option<Cluster>> {
        self.read(|connection| rows::cluster_named(connection, &self.0.sealer, project, name))
    }

    async fn count_clusters(&self, project: ProjectId) -> Result<u64> {
        self.read(|connection| rows::count_clusters(connection, project))
    }

    async fn clusters(&self, project: Option<ProjectId>) -> Result<Vec<Cluster>> {
        self.read(|connection| rows::clusters(connection, &self.0.sealer, project))
    }

    async fn remove_cluster(&self, id: ClusterId) -> Result<()> {
        self.write(move |transaction, _| {
            if rows::unfinished_checkpoint(transaction, id)?.is_some() {
                return Err(CatalogError::InUse("the cluster"));
            }
            match transaction.execute("DELETE FROM clusters WHERE id = ?1", params![id.to_string()]).map_err(store)? {
                0 => Err(CatalogError::Gone("cluster")),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn schedule(&self, cluster: ClusterId) -> Result<Schedule> {
        self.read(|connection| rows::schedule(connection, cluster))
    }

    async fn change_schedule(&self, cluster: ClusterId, changes: &[(Setting, u32)]) -> Result<Schedule> {
        let changes = changes.to_vec();
        self.write(move |transaction, _| {
            let mut schedule = rows::schedule(transaction, cluster)?;
            changes.iter().for_each(|(setting, value)| schedule.set(*setting, *value));
            rows::save_schedule(transaction, cluster, &schedule)?.map_err(|e| unless_gone(e, "cluster", store))?;
            Ok(schedule)
        })
        .await
    }

    async fn claim_lease(
        &self,
        cluster: ClusterId,
        holder: &str,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Lease>> {
        let holder = holder.to_owned();
        self.write(move |transaction, _| {
            let before = rows::lease(transaction, cluster)?;
            if before.as_ref().is_some_and(|state| state.lease.holder != holder && state.until > now) {
                return Ok(None);
            }
            let epoch = before.map_or(1, |state| state.lease.epoch + 1);
            transaction
                .execute(
                    "INSERT INTO leases (cluster, holder, epoch, until_ms) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (cluster) DO UPDATE SET holder = ?2, epoch = ?3, until_ms = ?4",
                    params![cluster.to_string(), holder, epoch as i64, until(now, ttl)],
                )
                .map_err(|e| unless_gone(e, "cluster", store))?;
            Ok(Some(Lease { cluster, holder, epoch }))
        })
        .await
    }

    async fn renew_lease(&self, lease: &Lease, now: Timestamp, ttl: Duration) -> Result<()> {
        let lease = lease.clone();
        self.write(move |transaction, _| {
            if !holds(transaction, &lease)? {
                return Err(CatalogError::Fenced);
            }
            transaction
                .execute(
                    "UPDATE leases SET until_ms = ?2 WHERE cluster = ?1",
                    params![lease.cluster.to_string(), until(now, ttl)],
                )
                .map_err(store)?;
            Ok(())
        })
        .await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.write(move |transaction, _| {
            if holds(transaction, &lease)? {
                // The row stays: the next lease must have a higher epoch.
                transaction
                    .execute("UPDATE leases SET until_ms = 0 WHERE cluster = ?1", params![lease.cluster.to_string()])
                    .map_err(store)?;
            }
            Ok(())
        })
        .await
    }

    async fn lease(&self, cluster: ClusterId) -> Result<Option<LeaseState>> {
        self.read(|connection| rows::lease(connection, cluster))
    }

    async fn queue_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let checkpoint = checkpoint.clone();
        self.write(move |transaction, _| {
            if let Some(unfinished) = rows::unfinished_checkpoint(transaction, checkpoint.cluster)? {
                return Err(CatalogError::CheckpointUnderWay(unfinished.id));
            }
            rows::insert_checkpoint(transaction, &checkpoint)?.map_err(|e| unless_gone(e, "cluster", store))
        })
        .await
    }

    async fn save_checkpoint(&self, lease: &Lease, checkpoint: &Checkpoint) -> Result<()> {
        if let Some(rule) = checkpoint.broken_rule() {
            return Err(CatalogError::BrokenRule(rule));
        }
        let (lease, checkpoint) = (lease.clone(), checkpoint.clone());
        self.write(move |transaction, _| {
            if lease.cluster != checkpoint.cluster || !holds(transaction, &lease)? {
                return Err(CatalogError::Fenced);
            }
            let stored = rows::checkpoint(transaction, checkpoint.cluster, checkpoint.id)?;
            let stored = stored.ok_or(CatalogError::Gone("checkpoint"))?;
            if stored != checkpoint && (stored.state.ended() || stored.state > checkpoint.state) {
                return Err(CatalogError::Outdated(checkpoint.id));
            }
            rows::update_checkpoint(transaction, &checkpoint)
        })
        .await
    }

    async fn checkpoint(&self, cluster: ClusterId, id: CheckpointId) -> Result<Option<Checkpoint>> {
        self.read(|connection| rows::checkpoint(connection, cluster, id))
    }

    async fn checkpoints(&self, cluster: ClusterId, page: Page) -> Result<Vec<Checkpoint>> {
        self.read(|connection| rows::checkpoints(connection, cluster, page))
    }

    async fn count_checkpoints(&self, cluster: ClusterId) -> Result<u64> {
        self.read(|connection| rows::count_checkpoints(connection, cluster))
    }

    async fn unfinished_checkpoint(&self, cluster: ClusterId) -> Result<Option<Checkpoint>> {
        self.read(|connection| rows::unfinished_checkpoint(connection, cluster))
    }

    async fn delete_checkpoint(&self, cluster: ClusterId, id: CheckpointId) -> Result<()> {
        self.write(move |transaction, _| {
            let Some(checkpoint) = rows::checkpoint(transaction, cluster, id)? else {
                return Err(CatalogError::Gone("checkpoint"));
            };
            if !checkpoint.state.ended() {
                return Err(CatalogError::InUse("the checkpoint"));
            }
            rows::delete_checkpoint(transaction, cluster, id)
        })
        .await
    }

    async fn withdraw_checkpoint(&self, cluster: ClusterId, id: CheckpointId) -> Result<bool> {
        self.write(move |transaction, _| {
            let queued = rows::checkpoint(transaction, cluster, id)?
                .is_some_and(|checkpoint| checkpoint.state == stillpoint_core::checkpoint::State::Queued);
            if queued {
                rows::delete_checkpoint(transaction, cluster, id)?;
            }
            Ok(queued)
        })
        .await
    }

    async fn append_audit(&self, entries: &[AuditEntry]) -> Result<()> {
        let entries = entries.to_vec();
        self.write(move |transaction, _| entries.iter().try_for_each(|entry| audit::insert(transaction, entry))).await
    }

    async fn audit(&self, page: Page) -> Result<Vec<AuditEntry>> {
        self.read(|connection| audit::page(connection, page))
    }

    async fn trim_audit(&self, before: Timestamp, most: u64) -> Result<u64> {
        self.write(move |transaction, _| audit::trim(transaction, before, most)).await
    }
}

/// The end of a lease in milliseconds since the Unix epoch.
fn until(now: Timestamp, ttl: Duration) -> i64 {
    now.as_millisecond().saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
}
