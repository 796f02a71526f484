//! What is missing of the stored oplogs and snapshots is told with checkpoints and clusters, and nothing where nothing is.

use std::time::Duration;

use serde_json::{Value, json};
use stillpoint_catalog::Catalog;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{BlobId, Gap, GapCause, OpenTransaction, Segment, Stream};
use stillpoint_core::verification::{PartVerification, Verification};
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime, OpTime};

use crate::support::{CHECKPOINT, CLUSTER, GROUP, Lab, OWNER, READER, completed, completed_snapshot, failed, time};

/// A snapshot of what the checkpoint needs, unlike those that are there.
const EARLY: &str = "6b94183187d9d64b6f286800";

/// The paths of the cluster and of its checkpoints on every surface.
fn surfaces() -> [(String, String); 3] {
    let cluster = |prefix, name| format!("/api/{prefix}/groups/{GROUP}/clusters/{name}");
    let atlas = |prefix| {
        let cluster = cluster(prefix, "Cluster0");
        (cluster.clone(), format!("{cluster}/backupCheckpoints"))
    };
    let manager = cluster("public/v1.0", CLUSTER);
    [atlas("atlas/v1.0"), atlas("atlas/v2"), (manager.clone(), format!("{manager}/checkpoints"))]
}

async fn get(lab: &Lab, target: &str) -> Value {
    let reply = lab.ask_with(READER, "GET", target, &[("accept", "application/vnd.atlas.2023-01-01+json")], "").await;
    assert_eq!(reply.status, 200, "{target}: {}", reply.body);
    assert!(!reply.body.contains("internal"), "{}", reply.body);
    reply.json()
}

fn cluster() -> ClusterId {
    CLUSTER.parse().unwrap()
}

/// The seconds of the checkpoint's cut.
fn cut() -> u32 {
    completed(CHECKPOINT.parse().unwrap()).cut.unwrap().seconds
}

fn parts() -> [PartId; 3] {
    let shard = |n| PartId::Shard(format!("Cluster0-shard-{n}"));
    [shard(1), shard(0), PartId::ConfigServers]
}

pub async fn begin(lab: &Lab, parts: &[PartId], since: u32) {
    let now = time("2026-11-24T12:00:00Z");
    let lease = lab.catalog.claim_lease(cluster(), "t", now, Duration::from_secs(60)).await.unwrap().unwrap();
    for part in parts {
        let since = ClusterTime::new(since, 1);
        let stream = Stream {
            cluster: cluster(),
            part: part.clone(),
            replica_set: "rs".into(),
            from: since,
            complete_from: since,
            since,
            began: now,
            ended: None,
            unresolved: None,
            kept_from: None,
        };
        lab.catalog.begin_stream(&lease, &stream, None).await.unwrap();
    }
}

/// A snapshot of these parts, as of a second.
async fn snapshot(lab: &Lab, parts: &[PartId], second: u32) {
    let snapshot = completed_snapshot(EARLY.parse().unwrap(), parts, ClusterTime::new(second, 1));
    lab.catalog.queue_snapshot(&snapshot).await.unwrap();
}

/// Stores what the checkpoint of the lab needs.
pub async fn make_restorable(lab: &Lab) {
    begin(lab, &parts(), cut() - 100).await;
    snapshot(lab, &parts(), cut()).await;
}

/// Stores the oplog of every stream that there is, up to the first entry of a second.
pub async fn store(lab: &Lab, second: u32) {
    let now = time("2026-11-24T12:00:00Z");
    let lease = lab.catalog.claim_lease(cluster(), "t", now, Duration::from_secs(60)).await.unwrap().unwrap();
    for stream in lab.catalog.streams(cluster()).await.unwrap() {
        let before = lab.catalog.last_segment(cluster(), &stream.part).await.unwrap();
        let first = before.as_ref().map_or(stream.from, |before| before.last.time.after());
        let segment = Segment {
            cluster: cluster(),
            part: stream.part,
            blob: BlobId([second as u8; 32]),
            previous: before.map(|before| before.blob),
            first: OpTime::new(first, 1),
            last: OpTime::new(ClusterTime::new(second, 1), 1),
            entries: 2,
            bytes: 2,
            stored: 2,
            sealed: now,
            tokens: vec![],
            open: vec![],
        };
        lab.catalog.append_segment(&lease, &segment).await.unwrap();
    }
}

/// The codes of a checkpoint's obstacles.
fn obstacles(document: &Value) -> Vec<&str> {
    let obstacles = document["stillpoint"]["obstacles"].as_array();
    obstacles.into_iter().flatten().map(|obstacle| obstacle["code"].as_str().unwrap()).collect()
}

fn gap(part: PartId, after: u32, until: u32) -> Gap {
    Gap {
        part,
        after: ClusterTime::new(after, 3),
        until: ClusterTime::new(until, 4),
        cause: GapCause::RolledOver,
        found: time("2026-11-24T12:00:00Z"),
        detail: "shard0.internal:27018 had only ten minutes".into(),
    }
}

#[tokio::test]
async fn a_checkpoint_that_the_streams_cannot_restore_says_why_on_every_surface() {
    let lab = Lab::new().await;
    let [one, two, config] = parts();
    begin(&lab, std::slice::from_ref(&one), cut() - 100).await;
    begin(&lab, &[two], cut() + 5).await;
    lab.catalog.add_gap(cluster(), &gap(one.clone(), cut() - 10, cut() + 10)).await.unwrap();
    lab.catalog.add_gap(cluster(), &gap(one, cut() + 10, cut() + 20)).await.unwrap();
    let shown = json!({
        "obstacles": [
            {
                "code": "ROLLED_OVER",
                "detail": format!(
                    "shard Cluster0-shard-1: nothing between {} and {}: The oplog was overwritten before it was captured.",
                    ClusterTime::new(cut() - 10, 3), ClusterTime::new(cut() + 10, 4)
                ),
            },
            {
                "code": "BEFORE_CAPTURE",
                "detail": format!(
                    "shard Cluster0-shard-0: its oplog is stored from {} on.", ClusterTime::new(cut() + 5, 1)
                ),
            },
            {"code": "NOT_CAPTURED", "detail": format!("{config}: its oplog is not stored.")},
        ],
        "state": "COMPLETED",
    });
    for (_, collection) in surfaces() {
        assert_eq!(get(&lab, &format!("{collection}/{CHECKPOINT}")).await["stillpoint"], shown, "{collection}");
        assert_eq!(get(&lab, &collection).await["results"][0]["stillpoint"], shown, "{collection}");
    }
}

#[tokio::test]
async fn a_checkpoint_that_no_snapshot_has_says_so_for_each_part() {
    let lab = Lab::new().await;
    let [one, two, config] = parts();
    begin(&lab, &parts(), cut() - 100).await;
    let detail = |part: &PartId| format!("{part}: no snapshot has it as of then or before.");
    let obstacle = |part| json!({"code": "NO_SNAPSHOT", "detail": detail(part)});
    for (path, collection) in surfaces() {
        let document = get(&lab, &format!("{collection}/{CHECKPOINT}")).await;
        assert_eq!(document["stillpoint"]["obstacles"], json!([obstacle(&one), obstacle(&two), obstacle(&config)]));
        assert_eq!(document["restorable"], false);
        assert!(get(&lab, &path).await.get("stillpoint").is_none(), "that is no gap");
    }
    // One that is of a later time or has not all parts does not help all.
    snapshot(&lab, &[one.clone(), config.clone()], cut() - 5).await;
    let document = get(&lab, &format!("{}/{CHECKPOINT}", surfaces()[0].1)).await;
    assert_eq!(document["stillpoint"]["obstacles"], json!([obstacle(&two)]));
    lab.catalog.delete_snapshot(cluster(), EARLY.parse().unwrap(), time("2026-11-24T12:00:00Z")).await.unwrap();
    snapshot(&lab, &parts(), cut() + 1).await;
    let document = get(&lab, &format!("{}/{CHECKPOINT}", surfaces()[0].1)).await;
    assert_eq!(obstacles(&document), ["NO_SNAPSHOT"; 3]);
}

#[tokio::test]
async fn a_checkpoint_that_can_be_restored_has_the_published_fields_only() {
    let lab = Lab::new().await;
    let item = format!("{}/{CHECKPOINT}", surfaces()[0].1);
    let before = get(&lab, &item).await;
    assert_eq!(before["restorable"], false);
    make_restorable(&lab).await;
    lab.catalog.add_gap(cluster(), &gap(PartId::ConfigServers, cut() + 10, cut() + 20)).await.unwrap();
    for (_, collection) in surfaces() {
        for document in
            [&get(&lab, &format!("{collection}/{CHECKPOINT}")).await, &get(&lab, &collection).await["results"][0]]
        {
            assert!(document.get("stillpoint").is_none(), "{document}");
            assert_eq!(document["restorable"], true, "{document}");
        }
    }
    let mut after = get(&lab, &item).await;
    after["restorable"] = false.into();
    assert_eq!(after, before);
}

#[tokio::test]
async fn what_came_of_verifying_a_checkpoint_is_in_the_products_own_fields() {
    let lab = Lab::new().await;
    make_restorable(&lab).await;
    let now = time("2026-11-24T12:00:00Z");
    let lease = lab.catalog.claim_lease(cluster(), "t", now, Duration::from_secs(60)).await.unwrap().unwrap();
    let mut shard = PartVerification::new(parts()[0].clone());
    shard.different.add("bank.accounts", "shard0.internal says otherwise");
    let mut verification = Verification { at: now, time: ClusterTime::new(cut(), 1), parts: vec![shard] };
    for verdict in ["DIFFERENT", "EQUAL"] {
        lab.catalog.note_verification(&lease, CHECKPOINT.parse().unwrap(), &verification).await.unwrap();
        for (_, collection) in surfaces() {
            let document = get(&lab, &format!("{collection}/{CHECKPOINT}")).await;
            let shown = json!({
                "state": "COMPLETED",
                "verification": {"at": "2026-11-24T12:00:00Z", "verdict": verdict},
            });
            assert_eq!(document["stillpoint"], shown, "and nothing of the cluster's names");
        }
        verification.parts = vec![PartVerification { equal: 3, ..PartVerification::new(parts()[0].clone()) }];
    }
}

#[tokio::test]
async fn a_reply_that_was_remembered_is_made_anew_when_a_gap_is_found_or_mended() {
    let lab = Lab::new().await;
    begin(&lab, &parts(), cut() - 100).await;
    snapshot(&lab, &parts(), cut() - 50).await;
    let gap = gap(PartId::ConfigServers, cut() - 10, cut() + 10);
    for (path, collection) in surfaces() {
        let item = format!("{collection}/{CHECKPOINT}");
        for _ in 0..2 {
            assert!(get(&lab, &item).await.get("stillpoint").is_none());
            assert!(get(&lab, &path).await.get("stillpoint").is_none());
        }
        lab.catalog.add_gap(cluster(), &gap).await.unwrap();
        for _ in 0..2 {
            assert_eq!(obstacles(&get(&lab, &item).await), ["ROLLED_OVER"]);
            assert!(get(&lab, &path).await["stillpoint"]["gaps"].is_array());
        }
        lab.catalog.remove_gap(cluster(), &gap.part, gap.after, gap.until).await.unwrap();
    }
}

#[tokio::test]
async fn a_reply_that_was_remembered_is_made_anew_when_a_snapshot_comes_or_goes() {
    let lab = Lab::new().await;
    begin(&lab, &parts(), cut() - 100).await;
    for (_, collection) in surfaces() {
        for target in [format!("{collection}/{CHECKPOINT}"), collection] {
            let restorable = || async {
                let document = get(&lab, &target).await;
                document.get("results").map_or(&document, |results| &results[0])["restorable"].clone()
            };
            for _ in 0..2 {
                assert_eq!(restorable().await, false, "{target}");
            }
            snapshot(&lab, &parts(), cut() - 50).await;
            for _ in 0..2 {
                assert_eq!(restorable().await, true, "{target}");
            }
            let now = time("2026-11-24T12:00:00Z");
            lab.catalog.delete_snapshot(cluster(), EARLY.parse().unwrap(), now).await.unwrap();
            assert_eq!(restorable().await, false, "{target}");
        }
    }
}

#[tokio::test]
async fn a_reply_that_was_remembered_is_made_anew_when_a_transaction_ends() {
    let lab = Lab::new().await;
    begin(&lab, &parts(), cut() - 100).await;
    snapshot(&lab, &parts(), cut() - 50).await;
    let item = format!("{}/{CHECKPOINT}", surfaces()[0].1);
    assert_eq!(get(&lab, &item).await["restorable"], true);

    let at = |second| OpTime::new(ClusterTime::new(second, 1), 1);
    let prepared = OpenTransaction {
        session: "00".into(),
        number: 1,
        first: at(cut() - 1),
        last: at(cut() - 1),
        prepared: Some(at(cut() - 1).time),
    };
    let open = Segment {
        cluster: cluster(),
        part: PartId::ConfigServers,
        blob: BlobId([1; 32]),
        previous: None,
        first: at(cut() - 100),
        last: at(cut() + 1),
        entries: 2,
        bytes: 2,
        stored: 2,
        sealed: time("2026-11-24T12:00:00Z"),
        tokens: vec![],
        open: vec![prepared],
    };
    let ended = Segment {
        blob: BlobId([2; 32]),
        previous: Some(open.blob),
        first: at(cut() + 2),
        last: at(cut() + 3),
        open: vec![],
        ..open.clone()
    };
    let now = time("2026-11-24T12:00:01Z");
    let lease = lab.catalog.claim_lease(cluster(), "t", now, Duration::from_secs(60)).await.unwrap().unwrap();
    lab.catalog.append_segment(&lease, &open).await.unwrap();
    for _ in 0..2 {
        let document = get(&lab, &item).await;
        assert_eq!((&document["restorable"], obstacles(&document)), (&json!(false), vec!["TRANSACTION_UNRESOLVED"]));
    }
    lab.catalog.append_segment(&lease, &ended).await.unwrap();
    assert_eq!(get(&lab, &item).await["restorable"], true);
}

#[tokio::test]
async fn one_that_has_not_completed_has_no_obstacles() {
    let lab = Lab::new().await;
    begin(&lab, &[PartId::ConfigServers], cut() + 100).await;
    let at = time("2026-11-24T12:00:00Z");
    let id = CheckpointId::new(at, 9);
    lab.catalog.queue_checkpoint(&failed(id, at)).await.unwrap();
    let path = &surfaces()[0].1;
    let document = get(&lab, &format!("{path}/{id}")).await;
    assert_eq!(document["stillpoint"]["state"], "FAILED");
    assert!(document["stillpoint"].get("obstacles").is_none(), "{document}");
    let queued = lab.ask(OWNER, "POST", path).await;
    assert_eq!(queued.json()["stillpoint"], json!({"state": "QUEUED"}));
}

#[tokio::test]
async fn a_clusters_gaps_are_told_on_every_surface_and_name_no_host() {
    let lab = Lab::new().await;
    begin(&lab, &parts(), cut() - 100).await;
    let shard = PartId::Shard("Cluster0-shard-0".into());
    lab.catalog.add_gap(cluster(), &gap(shard, 1_700_000_000, 1_700_000_060)).await.unwrap();
    let shown = json!({"gaps": [{
        "after": {"date": "2023-11-14T22:13:20Z", "increment": 3},
        "cause": "ROLLED_OVER",
        "detail": "The oplog was overwritten before it was captured.",
        "part": "shard-Cluster0-shard-0",
        "until": {"date": "2023-11-14T22:14:20Z", "increment": 4},
    }]});
    for (path, _) in surfaces() {
        let document = get(&lab, &path).await;
        assert_eq!(document["stillpoint"], shown);
        assert!(document.as_object().unwrap().keys().is_sorted(), "{document}");
        let list = get(&lab, path.rsplit_once('/').unwrap().0).await;
        let results = list["results"].as_array().unwrap();
        let told: Vec<_> = results.iter().filter_map(|cluster| cluster.get("stillpoint")).collect();
        assert_eq!(told, [&shown], "the other cluster has none: {list}");
        assert_eq!(list["totalCount"], 2);
    }
}

#[test]
fn both_are_described() {
    let schemas = &stillpoint_api::describe::openapi("/")["components"]["schemas"];
    for (owner, field, item, properties) in [
        ("Progress", "obstacles", "Obstacle", &["code", "detail"][..]),
        ("Kept", "gaps", "Gap", &["after", "cause", "detail", "part", "until"]),
    ] {
        let described = &schemas[owner]["properties"][field];
        assert_eq!(described["items"]["$ref"], format!("#/components/schemas/{item}"), "{schemas:#}");
        let names: Vec<_> = schemas[item]["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, properties);
        for (name, property) in schemas[item]["properties"].as_object().unwrap() {
            assert!(property["type"] == "string" || property["$ref"].is_string(), "{item}.{name}: {property}");
        }
    }
    for document in ["Checkpoint", "Cluster"] {
        let required = schemas[document]["required"].as_array().unwrap();
        assert!(!required.contains(&json!("stillpoint")), "{document}");
    }
    let required = schemas["Progress"]["required"].as_array().unwrap();
    assert_eq!(required, &[json!("state")]);
}
