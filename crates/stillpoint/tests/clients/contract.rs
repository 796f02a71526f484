//! What the Rust client must see on one surface: the contract of `contract.py`, which says more.

use serde_json::{Value, json};
use stillpoint_core::CheckpointId;

use crate::digest_client::{DigestClient, Reply};
use crate::seed::{owner, reader};
use crate::server::{Report, Server};
use crate::surfaces::Surface;

const PER_PAGE: usize = 60;
const NOWHERE: &str = "000000000000000000000000";

/// The collection of checkpoints, as one key sees it.
struct View<'a> {
    client: DigestClient,
    accept: &'a str,
    /// What errors call the cluster.
    cluster: &'a str,
}

impl View<'_> {
    /// Sends a request and looks at the head of its reply.
    async fn ask(&mut self, method: &str, url: &str, status: u16) -> Reply {
        let body = (method == "POST").then_some("{}");
        let reply = self.client.send(method, url, self.accept, body).await;
        assert_eq!(reply.status, status, "{method} {url}: {}", reply.text);
        let success = if self.accept.is_empty() { "application/json" } else { self.accept };
        let wanted = match status {
            204 => None,
            200 | 201 => Some(success),
            _ => Some("application/json"),
        };
        assert_eq!(reply.header("content-type"), wanted, "{method} {url}");
        reply
    }

    async fn get(&mut self, url: &str) -> Value {
        self.ask("GET", url, 200).await.json()
    }

    /// Every field of an error's document, and no other.
    async fn refused(&mut self, method: &str, url: &str, document: &Value) {
        let status = document["error"].as_u64().unwrap() as u16;
        assert_eq!(&self.ask(method, url, status).await.json(), document, "{method} {url}");
    }

    fn not_found(&self, id: &str) -> Value {
        let cluster = self.cluster;
        json!({
            "detail": format!("No checkpoint with ID {id} exists for cluster {cluster}."), "error": 404,
            "errorCode": "CHECKPOINT_NOT_FOUND", "parameters": [id, cluster], "reason": "Not Found",
        })
    }

    fn under_way(&self, id: &str) -> Value {
        let cluster = self.cluster;
        json!({
            "detail": format!("Checkpoint {id} of cluster {cluster} is not yet finished."), "error": 409,
            "errorCode": "CHECKPOINT_IN_PROGRESS", "parameters": [id, cluster], "reason": "Conflict",
        })
    }
}

pub async fn keep(server: &Server, surface: &Surface) -> Report {
    let collection = format!("{}{}", server.base, surface.collection(&server.seed));
    let cluster = (surface.cluster)(&server.seed);
    let view = |key: &str| View { client: DigestClient::new(key), accept: surface.accept, cluster: &cluster };
    let (mut owner, mut reader) = (view(&owner()), view(&reader()));
    let seen = read(&mut reader, &collection).await;
    let oldest = seen.last().unwrap().clone();
    let created = write(&mut owner, &mut reader, &collection, &oldest).await;
    let id = |text: &String| -> CheckpointId { text.parse().unwrap() };
    Report {
        client: "hyper with digest_auth".into(),
        seen: seen.iter().map(id).collect(),
        created: id(&created),
        deleted: id(&oldest),
    }
}

/// The href of a link.
fn link<'a>(document: &'a Value, rel: &str) -> Option<&'a str> {
    document["links"].as_array()?.iter().find(|link| link["rel"] == rel)?["href"].as_str()
}

fn without_links(document: &Value) -> Value {
    let mut document = document.clone();
    document["links"] = Value::Null;
    document
}

/// Follows `next` from the first page to the last.
async fn all_pages(reader: &mut View<'_>, collection: &str) -> Vec<Value> {
    let mut next = Some(format!("{collection}?itemsPerPage={PER_PAGE}"));
    let mut seen = Vec::new();
    let mut pages = 0;
    while let Some(url) = next {
        let page = reader.get(&url).await;
        pages += 1;
        assert_eq!(page["totalCount"], 250);
        let this = format!("{collection}?pageNum={pages}&itemsPerPage={PER_PAGE}");
        assert_eq!(link(&page, "self"), Some(this.as_str()));
        assert_eq!(link(&page, "previous").is_some(), pages > 1);
        assert!(pages < 250, "a list without end");
        seen.extend(page["results"].as_array().unwrap().clone());
        next = link(&page, "next").map(str::to_owned);
    }
    assert_eq!((pages, seen.len()), (5, 250));
    seen
}

async fn read(reader: &mut View<'_>, collection: &str) -> Vec<String> {
    let first = reader.get(collection).await;
    assert_eq!(first["results"].as_array().unwrap().len(), 100);
    let seen = all_pages(reader, collection).await;
    assert_eq!(first["results"].as_array().unwrap()[..], seen[..100]);

    let url = format!("{collection}/{}", seen[0]["id"].as_str().unwrap());
    assert_eq!(link(&seen[0], "self"), Some(url.as_str()));
    let compact = reader.ask("GET", &url, 200).await;
    let one = compact.json();
    assert_eq!(without_links(&one), without_links(&seen[0]));
    let above = collection.rsplit_once('/').unwrap().0;
    let group = above.rsplitn(3, '/').last().unwrap();
    let links = json!([
        {"href": collection, "rel": "self"},
        {"href": above, "rel": "http://mms.mongodb.com/cluster"},
        {"href": group, "rel": "http://mms.mongodb.com/group"},
    ]);
    assert_eq!(one["links"], links);

    let (nowhere, error) = (format!("{collection}/{NOWHERE}"), reader.not_found(NOWHERE));
    reader.refused("GET", &nowhere, &error).await;

    assert_eq!(reader.get(&format!("{url}?envelope=true")).await, json!({"content": one, "status": 200}));
    assert_eq!(reader.get(&format!("{collection}?envelope=true")).await["status"], 200);
    let wrapped = reader.ask("GET", &format!("{nowhere}?envelope=true"), 404).await.json();
    assert_eq!(wrapped, json!({"content": error, "status": 404}));

    let pretty = reader.ask("GET", &format!("{url}?pretty=true"), 200).await;
    assert_eq!(pretty.json(), one);
    let beginning = format!("{{\n  \"clusterId\":{},\n", one["clusterId"]);
    assert!(pretty.text.starts_with(&beginning), "{}", pretty.text);
    assert!(!compact.text.contains('\n'), "{}", compact.text);
    seen.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

async fn write(owner: &mut View<'_>, reader: &mut View<'_>, collection: &str, oldest: &str) -> String {
    let group = collection.split('/').skip_while(|part| *part != "groups").nth(1).unwrap();
    let forbidden = json!({
        "detail": format!("This API key may not do this in group {group}."), "error": 403,
        "errorCode": "ACCESS_FORBIDDEN", "parameters": [group], "reason": "Forbidden",
    });
    reader.refused("POST", collection, &forbidden).await;

    let reply = owner.ask("POST", collection, 201).await;
    let created = reply.json()["id"].as_str().unwrap().to_owned();
    let url = format!("{collection}/{created}");
    assert_eq!(reply.header("location"), Some(url.as_str()));
    assert_eq!(owner.get(&url).await["id"], created);
    // Its cluster cannot be reached, which takes longer to find out than it takes to come here.
    let under_way = owner.under_way(&created);
    owner.refused("POST", collection, &under_way).await;
    owner.refused("DELETE", &url, &under_way).await;

    let url = format!("{collection}/{oldest}");
    assert_eq!(owner.ask("DELETE", &url, 204).await.text, "");
    let gone = owner.not_found(oldest);
    owner.refused("GET", &url, &gone).await;
    created
}
