//! Which snapshot data is of. What of it turns out to be damaged is noted, so that no time is offered any more
//! which needs it.

use std::sync::Arc;

use stillpoint_catalog::{Catalog, CatalogError};
use stillpoint_core::{ClusterId, SnapshotId};

use super::SnapshotError;
use super::check::is_damage;

#[derive(Clone)]
pub struct Origin {
    catalog: Arc<dyn Catalog>,
    cluster: ClusterId,
    /// None of what is read for a snapshot that has not ended.
    snapshot: Option<SnapshotId>,
}

impl Origin {
    pub fn new(catalog: Arc<dyn Catalog>, cluster: ClusterId, snapshot: Option<SnapshotId>) -> Origin {
        Origin { catalog, cluster, snapshot }
    }

    /// What reading the data came to.
    pub async fn noted<T>(&self, read: Result<T, SnapshotError>) -> Result<T, SnapshotError> {
        let (snapshot, why) = match (self.snapshot, read) {
            (Some(snapshot), Err(why)) if is_damage(&why) => (snapshot, why),
            (_, read) => return read,
        };
        match self.catalog.note_damage(self.cluster, snapshot, Some(&why.to_string())).await {
            Ok(()) => {
                tracing::error!(cluster = %self.cluster, %snapshot, error = %why, "a stored snapshot is damaged");
                Err(SnapshotError::Unsound { snapshot, why: Box::new(why) })
            }
            // It was deleted while it was read.
            Err(CatalogError::Gone(_)) => Err(why),
            Err(e) => Err(e.into()),
        }
    }
}
