//! Format 1 of a segment: what was ever written in it must be read for ever.

use std::fs;
use std::path::Path;

use bson::{Bson, Timestamp, doc};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{BlobId, OpenTransaction};
use stillpoint_core::{ClusterTime, OpTime};
use stillpoint_oplog::segment::{Header, Limits, Seal};
use stillpoint_oplog::{SegmentReader, SegmentWriter};

const FIXTURE: &str = "tests/fixtures/segment-1.seg";
const DOCUMENT: &str = "../../docs/formats/segment.md";

fn at(seconds: u32, increment: u32) -> OpTime {
    OpTime::new(ClusterTime::new(seconds, increment), 5)
}

fn entry(at: OpTime, text: &str) -> Vec<u8> {
    let ts = Bson::Timestamp(Timestamp { time: at.time.seconds, increment: at.time.increment });
    doc! {"op": "n", "ns": "", "o": {"msg": text}, "ts": ts, "t": at.term}.to_vec().unwrap()
}

fn read(bytes: Vec<u8>) -> (Header, Vec<(OpTime, Vec<u8>)>) {
    let reader = SegmentReader::open(bytes.into(), Limits::default()).unwrap();
    let entries = reader.entries_from(ClusterTime::new(0, 0)).map(|entry| entry.unwrap());
    let entries = entries.map(|entry| (entry.at, entry.bytes.to_vec())).collect();
    (reader.header().clone(), entries)
}

fn write(entries: &[(OpTime, Vec<u8>)], seal: Seal) -> Vec<u8> {
    let mut writer = SegmentWriter::new(3, 4096).unwrap();
    entries.iter().for_each(|(at, bytes)| writer.push(bytes, *at).unwrap());
    writer.seal(seal).unwrap()
}

/// Three hundred entries in several blocks, with all that a header can have.
fn fixture() -> (Vec<(OpTime, Vec<u8>)>, Seal) {
    let entries = (0..300).map(|n| {
        let at = at(1_795_552_483 + n / 10, 1 + n % 10);
        (at, entry(at, &format!("entry {n} {}", "o".repeat(n as usize % 50))))
    });
    let open = OpenTransaction {
        session: hex::encode(doc! {"id": "a session"}.to_vec().unwrap()),
        number: 42,
        first: at(1_795_552_400, 1),
        last: at(1_795_552_400, 2),
        prepared: Some(ClusterTime::new(1_795_552_400, 2)),
    };
    let batch = OpenTransaction { session: String::new(), number: -1, prepared: None, ..open.clone() };
    let seal = Seal {
        cluster: "0123456789abcdef01234567".parse().unwrap(),
        part: PartId::Shard("rs 0".into()),
        previous: Some(BlobId([0xa7; 32])),
        open: vec![open, batch],
    };
    (entries.collect(), seal)
}

fn header(entries: &[(OpTime, Vec<u8>)], seal: Seal) -> Header {
    Header {
        cluster: seal.cluster,
        part: seal.part.key(),
        first: entries[0].0,
        last: entries[entries.len() - 1].0,
        entries: entries.len() as u64,
        bytes: entries.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
        previous: seal.previous,
        open: seal.open,
    }
}

#[test]
fn the_fixture_reads_as_it_was_written() {
    let (entries, seal) = fixture();
    let (found, read) = read(fs::read(FIXTURE).unwrap());
    assert_eq!(found, header(&entries, seal));
    assert_eq!(read, entries);
}

#[test]
#[ignore = "makes the fixture, once; a later program has to read what this one wrote"]
fn make_the_fixture() {
    assert!(!Path::new(FIXTURE).exists(), "{FIXTURE} is there: it is not to be changed");
    let (entries, seal) = fixture();
    fs::write(FIXTURE, write(&entries, seal)).unwrap();
}

fn example() -> (Vec<(OpTime, Vec<u8>)>, Seal) {
    let entries = [(1, "hello"), (2, "hello again")].map(|(n, text)| (at(100, n), entry(at(100, n), text)));
    let open = OpenTransaction {
        session: hex::encode(doc! {"id": 7}.to_vec().unwrap()),
        number: 9,
        first: at(99, 1),
        last: at(99, 1),
        prepared: Some(ClusterTime::new(99, 1)),
    };
    let cluster = "0123456789abcdef01234567".parse().unwrap();
    (entries.to_vec(), Seal { cluster, part: PartId::Shard("rs0".into()), previous: None, open: vec![open] })
}

#[test]
fn the_example_in_the_document_is_a_segment() {
    let text = fs::read_to_string(DOCUMENT).unwrap();
    let example_text = text.split("```hex\n").nth(1).unwrap().split("```").next().unwrap();
    let digits: String = example_text.lines().map(|line| line.split('#').next().unwrap()).collect();
    let bytes = hex::decode(digits.replace(' ', "")).unwrap();

    let (entries, seal) = example();
    let (found, read) = read(bytes.clone());
    assert_eq!(found, header(&entries, seal.clone()));
    assert_eq!(read, entries);
    // Up to the index, in which the lengths are: another zstd may compress otherwise.
    let index = bytes.windows(8).position(|bytes| bytes == b"\x04blocks\0").unwrap();
    assert_eq!(bytes[..index], write(&entries, seal)[..index]);
}

#[test]
#[ignore = "prints the example's bytes, for the document"]
fn print_the_example() {
    let (entries, seal) = example();
    println!("{}", hex::encode(write(&entries, seal)));
}
