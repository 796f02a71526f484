//! A replica set's temporary folder, and the removal of those whose owner was killed.

use std::path::Path;
use std::sync::Once;

use stillpoint_mongod::{Folder, ServerError, folder};

const PREFIX: &str = "stillpoint-lab-";

/// Makes a folder; the first time, also removes those that killed processes left.
pub fn create(name: &str) -> Result<Folder, ServerError> {
    static SWEPT: Once = Once::new();
    let parent = std::env::temp_dir();
    SWEPT.call_once(|| sweep(&parent));
    Folder::create(&parent, &format!("{PREFIX}{name}-"))
}

/// Removes the labs' folders below `parent` that nobody holds.
pub fn sweep(parent: &Path) {
    for folder in folder::sweep(parent, PREFIX) {
        tracing::debug!(folder = %folder.display(), "removed what a killed lab left");
    }
}
