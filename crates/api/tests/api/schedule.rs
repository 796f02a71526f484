//! `snapshotSchedule`.

use std::time::Duration;

use insta::assert_snapshot;
use stillpoint_api::Settings;

use crate::support::{CLUSTER, GROUP, Lab, OWNER, READER, Reply};

fn path() -> String {
    format!("/api/atlas/v1.0/groups/{GROUP}/clusters/Cluster0/snapshotSchedule")
}

async fn patch(lab: &Lab, body: &str) -> Reply {
    lab.ask_with(OWNER, "PATCH", &path(), &[("content-type", "application/json")], body).await
}

#[tokio::test]
async fn a_schedule_is_read_changed_and_read_again() {
    let lab = Lab::with(Settings { interval: Some(Duration::from_secs(3_600)), ..Settings::default() }).await;
    let before = lab.get(&format!("{}?pretty=true", path())).await;
    assert_snapshot!(before.body, @r#"
    {
      "clusterCheckpointIntervalMin":60,
      "clusterId":"6b8cd6d580eef54711017e89",
      "dailySnapshotRetentionDays":7,
      "groupId":"6b8cd3c380eef5349ef77af7",
      "links":[
        {
          "href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0/snapshotSchedule",
          "rel":"self"
        },
        {
          "href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7/clusters/Cluster0",
          "rel":"http://mms.mongodb.com/cluster"
        },
        {
          "href":"http://backup.example.net/api/atlas/v1.0/groups/6b8cd3c380eef5349ef77af7",
          "rel":"http://mms.mongodb.com/group"
        }
      ],
      "monthlySnapshotRetentionMonths":13,
      "pointInTimeWindowHours":24,
      "snapshotIntervalHours":6,
      "snapshotRetentionDays":2,
      "weeklySnapshotRetentionWeeks":4
    }
    "#);
    let mut woken = std::pin::pin!(lab.wake.notified());
    woken.as_mut().enable();
    let changed = patch(&lab, r#"{"clusterCheckpointIntervalMin":15,"weeklySnapshotRetentionWeeks":52}"#).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    tokio::time::timeout(Duration::from_secs(1), woken).await.expect("the engine is woken");
    let mut expected = before.json();
    expected["clusterCheckpointIntervalMin"] = 15.into();
    expected["weeklySnapshotRetentionWeeks"] = 52.into();
    assert_eq!(changed.json(), expected);
    assert_eq!(lab.get(&path()).await.json(), expected);
    // A client that reads, changes and writes back.
    expected["snapshotIntervalHours"] = 12.into();
    assert_eq!(patch(&lab, &expected.to_string()).await.json(), expected);
    // By another name, on the Ops Manager surface.
    let alias =
        lab.get(&format!("/api/public/v1.0/groups/{GROUP}/backupConfigs/{CLUSTER}/snapshotSchedule")).await.json();
    assert_eq!(alias["snapshotIntervalHours"], 12);
}

#[tokio::test]
async fn an_interval_that_is_only_configured_is_shown_in_minutes() {
    for (interval, shown) in [(None, 0), (Some(5), 1), (Some(60), 1), (Some(61), 2), (Some(900), 15)] {
        let interval = interval.map(Duration::from_secs);
        let lab = Lab::with(Settings { interval, ..Settings::default() }).await;
        let schedule = lab.get(&path()).await.json();
        assert_eq!(schedule["clusterCheckpointIntervalMin"], shown);
        assert_eq!(patch(&lab, &schedule.to_string()).await.status, 200, "what was read may be written");
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let lab = Lab::new().await;
    let before = lab.get(&path()).await.body;
    let mut lines = Vec::new();
    for body in [
        r#"{"clusterCheckpointIntervalMin":20}"#,
        r#"{"clusterCheckpointIntervalMin":"15"}"#,
        r#"{"clusterCheckpointIntervalMin":null}"#,
        r#"{"snapshotIntervalHours":8,"snapshotRetentionDays":6}"#,
        r#"{"snapshotIntervalHours":8,"snapshotIntervalHours":8}"#,
        r#"{"snapshotIntervalHours":8,"unknown":1}"#,
        r#"{"snapshotIntervalHours":8,"groupId":"6b8cd3c380eef5349ef77aff"}"#,
        r#"{"snapshotIntervalHours":8.5}"#,
        r#"{"\u0000":8}"#,
        "[]",
        "",
    ] {
        let reply = patch(&lab, body).await;
        let json = reply.json();
        lines.push(format!("{} {} {}", json["error"], json["errorCode"], json["parameters"]));
    }
    assert_snapshot!(lines.join("\n"), @r#"
    400 "INVALID_CLUSTER_CHECKPOINT_INTERVAL" ["20"]
    400 "INVALID_CLUSTER_CHECKPOINT_INTERVAL" ["\"15\""]
    400 "INVALID_CLUSTER_CHECKPOINT_INTERVAL" ["null"]
    400 "INVALID_ATTRIBUTE" ["snapshotRetentionDays"]
    400 "INVALID_ATTRIBUTE" ["snapshotIntervalHours"]
    400 "INVALID_ATTRIBUTE" ["unknown"]
    400 "INVALID_ATTRIBUTE" ["groupId"]
    400 "INVALID_ATTRIBUTE" ["snapshotIntervalHours"]
    400 "INVALID_ATTRIBUTE" ["\u0000"]
    400 "INVALID_JSON" []
    400 "INVALID_JSON" []
    "#);
    assert_eq!(lab.get(&path()).await.body, before);
    let refused = lab.ask_with(READER, "PATCH", &path(), &[("content-type", "application/json")], "{}").await;
    assert_eq!(refused.status, 403);
}
