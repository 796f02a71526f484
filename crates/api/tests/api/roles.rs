//! Who may do what: every role with every method.

use http_body_util::Full;
use stillpoint_catalog::Catalog;
use stillpoint_core::checkpoint::{Checkpoint, State};

use http::{Method, Request};

use stillpoint_api::Settings;

use crate::support::{CHECKPOINT, CLUSTER, Lab, NEARBY, OTHER, OTHER_GROUP, OWNER, READER, collection, item};

#[tokio::test]
async fn each_role_with_each_method() {
    const COLLECTION: &str = "GET,HEAD,POST";
    const ITEM: &str = "DELETE,GET,HEAD";
    // The method, what a reader and an owner get on the collection, and on an item.
    let table = [
        ("GET", [200, 200], [200, 200]),
        ("HEAD", [200, 200], [200, 200]),
        ("POST", [403, 201], [405, 405]),
        ("DELETE", [405, 405], [403, 204]),
        ("PUT", [405, 405], [405, 405]),
        ("PATCH", [405, 405], [405, 405]),
        ("OPTIONS", [405, 405], [405, 405]),
        ("TRACE", [405, 405], [405, 405]),
        ("BREW", [405, 405], [405, 405]),
    ];
    for (method, on_collection, on_item) in table {
        for (n, key) in [READER, OWNER].into_iter().enumerate() {
            for (target, expected, allow) in [(collection(), on_collection[n], COLLECTION), (item(), on_item[n], ITEM)]
            {
                let lab = Lab::new().await;
                let reply = lab.ask(key, method, &target).await;
                assert_eq!(reply.status.as_u16(), expected, "{method} {target} as {key}: {}", reply.body);
                let allowed = reply.header("allow").map(|value| value.replace(' ', ""));
                assert_eq!(allowed.as_deref(), (expected == 405).then_some(allow), "{method} {target}");
                let nobody = Request::builder().method(method).uri(target).body(Full::default()).unwrap();
                assert_eq!(lab.send(nobody).await.status, 401);
            }
        }
    }
}

#[tokio::test]
async fn what_was_deleted_is_gone_and_what_is_unfinished_stays() {
    let lab = Lab::new().await;
    let reply = lab.ask(OWNER, "DELETE", &format!("{}?envelope=true", item())).await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (204, ""));
    assert_eq!(lab.ask(OWNER, "DELETE", &item()).await.json()["errorCode"], "CHECKPOINT_NOT_FOUND");

    let queued = lab.ask(OWNER, "POST", &collection()).await.json();
    let target = format!("{}/{}", collection(), queued["id"].as_str().unwrap());
    let refused = lab.ask(OWNER, "DELETE", &target).await;
    assert_eq!((refused.status.as_u16(), refused.json()["errorCode"].as_str()), (409, Some("CHECKPOINT_IN_PROGRESS")));
    assert_eq!(lab.get(&target).await.status, 200);
}

#[tokio::test]
async fn another_projects_key_is_told_nothing_more() {
    let lab = Lab::new().await;
    for (method, target) in [("GET", item()), ("GET", collection()), ("POST", collection()), ("DELETE", item())] {
        assert_eq!(lab.ask(OTHER, method, &target).await.json()["errorCode"], "ACCESS_FORBIDDEN", "{method} {target}");
        // Whether or not the cluster exists.
        let target = target.replace("Cluster0", "None");
        assert_eq!(lab.ask(OTHER, method, &target).await.json()["errorCode"], "ACCESS_FORBIDDEN", "{method} {target}");
    }
    let own = collection().replace(crate::support::GROUP, OTHER_GROUP);
    assert_eq!(lab.ask(OTHER, "GET", &own).await.json()["errorCode"], "CLUSTER_NOT_FOUND");
    let checkpoint = lab.catalog.checkpoint(CLUSTER.parse().unwrap(), CHECKPOINT.parse().unwrap()).await.unwrap();
    assert!(checkpoint.is_some());
}

#[tokio::test]
async fn an_access_list_is_of_the_address_that_the_connection_is_from() {
    let lab = Lab::new().await;
    let from = ["10.1.2.3:1", "[2001:db8::1]:1", "[::ffff:10.1.2.3]:1", "11.1.2.3:1", "[2001:db9::1]:1", "127.0.0.1:1"];
    for (n, address) in from.into_iter().enumerate() {
        let login = lab.login(NEARBY, &Method::GET, &item()).await;
        let request = Request::get(item()).header("authorization", login).header("x-forwarded-for", "10.1.2.3");
        let reply = lab.send_from(address, false, request.body(Full::default()).unwrap()).await;
        assert_eq!(reply.status.as_u16(), if n < 3 { 200 } else { 403 }, "{address}");
    }
}

#[tokio::test]
async fn of_two_who_ask_at_once_one_gets_a_checkpoint() {
    let lab = Lab::new().await;
    let path = collection();
    let (one, two) = tokio::join!(lab.ask(OWNER, "POST", &path), lab.ask(OWNER, "POST", &path));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort();
    assert_eq!(statuses, [201, 409]);
    let queued: Option<Checkpoint> = lab.catalog.unfinished_checkpoint(CLUSTER.parse().unwrap()).await.unwrap();
    assert_eq!(queued.unwrap().state, State::Queued);
}

#[tokio::test]
async fn behind_a_trusted_proxy_it_is_of_the_address_that_the_proxy_names() {
    let trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let lab = Lab::with(Settings { trusted_proxies, ..Settings::default() }).await;
    for (from, forwarded, status) in [
        ("127.0.0.1:1", "10.1.2.3", 200),
        ("127.0.0.1:1", "10.1.2.3, 192.0.2.7", 403),
        ("127.0.0.1:1", "192.0.2.7, 10.1.2.3", 200),
        ("127.0.0.1:1", "nonsense", 403),
        ("192.0.2.7:1", "10.1.2.3", 403),
    ] {
        // Twice: what is remembered is held against the list as well.
        for _ in 0..2 {
            let login = lab.login(NEARBY, &Method::GET, &item()).await;
            let request = Request::get(item()).header("authorization", login).header("x-forwarded-for", forwarded);
            let reply = lab.send_from(from, false, request.body(Full::default()).unwrap()).await;
            assert_eq!(reply.status, status, "{from} {forwarded}");
        }
    }
}
