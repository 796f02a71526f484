//! What folding may take of this machine: memory, and room for temporary files. All that folds with one [`Room`] at
//! the same time shares the room.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stillpoint_fold::Budget;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::SnapshotError;

/// How long room that others may still need is waited for: they may be waiting for this one.
const WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is kept of this machine while folding. Its clones are the same one.
#[derive(Debug, Clone)]
pub struct Room {
    /// Of memory, for what is not yet on disk, in bytes, for each part.
    pub memory: usize,
    /// For temporary files.
    pub folder: PathBuf,
    /// What those who fold now may still write there.
    claimed: Arc<Mutex<u64>>,
}

/// Some of the room, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    of: Arc<Mutex<u64>>,
    needed: u64,
    /// Of that, what is not yet written.
    left: u64,
}

impl Room {
    pub fn new(memory: usize, folder: PathBuf) -> Room {
        Room { memory, folder, claimed: Arc::default() }
    }

    pub fn budget(&self) -> Budget {
        Budget { memory: self.memory, folder: self.folder.clone() }
    }

    /// For the outcomes of transactions, and for what the oplog says of documents: both are there at once.
    pub fn budgets(&self) -> (Budget, Budget) {
        let of = |memory| Budget { memory, ..self.budget() };
        let few = self.memory / 8;
        (of(few), of(self.memory - few))
    }

    /// The same as [`Room::claim`], but while there is too little for the sake of others, it is waited for.
    pub async fn wait_for(&self, needed: u64, stop: &CancellationToken) -> Result<Claim, SnapshotError> {
        let end = Instant::now() + WITHIN;
        loop {
            match self.claim(needed) {
                Err(SnapshotError::NoRoom { others, .. }) if others > 0 && Instant::now() < end => tokio::select! {
                    () = sleep(LOOK_EVERY) => {}
                    () = stop.cancelled() => return Err(SnapshotError::Stopped),
                },
                claimed => return claimed,
            }
        }
    }

    /// Room for so many bytes of temporary files, beside those that others may still write.
    pub fn claim(&self, needed: u64) -> Result<Claim, SnapshotError> {
        // Nobody claims anything between the look at the disk and the claim.
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        let free = free(&self.folder).map_err(SnapshotError::Spill)?;
        let others = *claimed;
        if free < needed.saturating_add(others) {
            let folder = self.folder.display().to_string();
            return Err(SnapshotError::NoRoom { folder, needed, others, free });
        }
        *claimed += needed;
        drop(claimed);
        Ok(Claim { of: self.claimed.clone(), needed, left: needed })
    }
}

/// The bytes that are free on a folder's disk, for our user.
pub(crate) fn free(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

impl Claim {
    /// So much is on disk by now: it is no longer free.
    pub fn written(&mut self, bytes: u64) {
        self.leave(self.needed.saturating_sub(bytes));
    }

    fn leave(&mut self, left: u64) {
        let mut claimed = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        *claimed = *claimed - self.left + left;
        self.left = left;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.leave(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_folds_at_the_same_time_shares_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(1 << 20, folder.path().to_owned());
        // By itself each finds room; how much is free changes by far less meanwhile.
        let most = free(&room.folder).unwrap() / 4 * 3;
        let mut one = room.claim(most).unwrap();
        let refused = room.clone().claim(most).unwrap_err();
        assert!(!refused.is_lasting(), "it is tried again");
        let says = format!("{most} bytes may be needed in {}, beside {most} for", folder.path().display());
        assert!(refused.to_string().contains(&says), "{refused}");
        // What is on disk already is not counted twice.
        one.written(most / 2);
        assert!(room.claim(most).is_err());
        one.written(most);
        let two = room.claim(most).unwrap();
        assert!(room.claim(most).is_err());
        drop((one, two));
        assert_eq!(*room.claimed.lock().unwrap(), 0);
        room.claim(most).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_others_need_is_waited_for_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(1 << 20, folder.path().to_owned());
        let most = free(&room.folder).unwrap() / 4 * 3;
        let (other, stop) = (room.claim(most).unwrap(), CancellationToken::new());
        let begun = Instant::now();
        let refused = room.wait_for(most, &stop).await.unwrap_err();
        assert!(matches!(refused, SnapshotError::NoRoom { .. }) && begun.elapsed() >= WITHIN, "{refused}");
        let ended = async {
            sleep(Duration::from_secs(9)).await;
            drop(other);
        };
        let (claimed, ()) = tokio::join!(room.wait_for(most, &stop), ended);
        let _other = claimed.unwrap();
        stop.cancel();
        assert!(matches!(room.wait_for(most, &stop).await, Err(SnapshotError::Stopped)));
        // Nobody will make room for what no disk has.
        let begun = Instant::now();
        let alone = Room::new(0, folder.path().to_owned());
        assert!(alone.wait_for(u64::MAX, &CancellationToken::new()).await.is_err() && begun.elapsed().is_zero());
    }

    #[test]
    fn more_may_be_written_than_was_claimed() {
        let room = Room::new(0, std::env::temp_dir());
        let mut claim = room.claim(10).unwrap();
        claim.written(20);
        claim.written(3);
        assert_eq!(*room.claimed.lock().unwrap(), 7);
        drop(claim);
        assert_eq!(*room.claimed.lock().unwrap(), 0);
    }
}
