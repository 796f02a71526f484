//! What would have been lost if the cluster had been lost at a time.

use jiff::Timestamp;
use stillpoint_catalog::CatalogError;
use stillpoint_core::ClusterTime;
use stillpoint_core::coverage::whole_until;
use stillpoint_core::drill::Loss;

use crate::snapshots::Archive;

/// At `now`, with a checkpoint at a time.
pub async fn of(archive: &Archive, now: Timestamp, checkpoint: ClusterTime) -> Result<Loss, CatalogError> {
    Ok(Loss::of(now, checkpoint, reach(archive).await?))
}

/// The newest time that all parts can be restored to.
async fn reach(archive: &Archive) -> Result<Option<ClusterTime>, CatalogError> {
    let stored = archive.stored();
    let mut reach = None::<ClusterTime>;
    for stream in stored.streams.iter().filter(|stream| stream.ended.is_none()) {
        let Some(last) = archive.catalog.last_segment(archive.cluster, &stream.part).await? else { return Ok(None) };
        let until = whole_until(&last);
        reach = Some(reach.map_or(until, |reach| reach.min(until)));
    }
    Ok(reach.filter(|time| {
        let parts = archive.parts(*time);
        !parts.is_empty() && parts.iter().all(|part| archive.base(part, *time).is_ok())
    }))
}
