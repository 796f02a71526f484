//! `stillpoint cluster`

use std::sync::Arc;

use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, Cluster};
use stillpoint_core::ClusterId;
use stillpoint_core::checkpoint::PartId;
use stillpoint_mongo::doctor::{Level, examine};
use stillpoint_mongo::{ClusterLink, PartLink};

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
        ClusterCommand::Remove { of, name } => {
            let catalog = open_catalog(config)?;
            let project = context::project(&*catalog, &of.project).await?;
            let cluster = context::cluster(&*catalog, &project, &name).await?;
            catalog.remove_cluster(cluster.id, now()).await?;
            audited(&*catalog, format!("cluster remove {}", cluster.id)).await;
            output.print(&document(&cluster), || format!("forgot {name}; the cluster itself was not touched"));
            Ok(())
        }
    }
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
