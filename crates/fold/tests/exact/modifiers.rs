//! Generated modifiers: as the entries that MongoDB wrote of them before 5.0, which 6.0 still applies (measured),
//! and as update commands, of which 6.0 writes diffs.

use bson::{Document, doc};
use stillpoint_fold::update::{UpdateError, Wrong, apply};

use crate::generate::{self, cases, seeded};
use crate::server::{NS, Server, folded, raw, same};

#[tokio::test]
async fn the_server_makes_the_same_of_generated_modifiers() {
    let server = Server::start().await;
    let mut chance = seeded("modifiers");
    let pre = generate::documents(&mut chance, cases(3000));
    let modifiers: Vec<Document> = pre
        .iter()
        .map(|pre| {
            let (set, unset) = generate::modifiers(&mut chance, pre);
            doc! {"$set": set, "$unset": unset}
        })
        .collect();
    let folded_alone: Vec<_> = pre
        .iter()
        .zip(&modifiers)
        .map(|(pre, o)| apply(&raw(pre), &raw(o)).unwrap_or_else(|error| panic!("{error}: {pre} {o}")))
        .collect();

    // With `$v` and without.
    for version in [doc! {"$v": 1}, doc! {}] {
        server.collection().delete_many(doc! {}).await.unwrap();
        server.insert(&pre).await;
        let operation = |(pre, o): (&Document, &Document)| {
            let o: Document = version.iter().chain(o).map(|(name, value)| (name.clone(), value.clone())).collect();
            doc! {"op": "u", "ns": NS, "o2": {"_id": &pre["_id"]}, "o": o}
        };
        server.apply_ops(pre.iter().zip(&modifiers).map(operation).collect()).await;
        same(&folded_alone, &server.documents().await);
    }

    server.collection().delete_many(doc! {}).await.unwrap();
    server.insert(&pre).await;
    let begin = server.now().await;
    let update = |(pre, u): (&Document, &Document)| doc! {"q": {"_id": &pre["_id"]}, "u": u};
    let updates: Vec<_> = pre.iter().zip(&modifiers).map(update).collect();
    assert_eq!(server.updates(&updates).await, []);
    let found = server.documents().await;
    same(&folded_alone, &found);
    same(&folded(&pre, &server.entries(begin).await), &found);
}

/// Measured: 6.0 takes for modifiers whatever has no `_id`, so that a replacement without one, which 5.0 and older
/// took, can be in no stream of its.
#[tokio::test]
async fn the_server_takes_no_replacement_without_an_id() {
    let server = Server::start().await;
    server.insert(&[doc! {"_id": 1, "a": 1}]).await;
    let operation = doc! {"op": "u", "ns": NS, "o2": {"_id": 1}, "o": {"b": 1}};
    let refused = server.run("admin", doc! {"applyOps": [operation]}).await.unwrap_err().to_string();
    assert!(refused.contains("Unknown modifier"), "{refused}");
}

/// Measured: an operator's applyOps is in the oplog as it was given, with modifiers that no server itself would
/// write. The fold stops there.
#[tokio::test]
async fn an_operator_may_have_any_modifier_applied() {
    let server = Server::start().await;
    let pre = doc! {"_id": 1, "a": 1};
    server.insert(std::slice::from_ref(&pre)).await;
    let o = doc! {"$inc": {"a": 1}};
    server.apply_ops(vec![doc! {"op": "u", "ns": NS, "o2": {"_id": 1}, "o": &o}]).await;
    same(&[raw(&doc! {"_id": 1, "a": 2})], &server.documents().await);
    let oplog = server.client().database("local").collection::<Document>("oplog.rs");
    let entry = oplog.find_one(doc! {"op": "c", "o.applyOps.ns": NS}).await.unwrap().unwrap();
    assert_eq!(
        entry.get_document("o").unwrap().get_array("applyOps").unwrap()[0].as_document().unwrap()["o"],
        o.clone().into()
    );
    let wrong = Wrong::Unknown("$inc".to_owned());
    assert_eq!(apply(&raw(&pre), &raw(&o)), Err(UpdateError::Whole(wrong)));
}
