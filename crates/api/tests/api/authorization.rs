//! Authorisation as a table: every operation on every surface, for everybody who may ask.
//!
//! The routes come from the interface itself, and each must have a row in [`RULES`]: a new one without
//! a rule fails here.

use std::collections::BTreeSet;

use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;
use stillpoint_api::operations::{Access, Route};
use stillpoint_catalog::Catalog;
use stillpoint_core::Role;

use crate::support::{
    ACCOUNT, ACCOUNT_FOREIGN, ACCOUNT_NEARBY, ACCOUNT_READER, BOTH, CHECKPOINT, CLUSTER, FOREIGN, FOREIGN_GROUP, GROUP,
    JOB, Lab, NEARBY, OTHER, OTHER_GROUP, OWNER, READER, RUNNING_JOB, Reply, SNAPSHOT, target,
};
use crate::{coverage, restore_jobs};

const CANCEL: &str = "cancelGroupClusterRestoreJob";

/// What an operation needs, and what the owner's request is answered with.
const RULES: &[(&str, Access, u16)] = &[
    ("listGroups", Access::SignedIn, 200),
    ("getGroup", Access::Project(Role::GroupReadOnly), 200),
    ("listClusters", Access::Project(Role::GroupReadOnly), 200),
    ("getCluster", Access::Project(Role::GroupReadOnly), 200),
    ("listGroupClusterBackupCheckpoints", Access::Project(Role::GroupReadOnly), 200),
    ("getGroupClusterBackupCheckpoint", Access::Project(Role::GroupReadOnly), 200),
    ("createGroupClusterBackupCheckpoint", Access::Project(Role::GroupOwner), 201),
    ("deleteGroupClusterBackupCheckpoint", Access::Project(Role::GroupOwner), 204),
    ("listGroupClusterSnapshots", Access::Project(Role::GroupReadOnly), 200),
    ("getGroupClusterSnapshot", Access::Project(Role::GroupReadOnly), 200),
    ("createGroupClusterSnapshot", Access::Project(Role::GroupOwner), 201),
    ("updateGroupClusterSnapshot", Access::Project(Role::GroupOwner), 200),
    ("deleteGroupClusterSnapshot", Access::Project(Role::GroupOwner), 204),
    ("listGroupClusterRestoreJobs", Access::Project(Role::GroupReadOnly), 200),
    ("getGroupClusterRestoreJob", Access::Project(Role::GroupReadOnly), 200),
    ("createGroupClusterRestoreJob", Access::Project(Role::GroupOwner), 200),
    (CANCEL, Access::Project(Role::GroupOwner), 200),
    ("getGroupClusterSnapshotSchedule", Access::Project(Role::GroupReadOnly), 200),
    ("updateGroupClusterSnapshotSchedule", Access::Project(Role::GroupOwner), 200),
    ("createToken", Access::Client, 401),
    ("revokeToken", Access::Client, 401),
    ("getOpenapi", Access::Open, 200),
    ("getReference", Access::Open, 200),
    // Of no link that there is.
    ("getDownload", Access::Open, 404),
];

/// Everybody, and where they ask from.
const CALLERS: &[(&str, &str)] = &[
    ("nobody", "127.0.0.1:1"),
    ("a wrong secret", "127.0.0.1:1"),
    ("a deleted key", "127.0.0.1:1"),
    (OWNER, "127.0.0.1:1"),
    (READER, "127.0.0.1:1"),
    (OTHER, "127.0.0.1:1"),
    (BOTH, "127.0.0.1:1"),
    (FOREIGN, "127.0.0.1:1"),
    (NEARBY, "10.1.2.3:1"),
    (NEARBY, "11.1.2.3:1"),
    (ACCOUNT, "127.0.0.1:1"),
    (ACCOUNT_READER, "127.0.0.1:1"),
    (ACCOUNT_FOREIGN, "127.0.0.1:1"),
    (ACCOUNT_NEARBY, "10.1.2.3:1"),
    (ACCOUNT_NEARBY, "11.1.2.3:1"),
    ("a revoked token", "127.0.0.1:1"),
    ("an old token", "127.0.0.1:1"),
];

/// What a caller gets from an operation in the project of the cluster: a status and an error code.
fn expected(caller: (&str, &str), access: Access, bearer: bool, success: u16) -> (u16, &'static str) {
    let may = |role: Role| match access {
        Access::Project(needed) if role < needed => (403, "ACCESS_FORBIDDEN"),
        _ => (success, ""),
    };
    let in_project = matches!(access, Access::Project(_));
    if !access.needs_credential() {
        return (success, if success == 401 { "invalid_client" } else { "" });
    }
    match caller {
        (OWNER, _) | (NEARBY, "10.1.2.3:1") => may(Role::GroupOwner),
        (READER | BOTH, _) => may(Role::GroupReadOnly),
        (OTHER, _) if in_project => (403, "ACCESS_FORBIDDEN"),
        (FOREIGN, _) if in_project => (401, "NOT_IN_GROUP"),
        (OTHER | FOREIGN, _) => may(Role::GroupOwner),
        (NEARBY, _) => (403, "IP_ADDRESS_NOT_ON_ACCESS_LIST"),
        (ACCOUNT, _) | (ACCOUNT_NEARBY, "10.1.2.3:1") if bearer => may(Role::GroupOwner),
        (ACCOUNT_READER, _) if bearer => may(Role::GroupReadOnly),
        (ACCOUNT_FOREIGN, _) if bearer && in_project => (401, "NOT_IN_GROUP"),
        (ACCOUNT_FOREIGN, _) if bearer => may(Role::GroupOwner),
        (ACCOUNT_NEARBY, _) if bearer => (403, "IP_ADDRESS_NOT_ON_ACCESS_LIST"),
        _ => (401, "USER_UNAUTHORIZED"),
    }
}

async fn ask(lab: &Lab, route: &Route, caller: (&str, &str)) -> Reply {
    let path = route
        .path
        .replace("{groupId}", GROUP)
        .replace("{clusterName}", "Cluster0")
        .replace("{clusterId}", CLUSTER)
        .replace("{checkpointId}", CHECKPOINT)
        .replace("{snapshotId}", SNAPSHOT)
        .replace("{token}", JOB)
        .replace("{jobId}", if route.operation.id == CANCEL { RUNNING_JOB } else { JOB });
    let method = &route.operation.method;
    let mut request = Request::builder().method(method.clone()).uri(&path);
    let login = match caller.0 {
        "nobody" => None,
        "a wrong secret" => Some(lab.login_with(OWNER, "wrong", method, &path).await),
        "a deleted key" => {
            let login = lab.login(READER, method, &path).await;
            let id = lab.credential(READER).await.id;
            assert!(lab.catalog.delete_credential(id).await.unwrap());
            Some(login)
        }
        account @ (ACCOUNT | ACCOUNT_READER | ACCOUNT_FOREIGN) => Some(format!("Bearer {}", lab.token(account).await)),
        ACCOUNT_NEARBY => Some(format!("Bearer {}", lab.token_from(ACCOUNT_NEARBY, "10.0.0.1:1").await)),
        "a revoked token" => {
            let token = lab.token(ACCOUNT).await;
            assert_eq!(lab.oauth("revoke", ACCOUNT, &format!("token={token}")).await.status, 200);
            Some(format!("Bearer {token}"))
        }
        "an old token" => {
            let token = lab.token(ACCOUNT).await;
            lab.pass(3_600);
            Some(format!("Bearer {token}"))
        }
        key => Some(lab.login(key, method, &path).await),
    };
    if let Some(login) = login {
        request = request.header("authorization", login);
    }
    if route.surface.is_some_and(|surface| surface.versioned) {
        request = request.header("accept", "application/vnd.atlas.2023-01-01+json");
    }
    let restored;
    let body = match route.operation.body.as_ref() {
        Some(_) if route.operation.id == "createGroupClusterRestoreJob" => {
            restored = restore_jobs::body(GROUP, &target().to_string(), &json!({"checkpointId": CHECKPOINT}));
            restored.as_str()
        }
        Some(body) if body.required => "{}",
        _ => "",
    };
    let request = request.header("content-type", "application/json").body(Full::from(body.to_owned())).unwrap();
    lab.send_from(caller.1, false, request).await
}

#[tokio::test]
async fn every_operation_for_everybody() {
    let mut unused: BTreeSet<_> = RULES.iter().map(|(id, ..)| *id).collect();
    for route in Route::all() {
        let operation = route.operation;
        let rule = RULES.iter().find(|(id, ..)| *id == operation.id);
        let (id, access, success) = *rule.unwrap_or_else(|| panic!("{} has no rule", operation.id));
        unused.remove(id);
        assert_eq!(operation.access, access, "{id}");
        for caller in CALLERS {
            // Each on a catalog of its own: some of them change it.
            let lab = Lab::new().await;
            match id {
                "createGroupClusterRestoreJob" => coverage::make_restorable(&lab).await,
                CANCEL => restore_jobs::begin(&lab).await,
                _ => {}
            }
            let reply = ask(&lab, &route, *caller).await;
            let (status, code) =
                expected(*caller, access, route.surface.is_some_and(|surface| surface.bearer), success);
            let what = format!("{} {} as {caller:?}: {}", operation.method, route.path, reply.body);
            assert_eq!(reply.status.as_u16(), status, "{what}");
            assert!(code.is_empty() || reply.body.contains(&format!("\"{code}\"")), "{what}");
            // Nobody who is refused has changed anything.
            if status >= 400 && operation.method != Method::GET {
                let id = (CLUSTER.parse().unwrap(), CHECKPOINT.parse().unwrap());
                assert!(lab.catalog.checkpoint(id.0, id.1).await.unwrap().is_some(), "{what}");
                assert!(lab.catalog.unfinished_checkpoint(id.0).await.unwrap().is_none(), "{what}");
                let restore = lab.catalog.unfinished_restore(id.0).await.unwrap();
                let as_before = restore.map(|restore| restore.cancelled);
                assert_eq!(as_before, (operation.id == CANCEL).then_some(false), "{what}");
            }
        }
    }
    assert!(unused.is_empty(), "rules without an operation: {unused:?}");
}

#[tokio::test]
async fn a_role_counts_in_its_own_project_only() {
    let lab = Lab::new().await;
    let path = |group: &str| format!("/api/atlas/v1.0/groups/{group}");
    let table = [
        (OWNER, GROUP, "200"),
        (OWNER, OTHER_GROUP, "ACCESS_FORBIDDEN"),
        (OWNER, FOREIGN_GROUP, "NOT_IN_GROUP"),
        (OWNER, "6b8cd3c380eef5349ef77aff", "GROUP_NOT_FOUND"),
        (OTHER, OTHER_GROUP, "200"),
        (BOTH, GROUP, "200"),
        (BOTH, OTHER_GROUP, "200"),
        (FOREIGN, FOREIGN_GROUP, "200"),
        (FOREIGN, OTHER_GROUP, "NOT_IN_GROUP"),
    ];
    for (key, group, expected) in table {
        let reply = lab.ask(key, "GET", &path(group)).await;
        let got = reply.json()["errorCode"].as_str().map_or(reply.status.as_str().to_owned(), str::to_owned);
        assert_eq!(got, expected, "{key} in {group}");
    }
}

#[tokio::test]
async fn rotation_deletion_and_roles_take_effect_with_the_next_request() {
    let lab = Lab::new().await;
    let target = format!("/api/atlas/v1.0/groups/{GROUP}");
    let status = async || lab.ask(READER, "GET", &target).await.status.as_u16();
    assert_eq!((status().await, status().await), (200, 200), "the second is remembered");
    let (id, proof) = (lab.credential(READER).await.id, lab.credential(READER).await.proof);
    lab.catalog.grant(id, OTHER_GROUP.parse().unwrap(), Some(Role::GroupOwner)).await.unwrap();
    lab.catalog.rotate_credential(id, &"another".into()).await.unwrap();
    assert_eq!(status().await, 401);
    lab.catalog.rotate_credential(id, &proof).await.unwrap();
    assert_eq!(status().await, 200);
    lab.catalog.grant(id, GROUP.parse().unwrap(), None).await.unwrap();
    assert_eq!(status().await, 403);
    lab.catalog.grant(id, GROUP.parse().unwrap(), Some(Role::GroupReadOnly)).await.unwrap();
    assert_eq!(status().await, 200);
    lab.catalog.delete_credential(id).await.unwrap();
    assert_eq!(status().await, 401);
}

/// Requests under way while a role comes and goes leave nothing behind that is answered with later.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_role_that_is_taken_away_under_load_is_gone_with_the_next_request() {
    let lab = std::sync::Arc::new(Lab::new().await);
    let target = format!("/api/atlas/v1.0/groups/{GROUP}");
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let others: Vec<_> = (0..3)
        .map(|_| {
            let (lab, target, done) = (lab.clone(), target.clone(), done.clone());
            tokio::spawn(async move {
                let mut requests = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    lab.get_as(BOTH, &target).await;
                    requests += 1;
                }
                requests
            })
        })
        .collect();
    let id = lab.credential(BOTH).await.id;
    for round in 0..100 {
        lab.catalog.grant(id, GROUP.parse().unwrap(), None).await.unwrap();
        for _ in 0..3 {
            assert_eq!(lab.get_as(BOTH, &target).await.status, 403, "round {round}");
        }
        lab.catalog.grant(id, GROUP.parse().unwrap(), Some(Role::GroupReadOnly)).await.unwrap();
        assert_eq!(lab.get_as(BOTH, &target).await.status, 200, "round {round}");
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    for other in others {
        assert!(other.await.unwrap() > 10);
    }
}
