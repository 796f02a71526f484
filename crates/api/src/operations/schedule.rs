//! The schedule of a cluster: `snapshotSchedule`.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use stillpoint_catalog::{CatalogError, Cluster};
use stillpoint_core::Role;
use stillpoint_core::schedule::{Schedule, Setting};

use super::{Access, Call, Operation, Query, RequestBody, VERSIONS};
use crate::body;
use crate::document::{ScheduleDocument, interval_min};
use crate::error::{Code, Refusal};
use crate::respond::Reply;

const PATH: &str = "/groups/{groupId}/clusters/{cluster}/snapshotSchedule";
const TAG: &str = "Legacy Backup";
const ABOUT: &str = "The intervals count from now on, and how long snapshots are kept for those that are complete from now \
                     on.";

pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "getGroupClusterSnapshotSchedule",
        method: Method::GET,
        path: PATH,
        access: Access::Project(Role::GroupReadOnly),
        summary: "Get the schedule of a cluster",
        about: ABOUT,
        tag: TAG,
        query: Query::Common,
        body: None,
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<ScheduleDocument>()),
        refusals: &[],
        versions: VERSIONS,
        handler: |call| Box::pin(get(call)),
    },
    Operation {
        id: "updateGroupClusterSnapshotSchedule",
        method: Method::PATCH,
        path: PATH,
        access: Access::Project(Role::GroupOwner),
        summary: "Change the schedule of a cluster",
        about: ABOUT,
        tag: TAG,
        query: Query::Common,
        body: Some(RequestBody::json(true, body_schema)),
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<ScheduleDocument>()),
        refusals: &[Code::InvalidCheckpointInterval],
        versions: VERSIONS,
        handler: |call| Box::pin(change(call)),
    },
];

async fn get(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let schedule = call.catalog().schedule(cluster.id).await?;
    reply(call, &cluster, &schedule)
}

async fn change(call: &Call) -> Result<Reply, Refusal> {
    let cluster = call.cluster().await?;
    let members = body::object(call.headers(), &call.body, &names())?;
    let before = call.catalog().schedule(cluster.id).await?;
    let interval = interval_min(&before, call.interface.outside.settings.interval);
    let changes = changes(members, &cluster, interval)?;
    let after = match changes.as_slice() {
        [] => before,
        changes => call.catalog().change_schedule(cluster.id, changes).await.map_err(|error| match error {
            // Removed since it was looked up.
            CatalogError::Gone(_) => call.no_cluster(cluster.project),
            other => other.into(),
        })?,
    };
    call.interface.outside.wake.notify_waiters();
    reply(call, &cluster, &after)
}

fn reply(call: &Call, cluster: &Cluster, schedule: &Schedule) -> Result<Reply, Refusal> {
    let place = call.place(cluster)?;
    call.one(StatusCode::OK, &ScheduleDocument::new(&place, schedule, call.interface.outside.settings.interval))
}

/// What a client that read the schedule sends back with its changes, too.
const ECHOES: [&str; 3] = ["clusterId", "groupId", "links"];

/// The fields that a body may have.
pub fn names() -> Vec<&'static str> {
    Setting::ALL.iter().map(|setting| setting.name()).chain(ECHOES).collect()
}

/// What the members of a body change. `interval` is what the client was told: it may say so again,
/// though it may be none that can be set.
fn changes(members: Vec<(String, Value)>, cluster: &Cluster, interval: u32) -> Result<Vec<(Setting, u32)>, Refusal> {
    let mut changes = Vec::new();
    for (name, value) in members {
        let invalid = || Refusal::new(Code::InvalidAttribute, [&name]);
        let Some(setting) = Setting::ALL.into_iter().find(|setting| setting.name() == name) else {
            let same = match name.as_str() {
                "clusterId" => value == cluster.id.to_string(),
                "groupId" => value == cluster.project.to_string(),
                _ => value.is_array(),
            };
            if !same {
                return Err(invalid());
            }
            continue;
        };
        let number = body::whole(&value).and_then(|number| u32::try_from(number).ok());
        match (setting, number) {
            (_, Some(number)) if setting.allows(number) => changes.push((setting, number)),
            (Setting::ClusterCheckpointIntervalMin, Some(number)) if number == interval => {}
            (Setting::ClusterCheckpointIntervalMin, _) => {
                return Err(Refusal::new(Code::InvalidCheckpointInterval, [&value.to_string()]));
            }
            _ => return Err(invalid()),
        }
    }
    Ok(changes)
}

fn body_schema() -> Value {
    let mut properties = Map::new();
    for setting in Setting::ALL {
        let allowed = setting.allowed();
        let schema = match allowed {
            [range] => json!({"type": "integer", "minimum": range.start(), "maximum": range.end()}),
            ranges => json!({"type": "integer", "enum": ranges.iter().flat_map(Clone::clone).collect::<Vec<_>>()}),
        };
        properties.insert(setting.name().into(), schema);
    }
    json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "description": "What is to change; all else stays. `clusterId`, `groupId` and `links` may stand in it as they \
                        were read.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        let (now, id) = (jiff::Timestamp::UNIX_EPOCH, "6b8cd6d580eef54711017e89");
        Cluster {
            id: id.parse().unwrap(),
            project: "6b8cd3c380eef5349ef77af7".parse().unwrap(),
            name: "Cluster0".into(),
            identity: String::new(),
            uri: "".into(),
            created: now,
        }
    }

    fn of(text: &str) -> Result<Vec<(Setting, u32)>, String> {
        let members = body::parse(text.as_bytes(), &names()).unwrap();
        changes(members, &cluster(), 2).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn each_setting_takes_its_values_and_no_others() {
        for setting in Setting::ALL {
            let name = setting.name();
            for range in setting.allowed() {
                for value in [*range.start(), *range.end()] {
                    assert_eq!(of(&format!("{{\"{name}\":{value}}}")), Ok(vec![(setting, value)]));
                }
            }
            for value in ["9999", "-1", "7.5", "\"6\"", "null", "true", "[]", "{}", "4294967302", "1e99", "-15.0"] {
                let error = of(&format!("{{\"{name}\":{value}}}")).unwrap_err();
                assert!(error.starts_with("Invalid "), "{name}: {value}: {error}");
            }
        }
        assert_eq!(of(r#"{"snapshotIntervalHours":12.0}"#), Ok(vec![(Setting::SnapshotIntervalHours, 12)]));
        assert_eq!(of("{}"), Ok(vec![]));
        assert_eq!(of(r#"{"clusterCheckpointIntervalMin":2}"#), Ok(vec![]), "as it is");
        assert!(of(r#"{"clusterCheckpointIntervalMin":3}"#).unwrap_err().contains("15, 30 or 60"));
    }

    #[test]
    fn what_was_read_may_be_sent_back_but_not_changed() {
        let same = r#"{"clusterId":"6b8cd6d580eef54711017e89","groupId":"6b8cd3c380eef5349ef77af7","links":[{}]}"#;
        assert_eq!(of(same), Ok(vec![]));
        for other in [r#"{"clusterId":"6b8cd6d580eef54711017e88"}"#, r#"{"groupId":1}"#, r#"{"links":"x"}"#] {
            assert!(of(other).is_err(), "{other}");
        }
    }
}
