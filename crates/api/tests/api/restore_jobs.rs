//! Restore jobs: as they are read, asked for and cancelled, on every surface.

use jiff::SignedDuration;
use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, Cluster, Page};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::{Options, Point, Restore, State, Target};
use stillpoint_core::stream::{Gap, GapCause};
use stillpoint_core::{ClusterId, ClusterTime, RestoreId, Role};

use crate::coverage;
use crate::support::{
    BATCH, CHECKPOINT, CLUSTER, FOREIGN_GROUP, GROUP, JOB, Lab, OTHER_GROUP, OWNER, READER, RUNNING_JOB, Reply,
    SNAPSHOT, completed, failed, finished_restore, loading_restore, target, time,
};

const ACCEPT: (&str, &str) = ("accept", "application/vnd.atlas.2023-01-01+json");
const JSON: (&str, &str) = ("content-type", "application/json");
const INTERNAL: &str = "shard0.internal:27018 does not answer";
const NOWHERE: &str = "000000000000000000000000";

/// The collection on every surface.
fn collections() -> [String; 3] {
    [("atlas/v1.0", "Cluster0"), ("atlas/v2", "Cluster0"), ("public/v1.0", CLUSTER)]
        .map(|(prefix, cluster)| format!("/api/{prefix}/groups/{GROUP}/clusters/{cluster}/restoreJobs"))
}

fn collection() -> String {
    collections()[0].clone()
}

fn cluster() -> ClusterId {
    CLUSTER.parse().unwrap()
}

async fn get(lab: &Lab, target: &str) -> Value {
    let reply = lab.ask_with(READER, "GET", target, &[ACCEPT], "").await;
    assert_eq!(reply.status, 200, "{target}: {}", reply.body);
    assert!(!reply.body.contains("internal"), "{}", reply.body);
    reply.json()
}

async fn post(lab: &Lab, target: &str, body: &str) -> Reply {
    lab.ask_with(OWNER, "POST", target, &[ACCEPT, JSON], body).await
}

/// The body that asks for a point, into the cluster of a project that has an id.
pub fn body(group: &str, target: &str, point: &Value) -> String {
    let mut body = point.clone();
    body["delivery"] = json!({"methodName": "AUTOMATED_RESTORE", "targetClusterId": target, "targetGroupId": group});
    body.to_string()
}

/// The same, into the empty cluster.
fn of(point: &Value) -> String {
    body(GROUP, &target().to_string(), point)
}

/// Queues a restore that is under way.
pub async fn begin(lab: &Lab) {
    lab.catalog.queue_restore(&loading_restore(), None).await.unwrap();
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

/// The seconds of the checkpoint's cut.
fn cut() -> u32 {
    completed(CHECKPOINT.parse().unwrap()).cut.unwrap().seconds
}

#[tokio::test]
async fn one_has_the_published_fields_in_their_order_and_its_own_apart() {
    let lab = Lab::new().await;
    for collection in collections() {
        let cluster = collection.strip_suffix("/restoreJobs").unwrap();
        let link = |path: &str, rel: &str| json!({"href": format!("http://backup.example.net{path}"), "rel": rel});
        let own = link(&format!("{collection}/{JOB}"), "self");
        let amount = json!({"bytes": 70_000, "collections": 2, "documents": 1_000});
        let mut expected = json!({
            "batchId": BATCH,
            "clusterId": CLUSTER,
            "created": "2026-11-24T11:10:00Z",
            "delivery": {
                "methodName": "AUTOMATED_RESTORE",
                "targetClusterId": target().to_string(),
                "targetClusterName": "a/b c%",
                "targetGroupId": GROUP,
            },
            "groupId": GROUP,
            "hashes": [],
            "id": JOB,
            "links": [
                own,
                link(cluster, "http://mms.mongodb.com/cluster"),
                link(cluster.split("/clusters").next().unwrap(), "http://mms.mongodb.com/group"),
            ],
            "pointInTime": false,
            "snapshotId": SNAPSHOT,
            "statusName": "FINISHED",
            "stillpoint": {
                "ended": "2026-11-24T11:20:00Z",
                "expected": amount,
                "part": "shard-Cluster0-shard-0",
                "state": "FINISHED",
                "targetShard": "target-0",
                "verification": {"at": "2026-11-24T11:19:00Z", "verdict": "EQUAL"},
                "written": amount,
            },
            "timestamp": {"date": "2026-11-24T10:00:00Z", "increment": 7},
        });
        let item = format!("{collection}/{JOB}");
        let reply = lab.ask_with(READER, "GET", &item, &[ACCEPT], "").await;
        assert_eq!(reply.body, expected.to_string(), "the order of the fields, too");
        assert!(reply.json().as_object().unwrap().keys().is_sorted());
        expected["links"] = json!([own]);
        assert_eq!(get(&lab, &collection).await["results"][0], expected, "in a list only its own link");
    }
}

#[tokio::test]
async fn every_state_has_its_status_and_names_no_host() {
    let lab = Lab::new().await;
    let lease =
        lab.catalog.claim_lease(cluster(), "t", time("2026-11-24T12:00:00Z"), std::time::Duration::from_secs(9));
    let lease = lease.await.unwrap().unwrap();
    let item = format!("{}/{RUNNING_JOB}", collection());
    let queued = Restore { target: Target::Hosts("shard0.internal:27018".into()), ..loading_restore() };
    let queued = Restore { state: State::Queued, point: Point::Checkpoint(CHECKPOINT.parse().unwrap()), ..queued };
    lab.catalog.queue_restore(&queued, Some(&"mongodb://shard0.internal:27018".into())).await.unwrap();
    for state in [State::Queued, State::Checking, State::Loading, State::Verifying, State::Opening] {
        let mut restore = Restore { state, trouble: Some(INTERNAL.into()), ..queued.clone() };
        restore.parts[0].doing = Some(INTERNAL.into());
        lab.catalog.save_restore(&lease, &restore, &[]).await.unwrap();
        let shown = get(&lab, &item).await;
        assert_eq!(shown["statusName"], "IN_PROGRESS");
        assert_eq!(shown["delivery"], json!({"methodName": "AUTOMATED_RESTORE"}), "it is not kept here");
        assert!(shown.get("snapshotId").is_none());
        let own = json!({
            "checkpointId": CHECKPOINT,
            "expected": {"bytes": 70_000, "collections": 2, "documents": 1_000},
            "part": "shard-Cluster0-shard-0",
            "state": state.name(),
            "targetShard": "target-0",
            "trouble": "retrying",
            "written": {"bytes": 28_000, "collections": 1, "documents": 400},
        });
        assert_eq!(shown["stillpoint"], own);
    }
    lab.catalog.cancel_restore(cluster(), queued.id, time("2026-11-24T12:00:00Z")).await.unwrap();
    assert_eq!(get(&lab, &item).await["stillpoint"]["cancelled"], true);
    let ended = Restore { ended: Some(time("2026-11-24T12:00:00Z")), failure: Some(INTERNAL.into()), ..queued };
    lab.catalog.save_restore(&lease, &Restore { state: State::Broken, ..ended.clone() }, &[]).await.unwrap();
    let shown = get(&lab, &item).await;
    assert_eq!((&shown["statusName"], &shown["stillpoint"]["state"]), (&json!("BROKEN"), &json!("BROKEN")));
    assert_eq!(shown["stillpoint"]["failure"], "Who runs the server sees why with `stillpoint restore-job show`.");
    let killed = Restore { state: State::Killed, cancelled: true, failure: None, ..ended };
    let killed = Restore { id: "6b94183187d9d64b6f2868d0".parse().unwrap(), ..killed };
    lab.catalog.queue_restore(&killed, None).await.unwrap();
    assert_eq!(get(&lab, &item).await["statusName"], "KILLED", "the newest that has it");
}

#[tokio::test]
async fn a_list_has_the_jobs_of_every_restore_or_of_one() {
    let lab = Lab::new().await;
    begin(&lab).await;
    let [old, new] = [finished_restore(), loading_restore()]
        .map(|restore| restore.parts.iter().map(|part| part.job.to_string()).collect::<Vec<_>>());
    let all = [new.clone(), old.clone()].concat();
    for collection in collections() {
        for (query, expected) in [
            (String::new(), &all),
            (format!("?batchId={BATCH}"), &old),
            (format!("?batchId={}", loading_restore().id), &new),
            (format!("?batchId={NOWHERE}"), &vec![]),
            // That of a job is none of a restore.
            (format!("?batchId={JOB}"), &vec![]),
        ] {
            let list = get(&lab, &format!("{collection}{query}")).await;
            assert_eq!(ids(&list), *expected, "{query}");
            assert_eq!(list["totalCount"], expected.len());
        }
        // Every page is of the same list.
        for (query, expected) in
            [("?itemsPerPage=1".to_owned(), &all), (format!("?itemsPerPage=1&batchId={BATCH}"), &old)]
        {
            let (mut next, mut seen) = (format!("{collection}{query}"), Vec::new());
            loop {
                let page = get(&lab, &next).await;
                seen.extend(ids(&page).into_iter().map(str::to_owned));
                let links = page["links"].as_array().unwrap();
                let Some(link) = links.iter().find(|link| link["rel"] == "next") else { break };
                next = link["href"].as_str().unwrap().strip_prefix("http://backup.example.net").unwrap().to_owned();
            }
            assert_eq!(seen, *expected, "{query}");
        }
        for id in [NOWHERE, BATCH, SNAPSHOT, "x"] {
            let reply = lab.ask_with(READER, "GET", &format!("{collection}/{id}"), &[ACCEPT], "").await;
            let by = if collection.contains("public") { CLUSTER } else { "Cluster0" };
            let sentence = format!("No restore job with ID {id} exists for cluster {by}.");
            assert_eq!(refusal(&reply), (404, "RESTORE_JOB_NOT_FOUND".into(), sentence));
        }
    }
    // They are the source's, not the target's.
    let other = format!("/api/atlas/v1.0/groups/{GROUP}/clusters/a%2Fb%20c%25/restoreJobs");
    assert_eq!(get(&lab, &other).await["results"], json!([]));
    assert_eq!(refusal(&lab.get(&format!("{other}/{JOB}")).await).1, "RESTORE_JOB_NOT_FOUND");
}

#[tokio::test]
async fn a_list_of_many_is_read_from_the_catalog_until_its_page_is_full() {
    let lab = Lab::new().await;
    let first = finished_restore();
    let mut expected: Vec<_> = first.parts.iter().map(|part| part.job.to_string()).collect();
    for n in 1..=230_u64 {
        // Ids of tests are of some time to come.
        let requested = first.requested + SignedDuration::from_hours(365 * 24) + SignedDuration::from_secs(n as i64);
        let mut restore = Restore { id: RestoreId::new(requested, 0), requested, ..first.clone() };
        // Some end before they have any part.
        restore.parts.truncate(n as usize % 3);
        for (part, chance) in restore.parts.iter_mut().zip(1..) {
            part.job = RestoreId::new(requested, chance);
        }
        let jobs = restore.parts.iter().map(|part| part.job.to_string());
        expected.splice(0..0, jobs);
        lab.catalog.queue_restore(&restore, None).await.unwrap();
    }
    let collection = collection();
    for per_page in [1, 7, 100, 231, 500] {
        // Around the page in the middle, and at both ends.
        let last = expected.len().div_ceil(per_page);
        for page in [1, 2, last / 2, last - 1, last, last + 1].into_iter().filter(|page| *page > 0) {
            let list = get(&lab, &format!("{collection}?itemsPerPage={per_page}&pageNum={page}")).await;
            let shown = expected.iter().skip((page - 1) * per_page).take(per_page);
            assert!(ids(&list).into_iter().eq(shown), "{per_page}, {page}");
            assert_eq!(list["totalCount"], expected.len());
            let more = list["links"].as_array().unwrap().iter().any(|link| link["rel"] == "next");
            assert_eq!(more, page < last, "{per_page}, {page}");
        }
    }
    let list = get(&lab, &format!("{collection}?includeCount=false")).await;
    assert!(list.get("totalCount").is_none() && ids(&list).len() == 100);
}

#[tokio::test]
async fn a_checkpoint_is_restored_into_another_cluster() {
    for collection in collections() {
        let lab = Lab::new().await;
        coverage::make_restorable(&lab).await;
        let asked = tokio::spawn({
            let wake = lab.wake.clone();
            async move { wake.notified().await }
        });
        tokio::task::yield_now().await;
        get(&lab, &collection).await;
        let reply = post(&lab, &collection, &of(&json!({"checkpointId": CHECKPOINT}))).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        asked.await.unwrap();

        let kept = lab.catalog.unfinished_restore(cluster()).await.unwrap().unwrap();
        assert_eq!((kept.state, kept.requested), (State::Queued, time("2026-11-24T12:00:00.25Z")));
        assert_eq!(kept.point, Point::Checkpoint(CHECKPOINT.parse().unwrap()));
        assert_eq!(kept.time, ClusterTime::new(cut(), 1));
        assert_eq!(kept.target, Target::Cluster(target()));
        assert_eq!(kept.options, Options { verify: true, ..Options::default() });
        let shard = |n| PartId::Shard(format!("Cluster0-shard-{n}"));
        let parts: Vec<_> = kept.parts.iter().map(|part| part.id.clone()).collect();
        assert_eq!(parts, [shard(1), shard(0), PartId::ConfigServers]);
        assert_eq!((kept.expected().documents, kept.expected().bytes, kept.written().documents), (3_000, 210_000, 0));
        assert_eq!(lab.catalog.restore_uri(cluster(), kept.id).await.unwrap().map(drop), None);

        // What it is answered with is what can be asked for then.
        let list = reply.json();
        assert_eq!(ids(&list), kept.parts.iter().map(|part| part.job.to_string()).collect::<Vec<_>>());
        assert_eq!(list["totalCount"], 3);
        let batch = format!("{collection}?batchId={}", kept.id);
        assert_eq!(get(&lab, &batch).await, list);
        let own = format!("http://backup.example.net{batch}&pageNum=1&itemsPerPage=100");
        assert_eq!(list["links"], json!([{"href": own, "rel": "self"}]));
        assert_eq!(ids(&get(&lab, &collection).await).len(), 5, "a reply that was remembered is made anew");
        for job in list["results"].as_array().unwrap() {
            assert_eq!((&job["statusName"], &job["batchId"]), (&json!("IN_PROGRESS"), &json!(kept.id)));
            assert_eq!(get(&lab, &format!("{collection}/{}", job["id"].as_str().unwrap())).await["id"], job["id"]);
        }

        let by = if collection.contains("public") { CLUSTER } else { "Cluster0" };
        let again = post(&lab, &collection, &of(&json!({"checkpointId": CHECKPOINT}))).await;
        let sentence = format!("A restore of cluster {by} is in progress.");
        assert_eq!(refusal(&again), (409, "ATLAS_CLUSTER_RESTORE_IN_PROGRESS".into(), sentence));
        assert_eq!(lab.catalog.count_restores(cluster()).await.unwrap(), 2);
    }
}

#[tokio::test]
async fn a_restore_is_a_list_in_every_form() {
    let lab = Lab::new().await;
    coverage::make_restorable(&lab).await;
    let point = of(&json!({"checkPointId": CHECKPOINT}));
    for query in ["itemsPerPage=0", "pageNum=x", "includeCount=1", "pretty=1"] {
        let reply = post(&lab, &format!("{}?{query}", collection()), &point).await;
        assert_eq!(refusal(&reply).1, "INVALID_QUERY_PARAMETER");
        assert_eq!(lab.catalog.unfinished_restore(cluster()).await.unwrap(), None, "said before it is done");
    }
    let reply = post(&lab, &format!("{}?envelope=true&itemsPerPage=2", collection()), &point).await;
    let list = reply.json();
    assert_eq!((&list["status"], ids(&list).len(), &list["totalCount"]), (&json!(200), 2, &json!(3)));
    assert_eq!(list["links"][1]["rel"], "next");
}

/// Asks for a point, and says what came of it: the time of the restore that was queued and is cancelled again.
async fn time_of(lab: &Lab, point: &Value) -> Result<ClusterTime, (u16, String, String)> {
    let reply = post(lab, &collection(), &of(point)).await;
    if reply.status != 200 {
        return Err(refusal(&reply));
    }
    let restore = lab.catalog.unfinished_restore(cluster()).await.unwrap().unwrap();
    let shown = &reply.json()["results"][0];
    assert_eq!(shown["pointInTime"], matches!(restore.point, Point::Millisecond(_) | Point::Time(_)));
    assert_eq!(shown["timestamp"]["increment"], restore.time.increment);
    lab.catalog.cancel_restore(cluster(), restore.id, time("2026-11-24T12:00:00Z")).await.unwrap();
    Ok(restore.time)
}

fn not_restorable(what: &str, why: &str) -> Result<ClusterTime, (u16, String, String)> {
    let sentence = format!("Cluster Cluster0 cannot be restored to {what}: {why}");
    Err((409, "NO_CHECKPOINT_FOR_PIT_RESTORE".into(), sentence))
}

#[tokio::test]
async fn a_time_is_restored_that_is_stored() {
    let lab = Lab::new().await;
    let milliseconds = |second: u32, more: i64| json!({"pointInTimeUTCMillis": i64::from(second) * 1_000 + more});
    let seconds = |second: u32, increment: u32| json!({"oplogTs": second, "oplogInc": increment});
    let none = "no snapshot is as of then or before.";
    let early = ClusterTime::new(cut(), 3);
    assert_eq!(time_of(&lab, &seconds(cut(), 3)).await, not_restorable(&early.to_string(), none));
    coverage::make_restorable(&lab).await;
    coverage::store(&lab, cut() + 100).await;
    let at = |second, increment| Ok(ClusterTime::new(second, increment));
    assert_eq!(time_of(&lab, &seconds(cut() + 7, 3)).await, at(cut() + 7, 3));
    let date = jiff::Timestamp::from_second(i64::from(cut() + 7)).unwrap().to_string();
    assert_eq!(time_of(&lab, &json!({"oplogTs": date, "oplogInc": 4})).await, at(cut() + 7, 4));
    for more in [0, 1, 999] {
        assert_eq!(time_of(&lab, &milliseconds(cut() + 9, more)).await, at(cut() + 9, 0), "up to its second");
    }
    // The last that is stored, and what comes after it.
    assert_eq!(time_of(&lab, &seconds(cut() + 100, 1)).await, at(cut() + 100, 1));
    let late = "shard Cluster0-shard-1: its oplog is not stored up to then.";
    let what = ClusterTime::new(cut() + 100, 2).to_string();
    assert_eq!(time_of(&lab, &seconds(cut() + 100, 2)).await, not_restorable(&what, late));
    let what = format!("{}000 ms", cut() + 101);
    assert_eq!(time_of(&lab, &milliseconds(cut() + 101, 0)).await, not_restorable(&what, late));
    let what = format!("{}999 ms", cut());
    assert_eq!(time_of(&lab, &milliseconds(cut(), 999)).await, not_restorable(&what, none));

    let gap = Gap {
        part: PartId::ConfigServers,
        after: ClusterTime::new(cut() + 50, 1),
        until: ClusterTime::new(cut() + 60, 1),
        cause: GapCause::RolledOver,
        found: time("2026-11-24T12:00:00Z"),
        detail: INTERNAL.into(),
    };
    lab.catalog.add_gap(cluster(), &gap).await.unwrap();
    let what = ClusterTime::new(cut() + 55, 1).to_string();
    assert_eq!(time_of(&lab, &seconds(cut() + 55, 1)).await, not_restorable(&what, &gap.to_string()));
    assert_eq!(time_of(&lab, &seconds(cut() + 45, 1)).await, at(cut() + 45, 1));
}

#[tokio::test]
async fn a_time_is_not_restored_without_a_shard_that_no_snapshot_has() {
    let lab = Lab::new().await;
    coverage::make_restorable(&lab).await;
    coverage::store(&lab, cut() + 100).await;
    let added = PartId::Shard("added".into());
    coverage::begin(&lab, std::slice::from_ref(&added), cut() + 50).await;
    coverage::store(&lab, cut() + 200).await;
    let asked = |second: u32| json!({"oplogTs": second, "oplogInc": 9});
    assert!(time_of(&lab, &asked(cut() + 49)).await.is_ok(), "it was not there then");
    let why = "shard added: no snapshot has it as of then or before.";
    let what = ClusterTime::new(cut() + 60, 9).to_string();
    assert_eq!(time_of(&lab, &asked(cut() + 60)).await, not_restorable(&what, why));
}

#[tokio::test]
async fn a_snapshot_is_restored_if_it_is_sound() {
    let lab = Lab::new().await;
    coverage::begin(&lab, &[PartId::Shard("Cluster0-shard-0".into()), PartId::ConfigServers], cut()).await;
    let point = json!({"snapshotId": SNAPSHOT});
    let at = ClusterTime::new(time("2026-11-24T10:00:00Z").as_second() as u32, 7);
    assert_eq!(time_of(&lab, &point).await, Ok(at));
    lab.catalog.note_damage(cluster(), SNAPSHOT.parse().unwrap(), Some(INTERNAL)).await.unwrap();
    let what = format!("snapshot {SNAPSHOT}");
    assert_eq!(time_of(&lab, &point).await, not_restorable(&what, "it is not complete, or damaged."));
    let sentence = format!("No snapshot with ID {NOWHERE} exists for cluster Cluster0.");
    let missing = time_of(&lab, &json!({"snapshotId": NOWHERE})).await;
    assert_eq!(missing, Err((404, "SNAPSHOT_NOT_FOUND".into(), sentence)));
}

#[tokio::test]
async fn a_checkpoint_is_restored_if_it_is_restorable() {
    let lab = Lab::new().await;
    let point = json!({"checkpointId": CHECKPOINT});
    let what = format!("checkpoint {CHECKPOINT}");
    let why = "shard Cluster0-shard-1: its oplog is not stored.";
    assert_eq!(time_of(&lab, &point).await, not_restorable(&what, why));
    coverage::make_restorable(&lab).await;
    assert_eq!(time_of(&lab, &point).await, Ok(ClusterTime::new(cut(), 1)));
    let at = time("2026-11-24T12:00:00Z");
    let failed = failed("6b94183187d9d64b6f2868e0".parse().unwrap(), at);
    lab.catalog.queue_checkpoint(&failed).await.unwrap();
    let what = format!("checkpoint {}", failed.id);
    let point = json!({"checkpointId": failed.id});
    assert_eq!(time_of(&lab, &point).await, not_restorable(&what, "it is not completed."));
    let sentence = format!("No checkpoint with ID {NOWHERE} exists for cluster Cluster0.");
    let missing = time_of(&lab, &json!({"checkpointId": NOWHERE})).await;
    assert_eq!(missing, Err((404, "CHECKPOINT_NOT_FOUND".into(), sentence)));
}

/// An empty cluster of another project.
async fn far(lab: &Lab, group: &str, n: u64) -> Cluster {
    let created = time("2026-01-01T00:00:00Z");
    let cluster = Cluster {
        id: ClusterId::new(created, 100 + n),
        project: group.parse().unwrap(),
        name: "far".into(),
        identity: format!("far-{n}"),
        uri: "mongodb://far.internal/".into(),
        created,
    };
    lab.catalog.add_cluster(&cluster).await.unwrap();
    cluster
}

#[tokio::test]
async fn a_target_takes_an_owner_of_its_project_too() {
    let lab = Lab::new().await;
    coverage::make_restorable(&lab).await;
    let (other, foreign) = (far(&lab, OTHER_GROUP, 1).await, far(&lab, FOREIGN_GROUP, 2).await);
    let ask = async |group: &str, id: ClusterId| {
        post(&lab, &collection(), &body(group, &id.to_string(), &json!({"checkpointId": CHECKPOINT}))).await
    };
    let forbidden = |group: &str| {
        let sentence = format!("This API key may not do this in group {group}.");
        (403, "ACCESS_FORBIDDEN".to_owned(), sentence)
    };
    // Whether or not it is there is told to none of them.
    for (group, id) in
        [(OTHER_GROUP, other.id), (OTHER_GROUP, cluster()), (FOREIGN_GROUP, foreign.id), (NOWHERE, other.id)]
    {
        assert_eq!(refusal(&ask(group, id).await), forbidden(group));
    }
    let owner = lab.credential(OWNER).await.id;
    lab.catalog.grant(owner, other.project, Some(Role::GroupReadOnly)).await.unwrap();
    assert_eq!(refusal(&ask(OTHER_GROUP, other.id).await), forbidden(OTHER_GROUP));
    lab.catalog.grant(owner, other.project, Some(Role::GroupOwner)).await.unwrap();
    // A cluster is looked for in the project that was named, and not in the path's.
    for id in [foreign.id, target()] {
        let sentence = format!("No cluster named {id} exists in group {OTHER_GROUP}.");
        assert_eq!(refusal(&ask(OTHER_GROUP, id).await), (404, "CLUSTER_NOT_FOUND".into(), sentence));
    }
    assert_eq!(lab.catalog.unfinished_restore(cluster()).await.unwrap(), None);
    assert_eq!(ask(OTHER_GROUP, other.id).await.status, 200);
    let kept = lab.catalog.unfinished_restore(cluster()).await.unwrap().unwrap();
    assert_eq!(kept.target, Target::Cluster(other.id));
}

#[tokio::test]
async fn a_target_is_another_cluster_by_its_id_or_its_name() {
    let lab = Lab::new().await;
    coverage::make_restorable(&lab).await;
    for collection in collections() {
        let ask = async |field: &str, value: &str| {
            let mut delivery = json!({"methodName": "AUTOMATED_RESTORE", "targetGroupId": GROUP});
            delivery[field] = value.into();
            let body = json!({"checkpointId": CHECKPOINT, "delivery": delivery});
            post(&lab, &collection, &body.to_string()).await
        };
        for (field, value) in [("targetClusterId", CLUSTER), ("targetClusterName", "Cluster0")] {
            let reply = ask(field, value).await;
            let sentence = format!(
                "Invalid attribute delivery.{field} specified: a cluster is not restored into itself. Name one that is empty."
            );
            assert_eq!(refusal(&reply), (400, "INVALID_ATTRIBUTE".into(), sentence));
        }
        for (field, value) in [("targetClusterId", NOWHERE), ("targetClusterName", "a/b c")] {
            let sentence = format!("No cluster named {value} exists in group {GROUP}.");
            assert_eq!(refusal(&ask(field, value).await), (404, "CLUSTER_NOT_FOUND".into(), sentence));
        }
        assert_eq!(lab.catalog.unfinished_restore(cluster()).await.unwrap(), None);
        for (field, value) in [("targetClusterId", target().to_string()), ("targetClusterName", "a/b c%".into())] {
            assert_eq!(ask(field, &value).await.status, 200, "{field}");
            let kept = lab.catalog.unfinished_restore(cluster()).await.unwrap().unwrap();
            assert_eq!(kept.target, Target::Cluster(target()));
            lab.catalog.cancel_restore(cluster(), kept.id, time("2026-11-24T12:00:00Z")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn one_restore_into_a_cluster_is_done_at_a_time() {
    let lab = Lab::new().await;
    coverage::make_restorable(&lab).await;
    let other = far(&lab, GROUP, 1).await;
    let into_it = Restore { cluster: other.id, ..loading_restore() };
    lab.catalog.queue_restore(&into_it, None).await.unwrap();
    let reply = post(&lab, &collection(), &of(&json!({"checkpointId": CHECKPOINT}))).await;
    let sentence = "A restore of cluster a/b c% is in progress.".to_owned();
    assert_eq!(refusal(&reply), (409, "ATLAS_CLUSTER_RESTORE_IN_PROGRESS".into(), sentence));
    assert_eq!(lab.catalog.unfinished_restore(cluster()).await.unwrap(), None);
}

#[tokio::test]
async fn a_body_that_is_none_of_a_restore_is_refused() {
    let lab = Lab::new().await;
    coverage::make_restorable(&lab).await;
    let delivery = |method: &str| json!({"methodName": method, "targetClusterName": "a/b c%", "targetGroupId": GROUP});
    for (body, status, code, parameter) in [
        (json!({}), 400, "MISSING_ATTRIBUTE", "delivery"),
        (
            json!({"delivery": delivery("AUTOMATED_RESTORE")}),
            400,
            "MISSING_ATTRIBUTE",
            "checkpointId, snapshotId, oplogTs or pointInTimeUTCMillis",
        ),
        (
            json!({"delivery": delivery("HTTP"), "checkpointId": CHECKPOINT}),
            400,
            "INVALID_ATTRIBUTE",
            "delivery.targetClusterName",
        ),
        (json!({"delivery": delivery("SCP"), "checkpointId": CHECKPOINT}), 400, "INVALID_ENUM_VALUE", "SCP"),
        (
            json!({"delivery": delivery("AUTOMATED_RESTORE"), "checkpointId": "x"}),
            400,
            "INVALID_ATTRIBUTE",
            "checkpointId",
        ),
    ] {
        let reply = post(&lab, &collections()[1], &body.to_string()).await;
        let json = reply.json();
        assert_eq!((reply.status.as_u16(), &json["errorCode"]), (status, &json!(code)), "{body}");
        assert_eq!(json["parameters"], json!([parameter]));
        let field = &json["badRequestDetail"]["fields"][0]["field"];
        let expected = if code.contains("ENUM") { "delivery.methodName" } else { parameter };
        assert_eq!(field, expected, "version 2 says what is wrong once more");
    }
    assert_eq!(lab.catalog.restores(cluster(), Page::ALL).await.unwrap(), [finished_restore()]);
}

#[tokio::test]
async fn one_that_is_under_way_is_cancelled_with_all_its_jobs() {
    for collection in collections() {
        let lab = Lab::new().await;
        coverage::make_restorable(&lab).await;
        begin(&lab).await;
        let cancel =
            async |job: &str| lab.ask_with(OWNER, "DELETE", &format!("{collection}/{job}"), &[ACCEPT], "").await;
        get(&lab, &format!("{collection}/{RUNNING_JOB}")).await;
        for _ in 0..2 {
            let reply = cancel(RUNNING_JOB).await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            let shown = reply.json();
            assert_eq!((&shown["id"], &shown["statusName"]), (&json!(RUNNING_JOB), &json!("IN_PROGRESS")));
            assert_eq!(shown["stillpoint"]["cancelled"], true);
            assert_eq!(get(&lab, &format!("{collection}/{RUNNING_JOB}")).await, shown);
        }
        let kept = lab.catalog.restore(cluster(), loading_restore().id).await.unwrap();
        assert_eq!(kept, Some(Restore { cancelled: true, ..loading_restore() }));

        let by = if collection.contains("public") { CLUSTER } else { "Cluster0" };
        let ended = format!("Restore job {JOB} of cluster {by} has ended: there is nothing to be cancelled.");
        assert_eq!(refusal(&cancel(JOB).await), (409, "RESTORE_JOB_ENDED".into(), ended));
        let missing = format!("No restore job with ID {NOWHERE} exists for cluster {by}.");
        assert_eq!(refusal(&cancel(NOWHERE).await), (404, "RESTORE_JOB_NOT_FOUND".into(), missing));
        assert_eq!(lab.catalog.restore(cluster(), BATCH.parse().unwrap()).await.unwrap(), Some(finished_restore()));
    }
    // One that nobody has begun is over at once.
    let lab = Lab::new().await;
    coverage::make_restorable(&lab).await;
    let asked = post(&lab, &collection(), &of(&json!({"checkpointId": CHECKPOINT}))).await.json();
    let job = asked["results"][2]["id"].as_str().unwrap();
    let reply = lab.ask_with(OWNER, "DELETE", &format!("{}/{job}", collection()), &[], "").await.json();
    assert_eq!((&reply["id"], &reply["statusName"]), (&json!(job), &json!("KILLED")));
    assert_eq!(reply["stillpoint"]["ended"], "2026-11-24T12:00:00Z");
    assert_eq!(lab.catalog.unfinished_restore(cluster()).await.unwrap(), None);
}

#[tokio::test]
async fn a_snapshot_that_a_restore_may_go_on_from_is_not_deleted() {
    let lab = Lab::new().await;
    begin(&lab).await;
    for prefix in ["atlas/v1.0", "atlas/v2"] {
        let item = format!("/api/{prefix}/groups/{GROUP}/clusters/Cluster0/snapshots/{SNAPSHOT}");
        let delete = async || lab.ask_with(OWNER, "DELETE", &item, &[ACCEPT], "").await;
        let sentence = format!(
            "Snapshot {SNAPSHOT} of cluster Cluster0 cannot be deleted: a restore that is not yet finished may go on from it."
        );
        assert_eq!(refusal(&delete().await), (403, "CANNOT_MODIFY_SNAPSHOT".into(), sentence));
    }
    let restore = loading_restore();
    let lease =
        lab.catalog.claim_lease(cluster(), "t", time("2026-11-24T12:00:00Z"), std::time::Duration::from_secs(9));
    let lease = lease.await.unwrap().unwrap();
    let (id, jobs) = (restore.id, restore.parts);
    let finished = Restore { id, parts: jobs, ..finished_restore() };
    lab.catalog.save_restore(&lease, &finished, &[]).await.unwrap();
    let item = format!("/api/atlas/v1.0/groups/{GROUP}/clusters/Cluster0/snapshots/{SNAPSHOT}");
    assert_eq!(lab.ask_with(OWNER, "DELETE", &item, &[], "").await.status, 204);
}

#[tokio::test]
async fn a_target_that_is_gone_is_named_by_its_id_alone() {
    let lab = Lab::new().await;
    let item = format!("{}/{JOB}", collection());
    assert_eq!(get(&lab, &item).await["delivery"]["targetClusterName"], "a/b c%");
    lab.catalog.remove_cluster(target(), time("2026-11-24T12:00:00Z")).await.unwrap();
    let expected = json!({"methodName": "AUTOMATED_RESTORE", "targetClusterId": target().to_string()});
    assert_eq!(get(&lab, &item).await["delivery"], expected);
}
