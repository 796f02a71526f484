//! `stillpoint diff`: what was done to a cluster between two points in time, told from what is stored.

use bson::{Document, doc};
use serde_json::{Value, json};
use stillpoint_lab::wait::until;
use stillpoint_lab::{Lab, ReplicaSet};

use crate::captured::server_of;
use crate::snapshots::{ask, complete, furnish, of, packs};
use crate::support::{SOON, Server, lab_of};

/// Of each of the two large collections, a kilobyte each: a chunk has some 256.
const DOCUMENTS: i32 = 4096;

async fn fill(set: &ReplicaSet) {
    for name in ["changed", "still"] {
        let documents: Vec<_> = (0..DOCUMENTS).map(|id| doc! {"_id": id, "text": "y".repeat(1000)}).collect();
        set.run("big", doc! {"insert": name, "documents": documents}).await.unwrap();
    }
}

/// One of each kind of change.
async fn change(set: &ReplicaSet) {
    let run = |db: &'static str, command: Document| async move { set.run(db, command).await.unwrap() };
    run("big", doc! {"update": "changed", "updates": [{"q": {"_id": 100}, "u": {"$set": {"text": "z"}}}]}).await;
    run("big", doc! {"delete": "changed", "deletes": [{"q": {"_id": 200}, "limit": 1}]}).await;
    run("big", doc! {"insert": "changed", "documents": [{"_id": "new"}, {"_id": -1}]}).await;
    // Back to what it was: that is no change.
    for text in ["z".to_owned(), "y".repeat(1000)] {
        run("big", doc! {"update": "changed", "updates": [{"q": {"_id": 300}, "u": {"$set": {"text": text}}}]}).await;
    }
    run("shop", doc! {"insert": "fresh", "documents": [{"_id": 1}, {"_id": 2}]}).await;
    run("shop", doc! {"drop": "clustered"}).await;
    run("admin", doc! {"renameCollection": "shop.words", "to": "shop.terms"}).await;
    let index = doc! {"key": {"text": 1}, "name": "text_1"};
    run("shop", doc! {"createIndexes": "goods", "indexes": [index]}).await;
    run("shop", doc! {"dropIndexes": "goods", "index": "price_1"}).await;
    run("shop", doc! {"collMod": "empty", "validator": {"price": {"$gt": 1}}}).await;
    run("shop", doc! {"insert": "capped", "documents": [{"_id": "capped-more"}]}).await;
}

/// A checkpoint that can be gone back to.
async fn checkpoint(server: &Server) -> &'static str {
    let id: &'static str = server.complete().await.id.to_string().leak();
    let show = of("checkpoint", &[]);
    let show = [&["checkpoint", "show"], &show[1..], &[id]].concat();
    let restorable = || async { (server.json(&show).await["restorable"] == true).then_some(()) };
    until(SOON, restorable).await.unwrap_or_else(|| panic!("{id} is not restorable"));
    id
}

/// What has changed of a part, without the UUIDs, by what its collections are called now.
fn of_part<'a>(diff: &'a Value, part: &str) -> &'a Value {
    let parts = diff["parts"].as_array().unwrap();
    parts.iter().find(|one| one["part"] == part).unwrap_or_else(|| panic!("no part {part} in {diff}"))
}

fn collections(part: &Value) -> Vec<Value> {
    let mut all = part["collections"].as_array().unwrap().clone();
    for one in &mut all {
        let uuid = one.as_object_mut().unwrap().remove("uuid").unwrap();
        assert_eq!(uuid.as_str().map(str::len), Some(36), "{uuid}");
    }
    let name = |one: &Value| one["after"].as_str().or(one["before"].as_str()).unwrap().to_owned();
    all.sort_by_key(name);
    all
}

fn counts(added: u64, removed: u64, changed: u64, unchanged: u64) -> Value {
    json!({"added": added, "removed": removed, "changed": changed, "unchanged": unchanged})
}

fn collection(before: Option<&str>, after: Option<&str>, documents: Value) -> Value {
    let indexes = json!({"added": [], "removed": [], "changed": []});
    json!({"before": before, "after": after, "documents": documents, "options": [], "indexes": indexes})
}

#[tokio::test]
async fn what_was_done_between_two_points_in_time_is_told_and_little_of_the_rest_is_read() {
    let lab = lab_of(Lab::builder().shards(3).added(2)).await;
    let set = lab.shard(0);
    furnish(set).await;
    fill(set).await;
    let (server, _) = server_of(&lab).await;
    let first: &'static str = complete(&server, ask(&server).await).await.id.to_string().leak();
    let before = checkpoint(&server).await;
    change(set).await;
    let after = checkpoint(&server).await;
    let things: Vec<_> = (0..3).map(|id| doc! {"_id": id}).collect();
    lab.shard(2).run("own", doc! {"insert": "things", "documents": things}).await.unwrap();
    lab.add_shard(2).await.unwrap();
    let second: &'static str = complete(&server, ask(&server).await).await.id.to_string().leak();
    // From here on nothing of the cluster is there to be read.
    drop(lab);

    let mut goods = collection(Some("shop.goods"), Some("shop.goods"), counts(0, 0, 0, 3000));
    goods["indexes"] = json!({"added": ["text_1"], "removed": ["price_1"], "changed": []});
    let mut empty = collection(Some("shop.empty"), Some("shop.empty"), counts(0, 0, 0, 0));
    empty["options"] = json!(["validationAction", "validationLevel", "validator"]);
    let both = |name| (Some(name), Some(name));
    let (changed, capped) = (both("big.changed"), both("shop.capped"));
    let expected = [
        collection(changed.0, changed.1, counts(2, 1, 1, DOCUMENTS as u64 - 2)),
        collection(capped.0, capped.1, json!({"before": 300, "after": 301, "equal": false})),
        collection(Some("shop.clustered"), None, counts(0, 400, 0, 0)),
        empty,
        collection(None, Some("shop.fresh"), counts(2, 0, 0, 0)),
        goods,
        collection(Some("shop.words"), Some("shop.terms"), counts(0, 0, 0, 200)),
    ];
    let only = ["--only", "shop", "--only", "big", "--only", "own"];
    for (from, to, only, parts) in [
        (["--checkpoint", before], ["--to-checkpoint", after], &only[..4], 3),
        // What both share are chunks of two snapshots.
        (["--snapshot", first], ["--to-snapshot", second], &only, 4),
    ] {
        let diff = server.json(&of("diff", &[&from[..], &to, only].concat())).await;
        let part = of_part(&diff, "rs0");
        assert_eq!(collections(part), expected, "{from:?}");
        assert_eq!(diff["equal"], false);
        assert_eq!(diff["parts"].as_array().unwrap().len(), parts);
        assert_eq!(of_part(&diff, "rs1")["collections"], json!([]));
        // Of the large collections the chunks around four documents.
        let (chunks, read, skipped) = (&part["read"]["chunks"], &part["read"]["bytes"], &part["skipped"]["bytes"]);
        let [chunks, read, skipped] = [chunks, read, skipped].map(|figure| figure.as_u64().unwrap());
        assert!(chunks > 0 && read < skipped / 2, "{from:?}: {chunks} chunks, {read} bytes, {skipped} unread");
        assert_eq!(&diff["read"], &part["read"], "nothing is read of parts in which nothing has changed");
    }

    // What was at neither time is no change.
    let pair = ["--checkpoint", before, "--to-checkpoint", after];
    let none = server.run(&of("diff", &[&pair[..], &only].concat()), &[]).await;
    assert!(!none.status.success() && none.out.is_empty(), "{}", none.out);
    assert!(none.err.contains("--only: there was no database own: there was admin, bank, big"), "{}", none.err);

    // The other way round, by a name that a collection had only then.
    let back = ["--checkpoint", after, "--to-checkpoint", before, "--only", "shop.terms", "--only", "big.changed"];
    let diff = server.json(&of("diff", &[&back[..], &["--part", "rs0"]].concat())).await;
    let expected = [
        collection(changed.0, changed.1, counts(1, 2, 1, DOCUMENTS as u64 - 2)),
        collection(Some("shop.terms"), Some("shop.words"), counts(0, 0, 0, 200)),
    ];
    assert_eq!(collections(of_part(&diff, "rs0")), expected);
    assert_eq!(diff["parts"].as_array().unwrap().len(), 1);

    // A shard that was added in between was not there before.
    let things = || Some("own.things");
    for (from, to, expected) in [
        (first, second, collection(None, things(), counts(3, 0, 0, 0))),
        (second, first, collection(things(), None, counts(0, 3, 0, 0))),
    ] {
        let pair = ["--snapshot", from, "--to-snapshot", to, "--part", "rs2", "--only", "own"];
        let diff = server.json(&of("diff", &pair)).await;
        assert_eq!(collections(of_part(&diff, "rs2")), [expected]);
    }

    // A point in time and itself.
    let itself = ["--checkpoint", before, "--to-checkpoint", before];
    let diff = server.json(&of("diff", &[&itself[..], &only[..4]].concat())).await;
    assert_eq!((&diff["equal"], &diff["read"]), (&json!(true), &json!({"chunks": 0, "bytes": 0})), "{diff}");
    assert!(of_part(&diff, "rs0")["unchanged"].as_u64().unwrap() >= 8, "{diff}");

    // Each document.
    let pair = ["--checkpoint", before, "--to-checkpoint", after];
    let told = server
        .run(&of("diff", &[&pair[..], &["--only", "big", "--only", "shop.fresh", "--documents"]].concat()), &[])
        .await;
    assert!(told.status.success(), "{}", told.err);
    let mut lines: Vec<_> = told.out.lines().collect();
    lines.sort();
    let line = |sign: &str, ns: &str, id: Value| format!("{sign} {}", json!({"part": "rs0", "ns": ns, "_id": id}));
    let number = |n: i32| json!({"$numberInt": n.to_string()});
    let mut expected = [
        line("+", "big.changed", json!("new")),
        line("+", "big.changed", number(-1)),
        line("-", "big.changed", number(200)),
        line("~", "big.changed", number(100)),
        line("+", "shop.fresh", number(1)),
        line("+", "shop.fresh", number(2)),
    ];
    expected.sort();
    assert_eq!(lines, expected);
    assert!(told.err.contains("big.changed"), "{}", told.err);

    // For people.
    let shown = server.run(&of("diff", &[&pair[..], &only[..4]].concat()), &[]).await.out;
    for says in [
        "it was shop.words",
        "it is gone",
        "it is new",
        "options: validationAction, validationLevel, validator",
        "+text_1 -price_1",
        "300 documents, then 301",
    ] {
        assert!(shown.contains(says), "{says} is not in\n{shown}");
    }

    for (args, says) in [
        (&[&pair[..], &["--documents", "--json"]].concat()[..], "leave one of them out"),
        (&[&pair[..], &["--part", "rs7"]].concat(), "has no part \"rs7\""),
        (&["--checkpoint", before], "--to-checkpoint"),
        (&["--checkpoint", before, "--to-at", "1000:1"], "no snapshot is as of 1000:1 or before"),
    ] {
        let refused = server.run(&of("diff", args), &[]).await;
        assert!(!refused.status.success() && refused.err.contains(says), "{args:?}: {}", refused.err);
    }

    // What is wrong says of which part and time it is.
    for pack in packs(&server, "shard-rs0") {
        std::fs::remove_file(pack).unwrap();
    }
    let failed = server.run(&of("diff", &[&pair[..], &only[..4]].concat()), &[]).await;
    // Of the one or the other, whichever came upon it first.
    let mut cuts = Vec::new();
    for id in [before, after] {
        cuts.push(server.record(id.parse().unwrap()).await.cut.unwrap());
    }
    let says = cuts.iter().any(|cut| failed.err.contains(&format!("rs0 as of {cut}: the snapshot")));
    assert!(!failed.status.success() && says, "{cuts:?} {}", failed.err);
}
