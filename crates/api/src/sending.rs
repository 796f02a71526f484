//! A file on its way to a client: read by a task of its own, piece by piece as the client takes it.
//!
//! One file goes to one client at a time, and goes with its last byte, if all before it was handed over too: from the
//! moment that this was handed to the connection nobody else gets it, and then the catalog says so, and it is deleted.
//! What the operating system still has of it, or the network, is nobody's to know. A client that breaks off before
//! that leaves all as it was.
//!
//! The task has limits, so that a client that is slow, or takes nothing at all, does not hold the file.

use std::collections::HashMap;
use std::io::{self, ErrorKind, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use stillpoint_catalog::CatalogError;
use stillpoint_core::RestoreId;
use stillpoint_core::restore::Gone;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::gate::Interface;

/// Bytes that are read at once. Two such pieces of a file are in memory, and what its connection has of it.
const PIECE: usize = 128 << 10;
/// From one piece that is taken to the next; and for a whole file [`SETTLING`], and a second for so many bytes.
const STALLED: Duration = Duration::from_secs(60);
const SETTLING: Duration = Duration::from_secs(600);
const LEAST_A_SECOND: u64 = 64 << 10;
/// How often, and how far apart, it is tried to note that a file was downloaded.
const NOTES: usize = 5;
const BETWEEN_NOTES: Duration = Duration::from_secs(1);

/// The files that are on their way, and how much was handed over of those that are not yet used up.
#[derive(Debug, Default)]
pub struct Turns {
    taken: Mutex<HashMap<RestoreId, Arc<AtomicU8>>>,
    /// Up to where, without a hole. A process that ends forgets it: then a file may be had once more.
    reached: Mutex<HashMap<RestoreId, u64>>,
}

/// Its last byte was not yet handed over.
const SENDING: u8 = 0;
/// It was.
const OVER: u8 = 1;
/// It will not be: nobody took it in time.
const GIVEN_UP: u8 = 2;

/// The right to send a file, until it is dropped.
pub struct Turn {
    interface: Arc<Interface>,
    job: RestoreId,
    state: Arc<AtomicU8>,
}

/// Somebody else's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The file is gone with it.
    pub over: bool,
}

impl Turns {
    fn taken(&self) -> MutexGuard<'_, HashMap<RestoreId, Arc<AtomicU8>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self) -> MutexGuard<'_, HashMap<RestoreId, u64>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    pub fn take(interface: &Arc<Interface>, job: RestoreId) -> Result<Turn, Taken> {
        let mut taken = interface.sending.taken();
        match taken.get(&job) {
            Some(state) => Err(Taken { over: state.load(Ordering::SeqCst) == OVER }),
            None => {
                let state = Arc::new(AtomicU8::new(SENDING));
                taken.insert(job, state.clone());
                Ok(Turn { interface: interface.clone(), job, state })
            }
        }
    }

    /// Begins to send a range of a file of so many bytes; with the last of them it goes, if all before was handed over.
    pub async fn send(self, path: PathBuf, mut file: File, range: Range<u64>, bytes: u64) -> io::Result<Sending> {
        file.seek(SeekFrom::Start(range.start)).await?;
        let left = range.end - range.start;
        let (pieces, taken) = mpsc::channel(1);
        let before = self.interface.sending.reached().get(&self.job).copied().unwrap_or(0);
        let goes_on = range.start <= before;
        let over = (goes_on && range.end == bytes).then(|| self.state.clone());
        let handed = Arc::new(AtomicU64::new(range.start));
        let reached = handed.clone();
        let interface = self.interface.clone();
        interface.writes.spawn(async move {
            let whole = Instant::now() + SETTLING + Duration::from_secs(left / LEAST_A_SECOND);
            let limit = || whole.min(Instant::now() + STALLED);
            if read(file, left, &pieces, limit).await {
                // Whether the last piece was taken is known when nobody waits for more.
                let _ = timeout_at(limit(), pieces.closed()).await;
            }
            // Who did not take the last piece until now does not get it any more.
            let given_up = self.state.compare_exchange(SENDING, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst);
            if given_up == Err(OVER) {
                self.end(&path).await;
                self.interface.sending.reached().remove(&self.job);
            } else if goes_on {
                let reached = reached.load(Ordering::SeqCst).max(before);
                self.interface.sending.reached().insert(self.job, reached);
            }
        });
        Ok(Sending { taken, left, handed, over })
    }

    /// The file was downloaded.
    async fn end(&self, path: &PathBuf) {
        let outside = &self.interface.outside;
        let gone = Gone::Downloaded((outside.clock)());
        for n in 1..=NOTES {
            match outside.catalog.end_download(self.job, gone).await {
                Ok(()) | Err(CatalogError::Gone(_)) => break,
                Err(error) => {
                    tracing::error!(job = %self.job, %error, "a download cannot be noted");
                    if n < NOTES {
                        sleep(BETWEEN_NOTES).await;
                    }
                }
            }
        }
        // Also if it could not be noted: nobody gets it twice.
        if let Err(error) = tokio::fs::remove_file(path).await
            && error.kind() != ErrorKind::NotFound
        {
            tracing::error!(job = %self.job, %error, "a file that was downloaded cannot be deleted");
        }
        outside.wake.notify_waiters();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.interface.sending.taken().remove(&self.job);
    }
}

/// Whether all of it was read, and all but the last piece taken.
async fn read(
    mut file: File,
    mut left: u64,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    limit: impl Fn() -> Instant,
) -> bool {
    while left > 0 {
        let mut piece = BytesMut::with_capacity(PIECE.min(usize::try_from(left).unwrap_or(PIECE)));
        let read = match file.read_buf(&mut piece).await {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the file is shorter than it was")),
            read => read,
        };
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left = left.saturating_sub(piece.len() as u64);
        let failed = read.is_err();
        let piece = read.map(|_| piece.freeze());
        if !matches!(timeout_at(limit(), pieces.send(piece)).await, Ok(Ok(()))) || failed {
            return false;
        }
    }
    true
}

fn too_slow() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "it was taken too slowly")
}

/// The body of a reply that is a file.
#[derive(Debug)]
pub struct Sending {
    taken: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    /// Up to where of the file it was handed over.
    handed: Arc<AtomicU64>,
    /// Of one that goes with its last byte.
    over: Option<Arc<AtomicU8>>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match ready!(self.taken.poll_recv(cx)) {
            Some(Ok(piece)) => piece,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(Some(Err(too_slow()))),
        };
        let left = self.left.saturating_sub(piece.len() as u64);
        if left == 0
            && let Some(over) = &self.over
            && over.compare_exchange(SENDING, OVER, Ordering::SeqCst, Ordering::SeqCst).is_err()
        {
            return Poll::Ready(Some(Err(too_slow())));
        }
        self.left = left;
        self.handed.fetch_add(piece.len() as u64, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
