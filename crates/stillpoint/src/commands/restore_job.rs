//! `stillpoint restore-job`

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use stillpoint_api::download_url;
use stillpoint_catalog::{Catalog, Page};
use stillpoint_core::restore::{Amount, Part, Restore, Standing, Target};

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
            let documents: Vec<_> = restores.iter().map(|one| document(one, &[])).collect();
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
            let links = links(config, &*catalog, &found);
            output.print(&document(&found, &links), || shown(&found, &links));
            Ok(())
        }
        RestoreJobCommand::Cancel { of, id } => {
            let (project, cluster) = of_cluster(&*catalog, &of).await?;
            let find = async || catalog.restore(cluster.id, id).await;
            find().await?.ok_or_else(|| not_found(KIND, &project, &cluster, id))?;
            catalog.cancel_restore(cluster.id, id, now()).await?;
            audited(&*catalog, format!("restore-job cancel {id}")).await;
            let found = find().await?.ok_or_else(|| not_found(KIND, &project, &cluster, id))?;
            output.print(&document(&found, &[]), || match found.target {
                Target::Download { .. } => "asked; the files go, and their links with them".into(),
                _ => "asked; a target that was written to keeps what it has, and its mark".into(),
            });
            Ok(())
        }
    }
}

fn target(restore: &Restore) -> String {
    match &restore.target {
        Target::Cluster(id) => format!("cluster {id}"),
        Target::Hosts(hosts) => hosts.clone(),
        Target::Download { .. } => "files".into(),
    }
}

fn amount(amount: Amount) -> Value {
    json!({"collections": amount.collections, "documents": amount.documents, "bytes": amount.bytes})
}

pub fn part_document(part: &Part) -> Value {
    json!({
        "part": part.id.name(),
        "into": part.shard,
        "expected": amount(part.expected),
        "written": amount(part.written),
        "doing": part.doing,
    })
}

/// Where the files of the parts can be downloaded, in their order: as far as they can.
pub fn links(config: &Config, catalog: &dyn Catalog, restore: &Restore) -> Vec<Option<String>> {
    let link = |part: &Part| {
        let token = catalog.download_token(part.job);
        let is_ready = matches!(restore.standing(part, now()), Some(Standing::Ready(_)));
        is_ready.then(|| download_url(&config.base_url(), token.expose_secret()))
    };
    restore.parts.iter().map(link).collect()
}

/// How it stands with the file of a part, and where it is.
fn file_document(restore: &Restore, part: &Part, link: Option<&str>) -> Value {
    let Some(file) = &part.file else { return Value::Null };
    json!({
        "name": file.name,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "state": restore.standing(part, now()).map(|standing| match standing {
            Standing::Preparing => "PREPARING",
            Standing::Ready(_) => "READY",
            Standing::Downloaded(_) => "DOWNLOADED",
            Standing::Expired(_) => "EXPIRED",
            Standing::Withdrawn => "WITHDRAWN",
        }),
        "url": link,
    })
}

pub fn document(restore: &Restore, links: &[Option<String>]) -> Value {
    let parts = restore.parts.iter().enumerate().map(|(at, part)| {
        let mut document = part_document(part);
        let link = links.get(at).and_then(Option::as_deref);
        document["file"] = file_document(restore, part, link);
        document
    });
    json!({
        "id": restore.id,
        "clusterId": restore.cluster,
        "state": restore.state.name(),
        "time": restore.time.to_string(),
        "requested": restore.requested,
        "ended": restore.ended,
        "target": target(restore),
        "drillId": restore.drill,
        "expires": restore.expires(),
        "parts": parts.collect::<Vec<_>>(),
        "verdict": restore.verification.as_ref().map(|one| one.verdict().name()),
        "cancelled": restore.cancelled,
        "failure": restore.failure,
        "trouble": restore.trouble,
    })
}

pub fn shown(restore: &Restore, links: &[Option<String>]) -> String {
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
    rows.extend(restore.expires().map(|expires| vec!["expires".into(), expires.to_string()]));
    let text = format!("{}\n\n{}", table(&["", ""], &rows).trim_start(), parts_table(&restore.parts));
    match restore.target {
        Target::Download { .. } => format!("{text}\n\n{}", files_table(restore, links)),
        _ => text,
    }
}

fn files_table(restore: &Restore, links: &[Option<String>]) -> String {
    let row = |(part, link): (&Part, &Option<String>)| {
        let file = part.file.as_ref()?;
        let place = match (link, restore.standing(part, now())) {
            (Some(link), _) => link.clone(),
            (None, Some(Standing::Downloaded(at))) => format!("downloaded {at}"),
            (None, Some(Standing::Expired(at))) => format!("expired {at}"),
            (None, Some(Standing::Withdrawn)) => "withdrawn".into(),
            (None, _) => "-".into(),
        };
        Some(vec![part.id.name().to_owned(), size(file.bytes), file.sha256.clone(), place])
    };
    let rows: Vec<_> = restore.parts.iter().zip(links).filter_map(row).collect();
    table(&["PART", "FILE", "SHA-256", "LINK"], &rows)
}

pub fn parts_table(parts: &[Part]) -> String {
    let row = |part: &Part| {
        vec![
            part.id.name().to_owned(),
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
