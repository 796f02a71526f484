use std::cmp::Ordering;

use bson::spec::BinarySubtype;
use bson::{Binary, Decimal128, doc};
use proptest::prelude::*;

use super::*;

const UUID: Uuid = Uuid([7; 16]);

fn raw(document: Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(&document).unwrap()
}

fn uuid_of(uuid: Uuid) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: uuid.0.to_vec() })
}

fn row(key: Document) -> RawDocumentBuf {
    raw(doc! {"_id": "shop.goods", "uuid": uuid_of(UUID), "key": key})
}

fn chunk(min: Document, max: Document, shard: &str) -> RawDocumentBuf {
    raw(doc! {"uuid": uuid_of(UUID), "min": min, "max": max, "shard": shard})
}

fn ownership(key: Document, chunks: &[RawDocumentBuf]) -> Result<Ownership> {
    Ownership::new(&row(key), chunks.iter().map(|chunk| &**chunk))
}

fn hash(value: impl Into<Bson>) -> i64 {
    let document = raw(doc! {"v": value.into()});
    hashed::hash(document.get("v").unwrap().unwrap()).unwrap()
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

#[track_caller]
fn same_hash(values: impl IntoIterator<Item = Bson>, whole: i64) {
    for value in values {
        assert_eq!(hash(value.clone()), hash(whole), "{value}");
    }
}

/// The server checks this one whenever it starts.
#[test]
fn the_hash_is_the_servers() {
    assert_eq!(hash(42), -944302157085130861);
}

#[test]
fn numbers_of_all_types_are_hashed_as_whole_numbers() {
    same_hash([1.into(), 1.0.into(), 1.9.into(), decimal("1"), decimal("1.00")], 1);
    same_hash([(-1.9).into(), decimal("-1.4")], -1);
    same_hash([0.0.into(), (-0.0).into(), (-0.9).into(), f64::NAN.into(), decimal("NaN"), decimal("-0E+6000")], 0);
    // Decimals go to the nearest, not towards zero; halves to the even one.
    same_hash([decimal("0.5"), decimal("-0.5"), decimal("0.49"), decimal("1E-6176")], 0);
    same_hash([decimal("1.5"), decimal("2.5"), decimal("2.4999"), decimal("20E-1")], 2);
    same_hash([decimal("-1.5"), decimal("-2.5")], -2);
    same_hash([decimal("0.9999999999999999999999999999999999")], 1);
    let max = i64::MAX;
    same_hash([f64::INFINITY.into(), f64::MAX.into(), 2_f64.powi(63).next_up().into(), decimal("Infinity")], max);
    same_hash([decimal("9223372036854775807.4"), decimal("9223372036854775808"), decimal("1E+6144")], max);
    let min = i64::MIN;
    same_hash([f64::NEG_INFINITY.into(), (-(2_f64.powi(63))).into(), 2_f64.powi(63).into()], min);
    same_hash([decimal("-Infinity"), decimal("-9223372036854775808.5"), decimal("-1E+6144")], min);
    same_hash([decimal("9223372036854775806"), decimal("922337203685477580.6E+1")], max - 1);
    let not_canonical = Bson::Decimal128(Decimal128::from_bytes((3_u128 << 125 | 77).to_le_bytes()));
    same_hash([not_canonical], 0);
}

#[test]
fn what_is_nested_too_deep_has_no_hash() {
    let mut deep = doc! {};
    (0..crate::DEPTH - 2).for_each(|_| deep = doc! {"a": std::mem::take(&mut deep)});
    hash(deep.clone());
    let deeper = raw(doc! {"v": {"a": deep}});
    assert_eq!(hashed::hash(deeper.get("v").unwrap().unwrap()), Err(OwnershipError::TooDeep));
}

/// Fields with dots, missing ones, and those of time-series buckets.
#[test]
fn the_shard_key_is_found_in_a_document() {
    let (min, max) = (Bson::MinKey, Bson::MaxKey);
    let at = doc! {"a": 5, "b.c": &min};
    let least = doc! {"a": &min, "b.c": &min};
    let greatest = doc! {"a": &max, "b.c": &max};
    let chunks = [chunk(at.clone(), greatest, "high"), chunk(least, at, "low")];
    let owners = ownership(doc! {"a": 1.0, "b.c": 1_i64}, &chunks).unwrap();
    assert_eq!(owners.shards().collect::<Vec<_>>(), ["low", "high"]);
    let owner = |document: Document| owners.owner(&raw(document)).map(|owner| owner.map(str::to_owned));
    let (low, high) = (Ok(Some("low".to_owned())), Ok(Some("high".to_owned())));
    assert_eq!(owner(doc! {"a": 4, "b": {"c": 9}}), low);
    assert_eq!(owner(doc! {"a": 5}), high, "null is more than MinKey");
    assert_eq!(owner(doc! {"a": 5, "b": {"c": &min}}), high);
    assert_eq!(owner(doc! {"a": 4.9, "b": 3}), low);
    assert_eq!(owner(doc! {"b": {"c": 9}}), low, "null is less than a number");
    assert_eq!(owner(doc! {"a": &max, "b": {"c": "x"}}), high);
    assert_eq!(owner(doc! {"a": &max, "b": {"c": &max}}), Ok(None));
    assert_eq!(owner(doc! {"a": 1, "b": [{"c": 1}]}), Err(OwnershipError::Array("b.c".into())));
    assert_eq!(owner(doc! {"a": [1]}), Err(OwnershipError::Array("a".into())));
    assert_eq!(owner(doc! {"a": {"x": [1]}}), high, "an array inside of a value is no harm");

    let key = doc! {"control.min.at": 1};
    let chunks = [
        chunk(doc! {"control.min.at": &min}, doc! {"control.min.at": bson::DateTime::from_millis(0)}, "old"),
        chunk(doc! {"control.min.at": bson::DateTime::from_millis(0)}, doc! {"control.min.at": &max}, "new"),
    ];
    let owners = ownership(key, &chunks).unwrap();
    let bucket = |at| raw(doc! {"control": {"min": {"at": bson::DateTime::from_millis(at)}}});
    assert_eq!(owners.owner(&bucket(-1)), Ok(Some("old")));
    assert_eq!(owners.owner(&bucket(0)), Ok(Some("new")));
}

#[test]
fn a_hashed_field_that_is_missing_is_null() {
    let null = hash(Bson::Null);
    let bound = |at: Bson| doc! {"region": "eu", "uid": at};
    let chunks = [
        chunk(doc! {"region": Bson::MinKey, "uid": Bson::MinKey}, bound(null.into()), "before"),
        chunk(bound(null.into()), bound((null + 1).into()), "null"),
        chunk(bound((null + 1).into()), doc! {"region": Bson::MaxKey, "uid": Bson::MaxKey}, "after"),
    ];
    let owners = ownership(doc! {"region": 1, "uid": "hashed"}, &chunks).unwrap();
    let owner = |document: Document| owners.owner(&raw(document)).unwrap().unwrap().to_owned();
    assert_eq!(owner(doc! {"region": "eu"}), "null");
    assert_eq!(owner(doc! {"region": "eu", "uid": Bson::Null}), "null");
    assert_eq!(owner(doc! {"region": "as"}), "before");
    assert_eq!(owner(doc! {"region": "us"}), "after");
    assert_eq!(owner(doc! {"uid": Bson::Null}), "before", "null is less than a string");
}

#[test]
fn chunks_have_everything_once_or_are_refused_by_their_bounds() {
    let at = |value: Bson| doc! {"a": value};
    let (min, max) = (at(Bson::MinKey), at(Bson::MaxKey));
    let refused = |chunks: &[RawDocumentBuf]| ownership(doc! {"a": 1}, chunks).unwrap_err().to_string();
    let whole = |to: i32, from: i32| [chunk(min.clone(), at(to.into()), "x"), chunk(at(from.into()), max.clone(), "y")];
    ownership(doc! {"a": 1}, &whole(5, 5)).unwrap();
    assert_eq!(refused(&[]), r#"no chunk has what is from { "a": MinKey } to { "a": MaxKey }"#);
    assert_eq!(refused(&whole(5, 6)), r#"no chunk has what is from { "a": 5 } to { "a": 6 }"#);
    assert_eq!(
        refused(&whole(6, 5)),
        r#"the chunk from { "a": 5 } to { "a": MaxKey } has what a chunk before it has, which ends at { "a": 6 }"#
    );
    assert_eq!(
        refused(&[chunk(min.clone(), max.clone(), "x"), chunk(min.clone(), max.clone(), "x")]),
        r#"the chunk from { "a": MinKey } to { "a": MaxKey } has what a chunk before it has, which ends at { "a": MaxKey }"#
    );
    let ends = whole(5, 5);
    assert_eq!(refused(&ends[..1]), r#"no chunk has what is from { "a": 5 } to { "a": MaxKey }"#);
    assert_eq!(refused(&ends[1..]), r#"no chunk has what is from { "a": MinKey } to { "a": 5 }"#);
    for (from, to) in [(6, 5), (5, 5)] {
        let backwards = chunk(at(from.into()), at(to.into()), "x");
        let says = format!(r#"the chunk from {{ "a": {from} }} to {{ "a": {to} }} ends before it begins"#);
        assert_eq!(refused(&[&ends[..], &[backwards]].concat()), says);
    }
    for bound in [doc! {"b": 5}, doc! {}, doc! {"a": 5, "b": 5}] {
        let says = format!(r#"{bound} bounds a chunk and has not the fields of the shard key {{ "a": 1 }}"#);
        assert_eq!(refused(&[chunk(min.clone(), bound, "x")]), says);
    }
}

#[test]
fn rows_that_are_not_understood_are_refused() {
    let min = doc! {"a": Bson::MinKey};
    let max = doc! {"a": Bson::MaxKey};
    let whole = [chunk(min.clone(), max.clone(), "x")];
    for pattern in [doc! {}, doc! {"a": -1}, doc! {"a": 2}, doc! {"a": "text"}, doc! {"a": true}, doc! {"a": {"b": 1}}]
    {
        let refused = ownership(pattern.clone(), &whole).unwrap_err();
        assert_eq!(refused, OwnershipError::Pattern(pattern.to_string()));
    }
    let other = Uuid([8; 16]);
    let foreign = raw(doc! {"uuid": uuid_of(other), "min": &min, "max": &max, "shard": "x"});
    let refused = ownership(doc! {"a": 1}, &[foreign]).unwrap_err();
    assert!(matches!(refused, OwnershipError::Foreign { collection, .. } if collection == other), "{refused}");
    for field in ["uuid", "min", "max", "shard"] {
        let mut row = Document::try_from(&whole[0]).unwrap();
        row.remove(field);
        let refused = ownership(doc! {"a": 1}, &[raw(row)]).unwrap_err();
        assert_eq!(refused, OwnershipError::Row { table: "chunks", field });
    }
    for field in ["key", "uuid"] {
        let mut collection = Document::try_from(&row(doc! {"a": 1})).unwrap();
        collection.remove(field);
        let refused = Ownership::new(&raw(collection), whole.iter().map(|chunk| &**chunk)).unwrap_err();
        assert_eq!(refused, OwnershipError::Row { table: "collections", field });
    }
}

/// Values of a shard key, in MongoDB's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Min,
    Missing,
    /// Halves.
    Number(i32),
    Text(&'static str),
    Max,
}

impl Part {
    fn bson(self, form: u8) -> Bson {
        match (self, form % 3) {
            (Self::Min, _) => Bson::MinKey,
            (Self::Missing, _) => Bson::Null,
            (Self::Number(halves), 0) if halves % 2 == 0 => (halves / 2).into(),
            (Self::Number(halves), 1) if halves % 2 == 0 => i64::from(halves / 2).into(),
            (Self::Number(halves), 2) => decimal(&format!("{}E-1", halves * 5)),
            (Self::Number(halves), _) => (f64::from(halves) / 2.0).into(),
            (Self::Text(text), _) => text.into(),
            (Self::Max, _) => Bson::MaxKey,
        }
    }
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        1 => Just(Part::Min),
        1 => Just(Part::Missing),
        6 => (-4..5).prop_map(Part::Number),
        2 => prop_oneof![Just("a"), Just("ab"), Just("b")].prop_map(Part::Text),
        1 => Just(Part::Max),
    ]
}

const NAMES: [&str; 3] = ["a", "b.c", "d"];

fn bound(parts: &[Part], form: u8) -> Document {
    NAMES.iter().zip(parts).map(|(name, part)| ((*name).to_owned(), part.bson(form))).collect()
}

fn document(parts: &[Part], form: u8) -> RawDocumentBuf {
    let mut document = doc! {"_id": 1};
    for (name, part) in NAMES.iter().zip(parts) {
        // Missing or null.
        if *part == Part::Missing && form.is_multiple_of(2) {
            continue;
        }
        match name.split_once('.') {
            None => document.insert(*name, part.bson(form)),
            Some((outer, inner)) => document.insert(outer, doc! {inner: part.bson(form)}),
        };
    }
    raw(document)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_owner_is_found_as_by_looking_at_every_chunk(
        fields in 1_usize..4,
        splits in proptest::collection::vec((part(), part(), part()), 0..12),
        shards in proptest::collection::vec(0_usize..3, 13),
        documents in proptest::collection::vec(((part(), part(), part()), any::<u8>()), 1..30),
        form: u8,
        turn: usize,
    ) {
        let cut = |(one, two, three): &(Part, Part, Part)| [*one, *two, *three][..fields].to_vec();
        let mut bounds: Vec<Vec<Part>> = splits.iter().map(cut).collect();
        bounds.extend([vec![Part::Min; fields], vec![Part::Max; fields]]);
        bounds.sort();
        bounds.dedup();
        let names = ["rs0", "rs1", "rs2"];
        let model: Vec<_> = bounds.windows(2).zip(&shards).map(|(pair, shard)| (&pair[0], &pair[1], names[*shard])).collect();
        let mut chunks: Vec<_> =
            model.iter().map(|(min, max, shard)| chunk(bound(min, form), bound(max, form / 3), shard)).collect();
        let turn = turn % chunks.len();
        chunks.rotate_left(turn);
        let pattern: Document = NAMES[..fields].iter().map(|name| ((*name).to_owned(), Bson::Int32(1))).collect();
        let owners = ownership(pattern, &chunks).unwrap();
        for (parts, form) in documents {
            let parts = cut(&parts);
            let holds = |(min, max, _): &&(&Vec<Part>, &Vec<Part>, &str)| {
                parts.cmp(min) != Ordering::Less && parts.cmp(max) == Ordering::Less
            };
            let expected = model.iter().find(holds).map(|(_, _, shard)| *shard);
            prop_assert_eq!(owners.owner(&document(&parts, form)), Ok(expected), "{:?} {:?}", parts, model);
        }
    }

    #[test]
    fn any_document_has_an_owner_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64), tag in 0_u8..0x20) {
        let whole = |key| {
            let (min, max) = (doc! {"a": Bson::MinKey}, doc! {"a": Bson::MaxKey});
            ownership(doc! {"a": key}, &[chunk(min, max, "x")]).unwrap()
        };
        let mut document = vec![0; 4];
        document.push(tag);
        document.extend(b"a\0");
        document.extend(bytes);
        document.push(0);
        let length = document.len() as i32;
        document[..4].copy_from_slice(&length.to_le_bytes());
        let document = RawDocumentBuf::from_bytes(document).unwrap();
        for key in [Bson::from(1), "hashed".into()] {
            let _ = whole(key).owner(&document);
        }
    }
}
