//! The audit trail: who did what, when, from where. Every write and every refused request is a line in
//! the log (target `audit`) and an entry in the catalog.
//!
//! A write's entry is in the catalog before its reply goes out. A refusal's goes through a queue with
//! a bound, and those of one client for one reason within a moment become one entry, with their number: a
//! flood of refused requests costs the catalog a write now and then, not one each. What did not fit is
//! counted in an entry of its own. Refusals have room of their own in the catalog, so that they displace
//! no writes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use stillpoint_catalog::{AuditEntry, Catalog};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

/// Refusals that wait to be written.
const QUEUE: usize = 1_024;
/// Between two writes of refusals.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two sweeps of what is too old.
const SWEEP: SignedDuration = SignedDuration::from_mins(10);

/// How much is kept in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    pub time: SignedDuration,
    /// Of refusals, and of all others.
    pub entries: u64,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { time: SignedDuration::from_hours(24 * 90), entries: 1_000_000 }
    }
}

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

pub struct Audit {
    catalog: Arc<dyn Catalog>,
    /// `None` is the last.
    queue: mpsc::Sender<Option<AuditEntry>>,
    lost: Arc<AtomicU64>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Audit {
    pub fn start(catalog: Arc<dyn Catalog>, keep: Keep, clock: Clock) -> Audit {
        let (queue, queued) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { catalog: catalog.clone(), keep, clock, lost: lost.clone(), swept: None };
        Audit { catalog, queue, lost, writer: Mutex::new(Some(tokio::spawn(writer.run(queued)))) }
    }

    /// Records a write, before its reply.
    pub async fn write(&self, entry: AuditEntry) {
        say(&entry);
        if let Err(error) = self.catalog.append_audit(std::slice::from_ref(&entry)).await {
            tracing::error!(%error, "an audit entry could not be kept; it is in this log");
        }
    }

    /// Records a refusal soon.
    pub fn refusal(&self, entry: AuditEntry) {
        say(&entry);
        if self.queue.try_send(Some(entry)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what is queued, and ends; to be called once no more requests come in.
    pub async fn close(&self, limit: Duration) {
        let Some(writer) = self.writer.lock().await.take() else { return };
        let done = async {
            let _ = self.queue.send(None).await;
            let _ = writer.await;
        };
        if tokio::time::timeout(limit, done).await.is_err() {
            tracing::warn!("refused requests of the last moment are in this log only");
        }
    }
}

fn say(entry: &AuditEntry) {
    let AuditEntry { actor, from, action, status, error, .. } = entry;
    tracing::info!(
        target: "audit",
        actor = actor.as_deref().unwrap_or_default(),
        from = from.as_deref().unwrap_or_default(),
        action,
        status,
        error = error.as_deref().unwrap_or_default(),
    );
}

/// Those of one actor, from one address, for one reason as one: the first of them, and how many there are.
fn together(entries: Vec<AuditEntry>) -> Vec<AuditEntry> {
    let mut kept: Vec<AuditEntry> = Vec::new();
    let mut places = HashMap::new();
    for entry in entries {
        let of = (entry.actor.clone(), entry.from.clone(), entry.error.clone());
        match places.entry(of) {
            Entry::Occupied(place) => {
                let first: &mut AuditEntry = &mut kept[*place.get()];
                first.times = Some(first.times.unwrap_or(1) + 1);
            }
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(entry);
            }
        }
    }
    kept
}

struct Writer {
    catalog: Arc<dyn Catalog>,
    keep: Keep,
    clock: Clock,
    lost: Arc<AtomicU64>,
    swept: Option<Timestamp>,
}

impl Writer {
    async fn run(mut self, mut queued: mpsc::Receiver<Option<AuditEntry>>) {
        let mut end = false;
        while !end {
            self.sweep().await;
            let Ok(first) = tokio::time::timeout(SWEEP.unsigned_abs(), queued.recv()).await else { continue };
            let mut entries: Vec<_> = first.flatten().into_iter().collect();
            end = entries.is_empty();
            if !end {
                tokio::time::sleep(PAUSE).await;
            }
            while !end
                && entries.len() < QUEUE
                && let Ok(next) = queued.try_recv()
            {
                end = next.is_none();
                entries.extend(next);
            }
            self.keep(entries).await;
        }
    }

    async fn keep(&self, entries: Vec<AuditEntry>) {
        let mut entries = together(entries);
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "more requests were refused than the audit trail can hold: they are in this log only");
            let action = "more refused requests, in the log only".to_owned();
            let entry = AuditEntry::done((self.clock)(), action);
            entries.push(AuditEntry { refused: true, times: Some(lost), ..entry });
        }
        if entries.is_empty() {
            return;
        }
        if let Err(error) = self.catalog.append_audit(&entries).await {
            tracing::error!(%error, lost = entries.len(), "audit entries could not be kept; they are in this log");
        }
    }

    async fn sweep(&mut self) {
        let now = (self.clock)();
        if self.swept.is_some_and(|swept| now >= swept && now.duration_since(swept) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        let before = now.checked_sub(self.keep.time).unwrap_or(Timestamp::MIN);
        match self.catalog.trim_audit(before, self.keep.entries).await {
            Ok(0) => {}
            Ok(gone) => tracing::info!(gone, "the oldest audit entries were removed"),
            Err(error) => tracing::error!(%error, "old audit entries could not be removed, trying again later"),
        }
    }
}
