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
    // 2: organisations; keys and service accounts with a role in each of several projects; access
    // tokens, schedules, the audit trail. What was there belongs to the default organisation. Counting
    // checkpoints and finding a page of them now needs no look at their records.
    "CREATE TABLE organizations (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;
     INSERT INTO organizations VALUES (
        printf('%08x', unixepoch()) || lower(hex(randomblob(8))), 'default', strftime('%Y-%m-%dT%H:%M:%SZ', 'now')
     );
     ALTER TABLE projects ADD COLUMN organization TEXT REFERENCES organizations;
     UPDATE projects SET organization = (SELECT id FROM organizations);
     CREATE TABLE credentials (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        organization TEXT NOT NULL REFERENCES organizations,
        login TEXT NOT NULL,
        proof_sealed BLOB NOT NULL,
        access_list TEXT NOT NULL,
        created TEXT NOT NULL,
        UNIQUE (kind, login)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE roles (
        credential TEXT NOT NULL REFERENCES credentials ON DELETE CASCADE,
        project TEXT NOT NULL REFERENCES projects,
        role TEXT NOT NULL,
        PRIMARY KEY (credential, project)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX roles_by_project ON roles (project);
     INSERT INTO credentials SELECT id, 'KEY', (SELECT id FROM organizations), public, ha1_sealed, access_list, created
        FROM keys;
     INSERT INTO roles SELECT id, project, role FROM keys;
     DROP TABLE keys;
     CREATE TABLE tokens (
        hash BLOB PRIMARY KEY,
        account TEXT NOT NULL REFERENCES credentials ON DELETE CASCADE,
        expires_ms INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX tokens_by_account ON tokens (account, expires_ms);
     CREATE INDEX tokens_by_end ON tokens (expires_ms);
     CREATE TABLE schedules (
        cluster TEXT PRIMARY KEY REFERENCES clusters ON DELETE CASCADE,
        record TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX checkpoints_in_order ON checkpoints (cluster, id);
     CREATE TABLE audit (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        refused INTEGER NOT NULL,
        record TEXT NOT NULL
     ) STRICT;
     CREATE INDEX audit_by_time ON audit (at_ms);
     CREATE INDEX audit_by_kind ON audit (refused, n);
     CREATE TABLE changes (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        n INTEGER NOT NULL
     ) STRICT;
     INSERT INTO changes VALUES (1, 0);",
    // 3: the catalog's own id and its vault; streams, their segments and what is in them, gaps, reports on
    // capture, blobs that are to be deleted. `run` counts the beginnings of a stream: segments follow each
    // other within one. `totals` is what the segments of a stream add up to.
    "CREATE TABLE identity (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        catalog TEXT NOT NULL,
        vault TEXT
     ) STRICT;
     INSERT INTO identity VALUES (1, printf('%08x', unixepoch()) || lower(hex(randomblob(8))), NULL);
     CREATE TABLE streams (
        id INTEGER PRIMARY KEY,
        cluster TEXT NOT NULL REFERENCES clusters ON DELETE CASCADE,
        part TEXT NOT NULL,
        run INTEGER NOT NULL,
        record TEXT NOT NULL,
        UNIQUE (cluster, part)
     ) STRICT;
     CREATE TABLE segments (
        id INTEGER PRIMARY KEY,
        stream INTEGER NOT NULL REFERENCES streams ON DELETE CASCADE,
        run INTEGER NOT NULL,
        last_s INTEGER NOT NULL,
        last_i INTEGER NOT NULL,
        name TEXT NOT NULL,
        record TEXT NOT NULL
     ) STRICT;
     CREATE UNIQUE INDEX segments_in_order ON segments (stream, run, last_s, last_i);
     CREATE INDEX segments_by_name ON segments (name);
     CREATE TABLE totals (
        stream INTEGER PRIMARY KEY REFERENCES streams ON DELETE CASCADE,
        segments INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        stored INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE stored_tokens (
        segment INTEGER NOT NULL REFERENCES segments ON DELETE CASCADE,
        n INTEGER NOT NULL,
        checkpoint TEXT NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (segment, n)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX stored_tokens_by_checkpoint ON stored_tokens (checkpoint);
     CREATE TABLE gaps (
        cluster TEXT NOT NULL REFERENCES clusters ON DELETE CASCADE,
        part TEXT NOT NULL,
        after_s INTEGER NOT NULL,
        after_i INTEGER NOT NULL,
        until_s INTEGER NOT NULL,
        until_i INTEGER NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (cluster, part, after_s, after_i, until_s, until_i)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE capture_reports (
        cluster TEXT NOT NULL REFERENCES clusters ON DELETE CASCADE,
        part TEXT NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (cluster, part)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE doomed (
        name TEXT PRIMARY KEY,
        at_ms INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX doomed_by_time ON doomed (at_ms, name);",
    // 4: snapshots, the blobs that each is made of, and what was read for one that is under way.
    "CREATE TABLE snapshots (
        n INTEGER PRIMARY KEY,
        cluster TEXT NOT NULL REFERENCES clusters ON DELETE CASCADE,
        id TEXT NOT NULL,
        ended INTEGER NOT NULL,
        record TEXT NOT NULL,
        UNIQUE (cluster, id)
     ) STRICT;
     CREATE UNIQUE INDEX one_unfinished_snapshot ON snapshots (cluster) WHERE ended = 0;
     CREATE TABLE blobs (
        n INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
     ) STRICT;
     CREATE TABLE snapshot_blobs (
        snapshot INTEGER NOT NULL REFERENCES snapshots ON DELETE CASCADE,
        blob INTEGER NOT NULL REFERENCES blobs,
        PRIMARY KEY (snapshot, blob)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX snapshot_blobs_by_blob ON snapshot_blobs (blob);
     CREATE TABLE snapshot_pieces (
        snapshot INTEGER NOT NULL REFERENCES snapshots ON DELETE CASCADE,
        part TEXT NOT NULL,
        n INTEGER NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (snapshot, part, n)
     ) STRICT, WITHOUT ROWID;",
    // 5: restores, and how far the collections of one that is under way are in its target. `target` is the
    // cluster of this catalog that it is into, and no reference: that one may be gone when it has ended. `downloads`
    // has the jobs of those that go into files. Drills, and when the next ones are.
    "CREATE TABLE restores (
        n INTEGER PRIMARY KEY,
        cluster TEXT NOT NULL REFERENCES clusters ON DELETE CASCADE,
        id TEXT NOT NULL,
        ended INTEGER NOT NULL,
        target TEXT,
        uri_sealed BLOB,
        record TEXT NOT NULL,
        UNIQUE (cluster, id)
     ) STRICT;
     CREATE UNIQUE INDEX one_unfinished_restore ON restores (cluster) WHERE ended = 0;
     CREATE UNIQUE INDEX one_unfinished_restore_into ON restores (target) WHERE ended = 0;
     CREATE TABLE restore_marks (
        restore INTEGER NOT NULL REFERENCES restores ON DELETE CASCADE,
        part TEXT NOT NULL,
        collection TEXT NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (restore, part, collection)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE drills (
        cluster TEXT NOT NULL REFERENCES clusters ON DELETE CASCADE,
        id TEXT NOT NULL,
        ended INTEGER NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (cluster, id)
     ) STRICT, WITHOUT ROWID;
     CREATE UNIQUE INDEX one_unfinished_drill ON drills (cluster) WHERE ended = 0;
     CREATE TABLE drill_schedules (
        cluster TEXT PRIMARY KEY REFERENCES clusters ON DELETE CASCADE,
        record TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE downloads (
        job TEXT PRIMARY KEY,
        restore INTEGER NOT NULL REFERENCES restores ON DELETE CASCADE
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX downloads_by_restore ON downloads (restore);",
];

/// The tables that replies are made of. Triggers count their changes, whoever makes them; leases, the
/// audit trail, segments and reports on capture, which change all the time, are not among them.
const COUNTED: [&str; 12] = [
    "organizations",
    "projects",
    "credentials",
    "roles",
    "tokens",
    "clusters",
    "schedules",
    "checkpoints",
    "streams",
    "gaps",
    "snapshots",
    "restores",
];

/// Part of the last step.
fn count_changes(connection: &Connection) -> rusqlite::Result<()> {
    for table in COUNTED {
        for event in ["INSERT", "UPDATE", "DELETE"] {
            connection.execute_batch(&format!(
                "CREATE TRIGGER IF NOT EXISTS {table}_{event} AFTER {event} ON {table}
                 BEGIN UPDATE changes SET n = n + 1; END;"
            ))?;
        }
    }
    Ok(())
}

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
            if done as i64 + 1 == FORMAT {
                count_changes(&transaction)?;
            }
            transaction.pragma_update(None, "user_version", done as i64 + 1)?;
            transaction.commit()?;
        }
    }
    Ok(())
}
