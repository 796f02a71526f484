//! The body of `PATCH …/snapshotSchedule`.

use std::fmt::Debug;

use serde_json::{Map, Value};
use stillpoint_api::body::parse;
use stillpoint_api::error::{Code, Refusal};

/// What the body may have, and no other.
const NAMES: [&str; 10] = [
    "clusterCheckpointIntervalMin",
    "clusterId",
    "dailySnapshotRetentionDays",
    "groupId",
    "links",
    "monthlySnapshotRetentionMonths",
    "pointInTimeWindowHours",
    "snapshotIntervalHours",
    "snapshotRetentionDays",
    "weeklySnapshotRetentionWeeks",
];

type Members = Vec<(String, Value)>;

pub fn check(data: &[u8]) {
    let write = |members: &Members| Value::Object(members.iter().cloned().collect::<Map<_, _>>()).to_string();
    hold(data, |data| Ok(without_fractions(parse(data, &NAMES)?)), write);
}

/// The last digit of a fraction may be another when it is written and read again.
fn without_fractions(mut members: Members) -> Members {
    fn rid(value: &mut Value) {
        match value {
            Value::Number(number) if number.is_f64() => *value = Value::Null,
            Value::Array(items) => items.iter_mut().for_each(rid),
            Value::Object(members) => members.values_mut().for_each(rid),
            _ => {}
        }
    }
    members.iter_mut().for_each(|(_, value)| rid(value));
    members
}

/// What must hold of a reader.
pub fn hold<T: PartialEq + Debug>(data: &[u8], parse: fn(&[u8]) -> Result<T, Refusal>, write: fn(&T) -> String) {
    let read = parse(data);
    assert_eq!(read, parse(data), "read twice");
    let json = serde_json::from_slice::<serde_json::Value>(data);
    match read {
        Ok(change) => {
            assert!(json.is_ok_and(|json| json.is_object()), "taken, and no JSON object");
            let written = write(&change);
            assert_eq!(parse(written.as_bytes()).as_ref(), Ok(&change), "written again as {written}");
            // White space means nothing.
            let spaced = [b" \r\n\t", data, b"\n "].concat();
            assert_eq!(parse(&spaced).as_ref(), Ok(&change));
        }
        Err(refusal) => {
            let document = refusal.document(false);
            assert_eq!(document.error, 400);
            match refusal.code() {
                Code::MalformedJson => assert!(json.is_err(), "refused as malformed, and it is JSON"),
                // Not by `json`, which gives up on what is nested deeply.
                Code::InvalidJson => {
                    assert!(!data.trim_ascii_start().starts_with(b"{"), "refused, and it is an object")
                }
                // It names an attribute that is there. A long one is cut, with an ellipsis.
                Code::InvalidAttribute => {
                    let named = document.parameters[0].trim_end_matches('…');
                    let object = json.ok().and_then(|json| json.as_object().cloned()).unwrap_or_default();
                    assert!(object.keys().any(|key| key.starts_with(named)), "{named:?} is not in the body");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
