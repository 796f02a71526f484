//! Snapshots: as they are read, kept, deleted and asked for, on every surface.

use serde_json::{Value, json};
use stillpoint_catalog::Catalog;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::snapshot::{Snapshot, State};
use stillpoint_core::{CheckpointId, ClusterTime, SnapshotId};

use crate::support::{
    CHECKPOINT, CLUSTER, GROUP, Lab, NEWEST_SNAPSHOT, OLDEST_SNAPSHOT, OWNER, READER, Reply, SNAPSHOT, completed,
    completed_snapshot, time,
};

const ACCEPT: (&str, &str) = ("accept", "application/vnd.atlas.2023-01-01+json");
const JSON: (&str, &str) = ("content-type", "application/json");
const INTERNAL: &str = "shard0.internal:27018 does not answer";

/// The collection on every surface.
fn collections() -> [String; 3] {
    [("atlas/v1.0", "Cluster0"), ("atlas/v2", "Cluster0"), ("public/v1.0", CLUSTER)]
        .map(|(prefix, cluster)| format!("/api/{prefix}/groups/{GROUP}/clusters/{cluster}/snapshots"))
}

fn collection() -> String {
    collections()[0].clone()
}

async fn get(lab: &Lab, target: &str) -> Value {
    let reply = lab.ask_with(READER, "GET", target, &[ACCEPT], "").await;
    assert_eq!(reply.status, 200, "{target}: {}", reply.body);
    assert!(!reply.body.contains("internal"), "{}", reply.body);
    reply.json()
}

async fn patch(lab: &Lab, target: &str, body: &str) -> Reply {
    lab.ask_with(OWNER, "PATCH", target, &[ACCEPT, JSON], body).await
}

async fn delete(lab: &Lab, target: &str) -> Reply {
    lab.ask_with(OWNER, "DELETE", target, &[ACCEPT], "").await
}

/// The error's code, and its sentence.
fn refusal(reply: &Reply) -> (u16, String, String) {
    let json = reply.json();
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    (reply.status.as_u16(), text("errorCode"), text("detail"))
}

/// The ids of a list, in its order.
fn ids(list: &Value) -> Vec<&str> {
    list["results"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

fn id(text: &str) -> SnapshotId {
    text.parse().unwrap()
}

/// Forgets those that are there.
async fn empty(lab: &Lab) {
    for text in [OLDEST_SNAPSHOT, SNAPSHOT, NEWEST_SNAPSHOT] {
        lab.catalog.delete_snapshot(CLUSTER.parse().unwrap(), id(text), time("2026-11-24T12:00:00Z")).await.unwrap();
    }
}

fn queued(n: u64) -> Snapshot {
    let now = time("2026-11-24T12:00:00Z");
    Snapshot::queued(SnapshotId::new(now, n), CLUSTER.parse().unwrap(), now)
}

fn failed(n: u64) -> Snapshot {
    Snapshot { state: State::Failed, ended: Some(queued(n).requested), failure: Some(INTERNAL.into()), ..queued(n) }
}

#[tokio::test]
async fn a_complete_one_has_the_published_fields_in_their_order() {
    let lab = Lab::new().await;
    lab.catalog
        .keep_snapshot(CLUSTER.parse().unwrap(), id(SNAPSHOT), Some(time("2026-12-24T10:00:00.9Z")), false)
        .await
        .unwrap();
    for collection in collections() {
        let cluster = collection.strip_suffix("/snapshots").unwrap();
        let link = |path: &str, rel: &str| json!({"href": format!("http://backup.example.net{path}"), "rel": rel});
        let own = link(&format!("{collection}/{SNAPSHOT}"), "self");
        let mut expected = json!({
            "clusterId": CLUSTER,
            "clusterName": "Cluster0",
            "complete": true,
            "created": {"date": "2026-11-24T10:00:00Z", "increment": 7},
            "doNotDelete": false,
            "expires": "2026-12-24T10:00:00Z",
            "groupId": GROUP,
            "id": SNAPSHOT,
            "incremental": false,
            "lastOplogAppliedTimestamp": {"date": "2026-11-24T10:00:00Z", "increment": 7},
            "links": [
                own,
                link(cluster, "http://mms.mongodb.com/cluster"),
                link(cluster.split("/clusters").next().unwrap(), "http://mms.mongodb.com/group"),
            ],
            "parts": [
                {
                    "clusterId": CLUSTER,
                    "completedTime": "2026-11-24T11:00:00Z",
                    "dataSizeBytes": 70_000,
                    "replicaSetName": "Cluster0-shard-0",
                    "shardName": "Cluster0-shard-0",
                    "storageSizeBytes": 1_800,
                    "typeName": "REPLICA_SET",
                },
                {
                    "clusterId": CLUSTER,
                    "completedTime": "2026-11-24T11:00:00Z",
                    "dataSizeBytes": 70_000,
                    "replicaSetName": "Cluster0-config-0",
                    "storageSizeBytes": 1_800,
                    "typeName": "CONFIG_SERVER_REPLICA_SET",
                },
            ],
        });
        let target = format!("{collection}/{SNAPSHOT}");
        let reply = lab.ask_with(READER, "GET", &target, &[ACCEPT], "").await;
        assert_eq!(reply.body, expected.to_string(), "the order of the fields, too");
        assert!(reply.json().as_object().unwrap().keys().is_sorted());
        expected["links"] = json!([own]);
        assert_eq!(get(&lab, &collection).await["results"][1], expected, "in a list only its own link");
    }
}

#[tokio::test]
async fn one_that_is_not_complete_says_how_far_it_is_and_names_no_host() {
    let lab = Lab::new().await;
    let target = |snapshot: &Snapshot| format!("{}/{}", collection(), snapshot.id);
    lab.catalog.queue_snapshot(&failed(1)).await.unwrap();
    let shown = get(&lab, &target(&failed(1))).await;
    let failure = "Who runs the server sees why with `stillpoint snapshot show`.";
    assert_eq!(shown["stillpoint"], json!({"failure": failure, "state": "FAILED"}));
    assert_eq!((&shown["complete"], &shown["parts"]), (&json!(false), &json!([])));

    let parts = [PartId::Shard("rs0".into()), PartId::ConfigServers];
    let mut folding = completed_snapshot(queued(2).id, &parts, ClusterTime::new(1_700_000_000, 3));
    (folding.state, folding.ended) = (State::Folding, None);
    (folding.base, folding.trouble) = (Some(id(SNAPSHOT)), Some(INTERNAL.into()));
    folding.parts[1].data = None;
    lab.catalog.queue_snapshot(&folding).await.unwrap();
    let shown = get(&lab, &target(&folding)).await;
    assert_eq!(shown["stillpoint"], json!({"state": "FOLDING", "trouble": "retrying"}));
    assert_eq!((&shown["complete"], &shown["incremental"]), (&json!(false), &json!(true)));
    assert_eq!(shown["created"], json!({"date": "2023-11-14T22:13:20Z", "increment": 3}));
    let names: Vec<_> = shown["parts"][1].as_object().unwrap().keys().collect();
    assert_eq!(names, ["clusterId", "replicaSetName", "typeName"], "sizes that are not known are left out");
}

#[tokio::test]
async fn one_that_is_damaged_says_so_and_not_what_is_missing() {
    let lab = Lab::new().await;
    let target = format!("{}/{SNAPSHOT}", collection());
    assert!(get(&lab, &target).await.get("stillpoint").is_none());
    lab.catalog.note_damage(CLUSTER.parse().unwrap(), id(SNAPSHOT), Some(INTERNAL)).await.unwrap();
    let shown = get(&lab, &target).await;
    assert_eq!(shown["stillpoint"], json!({"damaged": true, "state": "COMPLETED"}));
    assert!(!shown.to_string().contains(INTERNAL));
    lab.catalog.note_damage(CLUSTER.parse().unwrap(), id(SNAPSHOT), None).await.unwrap();
    assert!(get(&lab, &target).await.get("stillpoint").is_none());
}

#[tokio::test]
async fn a_list_has_the_complete_ones_unless_it_is_asked_for_others() {
    let lab = Lab::new().await;
    let (failed, queued) = (failed(1), queued(2));
    lab.catalog.queue_snapshot(&failed).await.unwrap();
    lab.catalog.queue_snapshot(&queued).await.unwrap();
    let (failed, queued) = (failed.id.to_string(), queued.id.to_string());
    let complete = [NEWEST_SNAPSHOT, SNAPSHOT, OLDEST_SNAPSHOT];
    let all = [complete.to_vec(), vec![&queued, &failed]].concat();
    for collection in collections() {
        for (query, mut expected) in [
            ("", complete.to_vec()),
            ("?completed=true", complete.to_vec()),
            ("?completed=false", vec![&queued[..], &failed]),
            ("?completed=all", all.clone()),
        ] {
            let list = get(&lab, &format!("{collection}{query}")).await;
            let mut found = ids(&list);
            assert!(found.is_sorted_by(|a, b| a > b), "the newest first: {found:?}");
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{query}");
            assert_eq!(list["totalCount"], expected.len());
        }
        // Every page is of the same list.
        let (mut next, mut seen) = (format!("{collection}?completed=all&itemsPerPage=2"), Vec::new());
        loop {
            let page = get(&lab, &next).await;
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            let links = page["links"].as_array().unwrap();
            let Some(link) = links.iter().find(|link| link["rel"] == "next") else { break };
            next = link["href"].as_str().unwrap().strip_prefix("http://backup.example.net").unwrap().to_owned();
        }
        assert_eq!(seen.len(), 5, "{seen:?}");
    }
    let other = format!("/api/atlas/v1.0/groups/{GROUP}/clusters/a%2Fb%20c%25/snapshots");
    assert_eq!(get(&lab, &other).await["results"], json!([]));
    let nowhere = lab.get(&format!("{}/{SNAPSHOT}", other)).await;
    assert_eq!(
        refusal(&nowhere),
        (404, "SNAPSHOT_NOT_FOUND".into(), format!("No snapshot with ID {SNAPSHOT} exists for cluster a/b c%."))
    );
}

#[tokio::test]
async fn how_long_one_is_kept_is_changed_field_by_field() {
    let lab = Lab::new().await;
    for (n, collection) in collections().into_iter().enumerate() {
        let target = format!("{collection}/{SNAPSHOT}");
        let kept = |document: &Value| (document["expires"].clone(), document["doNotDelete"].clone());
        let day = |hour: &str| json!(format!("2026-12-0{}T{hour}:00:00Z", n + 1));
        for (body, expected) in [
            (json!({"expires": day("10")}), (day("10"), json!(false))),
            (json!({"doNotDelete": true}), (Value::Null, json!(true))),
            (json!({"doNotDelete": false}), (day("10"), json!(false))),
            (json!({"expires": format!("2026-12-0{}", n + 1), "doNotDelete": false}), (day("00"), json!(false))),
            (json!({}), (day("00"), json!(false))),
        ] {
            let reply = patch(&lab, &target, &body.to_string()).await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            assert_eq!(kept(&reply.json()), expected, "{body}");
            assert_eq!(kept(&get(&lab, &target).await), expected, "a reply that was remembered is made anew");
        }
        // What was read may be sent back, with a change or without.
        let mut read = get(&lab, &target).await;
        for stays in [true, false] {
            read["doNotDelete"] = stays.into();
            let reply = patch(&lab, &target, &read.to_string()).await;
            assert_eq!((reply.status.as_u16(), &reply.json()["doNotDelete"]), (200, &json!(stays)), "{}", reply.body);
        }
        assert_eq!(get(&lab, &target).await, read);
        let both = patch(&lab, &target, r#"{"doNotDelete":true,"expires":"2027-01-01T00:00:00Z"}"#).await;
        assert_eq!(refusal(&both), (400, "INVALID_ATTRIBUTE".into(), "Invalid attribute expires specified.".into()));
        assert_eq!(get(&lab, &target).await, read);
        for (field, other) in [("complete", json!(false)), ("id", json!(CHECKPOINT)), ("links", json!(1))] {
            let mut changed = read.clone();
            changed[field] = other;
            let reply = patch(&lab, &target, &changed.to_string()).await;
            let sentence = format!("Invalid attribute {field} specified.");
            assert_eq!(refusal(&reply), (400, "INVALID_ATTRIBUTE".into(), sentence));
        }
    }
    let properties = &stillpoint_api::describe::openapi("/")["components"]["schemas"]["Snapshot"]["properties"];
    let names: Vec<_> = properties.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, stillpoint_api::operations::SNAPSHOT_FIELDS);
}

#[tokio::test]
async fn one_that_is_not_complete_is_not_changed() {
    let lab = Lab::new().await;
    lab.catalog.queue_snapshot(&failed(1)).await.unwrap();
    lab.catalog.queue_snapshot(&queued(2)).await.unwrap();
    for snapshot in [failed(1), queued(2)] {
        let reply = patch(&lab, &format!("{}/{}", collection(), snapshot.id), r#"{"doNotDelete":true}"#).await;
        let sentence = format!("Snapshot {} of cluster Cluster0 cannot be modified: it is not complete.", snapshot.id);
        assert_eq!(refusal(&reply), (403, "CANNOT_MODIFY_SNAPSHOT".into(), sentence));
        let kept = lab.catalog.snapshot(snapshot.cluster, snapshot.id).await.unwrap().unwrap();
        assert!(!kept.do_not_delete);
    }
}

#[tokio::test]
async fn one_that_nothing_needs_is_deleted() {
    for (n, collection) in collections().into_iter().enumerate() {
        let lab = Lab::new().await;
        lab.catalog.queue_snapshot(&failed(1)).await.unwrap();
        for id in [SNAPSHOT.to_owned(), failed(1).id.to_string()] {
            let target = format!("{collection}/{id}");
            get(&lab, &target).await;
            assert_eq!(delete(&lab, &target).await.status, 204, "surface {n}");
            let gone = lab.ask_with(READER, "GET", &target, &[ACCEPT], "").await;
            assert_eq!(refusal(&gone).1, "SNAPSHOT_NOT_FOUND");
            assert_eq!(refusal(&delete(&lab, &target).await).1, "SNAPSHOT_NOT_FOUND");
        }
        assert_eq!(ids(&get(&lab, &collection).await), [NEWEST_SNAPSHOT, OLDEST_SNAPSHOT]);
    }
}

#[tokio::test]
async fn one_that_is_needed_is_not_deleted() {
    let lab = Lab::new().await;
    let refused = async |id: &str, why: &str| {
        let reply = delete(&lab, &format!("{}/{id}", collection())).await;
        let sentence = format!("Snapshot {id} of cluster Cluster0 cannot be deleted: {why}");
        assert_eq!(refusal(&reply), (403, "CANNOT_MODIFY_SNAPSHOT".into(), sentence));
        assert!(lab.catalog.snapshot(CLUSTER.parse().unwrap(), id.parse().unwrap()).await.unwrap().is_some());
    };
    let oldest = "the oldest checkpoints and times that are kept are restored from it.";
    let newest = "the next one goes on from it. Delete it when there is a newer one.";
    refused(OLDEST_SNAPSHOT, oldest).await;
    refused(NEWEST_SNAPSHOT, newest).await;
    patch(&lab, &format!("{}/{SNAPSHOT}", collection()), r#"{"doNotDelete":true}"#).await;
    refused(SNAPSHOT, "it is marked doNotDelete. Set that to false first.").await;
    patch(&lab, &format!("{}/{SNAPSHOT}", collection()), r#"{"doNotDelete":false}"#).await;
    lab.catalog.queue_snapshot(&queued(2)).await.unwrap();
    refused(&queued(2).id.to_string(), "it is not yet finished.").await;

    // The oldest that is kept is now a checkpoint between the second and the third.
    let cluster = CLUSTER.parse().unwrap();
    lab.catalog.delete_checkpoint(cluster, CHECKPOINT.parse().unwrap()).await.unwrap();
    let date = time("2026-11-24T10:30:00Z");
    let mut checkpoint = completed(CheckpointId::new(date, 1));
    checkpoint.cut = Some(ClusterTime::at(date));
    lab.catalog.queue_checkpoint(&checkpoint).await.unwrap();
    lab.catalog
        .change_schedule(cluster, &[(stillpoint_core::schedule::Setting::PointInTimeWindowHours, 1)])
        .await
        .unwrap();
    refused(SNAPSHOT, oldest).await;
    assert_eq!(delete(&lab, &format!("{}/{OLDEST_SNAPSHOT}", collection())).await.status, 204);
    // The window reaches as far back as it says.
    lab.pass(60);
    lab.catalog.delete_checkpoint(cluster, checkpoint.id).await.unwrap();
    refused(NEWEST_SNAPSHOT, oldest).await;
    assert_eq!(delete(&lab, &format!("{}/{SNAPSHOT}", collection())).await.status, 204);
}

#[tokio::test]
async fn one_is_taken_at_a_time() {
    for collection in collections() {
        let lab = Lab::new().await;
        empty(&lab).await;
        let asked = tokio::spawn({
            let wake = lab.wake.clone();
            async move { wake.notified().await }
        });
        tokio::task::yield_now().await;
        let reply = lab.ask_with(OWNER, "POST", &collection, &[ACCEPT], "").await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        asked.await.unwrap();
        let document = reply.json();
        let id = document["id"].as_str().unwrap();
        assert_eq!(reply.header("location"), Some(&*format!("http://backup.example.net{collection}/{id}")));
        assert_eq!(document["stillpoint"], json!({"state": "QUEUED"}));
        assert_eq!(get(&lab, &format!("{collection}/{id}")).await, document);
        let found = lab.catalog.unfinished_snapshot(CLUSTER.parse().unwrap()).await.unwrap();
        assert_eq!(found.map(|snapshot| snapshot.id.to_string()).as_deref(), Some(id));

        let again = lab.ask_with(OWNER, "POST", &collection, &[ACCEPT, JSON], "{}").await;
        let by = if collection.contains("public") { CLUSTER } else { "Cluster0" };
        let sentence = format!("Snapshot {id} of cluster {by} is not yet finished.");
        assert_eq!(refusal(&again), (409, "SNAPSHOT_IN_PROGRESS".into(), sentence));
        let with = lab.ask_with(OWNER, "POST", &collection, &[ACCEPT, JSON], "{\"a\":1}").await;
        assert_eq!(refusal(&with).1, "INVALID_ATTRIBUTE");
        assert_eq!(lab.catalog.count_snapshots(CLUSTER.parse().unwrap()).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn what_was_made_is_linked_to_what_can_be_done_with_it() {
    let document = stillpoint_api::describe::openapi("/");
    let mut seen = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let responses = &methods["post"]["responses"];
        let links = ["200", "201"].into_iter().find_map(|status| responses[status]["links"].as_object());
        let Some(links) = links else { continue };
        for (method, link) in links {
            let item = link["parameters"].as_object().unwrap();
            let own = ["$response.body#/id", "$response.body#/results/0/id"];
            let (name, _) = item.iter().find(|(_, from)| own.contains(&from.as_str().unwrap())).unwrap();
            let target = &document["paths"][format!("{path}/{{{name}}}")][method];
            assert_eq!(target["operationId"], link["operationId"], "{path} {method}");
            seen += 1;
        }
    }
    assert_eq!(seen, 3 * (2 + 3 + 2), "on each surface, of a checkpoint, a snapshot and a restore job");
}
