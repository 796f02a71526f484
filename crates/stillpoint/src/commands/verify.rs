//! `stillpoint verify`

use std::path::Path;

use serde_json::{Value, json};
use stillpoint_core::verification::{Collections, PartVerification, Verdict, Verification};
use stillpoint_engine::restore::against;
use stillpoint_engine::snapshots::verify;
use stillpoint_mongo::{ClusterLink, Destination};

use super::point::Point;
use super::restore::options;
use crate::cli::{AgainstArgs, MappingArgs, PointArgs, UriArgs};
use crate::config::Config;
use crate::context::{self, now};
use crate::error::CliError;
use crate::output::{Output, table};

/// Compares what is stored of a point in time with a snapshot read of the cluster.
pub async fn run(config: &Config, output: &Output, args: PointArgs, against: AgainstArgs) -> Result<(), CliError> {
    let point = Point::open(config, &args, &[]).await?;
    if let Some(file) = &against.against_file {
        return compare_restored(config, output, &point, file, &against.mapping).await;
    }
    let MappingArgs { shard_map, part, only } = &against.mapping;
    if !shard_map.is_empty() || part.is_some() || !only.is_empty() {
        return Err(CliError::Usage(
            "--shard-map, --part and --only are of a restored target: name it with --against-file".into(),
        ));
    }
    let link = ClusterLink::connect(&point.cluster.uri).await?;
    let links = link.parts().await?;
    let mut parts = Vec::new();
    for (part, base) in &point.parts {
        eprintln!("{}: folding what is stored", part.name());
        let source = point.archive.source(part, base, point.time).await?;
        let stored = verify::stored(source, point.time).await?;
        parts.push(match links.iter().find(|link| link.id == *part) {
            Some(link) => {
                eprintln!("{}: reading the cluster as of {}", part.name(), point.time);
                verify::compare(&stored, link, point.time).await?
            }
            None => PartVerification {
                problem: Some("it is not in the cluster any more".into()),
                ..PartVerification::new(part.clone())
            },
        });
    }
    let verification = Verification { at: now(), time: point.time, parts };
    let verdict = verification.verdict();
    output.print(&document(&verification), || shown(&verification, "a snapshot read of the cluster"));
    match verdict {
        Verdict::Equal | Verdict::PartlyCompared => Ok(()),
        Verdict::Different => {
            Err(CliError::Failed("what is stored is not what the cluster has: see above, and report it".into()))
        }
        Verdict::NotVerifiable => Err(CliError::Failed(
            "it could not be compared: a server keeps its past for minSnapshotHistoryWindowInSeconds only; verify a newer \
             checkpoint, or set snapshots.verify = true to verify each as soon as it completes"
                .into(),
        )),
    }
}

/// Compares a cluster that was restored with what a restore would have written into it.
async fn compare_restored(
    config: &Config,
    output: &Output,
    point: &Point,
    file: &Path,
    mapping: &MappingArgs,
) -> Result<(), CliError> {
    let uri = context::uri(&UriArgs { uri: None, uri_file: Some(file.to_owned()) })?;
    let uri = uri.ok_or_else(|| CliError::Usage("the target has no connection string".into()))?;
    let destination = Destination::connect(&uri).await?;
    let (options, at_once) = (options(mapping)?, config.snapshots()?.parts_at_once);
    eprintln!("folding what is stored, and reading the target");
    let compared = against(&point.archive, &destination, &options, point.time, at_once).await;
    let verification = compared.map_err(|why| CliError::Failed(why.to_string()))?;
    output.print(&document(&verification), || shown(&verification, "the target"));
    match verification.verdict() {
        Verdict::Equal => Ok(()),
        _ => Err(CliError::Failed("the target is not what a restore to that time would have made: see above".into())),
    }
}

fn document(verification: &Verification) -> Value {
    let collections = |all: &Collections| {
        let named: Vec<_> = all.named.iter().map(|one| json!({"ns": one.ns, "why": one.why})).collect();
        json!({"count": all.count, "named": named})
    };
    let part = |one: &PartVerification| {
        json!({
            "part": one.part.name(),
            "verdict": one.verdict().name(),
            "collections": one.equal,
            "documents": one.documents,
            "bytes": one.bytes,
            "different": collections(&one.different),
            "notCompared": collections(&one.open),
            "problem": one.problem,
        })
    };
    json!({
        "verdict": verification.verdict().name(),
        "time": verification.time.to_string(),
        "at": verification.at,
        "parts": verification.parts.iter().map(part).collect::<Vec<_>>(),
    })
}

fn shown(verification: &Verification, with: &str) -> String {
    let row = |one: &PartVerification| {
        let figures = [one.equal, one.documents, one.different.count, one.open.count].map(|n| n.to_string());
        [vec![one.part.name().to_owned(), one.verdict().name().to_owned()], figures.to_vec()].concat()
    };
    let rows: Vec<_> = verification.parts.iter().map(row).collect();
    let mut text = format!(
        "{}: what is stored, and {with}, as of {}\n\n{}",
        verification.verdict(),
        verification.time,
        table(&["PART", "VERDICT", "EQUAL COLLECTIONS", "DOCUMENTS", "DIFFERENT", "NOT COMPARED"], &rows)
    );
    for one in &verification.parts {
        let part = one.part.name();
        for named in &one.different.named {
            text += &format!("\n{part}: {} differs: {}", named.ns, named.why);
        }
        for named in &one.open.named {
            text += &format!("\n{part}: {} was not compared: {}", named.ns, named.why);
        }
        if let Some(problem) = &one.problem {
            text += &format!("\n{part}: {problem}");
        }
    }
    text
}
