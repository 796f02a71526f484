use bson::doc;
use serde_json::json;
use stillpoint_fold::catalogue::Fields;

use super::*;

/// From the page on the format, bit by bit.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |state: u64| if state & 1 == 1 { state >> 1 ^ 0xc96c_5795_d787_0f42 } else { state >> 1 };
    let byte = |state: u64, byte: &u8| (0..8).fold(state ^ u64::from(*byte), |state, _| step(state));
    !bytes.iter().fold(!0, byte)
}

fn metadata(name: &str, kind: Kind) -> Metadata {
    Metadata { db: "shop".into(), name: name.into(), kind, document: json!({"type": kind.as_str()}) }
}

fn raw(document: bson::Document) -> Vec<u8> {
    RawDocumentBuf::try_from(&document).unwrap().into_bytes()
}

fn contents() -> Contents {
    let all = vec![
        metadata("cheap", Kind::View),
        metadata("empty", Kind::Collection),
        metadata("goods", Kind::Collection),
        metadata("weather", Kind::TimeSeries),
    ];
    Contents { all, server: "6.0.0".into() }
}

fn collection(ns: &str) -> Collection {
    Collection { ns: ns.into(), options: Fields::new(), indexes: Default::default() }
}

fn give(dump: &mut Dump<Vec<u8>>, ns: &str, documents: &[&[u8]]) -> Result<(), SnapshotError> {
    dump.begin_collection(ns)?;
    for bytes in documents {
        dump.document(b"", RawDocument::from_bytes(*bytes).unwrap())?;
    }
    dump.end()
}

impl Dump<Vec<u8>> {
    fn begin_collection(&mut self, ns: &str) -> Result<(), SnapshotError> {
        Sink::begin(self, Uuid([0; 16]), &collection(ns), None)
    }
}

#[test]
fn the_checksum_is_the_one_that_the_format_names() {
    assert_eq!(checksum(b"123456789"), 0x995d_c9bb_df19_39fa);
    let mut digest = Digest::new(CrcAlgorithm::Crc64Xz);
    digest.update(b"12345");
    digest.update(b"6789");
    assert_eq!(digest.finalize(), checksum(b"123456789"));
    assert_eq!(Digest::new(CrcAlgorithm::Crc64Xz).finalize(), 0);
}

#[test]
fn an_archive_is_as_its_format_says_byte_for_byte() {
    let (one, two, bucket) = (raw(doc! {"_id": 1, "a": "x"}), raw(doc! {"_id": 2}), raw(doc! {"_id": 3, "b": {}}));
    let mut dump = Dump::begin(Vec::new(), "memory".into(), &contents()).unwrap();
    give(&mut dump, "shop.system.buckets.weather", &[&bucket]).unwrap();
    give(&mut dump, "shop.goods", &[&one, &two]).unwrap();
    give(&mut dump, "shop.system.views", &[&raw(doc! {"_id": "shop.cheap"})]).unwrap();
    give(&mut dump, "shop.empty", &[]).unwrap();
    let (written, exported) = dump.finish().unwrap();
    let bytes = (one.len() + two.len() + bucket.len()) as u64;
    assert_eq!(exported, Exported { collections: 3, documents: 3, bytes });

    let mut expected = vec![0x6d, 0xe2, 0x99, 0x81];
    let tool = format!("stillpoint {}", env!("CARGO_PKG_VERSION"));
    expected.extend(raw(
        doc! {"concurrent_collections": 1, "version": "0.1", "server_version": "6.0.0", "tool_version": tool},
    ));
    for (name, kind) in [("cheap", "view"), ("empty", "collection"), ("goods", "collection"), ("weather", "timeseries")]
    {
        let metadata = format!(r#"{{"type":"{kind}"}}"#);
        expected.extend(raw(doc! {"db": "shop", "collection": name, "metadata": metadata, "size": 0, "type": kind}));
    }
    let end = [0xff; 4];
    expected.extend(end);
    let blocks =
        [("system.buckets.weather", bucket), ("goods", [one, two].concat()), ("empty", vec![]), ("cheap", vec![])];
    for (name, documents) in blocks {
        expected.extend(raw(doc! {"db": "shop", "collection": name, "EOF": false, "CRC": 0_i64}));
        expected.extend(&documents);
        expected.extend(end);
        let sum = checksum(&documents) as i64;
        expected.extend(raw(doc! {"db": "shop", "collection": name, "EOF": true, "CRC": sum}));
        expected.extend(end);
    }
    assert_eq!(written, expected);
}

#[test]
fn what_is_not_among_the_contents_or_does_not_come_makes_no_archive() {
    let begin = || Dump::begin(Vec::new(), "memory".into(), &contents()).unwrap();
    let mut dump = begin();
    let refused = give(&mut dump, "shop.others", &[]).unwrap_err().to_string();
    assert!(refused.contains("shop.others") && refused.contains("not among the contents"), "{refused}");

    let mut dump = begin();
    give(&mut dump, "shop.empty", &[]).unwrap();
    let twice = give(&mut dump, "shop.empty", &[]).unwrap_err().to_string();
    assert!(twice.contains("not among the contents"), "{twice}");
    let short = dump.finish().unwrap_err().to_string();
    assert!(short.contains("shop.goods") && short.contains("not in the data"), "{short}");
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_cannot_be_written_is_told_with_its_place() {
    let Err(SnapshotError::Output { path, why }) = Dump::begin(Full, "/there".into(), &contents()) else {
        panic!("it was written");
    };
    assert_eq!((&*path, why.kind()), ("/there", io::ErrorKind::StorageFull));
}
