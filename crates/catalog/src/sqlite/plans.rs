//! That no statement on segments, restores, drills or the blobs of snapshots walks through all of them or sorts
//! them: an append, the last segment and a page take as long with hundreds of thousands as with none.

use rusqlite::types::Value;

use super::{SqliteCatalog, drills, lock, restores, retention, segments, snapshots};

/// SQLite's steps for a statement, one a line.
fn plan(catalog: &SqliteCatalog, sql: &str) -> String {
    let writer = lock(&catalog.0.writer);
    let mut statement = writer.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let parameters = vec![Value::Integer(1); statement.parameter_count()];
    let steps = statement.query_map(rusqlite::params_from_iter(parameters), |row| row.get::<_, String>("detail"));
    steps.unwrap().map(|step| step.unwrap() + "\n").collect()
}

/// Whether it looks at every row of a table, or at all rows before the first. The runs of a stream are few.
fn walks(plan: &str) -> bool {
    plan.lines().any(|step| {
        let scan = step.starts_with("SCAN ") && !["SCAN runs", "SCAN CONSTANT ROW"].contains(&step);
        scan || step.contains("TEMP B-TREE") || step.contains("AUTOMATIC")
    })
}

#[test]
fn every_statement_on_segments_finds_its_rows_by_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (folder.path().join("stillpoint.db"), folder.path().join("stillpoint.key"));
    let catalog = SqliteCatalog::open_with_key_file(&path, &key).unwrap();
    let in_order = "USING INDEX segments_in_order (stream=? AND run=?";
    for (sql, step) in [
        (segments::INSERT, ""),
        (segments::LAST, in_order),
        (segments::ENDING_AT, in_order),
        (segments::FROM, in_order),
        (segments::BEFORE, in_order),
        (segments::RUNS, "USING COVERING INDEX segments_in_order (stream=? AND run>?)"),
        (segments::TOTALS, "SEARCH totals USING INTEGER PRIMARY KEY"),
        (segments::TOKENS, "USING INDEX stored_tokens_by_checkpoint (checkpoint=?)"),
        (retention::NEWEST, "USING COVERING INDEX segments_in_order (stream=?)"),
        (retention::UNTIL, in_order),
        (retention::DOOM, "USING COVERING INDEX segments_by_name (name=?)"),
        (retention::DOOM_CLUSTER, "segments_in_order (stream=?)"),
        (retention::DOOMED_AT, "USING PRIMARY KEY (name>? AND name<?)"),
        (retention::SAVE, "USING PRIMARY KEY (name>? AND name<?)"),
        (retention::CONDEMN, "USING PRIMARY KEY (name=?)"),
        (retention::DOOMED, "USING COVERING INDEX doomed_by_time (at_ms<?)"),
        (retention::REFERENCED, "USING COVERING INDEX segments_by_name (name=?)"),
    ] {
        let plan = plan(&catalog, sql);
        assert!(plan.contains(step) && !walks(&plan), "{sql}\n{plan}");
    }
    assert!(walks(&plan(&catalog, "SELECT * FROM segments ORDER BY name")), "what this test would notice");
}

#[test]
fn every_statement_on_snapshots_finds_its_rows_by_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (folder.path().join("stillpoint.db"), folder.path().join("stillpoint.key"));
    let catalog = SqliteCatalog::open_with_key_file(&path, &key).unwrap();
    let in_order = "sqlite_autoindex_snapshots_1 (cluster=?";
    let unfinished = "USING INDEX one_unfinished_snapshot (cluster=?)";
    let row = "SEARCH snapshots USING INTEGER PRIMARY KEY (rowid=?)";
    for (sql, step) in [
        (snapshots::ONE, in_order),
        (snapshots::NUMBER, in_order),
        (snapshots::PAGE, in_order),
        (snapshots::COUNT, "snapshots USING COVERING INDEX"),
        (snapshots::UNFINISHED, unfinished),
        (snapshots::FROM, unfinished),
        (snapshots::WRITE, row),
        (snapshots::DELETE, row),
        (snapshots::DELETE_ALL, in_order),
        (snapshots::BLOB, ""),
        (snapshots::FORGET, "SEARCH blobs USING INTEGER PRIMARY KEY (rowid=?)"),
        (snapshots::NOTE, "SEARCH blobs USING COVERING INDEX sqlite_autoindex_blobs_1 (name=?)"),
        (snapshots::ITS_OWN, "SEARCH its USING PRIMARY KEY (snapshot=?)"),
        (snapshots::ITS_OWN, "SEARCH blobs USING INTEGER PRIMARY KEY (rowid=?)"),
        (snapshots::ITS_OWN, "SEARCH other USING COVERING INDEX snapshot_blobs_by_blob (blob=?)"),
        (snapshots::PIECES, "USING PRIMARY KEY (snapshot=? AND part=?)"),
        (snapshots::LAST_PIECE, "USING PRIMARY KEY (snapshot=? AND part=?)"),
        (snapshots::FORGET_PIECES, "USING PRIMARY KEY (snapshot=?)"),
        (retention::DOOM, "USING COVERING INDEX sqlite_autoindex_blobs_1 (name=?)"),
        (retention::REFERENCED, "USING COVERING INDEX sqlite_autoindex_blobs_1 (name=?)"),
        (retention::DOOMED_SINCE, "USING PRIMARY KEY (name=?)"),
        (retention::FORGET, "USING PRIMARY KEY (name=?)"),
    ] {
        let plan = plan(&catalog, sql);
        assert!(plan.contains(step) && !walks(&plan), "{sql}\n{plan}");
    }
    // It must see all that are the cluster's, each once: what is not its own it does not look at.
    let plan = plan(&catalog, snapshots::OF_CLUSTER);
    assert!(plan.contains(in_order) && !plan.contains("SCAN ") && !plan.contains("AUTOMATIC"), "{plan}");
}

#[test]
fn every_statement_on_restores_finds_its_rows_by_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (folder.path().join("stillpoint.db"), folder.path().join("stillpoint.key"));
    let catalog = SqliteCatalog::open_with_key_file(&path, &key).unwrap();
    let in_order = "sqlite_autoindex_restores_1 (cluster=?";
    let marks = "USING PRIMARY KEY (restore=?)";
    for (sql, step) in [
        (restores::PAGE, in_order),
        (restores::ONE, in_order),
        (restores::NUMBER, in_order),
        (restores::URI, in_order),
        (restores::COUNT, "restores USING COVERING INDEX"),
        (restores::COUNT_PARTS, in_order),
        (restores::BEYOND, in_order),
        (restores::FORGET, in_order),
        (restores::UNFINISHED, "USING INDEX one_unfinished_restore (cluster=?)"),
        (restores::UNFINISHED_INTO, "USING INDEX one_unfinished_restore_into (target=?)"),
        (restores::WRITE, "SEARCH restores USING INTEGER PRIMARY KEY (rowid=?)"),
        (restores::ADD_MARK, ""),
        (restores::MARKS, marks),
        (restores::FORGET_MARKS, marks),
        (restores::ADD_DOWNLOAD, ""),
        (restores::DOWNLOAD, "SEARCH downloads USING PRIMARY KEY (job=?)"),
        (restores::DOWNLOAD, "SEARCH restores USING INTEGER PRIMARY KEY (rowid=?)"),
    ] {
        let plan = plan(&catalog, sql);
        assert!(plan.contains(step) && !walks(&plan), "{sql}\n{plan}");
    }
}

#[test]
fn every_statement_on_drills_finds_its_rows_by_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (folder.path().join("stillpoint.db"), folder.path().join("stillpoint.key"));
    let catalog = SqliteCatalog::open_with_key_file(&path, &key).unwrap();
    for (sql, step) in [
        (drills::PAGE, "USING PRIMARY KEY (cluster=?)"),
        (drills::ONE, "USING PRIMARY KEY (cluster=? AND id=?)"),
        (drills::UNFINISHED, "USING INDEX one_unfinished_drill (cluster=?)"),
        (drills::WRITE, "USING PRIMARY KEY (cluster=? AND id=?)"),
        (drills::FORGET, "USING PRIMARY KEY (cluster=? AND id=?)"),
        (drills::FORGET_RESTORE, "sqlite_autoindex_restores_1 (cluster=? AND id=?)"),
        (drills::SCHEDULED, "USING PRIMARY KEY (cluster=?)"),
    ] {
        let plan = plan(&catalog, sql);
        assert!(plan.contains(step) && !walks(&plan), "{sql}\n{plan}");
    }
}

/// A row that goes takes others along: they must be found without a walk too.
#[test]
fn every_reference_has_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (folder.path().join("stillpoint.db"), folder.path().join("stillpoint.key"));
    let catalog = SqliteCatalog::open_with_key_file(&path, &key).unwrap();
    for (table, column) in [
        ("streams", "cluster"),
        ("segments", "stream"),
        ("totals", "stream"),
        ("stored_tokens", "segment"),
        ("gaps", "cluster"),
        ("capture_reports", "cluster"),
        ("snapshots", "cluster"),
        ("snapshot_blobs", "snapshot"),
        ("snapshot_blobs", "blob"),
        ("snapshot_pieces", "snapshot"),
        ("restores", "cluster"),
        ("restore_marks", "restore"),
        ("drills", "cluster"),
        ("drill_schedules", "cluster"),
        ("downloads", "restore"),
    ] {
        let plan = plan(&catalog, &format!("SELECT 1 FROM {table} WHERE {column} = ?1"));
        assert!(!walks(&plan), "{table}\n{plan}");
    }
}
