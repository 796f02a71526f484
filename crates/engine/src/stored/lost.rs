//! The gap that a missing or damaged segment leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use stillpoint_catalog::{Catalog, CatalogError};
use stillpoint_core::ClusterTime;
use stillpoint_core::coverage::{whole_from, whole_until};
use stillpoint_core::stream::{BlobId, Gap, Segment};

use super::fetch::Fault;
use super::segments::Segments;

/// How far back a predecessor is looked for at first, in seconds, and then: it is nearly always just before.
const BACK: [u32; 4] = [600, 36_000, 2_592_000, u32::MAX];
/// Far more than there can be segments that end at the same time.
const SAME_END: u64 = 200;

/// Gaps of a part, by where they begin and end.
pub(super) type Known = BTreeMap<(ClusterTime, ClusterTime), Gap>;

pub(super) fn known(gaps: impl IntoIterator<Item = Gap>) -> Known {
    gaps.into_iter().map(|gap| ((gap.after, gap.until), gap)).collect()
}

/// A segment that is lost.
pub(super) struct Lost<'a> {
    pub segment: &'a Segment,
    /// The one that it follows, if it is known already.
    pub previous: Option<&'a Segment>,
    pub fault: &'a Fault,
}

/// Whether a gap is that of this segment: its detail begins with the segment's name.
pub(super) fn is_of(gap: &Gap, segment: &Segment) -> bool {
    gap.detail.strip_prefix(&segment.name()).is_some_and(|rest| rest.starts_with(','))
}

impl Lost<'_> {
    /// Notes the gap, and says so, unless it is among the `known`; what was known of this segment and is not
    /// so any more is forgotten. `None` if the segment is no longer kept: then nothing is lost.
    pub async fn note(
        &self,
        catalog: &Arc<dyn Catalog>,
        known: &Known,
        now: Timestamp,
    ) -> Result<Option<Gap>, CatalogError> {
        let Lost { segment, fault, .. } = self;
        let last = segment.last.time;
        let kept = catalog.segments(segment.cluster, &segment.part, last, last, SAME_END).await?;
        if !kept.iter().any(|kept| kept.blob == segment.blob) {
            return Ok(None);
        }
        let (after, until) = (self.after(catalog).await?, self.until(catalog).await?);
        if let Some(known) = known.get(&(after, until)).filter(|known| known.cause == fault.cause()) {
            return Ok(Some(known.clone()));
        }
        let outdated: Vec<_> = known.values().filter(|gap| is_of(gap, segment)).collect();
        let gap = Gap {
            part: segment.part.clone(),
            after,
            until,
            cause: fault.cause(),
            found: now,
            detail: format!(
                "{}, from {} to {}: {fault}; put it back from a backup of the vault, then run `stillpoint vault check`",
                segment.name(),
                segment.first.time,
                segment.last.time
            ),
        };
        catalog.add_gap(segment.cluster, &gap).await?;
        for Gap { part, after, until, .. } in
            outdated.into_iter().filter(|old| (old.after, old.until) != (after, until))
        {
            catalog.remove_gap(segment.cluster, part, *after, *until).await?;
        }
        tracing::error!(cluster = %segment.cluster, part = %segment.part, "a stored segment is lost. {gap} ({})", gap.detail);
        Ok(Some(gap))
    }

    async fn after(&self, catalog: &Arc<dyn Catalog>) -> Result<ClusterTime, CatalogError> {
        let found = match (self.previous, self.segment.previous) {
            (Some(previous), _) => return Ok(whole_until(previous)),
            (None, Some(blob)) => predecessor(catalog, self.segment, blob).await?,
            (None, None) => None,
        };
        Ok(found.as_ref().map_or_else(|| self.segment.first.time.before(), whole_until))
    }

    /// While a transaction is open that has entries in it, no time is whole: it may be committed as of any.
    async fn until(&self, catalog: &Arc<dyn Catalog>) -> Result<ClusterTime, CatalogError> {
        if let Some(time) = whole_from(self.segment, []) {
            return Ok(time);
        }
        let mut later = between(catalog, self.segment, self.segment.last.time, ClusterTime::MAX);
        while let Some(segment) = later.next().await? {
            if segment.blob != self.segment.blob
                && let Some(time) = whole_from(self.segment, [&segment])
            {
                return Ok(time);
            }
        }
        Ok(ClusterTime::MAX)
    }
}

fn between(catalog: &Arc<dyn Catalog>, of: &Segment, from: ClusterTime, to: ClusterTime) -> Segments {
    Segments::new(catalog.clone(), of.cluster, of.part.clone(), from, to)
}

async fn predecessor(
    catalog: &Arc<dyn Catalog>,
    segment: &Segment,
    blob: BlobId,
) -> Result<Option<Segment>, CatalogError> {
    let first = segment.first.time;
    for back in BACK {
        let from = ClusterTime::new(first.seconds.saturating_sub(back), 0);
        let mut before = between(catalog, segment, from, first);
        while let Some(found) = before.next().await? {
            if found.blob == blob {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}
