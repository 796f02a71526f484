//! The entries of one part between two times, one segment in memory at a time.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use stillpoint_catalog::Catalog;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{Gap, GapCause, Segment};
use stillpoint_core::{ClusterId, ClusterTime};
use stillpoint_oplog::SegmentReader;
use stillpoint_oplog::segment::{RawEntry, SegmentError};
use stillpoint_vault::Vault;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::StoredError;
use super::chain::{Chain, Joint};
use super::fetch::{Fault, fetch, joined};
use super::lost::{Lost, known};
use super::segments::{Segments, oldest};
use crate::Clock;

/// Bytes of entries that are handed on at once.
const BATCH: usize = 1 << 20;

/// What is stored of one part's oplog.
#[derive(Clone)]
pub struct StoredOplog {
    catalog: Arc<dyn Catalog>,
    vault: Arc<Vault>,
    clock: Clock,
    cluster: ClusterId,
    part: PartId,
}

impl StoredOplog {
    /// `clock` says when a gap was found.
    pub fn new(
        catalog: Arc<dyn Catalog>,
        vault: Arc<Vault>,
        clock: Clock,
        cluster: ClusterId,
        part: PartId,
    ) -> StoredOplog {
        StoredOplog { catalog, vault, clock, cluster, part }
    }

    /// The entries from `from` to `to`, both included, each once and in order, as the server wrote them; from
    /// the first that is stored, or to the last. It ends after the first error: entries that should be there
    /// and are not are never passed over.
    pub fn entries(
        &self,
        from: Option<ClusterTime>,
        to: Option<ClusterTime>,
    ) -> BoxStream<'static, Result<RawEntry, StoredError>> {
        let reading = Reading::new(self.clone(), from, to);
        stream::try_unfold(reading, |mut reading| async move {
            let entry = reading.next().await?;
            Ok(entry.map(|entry| (entry, reading)))
        })
        .boxed()
    }
}

struct Reading {
    of: StoredOplog,
    from: Option<ClusterTime>,
    to: Option<ClusterTime>,
    segments: Segments,
    chain: Chain,
    open: Option<Open>,
    batch: std::vec::IntoIter<RawEntry>,
}

/// The segment that is being read, on a thread of its own.
struct Open {
    segment: Segment,
    previous: Option<Segment>,
    batches: mpsc::Receiver<Result<Vec<RawEntry>, SegmentError>>,
    thread: JoinHandle<()>,
}

impl Reading {
    fn new(of: StoredOplog, from: Option<ClusterTime>, to: Option<ClusterTime>) -> Reading {
        let (first, last) = (from.unwrap_or(ClusterTime::ZERO), to.unwrap_or(ClusterTime::MAX));
        let segments = Segments::new(of.catalog.clone(), of.cluster, of.part.clone(), first, last);
        Reading { of, from, to, segments, chain: Chain::default(), open: None, batch: Vec::new().into_iter() }
    }

    async fn next(&mut self) -> Result<Option<RawEntry>, StoredError> {
        loop {
            if let Some(entry) = self.batch.next() {
                return Ok(Some(entry));
            }
            if let Some(mut open) = self.open.take() {
                match open.batches.recv().await {
                    Some(Ok(batch)) => {
                        self.batch = batch.into_iter();
                        self.open = Some(open);
                    }
                    Some(Err(why)) => {
                        let fault = Fault::Damaged(why.to_string());
                        return Err(self.lost(&open.segment, open.previous.as_ref(), fault).await?);
                    }
                    None => joined(open.thread).await,
                }
                continue;
            }
            match self.segments.next().await? {
                Some(segment) => self.begin(segment).await?,
                None => return self.end().await.map(|()| None),
            }
        }
    }

    /// Begins to read a segment, if it goes on from those before it.
    async fn begin(&mut self, segment: Segment) -> Result<(), StoredError> {
        let reached = self.chain.reached();
        let (joint, previous) = self.chain.take(&segment);
        let broken = match joint {
            Joint::First => {
                self.may_begin(&segment).await?;
                None
            }
            Joint::Joined => None,
            Joint::Apart => {
                let after = reached.unwrap_or(ClusterTime::ZERO).after();
                self.no_gap(after, segment.first.time.before()).await?;
                Some("it follows none, and no gap is noted before it".to_owned())
            }
            Joint::Broken(why) => Some(why),
        };
        if let Some(why) = broken {
            return Err(self.lost(&segment, previous.as_ref(), Fault::Damaged(why)).await?);
        }
        // Another run had all of it.
        if reached.is_some_and(|reached| segment.last.time <= reached) {
            return Ok(());
        }
        match fetch(&self.of.vault, &segment, previous.as_ref()).await? {
            Ok(reader) => {
                let from = self.from.max(reached.map(ClusterTime::after)).unwrap_or(ClusterTime::ZERO);
                let (batches, thread) = read(reader, from, self.to.unwrap_or(ClusterTime::MAX));
                self.open = Some(Open { segment, previous, batches, thread });
                Ok(())
            }
            Err(fault) => Err(self.lost(&segment, previous.as_ref(), fault).await?),
        }
    }

    /// Whether nothing is missing between the time that was asked for and the first segment that there is.
    async fn may_begin(&self, first: &Segment) -> Result<(), StoredError> {
        let Some(from) = self.from.filter(|from| first.first.time > *from) else { return Ok(()) };
        let before = first.first.time.before();
        if self.is_oldest(first).await? {
            return self.begins_by(from, first).await;
        }
        match first.previous {
            // That one ended before `from`.
            Some(_) => Ok(()),
            None => self.no_gap(from, before).await,
        }
    }

    async fn is_oldest(&self, segment: &Segment) -> Result<bool, StoredError> {
        let oldest = oldest(&*self.of.catalog, self.of.cluster, &self.of.part).await?;
        Ok(oldest.is_some_and(|oldest| oldest.blob == segment.blob))
    }

    /// Whether what is stored reaches back to `from`, though its first entry is later.
    async fn begins_by(&self, from: ClusterTime, first: &Segment) -> Result<(), StoredError> {
        let StoredOplog { catalog, cluster, part, .. } = &self.of;
        let stream = catalog.stream(*cluster, part).await?;
        let whole = stream.is_some_and(|stream| {
            // It has begun once, and nothing was given up yet.
            first.previous.is_none() && stream.since == stream.complete_from && stream.from <= from
        });
        match whole {
            true => Ok(()),
            false => Err(StoredError::BeginsLater { part: part.clone(), begins: first.first.time, from }),
        }
    }

    /// A gap between the runs of the stream, if there is one; what is lost of a run is found by reading.
    async fn no_gap(&self, from: ClusterTime, to: ClusterTime) -> Result<(), StoredError> {
        let StoredOplog { catalog, cluster, part, .. } = &self.of;
        let between = |gap: &Gap| matches!(gap.cause, GapCause::RolledOver | GapCause::ShardAway);
        let gaps = catalog.gaps(*cluster).await?;
        match gaps.into_iter().find(|gap| gap.part == *part && between(gap) && gap.touches(from, to)) {
            Some(gap) => Err(StoredError::Gap { gap: Box::new(gap) }),
            None => Ok(()),
        }
    }

    /// After the last segment: whether what is stored goes as far as was asked for, or just ends.
    async fn end(&self) -> Result<(), StoredError> {
        let Some(reached) = self.chain.reached() else { return self.nothing().await };
        match self.to {
            Some(to) if reached < to => self.no_gap(reached.after(), to).await,
            _ => Ok(()),
        }
    }

    /// No segment reaches into the time.
    async fn nothing(&self) -> Result<(), StoredError> {
        let StoredOplog { catalog, cluster, part, .. } = &self.of;
        let Some(first) = oldest(&**catalog, *cluster, part).await? else {
            return Err(StoredError::Nothing(part.clone()));
        };
        let from = self.from.unwrap_or(ClusterTime::ZERO);
        match first.first.time > from {
            true => self.begins_by(from, &first).await,
            false => self.no_gap(from, self.to.unwrap_or(from)).await,
        }
    }

    /// Notes that a segment is lost; what is to be said of it.
    async fn lost(
        &self,
        segment: &Segment,
        previous: Option<&Segment>,
        fault: Fault,
    ) -> Result<StoredError, StoredError> {
        let lost = Lost { segment, previous, fault: &fault };
        let gaps = self.of.catalog.gaps(self.of.cluster).await?;
        let known = known(gaps.into_iter().filter(|gap| gap.part == self.of.part));
        let noted = lost.note(&self.of.catalog, &known, (self.of.clock)()).await?;
        let (part, name) = (segment.part.clone(), segment.name());
        let (first, last) = (segment.first.time, segment.last.time);
        Ok(match (noted, fault) {
            (None, _) => StoredError::Expired { part, last },
            (Some(_), Fault::Missing) => StoredError::Missing { part, name, first, last },
            (Some(_), Fault::Damaged(why)) => StoredError::Damaged { part, name, first, last, why },
        })
    }
}

type Batches = mpsc::Receiver<Result<Vec<RawEntry>, SegmentError>>;

/// Decompresses a segment where nobody else waits for it, as its entries are taken.
fn read(reader: SegmentReader, from: ClusterTime, to: ClusterTime) -> (Batches, JoinHandle<()>) {
    let (send, batches) = mpsc::channel(1);
    let thread = tokio::task::spawn_blocking(move || {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for entry in reader.entries_from(from) {
            match entry {
                Ok(entry) if entry.at.time > to => break,
                Ok(entry) => {
                    bytes += entry.bytes.len();
                    batch.push(entry);
                }
                Err(why) => {
                    let sent = send.blocking_send(Ok(std::mem::take(&mut batch)));
                    // An error of either means that nobody reads any more.
                    let _ = sent.and_then(|()| send.blocking_send(Err(why)));
                    return;
                }
            }
            if bytes >= BATCH {
                bytes = 0;
                if send.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
                    return;
                }
            }
        }
        let _ = send.blocking_send(Ok(batch));
    });
    (batches, thread)
}
