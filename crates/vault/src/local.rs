//! What is special to a local folder.
//!
//! `object_store` writes a blob to `NAME#1` (or `#2` …), syncs it, renames it to `NAME` and syncs the
//! folder, with the folders above that are new: so there is either all of it or nothing. After a crash
//! the `#` file is left over, see [`leftovers`].

use std::fs::{DirBuilder, File, ReadDir, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use tokio::sync::mpsc;

use crate::error::{Answer, Result, VaultError};
use crate::vault::Listed;

/// Leftovers that are read ahead.
const AHEAD: usize = 64;

pub(crate) fn open(path: &Path, shown: &str, create: bool) -> Result<(LocalFileSystem, PathBuf)> {
    let failed = |doing: &str, e: io::Error| {
        let (vault, doing, why) = (shown.to_owned(), doing.to_owned(), e.to_string());
        match e.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => VaultError::Refused { vault, doing, why },
            _ => VaultError::Unavailable { vault, doing, why },
        }
    };
    if create {
        create_folder(path).map_err(|e| failed("make its folder", e))?;
    }
    let root = match std::fs::canonicalize(path) {
        Ok(root) if root.is_dir() => root,
        Ok(_) => {
            return Err(VaultError::Url { url: shown.to_owned(), why: "that is a file, and must be a folder".into() });
        }
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(VaultError::NoVault { vault: shown.to_owned() }),
        Err(e) => return Err(failed("open its folder", e)),
    };
    let folder = LocalFileSystem::new_with_prefix(&root).map_err(|e| failed("open its folder", e.into()))?;
    // Folders that have become empty stay: removing them would get in the way of who writes into them.
    Ok((folder.with_fsync(true), root))
}

/// Makes a folder that only its owner can enter, and those above it, so that they survive a power cut.
fn create_folder(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let new: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    new.iter().filter_map(|folder| folder.parent()).try_for_each(|above| File::open(above)?.sync_all())
}

/// Keeps other processes from replacing something in the folder, until it is dropped.
pub(crate) fn lock(root: &Path) -> Result<File, Answer> {
    let folder = File::open(root).map_err(|e| Answer::Failed(e.to_string()))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(Answer::Changed),
        Err(TryLockError::Error(e)) => Err(Answer::Failed(e.to_string())),
    }
}

/// Whether a name is that of an interrupted write.
pub fn is_leftover(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once('#').is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Syncs a file, and the folders from the root to it.
pub(crate) fn settle(root: &Path, name: &str) -> io::Result<()> {
    let file = root.join(name);
    file.ancestors().take_while(|path| path.starts_with(root)).try_for_each(|path| File::open(path)?.sync_all())
}

/// Removes an interrupted write, which `object_store` does not see.
pub(crate) fn delete(root: &Path, name: &str) -> Result<(), Answer> {
    match std::fs::remove_file(root.join(name)) {
        Err(e) if e.kind() == ErrorKind::NotFound => Err(Answer::Missing),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(Answer::Refused(e.to_string())),
        done => done.map_err(|e| Answer::Failed(e.to_string())),
    }
}

/// The interrupted writes in a folder and below it.
pub(crate) fn leftovers(root: PathBuf) -> BoxStream<'static, Result<Listed, Answer>> {
    let (found, queue) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut open: Vec<ReadDir> = Vec::new();
        let mut walk = || -> io::Result<()> {
            open.push(std::fs::read_dir(&root)?);
            while let Some(folder) = open.last_mut() {
                let Some(entry) = folder.next() else {
                    open.pop();
                    continue;
                };
                let entry = entry?;
                let listed = match look(&root, &entry) {
                    // It was finished or swept meanwhile.
                    Err(e) if e.kind() == ErrorKind::NotFound => continue,
                    listed => listed?,
                };
                match listed {
                    Found::Folder => open.extend(optional(std::fs::read_dir(entry.path()))?),
                    Found::Leftover(listed) => {
                        if found.blocking_send(Ok(listed)).is_err() {
                            return Ok(());
                        }
                    }
                    Found::Other => {}
                }
            }
            Ok(())
        };
        if let Err(e) = walk() {
            // Nobody listens any more if this fails.
            let _ = found.blocking_send(Err(Answer::Failed(e.to_string())));
        }
    });
    stream::unfold(queue, |mut queue| async move { queue.recv().await.map(|listed| (listed, queue)) }).boxed()
}

enum Found {
    Folder,
    Leftover(Listed),
    Other,
}

fn look(root: &Path, entry: &std::fs::DirEntry) -> io::Result<Found> {
    if entry.file_type()?.is_dir() {
        return Ok(Found::Folder);
    }
    let path = entry.path();
    let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str).filter(|name| is_leftover(name)) else {
        return Ok(Found::Other);
    };
    let metadata = entry.metadata()?;
    let modified = Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)?;
    Ok(Found::Leftover(Listed { name: name.to_owned(), bytes: metadata.len(), modified }))
}

/// A folder that is gone is none.
fn optional<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn names_of_interrupted_writes_are_told_from_others() {
        for name in ["a/b#1", "vault.json#12"] {
            assert!(is_leftover(name), "{name}");
        }
        for name in ["a/b", "a/b#", "a/b#x", "a#1/b", "a/b#1x"] {
            assert!(!is_leftover(name), "{name}");
        }
    }

    #[test]
    fn a_new_folder_is_its_owners_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/vault");
        create_folder(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        create_folder(&path).unwrap();
    }
}
