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
    /// When SQLite was last asked, in nanoseconds since `begin`, and what it said.
    asked: AtomicU64,
    data_version: AtomicU32,
    own_writes: AtomicU32,
}

impl Watch {
    pub fn new(connection: Connection) -> Watch {
        Watch {
            connection: Mutex::new(connection),
            begin: Instant::now(),
            asked: AtomicU64::new(0),
            data_version: AtomicU32::new(0),
            own_writes: AtomicU32::new(0),
        }
    }

    /// This process has written.
    pub fn written(&self) {
        self.own_writes.fetch_add(1, Ordering::Release);
    }

    pub fn version(&self) -> Result<u64> {
        let now = self.begin.elapsed().as_nanos() as u64;
        let asked = self.asked.load(Ordering::Acquire);
        if asked == 0 || now.saturating_sub(asked) >= UNNOTICED.as_nanos() as u64 {
            let connection = lock(&self.connection);
            let mut statement = connection.prepare_cached("PRAGMA data_version").map_err(store)?;
            let version: i64 = statement.query_row([], |row| row.get(0)).map_err(store)?;
            self.data_version.store(version as u32, Ordering::Release);
            self.asked.store(now.max(1), Ordering::Release);
        }
        let (theirs, ours) = (self.data_version.load(Ordering::Acquire), self.own_writes.load(Ordering::Acquire));
        Ok(u64::from(theirs) << 32 | u64::from(ours))
    }
}
