//! What is forgotten in time, and the blobs that go with it.

use super::*;
use stillpoint_catalog::{CatalogError, DROPPED_AT_ONCE};

fn names(segments: &[Segment]) -> Vec<String> {
    segments.iter().map(Segment::name).collect()
}

pub async fn the_oldest_segments_are_dropped_and_their_blobs_doomed(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let config = PartId::ConfigServers;
    catalog.begin_stream(&lease, &stream(&cluster, &config), None).await.unwrap();
    let mut run = run_of(&cluster, &part, None, 0..5);
    run[0].tokens = vec![token(&cluster, 1, 5)];
    run[3].tokens = vec![token(&cluster, 2, 35)];
    append(catalog, &lease, &run).await;
    let others = run_of(&cluster, &config, None, 0..2);
    append(catalog, &lease, &others).await;

    assert_eq!(catalog.drop_segments(&lease, &part, run[0].last, at(60)).await.unwrap(), 0, "not before its last");
    let later = OpTime { term: 2, ..run[0].last };
    assert_eq!(catalog.drop_segments(&lease, &part, later, at(60)).await.unwrap(), 1);
    assert_eq!(catalog.drop_segments(&lease, &part, run[3].first, at(70)).await.unwrap(), 2);
    assert_eq!(catalog.drop_segments(&lease, &part, run[3].first, at(80)).await.unwrap(), 0);
    assert_stored(catalog, &cluster, &part, &run[3..]).await;
    assert_stored(catalog, &cluster, &config, &others).await;
    let kept_from = Some(run[2].last.time.after());
    let trimmed = Stream { kept_from, ..stream(&cluster, &part) };
    assert_eq!(catalog.stream(cluster.id, &part).await.unwrap(), Some(trimmed.clone()));
    assert_eq!(catalog.stream(cluster.id, &config).await.unwrap(), Some(stream(&cluster, &config)));
    let tokens = catalog.stored_tokens(cluster.id, token(&cluster, 1, 5).checkpoint).await.unwrap();
    assert_eq!(tokens, [(part.clone(), token(&cluster, 2, 35))]);

    assert_eq!(catalog.doomed(at(60), 9).await.unwrap(), [""; 0]);
    assert_eq!(catalog.doomed(at(61), 9).await.unwrap(), names(&run[..1]));
    assert_eq!(catalog.doomed(at(100), 9).await.unwrap(), names(&run[..3]), "the oldest first");
    assert_eq!(catalog.doomed(at(100), 2).await.unwrap(), names(&run[..2]));
    let next = segment(&cluster, &part, run.last(), 5);
    append(catalog, &lease, &[next]).await;
    catalog.forget_doomed(&names(&run[..2])).await.unwrap();
    assert_eq!(catalog.doomed(at(100), 9).await.unwrap(), names(&run[2..3]));
}

pub async fn the_newest_segment_is_never_dropped(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let for_ever = OpTime::new(ClusterTime::new(u32::MAX, 0), 9);
    let dropped = |catalog, lease, part| Catalog::drop_segments(catalog, lease, part, for_ever, at(90));
    assert_eq!(dropped(catalog, &lease, &part).await.unwrap(), 0);
    let run = run_of(&cluster, &part, None, 0..3);
    append(catalog, &lease, &run).await;
    for expected in [2, 0] {
        assert_eq!(dropped(catalog, &lease, &part).await.unwrap(), expected);
        assert_eq!(catalog.last_segment(cluster.id, &part).await.unwrap().as_ref(), run.last());
    }
    append(catalog, &lease, &run_of(&cluster, &part, run.last(), 3..4)).await;

    let before = catalog.stream(cluster.id, &part).await.unwrap().unwrap().kept_from;
    catalog.begin_stream(&lease, &stream(&cluster, &part), None).await.unwrap();
    let begun = catalog.stream(cluster.id, &part).await.unwrap().unwrap();
    assert!(before.is_some() && begun.kept_from == before, "what was given up stays so");
    assert_eq!(dropped(catalog, &lease, &part).await.unwrap(), 1);
    let after = run_of(&cluster, &part, None, 7..9);
    append(catalog, &lease, &after).await;
    assert_eq!(dropped(catalog, &lease, &part).await.unwrap(), 2, "also of earlier runs");
    assert_stored(catalog, &cluster, &part, &after[1..]).await;
    append(catalog, &lease, &run_of(&cluster, &part, after.last(), 9..10)).await;
}

pub async fn so_many_segments_are_dropped_at_once(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let most = DROPPED_AT_ONCE as i64;
    let run = run_of(&cluster, &part, None, 0..most + 3);
    append(catalog, &lease, &run).await;
    let before = run[run.len() - 1].first;
    assert_eq!(catalog.drop_segments(&lease, &part, before, at(0)).await.unwrap(), DROPPED_AT_ONCE);
    assert_eq!(catalog.drop_segments(&lease, &part, before, at(0)).await.unwrap(), 2);
    assert_stored(catalog, &cluster, &part, &run[run.len() - 1..]).await;
}

pub async fn a_blob_that_nothing_names_is_told_apart(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let run = run_of(&cluster, &part, None, 0..3);
    append(catalog, &lease, &run[..2]).await;
    catalog.drop_segments(&lease, &part, run[1].first, at(60)).await.unwrap();
    let asked = [names(&run), vec!["stray".into()]].concat();
    let stray = [run[2].name(), "stray".into()];
    assert_eq!(catalog.unreferenced(&asked).await.unwrap(), stray);
    assert_eq!(catalog.unreferenced(&[]).await.unwrap(), [""; 0]);
    catalog.forget_doomed(&asked).await.unwrap();
    assert_eq!(catalog.unreferenced(&asked).await.unwrap(), [run[0].name(), run[2].name(), "stray".into()]);
}

pub async fn a_blob_lives_as_long_as_a_segment_has_it(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let run = run_of(&cluster, &part, None, 0..2);
    append(catalog, &lease, &run).await;
    // The same entries once more.
    catalog.begin_stream(&lease, &stream(&cluster, &part), None).await.unwrap();
    append(catalog, &lease, &run).await;
    assert_eq!(catalog.drop_segments(&lease, &part, run[1].first, at(60)).await.unwrap(), 2);
    assert_eq!(catalog.doomed(at(100), 9).await.unwrap(), names(&run[..1]));
    assert_eq!(catalog.segment_totals(cluster.id, &part).await.unwrap().segments, 2);
    assert_eq!(catalog.drop_segments(&lease, &part, OpTime::new(time(99), 1), at(60)).await.unwrap(), 1);
    assert_eq!(catalog.doomed(at(100), 9).await.unwrap(), names(&run[..1]), "the newest has the other one");
    assert_stored(catalog, &cluster, &part, &run[1..]).await;

    // What is added once more is saved.
    catalog.begin_stream(&lease, &stream(&cluster, &part), None).await.unwrap();
    append(catalog, &lease, &run[..1]).await;
    assert_eq!(catalog.doomed(at(100), 9).await.unwrap(), [""; 0]);
}

pub async fn a_doomed_blob_can_be_saved_until_it_is_condemned(catalog: &dyn Catalog) {
    let (cluster, lease, part) = with_stream(catalog).await;
    let run = run_of(&cluster, &part, None, 0..3);
    append(catalog, &lease, &run[..1]).await;
    let mut asked = names(&run);
    assert_eq!(catalog.doom(&asked, at(60)).await.unwrap(), 2, "a segment has the first");
    assert_eq!(catalog.doom(&asked, at(70)).await.unwrap(), 0);
    assert_eq!(catalog.doomed(at(61), 9).await.unwrap(), asked[1..]);
    // Another at the same place begins like it, and one at the next has nothing to do with it.
    catalog.keep_blobs(&run[1].place()).await.unwrap();
    assert_eq!(catalog.doomed(at(61), 9).await.unwrap(), asked[2..]);
    assert_eq!(catalog.condemn(&asked).await.unwrap(), asked[2..], "only what is doomed");
    assert_eq!(catalog.doomed(at(-1_000_000), 9).await.unwrap(), asked[2..], "though the clock was put back");

    append(catalog, &lease, &run[1..2]).await;
    let refused = [catalog.keep_blobs(&run[2].place()).await, catalog.append_segment(&lease, &run[2]).await];
    assert!(refused.iter().all(|one| matches!(one, Err(CatalogError::BeingDeleted(_)))), "{refused:?}");
    asked.drain(..2);
    catalog.forget_doomed(&asked).await.unwrap();
    catalog.keep_blobs(&run[2].place()).await.unwrap();
    append(catalog, &lease, &run[2..]).await;
}

pub async fn the_oldest_cut_is_the_earliest_time_whatever_the_ids(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    assert_eq!(catalog.oldest_cut(cluster.id).await.unwrap(), None);
    catalog.queue_checkpoint(&failed(&cluster, 5)).await.unwrap();
    assert_eq!(catalog.oldest_cut(cluster.id).await.unwrap(), None, "it has none");
    for (second, increment) in [(9, 3), (9, 20), (10, 1)] {
        let cut = Some(ClusterTime::new((NOON + second) as u32, increment));
        let record = Checkpoint { cut, ..completed(&cluster, 100 - second * 10 - i64::from(increment)) };
        catalog.queue_checkpoint(&record).await.unwrap();
    }
    let oldest = catalog.oldest_cut(cluster.id).await.unwrap();
    assert_eq!(oldest, Some(ClusterTime::new((NOON + 9) as u32, 3)));
}

pub async fn removing_a_cluster_dooms_its_blobs_and_forgets_its_streams(catalog: &dyn Catalog) {
    let (gone, lease, part) = with_stream(catalog).await;
    let project = catalog.project(gone.project).await.unwrap().unwrap();
    let stays = cluster(&project, "stays", 2);
    catalog.add_cluster(&stays).await.unwrap();
    let of_stays = claim(catalog, &stays, "a", 0).await;
    catalog.begin_stream(&of_stays, &stream(&stays, &part), None).await.unwrap();
    let tokens = vec![token(&gone, 1, 5)];
    let [run, other] =
        [&gone, &stays].map(|of| vec![Segment { tokens: tokens.clone(), ..segment(of, &part, None, 0) }]);
    append(catalog, &lease, &run).await;
    append(catalog, &lease, &run_of(&gone, &part, run.last(), 1..3)).await;
    append(catalog, &of_stays, &other).await;
    for cluster in [&gone, &stays] {
        catalog.add_gap(cluster.id, &gap(&part, 60, 70)).await.unwrap();
        catalog.report_capture(cluster.id, &part, &report(40)).await.unwrap();
    }
    catalog.drop_segments(&lease, &part, run[0].last, at(60)).await.unwrap();
    let all = every_segment(catalog, &gone, &part).await;
    assert_eq!(all.len(), 3);

    catalog.remove_cluster(gone.id, at(90)).await.unwrap();
    let refused = catalog.append_segment(&lease, &segment(&gone, &part, all.last(), 3)).await;
    assert!(matches!(refused, Err(CatalogError::Fenced)), "{refused:?}");
    assert_eq!(catalog.doomed(at(90), 9).await.unwrap(), [""; 0]);
    assert_eq!(catalog.doomed(at(91), 9).await.unwrap(), names(&all));
    catalog.add_cluster(&gone).await.unwrap();
    assert_eq!(catalog.streams(gone.id).await.unwrap(), []);
    assert_eq!(catalog.gaps(gone.id).await.unwrap(), []);
    assert_eq!(catalog.capture_reports(gone.id).await.unwrap(), []);
    assert_eq!(catalog.stored_tokens(gone.id, tokens[0].checkpoint).await.unwrap(), []);
    assert_stored(catalog, &gone, &part, &[]).await;

    assert_stored(catalog, &stays, &part, &other).await;
    assert_eq!(catalog.gaps(stays.id).await.unwrap(), [gap(&part, 60, 70)]);
    assert_eq!(catalog.capture_reports(stays.id).await.unwrap(), [(part.clone(), report(40))]);
    assert_eq!(catalog.stored_tokens(stays.id, tokens[0].checkpoint).await.unwrap().len(), 1);
}

pub async fn a_checkpoint_expires_unless_it_is_the_newest_completed_one(catalog: &dyn Catalog) {
    let (_, cluster) = with_cluster(catalog).await;
    let ids = [10, 20, 30, 40].map(|second| queued(&cluster, second).id);
    let expired = |before, most| catalog.expired_checkpoints(cluster.id, at(before), most);
    assert_eq!(expired(1_000, 9).await.unwrap(), []);
    for checkpoint in [completed(&cluster, 10), failed(&cluster, 20), completed(&cluster, 30), failed(&cluster, 40)] {
        catalog.queue_checkpoint(&checkpoint).await.unwrap();
    }
    catalog.queue_checkpoint(&queued(&cluster, 50)).await.unwrap();
    assert_eq!(
        expired(1_000, 9).await.unwrap(),
        [ids[0], ids[1], ids[3]],
        "not the newest completed one, nor the one under way"
    );
    assert_eq!(expired(1_000, 2).await.unwrap(), ids[..2]);
    // They ended 3 seconds and 1 second after they were begun.
    assert_eq!(expired(13, 9).await.unwrap(), []);
    assert_eq!(expired(14, 9).await.unwrap(), ids[..1]);
    assert_eq!(expired(22, 9).await.unwrap(), ids[..2]);
    assert_eq!(expired(1_000, 0).await.unwrap(), []);
}
