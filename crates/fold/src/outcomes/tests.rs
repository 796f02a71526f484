use bson::doc;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stillpoint_oplog::Transactions;

use super::*;
use crate::tests::entries::{abort, at, commit, delete, entry, part, prepare, time, whole};

fn budget(memory: usize) -> Budget {
    Budget { memory, folder: std::env::temp_dir() }
}

fn within(memory: usize, until: u32, entries: &[Vec<u8>]) -> Outcomes {
    let mut outcomes = Outcomes::new(time(until), Vec::new(), ClusterTime::ZERO, budget(memory)).unwrap();
    for bytes in entries {
        outcomes.see(&Entry::read(bytes).unwrap()).unwrap();
    }
    outcomes
}

fn outcomes(until: u32, entries: &[Vec<u8>]) -> Outcomes {
    within(1 << 20, until, entries)
}

/// What each of these is told, that begin in this order.
fn asked<const N: usize>(committed: &mut Committed, firsts: [u32; N]) -> [Option<ClusterTime>; N] {
    firsts.map(|first| {
        committed.begins(at(first)).unwrap();
        committed.at(at(first))
    })
}

fn noop(increment: u32) -> Vec<u8> {
    entry(at(increment), doc! {"op": "n", "ns": "", "o": {}})
}

#[test]
fn a_prepared_transaction_is_committed_as_of_its_commit_time() {
    let entries = [
        part(at(1), 1, None, vec![]),
        prepare(at(2), 1, Some(at(1)), vec![]),
        prepare(at(3), 2, None, vec![]),
        prepare(at(4), 3, None, vec![]),
        commit(at(6), 1, at(2), time(5)),
        abort(at(7), 2, at(3)),
        commit(at(9), 3, at(4), time(8)),
    ];
    let seen = outcomes(5, &entries);
    assert!(seen.is_complete());
    let mut committed = seen.end().unwrap();
    assert_eq!(committed.until(), time(5));
    // The commit time, not that of an entry; by the first entry, not by the prepare; and none that is after T.
    assert_eq!(asked(&mut committed, [1, 2, 3, 4]), [Some(time(5)), None, None, None]);
    let mut later = outcomes(8, &entries).end().unwrap();
    assert_eq!(asked(&mut later, [1, 2, 3, 4]), [Some(time(5)), None, None, Some(time(8))]);
}

#[test]
fn an_unprepared_transaction_is_committed_as_of_its_last_entry() {
    let entries = [
        part(at(1), 1, None, vec![]),
        part(at(2), 1, Some(at(1)), vec![]),
        whole(at(3), 1, Some(at(2)), vec![]),
        // Of one entry: nobody has to ask.
        whole(at(4), 1, None, vec![]),
        // It began and never ended.
        part(at(5), 2, None, vec![]),
    ];
    let mut committed = outcomes(5, &entries).end().unwrap();
    assert_eq!(asked(&mut committed, [1, 4, 5]), [Some(time(3)), None, None]);
}

#[test]
fn what_is_prepared_by_then_must_have_ended() {
    let entries = [prepare(at(2), 1, None, vec![]), prepare(at(3), 2, None, vec![]), noop(4), noop(6)];
    let seen = outcomes(4, &entries);
    assert!(!seen.is_complete());
    let Err(FoldError::NotResolved(error)) = seen.end() else { panic!("it is resolved") };
    assert_eq!(error, NotResolved { until: time(4), count: 2, oldest: at(2) });
    // What is prepared later does not matter, nor what was never prepared.
    let seen = outcomes(1, &[part(at(1), 3, None, vec![]), noop(2), prepare(at(3), 1, None, vec![])]);
    assert!(seen.is_complete());
    assert!(seen.end().is_ok());
}

#[test]
fn it_is_complete_once_the_time_is_passed() {
    assert!(!outcomes(3, &[noop(2), noop(3)]).is_complete());
    assert!(outcomes(3, &[noop(2), noop(4)]).is_complete());
}

#[test]
fn the_end_of_what_was_open_at_the_beginning_is_known_by_its_first_entry() {
    let bytes = prepare(at(2), 1, Some(at(1)), vec![]);
    let session = Entry::read(&bytes).unwrap().session.unwrap().id;
    let session = session.iter().map(|byte| format!("{byte:02x}")).collect();
    let open = OpenTransaction { session, number: 1, first: at(1), last: at(2), prepared: Some(time(2)) };
    let mut seen = Outcomes::new(time(3), vec![open], ClusterTime::ZERO, budget(0)).unwrap();
    seen.see(&Entry::read(&commit(at(4), 1, at(2), time(3))).unwrap()).unwrap();
    assert_eq!(asked(&mut seen.end().unwrap(), [1]), [Some(time(3))]);
}

#[test]
fn an_entry_that_does_not_fit_is_an_error() {
    let mut seen = Outcomes::new(time(3), Vec::new(), ClusterTime::ZERO, budget(0)).unwrap();
    seen.see(&Entry::read(&entry(at(1), delete(1))).unwrap()).unwrap();
    let bytes = commit(at(3), 1, at(2), time(3));
    let error = seen.see(&Entry::read(&bytes).unwrap());
    assert!(matches!(error, Err(FoldError::Transaction(TransactionError::Unknown { .. }))));
}

/// Transactions that overlap, by chance: `sessions` of them at once, until each entry's number is `last`. Also as
/// of when each is committed that is, by its first entry.
fn overlapping(sessions: usize, last: u32) -> (Vec<Vec<u8>>, HashMap<OpTime, ClusterTime>) {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut entries, mut committed) = (Vec::new(), HashMap::new());
    // Of each: its first and last entry, and whether that is its prepare.
    let mut open: Vec<Option<(OpTime, OpTime, bool)>> = vec![None; sessions];
    for now in 1..=last {
        let session = rng.random_range(0..sessions);
        let (number, previous) = (session as i32, open[session].map(|(_, last, _)| last));
        let (bytes, next) = match open[session] {
            None => (part(at(now), number, None, vec![]), Some((at(now), at(now), false))),
            Some((first, _, false)) => match rng.random_range(0..4) {
                0 => (part(at(now), number, previous, vec![]), Some((first, at(now), false))),
                1 => {
                    committed.insert(first, time(now));
                    (whole(at(now), number, previous, vec![]), None)
                }
                _ => (prepare(at(now), number, previous, vec![]), Some((first, at(now), true))),
            },
            Some((_, last, true)) if rng.random_bool(0.2) => (abort(at(now), number, last), None),
            Some((first, last, true)) => {
                let as_of = rng.random_range(last.time.increment..=now);
                committed.insert(first, time(as_of));
                (commit(at(now), number, last, time(as_of)), None)
            }
        };
        open[session] = next;
        entries.push(bytes);
    }
    (entries, committed)
}

#[test]
fn of_any_number_of_transactions_only_the_open_ones_are_in_memory() {
    const SESSIONS: usize = 5;
    const MEMORY: usize = 10_000;
    let (entries, committed) = overlapping(SESSIONS, 60_000);
    assert!(committed.len() > 15_000, "{}", committed.len());
    let until = 50_000;
    let mut outcomes = Outcomes::new(time(until), Vec::new(), ClusterTime::ZERO, budget(MEMORY)).unwrap();
    for bytes in &entries {
        outcomes.see(&Entry::read(bytes).unwrap()).unwrap();
        // With what it has reserved.
        assert!(outcomes.committed.held() <= 2 * MEMORY, "{}", outcomes.committed.held());
        if outcomes.is_complete() {
            break;
        }
    }
    assert!(outcomes.committed.spilled() > 0);
    let mut told = outcomes.end().unwrap();
    // As the second pass does.
    let mut table = Transactions::new(Vec::new(), ClusterTime::ZERO).unwrap();
    let mut counted = 0;
    for bytes in &entries[..until as usize] {
        let entry = Entry::read(bytes).unwrap();
        let ended = table.see(&entry).unwrap().map(|end| end.first);
        if table.first(&entry) == Some(entry.at) {
            told.begins(entry.at).unwrap();
        }
        if let Some(first) = ended.or(table.first(&entry)) {
            let expected = committed.get(&first).copied().filter(|commit| *commit <= time(until));
            assert_eq!(told.at(first), expected, "{first}, at {}", entry.at);
            counted += u32::from(expected.is_some());
        }
        ended.into_iter().for_each(|first| told.ends(first));
        assert!(told.open() <= SESSIONS, "{}", told.open());
    }
    assert!(counted > 30_000, "{counted}");
}
