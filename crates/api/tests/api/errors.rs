//! Every error code that is given, and how it reads.

use http_body_util::Full;
use std::sync::atomic::Ordering;

use http::{Method, Request};
use insta::assert_snapshot;
use rusqlite::Connection;
use stillpoint_api::Settings;

use crate::support::{CHECKPOINT, GROUP, Lab, NEARBY, OTHER, OWNER, READER, Reply, answer, collection, item};

fn line(reply: &Reply) -> String {
    let json = reply.json();
    assert_eq!(json["error"], reply.status.as_u16());
    assert_eq!(json["reason"], reply.status.canonical_reason().unwrap());
    assert_eq!(
        json.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["detail", "error", "errorCode", "parameters", "reason"]
    );
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    format!(
        "{} {} {} {}",
        json["error"],
        json["errorCode"].as_str().unwrap(),
        json["parameters"],
        json["detail"].as_str().unwrap()
    )
}

async fn got(lab: &Lab, path: String) -> String {
    line(&lab.get(&path).await)
}

#[tokio::test]
async fn a_whole_error_document() {
    let lab = Lab::new().await;
    let reply = lab.get(&format!("{}?pretty=true", item().replace("Cluster0", "None"))).await;
    assert_snapshot!(reply.body, @r#"
    {
      "detail":"No cluster named None exists in group 6b8cd3c380eef5349ef77af7.",
      "error":404,
      "errorCode":"CLUSTER_NOT_FOUND",
      "parameters":[
        "None",
        "6b8cd3c380eef5349ef77af7"
      ],
      "reason":"Not Found"
    }
    "#);
}

#[tokio::test]
async fn what_is_not_there() {
    let lab = Lab::new().await;
    let lines = [
        got(&lab, item().replace(GROUP, "6b8cd3c380eef5349ef77gf7")).await,
        got(&lab, item().replace(GROUP, "%ff")).await,
        got(&lab, item().replace(GROUP, "6b8cd3c380eef5349ef77af9")).await,
        got(&lab, item().replace("Cluster0", "cluster0")).await,
        got(&lab, item().replace("Cluster0", "a%00")).await,
        got(&lab, item().replace("Cluster0", "%ff%fe")).await,
        got(&lab, item().replace("Cluster0", &"x".repeat(3_000))).await,
        got(&lab, format!("{}x", item())).await,
        got(&lab, item().replace(CHECKPOINT, "a%2Fb")).await,
        got(&lab, item().replace(CHECKPOINT, "6b94183187d9d64b6f2868b6")).await,
        got(&lab, format!("{}/", collection())).await,
        got(&lab, "/api".into()).await,
        got(&lab, format!("{}/parts", item())).await,
    ];
    assert_snapshot!(lines.join("\n").replace(&"x".repeat(200), "x{200}").replace('\0', "NUL"), @r#"
    404 INVALID_GROUP_ID ["6b8cd3c380eef5349ef77gf7"] An invalid group ID 6b8cd3c380eef5349ef77gf7 was specified.
    404 INVALID_GROUP_ID ["�"] An invalid group ID � was specified.
    404 GROUP_NOT_FOUND ["6b8cd3c380eef5349ef77af9"] No group with ID 6b8cd3c380eef5349ef77af9 exists.
    404 CLUSTER_NOT_FOUND ["cluster0","6b8cd3c380eef5349ef77af7"] No cluster named cluster0 exists in group 6b8cd3c380eef5349ef77af7.
    404 CLUSTER_NOT_FOUND ["a\u0000","6b8cd3c380eef5349ef77af7"] No cluster named aNUL exists in group 6b8cd3c380eef5349ef77af7.
    404 CLUSTER_NOT_FOUND ["��","6b8cd3c380eef5349ef77af7"] No cluster named �� exists in group 6b8cd3c380eef5349ef77af7.
    404 CLUSTER_NOT_FOUND ["x{200}…","6b8cd3c380eef5349ef77af7"] No cluster named x{200}… exists in group 6b8cd3c380eef5349ef77af7.
    404 INVALID_CHECKPOINT_ID ["6b94183187d9d64b6f2868b5x"] An invalid checkpoint ID 6b94183187d9d64b6f2868b5x was specified.
    404 INVALID_CHECKPOINT_ID ["a/b"] An invalid checkpoint ID a/b was specified.
    404 CHECKPOINT_NOT_FOUND ["6b94183187d9d64b6f2868b6","Cluster0"] No checkpoint with ID 6b94183187d9d64b6f2868b6 exists for cluster Cluster0.
    404 RESOURCE_NOT_FOUND ["/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints/"] Cannot find resource /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints/.
    404 RESOURCE_NOT_FOUND ["/api"] Cannot find resource /api.
    404 RESOURCE_NOT_FOUND ["/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints/6b94183187d9d64b6f2868b5/parts"] Cannot find resource /api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints/6b94183187d9d64b6f2868b5/parts.
    "#);
}

#[tokio::test]
async fn outside_the_api_nobody_is_asked_for_credentials() {
    let lab = Lab::new().await;
    for path in ["/", "/apis", "/favicon.ico", "//api/atlas", "/API/atlas/v1.0"] {
        let reply = lab.send(Request::get(path).body(Full::default()).unwrap()).await;
        assert_eq!(line(&reply), format!("404 RESOURCE_NOT_FOUND [\"{path}\"] Cannot find resource {path}."));
        assert_eq!(reply.header("www-authenticate"), None);
    }
}

#[tokio::test]
async fn malformed_queries() {
    let lab = Lab::new().await;
    let mut lines = Vec::new();
    for (path, query) in [
        (item(), "pretty=yes"),
        (item(), "envelope="),
        (collection(), "pageNum=0"),
        (collection(), "itemsPerPage=501"),
        (collection(), "includeCount=true&includeCount=true"),
    ] {
        lines.push(got(&lab, format!("{path}?{query}")).await);
    }
    assert_snapshot!(lines.join("\n"), @r#"
    400 INVALID_QUERY_PARAMETER ["pretty"] Invalid query parameter pretty specified.
    400 INVALID_QUERY_PARAMETER ["envelope"] Invalid query parameter envelope specified.
    400 INVALID_QUERY_PARAMETER ["pageNum"] Invalid query parameter pageNum specified.
    400 INVALID_QUERY_PARAMETER ["itemsPerPage"] Invalid query parameter itemsPerPage specified.
    400 INVALID_QUERY_PARAMETER ["includeCount"] Invalid query parameter includeCount specified.
    "#);
    assert_eq!(lab.get(&format!("{}?pageNum=0&x=%ff", item())).await.status, 200, "not a parameter of one document");
}

#[tokio::test]
async fn bodies_that_are_not_nothing() {
    let lab = Lab::new().await;
    let json = ("content-type", "application/json; charset=utf-8");
    let mut lines = Vec::new();
    for (headers, body) in [
        ([json], "{\"a\":1}".to_owned()),
        ([json], "[]".to_owned()),
        ([json], "{".to_owned()),
        ([json], "[".repeat(60_000)),
        ([("content-type", "text/plain")], "{}".to_owned()),
        ([("accept", "x")], "{}".to_owned()),
        ([json], " ".repeat(65_537)),
    ] {
        lines.push(line(&lab.ask_with(OWNER, "POST", &collection(), &headers, &body).await));
    }
    assert_snapshot!(lines.join("\n"), @r#"
    400 INVALID_ATTRIBUTE ["a"] Invalid attribute a specified.
    400 INVALID_JSON [] The request body must be a JSON object.
    400 MALFORMED_JSON [] The request body is not well-formed JSON.
    400 MALFORMED_JSON [] The request body is not well-formed JSON.
    415 UNSUPPORTED_MEDIA_TYPE [] The request body must be application/json.
    415 UNSUPPORTED_MEDIA_TYPE [] The request body must be application/json.
    413 PAYLOAD_TOO_LARGE ["65536"] The request body is larger than 65536 bytes.
    "#);
    assert_eq!(lab.ask_with(OWNER, "POST", &collection(), &[json], " {}\n").await.status, 201);
}

#[tokio::test]
async fn who_may_not() {
    let lab = Lab::new().await;
    let lines = [
        line(&lab.ask(READER, "POST", &collection()).await),
        line(&lab.ask(OTHER, "GET", &item()).await),
        line(&lab.ask(NEARBY, "GET", &item()).await),
        line(&lab.ask(OWNER, "PUT", &item()).await),
    ];
    assert_snapshot!(lines.join("\n"), @r#"
    403 ACCESS_FORBIDDEN ["6b8cd3c380eef5349ef77af7"] This API key may not do this in group 6b8cd3c380eef5349ef77af7.
    403 ACCESS_FORBIDDEN ["6b8cd3c380eef5349ef77af7"] This API key may not do this in group 6b8cd3c380eef5349ef77af7.
    403 IP_ADDRESS_NOT_ON_ACCESS_LIST ["127.0.0.1"] IP address 127.0.0.1 is not allowed to access this resource.
    405 METHOD_NOT_ALLOWED ["PUT"] This resource does not have the method PUT.
    "#);
}

#[tokio::test]
async fn one_checkpoint_at_a_time() {
    let lab = Lab::new().await;
    let id = lab.ask(OWNER, "POST", &collection()).await.json()["id"].as_str().unwrap().to_owned();
    let refused = lab.ask(OWNER, "POST", &collection()).await;
    assert_snapshot!(line(&refused).replace(&id, "ID"), @r#"409 CHECKPOINT_IN_PROGRESS ["ID","Cluster0"] Checkpoint ID of cluster Cluster0 is not yet finished."#);
}

#[tokio::test]
async fn a_host_that_is_none_goes_into_no_link() {
    let lab = Lab::new().await;
    let reply = lab.ask_with(OWNER, "GET", &item(), &[("host", "evil\"<script>")], "").await;
    assert_snapshot!(line(&reply), @r#"400 VALIDATION_ERROR [] The Host header is missing or not valid."#);
}

#[tokio::test]
async fn every_way_to_be_challenged_reads_the_same() {
    let lab = Lab::new().await;
    let target = item();
    let nobody = lab.send(Request::get(&target).body(Full::default()).unwrap()).await;
    assert_snapshot!(line(&nobody), @r#"401 USER_UNAUTHORIZED [] You are not authorized for this resource."#);
    let challenge = nobody.header("www-authenticate").unwrap().to_owned();
    assert_eq!(nobody.headers.get_all("www-authenticate").iter().count(), 1);

    let right = answer(&challenge, OWNER, &crate::support::private(OWNER), &Method::GET, &target);
    for login in [
        "Basic b3duZXI6cHc=".to_owned(),
        "Bearer abc".to_owned(),
        "Digest".to_owned(),
        answer(&challenge, OWNER, "wrong", &Method::GET, &target),
        answer(&challenge, "nobodyaa", "wrong", &Method::GET, &target),
        answer(&challenge, &"x".repeat(1_000), "wrong", &Method::GET, &target),
        answer(&challenge, OWNER, &crate::support::private(OWNER), &Method::GET, "/another"),
        answer(&challenge, OWNER, &crate::support::private(OWNER), &Method::POST, &target),
        right.replace("qop=auth", "qop=auth-int"),
    ] {
        let request = Request::get(&target).header("authorization", &login).body(Full::default()).unwrap();
        let reply = lab.send(request).await;
        assert_eq!((reply.status, &reply.body), (nobody.status, &nobody.body), "{login}");
        assert!(reply.header("www-authenticate").unwrap().ends_with(", stale=false"), "{login}");
    }
    let twice = Request::get(&target).header("authorization", &right).header("authorization", &right);
    assert_eq!(lab.send(twice.body(Full::default()).unwrap()).await.status, 401);

    let request = || Request::get(&target).header("authorization", &right).body(Full::default()).unwrap();
    assert_eq!(lab.send(request()).await.status, 200);
    let replayed = lab.send(request()).await;
    assert_eq!(replayed.body, nobody.body);
    assert!(replayed.header("www-authenticate").unwrap().ends_with(", stale=true"));
}

#[tokio::test]
async fn an_old_nonce_is_stale_and_the_new_one_works() {
    let lab = Lab::new().await;
    let login = lab.login(OWNER, &Method::GET, &item()).await;
    lab.pass(301);
    let stale = lab.send(Request::get(item()).header("authorization", login).body(Full::default()).unwrap()).await;
    let challenge = stale.header("www-authenticate").unwrap();
    assert!(challenge.ends_with(", stale=true"));
    let login = answer(challenge, OWNER, &crate::support::private(OWNER), &Method::GET, &item());
    let request = Request::get(item()).header("authorization", login).body(Full::default()).unwrap();
    assert_eq!(lab.send(request).await.status, 200);
}

#[tokio::test]
async fn a_panic_or_a_broken_catalog_is_an_unexpected_error_and_names_nothing() {
    let lab = Lab::new().await;
    let login = lab.login(READER, &Method::GET, &item()).await;
    let noon = lab.clock.swap(-1, Ordering::SeqCst);
    let request = Request::get(item()).header("authorization", login).body(Full::default()).unwrap();
    let panicked = line(&lab.send(request).await);
    lab.clock.store(noon, Ordering::SeqCst);

    let database = Connection::open(lab.folder.path().join("catalog")).unwrap();
    database.execute("UPDATE checkpoints SET record = 'secret'", []).unwrap();
    let corrupt = got(&lab, item()).await;
    database.execute("ALTER TABLE checkpoints RENAME TO hidden", []).unwrap();
    let broken = got(&lab, item()).await;
    assert_snapshot!([panicked, corrupt, broken].join("\n"), @r#"
    500 UNEXPECTED_ERROR [] Unexpected error.
    500 UNEXPECTED_ERROR [] Unexpected error.
    503 UNEXPECTED_ERROR [] The server cannot answer this just now. Try again later.
    "#);
}

#[tokio::test]
async fn a_clock_that_is_set_locks_nobody_out() {
    let lab = Lab::new().await;
    for hours in [1, -1, -24, 48] {
        assert_eq!(lab.get(&item()).await.status, 200);
        lab.clock.fetch_add(hours * 3_600_000, Ordering::SeqCst);
        assert_eq!(lab.get(&item()).await.status, 200, "{hours}");
    }
}

#[tokio::test]
async fn behind_a_proxy_that_takes_a_prefix_off_the_client_signs_what_it_sees() {
    let public_url = Some("https://backup.example.net/mongo".parse().unwrap());
    let lab = Lab::with(Settings { public_url, ..Settings::default() }).await;
    for (signed, status) in [(format!("/mongo{}", item()), 200), (item(), 200), (format!("/other{}", item()), 401)] {
        let login = lab.login(READER, &Method::GET, &signed).await;
        let request = Request::get(item()).header("authorization", login).body(Full::default()).unwrap();
        let reply = lab.send(request).await;
        assert_eq!(reply.status, status, "{signed}");
        assert!(status != 200 || reply.body.contains("\"https://backup.example.net/mongo/api/"), "{}", reply.body);
    }
}
