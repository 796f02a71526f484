//! How long the balancer is off, against the same commands issued bare.

use std::fmt;
use std::time::Instant;

use anyhow::{Context, Result};
use bson::{Bson, DateTime, Document, Timestamp, doc};
use futures::future::try_join_all;

use crate::report::median;
use crate::stage::Stage;

/// Medians, in milliseconds.
pub struct Hold {
    held: f64,
    floor: f64,
}

impl Hold {
    pub fn ratio(&self) -> f64 {
        self.held / self.floor
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "off {:.1} ms; stop + slowest note + start {:.1} ms; medians", self.held, self.floor)
    }
}

/// Takes checkpoints and bare rounds in turn. What is off is read from the config servers' oplog: from
/// the stop's entry to the entry that puts the mode back.
pub async fn measure(stage: &Stage, rounds: usize) -> Result<Hold> {
    // Documents that are there and on, so that a stop and a start each change them.
    stage.lab.operator_starts_balancer().await?;
    let (mut held, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begin = now(stage).await?;
        stage.take().await?;
        held.push(off_for(stage, begin).await?);
        floor.push(bare_round(stage).await?);
    }
    Ok(Hold { held: median(held), floor: median(floor) })
}

async fn now(stage: &Stage) -> Result<Timestamp> {
    let reply = stage.lab.config().run("admin", doc! {"ping": 1}).await?;
    reply.get_timestamp("operationTime").context("no operationTime")
}

/// Milliseconds between the first and the last change of the balancer's mode since `begin`.
async fn off_for(stage: &Stage, begin: Timestamp) -> Result<f64> {
    let find = doc! {
        "find": "oplog.rs",
        "filter": {"ts": {"$gt": begin}, "ns": "config.settings", "o2._id": "balancer"},
        "batchSize": 100,
        "singleBatch": true,
    };
    let reply = stage.lab.config().run("local", find).await?;
    let entries = reply.get_document("cursor")?.get_array("firstBatch")?;
    let wall = |entry: Option<&Bson>| {
        entry.and_then(Bson::as_document).and_then(|e: &Document| e.get_datetime("wall").ok()).copied()
    };
    let (first, last): (DateTime, DateTime) =
        wall(entries.first()).zip(wall(entries.last())).context("the balancer was not stopped")?;
    anyhow::ensure!(entries.len() == 2, "the balancer was changed {} times", entries.len());
    Ok((last.timestamp_millis() - first.timestamp_millis()) as f64)
}

/// Stop, one majority note in each part at once, start.
async fn bare_round(stage: &Stage) -> Result<f64> {
    let note = doc! {"appendOplogNote": 1, "data": {"bench": 1}, "writeConcern": {"w": "majority", "wtimeout": 10_000}};
    let begin = Instant::now();
    let config = stage.lab.config().client().database("admin");
    config.run_command(doc! {"_configsvrBalancerStop": 1}).await?;
    let notes = stage.lab.parts().map(|part| {
        let admin = part.client().database("admin");
        let note = note.clone();
        async move { admin.run_command(note).await }
    });
    try_join_all(notes).await?;
    config.run_command(doc! {"_configsvrBalancerStart": 1}).await?;
    Ok(begin.elapsed().as_secs_f64() * 1000.0)
}
