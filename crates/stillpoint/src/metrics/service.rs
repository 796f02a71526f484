//! `/metrics`, on an address of its own or beside the API. Nobody needs credentials for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use stillpoint_api::{Body, Interface, Limits, Peer, Service};

use super::Metrics;

const PATH: &str = "/metrics";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What an address of its own needs: a Prometheus or two.
pub fn limits() -> Limits {
    Limits {
        connections: 32,
        per_address: 8,
        header: Duration::from_secs(5),
        header_bytes: 8 * 1024,
        streams: 8,
        drain: Duration::from_secs(5),
        ..Limits::default()
    }
}

/// The figures and nothing else.
pub struct OnItsOwn(pub Arc<Metrics>);

impl Service for OnItsOwn {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>, _: Peer) -> Response<Body> {
        let (head, _) = request.into_parts();
        match head.uri.path() {
            PATH => self.0.answer(&head).await,
            _ => reply(&head, StatusCode::NOT_FOUND, TEXT, "the figures are at /metrics\n".into()),
        }
    }
}

/// The figures, and the API at all other paths.
pub struct BesideApi {
    pub metrics: Arc<Metrics>,
    pub api: Arc<Interface>,
}

impl Service for BesideApi {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        match request.uri().path() {
            PATH => self.metrics.answer(&request.into_parts().0).await,
            _ => Service::answer(&self.api, request, peer).await,
        }
    }
}

impl Metrics {
    async fn answer(&self, head: &Parts) -> Response<Body> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let text = "the figures can only be read\n";
            let mut response = reply(head, StatusCode::METHOD_NOT_ALLOWED, TEXT, text.into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let accepts = |kind| head.headers.get_all(ACCEPT).iter().any(|value| has(value, kind));
        let media_type = if accepts("application/openmetrics-text") { OPEN_METRICS } else { PROMETHEUS };
        match self.page().await {
            Some(page) => reply(head, StatusCode::OK, media_type, page),
            None => reply(head, StatusCode::SERVICE_UNAVAILABLE, TEXT, "the catalog did not answer\n".into()),
        }
    }
}

fn has(value: &HeaderValue, kind: &str) -> bool {
    value.to_str().is_ok_and(|text| text.contains(kind))
}

fn reply(head: &Parts, status: StatusCode, media_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    match head.method == Method::HEAD {
        // Only how long it would be.
        true => _ = headers.insert(CONTENT_LENGTH, body.len().into()),
        false => *response.body_mut() = Either::Left(Full::new(body)),
    }
    response
}
