//! Format 1 of packs, 2 of nodes and manifests: what a released program wrote in them must be read for ever.

use std::fs;
use std::path::Path;

use bson::doc;
use stillpoint_core::ClusterTime;
use stillpoint_core::stream::BlobId;
use stillpoint_snapshot::manifest::{Collection, MAX_MANIFEST, Piece};
use stillpoint_snapshot::pack::Limits;
use stillpoint_snapshot::{
    ChunkBuilder, Cut, Layout, Manifest, Next, Node, PackReader, Reference, Root, Step, TreeBuilder, Unpacker, Walk,
    Writer, documents,
};

const PACK: &str = "tests/fixtures/pack-2.pack";
const MANIFEST: &str = "tests/fixtures/manifest-2.manifest";
const DOCUMENT: &str = "../../docs/formats/snapshot.md";

/// What the vault calls a pack does not matter here.
const BLOB: BlobId = BlobId([0xb1; 32]);

/// The rule, and documents with their keys.
type Example = (Cut, Vec<(Vec<u8>, Vec<u8>)>);

/// Documents into one pack.
fn store(cut: Cut, all: &[(Vec<u8>, Vec<u8>)]) -> (Vec<u8>, Root) {
    let mut writer = Writer::new(3, 8 << 20).unwrap();
    let mut tree = TreeBuilder::new(Layout::Sorted);
    let mut builder = ChunkBuilder::new(cut, Layout::Sorted);
    for (key, document) in all {
        if let Some(chunk) = builder.push(key, document).unwrap() {
            writer.add(&mut tree, &chunk).unwrap();
        }
    }
    writer.add(&mut tree, &builder.flush().unwrap()).unwrap();
    let root = writer.end(tree).unwrap();
    writer.finish();
    let Next::Store(pack) = writer.advance().unwrap() else { panic!("nothing to store") };
    writer.stored(pack.number, BLOB).unwrap();
    assert_eq!(writer.advance().unwrap(), Next::Done);
    (pack.bytes, writer.root(&root).unwrap())
}

fn read(pack: Vec<u8>, root: &Root) -> Vec<Vec<u8>> {
    let reader = PackReader::open(pack.into(), Limits::default()).unwrap();
    let mut unpacker = Unpacker::new().unwrap();
    let mut get = |reference: &Reference| {
        assert_eq!(reference.place.pack, BLOB);
        reader.get(reference.entry.id, &mut unpacker).unwrap()
    };
    let (mut walk, mut all) = (Walk::all(Some(root)), Vec::new());
    loop {
        match walk.step() {
            Step::Need(node) => walk.give(Node::read(&get(&node), BLOB).unwrap()).unwrap(),
            Step::Item(chunk) => all.extend(documents(&get(&chunk).content).map(|found| found.unwrap().to_vec())),
            Step::End => return all,
        }
    }
}

fn manifest(root: Root, cut: Cut) -> Manifest {
    let time = |increment| ClusterTime::new(1_795_552_483, increment);
    let orders = Collection {
        namespace: "shop.orders".into(),
        uuid: *b"0123456789abcdef",
        definition: doc! {"options": {}}.to_vec().unwrap(),
        layout: Layout::Sorted,
        cut,
        root: Some(root),
        pieces: vec![
            Piece { from: None, to: Some(b"m".to_vec()), at: time(2), settled: time(2) },
            Piece { from: Some(b"m".to_vec()), to: None, at: time(3), settled: time(3) },
        ],
    };
    let log = Collection {
        namespace: "shop.log".into(),
        uuid: *b"fedcba9876543210",
        definition: doc! {"options": {"capped": true, "size": 4096}}.to_vec().unwrap(),
        layout: Layout::Insertion,
        root: None,
        pieces: vec![Piece { from: None, to: None, at: time(2), settled: time(2) }],
        ..orders.clone()
    };
    Manifest {
        cluster: "0123456789abcdef01234567".parse().unwrap(),
        part: "shard-rs0".into(),
        catalog: time(2),
        earliest: time(2),
        latest: time(3),
        stream: time(1),
        made: 1_795_552_483_500,
        base: Some(BlobId([0xa7; 32])),
        compatibility: "8.0".into(),
        keys: 1,
        collections: vec![log, orders],
    }
}

/// Five hundred documents in many chunks, below nodes of two levels.
fn fixture() -> Example {
    let all = (0..500_u32).map(|n| {
        let key = [&n.to_be_bytes()[..], &vec![b'k'; n as usize]].concat();
        (key, doc! {"_id": n as i32, "text": "o".repeat(n as usize % 50)}.to_vec().unwrap())
    });
    (Cut::new(2).unwrap(), all.collect())
}

fn bytes_of(all: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<Vec<u8>> {
    all.into_iter().map(|(_, document)| document).collect()
}

#[test]
fn the_fixtures_read_as_they_were_written() {
    let (cut, all) = fixture();
    let found = Manifest::read(&fs::read(MANIFEST).unwrap(), MAX_MANIFEST).unwrap();
    let root = found.collections[1].root.clone().unwrap();
    assert!(root.level >= 2);
    assert_eq!(found, manifest(root.clone(), cut));
    assert_eq!(read(fs::read(PACK).unwrap(), &root), bytes_of(all.clone()));
    // Where chunks are cut, and what their ids are, must stay as it is: or nothing is shared with what is stored.
    let (_, again) = store(cut, &all);
    assert_eq!((again.level, again.reference.entry), (root.level, root.reference.entry));
}

#[test]
#[ignore = "makes the fixtures, once; a later program has to read what this one wrote"]
fn make_the_fixtures() {
    assert!(!Path::new(PACK).exists(), "{PACK} is there: it is not to be changed");
    let (cut, all) = fixture();
    let (pack, root) = store(cut, &all);
    fs::write(PACK, pack).unwrap();
    fs::write(MANIFEST, manifest(root, cut).write().unwrap()).unwrap();
}

fn example() -> Example {
    let all = [(1, "hello"), (2, "hello again")];
    let all = all.map(|(id, text)| (vec![id as u8], doc! {"_id": id, "text": text}.to_vec().unwrap()));
    (Cut::new(10).unwrap(), all.to_vec())
}

/// The files in the document, in their order.
fn examples() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(DOCUMENT).unwrap();
    let blocks = text.split("```hex\n").skip(1).map(|block| block.split("```").next().unwrap());
    let digits = blocks.map(|block| block.lines().map(|line| line.split('#').next().unwrap()).collect::<String>());
    digits.map(|digits| hex::decode(digits.replace(' ', "")).unwrap()).collect()
}

#[test]
fn the_examples_in_the_document_are_a_pack_and_a_manifest() {
    let [pack, file] = examples().try_into().unwrap();
    let (cut, all) = example();
    let found = Manifest::read(&file, MAX_MANIFEST).unwrap();
    let root = found.collections[1].root.clone().unwrap();
    assert_eq!(found, manifest(root.clone(), cut));
    assert_eq!(read(pack, &root), bytes_of(all.clone()));
    let (_, again) = store(cut, &all);
    assert_eq!((again.level, again.reference.entry), (root.level, root.reference.entry));
}

#[test]
#[ignore = "prints the examples' bytes, for the document"]
fn print_the_examples() {
    let (cut, all) = example();
    let (pack, root) = store(cut, &all);
    let reader = PackReader::open(pack.clone().into(), Limits::default()).unwrap();
    let mut unpacker = Unpacker::new().unwrap();
    println!("pack {}", hex::encode(&pack));
    for (id, _) in reader.items() {
        let item = reader.get(id, &mut unpacker).unwrap();
        println!("{id} {} {}", hex::encode(&item.content), hex::encode(&item.places));
    }
    println!("manifest {}", hex::encode(manifest(root, cut).write().unwrap()));
}
