//! `mongod` processes that cannot outlive the process that started them.
//!
//! Each has its own process group, so a terminal's Ctrl-C reaches only us; each dies by
//! `PR_SET_PDEATHSIG` when we are killed, and by its id when it is dropped.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::ports::Port;
use crate::wait::until;
use crate::wire::Connection;

/// How long a `mongod` may take until it answers, recovery after `kill -9` included.
pub const START_LIMIT: Duration = Duration::from_secs(60);
/// mongod's exit code when it could not bind its port.
const EXIT_NET_ERROR: i32 = 48;

type Job = Box<dyn FnOnce() + Send>;

/// Starts a child that dies with this process and is out of reach of the terminal's signals.
///
/// The kernel sends the parent-death signal when the *thread* that spawned the child ends, so
/// all children come from one thread that never does.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::spawn(move || queue.into_iter().for_each(|job| job()));
        Mutex::new(jobs)
    });
    command.process_group(0);
    let parent = std::process::id();
    // SAFETY: between fork and exec only prctl and getppid are called, both async-signal-safe,
    // and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the line above took effect.
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    let (reply, answer) = mpsc::channel();
    let job: Job = Box::new(move || {
        // The caller waits for this answer, so the receiver is there.
        let _ = reply.send(command.spawn());
    });
    let gone = |_| io::Error::other("the spawning thread is gone");
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(job)
        .map_err(|_| io::Error::other("the spawning thread is gone"))?;
    answer.recv().map_err(gone)?
}

/// Sends `signal` to a child that has not been waited for, so its id cannot be another's.
pub fn signal(child: &Child, signal: i32) -> io::Result<()> {
    // SAFETY: kill has no memory effects; the id is that of our own, unreaped child.
    match unsafe { libc::kill(child.id() as i32, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The last `lines` lines of a log file, for an error message.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// One `mongod` with its data folder. The port is kept while the process is down.
#[derive(Debug)]
pub struct Mongod {
    binary: PathBuf,
    dir: PathBuf,
    args: Vec<String>,
    port: Port,
    child: Option<Child>,
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
                Err(Launch::PortTaken) => continue,
                Err(Launch::Failed(error)) => return Err(error),
            }
        }
        bail!("five ports in a row were taken by others")
    }

    async fn launch(&mut self) -> Result<(), Launch> {
        let failed = |error: io::Error| Launch::Failed(error.into());
        let log = OpenOptions::new().create(true).append(true).open(self.log()).map_err(failed)?;
        let mut command = Command::new(&self.binary);
        command
            .arg("--dbpath")
            .arg(self.dir.join("db"))
            .args(["--bind_ip", "127.0.0.1", "--port"])
            .arg(self.port.number().to_string())
            // A socket in /tmp would stay behind after kill -9.
            .arg("--nounixsocket")
            .args(&self.args)
            .stdin(Stdio::null())
            .stderr(log.try_clone().map_err(failed)?)
            .stdout(log);
        self.child = Some(
            spawn(command)
                .map_err(|error| Launch::Failed(anyhow::anyhow!("cannot run {}: {error}", self.binary.display())))?,
        );
        let mut exited = None;
        let address = self.address();
        let answered = until(START_LIMIT, || {
            exited = self.exited();
            let address = address.clone();
            let dead = exited.is_some();
            async move {
                if dead {
                    return Some(false);
                }
                let mut connection = Connection::open(&address, None).await.ok()?;
                connection.run("admin", bson::doc! {"hello": 1}).await.ok().map(|_| true)
            }
        })
        .await;
        match (answered, exited) {
            (Some(true), _) => Ok(()),
            (_, Some(status)) if status.code() == Some(EXIT_NET_ERROR) => Err(Launch::PortTaken),
            (_, status) => Err(Launch::Failed(anyhow::anyhow!(
                "mongod on port {} did not start ({}); its log ends with\n{}",
                self.port.number(),
                status.map_or_else(|| "no answer".to_owned(), |status| status.to_string()),
                tail(&self.log(), 20)
            ))),
        }
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok()?
    }

    /// The address that the process itself listens on.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("mongod.log")
    }

    /// `kill -9`, and waits until the process is gone. Does nothing if it already is.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("cannot kill mongod")?;
            child.wait().context("cannot wait for mongod")?;
        }
        Ok(())
    }

    /// Starts it again on the same folder and port, and waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        // After kill -9 the file holds the dead process's id; mongod itself copes, as it locks it.
        File::open(self.dir.join("db")).context("the data folder is gone")?;
        match self.launch().await {
            Ok(()) => Ok(()),
            Err(Launch::Failed(error)) => Err(error),
            Err(Launch::PortTaken) => {
                bail!("port {} was taken by another program", self.port.number())
            }
        }
    }

    /// Kills it and takes its data away.
    pub fn wipe(&mut self) -> Result<()> {
        self.kill()?;
        let db = self.dir.join("db");
        fs::remove_dir_all(&db).and_then(|()| fs::create_dir(&db)).context("cannot empty the data folder")
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
        signal(child, number).context("cannot signal mongod")
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        // Nothing to do about a failure here, and SIGKILL to an own child does not fail.
        let _ = self.kill();
    }
}

enum Launch {
    PortTaken,
    Failed(anyhow::Error),
}
