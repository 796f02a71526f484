use stillpoint_core::ClusterTime;
use stillpoint_core::stream::GapCause;

use super::world::open;
use super::{World, time};
use crate::stored::{Fault, StoredError};

#[tokio::test]
async fn a_whole_vault_is_counted() {
    let (world, segments) = World::with_segments().await;
    let report = world.check().await;
    assert!(report.is_whole() && report.found.is_empty() && report.mended.is_empty());
    assert_eq!((report.parts, report.segments, report.entries, report.unnamed), (1, 10, 100, 0));
    assert_eq!(report.stored, segments.iter().map(|segment| segment.stored).sum::<u64>());
    assert!(world.gaps().await.is_empty());
}

#[tokio::test]
async fn what_is_missing_or_damaged_is_listed_until_it_is_put_back() {
    let (world, segments) = World::with_segments().await;
    let missing = world.lose(&segments[0]);
    let damaged = world.damage(&segments[6]);
    for _ in 0..2 {
        let report = world.check().await;
        assert_eq!((report.missing, report.damaged, report.segments), (1, 1, 10));
        let [first, second] = &report.found[..] else { panic!("{:?}", report.found) };
        assert_eq!((&first.name, &first.fault), (&segments[0].name(), &Fault::Missing));
        assert_eq!((first.first, first.last), (time(11), time(20)));
        assert!(matches!(&second.fault, Fault::Damaged(_)) && second.name == segments[6].name());
        assert!(report.mended.is_empty());
        let gaps = [
            (time(11).before(), time(20).after(), GapCause::SegmentMissing),
            (time(70), time(80).after(), GapCause::SegmentDamaged),
        ];
        assert_eq!(world.gap_times().await, gaps);
    }

    world.put_back(&segments[6], &damaged);
    let report = world.check().await;
    assert_eq!((report.missing, report.damaged, report.mended.len()), (1, 0, 1));
    assert_eq!(report.mended[0].1.cause, GapCause::SegmentDamaged);
    assert_eq!(world.gaps().await.len(), 1);

    world.put_back(&segments[0], &missing);
    assert!(world.check().await.is_whole());
    assert!(world.gaps().await.is_empty());
}

#[tokio::test]
async fn a_gap_that_has_another_cause_is_left_alone() {
    let mut world = World::new().await;
    world.store(11, 20, vec![]).await;
    let gap = world.gap(20, 40, GapCause::ShardAway);
    world.begin_anew(40, Some(gap.clone())).await;
    world.store(40, 50, vec![]).await;
    let report = world.check().await;
    assert!(report.is_whole() && report.mended.is_empty());
    assert_eq!(world.gaps().await, [gap]);
}

#[tokio::test]
async fn a_gap_whose_segment_was_given_up_stays() {
    let (world, segments) = World::with_segments().await;
    world.lose(&segments[1]);
    world.check().await;
    assert_eq!(world.drop_before(51).await, 4);
    let report = world.check().await;
    assert!(report.is_whole() && report.mended.is_empty(), "nothing can be said of it");
    assert_eq!(world.gaps().await.len(), 1);
}

#[tokio::test]
async fn content_that_is_not_what_the_record_says_is_damage() {
    let mut world = World::new().await;
    world.store(1, 10, vec![]).await;
    world.put(b"this is no segment".to_vec(), 11, 20, vec![]).await;
    let other = world.content(21, 31);
    world.put(other, 21, 30, vec![]).await;
    world.store(31, 40, vec![]).await;
    let report = world.check().await;
    assert_eq!((report.missing, report.damaged), (0, 2));
    let why: Vec<_> = report.found.iter().map(|found| found.fault.to_string()).collect();
    assert!(why[0].contains("this is no segment") && why[1].contains("the same last entry"), "{why:?}");
    assert_eq!(world.gaps().await.len(), 2);
}

#[tokio::test]
async fn other_transactions_than_were_open_before_it_are_damage() {
    let mut world = World::new().await;
    world.store(1, 10, vec![open(5, 5)]).await;
    world.store(11, 20, vec![open(5, 5)]).await;
    assert!(world.check().await.is_whole());
    let other = world.content_after(vec![], 21, 30);
    world.put(other, 21, 30, vec![]).await;
    let report = world.check().await;
    assert_eq!(report.damaged, 1);
    let why = report.found[0].fault.to_string();
    assert!(why.contains("the same transactions that are open before it"), "{why}");
}

#[tokio::test]
async fn blobs_that_nothing_names_are_counted() {
    let (world, _) = World::with_segments().await;
    let stray = stillpoint_core::stream::place(world.cluster, &world.part, ClusterTime::ZERO);
    let stored = world.vault.put(&stray, b"left by a crash".as_slice().into()).await.unwrap();
    let report = world.check().await;
    assert!(report.is_whole(), "they are in nobody's way");
    assert_eq!((report.unnamed, report.unnamed_bytes), (1, stored.stored));
}

#[tokio::test]
async fn a_vault_that_is_not_there_is_no_loss() {
    let (world, segments) = World::with_segments().await;
    let root = world.file(&segments[0]);
    let root = root.ancestors().find(|folder| folder.ends_with("vault")).unwrap();
    std::fs::rename(root, root.with_extension("elsewhere")).unwrap();
    let check = crate::stored::Check {
        catalog: world.catalog.clone(),
        vault: world.vault.clone(),
        clock: std::sync::Arc::new(|| jiff::Timestamp::UNIX_EPOCH),
    };
    let error = check.run(None, |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("is the vault's disk mounted?"), "{error}");
    assert!(world.read(None, None).await.1.is_some());
    assert!(world.gaps().await.is_empty());
}

#[tokio::test]
async fn content_that_does_not_decompress_is_damage_where_it_is() {
    let mut world = World::new().await;
    world.store(1, 10, vec![]).await;
    let mut content = world.content(11, 40);
    let end = content.len();
    content[end - 3] ^= 1;
    let damaged = world.put(content, 11, 40, vec![]).await;
    let (read, error) = world.read(None, None).await;
    assert!(read.len() > 10 && read.len() < 40 && read.is_sorted(), "{read:?}");
    assert!(matches!(error, Some(StoredError::Damaged { name, .. }) if name == damaged.name()));
    assert_eq!(world.check().await.damaged, 1);
}
