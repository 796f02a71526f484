//! The versions of v2.

use http::Method;
use insta::assert_snapshot;

use crate::support::{Lab, OWNER, READER, Reply, collection, item};

fn on_v2(path: String) -> String {
    path.replace("v1.0", "v2")
}

async fn get(lab: &Lab, accept: Option<&str>, target: &str) -> Reply {
    let headers: Vec<_> = accept.map(|accept| ("accept", accept)).into_iter().collect();
    lab.ask_with(READER, "GET", target, &headers, "").await
}

#[tokio::test]
async fn a_version_is_asked_for_by_date_and_echoed() {
    let lab = Lab::new().await;
    let first = "application/vnd.atlas.2023-01-01+json";
    for accept in [first, "application/vnd.atlas.2024-05-30+json", "*/*, application/vnd.atlas.2023-02-01+json;q=0.1"] {
        for _ in 0..2 {
            let reply = get(&lab, Some(accept), &on_v2(item())).await;
            assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, Some(first)), "{accept}");
            assert!(reply.body.contains("\"href\":\"http://backup.example.net/api/atlas/v2/groups/"), "{}", reply.body);
        }
    }
    let v1 = get(&lab, None, &item()).await;
    assert_eq!(
        v1.body,
        get(&lab, Some(first), &on_v2(item())).await.body.replace("/v2/", "/v1.0/"),
        "the same document"
    );
}

#[tokio::test]
async fn what_is_no_version_is_not_acceptable() {
    let lab = Lab::new().await;
    for accept in [
        None,
        Some("*/*"),
        Some("application/json"),
        Some("application/vnd.atlas.2022-12-31+json"),
        Some("application/vnd.atlas.2023-13-01+json"),
        Some("application/vnd.atlas.2023-01-01+csv"),
        Some("application/vnd.atlas.2023-01-01+json;q=0"),
    ] {
        for target in [on_v2(item()), on_v2(collection()), "/api/atlas/v2/groups".to_owned()] {
            let reply = get(&lab, accept, &target).await;
            assert_eq!(
                (reply.status.as_u16(), &reply.json()["errorCode"]),
                (406, &"INVALID_VERSION_DATE".into()),
                "{accept:?}"
            );
            assert_eq!(reply.header("content-type"), Some("application/json"));
        }
    }
    // What is right for one is not remembered for the other.
    assert_eq!(get(&lab, Some("application/vnd.atlas.2023-01-01+json"), &on_v2(item())).await.status, 200);
    assert_eq!(get(&lab, Some("application/json"), &on_v2(item())).await.status, 406);
    // Without a key there is only the challenge; v1.0 does not mind.
    assert_eq!(get(&lab, Some("application/json"), &item()).await.status, 200);
}

#[tokio::test]
async fn a_body_may_be_of_that_type_too_and_errors_are_plain_json_with_fields() {
    let lab = Lab::new().await;
    let first = "application/vnd.atlas.2023-01-01+json";
    let headers = [("accept", first), ("content-type", first)];
    let made = lab.ask_with(OWNER, "POST", &on_v2(collection()), &headers, "{}").await;
    assert_eq!((made.status.as_u16(), made.header("content-type")), (201, Some(first)));
    let bad = lab.ask_with(OWNER, "POST", &on_v2(collection()), &headers, "{\"a\":1}").await;
    assert_eq!(bad.header("content-type"), Some("application/json"));
    assert_snapshot!(bad.body, @r#"{"badRequestDetail":{"fields":[{"description":"Invalid attribute a specified.","field":"a"}]},"detail":"Invalid attribute a specified.","error":400,"errorCode":"INVALID_ATTRIBUTE","parameters":["a"],"reason":"Bad Request"}"#);
    let bad = get(&lab, Some(first), &format!("{}?pretty=1", on_v2(item()))).await;
    assert_snapshot!(bad.body, @r#"{"badRequestDetail":{"fields":[{"description":"Invalid query parameter pretty specified.","field":"pretty"}]},"detail":"Invalid query parameter pretty specified.","error":400,"errorCode":"INVALID_QUERY_PARAMETER","parameters":["pretty"],"reason":"Bad Request"}"#);
    let bad = lab.ask_with(OWNER, "POST", &on_v2(collection()), &headers, "[").await;
    assert_snapshot!(bad.body, @r#"{"badRequestDetail":{"fields":[]},"detail":"The request body is not well-formed JSON.","error":400,"errorCode":"MALFORMED_JSON","parameters":[],"reason":"Bad Request"}"#);
    let missing = get(&lab, Some(first), &on_v2(item() + "0")).await;
    assert!(!missing.body.contains("badRequestDetail"), "{}", missing.body);
    let refused = lab.ask_with(OWNER, Method::PUT.as_str(), &on_v2(item()), &headers, "").await;
    assert_eq!(refused.status, 405);
}

#[tokio::test]
async fn several_accept_headers_are_one_and_are_not_taken_for_another() {
    let lab = Lab::new().await;
    let vendor = ("accept", "application/vnd.atlas.2023-01-01+json");
    let plain = ("accept", "application/json");
    for headers in [[plain, vendor], [vendor, plain]] {
        let reply = lab.ask_with(READER, "GET", &on_v2(item()), &headers, "").await;
        assert_eq!(reply.status, 200);
        let reply = lab.ask_with(READER, "GET", &on_v2(item()), &[plain], "").await;
        assert_eq!(reply.status, 406);
    }
}
