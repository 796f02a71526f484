//! What MongoDB's own tools take for the same, where they are on PATH. They get passwords as arguments, which is for
//! throw-away clusters only.

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use bson::{Timestamp, doc};
use serde_json::json;
use stillpoint_lab::{Lab, ReplicaSet};

/// The seconds that it took; none without the tool.
pub fn run(tool: &str, part: &ReplicaSet, args: &[&str]) -> Result<Option<f64>> {
    let mut command = Command::new(tool);
    command.args(["--quiet", "--uri", &part.admin_uri()]).args(args).stdout(Stdio::null());
    let begun = Instant::now();
    let status = match command.status() {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        done => done?,
    };
    ensure!(status.success(), "{tool} failed");
    Ok(Some(begun.elapsed().as_secs_f64()))
}

/// What `mongodump` made of the benches' collection, and when that was.
pub struct Dump {
    folder: tempfile::TempDir,
    archive: String,
    at: Timestamp,
}

impl Dump {
    /// Of the collection as it is now, while nothing writes.
    pub async fn of(part: &ReplicaSet) -> Result<Option<Dump>> {
        let at = part.run("admin", doc! {"ping": 1}).await?.get_timestamp("operationTime")?;
        let folder = tempfile::tempdir()?;
        let archive = format!("--archive={}", folder.path().join("archive").display());
        let dumped = run("mongodump", part, &["--db", "bench", &archive])?;
        Ok(dumped.map(|_| Dump { folder, archive, at }))
    }

    /// Into a replica set of its own: the seconds that `mongorestore` takes for the documents, and then for what the
    /// oplog of `part` has of them since.
    pub async fn restore_and_replay(&self, part: &ReplicaSet) -> Result<Option<(f64, f64)>> {
        let (time, increment) = (self.at.time, self.at.increment);
        let since = json!({"ns": "bench.orders", "ts": {"$gt": {"$timestamp": {"t": time, "i": increment}}}});
        let (out, none) = (self.folder.path().join("out"), self.folder.path().join("none"));
        std::fs::create_dir_all(&none)?;
        let (from, to) = (["--db", "local", "--collection", "oplog.rs", "--query"], ["--out", &out.to_string_lossy()]);
        run("mongodump", part, &[&from[..], &[&since.to_string()], &to].concat())?;

        let target = Lab::builder().named("their").shards(1).start().await?;
        let into = target.shard(0);
        let restored = run("mongorestore", into, &["--numInsertionWorkersPerCollection", "4", &self.archive])?;
        let oplog = format!("--oplogFile={}", out.join("local/oplog.rs.bson").display());
        let replayed = run("mongorestore", into, &["--oplogReplay", &oplog, &none.to_string_lossy()])?;
        Ok(restored.zip(replayed))
    }
}
