//! What a process uses, as the kernel counts it.

use anyhow::{Context, Result};

/// Processor time, in microseconds.
#[derive(Clone, Copy)]
pub struct Busy {
    pub user: f64,
    pub kernel: f64,
}

impl Busy {
    pub fn total(self) -> f64 {
        self.user + self.kernel
    }

    pub fn of(pid: u32) -> Result<Busy> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, may have spaces.
        let fields = stat.rsplit_once(") ").context("no name in stat")?.1;
        let mut times = fields.split(' ').skip(11).map(|ticks| ticks.parse::<f64>());
        let (user, kernel) = times.next().zip(times.next()).context("no times in stat")?;
        // SAFETY: only reads a constant of the system.
        let tick = 1e6 / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        Ok(Busy { user: user? * tick, kernel: kernel? * tick })
    }

    /// From then on, for each of so many requests.
    pub fn since(self, then: Busy, requests: f64) -> Busy {
        Busy { user: (self.user - then.user) / requests, kernel: (self.kernel - then.kernel) / requests }
    }
}

/// Resident memory in KiB: now, and the most that there ever was.
#[derive(Clone, Copy)]
pub struct Memory {
    pub now: u64,
    pub peak: u64,
}

impl Memory {
    pub fn of(pid: u32) -> Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
            Ok(line.trim().trim_end_matches(" kB").parse()?)
        };
        Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} MiB (peak {:.1})", self.now as f64 / 1024.0, self.peak as f64 / 1024.0)
    }
}

/// Raises the number of files that this process may have open as far as it may; its children inherit
/// that. What it was, and what it is.
pub fn raise_open_files() -> Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit` to an address of one.
    anyhow::ensure!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0, "no limit of open files");
    let was = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one `rlimit` from an address of one.
    anyhow::ensure!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0, "cannot raise it to its maximum");
    Ok((was, limit.rlim_cur))
}
