//! Which catalog it is; streams, the gaps in them, and how their capture stands.

use super::*;
use stillpoint_catalog::CatalogError;
use stillpoint_core::VaultId;
use stillpoint_core::stream::{CaptureReport, GapCause, OpenTransaction};

pub fn stream(cluster: &Cluster, part: &PartId) -> Stream {
    Stream {
        cluster: cluster.id,
        part: part.clone(),
        replica_set: "rs0".into(),
        from: time(0),
        complete_from: time(5),
        since: time(5),
        began: at(0),
        ended: None,
        unresolved: None,
        kept_from: None,
    }
}

pub fn gap(part: &PartId, after: i64, until: i64) -> Gap {
    Gap {
        part: part.clone(),
        after: time(after),
        until: time(until),
        cause: GapCause::RolledOver,
        found: at(until),
        detail: "its oldest entry was newer".into(),
    }
}

pub fn report(second: i64) -> CaptureReport {
    CaptureReport {
        at: at(second),
        stored: Some(time(second - 2)),
        majority: Some(time(second)),
        oldest: None,
        behind_bytes: Some(4_096),
        trouble: Some((at(second - 1), "the vault does not answer".into())),
        halted: false,
    }
}

pub async fn a_catalog_has_an_id_of_its_own(catalog: &dyn Catalog) {
    let id = catalog.id().await.unwrap();
    assert_eq!(catalog.id().await.unwrap(), id);
    assert_eq!(id.to_string().len(), 24);
}

pub async fn a_catalog_is_bound_to_the_first_vault(catalog: &dyn Catalog) {
    let [first, second] = [1, 2].map(|n| VaultId::new(at(0), n));
    assert_eq!(catalog.vault().await.unwrap(), None);
    catalog.bind_vault(first).await.unwrap();
    catalog.bind_vault(first).await.unwrap();
    let refused = catalog.bind_vault(second).await;
    assert!(
        matches!(refused, Err(CatalogError::AnotherVault { bound, found }) if (bound, found) == (first, second)),
        "{refused:?}"
    );
    assert_eq!(catalog.vault().await.unwrap(), Some(first));
}

pub async fn streams_read_back_by_part_with_the_gap_before_them(catalog: &dyn Catalog) {
    let (project, cluster) = with_cluster(catalog).await;
    let other = super::cluster(&project, "other", 2);
    catalog.add_cluster(&other).await.unwrap();
    let lease = claim(catalog, &cluster, "a", 0).await;
    let parts = [PartId::ConfigServers, PartId::Shard("a/b c".into()), PartId::Shard("rs0".into())];
    for part in parts.iter().rev() {
        assert_eq!(catalog.stream(cluster.id, part).await.unwrap(), None);
        catalog.begin_stream(&lease, &stream(&cluster, part), None).await.unwrap();
    }
    let expected = parts.clone().map(|part| stream(&cluster, &part));
    assert_eq!(catalog.streams(cluster.id).await.unwrap(), expected);
    assert_eq!(catalog.gaps(cluster.id).await.unwrap(), []);

    let anew = Stream { from: time(20), complete_from: time(21), began: at(30), ..expected[1].clone() };
    let before = gap(&parts[1], 10, 20);
    catalog.begin_stream(&lease, &anew, Some(&before)).await.unwrap();
    assert_eq!(catalog.stream(cluster.id, &parts[1]).await.unwrap(), Some(anew));
    assert_eq!(catalog.gaps(cluster.id).await.unwrap(), [before]);
    assert_eq!(catalog.streams(other.id).await.unwrap(), []);
    assert_eq!(catalog.stream(other.id, &parts[1]).await.unwrap(), None);
    assert_eq!(catalog.gaps(other.id).await.unwrap(), []);

    let wrong = catalog.begin_stream(&lease, &expected[0], Some(&gap(&parts[1], 30, 40))).await;
    assert!(matches!(wrong, Err(CatalogError::BrokenRule(_))), "{wrong:?}");
}

pub async fn a_stream_ends_once_until_it_begins_anew(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    catalog.end_stream(&lease, &part, at(50)).await.unwrap();
    let ended = Stream { ended: Some(at(50)), ..stream(&cluster, &part) };
    assert_eq!(catalog.stream(cluster.id, &part).await.unwrap().as_ref(), Some(&ended));
    catalog.end_stream(&lease, &part, at(60)).await.unwrap();
    assert_eq!(catalog.stream(cluster.id, &part).await.unwrap(), Some(ended));
    catalog.begin_stream(&lease, &stream(&cluster, &part), None).await.unwrap();
    assert_eq!(catalog.stream(cluster.id, &part).await.unwrap(), Some(stream(&cluster, &part)));
    let refused = catalog.end_stream(&lease, &PartId::ConfigServers, at(50)).await;
    assert!(matches!(refused, Err(CatalogError::Gone("stream"))), "{refused:?}");
}

pub async fn what_is_unresolved_of_a_stream_follows_its_last_segment(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let config = PartId::ConfigServers;
    catalog.begin_stream(&lease, &stream(&cluster, &config), None).await.unwrap();
    let unresolved = || async { catalog.stream(cluster.id, &part).await.unwrap().unwrap().unresolved };
    let mut run = run_of(&cluster, &part, None, 0..5);
    let begun = OpenTransaction { prepared: None, ..open_transaction(1) };
    run[1].open = vec![begun.clone()];
    run[2].open = vec![begun, open_transaction(25), open_transaction(21)];
    run[3].open = vec![open_transaction(25)];
    for (segment, expected) in run.iter().zip([None, None, Some(time(21)), Some(time(25)), None]) {
        let version = catalog.version().unwrap();
        let before = unresolved().await;
        append(catalog, &lease, std::slice::from_ref(segment)).await;
        assert_eq!(unresolved().await, expected);
        // Replies are made of it.
        assert!(version.is_none() || (version != catalog.version().unwrap()) == (before != expected));
    }
    let expected = [stream(&cluster, &config), stream(&cluster, &part)];
    assert_eq!(catalog.streams(cluster.id).await.unwrap(), expected, "nothing else of it changed");
}

pub async fn a_shard_that_is_back_gives_its_gap_an_end(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let away = Gap { until: ClusterTime::MAX, cause: GapCause::ShardAway, ..gap(&part, 10, 20) };
    let lost = Gap { cause: GapCause::SegmentMissing, ..away.clone() };
    let elsewhere = Gap { part: PartId::ConfigServers, ..away.clone() };
    let lost = Gap { after: time(9), ..lost };
    for gap in [&away, &lost, &elsewhere] {
        catalog.add_gap(cluster.id, gap).await.unwrap();
    }
    let ended = Gap { until: time(20), ..away };
    catalog.begin_stream(&lease, &stream(&cluster, &part), Some(&ended)).await.unwrap();
    assert_eq!(catalog.gaps(cluster.id).await.unwrap(), [elsewhere, lost, ended]);
}

pub async fn gaps_are_in_order_and_replaced_and_removed(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let (config, shard) = (PartId::ConfigServers, PartId::Shard("rs0".into()));
    let [first, second, third] = [gap(&config, 70, 80), gap(&shard, 9, 20), gap(&shard, 100, 101)];
    for gap in [&third, &second, &first] {
        catalog.add_gap(cluster.id, gap).await.unwrap();
    }
    assert_eq!(catalog.gaps(cluster.id).await.unwrap(), [first.clone(), second.clone(), third.clone()]);
    let known = Gap { cause: GapCause::SegmentDamaged, found: at(200), ..second };
    catalog.add_gap(cluster.id, &known).await.unwrap();
    assert_eq!(catalog.gaps(cluster.id).await.unwrap(), [first.clone(), known.clone(), third.clone()]);

    catalog.remove_gap(cluster.id, &shard, known.after, known.until).await.unwrap();
    catalog.remove_gap(cluster.id, &shard, known.after, known.until).await.unwrap();
    catalog.remove_gap(cluster.id, &config, third.after, third.until).await.unwrap();
    catalog.remove_gap(cluster.id, &shard, third.after, time(102)).await.unwrap();
    assert_eq!(catalog.gaps(cluster.id).await.unwrap(), [first.clone(), third]);

    let nowhere = ClusterId::new(at(9), 9);
    let refused = catalog.add_gap(nowhere, &first).await;
    assert!(matches!(refused, Err(CatalogError::Gone("cluster"))), "{refused:?}");
}

pub async fn of_reports_on_capture_the_last_of_each_part_counts(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let (config, shard) = (PartId::ConfigServers, PartId::Shard("a/b c".into()));
    for (part, second) in [(&shard, 10), (&config, 11), (&shard, 12)] {
        catalog.report_capture(cluster.id, part, &report(second)).await.unwrap();
    }
    let expected = [(config.clone(), report(11)), (shard, report(12))];
    assert_eq!(catalog.capture_reports(cluster.id).await.unwrap(), expected);
    let nowhere = ClusterId::new(at(9), 9);
    let refused = catalog.report_capture(nowhere, &config, &report(1)).await;
    assert!(matches!(refused, Err(CatalogError::Gone("cluster"))), "{refused:?}");
    assert_eq!(catalog.capture_reports(nowhere).await.unwrap(), []);
}

pub async fn the_version_counts_streams_and_gaps_but_not_what_grows_all_the_time(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let part = PartId::Shard("rs0".into());
    let lease = claim(catalog, &cluster, "a", 0).await;
    let Some(mut before) = catalog.version().unwrap() else { return };
    let mut changes = || {
        let now = catalog.version().unwrap().unwrap();
        std::mem::replace(&mut before, now) != now
    };
    catalog.begin_stream(&lease, &stream(&cluster, &part), None).await.unwrap();
    assert!(changes(), "a stream");
    catalog.add_gap(cluster.id, &gap(&part, 1, 2)).await.unwrap();
    assert!(changes(), "a gap");
    catalog.remove_gap(cluster.id, &part, time(1), time(2)).await.unwrap();
    assert!(changes(), "no gap");
    append(catalog, &lease, &run_of(&cluster, &part, None, 0..5)).await;
    catalog.report_capture(cluster.id, &part, &report(10)).await.unwrap();
    catalog.doom(&["oplog/orphan".to_owned()], at(60)).await.unwrap();
    catalog.forget_doomed(&catalog.doomed(at(100), 9).await.unwrap()).await.unwrap();
    assert!(!changes(), "segments, reports, doomed blobs");
    assert_eq!(catalog.drop_segments(&lease, &part, OpTime::new(time(20), 1), at(60)).await.unwrap(), 2);
    assert!(changes(), "what is given up");
    catalog.end_stream(&lease, &part, at(50)).await.unwrap();
    assert!(changes(), "the end of a stream");
}
