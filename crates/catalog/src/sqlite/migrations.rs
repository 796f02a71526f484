//! The schema, as steps that are each run once, in order. `PRAGMA user_version` counts those done.
//!
//! A step that was released is never changed: a new need is a new step.

use rusqlite::{Connection, TransactionBehavior};

const STEPS: &[&str] = &[
    // 1: projects, keys, clusters, leases, checkpoints. `seal` holds a known text, sealed, by which a
    // wrong key file is noticed at once.
    "CREATE TABLE seal (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        sealed BLOB NOT NULL
     ) STRICT;
     CREATE TABLE projects (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE keys (
        public TEXT PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        project TEXT NOT NULL REFERENCES projects,
        ha1_sealed BLOB NOT NULL,
        role TEXT NOT NULL,
        access_list TEXT NOT NULL,
        created TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE clusters (
        id TEXT PRIMARY KEY,
        project TEXT NOT NULL REFERENCES projects,
        name TEXT NOT NULL,
        identity TEXT NOT NULL UNIQUE,
        uri_sealed BLOB NOT NULL,
        created TEXT NOT NULL,
        UNIQUE (project, name)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE leases (
        cluster TEXT PRIMARY KEY REFERENCES clusters ON DELETE CASCADE,
        holder TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        until_ms INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE checkpoints (
        cluster TEXT NOT NULL REFERENCES clusters ON DELETE CASCADE,
        id TEXT NOT NULL,
        ended INTEGER NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (cluster, id)
     ) STRICT, WITHOUT ROWID;
     CREATE UNIQUE INDEX one_unfinished_checkpoint ON checkpoints (cluster) WHERE ended = 0;",
];

/// The format that this version writes.
pub const FORMAT: i64 = STEPS.len() as i64;

/// The format of a catalog: 0 if it is new.
pub fn format(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings a catalog up to [`FORMAT`], one transaction a step.
pub fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    for (done, step) in STEPS.iter().enumerate() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Read again inside: another process may be migrating too.
        if format(&transaction)? == done as i64 {
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "user_version", done as i64 + 1)?;
            transaction.commit()?;
        }
    }
    Ok(())
}
