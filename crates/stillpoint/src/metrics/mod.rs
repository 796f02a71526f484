//! Figures for Prometheus, at `/metrics`: how capture stands, what is stored, and the last checkpoints, snapshots,
//! restores and drills.
//!
//! A page is made when it is asked for, and again for whoever asks within [`FRESH`]: however many ask, the
//! catalog is looked at once in that time. What is in it are figures, and the names of projects, clusters and
//! parts; an error's text may name hosts, and is in the log and in `stillpoint status` only.
//!
//! # Layout
//! - [`figures`]: what the catalog and capture say
//! - [`page`]: the series, and how they are written
//! - [`service`]: `/metrics`, on an address of its own or beside the API

mod figures;
mod page;
mod service;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use stillpoint_catalog::Catalog;
use stillpoint_core::ClusterId;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::CaptureReport;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

pub use service::{BesideApi, OnItsOwn, limits};

/// How long a page is given again.
const FRESH: Duration = Duration::from_secs(1);
/// How long the catalog may take.
const LOOK: Duration = Duration::from_secs(5);

/// How capture stands, as of now, of each part that this process captures.
pub type Reports = Box<dyn Fn(Timestamp) -> Vec<(ClusterId, PartId, CaptureReport)> + Send + Sync>;

pub struct Metrics {
    catalog: Arc<dyn Catalog>,
    reports: Reports,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Held while a page is made, so that others wait for that one.
    last: Mutex<Option<(Instant, Page)>>,
}

/// `None` if the catalog did not answer.
type Page = Option<Bytes>;

impl Metrics {
    pub fn new(
        catalog: Arc<dyn Catalog>,
        reports: Reports,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> Metrics {
        Metrics { catalog, reports, clock, last: Mutex::default() }
    }

    async fn page(&self) -> Page {
        let mut last = self.last.lock().await;
        if let Some((made, page)) = &*last
            && made.elapsed() < FRESH
        {
            return page.clone();
        }
        let page = self.make().await;
        *last = Some((Instant::now(), page.clone()));
        page
    }

    async fn make(&self) -> Page {
        let now = (self.clock)();
        match timeout(LOOK, figures::gather(&*self.catalog, (self.reports)(now), now)).await {
            Ok(Ok(clusters)) => page::render(clusters),
            Ok(Err(error)) => {
                tracing::warn!(%error, "metrics: the catalog did not answer");
                None
            }
            Err(_) => {
                tracing::warn!("metrics: the catalog did not answer in time");
                None
            }
        }
    }
}
