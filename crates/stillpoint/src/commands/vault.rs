//! `stillpoint vault`

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::{ClusterId, ClusterTime};
use stillpoint_engine::snapshots::check;
use stillpoint_engine::stored::{Check, Fault, Found, Progress, Report};
use stillpoint_vault::MasterKey;

use super::gap_document;
use crate::cli::{AnyCluster, VaultCommand};
use crate::config::Config;
use crate::context::{self, audited, now, open_catalog, open_vault};
use crate::error::CliError;
use crate::output::{Output, table};

/// From one line about the progress to the next.
const TELL_EVERY: Duration = Duration::from_secs(5);

pub async fn run(config: &Config, output: &Output, command: VaultCommand) -> Result<(), CliError> {
    match command {
        VaultCommand::Show => show(config, output).await,
        VaultCommand::Check { of } => check(config, output, &of).await,
        VaultCommand::RotateKey { new_key_file } => rotate(config, output, &new_key_file).await,
    }
}

async fn show(config: &Config, output: &Output) -> Result<(), CliError> {
    let catalog = open_catalog(config)?;
    let vault = open_vault(config, &*catalog).await?;
    // It was opened with this one.
    let key = config.vault()?.master_key.filter(|_| vault.is_encrypted()).map(|key| key.fingerprint());
    let document = json!({
        "place": vault.place(),
        "id": vault.id(),
        "catalog": vault.owner(),
        "encrypted": vault.is_encrypted(),
        "masterKey": key,
    });
    output.print(&document, || {
        let rows = [
            ("vault", vault.place().to_owned()),
            ("id", vault.id().to_string()),
            ("of catalog", vault.owner().to_string()),
            ("encrypted", vault.is_encrypted().to_string()),
            ("master key", key.clone().unwrap_or("-".into())),
        ];
        let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
        table(&["", ""], &rows).trim_start().to_owned()
    });
    Ok(())
}

async fn rotate(config: &Config, output: &Output, file: &Path) -> Result<(), CliError> {
    let new = MasterKey::from_file(file).map_err(|e| CliError::Failed(e.to_string()))?;
    let catalog = open_catalog(config)?;
    let vault = open_vault(config, &*catalog).await?;
    let rotation = vault.rotate(&new, now()).await?;
    audited(&*catalog, format!("vault rotate-key {}", rotation.fingerprint)).await;
    let document = json!({"masterKey": rotation.fingerprint, "dataKey": rotation.data_key});
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    output.print(&document, || {
        format!(
            "from now on master key {} opens the vault, and the one before does not\n\n\
             now set vault.master_key_file = {:?} and restart `stillpoint serve`; until then it goes on with the keys it \
             has, and cannot be started again\nkeep a copy of the file apart from the vault: without it nothing in the \
             vault can be read",
            rotation.fingerprint,
            path.display().to_string()
        )
    });
    Ok(())
}

async fn check(config: &Config, output: &Output, of: &AnyCluster) -> Result<(), CliError> {
    let catalog = open_catalog(config)?;
    let only = match (&of.project, &of.cluster) {
        (Some(project), Some(cluster)) => {
            let project = context::project(&*catalog, project).await?;
            Some(context::cluster(&*catalog, &project, cluster).await?.id)
        }
        // The grammar takes both or none.
        _ => None,
    };
    let vault = Arc::new(open_vault(config, &*catalog).await?);
    let check = Check { catalog: catalog.clone(), vault: vault.clone(), clock: Arc::new(now) };
    let mut teller = Teller::default();
    let report = check.run(only, |progress| teller.tell(progress)).await?;
    let tell = |id| eprintln!("snapshot {id}");
    let snapshots = check::check(&*catalog, &vault, only, tell).await?;
    output.print(&document(&report, &snapshots), || format!("{}\n{}", text(&report), text_of(&snapshots)));
    match report.is_whole() && snapshots.damaged.is_empty() {
        true => Ok(()),
        false => {
            let of_snapshots = match snapshots.damaged.len() {
                0 => String::new(),
                damaged => format!(", {damaged} snapshots damaged"),
            };
            Err(CliError::Failed(format!(
                "{} missing and {} damaged{of_snapshots}: put them back from a backup of the vault and check again; times \
                 that need them cannot be restored",
                report.missing, report.damaged
            )))
        }
    }
}

fn text_of(snapshots: &check::Report) -> String {
    let damaged = snapshots.damaged.iter().map(|(cluster, id, why)| format!("cluster {cluster}, snapshot {id}: {why}"));
    let mended = snapshots.mended.iter().map(|(cluster, id)| format!("cluster {cluster}, snapshot {id}: whole again"));
    let check::Report { snapshots: all, chunks, bytes, .. } = snapshots;
    let sum = format!(
        "{all} snapshots, {chunks} chunks, {bytes} bytes of documents read: {} damaged",
        snapshots.damaged.len()
    );
    damaged.chain(mended).chain([sum]).collect::<Vec<_>>().join("\n")
}

/// Says now and then how far a check is.
#[derive(Default)]
struct Teller {
    last: Option<Instant>,
}

impl Teller {
    fn tell(&mut self, progress: &Progress) {
        let last = self.last.get_or_insert_with(Instant::now);
        if last.elapsed() >= TELL_EVERY {
            *last = Instant::now();
            let Progress { cluster, part, done, segments } = progress;
            eprintln!("cluster {cluster}, {part}: {done} of {segments} segments");
        }
    }
}

fn document(report: &Report, snapshots: &check::Report) -> Value {
    let found = |found: &Found| {
        let (fault, why) = match &found.fault {
            Fault::Missing => ("MISSING", None),
            Fault::Damaged(why) => ("DAMAGED", Some(why)),
        };
        json!({
            "clusterId": found.cluster,
            "part": found.part.name(),
            "name": found.name,
            "from": found.first.to_string(),
            "to": found.last.to_string(),
            "fault": fault,
            "why": why,
            "gap": gap_document(&found.gap),
        })
    };
    let mended: Vec<_> = report.mended.iter().map(|(_, gap)| gap_document(gap)).collect();
    json!({
        "parts": report.parts,
        "segments": report.segments,
        "entries": report.entries,
        "storedBytes": report.stored,
        "missing": report.missing,
        "damaged": report.damaged,
        "faults": report.found.iter().map(found).collect::<Vec<_>>(),
        "mended": mended,
        "unnamedBlobs": report.unnamed,
        "unnamedBytes": report.unnamed_bytes,
        "snapshots": {
            "checked": snapshots.snapshots,
            "chunks": snapshots.chunks,
            "bytes": snapshots.bytes,
            "damaged": snapshots.damaged.iter().map(|(cluster, id, why)| {
                json!({"clusterId": cluster, "id": id, "why": why})
            }).collect::<Vec<_>>(),
            "mended": snapshots.mended.iter().map(|(cluster, id)| {
                json!({"clusterId": cluster, "id": id})
            }).collect::<Vec<_>>(),
        },
    })
}

fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for found in &report.found {
        let Found { cluster, part, name, first, last, fault, gap } = found;
        lines.push(line(*cluster, part, *first, *last, &format!("{name}: {fault}")));
        lines.push(format!("  nothing between {} and {} can be restored", gap.after, gap.until));
    }
    let all = report.missing + report.damaged;
    if all > report.found.len() as u64 {
        lines.push(format!("and {} more", all - report.found.len() as u64));
    }
    for (cluster, gap) in &report.mended {
        lines.push(line(*cluster, &gap.part, gap.after, gap.until, "whole again, its gap is no longer noted"));
    }
    lines.push(format!(
        "{} parts, {} segments, {} entries, {} bytes read: {} missing, {} damaged",
        report.parts, report.segments, report.entries, report.stored, report.missing, report.damaged
    ));
    if report.unnamed > 0 {
        lines.push(format!(
            "{} blobs ({} bytes) that nothing names: just stored, or left by a crash; `stillpoint serve` deletes those \
             once they are as old as vault.grace",
            report.unnamed, report.unnamed_bytes
        ));
    }
    lines.join("\n")
}

fn line(cluster: ClusterId, part: &PartId, from: ClusterTime, to: ClusterTime, what: &str) -> String {
    format!("cluster {cluster}, {part}, from {from} to {to}: {what}")
}
