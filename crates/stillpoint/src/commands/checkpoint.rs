//! `stillpoint checkpoint`

use serde_json::Value;
use stillpoint_api::{ATLAS_V1, Place, View, checkpoint_document};
use stillpoint_catalog::{Catalog, Cluster, Holdings, Page, Project};
use stillpoint_core::CheckpointId;
use stillpoint_core::checkpoint::{Checkpoint, PutBack, State};
use stillpoint_core::coverage::{Obstacle, Stored};

use crate::cli::CheckpointCommand;
use crate::commands::taken::{LOOK_EVERY, cut, is_served, not_found, wait_for_server};
use crate::config::Config;
use crate::context::{audited, chance, now, of_cluster, open_catalog};
use crate::error::CliError;
use crate::output::{Output, table};

const KIND: &str = "checkpoint";

pub async fn run(config: &Config, output: &Output, command: CheckpointCommand) -> Result<(), CliError> {
    let catalog = open_catalog(config)?;
    let catalog = &*catalog;
    match command {
        CheckpointCommand::Take { of, no_wait } => {
            let (project, cluster) = of_cluster(catalog, &of).await?;
            wait_for_server(catalog, &cluster).await?;
            let queued = Checkpoint::queued(CheckpointId::new(now(), chance()), cluster.id, now());
            catalog.queue_checkpoint(&queued).await?;
            audited(catalog, format!("checkpoint take {}", queued.id)).await;
            let ended = match no_wait {
                true => queued,
                false => follow(catalog, &cluster, &queued).await?,
            };
            print(config, output, &project, &cluster, &ended, &Holdings::of(catalog, cluster.id).await?);
            match (&ended.state, &ended.failure) {
                (State::Failed, Some(failure)) => Err(CliError::Failed(format!(
                    "the checkpoint failed. {} {}",
                    failure.reason.sentence(),
                    failure.detail
                ))),
                _ => Ok(()),
            }
        }
        CheckpointCommand::List { of, limit } => {
            let (project, cluster) = of_cluster(catalog, &of).await?;
            let checkpoints = catalog.checkpoints(cluster.id, Page { skip: 0, take: limit }).await?;
            let held = Holdings::of(catalog, cluster.id).await?;
            let documents: Vec<_> =
                checkpoints.iter().map(|c| document(config, &project, &cluster, c, &held)).collect();
            output.print(&documents.into(), || {
                let row = |c: &Checkpoint| {
                    vec![
                        c.id.to_string(),
                        c.started.to_string(),
                        c.state.name().into(),
                        cut(c.cut),
                        held.stored().restorable(c).to_string(),
                    ]
                };
                let rows: Vec<_> = checkpoints.iter().map(row).collect();
                table(&["ID", "STARTED", "STATE", "RESTORES TO", "RESTORABLE"], &rows)
            });
            Ok(())
        }
        CheckpointCommand::Show { of, id } => {
            let (project, cluster) = of_cluster(catalog, &of).await?;
            let checkpoint =
                catalog.checkpoint(cluster.id, id).await?.ok_or_else(|| not_found(KIND, &project, &cluster, id))?;
            print(config, output, &project, &cluster, &checkpoint, &Holdings::of(catalog, cluster.id).await?);
            Ok(())
        }
        CheckpointCommand::Delete { of, id } => {
            let (project, cluster) = of_cluster(catalog, &of).await?;
            let checkpoint =
                catalog.checkpoint(cluster.id, id).await?.ok_or_else(|| not_found(KIND, &project, &cluster, id))?;
            let held = Holdings::of(catalog, cluster.id).await?;
            catalog.delete_checkpoint(cluster.id, id).await?;
            audited(catalog, format!("checkpoint delete {id}")).await;
            output.print(&document(config, &project, &cluster, &checkpoint, &held), || format!("deleted {id}"));
            Ok(())
        }
    }
}

/// What keeps a completed checkpoint from being restored.
fn obstacles(held: &Holdings, checkpoint: &Checkpoint) -> Vec<Obstacle> {
    match checkpoint.state {
        State::Completed => held.stored().obstacles(checkpoint),
        _ => Vec::new(),
    }
}

/// Waits for the end, telling each step. Each step has its own limit in the server; if the server
/// goes away, that is said.
async fn follow(catalog: &dyn Catalog, cluster: &Cluster, queued: &Checkpoint) -> Result<Checkpoint, CliError> {
    let mut state = State::Queued;
    let mut trouble = None;
    loop {
        let found = catalog.checkpoint(queued.cluster, queued.id).await?;
        let checkpoint = found.ok_or_else(|| CliError::Failed("the checkpoint was deleted meanwhile".into()))?;
        if checkpoint.state != state {
            state = checkpoint.state;
            eprintln!("{}", step(state));
        }
        if checkpoint.trouble != trouble {
            trouble = checkpoint.trouble.clone();
            trouble.iter().for_each(|trouble| eprintln!("{}", trouble.text));
        }
        if state.ended() {
            return Ok(checkpoint);
        }
        if !is_served(catalog, cluster).await? {
            if catalog.withdraw_checkpoint(queued.cluster, queued.id).await? {
                return Err(CliError::NoServer);
            }
            return Err(CliError::Failed(format!(
                "the server has stopped in the middle of checkpoint {}: start `stillpoint serve` again, it ends what it began",
                queued.id
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn step(state: State) -> &'static str {
    match state {
        State::Queued => "waiting for the server",
        State::Started => "looking at the cluster",
        State::Holding => "the balancer is stopped; writing tokens",
        State::Releasing => "putting the balancer back",
        State::Discovering => "the balancer is as it was; finding the tokens",
        State::Completed => "completed",
        State::Failed => "failed",
    }
}

fn document(config: &Config, project: &Project, cluster: &Cluster, checkpoint: &Checkpoint, held: &Holdings) -> Value {
    let place = Place::new(&config.base_url(), &ATLAS_V1, project.id, cluster.id, &cluster.name);
    // Of what it lacks the command speaks in its own words.
    let restorable = held.stored().restorable(checkpoint);
    let stored = if restorable { held.stored() } else { Stored::default() };
    checkpoint_document(&View { place: &place, checkpoint, stored })
}

/// With what only the operator is told.
fn operators(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Gap(gap) => format!("{obstacle} {}", gap.detail),
        Obstacle::Damaged { .. } => {
            format!("{obstacle} Put it back from a backup of the vault, then run `stillpoint vault check`")
        }
        _ => obstacle.to_string(),
    }
}

fn print(
    config: &Config,
    output: &Output,
    project: &Project,
    cluster: &Cluster,
    checkpoint: &Checkpoint,
    held: &Holdings,
) {
    let obstacles = obstacles(held, checkpoint);
    // The published document has no place for it.
    if output.json {
        obstacles.iter().for_each(|obstacle| eprintln!("not restorable: {}", operators(obstacle)));
    }
    output.print(&document(config, project, cluster, checkpoint, held), || {
        let mut rows = vec![
            vec!["checkpoint".into(), checkpoint.id.to_string()],
            vec!["state".into(), checkpoint.state.name().into()],
            vec!["started".into(), checkpoint.started.to_string()],
            vec!["completed".into(), checkpoint.completed().map_or("-".into(), |time| time.to_string())],
            vec!["restores to".into(), cut(checkpoint.cut)],
            vec!["restorable".into(), held.stored().restorable(checkpoint).to_string()],
        ];
        rows.extend(obstacles.iter().map(|obstacle| vec!["because".into(), operators(obstacle)]));
        if let Some(verification) = &checkpoint.verification {
            rows.push(vec!["verified".into(), format!("{}, at {}", verification.verdict(), verification.at)]);
        }
        if let Some(discovery) = checkpoint.discovery() {
            rows.push(vec!["discovery".into(), format!("took {} ms", discovery.as_millis())]);
        }
        if let (Some(since), Some(released)) = (checkpoint.held_since, &checkpoint.released) {
            let how = match released.how {
                PutBack::AsFound => "as it was found",
                PutBack::AsChangedByOthers => "as somebody else set it meanwhile",
                PutBack::StartedByOthers => "running: somebody else started it meanwhile",
                PutBack::HistoryLost => "NOT put back: compare it by hand",
            };
            let held = released.at.duration_since(since);
            rows.push(vec!["balancer".into(), format!("{how}, after {} ms", held.as_millis())]);
        }
        // Whoever must put it back by hand needs to know what it was.
        if let Some(found) = &checkpoint.found
            && checkpoint.released.as_ref().is_some_and(|released| released.how == PutBack::HistoryLost)
        {
            rows.push(vec!["it was".into(), found.settings.clone()]);
        }
        if let Some(failure) = &checkpoint.failure {
            rows.push(vec!["failure".into(), format!("{} {}", failure.reason.sentence(), failure.detail)]);
        }
        if let Some(trouble) = &checkpoint.trouble {
            rows.push(vec!["trouble".into(), format!("since {}: {}", trouble.since, trouble.text)]);
        }
        let parts: Vec<_> = checkpoint
            .parts
            .iter()
            .map(|part| {
                let token = part.token.map_or("-".into(), |token| token.time.to_string());
                let discovered = part.token.is_some_and(|token| token.discovered);
                vec![part.id.to_string(), part.replica_set.clone(), token, discovered.to_string()]
            })
            .collect();
        format!(
            "{}\n\n{}",
            table(&["", ""], &rows).trim_start(),
            table(&["PART", "REPLICA SET", "TOKEN", "DISCOVERED"], &parts)
        )
    });
}
