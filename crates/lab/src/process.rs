//! `mongod` processes of a lab, which can be killed, frozen and started again.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use anyhow::{Context, Result, bail};
use stillpoint_mongod::process::Owned;
use stillpoint_mongod::{ServerError, server};

pub use stillpoint_mongod::process::{signal, spawn, tail};
pub use stillpoint_mongod::server::START_LIMIT;

use crate::ports::Port;
use crate::wire::Connection;

/// One `mongod` with its data folder. The port is kept while the process is down.
#[derive(Debug)]
pub struct Mongod {
    binary: PathBuf,
    dir: PathBuf,
    args: Vec<String>,
    port: Port,
    child: Option<Owned>,
}

impl Mongod {
    /// Starts a `mongod` on a free port of 127.0.0.1 with its data and log below `dir`, and waits
    /// until it answers. `args` are all but the port and the folders.
    pub async fn start(binary: PathBuf, dir: PathBuf, args: Vec<String>) -> Result<Self> {
        fs::create_dir_all(dir.join("db")).context("cannot make a data folder")?;
        for _ in 0..5 {
            let mut this =
                Self { binary: binary.clone(), dir: dir.clone(), args: args.clone(), port: Port::free()?, child: None };
            match this.launch().await {
                Ok(()) => return Ok(this),
                Err(ServerError::PortTaken(_)) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        bail!("five ports in a row were taken by others")
    }

    async fn launch(&mut self) -> Result<(), ServerError> {
        // What it writes beyond a limit then fails, as on a full disk, and does not end it: a child goes on to ignore
        // what is ignored. SAFETY: there is no handler that could run.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let address = self.address();
        let answers = || async {
            let mut connection = Connection::open(&address, None).await.ok()?;
            connection.run("admin", bson::doc! {"hello": 1}).await.ok().map(drop)
        };
        self.child = Some(server::launch(&self.binary, &self.dir, self.port.number(), &self.args, answers).await?);
        Ok(())
    }

    /// The address that the process itself listens on.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|process| process.child().id())
    }

    pub fn log(&self) -> PathBuf {
        server::log(&self.dir)
    }

    /// `kill -9`, and waits until the process is gone. Does nothing if it already is.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("cannot kill mongod")?;
        }
        Ok(())
    }

    /// Starts it again on the same folder and port, and waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        // After kill -9 the file holds the dead process's id; mongod itself copes, as it locks it.
        File::open(self.dir.join("db")).context("the data folder is gone")?;
        Ok(self.launch().await?)
    }

    /// Kills it and takes its data away.
    pub fn wipe(&mut self) -> Result<()> {
        self.kill()?;
        let db = self.dir.join("db");
        fs::remove_dir_all(&db).and_then(|()| fs::create_dir(&db)).context("cannot empty the data folder")
    }

    /// From now on it can write no file beyond its first `bytes`, as if its disk were full. The limit ends with the
    /// process.
    pub fn limit_files(&self, bytes: u64) -> Result<()> {
        let pid = self.pid().context("this mongod is not running")?;
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limit is read, and no former one is asked for; the id is that of our own, unreaped child.
        match unsafe { libc::prlimit(pid as i32, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()).context("cannot limit mongod's files"),
        }
    }

    /// How it ended, if it has by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.ended()
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.send(libc::SIGSTOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.send(libc::SIGCONT)
    }

    fn send(&self, number: i32) -> Result<()> {
        let child = self.child.as_ref().context("this mongod is not running")?;
        signal(child.child(), number).context("cannot signal mongod")
    }
}
