use bson::raw::{RawDocument, RawDocumentBuf};
use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};

use super::*;

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

fn applied(pre: &Document, o: &Document) -> Result<Document, UpdateError> {
    apply(&raw(pre), &raw(o)).map(|post| Document::try_from(&*post).unwrap())
}

/// As text, in which the order of fields counts.
#[track_caller]
fn becomes(pre: Document, o: Document, post: Document) {
    assert_eq!(applied(&pre, &o).unwrap().to_string(), post.to_string());
}

#[track_caller]
fn fails(pre: Document, o: Document, path: &str, wrong: Wrong) {
    let error = applied(&pre, &o).unwrap_err();
    let expected = match path {
        "" => UpdateError::Whole(wrong),
        path => UpdateError::At { path: path.to_owned(), wrong },
    };
    assert_eq!(error, expected);
}

fn v2(diff: Document) -> Document {
    doc! {"$v": 2, "diff": diff}
}

fn bytes(subtype: BinarySubtype, bytes: &[u8]) -> Binary {
    Binary { subtype, bytes: bytes.to_vec() }
}

#[test]
fn a_replacement_is_the_whole_document() {
    becomes(doc! {"_id": 1, "a": 1}, doc! {"b": 2, "_id": 1}, doc! {"b": 2, "_id": 1});
    becomes(doc! {"a": 1, "_id": 1}, doc! {"b": 2}, doc! {"_id": 1, "b": 2});
    becomes(doc! {"a": 1, "_id": 1}, doc! {}, doc! {"_id": 1});
    // With an _id, a field $v is a user's.
    becomes(doc! {"_id": 1}, doc! {"_id": 1, "$v": 2}, doc! {"_id": 1, "$v": 2});
}

#[test]
fn an_id_may_change_its_type_only() {
    becomes(doc! {"_id": 1}, doc! {"_id": 1.0}, doc! {"_id": 1.0});
    becomes(doc! {"_id": 1}, v2(doc! {"u": {"_id": 1_i64}}), doc! {"_id": 1_i64});
    fails(doc! {"_id": 1}, doc! {"_id": 2}, "", Wrong::Id);
    fails(doc! {"_id": 1}, v2(doc! {"d": {"_id": false}}), "", Wrong::Id);
    fails(doc! {"_id": 1}, doc! {"$unset": {"_id": true}}, "", Wrong::Id);
}

#[test]
fn what_is_of_no_known_kind_is_an_error() {
    fails(doc! {"_id": 1}, doc! {"$v": 3, "diff": {}}, "", Wrong::Version("3".to_owned()));
    fails(doc! {"_id": 1}, doc! {"$v": "2", "diff": {}}, "", Wrong::Version("a string".to_owned()));
    fails(doc! {"_id": 1}, doc! {"$v": 2}, "", Wrong::NoDocument("diff".to_owned()));
    fails(doc! {"_id": 1}, doc! {"$v": 2, "diff": 1}, "", Wrong::NoDocument("diff".to_owned()));
    fails(doc! {"_id": 1}, doc! {"$v": 2, "diff": {}, "x": 1}, "", Wrong::Unknown("x".to_owned()));
    fails(doc! {"_id": 1}, doc! {"$inc": {"a": 1}}, "", Wrong::Unknown("$inc".to_owned()));
    fails(doc! {"_id": 1}, doc! {"$set": {}, "a": 1}, "", Wrong::Unknown("a".to_owned()));
    fails(doc! {"_id": 1}, doc! {"$v": 1, "$set": 1}, "", Wrong::NoDocument("$set".to_owned()));
}

#[test]
fn a_diff_deletes_updates_in_place_and_adds_at_the_end() {
    let pre = doc! {"_id": 1, "a": 1, "b": 2, "c": 3};
    becomes(pre.clone(), v2(doc! {"d": {"a": false}}), doc! {"_id": 1, "b": 2, "c": 3});
    becomes(pre.clone(), v2(doc! {"u": {"x": 9, "b": "two"}}), doc! {"_id": 1, "a": 1, "b": "two", "c": 3, "x": 9});
    becomes(pre.clone(), v2(doc! {"i": {"x": 9, "a": 7}}), doc! {"_id": 1, "b": 2, "c": 3, "x": 9, "a": 7});
    let all = v2(doc! {"d": {"a": false, "none": false}, "u": {"y": 1, "c": 4}, "i": {"x": 2}});
    becomes(pre, all, doc! {"_id": 1, "b": 2, "c": 4, "y": 1, "x": 2});
}

#[test]
fn a_diff_goes_into_documents_and_arrays() {
    let pre = doc! {"_id": 1, "a": {"b": {"c": 1}, "l": [1, {"x": 1}, [2, 3]]}, "s": 5};
    let diff = doc! {"sa": {
        "sb": {"i": {"d": 2}},
        "sl": {"a": true, "u0": "one", "s1": {"u": {"x": 2}}, "s2": {"a": true, "l": 1}},
    }};
    let post = doc! {"_id": 1, "a": {"b": {"c": 1, "d": 2}, "l": ["one", {"x": 2}, [2]]}, "s": 5};
    becomes(pre, v2(diff), post);
}

#[test]
fn an_array_is_cut_and_made_longer_with_nulls() {
    use bson::Bson::Null;
    let array = |diff: Document, post: Vec<bson::Bson>| {
        becomes(doc! {"_id": 1, "l": [1, 2, 3]}, v2(doc! {"sl": diff}), doc! {"_id": 1, "l": post});
    };
    array(doc! {"a": true}, vec![1.into(), 2.into(), 3.into()]);
    array(doc! {"a": true, "l": 0}, vec![]);
    array(doc! {"a": true, "l": 2, "u1": 9}, vec![1.into(), 9.into()]);
    array(doc! {"a": true, "l": 5}, vec![1.into(), 2.into(), 3.into(), Null, Null]);
    array(doc! {"a": true, "u4": 5}, vec![1.into(), 2.into(), 3.into(), Null, 5.into()]);
    let long: Vec<i32> = (0..12).collect();
    let mut longer = long.clone();
    longer[10] = 99;
    let diff = v2(doc! {"sl": {"a": true, "u10": 99}});
    becomes(doc! {"_id": 1, "l": long}, diff, doc! {"_id": 1, "l": longer});
}

#[test]
fn binary_data_is_replaced_from_an_offset_on() {
    let column = BinarySubtype::Column;
    let pre = doc! {"_id": 1, "d": {"x": bytes(column, b"abcdef"), "y": 1}};
    let diff = |offset: i32, data: &[u8]| {
        v2(doc! {"sd": {"b": {"x": {"o": offset, "d": bytes(BinarySubtype::Generic, data)}}}})
    };
    becomes(pre.clone(), diff(2, b"XYZW!"), doc! {"_id": 1, "d": {"x": bytes(column, b"abXYZW!"), "y": 1}});
    becomes(pre.clone(), diff(6, b"g"), doc! {"_id": 1, "d": {"x": bytes(column, b"abcdefg"), "y": 1}});
    becomes(pre.clone(), diff(0, b""), doc! {"_id": 1, "d": {"x": bytes(column, b""), "y": 1}});
    fails(pre.clone(), diff(7, b""), "d.x", Wrong::Binary);
    fails(pre.clone(), diff(-1, b""), "d.x", Wrong::Binary);
    fails(pre.clone(), v2(doc! {"sd": {"b": {"x": {"o": 1}}}}), "d.x", Wrong::Binary);
    fails(pre.clone(), v2(doc! {"sd": {"b": {"x": 1}}}), "d.x", Wrong::Binary);
    fails(pre.clone(), v2(doc! {"sd": {"b": {"x": {"o": 1, "z": 1}}}}), "d.x", Wrong::Unknown("z".to_owned()));
    let other = bytes(BinarySubtype::Generic, b"");
    let mismatch = Wrong::Mismatch { wanted: "binary data", found: "an integer" };
    fails(pre.clone(), v2(doc! {"sd": {"b": {"y": {"o": 0, "d": other.clone()}}}}), "d.y", mismatch);
    fails(pre, v2(doc! {"sd": {"b": {"z": {"o": 0, "d": other}}}}), "d.z", Wrong::Missing);
}

#[test]
fn a_diff_that_no_server_writes_is_an_error() {
    let pre = doc! {"_id": 1, "a": {"b": 1}, "l": [1]};
    let diff = |diff: Document, path: &str, wrong| fails(pre.clone(), v2(diff), path, wrong);
    let document = |found| Wrong::Mismatch { wanted: "a document", found };
    let array = |found| Wrong::Mismatch { wanted: "an array", found };
    let name = str::to_owned;
    diff(doc! {}, "", Wrong::Empty);
    diff(doc! {"x": {}}, "", Wrong::Unknown(name("x")));
    diff(doc! {"dd": {}}, "", Wrong::Unknown(name("dd")));
    diff(doc! {"a": true}, "", Wrong::Unknown(name("a")));
    diff(doc! {"i": {}, "u": {}}, "", Wrong::Unknown(name("u")));
    diff(doc! {"sa": {"u": {}}, "u": {}}, "", Wrong::Unknown(name("u")));
    diff(doc! {"u": 1}, "", Wrong::NoDocument(name("u")));
    diff(doc! {"sa": 1}, "", Wrong::NoDocument(name("sa")));
    diff(doc! {"d": {"a": false}, "u": {"a": 1}}, "", Wrong::Twice(name("a")));
    diff(doc! {"u": {"a": 1}, "sa": {"u": {"b": 1}}}, "", Wrong::Twice(name("a")));
    diff(doc! {"sa": {}}, "a", Wrong::Empty);
    diff(doc! {"sa": {"sb": {"u": {}}}}, "a.b", document("an integer"));
    diff(doc! {"sl": {"u": {}}}, "l", document("an array"));
    diff(doc! {"sa": {"a": true}}, "a", array("a document"));
    diff(doc! {"sz": {"u": {}}}, "z", Wrong::Missing);
    diff(doc! {"sl": {"a": false}}, "l", Wrong::Header);
    diff(doc! {"sl": {"a": true, "l": -1}}, "l", Wrong::Length);
    diff(doc! {"sl": {"a": true, "l": 1_i64}}, "l", Wrong::Length);
    diff(doc! {"sl": {"a": true, "u0": 1, "l": 1}}, "l", Wrong::Unknown(name("l")));
    diff(doc! {"sl": {"a": true, "x0": 1}}, "l", Wrong::Unknown(name("x0")));
    for index in ["", "x", "00", "-1", "4294967296", "18446744073709551616"] {
        diff(doc! {"sl": {"a": true, format!("u{index}"): 1}}, "l", Wrong::Index(name(index)));
    }
    diff(doc! {"sl": {"a": true, "u1": 1, "u0": 1}}, "l", Wrong::Order);
    diff(doc! {"sl": {"a": true, "l": 1, "u1": 1}}, "l", Wrong::Order);
    diff(doc! {"sl": {"a": true, "s0": 1}}, "l", Wrong::NoDocument(name("s0")));
    diff(doc! {"sl": {"a": true, "s0": {"u": {}}}}, "l.0", document("an integer"));
    diff(doc! {"sl": {"a": true, "s3": {"u": {}}}}, "l.3", Wrong::Missing);
}

#[test]
fn a_hostile_length_is_refused_before_memory_is_taken() {
    for diff in [doc! {"a": true, "l": i32::MAX}, doc! {"a": true, "u999999999": 1}] {
        fails(doc! {"_id": 1, "l": []}, v2(doc! {"sl": diff}), "l", Wrong::TooLong);
    }
    fails(doc! {"_id": 1, "l": []}, doc! {"$set": {"l.1500001": 1}}, "l.1500001", Wrong::Padding);
    let long = "x".repeat(MAX_LENGTH - 100);
    fails(doc! {"_id": 1, "s": &long}, v2(doc! {"i": {"t": "y".repeat(100)}}), "", Wrong::TooLong);
    fails(doc! {"_id": 1}, doc! {"_id": 1, "s": long + &"x".repeat(100)}, "", Wrong::TooLong);
}

/// Deeper than the server lets them be.
#[test]
fn depth_has_a_limit() {
    let deep = |levels: usize, (mut pre, mut diff): (Document, Document)| {
        for _ in 0..levels {
            (pre, diff) = (doc! {"a": pre}, doc! {"sa": diff});
        }
        applied(&pre, &v2(diff))
    };
    let inner = (doc! {"x": 1}, doc! {"u": {"x": 2}});
    assert!(deep(crate::DEPTH - 2, inner.clone()).is_ok());
    assert!(matches!(deep(crate::DEPTH, inner), Err(UpdateError::At { wrong: Wrong::TooDeep, .. })));
    let path = vec!["a"; crate::DEPTH + 1].join(".");
    let set = applied(&doc! {"_id": 1}, &doc! {"$set": {path: 1}});
    assert!(matches!(set, Err(UpdateError::At { wrong: Wrong::TooDeep, .. })));
}

#[test]
fn modifiers_keep_the_place_of_fields_and_sort_new_ones() {
    let pre = doc! {"_id": 1, "b": 1, "a": {"y": 1}};
    let v1 = |set: Document, unset: Document| doc! {"$v": 1, "$unset": unset, "$set": set};
    let set = doc! {"z": 1, "10": 1, "9": 1, "c.e": 1, "c.d.x": 2, "b": 2, "a.x": 3};
    let post = doc! {
        "_id": 1, "b": 2, "a": {"y": 1, "x": 3}, "9": 1, "10": 1, "c": {"d": {"x": 2}, "e": 1}, "z": 1,
    };
    becomes(pre.clone(), v1(set.clone(), doc! {}), post.clone());
    // As the oldest servers wrote it.
    becomes(pre.clone(), doc! {"$set": set}, post);
    let unset = doc! {"b": true, "a.y": true, "none.x": true};
    becomes(pre.clone(), v1(doc! {}, unset), doc! {"_id": 1, "a": {}});
    // What is unset makes nothing, and a number in a path makes a document.
    becomes(pre, v1(doc! {"n.0": 1}, doc! {"n.1": 1, "m.x": 1}), doc! {"_id": 1, "b": 1, "a": {"y": 1}, "n": {"0": 1}});
}

#[test]
fn modifiers_go_into_arrays_by_index() {
    use bson::Bson::Null;
    let pre = || doc! {"_id": 1, "l": [1, {"x": 1}]};
    becomes(pre(), doc! {"$set": {"l.1.y": 2, "l.0": 0}}, doc! {"_id": 1, "l": [0, {"x": 1, "y": 2}]});
    becomes(pre(), doc! {"$unset": {"l.0": 1, "l.1.x": 1, "l.7": 1, "l.x": 1}}, doc! {"_id": 1, "l": [Null, {}]});
    becomes(pre(), doc! {"$set": {"l.3": 3}}, doc! {"_id": 1, "l": [1, {"x": 1}, Null, 3]});
    let set = doc! {"$set": {"l.3.b": 2, "l.3.a": 1, "l.10": 10}};
    let mut post: Vec<bson::Bson> = vec![1.into(), doc! {"x": 1}.into(), Null, doc! {"a": 1, "b": 2}.into()];
    post.extend([Null, Null, Null, Null, Null, Null, 10.into()]);
    becomes(pre(), set, doc! {"_id": 1, "l": post});
}

#[test]
fn modifiers_that_no_server_writes_are_errors() {
    let pre = || doc! {"_id": 1, "a": 1, "l": [1]};
    let name = str::to_owned;
    fails(pre(), doc! {"$set": {"x.y": 1, "x": 1}}, "", Wrong::Twice(name("x")));
    fails(pre(), doc! {"$set": {"x.y": 1}, "$unset": {"x.y": 1}}, "x", Wrong::Twice(name("y")));
    fails(pre(), doc! {"$set": {"a.b": 1}}, "a", Wrong::NotViable("an integer"));
    fails(pre(), doc! {"$set": {"l.x": 1}}, "l", Wrong::Index(name("x")));
    fails(pre(), doc! {"$set": {"l.00": 1}}, "l", Wrong::Index(name("00")));
    fails(pre(), doc! {"$set": {"l.0.x": 1}}, "l.0", Wrong::NotViable("an integer"));
    let empty = UpdateError::At { path: String::new(), wrong: Wrong::Path };
    assert_eq!(applied(&pre(), &doc! {"$set": {"": 1}}), Err(empty));
    for path in ["x.", ".x", "x..y", "l.$", "l.$[]", "l.$[e].x"] {
        fails(pre(), doc! {"$set": {path: 1}}, path, Wrong::Path);
    }
    // Nothing is there to be unset.
    becomes(pre(), doc! {"$unset": {"a.b": 1}}, pre());
}

/// MongoDB does not forbid them: a diff changes each, a modifier the first.
#[test]
fn fields_of_one_name() {
    let pre = b"\x1c\0\0\0\x10_id\0\x01\0\0\0\x10a\0\x01\0\0\0\x10a\0\x02\0\0\0\0";
    let pre = RawDocument::from_bytes(pre).unwrap();
    let values = |o: Document| -> Vec<i32> {
        let post = apply(pre, &raw(&o)).unwrap();
        post.iter().skip(1).map(|field| field.unwrap().1.as_i32().unwrap()).collect()
    };
    assert_eq!(values(v2(doc! {"u": {"a": 9}})), [9, 9]);
    assert_eq!(values(v2(doc! {"d": {"a": false}})), [0; 0]);
    assert_eq!(values(v2(doc! {"i": {"a": 9}})), [9]);
    assert_eq!(values(doc! {"$set": {"a": 9}}), [9, 2]);
    assert_eq!(values(doc! {"$unset": {"a": 9}}), [2]);
}

/// A diff names elements anew. Of modifiers, it depends on what the server does not tell.
#[test]
fn misnamed_elements() {
    let pre = |name: u8| {
        let mut bytes = b"\x1b\0\0\0\x10_id\0\x01\0\0\0\x04l\0\x0c\0\0\0\x10x\0\x05\0\0\0\0\0".to_vec();
        bytes[0] = bytes.len() as u8;
        let at = bytes.iter().position(|byte| *byte == b'x').unwrap();
        bytes[at] = name;
        RawDocumentBuf::from_bytes(bytes).unwrap()
    };
    let diff = raw(&v2(doc! {"sl": {"a": true}}));
    assert_eq!(apply(&pre(b'x'), &diff), Ok(pre(b'0')));
    let set = raw(&doc! {"$set": {"l.0": 5}});
    assert_eq!(apply(&pre(b'0'), &set), Ok(pre(b'0')));
    let wrong = Wrong::Misnamed("x".to_owned());
    assert_eq!(apply(&pre(b'x'), &set), Err(UpdateError::At { path: "l".to_owned(), wrong }));
}

#[test]
fn bytes_that_are_no_documents_are_errors() {
    let good = raw(&doc! {"_id": 1, "a": {"b": "text"}, "l": [1, 2]});
    let diff = raw(&v2(doc! {"u": {"x": 1}, "sa": {"u": {"b": "x"}}, "sl": {"a": true, "l": 1, "u0": 1}}));
    assert!(apply(&good, &diff).is_ok());
    for at in 4..good.as_bytes().len() - 1 {
        let mut bad = good.as_bytes().to_vec();
        bad[at] ^= 0x55;
        if let Ok(bad) = RawDocument::from_bytes(&bad) {
            let _ = apply(bad, &diff);
        }
    }
    for at in 4..diff.as_bytes().len() - 1 {
        let mut bad = diff.as_bytes().to_vec();
        bad[at] ^= 0x55;
        if let Ok(bad) = RawDocument::from_bytes(&bad) {
            let _ = apply(&good, bad);
        }
    }
    let cut = RawDocument::from_bytes(b"\x08\0\0\0\x10a\0\0").unwrap();
    assert!(matches!(apply(cut, &diff), Err(UpdateError::Whole(Wrong::Document(_)))));
    assert!(matches!(apply(&good, cut), Err(UpdateError::Whole(Wrong::Update(_)))));
}
