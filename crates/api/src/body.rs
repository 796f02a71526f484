//! Request bodies: JSON objects whose fields are all known.

use std::fmt;

use http::HeaderMap;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::error::{Code, Refusal};
use crate::headers::media_type;
use crate::version;

/// The largest request body that is read.
pub const LARGEST: usize = 64 * 1024;

/// The members of an object, in the order of the text, repeated ones too.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Members, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        d.deserialize_map(Visit)
    }
}

/// Reads an object, each of whose fields is one of `known` and is there once.
pub fn object(headers: &HeaderMap, body: &[u8], known: &[&str]) -> Result<Vec<(String, Value)>, Refusal> {
    // Nothing is of no type.
    if body.is_empty() {
        return Err(Refusal::new(Code::InvalidJson, []));
    }
    check_media_type(headers)?;
    parse(body, known)
}

/// As [`object`]; no body at all is an empty object.
pub fn optional_object(headers: &HeaderMap, body: &[u8], known: &[&str]) -> Result<Vec<(String, Value)>, Refusal> {
    match body.trim_ascii() {
        [] => Ok(Vec::new()),
        body => object(headers, body, known),
    }
}

/// Without the media type.
pub fn parse(body: &[u8], known: &[&str]) -> Result<Vec<(String, Value)>, Refusal> {
    if serde_json::from_slice::<IgnoredAny>(body).is_err() {
        return Err(Refusal::new(Code::MalformedJson, []));
    }
    let Members(members) = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Refusal::new(Code::InvalidJson, []),
        // Nested too deeply.
        _ => Refusal::new(Code::MalformedJson, []),
    })?;
    for (at, (name, _)) in members.iter().enumerate() {
        if !known.contains(&name.as_str()) || members[..at].iter().any(|(before, _)| before == name) {
            return Err(Refusal::new(Code::InvalidAttribute, [name]));
        }
    }
    Ok(members)
}

/// A whole number, also one that is written as `15.0`: to JSON Schema they are the same.
pub fn whole(value: &Value) -> Option<i64> {
    // Up to here a float has every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float = || value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT);
    value.as_i64().or_else(|| float().map(|number| number as i64))
}

/// JSON, or what clients of v2 call it.
fn check_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let media_type = media_type(headers);
    match media_type.eq_ignore_ascii_case("application/json") || version::date_of(media_type).is_some() {
        true => Ok(()),
        false => Err(Refusal::new(Code::UnsupportedMediaType, [])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        for (text, expected) in [
            ("15", Some(15)),
            ("15.0", Some(15)),
            ("-1", Some(-1)),
            ("1795521600123", Some(1_795_521_600_123)),
            ("1.795521600123e12", Some(1_795_521_600_123)),
            ("9223372036854775807", Some(i64::MAX)),
            ("18446744073709551616", None),
            ("1e99", None),
            ("1.5", None),
            ("\"15\"", None),
            ("null", None),
            ("[15]", None),
        ] {
            assert_eq!(whole(&serde_json::from_str(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn an_object_is_read_and_anything_else_refused() {
        let read = |text: &str| parse(text.as_bytes(), &["a", "b"]).map_err(|refusal| refusal.to_string());
        assert_eq!(read(r#" {"b":1,"a":[2]} "#).unwrap(), [("b".into(), 1.into()), ("a".into(), vec![2].into())]);
        assert_eq!(read("{}").unwrap(), []);
        for (text, error) in [
            (r#"{"a":1,"c":2}"#, "Invalid attribute c specified."),
            (r#"{"a":1,"a":1}"#, "Invalid attribute a specified."),
            (r#"{"\u0061":1,"a":1}"#, "Invalid attribute a specified."),
            ("[]", "The request body must be a JSON object."),
            ("null", "The request body must be a JSON object."),
            ("\"a\"", "The request body must be a JSON object."),
            ("", "The request body is not well-formed JSON."),
            ("{", "The request body is not well-formed JSON."),
            ("{} {}", "The request body is not well-formed JSON."),
            ("{\"a\":NaN}", "The request body is not well-formed JSON."),
            ("{a:1}", "The request body is not well-formed JSON."),
        ] {
            assert_eq!(read(text), Err(error.to_owned()), "{text}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}", &["a"]).is_err());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(read(&deep), Err("The request body is not well-formed JSON.".to_owned()));
    }
}
