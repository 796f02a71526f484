//! `make bench`: ratios, each against its floor in the same run, so that a slow or busy machine
//! makes little difference to them. A ratio that misses its limit makes the exit status 1.
//!
//! - hold: the time that the balancer is off ÷ the same commands issued bare, with 2 and with 8 shards
//! - requests: Get One over Digest ÷ a bare route with the same bytes
//! - list: a list of 100 checkpoints out of 10,000 ÷ a bare route with the same bytes
//! - latency: the 99th percentile of Get One while a checkpoint is being taken ÷ while none is, and the same
//!   of the bare route at the same time
//! - capture: a backlog's rate ÷ a bare loop's over the same oplog; its size ÷ gzip's; what it costs
//! - snapshot: the first ÷ a bare loop that reads the same; its size ÷ gzip's; what later ones store ÷ the first
//! - restore: into an empty cluster ÷ a bare loop that inserts; what comparing costs; two shards ÷ one
//! - memory: the server's, idle, with many connections, and after many challenges
//!
//! Where requests are compared, the microseconds are of a processor for one request: the server's own and
//! the kernel's for it, and the client's, which shares its cores. What else the machine does moves the
//! ratio of the requests a second, but hardly that of the server's processor time.

mod bare;
mod capture;
mod client;
mod hold;
mod latency;
mod list;
mod load;
mod memory;
mod options;
mod report;
mod requests;
mod restore;
mod seed;
mod served;
mod snapshot;
mod stage;
mod theirs;
mod usage;

use std::process::ExitCode;

use anyhow::Result;
use stillpoint_lab::Workload;

use options::{Measure, Options};
use report::{Limit, Report};
use served::Served;
use stage::Stage;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [mode, file] = args.as_slice()
        && mode == "--bare"
    {
        bare::serve(file).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = Report::default();
    run(&Options::parse(&args)?, &mut report).await?;
    Ok(report.status())
}

async fn run(options: &Options, report: &mut Report) -> Result<()> {
    if options.wants(Measure::Hold) {
        hold(options, report).await?;
    }
    if options.wants(Measure::Requests) || options.wants(Measure::List) {
        let served = Served::start(&options.binary).await?;
        if options.wants(Measure::Requests) {
            requests::measure(report, &served, options.round)?;
        }
        if options.wants(Measure::List) {
            list::measure(report, &served, options.round)?;
        }
        served.stop().await?;
    }
    if options.wants(Measure::Latency) {
        let stage = Stage::set(&options.binary, 2).await?;
        latency::measure(report, &stage, options.round)?;
        stage.strike().await?;
    }
    if options.wants(Measure::Capture) {
        capture::measure(report, &options.binary, options.round).await?;
    }
    if options.wants(Measure::Snapshot) {
        snapshot::measure(report, &options.binary).await?;
    }
    if options.wants(Measure::Restore) {
        restore::measure(report, &options.binary).await?;
    }
    if options.wants(Measure::Memory) {
        memory::measure(report, &options.binary).await?;
    }
    Ok(())
}

/// Of the time that the balancer is off.
const CEILING: Limit = Limit::AtMost(1.5);

async fn hold(options: &Options, report: &mut Report) -> Result<()> {
    let stage = Stage::set(&options.binary, 2).await?;
    stage.lab.create_database("bank", 0).await?;
    stage.lab.shard_collection("bank.accounts", &[0.into()], &[0, 1]).await?;
    let quiet_2 = hold::measure(&stage, 30).await?;
    report.ratio("balancer off, 2 shards", quiet_2.ratio(), CEILING, &quiet_2);
    let workload = Workload::start(&stage.lab, "bank.accounts", 2).await?;
    let busy_2 = hold::measure(&stage, 20).await?;
    report.ratio("balancer off, 2 shards, under load", busy_2.ratio(), CEILING, &busy_2);
    workload.stop().await?;
    stage.strike().await?;

    let stage = Stage::set(&options.binary, 8).await?;
    let quiet_8 = hold::measure(&stage, 20).await?;
    report.ratio("balancer off, 8 shards", quiet_8.ratio(), CEILING, &quiet_8);
    report.ratio("  of these, 8 shards / 2 shards", quiet_8.ratio() / quiet_2.ratio(), Limit::None, "");
    stage.strike().await
}
