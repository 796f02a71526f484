//! Hashes against the index of a real server.

use std::collections::BTreeMap;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Decimal128, Document, doc};
use futures::TryStreamExt;
use mongodb::options::Hint;
use rand::Rng;
use rand::rngs::StdRng;
use stillpoint_fold::ownership::hashed::hash;

use crate::generate::{self, cases, seeded};
use crate::keys;
use crate::server::{Server, raw};

/// A value that a hashed index takes: no array, unless inside of a document.
fn value(chance: &mut StdRng) -> Bson {
    let value = match chance.random_range(0..4) {
        0 => keys::number(chance),
        1 => {
            let (name, value) = (generate::name(chance), keys::number(chance));
            doc! {name: [value]}.into()
        }
        _ => generate::value(chance, 3),
    };
    if let Bson::Array(all) = value { doc! {"all": all}.into() } else { value }
}

/// Where a number stops to be hashed as itself.
fn edges() -> Vec<Bson> {
    let two63 = 2_f64.powi(63);
    let doubles =
        [0.5, 1.5, 2.5, 0.99, -0.5, -1.5, two63, -two63, two63.next_up(), two63.next_down(), (-two63).next_down()];
    let more = [f64::MAX, f64::MIN, 5e-324, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0];
    let decimals = [
        "0.4",
        "0.5",
        "0.6",
        "1.5",
        "2.5",
        "3.5",
        "2.500000001",
        "-0.5",
        "-1.5",
        "-2.5",
        "9223372036854775807",
        "9223372036854775806.5",
        "9223372036854775807.4",
        "9223372036854775807.5",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775808.5",
        "-9223372036854775807.5",
        "1E+30",
        "-1E+6144",
        "1E+18",
        "12E+17",
        "93E+17",
        "1E-6176",
        "0E+6111",
        "-0",
        "Infinity",
        "-Infinity",
        "NaN",
        "0.5000000000000000000000000000000000",
        "0.9999999999999999999999999999999999",
        "1.500000000000000000000000000000000",
        "12345678901234567.5",
    ];
    let decimals = decimals.iter().map(|text| Bson::Decimal128(text.parse().unwrap()));
    let not_canonical = [10_u128.pow(34) | 6176 << 113, (3 << 125) | 77];
    let not_canonical = not_canonical.map(|bits| Bson::Decimal128(Decimal128::from_bytes(bits.to_le_bytes())));
    doubles.into_iter().chain(more).map(Bson::from).chain(decimals).chain(not_canonical).collect()
}

/// `{_id: …, v: a pointer}`, of a type that no driver makes any more.
fn pointer(id: i32) -> RawDocumentBuf {
    let mut bytes = raw(&doc! {"_id": id}).into_bytes();
    bytes.pop();
    bytes.extend(b"\x0cv\0\x04\0\0\0abc\0............\0");
    let length = bytes.len() as i32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    RawDocumentBuf::from_bytes(bytes).unwrap()
}

#[tokio::test]
async fn the_servers_hashes_are_ours() {
    let server = Server::start().await;
    let mut chance = seeded("hashed");
    let values: Vec<Bson> = edges().into_iter().chain((0..cases(2000)).map(|_| value(&mut chance))).collect();
    let mut documents: Vec<RawDocumentBuf> =
        values.into_iter().enumerate().map(|(id, value)| raw(&doc! {"_id": id as i32, "v": value})).collect();
    documents.push(pointer(-1));
    documents.push(raw(&doc! {"_id": -2}));
    let index = doc! {"key": {"v": "hashed"}, "name": "v_hashed"};
    server.run("test", doc! {"createIndexes": "c", "indexes": [index]}).await.unwrap();
    for batch in documents.chunks(500) {
        server.collection().insert_many(batch).await.unwrap();
    }
    let collection = server.collection().clone_with_type::<Document>();
    let found = collection
        .find(doc! {})
        .hint(Hint::Keys(doc! {"v": "hashed"}))
        .projection(doc! {"key": {"$meta": "indexKey"}, "_id": 1});
    let found: Vec<Document> = found.await.unwrap().try_collect().await.unwrap();
    let hash_of = |found: &Document| found.get_document("key").unwrap().get_i64("v").unwrap();
    let hashes: BTreeMap<i32, i64> =
        found.iter().map(|found| (found.get_i32("_id").unwrap(), hash_of(found))).collect();
    assert_eq!(hashes.len(), documents.len());
    let mut kinds = BTreeMap::new();
    for document in &documents {
        let value = document.get("v").unwrap().unwrap_or(bson::raw::RawBsonRef::Null);
        *kinds.entry(format!("{:?}", value.element_type())).or_insert(0) += 1;
        let id = document.get_i32("_id").unwrap();
        assert_eq!(hash(value).unwrap(), hashes[&id], "{value:?}");
    }
    println!("{kinds:?}");
    assert_eq!(kinds.len(), 20, "of every type but arrays: {kinds:?}");
}

/// Measured: what is said of arrays above.
#[tokio::test]
async fn a_hashed_index_takes_no_array() {
    let server = Server::start().await;
    let index = doc! {"key": {"v.w": "hashed"}, "name": "v_hashed"};
    server.run("test", doc! {"createIndexes": "c", "indexes": [index]}).await.unwrap();
    for v in [Bson::from(doc! {"w": []}), vec![doc! {"w": 1}].into()] {
        let refused = server.collection().insert_one(raw(&doc! {"_id": 1, "v": &v})).await.unwrap_err();
        assert!(refused.to_string().contains("hashed indexes do not currently support array values"), "{refused}");
    }
}
