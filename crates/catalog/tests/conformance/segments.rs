//! Segments: exactly once, each after the one before it, and the tokens in them.

use super::*;
use std::ops::Range;
use std::time::Duration;
use stillpoint_catalog::{CatalogError, Lease, SegmentTotals};
use stillpoint_core::stream::{OpenTransaction, StoredToken};

/// So many seconds after noon.
pub fn time(second: i64) -> ClusterTime {
    ClusterTime::new((NOON + second) as u32, 1)
}

pub async fn claim(catalog: &dyn Catalog, cluster: &Cluster, holder: &str, second: i64) -> Lease {
    catalog.claim_lease(cluster.id, holder, at(second), Duration::from_secs(10)).await.unwrap().unwrap()
}

/// A cluster with a lease and a stream.
pub async fn with_stream(catalog: &dyn Catalog) -> (Cluster, Lease, PartId) {
    let (_, cluster) = with_cluster(catalog).await;
    let part = PartId::Shard("rs0".into());
    let lease = claim(catalog, &cluster, "a", 0).await;
    catalog.begin_stream(&lease, &stream(&cluster, &part), None).await.unwrap();
    (cluster, lease, part)
}

/// The `n`th segment, of ten seconds from second 10 `n` on.
pub fn segment(cluster: &Cluster, part: &PartId, previous: Option<&Segment>, n: i64) -> Segment {
    let mut blob = [7; 32];
    blob[..8].copy_from_slice(&n.to_be_bytes());
    Segment {
        cluster: cluster.id,
        part: part.clone(),
        blob: BlobId(blob),
        previous: previous.map(|previous| previous.blob),
        first: OpTime::new(time(10 * n), 1),
        last: OpTime::new(time(10 * n + 9), 1),
        entries: 10,
        bytes: 1_000 + n as u64,
        stored: 100,
        sealed: at(10 * n + 10),
        tokens: vec![],
        open: vec![],
    }
}

/// Consecutive segments after `previous`.
pub fn run_of(cluster: &Cluster, part: &PartId, previous: Option<&Segment>, numbers: Range<i64>) -> Vec<Segment> {
    let mut run: Vec<Segment> = Vec::new();
    for n in numbers {
        run.push(segment(cluster, part, run.last().or(previous), n));
    }
    run
}

pub async fn append(catalog: &dyn Catalog, lease: &Lease, segments: &[Segment]) {
    for segment in segments {
        catalog.append_segment(lease, segment).await.unwrap();
    }
}

pub async fn every_segment(catalog: &dyn Catalog, cluster: &Cluster, part: &PartId) -> Vec<Segment> {
    let (from, to) = (ClusterTime::new(0, 0), ClusterTime::new(u32::MAX, u32::MAX));
    catalog.segments(cluster.id, part, from, to, u64::MAX).await.unwrap()
}

fn totals_of(segments: &[Segment]) -> SegmentTotals {
    segments.iter().fold(SegmentTotals::default(), |sum, segment| SegmentTotals {
        segments: sum.segments + 1,
        entries: sum.entries + segment.entries,
        bytes: sum.bytes + segment.bytes,
        stored: sum.stored + segment.stored,
    })
}

/// That these are there and no others, and that the totals agree.
pub async fn assert_stored(catalog: &dyn Catalog, cluster: &Cluster, part: &PartId, segments: &[Segment]) {
    assert_eq!(every_segment(catalog, cluster, part).await, segments);
    assert_eq!(catalog.segment_totals(cluster.id, part).await.unwrap(), totals_of(segments));
}

async fn refused(catalog: &dyn Catalog, lease: &Lease, segment: &Segment) -> String {
    match catalog.append_segment(lease, segment).await {
        Err(error @ CatalogError::NotContiguous(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

pub async fn segments_are_added_each_after_the_one_before_it(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let config = PartId::ConfigServers;
    catalog.begin_stream(&lease, &stream(&cluster, &config), None).await.unwrap();
    assert_eq!(catalog.last_segment(cluster.id, &part).await.unwrap(), None);
    assert_stored(catalog, &cluster, &part, &[]).await;
    let run = run_of(&cluster, &part, None, 0..3);
    for segment in &run {
        catalog.append_segment(&lease, segment).await.unwrap();
        assert_eq!(catalog.last_segment(cluster.id, &part).await.unwrap().as_ref(), Some(segment));
    }
    append(catalog, &lease, &run_of(&cluster, &config, None, 2..3)).await;
    assert_stored(catalog, &cluster, &part, &run).await;
    assert_stored(catalog, &cluster, &config, &run_of(&cluster, &config, None, 2..3)).await;
}

pub async fn a_segment_that_does_not_follow_is_refused(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let run = run_of(&cluster, &part, None, 0..4);
    let text = refused(catalog, &lease, &run[1]).await;
    assert!(text.contains("shard rs0") && text.contains("the stream has just begun"), "{text}");
    append(catalog, &lease, &run[..2]).await;

    let next = &run[2];
    let text = refused(catalog, &lease, &run[3]).await;
    assert!(text.contains(&next.blob.to_string()) && text.contains(&run[1].blob.to_string()), "{text}");
    refused(catalog, &lease, &Segment { previous: None, ..next.clone() }).await;
    for first in [run[1].last, run[1].first, OpTime::new(run[1].last.time, 2)] {
        let text = refused(catalog, &lease, &Segment { first, ..next.clone() }).await;
        assert!(text.contains(&format!("it begins at {first}")), "{text}");
    }
    let text = refused(catalog, &lease, &Segment { last: OpTime::new(time(20), 0), ..next.clone() }).await;
    assert!(text.contains("is after its last"), "{text}");
    assert_stored(catalog, &cluster, &part, &run[..2]).await;
    append(catalog, &lease, &run[2..]).await;
    assert_stored(catalog, &cluster, &part, &run).await;

    let nowhere = segment(&cluster, &PartId::ConfigServers, None, 0);
    let gone = catalog.append_segment(&lease, &nowhere).await;
    assert!(matches!(gone, Err(CatalogError::Gone("stream"))), "{gone:?}");
}

pub async fn a_segment_that_is_added_again_is_there_once(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let mut run = run_of(&cluster, &part, None, 0..2);
    run[1].tokens = vec![token(&cluster, 1, 15)];
    append(catalog, &lease, &run).await;
    append(catalog, &lease, &run).await;
    assert_stored(catalog, &cluster, &part, &run).await;
    let found = catalog.stored_tokens(cluster.id, run[1].tokens[0].checkpoint).await.unwrap();
    assert_eq!(found, [(part.clone(), run[1].tokens[0].clone())]);
    // The same place with another content is no repetition.
    for other in [Segment { entries: 11, ..run[1].clone() }, Segment { blob: run[0].blob, ..run[1].clone() }] {
        refused(catalog, &lease, &other).await;
    }
}

pub async fn a_stream_that_begins_anew_keeps_what_is_there(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let before = run_of(&cluster, &part, None, 0..2);
    append(catalog, &lease, &before).await;
    let anew = Stream { from: time(50), ..stream(&cluster, &part) };
    catalog.begin_stream(&lease, &anew, Some(&gap(&part, 19, 50))).await.unwrap();
    assert_eq!(catalog.last_segment(cluster.id, &part).await.unwrap(), None);
    assert_stored(catalog, &cluster, &part, &before).await;

    refused(catalog, &lease, &segment(&cluster, &part, before.last(), 5)).await;
    refused(catalog, &lease, &before[1]).await;
    let after = run_of(&cluster, &part, None, 5..8);
    append(catalog, &lease, &after).await;
    assert_eq!(catalog.last_segment(cluster.id, &part).await.unwrap().as_ref(), after.last());
    assert_stored(catalog, &cluster, &part, &[before, after].concat()).await;
}

pub async fn segments_are_found_by_time_and_in_pages(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let first = run_of(&cluster, &part, None, 0..3);
    append(catalog, &lease, &first).await;
    catalog.begin_stream(&lease, &stream(&cluster, &part), None).await.unwrap();
    // Captured once more from second 20 on, in other pieces, and further.
    let second: Vec<_> = run_of(&cluster, &part, None, 2..6)
        .into_iter()
        .map(|segment| Segment { last: OpTime::new(time(segment.sealed.as_second() - NOON - 2), 1), ..segment })
        .collect();
    append(catalog, &lease, &second).await;
    let all = [&first[..2], &second[..1], &first[2..], &second[1..]].concat();
    let found = |from, to, most| {
        let part = &part;
        async move { catalog.segments(cluster.id, part, time(from), time(to), most).await.unwrap() }
    };
    assert_eq!(found(0, 100, 100).await, all);
    assert_eq!(found(9, 9, 9).await, all[..1]);
    assert_eq!(found(9, 10, 9).await, all[..2]);
    assert_eq!(found(15, 25, 9).await, all[1..4]);
    assert_eq!(found(29, 31, 9).await, all[3..5]);
    // Nothing of the second run is between its segments.
    assert_eq!(found(39, 39, 9).await, []);
    assert_eq!(found(58, 59, 9).await, all[6..]);
    assert_eq!(found(59, 99, 9).await, []);
    assert_eq!(found(0, 100, 0).await, []);

    let mut pages = found(0, 100, 2).await;
    loop {
        let from = pages.last().unwrap().last.time;
        let page = catalog.segments(cluster.id, &part, from, time(100), 2).await.unwrap();
        assert_eq!(page.first(), pages.last());
        if page.len() == 1 {
            break;
        }
        pages.extend(page.into_iter().skip(1));
    }
    assert_eq!(pages, all);
}

pub fn token(cluster: &Cluster, attempt: u32, second: i64) -> StoredToken {
    StoredToken { checkpoint: queued(cluster, 1).id, attempt, at: OpTime::new(time(second), 1) }
}

pub fn open_transaction(second: i64) -> OpenTransaction {
    let place = OpTime::new(time(second), 1);
    OpenTransaction { session: "0a0b".into(), number: 7, first: place, last: place, prepared: Some(place.time) }
}

pub async fn the_last_segment_before_a_time_is_of_whatever_run(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let before = |time| catalog.segment_before(cluster.id, &part, time);
    assert_eq!(before(ClusterTime::MAX).await.unwrap(), None);
    let run = run_of(&cluster, &part, None, 0..3);
    append(catalog, &lease, &run).await;
    assert_eq!(before(run[0].last.time).await.unwrap(), None);
    assert_eq!(before(run[1].last.time).await.unwrap().as_ref(), Some(&run[0]));
    assert_eq!(before(run[1].last.time.after()).await.unwrap().as_ref(), Some(&run[1]));
    catalog.begin_stream(&lease, &stream(&cluster, &part), None).await.unwrap();
    let anew = run_of(&cluster, &part, None, 5..6);
    append(catalog, &lease, &anew).await;
    assert_eq!(before(anew[0].last.time).await.unwrap().as_ref(), Some(&run[2]));
    assert_eq!(before(ClusterTime::MAX).await.unwrap().as_ref(), Some(&anew[0]));
}

pub async fn a_token_is_found_in_every_part_that_has_it(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let config = PartId::ConfigServers;
    catalog.begin_stream(&lease, &stream(&cluster, &config), None).await.unwrap();
    let wanted = token(&cluster, 1, 5).checkpoint;
    assert_eq!(catalog.stored_tokens(cluster.id, wanted).await.unwrap(), []);
    let mut of_shard = run_of(&cluster, &part, None, 0..2);
    let foreign = StoredToken { checkpoint: queued(&cluster, 2).id, ..token(&cluster, 1, 6) };
    of_shard[0].tokens = vec![token(&cluster, 1, 5), foreign.clone()];
    of_shard[1].tokens = vec![token(&cluster, 2, 15)];
    of_shard[1].open = vec![open_transaction(12)];
    let mut of_config = run_of(&cluster, &config, None, 0..1);
    of_config[0].tokens = vec![token(&cluster, 1, 3)];
    append(catalog, &lease, &of_shard).await;
    append(catalog, &lease, &of_config).await;
    assert_stored(catalog, &cluster, &part, &of_shard).await;
    let expected = [
        (config, token(&cluster, 1, 3)),
        (part.clone(), token(&cluster, 1, 5)),
        (part.clone(), token(&cluster, 2, 15)),
    ];
    assert_eq!(catalog.stored_tokens(cluster.id, wanted).await.unwrap(), expected);
    assert_eq!(catalog.stored_tokens(cluster.id, foreign.checkpoint).await.unwrap(), [(part, foreign)]);
    assert_eq!(catalog.stored_tokens(ClusterId::new(at(9), 9), wanted).await.unwrap(), []);
}

pub async fn a_stream_is_written_under_the_newest_lease_only(catalog: &dyn Catalog) {
    let (project, cluster) = with_cluster(catalog).await;
    let other = super::cluster(&project, "other", 2);
    catalog.add_cluster(&other).await.unwrap();
    let part = PartId::Shard("rs0".into());
    let early = claim(catalog, &cluster, "a", 0).await;
    catalog.begin_stream(&early, &stream(&cluster, &part), None).await.unwrap();
    let run = run_of(&cluster, &part, None, 0..4);
    append(catalog, &early, &run[..3]).await;
    let late = claim(catalog, &cluster, "b", 10).await;
    let of_other = claim(catalog, &other, "a", 0).await;

    let fenced = |answer: Result<(), CatalogError>| matches!(answer, Err(CatalogError::Fenced));
    for lease in [&early, &of_other] {
        let anew = Stream { from: time(90), ..stream(&cluster, &part) };
        assert!(fenced(catalog.begin_stream(lease, &anew, Some(&gap(&part, 1, 2))).await));
        assert!(fenced(catalog.append_segment(lease, &run[3]).await));
        assert!(fenced(catalog.append_segment(lease, &run[2]).await), "nor is a repetition let through");
    }
    assert!(fenced(catalog.end_stream(&early, &part, at(50)).await));
    let dropped = catalog.drop_segments(&early, &part, run[2].first, at(50)).await;
    assert!(fenced(dropped.map(drop)));
    assert!(matches!(catalog.end_stream(&of_other, &part, at(50)).await, Err(CatalogError::Gone("stream"))));
    assert_eq!(catalog.drop_segments(&of_other, &part, run[2].first, at(50)).await.unwrap(), 0);

    assert_eq!(catalog.stream(cluster.id, &part).await.unwrap(), Some(stream(&cluster, &part)));
    assert_eq!(catalog.gaps(cluster.id).await.unwrap(), []);
    assert_stored(catalog, &cluster, &part, &run[..3]).await;
    append(catalog, &late, &run[3..]).await;
    assert_stored(catalog, &cluster, &part, &run).await;
}
