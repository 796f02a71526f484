//! Capture of a backlog: how fast, how small, at what cost, and in how much memory.
//!
//! The floor is a bare loop that reads the same oplog with the same driver, batch after batch, and does
//! nothing with it. Capture's own rate is that of its full segments: their bytes ÷ the time from the sealing
//! of the first to that of the last. So neither the start of the server counts, nor what is left at the end,
//! which waits for more.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{Document, doc, rawdoc};
use futures::StreamExt;
use futures::future::try_join_all;
use mongodb::options::CursorType;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use stillpoint_catalog::{Catalog, Cluster};
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::Segment;
use stillpoint_lab::ReplicaSet;
use stillpoint_lab::wait::until;

use crate::report::{Limit, Report, median};
use crate::stage::Stage;
use crate::theirs;
use crate::usage::{Busy, Memory};

const BACKLOG: usize = 500_000;
const FLOOR: Limit = Limit::AtLeast(0.8);
const SMALLER_THAN_GZIP: Limit = Limit::AtMost(1.0);
const MEMORY_MIB: Limit = Limit::AtMost(256.0);
/// Of the peak with twice the backlog; the first fills every buffer already.
const NOT_GROWING: Limit = Limit::AtMost(1.25);
/// Bytes in the vault of a segment that was sealed because of its size.
const FULL: u64 = 7 << 19;
const ENOUGH: Duration = Duration::from_secs(300);

pub async fn measure(report: &mut Report, binary: &std::path::Path, round: Duration) -> Result<()> {
    backlog(report, binary).await?;
    cost(report, binary, round).await?;
    memory(report, binary).await
}

async fn backlog(report: &mut Report, binary: &std::path::Path) -> Result<()> {
    let mut stage = Stage::set(binary, 1).await?;
    let begun = Backlog::begin(&mut stage).await?;
    let shard = stage.lab.shard(0);
    roomy(shard).await?;
    write(shard, BACKLOG, 1).await?;
    let from = begun.last(&stage, "rs0").await?;
    let mut bare = vec![bare_loop(shard, from).await?, bare_loop(shard, from).await?];
    let (captured, busy) = begun.capture(&mut stage).await?;
    let shard = stage.lab.shard(0);
    bare.push(bare_loop(shard, from).await?);
    let rates: Vec<_> = bare.iter().map(|(bytes, time)| *bytes as f64 / time.as_secs_f64()).collect();
    let segments = &captured.iter().find(|(part, _)| *part == PartId::Shard("rs0".into())).context("no rs0")?.1;
    let rate = rate(segments)?;
    let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let stored: u64 = segments.iter().map(|segment| segment.stored).sum();
    let entries: u64 = segments.iter().map(|segment| segment.entries).sum();
    let figures = format!(
        "{:.0} MB/s; bare {} MB/s; {entries} entries, {:.0} MB, {} segments",
        rate / 1e6,
        rates.iter().map(|rate| format!("{:.0}", rate / 1e6)).collect::<Vec<_>>().join(" "),
        bytes as f64 / 1e6,
        segments.len()
    );
    report.ratio("capture of a backlog / bare loop", rate / median(rates), FLOOR, figures);
    mongodump(report, shard, rate)?;

    let seconds = busy.total() / 1e6 / (bytes as f64 / 1e9);
    let figures = format!("{:.1} user, {:.1} kernel, in all", busy.user / 1e6, busy.kernel / 1e6);
    report.ratio("  processor seconds for a GB", seconds, Limit::None, figures);

    let raw = stage.export("rs0").await?;
    let zipped = gzip(&raw)?;
    let figures = format!("{:.1} and {:.1} MB of {:.0}", stored as f64 / 1e6, zipped as f64 / 1e6, bytes as f64 / 1e6);
    report.ratio("  stored size / gzip -6", stored as f64 / zipped as f64, SMALLER_THAN_GZIP, figures);
    stage.strike().await
}

/// Write throughput with capture and without, taken in turns.
async fn cost(report: &mut Report, binary: &std::path::Path, round: Duration) -> Result<()> {
    let mut stage = Stage::set(binary, 1).await?;
    let begun = Backlog::begin(&mut stage).await?;
    let (mut with, mut without) = (vec![], vec![]);
    for _ in 0..3 {
        without.push(write_for(stage.lab.shard(0), round).await?);
        begun.capture(&mut stage).await?;
        stage.start_server().await?;
        with.push(write_for(stage.lab.shard(0), round).await?);
        stage.stop_server().await?;
    }
    let figures = format!("{with:.0?} and {without:.0?} writes/s, two clients");
    report.ratio("writes with capture / without", median(with) / median(without), Limit::None, figures);
    stage.strike().await
}

/// With eight parts that each have a backlog.
async fn memory(report: &mut Report, binary: &std::path::Path) -> Result<()> {
    let mut stage = Stage::set(binary, 7).await?;
    let begun = Backlog::begin(&mut stage).await?;
    let mut peaks = Vec::new();
    for entries in [150_000, 300_000] {
        try_join_all(stage.lab.parts().enumerate().map(|(i, part)| write(part, entries, i as u64))).await?;
        begun.capture(&mut stage).await?;
        peaks.push(begun.peak.get());
    }
    let figures = format!("{:.0} MiB with 150,000 entries each, {:.0} with 300,000", mib(peaks[0]), mib(peaks[1]));
    report.ratio("peak memory, 8 parts with a backlog, MiB", mib(peaks[1]), MEMORY_MIB, figures);
    report.ratio("  twice the backlog / once", peaks[1] as f64 / peaks[0] as f64, NOT_GROWING, "");
    stage.strike().await
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Streams that have begun, of a server that is stopped.
struct Backlog {
    cluster: Cluster,
    /// Of the last server that captured, in KiB.
    peak: std::cell::Cell<u64>,
}

impl Backlog {
    async fn begin(stage: &mut Stage) -> Result<Backlog> {
        let catalog = stage.catalog()?;
        let cluster = catalog.clusters(None).await?.pop().context("no cluster")?;
        let parts = stage.lab.parts().count();
        let begun = until(ENOUGH, || async {
            let streams = catalog.streams(cluster.id).await.ok()?;
            let mut stored = 0;
            for stream in &streams {
                stored += usize::from(catalog.last_segment(cluster.id, &stream.part).await.ok()?.is_some());
            }
            (stored == parts).then_some(())
        });
        begun.await.context("capture did not begin")?;
        stage.stop_server().await?;
        Ok(Backlog { cluster, peak: std::cell::Cell::new(0) })
    }

    async fn last(&self, stage: &Stage, shard: &str) -> Result<ClusterTime> {
        let last = stage.catalog()?.last_segment(self.cluster.id, &PartId::Shard(shard.into())).await?;
        Ok(last.context("nothing is stored")?.last.time)
    }

    /// Runs a server until it has captured all that there is; the new segments, and what it took.
    async fn capture(&self, stage: &mut Stage) -> Result<(Vec<(PartId, Vec<Segment>)>, Busy)> {
        let catalog = stage.catalog()?;
        let mut ends = Vec::new();
        for part in stage.lab.parts() {
            ends.push((part.name().to_owned(), newest(part).await?));
        }
        let mut begins = Vec::new();
        for stream in catalog.streams(self.cluster.id).await? {
            let last = catalog.last_segment(self.cluster.id, &stream.part).await?;
            begins.push((stream.part, stream.replica_set, last.context("nothing is stored")?.last.time));
        }
        stage.start_server().await?;
        let mut all = Vec::new();
        for (part, set, begin) in begins {
            let end = ends.iter().find(|(name, _)| *name == set).context("no such set")?.1;
            let stored = until(ENOUGH, || async {
                let last = catalog.last_segment(self.cluster.id, &part).await.ok()??;
                (last.last.time >= end).then_some(())
            });
            stored.await.with_context(|| format!("{part} was not captured in {ENOUGH:?}"))?;
            let segments = catalog.segments(self.cluster.id, &part, begin.after(), ClusterTime::MAX, 100_000).await?;
            all.push((part, segments));
        }
        let pid = stage.pid()?;
        let busy = Busy::of(pid)?;
        self.peak.set(Memory::of(pid)?.peak);
        stage.stop_server().await?;
        Ok((all, busy))
    }
}

/// Bytes of entries a second.
fn rate(segments: &[Segment]) -> Result<f64> {
    let full: Vec<_> = segments.iter().filter(|segment| segment.stored > FULL).collect();
    let [first, .., last] = full.as_slice() else { anyhow::bail!("too few segments: {}", segments.len()) };
    let bytes: u64 = full[1..].iter().map(|segment| segment.bytes).sum();
    Ok(bytes as f64 / last.sealed.duration_since(first.sealed).as_secs_f64())
}

async fn newest(part: &ReplicaSet) -> Result<ClusterTime> {
    let hello = part.run("admin", doc! {"hello": 1}).await?;
    let time = hello.get_document("lastWrite")?.get_document("majorityOpTime")?.get_timestamp("ts")?;
    Ok(ClusterTime::new(time.time, time.increment))
}

/// An oplog that holds the whole backlog.
pub async fn roomy(part: &ReplicaSet) -> Result<()> {
    part.run("admin", doc! {"replSetResizeOplog": 1, "size": 4_000.0}).await?;
    Ok(())
}

/// Reads an oplog from a time to its end, and does nothing with it: the bytes, and how long it took.
async fn bare_loop(part: &ReplicaSet, from: ClusterTime) -> Result<(usize, Duration)> {
    let end = newest(part).await?;
    let ts = bson::Timestamp { time: from.seconds, increment: from.increment };
    let command = rawdoc! {
        "find": "oplog.rs", "filter": {"ts": {"$gte": ts}}, "tailable": true, "awaitData": true,
        "readConcern": {"level": "majority"}, "batchSize": 1,
    };
    let begin = Instant::now();
    let local = part.client().database("local");
    let mut cursor = local.run_raw_cursor_command(command).cursor_type(CursorType::TailableAwait).batch().await?;
    let mut bytes = 0;
    loop {
        let batch = cursor.next().await.context("the cursor ended")??;
        bytes += batch.as_raw_document().as_bytes().len();
        // The last entry of each batch says how far it is.
        let last = batch.doc_slices()?.into_iter().last().transpose()?;
        let Some(last) = last.and_then(|entry| entry.as_document()) else { continue };
        let ts = last.get_timestamp("ts")?;
        if ClusterTime::new(ts.time, ts.increment) >= end {
            return Ok((bytes, begin.elapsed()));
        }
    }
}

const WORDS: [&str; 24] = [
    "account", "amount", "balance", "city", "country", "customer", "delivery", "discount", "email", "invoice", "item",
    "north", "number", "order", "paid", "pending", "price", "quantity", "region", "shipped", "south", "status",
    "street", "total",
];

/// A document of some 300 bytes, as an application might have it.
pub fn document(rng: &mut StdRng, id: i64) -> Document {
    let words =
        |rng: &mut StdRng, n: usize| (0..n).filter_map(|_| WORDS.choose(rng)).copied().collect::<Vec<_>>().join(" ");
    doc! {
        "_id": id, "customer": rng.random_range(0..1_000_000_i64), "name": words(rng, 3), "text": words(rng, 14),
        "amount": rng.random_range(0.0..10_000.0), "at": bson::DateTime::from_millis(1_790_000_000_000 + rng.random_range(0..1_000_000_000)),
        "key": format!("{:016x}", rng.random::<u64>()), "tags": [words(rng, 1), words(rng, 1)],
    }
}

/// Inserts, with an update to each third document.
async fn write(part: &ReplicaSet, entries: usize, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let database = if part.name() == "cfg" { "config" } else { "bench" };
    let orders = part.client().database(database).collection::<Document>("orders");
    let mut next = orders.estimated_document_count().await? as i64;
    let mut written = 0;
    while written < entries {
        let documents: Vec<_> = (0..750).map(|i| document(&mut rng, next + i)).collect();
        next += documents.len() as i64;
        orders.insert_many(&documents).await?;
        let updates: Vec<_> = documents
            .iter()
            .step_by(3)
            .map(|document| doc! {"q": {"_id": document.get_i64("_id").unwrap_or(0)}, "u": {"$set": {"amount": 1.5, "status": "paid"}}})
            .collect();
        written += documents.len() + updates.len();
        part.client().database(database).run_command(doc! {"update": "orders", "updates": updates}).await?;
    }
    Ok(())
}

/// Single inserts by two clients, a second.
async fn write_for(part: &ReplicaSet, round: Duration) -> Result<f64> {
    let orders = part.client().database("bench").collection::<Document>("single");
    let clients = (0..2_u64).map(|client| {
        let orders = orders.clone();
        async move {
            let mut rng = StdRng::seed_from_u64(client);
            let (begin, mut written) = (Instant::now(), 0_u32);
            while begin.elapsed() < round {
                let mut document = document(&mut rng, 0);
                document.insert("_id", bson::oid::ObjectId::new());
                orders.insert_one(document).await?;
                written += 1;
            }
            Ok::<_, anyhow::Error>(f64::from(written) / begin.elapsed().as_secs_f64())
        }
    });
    Ok(try_join_all(clients).await?.iter().sum())
}

/// The size that `gzip -6` makes of a file.
pub fn gzip(file: &std::path::Path) -> Result<u64> {
    let zipped = file.with_extension("gz");
    let out = std::fs::File::create(&zipped)?;
    let status =
        Command::new("gzip").arg("-6").arg("-c").arg(file).stdout(Stdio::from(out)).status().context("no gzip")?;
    ensure!(status.success(), "gzip failed");
    Ok(std::fs::metadata(&zipped)?.len())
}

/// For comparison, where there is one.
fn mongodump(report: &mut Report, part: &ReplicaSet, rate: f64) -> Result<()> {
    let out = tempfile::tempdir()?;
    let args = ["--db", "local", "--collection", "oplog.rs", "--out", &out.path().to_string_lossy()];
    let took = theirs::run("mongodump", part, &args)?;
    let bytes = took.map(|_| std::fs::metadata(out.path().join("local/oplog.rs.bson"))).transpose()?;
    let ours = bytes.map_or(0.0, |bytes| bytes.len() as f64 / rate);
    report.against("  its time / mongodump, uncompressed", ours, took, Limit::None);
    Ok(())
}
