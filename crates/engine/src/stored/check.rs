//! Every segment of every part, read and held against its record.
//!
//! One segment is in memory at a time; of faults the first [`LISTED`] are told and all are counted.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use stillpoint_catalog::{Catalog, CatalogError};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{Gap, GapCause, SEGMENTS, Segment};
use stillpoint_core::{ClusterId, ClusterTime};
use stillpoint_vault::Vault;

use super::StoredError;
use super::chain::{Chain, Joint};
use super::fetch::{Fault, fetch, read_through};
use super::lost::{Lost, is_of, known};
use super::segments::Segments;
use crate::Clock;

/// Faults that a report lists.
const LISTED: usize = 1_000;
/// Names of blobs at a time.
const BATCH: usize = 1_000;

/// Looks whether all that is stored can be read.
pub struct Check {
    pub catalog: Arc<dyn Catalog>,
    pub vault: Arc<Vault>,
    /// Says when a gap was found.
    pub clock: Clock,
}

/// How far a check has come.
#[derive(Debug)]
pub struct Progress<'a> {
    pub cluster: ClusterId,
    pub part: &'a PartId,
    /// Of this part, and how many it had at the beginning.
    pub done: u64,
    pub segments: u64,
}

/// A segment that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub cluster: ClusterId,
    pub part: PartId,
    pub name: String,
    pub first: ClusterTime,
    pub last: ClusterTime,
    pub fault: Fault,
    /// What cannot be restored for it.
    pub gap: Gap,
}

/// What a check came to.
#[derive(Debug, Default)]
pub struct Report {
    pub parts: u64,
    pub segments: u64,
    pub entries: u64,
    /// Of the blobs that were read.
    pub stored: u64,
    pub missing: u64,
    pub damaged: u64,
    /// The first of them.
    pub found: Vec<Found>,
    /// Gaps whose segments are whole again; they are no longer noted.
    pub mended: Vec<(ClusterId, Gap)>,
    /// Blobs that no record names: what was just stored, or what a crash has left. The server deletes them.
    pub unnamed: u64,
    pub unnamed_bytes: u64,
}

impl Report {
    pub fn is_whole(&self) -> bool {
        self.missing == 0 && self.damaged == 0
    }
}

impl Check {
    /// Of one cluster, or of all. Fails if the vault or the catalog does: then nothing is said of the rest.
    pub async fn run(
        &self,
        only: Option<ClusterId>,
        mut progress: impl FnMut(&Progress),
    ) -> Result<Report, StoredError> {
        let mut report = Report::default();
        let clusters = match only {
            Some(cluster) => vec![cluster],
            None => self.catalog.clusters(None).await?.into_iter().map(|cluster| cluster.id).collect(),
        };
        for cluster in clusters {
            for stream in self.catalog.streams(cluster).await? {
                self.part(cluster, &stream.part, &mut report, &mut progress).await?;
                report.parts += 1;
            }
        }
        self.unnamed(only, &mut report).await?;
        Ok(report)
    }

    async fn part(
        &self,
        cluster: ClusterId,
        part: &PartId,
        report: &mut Report,
        progress: &mut impl FnMut(&Progress),
    ) -> Result<(), StoredError> {
        let total = self.catalog.segment_totals(cluster, part).await?.segments;
        let mut gaps = self.catalog.gaps(cluster).await?;
        gaps.retain(|gap| gap.part == *part);
        let (of_segments, runs): (Vec<_>, Vec<_>) = gaps.into_iter().partition(|gap| is_of_a_segment(gap.cause));
        let mut known = known(of_segments);
        let mut segments =
            Segments::new(self.catalog.clone(), cluster, part.clone(), ClusterTime::ZERO, ClusterTime::MAX);
        let (mut chain, mut done) = (Chain::default(), 0);
        while let Some(segment) = segments.next().await? {
            progress(&Progress { cluster, part, done, segments: total });
            let reached = chain.reached();
            let (joint, previous) = chain.take(&segment);
            let read = self.read(&segment, previous.as_ref()).await?;
            match read.and_then(|()| follows(joint, reached, &segment, &runs)) {
                // Of what was given up nothing is known: its gap stays until its own time is over.
                Ok(()) => {
                    for (_, gap) in known.extract_if(.., |_, gap| is_of(gap, &segment)) {
                        self.mended(cluster, gap, report).await?;
                    }
                }
                Err(fault) => {
                    let lost = Lost { segment: &segment, previous: previous.as_ref(), fault: &fault };
                    // It may have been given up meanwhile.
                    if let Some(gap) = lost.note(&self.catalog, &known, (self.clock)()).await? {
                        report.add(&segment, fault, gap);
                    }
                }
            }
            done += 1;
            report.segments += 1;
            report.entries += segment.entries;
            report.stored += segment.stored;
        }
        Ok(())
    }

    async fn read(&self, segment: &Segment, previous: Option<&Segment>) -> Result<Result<(), Fault>, StoredError> {
        Ok(match fetch(&self.vault, segment, previous).await? {
            Ok(reader) => read_through(reader).await,
            Err(fault) => Err(fault),
        })
    }

    async fn mended(&self, cluster: ClusterId, gap: Gap, report: &mut Report) -> Result<(), CatalogError> {
        self.catalog.remove_gap(cluster, &gap.part, gap.after, gap.until).await?;
        tracing::warn!(%cluster, part = %gap.part, "a gap is mended, what was lost is there again: {}", gap.detail);
        report.mended.push((cluster, gap));
        Ok(())
    }

    async fn unnamed(&self, only: Option<ClusterId>, report: &mut Report) -> Result<(), StoredError> {
        let under = only.map_or(SEGMENTS.to_owned(), |cluster| format!("{SEGMENTS}/{cluster}"));
        let mut pages = std::pin::pin!(self.vault.list(&under).try_chunks(BATCH));
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| e.1)?;
            let names: Vec<_> = page.iter().map(|blob| blob.name.clone()).collect();
            let unnamed = self.catalog.unreferenced(&names).await?;
            report.unnamed += unnamed.len() as u64;
            let bytes = page.iter().filter(|blob| unnamed.contains(&blob.name)).map(|blob| blob.bytes);
            report.unnamed_bytes += bytes.sum::<u64>();
        }
        Ok(())
    }
}

impl Report {
    fn add(&mut self, segment: &Segment, fault: Fault, gap: Gap) {
        match fault {
            Fault::Missing => self.missing += 1,
            Fault::Damaged(_) => self.damaged += 1,
        }
        if self.found.len() < LISTED {
            self.found.push(Found {
                cluster: segment.cluster,
                part: segment.part.clone(),
                name: segment.name(),
                first: segment.first.time,
                last: segment.last.time,
                fault,
                gap,
            });
        }
    }
}

/// Whether a segment goes on from those before it, or from a gap.
fn follows(joint: Joint, reached: Option<ClusterTime>, segment: &Segment, runs: &[Gap]) -> Result<(), Fault> {
    let why = match (joint, reached) {
        (Joint::First | Joint::Joined, _) | (Joint::Apart, None) => return Ok(()),
        (Joint::Apart, Some(reached)) => {
            if runs.iter().any(|gap| gap.touches(reached.after(), segment.first.time.before())) {
                return Ok(());
            }
            "it follows none, and no gap is noted before it".into()
        }
        (Joint::Broken(why), _) => why,
    };
    Err(Fault::Damaged(why))
}

fn is_of_a_segment(cause: GapCause) -> bool {
    matches!(cause, GapCause::SegmentMissing | GapCause::SegmentDamaged)
}
