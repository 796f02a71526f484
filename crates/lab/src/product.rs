//! The product, driven from outside as its reader would: its binary's command line, its
//! configuration file, and curl.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ports::Port;
use crate::process;
use crate::wait::until;

/// From launch until the server answers.
const SERVER_START: Duration = Duration::from_secs(30);
/// From SIGTERM until the server is gone, a running checkpoint included.
const SERVER_STOP: Duration = Duration::from_secs(60);
const COMMAND: Duration = Duration::from_secs(120);

/// Writes a `stillpoint.toml` with everything below `dir`, and `more`.
pub fn configure(dir: &Path, port: u16, interval: &str, more: &str) -> Result<PathBuf> {
    let at = |name: &str| dir.join(name).display().to_string();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\n\n[catalog]\nurl = \"sqlite:{}\"\n\n\
         [secrets]\nkey_file = \"{}\"\n\n[checkpoint]\ninterval = \"{interval}\"\n\n{more}",
        at("stillpoint.db"),
        at("stillpoint.key")
    );
    let path = dir.join("stillpoint.toml");
    fs::write(&path, text).context("cannot write stillpoint.toml")?;
    Ok(path)
}

/// Writes a file that only its owner can read.
pub fn write_secret(path: &Path, secret: &str) -> Result<PathBuf> {
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
pub struct Server {
    child: Child,
    pub log: PathBuf,
    port: Port,
}

impl Server {
    pub fn start(binary: &Path, dir: &Path, config: &Path, port: Port) -> Result<Self> {
        let log = dir.join("serve.log");
        let file = fs::File::create(&log).context("cannot write the server's log")?;
        let mut command = std::process::Command::new(binary);
        command
            .arg("serve")
            .arg("--config")
            .arg(config)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = process::spawn(command).with_context(|| format!("cannot run {}", binary.display()))?;
        Ok(Self { child, log, port })
    }

    pub async fn wait_until_it_answers(&mut self) -> Result<()> {
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

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the server ended by itself ({status})"),
            None => Ok(()),
        }
    }

    /// SIGTERM, then waits until it is gone.
    pub async fn stop(mut self) -> Result<()> {
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
            format!("the server did not end within {SERVER_STOP:?} of SIGTERM; its log ends with\n{}", log())
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

/// The command line, with one configuration.
pub struct Cli<'a> {
    pub binary: &'a Path,
    pub config: &'a Path,
}

impl Cli<'_> {
    /// Runs `stillpoint --config … ARGS --json` and reads the document it prints.
    pub async fn run(&self, args: &[&str]) -> Result<Value> {
        let mut command = tokio::process::Command::new(self.binary);
        command.arg("--config").arg(self.config).args(args).arg("--json");
        let what = format!("stillpoint {}", args.join(" "));
        let printed = output(command, &what, "").await?;
        serde_json::from_str(&printed).with_context(|| format!("{what} printed no JSON"))
    }
}

/// Fetches a URL with Digest. The secret goes in on standard input, where no process list shows it.
pub async fn curl(user: &str, url: &str) -> Result<String> {
    let mut command = tokio::process::Command::new("curl");
    command.args(["--digest", "--silent", "--show-error", "--fail-with-body", "--max-time", "30"]);
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
        child.wait_with_output().await.context("cannot read its output")
    };
    let output = timeout(COMMAND, run).await.with_context(|| format!("{what} took longer than {COMMAND:?}"))??;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{what} failed ({}): {}{printed}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}

/// A field of a document that is a text.
pub fn text<'a>(document: &'a Value, field: &str) -> Result<&'a str> {
    document.get(field).and_then(Value::as_str).with_context(|| format!("no `{field}` in {document}"))
}
