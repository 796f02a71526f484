//! Update commands of every kind: what the server writes of them in the oplog, folded, is what it made of the
//! documents.

use bson::{Bson, Document, doc};
use rand::Rng;
use rand::rngs::StdRng;

use crate::generate::{self, cases, seeded};
use crate::server::{Server, folded, same};

/// A document that every operator finds something to do in.
fn document(chance: &mut StdRng, id: i32) -> Document {
    let numbers: Vec<Bson> = (0..chance.random_range(0..12)).map(|_| chance.random_range(0..9).into()).collect();
    let parts =
        (0..chance.random_range(0..4)).map(|_| doc! {"k": chance.random_range(0..3), "v": generate::value(chance, 1)});
    let parts: Vec<Document> = parts.collect();
    let mut document = doc! {"_id": id, "n": chance.random_range(0..9), "list": numbers, "parts": parts};
    document.insert("sub", generate::document(chance, 2));
    document.insert("old", generate::value(chance, 2));
    document
}

/// One update of the command `update`, of any kind.
fn update(chance: &mut StdRng, id: i32) -> Document {
    let any = generate::value(chance, 2);
    let name = generate::name(chance);
    let sub = format!("sub.{name}");
    let number = chance.random_range(0..9);
    let mut filters = Vec::<Document>::new();
    let u: Bson = match chance.random_range(0..27) {
        0 => doc! {"$set": {sub: any, "n": number}}.into(),
        1 => doc! {"$unset": {sub: 1, "old": 1}}.into(),
        2 => doc! {"$push": {"list": number}}.into(),
        3 => doc! {"$push": {"list": {"$each": [number, 1, 2], "$position": 1}}}.into(),
        4 => doc! {"$push": {"list": {"$each": [number], "$sort": -1, "$slice": 4}}}.into(),
        5 => doc! {"$push": {"parts": {"$each": [{"k": number, "v": any}], "$sort": {"k": 1}, "$slice": -3}}}.into(),
        6 => doc! {"$pull": {"list": {"$gt": number}}}.into(),
        7 => doc! {"$pull": {"parts": {"k": number % 3}}}.into(),
        8 => doc! {"$pullAll": {"list": [number, 1, 2]}}.into(),
        9 => doc! {"$pop": {"list": if number < 5 { 1 } else { -1 }}}.into(),
        10 => doc! {"$addToSet": {"list": {"$each": [number, 20]}}}.into(),
        11 => doc! {"$rename": {"old": "sub.renamed", "n": "m"}}.into(),
        12 => doc! {"$inc": {"n": 1.5, "count": 1_i64}}.into(),
        13 => doc! {"$mul": {"n": 3_i64, "none": 2}}.into(),
        14 => doc! {"$min": {"n": 4}, "$max": {"high": 5}}.into(),
        15 => doc! {"$currentDate": {"at": true, "ts": {"$type": "timestamp"}}}.into(),
        16 => doc! {"$bit": {"n": {"xor": number}}}.into(),
        17 => {
            filters = vec![doc! {"e": {"$gte": number}}];
            doc! {"$set": {"list.$[e]": any}}.into()
        }
        18 => {
            filters = vec![doc! {"p.k": number % 3}];
            doc! {"$inc": {"parts.$[p].count": 1}, "$set": {"parts.$[].all": any}}.into()
        }
        19 => vec![doc! {"$set": {"sum": {"$sum": "$list"}, "sub.x": {"$literal": any}}}].into(),
        // A pipeline may move fields.
        20 => vec![doc! {"$replaceWith": {"_id": "$_id", "old": "$old", "list": {"$reverseArray": "$list"}, "n": "$n",
        "parts": "$parts", "sub": "$sub"}}]
        .into(),
        21 => vec![doc! {"$unset": ["old", "sub"]}, doc! {"$set": {"sub": {"y": 1}}}].into(),
        22 => vec![doc! {"$set": {"list": {"$slice": [{"$concatArrays": ["$list", [number]]}, -9]}}}].into(),
        23 => {
            let mut replacement = document(chance, id);
            replacement.extend(generate::document(chance, 2));
            replacement.into()
        }
        24 => {
            let mut replacement = document(chance, id);
            replacement.remove("_id");
            replacement.into()
        }
        25 => doc! {"$set": {format!("list.{}", number + 3): any}}.into(),
        _ => doc! {"$set": {"parts.0.deep.er": any, "new.a": 1, "new.0": 2}, "$unset": {"parts.1": 1}}.into(),
    };
    let mut update = doc! {"q": {"_id": id}, "u": u};
    if !filters.is_empty() {
        update.insert("arrayFilters", filters);
    }
    update
}

#[tokio::test]
async fn what_commands_leave_in_the_oplog_makes_the_same_documents() {
    let server = Server::start().await;
    let mut chance = seeded("commands");
    let count = cases(600) as i32;
    let pre: Vec<Document> = (0..count).map(|id| document(&mut chance, id)).collect();
    server.insert(&pre).await;
    let begin = server.now().await;
    // Several for each document, and so on what earlier ones left.
    for _ in 0..5 {
        let updates: Vec<Document> = (0..count).map(|id| update(&mut chance, id)).collect();
        server.updates(&updates).await;
    }
    // The first time they insert, and then they update.
    let upserts: Vec<Document> = (count..count + 20)
        .map(|id| doc! {"q": {"_id": id, "sub.k": 3}, "u": {"$inc": {"n": 1}, "$set": {"s.x": 1}}, "upsert": true})
        .collect();
    for _ in 0..2 {
        assert_eq!(server.updates(&upserts).await, []);
    }

    let entries = server.entries(begin).await;
    let updated = entries.iter().filter(|entry| entry.get_str("op").unwrap() == "u").count();
    println!("{} entries, {updated} of them updates", entries.len());
    assert!(updated > count as usize, "too few updates changed anything");
    same(&folded(&pre, &entries), &server.documents().await);
}
