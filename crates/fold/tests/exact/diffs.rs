//! Generated diffs, applied by the server as oplog entries.

use bson::raw::{RawDocumentBuf, cstr};
use bson::{Document, doc};
use stillpoint_fold::update::apply;

use crate::generate::{self, cases, seeded};
use crate::server::{NS, Server, raw, same};

#[tokio::test]
async fn the_server_makes_the_same_of_generated_diffs() {
    let server = Server::start().await;
    let mut chance = seeded("diffs");
    let pre = generate::documents(&mut chance, cases(3000));
    let updates: Vec<Document> = pre
        .iter()
        .map(|pre| match generate::modifiers(&mut chance, pre) {
            // Now and then a replacement.
            (set, _) if set.len() > 3 => pre.iter().filter(|(name, _)| *name == "_id").chain(&set).map(owned).collect(),
            _ => doc! {"$v": 2, "diff": generate::diff(&mut chance, pre)},
        })
        .collect();
    server.insert(&pre).await;
    let operation = |(pre, o): (&Document, &Document)| doc! {"op": "u", "ns": NS, "o2": {"_id": &pre["_id"]}, "o": o};
    server.apply_ops(pre.iter().zip(&updates).map(operation).collect()).await;

    let folded: Vec<_> = pre
        .iter()
        .zip(&updates)
        .map(|(pre, o)| apply(&raw(pre), &raw(o)).unwrap_or_else(|error| panic!("{error}: {pre} {o}")))
        .collect();
    same(&folded, &server.documents().await);
}

fn owned((name, value): (&String, &bson::Bson)) -> (String, bson::Bson) {
    (name.clone(), value.clone())
}

/// What no driver makes, and the server keeps: fields of one name, and elements that are not named 0, 1, 2, ….
#[tokio::test]
async fn the_server_makes_the_same_of_odd_documents() {
    type Pre = fn(i32) -> RawDocumentBuf;
    let twice = |id: i32| {
        let mut document = raw(&doc! {"_id": id, "a": 1, "b": {"x": 1}, "c": 3});
        document.append(cstr!("a"), "again");
        document.append(cstr!("b"), raw(&doc! {"y": 2}));
        document
    };
    let misnamed = |id: i32| {
        let document = raw(&doc! {"_id": id, "l": {"7": 1, "x": 2, "1": 3}});
        let mut bytes = document.into_bytes();
        let at = bytes.windows(3).position(|field| field == b"\x03l\0").unwrap();
        bytes[at] = 4;
        RawDocumentBuf::from_bytes(bytes).unwrap()
    };
    let diff = |diff: Document| doc! {"$v": 2, "diff": diff};
    let cases: Vec<(Pre, Document)> = vec![
        (twice, diff(doc! {"u": {"a": 9}})),
        (twice, diff(doc! {"d": {"a": false}})),
        (twice, diff(doc! {"i": {"a": 9}})),
        (twice, diff(doc! {"sb": {"u": {"x": 9}}})),
        (twice, doc! {"$v": 1, "$set": {"a": 9, "b.x": 9, "z": 1}}),
        (twice, doc! {"$v": 1, "$unset": {"a": true, "b.x": true}}),
        (misnamed, diff(doc! {"sl": {"a": true, "u1": 9}})),
        (misnamed, diff(doc! {"sl": {"a": true, "l": 2}})),
        (misnamed, diff(doc! {"i": {"a": 9}})),
    ];
    let server = Server::start().await;
    let pre: Vec<_> = cases.iter().zip(0..).map(|((pre, _), id)| pre(id)).collect();
    server.collection().insert_many(&pre).await.unwrap();
    let operation = |((_, o), id): (&(Pre, Document), i32)| doc! {"op": "u", "ns": NS, "o2": {"_id": id}, "o": o};
    server.apply_ops(cases.iter().zip(0..).map(operation).collect()).await;
    let folded: Vec<_> = pre.iter().zip(&cases).map(|(pre, (_, o))| apply(pre, &raw(o)).unwrap()).collect();
    same(&folded, &server.documents().await);
}
