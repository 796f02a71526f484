use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::cut::{FULL, LARGE, MAX_DOCUMENT, TARGET};

fn ids(documents: &Documents) -> HashSet<ContentId> {
    chunks(SMALL, documents).into_iter().map(|(entry, _)| entry.id).collect()
}

#[test]
fn a_digest_is_the_same_in_any_order_and_of_any_parts() {
    let documents: Vec<Vec<u8>> = (0..100).map(|id| document(id, "x")).collect();
    let forward: Digest = documents.iter().map(|document| Digest::of(document)).sum();
    let backward: Digest = documents.iter().rev().map(|document| Digest::of(document)).sum();
    let (one, two) = documents.split_at(30);
    let parts = [two, one].map(|part| part.iter().map(|document| Digest::of(document)).sum::<Digest>());
    assert_eq!((forward, forward), (backward, parts.into_iter().sum()));
    assert_eq!((forward.documents, forward.bytes), (100, documents.iter().map(|document| document.len() as u64).sum()));
    assert_eq!(Digest::EMPTY, [].into_iter().sum());
}

/// Known answers, so that what was stored compares equal for ever.
#[test]
fn a_digest_is_of_the_sum_of_the_hashes() {
    let (empty, abc) = (0x99aa_06d3_0147_98d8_6001_c324_468d_497f, 0x06b0_5ab6_733a_6185_78af_5f94_892f_3950);
    assert_eq!((Digest::of(b"").hash, Digest::of(b"abc").hash), (empty, abc));
    let mut sum = Digest { hash: u128::MAX - abc + 1, ..Digest::EMPTY };
    sum.add(b"abc");
    assert_eq!((sum.hash, sum.documents, sum.bytes), (0, 1, 3), "the sum is not modulo 2^128");
}

#[test]
fn a_rule_suits_its_documents() {
    let bits = |bytes| Cut::for_average(bytes).bits();
    assert_eq!([0, 5, 32, 600, 4096, TARGET / 2, TARGET, u64::MAX].map(bits), [16, 16, 13, 9, 6, 1, 0, 0]);
    assert_eq!((Cut::new(17).map(Cut::bits), Cut::new(18)), (Some(17), None));
}

#[test]
fn a_chunk_is_neither_very_short_nor_very_long() {
    let cut = Cut::new(10).unwrap();
    let hits = |documents, bytes| (0..100_000_u32).filter(|n| cut.before(&n.to_be_bytes(), documents, bytes)).count();
    assert_eq!((hits(0, 0), hits(127, 1 << 19), hits(1, FULL - 1)), (0, 0, 0));
    assert!((60..140).contains(&hits(128, 1 << 19)), "a 1024th");
    assert!((1300..1800).contains(&hits(128, LARGE)), "a 64th");
    assert_eq!((hits(1, FULL), hits(128, FULL)), (100_000, 100_000));
}

#[test]
fn what_is_known_of_a_chunk_tells_whether_another_ends_before_it() {
    for n in 0..2000_u32 {
        let key = n.to_be_bytes();
        for (documents, bytes) in [(0, 0), (1, 100), (128, 1 << 19), (500, LARGE), (1, FULL)] {
            assert_eq!(
                SMALL.before_chunk(&KeyBound::of(&key), documents, bytes),
                Some(SMALL.before(&key, documents, bytes))
            );
        }
    }
    let long = KeyBound::of(&[7; 300]);
    assert_eq!((long.bytes().len(), SMALL.before_chunk(&long, 9, 100)), (256, None));
    assert_eq!((SMALL.before_chunk(&long, 0, 0), SMALL.before_chunk(&long, 9, FULL)), (Some(false), Some(true)));
}

#[test]
fn long_documents_are_cut_and_the_longest_is_taken() {
    let filler = MAX_DOCUMENT - document(0, "").len();
    let longest = document(1, &"x".repeat(filler));
    let documents: Documents =
        (0..40).map(|id| (id, if id == 20 { longest.clone() } else { document(id, &"y".repeat(1 << 20)) })).collect();
    let mut builder = ChunkBuilder::new(Cut::new(17).unwrap(), Layout::Sorted);
    let mut lengths = Vec::new();
    for (id, document) in &documents {
        lengths.extend(builder.push(&id.to_be_bytes(), document).unwrap().map(|chunk| chunk.documents.len()));
    }
    lengths.extend(builder.flush().map(|chunk| chunk.documents.len()));
    assert_eq!(lengths.iter().sum::<usize>(), documents.values().map(Vec::len).sum::<usize>());
    assert!(lengths.len() >= 4 && lengths.iter().all(|length| *length < FULL as usize + MAX_DOCUMENT));
    let error = builder.push(&[9; 9], &[longest, vec![0]].concat()).unwrap_err().to_string();
    assert_eq!(error, "document 40 of the collection is 16842753 bytes long, and the limit is 16842752");
}

#[test]
fn documents_that_cannot_be_are_not_taken() {
    let mut builder = ChunkBuilder::new(SMALL, Layout::Sorted);
    builder.push(b"b", &document(1, "x")).unwrap();
    for key in [b"a", b"b"] {
        assert_eq!(builder.push(key, &document(2, "x")), Err(ChunkError::Order { document: 1 }));
    }
    for bytes in [&b""[..], b"nonsense", b"\x05\0\0\0\x01", b"\x05\0\0\0\0\0"] {
        assert_eq!(builder.push(b"c", bytes), Err(ChunkError::NoDocument { document: 1 }));
    }
    assert_eq!((builder.waiting().0, builder.is_empty()), (1, false));
    let entry = builder.flush().unwrap().entry;
    assert_eq!((entry.first, entry.last), (KeyBound::of(b"b"), KeyBound::of(b"b")));
    assert_eq!(builder.flush(), None);
    assert!(builder.is_empty());

    let mut builder = ChunkBuilder::new(SMALL, Layout::Insertion);
    for key in [b"b", b"a", b"a"] {
        builder.push(key, &document(1, "x")).unwrap();
    }
    assert_eq!(builder.waiting().0, 3);
}

#[test]
fn a_chunk_is_walked_up_to_what_is_no_document() {
    let good = [document(1, "x"), document(2, "yy")];
    let bytes = good.concat();
    assert!(documents(&bytes).map(Result::unwrap).eq(good.iter().map(Vec::as_slice)));
    let mut cut = documents(&bytes[..bytes.len() - 1]);
    assert_eq!(
        (cut.next(), cut.next(), cut.next()),
        (Some(Ok(&good[0][..])), Some(Err(chunk::NoDocument { at: good[0].len() })), None)
    );
    assert_eq!(documents(b"").next(), None);
}

#[derive(Debug, Clone)]
enum Change {
    Insert(u32),
    Delete(prop::sample::Index),
    Update(prop::sample::Index, String),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (0..100_000_u32).prop_map(Change::Insert),
        any::<prop::sample::Index>().prop_map(Change::Delete),
        (any::<prop::sample::Index>(), "[a-z]{0,40}").prop_map(|(at, text)| Change::Update(at, text)),
    ];
    prop::collection::vec(change, 0..6)
}

/// Also used for trees.
pub(super) fn changed_documents() -> impl Strategy<Value = (Documents, Documents, usize)> {
    (prop::collection::btree_set(0..100_000_u32, 0..600), changes()).prop_map(|(ids, changes)| {
        let before = some(ids);
        let mut after = before.clone();
        for change in &changes {
            let at = |index: &prop::sample::Index| {
                let all: Vec<u32> = after.keys().copied().collect();
                (!all.is_empty()).then(|| *index.get(&all))
            };
            match change {
                Change::Insert(id) => drop(after.insert(*id, document(*id, "new"))),
                Change::Delete(index) => drop(at(index).map(|id| after.remove(&id))),
                Change::Update(index, text) => drop(at(index).map(|id| after.insert(id, document(id, text)))),
            }
        }
        (before, after, changes.len())
    })
}

proptest! {
    #[test]
    fn chunks_are_the_documents((documents, _, _) in changed_documents()) {
        let chunks = chunks(SMALL, &documents);
        let all: Vec<u8> = chunks.iter().flat_map(|(_, documents)| documents.clone()).collect();
        prop_assert_eq!(all, documents.values().flatten().copied().collect::<Vec<u8>>());
        for (entry, documents) in &chunks {
            let digest = crate::documents(documents).map(|document| Digest::of(document.unwrap())).sum::<Digest>();
            prop_assert_eq!((entry.id, entry.digest), (ContentId::of(documents), digest));
        }
        prop_assert!(chunks.windows(2).all(|pair| pair[0].0.last < pair[1].0.first));
    }

    #[test]
    fn few_chunks_change_with_a_document((before, after, changes) in changed_documents()) {
        let new = ids(&after).difference(&ids(&before)).count();
        // Nearly always two or less for each. With this minimum of one document no boundary follows another.
        prop_assert!(new <= 3 * changes, "{} new chunks for {} changes", new, changes);
    }

    #[test]
    fn an_update_moves_no_boundary((before, _, _) in changed_documents(), text in "[a-z]{0,200}", index: prop::sample::Index) {
        prop_assume!(!before.is_empty());
        let all: Vec<u32> = before.keys().copied().collect();
        let id = *index.get(&all);
        let mut after = before.clone();
        after.insert(id, document(id, &text));
        let firsts = |documents| chunks(SMALL, documents).into_iter().map(|(entry, _)| entry.first).collect::<Vec<_>>();
        prop_assert_eq!(firsts(&before), firsts(&after));
    }

    #[test]
    fn a_digest_tells_every_change((before, after, _) in changed_documents()) {
        let digest = |documents: &Documents| documents.values().map(|document| Digest::of(document)).sum::<Digest>();
        prop_assert_eq!(before == after, digest(&before) == digest(&after));
    }
}

/// With the rule of a real collection, which has a minimum: the mean, and the worst.
#[test]
fn few_chunks_change_in_a_long_collection() {
    let cut = Cut::new(6).unwrap();
    let before = some((0..30_000).map(|id| 3 * id));
    let known: HashSet<ContentId> = chunks(cut, &before).into_iter().map(|(entry, _)| entry.id).collect();
    let mut all = 0;
    for n in 0..30_u32 {
        let mut after = before.clone();
        let id = 3 * (n * 997 % 30_000);
        match n % 3 {
            0 => drop(after.insert(id + 1, document(id + 1, "new"))),
            1 => drop(after.remove(&id)),
            _ => drop(after.insert(id, document(id, "updated"))),
        }
        let new = chunks(cut, &after).into_iter().filter(|(entry, _)| !known.contains(&entry.id)).count();
        assert!(new <= 4, "{new} for change {n}");
        all += new;
    }
    assert!(all <= 40, "{all} for 30 changes");
}
