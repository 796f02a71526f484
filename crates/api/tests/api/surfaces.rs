//! The same resources on every surface, and every link in a reply leads somewhere.

use std::collections::BTreeSet;

use insta::assert_snapshot;

use crate::support::{BOTH, CHECKPOINT, CLUSTER, GROUP, JOB, Lab, OTHER_GROUP, READER, Reply, SNAPSHOT};

const BASE: &str = "http://backup.example.net";

async fn get(lab: &Lab, key: &str, target: &str) -> Reply {
    lab.ask_with(key, "GET", target, &[("accept", "application/vnd.atlas.2023-01-01+json")], "").await
}

#[tokio::test]
async fn every_link_resolves() {
    let lab = Lab::new().await;
    for prefix in ["/api/atlas/v1.0", "/api/atlas/v2", "/api/public/v1.0"] {
        let mut seen = BTreeSet::new();
        let mut ahead = vec![format!("{BASE}{prefix}/groups")];
        while let Some(url) = ahead.pop() {
            if !seen.insert(url.clone()) {
                continue;
            }
            let target = url.strip_prefix(BASE).unwrap();
            assert!(target.starts_with(prefix), "{url}");
            let reply = get(&lab, READER, target).await;
            assert_eq!(reply.status, 200, "{url}: {}", reply.body);
            collect_links(&reply.json(), &mut ahead);
        }
        let kinds = ["/groups", "/clusters", "heckpoints", "/snapshotSchedule", "/snapshots", "/restoreJobs"];
        let kinds = [&kinds[..], &[CHECKPOINT, SNAPSHOT, JOB]].concat();
        for kind in kinds {
            assert!(seen.iter().any(|url| url.contains(kind)), "{prefix}: nothing leads to {kind}");
        }
    }
}

fn collect_links(value: &serde_json::Value, into: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            into.extend(members.get("href").and_then(|href| href.as_str()).map(str::to_owned));
            members.values().for_each(|value| collect_links(value, into));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect_links(item, into)),
        _ => {}
    }
}

#[tokio::test]
async fn projects_and_clusters() {
    let lab = Lab::new().await;
    let mut bodies = Vec::new();
    for target in [
        format!("/api/atlas/v1.0/groups/{GROUP}?pretty=true"),
        format!("/api/atlas/v1.0/groups/{GROUP}/clusters/Cluster0?pretty=true"),
        format!("/api/public/v1.0/groups/{GROUP}/clusters/{CLUSTER}?pretty=true"),
    ] {
        bodies.push(get(&lab, READER, &target).await.body);
    }
    assert_snapshot!(bodies.join("\n"), @r#"
    {
      "clusterCount":2,
      "created":"2026-01-01T00:00:00Z",
      "id":"6b8cd3c380eef5349ef77af7",
      "links":[
        {
          "href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7",
          "rel":"self"
        },
        {
          "href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters",
          "rel":"http://mms.mongodb.com/clusters"
        }
      ],
      "name":"one",
      "orgId":"6b8cd3c380eef5349ef77a01"
    }
    {
      "clusterType":"SHARDED",
      "createDate":"2026-01-01T00:00:00Z",
      "groupId":"6b8cd3c380eef5349ef77af7",
      "id":"6b8cd6d580eef54711017e89",
      "links":[
        {
          "href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0",
          "rel":"self"
        },
        {
          "href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/backupCheckpoints",
          "rel":"http://mms.mongodb.com/checkpoints"
        },
        {
          "href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7",
          "rel":"http://mms.mongodb.com/group"
        },
        {
          "href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/restoreJobs",
          "rel":"http://mms.mongodb.com/restoreJobs"
        },
        {
          "href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/snapshotSchedule",
          "rel":"http://mms.mongodb.com/snapshotSchedule"
        },
        {
          "href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/snapshots",
          "rel":"http://mms.mongodb.com/snapshots"
        }
      ],
      "name":"Cluster0"
    }
    {
      "clusterName":"Cluster0",
      "createDate":"2026-01-01T00:00:00Z",
      "groupId":"6b8cd3c380eef5349ef77af7",
      "id":"6b8cd6d580eef54711017e89",
      "links":[
        {
          "href":"http://backup.example.net/api/public/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/6b8cd6d580eef54711017e89",
          "rel":"self"
        },
        {
          "href":"http://backup.example.net/api/public/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/6b8cd6d580eef54711017e89/checkpoints",
          "rel":"http://mms.mongodb.com/checkpoints"
        },
        {
          "href":"http://backup.example.net/api/public/v1.0/groups/6b8cd3c380eef5349ef77af7",
          "rel":"http://mms.mongodb.com/group"
        },
        {
          "href":"http://backup.example.net/api/public/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/6b8cd6d580eef54711017e89/restoreJobs",
          "rel":"http://mms.mongodb.com/restoreJobs"
        },
        {
          "href":"http://backup.example.net/api/public/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/6b8cd6d580eef54711017e89/snapshotSchedule",
          "rel":"http://mms.mongodb.com/snapshotSchedule"
        },
        {
          "href":"http://backup.example.net/api/public/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/6b8cd6d580eef54711017e89/snapshots",
          "rel":"http://mms.mongodb.com/snapshots"
        }
      ],
      "typeName":"SHARDED_REPLICA_SET"
    }
    "#);

    let names = async |key: &str, target: &str| {
        let list = get(&lab, key, target).await.json();
        let items = list["results"].as_array().unwrap().clone();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(READER, "/api/atlas/v2/groups").await, ["one"]);
    assert_eq!(names(BOTH, "/api/atlas/v2/groups").await, ["one", "other"]);
    assert_eq!(names(BOTH, "/api/atlas/v2/groups?itemsPerPage=1&pageNum=2").await, ["other"]);
    assert_eq!(names(READER, &format!("/api/atlas/v1.0/groups/{GROUP}/clusters")).await, ["Cluster0", "a/b c%"]);
    let empty = get(&lab, BOTH, &format!("/api/atlas/v1.0/groups/{OTHER_GROUP}/clusters?envelope=true")).await;
    assert_snapshot!(empty.body, @r#"{"links":[{"href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af8/clusters?pageNum=1&itemsPerPage=100","rel":"self"}],"results":[],"status":200,"totalCount":0}"#);
}

#[tokio::test]
async fn ops_manager_names_clusters_by_id() {
    let lab = Lab::new().await;
    let path = |cluster: &str| format!("/api/public/v1.0/groups/{GROUP}/clusters/{cluster}/checkpoints/{CHECKPOINT}");
    let reply = lab.get(&path(CLUSTER)).await;
    assert_eq!(reply.status, 200);
    let self_link = reply.json()["links"][0]["href"].as_str().unwrap().to_owned();
    assert_eq!(self_link, format!("{BASE}/api/public/v1.0/groups/{GROUP}/clusters/{CLUSTER}/checkpoints"));
    for (cluster, code) in [("Cluster0", "INVALID_CLUSTER_ID"), ("6b8cd6d580eef54711017eff", "CLUSTER_NOT_FOUND")] {
        assert_eq!(lab.get(&path(cluster)).await.json()["errorCode"], code);
    }
    // A cluster of another project is not there, whoever knows its id.
    let other = format!("/api/public/v1.0/groups/{OTHER_GROUP}/clusters/{CLUSTER}/checkpoints");
    assert_eq!(lab.get_as(BOTH, &other).await.json()["errorCode"], "CLUSTER_NOT_FOUND");
}
