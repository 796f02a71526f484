//! Opening a catalog: made if there is none, brought up to date if it is older, refused if it is another's
//! or a newer version's.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::watch::Watch;
use super::{BUSY, Inner, SqliteCatalog, credentials, migrations, store};
use crate::seal::Sealer;
use crate::{CatalogError, Result};

/// What is sealed into each catalog to know its key by.
const SEALED: &str = "the catalog";

impl SqliteCatalog {
    /// Opens a catalog with the key of a key file. Both are made if there is neither; a new key would
    /// be of no use to a catalog that exists.
    pub fn open_with_key_file(path: &Path, key_file: &Path) -> Result<SqliteCatalog> {
        if path.exists() && !key_file.exists() {
            let (key, catalog) = (key_file.display().to_string(), path.display().to_string());
            return Err(CatalogError::KeyFileMissing { key, catalog });
        }
        SqliteCatalog::open(path, Sealer::from_file(key_file)?)
    }

    /// Opens a catalog, makes it if there is none, and brings an older one up to date. Nothing is
    /// written to a file that is no catalog or that a newer version wrote.
    pub fn open(path: &Path, sealer: Sealer) -> Result<SqliteCatalog> {
        let unreadable = |why: String| CatalogError::Unreadable { path: path.display().to_string(), why };
        // Made here, so that no other user of the machine can read it even for a moment.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(unreadable(e.to_string())),
            _ => {}
        }
        let mut writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|e| unreadable(e.to_string()))?;
        let (found, tables) = look(&mut writer).map_err(|e| unreadable(e.to_string()))?;
        if found > migrations::FORMAT {
            return Err(CatalogError::Newer { path: path.display().to_string(), found, known: migrations::FORMAT });
        }
        if found == 0 && tables {
            return Err(unreadable("it is an SQLite file of something else".into()));
        }
        enter_wal_mode(&writer)
            // A record must be on the disk before what it announces is done to a cluster.
            .and_then(|()| writer.pragma_update(None, "synchronous", "full"))
            .and_then(|()| migrations::migrate(&mut writer))
            .map_err(|e| unreadable(e.to_string()))?;
        check_seal(&mut writer, &sealer)?;
        let watch = Watch::new(connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(store)?);
        Ok(SqliteCatalog(Arc::new(Inner {
            path: path.to_owned(),
            decoy: credentials::Decoy::new(&sealer)?,
            sealer,
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            watch,
            serving: OnceLock::new(),
        })))
    }
}

pub(super) fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// Seals a known text into a new catalog, and opens it in one that exists: a wrong key is an error now,
/// not when the first connection string is needed.
fn check_seal(writer: &mut Connection, sealer: &Sealer) -> Result<()> {
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store)?;
    let read = transaction.query_row("SELECT sealed FROM seal", [], |row| row.get::<_, Vec<u8>>(0)).optional();
    match read.map_err(store)? {
        Some(sealed) => drop(sealer.open(SEALED, &sealed)?),
        None => {
            let sealed = sealer.seal(SEALED, SEALED)?;
            transaction.execute("INSERT INTO seal (one, sealed) VALUES (1, ?1)", params![sealed]).map_err(store)?;
        }
    }
    transaction.commit().map_err(store)
}

/// The format, and whether there is any table: as of one moment, since another process may be making
/// the same catalog.
fn look(writer: &mut Connection) -> rusqlite::Result<(i64, bool)> {
    let snapshot = writer.transaction()?;
    let tables = snapshot.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?;
    Ok((migrations::format(&snapshot)?, tables))
}

/// SQLite itself waits for other processes in everything but this.
fn enter_wal_mode(writer: &Connection) -> rusqlite::Result<()> {
    let since = Instant::now();
    loop {
        match writer.pragma_update(None, "journal_mode", "wal") {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && since.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}
