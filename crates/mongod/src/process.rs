//! Processes that cannot outlive the process that started them.
//!
//! Each has its own process group, so a terminal's Ctrl-C reaches only us; each dies by
//! `PR_SET_PDEATHSIG` when we are killed, and by its id when it is dropped.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};

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

/// A child that is killed and waited for when this is dropped.
#[derive(Debug)]
pub struct Owned(Child);

impl Owned {
    pub fn spawn(command: Command) -> io::Result<Owned> {
        spawn(command).map(Owned)
    }

    pub fn child(&self) -> &Child {
        &self.0
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok()?
    }

    /// `kill -9`, and waits until it is gone. Does nothing if it already is.
    pub fn kill(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Nothing to do about a failure here, and SIGKILL to an own child does not fail.
        let _ = self.kill();
    }
}
