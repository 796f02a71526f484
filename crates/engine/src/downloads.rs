//! Files that are to be downloaded, once nobody is to have them any more: downloaded, expired, cancelled, or left by
//! a process that was killed.
//!
//! Only what is called like such a file is looked at. A file stays while its restore is under way, and while its link is
//! good; that a time is over is noted before the file goes.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use stillpoint_catalog::{Catalog, CatalogError};
use stillpoint_core::RestoreId;
use stillpoint_core::restore::{File, Gone, Standing};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Setup;
use crate::restore::download::{PARTIAL, delete};

/// From one look to the next: so long a file may outlive its link.
const EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("{path}: {why}")]
    Folder { path: String, why: std::io::Error },
}

/// Deletes what nobody is to have any more, round after round, until `stop`. One server at a time does it: the one
/// that has the catalog.
pub(crate) async fn sweep(setup: Setup, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match sweep_once(&setup).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "downloads: deleted"),
            Err(e) => tracing::warn!(error = %e, "downloads: files could not be deleted, trying again"),
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            () = setup.wake.notified() => {}
            () = stop.cancelled() => {}
        }
    }
}

/// How many files were deleted.
async fn sweep_once(setup: &Setup) -> Result<u64, Failed> {
    let folder = &setup.restores.downloads;
    let failed = |path: &Path, why| Failed::Folder { path: path.display().to_string(), why };
    // Listed before the records are read: what comes later belongs to a restore that is under way by then.
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(0),
        Err(why) => return Err(failed(folder, why)),
    };
    let mut files = Vec::new();
    for entry in listed {
        let entry = entry.map_err(|why| failed(folder, why))?;
        files.extend(entry.file_name().to_str().and_then(named).map(|named| (entry.path(), named)));
    }
    let (mut deleted, mut first) = (0, None);
    for (path, named) in files {
        let done = match is_over(setup, named).await {
            Ok(true) => delete(&path).map_err(|why| failed(&path, why)),
            Ok(false) => Ok(false),
            Err(why) => Err(why.into()),
        };
        match done {
            Ok(gone) => deleted += u64::from(gone),
            // The others go all the same.
            Err(why) => first = first.or(Some(why)),
        }
    }
    first.map_or(Ok(deleted), Err)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Named {
    job: RestoreId,
    /// Not yet in its place.
    partial: bool,
}

/// Whose file it is, if it is one of ours.
fn named(name: &str) -> Option<Named> {
    let (whole, partial) = name.strip_suffix(PARTIAL).map_or((name, false), |whole| (whole, true));
    let job = whole.split('.').next()?.parse().ok()?;
    (whole == File::stored_as(job)).then_some(Named { job, partial })
}

async fn is_over(setup: &Setup, Named { job, partial }: Named) -> Result<bool, CatalogError> {
    let catalog: &dyn Catalog = &*setup.catalog;
    let Some(restore) = catalog.download(job).await? else { return Ok(true) };
    let Some(part) = restore.parts.iter().find(|part| part.job == job) else { return Ok(true) };
    match restore.standing(part, setup.now()) {
        Some(Standing::Preparing) => Ok(false),
        Some(Standing::Ready(_)) => Ok(partial),
        Some(Standing::Expired(at)) => {
            catalog.end_download(job, Gone::Expired(at)).await?;
            Ok(true)
        }
        Some(Standing::Downloaded(_) | Standing::Withdrawn) | None => Ok(true),
    }
}

#[cfg(test)]
mod tests;
