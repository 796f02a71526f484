//! The server as the program that starts it sees it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command as Program, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::fault::{Command, Fault};
use crate::process::{ASKED, LINE, Start};
use crate::{BUCKET, process};

/// The arguments for a test binary with a test `s3_server_process` at its root.
pub const TEST: &[&str] = &["s3_server_process", "--exact", "--nocapture"];

/// A running S3 server. Its calls wait for the process, at most milliseconds.
#[derive(Debug)]
pub struct Server {
    arguments: Vec<String>,
    folder: TempDir,
    port: u16,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts this program with `arguments`, with which it comes to [`crate::serve_if_asked`].
    pub fn start(arguments: &[&str]) -> Result<Server> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join(BUCKET))?;
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut server = Server { arguments, folder, port: 0, running: None };
        server.restart()?;
        Ok(server)
    }

    /// Starts it again on the same port, with the same objects and no faults.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let start = Start { folder: self.folder.path().to_owned(), port: self.port };
        let mut child = Program::new(std::env::current_exe()?)
            .args(&self.arguments)
            .env(ASKED, serde_json::to_string(&start)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the S3 server does not start")?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut running = Running { child, input, output };
        self.port = u16::try_from(running.answer()?)?;
        self.running = Some(running);
        Ok(())
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running.child.kill()?;
            running.child.wait()?;
        }
        Ok(())
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The file that an object of [`BUCKET`] is in.
    pub fn file(&self, key: &str) -> PathBuf {
        self.folder.path().join(BUCKET).join(key)
    }

    /// The folder that everything is in; files at its top are the server's own.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Uploads in parts that were neither completed nor aborted.
    pub fn unfinished_uploads(&self) -> Result<usize> {
        process::unfinished_uploads(self.folder.path())
    }

    /// Switches a fault on; the first that hits a request is the one that happens.
    pub fn add(&mut self, fault: Fault) -> Result<()> {
        self.tell(&Command::Add(fault)).map(drop)
    }

    /// Switches all faults off.
    pub fn clear(&mut self) -> Result<()> {
        self.tell(&Command::Clear).map(drop)
    }

    /// Requests that faults have hit since it was started.
    pub fn hits(&mut self) -> Result<u64> {
        self.tell(&Command::Count)
    }

    fn tell(&mut self, command: &Command) -> Result<u64> {
        let running = self.running.as_mut().context("the S3 server was killed")?;
        writeln!(running.input, "{}", serde_json::to_string(command)?)?;
        running.answer()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What cannot be killed ends when its standard input does.
        let _ = self.kill();
    }
}

impl Running {
    /// The number in its next line; a test binary writes others, too.
    fn answer(&mut self) -> Result<u64> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                bail!("the S3 server's process ended: {:?}", self.child.try_wait()?);
            }
            if let Some((_, number)) = line.split_once(LINE) {
                return Ok(number.trim().parse()?);
            }
        }
    }
}
