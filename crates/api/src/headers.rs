//! Request headers that mean something only if they are there once.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName};

/// The one value of a header.
pub fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// The media type of the body, without its parameters; empty if that is not plain.
pub fn media_type(headers: &HeaderMap) -> &str {
    only(headers, CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim()
}
