//! The embedded catalog: one SQLite file, in WAL mode, that the server and the command line open at
//! the same time.
//!
//! Reads are done where they are asked for: they take microseconds and WAL readers wait for nobody.
//! Writes wait for the disk, so they go to the blocking pool, one at a time from this process;
//! another process's write is waited for up to [`BUSY`].

mod audit;
mod catalog;
mod checkpoints;
mod credentials;
mod drills;
mod gaps;
mod identity;
mod leases;
mod migrations;
mod open;
#[cfg(test)]
mod plans;
mod restores;
mod retention;
mod rows;
mod segments;
mod snapshots;
mod streams;
mod watch;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, ffi};

use watch::Watch;

use crate::seal::Sealer;
use crate::{CatalogError, Result};

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
