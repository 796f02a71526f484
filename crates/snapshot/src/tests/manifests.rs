use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document};
use proptest::prelude::*;
use stillpoint_core::ClusterTime;

use super::*;
use crate::manifest::{Collection, MAX_MANIFEST, ManifestError, Piece};

pub(super) fn manifest() -> Manifest {
    let time = |increment| ClusterTime::new(100, increment);
    let digest = Digest { documents: 9, bytes: 900, hash: 3 };
    let entry = Entry { id: ContentId([1; 32]), first: KeyBound::of(b"a"), last: KeyBound::of(&[b'b'; 300]), digest };
    let reference = Reference { entry, place: Place { pack: BlobId([2; 32]), stored: 77 } };
    let collection = |name: &str, uuid| Collection {
        namespace: format!("shop.{name}"),
        uuid: [uuid; 16],
        definition: doc! {"options": {}, "indexes": [{"name": "_id_"}]}.to_vec().unwrap(),
        layout: Layout::Sorted,
        cut: SMALL,
        root: None,
        pieces: vec![Piece { from: None, to: None, at: time(5), settled: time(5) }],
    };
    let orders = Collection {
        root: Some(Root { layout: Layout::Sorted, level: 2, reference: reference.clone() }),
        pieces: vec![
            Piece { from: None, to: Some(b"m".to_vec()), at: time(5), settled: time(5) },
            Piece { from: Some(b"m".to_vec()), to: None, at: time(8), settled: time(8) },
        ],
        ..collection("orders", 8)
    };
    let log = Collection {
        layout: Layout::Insertion,
        root: Some(Root { layout: Layout::Insertion, level: 1, reference }),
        ..collection("log", 7)
    };
    Manifest {
        cluster: "0123456789abcdef01234567".parse().unwrap(),
        part: "shard-rs0".into(),
        catalog: time(5),
        earliest: time(5),
        latest: time(8),
        stream: time(2),
        made: 1_795_552_483_123,
        base: Some(BlobId([9; 32])),
        compatibility: "8.0".into(),
        keys: 1,
        collections: vec![log, orders, collection("things", 9)],
    }
}

#[test]
fn blobs_have_names() {
    let (cluster, part) = (manifest().cluster, stillpoint_core::checkpoint::PartId::Shard("a b".into()));
    let place = crate::manifest::place(cluster, &part, ClusterTime::new(7, 12));
    assert_eq!(place, format!("snapshot/{cluster}/shard-a%20b/at-0000000007-0000000012"));
    assert_eq!(pack::place(cluster, &part), format!("snapshot/{cluster}/shard-a%20b/pack"));
}

fn broken(change: impl FnOnce(&mut Manifest)) -> String {
    let mut manifest = manifest();
    change(&mut manifest);
    manifest.write().unwrap_err().to_string()
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    let first = Manifest { base: None, collections: Vec::new(), ..manifest() };
    for manifest in [manifest(), first] {
        let bytes = manifest.write().unwrap();
        assert_eq!(Manifest::read(&bytes, MAX_MANIFEST), Ok(manifest));
    }
    assert_eq!(
        (manifest().digest().documents, Manifest { collections: Vec::new(), ..manifest() }.digest()),
        (18, Digest::EMPTY)
    );
}

#[test]
fn what_contradicts_itself_is_not_written() {
    assert!(broken(|m| m.stream = ClusterTime::new(100, 6)).ends_with("from after its earliest time"));
    assert!(broken(|m| m.catalog = ClusterTime::new(100, 4)).ends_with("is not of its times"));
    assert!(broken(|m| m.latest = ClusterTime::new(100, 7)).ends_with("a piece is not of the snapshot's times"));
    assert!(broken(|m| m.collections.swap(0, 1)).ends_with("it is not after the one before it"));
    assert!(broken(|m| m.collections[1].uuid = [7; 16]).ends_with("it has the UUID of another"));
    for name in ["", "shop", ".x", "shop.", &format!("shop.{}", "x".repeat(600))] {
        assert!(broken(|m| m.collections.last_mut().unwrap().namespace = name.into()).contains("it"), "{name}");
    }
    assert!(broken(|m| m.collections[1].definition = vec![5, 0, 0, 0, 1]).ends_with("its definition is none"));
    type Change = fn(&mut Collection);
    let changes: [(Change, &str); 11] = [
        (|c| c.layout = Layout::Insertion, "its root is none"),
        (|c| c.root.as_mut().unwrap().level = 0, "its root is none"),
        (|c| c.root.as_mut().unwrap().level = 16, "its root is none"),
        (|c| c.root.as_mut().unwrap().reference.place.stored = 0, "its root is none"),
        (|c| c.root.as_mut().unwrap().reference.entry.digest = Digest::EMPTY, "its root is none"),
        (|c| c.root.as_mut().unwrap().reference.entry.first = KeyBound::of(b"c"), "its root is none"),
        (|c| c.pieces.clear(), "its pieces are not one after the other"),
        (|c| drop(c.pieces.remove(0)), "its pieces are not one after the other"),
        (|c| c.pieces[0].to = Some(b"n".to_vec()), "its pieces are not one after the other"),
        (|c| c.pieces[0].to = Some(vec![0; 70_000]), "its pieces are not one after the other"),
        (|c| (c.layout, c.root) = (Layout::Insertion, None), "it has pieces and no order"),
    ];
    for (change, what) in changes {
        let error = broken(|m| change(&mut m.collections[1]));
        assert!(error.starts_with("collection 1 of the manifest") && error.ends_with(what), "{error} for {what}");
    }
}

#[test]
fn other_files_and_versions_are_told_apart() {
    let good = manifest().write().unwrap();
    let text = |bytes: &[u8]| Manifest::read(bytes, MAX_MANIFEST).unwrap_err().to_string();
    assert_eq!(text(b"stillpck"), "this is no manifest: it does not begin as one");
    let mut later = good.clone();
    later[8] = 3;
    assert_eq!(text(&later), "this manifest is of format 3, and this program reads format 2 only");
    let mut long = good.clone();
    long[12] ^= 1;
    assert!(text(&long).contains("it does not say that it is"));
    long[15] = 0xff;
    assert!(text(&long).ends_with("and the limit is 268435456"));
    assert!(matches!(Manifest::read(&good, 50), Err(ManifestError::Length { limit: 50, .. })));
    assert!(text(&[&good[..], b"x"].concat()).ends_with("it is not one zstd frame"));
    assert!((0..good.len()).all(|length| Manifest::read(&good[..length], MAX_MANIFEST).is_err()));
}

/// The document that the manifest is, changed.
fn forged(change: impl FnOnce(&mut Document)) -> Result<Manifest, ManifestError> {
    let bytes = zstd::bulk::decompress(&manifest().write().unwrap()[16..], 1 << 20).unwrap();
    let mut document = Document::from_reader(&bytes[..]).unwrap();
    change(&mut document);
    Manifest::read_document(&document.to_vec().unwrap())
}

#[test]
fn a_field_must_be_there_and_what_it_is() {
    assert_eq!(forged(|document| drop(document.insert("later", 1))), Ok(manifest()));
    let names = forged_names();
    assert_eq!(names.len(), 11);
    for name in names {
        let field = name.clone();
        let text = |found: Result<Manifest, ManifestError>| match found {
            Err(ManifestError::Field(found)) => found.to_owned(),
            other => panic!("{other:?} for {name}"),
        };
        assert_eq!(text(forged(|document| drop(document.remove(&name)))), field);
        assert_eq!(text(forged(|document| drop(document.insert(&name, 1.5)))), field);
    }
    let base = Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![0; 31] });
    assert_eq!(forged(|document| drop(document.insert("base", base))), Err(ManifestError::Field("base")));
    for name in ["ns", "uuid", "definition", "sorted", "cut", "root", "pieces"] {
        let change = |document: &mut Document| {
            let collections = document.get_array_mut("collections").unwrap();
            collections[1].as_document_mut().unwrap().remove(name);
        };
        assert_eq!(forged(change), Err(ManifestError::Field("collections")), "{name}");
    }
}

fn forged_names() -> Vec<String> {
    let mut names = Vec::new();
    forged(|document| names = document.keys().cloned().collect()).unwrap();
    names
}

proptest! {
    #[test]
    fn a_document_that_is_changed_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = zstd::bulk::decompress(&manifest().write().unwrap()[16..], 1 << 20).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(manifest) = Manifest::read_document(&bytes) {
            prop_assert_eq!(Manifest::read(&manifest.write().unwrap(), MAX_MANIFEST), Ok(manifest));
        }
    }
}
