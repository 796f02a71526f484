//! The body of a request for a restore: what to restore, and where to.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use stillpoint_core::restore::{LINK_HOURS, Point, USUAL_LINK_HOURS};
use stillpoint_core::{ClusterId, ClusterTime, ProjectId};

use crate::body;
use crate::error::{Code, Refusal};

const DELIVERY: &str = "delivery";
const CHECKPOINT: &str = "checkpointId";
/// As some published pages spell it.
const CHECK_POINT: &str = "checkPointId";
const SNAPSHOT: &str = "snapshotId";
const OPLOG_TS: &str = "oplogTs";
const OPLOG_INC: &str = "oplogInc";
pub(super) const POINT_IN_TIME: &str = "pointInTimeUTCMillis";
/// The fields that a body may have.
pub(super) const FIELDS: &[&str] = &[DELIVERY, CHECKPOINT, CHECK_POINT, SNAPSHOT, OPLOG_TS, OPLOG_INC, POINT_IN_TIME];

const METHOD: &str = "delivery.methodName";
const TARGET_GROUP: &str = "delivery.targetGroupId";
const TARGET_NAME: &str = "delivery.targetClusterName";
const TARGET_ID: &str = "delivery.targetClusterId";
const HOURS: &str = "delivery.expirationHours";
const DOWNLOADS: &str = "delivery.maxDownloads";
/// The methods, and the fields that `delivery` may have with each.
const AUTOMATED: &str = "AUTOMATED_RESTORE";
const AUTOMATED_FIELDS: &[&str] = &[METHOD, TARGET_GROUP, TARGET_NAME, TARGET_ID];
const HTTP: &str = "HTTP";
const HTTP_FIELDS: &[&str] = &[METHOD, HOURS, DOWNLOADS];

/// Days that each month has, and so no date that is none. More is understood than is told: another offset than
/// UTC's, a 29 February.
const DATE: &str = "^(19[7-9][0-9]|20[0-9]{2})-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|\
                    (0[13578]|1[02])-31)T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$";

/// 2008: what is less was not meant as milliseconds.
const EARLIEST: i64 = 1_199_145_600_000;
const LATEST: i64 = u32::MAX as i64 * 1_000 + 999;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub delivery: Delivery,
    pub point: Point,
}

/// Where to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Into(Destination),
    /// As files that are downloaded, within so many hours.
    Download {
        hours: u32,
    },
}

/// A cluster that is kept here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub project: ProjectId,
    pub cluster: Named,
}

/// A cluster as the client calls it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Id(ClusterId),
    Name(String),
}

impl Named {
    /// The field that named it.
    pub fn attribute(&self) -> &'static str {
        match self {
            Named::Id(_) => TARGET_ID,
            Named::Name(_) => TARGET_NAME,
        }
    }
}

impl Destination {
    /// There is no such cluster.
    pub fn no_cluster(&self) -> Refusal {
        let name = match &self.cluster {
            Named::Id(id) => id.to_string(),
            Named::Name(name) => name.clone(),
        };
        Refusal::new(Code::ClusterNotFound, [&name, &self.project.to_string()])
    }
}

fn invalid(name: &str) -> Refusal {
    Refusal::new(Code::InvalidAttribute, [name])
}

fn missing(name: &str) -> Refusal {
    Refusal::new(Code::MissingAttribute, [name])
}

pub(super) fn asked(members: Vec<(String, Value)>) -> Result<Asked, Refusal> {
    let (mut delivery, mut point) = (None, None);
    let (mut seconds, mut increment) = (None, None);
    for (name, value) in members {
        let text = || value.as_str().ok_or_else(|| invalid(&name));
        let one = match name.as_str() {
            DELIVERY => {
                delivery = Some(delivery_of(&value)?);
                continue;
            }
            OPLOG_TS => {
                seconds = Some(seconds_of(&value).ok_or_else(|| invalid(&name))?);
                continue;
            }
            OPLOG_INC => {
                let number = body::whole(&value).and_then(|number| u32::try_from(number).ok());
                increment = Some(number.filter(|number| *number > 0).ok_or_else(|| invalid(&name))?);
                continue;
            }
            SNAPSHOT => Point::Snapshot(text()?.parse().map_err(|_| invalid(&name))?),
            POINT_IN_TIME => {
                let number = body::whole(&value).filter(|number| (EARLIEST..=LATEST).contains(number));
                Point::Millisecond(number.ok_or_else(|| invalid(&name))?)
            }
            _ => Point::Checkpoint(text()?.parse().map_err(|_| invalid(&name))?),
        };
        if point.replace(one).is_some() {
            return Err(invalid(&name));
        }
    }
    let delivery = delivery.ok_or_else(|| missing(DELIVERY))?;
    let point = match (point, seconds, increment) {
        (Some(point), None, None) => point,
        (None, Some(seconds), Some(increment)) => Point::Time(ClusterTime::new(seconds, increment)),
        (None, Some(_), None) => return Err(missing(OPLOG_INC)),
        (None, None, Some(_)) => return Err(missing(OPLOG_TS)),
        (None, None, None) => return Err(missing("checkpointId, snapshotId, oplogTs or pointInTimeUTCMillis")),
        (Some(_), seconds, _) => return Err(invalid(if seconds.is_some() { OPLOG_TS } else { OPLOG_INC })),
    };
    Ok(Asked { delivery, point })
}

fn delivery_of(value: &Value) -> Result<Delivery, Refusal> {
    let Value::Object(members) = value else { return Err(invalid(DELIVERY)) };
    let text = |path: &str| text_of(members, path);
    match text(METHOD)?.ok_or_else(|| missing(METHOD))? {
        AUTOMATED => {
            only(members, AUTOMATED_FIELDS)?;
            destination_of(members).map(Delivery::Into)
        }
        HTTP => {
            only(members, HTTP_FIELDS)?;
            let number = |path| number_of(members, path);
            // Each file goes with its download.
            if number(DOWNLOADS)?.is_some_and(|most| most != 1) {
                return Err(invalid(DOWNLOADS));
            }
            let hours = number(HOURS)?.unwrap_or(USUAL_LINK_HOURS);
            match LINK_HOURS.contains(&hours) {
                true => Ok(Delivery::Download { hours }),
                false => Err(invalid(HOURS)),
            }
        }
        other => Err(Refusal::new(Code::InvalidEnumValue, [other])),
    }
}

fn destination_of(members: &Map<String, Value>) -> Result<Destination, Refusal> {
    let text = |path: &str| text_of(members, path);
    let project = text(TARGET_GROUP)?.ok_or_else(|| missing(TARGET_GROUP))?;
    let project = project.parse().map_err(|_| invalid(TARGET_GROUP))?;
    let cluster = match (text(TARGET_ID)?, text(TARGET_NAME)?) {
        (Some(_), Some(_)) => return Err(invalid(TARGET_ID)),
        (Some(id), None) => Named::Id(id.parse().map_err(|_| invalid(TARGET_ID))?),
        (None, Some(name)) => Named::Name(name.to_owned()),
        (None, None) => return Err(missing(TARGET_NAME)),
    };
    Ok(Destination { project, cluster })
}

/// Refuses whatever is not among the known fields of `delivery`.
fn only(members: &Map<String, Value>, known: &[&str]) -> Result<(), Refusal> {
    let mut paths = members.keys().map(|name| format!("{DELIVERY}.{name}"));
    paths.find(|path| !known.contains(&path.as_str())).map_or(Ok(()), |unknown| Err(invalid(&unknown)))
}

/// A number of `delivery`, if it is there.
fn number_of(members: &Map<String, Value>, path: &str) -> Result<Option<u32>, Refusal> {
    let number = |value| body::whole(value).and_then(|number| u32::try_from(number).ok()).ok_or_else(|| invalid(path));
    members.get(path.trim_start_matches("delivery.")).map(number).transpose()
}

/// A text of `delivery`, if it is there.
fn text_of<'a>(members: &'a Map<String, Value>, path: &str) -> Result<Option<&'a str>, Refusal> {
    let name = path.trim_start_matches("delivery.");
    members.get(name).map(|value| value.as_str().ok_or_else(|| invalid(path))).transpose()
}

/// Seconds since the Unix epoch, or a date of ISO 8601 that has no fraction of a second.
fn seconds_of(value: &Value) -> Option<u32> {
    let second = match value {
        Value::String(text) => {
            let date: Timestamp = text.parse().ok()?;
            (date.subsec_nanosecond() == 0).then(|| date.as_second())?
        }
        number => body::whole(number)?,
    };
    u32::try_from(second).ok()
}

pub(super) fn body_schema() -> Value {
    let id = || json!({"type": "string", "pattern": "^[0-9a-f]{24}$"});
    let described = |mut schema: Value, text: &str| {
        schema["description"] = text.into();
        schema
    };
    let within = |path: &'static str| path.trim_start_matches("delivery.");
    let method = |name: &str| json!({"type": "string", "enum": [name]});
    json!({
        "type": "object",
        "properties": {
            DELIVERY: {
                "oneOf": [
                    {
                        "type": "object",
                        "properties": {
                            within(METHOD): method(AUTOMATED),
                            within(TARGET_GROUP): described(id(), "The project of the cluster to restore into."),
                            within(TARGET_ID): described(id(), "The cluster to restore into, by its id: this, or its name."),
                            within(TARGET_NAME): described(json!({"type": "string", "minLength": 1}), "Its name."),
                        },
                        "required": [within(METHOD), within(TARGET_GROUP)],
                        "oneOf": [{"required": [within(TARGET_ID)]}, {"required": [within(TARGET_NAME)]}],
                        "additionalProperties": false,
                        "description": "Into a cluster that is kept here, and is empty.",
                    },
                    {
                        "type": "object",
                        "properties": {
                            within(METHOD): method(HTTP),
                            within(HOURS): {
                                "type": "integer",
                                "minimum": LINK_HOURS.start(),
                                "maximum": LINK_HOURS.end(),
                                "default": USUAL_LINK_HOURS,
                                "description": "How many hours after the files are ready they can be downloaded.",
                            },
                            within(DOWNLOADS): {
                                "type": "integer",
                                "enum": [1],
                                "default": 1,
                                "description": "How often each file can be downloaded: once.",
                            },
                        },
                        "required": [within(METHOD)],
                        "additionalProperties": false,
                        "description": "As files to be downloaded: of each part an archive for `mongorestore --gzip`.",
                    },
                ],
                "description": "Where to.",
            },
            CHECKPOINT: described(id(), "The checkpoint to restore. `checkPointId` is the same."),
            CHECK_POINT: described(id(), "The same as `checkpointId`."),
            SNAPSHOT: described(id(), "The snapshot to restore."),
            OPLOG_TS: {
                "anyOf": [
                    {"type": "integer", "minimum": 0, "maximum": u32::MAX},
                    {"type": "string", "pattern": DATE},
                ],
                "description": "With `oplogInc`, the last entry of the oplogs to be restored: its second, since the \
                                Unix epoch or as a date, YYYY-MM-DDTHH:MM:SSZ.",
            },
            OPLOG_INC: {
                "type": "integer",
                "minimum": 1,
                "maximum": u32::MAX,
                "description": "The entry's ordinal within its second.",
            },
            POINT_IN_TIME: {
                "type": "integer",
                "minimum": EARLIEST,
                "maximum": LATEST,
                "description": "A time in milliseconds since the Unix epoch. Restored is what was written before its \
                                second began: up to and not including that second, since cluster times do not tell \
                                when within a second an entry was written.",
            },
        },
        "required": [DELIVERY],
        "dependentRequired": {OPLOG_TS: [OPLOG_INC], OPLOG_INC: [OPLOG_TS]},
        "oneOf": [
            {"required": [CHECKPOINT]},
            {"required": [CHECK_POINT]},
            {"required": [SNAPSHOT]},
            {"required": [OPLOG_TS, OPLOG_INC]},
            {"required": [POINT_IN_TIME]},
        ],
        "additionalProperties": false,
        "description": "What to restore, in one of its forms, and where to.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6b8cd6d580eef54711017e89";

    fn of(text: &str) -> Result<Asked, String> {
        asked(body::parse(text.as_bytes(), FIELDS).unwrap()).map_err(|refusal| refusal.to_string())
    }

    /// With a point, into a cluster that is named.
    fn point(text: &str) -> Result<Point, String> {
        let delivery =
            format!(r#""methodName":"AUTOMATED_RESTORE","targetGroupId":"{ID}","targetClusterName":"Cluster1""#);
        of(&format!(r#"{{"delivery":{{{delivery}}}{text}}}"#)).map(|asked| asked.point)
    }

    /// Into what is described.
    fn delivery(text: &str) -> Result<Delivery, String> {
        of(&format!(r#"{{"delivery":{text},"checkpointId":"{ID}"}}"#)).map(|asked| asked.delivery)
    }

    #[test]
    fn each_form_of_a_point_is_read_and_no_two_at_once() {
        let time = |increment| Ok(Point::Time(ClusterTime::new(1_795_521_600, increment)));
        for (text, expected) in [
            (format!(r#","checkpointId":"{ID}""#), Ok(Point::Checkpoint(ID.parse().unwrap()))),
            (format!(r#","checkPointId":"{ID}""#), Ok(Point::Checkpoint(ID.parse().unwrap()))),
            (format!(r#","snapshotId":"{ID}""#), Ok(Point::Snapshot(ID.parse().unwrap()))),
            (r#","pointInTimeUTCMillis":1795521600123"#.into(), Ok(Point::Millisecond(1_795_521_600_123))),
            (r#","pointInTimeUTCMillis":1199145600000"#.into(), Ok(Point::Millisecond(EARLIEST))),
            (r#","pointInTimeUTCMillis":4294967295999"#.into(), Ok(Point::Millisecond(LATEST))),
            (r#","oplogTs":1795521600,"oplogInc":1"#.into(), time(1)),
            (r#","oplogInc":4294967295,"oplogTs":"2026-11-24T12:00:00Z""#.into(), time(u32::MAX)),
            (r#","oplogInc":7.0,"oplogTs":"2026-11-24T14:00:00+02:00""#.into(), time(7)),
        ] {
            assert_eq!(point(&text), expected, "{text}");
        }
        for first in ["checkpointId", "checkPointId", "snapshotId"] {
            for second in ["checkpointId", "checkPointId", "snapshotId"] {
                if first != second {
                    let text = format!(r#","{first}":"{ID}","{second}":"{ID}""#);
                    assert_eq!(point(&text), Err(format!("Invalid attribute {second} specified.")));
                }
            }
            for (text, name) in [
                (r#""pointInTimeUTCMillis":1795521600123"#, "pointInTimeUTCMillis"),
                (r#""oplogTs":1795521600,"oplogInc":1"#, "oplogTs"),
                (r#""oplogInc":1"#, "oplogInc"),
            ] {
                let text = format!(r#","{first}":"{ID}",{text}"#);
                assert_eq!(point(&text), Err(format!("Invalid attribute {name} specified.")));
            }
        }
    }

    #[test]
    fn a_point_that_is_none_is_refused_by_name() {
        let wrong = ["null", "true", "\"\"", "\"x\"", "[]", "{}", "-1", "1.5", "1e99", "18446744073709551616"];
        let of_name =
            |name, more: &[&'static str]| wrong.iter().chain(more).map(move |value| (name, *value)).collect::<Vec<_>>();
        for (name, value) in [
            of_name("checkpointId", &["15"]),
            of_name("checkPointId", &["15"]),
            of_name("snapshotId", &["15", "\"6b8cd6d580eef54711017e8g\""]),
            of_name("pointInTimeUTCMillis", &["15", "1199145599999", "4294967296000", "\"1795521600123\""]),
            of_name("oplogTs", &["4294967296", "\"15\"", "\"2026-11-24T12:00:00.5Z\"", "\"2026-11-24T12:00:00\""]),
            of_name("oplogInc", &["0", "4294967296", "\"1\""]),
        ]
        .concat()
        {
            let expected = Err(format!("Invalid attribute {name} specified."));
            assert_eq!(point(&format!(r#","{name}":{value}"#)), expected, "{value}");
        }
        let missing = |name: &str| Err(format!("The required attribute {name} was not specified."));
        assert_eq!(point(""), missing("checkpointId, snapshotId, oplogTs or pointInTimeUTCMillis"));
        assert_eq!(point(r#","oplogTs":1795521600"#), missing("oplogInc"));
        assert_eq!(point(r#","oplogInc":1"#), missing("oplogTs"));
        assert_eq!(of(&format!(r#"{{"checkpointId":"{ID}"}}"#)).map(|asked| asked.point), missing("delivery"));
    }

    #[test]
    fn a_target_is_named_by_its_project_and_its_id_or_its_name() {
        let of = |text: &str| delivery(&format!(r#"{{"methodName":"AUTOMATED_RESTORE"{text}}}"#));
        let project = ID.parse().unwrap();
        let group = format!(r#","targetGroupId":"{ID}""#);
        let by = |cluster| Ok(Delivery::Into(Destination { project, cluster }));
        assert_eq!(of(&format!(r#"{group},"targetClusterName":"a/b""#)), by(Named::Name("a/b".into())));
        assert_eq!(of(&format!(r#"{group},"targetClusterId":"{ID}""#)), by(Named::Id(ID.parse().unwrap())));
        for (text, expected) in [
            (String::new(), "The required attribute delivery.targetGroupId was not specified."),
            (group.clone(), "The required attribute delivery.targetClusterName was not specified."),
            (r#","targetGroupId":7"#.into(), "Invalid attribute delivery.targetGroupId specified."),
            (r#","targetGroupId":"x""#.into(), "Invalid attribute delivery.targetGroupId specified."),
            (format!(r#"{group},"targetClusterName":null"#), "Invalid attribute delivery.targetClusterName specified."),
            (format!(r#"{group},"targetClusterId":"x""#), "Invalid attribute delivery.targetClusterId specified."),
            (
                format!(r#"{group},"targetClusterId":"{ID}","targetClusterName":"a""#),
                "Invalid attribute delivery.targetClusterId specified.",
            ),
            (
                format!(r#"{group},"targetClusterName":"a","expires":1"#),
                "Invalid attribute delivery.expires specified.",
            ),
            (
                format!(r#"{group},"targetClusterName":"a","expirationHours":1"#),
                "Invalid attribute delivery.expirationHours specified.",
            ),
        ] {
            assert_eq!(of(&text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn files_are_downloaded_once_and_within_hours() {
        let of = |text: &str| delivery(&format!(r#"{{"methodName":"HTTP"{text}}}"#));
        for (text, hours) in [
            ("", 24),
            (r#","maxDownloads":1"#, 24),
            (r#","expirationHours":1"#, 1),
            (r#","expirationHours":168.0,"maxDownloads":1"#, 168),
        ] {
            assert_eq!(of(text), Ok(Delivery::Download { hours }), "{text}");
        }
        for (name, wrong) in [
            ("expirationHours", &["0", "169", "-1", "1.5", "\"1\"", "null", "[]", "4294967297"][..]),
            ("maxDownloads", &["0", "2", "-1", "1.5", "\"1\"", "null", "4294967297"]),
            ("targetGroupId", &["\"6b8cd6d580eef54711017e89\""]),
            ("targetClusterName", &["\"Cluster1\""]),
            ("url", &["\"http://here\""]),
        ] {
            for value in wrong {
                let expected = Err(format!("Invalid attribute delivery.{name} specified."));
                assert_eq!(of(&format!(r#","{name}":{value}"#)), expected, "{value}");
            }
        }
    }

    #[test]
    fn two_methods_are_to_be_had() {
        for (text, expected) in [
            (r#"{"methodName":"http"}"#, "An invalid enumeration value http was specified."),
            (r#"{"methodName":"SCP"}"#, "An invalid enumeration value SCP was specified."),
            (r#"{"methodName":"automated_restore"}"#, "An invalid enumeration value automated_restore was specified."),
            (r#"{"methodName":1}"#, "Invalid attribute delivery.methodName specified."),
            ("{}", "The required attribute delivery.methodName was not specified."),
            ("[]", "Invalid attribute delivery specified."),
            ("null", "Invalid attribute delivery specified."),
            ("\"HTTP\"", "Invalid attribute delivery specified."),
        ] {
            assert_eq!(delivery(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_schema_has_the_fields_that_are_read() {
        let schema = body_schema();
        let names = |value: &Value| {
            let mut names: Vec<_> = value["properties"].as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        let sorted = |names: &[&str]| {
            let mut names: Vec<_> = names.iter().map(|name| name.trim_start_matches("delivery.").to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&schema), sorted(FIELDS));
        let deliveries = &schema["properties"][DELIVERY]["oneOf"];
        assert_eq!(names(&deliveries[0]), sorted(AUTOMATED_FIELDS));
        assert_eq!(names(&deliveries[1]), sorted(HTTP_FIELDS));
    }
}
