//! `make demo`: stillpoint at work on a real sharded cluster, from nothing to a checkpoint
//! that is proved and fetched over HTTP. Talks on standard error; the reply goes to standard output.
//!
//! It only uses what a reader could type: the binary's command line, its configuration file and
//! curl.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stillpoint_lab::ports::Port;
use stillpoint_lab::product::{Cli, Server, configure, curl, text, write_secret};
use stillpoint_lab::{Lab, Workload, process};
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

const USAGE: &str = "usage: demo --binary PATH [--once]";
const PROJECT: &str = "demo";
const CLUSTER: &str = "Cluster0";
const NS: &str = "bank.accounts";
const CLIENTS: usize = 4;
/// So that a newcomer need not wait.
const QUICK: &str = "[capture]\nseal_after = \"2s\"\n\n[snapshots]\nscheduled = false\n";
const LOOK: Duration = Duration::from_secs(3);
/// For a checkpoint to become restorable.
const RESTORABLE: Duration = Duration::from_secs(60);

struct Args {
    binary: PathBuf,
    once: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = match arguments() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("demo: {error:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Args> {
    let mut args = std::env::args_os().skip(1);
    let (mut binary, mut once) = (None, false);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--binary") => binary = Some(args.next().context("--binary needs a path")?),
            Some("--once") => once = true,
            _ => bail!("unknown argument {}", arg.display()),
        }
    }
    // Absolute, because the server runs in a folder of its own.
    let binary = fs::canonicalize(binary.context("--binary is missing")?)
        .context("--binary names no file: build it first (make demo does)")?;
    Ok(Args { binary, once })
}

/// What has been set up so far, to be taken down in order however the demo ends.
struct Stage {
    dir: TempDir,
    lab: Option<Lab>,
    workload: Option<Workload>,
    server: Option<Server>,
}

async fn run(args: &Args) -> Result<()> {
    let mut ends = Ends {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
        hangup: signal(SignalKind::hangup())?,
    };
    let mut stage = Stage {
        dir: tempfile::Builder::new().prefix("stillpoint-demo-").tempdir()?,
        lab: None,
        workload: None,
        server: None,
    };
    let shown = tokio::select! {
        shown = show(args, &mut stage) => shown,
        () = ends.any() => {
            eprintln!();
            Ok(())
        }
    };
    // The server's log, before its folder goes.
    let shown = shown.map_err(|error| match &stage.server {
        Some(server) => {
            let log = process::tail(&server.log, 20);
            anyhow::anyhow!("{error:#}\nThe server's log ends with\n{log}")
        }
        None => error,
    });
    shown.and(stage.take_down().await)
}

/// The signals that end the demo. Caught until the very end, so that a second Ctrl-C does not
/// cut the taking down short.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

impl Stage {
    /// The server first: it may have a balancer to put back, for which it needs the cluster.
    async fn take_down(self) -> Result<()> {
        say("stopping");
        let stopped = match self.server {
            Some(server) => server.stop().await,
            None => Ok(()),
        };
        let worked = match self.workload {
            Some(workload) => workload.stop().await.map(Some),
            None => Ok(None),
        };
        drop(self.lab);
        self.dir.close().context("cannot remove the demo's folder")?;
        stopped?;
        match worked? {
            Some(summary) => say(&format!(
                "done: {} inserts and {} transfers went on meanwhile; nothing is left running",
                summary.inserts, summary.transfers
            )),
            None => say("nothing is left running"),
        }
        Ok(())
    }
}

async fn show(args: &Args, stage: &mut Stage) -> Result<()> {
    let begin = Instant::now();
    say("starting a sharded cluster: config server, two shards (the first time, mongod is fetched)");
    let lab = stage.lab.insert(Lab::builder().auth(true).start().await?);
    lab.create_database("bank", 0).await?;
    lab.shard_collection(NS, &[0.into()], &[0, 1]).await?;
    stage.workload = Some(Workload::start(lab, NS, CLIENTS).await?);
    say(&format!(
        "up after {:.1} s; {CLIENTS} clients insert and move money between the shards of {NS}",
        begin.elapsed().as_secs_f32()
    ));

    let port = Port::free()?;
    let origin = format!("http://127.0.0.1:{}", port.number());
    let config = configure(stage.dir.path(), port.number(), "1m", QUICK)?;
    let uri_file = write_secret(&stage.dir.path().join("uri"), &lab.uri())?;
    let server = Server::start(&args.binary, stage.dir.path(), &config, port)?;
    let server = stage.server.insert(server);
    server.wait_until_it_answers().await?;
    say(&format!("stillpoint serves on {origin}"));

    let cli = Cli { binary: &args.binary, config: &config };
    let project = cli.run(&["project", "create", PROJECT]).await?;
    let group = text(&project, "id")?;
    let key = cli.run(&["key", "create", "--project", PROJECT, "--role", "GROUP_OWNER"]).await?;
    let user = format!("{}:{}", text(&key, "publicKey")?, text(&key, "privateKey")?);
    let uri_file = uri_file.to_string_lossy();
    cli.run(&["cluster", "add", "--project", PROJECT, "--name", CLUSTER, "--uri-file", &uri_file]).await?;
    let of_cluster = ["--project", PROJECT, "--cluster", CLUSTER];
    say(&format!("project {PROJECT}, a key and {CLUSTER} are known; taking a snapshot of its data while it works"));
    let begin = Instant::now();
    let snapshot = cli.run(&[&["snapshot", "take"], &of_cluster[..]].concat()).await?;
    say(&format!(
        "snapshot {} after {:.1} s; taking a checkpoint",
        text(&snapshot, "id")?,
        begin.elapsed().as_secs_f32()
    ));
    let begin = Instant::now();
    let taken = cli.run(&[&["checkpoint", "take"], &of_cluster[..]].concat()).await?;
    let id = text(&taken, "id")?;
    say(&format!(
        "checkpoint {id} after {} ms; folding it from what is stored, and comparing",
        begin.elapsed().as_millis()
    ));
    let verdict = verify(&cli, &of_cluster, id).await?;
    say(&format!("what is stored of it and a snapshot read of the cluster at its time: {verdict}"));

    say("restoring it into another cluster, with other shards");
    let begin = Instant::now();
    let target = Lab::builder().named("new").auth(true).start().await?;
    let target_file = write_secret(&stage.dir.path().join("target"), &target.restore_uri())?;
    let target_file = target_file.to_string_lossy();
    let restored =
        cli.run(&[&["restore", "--checkpoint", id, "--to-file", &target_file], &of_cluster[..]].concat()).await?;
    drop(target);
    say(&format!(
        "{} after {:.1} s, the new cluster's start and end included; what is there and what was to be written: {}",
        text(&restored, "state")?,
        begin.elapsed().as_secs_f32(),
        text(&restored, "verdict")?
    ));

    let url = format!("{origin}/api/atlas/v1.0/groups/{group}/clusters/{CLUSTER}/backupCheckpoints/{id}?pretty=true");
    let reply = curl(&user, &url).await?;
    say("the API says of the checkpoint:");
    println!("{}", reply.trim_end());
    let document: Value = serde_json::from_str(&reply).context("the API's reply is not JSON")?;
    ensure!(text(&document, "id")? == id, "the API answered with another checkpoint");
    say("to fetch it again:");
    eprintln!("\n    curl --digest -s --user '{user}' '{url}'\n");
    if args.once {
        return Ok(());
    }
    say("to use the command line on it, in another terminal:");
    eprintln!("\n    export STILLPOINT_CONFIG={}\n    {} status\n", config.display(), args.binary.display());
    eprintln!("    reference of the API: {origin}/api/docs\n");
    say("it takes a checkpoint a minute after the last; Ctrl-C ends the demo");
    follow(&cli, &of_cluster, id, server).await
}

/// Compares a checkpoint with the cluster, as soon as it can be restored.
async fn verify(cli: &Cli<'_>, of_cluster: &[&str], id: &str) -> Result<String> {
    let show = [&["checkpoint", "show"], of_cluster, &[id]].concat();
    let begun = Instant::now();
    // A transaction that was prepared by then may be under way still.
    while cli.run(&show).await?["restorable"] != true {
        ensure!(begun.elapsed() < RESTORABLE, "checkpoint {id} does not become restorable");
        sleep(Duration::from_millis(200)).await;
    }
    let verified = cli.run(&[&["verify"], of_cluster, &["--checkpoint", id]].concat()).await?;
    Ok(text(&verified, "verdict")?.to_owned())
}

/// Prints a line for each new checkpoint; ends only with an error.
async fn follow(cli: &Cli<'_>, of_cluster: &[&str], first: &str, server: &mut Server) -> Result<()> {
    let mut seen = vec![first.to_owned()];
    loop {
        sleep(LOOK).await;
        server.check()?;
        let list = cli.run(&[&["checkpoint", "list"], of_cluster].concat()).await?;
        let checkpoints = list.get("results").unwrap_or(&list);
        let mut fresh: Vec<(&str, &str)> = checkpoints
            .as_array()
            .context("`checkpoint list` printed no list")?
            .iter()
            // One without it is still running.
            .filter_map(|checkpoint| Some((checkpoint.get("completed")?.as_str()?, text(checkpoint, "id").ok()?)))
            .filter(|(_, id)| !seen.iter().any(|known| known == id))
            .collect();
        fresh.sort_unstable();
        for (completed, id) in fresh {
            say(&format!("checkpoint {id} completed {completed}"));
            seen.push(id.to_owned());
        }
    }
}

fn say(line: &str) {
    eprintln!("demo: {line}");
}
