//! The merger, on made-up sides: what each has is cut into chunks, of which it asks, and into documents that come
//! by themselves, as those of a chunk do that a change touches.

use std::collections::BTreeSet;

use bson::raw::RawDocumentBuf;
use bson::rawdoc;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stillpoint_core::stream::BlobId;
use stillpoint_fold::Key;
use stillpoint_snapshot::Place;
use stillpoint_snapshot::reference::{KeyBound, Layout};

use super::*;

/// Documents by what their `_id` is made of.
type Data = BTreeMap<u32, u32>;

/// A collection of one side.
#[derive(Clone)]
struct Made {
    collection: Collection,
    chunks: Vec<Piece>,
    /// Whether it asks about all of it first.
    tree: bool,
}

#[derive(Clone)]
struct Piece {
    documents: Vec<RawDocumentBuf>,
    asks: bool,
}

type Part = BTreeMap<Uuid, Made>;

fn collection(ns: &str) -> Collection {
    Collection { ns: ns.into(), options: Fields::new(), indexes: BTreeMap::new() }
}

fn capped(ns: &str) -> Collection {
    Collection { options: Fields::from([("capped".into(), RawBson::Boolean(true))]), ..collection(ns) }
}

fn id(n: u32, long: bool) -> String {
    // Longer than what a reference has of a key.
    if long { format!("{}{n:05}", "k".repeat(300)) } else { format!("{n:05}") }
}

fn document(n: u32, value: u32, long: bool) -> RawDocumentBuf {
    rawdoc! {"_id": id(n, long), "value": i64::from(value)}
}

/// Cut by the keys alone, as collections are.
fn cut(data: &Data, long: bool, mut asks: impl FnMut() -> bool) -> Vec<Piece> {
    let mut chunks: Vec<Piece> = Vec::new();
    for (n, value) in data {
        if chunks.is_empty() || n.wrapping_mul(2_654_435_761) >> 29 == 0 {
            chunks.push(Piece { documents: Vec::new(), asks: asks() });
        }
        if let Some(last) = chunks.last_mut() {
            last.documents.push(document(*n, *value, long));
        }
    }
    chunks
}

fn reference(documents: &[RawDocumentBuf]) -> Reference {
    let bytes: Vec<u8> = documents.iter().flat_map(|document| document.as_bytes().to_vec()).collect();
    let key = |document: Option<&RawDocumentBuf>| {
        KeyBound::of(document.map(|document| Key::of_document(document).unwrap()).unwrap().as_bytes())
    };
    let entry = Entry {
        id: ContentId::of(&bytes),
        first: key(documents.first()),
        last: key(documents.last()),
        digest: documents.iter().map(|document| Digest::of(document.as_bytes())).sum(),
    };
    Reference { entry, place: Place { pack: BlobId([0; 32]), stored: 0 } }
}

/// What a side was asked and had to read.
#[derive(Default)]
struct Played {
    asked: BTreeSet<[u8; 32]>,
    read: BTreeSet<[u8; 32]>,
}

/// Pours a part as a state does.
fn play(part: &Part, mut sink: Courier) -> Result<(Played, Read), SnapshotError> {
    let mut played = Played::default();
    for (uuid, made) in part {
        sink.begin(*uuid, &made.collection, None)?;
        let all: Vec<_> = made.chunks.iter().flat_map(|chunk| chunk.documents.clone()).collect();
        let layout = if made.collection.is_in_insertion_order() { Layout::Insertion } else { Layout::Sorted };
        let whole = made.tree && !all.is_empty();
        if whole && sink.tree(&Root { layout, level: 1, reference: reference(&all) })? {
            sink.end()?;
            continue;
        }
        for chunk in &made.chunks {
            let reference = reference(&chunk.documents);
            if chunk.asks {
                played.asked.insert(reference.entry.id.0);
                if sink.chunk(&reference, None)? {
                    continue;
                }
            }
            played.read.insert(reference.entry.id.0);
            sink.read(&reference);
            for document in &chunk.documents {
                sink.document(Key::of_document(document).unwrap().as_bytes(), document)?;
            }
        }
        sink.end()?;
    }
    Ok((played, sink.finish()?))
}

type Told = BTreeSet<(Change, String, String)>;

/// Merges two parts, each on a thread of its own.
fn merged(before: &Part, after: &Part, ids: bool) -> (PartDiff, Told, Played, Played) {
    let ((mut left, mine), (mut right, theirs)) = (connected(ids), connected(ids));
    let mut told = Told::new();
    let mut teller = |change: Change, ns: &str, id: &RawBson| {
        let RawBson::String(id) = id else { panic!("{id:?}") };
        assert!(told.insert((change, ns.to_owned(), id.clone())), "{id} is told twice");
        Ok(())
    };
    let (diff, one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| play(before, mine));
        let other = scope.spawn(|| play(after, theirs));
        let diff = merge(&mut left, &mut right, ids.then_some(&mut teller as &mut Teller<'_>)).unwrap();
        (diff, joined(one).unwrap(), joined(other).unwrap())
    });
    (diff, told, one.0, other.0)
}

fn counted(was: &Data, is: &Data) -> Counts {
    let mut counts = Counts::default();
    for n in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
        *match (was.get(n), is.get(n)) {
            (None, _) => &mut counts.added,
            (_, None) => &mut counts.removed,
            (was, is) if was == is => &mut counts.same,
            _ => &mut counts.changed,
        } += 1;
    }
    counts
}

fn told(was: &Data, is: &Data, ns: &str, long: bool) -> Told {
    let one = |change, n: &u32| (change, ns.to_owned(), id(*n, long));
    let removed = was.keys().filter(|n| !is.contains_key(n)).map(|n| one(Change::Removed, n));
    let added = is.keys().filter(|n| !was.contains_key(n)).map(|n| one(Change::Added, n));
    let changed = is.iter().filter(|(n, value)| was.get(n).is_some_and(|was| was != *value));
    removed.chain(added).chain(changed.map(|(n, _)| one(Change::Changed, n))).collect()
}

#[test]
fn any_two_sides_are_compared_as_if_all_of_both_were_read_and_no_chunk_is_read_that_both_have() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (long, ids) = (seed % 4 == 3, rng.random_bool(0.5));
        let (mut before, mut after) = (Part::new(), Part::new());
        let (mut expected, mut lines, mut same) = (Vec::new(), Told::new(), 0);
        for n in 0..rng.random_range(1..5_u8) {
            let span = rng.random_range(1..600);
            let was: Data =
                (0..rng.random_range(0..400)).map(|_| (rng.random_range(0..span), rng.random_range(0..9))).collect();
            let mut is = was.clone();
            for _ in 0..rng.random_range(0..8) {
                match (rng.random_range(0..span), rng.random_bool(0.5)) {
                    (key, true) => is.insert(key, rng.random_range(0..9)),
                    (key, false) => is.remove(&key),
                };
            }
            let (uuid, ns) = (Uuid([n; 16]), format!("db.c{n}"));
            let there = [rng.random_bool(0.8), rng.random_bool(0.8)];
            for (part, data, there) in [(&mut before, &was, there[0]), (&mut after, &is, there[1])] {
                if there {
                    let tree = rng.random_bool(0.5);
                    let touched = rng.random_range(0.0..0.5);
                    let chunks = cut(data, long, || !rng.random_bool(touched));
                    part.insert(uuid, Made { collection: collection(&ns), chunks, tree });
                }
            }
            let none = Data::new();
            let (was, is) = (if there[0] { &was } else { &none }, if there[1] { &is } else { &none });
            let counts = counted(was, is);
            if ids {
                lines.extend(told(was, is, &ns, long));
            }
            match there {
                [false, false] => {}
                [true, true] if Documents::Compared(counts).are_same() => same += 1,
                _ => expected.push((uuid, counts)),
            }
        }
        let (diff, said, one, other) = merged(&before, &after, ids);
        let found: Vec<_> = diff.different.iter().map(|one| (one.uuid, one.documents)).collect();
        let expected: Vec<_> = expected.into_iter().map(|(uuid, counts)| (uuid, Documents::Compared(counts))).collect();
        assert_eq!((found, diff.same), (expected, same), "seed {seed}");
        assert_eq!(said, lines, "seed {seed}");
        let shared: BTreeSet<_> = one.asked.intersection(&other.asked).collect();
        if !long {
            let read: Vec<_> =
                shared.iter().filter(|id| one.read.contains(**id) || other.read.contains(**id)).collect();
            assert!(read.is_empty(), "seed {seed}: read, and both have them: {read:?}");
        }
    }
}

fn made(ns: &str, data: &Data) -> Made {
    Made { collection: collection(ns), chunks: cut(data, false, || true), tree: true }
}

/// Each side has far more than may wait, in a collection that the other does not have.
#[test]
fn neither_side_waits_for_the_other() {
    let data: Data = (0..20_000).map(|n| (n, n)).collect();
    let by_itself = |ns: &str| Made { chunks: cut(&data, false, || false), tree: false, ..made(ns, &data) };
    let before = Part::from([(Uuid([1; 16]), by_itself("db.went"))]);
    let after = Part::from([(Uuid([2; 16]), by_itself("db.came"))]);
    for (before, after) in [(&before, &after), (&after, &before)] {
        let (diff, said, ..) = merged(before, after, true);
        assert_eq!(diff.different.len(), 2);
        assert_eq!(said.len(), 40_000);
    }
}

#[test]
fn what_came_and_went_is_counted_unread_unless_each_document_is_to_be_told() {
    let data: Data = (0..500).map(|n| (n, n)).collect();
    let part = Part::from([(Uuid([1; 16]), made("db.one", &data))]);
    let (diff, _, one, _) = merged(&part, &Part::new(), false);
    let [went] = &diff.different[..] else { panic!("{diff:?}") };
    assert_eq!((went.before.as_deref(), went.after.as_deref()), (Some("db.one"), None));
    assert_eq!(went.documents, Documents::Compared(Counts { removed: 500, ..Counts::default() }));
    assert!(one.read.is_empty() && diff.reading.bytes_skipped > 0);
    let (diff, said, one, _) = merged(&part, &Part::new(), true);
    assert!(said.len() == 500 && !one.read.is_empty() && diff.reading.bytes_skipped == 0);
}

/// The other side's documents are all before or after it.
#[test]
fn a_chunk_that_falls_between_two_documents_of_the_other_side_is_not_read() {
    let one_chunk = |numbers: &[u32]| {
        let documents = numbers.iter().map(|n| document(*n, *n, false)).collect();
        let chunks = vec![Piece { documents, asks: true }];
        Part::from([(Uuid([1; 16]), Made { collection: collection("db.one"), chunks, tree: false })])
    };
    let (wide, within) = (one_chunk(&[5, 30]), one_chunk(&[10, 20]));
    for (before, after) in [(&wide, &within), (&within, &wide)] {
        let (diff, _, one, other) = merged(before, after, false);
        let counts = Counts { added: 2, removed: 2, ..Counts::default() };
        assert_eq!(diff.different[0].documents, Documents::Compared(counts));
        assert_eq!(one.read.len() + other.read.len(), 1);
    }
}

#[test]
fn a_collection_is_known_by_its_uuid_and_what_is_not_the_same_of_it_is_named() {
    let data: Data = (0..10).map(|n| (n, n)).collect();
    let (mut was, mut is) = (made("db.old", &data), made("db.new", &data));
    let index = |key: &str| Fields::from([("key".to_owned(), RawBson::String(key.into()))]);
    was.collection.options.extend([("a".into(), RawBson::Int32(1)), ("b".into(), RawBson::Int32(1))]);
    is.collection.options.extend([("b".into(), RawBson::Int32(2)), ("c".into(), RawBson::Int32(1))]);
    was.collection.indexes.extend([("went".into(), index("x")), ("other".into(), index("x"))]);
    is.collection.indexes.extend([("came".into(), index("x")), ("other".into(), index("y"))]);
    let uuid = Uuid([1; 16]);
    let (diff, ..) = merged(&Part::from([(uuid, was)]), &Part::from([(uuid, is)]), false);
    let named = |name: &str| vec![name.to_owned()];
    let expected = CollectionDiff {
        uuid,
        before: Some("db.old".into()),
        after: Some("db.new".into()),
        documents: Documents::Compared(Counts { same: 10, ..Counts::default() }),
        options: ["a", "b", "c"].map(str::to_owned).to_vec(),
        indexes: Indexes { added: named("came"), removed: named("went"), changed: named("other") },
    };
    assert_eq!((diff.different, diff.same), (vec![expected], 0));
}

/// Their documents come in the order of insertion.
#[test]
fn capped_collections_are_the_same_or_not() {
    let in_order = |numbers: &[u32], asks: bool, tree: bool| {
        let documents = numbers.iter().map(|n| document(*n, *n, false)).collect();
        let made = Made { collection: capped("db.capped"), chunks: vec![Piece { documents, asks }], tree };
        Part::from([(Uuid([1; 16]), made)])
    };
    let before = in_order(&[3, 1, 2], true, true);
    for (asks, tree) in [(true, true), (true, false), (false, false)] {
        let (diff, ..) = merged(&before, &in_order(&[3, 1, 2], asks, tree), true);
        assert_eq!((diff.different, diff.same), (Vec::new(), 1), "{asks} {tree}");
        let (diff, said, ..) = merged(&before, &in_order(&[1, 2, 4, 0], asks, tree), true);
        let [different] = &diff.different[..] else { panic!("{diff:?}") };
        assert_eq!(different.documents, Documents::Digested { before: 3, after: 4, same: false });
        assert!(said.is_empty());
    }
}

/// A side that fails in the middle ends the other, which waits to hand over more, or for an answer.
#[test]
fn when_one_side_fails_the_other_is_let_go() {
    let data: Data = (0..20_000).map(|n| (n, n)).collect();
    for asks in [true, false] {
        for fails_first in [true, false] {
            let whole = Part::from([(
                Uuid([1; 16]),
                Made { chunks: cut(&data, false, || asks), tree: asks, ..made("db.one", &data) },
            )]);
            let ((mut left, mine), (mut right, theirs)) = (connected(false), connected(false));
            let (failing, going) = if fails_first { (mine, theirs) } else { (theirs, mine) };
            thread::scope(|scope| {
                scope.spawn(move || {
                    let mut sink = failing;
                    sink.begin(Uuid([1; 16]), &collection("db.one"), None).unwrap();
                });
                let going = scope.spawn(|| play(&whole, going));
                let merged = merge(&mut left, &mut right, None);
                assert!(matches!(merged, Err(SnapshotError::Stopped)), "{merged:?}");
                drop((left, right));
                assert!(matches!(joined(going), Err(SnapshotError::Stopped)));
            });
        }
    }
}

#[test]
fn when_nobody_can_be_told_any_more_both_sides_end() {
    let data: Data = (0..20_000).map(|n| (n, n)).collect();
    let part = Part::from([(Uuid([1; 16]), made("db.one", &data))]);
    let other = Part::from([(Uuid([2; 16]), made("db.other", &data))]);
    let ((mut left, mine), (mut right, theirs)) = (connected(true), connected(true));
    thread::scope(|scope| {
        let one = scope.spawn(|| play(&part, mine));
        let other = scope.spawn(|| play(&other, theirs));
        let mut gone = |_: Change, _: &str, _: &RawBson| Err(io::ErrorKind::BrokenPipe.into());
        let merged = merge(&mut left, &mut right, Some(&mut gone));
        assert!(matches!(merged, Err(SnapshotError::Output { .. })), "{merged:?}");
        drop((left, right));
        assert!(matches!(joined(one), Err(SnapshotError::Stopped)));
        assert!(matches!(joined(other), Err(SnapshotError::Stopped)));
    });
}
