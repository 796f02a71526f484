use std::collections::BTreeMap;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};

use super::*;

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

fn of(document: Document) -> Fields {
    crate::catalogue::fields(&raw(&document), &[]).unwrap()
}

fn collection(options: Document, index: Document) -> Collection {
    let mut index = index;
    index.extend(doc! {"v": 2, "key": {"a": 1}, "name": "a_1"});
    Collection { ns: "db.c".to_owned(), options: of(options), indexes: BTreeMap::from([("a_1".to_owned(), of(index))]) }
}

/// A `collMod` of nothing but these.
fn modified(collection: &Collection, change: Document) -> Result<Collection> {
    let mut command = doc! {"collMod": "c"};
    command.extend(change);
    let mut collection = collection.clone();
    apply(&mut collection, &raw(&command)).map(|()| collection)
}

#[track_caller]
fn makes(options: Document, change: Document, expected: Document) {
    let made = modified(&collection(options, doc! {}), change).unwrap();
    assert_eq!(made, collection(expected, doc! {}));
}

#[track_caller]
fn makes_index(index: Document, change: Document, expected: Document) {
    let mut named = doc! {"name": "a_1"};
    named.extend(change);
    let made = modified(&collection(doc! {}, index), doc! {"index": named}).unwrap();
    assert_eq!(made, collection(doc! {}, expected));
}

#[track_caller]
fn fails(change: Document, expected: &str) {
    let error = modified(&collection(doc! {}, doc! {}), change).unwrap_err();
    assert!(error.to_string().starts_with(expected), "{error}");
}

#[test]
fn whatever_of_validation_is_changed_its_defaults_are_written_out() {
    let all = |level: &str, action: &str| doc! {"validationLevel": level, "validationAction": action};
    let with = |validator: Document, mut rest: Document| {
        rest.insert("validator", validator);
        rest
    };
    let (a, b) = (doc! {"a": 1}, doc! {"b": 1});
    makes(doc! {}, doc! {"validator": a.clone()}, with(a.clone(), all("strict", "error")));
    makes(doc! {}, doc! {"validationLevel": "off"}, all("off", "error"));
    makes(doc! {}, doc! {"validationAction": "warn"}, all("strict", "warn"));
    let old = || with(a.clone(), all("moderate", "warn"));
    makes(old(), doc! {"validator": b.clone()}, with(b, all("moderate", "warn")));
    makes(old(), doc! {"validationLevel": "strict"}, with(a.clone(), all("strict", "warn")));
    // One that is empty is none.
    makes(old(), doc! {"validator": {}}, all("moderate", "warn"));
    makes(doc! {}, doc! {"validator": {}}, all("strict", "error"));
}

#[test]
fn every_coll_mod_sets_whether_pre_images_are_recorded() {
    let recorded = || doc! {"recordPreImages": true};
    makes(doc! {}, recorded(), recorded());
    makes(recorded(), recorded(), recorded());
    makes(recorded(), doc! {"recordPreImages": false}, doc! {});
    makes(recorded(), doc! {}, doc! {});
    let images = doc! {"changeStreamPreAndPostImages": {"enabled": true}};
    makes(recorded(), images.clone(), images);
}

#[test]
fn images_that_are_disabled_are_removed() {
    let images = |enabled: bool| doc! {"changeStreamPreAndPostImages": {"enabled": enabled}};
    makes(doc! {}, images(true), images(true));
    makes(images(true), images(false), doc! {});
    makes(doc! {}, images(false), doc! {});
    makes(images(true), doc! {}, images(true));
}

#[test]
fn a_capped_size_is_rounded_up() {
    let cases: [(Bson, Bson); 7] = [
        (1.into(), 256.into()),
        (256_i64.into(), 256.into()),
        (4097.0.into(), 4352.into()),
        (100_000_i64.into(), 100_096.into()),
        (i64::from(i32::MAX - 300).into(), (i32::MAX - 255).into()),
        (i64::from(i32::MAX).into(), (1_i64 << 31).into()),
        ((5_i64 << 40).into(), (5_i64 << 40).into()),
    ];
    for (size, written) in cases {
        let old = doc! {"capped": true, "size": 4096};
        makes(old, doc! {"cappedSize": size}, doc! {"capped": true, "size": written});
    }
    fails(doc! {"cappedSize": i64::MAX}, "it changes cappedSize");
    fails(doc! {"cappedSize": 1.5}, "it changes cappedSize");
}

#[test]
fn a_capped_max_of_nothing_is_the_greatest() {
    let max = |max: Bson| doc! {"capped": true, "max": max};
    for (value, written) in [(0, i32::MAX), (-1, i32::MAX), (1, 1), (i32::MAX, i32::MAX)] {
        makes(max(9.into()), doc! {"cappedMax": i64::from(value)}, max(written.into()));
    }
    fails(doc! {"cappedMax": "x"}, "it changes cappedMax");
}

#[test]
fn expiry_may_be_off() {
    let expires = |seconds: i64| doc! {"expireAfterSeconds": seconds};
    makes(doc! {}, expires(9), expires(9));
    makes(expires(8), expires(9), expires(9));
    makes(expires(8), doc! {"expireAfterSeconds": "off"}, doc! {});
}

#[test]
fn flags_of_an_index_that_are_false_are_removed() {
    for flag in ["hidden", "prepareUnique"] {
        makes_index(doc! {}, doc! {flag: true}, doc! {flag: true});
        makes_index(doc! {flag: true}, doc! {flag: false}, doc! {});
        makes_index(doc! {flag: true}, doc! {"keyPattern": {"a": 1}}, doc! {flag: true});
    }
}

#[test]
fn an_index_that_becomes_unique_is_prepared_for_it_no_more() {
    makes_index(doc! {"prepareUnique": true}, doc! {"unique": true}, doc! {"unique": true});
    makes_index(doc! {"expireAfterSeconds": 8}, doc! {"expireAfterSeconds": 9_i64}, doc! {"expireAfterSeconds": 9_i64});
}

#[test]
fn a_granularity_sets_the_span_of_buckets() {
    let series = |rest: Document| {
        let mut series = doc! {"timeField": "t", "metaField": "m"};
        series.extend(rest);
        doc! {"timeseries": series}
    };
    let of = |granularity: &str, span: i32| series(doc! {"granularity": granularity, "bucketMaxSpanSeconds": span});
    let change = |change: Document| doc! {"timeseries": change};
    for (granularity, span) in [("seconds", 3_600), ("minutes", 86_400), ("hours", 2_592_000)] {
        let expected = || of(granularity, span);
        makes(of("seconds", 3_600), change(doc! {"granularity": granularity}), expected());
        let chosen = series(doc! {"bucketRoundingSeconds": 60, "bucketMaxSpanSeconds": 60});
        makes(chosen, change(doc! {"granularity": granularity}), expected());
    }
    let chosen = doc! {"bucketRoundingSeconds": 600, "bucketMaxSpanSeconds": 600};
    makes(of("seconds", 3_600), change(chosen.clone()), series(chosen));

    let unknown = [doc! {"granularity": "days"}, doc! {"granularity": 1}, doc! {"timeField": "x"}];
    for unknown in unknown {
        let made = modified(&collection(of("seconds", 3_600), doc! {}), change(unknown));
        assert!(matches!(made, Err(CatalogueError::Modify(_))), "{made:?}");
    }
    fails(change(doc! {"granularity": "hours"}), "it changes timeseries of a collection that is none");
}

#[test]
fn what_is_not_known_is_an_error() {
    fails(doc! {"noPadding": true}, "it changes noPadding");
    fails(doc! {"index": {"name": "a_1", "sparse": true}}, "it changes index.sparse");
    fails(doc! {"index": {"name": "b_1", "hidden": true}}, "db.c has no index \"b_1\"");
    fails(doc! {"index": {"keyPattern": {"a": 1}, "hidden": true}}, "it is malformed");
    fails(doc! {"index": "a_1"}, "it changes index");
    fails(doc! {"validator": 1}, "it changes validator");
    fails(doc! {"timeseries": 1}, "it changes timeseries");
    fails(doc! {"changeStreamPreAndPostImages": true}, "it changes changeStreamPreAndPostImages");
    fails(doc! {"changeStreamPreAndPostImages": {}}, "it is malformed");
}
