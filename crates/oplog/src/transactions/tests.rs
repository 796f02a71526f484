mod model;

use bson::{Bson, Document, Timestamp, doc};

use super::*;
use crate::entry::EntryError;

pub(super) fn at(increment: u32) -> OpTime {
    OpTime::new(ClusterTime::new(100, increment), 1)
}

fn stamp(time: ClusterTime) -> Bson {
    Bson::Timestamp(Timestamp { time: time.seconds, increment: time.increment })
}

/// An entry that is a step of transaction `number` of a session, as the server writes it.
pub(super) fn step(at: OpTime, session: i32, number: i64, previous: Option<OpTime>, what: What) -> Vec<u8> {
    let mut entry = doc! {"lsid": {"id": session}, "txnNumber": number};
    entry.extend(batch(at, previous, what));
    entry.to_vec().unwrap()
}

fn batch(at: OpTime, previous: Option<OpTime>, what: What) -> Document {
    let o = match what {
        What::Part => doc! {"applyOps": [], "partialTxn": true},
        What::Prepare => doc! {"applyOps": [], "prepare": true},
        What::Whole => doc! {"applyOps": []},
        What::Commit(time) => doc! {"commitTransaction": 1, "commitTimestamp": stamp(time)},
        What::Abort => doc! {"abortTransaction": 1},
    };
    let previous = previous.unwrap_or(OpTime::new(ClusterTime::new(0, 0), -1));
    doc! {
        "op": "c", "ns": "admin.$cmd", "o": o, "ts": stamp(at.time), "t": at.term,
        "prevOpTime": {"ts": stamp(previous.time), "t": previous.term},
    }
}

pub(super) fn write(at: OpTime, session: i32, number: i64) -> Vec<u8> {
    doc! {"lsid": {"id": session}, "txnNumber": number, "op": "i", "o": {}, "ts": stamp(at.time), "t": at.term}
        .to_vec()
        .unwrap()
}

fn table() -> Transactions {
    Transactions::new(Vec::new(), ClusterTime::new(0, 0)).unwrap()
}

/// The end that each entry is, in short.
fn run(table: &mut Transactions, entries: &[Vec<u8>]) -> Result<Vec<(OpTime, Outcome)>, TransactionError> {
    let mut ends = Vec::new();
    for bytes in entries {
        ends.extend(table.see(&Entry::read(bytes).unwrap())?.map(|end| (end.first, end.outcome)));
    }
    Ok(ends)
}

#[test]
fn a_prepared_transaction_is_open_until_it_is_committed() {
    let mut table = table();
    let entries = [
        step(at(1), 7, 3, None, What::Part),
        step(at(2), 7, 3, Some(at(1)), What::Part),
        step(at(4), 7, 3, Some(at(2)), What::Prepare),
    ];
    assert_eq!(run(&mut table, &entries), Ok(vec![]));
    let session = hex::encode(doc! {"id": 7}.to_vec().unwrap());
    let open = OpenTransaction { session, number: 3, first: at(1), last: at(4), prepared: Some(at(4).time) };
    assert_eq!((table.open(), table.oldest()), (vec![open.clone()], Some(at(1))));

    let commit = step(at(9), 7, 3, Some(at(4)), What::Commit(at(6).time));
    let mut again = Transactions::new(vec![open], ClusterTime::new(0, 0)).unwrap();
    for table in [&mut table, &mut again] {
        let entry = Entry::read(&commit).unwrap();
        let end = table.see(&entry).unwrap().unwrap();
        assert_eq!((end.session, end.first, end.at), (entry.session, at(1), at(9)));
        assert_eq!((end.prepared, end.outcome), (Some(at(4).time), Outcome::Committed(at(6).time)));
        assert_eq!((table.open(), table.oldest()), (vec![], None));
    }
}

#[test]
fn an_unprepared_transaction_commits_with_its_last_entry() {
    let entries = [
        step(at(1), 7, 3, None, What::Whole),
        step(at(2), 7, 4, None, What::Part),
        step(at(3), 8, 1, None, What::Part),
        step(at(4), 7, 4, Some(at(2)), What::Whole),
        step(at(5), 8, 1, Some(at(3)), What::Whole),
    ];
    let ends = [(1, 1), (2, 4), (3, 5)].map(|(first, end)| (at(first), Outcome::Committed(at(end).time)));
    assert_eq!(run(&mut table(), &entries), Ok(ends.to_vec()));
}

#[test]
fn a_new_primary_aborts_what_an_older_one_did_not_finish() {
    // It does not know the last entry, nor always the first.
    for previous in [None, Some(at(1)), Some(at(2))] {
        let entries = [
            step(at(1), 7, 3, None, What::Part),
            step(at(2), 7, 3, Some(at(1)), What::Part),
            step(at(4), 7, 3, previous, What::Abort),
        ];
        assert_eq!(run(&mut table(), &entries), Ok(vec![(at(1), Outcome::Aborted)]));
    }
}

#[test]
fn a_primary_aborts_what_it_failed_to_prepare_and_has_written_nothing_of() {
    let mut table = table();
    assert_eq!(run(&mut table, &[step(at(1), 7, 3, None, What::Abort)]), Ok(vec![]));
    assert_eq!(table.open(), []);
}

#[test]
fn an_unfinished_transaction_ends_when_its_session_goes_on() {
    for next in [step(at(3), 7, 4, None, What::Part), step(at(3), 7, 4, None, What::Whole), write(at(3), 7, 4)] {
        let mut table = table();
        run(&mut table, &[step(at(1), 7, 3, None, What::Part), next]).unwrap();
        assert!(table.open().iter().all(|open| open.number == 4));
        assert_ne!(table.oldest(), Some(at(1)));
    }
    // Not by a write of its own number or another session.
    let mut table = table();
    run(&mut table, &[step(at(1), 7, 3, None, What::Part), write(at(2), 7, 3), write(at(3), 8, 9)]).unwrap();
    assert_eq!(table.oldest(), Some(at(1)));
}

#[test]
fn batches_of_writes_are_followed_without_a_session() {
    let entry = |at, previous, what| batch(at, previous, what).to_vec().unwrap();
    let mut table = table();
    let begin = [entry(at(1), None, What::Part), entry(at(2), None, What::Part)];
    let middle = [entry(at(3), Some(at(1)), What::Part), entry(at(4), Some(at(2)), What::Whole)];
    assert_eq!(run(&mut table, &begin), Ok(vec![]));
    assert_eq!(run(&mut table, &middle), Ok(vec![(at(2), Outcome::Committed(at(4).time))]));
    let open = OpenTransaction { session: String::new(), number: NO_NUMBER, first: at(1), last: at(3), prepared: None };
    assert_eq!(table.open(), std::slice::from_ref(&open));

    let mut again = Transactions::new(vec![open], ClusterTime::new(0, 0)).unwrap();
    let end = [entry(at(5), Some(at(3)), What::Whole)];
    assert_eq!(run(&mut again, &end), Ok(vec![(at(1), Outcome::Committed(at(5).time))]));
    // Its primary is gone: nobody will finish it, and nobody says so.
    assert_eq!(run(&mut table, &[write(OpTime::new(at(6).time, 2), 8, 1)]), Ok(vec![]));
    assert_eq!(table.open(), []);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let part = || step(at(1), 7, 3, None, What::Part);
    let prepare = || step(at(1), 7, 3, None, What::Prepare);
    let commit = |time, previous| step(at(9), 7, 3, previous, What::Commit(time));
    let session = format!("transaction 3 of session {}", hex::encode(doc! {"id": 7}.to_vec().unwrap()));
    let other = session.replace("transaction 3", "transaction 4");
    let cases = [
        (vec![commit(at(8).time, None)], format!("{session} is ended, and no entry before tells of it")),
        (
            vec![step(at(9), 7, 3, Some(at(1)), What::Abort)],
            format!("{session} is ended, and no entry before tells of it"),
        ),
        (
            vec![part(), commit(at(8).time, Some(at(1)))],
            format!("{session} is committed with a commit time, and it is not prepared"),
        ),
        (
            vec![part(), step(at(9), 7, 3, Some(at(2)), What::Whole)],
            format!("{session} goes on from 100:2 (term 1), and its last entry known is 100:1 (term 1)"),
        ),
        (
            vec![part(), step(at(9), 7, 3, Some(OpTime::new(at(1).time, 2)), What::Part)],
            format!("{session} goes on from 100:1 (term 2), and its last entry known is 100:1 (term 1)"),
        ),
        (
            vec![part(), step(at(9), 7, 3, None, What::Part)],
            format!("{session} goes on from none, and its last entry known is 100:1 (term 1)"),
        ),
        (
            vec![step(at(9), 7, 3, Some(at(1)), What::Prepare)],
            format!("{session} goes on from 100:1 (term 1), and its last entry known is none"),
        ),
        (
            vec![prepare(), step(at(9), 7, 3, Some(at(1)), What::Whole)],
            format!("{session} goes on from 100:1 (term 1), and its last entry known is 100:1 (term 1)"),
        ),
        (
            vec![prepare(), commit(at(8).time, Some(at(2)))],
            format!("{session} goes on from 100:2 (term 1), and its last entry known is 100:1 (term 1)"),
        ),
        (
            vec![prepare(), step(at(9), 7, 3, Some(at(2)), What::Abort)],
            format!("{session} goes on from 100:2 (term 1), and its last entry known is 100:1 (term 1)"),
        ),
        (
            vec![prepare(), commit(at(10).time, Some(at(1)))],
            format!("{session} is committed as of 100:10, which is not between its prepare and this entry"),
        ),
        (
            vec![prepare(), commit(at(0).time, Some(at(1)))],
            format!("{session} is committed as of 100:0, which is not between its prepare and this entry"),
        ),
        (
            vec![prepare(), step(at(9), 7, 4, None, What::Whole)],
            format!("{other} begins while transaction 3 of it is prepared and not ended"),
        ),
        (
            vec![prepare(), write(at(9), 7, 4)],
            format!("{other} begins while transaction 3 of it is prepared and not ended"),
        ),
        (
            vec![step(at(1), 7, 4, None, What::Part), step(at(9), 7, 3, None, What::Part)],
            format!("{session} is older than transaction 4 of it, which is open"),
        ),
        (
            vec![batch(at(9), Some(at(1)), What::Whole).to_vec().unwrap()],
            "a batch of writes goes on from 100:1 (term 1), and its last entry known is none".into(),
        ),
    ];
    for (entries, text) in cases {
        let error = run(&mut table(), &entries).unwrap_err().to_string();
        assert_eq!(error, format!("100:9 (term 1): {text}"));
    }
}

#[test]
fn a_stream_may_begin_in_the_middle_of_a_transaction() {
    let ends = [
        step(at(9), 7, 3, Some(at(1)), What::Commit(at(8).time)),
        step(at(9), 7, 3, Some(at(1)), What::Abort),
        step(at(9), 7, 3, Some(at(1)), What::Whole),
        step(at(9), 7, 3, Some(at(1)), What::Part),
        step(at(9), 7, 3, Some(at(1)), What::Prepare),
        batch(at(9), Some(at(1)), What::Whole).to_vec().unwrap(),
    ];
    for end in ends {
        let seen = |complete_from: OpTime| {
            let mut table = Transactions::new(Vec::new(), complete_from.time).unwrap();
            run(&mut table, std::slice::from_ref(&end)).map(|ends| (ends, table.open()))
        };

        assert_eq!(seen(at(9)), Ok((vec![], vec![])));
        assert!(seen(at(8)).is_err());
    }
}

#[test]
fn open_transactions_that_cannot_be_are_refused() {
    let open = |session: &str| OpenTransaction {
        session: session.into(),
        number: 1,
        first: at(1),
        last: at(1),
        prepared: None,
    };
    let error = |open| Transactions::new(open, at(0).time).unwrap_err().to_string();
    assert_eq!(
        error(vec![open("0g")]),
        "of the transactions that are open at the beginning, one has a session that is no hex"
    );
    assert_eq!(
        error(vec![open("00"), open("00")]),
        "of the transactions that are open at the beginning, two are of one session"
    );
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error(transparent)]
    Transaction(#[from] TransactionError),
}

fn cut(t: u32, entries: &[Vec<u8>]) -> Unresolved {
    let entries = entries.iter().map(Ok::<_, Failed>);
    Unresolved::at(at(t).time, Vec::new(), ClusterTime::new(0, 0), entries).unwrap()
}

#[test]
fn a_time_cuts_through_what_is_prepared_before_and_ended_after_it() {
    let entries = [
        step(at(1), 1, 1, None, What::Part),
        step(at(2), 2, 1, None, What::Prepare),
        step(at(3), 3, 1, None, What::Prepare),
        step(at(4), 4, 1, None, What::Prepare),
        step(at(5), 4, 1, Some(at(4)), What::Abort),
        // T is here.
        step(at(7), 5, 1, None, What::Prepare),
        step(at(8), 3, 1, Some(at(3)), What::Commit(at(8).time)),
        step(at(9), 2, 1, Some(at(2)), What::Commit(at(6).time)),
        // No longer read.
        b"nonsense".to_vec(),
    ];
    let found = cut(6, &entries);
    assert_eq!((found.oldest, found.read, found.until()), (Some(at(1)), Some(at(9)), Some(at(9))));
    assert!(found.passed() && found.pending().next().is_none());
    let ends: Vec<_> = found.transactions.iter().map(|one| (one.first, one.ending.unwrap().at)).collect();
    assert_eq!(ends, [(at(2), at(9)), (at(3), at(8))]);
    let committed: Vec<_> = found.committed().map(|(one, time)| (one.first, time)).collect();
    assert_eq!(committed, [(at(2), at(6).time)]);
}

#[test]
fn what_has_not_ended_is_pending() {
    let entries = [step(at(2), 2, 1, None, What::Prepare), write(at(3), 9, 1)];
    let found = cut(2, &entries);
    assert!(found.passed());
    assert_eq!((found.pending().count(), found.until()), (1, None));
    let found = cut(3, &entries);
    assert!(!found.passed());
    assert_eq!((found.pending().count(), found.oldest), (1, Some(at(2))));
}
