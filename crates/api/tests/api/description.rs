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
