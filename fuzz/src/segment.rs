//! A segment file, and entries as a server or a block of a segment gives them: the bytes are taken as both.

use bytes::Bytes;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::{ClusterTime, OpTime};
use stillpoint_oplog::segment::{Limits, RawEntry, Seal, SegmentError};
use stillpoint_oplog::{Cut, Entry, Kind, SegmentReader, SegmentWriter, Transactions, Unresolved, split};

const BEGINNING: ClusterTime = ClusterTime::new(0, 0);
/// Less than the format's, so that a reader that went beyond them would be seen to.
const LIMITS: Limits = Limits { header: 64 << 10, block: 1 << 20 };

pub fn check(data: &[u8]) {
    file(data);
    entries(data);
}

fn file(data: &[u8]) {
    let Ok(reader) = SegmentReader::open(Bytes::copy_from_slice(data), LIMITS) else { return };
    let header = reader.header();
    let all: Vec<_> = reader.entries_from(BEGINNING).collect();
    assert!(all.iter().rev().skip(1).all(Result::is_ok), "it goes on after an error");
    let Ok(all) = all.into_iter().collect::<Result<Vec<RawEntry>, SegmentError>>() else { return };

    assert_eq!((all.len() as u64, all[0].at, all[all.len() - 1].at), (header.entries, header.first, header.last));
    let times = all.iter().flat_map(|entry| [entry.at.time, ClusterTime::new(entry.at.time.seconds, u32::MAX)]);
    for from in times.take(8) {
        let later: Vec<_> = reader.entries_from(from).map(|entry| entry.expect("read before")).collect();
        let said: Vec<_> = all.iter().filter(|entry| entry.at.time >= from).cloned().collect();
        assert_eq!(later, said, "from {from}");
    }
    let all: Vec<_> = all.iter().map(|entry| (entry.at, &entry.bytes[..])).collect();
    written(&all);
}

/// Whatever entries come are followed, stored and read back.
fn entries(data: &[u8]) {
    let mut length = 0;
    let mut read = Vec::new();
    for document in split(data) {
        let Ok(document) = document else { break };
        length += document.len();
        if let Ok(entry) = Entry::read(document) {
            assert_eq!((entry.bytes, Entry::read(document)), (document, Ok(entry)));
            read.push(entry);
        }
    }
    assert!(length <= data.len());

    // Those in order, as they are in an oplog.
    let mut last = None;
    read.retain(|entry| {
        let after = last.is_none_or(|last| entry.at.time > last);
        last = last.max(Some(entry.at.time));
        after
    });
    let stored: Vec<(OpTime, &[u8])> = read.iter().map(|entry| (entry.at, entry.bytes)).collect();
    written(&stored);
    for complete_from in [BEGINNING, ClusterTime::new(u32::MAX, u32::MAX)] {
        followed(&read, complete_from);
    }
}

fn followed(entries: &[Entry<'_>], complete_from: ClusterTime) {
    let mut table = Transactions::new(Vec::new(), complete_from).expect("none is open");
    let mut opens = vec![Vec::new()];
    for entry in entries {
        let Ok(end) = table.see(entry) else { break };
        if let Some(end) = end {
            assert!(matches!(entry.kind, Kind::Step(_)) && end.session == entry.session);
            assert!(end.first <= end.at && end.at == entry.at);
        }
        let open = table.open();
        assert_eq!(table.oldest(), open.iter().map(|open| open.first).min());
        assert!(open.iter().all(|open| open.first.time <= open.last.time && open.last.time <= entry.at.time));
        let again = Transactions::new(open.clone(), complete_from).expect("as it was said");
        assert_eq!(again.open(), open);
        opens.push(open);
    }
    // Cut in the middle, from the beginning and from a place in between.
    let good = &entries[..opens.len() - 1];
    let Some(t) = good.get(good.len() / 2).map(|entry| entry.at.time) else { return };
    let cut = |from: usize| -> Unresolved {
        let mut cut = Cut::new(t, opens[from].clone(), complete_from).expect("as it was said");
        for entry in &good[from..] {
            cut.see(entry).expect("seen before");
            if cut.is_complete() {
                break;
            }
        }
        cut.end()
    };
    let found = cut(0);
    assert_eq!(found, cut(good.len() / 4));
    assert_eq!(found.oldest, opens[good.len() / 2 + 1].iter().map(|open| open.first).min());
    assert!(found.transactions.iter().all(|one| one.prepared <= t && one.ending.is_none_or(|end| end.at.time > t)));
}

fn written(entries: &[(OpTime, &[u8])]) {
    let mut writer = SegmentWriter::new(1, 300).expect("level 1");
    for (at, bytes) in entries {
        writer.push(bytes, *at).expect("they are in order");
    }
    let cluster = "0123456789abcdef01234567".parse().expect("an id");
    let seal = Seal { cluster, part: PartId::ConfigServers, previous: None, open: Vec::new() };
    let Ok(bytes) = writer.seal(seal) else {
        assert!(entries.is_empty(), "not sealed");
        return;
    };
    let reader = SegmentReader::open(bytes.into(), Limits::default()).expect("as it was written");
    let read: Vec<_> = reader.entries_from(BEGINNING).map(|entry| entry.expect("as it was written")).collect();
    assert!(read.iter().map(|entry| (entry.at, &entry.bytes[..])).eq(entries.iter().copied()));
}
