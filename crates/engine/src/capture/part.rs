//! Captures one part's oplog: reads it, seals segments, stores each, and notes it in the catalog.
//!
//! An error of any kind is handled as a crash would be: what is open is sealed if that can be, and then
//! all begins again from what the catalog says is stored. So there is one way to resume, and it is always
//! the one that was tested.
//!
//! Two batches at most are in memory, one being taken in and one that waits, and two segments, one being
//! filled and one being stored. When the vault is slow, reading waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use stillpoint_catalog::CatalogError;
use stillpoint_core::checkpoint::backoff;
use stillpoint_core::coverage::whole_until;
use stillpoint_core::stream::{BlobId, Gap, GapCause, Position, Segment, Stream};
use stillpoint_core::{ClusterTime, OpTime};
use stillpoint_mongo::MongoError;
use stillpoint_mongo::tail::{Away, Opened};
use stillpoint_vault::VaultError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::figures::Figures;
use super::ports::{Blobs, Entries, EntryBatch, Ledger, Source};
use super::sealer::{Full, Of, Sealed, Sealer, Unfit};
use crate::{Clock, Hook};

/// How long the entries of a segment may wait for its sealing, and what else is bounded.
#[derive(Debug, Clone)]
pub struct Pace {
    /// From a segment's first entry to its sealing.
    pub seal_after: Duration,
    /// Compressed bytes at which a segment is sealed.
    pub full: u64,
    /// Bytes as the server wrote them at which it is, however well they compress: what a reader has to go
    /// through.
    pub long: u64,
    /// For one batch, the server's own wait for new entries included.
    pub read: Duration,
    /// For what is open at a shutdown or after an error to be stored.
    pub finish: Duration,
    /// Before a first retry; it doubles up to `longest_pause`.
    pub pause: Duration,
    pub longest_pause: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            seal_after: Duration::from_secs(15),
            full: 4 << 20,
            long: 64 << 20,
            read: Duration::from_secs(30),
            finish: Duration::from_secs(10),
            pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
        }
    }
}

impl Pace {
    fn backoff(&self, failures: u32) -> Duration {
        backoff(self.pause, self.longest_pause, failures)
    }
}

/// Batches from this size on count as large: only so many may be in memory, of all parts together.
pub(crate) const LARGE: usize = 1 << 20;
/// After a pause as long as this the next batch may be a large one.
const PAUSED: Duration = Duration::from_secs(3);

/// How a part's capture ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Stopped,
    /// Another holder has the lease.
    Deposed,
}

/// What ended one attempt.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Cluster(#[from] MongoError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("{0}")]
    Vault(VaultError),
    #[error("reading its oplog took longer than {0:?}")]
    TooSlow(Duration),
    #[error("its oplog is overwritten faster than it can be opened: make it larger (replSetResizeOplog)")]
    Overrun,
    /// No further try helps until somebody does something.
    #[error("its oplog cannot be captured any further: {0}. {TO_DO}")]
    Halt(String),
    #[error("a defect: {0}")]
    Panicked(String),
}

/// What helps where no further try does.
const TO_DO: &str = "It is tried again now and then, and goes on if a newer stillpoint knows what this one does not. \
    To begin anew, remove the cluster and add it again: what is stored of it is given up then";

impl From<Unfit> for Cause {
    fn from(unfit: Unfit) -> Cause {
        Cause::Halt(unfit.to_string())
    }
}

/// One part's capture.
pub(crate) struct PartCapture<S, B, L> {
    pub of: Of,
    pub replica_set: String,
    /// When its shard was added to a cluster that was captured already.
    pub since: Option<ClusterTime>,
    pub source: S,
    pub blobs: B,
    pub ledger: L,
    pub pace: Pace,
    pub clock: Clock,
    /// Permits for large batches.
    pub room: Arc<Semaphore>,
    pub figures: Arc<Figures>,
    /// For tests that stop the process between storing a segment and noting it.
    pub after_action: Option<Hook>,
}

type Batch<S> = <<S as Source>::Tail as Entries>::Batch;

/// A batch of which the first `done` entries are taken in.
struct Part<B> {
    batch: B,
    done: usize,
    _room: Option<OwnedSemaphorePermit>,
}

/// What taking in a batch came to.
struct Taken<B> {
    sealer: Sealer,
    /// The rest of the batch, if the segment is to be sealed before it.
    rest: Option<Part<B>>,
}

/// A stream that cannot go on where it was, and what is known of the gap.
struct Broken<'a> {
    before: &'a Stream,
    after: ClusterTime,
    cause: GapCause,
    detail: String,
}

impl<S: Source, B: Blobs, L: Ledger> PartCapture<S, B, L> {
    /// Captures until `stop`, or until the lease is lost.
    pub async fn run(&self, stop: &CancellationToken) -> End {
        let mut failures = 0;
        loop {
            let stored = self.figures.stored();
            // Until something is read there is nothing to finish.
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = stop.cancelled() => return End::Stopped,
            };
            let ended = match opened {
                Ok(pump) => pump.run(stop).await,
                Err(cause) => Err(cause),
            };
            match ended {
                Ok(()) => return End::Stopped,
                Err(Cause::Catalog(CatalogError::Fenced)) => return End::Deposed,
                Err(cause @ Cause::Halt(_)) => {
                    self.figures.halted((self.clock)(), cause.to_string());
                    failures = u32::MAX;
                }
                Err(cause) => self.trouble(&cause),
            }
            if self.figures.stored() != stored {
                failures = 0;
            }
            let pause = self.pace.backoff(failures);
            failures = failures.saturating_add(1);
            tokio::select! {
                () = stop.cancelled() => return End::Stopped,
                () = sleep(pause) => {}
            }
        }
    }

    fn trouble(&self, cause: &Cause) {
        let reading = matches!(cause, Cause::Cluster(_) | Cause::TooSlow(_) | Cause::Overrun);
        self.figures.trouble((self.clock)(), cause.to_string(), reading);
    }

    /// Opens the oplog where what is stored ends.
    async fn open(&self) -> Result<Pump<'_, S, B, L>, Cause> {
        let mut stream = match self.ledger.stream().await? {
            None => self.begin(None).await?,
            Some(before) => match self.was_away(&before) {
                None => before,
                Some(detail) => {
                    let after = stored_until(&before, self.ledger.last_segment().await?.as_ref());
                    self.begin(Some(Broken { before: &before, after, cause: GapCause::ShardAway, detail })).await?
                }
            },
        };
        // Anew once: an oplog that is overwritten faster than it can be opened is tried again after a pause.
        for anew in [false, true] {
            let last = self.ledger.last_segment().await?;
            self.figures.resumed(last.as_ref().map(|segment| segment.last.time));
            let position = match &last {
                Some(segment) => Position::After(segment.last),
                None => Position::At(stream.from),
            };
            match timeout(self.pace.read, self.source.open(position)).await {
                Err(_) => return Err(Cause::TooSlow(self.pace.read)),
                Ok(opening) => match opening? {
                    Opened::Tail(tail, first) => {
                        return Pump::new(self, &stream, last, tail, first);
                    }
                    Opened::RolledOver { oldest, away } if !anew => {
                        let after = stored_until(&stream, last.as_ref());
                        let detail = rolled_over(after, oldest, &away);
                        let broken = Broken { before: &stream, after, cause: GapCause::RolledOver, detail };
                        stream = self.begin(Some(broken)).await?;
                    }
                    Opened::RolledOver { .. } => {}
                    Opened::Diverged { instead } => return Err(Cause::Halt(diverged(last, instead))),
                },
            }
        }
        Err(Cause::Overrun)
    }

    /// Whether the stream is of a shard that has left since, whatever has its name now.
    fn was_away(&self, stream: &Stream) -> Option<String> {
        match stream.ended {
            Some(at) => Some(format!("it was no longer in the cluster at {at}")),
            None if stream.replica_set != self.replica_set => {
                let Stream { replica_set: before, .. } = stream;
                Some(format!(
                    "the replica set {before} has left the cluster, {} is there in its place",
                    self.replica_set
                ))
            }
            None => None,
        }
    }

    /// Begins the stream, or goes on with it after a gap.
    async fn begin(&self, broken: Option<Broken<'_>>) -> Result<Stream, Cause> {
        let since = self.since.filter(|_| broken.is_none());
        let beginning = timeout(self.pace.read, self.source.beginning(since)).await;
        let beginning = beginning.map_err(|_| Cause::TooSlow(self.pace.read))??;
        let since = broken.as_ref().map(|broken| broken.before.since);
        let gap = broken.map(|broken| Gap {
            part: self.of.part.clone(),
            after: broken.after,
            until: beginning.complete_from,
            cause: broken.cause,
            found: (self.clock)(),
            detail: broken.detail,
        });
        let stream = Stream {
            cluster: self.of.cluster,
            part: self.of.part.clone(),
            replica_set: self.replica_set.clone(),
            from: beginning.from,
            complete_from: beginning.complete_from,
            since: since.unwrap_or(beginning.complete_from),
            began: (self.clock)(),
            ended: None,
            unresolved: None,
            kept_from: None,
        };
        self.ledger.begin(&stream, gap.as_ref()).await?;
        match gap {
            Some(gap) => {
                tracing::error!(cluster = %self.of.cluster, part = %self.of.part, "capture: a gap. {gap} ({})", gap.detail)
            }
            None => {
                tracing::info!(cluster = %self.of.cluster, part = %self.of.part, from = %stream.from, "capture begins")
            }
        }
        Ok(stream)
    }

    /// Seals and stores a segment, however often the vault and the catalog fail, until `stop` and the
    /// time to finish are past. The catalog is told before and right after the vault has it, again if need
    /// be, so that a segment which waits to be noted is never swept away.
    async fn store(&self, full: Full, previous: Option<BlobId>) -> Result<Segment, Cause> {
        let now = (self.clock)();
        let Sealed { content, mut record } = blocking(move || full.seal(previous, now)).await??;
        let (place, content) = (record.place(), Bytes::from(content));
        let mut failures = 0;
        loop {
            let cause = match self.store_once(&place, content.clone(), &mut record).await {
                Ok(()) => {
                    self.figures.sealed(&record);
                    return Ok(record);
                }
                Err(cause) => cause,
            };
            let again = match &cause {
                Cause::Catalog(e) => matches!(e, CatalogError::Store(_) | CatalogError::BeingDeleted(_)),
                Cause::Vault(e) => e.is_transient(),
                _ => false,
            };
            if !again {
                return Err(cause);
            }
            self.trouble(&cause);
            sleep(self.pace.backoff(failures)).await;
            failures += 1;
        }
    }

    async fn store_once(&self, place: &str, content: Bytes, record: &mut Segment) -> Result<(), Cause> {
        self.ledger.keep_blobs(place).await?;
        (record.blob, record.stored) = self.blobs.put(place, content).await.map_err(Cause::Vault)?;
        self.did("store-segment");
        self.ledger.append(record).await?;
        self.did("note-segment");
        Ok(())
    }

    fn did(&self, action: &'static str) {
        if let Some(hook) = &self.after_action {
            hook(action);
        }
    }
}

/// The last time of a stream that ends now which is whole.
pub(super) fn stored_until(stream: &Stream, last: Option<&Segment>) -> ClusterTime {
    last.map_or_else(|| stream.complete_from.before(), whole_until)
}

fn rolled_over(after: ClusterTime, oldest: OpTime, away: &[Away]) -> String {
    let away: Vec<_> = away.iter().map(|Away { member, why }| format!("{member} ({why})")).collect();
    let (everywhere, perhaps) = match &away[..] {
        [] => ("", String::new()),
        some => (
            " on every member that answered",
            format!(". What is missing may have been on {}, which could not be asked", some.join(", ")),
        ),
    };
    format!(
        "stored up to {after}, but the oplog began at {oldest}{everywhere} when it was read again: make the oplog larger \
         (replSetResizeOplog), or keep the server running{perhaps}"
    )
}

fn diverged(last: Option<Segment>, instead: OpTime) -> String {
    let last = last.map_or("nothing".into(), |segment| segment.last.to_string());
    format!(
        "{last} was stored last and is no longer in the oplog, which has {instead} in its place: what a majority had was \
         rolled back, or the replica set was restored from elsewhere"
    )
}

/// Runs what takes a processor for long. In the simulation, which has a clock of its own, at once.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Cause> {
    if cfg!(test) {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|e| Cause::Panicked(e.to_string()))
}

/// A batch being taken in.
type Taking<B> = BoxFuture<'static, Result<Result<Taken<B>, Unfit>, Cause>>;

/// Reading, taking in and storing, side by side.
struct Pump<'a, S: Source, B, L> {
    capture: &'a PartCapture<S, B, L>,
    tail: S::Tail,
    /// `None` while entries are being taken in.
    sealer: Option<Sealer>,
    /// The batch that a segment's end fell into, to be taken in before the one that waits.
    rest: Option<Part<Batch<S>>>,
    waiting: Option<Part<Batch<S>>>,
    taking: Option<Taking<Batch<S>>>,
    /// When the segment being filled is to be sealed.
    seal_at: Option<Instant>,
    seal_now: bool,
    last_stored: Option<BlobId>,
    large: bool,
    last_read: Instant,
    room: Option<OwnedSemaphorePermit>,
}

impl<'a, S: Source, B: Blobs, L: Ledger> Pump<'a, S, B, L> {
    fn new(
        capture: &'a PartCapture<S, B, L>,
        stream: &Stream,
        last: Option<Segment>,
        tail: S::Tail,
        first: Batch<S>,
    ) -> Result<Self, Cause> {
        let (end, open, blob) = match last {
            Some(segment) => (Some(segment.last), segment.open, Some(segment.blob)),
            None => (None, Vec::new(), None),
        };
        capture.figures.read(first.committed());
        Ok(Pump {
            capture,
            tail,
            sealer: Some(Sealer::new(capture.of.clone(), &capture.pace, end, open, stream.complete_from)?),
            rest: None,
            waiting: Some(Part { batch: first, done: 0, _room: None }),
            taking: None,
            seal_at: None,
            seal_now: false,
            last_stored: blob,
            // What follows the first, short batch may be much.
            large: true,
            last_read: Instant::now(),
            room: None,
        })
    }

    async fn run(mut self, stop: &CancellationToken) -> Result<(), Cause> {
        let capture = self.capture;
        let mut storing = None;
        // Set once nothing more is to be read: what is open is stored, and then this is the outcome.
        let mut ending: Option<(Result<(), Cause>, Instant)> = None;
        loop {
            if self.taking.is_none() && !self.seal_now && ending.is_none() {
                self.take_next();
            }
            if self.seal_now
                && self.taking.is_none()
                && storing.is_none()
                && let Some(sealer) = &mut self.sealer
            {
                (self.seal_now, self.seal_at) = (false, None);
                storing = sealer.cut()?.map(|full| Box::pin(capture.store(full, self.last_stored)));
                continue;
            }
            if !self.seal_now
                && self.taking.is_none()
                && storing.is_none()
                && let Some((outcome, _)) = ending
            {
                return outcome;
            }
            let read_more = ending.is_none() && self.waiting.is_none();
            let wants_room = self.large || self.last_read.elapsed() > PAUSED;
            let finish_by = ending.as_ref().map(|(_, by)| *by);
            tokio::select! {
                biased;
                stored = if_any(&mut storing) => {
                    storing = None;
                    self.last_stored = Some(stored?.blob);
                }
                taken = if_any(&mut self.taking) => {
                    self.taking = None;
                    self.taken(taken??);
                }
                () = stop.cancelled(), if ending.is_none() => {
                    ending = Some((Ok(()), Instant::now() + capture.pace.finish));
                    self.seal_now = true;
                }
                () = until(finish_by) => {
                    tracing::info!(part = %capture.of.part, "capture: what was not stored in time is read again later");
                    return ending.map_or(Ok(()), |(outcome, _)| outcome);
                }
                () = until(self.seal_at), if !self.seal_now => self.seal_now = true,
                // The semaphore is never closed.
                room = capture.room.clone().acquire_owned(), if read_more && wants_room && self.room.is_none() => {
                    self.room = room.ok();
                }
                batch = timeout(capture.pace.read, self.tail.next()), if read_more && (!wants_room || self.room.is_some()) => {
                    match batch.map_err(|_| Cause::TooSlow(capture.pace.read)).and_then(|batch| Ok(batch?)) {
                        Ok(batch) => self.read(batch),
                        Err(cause) => {
                            ending = Some((Err(cause), Instant::now() + capture.pace.finish));
                            self.seal_now = true;
                        }
                    }
                }
            }
        }
    }

    /// A batch was read.
    fn read(&mut self, batch: Batch<S>) {
        self.capture.figures.read(batch.committed());
        self.large = batch.bytes() >= LARGE;
        self.last_read = Instant::now();
        self.waiting = Some(Part { batch, done: 0, _room: self.room.take() });
    }

    /// Begins to take in what was read.
    fn take_next(&mut self) {
        let Some(part) = self.rest.take().or_else(|| self.waiting.take()) else { return };
        match self.sealer.take() {
            Some(sealer) => self.taking = Some(Box::pin(blocking(move || take(sealer, part)))),
            None => self.rest = Some(part),
        }
    }

    fn taken(&mut self, taken: Taken<Batch<S>>) {
        if !taken.sealer.is_empty() && self.seal_at.is_none() {
            self.seal_at = Some(Instant::now() + self.capture.pace.seal_after);
        }
        self.capture.figures.taken(taken.sealer.last());
        self.seal_now |= taken.rest.is_some();
        self.sealer = Some(taken.sealer);
        self.rest = taken.rest;
    }
}

fn take<B: EntryBatch>(mut sealer: Sealer, mut part: Part<B>) -> Result<Taken<B>, Unfit> {
    let rest = sealer.take(&part.batch, part.done)?.map(|done| {
        part.done = done;
        part
    });
    Ok(Taken { sealer, rest })
}

/// What a future comes to, if there is one.
async fn if_any<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
