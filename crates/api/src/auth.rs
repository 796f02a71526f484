//! The gate before every route: it lets a request in, or refuses it before its body is read, and
//! writes every refusal, a panic's included.
//!
//! Under `/api` nothing is said to a client without credentials but the challenge, not even whether
//! a path exists.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, STRICT_TRANSPORT_SECURITY, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use stillpoint_catalog::ApiKey;
use stillpoint_core::{ProjectId, Role};

use crate::base;
use crate::digest::{Answer, REALM, Verdict};
use crate::error::{Code, Refusal};
use crate::query::Common;
use crate::reads::Asked;
use crate::respond::Style;
use crate::server::Peer;
use crate::state::Api;

/// How long a request with a body may take from its header to its reply.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest public key that is looked up.
const LONGEST_KEY: usize = 128;

/// What the gate found out about a request that it let in.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The project of the key.
    pub project: ProjectId,
    pub role: Role,
    pub style: Style,
    /// The beginning of every link in the reply.
    pub base: String,
    pub uri: Uri,
    pub now: Timestamp,
    /// The catalog's, when the request came in.
    pub version: Option<u64>,
}

impl Ask {
    /// What a reply to this request depends on.
    pub fn asked(&self) -> Asked {
        let target = self.uri.path_and_query().map_or("", |target| target.as_str()).to_owned();
        Asked { project: self.project, target, base: self.base.clone(), gzip: self.style.gzip }
    }
}

impl<S: Sync> FromRequestParts<S> for Ask {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Ask, Refusal> {
        // Only a route outside the gate would have none.
        parts.extensions.remove().ok_or_else(|| Refusal::new(Code::Unexpected, []))
    }
}

/// Lets requests in, and makes every reply complete.
pub async fn gate(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    // In two, since a body cannot be looked at by two threads, and this future may change threads.
    let (mut parts, body) = request.into_parts();
    let tls = peer(&parts).is_some_and(|peer| peer.tls);
    let common = Common::parse(parts.uri.query().unwrap_or_default());
    // Even what is wrong with the query is said in the plain form.
    let style = Style::of(common.clone().unwrap_or_default(), &parts.headers);

    // What waits for its client is its body; all else has limits of its own.
    let has_body = !body.is_end_stream();
    let work = AssertUnwindSafe(async {
        if is_api(parts.uri.path()) {
            match admit(&api, &parts, common, style).await {
                Ok(ask) => match remembered(&api, &parts, &ask) {
                    Some(response) => return response,
                    None => _ = parts.extensions.insert(ask),
                },
                Err(response) => return *response,
            }
        }
        next.run(Request::from_parts(parts, body)).await
    })
    .catch_unwind();
    let done = match has_body {
        true => tokio::time::timeout(REQUEST_TIMEOUT, work).await,
        false => Ok(work.await),
    };
    let mut response = match done {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            // The panic hook has already said where it was.
            tracing::error!("a request ended in a panic");
            Refusal::new(Code::Unexpected, []).into_response()
        }
        Err(_) => Refusal::new(Code::Unavailable, []).into_response(),
    };
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        style.refuse(&mut response, &refusal);
    }
    common_headers(response.headers_mut(), tls);
    response
}

/// The reply to a client that polls, if nothing has changed since it last asked: without a route.
fn remembered(api: &Api, parts: &Parts, ask: &Ask) -> Option<Response> {
    let reply = (parts.method == Method::GET).then(|| api.reads.reply(ask.version, &ask.asked()))??;
    let mut response = Response::new(Body::empty());
    reply.fill(&mut response);
    Some(response)
}

fn common_headers(headers: &mut HeaderMap, tls: bool) {
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=300"));
    }
}

fn is_api(path: &str) -> bool {
    path.strip_prefix("/api").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn peer(parts: &Parts) -> Option<Peer> {
    parts.extensions.get().copied()
}

async fn admit(api: &Api, parts: &Parts, common: Result<Common, Refusal>, style: Style) -> Result<Ask, Box<Response>> {
    let refuse = |refusal: Refusal| Box::new(refusal.into_response());
    let now = (api.outside.clock)();
    let version = api.catalog().version().await.map_err(|error| refuse(error.into()))?;
    let key = match identify(api, parts, now, version).await.map_err(refuse)? {
        Ok(key) => key,
        Err(stale) => {
            let mut response = Refusal::new(Code::UserUnauthorized, []).into_response();
            let challenge = api.digest.challenge(now, (api.outside.chance)(), stale);
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            return Err(Box::new(response));
        }
    };
    let peer = peer(parts);
    check_access_list(&key, peer.map(|peer| peer.address.ip())).map_err(refuse)?;
    common.map_err(refuse)?;
    let tls = peer.is_some_and(|peer| peer.tls);
    let base = base::of_request(api.outside.public_url.as_ref(), tls, &parts.uri, &parts.headers);
    Ok(Ask {
        project: key.project,
        role: key.role,
        style,
        base: base.map_err(refuse)?,
        uri: parts.uri.clone(),
        now,
        version,
    })
}

/// The key that a request was made with; or, if it is to be challenged, whether that is only because
/// its nonce is stale.
async fn identify(
    api: &Api,
    parts: &Parts,
    now: Timestamp,
    version: Option<u64>,
) -> Result<Result<Arc<ApiKey>, bool>, Refusal> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Ok(Err(false)) };
    let Ok(text) = value.to_str() else { return Ok(Err(false)) };
    let answer = match Answer::parse(text, REALM) {
        Ok(answer) if answer.username.len() <= LONGEST_KEY => answer,
        _ => return Ok(Err(false)),
    };
    let key = api.reads.key(api.catalog(), version, &answer.username).await?;
    let ha1 = key.as_ref().map(|key| key.ha1.expose_secret());
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let verdict = api.digest.verify(&answer, parts.method.as_str(), target, ha1, now);
    Ok(match (verdict, key) {
        (Verdict::Accepted, Some(key)) => Ok(key),
        (Verdict::Stale, _) => Err(true),
        _ => Err(false),
    })
}

/// An empty list lets everyone in; another lets nobody in whose address is not known.
fn check_access_list(key: &ApiKey, address: Option<IpAddr>) -> Result<(), Refusal> {
    if key.access_list.is_empty() {
        return Ok(());
    }
    // An IPv4 client of an IPv6 socket.
    let address = address.map(|address| address.to_canonical());
    if address.is_some_and(|address| key.access_list.iter().any(|net| net.contains(&address))) {
        return Ok(());
    }
    let text = address.map_or("unknown".to_owned(), |address| address.to_string());
    Err(Refusal::new(Code::IpAddressNotOnAccessList, [&text]))
}
