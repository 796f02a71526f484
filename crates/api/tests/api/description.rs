//! What the interface says of itself.

use std::collections::BTreeSet;

use http::Request;
use http_body_util::Full;
use serde_json::Value;
use stillpoint_api::Settings;
use stillpoint_api::operations::Route;

use crate::support::Lab;

async fn open(lab: &Lab, path: &str) -> crate::support::Reply {
    lab.send(Request::get(path).body(Full::default()).unwrap()).await
}

#[tokio::test]
async fn the_openapi_document_has_every_route_and_every_reference_in_it_leads_somewhere() {
    let lab = Lab::new().await;
    let reply = open(&lab, "/api/openapi.json").await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, Some("application/json")));
    let document = reply.json();
    assert_eq!(document["servers"][0]["url"], "/", "relative to where it was found");
    let public_url = Some("https://backup.example.net/a".parse().unwrap());
    let elsewhere = Lab::with(Settings { public_url, ..Settings::default() }).await;
    for _ in 0..2 {
        let document = open(&elsewhere, "/api/openapi.json").await.json();
        assert_eq!(document["servers"][0]["url"], "https://backup.example.net/a");
    }
    let mut ids = BTreeSet::new();
    for route in Route::all() {
        let operation = &document["paths"][&route.path][route.operation.method.as_str().to_ascii_lowercase()];
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
            "{}: an id is there twice",
            route.path
        );
        let declared: BTreeSet<_> =
            operation["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        for parameter in route.path.split(['{', '}']).skip(1).step_by(2) {
            assert!(declared.contains(parameter), "{}: {parameter}", route.path);
        }
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
    let checkpoint = &document["components"]["schemas"]["Checkpoint"];
    let required: Vec<_> =
        checkpoint["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(required, ["clusterId", "groupId", "id", "links", "parts", "restorable", "started"]);
    assert!(checkpoint["properties"]["completed"]["type"] == "string", "{checkpoint:#}");
    let list = &document["paths"]["/api/atlas/v2/groups"]["get"]["responses"]["200"]["content"];
    let schema = &list["application/vnd.atlas.2023-01-01+json"]["schema"];
    assert!(schema["$ref"].is_string(), "a list has its envelope in itself: {list}");
    assert!(!document.to_string().contains("null"), "nothing is ever null");
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            into.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
        _ => {}
    }
}

#[tokio::test]
async fn the_reference_page_has_every_operation_and_asks_for_nothing_from_elsewhere() {
    let lab = Lab::new().await;
    let reply = open(&lab, "/api/docs").await;
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(reply.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    for route in Route::all() {
        assert!(reply.body.contains(&format!("<code>{}</code>", route.path)), "{}", route.path);
    }
    for outside in ["<script", "<link", "<img", "src=", "@import", "url("] {
        assert!(!reply.body.contains(outside), "{outside}");
    }
    // Every link within it leads to a place in it.
    for target in reply.body.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(reply.body.contains(&format!("id=\"{target}\"")), "{target}");
    }
}

#[test]
fn what_there_is_at_a_glance() {
    let document = stillpoint_api::describe::openapi("/");
    let mut lines = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let statuses: Vec<_> = operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
            let (method, id) = (method.to_uppercase(), operation["operationId"].as_str().unwrap());
            lines.push(format!("{method} {path} {id} {}", statuses.join(",")));
        }
    }
    lines.push(format!("{}", document["components"]["schemas"]["CheckpointPart"]));
    insta::assert_snapshot!(lines.join("\n"), @r##"
    GET /api/atlas/v1.0/groups listGroupsV1 200,400,401,403,429,500,503
    GET /api/atlas/v1.0/groups/{groupId} getGroupV1 200,400,401,403,404,429,500,503
    GET /api/atlas/v1.0/groups/{groupId}/clusters listClustersV1 200,400,401,403,404,429,500,503
    GET /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName} getClusterV1 200,400,401,403,404,429,500,503
    GET /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/backupCheckpoints listGroupClusterBackupCheckpointsV1 200,400,401,403,404,429,500,503
    POST /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/backupCheckpoints createGroupClusterBackupCheckpointV1 201,400,401,403,404,409,413,415,429,500,503
    GET /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/backupCheckpoints/{checkpointId} getGroupClusterBackupCheckpointV1 200,400,401,403,404,429,500,503
    DELETE /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/backupCheckpoints/{checkpointId} deleteGroupClusterBackupCheckpointV1 204,400,401,403,404,409,429,500,503
    GET /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/restoreJobs listGroupClusterRestoreJobsV1 200,400,401,403,404,429,500,503
    POST /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/restoreJobs createGroupClusterRestoreJobV1 200,400,401,403,404,409,413,415,429,500,503
    GET /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/restoreJobs/{jobId} getGroupClusterRestoreJobV1 200,400,401,403,404,429,500,503
    DELETE /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/restoreJobs/{jobId} cancelGroupClusterRestoreJobV1 200,400,401,403,404,409,429,500,503
    GET /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/snapshotSchedule getGroupClusterSnapshotScheduleV1 200,400,401,403,404,429,500,503
    PATCH /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/snapshotSchedule updateGroupClusterSnapshotScheduleV1 200,400,401,403,404,413,415,429,500,503
    GET /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/snapshots listGroupClusterSnapshotsV1 200,400,401,403,404,429,500,503
    POST /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/snapshots createGroupClusterSnapshotV1 201,400,401,403,404,409,413,415,429,500,503
    GET /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/snapshots/{snapshotId} getGroupClusterSnapshotV1 200,400,401,403,404,429,500,503
    PATCH /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/snapshots/{snapshotId} updateGroupClusterSnapshotV1 200,400,401,403,404,413,415,429,500,503
    DELETE /api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/snapshots/{snapshotId} deleteGroupClusterSnapshotV1 204,400,401,403,404,429,500,503
    GET /api/atlas/v2/groups listGroups 200,400,401,403,406,410,429,500,503
    GET /api/atlas/v2/groups/{groupId} getGroup 200,400,401,403,404,406,410,429,500,503
    GET /api/atlas/v2/groups/{groupId}/clusters listClusters 200,400,401,403,404,406,410,429,500,503
    GET /api/atlas/v2/groups/{groupId}/clusters/{clusterName} getCluster 200,400,401,403,404,406,410,429,500,503
    GET /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/backupCheckpoints listGroupClusterBackupCheckpoints 200,400,401,403,404,406,410,429,500,503
    POST /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/backupCheckpoints createGroupClusterBackupCheckpoint 201,400,401,403,404,406,409,410,413,415,429,500,503
    GET /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/backupCheckpoints/{checkpointId} getGroupClusterBackupCheckpoint 200,400,401,403,404,406,410,429,500,503
    DELETE /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/backupCheckpoints/{checkpointId} deleteGroupClusterBackupCheckpoint 204,400,401,403,404,406,409,410,429,500,503
    GET /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/restoreJobs listGroupClusterRestoreJobs 200,400,401,403,404,406,410,429,500,503
    POST /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/restoreJobs createGroupClusterRestoreJob 200,400,401,403,404,406,409,410,413,415,429,500,503
    GET /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/restoreJobs/{jobId} getGroupClusterRestoreJob 200,400,401,403,404,406,410,429,500,503
    DELETE /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/restoreJobs/{jobId} cancelGroupClusterRestoreJob 200,400,401,403,404,406,409,410,429,500,503
    GET /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/snapshotSchedule getGroupClusterSnapshotSchedule 200,400,401,403,404,406,410,429,500,503
    PATCH /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/snapshotSchedule updateGroupClusterSnapshotSchedule 200,400,401,403,404,406,410,413,415,429,500,503
    GET /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/snapshots listGroupClusterSnapshots 200,400,401,403,404,406,410,429,500,503
    POST /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/snapshots createGroupClusterSnapshot 201,400,401,403,404,406,409,410,413,415,429,500,503
    GET /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/snapshots/{snapshotId} getGroupClusterSnapshot 200,400,401,403,404,406,410,429,500,503
    PATCH /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/snapshots/{snapshotId} updateGroupClusterSnapshot 200,400,401,403,404,406,410,413,415,429,500,503
    DELETE /api/atlas/v2/groups/{groupId}/clusters/{clusterName}/snapshots/{snapshotId} deleteGroupClusterSnapshot 204,400,401,403,404,406,410,429,500,503
    GET /api/docs getReference 200,400,500,503
    GET /api/downloads/{token} getDownload 200,206,400,404,409,410,416,500,503
    POST /api/oauth/revoke revokeToken 200,400,403,413,429,500,503,401
    POST /api/oauth/token createToken 200,400,403,413,429,500,503,401
    GET /api/openapi.json getOpenapi 200,400,500,503
    GET /api/public/v1.0/groups listGroupsOpsManager 200,400,401,403,429,500,503
    GET /api/public/v1.0/groups/{groupId} getGroupOpsManager 200,400,401,403,404,429,500,503
    GET /api/public/v1.0/groups/{groupId}/backupConfigs/{clusterId}/snapshotSchedule getGroupClusterSnapshotScheduleOfBackupConfigOpsManager 200,400,401,403,404,429,500,503
    PATCH /api/public/v1.0/groups/{groupId}/backupConfigs/{clusterId}/snapshotSchedule updateGroupClusterSnapshotScheduleOfBackupConfigOpsManager 200,400,401,403,404,413,415,429,500,503
    GET /api/public/v1.0/groups/{groupId}/clusters listClustersOpsManager 200,400,401,403,404,429,500,503
    GET /api/public/v1.0/groups/{groupId}/clusters/{clusterId} getClusterOpsManager 200,400,401,403,404,429,500,503
    GET /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/checkpoints listGroupClusterBackupCheckpointsOpsManager 200,400,401,403,404,429,500,503
    POST /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/checkpoints createGroupClusterBackupCheckpointOpsManager 201,400,401,403,404,409,413,415,429,500,503
    GET /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/checkpoints/{checkpointId} getGroupClusterBackupCheckpointOpsManager 200,400,401,403,404,429,500,503
    DELETE /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/checkpoints/{checkpointId} deleteGroupClusterBackupCheckpointOpsManager 204,400,401,403,404,409,429,500,503
    GET /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/restoreJobs listGroupClusterRestoreJobsOpsManager 200,400,401,403,404,429,500,503
    POST /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/restoreJobs createGroupClusterRestoreJobOpsManager 200,400,401,403,404,409,413,415,429,500,503
    GET /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/restoreJobs/{jobId} getGroupClusterRestoreJobOpsManager 200,400,401,403,404,429,500,503
    DELETE /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/restoreJobs/{jobId} cancelGroupClusterRestoreJobOpsManager 200,400,401,403,404,409,429,500,503
    GET /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/snapshotSchedule getGroupClusterSnapshotScheduleOpsManager 200,400,401,403,404,429,500,503
    PATCH /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/snapshotSchedule updateGroupClusterSnapshotScheduleOpsManager 200,400,401,403,404,413,415,429,500,503
    GET /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/snapshots listGroupClusterSnapshotsOpsManager 200,400,401,403,404,429,500,503
    POST /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/snapshots createGroupClusterSnapshotOpsManager 201,400,401,403,404,409,413,415,429,500,503
    GET /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/snapshots/{snapshotId} getGroupClusterSnapshotOpsManager 200,400,401,403,404,429,500,503
    PATCH /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/snapshots/{snapshotId} updateGroupClusterSnapshotOpsManager 200,400,401,403,404,413,415,429,500,503
    DELETE /api/public/v1.0/groups/{groupId}/clusters/{clusterId}/snapshots/{snapshotId} deleteGroupClusterSnapshotOpsManager 204,400,401,403,404,429,500,503
    {"type":"object","properties":{"replicaSetName":{"type":"string"},"shardName":{"type":"string","description":"Of a shard only."},"tokenDiscovered":{"type":"boolean","description":"Whether the token was found in the oplog."},"tokenTimestamp":{"description":"The token's entry in the oplog; not there until it is discovered.","$ref":"#/components/schemas/BsonTimestamp"},"typeName":{"type":"string","description":"`REPLICA_SET`, a shard, or `CONFIG_SERVER_REPLICA_SET`."}},"required":["replicaSetName","tokenDiscovered","typeName"]}
    "##);
}
