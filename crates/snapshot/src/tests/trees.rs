use std::collections::HashSet;

use proptest::prelude::*;

use super::chunks::changed_documents;
use super::*;
use crate::cut::FULL;

fn many() -> Documents {
    some((0..12_000).map(|id| 2 * id))
}

#[test]
fn a_small_collection_is_one_pack() {
    let mut vault = Vault::default();
    let root = vault.store(&some(0..40), DEFAULT_PACK).unwrap();
    assert_eq!((vault.packs.len(), root.level, root.reference.entry.digest.documents), (1, 1, 40));
    assert_eq!(vault.store(&Documents::new(), DEFAULT_PACK), None);
    assert_eq!((vault.packs.len(), vault.read(None)), (1, Vec::<Vec<u8>>::new()));
}

#[test]
fn a_long_collection_is_read_as_it_was_stored() {
    let documents = many();
    for pack_bytes in [1, 5_000, DEFAULT_PACK] {
        let mut vault = Vault::default();
        let root = vault.store(&documents, pack_bytes).unwrap();
        assert!(root.level >= 2, "{} levels", root.level);
        assert_eq!(vault.read(Some(&root)), documents.values().cloned().collect::<Vec<_>>());
        let whole = documents.values().map(|document| Digest::of(document)).sum::<Digest>();
        assert_eq!(root.reference.entry.digest, whole);
    }
}

#[test]
fn the_root_is_the_same_wherever_the_chunks_are() {
    let (mut one, mut other) = (Vault::default(), Vault::default());
    let (one, other) = (one.store(&many(), 700).unwrap(), other.store(&many(), 70_000).unwrap());
    assert_eq!((one.level, &one.reference.entry), (other.level, &other.reference.entry));
    assert_ne!(one.reference.place.pack, other.reference.place.pack);
}

#[test]
fn nodes_are_in_packs_without_chunks() {
    let mut vault = Vault::default();
    vault.store(&many(), 20_000).unwrap();
    let kinds = vault.packs.values().map(|bytes| {
        let reader = PackReader::open(bytes.clone(), pack::Limits::default()).unwrap();
        reader.items().map(|(_, node)| node).collect::<HashSet<bool>>()
    });
    let kinds: Vec<HashSet<bool>> = kinds.collect();
    assert!(kinds.len() > 10 && kinds.iter().any(|kind| *kind == HashSet::from([true])));
    assert!(kinds.iter().filter(|kind| kind.len() == 2).count() <= 1);
}

#[test]
fn a_lookup_reads_one_node_a_level() {
    let mut vault = Vault::default();
    let root = vault.store(&many(), DEFAULT_PACK).unwrap();
    for id in [0_u32, 2, 777, 12_344, 12_345, 23_998] {
        let (found, nodes) = vault.walk(Walk::lookup(Some(&root), &id.to_be_bytes()));
        assert!(found.len() <= 1 && nodes <= usize::from(root.level), "{id}");
        let held = found.iter().any(|chunk| {
            documents(&vault.item(chunk).content).any(|found| found.unwrap() == document(id, "as it was"))
        });
        assert_eq!(held, id % 2 == 0, "{id}");
    }
    let (found, nodes) = vault.walk(Walk::lookup(Some(&root), &[0xff]));
    assert_eq!((found, nodes), (Vec::new(), 0));
}

#[test]
fn keys_that_are_alike_for_long_are_found() {
    let key = |n: u32| [&[b'k'; 400][..], &n.to_be_bytes()].concat();
    let mut vault = Vault::default();
    let mut writer = Writer::new(DEFAULT_LEVEL, DEFAULT_PACK).unwrap();
    let mut tree = TreeBuilder::new(Layout::Sorted);
    let mut builder = ChunkBuilder::new(SMALL, Layout::Sorted);
    for n in 0..100 {
        if let Some(chunk) = builder.push(&key(n), &document(n, "x")).unwrap() {
            writer.add(&mut tree, &chunk).unwrap();
        }
    }
    writer.add(&mut tree, &builder.flush().unwrap()).unwrap();
    let root = writer.end(tree).unwrap();
    writer.finish();
    assert!(vault.serve(&mut writer));
    let root = writer.root(&root).unwrap();
    let (found, _) = vault.walk(Walk::lookup(Some(&root), &key(77)));
    assert!(found.len() > 5);
    assert_eq!(vault.walk(Walk::lookup(Some(&root), &[b'k'; 200])).0, []);
    assert_eq!(vault.diff(Some(&root), Some(&root)), (Vec::new(), 0));
}

#[test]
fn a_node_that_is_not_the_one_is_refused() {
    let mut vault = Vault::default();
    let root = vault.store(&many(), DEFAULT_PACK).unwrap();
    let node = vault.node(&root.reference);
    let mut walk = Walk::all(Some(&root));
    let child = vault.node(&node.references[0]);
    assert_eq!(walk.give(child.clone()), Err(TreeError::Other { given: child.id, needed: node.id }));
    for (change, what) in [
        (Node { level: 1, ..node.clone() }, "its level"),
        (Node { layout: Layout::Insertion, ..node.clone() }, "its layout"),
        (Node { references: node.references[1..].to_vec(), ..node.clone() }, "its digest"),
    ] {
        assert_eq!(walk.give(change), Err(TreeError::Contradiction { node: node.id, what }));
    }
    assert_eq!((walk.step(), walk.upcoming().count()), (Step::Need(root.reference.clone()), 1));
    walk.give(node.clone()).unwrap();
    assert_eq!(walk.upcoming().count(), node.references.len());
    assert_eq!(Walk::all(None).give(node.clone()), Err(TreeError::NotNeeded));
    assert_eq!(Diff::new(None, None).unwrap().give(node), Err(TreeError::NotNeeded));
    let capped = Root { layout: Layout::Insertion, ..root };
    assert!(matches!(Diff::new(Some(&capped), None), Err(TreeError::Incomparable)));
}

#[test]
fn a_diff_reads_only_what_differs() {
    let mut vault = Vault::default();
    let before = many();
    let mut after = before.clone();
    after.remove(&12_000);
    let (one, other) = (vault.store(&before, DEFAULT_PACK).unwrap(), vault.store(&after, DEFAULT_PACK).unwrap());
    let (found, nodes) = vault.diff(Some(&one), Some(&other));
    assert!(found.len() <= 4 && nodes <= 2 * usize::from(one.level) + 2, "{} chunks, {nodes} nodes", found.len());
    assert_eq!(vault.diff(Some(&one), Some(&one)), (Vec::new(), 0));
}

/// What the fold does: chunks that nothing changed in are kept, without being read.
pub(super) fn rebuild(
    vault: &mut Vault,
    root: Option<&Root>,
    before: &Documents,
    after: &Documents,
) -> (Option<Root>, usize) {
    let changed = |id: &u32| before.get(id) != after.get(id);
    let mut writer = Writer::new(DEFAULT_LEVEL, 3_000).unwrap();
    let mut tree = TreeBuilder::new(Layout::Sorted);
    let mut walk = Walk::all(root);
    let mut old = Vec::new();
    loop {
        match walk.step() {
            Step::Need(reference) => {
                let node = vault.node(&reference);
                tree.know(&node, &reference);
                walk.give(node).unwrap();
            }
            Step::Item(chunk) => old.push(chunk),
            Step::End => break,
        }
    }
    let mut builder = ChunkBuilder::new(SMALL, Layout::Sorted);
    let first = |chunk: &Reference| u32::from_be_bytes(chunk.entry.first.bytes().try_into().unwrap());
    let ranges = (0..old.len()).map(|n| {
        let from = if n == 0 { 0 } else { first(&old[n]) };
        (from, old.get(n + 1).map_or(u32::MAX, first))
    });
    let mut ranges: Vec<(u32, u32)> = ranges.collect();
    if ranges.is_empty() {
        ranges.push((0, u32::MAX));
    }
    let (mut kept, mut held): (usize, Option<&Reference>) = (0, None);
    for (n, (from, to)) in ranges.into_iter().enumerate() {
        let clean = n < old.len() && !before.range(from..to).chain(after.range(from..to)).any(|(id, _)| changed(id));
        let begins = old.get(n).is_some_and(|chunk| match held {
            Some(held) => {
                let Digest { documents, bytes, .. } = held.entry.digest;
                SMALL.before_chunk(&chunk.entry.first, documents, bytes) == Some(true)
            }
            None => builder.is_empty() || builder.ends_before(chunk.entry.first.whole().unwrap()),
        });
        if clean && begins {
            if let Some(chunk) = builder.flush() {
                writer.add(&mut tree, &chunk).unwrap();
            }
            if let Some(chunk) = held.replace(&old[n]) {
                kept += 1;
                writer.keep(&mut tree, chunk);
            }
            continue;
        }
        let next = after.range(from..to).next().map(|(id, _)| *id);
        let Some(next) = next else { continue };
        if let Some(chunk) = held.take() {
            let digest = chunk.entry.digest;
            if SMALL.before(&next.to_be_bytes(), digest.documents, digest.bytes) {
                kept += 1;
                writer.keep(&mut tree, chunk);
            } else {
                let first = first(chunk);
                let last = u32::from_be_bytes(chunk.entry.last.bytes().try_into().unwrap());
                for (id, document) in after.range(first..=last) {
                    assert!(builder.push(&id.to_be_bytes(), document).unwrap().is_none());
                }
            }
        }
        for (id, document) in after.range(from..to) {
            if let Some(chunk) = builder.push(&id.to_be_bytes(), document).unwrap() {
                writer.add(&mut tree, &chunk).unwrap();
            }
        }
        vault.serve(&mut writer);
    }
    if let Some(chunk) = held {
        kept += 1;
        writer.keep(&mut tree, chunk);
    }
    if let Some(chunk) = builder.flush() {
        writer.add(&mut tree, &chunk).unwrap();
    }
    let root = writer.end(tree);
    writer.finish();
    assert!(vault.serve(&mut writer));
    (root.map(|root| writer.root(&root).unwrap()), kept)
}

#[test]
fn a_snapshot_without_changes_stores_nothing() {
    let mut vault = Vault::default();
    let documents = many();
    let root = vault.store(&documents, 10_000).unwrap();
    let packs = vault.packs.len();
    let (again, kept) = rebuild(&mut vault, Some(&root), &documents, &documents);
    assert_eq!((again.as_ref(), vault.packs.len()), (Some(&root), packs));
    assert_eq!(kept, vault.all(Some(&root)).len());
}

#[test]
fn one_change_stores_one_pack() {
    let mut vault = Vault::default();
    let before = many();
    let root = vault.store(&before, 10_000).unwrap();
    let packs = vault.packs.len();
    let mut after = before.clone();
    after.insert(6_000, document(6_000, "another"));
    let (new, _) = rebuild(&mut vault, Some(&root), &before, &after);
    assert!(vault.packs.len() - packs <= 2);
    assert_eq!(vault.read(new.as_ref()), after.values().cloned().collect::<Vec<_>>());
    assert!(vault.packs.values().all(|pack| pack.len() < FULL as usize));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_diff_is_what_a_naive_diff_is((before, after, _) in changed_documents(), pack_bytes in 1..5000_usize) {
        let mut vault = Vault::default();
        let (left, right) = (vault.store(&before, pack_bytes), vault.store(&after, 5000 - pack_bytes));
        let (found, _) = vault.diff(left.as_ref(), right.as_ref());
        let (lefts, rights) = (vault.all(left.as_ref()), vault.all(right.as_ref()));
        let only = |these: &[Reference], those: &[Reference]| -> Vec<ContentId> {
            let those: HashSet<ContentId> = those.iter().map(|chunk| chunk.entry.id).collect();
            these.iter().map(|chunk| chunk.entry.id).filter(|id| !those.contains(id)).collect()
        };
        let of = |side| found.iter().filter(|(of, _)| *of == side).map(|(_, chunk)| chunk.entry.id).collect::<Vec<_>>();
        prop_assert_eq!(of(Side::Left), only(&lefts, &rights));
        prop_assert_eq!(of(Side::Right), only(&rights, &lefts));
        prop_assert!(found.windows(2).all(|pair| pair[0].1.entry.first <= pair[1].1.entry.first));
    }

    #[test]
    fn a_range_has_all_its_documents((documents, _, _) in changed_documents(), a in 0..100_000_u32, b in 0..100_000_u32) {
        let mut vault = Vault::default();
        let root = vault.store(&documents, 500);
        let (from, to) = (a.min(b), a.max(b));
        let (found, _) = vault.walk(Walk::range(root.as_ref(), Some(&from.to_be_bytes()), Some(&to.to_be_bytes())));
        let wanted = |chunk: &Reference| {
            chunk.entry.last.bytes() >= &from.to_be_bytes()[..] && chunk.entry.first.bytes() <= &to.to_be_bytes()[..]
        };
        prop_assert_eq!(found, vault.all(root.as_ref()).into_iter().filter(wanted).collect::<Vec<_>>());
    }

    #[test]
    fn a_snapshot_made_of_the_last_is_the_one_made_of_nothing((before, after, _) in changed_documents()) {
        let mut vault = Vault::default();
        let root = vault.store(&before, 2000);
        let (rebuilt, _) = rebuild(&mut vault, root.as_ref(), &before, &after);
        prop_assert_eq!(vault.read(rebuilt.as_ref()), after.values().cloned().collect::<Vec<_>>());
        let whole = Vault::default().store(&after, 2000);
        let entry = |root: &Option<Root>| root.as_ref().map(|root| (root.level, root.reference.entry.clone()));
        prop_assert_eq!(entry(&rebuilt), entry(&whole));
    }
}
