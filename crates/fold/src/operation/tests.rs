use bson::{Bson, Document, doc};
use proptest::prelude::*;
use stillpoint_oplog::Entry;

use super::*;
use crate::catalogue::Catalogue;
use crate::tests::entries::{C, NS, apply_ops, at, command, create, delete, entry, insert, set, time, ui, update};

fn text(document: &RawDocument) -> String {
    Document::try_from(document).unwrap().to_string().replace([' ', '"'], "")
}

/// An operation in short.
fn told(operation: Operation<'_>) -> String {
    match operation {
        Operation::Write(Write { collection, ns, id, change, upsert }) => {
            assert_eq!((collection, ns), (C, NS));
            let id = format!("{}{}", Bson::try_from(id).unwrap(), if upsert { "?" } else { "" });
            match change {
                Change::Insert(document) => format!("insert {id} {}", text(document)),
                Change::Update(update) => format!("update {id} {}", text(update)),
                Change::Delete => format!("delete {id}"),
            }
        }
        Operation::Command(command) => match command {
            Command::Create { db, name, options, .. } => format!("create {db} {name} {}", text(options)),
            Command::Drop { .. } => "drop".to_owned(),
            Command::Rename { to, drop_target, .. } => format!("rename {to} {drop_target:?}"),
            Command::CreateIndex { spec, .. } => format!("index {}", text(spec)),
            Command::CommitIndexBuild { specs, .. } => format!("indexes {}", specs.into_iter().count()),
            Command::DropIndex { name, .. } => format!("drop index {name}"),
            Command::Modify { change, .. } => format!("modify {}", text(change)),
            Command::Empty { .. } => "empty".to_owned(),
            Command::DropDatabase { db } => format!("drop database {db}"),
        },
    }
}

fn read(operation: Document) -> Result<Vec<String>, OperationError> {
    let bytes = entry(at(1), operation);
    let mut all = Vec::new();
    operations(RawDocument::from_bytes(&bytes).unwrap(), &mut |operation| {
        all.push(told(operation));
        Ok::<_, OperationError>(())
    })?;
    Ok(all)
}

#[track_caller]
fn is(operation: Document, expected: &[&str]) {
    assert_eq!(read(operation).unwrap(), expected);
}

#[track_caller]
fn fails(operation: Document, expected: OperationError) {
    assert_eq!(read(operation), Err(expected));
}

fn with(mut document: Document, name: &str, value: impl Into<Bson>) -> Document {
    document.insert(name, value);
    document
}

fn without(mut document: Document, name: &str) -> Document {
    document.remove(name).unwrap();
    document
}

fn nested(depth: usize) -> Document {
    (0..depth).fold(delete(1), |inner, _| apply_ops(vec![inner]))
}

#[test]
fn writes_are_read() {
    is(insert(doc! {"a": 2, "_id": 1}), &["insert 1 {a:2,_id:1}"]);
    is(set(1, 3), &["update 1 {$v:2,diff:{u:{a:3}}}"]);
    is(delete("x"), &["delete \"x\""]);
    is(with(set(1, 3), "b", true), &["update 1? {$v:2,diff:{u:{a:3}}}"]);
    is(doc! {"op": "n", "ns": "", "o": {"msg": "periodic noop"}}, &[]);
}

#[test]
fn commands_are_read() {
    let cases = [
        (doc! {"create": "c", "capped": true}, "create db c {create:c,capped:true}"),
        (doc! {"drop": "c"}, "drop"),
        (doc! {"renameCollection": "db.c", "to": "db.d", "stayTemp": false}, "rename db.d None"),
        (doc! {"renameCollection": "db.c", "to": "db.d", "dropTarget": false}, "rename db.d None"),
        (
            doc! {"renameCollection": "db.c", "to": "db.d", "dropTarget": ui(Uuid([0x1a; 16]))},
            "rename db.d Some(1a1a1a1a-1a1a-1a1a-1a1a-1a1a1a1a1a1a)",
        ),
        (doc! {"createIndexes": "c", "v": 2, "name": "a"}, "index {createIndexes:c,v:2,name:a}"),
        (doc! {"commitIndexBuild": "c", "indexes": [{"name": "a"}, {"name": "b"}]}, "indexes 2"),
        (doc! {"dropIndexes": "c", "index": "a_1"}, "drop index a_1"),
        (doc! {"deleteIndexes": "c", "index": "a_1"}, "drop index a_1"),
        (doc! {"collMod": "c", "hidden": true}, "modify {collMod:c,hidden:true}"),
        (doc! {"emptycapped": "c"}, "empty"),
        (doc! {"dropDatabase": 1}, "drop database db"),
    ];
    for (o, expected) in cases {
        is(command(C, o), &[expected]);
    }
    for name in [
        "commitTransaction",
        "abortTransaction",
        "startIndexBuild",
        "abortIndexBuild",
        "dbCheck",
        "dropIdent",
        "setMultikeyMetadata",
    ] {
        is(command(C, doc! {name: 1}), &[]);
    }
}

#[test]
fn what_is_not_known_is_an_error() {
    let nested = |operation| apply_ops(vec![insert(doc! {"_id": 1}), operation]);
    let field = |name: &str| OperationError::Field(name.to_owned());
    fails(with(delete(1), "op", "x"), OperationError::Op("x".to_owned()));
    fails(without(delete(1), "op"), OperationError::Op(String::new()));
    fails(nested(with(delete(1), "op", "x")), OperationError::Op("x".to_owned()));
    fails(command(C, doc! {"compact": "c"}), OperationError::Command("compact".to_owned()));
    fails(nested(command(C, doc! {"compact": "c"})), OperationError::Command("compact".to_owned()));
    fails(with(delete(1), "rid", 1), field("rid"));
    fails(nested(with(delete(1), "rid", 1)), field("rid"));
    fails(with(doc! {"op": "n", "o": {}}, "rid", 1), field("rid"));
}

#[test]
fn other_versions_are_an_error() {
    for (value, version) in [(Bson::Int32(1), 1), (Bson::Int64(3), 3), (Bson::Boolean(true), -1)] {
        // An entry has its own in every test; here it is before that.
        let bytes = doc! {"v": value.clone(), "op": "n", "o": {}}.to_vec().unwrap();
        let read = operations::<OperationError>(RawDocument::from_bytes(&bytes).unwrap(), &mut |_| Ok(()));
        assert_eq!(read, Err(OperationError::Version(version)));
        fails(apply_ops(vec![with(delete(1), "v", value)]), OperationError::Version(version));
    }
    is(apply_ops(vec![with(delete(1), "v", 2)]), &["delete 1?"]);
}

#[test]
fn what_is_missing_is_an_error() {
    let missing = |operation, what| fails(operation, OperationError::Missing(what));
    for operation in [insert(doc! {"_id": 1}), set(1, 1), delete(1), create(C, "c"), command(C, doc! {"drop": "c"})] {
        missing(without(operation.clone(), "ui"), "ui, its collection's UUID");
        missing(without(operation.clone(), "o"), "o that is a document");
        missing(with(operation.clone(), "o", 1), "o that is a document");
        missing(with(operation.clone(), "op", 1), "op that is a string");
        missing(with(operation.clone(), "ns", 1), "ns that is a string");
        missing(with(operation.clone(), "b", 1), "b that is a boolean");
        missing(with(operation, "ui", "x"), "UUID, binary of the subtype 4");
    }
    let ui = |subtype, bytes: &[u8]| Bson::Binary(bson::Binary { subtype, bytes: bytes.to_vec() });
    missing(with(delete(1), "ui", ui(BinarySubtype::Uuid, &[7; 15])), "UUID of 16 bytes");
    missing(with(delete(1), "ui", ui(BinarySubtype::UuidOld, &[7; 16])), "UUID, binary of the subtype 4");
    missing(without(set(1, 1), "o2"), "o2 that is a document");
    missing(with(set(1, 1), "o2", doc! {"a": 1}), "_id of its document");
    missing(insert(doc! {"a": 1}), "_id of its document");
    missing(with(delete(1), "o", doc! {}), "_id of its document");
    missing(command(C, doc! {}), "command in o");
    missing(with(create(C, "c"), "ns", "db.c"), "ns that is a database's $cmd");
    missing(command(C, doc! {"create": 1}), "o.create that is a string");
    missing(command(C, doc! {"renameCollection": "db.c"}), "to");
    missing(
        command(C, doc! {"renameCollection": "db.c", "to": "db.d", "dropTarget": true}),
        "UUID, binary of the subtype 4",
    );
    missing(command(C, doc! {"dropIndexes": "c"}), "index");
    missing(command(C, doc! {"commitIndexBuild": "c", "indexes": {}}), "o.indexes that is an array");
    missing(command(C, doc! {"applyOps": {}}), "o.applyOps, an array");
    missing(command(C, doc! {"applyOps": [1]}), "applyOps of documents");
}

#[test]
fn what_is_not_in_the_oplog_is_said_so() {
    for name in ["importCollection", "modifyCollectionShardingIndexCatalog"] {
        let error = read(command(C, doc! {name: "db.c"})).unwrap_err();
        assert_eq!(error, OperationError::Elsewhere(name));
        let expected = format!("it is {name}, whose data is not in the oplog: ");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[test]
fn apply_ops_is_ten_deep_at_most() {
    is(nested(10), &["delete 1?"]);
    fails(nested(11), OperationError::TooDeep);
}

#[test]
fn an_operators_apply_ops_is_an_upsert() {
    let operations = || vec![insert(doc! {"_id": 1}), set(1, 2), delete(1)];
    let upserts = ["insert 1? {_id:1}", "update 1? {$v:2,diff:{u:{a:2}}}", "delete 1?"];
    // Measured on 6.0: an insert replaces and a delete finds none all the same.
    let updates = [upserts[0], "update 1 {$v:2,diff:{u:{a:2}}}", upserts[2]];
    let strict = ["insert 1 {_id:1}", "update 1 {$v:2,diff:{u:{a:2}}}", "delete 1"];
    is(apply_ops(operations()), &upserts);
    is(apply_ops(vec![apply_ops(operations())]), &upserts);
    is(with(apply_ops(operations()), "o", doc! {"applyOps": operations(), "alwaysUpsert": true}), &upserts);
    is(with(apply_ops(operations()), "o", doc! {"applyOps": operations(), "alwaysUpsert": false}), &updates);
    // A transaction, and a batch of writes; what is nested in them is theirs.
    let previous = doc! {"ts": crate::tests::entries::stamp(time(0)), "t": -1_i64};
    for (name, value) in [("prevOpTime", Bson::Document(previous)), ("multiOpType", Bson::Int32(1))] {
        is(with(apply_ops(operations()), name, value.clone()), &strict);
        is(with(apply_ops(vec![apply_ops(operations())]), name, value), &strict);
    }
    // One operation of several may be one.
    let one = doc! {"applyOps": [with(set(1, 2), "b", true), set(1, 2)], "alwaysUpsert": false};
    let expected = ["update 1? {$v:2,diff:{u:{a:2}}}", "update 1 {$v:2,diff:{u:{a:2}}}"];
    is(with(apply_ops(vec![]), "o", one), &expected);
    // Of a delete, it says something else.
    is(with(delete(1), "b", true), &["delete 1"]);
}

#[test]
fn what_is_malformed_after_the_operations_is_an_error() {
    // Of the last field, a type that there is none of.
    let mut bytes = apply_ops(vec![delete(1)]);
    bytes.get_document_mut("o").unwrap().insert("mark", true);
    let mut bytes = bytes.to_vec().unwrap();
    let mark = bytes.windows(5).position(|window| window == b"mark\0").unwrap();
    bytes[mark - 1] = 0x77;
    let read = operations::<OperationError>(RawDocument::from_bytes(&bytes).unwrap(), &mut |_| Ok(()));
    assert!(matches!(read, Err(OperationError::Malformed(_))), "{read:?}");
}

#[test]
fn taking_may_stop_the_reading() {
    let bytes = entry(at(1), apply_ops(vec![delete(1), delete(2), delete(3)]));
    let mut taken = 0;
    let read = operations(RawDocument::from_bytes(&bytes).unwrap(), &mut |_| {
        taken += 1;
        if taken == 2 { Err(OperationError::Missing("patience")) } else { Ok(()) }
    });
    assert_eq!((read, taken), (Err(OperationError::Missing("patience")), 2));
}

fn some_entry() -> impl Strategy<Value = Vec<u8>> {
    let all = vec![
        insert(doc! {"_id": 1, "a": "b"}),
        update(1, doc! {"$v": 2, "diff": {"u": {"a": 2}}}),
        apply_ops(vec![create(C, "c"), insert(doc! {"_id": 1}), apply_ops(vec![delete(1)])]),
        command(C, doc! {"createIndexes": "c", "v": 2, "key": {"a": 1}, "name": "a_1"}),
        command(C, doc! {"commitIndexBuild": "c", "indexes": [{"v": 2, "key": {"a": 1}, "name": "a_1"}]}),
        command(C, doc! {"renameCollection": "db.c", "to": "db.d", "dropTarget": ui(C)}),
        command(C, doc! {"collMod": "c", "validator": {"a": 1}, "timeseries": {"granularity": "hours"}}),
        command(C, doc! {"collMod": "c", "index": {"name": "_id_", "hidden": true}, "cappedSize": 9_i64}),
    ];
    prop::sample::select(all).prop_map(|operation| entry(at(1), operation))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_it_panic(
        mut bytes in some_entry(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let _ = Entry::read(&bytes);
        let created = entry(at(1), create(C, "c"));
        let mut catalogue = Catalogue::default();
        for bytes in [&created, &bytes] {
            let Ok(document) = RawDocument::from_bytes(bytes) else { continue };
            let _ = operations::<OperationError>(document, &mut |operation| {
                match operation {
                    Operation::Write(write) => drop(crate::Key::of(write.id)),
                    Operation::Command(command) => drop(catalogue.apply(&command)),
                }
                Ok(())
            });
        }
    }
}
