//! `stillpoint snapshot`

use jiff::Timestamp;
use serde_json::Value;
use stillpoint_api::{ATLAS_V1, Place, SnapshotView, snapshot_document};
use stillpoint_catalog::{Catalog, Cluster, Page, Project};
use stillpoint_core::SnapshotId;
use stillpoint_core::keeping::{keep_from, need};
use stillpoint_core::snapshot::{Data, Part, Snapshot, State};

use crate::cli::{OfCluster, SnapshotCommand};
use crate::commands::taken::{LOOK_EVERY, cut, is_served, not_found, wait_for_server};
use crate::config::Config;
use crate::context::{audited, chance, now, of_cluster, open_catalog};
use crate::error::CliError;
use crate::output::{Output, size, table};

const KIND: &str = "snapshot";

pub async fn run(config: &Config, output: &Output, command: SnapshotCommand) -> Result<(), CliError> {
    let catalog = open_catalog(config)?;
    let catalog = &*catalog;
    match command {
        SnapshotCommand::Take { of, no_wait } => {
            let (project, cluster) = of_cluster(catalog, &of).await?;
            wait_for_server(catalog, &cluster).await?;
            let queued = Snapshot::queued(SnapshotId::new(now(), chance()), cluster.id, now());
            catalog.queue_snapshot(&queued).await?;
            audited(catalog, format!("snapshot take {}", queued.id)).await;
            let ended = match no_wait {
                true => queued,
                false => follow(catalog, &cluster, &queued).await?,
            };
            print(config, output, &project, &cluster, &ended);
            match &ended.failure {
                Some(failure) => Err(CliError::Failed(format!("the snapshot failed: {failure}"))),
                None => Ok(()),
            }
        }
        SnapshotCommand::List { of, limit } => {
            let (project, cluster) = of_cluster(catalog, &of).await?;
            let snapshots = catalog.snapshots(cluster.id, Page { skip: 0, take: limit }).await?;
            let documents: Vec<_> = snapshots.iter().map(|s| document(config, &project, &cluster, s)).collect();
            output.print(&documents.into(), || {
                let row = |s: &Snapshot| {
                    let Read { documents, bytes, stored } = Read::of(s);
                    vec![
                        s.id.to_string(),
                        s.requested.to_string(),
                        s.state.name().into(),
                        cut(s.cut),
                        documents.to_string(),
                        size(bytes),
                        size(stored),
                        kept_until(s),
                    ]
                };
                let rows: Vec<_> = snapshots.iter().map(row).collect();
                let head = ["ID", "REQUESTED", "STATE", "AS OF", "DOCUMENTS", "SIZE", "STORED", "KEPT UNTIL"];
                table(&head, &rows)
            });
            Ok(())
        }
        SnapshotCommand::Show { of, id } => {
            let (project, cluster) = of_cluster(catalog, &of).await?;
            let snapshot = find(catalog, &project, &cluster, id).await?;
            // The document has no place for what only the operator is told.
            if output.json {
                let told = snapshot.failure.iter().chain(&snapshot.trouble);
                told.for_each(|text| eprintln!("{}: {text}", snapshot.state.name()));
            }
            print(config, output, &project, &cluster, &snapshot);
            Ok(())
        }
        SnapshotCommand::Keep { of, id } => {
            let change = |snapshot: &Snapshot| (snapshot.expires, true);
            let kept = change_keeping(config, output, catalog, &of, id, change).await?;
            audited(catalog, format!("snapshot keep {}", kept.id)).await;
            Ok(())
        }
        SnapshotCommand::Expire { of, id, at } => {
            let change = |snapshot: &Snapshot| (at.or(snapshot.expires), false);
            let kept = change_keeping(config, output, catalog, &of, id, change).await?;
            audited(catalog, format!("snapshot expire {}", kept.id)).await;
            Ok(())
        }
        SnapshotCommand::Delete { of, id } => {
            let (project, cluster) = of_cluster(catalog, &of).await?;
            let snapshot = find(catalog, &project, &cluster, id).await?;
            check_that_it_may_go(catalog, &snapshot).await?;
            catalog.delete_snapshot(cluster.id, id, now()).await?;
            audited(catalog, format!("snapshot delete {id}")).await;
            output.print(&document(config, &project, &cluster, &snapshot), || format!("deleted {id}"));
            Ok(())
        }
    }
}

/// Changes how long one is kept: when it may go, and whether it stays until somebody says otherwise.
async fn change_keeping(
    config: &Config,
    output: &Output,
    catalog: &dyn Catalog,
    of: &OfCluster,
    id: SnapshotId,
    change: impl FnOnce(&Snapshot) -> (Option<Timestamp>, bool),
) -> Result<Snapshot, CliError> {
    let (project, cluster) = of_cluster(catalog, of).await?;
    let snapshot = find(catalog, &project, &cluster, id).await?;
    if !snapshot.is_complete() {
        let state = snapshot.state.name();
        return Err(CliError::Failed(format!(
            "snapshot {id} is {state}: how long it is kept is set once it is complete"
        )));
    }
    let (expires, do_not_delete) = change(&snapshot);
    let kept = catalog.keep_snapshot(cluster.id, id, expires, do_not_delete).await?;
    output.print(&document(config, &project, &cluster, &kept), || format!("{id} is kept until {}", kept_until(&kept)));
    Ok(kept)
}

async fn find(
    catalog: &dyn Catalog,
    project: &Project,
    cluster: &Cluster,
    id: SnapshotId,
) -> Result<Snapshot, CliError> {
    catalog.snapshot(cluster.id, id).await?.ok_or_else(|| not_found(KIND, project, cluster, id))
}

/// One that is unfinished the catalog refuses itself.
async fn check_that_it_may_go(catalog: &dyn Catalog, snapshot: &Snapshot) -> Result<(), CliError> {
    let (id, cluster) = (snapshot.id, snapshot.cluster);
    let refused = |why: &str| Err(CliError::Failed(format!("snapshot {id} cannot be deleted: {why}")));
    if snapshot.do_not_delete {
        return refused("it is marked doNotDelete; `stillpoint snapshot expire` takes that back");
    }
    let keep_from = keep_from(&catalog.schedule(cluster).await?, catalog.oldest_cut(cluster).await?, now());
    match need(&catalog.snapshots(cluster, Page::ALL).await?, id, keep_from) {
        Some(need) => refused(need.sentence()),
        None => Ok(()),
    }
}

/// Waits for the end, telling each step and how much of the data is there. What a step waits for is told; if
/// the server goes away, that is said.
async fn follow(catalog: &dyn Catalog, cluster: &Cluster, queued: &Snapshot) -> Result<Snapshot, CliError> {
    let mut told = None;
    let mut trouble = None;
    loop {
        let found = catalog.snapshot(cluster.id, queued.id).await?;
        let snapshot = found.ok_or_else(|| CliError::Failed("the snapshot was deleted meanwhile".into()))?;
        let progress = progress(&snapshot);
        if snapshot.state != State::Queued && told.as_ref() != Some(&progress) {
            eprintln!("{progress}");
            told = Some(progress);
        }
        if snapshot.trouble != trouble {
            trouble = snapshot.trouble.clone();
            trouble.iter().for_each(|trouble| eprintln!("{trouble}"));
        }
        if snapshot.state.ended() {
            return Ok(snapshot);
        }
        if !is_served(catalog, cluster).await? {
            return Err(CliError::Failed(format!(
                "the server has stopped before snapshot {} was complete: start `stillpoint serve` again, it goes on \
                 with it",
                queued.id
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A line that tells how far it is.
fn progress(snapshot: &Snapshot) -> String {
    let step = match snapshot.state {
        State::Queued => "waiting for the server",
        State::Reading => "reading the cluster",
        State::Folding => "following the stored oplogs to the snapshot's time",
        State::Completed => "completed",
        State::Failed => "failed",
    };
    match Read::of(snapshot) {
        Read { documents: 0, .. } => step.into(),
        Read { documents, bytes, .. } => format!("{step}; {documents} documents, {}", size(bytes)),
    }
}

/// What there is of a snapshot.
struct Read {
    documents: u64,
    bytes: u64,
    stored: u64,
}

impl Read {
    fn of(snapshot: &Snapshot) -> Read {
        let newest = || snapshot.parts.iter().filter_map(newest);
        let stored = snapshot.parts.iter().flat_map(|part| [part.read, part.data]).flatten();
        Read {
            documents: newest().map(|data| data.documents).sum(),
            bytes: newest().map(|data| data.bytes).sum(),
            stored: stored.map(|data| data.stored).sum(),
        }
    }
}

/// What there is of a part.
fn newest(part: &Part) -> Option<Data> {
    part.data.or(part.read)
}

fn kept_until(snapshot: &Snapshot) -> String {
    match (snapshot.do_not_delete, snapshot.expires) {
        (true, _) => "you say otherwise".into(),
        (false, Some(expires)) => expires.to_string(),
        (false, None) => "-".into(),
    }
}

fn document(config: &Config, project: &Project, cluster: &Cluster, snapshot: &Snapshot) -> Value {
    let place = Place::new(&config.base_url(), &ATLAS_V1, project.id, cluster.id, &cluster.name);
    snapshot_document(&SnapshotView { place: &place, cluster_name: &cluster.name, snapshot })
}

fn print(config: &Config, output: &Output, project: &Project, cluster: &Cluster, snapshot: &Snapshot) {
    output.print(&document(config, project, cluster, snapshot), || {
        let or_none = |text: Option<String>| text.unwrap_or("-".into());
        let mut rows = vec![
            vec!["snapshot".into(), snapshot.id.to_string()],
            vec!["state".into(), snapshot.state.name().into()],
            vec!["requested".into(), snapshot.requested.to_string()],
            vec!["ended".into(), or_none(snapshot.ended.map(|time| time.to_string()))],
            vec!["as of".into(), cut(snapshot.cut)],
            vec!["goes on from".into(), or_none(snapshot.base.map(|base| base.to_string()))],
            vec!["kept until".into(), kept_until(snapshot)],
        ];
        rows.extend(snapshot.failure.iter().map(|failure| vec!["failure".into(), failure.clone()]));
        rows.extend(snapshot.damage.iter().map(|damage| vec!["damaged".into(), damage.clone()]));
        rows.extend(snapshot.trouble.iter().map(|trouble| vec!["trouble".into(), trouble.clone()]));
        let number = |of: Option<u64>| or_none(of.map(|number| number.to_string()));
        let part = |part: &Part| {
            let data = newest(part);
            let stored = [part.read, part.data].into_iter().flatten().map(|data| data.stored).sum();
            vec![
                part.id.to_string(),
                part.replica_set.clone(),
                number(data.map(|data| data.collections)),
                number(data.map(|data| data.documents)),
                or_none(data.map(|data| size(data.bytes))),
                or_none(data.map(|_| size(stored))),
            ]
        };
        let parts: Vec<_> = snapshot.parts.iter().map(part).collect();
        let head = ["PART", "REPLICA SET", "COLLECTIONS", "DOCUMENTS", "SIZE", "STORED"];
        format!("{}\n\n{}", table(&["", ""], &rows).trim_start(), table(&head, &parts))
    });
}
