//! Who may work on a cluster.

use super::*;
use std::time::Duration;
use stillpoint_catalog::{CatalogError, Lease};

const TTL: Duration = Duration::from_secs(10);

async fn claim(catalog: &dyn Catalog, cluster: &Cluster, holder: &str, second: i64) -> Option<Lease> {
    catalog.claim_lease(cluster.id, holder, at(second), TTL).await.unwrap()
}

pub async fn a_lease_is_given_to_one_holder_at_a_time(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    assert_eq!(catalog.lease(cluster.id).await.unwrap(), None);
    let first = claim(catalog, &cluster, "a", 0).await.unwrap();
    assert_eq!((first.holder.as_str(), first.cluster), ("a", cluster.id));
    assert_eq!(claim(catalog, &cluster, "b", 9).await, None);
    let state = catalog.lease(cluster.id).await.unwrap().unwrap();
    assert_eq!((state.lease, state.until), (first.clone(), at(10)), "a refused claim changes nothing");

    catalog.release_lease(&first).await.unwrap();
    let state = catalog.lease(cluster.id).await.unwrap();
    assert!(state.is_none_or(|state| state.until <= at(0)));
    let second = claim(catalog, &cluster, "b", 9).await.unwrap();
    assert!(second.epoch > first.epoch);
}

pub async fn a_lease_that_ran_out_goes_to_whoever_asks(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let first = claim(catalog, &cluster, "a", 0).await.unwrap();
    let second = claim(catalog, &cluster, "b", 10).await.unwrap();
    assert!(second.epoch > first.epoch && second.holder == "b");
    assert_eq!(claim(catalog, &cluster, "a", 19).await, None);
}

pub async fn a_renewed_lease_lasts_from_then_on(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let lease = claim(catalog, &cluster, "a", 0).await.unwrap();
    catalog.renew_lease(&lease, at(8), TTL).await.unwrap();
    assert_eq!(claim(catalog, &cluster, "b", 17).await, None);
    let state = catalog.lease(cluster.id).await.unwrap().unwrap();
    assert_eq!((state.lease, state.until), (lease.clone(), at(18)), "the epoch stays");
    // Late, but nobody came in between.
    catalog.renew_lease(&lease, at(30), TTL).await.unwrap();
    assert_eq!(claim(catalog, &cluster, "b", 39).await, None);
}

pub async fn an_earlier_lease_can_neither_renew_nor_release(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let first = claim(catalog, &cluster, "a", 0).await.unwrap();
    assert!(matches!(
        catalog.renew_lease(&Lease { holder: "b".into(), ..first.clone() }, at(1), TTL).await,
        Err(CatalogError::Fenced)
    ));
    let second = claim(catalog, &cluster, "b", 10).await.unwrap();
    assert!(matches!(catalog.renew_lease(&first, at(11), TTL).await, Err(CatalogError::Fenced)));
    catalog.release_lease(&first).await.unwrap();
    let state = catalog.lease(cluster.id).await.unwrap().unwrap();
    assert_eq!((state.lease, state.until), (second, at(20)));

    // The same holder, started anew under the same name, fences itself off too.
    let third = claim(catalog, &cluster, "a", 20).await.unwrap();
    let fourth = claim(catalog, &cluster, "a", 21).await.unwrap();
    assert!(matches!(catalog.renew_lease(&third, at(22), TTL).await, Err(CatalogError::Fenced)));
    catalog.release_lease(&third).await.unwrap();
    assert_eq!(catalog.lease(cluster.id).await.unwrap().unwrap().lease, fourth);
}

pub async fn epochs_only_grow(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let mut last = 0;
    for round in 0..12 {
        let holder = ["a", "b", "a"][round % 3];
        let now = round as i64 * 20;
        let lease = claim(catalog, &cluster, holder, now).await.unwrap();
        assert!(lease.epoch > last, "round {round}");
        last = lease.epoch;
        match round % 3 {
            0 => catalog.release_lease(&lease).await.unwrap(),
            1 => catalog.renew_lease(&lease, at(now), TTL).await.unwrap(),
            // Runs out.
            _ => {}
        }
    }
}

pub async fn a_lease_of_no_cluster_is_refused(catalog: &dyn Catalog) {
    let cluster = cluster(&project(catalog, 1).await, "Cluster0", 1);
    let refused = catalog.claim_lease(cluster.id, "a", at(0), TTL).await;
    assert!(matches!(refused, Err(CatalogError::Gone("cluster"))), "{refused:?}");
    let lease = Lease { cluster: cluster.id, holder: "a".into(), epoch: 1 };
    assert!(matches!(catalog.renew_lease(&lease, at(0), TTL).await, Err(CatalogError::Fenced)));
    catalog.release_lease(&lease).await.unwrap();
    assert_eq!(catalog.lease(cluster.id).await.unwrap(), None);
}

pub async fn leases_of_clusters_do_not_meet(catalog: &dyn Catalog) {
    let (project, one) = with_cluster(catalog).await;
    let two = cluster(&project, "two", 2);
    catalog.add_cluster(&two).await.unwrap();
    let of_one = claim(catalog, &one, "a", 0).await.unwrap();
    let of_two = claim(catalog, &two, "b", 0).await.unwrap();
    catalog.release_lease(&of_one).await.unwrap();
    let state = catalog.lease(two.id).await.unwrap().unwrap();
    assert_eq!((state.lease, state.until), (of_two, at(10)));
}
