use stillpoint_core::ClusterTime;
use stillpoint_core::stream::GapCause;

use super::world::open;
use super::{World, time};
use crate::stored::StoredError;

#[tokio::test]
async fn entries_are_read_between_two_times_both_included() {
    let (world, _) = World::with_segments().await;
    world.reads(None, None, 11..=110).exactly().await;
    world.reads(Some(11), Some(110), 11..=110).exactly().await;
    world.reads(Some(37), Some(37), 37..=37).exactly().await;
    world.reads(Some(20), Some(21), 20..=21).exactly().await;
    world.reads(Some(25), None, 25..=110).exactly().await;
    world.reads(None, Some(25), 11..=25).exactly().await;
    // The stream has begun at 1, and nothing was written until 11.
    world.reads(Some(1), Some(12), 11..=12).exactly().await;
    // What is asked for beyond the end has not come yet.
    world.reads(Some(105), Some(200), 105..=110).exactly().await;
    assert!(world.read(Some(150), Some(200)).await.0.is_empty());
}

#[tokio::test]
async fn more_segments_than_a_page_holds_are_read_once_each() {
    let mut world = World::new().await;
    for n in 1..=450 {
        world.store(n, n, vec![]).await;
    }
    world.reads(None, None, 1..=450).exactly().await;
    world.reads(Some(200), Some(401), 200..=401).exactly().await;
}

#[tokio::test]
async fn nothing_stored_and_a_later_beginning_are_said() {
    let world = World::new().await;
    let (read, error) = world.read(None, None).await;
    assert!(read.is_empty() && matches!(error, Some(StoredError::Nothing(_))), "{error:?}");

    let (world, _) = World::with_segments().await;
    assert!(matches!(world.read(Some(0), None).await.1, Some(StoredError::BeginsLater { .. })), "the stream's from");
    assert_eq!(world.drop_before(31).await, 2);
    for to in [Some(20), Some(60), None] {
        let (read, error) = world.read(Some(15), to).await;
        assert!(read.is_empty());
        let says = format!("its oplog is stored from {} on, and {} was asked for", time(31), time(15));
        assert!(error.unwrap().to_string().contains(&says));
    }
    world.reads(Some(31), Some(33), 31..=33).exactly().await;
    world.reads(None, Some(33), 31..=33).exactly().await;
}

#[tokio::test]
async fn where_runs_overlap_each_entry_is_given_once() {
    let mut world = World::new().await;
    world.store(1, 10, vec![]).await;
    world.store(11, 20, vec![]).await;
    world.store(21, 30, vec![]).await;
    world.begin_anew(15, None).await;
    world.store(15, 25, vec![]).await;
    world.store(26, 40, vec![]).await;
    world.store(41, 50, vec![]).await;
    world.reads(None, None, 1..=50).exactly().await;
    for from in 1..=50 {
        world.reads(Some(from), Some(45), from..=45).exactly().await;
    }
    assert!(world.check().await.is_whole());
}

#[tokio::test]
async fn a_gap_in_the_way_is_said_and_not_passed_over() {
    let mut world = World::new().await;
    world.store(11, 20, vec![]).await;
    let gap = world.gap(20, 40, GapCause::RolledOver);
    world.begin_anew(40, Some(gap.clone())).await;
    // Before anything is stored after it.
    assert!(matches!(world.read(Some(15), Some(30)).await.1, Some(StoredError::Gap { .. })));
    world.store(42, 50, vec![]).await;

    for (from, to) in
        [(None, None), (Some(11), Some(45)), (Some(25), Some(45)), (Some(15), Some(30)), (Some(25), Some(30))]
    {
        let (read, error) = world.read(from, to).await;
        let before: Vec<u32> = (from.unwrap_or(11)..=20).collect();
        assert_eq!(read, before, "{from:?} to {to:?}");
        let text = error.unwrap().to_string();
        assert!(text.contains(&gap.to_string()) && text.contains("a detail"), "{text}");
    }
    world.reads(None, Some(20), 11..=20).exactly().await;
    world.reads(Some(40), None, 42..=50).exactly().await;
    world.reads(Some(41), Some(44), 42..=44).exactly().await;
    assert!(world.check().await.is_whole());
}

#[tokio::test]
async fn a_run_after_nothing_without_a_gap_is_damage() {
    let mut world = World::new().await;
    world.store(11, 20, vec![]).await;
    world.begin_anew(40, None).await;
    world.store(42, 50, vec![]).await;
    let (read, error) = world.read(None, None).await;
    assert_eq!(read, (11..=20).collect::<Vec<_>>());
    assert!(error.unwrap().to_string().contains("no gap is noted before it"));
    assert_eq!(world.check().await.damaged, 1);
}

#[tokio::test]
async fn a_missing_segment_ends_the_reading_and_becomes_a_gap() {
    let (world, segments) = World::with_segments().await;
    let bytes = world.lose(&segments[4]);
    for _ in 0..2 {
        let (read, error) = world.read(Some(45), None).await;
        assert_eq!(read, (45..=50).collect::<Vec<_>>());
        assert!(matches!(&error, Some(StoredError::Missing { name, .. }) if *name == segments[4].name()), "{error:?}");
    }
    let gap = (time(50), time(60).after(), GapCause::SegmentMissing);
    assert_eq!(world.gap_times().await, [gap], "once");
    assert!(world.gaps().await[0].detail.contains(&segments[4].name()));
    // Its predecessor is found where reading begins with it, too.
    world.read(Some(55), None).await;
    assert_eq!(world.gap_times().await, [gap]);
    world.reads(Some(61), None, 61..=110).exactly().await;

    world.put_back(&segments[4], &bytes);
    world.reads(Some(45), None, 45..=110).exactly().await;
}

#[tokio::test]
async fn a_gap_reaches_as_far_as_the_transactions_that_are_torn() {
    let mut world = World::new().await;
    let prepared = |first, at| stillpoint_core::stream::OpenTransaction { prepared: Some(time(at)), ..open(first, at) };
    world.store(1, 10, vec![prepared(8, 8)]).await;
    let lost = world.store(11, 20, vec![open(15, 15)]).await;
    world.store(21, 30, vec![open(15, 15)]).await;
    world.damage(&lost);
    assert!(matches!(world.read(None, None).await.1, Some(StoredError::Damaged { .. })));
    let (after, cause) = (time(8).before(), GapCause::SegmentDamaged);
    assert_eq!(world.gap_times().await, [(after, ClusterTime::MAX, cause)], "it may be committed as of any time");

    // The next check puts the right end in its place, and nothing is mended by that.
    world.store(31, 40, vec![]).await;
    world.store(41, 50, vec![]).await;
    let report = world.check().await;
    assert_eq!((report.damaged, report.found.len(), report.mended.len()), (1, 1, 0));
    assert_eq!(world.gap_times().await, [(after, time(40), cause)]);
}
