use bson::{Bson, Timestamp, doc};
use bytes::Bytes;
use proptest::prelude::*;
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{BlobId, OpenTransaction};

use super::format::{Block, MAGIC, write_header};
use super::*;

fn at(increment: u32) -> OpTime {
    OpTime::new(ClusterTime::new(100, increment), 5)
}

fn entry(at: OpTime, filler: usize) -> Vec<u8> {
    let ts = Bson::Timestamp(Timestamp { time: at.time.seconds, increment: at.time.increment });
    doc! {"op": "n", "ts": ts, "t": at.term, "o": {"filler": "x".repeat(filler)}}.to_vec().unwrap()
}

fn seal() -> Seal {
    let cluster = "0123456789abcdef01234567".parse().unwrap();
    Seal { cluster, part: PartId::Shard("rs/0".into()), previous: None, open: Vec::new() }
}

fn written(entries: &[(OpTime, Vec<u8>)], block_bytes: usize, seal: Seal) -> Vec<u8> {
    let mut writer = SegmentWriter::new(1, block_bytes).unwrap();
    entries.iter().for_each(|(at, bytes)| writer.push(bytes, *at).unwrap());
    writer.seal(seal).unwrap()
}

fn open(bytes: &[u8]) -> Result<SegmentReader, SegmentError> {
    SegmentReader::open(Bytes::copy_from_slice(bytes), Limits::default())
}

fn read(bytes: &[u8], from: ClusterTime) -> Result<Vec<(OpTime, Vec<u8>)>, SegmentError> {
    open(bytes)?.entries_from(from).map(|entry| entry.map(|entry| (entry.at, entry.bytes.to_vec()))).collect()
}

/// Ten entries in several blocks.
fn ten() -> Vec<(OpTime, Vec<u8>)> {
    (1..=10).map(|n| (at(2 * n), entry(at(2 * n), 30 * n as usize))).collect()
}

#[test]
fn a_segment_reads_back_from_any_time() {
    let entries = ten();
    for block_bytes in [0, 300, 500, 1 << 20, usize::MAX] {
        let bytes = written(&entries, block_bytes, seal());
        for from in 0..=22 {
            let later: Vec<_> = entries.iter().filter(|(place, _)| *place >= at(from)).cloned().collect();
            assert_eq!(read(&bytes, at(from).time).unwrap(), later, "blocks of {block_bytes}, from {from}");
        }
        assert_eq!(read(&bytes, ClusterTime::new(101, 0)).unwrap(), []);
    }
}

#[test]
fn the_header_says_what_is_in_it() {
    let transaction = OpenTransaction {
        session: "0500000000".into(),
        number: 7,
        first: at(0),
        last: at(1),
        prepared: Some(at(1).time),
    };
    let batch = OpenTransaction { session: String::new(), number: -1, prepared: None, ..transaction.clone() };
    let previous = Some(BlobId([0xa7; 32]));
    let entries = ten();
    let told = Seal { previous, open: vec![transaction, batch], ..seal() };
    let header = open(&written(&entries, 500, told.clone())).unwrap().header().clone();
    let bytes = entries.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let Seal { cluster, part, previous, open } = told;
    let said = Header { cluster, part: part.key(), first: at(2), last: at(20), entries: 10, bytes, previous, open };
    assert_eq!(header, said);
}

#[test]
fn a_writer_says_how_far_it_is() {
    let mut writer = SegmentWriter::new(DEFAULT_LEVEL, 500).unwrap();
    assert!(writer.is_empty() && writer.first().is_none() && writer.last().is_none());
    for (place, bytes) in ten() {
        writer.push(&bytes, place).unwrap();
    }
    assert_eq!((writer.entries(), writer.first(), writer.last()), (10, Some(at(2)), Some(at(20))));
    assert!(writer.raw_bytes() > 2000 && writer.compressed_bytes() > 0 && !writer.is_empty());
}

#[test]
fn an_entry_longer_than_a_block_is_a_block_of_its_own() {
    let entries = [(at(1), entry(at(1), 10)), (at(2), entry(at(2), 5000)), (at(3), entry(at(3), 10))];
    let reader = open(&written(&entries, 1000, seal())).unwrap();
    let lengths: Vec<_> = reader.entries_from(at(0).time).map(|entry| entry.unwrap().bytes.len()).collect();
    assert_eq!(lengths, entries.each_ref().map(|(_, bytes)| bytes.len()));
    assert_eq!(reader.blocks_for_tests(), lengths);
}

#[test]
fn entries_that_cannot_be_are_not_taken() {
    let mut writer = SegmentWriter::new(1, 1000).unwrap();
    writer.push(&entry(at(2), 10), at(2)).unwrap();
    let again = OpTime::new(at(2).time, 6);
    let text = |result: Result<(), WriteError>| result.unwrap_err().to_string();
    assert_eq!(
        text(writer.push(&entry(again, 10), again)),
        "the entry at 100:2 (term 6) is not after the one before it, at 100:2 (term 5)"
    );
    assert_eq!(text(writer.push(b"nonsense", at(3))), "the entry at 100:3 (term 5) is no BSON document by its length");
    let long = vec![0; MAX_ENTRY + 1];
    assert_eq!(
        text(writer.push(&long, at(3))),
        "the entry at 100:3 (term 5) is 16842753 bytes long, and the limit is 16842752"
    );
    writer.push(&entry(at(3), 10), at(3)).unwrap();
    let bytes = writer.seal(seal()).unwrap();
    assert_eq!(read(&bytes, at(0).time).unwrap().len(), 2);
}

#[test]
fn what_cannot_be_sealed_is_refused() {
    let empty = SegmentWriter::new(1, 1000).unwrap().seal(seal());
    assert!(matches!(empty, Err(WriteError::Empty)));
    let good = OpenTransaction { session: "00".into(), number: 7, first: at(0), last: at(0), prepared: None };
    for open in [
        OpenTransaction { session: "0g".into(), ..good.clone() },
        OpenTransaction { last: at(1), ..good.clone() },
        OpenTransaction { first: at(1), ..good.clone() },
    ] {
        let mut writer = SegmentWriter::new(1, 1000).unwrap();
        writer.push(&entry(at(1), 10), at(1)).unwrap();
        assert!(matches!(writer.seal(Seal { open: vec![open], ..seal() }), Err(WriteError::Open { .. })));
    }
    let mut writer = SegmentWriter::new(1, 1000).unwrap();
    writer.push(&entry(at(1), 10), at(1)).unwrap();
    let many = vec![good; 60_000];
    assert!(matches!(writer.seal(Seal { open: many, ..seal() }), Err(WriteError::Header { .. })));
}

#[test]
fn the_longest_entry_is_written_and_read() {
    let filler = MAX_ENTRY - entry(at(1), 0).len();
    let bytes = written(&[(at(1), entry(at(1), filler))], DEFAULT_BLOCK, seal());
    assert_eq!(read(&bytes, at(0).time).unwrap()[0].1.len(), MAX_ENTRY);
    let limits = Limits { block: MAX_BLOCK - 1, ..Limits::default() };
    let error = SegmentReader::open(bytes.into(), limits).unwrap_err().to_string();
    assert_eq!(error, "block 0 of the segment is 16842752 bytes long before compression, and the limit is 16842751");
}

#[test]
fn other_files_and_versions_are_told_apart() {
    let good = written(&ten(), 500, seal());
    let text = |bytes: &[u8]| open(bytes).unwrap_err().to_string();
    assert_eq!(text(b""), "this is no segment: it does not begin as one");
    assert_eq!(text(b"stillsea"), "this is no segment: it does not begin as one");
    let mut later = good.clone();
    later[8] = 2;
    assert_eq!(text(&later), "this segment is of format 2, and this program reads format 1 only");
    let mut long = good.clone();
    long[12..16].copy_from_slice(&(MAX_HEADER as u32 + 1).to_le_bytes());
    assert_eq!(text(&long), "the segment's header is 4194305 bytes long, and the limit is 4194304");
    assert_eq!(text(&good[..100]), "the segment ends after 100 bytes, in its header");
    assert_eq!(
        text(&[&good[..], b"x"].concat()),
        "the segment's header contradicts itself: something follows the last block"
    );
}

#[test]
fn a_segment_that_is_cut_anywhere_is_refused() {
    let good = written(&ten(), 500, seal());
    assert!((0..good.len()).all(|length| open(&good[..length]).is_err()));
}

/// A file with a header and an index that are not the writer's.
fn forged(change: impl FnOnce(&mut Header, &mut Vec<Block>, &mut Vec<u8>)) -> Vec<u8> {
    let reader = open(&written(&ten(), 500, seal())).unwrap();
    let (mut header, mut index, mut blocks) = reader.parts_for_tests();
    change(&mut header, &mut index, &mut blocks);
    let header = write_header(&header, &index).unwrap();
    let length = u32::try_from(header.len()).unwrap().to_le_bytes();
    [&MAGIC[..], &FORMAT.to_le_bytes(), &length, &header, &blocks].concat()
}

#[test]
fn a_header_that_contradicts_itself_is_refused() {
    assert!(read(&forged(|_, _, _| ()), at(0).time).is_ok());
    type Change = fn(&mut Header, &mut Vec<Block>, &mut Vec<u8>);
    let changes: [(Change, &str); 14] = [
        (|_, index, _| index.clear(), "it has no entries"),
        (|header, _, _| header.entries = 0, "it has no entries"),
        (|header, _, _| header.last = at(1), "the last entry and the first"),
        (|header, _, _| header.entries = 2, "fewer entries than blocks"),
        (|header, _, _| header.entries = u64::MAX >> 1, "more entries than their bytes hold"),
        (|header, _, _| header.first = at(1), "does not begin at the first entry"),
        (|_, index, _| index.last_mut().unwrap().first = at(21).time, "begins after the last entry"),
        (|header, _, _| header.bytes += 1, "are not as long as the entries"),
        (|_, index, _| index[1].offset += 1, "does not begin where the one before it ends"),
        (|_, index, _| index[0].stored = 0, "it is empty"),
        (|_, index, _| index[1].raw = 4, "it is empty"),
        (|_, index, _| index[1].first = index[0].first, "it is not later than the one before it"),
        (|_, index, _| index.last_mut().unwrap().stored += 1, "it ends after the end of the file"),
        (|_, index, _| index[0].raw = i32::MAX as usize, "and the limit is 16842752"),
    ];
    for (change, text) in changes {
        let error = open(&forged(change)).unwrap_err().to_string();
        assert!(error.contains(text), "{error:?} for {text:?}");
    }
    let begun = OpenTransaction { session: "00".into(), number: 7, first: at(2), last: at(2), prepared: None };
    let error = open(&forged(|header, _, _| header.open.push(begun))).unwrap_err().to_string();
    assert!(error.ends_with("a transaction is open that was not begun before it"), "{error}");
}

#[test]
fn blocks_that_are_not_what_the_header_says_are_refused() {
    type Change = fn(&mut Header, &mut Vec<Block>, &mut Vec<u8>);
    let changes: [(Change, &str); 7] = [
        (
            |header, _, _| header.entries += 1,
            "the segment has 10 entries, the last at 100:20 (term 5), and its header says 11 and 100:20 (term 5)",
        ),
        (
            |header, _, _| header.last = at(21),
            "the segment has 10 entries, the last at 100:20 (term 5), and its header says 10 and 100:21 (term 5)",
        ),
        (
            |header, _, _| header.first.term = 4,
            "the entry at 100:2 (term 5) in block 0 of the segment: it is the first, and the header says another",
        ),
        (|_, _, blocks| blocks[0] = 0x1e, "block 0 of the segment: it is not one zstd frame"),
        (
            |header, index, _| {
                // What a frame that decompresses to more than is said would do.
                index[0].raw -= 1;
                header.bytes -= 1;
            },
            "bytes long",
        ),
        (
            |_, index, _| index[1].first.increment -= 1,
            "in block 1 of the segment: it is the first of its block, and the index says another",
        ),
        (
            // The checksum is looked at.
            |_, index, blocks| blocks[index[0].stored - 1] ^= 1,
            "block 0 of the segment: Restored data doesn't match checksum",
        ),
    ];
    for (change, text) in changes {
        let bytes = forged(change);
        let reader = open(&bytes).unwrap();
        let mut entries = reader.entries_from(at(0).time).skip_while(Result::is_ok);
        let error = entries.next().unwrap().unwrap_err().to_string();
        assert!(error.contains(text), "{error:?} for {text:?}");
        assert!(entries.next().is_none(), "it ends after an error");
    }
}

#[test]
fn entries_out_of_order_are_refused() {
    let (one, two) = (entry(at(2), 10), entry(at(4), 10));
    let cases = [
        ([&one[..], &one].concat(), "it is not after the one before it"),
        ([&one[..], b"\x05\0\0\0\0"].concat(), "an oplog entry has no ts that is a timestamp"),
        ([&one[..], &two[..20]].concat(), "a length past the end"),
    ];
    for (raw, text) in cases {
        let stored = zstd::bulk::compress(&raw, 1).unwrap();
        let bytes = forged(|header, index, blocks| {
            (header.entries, header.bytes, header.last) = (2, raw.len() as u64, at(4));
            *index = vec![Block { first: at(2).time, offset: 0, stored: stored.len(), raw: raw.len() }];
            *blocks = stored;
        });
        let error = read(&bytes, at(0).time).unwrap_err().to_string();
        assert!(error.contains(text), "{error:?} for {text:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        gaps in prop::collection::vec((1..5_u32, 0..400_usize), 1..40),
        block_bytes in 0..3000_usize,
        from in 0..200_u32,
    ) {
        let mut now = 0;
        let entries: Vec<_> = gaps.iter().map(|(gap, filler)| {
            now += gap;
            (at(now), entry(at(now), *filler))
        }).collect();
        let bytes = written(&entries, block_bytes, seal());
        let later: Vec<_> = entries.into_iter().filter(|(place, _)| *place >= at(from)).collect();
        prop_assert_eq!(read(&bytes, at(from).time).unwrap(), later);
    }

    #[test]
    fn bytes_that_are_changed_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        in_header in any::<bool>(),
        from in 0..22_u32,
    ) {
        let good = written(&ten(), 500, seal());
        let end = if in_header { good.len() / 2 } else { good.len() };
        let mut bytes = good.clone();
        for (place, byte) in changes {
            bytes[place.index(end)] = byte;
        }
        if let Ok(found) = read(&bytes, at(from).time) {
            // Where blocks have checksums and the index is checked against them, what is read is right.
            prop_assert_eq!(found, read(&good, at(from).time).unwrap());
        }
    }
}
