//! Snapshots: the first, against a bare loop that reads the same documents with the same driver and does nothing
//! with them; then what the next ones take after changes here and there.
//!
//! The first is timed from when it is asked for until all is read, compressed, hashed and stored; the others from
//! when their time is chosen until they are complete: before that they wait for the oplog to be sealed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{Document, doc, rawdoc};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stillpoint_catalog::{Catalog, Cluster};
use stillpoint_core::SnapshotId;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::snapshot::{Data, Snapshot, State};
use stillpoint_lab::ReplicaSet;
use stillpoint_lab::wait::until;

use crate::capture::{document, gzip, roomy};
use crate::report::{Limit, Report, median};
use crate::stage::Stage;
use crate::theirs::{self, Dump};
use crate::usage::Memory;

pub const DOCUMENTS: i64 = 1_000_000;
/// One in a hundred of them.
const CHANGED: i64 = DOCUMENTS / 100;
pub const UPDATES: i64 = 300_000;
/// Than the archive that `mongodump --gzip` makes.
const SMALLER_THAN_GZIP: Limit = Limit::AtMost(1.0);
const CLUSTERED: Limit = Limit::AtMost(0.05);
const MONGODUMP: Limit = Limit::AtMost(1.5);
const MONGODUMP_GZIP: Limit = Limit::AtMost(0.4);
const OPLOG_REPLAY: Limit = Limit::AtMost(0.05);
const ENOUGH: Duration = Duration::from_secs(600);

pub async fn measure(report: &mut Report, binary: &std::path::Path) -> Result<()> {
    let stage = Stage::set(binary, 1).await?;
    let shard = stage.lab.shard(0);
    roomy(shard).await?;
    load(shard, 0, DOCUMENTS).await?;
    let bare = [bare_loop(shard).await?, bare_loop(shard).await?, bare_loop(shard).await?];
    let bare_time = median(bare.iter().map(|(_, time)| time.as_secs_f64()).collect());
    let cluster = stage.catalog()?.clusters(None).await?.pop().context("no cluster")?;

    let taking = Taking::begin(&stage, &cluster).await?;
    let begun = Instant::now();
    taking.until(|snapshot| part(snapshot).is_some_and(|part| part.read.is_some())).await?;
    let read = begun.elapsed().as_secs_f64();
    let (first, _) = taking.complete().await?;
    let data = data(&first)?;
    let mb = data.bytes as f64 / 1e6;
    let figures =
        format!("{:.0} MB/s and {:.0} MB/s; {} documents, {mb:.0} MB", mb / read, mb / bare_time, data.documents);
    report.ratio("first snapshot / bare loop, time", read / bare_time, Limit::None, figures);
    let took = theirs::run("mongodump", shard, &["--db", "bench", "--archive"])?;
    report.against("  / mongodump, time", read, took, MONGODUMP);
    let archive = stage.folder().join("theirs.gz");
    let to = format!("--archive={}", archive.display());
    let took = theirs::run("mongodump", shard, &["--db", "bench", "--gzip", &to])?;
    report.against("  / mongodump --gzip, time", read, took, MONGODUMP_GZIP);
    let archive = took.map(|_| std::fs::metadata(archive)).transpose()?;
    let peak = Memory::of(stage.pid()?)?.peak as f64 / 1024.0;
    report.ratio("  peak memory, MiB", peak, Limit::None, "the server's, capture and all");

    let stored = part(&first).and_then(|part| part.read).context("nothing was read")?.stored as f64;
    let out = stage.folder().join("out");
    stage
        .command(&[
            "export",
            "--snapshot",
            &first.id.to_string(),
            "--part",
            "rs0",
            "--only",
            "bench",
            "--out",
            &out.to_string_lossy(),
        ])
        .await?;
    let zipped = gzip(&out.join("rs0/bench/orders.bson"))? as f64;
    let figures = format!("{:.1} and {:.1} MB", stored / 1e6, zipped / 1e6);
    // Gzip's own program makes less of it than the tool that it stands for.
    report.ratio("  stored size / gzip -6 of the whole", stored / zipped, Limit::None, figures);
    if let Some(archive) = archive {
        let zipped = archive.len() as f64;
        let figures = format!("{:.1} and {:.1} MB", stored / 1e6, zipped / 1e6);
        report.ratio("  stored size / mongodump --gzip's", stored / zipped, SMALLER_THAN_GZIP, figures);
    }

    let begin = DOCUMENTS / 2;
    update(shard, (begin..begin + CHANGED).collect()).await?;
    let (next, time) = Taking::begin(&stage, &cluster).await?.complete().await?;
    told(report, "snapshot after 1 % changed, side by side", &next, stored, CLUSTERED, time)?;
    let mut rng = StdRng::seed_from_u64(7);
    update(shard, (0..CHANGED).map(|_| rng.random_range(0..DOCUMENTS)).collect()).await?;
    let (next, time) = Taking::begin(&stage, &cluster).await?.complete().await?;
    told(report, "snapshot after 1 % changed, at random", &next, stored, Limit::None, time)?;
    let dump = Dump::of(shard).await?;
    update(shard, (0..UPDATES).map(|_| rng.random_range(0..DOCUMENTS)).collect()).await?;
    let (next, time) = Taking::begin(&stage, &cluster).await?.complete().await?;
    told(report, "snapshot after 300,000 updates at random", &next, stored, Limit::None, time)?;
    let replayed = match dump {
        Some(dump) => dump.restore_and_replay(shard).await?.map(|(_, replayed)| replayed),
        None => None,
    };
    report.against("  its fold / mongorestore --oplogReplay, time", time, replayed, OPLOG_REPLAY);
    let peak = Memory::of(stage.pid()?)?.peak as f64 / 1024.0;
    report.ratio("  peak memory, MiB", peak, Limit::None, "64 MiB of it for sorting, by its settings");
    stage.strike().await
}

fn told(report: &mut Report, name: &str, next: &Snapshot, first: f64, limit: Limit, time: f64) -> Result<()> {
    ensure!(next.base.is_some() && next.parts.iter().all(|part| part.read.is_none()), "the cluster was read");
    let stored = data(next)?.stored as f64;
    let figures = format!("{:.1} MB stored, in {time:.1} s, nothing read of the cluster", stored / 1e6);
    report.ratio(&format!("{name} / first"), stored / first, limit, figures);
    Ok(())
}

fn part(snapshot: &Snapshot) -> Option<&stillpoint_core::snapshot::Part> {
    snapshot.parts.iter().find(|part| part.id == PartId::Shard("rs0".into()))
}

fn data(snapshot: &Snapshot) -> Result<Data> {
    part(snapshot).and_then(|part| part.data).context("no data of rs0")
}

/// A snapshot that is being taken.
struct Taking<'a> {
    stage: &'a Stage,
    cluster: &'a Cluster,
    id: SnapshotId,
}

impl Taking<'_> {
    async fn begin<'a>(stage: &'a Stage, cluster: &'a Cluster) -> Result<Taking<'a>> {
        let asked = stage.command(&["snapshot", "take", "--no-wait"]).await?;
        let id = asked["id"].as_str().context("no id")?.parse()?;
        Ok(Taking { stage, cluster, id })
    }

    async fn until(&self, wanted: impl Fn(&Snapshot) -> bool) -> Result<Snapshot> {
        let catalog = self.stage.catalog()?;
        let look = || async {
            let snapshot = catalog.snapshot(self.cluster.id, self.id).await.ok()??;
            (wanted(&snapshot) || snapshot.state == State::Failed).then_some(snapshot)
        };
        let snapshot = until(ENOUGH, look).await.context("the snapshot takes too long")?;
        ensure!(snapshot.state != State::Failed, "the snapshot failed: {:?}", snapshot.failure);
        Ok(snapshot)
    }

    /// With the seconds that folding took.
    async fn complete(&self) -> Result<(Snapshot, f64)> {
        self.until(|snapshot| snapshot.state >= State::Folding).await?;
        let begun = Instant::now();
        let snapshot = self.until(|snapshot| snapshot.state == State::Completed).await?;
        Ok((snapshot, begun.elapsed().as_secs_f64()))
    }
}

/// Documents of some 620 bytes.
pub async fn load(part: &ReplicaSet, from: i64, until: i64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(1);
    let orders = part.client().database("bench").collection::<Document>("orders");
    let mut next = from;
    while next < until {
        let documents = (next..next + 1000).map(|id| {
            let mut made = document(&mut rng, id);
            let more = document(&mut rng, id);
            made.extend(
                [("delivery", "text"), ("remark", "name")]
                    .into_iter()
                    .filter_map(|(name, from)| Some((name.to_owned(), more.get(from)?.clone()))),
            );
            made.insert("lines", (0..6).map(|_| rng.random_range(0..100_000)).collect::<Vec<i32>>());
            made.insert("signature", format!("{:032x}", rng.random::<u128>()));
            made
        });
        orders.insert_many(documents.collect::<Vec<_>>()).await?;
        next += 1000;
    }
    Ok(())
}

pub async fn update(part: &ReplicaSet, ids: Vec<i64>) -> Result<()> {
    for (n, ids) in ids.chunks(1000).enumerate() {
        let change = |id: &i64| doc! {"q": {"_id": id}, "u": {"$set": {"amount": n as f64 + 0.5}}};
        let updates: Vec<_> = ids.iter().map(change).collect();
        part.client().database("bench").run_command(doc! {"update": "orders", "updates": updates}).await?;
    }
    Ok(())
}

/// Reads all documents as of a time, and does nothing with them.
async fn bare_loop(part: &ReplicaSet) -> Result<(usize, Duration)> {
    let command = rawdoc! {"find": "orders", "hint": {"_id": 1}, "readConcern": {"level": "snapshot"}};
    let begin = Instant::now();
    let mut cursor = part.client().database("bench").run_raw_cursor_command(command).batch().await?;
    let mut bytes = 0;
    while let Some(batch) = cursor.next().await.transpose()? {
        bytes += batch.as_raw_document().as_bytes().len();
    }
    Ok((bytes, begin.elapsed()))
}
