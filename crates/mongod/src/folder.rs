//! A temporary folder that servers are in, and the removal of those whose owner was killed.
//!
//! A server's journal takes some 300 MB, so a few killed owners would fill the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use crate::ServerError;

const LOCK: &str = "lock";
/// The processes in it: an id and when it began, a line each.
const SERVERS: &str = "servers";
/// How long a killed process may take until it is gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Removed when dropped, and nobody else's to read; locked while it is in use, so that no other process takes it for
/// abandoned.
#[derive(Debug)]
pub struct Folder {
    dir: TempDir,
    _lock: File,
}

impl Folder {
    /// Makes one below `parent` whose name begins with `prefix`.
    pub fn create(parent: &Path, prefix: &str) -> Result<Folder, ServerError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |why: io::Error| ServerError::File { path, why }
        };
        let ours = fs::Permissions::from_mode(0o700);
        let dir =
            tempfile::Builder::new().prefix(prefix).permissions(ours).tempdir_in(parent).map_err(failed(parent))?;
        // Under its final name only once it is locked, or a sweep could come in between.
        let fresh = dir.path().join("lock.new");
        let lock = File::create(&fresh).map_err(failed(&fresh))?;
        lock.lock().map_err(failed(&fresh))?;
        fs::rename(&fresh, dir.path().join(LOCK)).map_err(failed(&fresh))?;
        Ok(Folder { dir, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Remembers a process of ours that is in it, for a sweep after we were killed.
    pub fn note(&self, child: &Child) -> Result<(), ServerError> {
        let path = self.path().join(SERVERS);
        let write = || {
            let began = began(child.id())?;
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(format!("{} {began}\n", child.id()).as_bytes())
        };
        write().map_err(|why| ServerError::File { path: path.clone(), why })
    }

    /// Removes it with all that is in it.
    pub fn remove(self) -> Result<(), ServerError> {
        let path = self.path().to_owned();
        self.dir.close().map_err(|why| ServerError::File { path, why })
    }
}

/// Removes the folders below `parent` whose names begin with `prefix`, that are ours and that nobody holds, and ends
/// the processes that were noted in them. What cannot be read or removed is left; what was removed.
pub fn sweep(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut removed = Vec::new();
    let Ok(entries) = fs::read_dir(parent) else {
        return removed;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(prefix) || !is_ours(&path) {
            continue;
        }
        let Ok(lock) = File::open(path.join(LOCK)) else {
            continue;
        };
        if lock.try_lock().is_ok() && end_servers(&path) && fs::remove_dir_all(&path).is_ok() {
            removed.push(path);
        }
    }
    removed
}

/// Not a link, and of our user.
fn is_ours(path: &Path) -> bool {
    let uid = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid)
}

/// Ends what was noted in a folder and is still that; whether none is left.
fn end_servers(folder: &Path) -> bool {
    let noted = fs::read_to_string(folder.join(SERVERS)).unwrap_or_default();
    let servers = noted.lines().filter_map(|line| {
        let (pid, began) = line.split_once(' ')?;
        Some((pid.parse().ok()?, began.parse().ok()?))
    });
    servers.fold(true, |all, (pid, began)| end_server(pid, began, folder) && all)
}

/// Ends a process that began then and has something in the folder; whether it is gone.
fn end_server(pid: u32, then: u64, folder: &Path) -> bool {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    // Held from before the look at who it is: what is killed is what was looked at, whoever gets the number next.
    let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else {
        return began(pid).is_err();
    };
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_in_it = command.split(|byte| *byte == 0).any(|word| {
        let word = String::from_utf8_lossy(word);
        Path::new(word.as_ref()).starts_with(folder)
    });
    if !is_in_it || began(pid).ok() != Some(then) {
        return true;
    }
    if pidfd_send_signal(&process, Signal::KILL).is_err() {
        return began(pid).is_err();
    }
    let within = Timespec { tv_sec: GONE_WITHIN.as_secs() as i64, tv_nsec: 0 };
    let mut gone = [PollFd::new(&process, PollFlags::IN)];
    matches!(poll(&mut gone, Some(&within)), Ok(1))
}

/// When a process began, in ticks since the machine did: with its id, whose it is.
fn began(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Its name, in brackets, may hold anything. After it, this is the twentieth.
    let field = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19));
    field.and_then(|field| field.parse().ok()).ok_or_else(|| io::Error::other("no start time"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    const PREFIX: &str = "folder-test-";

    /// A process that has the folder in its command, as a server has.
    fn in_folder(folder: &Path) -> Child {
        let file = folder.join("file");
        fs::write(&file, "").unwrap();
        // It reads what we never write, first.
        Command::new("cat").arg("-").arg(file).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// What an owner leaves that was killed: the folder, its notes, and no lock.
    fn abandon(folder: Folder) -> PathBuf {
        let Folder { dir, _lock } = folder;
        dir.keep()
    }

    /// What another test starts has our lock, too, from its fork to its exec.
    fn swept(parent: &Path) -> Vec<PathBuf> {
        let begun = Instant::now();
        loop {
            let removed = sweep(parent, PREFIX);
            if !removed.is_empty() || begun.elapsed() > Duration::from_secs(10) {
                return removed;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn runs(child: &mut Child) -> bool {
        child.try_wait().unwrap().is_none()
    }

    #[test]
    fn what_a_killed_owner_left_is_removed_and_its_servers_end() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::create(parent.path(), PREFIX).unwrap();
        let mut server = in_folder(folder.path());
        folder.note(&server).unwrap();
        assert_eq!(sweep(parent.path(), PREFIX), [] as [PathBuf; 0], "it is held");
        assert!(runs(&mut server) && folder.path().exists());

        let path = abandon(folder);
        assert_eq!(swept(parent.path()), std::slice::from_ref(&path));
        assert!(!path.exists());
        assert!(!server.wait().unwrap().success());
    }

    #[test]
    fn nobody_elses_process_or_folder_is_touched() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::create(parent.path(), PREFIX).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        // One with that id that has nothing in the folder; one that has, and began at another time.
        let mut other = in_folder(elsewhere.path());
        folder.note(&other).unwrap();
        let mut later = in_folder(folder.path());
        let servers = folder.path().join(SERVERS);
        let mut file = OpenOptions::new().append(true).open(servers).unwrap();
        writeln!(file, "{} {}\nnonsense\n0 0\n{} 1", later.id(), began(later.id()).unwrap() - 1, u32::MAX).unwrap();
        let stranger = parent.path().join("stranger");
        fs::create_dir(&stranger).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), parent.path().join(format!("{PREFIX}link"))).unwrap();
        fs::write(elsewhere.path().join(LOCK), "").unwrap();

        let path = abandon(folder);
        assert_eq!(swept(parent.path()), [path]);
        assert!(runs(&mut other) && runs(&mut later));
        assert!(stranger.exists() && elsewhere.path().exists());
        for mut child in [other, later] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn only_its_owner_may_look_into_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::create(parent.path(), PREFIX).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
        let path = folder.path().to_owned();
        folder.remove().unwrap();
        assert!(!path.exists());
    }
}
