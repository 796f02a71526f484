//! Rate limits.

use http::Request;
use http_body_util::Full;
use insta::assert_snapshot;
use stillpoint_api::Settings;
use stillpoint_api::rates::Rate;

use crate::support::{Lab, OWNER, READER, Reply, item};

async fn on_v2(lab: &Lab, key: &str, target: &str) -> Reply {
    let accept = ("accept", "application/vnd.atlas.2023-01-01+json");
    lab.ask_with(key, "GET", &target.replace("v1.0", "v2"), &[accept], "").await
}

fn left(reply: &Reply) -> (u16, Option<&str>, Option<&str>, Option<&str>) {
    let header = |name| reply.header(name);
    (reply.status.as_u16(), header("ratelimit-limit"), header("ratelimit-remaining"), header("retry-after"))
}

#[tokio::test]
async fn v2_has_the_published_bucket_whether_a_reply_is_remembered_or_not() {
    let lab = Lab::new().await;
    for n in 0..1_200 {
        // In turn one that is remembered and one that is not there.
        let target = if n % 2 == 0 { item() } else { item() + "0" };
        let reply = on_v2(&lab, READER, &target).await;
        let expected = (1_199 - n).to_string();
        let status = if n % 2 == 0 { 200 } else { 404 };
        assert_eq!(left(&reply), (status, Some("1200"), Some(expected.as_str()), None));
    }
    let mut bodies = Vec::new();
    for target in [item(), item() + "0", item()] {
        let refused = on_v2(&lab, READER, &target).await;
        assert_eq!(left(&refused), (429, Some("1200"), Some("0"), Some("60")));
        bodies.push(refused.body.clone());
    }
    bodies.dedup();
    assert_snapshot!(bodies.join("\n"), @r#"{"detail":"Too many requests: try again in 60 seconds.","error":429,"errorCode":"RATE_LIMITED","parameters":["60"],"reason":"Too Many Requests"}"#);
    assert_eq!(on_v2(&lab, OWNER, &item()).await.status, 200, "another key has its own");
    assert_eq!(lab.get(&item()).await.status, 200, "v1.0 has none");
    lab.pass(60);
    assert_eq!(left(&on_v2(&lab, READER, &item()).await), (200, Some("1200"), Some("499"), None));
}

#[tokio::test]
async fn challenges_and_wrong_secrets_do_not_count() {
    let lab = Lab::new().await;
    for _ in 0..50 {
        let bare = Request::get(item().replace("v1.0", "v2")).body(Full::default()).unwrap();
        let reply = lab.send(bare).await;
        assert_eq!(left(&reply), (401, None, None, None));
    }
    assert_eq!(on_v2(&lab, READER, &item()).await.header("ratelimit-remaining"), Some("1199"));
}

#[tokio::test]
async fn v1_and_ops_manager_have_one_if_it_is_set() {
    let lab = Lab::with(Settings { rate: Some(Rate { capacity: 2, refill: 1 }), ..Settings::default() }).await;
    let manager = "/api/public/v1.0/groups";
    assert_eq!(left(&lab.get(&item()).await), (200, Some("2"), Some("1"), None));
    assert_eq!(left(&lab.get(manager).await), (200, Some("2"), Some("0"), None), "one bucket for both");
    assert_eq!(left(&lab.get(&item()).await), (429, Some("2"), Some("0"), Some("60")));
    assert_eq!(on_v2(&lab, READER, &item()).await.status, 200);
    let enveloped = lab.get(&format!("{}?envelope=true", item())).await;
    assert_eq!(enveloped.status, 429);
    assert!(enveloped.body.starts_with("{\"content\":{\"detail\":\"Too many"), "{}", enveloped.body);
}
