use proptest::prelude::*;

use super::*;
use crate::tests::entries::time;

/// A record as the tests have it.
type Plain = (Uuid, Vec<u8>, Moment, Vec<u8>);

fn sorter(memory: usize, folder: &tempfile::TempDir) -> Sorter {
    Sorter::new(Budget { memory, folder: folder.path().to_owned() })
}

fn push(sorter: &mut Sorter, (collection, key, at, payload): &Plain) {
    let (a, b) = payload.split_at(payload.len() / 2);
    sorter.push(*collection, key, *at, &[a, b]).unwrap();
}

fn all(mut sorted: Sorted) -> Vec<Plain> {
    let mut all = Vec::new();
    while let Some(record) = sorted.peek().unwrap() {
        all.push((record.collection, record.key.to_vec(), record.at, record.payload.to_vec()));
        // Looking again does not pass it.
        let again = sorted.peek().unwrap().unwrap();
        assert_eq!(again.at, all.last().unwrap().2);
        sorted.pass();
    }
    assert_eq!(sorted.peek().unwrap(), None);
    all
}

fn length((_, key, _, payload): &Plain) -> usize {
    HEADER + MOMENT + key.len() + payload.len() + size_of::<(usize, usize)>()
}

fn moment(commit: u32, entry: u32, index: u32) -> Moment {
    Moment { commit: time(commit), entry: time(entry), index }
}

prop_compose! {
    fn some_record()(
        collection in 0..3_u8,
        key in prop::collection::vec(0..3_u8, 0..4),
        at in (0..4_u32, 0..4_u32, 0..4_u32),
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) -> Plain {
        (Uuid([collection; 16]), key, moment(at.0, at.1, at.2), payload)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_order_is_that_of_a_plain_sort(
        records in prop::collection::vec(some_record(), 0..300),
        memory in prop_oneof![Just(0_usize), 0..2_000_usize, Just(1 << 20)],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = sorter(memory, &folder);
        let mut seen = std::collections::BTreeSet::new();
        // No two changes are of one moment.
        let mut records: Vec<_> = records.into_iter().filter(|one| seen.insert((one.0, one.1.clone(), one.2))).collect();
        for record in &records {
            push(&mut sorter, record);
        }
        prop_assert_eq!(sorter.spilled() > 0, records.len() > 1 && records.iter().map(length).sum::<usize>() > memory);
        records.sort();
        prop_assert_eq!(all(sorter.end().unwrap()), records);
    }
}

#[test]
fn more_runs_than_are_merged_at_once_are_merged_in_levels() {
    let folder = tempfile::tempdir().unwrap();
    let mut sorter = sorter(0, &folder);
    let count = (FAN_IN * FAN_IN + FAN_IN + 5) as u32;
    // Each is a run of its own, and none comes in order.
    for number in 0..count {
        let key = (number.wrapping_mul(2_654_435_761) % count).to_be_bytes();
        sorter.push(Uuid([1; 16]), &key, moment(1, 1, number), &[]).unwrap();
    }
    let sorted = all(sorter.end().unwrap());
    assert_eq!(sorted.len(), count as usize);
    assert!(sorted.windows(2).all(|pair| (&pair[0].1, pair[0].2) < (&pair[1].1, pair[1].2)));
}

#[test]
fn a_record_is_written_once_a_level() {
    let folder = tempfile::tempdir().unwrap();
    let mut sorter = sorter(0, &folder);
    for number in 0..(4 * FAN_IN + 3) as u32 {
        sorter.push(Uuid([1; 16]), &[], moment(1, 1, number), &[]).unwrap();
    }
    // The last is in memory still.
    assert_eq!(sorter.levels.iter().map(Vec::len).collect::<Vec<_>>(), [2, 4]);
}

#[test]
fn memory_is_the_budget_and_one_record_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let budget = 10_000;
    let mut sorter = sorter(budget, &folder);
    let mut expected = Vec::new();
    for number in 0..2_000_u32 {
        let size = if number % 100 == 50 { 3 * budget } else { number as usize % 700 };
        let record = (Uuid([1; 16]), vec![number as u8], moment(1, number, 0), vec![number as u8; size]);
        push(&mut sorter, &record);
        let used = sorter.arena.len() + sorter.places.len() * size_of::<(usize, usize)>();
        let limit = if sorter.places.len() == 1 { length(&record).max(budget) } else { budget };
        assert!(used <= limit, "{used} bytes used at {number}");
        assert!(sorter.arena.capacity() <= limit, "{} bytes kept at {number}", sorter.arena.capacity());
        expected.push(record);
    }
    expected.sort();
    assert_eq!(all(sorter.end().unwrap()), expected);
}

#[test]
fn where_nothing_can_be_written_the_error_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut sorter = Sorter::new(Budget { memory: 0, folder: folder.path().join("none") });
    let mut push = || sorter.push(Uuid([1; 16]), &[], moment(1, 1, 1), &[]);
    push().unwrap();
    assert_eq!(push().unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn temporary_files_have_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut sorter = sorter(0, &folder);
    for number in 0..3 {
        sorter.push(Uuid([1; 16]), &[], moment(1, 1, number), &[]).unwrap();
    }
    assert!(sorter.spilled() > 0);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}
