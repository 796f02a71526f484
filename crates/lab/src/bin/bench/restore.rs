//! Restores of a million documents into an empty cluster, against a bare loop that inserts the same documents with the
//! same driver; with and without comparing; with 300,000 updates to fold; and two shards against one.
//!
//! Timed from when the restore is asked for until it is finished; the bare loop has its documents in memory.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bson::{RawDocumentBuf, doc, rawdoc};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use stillpoint_lab::product::write_secret;
use stillpoint_lab::{Lab, ReplicaSet};

use crate::report::{Limit, Report};
use crate::snapshot::{DOCUMENTS, UPDATES, load, update};
use crate::stage::Stage;
use crate::theirs::Dump;
use crate::usage::Memory;

const BARE: Limit = Limit::AtMost(1.15);
const MONGORESTORE: Limit = Limit::AtMost(0.8);
const OPLOG_REPLAY: Limit = Limit::AtMost(0.2);
const MEMORY: Limit = Limit::AtMost(256.0);
const WORKERS: usize = 4;

pub async fn measure(report: &mut Report, binary: &std::path::Path) -> Result<()> {
    let one = Stage::set(binary, 1).await?;
    let shard = one.lab.shard(0);
    load(shard, 0, DOCUMENTS).await?;
    let snapshot = taken(&one).await?;
    let (bare, mb) = bare_loop(shard).await?;
    let loaded = restore(&one, &snapshot, 1, &["--no-verify"]).await?;
    let rates = format!("{:.0} MB/s and {:.0} MB/s; {mb:.0} MB", mb / loaded, mb / bare);
    report.ratio("restore / bare loop that inserts, time", loaded / bare, BARE, rates);
    let compared = restore(&one, &snapshot, 1, &[]).await?;
    let figures = format!("{compared:.1} s and {loaded:.1} s");
    report.ratio("  with comparing / without", compared / loaded, Limit::None, figures);

    let dump = Dump::of(shard).await?;
    let mut rng = StdRng::seed_from_u64(7);
    update(shard, (0..UPDATES).map(|_| rng.random_range(0..DOCUMENTS)).collect()).await?;
    let folded = restore(&one, &restorable(&one).await?, 1, &["--no-verify"]).await?;
    let figures = format!("{folded:.1} s; {UPDATES}");
    report.ratio("  with updates to fold / without", folded / loaded, Limit::None, figures);
    let theirs = match dump {
        Some(dump) => dump.restore_and_replay(shard).await?,
        None => None,
    };
    report.against("  / mongorestore, 4 workers, time", loaded, theirs.map(|(restored, _)| restored), MONGORESTORE);
    let both = theirs.map(|(restored, replayed)| restored + replayed);
    report.against("  with updates / and --oplogReplay, time", folded, both, OPLOG_REPLAY);
    let peak = Memory::of(one.pid()?)?.peak as f64 / 1024.0;
    report.ratio("  peak memory, MiB", peak, MEMORY, "the server's, capture and all");
    one.strike().await?;

    let two = Stage::set(binary, 2).await?;
    load(two.lab.shard(0), 0, DOCUMENTS / 2).await?;
    load(two.lab.shard(1), DOCUMENTS / 2, DOCUMENTS).await?;
    let apart = restore(&two, &taken(&two).await?, 2, &["--no-verify"]).await?;
    report.ratio("  two shards / one of the same total", apart / loaded, Limit::None, format!("{apart:.1} s"));
    two.strike().await
}

/// A snapshot, as a restore is asked for it.
async fn taken(stage: &Stage) -> Result<[String; 2]> {
    let taken = stage.command(&["snapshot", "take"]).await?;
    Ok(["--snapshot".into(), taken["id"].as_str().context("no id")?.into()])
}

/// A checkpoint, once it can be restored.
async fn restorable(stage: &Stage) -> Result<[String; 2]> {
    let id = stage.take().await?;
    let begun = Instant::now();
    while stage.command(&["checkpoint", "show", &id]).await?["restorable"] != true {
        ensure!(begun.elapsed() < Duration::from_secs(60), "the checkpoint {id} is not restorable");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(["--checkpoint".into(), id])
}

/// The seconds that it took, into a cluster of its own.
async fn restore(stage: &Stage, [kind, id]: &[String; 2], shards: usize, more: &[&str]) -> Result<f64> {
    let target = Lab::builder().named("new").shards(shards).start().await?;
    let uri = stage.folder().join(format!("target-{:x}", rand::random::<u32>()));
    let uri = write_secret(&uri, &target.restore_uri())?;
    let args = ["restore", kind, id, "--to-file", &uri.to_string_lossy()];
    let done = stage.command(&[&args[..], more].concat()).await?;
    ensure!(done["state"] == "FINISHED", "{done}");
    let at = |name: &str| -> Result<jiff::Timestamp> { Ok(done[name].as_str().context("no time")?.parse()?) };
    let documents: u64 = done["parts"].as_array().into_iter().flatten().filter_map(written).sum();
    ensure!(documents >= DOCUMENTS as u64, "{done}");
    Ok(at("ended")?.duration_since(at("requested")?).as_secs_f64())
}

fn written(part: &Value) -> Option<u64> {
    part["written"]["documents"].as_u64()
}

/// Inserts documents of the source from memory, a thousand at a time, [`WORKERS`] times at once: the seconds that
/// it takes for all of them, and their megabytes.
async fn bare_loop(source: &ReplicaSet) -> Result<(f64, f64)> {
    let mut batches = Vec::new();
    let command = rawdoc! {"find": "orders", "hint": {"_id": 1}, "batchSize": 1000};
    let mut cursor = source.client().database("bench").run_raw_cursor_command(command).batch_size(1000).batch().await?;
    let mut bytes = 0;
    while let Some(batch) = cursor.next().await.transpose()? {
        let documents = batch.doc_slices()?.into_iter().map(|document| {
            let document = document?.as_document().context("no document")?.to_owned();
            bytes += document.as_bytes().len();
            anyhow::Ok(document)
        });
        let documents = documents.collect::<Result<Vec<RawDocumentBuf>>>()?;
        batches.extend(Some(documents).filter(|documents| !documents.is_empty()));
    }
    let target = Lab::builder().named("bare").shards(1).start().await?;
    let orders = target.shard(0).client().database("bench").collection::<RawDocumentBuf>("orders");
    let begun = Instant::now();
    let mut next = batches.iter();
    let insert = |batch| {
        let orders = orders.clone();
        async move { orders.insert_many(batch).await }
    };
    let mut running: FuturesUnordered<_> = next.by_ref().take(WORKERS).map(insert).collect();
    while let Some(done) = running.next().await {
        done?;
        running.extend(next.next().map(insert));
    }
    let took = begun.elapsed().as_secs_f64();
    ensure!(orders.count_documents(doc! {}).await? == DOCUMENTS as u64);
    Ok((took, bytes as f64 / 1e6))
}
