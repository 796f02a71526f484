//! `make demo`: stillpoint at work on a real sharded cluster, from nothing to a checkpoint
//! fetched over HTTP. Talks on standard error; the reply goes to standard output.
//!
//! It only uses what a reader could type: the binary's command line, its configuration file and
//! curl.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stillpoint_lab::ports::Port;
use stillpoint_lab::wait::until;
use stillpoint_lab::{Lab, Workload, process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

const USAGE: &str = "usage: demo --binary PATH [--once]";
const PROJECT: &str = "demo";
const CLUSTER: &str = "Cluster0";
const NS: &str = "bank.accounts";
const CLIENTS: usize = 4;
/// From launch until the server answers.
const SERVER_START: Duration = Duration::from_secs(30);
/// From SIGTERM until the server is gone, a running checkpoint included.
const SERVER_STOP: Duration = Duration::from_secs(60);
const COMMAND: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(3);

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
        dir: tempfile::Builder::new()
            .prefix("stillpoint-demo-")
            .tempdir()?,
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
        self.dir
            .close()
            .context("cannot remove the demo's folder")?;
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
    say(
        "starting a sharded cluster: config server, two shards (the first time, mongod is fetched)",
    );
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
    let config = configure(stage.dir.path(), port.number())?;
    let uri_file = write_secret(&stage.dir.path().join("uri"), &lab.uri())?;
    let server = Server::start(args, stage.dir.path(), &config, port)?;
    let server = stage.server.insert(server);
    server.wait_until_it_answers().await?;
    say(&format!("stillpoint serves on {origin}"));

    let cli = Cli {
        binary: &args.binary,
        config: &config,
    };
    let project = cli.run(&["project", "create", PROJECT]).await?;
    let group = text(&project, "id")?;
    let key = cli
        .run(&[
            "key",
            "create",
            "--project",
            PROJECT,
            "--role",
            "GROUP_OWNER",
        ])
        .await?;
    let user = format!("{}:{}", text(&key, "publicKey")?, text(&key, "privateKey")?);
    let uri_file = uri_file.to_string_lossy();
    cli.run(&[
        "cluster",
        "add",
        "--project",
        PROJECT,
        "--name",
        CLUSTER,
        "--uri-file",
        &uri_file,
    ])
    .await?;
    say(&format!(
        "project {PROJECT}, a key and {CLUSTER} are known; taking a checkpoint"
    ));
    let begin = Instant::now();
    let of_cluster = ["--project", PROJECT, "--cluster", CLUSTER];
    let taken = cli
        .run(&[&["checkpoint", "take"], &of_cluster[..]].concat())
        .await?;
    let id = text(&taken, "id")?;
    say(&format!(
        "checkpoint {id} after {} ms; the API says:",
        begin.elapsed().as_millis()
    ));

    let url = format!(
        "{origin}/api/atlas/v1.0/groups/{group}/clusters/{CLUSTER}/backupCheckpoints/{id}?pretty=true"
    );
    let reply = curl(&user, &url).await?;
    println!("{}", reply.trim_end());
    let document: Value = serde_json::from_str(&reply).context("the API's reply is not JSON")?;
    ensure!(
        text(&document, "id")? == id,
        "the API answered with another checkpoint"
    );
    say("to fetch it again:");
    eprintln!("\n    curl --digest -s --user '{user}' '{url}'\n");
    if args.once {
        return Ok(());
    }
    say("it takes a checkpoint a minute after the last; Ctrl-C ends the demo");
    follow(&cli, &of_cluster, id, server).await
}

/// Prints a line for each new checkpoint; ends only with an error.
async fn follow(
    cli: &Cli<'_>,
    of_cluster: &[&str],
    first: &str,
    server: &mut Server,
) -> Result<()> {
    let mut seen = vec![first.to_owned()];
    loop {
        sleep(LOOK).await;
        server.check()?;
        let list = cli
            .run(&[&["checkpoint", "list"], of_cluster].concat())
            .await?;
        let checkpoints = list.get("results").unwrap_or(&list);
        let mut fresh: Vec<(&str, &str)> = checkpoints
            .as_array()
            .context("`checkpoint list` printed no list")?
            .iter()
            // One without it is still running.
            .filter_map(|checkpoint| {
                Some((
                    checkpoint.get("completed")?.as_str()?,
                    text(checkpoint, "id").ok()?,
                ))
            })
            .filter(|(_, id)| !seen.iter().any(|known| known == id))
            .collect();
        fresh.sort_unstable();
        for (completed, id) in fresh {
            say(&format!("checkpoint {id} completed {completed}"));
            seen.push(id.to_owned());
        }
    }
}

fn configure(dir: &Path, port: u16) -> Result<PathBuf> {
    let at = |name: &str| dir.join(name).display().to_string();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\n\n[catalog]\nurl = \"sqlite:{}\"\n\n\
         [secrets]\nkey_file = \"{}\"\n\n[checkpoint]\ninterval = \"1m\"\n",
        at("stillpoint.db"),
        at("stillpoint.key")
    );
    let path = dir.join("stillpoint.toml");
    fs::write(&path, text).context("cannot write stillpoint.toml")?;
    Ok(path)
}

fn write_secret(path: &Path, secret: &str) -> Result<PathBuf> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(secret.as_bytes()))
        .context("cannot write the connection string")?;
    Ok(path.to_owned())
}

/// `stillpoint serve`. Dropped without [`stop`](Self::stop), it is killed.
struct Server {
    child: Child,
    log: PathBuf,
    port: Port,
}

impl Server {
    fn start(args: &Args, dir: &Path, config: &Path, port: Port) -> Result<Self> {
        let log = dir.join("serve.log");
        let file = fs::File::create(&log).context("cannot write the server's log")?;
        let mut command = std::process::Command::new(&args.binary);
        command
            .arg("serve")
            .arg("--config")
            .arg(config)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = process::spawn(command)
            .with_context(|| format!("cannot run {}", args.binary.display()))?;
        Ok(Self { child, log, port })
    }

    async fn wait_until_it_answers(&mut self) -> Result<()> {
        let port = self.port.number();
        let answered = until(SERVER_START, || {
            let state = self.check();
            async move {
                match state {
                    Err(error) => Some(Err(error)),
                    Ok(()) => answers_http(port).await.then_some(Ok(())),
                }
            }
        })
        .await;
        answered.with_context(|| format!("the server did not answer within {SERVER_START:?}"))?
    }

    /// An error if it has ended.
    fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the server ended by itself ({status})"),
            None => Ok(()),
        }
    }

    /// SIGTERM, then waits until it is gone.
    async fn stop(mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            process::signal(&self.child, libc::SIGTERM).context("cannot stop the server")?;
        }
        let ended = until(SERVER_STOP, || {
            let status = self.child.try_wait().ok().flatten();
            async move { status }
        })
        .await;
        let log = || process::tail(&self.log, 20);
        let status = ended.with_context(|| {
            format!(
                "the server did not end within {SERVER_STOP:?} of SIGTERM; its log ends with\n{}",
                log()
            )
        })?;
        // A server that does not catch SIGTERM leaves a balancer off: that must be seen.
        ensure!(
            status.success() && status.signal().is_none(),
            "the server ended with {status}; its log ends with\n{}",
            log()
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only for one that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn answers_http(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let request = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut start = [0; 5];
        stream.read_exact(&mut start).await.ok()?;
        (&start == b"HTTP/").then_some(())
    };
    matches!(timeout(Duration::from_secs(2), ask).await, Ok(Some(())))
}

struct Cli<'a> {
    binary: &'a Path,
    config: &'a Path,
}

impl Cli<'_> {
    /// Runs `stillpoint --config … ARGS --json` and reads the document it prints.
    async fn run(&self, args: &[&str]) -> Result<Value> {
        let mut command = tokio::process::Command::new(self.binary);
        command
            .arg("--config")
            .arg(self.config)
            .args(args)
            .arg("--json");
        let what = format!("stillpoint {}", args.join(" "));
        let printed = output(command, &what, "").await?;
        serde_json::from_str(&printed).with_context(|| format!("{what} printed no JSON"))
    }
}

/// Fetches a URL with Digest. The secret goes in on standard input, where no process list shows it.
async fn curl(user: &str, url: &str) -> Result<String> {
    let mut command = tokio::process::Command::new("curl");
    command.args([
        "--digest",
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--max-time",
        "30",
    ]);
    command.args(["--config", "-", url]);
    output(command, "curl", &format!("user = \"{user}\"\n")).await
}

async fn output(mut command: tokio::process::Command, what: &str, input: &str) -> Result<String> {
    let run = async {
        let mut child = command
            // Ctrl-C is for the demo to handle, not for its helpers.
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {what}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that has ended already does not read; its status says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child
            .wait_with_output()
            .await
            .context("cannot read its output")
    };
    let output = timeout(COMMAND, run)
        .await
        .with_context(|| format!("{what} took longer than {COMMAND:?}"))??;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{what} failed ({}): {}{printed}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}

fn text<'a>(document: &'a Value, field: &str) -> Result<&'a str> {
    document
        .get(field)
        .and_then(Value::as_str)
        .with_context(|| format!("no `{field}` in {document}"))
}

fn say(line: &str) {
    eprintln!("demo: {line}");
}
