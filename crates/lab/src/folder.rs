//! A replica set's temporary folder, and the removal of those whose owner was killed.
//!
//! Each member's journal takes some 300 MB, so a few killed test runs would fill the disk.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Once;

use anyhow::{Context, Result};
use tempfile::TempDir;

const PREFIX: &str = "stillpoint-lab-";
const LOCK: &str = "lock";

/// Removed when dropped; locked while it is in use, so that no other lab takes it for abandoned.
#[derive(Debug)]
pub struct Folder {
    dir: TempDir,
    _lock: File,
}

impl Folder {
    /// Makes a folder; the first time, also removes those that killed processes left.
    pub fn create(name: &str) -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| sweep(&std::env::temp_dir()));
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{name}-"))
            .tempdir()
            .context("cannot make a temporary folder")?;
        // Under its final name only once it is locked, or a sweep could come in between.
        let fresh = dir.path().join("lock.new");
        let lock = File::create(&fresh).context("cannot make a lock file")?;
        lock.lock().context("cannot lock a temporary folder")?;
        fs::rename(&fresh, dir.path().join(LOCK)).context("cannot name a lock file")?;
        Ok(Self { dir, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes the labs' folders below `parent` that nobody holds. What cannot be read or removed,
/// another user's for instance, is left.
pub fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else {
            continue;
        };
        if lock.try_lock().is_ok() {
            tracing::debug!(folder = %entry.path().display(), "removing what a killed lab left");
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
