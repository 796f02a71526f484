//! A pack, a node, a manifest or its document: the bytes are taken as each of them, and as documents.

use bytes::Bytes;
use stillpoint_core::stream::BlobId;
use stillpoint_snapshot::pack::{Item, Limits, PackWriter};
use stillpoint_snapshot::{
    ChunkBuilder, ContentId, Cut, Diff, Digest, Layout, Manifest, Next, Node, PackReader, Reference, Root, Side, Step,
    TreeBuilder, Unpacker, Walk, Writer, documents,
};

/// Less than the format's, so that a reader that went beyond them would be seen to.
const LIMITS: Limits = Limits { item: 1 << 20 };
const BLOB: BlobId = BlobId([7; 32]);

pub fn check(data: &[u8]) {
    pack(data);
    for places in [0, 36, 72] {
        if let Some(content) = data.len().checked_sub(places) {
            let bytes = Bytes::copy_from_slice(data);
            node(&Item {
                id: ContentId::of(&data[..content]),
                content: bytes.slice(..content),
                places: bytes.slice(content..),
            });
        }
    }
    if let Ok(found) = Manifest::read(data, LIMITS.item) {
        manifest(found);
    }
    if let Ok(found) = Manifest::read_document(data) {
        manifest(found);
    }
    stored(data);
}

fn pack(data: &[u8]) {
    let Ok(reader) = PackReader::open(Bytes::copy_from_slice(data), LIMITS) else { return };
    let mut unpacker = Unpacker::new().expect("memory for it");
    let mut writer = PackWriter::new(1).expect("level 1");
    let mut found = Vec::new();
    for (id, is_node) in reader.items() {
        let Ok(item) = reader.get(id, &mut unpacker) else { continue };
        assert_eq!((item.id, ContentId::of(&item.content)), (id, id));
        assert_eq!(is_node, !item.places.is_empty());
        assert!(item.content.len() + item.places.len() <= LIMITS.item);
        node(&item);
        let bytes = [&item.content[..], &item.places].concat();
        writer.add(id, item.content.len(), &bytes).expect("as it was read");
        found.push(item);
    }
    assert!(reader.get(ContentId::of(b"not there"), &mut unpacker).is_err());
    if !found.is_empty() {
        let again = PackReader::open(writer.seal().into(), LIMITS).expect("as it was written");
        assert!(found.iter().all(|item| again.get(item.id, &mut unpacker).as_ref() == Ok(item)));
    }
}

fn node(item: &Item) {
    let Ok(node) = Node::read(item, BLOB) else { return };
    let (first, last) = (&node.references[0].entry, &node.references[node.references.len() - 1].entry);
    let mut entry = first.clone();
    (entry.id, entry.last, entry.digest) = (node.id, last.last.clone(), node.digest());
    let place = node.references[0].place;
    let root = Root { layout: node.layout, level: node.level, reference: Reference { entry, place } };
    let mut walk = Walk::all(Some(&root));
    assert!(matches!(walk.step(), Step::Need(_)));
    walk.give(node.clone()).expect("as it says");
    if node.level == 1 {
        let chunks = std::iter::from_fn(|| match walk.step() {
            Step::Item(chunk) => Some(chunk),
            _ => None,
        });
        assert!(chunks.eq(node.references.iter().cloned()));
        for key in [first.first.bytes(), last.last.bytes()] {
            let mut walk = Walk::lookup(Some(&root), key);
            assert!(matches!(walk.step(), Step::Need(_)));
            walk.give(node.clone()).expect("as it says");
            assert!(matches!(walk.step(), Step::Item(_)), "where its keys are");
        }
    }
    if node.layout == Layout::Sorted {
        let mut diff = Diff::new(Some(&root), None).expect("sorted");
        assert!(matches!(diff.step(), Step::Need(_)));
        diff.give(node.clone()).expect("as it says");
        assert!(!matches!(diff.step(), Step::Item((Side::Right, _)) | Step::End));
        assert_eq!(Diff::new(Some(&root), Some(&root)).expect("sorted").step(), Step::End);
    }
}

fn manifest(found: Manifest) {
    let bytes = found.write().expect("as it was read");
    assert_eq!(Manifest::read(&bytes, usize::MAX), Ok(found));
}

/// Whatever documents come are stored and read back.
fn stored(data: &[u8]) {
    let found: Vec<&[u8]> = documents(data).map_while(Result::ok).collect();
    if found.is_empty() {
        return;
    }
    let mut writer = Writer::new(1, 300).expect("level 1");
    let mut tree = TreeBuilder::new(Layout::Insertion);
    let mut builder = ChunkBuilder::new(Cut::new(2).expect("few bits"), Layout::Insertion);
    for document in &found {
        if let Some(chunk) = builder.push(document, document).expect("documents") {
            writer.add(&mut tree, &chunk).expect("memory for it");
        }
    }
    writer.add(&mut tree, &builder.flush().expect("the last")).expect("memory for it");
    let root = writer.end(tree).expect("not empty");
    writer.finish();
    let mut packs = Vec::new();
    loop {
        match writer.advance().expect("memory for it") {
            Next::Store(pack) => {
                let id = BlobId(ContentId::of(&pack.bytes).0);
                writer.stored(pack.number, id).expect("memory for it");
                packs.push((id, PackReader::open(pack.bytes.into(), Limits::default()).expect("as it was written")));
            }
            Next::Idle => panic!("it has all it needs"),
            Next::Done => break,
        }
    }
    let root = writer.root(&root).expect("it is done");
    assert_eq!(root.reference.entry.digest, found.iter().map(|document| Digest::of(document)).sum());
    let mut unpacker = Unpacker::new().expect("memory for it");
    let mut get = |reference: &Reference| {
        let (_, pack) = packs.iter().find(|(id, _)| *id == reference.place.pack).expect("a pack of these");
        pack.get(reference.entry.id, &mut unpacker).expect("it is there")
    };
    let (mut walk, mut read) = (Walk::all(Some(&root)), Vec::new());
    loop {
        match walk.step() {
            Step::Need(reference) => {
                let node = Node::read(&get(&reference), reference.place.pack).expect("as it was written");
                walk.give(node).expect("the one that was needed");
            }
            Step::Item(chunk) => read.extend_from_slice(&get(&chunk).content),
            Step::End => break,
        }
    }
    assert_eq!(read, found.concat());
}
