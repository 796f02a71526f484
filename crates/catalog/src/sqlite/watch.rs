//! Whether anything in the catalog has changed, at next to no cost.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{lock, store};
use crate::Result;

/// How long another process's write may go unnoticed. Asking SQLite takes several system calls, too
/// much for each of tens of thousands of requests a second; this process's own writes are known at
/// once.
const UNNOTICED: Duration = Duration::from_millis(1);

pub(super) struct Watch {
    /// Never writes, so that every write is another connection's: that is what `data_version` counts.
    connection: Mutex<Connection>,
    begin: Instant,
    /// When SQLite was last asked, in nanoseconds since `begin`; 0 for never.
    asked: AtomicU64,
    /// Writes of this process, and how many of them had been done when SQLite was last asked.
    own_writes: AtomicU64,
    seen_writes: AtomicU64,
    /// The `data_version` at which `changes` was read.
    data_version: AtomicU32,
    /// What the table `changes` says.
    changes: AtomicU64,
}

impl Watch {
    pub fn new(connection: Connection) -> Watch {
        Watch {
            connection: Mutex::new(connection),
            begin: Instant::now(),
            asked: AtomicU64::new(0),
            own_writes: AtomicU64::new(0),
            seen_writes: AtomicU64::new(0),
            data_version: AtomicU32::new(u32::MAX),
            changes: AtomicU64::new(0),
        }
    }

    /// This process has written.
    pub fn written(&self) {
        self.own_writes.fetch_add(1, Ordering::Release);
    }

    pub fn version(&self) -> Result<u64> {
        let now = self.begin.elapsed().as_nanos() as u64;
        if !self.is_fresh(now) {
            let connection = lock(&self.connection);
            // Another thread may have asked while this one waited.
            if !self.is_fresh(now) {
                let writes = self.own_writes.load(Ordering::Acquire);
                self.ask(&connection)?;
                self.seen_writes.store(writes, Ordering::Release);
                self.asked.store(now.max(1), Ordering::Release);
            }
        }
        Ok(self.changes.load(Ordering::Acquire))
    }

    fn is_fresh(&self, now: u64) -> bool {
        let asked = self.asked.load(Ordering::Acquire);
        let all_seen = self.seen_writes.load(Ordering::Acquire) == self.own_writes.load(Ordering::Acquire);
        asked > 0 && all_seen && now.saturating_sub(asked) < UNNOTICED.as_nanos() as u64
    }

    fn ask(&self, connection: &Connection) -> Result<()> {
        let one = |sql: &str| -> Result<i64> {
            let mut statement = connection.prepare_cached(sql).map_err(store)?;
            statement.query_row([], |row| row.get(0)).map_err(store)
        };
        let data_version = one("PRAGMA data_version")? as u32;
        if self.data_version.load(Ordering::Acquire) != data_version {
            self.changes.store(one("SELECT n FROM changes")? as u64, Ordering::Release);
            self.data_version.store(data_version, Ordering::Release);
        }
        Ok(())
    }
}
