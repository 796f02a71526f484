use bson::{Document, doc};

use super::*;
use crate::tests::entries::{C, apply_ops, at, command, create, delete, entry, insert, set, time, update};
use crate::tests::story::{Story, has};

/// One change an entry, from 100:2 on.
fn story(changes: Vec<Document>) -> Story {
    let entries = changes.into_iter().zip(2..).map(|(change, n)| entry(at(n), change)).collect();
    Story::new(1, 100, entries)
}

fn key(id: i32) -> Vec<u8> {
    key_of(C, &RawDocumentBuf::try_from(&doc! {"_id": id}).unwrap()).unwrap()
}

fn piece(until: Option<i32>, at: u32) -> Piece {
    Piece { until: until.map(key), at: time(at), settled: time(at) }
}

#[test]
fn documents_and_changes_are_brought_together_in_the_order_of_keys() {
    let changes = vec![insert(has(3, 1)), set(2, 1), delete(4), insert(has(0, 1)), set(0, 2), insert(has(9, 1))];
    story(changes).base(vec![has(1, 0), has(2, 0), has(4, 0), has(5, 0)]).keeps(&[
        (0, 2),
        (1, 0),
        (2, 1),
        (3, 1),
        (5, 0),
        (9, 1),
    ]);
    story(vec![]).base(vec![has(1, 0)]).keeps(&[(1, 0)]);
    story(vec![insert(has(1, 0)), delete(1), insert(has(1, 5))]).keeps(&[(1, 5)]);
}

#[test]
fn changes_of_other_collections_are_passed_over() {
    let other = |uuid: u8, name: &str| {
        let uuid = Uuid([uuid; 16]);
        let mut insert = insert(doc! {"_id": 1});
        insert.insert("ui", crate::tests::entries::ui(uuid));
        [create(uuid, name), insert]
    };
    let story = story([&other(1, "a")[..], &[set(1, 1)], &other(9, "b")].concat()).base(vec![has(1, 0)]);
    story.keeps(&[(1, 1)]);
}

#[test]
fn a_change_counts_if_it_is_later_than_its_piece() {
    // At 2, 3 and 4, each document is set to its number.
    let changes = |id| (2..=4).map(move |n| set(id, n));
    let all = || story(changes(1).chain(changes(5)).chain(changes(7)).collect());
    let base = |a: [i32; 3]| vec![has(1, a[0]), has(5, a[1]), has(7, a[2])];
    // Entries: 1 at 2..4, 5 at 5..7, 7 at 8..10. What a piece has already, is not applied again.
    let pieces = vec![piece(Some(5), 4), piece(Some(7), 5), piece(None, 7)];
    all().base(base([-1, -1, -1])).pieces(pieces).keeps(&[(1, -1), (5, 4), (7, 4)]);

    let last = |at| story(vec![insert(has(1, 1)), insert(has(2, 1))]).pieces(vec![piece(None, at)]);
    last(1).keeps(&[(1, 1), (2, 1)]);
    last(2).keeps(&[(2, 1)]);
    last(3).keeps(&[]);
}

#[test]
fn a_pieces_end_belongs_to_the_next() {
    let story = |until| {
        story(vec![insert(has(4, 1)), insert(has(5, 1)), insert(has(6, 1))])
            .pieces(vec![piece(Some(until), 9), piece(None, 1)])
    };
    story(4).keeps(&[(4, 1), (5, 1), (6, 1)]);
    story(5).keeps(&[(5, 1), (6, 1)]);
    story(7).keeps(&[]);
    // Several may hold nothing at all.
    let empty = |until| piece(Some(until), 9);
    self::story(vec![insert(has(4, 1))]).pieces(vec![empty(1), empty(2), empty(3), piece(None, 1)]).keeps(&[(4, 1)]);
}

#[test]
fn a_change_that_does_not_fit_stops_the_fold_and_says_where() {
    let place = format!("the oplog entry at 100:3, for a document of {C}: ");
    let second = |change| story(vec![insert(has(9, 0)), change]).base(vec![has(1, 0)]);
    second(insert(has(1, 1))).fails(&format!("{place}inserts a document that is there"));
    second(insert(has(9, 1))).fails(&format!("{place}inserts a document that is there"));
    second(set(2, 1)).fails(&format!("{place}updates a document that is not there"));
    second(delete(2)).fails(&format!("{place}deletes a document that is not there"));
    let error = second(update(1, doc! {"$v": 3, "diff": {}})).kept().unwrap_err();
    let expected = Place { entry: time(3), collection: C };
    assert!(
        matches!(&error, FoldError::Document { place, what: DocumentError::Update(_) } if *place == expected),
        "{error}"
    );
}

#[test]
fn an_operators_apply_ops_need_not_fit() {
    let operator = |operation| story(vec![apply_ops(vec![operation])]).base(vec![has(1, 0)]);
    operator(insert(has(1, 1))).keeps(&[(1, 1)]);
    operator(set(1, 1)).keeps(&[(1, 1)]);
    operator(delete(2)).keeps(&[(1, 0)]);
    operator(update(2, doc! {"$v": 2, "diff": {"i": {"a": 3}}})).keeps(&[(1, 0), (2, 3)]);
    operator(update(2, doc! {"a": 3})).keeps(&[(1, 0), (2, 3)]);
    // A document that it replaces keeps its place.
    assert_eq!(operator(insert(has(1, 1))).of(C).unwrap()[0].1, Since::Stored(0));
}

#[test]
fn documents_are_since_their_last_insertion() {
    let moment = |n| Moment { commit: time(n), entry: time(n), index: 0 };
    let changes = vec![set(1, 1), delete(2), insert(has(2, 1)), insert(has(3, 1)), set(3, 2)];
    let kept = story(changes).base(vec![has(1, 0), has(2, 0)]).of(C).unwrap();
    let since: Vec<_> = kept.iter().map(|(_, since)| *since).collect();
    assert_eq!(since, [Since::Stored(0), Since::Inserted(moment(4)), Since::Inserted(moment(5))]);
    assert!(Since::Stored(u64::MAX) < Since::Inserted(moment(0)));
}

#[test]
fn what_was_read_before_a_collection_was_emptied_is_gone() {
    let emptied = |at| {
        story(vec![set(1, 2), command(C, doc! {"emptycapped": "c"}), insert(has(1, 4)), insert(has(3, 5))])
            .base(vec![has(1, 0), has(2, 0)])
            .pieces(vec![piece(None, at)])
    };
    emptied(1).keeps(&[(1, 4), (3, 5)]);
    emptied(2).keeps(&[(1, 4), (3, 5)]);
    // At 3 it is empty, and what is stored came later.
    emptied(3).base(vec![]).keeps(&[(1, 4), (3, 5)]);
    emptied(4).base(vec![has(1, 4)]).keeps(&[(1, 4), (3, 5)]);
    // What came in the same entry came after it.
    let one = apply_ops(vec![command(C, doc! {"emptycapped": "c"}), insert(has(1, 2))]);
    story(vec![one]).base(vec![has(1, 2)]).pieces(vec![piece(None, 2)]).keeps(&[(1, 2)]);
}

#[test]
fn a_piece_without_a_time_may_be_from_before_or_after_its_collection_was_emptied() {
    let changes = || vec![insert(has(1, 2)), command(C, doc! {"emptycapped": "c"}), insert(has(2, 4)), set(2, 5)];
    for state in [vec![], vec![has(0, 0)], vec![has(0, 0), has(1, 2)], vec![has(2, 4)], vec![has(2, 5)]] {
        let story = capped(9, changes()).base(state);
        story.keeps(&[(2, 5)]);
        assert!(matches!(story.of(C).unwrap()[0].1, Since::Inserted(_)));
    }
}

#[test]
fn a_uuid_may_come_again_after_a_drop() {
    let changes = vec![
        insert(has(1, 2)),
        delete(2),
        command(C, doc! {"drop": "c"}),
        create(C, "c"),
        insert(has(2, 6)),
        command(C, doc! {"drop": "c"}),
        create(C, "again"),
        insert(has(2, 9)),
        insert(has(3, 10)),
    ];
    story(changes).base(vec![has(2, 0), has(5, 0)]).keeps(&[(2, 9), (3, 10)]);
    // Dropped and created by one entry.
    let one = apply_ops(vec![delete(1), command(C, doc! {"drop": "c"}), create(C, "c"), insert(has(2, 1))]);
    story(vec![one]).base(vec![has(1, 0), has(5, 0)]).keeps(&[(2, 1)]);
}

/// Read at some time from 100:1 to `settled`.
fn capped(settled: u32, changes: Vec<Document>) -> Story {
    let piece = Piece { until: None, at: time(1), settled: time(settled) };
    story(changes).pieces(vec![piece])
}

#[test]
fn what_a_piece_without_a_time_may_have_does_no_harm() {
    // Whenever it was read, it is the same in the end.
    let changes = || vec![insert(has(1, 2)), set(1, 3), insert(has(2, 4)), delete(1), insert(has(1, 6)), set(2, 7)];
    let states = [
        vec![],
        vec![has(1, 2)],
        vec![has(1, 3)],
        vec![has(1, 3), has(2, 4)],
        vec![has(2, 4)],
        vec![has(1, 6), has(2, 4)],
        vec![has(1, 6), has(2, 7)],
    ];
    for state in states {
        let story = capped(7, changes()).base(state);
        story.keeps(&[(1, 6), (2, 7)]);
        // In the order of their last insertions, whether they were read or not.
        let since: Vec<_> = story.of(C).unwrap().into_iter().map(|(_, since)| since).collect();
        assert!(since[1] < since[0] && matches!(since[1], Since::Inserted(_)), "{since:?}");
    }
    // Of what was read before all of them, nothing changes but the order.
    let kept = capped(7, changes()).base(vec![has(0, 0)]).of(C).unwrap();
    assert_eq!(kept[0], (has(0, 0), Since::Stored(0)));
}

#[test]
fn an_update_of_what_was_read_later_may_fail() {
    let grow = update(1, doc! {"$v": 2, "diff": {"sb": {"u": {"c": 1}}}});
    let story = |settled| capped(settled, vec![grow.clone(), update(1, doc! {"_id": 1, "a": 3})]).base(vec![has(1, 3)]);
    story(3).keeps(&[(1, 3)]);
}

#[test]
fn after_its_time_a_piece_is_as_strict_as_any() {
    let present = format!("the oplog entry at 100:3, for a document of {C}: inserts a document that is there");
    let missing =
        |what| format!("the oplog entry at 100:3, for a document of {C}: {what} a document that is not there");
    let second = |change: Document| vec![insert(has(9, 0)), change];
    capped(2, second(insert(has(9, 0)))).fails(&present);
    capped(2, second(set(1, 0))).fails(&missing("updates"));
    capped(2, second(delete(1))).fails(&missing("deletes"));
    capped(3, second(insert(has(9, 1)))).keeps(&[(9, 1)]);
    capped(3, second(set(1, 0))).keeps(&[(9, 0)]);
    capped(3, second(delete(1))).keeps(&[(9, 0)]);
}

#[test]
fn stored_documents_must_be_in_order() {
    let order = format!("of {C}, the stored documents are not in order");
    for base in [[2, 1], [1, 1]] {
        story(vec![]).base(base.map(|id| has(id, 0)).to_vec()).fails(&order);
    }
    story(vec![insert(has(2, 0))]).base(vec![has(3, 0), has(1, 0)]).fails(&order);
    // Even where the one before is deleted.
    story(vec![delete(2)]).base(vec![has(2, 0), has(1, 0)]).fails(&order);
    let nameless = story(vec![]).base(vec![doc! {"a": 1}]).kept();
    assert!(matches!(nameless, Err(FoldError::Stored { collection: C, .. })));
}

#[test]
fn an_error_of_the_stored_documents_is_handed_on() {
    let mut gathered = story(vec![insert(has(1, 0))]).gathered().unwrap();
    let base = [Err::<Stored, _>(FoldError::Order { collection: Uuid([1; 16]) })];
    let pieces = [Piece::whole(time(1))];
    let mut merge = Merge::new(C, base.into_iter(), &mut gathered.changes, &pieces, None).unwrap();
    assert!(matches!(merge.next(), Some(Err(FoldError::Order { collection: Uuid([1, ..]) }))));
}
