//! `stillpoint cat`

use std::io::{self, BufWriter, Write};

use bson::Bson;
use bson::raw::{RawBson, RawDocument};
use stillpoint_engine::snapshots::find::Finder;
use stillpoint_engine::snapshots::owners::Owner;
use stillpoint_engine::snapshots::{SnapshotError, blocking};
use stillpoint_fold::Key;

use super::point::{Point, without};
use crate::cli::PointArgs;
use crate::config::Config;
use crate::error::CliError;

/// Documents as lines of extended JSON, canonical: no type is lost.
pub async fn run(
    config: &Config,
    args: PointArgs,
    parts: Vec<String>,
    ns: String,
    id: Option<String>,
    with_orphans: bool,
) -> Result<(), CliError> {
    let key = id.as_deref().map(key_of).transpose()?;
    let point = Point::open(config, &args, &parts).await?;
    let (mut seen, mut documents, mut orphans) = (false, 0_u64, 0_u64);
    let ownerships = point.ownerships(with_orphans || is_never_sharded(&ns)).await?;
    for (part, base) in &point.parts {
        let source = point.archive.source(part, base, point.time).await?;
        let (key, ns, time) = (key.clone(), ns.clone(), point.time);
        let owner = Owner::new(part.clone(), ownerships.clone());
        let read = blocking(move || {
            let (mut out, mut found, mut orphans) = (BufWriter::new(io::stdout().lock()), 0_u64, 0_u64);
            let mut finder = Finder::new(key, |uuid, document: &RawDocument| {
                if !owner.owns(uuid, &ns, document)? {
                    orphans += 1;
                    return Ok(());
                }
                found += 1;
                let document = bson::Document::try_from(document)
                    .map_err(|why| SnapshotError::Document { ns: ns.clone(), why: why.to_string() })?;
                let line = Bson::Document(document).into_canonical_extjson();
                writeln!(out, "{line}").map_err(unwritten)
            });
            source.at(time)?.into(&mut finder, &|_, collection| collection.ns == ns)?;
            let seen = finder.has_seen();
            out.flush().map_err(unwritten)?;
            Ok((seen, found, orphans))
        })
        .await;
        let (is_there, found, left_out) = match read {
            // Nobody reads any more.
            Err(SnapshotError::Output { why, .. }) if why.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            read => read?,
        };
        if found > 0 || left_out > 0 {
            eprintln!("{}: {found} documents{}", part.name(), without(left_out));
        }
        seen |= is_there;
        documents += found;
        orphans += left_out;
    }
    match (seen, id) {
        (false, _) => Err(CliError::Failed(format!("{} had no collection {ns} at {}", point.cluster.name, point.time))),
        (true, Some(id)) if documents == 0 && orphans > 0 => Err(CliError::Failed(format!(
            "{ns} had a document with _id {id} only where it is not owned: --with-orphans prints it"
        ))),
        (true, Some(id)) if documents == 0 => Err(CliError::Failed(format!("{ns} had no document with _id {id}"))),
        _ => Ok(()),
    }
}

/// Of these databases no collection is, but for the sessions of clients, which each shard keeps as they come.
fn is_never_sharded(ns: &str) -> bool {
    ["admin.", "config.", "local."].iter().any(|db| ns.starts_with(db))
}

fn unwritten(why: io::Error) -> SnapshotError {
    SnapshotError::Output { path: "standard output".into(), why }
}

/// The key of an `_id` in extended JSON.
fn key_of(text: &str) -> Result<Vec<u8>, CliError> {
    let wrong = |why: String| {
        CliError::Usage(format!("--id {text}: {why}; write extended JSON, as 7, '\"seven\"' or '{{\"$oid\": \"…\"}}'"))
    };
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let value = Bson::try_from(value).map_err(|e| wrong(e.to_string()))?;
    let value = RawBson::try_from(value).map_err(|e| wrong(e.to_string()))?;
    let key = Key::of(value.as_raw_bson_ref()).map_err(|e| wrong(e.to_string()))?;
    Ok(key.as_bytes().to_vec())
}
