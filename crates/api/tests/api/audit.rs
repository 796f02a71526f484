//! The audit trail.

use http::{Method, Request};
use http_body_util::Full;
use insta::assert_snapshot;
use stillpoint_api::Settings;
use stillpoint_api::audit::Keep;
use stillpoint_catalog::{AuditEntry, Catalog, Page};

use crate::support::{ACCOUNT, FOREIGN, Lab, NEARBY, OWNER, READER, answer, collection, item, time};

fn line(entry: &AuditEntry) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let (actor, from, error) = (or_none(&entry.actor), or_none(&entry.from), or_none(&entry.error));
    format!("{actor} {from} {} {} {error}", entry.action, entry.status.unwrap_or(0))
}

#[tokio::test]
async fn every_write_and_every_refusal_is_there_and_nothing_else() {
    let lab = Lab::new().await;
    // Reads, challenges, and what is not there.
    lab.get(&item()).await;
    lab.get(&collection()).await;
    lab.get(&(item() + "0")).await;
    // Writes, done or not.
    lab.ask(OWNER, "POST", &collection()).await;
    lab.ask(OWNER, "POST", &collection()).await;
    lab.ask(OWNER, "DELETE", &item()).await;
    let json = [("content-type", "application/json")];
    let schedule = collection().replace("backupCheckpoints", "snapshotSchedule");
    lab.ask_with(OWNER, "PATCH", &schedule, &json, "{\"snapshotIntervalHours\":8}").await;
    lab.ask_with(OWNER, "PATCH", &schedule, &json, "{\"snapshotIntervalHours\":7}").await;
    let token = lab.token(ACCOUNT).await;
    // Refusals.
    lab.ask(READER, "POST", &format!("{}?pretty=true", collection())).await;
    lab.get_as(FOREIGN, &item()).await;
    lab.get_as(NEARBY, &item()).await;
    let wrong = lab.login_with(OWNER, "wrong", &Method::GET, &item()).await;
    lab.send(Request::get(item()).header("authorization", wrong).body(Full::default()).unwrap()).await;
    let odd = lab.login_with("odd\tname", "wrong", &Method::GET, &item()).await;
    lab.send(Request::get(item()).header("authorization", odd).body(Full::default()).unwrap()).await;
    lab.oauth("token", "nobody", "grant_type=client_credentials").await;
    let bearer = format!("Bearer x{token}");
    let v2 = Request::get(item().replace("v1.0", "v2")).header("authorization", bearer).body(Full::default()).unwrap();
    lab.send(v2).await;

    let trail = lab.audit().await;
    assert!(trail.iter().all(|entry| entry.at == time("2026-11-24T12:00:00.250Z")));
    let (writes, refusals): (Vec<_>, Vec<_>) =
        trail.iter().map(line).partition(|line| !line.contains(" 401 ") && !line.contains(" 403 "));
    assert_snapshot!([writes, refusals].concat().join("\n"), @r#"
    owneraaa 127.0.0.1 POST /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints 201 -
    owneraaa 127.0.0.1 POST /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints 409 CHECKPOINT_IN_PROGRESS
    owneraaa 127.0.0.1 DELETE /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints/6b94183187d9d64b6f2868b5 204 -
    owneraaa 127.0.0.1 PATCH /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/snapshotSchedule 200 -
    owneraaa 127.0.0.1 PATCH /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/snapshotSchedule 400 INVALID_ATTRIBUTE
    mdb_sa_id_6b8cd3c380eef5349ef77af7 127.0.0.1 POST /api/oauth/token 200 -
    readeraa 127.0.0.1 POST /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints 403 ACCESS_FORBIDDEN
    foreigna 127.0.0.1 GET /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints/6b94183187d9d64b6f2868b5 401 NOT_IN_GROUP
    nearbyaa 127.0.0.1 GET /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints/6b94183187d9d64b6f2868b5 403 IP_ADDRESS_NOT_ON_ACCESS_LIST
    owneraaa (not proved) 127.0.0.1 GET /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints/6b94183187d9d64b6f2868b5 401 USER_UNAUTHORIZED
    somebody unknown 127.0.0.1 GET /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints/6b94183187d9d64b6f2868b5 401 USER_UNAUTHORIZED
    somebody unknown 127.0.0.1 POST /api/oauth/token 401 invalid_client
    an unknown token 127.0.0.1 GET /api/atlas/v2/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints/6b94183187d9d64b6f2868b5 401 USER_UNAUTHORIZED
    "#);
    assert!(!trail.iter().any(|entry| format!("{entry:?}").contains(&token)));
}

#[tokio::test]
async fn a_stale_nonce_is_no_refusal() {
    let lab = Lab::new().await;
    let challenge = lab.send(Request::get("/api").body(Full::default()).unwrap()).await;
    let login = answer(
        challenge.header("www-authenticate").unwrap(),
        OWNER,
        &crate::support::private(OWNER),
        &Method::GET,
        &item(),
    );
    for _ in 0..2 {
        lab.send(Request::get(item()).header("authorization", &login).body(Full::default()).unwrap()).await;
    }
    assert_eq!(lab.audit().await, []);
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_not_kept_one_by_one() {
    let lab = Lab::new().await;
    for _ in 0..3_000 {
        lab.send(Request::get(item()).header("authorization", "Digest x").body(Full::default()).unwrap()).await;
    }
    let trail = lab.audit().await;
    assert!(trail.len() < 3_000, "{}", trail.len());
    let counted: usize = trail
        .iter()
        .map(|entry| match entry.action.split_once(" more refused requests") {
            Some((count, _)) => count.parse().unwrap(),
            None => 1,
        })
        .sum();
    assert_eq!(counted, 3_000, "nothing is lost without being counted");
}

#[tokio::test]
async fn what_is_too_old_is_removed() {
    let keep = Keep { time: jiff::SignedDuration::from_hours(24), entries: 2 };
    let lab = Lab::new().await;
    let entry =
        |at: &str| AuditEntry { at: time(at), actor: None, from: None, action: at.into(), status: None, error: None };
    let times = ["2026-11-23T11:00:00Z", "2026-11-24T10:00:00Z", "2026-11-24T11:00:00Z", "2026-11-24T11:30:00Z"];
    lab.catalog.append_audit(&times.map(entry)).await.unwrap();
    let again = lab.again(Settings { audit: keep, ..Settings::default() });
    again.close(std::time::Duration::from_secs(5)).await;
    let left = lab.catalog.audit(Page { skip: 0, take: 9 }).await.unwrap();
    assert_eq!(left, [entry(times[3]), entry(times[2])]);
}
