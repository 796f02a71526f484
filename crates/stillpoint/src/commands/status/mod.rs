//! `stillpoint status`

mod capture;
mod drills;
mod restores;
mod snapshots;

use std::time::Duration;

use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, Cluster, Page, Project};
use stillpoint_core::checkpoint::{Checkpoint, PutBack, State};
use stillpoint_core::schedule::next_due;

use capture::Standing;
use drills::Drills;
use restores::Restores;
use snapshots::Snapshots;

use crate::config::Config;
use crate::context::{now, open_catalog};
use crate::error::CliError;
use crate::output::{Output, table};

struct Row {
    /// From the end of one checkpoint to the next.
    interval: Option<Duration>,
    project: Project,
    cluster: Cluster,
    server: Option<String>,
    newest: Option<Checkpoint>,
    last_completed: Option<Checkpoint>,
    /// The newest whose balancer could not be put back by stillpoint.
    history_lost: Option<Checkpoint>,
    /// The newest that has ended, if it failed.
    failed: Option<Checkpoint>,
    standing: Standing,
    snapshots: Snapshots,
    restores: Restores,
    drills: Drills,
}

/// With `check` it fails if anything needs attention.
pub async fn run(config: &Config, output: &Output, check: bool) -> Result<(), CliError> {
    let catalog = open_catalog(config)?;
    let mut rows = Vec::new();
    for project in catalog.projects().await? {
        for cluster in catalog.clusters(Some(project.id)).await? {
            rows.push(look(config, &*catalog, project.clone(), cluster).await?);
        }
    }
    let documents: Vec<_> = rows.iter().map(document).collect();
    output.print(&json!({ "clusters": documents }), || text(&rows));
    let named = |row: &Row| {
        let name = format!("{} {}", row.project.name, row.cluster.name);
        row.attention().into_iter().map(move |what| format!("\n- {name}: {what}")).collect::<Vec<_>>()
    };
    let attention: Vec<_> = rows.iter().flat_map(named).collect();
    match check && !attention.is_empty() {
        true => Err(CliError::Failed(format!("this needs attention:{}", attention.concat()))),
        false => Ok(()),
    }
}

impl Row {
    /// What a monitor is to be told.
    fn attention(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.server.is_none() {
            all.push("no server runs: start `stillpoint serve`".to_owned());
        }
        if let Some(lost) = &self.history_lost {
            all.push(format!("checkpoint {} could not put the balancer back", lost.id));
        }
        if let Some((failed, failure)) =
            self.failed.as_ref().and_then(|failed| Some((failed, failed.failure.as_ref()?)))
        {
            all.push(format!("checkpoint {} failed. {}", failed.id, failure.reason.sentence()));
        }
        all.extend(self.standing.attention(self.server.as_ref().map(|_| self.cluster.created)));
        all.extend(self.snapshots.attention());
        all.extend(self.restores.attention());
        all.extend(self.drills.attention());
        all
    }
}

async fn look(config: &Config, catalog: &dyn Catalog, project: Project, cluster: Cluster) -> Result<Row, CliError> {
    let lease = catalog.lease(cluster.id).await?.filter(|lease| lease.until > now());
    // The newest may be under way, and those before it may have failed.
    let recent = catalog.checkpoints(cluster.id, Page { skip: 0, take: 100 }).await?;
    let last_completed = recent.iter().find(|checkpoint| checkpoint.state == State::Completed).cloned();
    let interval = catalog.schedule(cluster.id).await?.interval(config.interval()?);
    let lost = |c: &&Checkpoint| c.released.as_ref().is_some_and(|released| released.how == PutBack::HistoryLost);
    let history_lost = recent.iter().find(lost).cloned();
    let ended = recent.iter().find(|checkpoint| checkpoint.state.ended());
    let failed = ended.filter(|checkpoint| checkpoint.state == State::Failed).cloned();
    let standing = capture::look(catalog, &cluster).await?;
    let snapshots = snapshots::look(catalog, &cluster, &recent).await?;
    let restores = restores::look(catalog, &cluster).await?;
    let drills = drills::look(catalog, &cluster).await?;
    Ok(Row {
        history_lost,
        failed,
        standing,
        snapshots,
        restores,
        drills,
        project,
        cluster,
        server: lease.map(|lease| lease.lease.holder),
        interval,
        newest: recent.into_iter().next(),
        last_completed,
    })
}

fn document(row: &Row) -> Value {
    let next = match (&row.newest, row.interval) {
        (Some(newest), Some(_)) if !newest.state.ended() => None,
        (newest, Some(interval)) => {
            let since = newest.as_ref().and_then(|c| c.ended).unwrap_or(row.cluster.created);
            Some(next_due(since, interval, now()))
        }
        (_, None) => None,
    };
    let checkpoint = |checkpoint: &Checkpoint| {
        json!({
            "id": checkpoint.id,
            "state": checkpoint.state.name(),
            "started": checkpoint.started,
            "completed": checkpoint.completed(),
            "cut": checkpoint.cut.map(|cut| cut.to_string()),
            "balancerHeldSince": checkpoint.held_since.filter(|_| checkpoint.owes_put_back()),
            "failure": checkpoint.failure,
            "trouble": checkpoint.trouble,
        })
    };
    let (capture, gaps) = row.standing.documents();
    json!({
        "project": row.project.name,
        "cluster": row.cluster.name,
        "server": row.server,
        "newest": row.newest.as_ref().map(checkpoint),
        "lastCompleted": row.last_completed.as_ref().map(checkpoint),
        "balancerNotPutBack": row.history_lost.as_ref().map(checkpoint),
        "nextDue": next,
        "capture": capture,
        "gaps": gaps,
        "snapshots": row.snapshots.document(),
        "restores": row.restores.document(),
        "drills": row.drills.document(),
        "attention": row.attention(),
    })
}

fn text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no cluster yet: `stillpoint cluster add` adds one".into();
    }
    let mut lines = vec![];
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let state = row.newest.as_ref().map_or("-".into(), |c| format!("{} {}", c.state.name(), c.id));
            let last = row.last_completed.as_ref().and_then(Checkpoint::completed);
            vec![
                row.project.name.clone(),
                row.cluster.name.clone(),
                row.server.clone().unwrap_or("NOT RUNNING".into()),
                state,
                last.map_or("never".into(), |time| time.to_string()),
            ]
        })
        .collect();
    lines.push(table(&["PROJECT", "CLUSTER", "SERVER", "NEWEST CHECKPOINT", "LAST COMPLETED"], &cells));
    for row in rows {
        let name = &row.cluster.name;
        let standing = row.standing.lines();
        if !standing.is_empty() {
            let standing: Vec<_> = standing.into_iter().map(|line| format!("{name}: {line}")).collect();
            lines.push(format!("\n{}", standing.join("\n")));
        }
        let told = row.snapshots.lines().into_iter().chain(row.restores.lines()).chain(row.drills.lines());
        let told: Vec<_> = told.map(|line| format!("{name}: {line}")).collect();
        lines.push(format!("\n{}", told.join("\n")));
        if let Some(lost) = &row.history_lost {
            let was = lost.found.as_ref().map(|found| found.settings.as_str()).unwrap_or_default();
            lines.push(format!(
                "\n{name}: checkpoint {} could not put the balancer back; it was {was}. Compare that with config.settings, set \
                 what should be, then `stillpoint checkpoint delete` it",
                lost.id
            ));
        }
        let Some(newest) = &row.newest else { continue };
        if newest.owes_put_back() {
            let since = newest.held_since.map(|since| since.to_string()).unwrap_or_default();
            lines.push(format!("\n{name}: the balancer is held since {since}"));
            if row.server.is_none() {
                lines.push(format!("{name}: start `stillpoint serve`: it puts the balancer back"));
            }
        }
        if let Some(trouble) = &newest.trouble {
            lines.push(format!("\n{name}: since {}: {}", trouble.since, trouble.text));
        }
        if let Some(failure) = &newest.failure {
            lines.push(format!("\n{name}: failed. {} {}", failure.reason.sentence(), failure.detail));
        }
    }
    lines.join("\n")
}
