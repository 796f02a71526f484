use bson::doc;

use super::*;
use crate::tests::entries::{abort, at, commit, delete, entry, part, prepare, time, whole};

fn outcomes(until: u32, entries: &[Vec<u8>]) -> Outcomes {
    let mut outcomes = Outcomes::new(time(until), Vec::new(), ClusterTime::ZERO).unwrap();
    for bytes in entries {
        outcomes.see(&Entry::read(bytes).unwrap()).unwrap();
    }
    outcomes
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
    let committed = seen.end().unwrap();
    assert_eq!(committed.until(), time(5));
    let at = |first| committed.at(at(first));
    // The commit time, not that of an entry; by the first entry, not by the prepare.
    assert_eq!((at(1), at(2), at(3), at(4)), (Some(time(5)), None, None, Some(time(8))));
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
    let committed = outcomes(5, &entries).end().unwrap();
    assert_eq!(committed.committed, [(at(1), time(3))].into());
}

#[test]
fn what_is_prepared_by_then_must_have_ended() {
    let entries = [prepare(at(2), 1, None, vec![]), prepare(at(3), 2, None, vec![]), noop(4), noop(6)];
    let seen = outcomes(4, &entries);
    assert!(!seen.is_complete());
    let error = seen.end().unwrap_err();
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
    let mut seen = Outcomes::new(time(3), vec![open], ClusterTime::ZERO).unwrap();
    seen.see(&Entry::read(&commit(at(4), 1, at(2), time(3))).unwrap()).unwrap();
    assert_eq!(seen.end().unwrap().at(at(1)), Some(time(3)));
}

#[test]
fn an_entry_that_does_not_fit_is_an_error() {
    let mut seen = Outcomes::new(time(3), Vec::new(), ClusterTime::ZERO).unwrap();
    seen.see(&Entry::read(&entry(at(1), delete(1))).unwrap()).unwrap();
    let bytes = commit(at(3), 1, at(2), time(3));
    assert!(matches!(seen.see(&Entry::read(&bytes).unwrap()), Err(TransactionError::Unknown { .. })));
}
