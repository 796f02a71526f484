use bson::raw::RawDocumentBuf;
use bson::{Document, doc};

use super::*;
use crate::operation::{Operation, OperationError, operations};
use crate::tests::entries::{C, at, command, create, entry, ui};

const D: Uuid = Uuid([8; 16]);

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

fn of(document: Document) -> Fields {
    fields(&raw(&document), &[]).unwrap()
}

fn apply(catalogue: &mut Catalogue, operation: Document) -> Result<()> {
    let bytes = entry(at(1), operation);
    let mut result = Ok(());
    operations::<OperationError>(RawDocument::from_bytes(&bytes).unwrap(), &mut |operation| {
        if let Operation::Command(command) = operation {
            result = catalogue.apply(&command);
        }
        Ok(())
    })
    .unwrap();
    result
}

fn after(operations: Vec<Document>) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for operation in operations {
        apply(&mut catalogue, operation).unwrap();
    }
    catalogue
}

/// That the last of them does not fit.
#[track_caller]
fn fails(mut operations: Vec<Document>, expected: CatalogueError) {
    let last = operations.pop().unwrap();
    assert_eq!(apply(&mut after(operations), last), Err(expected));
}

fn no_index(index: &str) -> CatalogueError {
    CatalogueError::NoIndex { ns: "db.c".to_owned(), index: index.to_owned() }
}

fn exists(ns: &str, collection: Uuid) -> CatalogueError {
    CatalogueError::Exists { ns: ns.to_owned(), collection }
}

fn index(name: &str) -> Document {
    command(C, doc! {"createIndexes": "c", "v": 2, "key": {"a": 1}, "name": name})
}

fn rename(from: Uuid, to: &str, target: Option<Uuid>) -> Document {
    let mut o = doc! {"renameCollection": "db.x", "to": to};
    o.extend(target.map(|target| ("dropTarget".to_owned(), ui(target))));
    command(from, o)
}

fn names(catalogue: &Catalogue) -> Vec<(&str, Uuid)> {
    let names: Vec<_> = catalogue.names.iter().map(|(ns, uuid)| (ns.as_str(), *uuid)).collect();
    assert_eq!(names.len(), catalogue.collections.len());
    assert!(catalogue.iter().all(|(uuid, one)| catalogue.named(&one.ns) == Some(uuid)));
    names
}

#[test]
fn a_collection_is_created_with_its_options_and_its_index() {
    let id = doc! {"v": 2, "key": {"_id": 1}, "name": "_id_"};
    let collation = doc! {"locale": "de", "strength": 1};
    let collated = doc! {"v": 2, "key": {"_id": 1}, "name": "_id_", "collation": collation.clone()};
    let clustered = doc! {"v": 2, "key": {"_id": 1}, "name": "own", "unique": true};
    let other = doc! {"v": 1, "key": {"_id": 1}, "name": "_id_"};
    let cases = [
        (doc! {}, Some(id.clone())),
        (doc! {"capped": true, "size": 4096}, Some(id)),
        (doc! {"idIndex": other.clone()}, Some(other)),
        (doc! {"collation": collation}, Some(collated)),
        (doc! {"clusteredIndex": clustered}, None),
        (doc! {"autoIndexId": false}, None),
    ];
    for (options, index) in cases {
        let mut o = doc! {"create": "c.d"};
        o.extend(options.clone());
        let catalogue = after(vec![command(C, o)]);
        let mut options = options;
        options.remove("idIndex");
        let indexes = index.map(|index| ("_id_".to_owned(), of(index))).into_iter().collect();
        let expected = Collection { ns: "db.c.d".to_owned(), options: of(options), indexes };
        assert_eq!(catalogue.get(C), Some(&expected));
        assert_eq!(catalogue.named("db.c.d"), Some(C));
    }
}

#[test]
fn neither_a_name_nor_a_uuid_is_there_twice() {
    fails(vec![create(C, "c"), create(D, "c")], exists("db.c", C));
    fails(vec![create(C, "c"), create(C, "d")], exists("db.d", C));
    let again = vec![create(C, "c"), command(C, doc! {"drop": "c"}), create(D, "c"), create(C, "d")];
    assert_eq!(names(&after(again)), [("db.c", D), ("db.d", C)]);
}

#[test]
fn commands_of_no_collection_are_an_error() {
    for o in [
        doc! {"drop": "c"},
        doc! {"renameCollection": "db.c", "to": "db.d"},
        doc! {"createIndexes": "c", "name": "a"},
        doc! {"commitIndexBuild": "c", "indexes": []},
        doc! {"dropIndexes": "c", "index": "a"},
        doc! {"collMod": "c"},
        doc! {"emptycapped": "c"},
    ] {
        fails(vec![create(D, "d"), command(C, o)], CatalogueError::NoCollection(C));
    }
    fails(vec![create(C, "c"), rename(C, "db.d", Some(D))], CatalogueError::NoCollection(D));
}

#[test]
fn a_renamed_collection_is_temporary_no_more() {
    let temporary = command(C, doc! {"create": "tmp", "temp": true, "validator": {"a": 1}});
    let catalogue = after(vec![temporary, rename(C, "other.c", None)]);
    assert_eq!(names(&catalogue), [("other.c", C)]);
    assert_eq!(catalogue.get(C).unwrap().options, of(doc! {"validator": {"a": 1}}));
    assert_eq!(catalogue.get(C).unwrap().indexes.len(), 1);
}

#[test]
fn a_rename_takes_a_name_only_from_its_target() {
    let two = || vec![create(C, "c"), create(D, "d")];
    let with = |last| two().into_iter().chain([last]).collect::<Vec<_>>();
    assert_eq!(names(&after(with(rename(C, "db.d", Some(D))))), [("db.d", C)]);
    fails(with(rename(C, "db.d", None)), exists("db.d", D));
    fails([with(create(Uuid([9; 16]), "e")), vec![rename(C, "db.e", Some(D))]].concat(), exists("db.e", Uuid([9; 16])));
}

#[test]
fn indexes_come_and_go() {
    let both = doc! {"commitIndexBuild": "c", "indexes": [
        {"v": 2, "key": {"b": 1}, "name": "b_1", "unique": true}, {"v": 2, "key": {"d": 1}, "name": "d_1"},
    ]};
    let drop = |name: &str| command(C, doc! {"dropIndexes": "c", "index": name});
    let catalogue = after(vec![create(C, "c"), index("a_1"), command(C, both.clone()), drop("d_1")]);
    let indexes = &catalogue.get(C).unwrap().indexes;
    assert_eq!(indexes.keys().collect::<Vec<_>>(), ["_id_", "a_1", "b_1"]);
    assert_eq!(indexes["a_1"], of(doc! {"v": 2, "key": {"a": 1}, "name": "a_1"}));
    assert_eq!(indexes["b_1"], of(doc! {"v": 2, "key": {"b": 1}, "name": "b_1", "unique": true}));

    let there = |index: &str| CatalogueError::IndexExists { ns: "db.c".to_owned(), index: index.to_owned() };
    fails(vec![create(C, "c"), index("_id_")], there("_id_"));
    fails(vec![create(C, "c"), index("a_1"), index("a_1")], there("a_1"));
    fails(vec![create(C, "c"), index("d_1"), command(C, both)], there("d_1"));
    fails(vec![create(C, "c"), drop("a_1")], no_index("a_1"));
    let nameless = command(C, doc! {"createIndexes": "c", "v": 2});
    fails(vec![create(C, "c"), nameless], malformed("an index without a name"));
}

#[test]
fn a_database_is_dropped_after_its_collections() {
    let drop = |db: &str| doc! {"op": "c", "ns": format!("{db}.$cmd"), "o": {"dropDatabase": 1}};
    let left = CatalogueError::NotEmpty { db: "db".to_owned(), ns: "db.c".to_owned() };
    fails(vec![create(C, "c"), drop("db")], left);
    // Databases whose names begin or end alike are others.
    assert_eq!(names(&after(vec![create(C, "c"), drop("d"), drop("b"), drop("db.c"), drop("e")])), [("db.c", C)]);
    after(vec![create(C, "c"), command(C, doc! {"drop": "c"}), drop("db")]);
}

#[test]
fn emptying_leaves_the_catalogue_as_it_is() {
    let capped = command(C, doc! {"create": "c", "capped": true, "size": 4096});
    let catalogue = after(vec![capped.clone()]);
    assert_eq!(after(vec![capped, command(C, doc! {"emptycapped": "c"})]), catalogue);
}

fn listed(options: Document, indexes: Vec<Document>) -> Document {
    doc! {"type": "collection", "md": {"ns": "db.c", "options": options, "indexes": indexes}}
}

#[test]
fn a_listed_collection_has_the_indexes_that_are_built() {
    let indexes = vec![
        doc! {"spec": {"v": 2, "key": {"_id": 1}, "name": "_id_"}, "ready": true, "multikey": false},
        doc! {"spec": {"v": 2, "key": {"a": 1}, "name": "a_1"}, "ready": false},
    ];
    let document = listed(doc! {"uuid": ui(C), "capped": true}, indexes);
    let (uuid, collection) = Collection::listed(&raw(&document)).unwrap();
    assert_eq!((uuid, &*collection.ns, &collection.options), (C, "db.c", &of(doc! {"capped": true})));
    let id = ("_id_".to_owned(), of(doc! {"v": 2, "key": {"_id": 1}, "name": "_id_"}));
    assert_eq!(collection.indexes, [id].into());
}

#[test]
fn what_is_listed_without_what_matters_is_an_error() {
    for document in [
        doc! {"type": "view"},
        listed(doc! {}, vec![]),
        listed(doc! {"uuid": "x"}, vec![]),
        listed(doc! {"uuid": ui(C)}, vec![doc! {"spec": {"name": "a"}}]),
        listed(doc! {"uuid": ui(C)}, vec![doc! {"spec": {}, "ready": true}]),
    ] {
        let error = Collection::listed(&raw(&document)).unwrap_err();
        assert!(matches!(error, CatalogueError::Malformed(_)), "{document}: {error}");
    }
}

#[test]
fn only_a_capped_collection_that_is_not_clustered_is_in_the_order_of_insertion() {
    let is = |options| Collection { ns: "db.c".to_owned(), options: of(options), indexes: BTreeMap::new() };
    let ask = |options: Document| (is(options.clone()).is_capped(), is(options).is_in_insertion_order());
    assert_eq!(ask(doc! {}), (false, false));
    assert_eq!(ask(doc! {"capped": false}), (false, false));
    assert_eq!(ask(doc! {"capped": true}), (true, true));
    assert_eq!(ask(doc! {"capped": true, "clusteredIndex": {}}), (true, false));
}
