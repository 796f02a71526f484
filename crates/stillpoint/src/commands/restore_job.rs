//! `stillpoint restore-job`

use serde_json::{Value, json};
use stillpoint_catalog::Page;
use stillpoint_core::restore::{Amount, Part, Restore, Target};

use super::part_name;
use super::taken::not_found;
use crate::cli::RestoreJobCommand;
use crate::config::Config;
use crate::context::{audited, now, of_cluster, open_catalog};
use crate::error::CliError;
use crate::output::{Output, size, table};

const KIND: &str = "restore-job";

pub async fn run(config: &Config, output: &Output, command: RestoreJobCommand) -> Result<(), CliError> {
    let catalog = open_catalog(config)?;
    match command {
        RestoreJobCommand::List { of, limit } => {
            let (_, cluster) = of_cluster(&*catalog, &of).await?;
            let restores = catalog.restores(cluster.id, Page { skip: 0, take: limit }).await?;
            let documents: Vec<_> = restores.iter().map(document).collect();
            output.print(&documents.into(), || {
                let row = |one: &Restore| {
                    let Amount { documents, bytes, .. } = one.written();
                    vec![
                        one.id.to_string(),
                        one.requested.to_string(),
                        one.state.name().into(),
                        format!("{} ({})", one.time.date(), one.time),
                        documents.to_string(),
                        size(bytes),
                        target(one),
                    ]
                };
                let head = ["ID", "REQUESTED", "STATE", "AS OF", "DOCUMENTS", "SIZE", "INTO"];
                table(&head, &restores.iter().map(row).collect::<Vec<_>>())
            });
            Ok(())
        }
        RestoreJobCommand::Show { of, id } => {
            let (project, cluster) = of_cluster(&*catalog, &of).await?;
            let found = catalog.restore(cluster.id, id).await?;
            let found = found.ok_or_else(|| not_found(KIND, &project, &cluster, id))?;
            output.print(&document(&found), || shown(&found));
            Ok(())
        }
        RestoreJobCommand::Cancel { of, id } => {
            let (project, cluster) = of_cluster(&*catalog, &of).await?;
            let find = async || catalog.restore(cluster.id, id).await;
            find().await?.ok_or_else(|| not_found(KIND, &project, &cluster, id))?;
            catalog.cancel_restore(cluster.id, id, now()).await?;
            audited(&*catalog, format!("restore-job cancel {id}")).await;
            let found = find().await?.ok_or_else(|| not_found(KIND, &project, &cluster, id))?;
            output.print(&document(&found), || {
                "asked; a target that was written to keeps what it has, and its mark".into()
            });
            Ok(())
        }
    }
}

fn target(restore: &Restore) -> String {
    match &restore.target {
        Target::Cluster(id) => format!("cluster {id}"),
        Target::Hosts(hosts) => hosts.clone(),
    }
}

fn amount(amount: Amount) -> Value {
    json!({"collections": amount.collections, "documents": amount.documents, "bytes": amount.bytes})
}

pub fn part_document(part: &Part) -> Value {
    json!({
        "part": part_name(&part.id),
        "into": part.shard,
        "expected": amount(part.expected),
        "written": amount(part.written),
        "doing": part.doing,
    })
}

pub fn document(restore: &Restore) -> Value {
    json!({
        "id": restore.id,
        "clusterId": restore.cluster,
        "state": restore.state.name(),
        "time": restore.time.to_string(),
        "requested": restore.requested,
        "ended": restore.ended,
        "target": target(restore),
        "parts": restore.parts.iter().map(part_document).collect::<Vec<_>>(),
        "verdict": restore.verification.as_ref().map(|one| one.verdict().name()),
        "cancelled": restore.cancelled,
        "failure": restore.failure,
        "trouble": restore.trouble,
    })
}

pub fn shown(restore: &Restore) -> String {
    let or_none = |text: Option<String>| text.unwrap_or("-".into());
    let verdict = restore.verification.as_ref().map(|one| one.verdict().to_string());
    let mut rows = vec![
        vec!["restore".into(), restore.id.to_string()],
        vec!["state".into(), restore.state.name().into()],
        vec!["as of".into(), format!("{} ({})", restore.time.date(), restore.time)],
        vec!["into".into(), target(restore)],
        vec!["requested".into(), restore.requested.to_string()],
        vec!["ended".into(), or_none(restore.ended.map(|time| time.to_string()))],
        vec!["compared".into(), or_none(verdict)],
    ];
    rows.extend(restore.failure.iter().map(|failure| vec!["failure".into(), failure.clone()]));
    rows.extend(restore.trouble.iter().map(|trouble| vec!["trouble".into(), trouble.clone()]));
    format!("{}\n\n{}", table(&["", ""], &rows).trim_start(), parts_table(&restore.parts))
}

pub fn parts_table(parts: &[Part]) -> String {
    let row = |part: &Part| {
        vec![
            part_name(&part.id).to_owned(),
            part.shard.clone().unwrap_or("-".into()),
            part.expected.documents.to_string(),
            size(part.expected.bytes),
            part.written.documents.to_string(),
            size(part.written.bytes),
        ]
    };
    let head = ["PART", "INTO", "EXPECTED, ABOUT", "SIZE", "WRITTEN", "SIZE"];
    table(&head, &parts.iter().map(row).collect::<Vec<_>>())
}
