use bson::{Document, doc};

use super::*;
use crate::tests::entries::{
    C, abort, apply_ops, at, command, commit, create, delete, entry, insert, part, prepare, set, time, ui, whole,
};
use crate::tests::story::{Story, has, plain};

const D: Uuid = Uuid([8; 16]);

fn insert_into(collection: Uuid, ns: &str, id: i32) -> Document {
    doc! {"op": "i", "ns": ns, "ui": ui(collection), "o": {"_id": id}}
}

fn names(story: &Story) -> Result<Vec<String>, FoldError> {
    Ok(story.gathered()?.catalogue.iter().map(|(_, one)| one.ns.clone()).collect())
}

#[track_caller]
fn fails(story: &Story, expected: &str) {
    assert_eq!(story.gathered().unwrap_err().to_string(), expected);
}

/// A transaction that is open where the entries begin.
fn open(first: u32, last: u32, prepared: Option<u32>) -> OpenTransaction {
    let bytes = prepare(at(last), 1, Some(at(first)), vec![]);
    let session = Entry::read(&bytes).unwrap().session.unwrap().id;
    let session = session.iter().map(|byte| format!("{byte:02x}")).collect();
    OpenTransaction { session, number: 1, first: at(first), last: at(last), prepared: prepared.map(time) }
}

#[test]
fn what_is_after_the_catalogue_and_up_to_the_time_counts() {
    let entries = (1..=8).map(|n| entry(at(n), insert(has(n as i32, 0)))).collect();
    Story::new(3, 6, entries).keeps(&[(4, 0), (5, 0), (6, 0)]);
    let entries = || (1..=4).map(|n| entry(at(n), create(Uuid([n as u8; 16]), &n.to_string()))).collect();
    assert_eq!(names(&Story::new(1, 3, entries())).unwrap(), ["db.2", "db.3", "db.c"]);
}

#[test]
fn a_prepared_transaction_counts_as_of_its_commit_time() {
    let story = |until, commit_time| {
        let entries = vec![
            entry(at(2), insert(has(1, 0))),
            prepare(at(3), 1, None, vec![set(1, 3), insert(has(2, 3))]),
            entry(at(5), insert(has(3, 5))),
            commit(at(9), 1, at(3), time(commit_time)),
        ];
        Story::new(1, until, entries)
    };
    // Prepared before and committed after T: as of T or before it, or as of later.
    for commit_time in [3, 6, 7] {
        story(7, commit_time).keeps(&[(1, 3), (2, 3), (3, 5)]);
    }
    story(7, 8).keeps(&[(1, 0), (3, 5)]);
    story(4, 5).keeps(&[(1, 0)]);
    story(9, 9).keeps(&[(1, 3), (2, 3), (3, 5)]);
}

#[test]
fn what_is_prepared_before_the_catalogue_and_committed_after_it_counts() {
    let story = |from, commit_time| {
        let operations = |id| vec![insert(has(id, 0))];
        let entries = vec![
            part(at(2), 1, None, operations(1)),
            prepare(at(3), 1, Some(at(2)), operations(2)),
            commit(at(9), 1, at(3), time(commit_time)),
        ];
        Story::new(from, 9, entries)
    };
    story(5, 6).keeps(&[(1, 0), (2, 0)]);
    // It is in what was read.
    story(5, 5).keeps(&[]);
    story(2, 6).keeps(&[(1, 0), (2, 0)]);
}

#[test]
fn a_transaction_that_has_ended_is_forgotten() {
    let mut entries = Vec::new();
    for n in 0..100 {
        let (session, now) = (n as i32 % 3, 10 * n + 2);
        entries.push(part(at(now), session, None, vec![insert(has(n as i32, 0))]));
        if n % 2 == 0 {
            entries.push(whole(at(now + 1), session, Some(at(now)), vec![]));
        } else {
            entries.push(prepare(at(now + 1), session, Some(at(now)), vec![]));
            entries.push(commit(at(now + 3), session, at(now + 1), time(now + 2)));
        }
    }
    let story = Story::new(1, 5_000, entries);
    let budget = || crate::Budget { memory: 500, folder: std::env::temp_dir() };
    let mut outcomes = crate::Outcomes::new(time(5_000), vec![], ClusterTime::ZERO, budget()).unwrap();
    story.entries.iter().for_each(|bytes| outcomes.see(&Entry::read(bytes).unwrap()).unwrap());
    let committed = outcomes.end().unwrap();
    let (catalogue, from) = (story.catalogue.clone(), time(1));
    let mut gather = Gather::new(catalogue, from, committed, vec![], ClusterTime::ZERO, budget()).unwrap();
    for bytes in &story.entries {
        gather.see(&Entry::read(bytes).unwrap()).unwrap();
        assert!(gather.committed.open() <= 1, "{}", gather.committed.open());
    }
    assert_eq!(gather.committed.open(), 0);
    assert_eq!(story.kept().unwrap().len(), 100);
}

#[test]
fn an_aborted_transaction_never_counts() {
    let entries = vec![
        part(at(2), 1, None, vec![insert(has(1, 0)), create(D, "d")]),
        prepare(at(3), 1, Some(at(2)), vec![insert(has(2, 0))]),
        part(at(4), 2, None, vec![insert(has(3, 0))]),
        abort(at(5), 1, at(3)),
        // The other's session goes on without it.
        prepare(at(6), 3, None, vec![insert(has(4, 0))]),
        abort(at(9), 3, at(6)),
    ];
    let story = Story::new(1, 7, entries);
    story.keeps(&[]);
    assert_eq!(names(&story).unwrap(), ["db.c"]);
}

#[test]
fn an_unprepared_transaction_counts_as_of_its_last_entry() {
    let story = |from, until| {
        let entries = vec![
            part(at(2), 1, None, vec![insert(has(1, 2))]),
            part(at(3), 1, Some(at(2)), vec![set(1, 3), insert(has(2, 3))]),
            whole(at(4), 1, Some(at(3)), vec![set(1, 4)]),
            whole(at(5), 2, None, vec![insert(has(3, 5)), set(3, 6)]),
        ];
        Story::new(from, until, entries)
    };
    story(1, 3).keeps(&[]);
    story(1, 4).keeps(&[(1, 4), (2, 3)]);
    story(3, 5).keeps(&[(1, 4), (2, 3), (3, 6)]);
    story(4, 5).keeps(&[(3, 6)]);
}

#[test]
fn a_transaction_without_an_end_stops_the_fold() {
    let story = Story::new(1, 5, vec![prepare(at(3), 1, None, vec![insert(has(1, 0))])]);
    assert!(matches!(story.gathered(), Err(FoldError::NotResolved(_))));
}

#[test]
fn a_transaction_may_make_what_it_writes_to() {
    let entries = vec![
        part(at(2), 1, None, vec![create(D, "d"), insert_into(D, "db.d", 1)]),
        whole(at(3), 1, Some(at(2)), vec![insert_into(D, "db.d", 2), create(Uuid([9; 16]), "e")]),
        entry(at(4), insert_into(D, "db.d", 3)),
        entry(at(5), insert_into(Uuid([9; 16]), "db.e", 1)),
    ];
    let story = Story::new(1, 5, entries);
    assert_eq!(names(&story).unwrap(), ["db.c", "db.d", "db.e"]);
    assert_eq!(story.of(D).unwrap().len(), 3);
    let story = Story { until: 2, ..story };
    assert_eq!(names(&story).unwrap(), ["db.c"]);
}

#[test]
fn commands_of_a_transaction_come_at_its_commit() {
    // Of two names, each is free in turn: only in this order do they fit.
    let rename = |from, to: &str| command(from, doc! {"renameCollection": "db.x", "to": to});
    let entries = vec![
        part(at(2), 1, None, vec![create(D, "c")]),
        prepare(at(3), 1, Some(at(2)), vec![create(Uuid([9; 16]), "e")]),
        entry(at(4), rename(C, "db.old")),
        entry(at(7), rename(D, "db.d")),
        entry(at(8), rename(C, "db.c")),
        commit(at(9), 1, at(3), time(5)),
    ];
    assert_eq!(names(&Story::new(1, 9, entries.clone())).unwrap(), ["db.c", "db.d", "db.e"]);
    assert_eq!(names(&Story::new(1, 6, entries.clone())).unwrap(), ["db.old", "db.c", "db.e"]);
    assert_eq!(names(&Story::new(1, 4, entries)).unwrap(), ["db.old"]);
}

#[test]
fn a_write_of_a_transaction_does_not_bring_its_commands_forward() {
    let entries = vec![
        part(at(2), 1, None, vec![create(D, "d")]),
        prepare(at(3), 1, Some(at(2)), vec![insert_into(D, "db.d", 1)]),
        entry(at(4), create(Uuid([9; 16]), "e")),
        commit(at(9), 1, at(3), time(5)),
    ];
    let story = Story::new(1, 9, entries);
    assert_eq!(names(&story).unwrap(), ["db.c", "db.d", "db.e"]);
    assert_eq!(story.of(D).unwrap().len(), 1);
}

#[test]
fn commands_that_come_out_of_order_are_an_error() {
    let entries = vec![entry(at(5), create(D, "d")), entry(at(4), create(Uuid([9; 16]), "e"))];
    let expected =
        "the oplog entry at 100:4 (term 1) changes the catalogue as of 100:4, and a change as of 100:5 came before it";
    fails(&Story::new(1, 9, entries), expected);
    let twice = || entry(at(5), command(C, doc! {"collMod": "c"}));
    assert!(matches!(Story::new(1, 9, vec![twice(), twice()]).gathered(), Err(FoldError::Disorder { .. })));
    // Several of one entry are in order.
    let one = apply_ops(vec![create(D, "d"), create(Uuid([9; 16]), "e")]);
    assert_eq!(names(&Story::new(1, 9, vec![entry(at(5), one)])).unwrap().len(), 3);
}

#[test]
fn a_transaction_that_began_before_the_entries_must_not_count() {
    let headless = |n| {
        format!(
            "the oplog entry at 100:{n} (term 1) belongs to a transaction that began before what is stored, and counts"
        )
    };
    let story = |from, until, open, entries| Story { open: vec![open], ..Story::new(from, until, entries) };
    let prepared = |from, until| {
        story(from, until, open(1, 2, Some(2)), vec![commit(at(6), 1, at(2), time(5)), entry(at(9), delete(1))])
    };
    fails(&prepared(4, 5), &headless(1));
    // It is in what was read, or not there yet.
    prepared(5, 8).keeps(&[]);
    prepared(3, 4).keeps(&[]);
    let aborted = vec![abort(at(6), 1, at(2))];
    story(3, 7, open(1, 2, Some(2)), aborted).keeps(&[]);
    let unprepared = |from| story(from, 7, open(1, 2, None), vec![whole(at(6), 1, Some(at(2)), vec![])]);
    fails(&unprepared(3), &headless(1));
    unprepared(6).keeps(&[]);
}

#[test]
fn a_step_of_which_the_beginning_is_unknown_must_not_count() {
    let story = |from, entry: Vec<u8>| Story { complete_from: time(6), ..Story::new(from, 8, vec![entry]) };
    let steps = [
        commit(at(6), 1, at(2), time(5)),
        whole(at(6), 1, Some(at(2)), vec![insert(has(1, 0))]),
        part(at(6), 1, Some(at(2)), vec![insert(has(1, 0))]),
        prepare(at(6), 1, Some(at(2)), vec![insert(has(1, 0))]),
    ];
    for step in steps {
        let story = |from| story(from, step.clone());
        assert!(matches!(story(4).gathered(), Err(FoldError::Headless { at: place }) if place == at(6)));
        story(6).keeps(&[]);
    }
    // As of before the catalogue, and aborted.
    story(5, commit(at(6), 1, at(2), time(5))).keeps(&[]);
    story(4, abort(at(6), 1, at(2))).keeps(&[]);
}

#[test]
fn collections_of_which_nothing_is_known_are_an_error() {
    let unknown = |n| {
        format!("the oplog entry at 100:{n} (term 1) writes to a collection of which nothing is known, db.d ({D})",)
    };
    fails(&Story::new(1, 9, vec![entry(at(2), insert_into(D, "db.d", 1))]), &unknown(2));
    fails(&Story::new(1, 9, vec![whole(at(2), 1, None, vec![insert_into(D, "db.d", 1)])]), &unknown(2));
    let dropped = vec![
        entry(at(2), create(D, "d")),
        entry(at(3), command(D, doc! {"drop": "d"})),
        entry(at(4), insert_into(D, "db.d", 1)),
    ];
    fails(&Story::new(1, 9, dropped), &unknown(4));
    let early = vec![entry(at(2), insert_into(D, "db.d", 1)), entry(at(3), create(D, "d"))];
    fails(&Story::new(1, 9, early), &unknown(2));
    // Nor does a transaction of several entries make them known.
    let operations = || vec![insert_into(D, "db.d", 1)];
    let entries = vec![prepare(at(2), 1, None, operations()), commit(at(5), 1, at(2), time(4))];
    fails(&Story::new(1, 9, entries), &unknown(2));
    let entries = vec![part(at(2), 1, None, operations()), whole(at(3), 1, Some(at(2)), vec![])];
    fails(&Story::new(1, 9, entries), &unknown(2));
}

#[test]
fn what_a_server_writes_by_itself_is_passed_over() {
    let derived = [
        "local.x",
        "shop.system.profile",
        "admin.system.keys",
        "config.system.indexBuilds",
        "config.transactions",
        "config.image_collection",
        "config.system.preimages",
        "config.system.change_collection",
    ];
    for ns in derived {
        assert!(is_derived(ns));
        assert!(Story::new(1, 9, vec![entry(at(2), insert_into(D, ns, 1))]).of(D).unwrap().is_empty());
    }
    for ns in ["localx.x", "db.local.x", "config.transactions.x", "config.chunks", "admin.system.users"] {
        assert!(!is_derived(ns));
    }
}

#[test]
fn an_error_says_at_which_entry() {
    let cases = [
        (delete(1), "op", "x", "its op is \"x\", which this program does not know"),
        (command(D, doc! {"drop": "d"}), "ns", "db.$cmd", &*format!("no collection has the UUID {D}")),
    ];
    for (mut operation, name, value, expected) in cases {
        operation.insert(name, value);
        let expected = format!("the oplog entry at 100:2 (term 1) cannot be folded: {expected}");
        fails(&Story::new(1, 9, vec![entry(at(2), operation.clone())]), &expected);
        // Of a transaction's commands it is their entry, not its end.
        let entries = vec![prepare(at(2), 1, None, vec![operation]), commit(at(5), 1, at(2), time(4))];
        fails(&Story::new(1, 9, entries), &expected);
    }
    let deep = (0..300).fold(doc! {}, |inner, _| doc! {"a": inner});
    let story = Story::new(1, 9, vec![entry(at(2), insert(doc! {"_id": deep}))]);
    assert!(matches!(story.gathered(), Err(FoldError::Key { at: place, .. }) if place == at(2)));
}

#[test]
fn what_empties_a_collection_is_noted() {
    let mut capped = plain("db.d");
    capped.options.insert("capped".to_owned(), bson::raw::RawBson::Boolean(true));
    let gathered = |operation: Document| {
        let mut story = Story::new(1, 9, vec![entry(at(2), operation)]);
        story.catalogue.add(D, capped.clone()).unwrap();
        story.gathered().unwrap().emptied
    };
    let noted = |collection| [(collection, Moment { commit: time(2), entry: time(2), index: 0 })].into();
    assert_eq!(gathered(command(D, doc! {"emptycapped": "d"})), noted(D));
    assert_eq!(gathered(command(D, doc! {"drop": "d"})), noted(D));
    assert_eq!(gathered(command(C, doc! {"renameCollection": "db.c", "to": "db.d", "dropTarget": ui(D)})), noted(D));
    assert_eq!(gathered(command(D, doc! {"renameCollection": "db.d", "to": "db.e"})), [].into());
}

#[test]
fn payloads_that_are_of_no_kind_are_none() {
    for bytes in
        [&[][..], &[0], &[4], &[UPDATE | UPSERT], &[UPDATE | UPSERT, 9, 0, 0, 0, 1], &[UPDATE | UPSERT, 0, 0, 0, 0x80]]
    {
        assert_eq!(Payload::split(bytes), None);
    }
}
