//! Tokens for service accounts.

use base64::Engine;
use http::Request;
use http_body_util::Full;
use insta::assert_snapshot;
use stillpoint_catalog::{Catalog, CredentialKind};

use crate::support::{ACCOUNT, CHECKPOINT, GROUP, Lab, OWNER, Reply, item, private};

const GRANT: &str = "grant_type=client_credentials";

fn v2(token: &str) -> Request<Full<bytes::Bytes>> {
    let path = item().replace("v1.0", "v2");
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    request.header("accept", "application/vnd.atlas.2023-01-01+json").body(Full::default()).unwrap()
}

#[tokio::test]
async fn a_token_is_given_works_on_v2_and_is_revoked() {
    let lab = Lab::new().await;
    let reply = lab.oauth("token", ACCOUNT, GRANT).await;
    assert_eq!((reply.status.as_u16(), reply.header("cache-control")), (200, Some("no-store")));
    let json = reply.json();
    assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), ["access_token", "expires_in", "token_type"]);
    assert_eq!((&json["expires_in"], &json["token_type"]), (&3_600.into(), &"Bearer".into()));
    let token = json["access_token"].as_str().unwrap();
    let got = lab.send(v2(token)).await;
    assert_eq!((got.status.as_u16(), &got.json()["id"]), (200, &CHECKPOINT.into()));

    // Not on the surfaces that have none.
    let v1 = Request::get(item()).header("authorization", format!("Bearer {token}")).body(Full::default()).unwrap();
    let refused = lab.send(v1).await;
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").unwrap().starts_with("Digest "));

    let revoked = lab.oauth("revoke", ACCOUNT, &format!("token={token}&token_type_hint=access_token")).await;
    assert_eq!((revoked.status.as_u16(), revoked.body.as_str()), (200, ""));
    let refused = lab.send(v2(token)).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["errorCode"]), (401, &"USER_UNAUTHORIZED".into()));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"MMS Public API\", error=\"invalid_token\""));
    // Whether there was one is not said.
    assert_eq!(lab.oauth("revoke", ACCOUNT, "token=nothing").await.status, 200);
}

#[tokio::test]
async fn a_token_ends_with_its_time_its_secret_and_its_account() {
    let lab = Lab::new().await;
    let status = async |token: &str| lab.send(v2(token)).await.status.as_u16();
    let account = lab.catalog.credential(CredentialKind::ServiceAccount, ACCOUNT).await.unwrap().unwrap();
    let (first, second) = (lab.token(ACCOUNT).await, lab.token(ACCOUNT).await);
    assert_ne!(first, second);
    assert_eq!((status(&first).await, status(&second).await), (200, 200));
    lab.pass(3_599);
    assert_eq!(status(&first).await, 200);
    lab.pass(1);
    assert_eq!(status(&first).await, 401);

    let third = lab.token(ACCOUNT).await;
    assert_eq!(status(&third).await, 200);
    lab.catalog.rotate_credential(account.id, &account.proof).await.unwrap();
    assert_eq!(status(&third).await, 401, "even to the same secret");
    let fourth = lab.token(ACCOUNT).await;
    lab.catalog.delete_credential(account.id).await.unwrap();
    assert_eq!(status(&fourth).await, 401);
    assert_eq!(lab.oauth("token", ACCOUNT, GRANT).await.status, 401);
}

fn line(reply: &Reply) -> String {
    format!("{} {} {:?}", reply.status.as_u16(), reply.body, reply.header("www-authenticate"))
}

#[tokio::test]
async fn every_grant_that_is_none() {
    let lab = Lab::new().await;
    let basic = |id: &str, secret: &str| {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}")))
    };
    let right = basic(ACCOUNT, &private(ACCOUNT));
    let form = "application/x-www-form-urlencoded";
    let mut lines = Vec::new();
    for (login, media_type, body) in [
        (None, form, GRANT),
        (Some("Basic !!!".to_owned()), form, GRANT),
        (Some(basic(ACCOUNT, "wrong")), form, GRANT),
        (Some(basic(ACCOUNT, "")), form, GRANT),
        (Some(basic("nobody", "")), form, GRANT),
        (Some(basic(OWNER, &private(OWNER))), form, GRANT),
        (Some(basic(&"x".repeat(1_000), "y")), form, GRANT),
        (Some(right.clone()), form, ""),
        (Some(right.clone()), form, "grant_type="),
        (Some(right.clone()), form, "grant_type=password"),
        (Some(right.clone()), form, "grant_type=client_credentials&grant_type=client_credentials"),
        (Some(right.clone()), "application/json", GRANT),
        (Some(right.clone()), form, &"x".repeat(5_000)),
        (Some(right.clone()), form, &"x".repeat(70_000)),
    ] {
        let mut request = Request::post("/api/oauth/token").header("content-type", media_type);
        if let Some(login) = login {
            request = request.header("authorization", login);
        }
        lines.push(line(&lab.send(request.body(Full::from(body.to_owned())).unwrap()).await));
    }
    assert_snapshot!(lines.join("\n"), @r#"
    401 {"error":"invalid_client","error_description":"the client id or its secret is wrong, or was not given with HTTP Basic"} Some("Basic realm=\"MMS Public API\"")
    401 {"error":"invalid_client","error_description":"the client id or its secret is wrong, or was not given with HTTP Basic"} Some("Basic realm=\"MMS Public API\"")
    401 {"error":"invalid_client","error_description":"the client id or its secret is wrong, or was not given with HTTP Basic"} Some("Basic realm=\"MMS Public API\"")
    401 {"error":"invalid_client","error_description":"the client id or its secret is wrong, or was not given with HTTP Basic"} Some("Basic realm=\"MMS Public API\"")
    401 {"error":"invalid_client","error_description":"the client id or its secret is wrong, or was not given with HTTP Basic"} Some("Basic realm=\"MMS Public API\"")
    401 {"error":"invalid_client","error_description":"the client id or its secret is wrong, or was not given with HTTP Basic"} Some("Basic realm=\"MMS Public API\"")
    401 {"error":"invalid_client","error_description":"the client id or its secret is wrong, or was not given with HTTP Basic"} Some("Basic realm=\"MMS Public API\"")
    400 {"error":"invalid_request","error_description":"grant_type is missing"} None
    400 {"error":"unsupported_grant_type","error_description":"grant_type must be client_credentials"} None
    400 {"error":"unsupported_grant_type","error_description":"grant_type must be client_credentials"} None
    400 {"error":"invalid_request","error_description":"a field is repeated"} None
    400 {"error":"invalid_request","error_description":"the body must be application/x-www-form-urlencoded"} None
    413 {"detail":"The request body is larger than 4096 bytes.","error":413,"errorCode":"PAYLOAD_TOO_LARGE","parameters":["4096"],"reason":"Payload Too Large"} None
    413 {"detail":"The request body is larger than 4096 bytes.","error":413,"errorCode":"PAYLOAD_TOO_LARGE","parameters":["4096"],"reason":"Payload Too Large"} None
    "#);
    let reply = lab.send(Request::get("/api/oauth/token").body(Full::default()).unwrap()).await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("POST")));
    let group = lab.send(Request::get(format!("/api/atlas/v1.0/groups/{GROUP}")).body(Full::default()).unwrap()).await;
    assert_eq!(group.status, 401);
}
