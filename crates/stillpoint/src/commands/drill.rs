//! `stillpoint drill`

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, Cluster, Page};
use stillpoint_core::DrillId;
use stillpoint_core::drill::{Drill, Every, Loss, Schedule, Split, Stage, State};
use stillpoint_core::restore::State as RestoreState;
use stillpoint_mongod::binary;

use super::restore::progress;
use super::taken::{is_served, not_found, wait_for_server};
use crate::cli::{DrillCommand, StageArgs};
use crate::config::Config;
use crate::context::{audited, chance, now, of_cluster, open_catalog};
use crate::error::CliError;
use crate::output::{Output, size, table};

const KIND: &str = "drill";
/// From one line of progress to the next.
const TELL_EVERY: Duration = Duration::from_secs(1);

pub async fn run(config: &Config, output: &Output, command: DrillCommand) -> Result<(), CliError> {
    let catalog = open_catalog(config)?;
    let catalog = &*catalog;
    match command {
        DrillCommand::Run { of, stage, no_wait } => {
            let (_, cluster) = of_cluster(catalog, &of).await?;
            let stage = staged(&stage)?;
            wait_for_server(catalog, &cluster).await?;
            let drill = Drill::queued(DrillId::new(now(), chance()), cluster.id, now(), false, stage);
            catalog.queue_drill(&drill).await?;
            audited(catalog, format!("drill {} of cluster {}", drill.id, drill.cluster)).await;
            let ended = match no_wait {
                true => drill,
                false => follow(catalog, &cluster, drill.id).await?,
            };
            output.print(&document(&ended), || shown(&ended));
            match ended.state {
                State::Failed => Err(CliError::Failed(format!("the drill failed: {}", why(&ended)))),
                State::Interrupted => Err(CliError::Failed(format!("the drill did not end: {}", why(&ended)))),
                _ => Ok(()),
            }
        }
        DrillCommand::Schedule { of, every, off, stage } => {
            let (_, cluster) = of_cluster(catalog, &of).await?;
            let schedule = match (every, off) {
                (Some(every), _) => Some(set(catalog, &cluster, every, staged(&stage)?).await?),
                (None, true) => {
                    catalog.set_drill_schedule(cluster.id, None).await?;
                    audited(catalog, format!("drill schedule of cluster {}: off", cluster.id)).await;
                    None
                }
                (None, false) if stage.mongod.is_some() || stage.folder.is_some() || stage.to_file.is_some() => {
                    let why = "--mongod, --folder and --to-file go with --every: say how often";
                    return Err(CliError::Usage(why.into()));
                }
                (None, false) => catalog.drill_schedule(cluster.id).await?,
            };
            let drills = catalog.drills(cluster.id, Page::ALL).await?;
            output.print(&schedule_document(schedule.as_ref(), &drills), || scheduled(schedule.as_ref(), &drills));
            Ok(())
        }
        DrillCommand::List { of, limit } => {
            let (_, cluster) = of_cluster(catalog, &of).await?;
            let drills = catalog.drills(cluster.id, Page { skip: 0, take: limit }).await?;
            let documents: Vec<_> = drills.iter().map(document).collect();
            output.print(&documents.into(), || listed(&drills));
            Ok(())
        }
        DrillCommand::Show { of, id } => {
            let (project, cluster) = of_cluster(catalog, &of).await?;
            let found = catalog.drill(cluster.id, id).await?;
            let found = found.ok_or_else(|| not_found(KIND, &project, &cluster, id))?;
            output.print(&document(&found), || shown(&found));
            Ok(())
        }
    }
}

async fn set(catalog: &dyn Catalog, cluster: &Cluster, every: Every, stage: Stage) -> Result<Schedule, CliError> {
    let schedule = Schedule { every, stage, since: now() };
    catalog.set_drill_schedule(cluster.id, Some(&schedule)).await?;
    audited(catalog, format!("drill schedule of cluster {}: every {every}", cluster.id)).await;
    Ok(schedule)
}

/// As the server will need it, which may run in another folder than this command.
fn staged(args: &StageArgs) -> Result<Stage, CliError> {
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|why| CliError::File { path: path.clone(), why });
    let stage = Stage {
        mongod: args.mongod.as_ref().map(absolute).transpose()?,
        folder: args.folder.as_ref().map(absolute).transpose()?,
        to_file: args.to_file.as_ref().map(absolute).transpose()?,
    };
    if let Some(path) = stage.mongod.as_deref().filter(|path| !binary::is_executable(path)) {
        return Err(CliError::Failed(format!("--mongod: {} is not a program that can be run", path.display())));
    }
    if let Some(path) = stage.folder.as_deref().filter(|path| !Path::is_dir(path)) {
        return Err(CliError::Failed(format!("--folder: {} is not a folder", path.display())));
    }
    if let Some(path) = &stage.to_file {
        File::open(path).map_err(|why| CliError::File { path: path.clone(), why })?;
    }
    Ok(stage)
}

/// Waits for the end, telling how far it is.
async fn follow(catalog: &dyn Catalog, cluster: &Cluster, id: DrillId) -> Result<Drill, CliError> {
    let mut told = None;
    loop {
        let found = catalog.drill(cluster.id, id).await?;
        let drill = found.ok_or_else(|| CliError::Failed("the drill was forgotten meanwhile".into()))?;
        if drill.state.ended() {
            return Ok(drill);
        }
        let line = how_far(catalog, &drill).await?;
        if told.as_ref() != Some(&line) {
            eprintln!("{line}");
            told = Some(line);
        }
        if !is_served(catalog, cluster).await? {
            return Err(CliError::Failed(format!(
                "the server has stopped before drill {id} ended: start `stillpoint serve` again, it removes what the drill \
                 left; then run another one"
            )));
        }
        tokio::time::sleep(TELL_EVERY).await;
    }
}

async fn how_far(catalog: &dyn Catalog, drill: &Drill) -> Result<String, CliError> {
    let restore = match drill.restore {
        Some(id) => catalog.restore(drill.cluster, id).await?,
        None => None,
    };
    Ok(match (drill.state, restore) {
        (State::Queued, _) => match catalog.unfinished_restore(drill.cluster).await? {
            Some(restore) => format!("waiting for restore {}, which goes first", restore.id),
            None => "waiting for the server".into(),
        },
        (State::Preparing, _) if drill.stage.to_file.is_some() => "looking at the cluster for drills".into(),
        (State::Preparing, _) => "starting a throw-away cluster".into(),
        (_, Some(restore)) if restore.state == RestoreState::Finished => "removing what was restored".into(),
        (_, Some(restore)) => progress(&restore, restore.written(), TELL_EVERY),
        (_, None) => "asking for the restore".into(),
    })
}

fn why(drill: &Drill) -> String {
    drill.failure.clone().unwrap_or_default()
}

/// Milliseconds, in seconds.
pub fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1_000, milliseconds % 1_000 / 100)
}

/// Seconds, as people read them.
pub fn long(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

pub fn document(drill: &Drill) -> Value {
    let Split { preparing, checking, loading, verifying, opening } = drill.split;
    let in_seconds = |milliseconds: u64| milliseconds as f64 / 1_000.0;
    json!({
        "id": drill.id,
        "clusterId": drill.cluster,
        "state": drill.state.name(),
        "scheduled": drill.scheduled,
        "requested": drill.requested,
        "begun": drill.begun,
        "ended": drill.ended,
        "checkpointId": drill.checkpoint,
        "time": drill.time.map(|time| time.to_string()),
        "restoreId": drill.restore,
        "rtoSeconds": drill.recovery().map(in_seconds),
        "steps": {
            "preparingSeconds": in_seconds(preparing),
            "checkingSeconds": in_seconds(checking),
            "loadingSeconds": in_seconds(loading),
            "verifyingSeconds": in_seconds(verifying),
            "openingSeconds": in_seconds(opening),
        },
        "rpoSeconds": drill.loss.map(|loss| loss.stream_seconds),
        "checkpointRpoSeconds": drill.loss.map(|loss| loss.checkpoint_seconds),
        "documents": drill.written.documents,
        "bytes": drill.written.bytes,
        "failure": drill.failure,
        "left": drill.left,
    })
}

fn shown(drill: &Drill) -> String {
    let or_none = |text: Option<String>| text.unwrap_or("-".into());
    let restored = drill.checkpoint.zip(drill.time);
    let restored = restored.map(|(id, time)| format!("checkpoint {id}, as of {} ({time})", time.date()));
    let Split { preparing, checking, loading, verifying, opening } = drill.split;
    let rto = drill.recovery().map(|all| {
        format!(
            "{}: making ready {}, looking and folding {}, writing {}, comparing {}, telling the config servers {}",
            seconds(all),
            seconds(preparing),
            seconds(checking),
            seconds(loading),
            seconds(verifying),
            seconds(opening)
        )
    });
    let rpo = drill.loss.map(|Loss { checkpoint_seconds, stream_seconds }| {
        format!(
            "{} with the stored oplogs, {} with the checkpoint alone",
            long(stream_seconds),
            long(checkpoint_seconds)
        )
    });
    let mut rows = vec![
        vec!["drill".into(), drill.id.to_string()],
        vec!["state".into(), drill.state.name().into()],
        vec!["asked for".into(), if drill.scheduled { "by the schedule" } else { "by hand" }.into()],
        vec!["begun".into(), or_none(drill.begun.map(|time| time.to_string()))],
        vec!["ended".into(), or_none(drill.ended.map(|time| time.to_string()))],
        vec!["restored".into(), or_none(restored)],
        vec!["RTO".into(), or_none(rto)],
        vec!["RPO".into(), or_none(rpo)],
        vec!["written".into(), format!("{} documents, {}", drill.written.documents, size(drill.written.bytes))],
    ];
    rows.extend(drill.failure.iter().map(|failure| vec!["failure".into(), failure.clone()]));
    rows.extend(drill.left.iter().map(|left| vec!["left".into(), left.clone()]));
    table(&["", ""], &rows).trim_start().to_owned()
}

fn listed(drills: &[Drill]) -> String {
    let row = |one: &Drill| {
        vec![
            one.id.to_string(),
            one.begun.unwrap_or(one.requested).to_string(),
            one.state.name().into(),
            one.time.map_or("-".into(), |time| time.date().to_string()),
            one.recovery().map_or("-".into(), seconds),
            one.loss.map_or("-".into(), |loss| long(loss.stream_seconds)),
            one.written.documents.to_string(),
            size(one.written.bytes),
        ]
    };
    let head = ["ID", "BEGUN", "STATE", "AS OF", "RTO", "RPO", "DOCUMENTS", "SIZE"];
    table(&head, &drills.iter().map(row).collect::<Vec<_>>())
}

/// Those that have ended.
fn ended(drills: &[Drill]) -> Vec<Drill> {
    drills.iter().filter(|drill| drill.state.ended()).cloned().collect()
}

fn schedule_document(schedule: Option<&Schedule>, drills: &[Drill]) -> Value {
    match schedule {
        None => json!({"every": null}),
        Some(schedule) => json!({
            "every": schedule.every.to_string(),
            "everySeconds": schedule.every.duration().as_secs(),
            "since": schedule.since,
            "mongod": schedule.stage.mongod,
            "folder": schedule.stage.folder,
            "toFile": schedule.stage.to_file,
            "next": schedule.next_due(&ended(drills), now()),
        }),
    }
}

fn scheduled(schedule: Option<&Schedule>, drills: &[Drill]) -> String {
    let Some(schedule) = schedule else { return "no drills are scheduled".into() };
    let next = schedule.next_due(&ended(drills), now());
    let when = if next <= now() { "now, as soon as a server runs".to_owned() } else { format!("at {next}") };
    format!("a drill every {}, the next {when}", schedule.every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_read_them() {
        assert_eq!(seconds(12_345), "12.3 s");
        for (n, text) in [(119, "119 s"), (120, "2 min"), (7_260, "2 h 1 min"), (180_000, "2 d 2 h")] {
            assert_eq!(long(n), text);
        }
    }
}
