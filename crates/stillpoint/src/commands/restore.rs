//! `stillpoint restore`

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, Cluster};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::{Amount, Only, Options, Part, Point as Asked, Restore, State, Target};
use stillpoint_core::snapshot::Data;
use stillpoint_core::{ClusterId, RestoreId};
use stillpoint_engine::restore::RestoreError;
use stillpoint_engine::restore::plan::{Outlook, Plan};
use stillpoint_mongo::Destination;

use super::point::Point;
use super::restore_job::{document, links, part_document, parts_table, shown};
use super::taken::{is_served, wait_for_server};
use crate::cli::{MappingArgs, RestoreArgs, UriArgs};
use crate::config::Config;
use crate::context::{self, audited, chance, now};
use crate::error::CliError;
use crate::output::{Output, size};

/// From one line of progress to the next.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Asks for a restore, and follows it; or only says what it would come to.
pub async fn run(config: &Config, output: &Output, args: RestoreArgs) -> Result<(), CliError> {
    if args.download {
        return download(config, output, args).await;
    }
    let options = Options { users: args.users, verify: !args.no_verify, ..options(&args.mapping)? };
    let point = Point::open(config, &args.point, &[]).await?;
    let catalog = &*point.catalog;
    let (kept, uri) = target_of(catalog, &args).await?;
    eprintln!("looking at the target");
    let destination = Destination::connect(&uri).await?;
    let target = kept.map_or_else(|| Target::Hosts(destination.marked().replica_set.clone()), Target::Cluster);
    let plan = Plan::make(&point.archive, &destination, &options, point.time).await.map_err(refused)?;
    let outlook = plan.check(&point.archive, &destination, &point.cluster.identity, None).await.map_err(refused)?;
    outlook.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let parts = plan.parts(|_| RestoreId::new(now(), chance()));
    if args.dry_run {
        output.print(&planned(&point, &plan, &parts, &outlook), || planned_text(&point, &plan, &parts));
        return Ok(());
    }
    let restore = Restore { parts, ..queued(&args, &point, target, options) };
    perform(config, output, &args, &point, restore, Some(&uri).filter(|_| kept.is_none())).await
}

/// Asks for files, and follows until they can be downloaded.
async fn download(config: &Config, output: &Output, args: RestoreArgs) -> Result<(), CliError> {
    let point = Point::open(config, &args.point, &[]).await?;
    let part = |(id, base): &(PartId, Data)| Part::new(RestoreId::new(now(), chance()), id.clone(), Amount::from(base));
    let target = Target::Download { hours: args.link_hours };
    let parts = point.parts.iter().map(part).collect();
    let restore = Restore { parts, ..queued(&args, &point, target, Options::default()) };
    perform(config, output, &args, &point, restore, None).await
}

fn queued(args: &RestoreArgs, point: &Point, target: Target, options: Options) -> Restore {
    let asked = match (args.point.time.checkpoint, args.point.time.snapshot) {
        (Some(id), _) => Asked::Checkpoint(id),
        (_, Some(id)) => Asked::Snapshot(id),
        _ => Asked::Time(point.time),
    };
    let id = RestoreId::new(now(), chance());
    Restore::queued(id, point.cluster.id, now(), asked, point.time, target, options)
}

async fn perform(
    config: &Config,
    output: &Output,
    args: &RestoreArgs,
    point: &Point,
    restore: Restore,
    uri: Option<&SecretString>,
) -> Result<(), CliError> {
    let catalog = &*point.catalog;
    wait_for_server(catalog, &point.cluster).await?;
    catalog.queue_restore(&restore, uri).await?;
    audited(catalog, format!("restore {} of cluster {} to {}", restore.id, restore.cluster, restore.time)).await;
    let ended = match args.no_wait {
        true => restore,
        false => follow(catalog, &point.cluster, restore.id).await?,
    };
    let links = links(config, catalog, &ended);
    output.print(&document(&ended, &links), || shown(&ended, &links));
    match ended.state {
        State::Killed if args.download => Err(CliError::Failed("somebody ended it before the files were ready".into())),
        State::Broken => Err(CliError::Failed(format!("the restore failed: {}", ended.failure.unwrap_or_default()))),
        State::Killed => Err(CliError::Failed(
            "the restore was ended before it was whole: empty the target (drop its databases, then \
             config.stillpoint.restore) before another one"
                .into(),
        )),
        _ => Ok(()),
    }
}

fn refused(why: RestoreError) -> CliError {
    CliError::Failed(format!("{why}\nNothing was written."))
}

/// What of a restore is said of its data.
pub fn options(args: &MappingArgs) -> Result<Options, CliError> {
    let pair = |text: &str| text.split_once('=').map(|(from, to)| (from.to_owned(), to.to_owned()));
    let mut shards = BTreeMap::new();
    for text in &args.shard_map {
        let (from, to) =
            pair(text).ok_or_else(|| CliError::Usage(format!("--shard-map {text:?}: write it as FROM=TO")))?;
        if shards.insert(from.clone(), to).is_some() {
            return Err(CliError::Usage(format!("--shard-map names {from} twice")));
        }
    }
    let only = args.only.iter().map(|text| match pair(text) {
        Some((from, to)) => Only { from, to: Some(to) },
        None => Only { from: text.clone(), to: None },
    });
    Ok(Options {
        shards,
        part: args.part.as_ref().map(|name| match name.as_str() {
            "config" => PartId::ConfigServers,
            name => PartId::Shard(name.to_owned()),
        }),
        only: only.collect(),
        ..Options::default()
    })
}

/// How the target is reached, and which cluster it is if it is kept here.
async fn target_of(catalog: &dyn Catalog, args: &RestoreArgs) -> Result<(Option<ClusterId>, SecretString), CliError> {
    if let Some(name) = &args.to_cluster {
        let project = args.to_project.as_ref().unwrap_or(&args.point.of.project.project);
        let project = context::project(catalog, project).await?;
        let cluster = catalog.cluster_named(project.id, name).await?;
        let list = format!("cluster list --project {}", project.name);
        let cluster = cluster.ok_or_else(|| CliError::NotFound { kind: "cluster", name: name.clone(), list })?;
        return Ok((Some(cluster.id), cluster.uri));
    }
    if args.to.is_none() && args.to_file.is_none() {
        return Err(CliError::Usage(
            "say where to, with --to, --to-file or --to-cluster, or ask for files with --download".into(),
        ));
    }
    let uri = context::uri(&UriArgs { uri: args.to.clone(), uri_file: args.to_file.clone() })?;
    let uri = uri.ok_or_else(|| CliError::Usage("the target has no connection string".into()))?;
    Ok((None, uri))
}

/// Waits for the end, telling how far it is.
async fn follow(catalog: &dyn Catalog, cluster: &Cluster, id: RestoreId) -> Result<Restore, CliError> {
    let begun = Instant::now();
    let (mut told, mut trouble) = (None, None);
    let mut last = Amount::default();
    loop {
        let found = catalog.restore(cluster.id, id).await?;
        let restore = found.ok_or_else(|| CliError::Failed("the restore was deleted meanwhile".into()))?;
        let line = progress(&restore, last, TELL_EVERY);
        last = restore.written();
        if restore.state != State::Queued && told.as_ref() != Some(&line) {
            eprintln!("{line}");
            told = Some(line);
        }
        if restore.trouble != trouble {
            trouble = restore.trouble.clone();
            trouble.iter().for_each(|trouble| eprintln!("{trouble}"));
        }
        if restore.state.ended() {
            eprintln!("after {} s", begun.elapsed().as_secs());
            return Ok(restore);
        }
        if !is_served(catalog, cluster).await? {
            return Err(CliError::Failed(format!(
                "the server has stopped before restore {id} was finished: start `stillpoint serve` again, it goes on \
                 with it"
            )));
        }
        tokio::time::sleep(TELL_EVERY).await;
    }
}

/// A line that tells how far it is, and what came in the last moment.
pub fn progress(restore: &Restore, before: Amount, moment: Duration) -> String {
    let step = match restore.state {
        State::Queued => "waiting for the server",
        State::Checking => "looking at the target, and following the stored oplogs to the time",
        State::Loading => "writing",
        State::Verifying => "comparing the target with what was written",
        State::Opening => "telling the config servers",
        State::Finished => "finished",
        State::Broken => "broken",
        State::Killed => "ended",
    };
    let (written, expected) = (restore.written(), restore.expected());
    let mut line = step.to_owned();
    if written.documents > 0 {
        line += &format!("; {} documents, {}", written.documents, size(written.bytes));
        if restore.state == State::Loading && expected.bytes > 0 {
            line += &format!(" of about {}", size(expected.bytes));
            let rate = written.bytes.saturating_sub(before.bytes) / moment.as_secs().max(1);
            if let Some(left) = expected.bytes.saturating_sub(written.bytes).checked_div(rate) {
                line += &format!(", {} a second, about {left} s left", size(rate));
            }
        }
    }
    for part in &restore.parts {
        if let Some(doing) = &part.doing {
            line += &format!("; {}: {doing}", part.id.name());
        }
    }
    line
}

fn planned(point: &Point, plan: &Plan, parts: &[Part], outlook: &Outlook) -> Value {
    json!({
        "time": point.time.to_string(),
        "parts": parts.iter().map(part_document).collect::<Vec<_>>(),
        "freeBytes": outlook.free,
        "warnings": outlook.warnings,
        "estimatedSeconds": plan.estimate(),
    })
}

fn planned_text(point: &Point, plan: &Plan, parts: &[Part]) -> String {
    format!(
        "as of {} ({})\n\n{}\n\nabout {} s, if each shard takes 40 MB a second. Nothing was written.",
        point.time.date(),
        point.time,
        parts_table(parts),
        plan.estimate()
    )
}
