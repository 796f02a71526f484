//! Replies with all their headers.

use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, STRICT_TRANSPORT_SECURITY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};

use super::Known;
use crate::error::Refusal;
use crate::respond::{Body, Reply, Written};

/// A reply that is nothing but its body.
pub fn of(written: &Written, known: &Known) -> Response<Body> {
    let mut response = with_status(written.status, known);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, written.media_type.clone());
    if written.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    match known.head_only {
        // Not even HTTP/2 may send the body then, but it says how long it would be.
        true => _ = headers.insert(CONTENT_LENGTH, written.bytes.len().into()),
        false => *response.body_mut() = Either::Left(Full::new(written.bytes.clone())),
    }
    response
}

pub fn whole(reply: Reply, known: &Known) -> Response<Body> {
    let mut response = match &reply.written {
        Some(written) => of(written, known),
        None => with_status(reply.status, known),
    };
    response.headers_mut().extend(reply.headers);
    if let Some(file) = reply.file {
        *response.body_mut() = Either::Right(file);
    }
    response
}

/// A refusal, as the client wants it written; its media type is the same on every surface.
pub fn refusal(refusal: &Refusal, known: &Known) -> Response<Body> {
    let status = refusal.code().status();
    let fields = known.surface.is_some_and(|surface| surface.versioned);
    let mut response = match known.style.one(status, &refusal.document(fields)) {
        Ok(written) => of(&written, known),
        Err(_) => with_status(StatusCode::INTERNAL_SERVER_ERROR, known),
    };
    response.headers_mut().extend(refusal.headers().iter().cloned());
    response
}

/// With the headers that every reply has.
fn with_status(status: StatusCode, known: &Known) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(8);
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if known.close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if known.tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=300"));
    }
    if let Some(allowance) = known.allowance {
        headers.insert("ratelimit-limit", allowance.limit.into());
        headers.insert("ratelimit-remaining", allowance.remaining.into());
    }
    response
}
