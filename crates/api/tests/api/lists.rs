//! Lists: order, paging, compression.

use http_body_util::Full;
use std::io::Read;

use http::{Method, Request};
use insta::assert_snapshot;
use jiff::SignedDuration;
use stillpoint_catalog::Catalog;
use stillpoint_core::CheckpointId;

use crate::support::{Lab, READER, collection, failed, item, time};

/// Four failed checkpoints, the last at 13:04, on top of the completed one of 2018 (whose id says 2027).
async fn with_more() -> (Lab, Vec<String>) {
    let lab = Lab::new().await;
    let mut ids = Vec::new();
    for minute in 1..5 {
        let at = time("2029-11-24T13:00:00Z") + SignedDuration::from_mins(minute);
        let checkpoint = failed(CheckpointId::new(at, 1), at);
        lab.catalog.queue_checkpoint(&checkpoint).await.unwrap();
        ids.insert(0, checkpoint.id.to_string());
    }
    ids.push(crate::support::CHECKPOINT.to_owned());
    (lab, ids)
}

fn ids(list: &serde_json::Value) -> Vec<String> {
    list["results"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_list_is_newest_first_and_its_items_link_to_themselves() {
    let (lab, expected) = with_more().await;
    let list = lab.get(&collection()).await.json();
    assert_eq!(ids(&list), expected);
    assert_eq!(list["totalCount"], 5);
    for item in list["results"].as_array().unwrap() {
        let url = format!("http://backup.example.net{}/{}", collection(), item["id"].as_str().unwrap());
        assert_eq!(item["links"], serde_json::json!([{"href": url, "rel": "self"}]));
    }
    assert!(list.as_object().unwrap().keys().is_sorted());
}

#[tokio::test]
async fn pages_lead_to_each_other() {
    let (lab, expected) = with_more().await;
    let mut target = format!("{}?itemsPerPage=2", collection());
    let mut seen = Vec::new();
    let mut links = Vec::new();
    loop {
        let list = lab.get(&target).await.json();
        seen.extend(ids(&list));
        links.push(list["links"].to_string().replace(&format!("http://backup.example.net{}", collection()), "URL"));
        let next = list["links"].as_array().unwrap().iter().find(|link| link["rel"] == "next");
        let Some(next) = next else { break };
        target = next["href"].as_str().unwrap().strip_prefix("http://backup.example.net").unwrap().to_owned();
    }
    assert_eq!(seen, expected);
    assert_snapshot!(links.join("\n"), @r#"
    [{"href":"URL?pageNum=1&itemsPerPage=2","rel":"self"},{"href":"URL?pageNum=2&itemsPerPage=2","rel":"next"}]
    [{"href":"URL?pageNum=2&itemsPerPage=2","rel":"self"},{"href":"URL?pageNum=1&itemsPerPage=2","rel":"previous"},{"href":"URL?pageNum=3&itemsPerPage=2","rel":"next"}]
    [{"href":"URL?pageNum=3&itemsPerPage=2","rel":"self"},{"href":"URL?pageNum=2&itemsPerPage=2","rel":"previous"}]
    "#);
}

#[tokio::test]
async fn past_the_end_and_without_a_count() {
    let (lab, _) = with_more().await;
    let list = lab.get(&format!("{}?pageNum=2147483647&itemsPerPage=500&includeCount=false", collection())).await;
    assert_eq!(list.status, 200);
    assert_eq!(ids(&list.json()), Vec::<String>::new());
    assert_eq!(list.json().get("totalCount"), None);
    let empty = lab.get(&collection().replace("Cluster0", "a%2Fb%20c%25")).await;
    assert!(empty.body.ends_with(r#""results":[],"totalCount":0}"#), "{}", empty.body);
}

#[tokio::test]
async fn gzip_is_given_when_asked_for_and_worth_it() {
    let (lab, _) = with_more().await;
    let plain = lab.get(&collection()).await;
    assert!(plain.body.len() > 1_400);
    assert_eq!(plain.header("content-encoding"), None);

    let login = lab.login(READER, &Method::GET, &collection()).await;
    let request = Request::get(collection())
        .header("host", "backup.example.net")
        .header("authorization", login)
        .header("accept-encoding", "br;q=1.0, GZIP;q=0.5");
    let (reply, bytes) = lab.exchange("127.0.0.1:4000", false, request.body(Full::default()).unwrap()).await;
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert!(bytes.len() < plain.body.len() / 2);
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);

    for (target, encoding) in [(collection(), "gzip;q=0"), (collection(), "identity"), (item() + "0", "gzip")] {
        let reply = lab.ask_with(READER, "GET", &target, &[("accept-encoding", encoding)], "").await;
        assert_eq!(reply.header("content-encoding"), None, "{target} {encoding}");
    }
}
