//! `stillpoint oplog`

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::Arc;

use futures::TryStreamExt;
use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, Cluster, SegmentTotals};
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::coverage::whole_until;
use stillpoint_core::stream::{Gap, Stream};
use stillpoint_engine::stored::StoredOplog;

use super::gap_document;
use crate::cli::{OfCluster, OplogCommand};
use crate::config::Config;
use crate::context::{now, of_cluster, open_catalog, open_vault};
use crate::error::CliError;
use crate::output::{Output, table};

/// What is written to standard output at once.
const BUFFER: usize = 1 << 18;

pub async fn run(config: &Config, output: &Output, command: OplogCommand) -> Result<(), CliError> {
    match command {
        OplogCommand::List { of } => list(config, output, &of).await,
        OplogCommand::Export { of, part, from, to } => export(config, &of, &part, from, to).await,
    }
}

struct Row {
    stream: Stream,
    /// The first entry that is stored, or from where the first is waited for.
    from: ClusterTime,
    until: Option<ClusterTime>,
    whole_until: Option<ClusterTime>,
    totals: SegmentTotals,
    gaps: Vec<Gap>,
}

async fn look(catalog: &dyn Catalog, cluster: &Cluster, stream: Stream, gaps: &[Gap]) -> Result<Row, CliError> {
    let part = &stream.part;
    let oldest = catalog.segments(cluster.id, part, ClusterTime::ZERO, ClusterTime::MAX, 1).await?.pop();
    let last = catalog.last_segment(cluster.id, part).await?;
    Ok(Row {
        from: oldest.map_or(stream.from, |oldest| oldest.first.time),
        until: last.as_ref().map(|last| last.last.time),
        whole_until: last.as_ref().map(whole_until),
        totals: catalog.segment_totals(cluster.id, part).await?,
        gaps: gaps.iter().filter(|gap| gap.part == *part).cloned().collect(),
        stream,
    })
}

impl Row {
    /// From when on there is all of what is open: what was given up is nothing's that is open later.
    fn complete_since(&self) -> ClusterTime {
        self.stream.since.max(self.from)
    }

    fn document(&self) -> Value {
        let text = |time: Option<ClusterTime>| time.map(|time| time.to_string());
        json!({
            "part": self.stream.part.name(),
            "replicaSet": self.stream.replica_set,
            "from": self.from.to_string(),
            "completeSince": self.complete_since().to_string(),
            "storedUntil": text(self.until),
            "wholeUntil": text(self.whole_until),
            "ended": self.stream.ended,
            "segments": self.totals.segments,
            "entries": self.totals.entries,
            "bytes": self.totals.bytes,
            "storedBytes": self.totals.stored,
            "gaps": self.gaps.iter().map(gap_document).collect::<Vec<_>>(),
        })
    }

    fn cells(&self) -> Vec<String> {
        let time = |time: ClusterTime| format!("{time} ({})", time.date());
        vec![
            self.stream.part.name().to_owned(),
            time(self.from),
            time(self.complete_since()),
            self.until.map_or("-".into(), time),
            self.totals.segments.to_string(),
            self.totals.entries.to_string(),
            self.totals.bytes.to_string(),
            self.totals.stored.to_string(),
            self.gaps.len().to_string(),
        ]
    }
}

async fn list(config: &Config, output: &Output, of: &OfCluster) -> Result<(), CliError> {
    let catalog = open_catalog(config)?;
    let (_, cluster) = of_cluster(&*catalog, of).await?;
    let gaps = catalog.gaps(cluster.id).await?;
    let mut rows = Vec::new();
    for stream in catalog.streams(cluster.id).await? {
        rows.push(look(&*catalog, &cluster, stream, &gaps).await?);
    }
    let documents: Vec<_> = rows.iter().map(Row::document).collect();
    output.print(&documents.into(), || {
        if rows.is_empty() {
            return NOTHING.into();
        }
        let head =
            ["PART", "FROM", "COMPLETE SINCE", "STORED UNTIL", "SEGMENTS", "ENTRIES", "BYTES", "STORED BYTES", "GAPS"];
        let cells: Vec<_> = rows.iter().map(Row::cells).collect();
        let gaps = rows.iter().flat_map(|row| &row.gaps).map(|gap| format!("\n{gap} ({})", gap.detail));
        [table(&head, &cells)].into_iter().chain(gaps).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

const NOTHING: &str = "no oplog is stored yet: `stillpoint serve` stores them while it runs";

async fn export(
    config: &Config,
    of: &OfCluster,
    part: &str,
    from: Option<ClusterTime>,
    to: Option<ClusterTime>,
) -> Result<(), CliError> {
    if io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "BSON is not for a terminal: send it into a file (> FILE) or a program (| bsondump)".into(),
        ));
    }
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(CliError::Usage(format!("--from {from} is after --to {to}")));
    }
    let catalog = open_catalog(config)?;
    let (_, cluster) = of_cluster(&*catalog, of).await?;
    let part = part_named(&*catalog, &cluster, part).await?;
    let vault = Arc::new(open_vault(config, &*catalog).await?);
    let stored = StoredOplog::new(catalog, vault, Arc::new(now), cluster.id, part);
    let mut entries = stored.entries(from, to);
    let mut out = Written::new(io::stdout());
    loop {
        match entries.try_next().await {
            Ok(Some(entry)) => {
                if !out.write(&entry.bytes, entry.at.time)? {
                    return Ok(());
                }
            }
            end => {
                if out.flush()? {
                    out.say(to);
                }
                return end.map(|_| ()).map_err(CliError::Stored);
            }
        }
    }
}

async fn part_named(catalog: &dyn Catalog, cluster: &Cluster, wanted: &str) -> Result<PartId, CliError> {
    let parts: Vec<_> = catalog.streams(cluster.id).await?.into_iter().map(|stream| stream.part).collect();
    if let Some(part) = parts.iter().find(|part| part.name() == wanted) {
        return Ok(part.clone());
    }
    if parts.is_empty() {
        return Err(CliError::Failed(format!("of {}, {NOTHING}", cluster.name)));
    }
    let there: Vec<_> = parts.iter().map(PartId::name).collect();
    Err(CliError::Failed(format!("{} has no part {wanted:?}; it has {}", cluster.name, there.join(", "))))
}

/// Entries on their way to standard output.
struct Written<W: Write> {
    out: BufWriter<W>,
    entries: u64,
    bytes: u64,
    range: Option<(ClusterTime, ClusterTime)>,
}

impl<W: Write> Written<W> {
    fn new(out: W) -> Written<W> {
        Written { out: BufWriter::with_capacity(BUFFER, out), entries: 0, bytes: 0, range: None }
    }

    /// `false` once nobody reads any more.
    fn write(&mut self, entry: &[u8], at: ClusterTime) -> Result<bool, CliError> {
        self.entries += 1;
        self.bytes += entry.len() as u64;
        self.range = Some((self.range.map_or(at, |(first, _)| first), at));
        goes_on(self.out.write_all(entry))
    }

    fn flush(&mut self) -> Result<bool, CliError> {
        goes_on(self.out.flush())
    }

    /// On standard error.
    fn say(&self, to: Option<ClusterTime>) {
        match self.range {
            Some((first, last)) => {
                eprintln!("{} entries, {} bytes, from {first} to {last}", self.entries, self.bytes);
            }
            None => eprintln!("no entries"),
        }
        if let (Some((_, last)), Some(to)) = (self.range, to)
            && last < to
        {
            eprintln!("after {last} nothing up to {to} is stored, or nothing was written");
        }
    }
}

fn goes_on(written: io::Result<()>) -> Result<bool, CliError> {
    match written {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(CliError::Failed(format!("standard output cannot be written: {e}"))),
    }
}
