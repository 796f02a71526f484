//! Projects, keys and clusters.

use super::*;
use secrecy::ExposeSecret;
use std::time::Duration;
use stillpoint_catalog::{CatalogError, Page};

pub async fn projects_read_back_by_id_name_and_list(catalog: &dyn Catalog) {
    assert_eq!(catalog.projects().await.unwrap(), []);
    let (one, two) = (project(1), project(2));
    catalog.create_project(&two).await.unwrap();
    catalog.create_project(&one).await.unwrap();
    assert_eq!(catalog.project(one.id).await.unwrap().as_ref(), Some(&one));
    assert_eq!(catalog.project_named(&two.name).await.unwrap().as_ref(), Some(&two));
    assert_eq!(catalog.projects().await.unwrap(), [one, two], "by name");
    assert_eq!(catalog.project(project(3).id).await.unwrap(), None);
    assert_eq!(catalog.project_named("PROJECT-1").await.unwrap(), None, "names are told apart by case");
}

pub async fn a_project_name_is_taken_once(catalog: &dyn Catalog) {
    let first = project(1);
    catalog.create_project(&first).await.unwrap();
    let second = Project { name: first.name.clone(), ..project(2) };
    let refused = catalog.create_project(&second).await;
    assert!(
        matches!(&refused, Err(CatalogError::Duplicate { kind: "project", name }) if *name == first.name),
        "{refused:?}"
    );
    assert_eq!(catalog.projects().await.unwrap(), [first]);
}

pub async fn keys_read_back_with_everything_in_them(catalog: &dyn Catalog) {
    let project = project(1);
    catalog.create_project(&project).await.unwrap();
    let owner = key(&project, "zzowneraa", 1);
    let reader = ApiKey { role: Role::GroupReadOnly, access_list: vec![], ..key(&project, "aareader", 2) };
    catalog.create_key(&owner).await.unwrap();
    catalog.create_key(&reader).await.unwrap();
    let found = catalog.key("zzowneraa").await.unwrap().unwrap();
    assert_eq!(found, owner);
    assert_eq!(found.ha1.expose_secret(), HA1);
    assert_eq!(catalog.keys(project.id).await.unwrap(), [owner, reader], "by creation");
    assert_eq!(catalog.key("ZZOWNERAA").await.unwrap(), None);
}

pub async fn a_key_is_one_projects_and_its_public_part_unique(catalog: &dyn Catalog) {
    let (mine, other) = (project(1), project(2));
    for project in [&mine, &other] {
        catalog.create_project(project).await.unwrap();
    }
    let kept = key(&mine, "abcdefgh", 1);
    catalog.create_key(&kept).await.unwrap();
    let refused = catalog.create_key(&key(&other, "abcdefgh", 2)).await;
    assert!(matches!(refused, Err(CatalogError::Duplicate { kind: "key", .. })), "{refused:?}");
    assert_eq!(catalog.keys(other.id).await.unwrap(), []);

    assert!(!catalog.delete_key(other.id, "abcdefgh").await.unwrap(), "another project cannot delete it");
    assert_eq!(catalog.key("abcdefgh").await.unwrap(), Some(kept));
    assert!(catalog.delete_key(mine.id, "abcdefgh").await.unwrap());
    assert!(!catalog.delete_key(mine.id, "abcdefgh").await.unwrap());
    assert_eq!(catalog.key("abcdefgh").await.unwrap(), None);
}

pub async fn a_key_of_no_project_is_refused(catalog: &dyn Catalog) {
    let refused = catalog.create_key(&key(&project(9), "abcdefgh", 1)).await;
    assert!(matches!(refused, Err(CatalogError::Gone("project"))), "{refused:?}");
    assert_eq!(catalog.key("abcdefgh").await.unwrap(), None);
}

pub async fn clusters_read_back_with_everything_in_them(catalog: &dyn Catalog) {
    let (one, two) = (project(1), project(2));
    for project in [&one, &two] {
        catalog.create_project(project).await.unwrap();
    }
    let (b, a, other) = (cluster(&one, "b", 1), cluster(&one, "a", 2), cluster(&two, "c", 3));
    for cluster in [&b, &a, &other] {
        catalog.add_cluster(cluster).await.unwrap();
    }
    assert!(catalog.cluster(b.id).await.unwrap().unwrap().uri.expose_secret().contains(PASSWORD));
    assert_eq!(catalog.cluster(b.id).await.unwrap().as_ref(), Some(&b));
    assert_eq!(catalog.cluster_named(one.id, "a").await.unwrap().as_ref(), Some(&a));
    assert_eq!(catalog.cluster_named(two.id, "a").await.unwrap(), None, "names belong to projects");
    assert_eq!(catalog.clusters(Some(one.id)).await.unwrap(), [a.clone(), b.clone()], "by name");
    assert_eq!(catalog.clusters(None).await.unwrap(), [a, b, other]);
}

pub async fn a_cluster_name_is_taken_once_in_a_project(catalog: &dyn Catalog) {
    let (project, kept) = with_cluster(catalog).await;
    let refused = catalog.add_cluster(&cluster(&project, &kept.name, 2)).await;
    assert!(
        matches!(&refused, Err(CatalogError::Duplicate { kind: "cluster", name }) if *name == kept.name),
        "{refused:?}"
    );
    assert_eq!(catalog.clusters(None).await.unwrap(), std::slice::from_ref(&kept));

    let other = super::project(2);
    catalog.create_project(&other).await.unwrap();
    catalog.add_cluster(&cluster(&other, &kept.name, 2)).await.unwrap();
}

pub async fn a_cluster_is_kept_once_whatever_its_name(catalog: &dyn Catalog) {
    let (mine, kept) = with_cluster(catalog).await;
    let other = project(2);
    catalog.create_project(&other).await.unwrap();
    for project in [&mine, &other] {
        let again = Cluster { identity: kept.identity.clone(), ..cluster(project, "by-another-name", 2) };
        let refused = catalog.add_cluster(&again).await;
        assert!(matches!(&refused, Err(CatalogError::SameCluster(name)) if *name == kept.name), "{refused:?}");
    }
    assert_eq!(catalog.clusters(None).await.unwrap(), [kept]);
}

pub async fn a_cluster_of_no_project_is_refused(catalog: &dyn Catalog) {
    let refused = catalog.add_cluster(&cluster(&project(9), "Cluster0", 1)).await;
    assert!(matches!(refused, Err(CatalogError::Gone("project"))), "{refused:?}");
    assert_eq!(catalog.clusters(None).await.unwrap(), []);
}

pub async fn removing_a_cluster_takes_its_checkpoints_and_lease_along(catalog: &dyn Catalog) {
    let (project, gone) = with_cluster(catalog).await;
    let stays = cluster(&project, "stays", 2);
    catalog.add_cluster(&stays).await.unwrap();
    for cluster in [&gone, &stays] {
        catalog.claim_lease(cluster.id, "server", at(0), Duration::from_secs(60)).await.unwrap().unwrap();
        catalog.queue_checkpoint(&completed(cluster, 1)).await.unwrap();
        catalog.queue_checkpoint(&failed(cluster, 2)).await.unwrap();
    }
    catalog.remove_cluster(gone.id).await.unwrap();
    assert_eq!(catalog.cluster(gone.id).await.unwrap(), None);
    assert_eq!(catalog.count_checkpoints(gone.id).await.unwrap(), 0);
    assert_eq!(catalog.lease(gone.id).await.unwrap(), None);
    assert!(matches!(catalog.remove_cluster(gone.id).await, Err(CatalogError::Gone("cluster"))));

    assert_eq!(catalog.clusters(None).await.unwrap(), std::slice::from_ref(&stays));
    assert_eq!(catalog.checkpoints(stays.id, Page { skip: 0, take: 9 }).await.unwrap().len(), 2);
    assert!(catalog.lease(stays.id).await.unwrap().is_some());

    // Its name and identity are free again.
    catalog.add_cluster(&gone).await.unwrap();
    assert_eq!(catalog.count_checkpoints(gone.id).await.unwrap(), 0);
}

pub async fn removing_a_cluster_waits_for_its_checkpoint(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let lease = catalog.claim_lease(cluster.id, "server", at(0), Duration::from_secs(60)).await.unwrap().unwrap();
    catalog.queue_checkpoint(&queued(&cluster, 1)).await.unwrap();
    for unfinished in [queued(&cluster, 1), started(&cluster, 1), holding(&cluster, 1)] {
        catalog.save_checkpoint(&lease, &unfinished).await.unwrap();
        assert!(matches!(catalog.remove_cluster(cluster.id).await, Err(CatalogError::InUse(_))));
        assert_eq!(catalog.checkpoint(cluster.id, unfinished.id).await.unwrap(), Some(unfinished));
    }
    catalog.save_checkpoint(&lease, &completed(&cluster, 1)).await.unwrap();
    catalog.remove_cluster(cluster.id).await.unwrap();
}
