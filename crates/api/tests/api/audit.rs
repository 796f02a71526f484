//! The audit trail.

use http::{Method, Request};
use http_body_util::Full;
use insta::assert_snapshot;
use stillpoint_api::Settings;
use stillpoint_api::audit::Keep;
use stillpoint_catalog::{AuditEntry, Catalog, Page};

use crate::support::{ACCOUNT, FOREIGN, Lab, NEARBY, OWNER, READER, collection, item, time};

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
async fn an_old_nonce_is_no_refusal_but_the_same_answer_twice_is() {
    let lab = Lab::new().await;
    let send = async |login: &str| {
        let request = Request::get(item()).header("authorization", login).body(Full::default()).unwrap();
        lab.send(request).await.status.as_u16()
    };
    let (old, new) = (lab.login(OWNER, &Method::GET, &item()).await, {
        lab.pass(400);
        lab.login(OWNER, &Method::GET, &item()).await
    });
    assert_eq!([send(&old).await, send(&new).await, send(&new).await], [401, 200, 401]);
    let trail = lab.audit().await;
    assert_eq!(trail.len(), 1, "{trail:?}");
    assert_eq!(trail[0].actor.as_deref(), Some("owneraaa (not proved)"));
}

#[tokio::test]
async fn a_write_whose_client_goes_away_is_done_and_recorded() {
    let lab = Lab::new().await;
    let login = lab.login(OWNER, &Method::DELETE, &item()).await;
    let request = Request::delete(item()).header("authorization", login).header("host", "h");
    let request = request.body(Full::<bytes::Bytes>::default()).unwrap();
    let peer = stillpoint_api::Peer { address: "192.0.2.7:1".parse().unwrap(), tls: false };
    let mut answer = Box::pin(lab.interface.answer(request, peer));
    assert!(futures::poll!(answer.as_mut()).is_pending(), "the catalog is waited for");
    drop(answer);
    let trail = lab.audit().await;
    let (cluster, id) = (crate::support::CLUSTER.parse().unwrap(), crate::support::CHECKPOINT.parse().unwrap());
    assert_eq!(lab.catalog.checkpoint(cluster, id).await.unwrap(), None);
    assert_eq!(trail.iter().map(line).collect::<Vec<_>>(), [format!("owneraaa 192.0.2.7 DELETE {} 204 -", item())]);
}

#[tokio::test]
async fn what_a_terminal_might_obey_is_written_out() {
    let lab = Lab::new().await;
    let path = "/api/atlas/v1.0/groups/\u{9b}2J\u{202e}x";
    let login = lab.login_with(OWNER, "wrong", &Method::GET, path).await;
    let request = Request::get(path).header("authorization", login.replace(path, "/")).body(Full::default()).unwrap();
    assert_eq!(lab.send(request).await.status, 401);
    let trail = lab.audit().await;
    assert_eq!(trail[0].action, "GET /api/atlas/v1.0/groups/%C2%9B2J%E2%80%AEx");
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_not_kept_one_by_one() {
    let lab = Lab::new().await;
    for _ in 0..3_000 {
        lab.send(Request::get(item()).header("authorization", "Digest x").body(Full::default()).unwrap()).await;
    }
    let trail = lab.audit().await;
    assert!(trail.len() < 3_000, "{}", trail.len());
    let counted: u64 = trail.iter().map(|entry| entry.times.unwrap_or(1)).sum();
    assert_eq!(counted, 3_000, "nothing is lost without being counted");
}

#[tokio::test]
async fn what_is_too_old_is_removed() {
    let keep = Keep { time: jiff::SignedDuration::from_hours(24), entries: 2 };
    let lab = Lab::new().await;
    let entry = |at: &str| AuditEntry::done(time(at), at.into());
    let times = ["2026-11-23T11:00:00Z", "2026-11-24T10:00:00Z", "2026-11-24T11:00:00Z", "2026-11-24T11:30:00Z"];
    lab.catalog.append_audit(&times.map(entry)).await.unwrap();
    let again = lab.again(Settings { audit: keep, ..Settings::default() });
    again.close(std::time::Duration::from_secs(5)).await;
    let left = lab.catalog.audit(Page { skip: 0, take: 9 }).await.unwrap();
    assert_eq!(left, [entry(times[3]), entry(times[2])]);
}
