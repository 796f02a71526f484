//! The embedded catalog: all that every catalog must do, and what only a file can do or suffer.

#[path = "../conformance/mod.rs"]
mod conformance;
mod files;
mod formats;
mod processes;
mod secrets;

use std::path::{Path, PathBuf};

use stillpoint_catalog::Result;
use stillpoint_catalog::sqlite::SqliteCatalog;
use tempfile::TempDir;

conformance::conformance_suite!(fresh);

async fn fresh() -> (SqliteCatalog, TempDir) {
    let place = Place::empty();
    let catalog = place.open().unwrap();
    (catalog, place.folder)
}

/// A folder with room for a catalog and its key file.
pub struct Place {
    pub folder: TempDir,
    pub catalog: PathBuf,
    pub key: PathBuf,
}

impl Place {
    pub fn empty() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let (catalog, key) = paths(folder.path());
        Place { folder, catalog, key }
    }

    pub fn open(&self) -> Result<SqliteCatalog> {
        SqliteCatalog::open_with_key_file(&self.catalog, &self.key)
    }

    /// The names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub fn paths(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("stillpoint.db"), folder.join("stillpoint.key"))
}
