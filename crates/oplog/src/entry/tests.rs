use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, Timestamp, doc};
use proptest::prelude::*;

use super::*;

fn ts(seconds: u32, increment: u32) -> Bson {
    Bson::Timestamp(Timestamp { time: seconds, increment })
}

fn no_optime() -> Document {
    doc! {"ts": ts(0, 0), "t": -1_i64}
}

fn with(more: Document) -> Vec<u8> {
    let mut entry = doc! {"op": "i", "ns": "bank.acct", "o": {"_id": 7}, "ts": ts(100, 3), "t": 5_i64, "v": 2_i64};
    entry.extend(more);
    entry.to_vec().unwrap()
}

fn command(o: Document, more: Document) -> Vec<u8> {
    let mut fields = doc! {
        "op": "c", "ns": "admin.$cmd", "o": o,
        "lsid": {"id": Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] }}, "txnNumber": 9_i64,
    };
    fields.extend(more);
    with(fields)
}

fn what(bytes: &[u8]) -> Option<(Option<OpTime>, What)> {
    match Entry::read(bytes).unwrap().kind {
        Kind::Step(step) => Some((step.previous, step.what)),
        _ => None,
    }
}

#[test]
fn an_entry_has_its_place_and_its_session() {
    let bytes = with(doc! {"lsid": {"id": 1}, "txnNumber": 4_i64, "stmtId": 0, "prevOpTime": no_optime()});
    let entry = Entry::read(&bytes).unwrap();
    assert_eq!(entry.at, OpTime::new(ClusterTime::new(100, 3), 5));
    assert_eq!((entry.bytes, entry.kind), (bytes.as_slice(), Kind::Other));
    let id = doc! {"id": 1}.to_vec().unwrap();
    assert_eq!(entry.session, Some(Session { id: &id, number: 4 }));
}

#[test]
fn an_entry_of_an_old_server_has_no_term() {
    let bytes = doc! {"ts": ts(1, 2), "op": "n", "o": {"msg": "initiating set"}}.to_vec().unwrap();
    assert_eq!(Entry::read(&bytes).unwrap().at, OpTime::new(ClusterTime::new(1, 2), -1));
}

#[test]
fn a_token_is_told_from_other_notes() {
    let note = |o: Document| with(doc! {"op": "n", "ns": "", "o": o});
    let token = doc! {
        "stillpoint": "token", "checkpoint": "0123456789abcdef01234567", "part": "shard rs0", "attempt": 3_u32,
    };
    let bytes = note(token.clone());
    let Kind::Token(read) = Entry::read(&bytes).unwrap().kind else { panic!("no token") };
    assert_eq!(
        (read.checkpoint.to_string().as_str(), read.part, read.attempt),
        ("0123456789abcdef01234567", "shard rs0", 3)
    );

    let without = |name: &str| {
        let mut token = token.clone();
        token.remove(name);
        token
    };
    let mut negative = token.clone();
    negative.insert("attempt", -1);
    let mut other = token.clone();
    other.insert("stillpoint", "tokens");
    for o in [doc! {}, without("stillpoint"), without("checkpoint"), without("part"), negative, other] {
        assert_eq!(Entry::read(&note(o.clone())).unwrap().kind, Kind::Other, "{o}");
    }
    // Only a no-op is a token, not a document that looks like one.
    assert_eq!(Entry::read(&with(doc! {"o": token})).unwrap().kind, Kind::Other);
}

#[test]
fn the_steps_of_transactions_are_told_apart() {
    let before = doc! {"ts": ts(100, 2), "t": 5_i64};
    let previous = Some(OpTime::new(ClusterTime::new(100, 2), 5));
    let ops = || doc! {"applyOps": [{"op": "i", "o": {"partialTxn": true, "prepare": true}}]};
    let ops_with = |name: &str, value: Bson| {
        let mut ops = ops();
        ops.insert(name, value);
        ops
    };
    let first = doc! {"prevOpTime": no_optime()};
    let later = doc! {"prevOpTime": before};
    let at = ClusterTime::new(99, 1);
    for (o, more, step) in [
        (ops_with("partialTxn", true.into()), &first, (None, What::Part)),
        (ops_with("partialTxn", true.into()), &later, (previous, What::Part)),
        (ops_with("prepare", true.into()), &first, (None, What::Prepare)),
        (ops_with("prepare", true.into()), &later, (previous, What::Prepare)),
        (ops_with("prepare", false.into()), &first, (None, What::Whole)),
        (ops_with("count", 7.into()), &later, (previous, What::Whole)),
        (doc! {"commitTransaction": 1, "commitTimestamp": ts(99, 1)}, &later, (previous, What::Commit(at))),
        (doc! {"abortTransaction": 1}, &later, (previous, What::Abort)),
        (doc! {"abortTransaction": 1}, &first, (None, What::Abort)),
    ] {
        assert_eq!(what(&command(o.clone(), more.clone())), Some(step), "{o} {more}");
    }
}

#[test]
fn what_only_looks_like_a_step_is_none() {
    let ops = doc! {"applyOps": []};
    // A user's applyOps command, some retryable writes in one entry, a retryable write, another command.
    let without_session = with(doc! {"op": "c", "o": ops.clone()});
    let writes = command(ops, doc! {"prevOpTime": no_optime(), "multiOpType": 1, "stmtId": [0, 1]});
    let write = with(doc! {"lsid": {"id": 1}, "txnNumber": 4_i64, "prevOpTime": no_optime(), "o": {"applyOps": []}});
    let create = command(doc! {"create": "applyOps", "partialTxn": true}, doc! {});
    for bytes in [without_session, writes, write, create, command(doc! {}, doc! {})] {
        assert_eq!(what(&bytes), None);
    }
}

#[test]
fn a_step_without_what_it_needs_is_refused() {
    let text = |bytes: Vec<u8>| Entry::read(&bytes).unwrap_err().to_string();
    assert_eq!(
        text(command(doc! {"commitTransaction": 1}, doc! {})),
        "the oplog entry at 100:3 (term 5) has no o.commitTimestamp that is a timestamp"
    );
    assert_eq!(
        text(with(doc! {"op": "c", "o": {"abortTransaction": 1}})),
        "the oplog entry at 100:3 (term 5) has no lsid and txnNumber that is a transaction's"
    );
    assert_eq!(
        text(command(doc! {"applyOps": []}, doc! {"multiOpType": 2})),
        "the oplog entry at 100:3 (term 5) has multiOpType 2, which this program does not know"
    );
    assert_eq!(text(with(doc! {"ts": 7})), "an oplog entry has no ts that is a timestamp");
    assert_eq!(text(with(doc! {"lsid": 7})), "an oplog entry has no lsid that is a document");
}

#[test]
fn documents_are_split_where_they_end() {
    let documents = [with(doc! {}), with(doc! {"x": "y"}), doc! {}.to_vec().unwrap()];
    let mut bytes = documents.concat();
    assert_eq!(split(&bytes).collect::<Result<Vec<_>, _>>().unwrap(), documents);
    assert_eq!(split(&[]).next(), None);

    let whole = bytes.len();
    bytes.extend([9, 0, 0, 0, 1]);
    let found: Vec<_> = split(&bytes).collect();
    assert_eq!(found.len(), 4);
    assert_eq!(found[3], Err(Malformed { at: whole, what: "a length past the end" }));
}

/// One field of every type there is, in bytes.
fn all_types() -> Vec<u8> {
    let values: [(u8, &[u8]); 21] = [
        (0x01, &[0; 8]),
        (0x02, &[2, 0, 0, 0, b'x', 0]),
        (0x03, &[5, 0, 0, 0, 0]),
        (0x04, &[5, 0, 0, 0, 0]),
        (0x05, &[1, 0, 0, 0, 0, 9]),
        (0x06, &[]),
        (0x07, &[1; 12]),
        (0x08, &[1]),
        (0x09, &[0; 8]),
        (0x0a, &[]),
        (0x0b, b"a\0i\0"),
        (0x0c, &[1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (0x0d, &[1, 0, 0, 0, 0]),
        (0x0e, &[1, 0, 0, 0, 0]),
        (0x0f, &[14, 0, 0, 0, 1, 0, 0, 0, 0, 5, 0, 0, 0, 0]),
        (0x10, &[0; 4]),
        (0x11, &[3, 0, 0, 0, 100, 0, 0, 0]),
        (0x12, &[0; 8]),
        (0x13, &[0; 16]),
        (0x7f, &[]),
        (0xff, &[]),
    ];
    let mut bytes = vec![0; 4];
    for (tag, value) in values {
        let name: &[u8] = if tag == 0x11 { b"ts" } else { b"field" };
        bytes.extend([&[tag], name, &[0], value].concat());
    }
    bytes.extend(b"\x02op\0\x02\0\0\0i\0\0");
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

#[test]
fn values_of_every_type_are_passed_over() {
    let bytes = all_types();
    assert_eq!(Entry::read(&bytes).unwrap().at.time, ClusterTime::new(100, 3));
    assert!(Document::from_reader(bytes.as_slice()).is_ok(), "the bson crate takes it, too");
}

proptest! {
    #[test]
    fn bytes_that_are_changed_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        which in 0..3_usize,
    ) {
        let entry = command(doc! {"applyOps": [], "partialTxn": true}, doc! {"prevOpTime": no_optime()});
        let mut bytes = [all_types(), entry, with(doc! {})][which].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = Entry::read(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = Entry::read(&bytes);
        let found: Vec<_> = split(&bytes).collect();
        prop_assert!(found.iter().rev().skip(1).all(Result::is_ok));
    }
}
