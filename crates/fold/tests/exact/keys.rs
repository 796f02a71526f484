//! Keys against the unique index of a real server.

use bson::{Bson, Document, doc};
use rand::Rng;
use rand::rngs::StdRng;
use stillpoint_fold::key::Key;

use crate::generate::{self, cases, seeded};
use crate::server::{Server, folded, raw, same};

/// An `_id`: the server takes no array, regular expression or undefined there.
fn id(chance: &mut StdRng) -> Bson {
    match chance.random_range(0..6) {
        0..3 => number(chance),
        3 => {
            let (name, value) = (generate::name(chance), number(chance));
            doc! {name: value}.into()
        }
        _ => generate::value(chance, 2),
    }
}

/// Numbers of all types that are near each other, and near where doubles end to be exact.
pub fn number(chance: &mut StdRng) -> Bson {
    let edges = [0, 1, 3, (1 << 53) - 1, 1 << 53, (1 << 55) - 1, 1 << 55, 1 << 62, i64::MAX - 2];
    let sign = if chance.random() { 1 } else { -1 };
    let whole = sign * edges[chance.random_range(0..edges.len())].saturating_add(chance.random_range(0..3));
    let doubles = [0.1, 1e23, 5e-324, f64::MAX, 1e-320, 2e-78, 1.1, 1e16, 0.3];
    let double = sign as f64 * doubles[chance.random_range(0..doubles.len())];
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    match chance.random_range(0..11) {
        8 => chance.random::<i64>().into(),
        9 => f64::from_bits(chance.random()).into(),
        10 => decimal(&format!("{}E{}", chance.random_range(-999..999), chance.random_range(-6100..6000))),
        0 => whole.into(),
        1 => (whole as i32).into(),
        2 => (whole as f64).into(),
        3 => {
            decimal(&format!("{whole}{}", ["", ".0", ".5", ".000000000001", "E+3", "E-30"][chance.random_range(0..6)]))
        }
        4 => double.into(),
        // Its shortest form, 17 digits, and 34.
        5 => decimal(&format!("{double:e}")),
        6 => decimal(&format!("{double:.16e}")),
        _ => decimal(&format!("{double:.33e}")),
    }
}

#[tokio::test]
async fn the_servers_order_and_equality_are_those_of_keys() {
    let server = Server::start().await;
    let mut chance = seeded("keys");
    let mut kept: Vec<(Key, Bson)> = Vec::new();
    let mut refused = 0;
    let ids: Vec<Bson> = (0..cases(3000)).map(|_| id(&mut chance)).collect();
    for batch in ids.chunks(500) {
        // In one command: the server says which of them it did not take, and why.
        let documents: Vec<Document> = batch.iter().map(|id| doc! {"_id": id}).collect();
        let command = doc! {"insert": "c", "documents": documents, "ordered": false};
        let reply = server.run("test", command).await.unwrap();
        let errors = reply.get_array("writeErrors").cloned().unwrap_or_default();
        let error = |at: usize| {
            let mut errors = errors.iter().filter_map(Bson::as_document);
            errors
                .find(|error| error.get_i32("index").unwrap() == at as i32)
                .map(|error| error.get_i32("code").unwrap())
        };
        for (at, id) in batch.iter().enumerate() {
            let key = Key::of_document(&raw(&doc! {"_id": id})).unwrap();
            let place = kept.binary_search_by(|(other, _)| other.cmp(&key));
            match (error(at), place) {
                (None, Err(place)) => kept.insert(place, (key, id.clone())),
                (Some(11000), Ok(_)) => refused += 1,
                // No array, regular expression or undefined.
                (Some(2 | 53), _) if matches!(id, Bson::Array(_) | Bson::RegularExpression(_) | Bson::Undefined) => {}
                (code, Ok(place)) => panic!("{code:?} for {id}, whose key is that of {}", kept[place].1),
                (code, Err(_)) => panic!("{code:?} for {id}, whose key is new: {errors:?}"),
            }
        }
    }
    println!("{} keys, {refused} refused", kept.len());
    assert!(refused > 50, "too few are equal");
    let found: Vec<Key> = server.documents().await.iter().map(|found| Key::of_document(found).unwrap()).collect();
    assert_eq!(found.len(), kept.len());
    if let Some(pair) = found.windows(2).find(|pair| pair[0] >= pair[1]) {
        panic!("{:?} is before {:?}", pair[0], pair[1]);
    }
}

/// Measured on 6.0: an update may change the type of an `_id`, not its value. Its entry's `o2` has the `_id` that
/// the document had before, whatever the query's was; the next entry's has the new one.
#[tokio::test]
async fn an_update_may_change_the_type_of_an_id() {
    let server = Server::start().await;
    let decimal = Bson::Decimal128("1.00".parse().unwrap());
    let long = "a field that makes a diff shorter than the whole document".repeat(5);
    for other in [Bson::Double(1.0), Bson::Int64(1), decimal] {
        let replacement = Bson::from(doc! {"_id": &other, "a": 2});
        for u in [replacement, vec![doc! {"$set": {"_id": &other}}].into()] {
            server.collection().delete_many(doc! {}).await.unwrap();
            server.insert(&[doc! {"_id": 1, "long": &long}]).await;
            let begin = server.now().await;
            let again = doc! {"$set": {"b": 1}};
            for u in [u, again.into()] {
                let query = doc! {"_id": 1_i64};
                assert_eq!(server.updates(&[doc! {"q": query, "u": u}]).await, []);
            }
            let entries = server.entries(begin).await;
            let ids: Vec<_> = entries.iter().map(|entry| &entry.get_document("o2").unwrap()["_id"]).collect();
            assert_eq!(ids, [&Bson::Int32(1), &other]);
            same(&folded(&[doc! {"_id": 1, "long": &long}], &entries), &server.documents().await);
        }
    }
}

#[tokio::test]
async fn an_update_may_not_change_the_value_of_an_id() {
    let server = Server::start().await;
    server.insert(&[doc! {"_id": 1}]).await;
    for u in [Bson::from(doc! {"_id": 1.5}), vec![doc! {"$set": {"_id": 2}}].into()] {
        let refused = server.updates(&[doc! {"q": {"_id": 1}, "u": u}]).await;
        assert_eq!(refused[0].get_i32("code").unwrap(), 66, "{refused:?}");
    }
}
