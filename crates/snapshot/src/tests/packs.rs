use super::*;
use crate::pack::{Limits, MAX_ITEM, MAX_ITEMS, PackWriter};

fn items() -> Vec<Vec<u8>> {
    (1..=5).map(|n| document(n, &"x".repeat(100 * n as usize)).repeat(n as usize)).collect()
}

fn pack() -> Vec<u8> {
    let mut writer = PackWriter::new(3).unwrap();
    for bytes in items() {
        writer.add(ContentId::of(&bytes), bytes.len(), &bytes).unwrap();
    }
    writer.seal()
}

fn open(bytes: &[u8]) -> Result<PackReader, PackError> {
    PackReader::open(Bytes::copy_from_slice(bytes), Limits::default())
}

fn get(bytes: &[u8], id: ContentId) -> Result<pack::Item, PackError> {
    open(bytes)?.get(id, &mut Unpacker::new().unwrap())
}

#[test]
fn what_is_in_a_pack_is_found() {
    let (bytes, items) = (pack(), items());
    for content in &items {
        let id = ContentId::of(content);
        assert_eq!(get(&bytes, id), Ok(pack::Item { id, content: content.clone().into(), places: Bytes::new() }));
    }
    let listed: Vec<_> = open(&bytes).unwrap().items().collect();
    assert_eq!(listed, items.iter().map(|content| (ContentId::of(content), false)).collect::<Vec<_>>());
    let other = ContentId::of(b"other");
    assert_eq!(get(&bytes, other), Err(PackError::Missing(other)));
}

#[test]
fn an_item_is_in_a_pack_once_and_a_sealed_pack_is_followed_by_an_empty_one() {
    let mut writer = PackWriter::new(3).unwrap();
    let (one, two) = (document(1, "x"), document(2, "y"));
    let id = ContentId::of(&one);
    let first = writer.add(id, one.len(), &one).unwrap();
    assert_eq!((writer.add(id, one.len(), &one).unwrap(), writer.stored_bytes()), (first, first as usize));
    assert!(writer.add(ContentId::of(b""), 0, b"").is_err());
    assert!(writer.add(ContentId::of(&two), two.len() + 1, &two).is_err());
    let bytes = writer.seal();
    assert_eq!((open(&bytes).unwrap().items().count(), writer.is_empty(), writer.stored_bytes()), (1, true, 0));
    writer.add(ContentId::of(&two), two.len(), &two).unwrap();
    assert_eq!(open(&writer.seal()).unwrap().items().count(), 1);
}

#[test]
fn other_files_and_versions_are_told_apart() {
    let good = pack();
    let text = |bytes: &[u8]| open(bytes).unwrap_err().to_string();
    assert_eq!(text(b"stillpc"), "this is no pack: it does not begin as one");
    let with = |at: usize, number: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    assert_eq!(text(&with(8, 2)), "this pack is of format 2, and this program reads format 1 only");
    for items in [0, MAX_ITEMS as u32 + 1, u32::MAX] {
        assert!(text(&with(12, items)).contains("between 1 and 16384"));
    }
    assert_eq!(text(&good[..100]), "the pack ends after 100 bytes, in its index");
    // The lengths of the first item: stored, raw, content.
    assert!(text(&with(48, 0)).ends_with("it is empty"));
    assert!(text(&with(48, u32::MAX)).ends_with("it ends after the end"));
    assert!(text(&with(52, MAX_ITEM as u32 + 1)).ends_with("and the limit is 25231360"));
    assert!(text(&with(52, 10)).ends_with("its content is longer than all of it"));
    assert!(text(&with(56, 0)).ends_with("it is empty"));
    assert!(text(&[&good[..], b"x"].concat()).ends_with("something follows it, the last"));
    let mut twice = good.clone();
    twice.copy_within(16..48, 60);
    assert_eq!(text(&twice), "item 1 of the pack contradicts the rest of it: it has the id of another");
    assert!((0..good.len()).all(|length| open(&good[..length]).is_err()));
}

#[test]
fn items_that_are_not_what_the_index_says_are_refused() {
    let (good, items) = (pack(), items());
    let id = ContentId::of(&items[0]);
    let text = |bytes: &[u8], id| get(bytes, id).unwrap_err().to_string();
    let mut bytes = good.clone();
    bytes[16] ^= 1;
    let mut other = id;
    other.0[0] ^= 1;
    assert!(text(&bytes, other).ends_with("its content has another hash"));
    let mut bytes = good.clone();
    bytes[16 + 5 * 44] = 0x1e;
    assert!(text(&bytes, id).ends_with("it is not one zstd frame"));
    let mut bytes = good.clone();
    bytes[52] += 1;
    assert!(text(&bytes, id).contains("its frame does not say that it is"));
    let limits = Limits { item: 100 };
    assert!(matches!(PackReader::open(good.into(), limits), Err(PackError::ItemLength { item: 0, limit: 100, .. })));
}

#[test]
fn a_writer_waits_for_the_ids_that_nodes_need() {
    let mut vault = Vault::default();
    let mut writer = Writer::new(3, 1).unwrap();
    let mut tree = TreeBuilder::new(Layout::Sorted);
    for (entry, documents) in chunks(SMALL, &some(0..40)) {
        writer.add(&mut tree, &Chunk { entry, documents: &documents }).unwrap();
    }
    let root = writer.end(tree).unwrap();
    writer.finish();
    let mut sealed = Vec::new();
    while let Next::Store(pack) = writer.advance().unwrap() {
        sealed.push(pack);
    }
    assert_eq!((writer.advance().unwrap(), writer.root(&root)), (Next::Idle, None));
    // In another order than they came.
    for pack in sealed.into_iter().rev() {
        assert_eq!(writer.advance().unwrap(), Next::Idle);
        let id = vault.put(pack.bytes);
        writer.stored(pack.number, id).unwrap();
    }
    let Next::Store(Sealed { number, bytes }) = writer.advance().unwrap() else { panic!("the nodes are left") };
    assert_eq!(writer.advance().unwrap(), Next::Idle);
    writer.stored(number, vault.put(bytes)).unwrap();
    assert_eq!(writer.advance().unwrap(), Next::Done);
    let root = writer.root(&root).unwrap();
    assert_eq!(vault.read(Some(&root)).len(), 40);
}
