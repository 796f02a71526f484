//! Replies with all their headers.

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;

use super::Known;
use crate::error::Refusal;
use crate::rates::Allowance;
use crate::respond::{Reply, Written};

/// A reply that is nothing but its body.
pub fn of(written: &Written, allowance: Option<Allowance>, tls: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(written.bytes.clone()));
    *response.status_mut() = written.status;
    let headers = response.headers_mut();
    headers.reserve(8);
    headers.insert(CONTENT_TYPE, written.media_type.clone());
    if written.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    common(headers, allowance, tls);
    response
}

pub fn whole(reply: Reply, known: &Known, tls: bool) -> Response<Full<Bytes>> {
    let mut response = match reply.written {
        Some(written) => of(&written, known.allowance, tls),
        None => {
            let mut response = Response::new(Full::default());
            common(response.headers_mut(), known.allowance, tls);
            response
        }
    };
    *response.status_mut() = reply.status;
    response.headers_mut().extend(reply.headers);
    response
}

/// A refusal, as the client wants it written; its media type is the same on every surface.
pub fn refusal(refusal: &Refusal, known: &Known, tls: bool) -> Response<Full<Bytes>> {
    let status = refusal.code().status();
    let fields = known.surface.is_some_and(|surface| surface.versioned);
    let mut response = match known.style.one(status, &refusal.document(fields)) {
        Ok(written) => of(&written, known.allowance, tls),
        Err(_) => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    };
    response.headers_mut().extend(refusal.headers().iter().cloned());
    response
}

fn common(headers: &mut HeaderMap, allowance: Option<Allowance>, tls: bool) {
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=300"));
    }
    if let Some(allowance) = allowance {
        headers.insert("ratelimit-limit", allowance.limit.into());
        headers.insert("ratelimit-remaining", allowance.remaining.into());
    }
}
