//! What is stored of a cluster, read for the question what can be restored.

use stillpoint_core::ClusterId;
use stillpoint_core::coverage::Stored;
use stillpoint_core::snapshot::Snapshot;
use stillpoint_core::stream::{Gap, Stream};

use crate::{Catalog, Page, Result};

#[derive(Debug, Clone, Default)]
pub struct Holdings {
    pub streams: Vec<Stream>,
    pub gaps: Vec<Gap>,
    pub snapshots: Vec<Snapshot>,
}

impl Holdings {
    pub async fn of(catalog: &dyn Catalog, cluster: ClusterId) -> Result<Holdings> {
        Ok(Holdings {
            streams: catalog.streams(cluster).await?,
            gaps: catalog.gaps(cluster).await?,
            snapshots: catalog.snapshots(cluster, Page::ALL).await?,
        })
    }

    pub fn stored(&self) -> Stored<'_> {
        Stored { streams: &self.streams, gaps: &self.gaps, snapshots: &self.snapshots }
    }
}
