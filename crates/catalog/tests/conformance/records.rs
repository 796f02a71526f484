//! Organisations, projects, clusters and their schedules.

use super::*;
use secrecy::ExposeSecret;
use std::time::Duration;
use stillpoint_catalog::{AuditEntry, CatalogError, Page};
use stillpoint_core::schedule::{Schedule, Setting};

pub async fn projects_read_back_by_id_name_and_list(catalog: &dyn Catalog) {
    assert_eq!(catalog.projects().await.unwrap(), []);
    let (one, two) = (project(catalog, 1).await, project(catalog, 2).await);
    catalog.create_project(&two).await.unwrap();
    catalog.create_project(&one).await.unwrap();
    assert_eq!(catalog.project(one.id).await.unwrap().as_ref(), Some(&one));
    assert_eq!(catalog.project_named(&two.name).await.unwrap().as_ref(), Some(&two));
    assert_eq!(catalog.projects().await.unwrap(), [one, two], "by name");
    assert_eq!(catalog.project(project(catalog, 3).await.id).await.unwrap(), None);
    assert_eq!(catalog.project_named("PROJECT-1").await.unwrap(), None, "names are told apart by case");
}

pub async fn a_project_name_is_taken_once(catalog: &dyn Catalog) {
    let first = project(catalog, 1).await;
    catalog.create_project(&first).await.unwrap();
    let second = Project { name: first.name.clone(), ..project(catalog, 2).await };
    let refused = catalog.create_project(&second).await;
    assert!(
        matches!(&refused, Err(CatalogError::Duplicate { kind: "project", name }) if *name == first.name),
        "{refused:?}"
    );
    assert_eq!(catalog.projects().await.unwrap(), [first]);
}

pub async fn an_organisation_is_there_from_the_beginning_and_names_are_taken_once(catalog: &dyn Catalog) {
    let first = organization(catalog).await;
    assert_eq!(catalog.organizations().await.unwrap(), std::slice::from_ref(&first));
    let named = |name: &str| Organization { id: OrganizationId::new(at(1), 1), name: name.into(), created: at(1) };
    let refused = catalog.create_organization(&named(&first.name)).await;
    assert!(matches!(&refused, Err(CatalogError::Duplicate { kind: "organisation", .. })), "{refused:?}");
    catalog.create_organization(&named("another")).await.unwrap();
    assert_eq!(catalog.organizations().await.unwrap(), [named("another"), first], "by name");
}

pub async fn a_project_of_no_organisation_is_refused(catalog: &dyn Catalog) {
    let project = Project { organization: OrganizationId::new(at(9), 9), ..project(catalog, 1).await };
    let refused = catalog.create_project(&project).await;
    assert!(matches!(refused, Err(CatalogError::Gone("organisation"))), "{refused:?}");
    assert_eq!(catalog.projects().await.unwrap(), []);
}

pub async fn a_schedule_is_the_default_until_it_is_changed(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    assert_eq!(catalog.schedule(cluster.id).await.unwrap(), Schedule::default());
    let changes = [(Setting::ClusterCheckpointIntervalMin, 30), (Setting::SnapshotIntervalHours, 12)];
    let changed = catalog.change_schedule(cluster.id, &changes).await.unwrap();
    let expected =
        Schedule { cluster_checkpoint_interval_min: Some(30), snapshot_interval_hours: 12, ..Schedule::default() };
    assert_eq!(changed, expected);
    let again = catalog.change_schedule(cluster.id, &[(Setting::SnapshotRetentionDays, 5)]).await.unwrap();
    assert_eq!(again, Schedule { snapshot_retention_days: 5, ..expected });
    assert_eq!(catalog.schedule(cluster.id).await.unwrap(), again);

    catalog.remove_cluster(cluster.id, at(9)).await.unwrap();
    let refused = catalog.change_schedule(cluster.id, &changes).await;
    assert!(matches!(refused, Err(CatalogError::Gone("cluster"))), "{refused:?}");
}

pub async fn clusters_read_back_with_everything_in_them(catalog: &dyn Catalog) {
    let (one, two) = (with_project(catalog, 1).await, with_project(catalog, 2).await);
    let (b, a, other) = (cluster(&one, "b", 1), cluster(&one, "a", 2), cluster(&two, "c", 3));
    for cluster in [&b, &a, &other] {
        catalog.add_cluster(cluster).await.unwrap();
    }
    assert!(catalog.cluster(b.id).await.unwrap().unwrap().uri.expose_secret().contains(PASSWORD));
    assert_eq!(catalog.cluster(b.id).await.unwrap().as_ref(), Some(&b));
    assert_eq!(catalog.cluster_named(one.id, "a").await.unwrap().as_ref(), Some(&a));
    assert_eq!(catalog.cluster_named(two.id, "a").await.unwrap(), None, "names belong to projects");
    assert_eq!(catalog.clusters(Some(one.id)).await.unwrap(), [a.clone(), b.clone()], "by name");
    assert_eq!(catalog.count_clusters(one.id).await.unwrap(), 2);
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

    let other = with_project(catalog, 2).await;
    catalog.add_cluster(&cluster(&other, &kept.name, 2)).await.unwrap();
}

pub async fn a_cluster_is_kept_once_whatever_its_name(catalog: &dyn Catalog) {
    let (mine, kept) = with_cluster(catalog).await;
    let other = with_project(catalog, 2).await;
    for project in [&mine, &other] {
        let again = Cluster { identity: kept.identity.clone(), ..cluster(project, "by-another-name", 2) };
        let refused = catalog.add_cluster(&again).await;
        assert!(matches!(&refused, Err(CatalogError::SameCluster(name)) if *name == kept.name), "{refused:?}");
    }
    assert_eq!(catalog.clusters(None).await.unwrap(), [kept]);
}

pub async fn a_cluster_of_no_project_is_refused(catalog: &dyn Catalog) {
    let refused = catalog.add_cluster(&cluster(&project(catalog, 9).await, "Cluster0", 1)).await;
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
    catalog.remove_cluster(gone.id, at(9)).await.unwrap();
    assert_eq!(catalog.cluster(gone.id).await.unwrap(), None);
    assert_eq!(catalog.count_checkpoints(gone.id).await.unwrap(), 0);
    assert_eq!(catalog.lease(gone.id).await.unwrap(), None);
    assert!(matches!(catalog.remove_cluster(gone.id, at(9)).await, Err(CatalogError::Gone("cluster"))));

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
        assert!(matches!(catalog.remove_cluster(cluster.id, at(9)).await, Err(CatalogError::InUse(_))));
        assert_eq!(catalog.checkpoint(cluster.id, unfinished.id).await.unwrap(), Some(unfinished));
    }
    catalog.save_checkpoint(&lease, &completed(&cluster, 1)).await.unwrap();
    catalog.remove_cluster(cluster.id, at(9)).await.unwrap();
}

pub async fn the_version_stands_while_nothing_changes_that_is_replied(catalog: &dyn Catalog) {
    let (project, cluster) = with_cluster(catalog).await;
    // One that has none is read anew each time.
    let Some(before) = catalog.version().unwrap() else { return };
    let lease = catalog.claim_lease(cluster.id, "server", at(0), Duration::from_secs(60)).await.unwrap().unwrap();
    catalog.renew_lease(&lease, at(1), Duration::from_secs(60)).await.unwrap();
    catalog.append_audit(&[AuditEntry::done(at(1), "x".into())]).await.unwrap();
    catalog.trim_audit(at(9), 0).await.unwrap();
    assert_eq!(catalog.version().unwrap(), Some(before));

    let mut seen = vec![before];
    let mut changed = |what: &str| {
        let version = catalog.version().unwrap().unwrap();
        assert!(!seen.contains(&version), "{what}");
        seen.push(version);
    };
    let key = key(&project, "abcdefgh", 1);
    catalog.create_credential(&key).await.unwrap();
    changed("a key");
    catalog.grant(key.id, project.id, Some(Role::GroupReadOnly)).await.unwrap();
    changed("a role");
    catalog.rotate_credential(key.id, &"another".into()).await.unwrap();
    changed("another secret");
    catalog.delete_credential(key.id).await.unwrap();
    changed("no key");
    catalog.change_schedule(cluster.id, &[(Setting::SnapshotIntervalHours, 12)]).await.unwrap();
    changed("a schedule");
    catalog.queue_checkpoint(&queued(&cluster, 1)).await.unwrap();
    changed("a checkpoint");
    catalog.save_checkpoint(&lease, &started(&cluster, 1)).await.unwrap();
    changed("its progress");
}
