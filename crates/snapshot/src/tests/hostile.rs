//! Bytes that nobody wrote.

use proptest::prelude::*;

use super::*;
use crate::pack::{Item, Limits};

fn node() -> (Item, BlobId) {
    let mut vault = Vault::default();
    let root = vault.store(&some(0..40), DEFAULT_PACK).unwrap();
    (vault.item(&root.reference), root.reference.place.pack)
}

fn read(content: Vec<u8>, places: Vec<u8>) -> Result<Node, NodeError> {
    let id = ContentId::of(&content);
    Node::read(&Item { id, content: content.into(), places: places.into() }, BlobId([7; 32]))
}

#[test]
fn nodes_that_cannot_be_are_refused() {
    let (item, _) = node();
    let (content, places) = (item.content.to_vec(), item.places.to_vec());
    let good = read(content.clone(), places.clone()).unwrap();
    assert!(good.references.iter().all(|child| child.place.pack == BlobId([7; 32])), "all in its own pack");
    let text = |at: usize, bytes: &[u8]| {
        let mut content = content.clone();
        content[at..at + bytes.len()].copy_from_slice(bytes);
        read(content, places.clone()).unwrap_err().to_string()
    };
    assert_eq!(text(0, b"x"), "this is no node: it does not begin as one");
    assert_eq!(text(8, &[3]), "this node is of format 3, and this program reads format 2 only");
    assert_eq!(text(12, &[2]), "the node's layout is not what it can be");
    for level in [0, 16] {
        assert_eq!(text(13, &[level]), "the node's level is not what it can be");
    }
    for count in [0, 1025_u16] {
        assert_eq!(text(14, &count.to_le_bytes()), "the node's number of references is not what it can be");
    }
    let count = good.references.len() as u16;
    assert_eq!(text(14, &(count + 1).to_le_bytes()), format!("the node ends in its reference {count}"));
    assert!(text(14, &(count - 1).to_le_bytes()).ends_with("something follows it, the last"));
    // In the first reference: documents, bytes, the length of the first key and what it begins with.
    assert!(text(48, &0_u64.to_le_bytes()).ends_with("it is empty"));
    assert!(text(48, &u64::MAX.to_le_bytes()).ends_with("more documents than bytes"));
    assert!(text(56, &(1_u64 << 40).to_le_bytes()).ends_with("a chunk that is too long"));
    assert!(text(80, &257_u16.to_le_bytes()).starts_with("the node ends in its reference 0"));
    assert!(text(82, &[0xff]).ends_with("its last key is before its first"));
    assert!(
        text(88, &[0xff])
            .ends_with("reference 1 of the node contradicts the rest of it: it is not after the one before it")
    );
    let mut unplaced = places.clone();
    unplaced[32..36].fill(0);
    assert!(read(content.clone(), unplaced).unwrap_err().to_string().ends_with("it is empty"));
    assert!((0..content.len()).all(|length| read(content[..length].to_vec(), places.clone()).is_err()));
    assert!((0..places.len()).all(|length| read(content.clone(), places[..length].to_vec()).is_err()));
}

proptest! {
    #[test]
    fn a_pack_that_is_changed_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        in_index in any::<bool>(),
    ) {
        let mut vault = Vault::default();
        let root = vault.store(&some(0..60), DEFAULT_PACK).unwrap();
        let mut bytes = vault.packs[&root.reference.place.pack].to_vec();
        let end = if in_index { 16 + 44 } else { bytes.len() };
        for (at, byte) in changes {
            bytes[at.index(end)] = byte;
        }
        if let Ok(reader) = PackReader::open(bytes.into(), Limits::default()) {
            let mut unpacker = Unpacker::new().unwrap();
            for (id, _) in reader.items() {
                if let Ok(item) = reader.get(id, &mut unpacker) {
                    prop_assert_eq!(ContentId::of(&item.content), id);
                    let _ = Node::read(&item, BlobId([7; 32]));
                    let _ = documents(&item.content).count();
                }
            }
        }
    }

    #[test]
    fn a_node_that_is_changed_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        more in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let (item, _) = node();
        let mut content = item.content.to_vec();
        for (at, byte) in changes {
            let at = at.index(content.len());
            content[at] = byte;
        }
        if let Ok(node) = read(content, item.places.to_vec()) {
            prop_assert!(!node.references.is_empty());
            let _ = node.digest();
        }
        prop_assert!(read(more.clone(), more).is_err());
    }
}
