//! A `mongod` with its data folder and its port.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::process::{Owned, tail};
use crate::{Folder, Port, ServerError};

/// How long a `mongod` may take until it answers, recovery after `kill -9` included.
pub const START_LIMIT: Duration = Duration::from_secs(60);
/// mongod's exit code when it could not bind its port.
const EXIT_NET_ERROR: i32 = 48;
/// Ports that are tried before it is given up.
const PORTS: usize = 5;
/// Between two looks whether it answers.
const PAUSE: Duration = Duration::from_millis(20);
/// Lines of its log that an error has.
const LINES: usize = 20;

/// Where a server with its data below `dir` writes its log.
pub fn log(dir: &Path) -> PathBuf {
    dir.join("mongod.log")
}

/// Starts a `mongod` with its data and its log below `dir`, and waits until `answers` has an answer.
/// `args` are all but the port and the folders.
pub async fn launch<Fut: Future<Output = Option<()>>>(
    binary: &Path,
    dir: &Path,
    port: u16,
    args: &[impl AsRef<OsStr>],
    answers: impl Fn() -> Fut,
) -> Result<Owned, ServerError> {
    let mut server = spawn(binary, dir, port, args)?;
    let end = Instant::now() + START_LIMIT;
    loop {
        let status = server.ended();
        if status.is_some() || Instant::now() >= end {
            return Err(not_started(dir, port, status));
        }
        if let Ok(Some(())) = timeout_at(end, answers()).await {
            return Ok(server);
        }
        sleep(PAUSE).await;
    }
}

fn spawn(binary: &Path, dir: &Path, port: u16, args: &[impl AsRef<OsStr>]) -> Result<Owned, ServerError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |why: io::Error| ServerError::File { path, why }
    };
    fs::create_dir_all(dir.join("db")).map_err(file(dir))?;
    let log = log(dir);
    let out = OpenOptions::new().create(true).append(true).open(&log).map_err(file(&log))?;
    let mut command = Command::new(binary);
    command
        .arg("--dbpath")
        .arg(dir.join("db"))
        .args(["--bind_ip", "127.0.0.1", "--port"])
        .arg(port.to_string())
        // A socket in /tmp would stay behind after kill -9.
        .arg("--nounixsocket")
        .args(args)
        .stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_secret(name)) {
        command.env_remove(name);
    }
    command.stderr(out.try_clone().map_err(file(&log))?).stdout(out);
    Owned::spawn(command).map_err(|why| ServerError::NotRun { path: binary.to_owned(), why })
}

/// What may hold a secret of ours: no server needs it.
fn is_secret(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with("STILLPOINT_") || name.starts_with("AWS_")
}

fn not_started(dir: &Path, port: u16, status: Option<ExitStatus>) -> ServerError {
    match status.and_then(|status| status.code()) {
        Some(EXIT_NET_ERROR) => ServerError::PortTaken(port),
        _ => ServerError::NotStarted { port, status, log: tail(&log(dir), LINES) },
    }
}

/// A `mongod` in a folder of ours. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    process: Owned,
    port: Port,
    dir: PathBuf,
}

impl Server {
    /// Starts one on a free port of 127.0.0.1 in a folder of its own below `folder`, and waits until it listens.
    pub async fn start(
        binary: &Path,
        folder: &Folder,
        name: &str,
        args: &[impl AsRef<OsStr>],
    ) -> Result<Server, ServerError> {
        let dir = folder.path().join(name);
        let mut taken = ServerError::NoPort;
        for _ in 0..PORTS {
            let port = Port::free()?;
            let number = port.number();
            let listens = || async move { TcpStream::connect(("127.0.0.1", number)).await.ok().map(drop) };
            match launch(binary, &dir, number, args, listens).await {
                Ok(process) => {
                    folder.note(process.child())?;
                    return Ok(Server { process, port, dir });
                }
                Err(why @ ServerError::PortTaken(_)) => taken = why,
                Err(why) => return Err(why),
            }
        }
        Err(taken)
    }

    /// The address that it listens on.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// What it left, if it ended by itself: its status, and the end of its log.
    pub fn failed(&mut self) -> Option<ServerError> {
        let status = self.process.ended()?;
        Some(ServerError::Ended { port: self.port.number(), status, log: tail(&log(&self.dir), LINES) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_gets_a_secret_of_ours_with_its_environment() {
        for name in ["STILLPOINT_MASTER_KEY", "STILLPOINT_VAULT__S3__ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            assert!(is_secret(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "LD_LIBRARY_PATH", "TMPDIR"] {
            assert!(!is_secret(OsStr::new(name)), "{name}");
        }
    }

    /// A program that is no server: it prints what it was given, and ends.
    #[tokio::test]
    async fn one_that_ends_instead_of_starting_is_told_with_its_log() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::create(parent.path(), "server-test-").unwrap();
        let failed = Server::start(Path::new("/bin/echo"), &folder, "a", &["--shardsvr"]).await.unwrap_err();
        let ServerError::NotStarted { status: Some(status), log, .. } = &failed else { panic!("{failed:?}") };
        assert!(status.success() && log.contains("--bind_ip 127.0.0.1") && log.ends_with("--shardsvr"), "{failed}");
        let missing = Server::start(Path::new("/nowhere/mongod"), &folder, "b", &[""; 0]).await;
        assert!(matches!(missing, Err(ServerError::NotRun { .. })), "{missing:?}");
    }
}
