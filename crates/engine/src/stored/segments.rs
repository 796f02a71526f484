//! The records of a part's segments, page by page.

use std::collections::VecDeque;
use std::sync::Arc;

use stillpoint_catalog::{Catalog, CatalogError};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{BlobId, Segment};
use stillpoint_core::{ClusterId, ClusterTime};

/// Records in memory at once. Far more than there can be segments that end at the same time.
const PAGE: u64 = 200;

/// Those that reach into a time, in order of their last entries, each once.
pub(super) struct Segments {
    catalog: Arc<dyn Catalog>,
    cluster: ClusterId,
    part: PartId,
    /// Where the next page begins: the last entry of the segment that was given last.
    from: ClusterTime,
    to: ClusterTime,
    page: VecDeque<Segment>,
    /// The next page begins with these again.
    known: Vec<BlobId>,
    ended: bool,
}

impl Segments {
    pub fn new(
        catalog: Arc<dyn Catalog>,
        cluster: ClusterId,
        part: PartId,
        from: ClusterTime,
        to: ClusterTime,
    ) -> Segments {
        Segments { catalog, cluster, part, from, to, page: VecDeque::new(), known: Vec::new(), ended: false }
    }

    pub async fn next(&mut self) -> Result<Option<Segment>, CatalogError> {
        loop {
            while let Some(segment) = self.page.pop_front() {
                if segment.last.time > self.from {
                    self.from = segment.last.time;
                    self.known.clear();
                }
                if !self.known.contains(&segment.blob) {
                    self.known.push(segment.blob);
                    return Ok(Some(segment));
                }
            }
            if self.ended {
                return Ok(None);
            }
            let most = PAGE + self.known.len() as u64;
            let page = self.catalog.segments(self.cluster, &self.part, self.from, self.to, most).await?;
            self.ended = (page.len() as u64) < most;
            self.page = page.into();
        }
    }
}

/// The oldest that is stored of a part.
pub(crate) async fn oldest(
    catalog: &dyn Catalog,
    cluster: ClusterId,
    part: &PartId,
) -> Result<Option<Segment>, CatalogError> {
    Ok(catalog.segments(cluster, part, ClusterTime::ZERO, ClusterTime::MAX, 1).await?.pop())
}
