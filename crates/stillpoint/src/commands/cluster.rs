//! `stillpoint cluster`

use std::sync::Arc;

use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, CatalogError, Cluster};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::Target;
use stillpoint_core::{ClusterId, SnapshotId};
use stillpoint_mongo::doctor::{Level, examine};
use stillpoint_mongo::{ClusterLink, PartLink};

use super::taken::{LOOK_EVERY, is_served};
use super::{check_name, doctor};
use crate::cli::{ClusterCommand, UriArgs};
use crate::config::Config;
use crate::context::{self, audited, chance, now, open_catalog};
use crate::error::CliError;
use crate::output::{Output, table};

pub async fn run(config: &Config, output: &Output, command: ClusterCommand) -> Result<(), CliError> {
    match command {
        ClusterCommand::Add { of, name, uri } => {
            check_name("cluster", &name)?;
            add(open_catalog(config)?, output, &of.project, name, &uri).await
        }
        ClusterCommand::List { of } => {
            let catalog = open_catalog(config)?;
            let project = context::project(&*catalog, &of.project).await?;
            let clusters = catalog.clusters(Some(project.id)).await?;
            let documents: Vec<_> = clusters.iter().map(document).collect();
            output.print(&documents.into(), || {
                let rows: Vec<_> = clusters.iter().map(|c| vec![c.id.to_string(), c.name.clone()]).collect();
                table(&["ID", "NAME"], &rows)
            });
            Ok(())
        }
        ClusterCommand::Show { of, name } => {
            let catalog = open_catalog(config)?;
            let project = context::project(&*catalog, &of.project).await?;
            let cluster = context::cluster(&*catalog, &project, &name).await?;
            let link = ClusterLink::connect(&cluster.uri).await?;
            let parts = link.parts().await?;
            show(output, &cluster, &parts);
            Ok(())
        }
        ClusterCommand::Remove { of, name, wait } => {
            let catalog = open_catalog(config)?;
            let project = context::project(&*catalog, &of.project).await?;
            let cluster = context::cluster(&*catalog, &project, &name).await?;
            let given_up = remove(&*catalog, &cluster, wait).await?;
            audited(&*catalog, format!("cluster remove {}", cluster.id)).await;
            output.print(&document(&cluster), || {
                let snapshot = given_up.map_or(String::new(), |id| {
                    format!("; snapshot {id}, which was under way, is given up, and what it stored goes with the rest")
                });
                format!("forgot {name}; the cluster itself was not touched{snapshot}")
            });
            Ok(())
        }
    }
}

/// So often nothing may be seen of what a cluster is said to be in use by.
const MOST_UNSEEN: u32 = 10;

/// Forgets a cluster, as soon as nothing is under way that must come to its end; the snapshot that is given up with
/// it, if one was under way.
async fn remove(catalog: &dyn Catalog, cluster: &Cluster, wait: bool) -> Result<Option<SnapshotId>, CliError> {
    let (mut told, mut unseen) = (None, 0);
    loop {
        let snapshot = catalog.unfinished_snapshot(cluster.id).await?.map(|snapshot| snapshot.id);
        match catalog.remove_cluster(cluster.id, now()).await {
            Err(CatalogError::InUse(_)) => {}
            done => return Ok(done.map(|()| snapshot)?),
        }
        let busy = busy(catalog, cluster).await?;
        // It may have ended just now; not again and again.
        unseen += u32::from(busy.is_none());
        if unseen > MOST_UNSEEN {
            return Err(CliError::Failed(format!("{} cannot be removed: something of it is under way", cluster.name)));
        }
        if let Some(busy) = busy {
            if !wait {
                return Err(CliError::Failed(format!(
                    "{} cannot be removed: {busy}; or wait with --wait",
                    cluster.name
                )));
            }
            if !is_served(catalog, cluster).await? {
                return Err(CliError::Failed(format!(
                    "{} cannot be removed: {busy}; no server goes on with it: start `stillpoint serve`",
                    cluster.name
                )));
            }
            if told.as_ref() != Some(&busy) {
                eprintln!("waiting: {busy}");
                told = Some(busy);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What of a cluster must come to its end before it can be forgotten: the balancer is to be put back, and what is
/// restored from it is needed.
async fn busy(catalog: &dyn Catalog, cluster: &Cluster) -> Result<Option<String>, CatalogError> {
    if let Some(checkpoint) = catalog.unfinished_checkpoint(cluster.id).await? {
        return Ok(Some(format!(
            "checkpoint {} of it is under way; `stillpoint status` says how far it is",
            checkpoint.id
        )));
    }
    if let Some(drill) = catalog.unfinished_drill(cluster.id).await? {
        return Ok(Some(format!(
            "drill {} of it is {}; `stillpoint drill show` says how far it is",
            drill.id, drill.state
        )));
    }
    for from in catalog.clusters(None).await? {
        let Some(restore) = catalog.unfinished_restore(from.id).await? else { continue };
        let how = match restore.target {
            _ if from.id == cluster.id => "from",
            Target::Cluster(id) if id == cluster.id => "into",
            _ => continue,
        };
        let Some(project) = catalog.project(from.project).await? else { continue };
        return Ok(Some(format!(
            "restore {id} {how} it is under way; `stillpoint restore-job cancel --project {} --cluster {} {id}` ends it",
            project.name,
            from.name,
            id = restore.id,
        )));
    }
    Ok(None)
}

/// Nothing is written before the cluster was found fit.
async fn add(
    catalog: Arc<dyn Catalog>,
    output: &Output,
    project: &str,
    name: String,
    uri: &UriArgs,
) -> Result<(), CliError> {
    let project = context::project(&*catalog, project).await?;
    if catalog.cluster_named(project.id, &name).await?.is_some() {
        return Err(stillpoint_catalog::CatalogError::Duplicate { kind: "cluster", name }.into());
    }
    let Some(uri) = context::uri(uri)? else {
        return Err(CliError::Usage(
            "name the config servers with --uri-file FILE, --uri URI, or --uri - for standard input".into(),
        ));
    };
    let findings = examine(&uri, now()).await;
    if findings.iter().any(|finding| finding.level == Level::Problem) {
        let problems: Vec<_> = findings.into_iter().filter(|finding| finding.level == Level::Problem).collect();
        return Err(CliError::Failed(format!("the cluster was not added:\n{}", doctor::text(&problems))));
    }
    for warning in findings.iter().filter(|finding| finding.level == Level::Warning) {
        eprintln!("{}", doctor::text(std::slice::from_ref(warning)));
    }
    let link = ClusterLink::connect(&uri).await?;
    let identity = link.identity().await?;
    let parts = link.parts().await?;
    let cluster =
        Cluster { id: ClusterId::new(now(), chance()), project: project.id, name, identity, uri, created: now() };
    catalog.add_cluster(&cluster).await?;
    audited(&*catalog, format!("cluster add {} in {}", cluster.id, project.id)).await;
    show(output, &cluster, &parts);
    Ok(())
}

fn document(cluster: &Cluster) -> Value {
    json!({"id": cluster.id, "name": cluster.name, "project": cluster.project, "created": cluster.created})
}

fn show(output: &Output, cluster: &Cluster, parts: &[PartLink]) {
    let type_name = |part: &PartLink| match part.id {
        PartId::Shard(_) => "REPLICA_SET",
        PartId::ConfigServers => "CONFIG_SERVER_REPLICA_SET",
    };
    let mut shown = document(cluster);
    let documents = parts.iter().map(|part| {
        let mut document = json!({"replicaSetName": part.replica_set, "typeName": type_name(part)});
        if let PartId::Shard(name) = &part.id {
            document["shardName"] = name.clone().into();
        }
        document
    });
    shown["parts"] = documents.collect::<Vec<_>>().into();
    output.print(&shown, || {
        let rows: Vec<_> = parts.iter().map(|part| vec![part.id.to_string(), part.replica_set.clone()]).collect();
        format!("{} {}\n\n{}", cluster.id, cluster.name, table(&["PART", "REPLICA SET"], &rows))
    });
}
