//! `stillpoint diff`

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bson::Bson;
use bson::raw::RawBson;
use serde_json::{Value, json};
use stillpoint_engine::snapshots::SnapshotError;
use stillpoint_engine::snapshots::diff::{Change, CollectionDiff, Documents, PartDiff, Reading, Side, Teller};

use super::point::{Only, Points};
use crate::cli::{PointArgs, ToArgs};
use crate::config::Config;
use crate::error::CliError;
use crate::output::{Output, size, table};

/// Compares what is stored of one point in time with what is stored of another.
pub async fn run(
    config: &Config,
    output: &Output,
    args: PointArgs,
    to: ToArgs,
    parts: Vec<String>,
    only: Vec<String>,
    documents: bool,
) -> Result<(), CliError> {
    if documents && output.json {
        return Err(CliError::Usage(
            "--documents prints a line for each document, and --json one document: leave one of them out".into(),
        ));
    }
    let only = Only::new(only);
    let points = Points::open(config, &args, &to, &parts).await?;
    let out = Arc::new(Mutex::new(BufWriter::new(io::stdout())));
    let mut rows = Vec::new();
    for (part, bases) in &points.parts {
        let name = part.name();
        eprintln!("{name}: comparing what is stored");
        let mut sides = [points.from, points.to].map(|time| Side { time, source: None });
        for (side, base) in sides.iter_mut().zip(bases) {
            if let Some(base) = base {
                side.source = Some(points.archive.source(part, base, side.time).await?);
            }
        }
        let only = only.clone();
        let wanted = Box::new(move |ns: &str| only.wants(ns));
        let tell = documents.then(|| teller(out.clone(), name.to_owned()));
        let told = match points.archive.diff(part.clone(), sides, wanted, tell).await {
            Ok(diff) => {
                rows.push((name, diff));
                flush(&out)
            }
            Err(SnapshotError::Output { why, .. }) => Err(why),
            Err(why) => return Err(why.into()),
        };
        match told {
            // Nobody reads any more.
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(why) => return Err(SnapshotError::Output { path: "standard output".into(), why }.into()),
            Ok(()) => {}
        }
    }
    only.check()?;
    match documents {
        // What programs read are the lines.
        true => eprintln!("{}", shown(&points, &rows)),
        false => output.print(&document(&points, &rows), || shown(&points, &rows)),
    }
    Ok(())
}

/// Writes a line for each document that is not the same.
fn teller(out: Arc<Mutex<BufWriter<Stdout>>>, part: String) -> Box<Teller<'static>> {
    Box::new(move |change, ns, id| {
        let sign = match change {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Changed => '~',
        };
        let line = json!({"part": part, "ns": ns, "_id": extended(id)?});
        writeln!(out.lock().unwrap_or_else(PoisonError::into_inner), "{sign} {line}")
    })
}

fn flush(out: &Mutex<BufWriter<Stdout>>) -> io::Result<()> {
    out.lock().unwrap_or_else(PoisonError::into_inner).flush()
}

/// Canonical: no type is lost.
fn extended(id: &RawBson) -> io::Result<Value> {
    let id = Bson::try_from(id.clone()).map_err(io::Error::other)?;
    Ok(id.into_canonical_extjson())
}

fn read(rows: &[(&str, PartDiff)]) -> Reading {
    rows.iter().fold(Reading::default(), |mut sum, (_, diff)| {
        sum.chunks_read += diff.reading.chunks_read;
        sum.bytes_read += diff.reading.bytes_read;
        sum.bytes_skipped += diff.reading.bytes_skipped;
        sum
    })
}

fn document(points: &Points, rows: &[(&str, PartDiff)]) -> Value {
    let reading = |one: Reading| {
        let read = json!({"chunks": one.chunks_read, "bytes": one.bytes_read});
        (read, json!({"bytes": one.bytes_skipped}))
    };
    let part = |(name, diff): &(&str, PartDiff)| {
        let (read, skipped) = reading(diff.reading);
        json!({
            "part": name,
            "collections": diff.different.iter().map(collection).collect::<Vec<_>>(),
            "unchanged": diff.same,
            "read": read,
            "skipped": skipped,
        })
    };
    let (read, skipped) = reading(read(rows));
    json!({
        "from": points.from.to_string(),
        "to": points.to.to_string(),
        "equal": rows.iter().all(|(_, diff)| diff.different.is_empty()),
        "parts": rows.iter().map(part).collect::<Vec<_>>(),
        "read": read,
        "skipped": skipped,
    })
}

fn collection(one: &CollectionDiff) -> Value {
    let documents = match one.documents {
        Documents::Compared(counts) => json!({
            "added": counts.added,
            "removed": counts.removed,
            "changed": counts.changed,
            "unchanged": counts.same,
        }),
        Documents::Digested { before, after, same } => json!({"before": before, "after": after, "equal": same}),
    };
    json!({
        "uuid": one.uuid.to_string(),
        "before": one.before,
        "after": one.after,
        "documents": documents,
        "options": one.options,
        "indexes": {
            "added": one.indexes.added,
            "removed": one.indexes.removed,
            "changed": one.indexes.changed,
        },
    })
}

fn shown(points: &Points, rows: &[(&str, PartDiff)]) -> String {
    let cells = rows.iter().flat_map(|(part, diff)| diff.different.iter().map(|one| row(part, one)));
    let cells: Vec<_> = cells.collect();
    let same: u64 = rows.iter().map(|(_, diff)| diff.same).sum();
    let mut text = format!("from {} to {}: ", points.from, points.to);
    text += &match cells.len() {
        0 => format!("nothing has changed in {same} collections\n"),
        n => format!(
            "{n} collections have changed, {same} have not\n\n{}\n",
            table(&["PART", "COLLECTION", "ADDED", "REMOVED", "CHANGED", "WHAT ELSE"], &cells)
        ),
    };
    let Reading { chunks_read, bytes_read, bytes_skipped } = read(rows);
    text + &format!("\nread: {} in {chunks_read} chunks; left unread: {}", size(bytes_read), size(bytes_skipped))
}

fn row(part: &str, one: &CollectionDiff) -> Vec<String> {
    let mut what = Vec::new();
    let ns = one.after.as_ref().or(one.before.as_ref()).cloned().unwrap_or_default();
    match (&one.before, &one.after) {
        (None, _) => what.push("it is new".to_owned()),
        (_, None) => what.push("it is gone".to_owned()),
        (Some(before), Some(after)) if before != after => what.push(format!("it was {before}")),
        _ => {}
    }
    let figures = match one.documents {
        Documents::Compared(counts) => [counts.added, counts.removed, counts.changed].map(|n| n.to_string()),
        Documents::Digested { before, after, same } => {
            if !same {
                what.push(format!("capped: {before} documents, then {after}"));
            }
            ["-", "-", "-"].map(str::to_owned)
        }
    };
    if !one.options.is_empty() {
        what.push(format!("options: {}", one.options.join(", ")));
    }
    if !one.indexes.are_same() {
        let signed =
            |sign: char, names: &[String]| names.iter().map(|name| format!("{sign}{name}")).collect::<Vec<_>>();
        let indexes = &one.indexes;
        let all = [signed('+', &indexes.added), signed('-', &indexes.removed), signed('~', &indexes.changed)];
        what.push(format!("indexes: {}", all.concat().join(" ")));
    }
    [vec![part.to_owned(), ns], figures.to_vec(), vec![what.join("; ")]].concat()
}
