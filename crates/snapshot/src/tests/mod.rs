//! A vault in memory, and collections to put into it.

mod chunks;
mod hostile;
mod manifests;
mod measure;
mod packs;
mod shared;
mod trees;

use std::collections::{BTreeMap, HashMap};

use bson::doc;
use bytes::Bytes;
use stillpoint_core::stream::BlobId;

use crate::writer::{DEFAULT_LEVEL, DEFAULT_PACK};
use crate::*;

/// A collection: keys that sort as their numbers, and documents.
type Documents = BTreeMap<u32, Vec<u8>>;

/// Four documents a chunk, so that few make many.
const SMALL: Cut = Cut::new(2).unwrap();

fn document(id: u32, text: &str) -> Vec<u8> {
    doc! {"_id": i64::from(id), "text": text}.to_vec().unwrap()
}

fn some(ids: impl IntoIterator<Item = u32>) -> Documents {
    ids.into_iter().map(|id| (id, document(id, "as it was"))).collect()
}

fn chunks(cut: Cut, documents: &Documents) -> Vec<(Entry, Vec<u8>)> {
    let mut builder = ChunkBuilder::new(cut, Layout::Sorted);
    let mut chunks = Vec::new();
    for (id, document) in documents {
        let chunk = builder.push(&id.to_be_bytes(), document).unwrap();
        chunks.extend(chunk.map(|chunk| (chunk.entry, chunk.documents.to_vec())));
    }
    chunks.extend(builder.flush().map(|chunk| (chunk.entry, chunk.documents.to_vec())));
    chunks
}

/// What the packs are in.
#[derive(Default)]
struct Vault {
    packs: HashMap<BlobId, Bytes>,
    readers: HashMap<BlobId, PackReader>,
}

impl Vault {
    fn put(&mut self, bytes: Vec<u8>) -> BlobId {
        let id = BlobId(*blake3::hash(&bytes).as_bytes());
        let bytes = Bytes::from(bytes);
        self.readers.insert(id, PackReader::open(bytes.clone(), pack::Limits::default()).unwrap());
        self.packs.insert(id, bytes);
        id
    }

    /// Does what a writer wants, until it wants nothing.
    fn serve(&mut self, writer: &mut Writer) -> bool {
        loop {
            match writer.advance().unwrap() {
                Next::Store(Sealed { number, bytes }) => {
                    let id = self.put(bytes);
                    writer.stored(number, id).unwrap();
                }
                Next::Idle => return false,
                Next::Done => return true,
            }
        }
    }

    fn item(&self, reference: &Reference) -> pack::Item {
        self.readers[&reference.place.pack].get(reference.entry.id, &mut Unpacker::new().unwrap()).unwrap()
    }

    fn node(&self, reference: &Reference) -> Node {
        Node::read(&self.item(reference), reference.place.pack).unwrap()
    }

    /// A tree of these documents, all stored.
    fn store(&mut self, documents: &Documents, pack_bytes: usize) -> Option<Root> {
        let mut writer = Writer::new(DEFAULT_LEVEL, pack_bytes).unwrap();
        let mut tree = TreeBuilder::new(Layout::Sorted);
        for (entry, documents) in chunks(SMALL, documents) {
            writer.add(&mut tree, &Chunk { entry, documents: &documents }).unwrap();
            self.serve(&mut writer);
        }
        let root = writer.end(tree);
        writer.finish();
        assert!(self.serve(&mut writer));
        root.map(|root| writer.root(&root).unwrap())
    }

    /// The chunks of a walk, and how many nodes it needed.
    fn walk(&self, mut walk: Walk) -> (Vec<Reference>, usize) {
        let (mut found, mut nodes) = (Vec::new(), 0);
        loop {
            match walk.step() {
                Step::Need(reference) => {
                    nodes += 1;
                    walk.give(self.node(&reference)).unwrap();
                }
                Step::Item(chunk) => found.push(chunk),
                Step::End => return (found, nodes),
            }
        }
    }

    fn all(&self, root: Option<&Root>) -> Vec<Reference> {
        self.walk(Walk::all(root)).0
    }

    /// All documents of a tree, each chunk checked against its reference.
    fn read(&self, root: Option<&Root>) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for chunk in self.all(root) {
            let item = self.item(&chunk);
            let found: Vec<Vec<u8>> = documents(&item.content).map(|found| found.unwrap().to_vec()).collect();
            assert_eq!(found.iter().map(|document| Digest::of(document)).sum::<Digest>(), chunk.entry.digest);
            all.extend(found);
        }
        all
    }

    fn diff(&self, left: Option<&Root>, right: Option<&Root>) -> (Vec<(Side, Reference)>, usize) {
        let mut diff = Diff::new(left, right).unwrap();
        let (mut found, mut nodes) = (Vec::new(), 0);
        loop {
            match diff.step() {
                Step::Need(reference) => {
                    nodes += 1;
                    diff.give(self.node(&reference)).unwrap();
                }
                Step::Item(change) => found.push(change),
                Step::End => return (found, nodes),
            }
        }
    }
}
