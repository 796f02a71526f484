//! The way of every request: it is let in or refused, answered by its operation, and the reply written
//! as the client wants it, with a refusal's or a panic's in the same form.
//!
//! Under `/api` nothing is said to a client without credentials but the challenge, not even whether
//! a path exists; what is open to everybody is the description of the interface.
//!
//! # Layout
//! - [`short`]: the reply that is at hand
//! - [`admission`]: who asks, from where, how often, and whether it may
//! - [`address`]: where a request comes from
//! - [`record`]: what goes into the audit trail
//! - [`reply`]: replies with all their headers

mod address;
mod admission;
mod record;
mod reply;
mod short;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::header::{ACCEPT, ALLOW, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use stillpoint_catalog::Credential;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::base;
use crate::body;
use crate::describe::Described;
use crate::digest::Verifier;
use crate::error::{Code, Refusal};
use crate::headers::only;
use crate::oauth;
use crate::operations::{Access, Call, Found, Operation, Query, Routes, without_token};
use crate::query::Common;
use crate::rates::{ATLAS_V2, Allowance, Rates};
use crate::reads::{Asking, Reads};
use crate::respond::{Body, JSON, Reply, Style, Written};
use crate::sending::Turns;
use crate::server::{self, Peer};
use crate::state::ApiState;
use crate::surface::Surface;
use crate::version;
use admission::Identified;

pub use admission::{LONGEST_LOGIN, claimed};

/// How long a request with a body may take until its body is there.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a body that nobody wants is waited for, so that its connection can be used again.
const DRAIN: Duration = Duration::from_secs(10);

/// The whole interface.
pub struct Interface {
    pub outside: ApiState,
    pub digest: Verifier,
    pub reads: Reads,
    pub described: Described,
    routes: Routes,
    v2: Rates,
    v1: Option<Rates>,
    audit: Audit,
    /// Files that are on their way.
    pub(crate) sending: Turns,
    /// Writes under way, each of which goes on if its client goes away; and what sends files, which ends then.
    pub(crate) writes: TaskTracker,
}

/// When a request came in.
#[derive(Debug, Clone, Copy)]
struct Moment {
    now: Timestamp,
    uptime: Duration,
    /// The catalog's version. What is read from now on is of this one or newer.
    version: Option<u64>,
}

/// What is known of a request while it is answered, for its reply and for the audit trail.
#[derive(Default)]
struct Known {
    at: Option<Moment>,
    head_only: bool,
    tls: bool,
    style: Style,
    surface: Option<&'static Surface>,
    from: Option<IpAddr>,
    credential: Option<Arc<Credential>>,
    /// Who it says it is, if that was not proved.
    claimed: Option<String>,
    allowance: Option<Allowance>,
    /// Whether it was let in to an operation that changes something.
    write: bool,
    /// Whether the rest of an HTTP/1 request is not read, so that its connection ends.
    close: bool,
}

/// A request that may be answered.
enum Ready {
    /// The reply is at hand.
    Reply(Reply),
    Call(&'static Operation, Box<Call>),
}

impl Interface {
    /// To be made where a runtime is: the audit trail has a task.
    pub fn new(outside: ApiState) -> Interface {
        Interface {
            digest: Verifier::new(outside.random()),
            reads: Reads::default(),
            described: Described::default(),
            routes: Routes::new(),
            v2: Rates::new(ATLAS_V2),
            v1: outside.settings.rate.map(Rates::new),
            audit: Audit::start(outside.catalog.clone(), outside.settings.audit, outside.clock.clone()),
            sending: Turns::default(),
            writes: TaskTracker::new(),
            outside,
        }
    }

    /// Lets writes under way end, and writes what is left of the audit trail; to be called once no more
    /// requests come in.
    pub async fn close(&self, limit: Duration) {
        self.writes.close();
        if tokio::time::timeout(limit, self.writes.wait()).await.is_err() {
            tracing::warn!(writes = self.writes.len(), "writes under way were cut off");
        }
        self.audit.close(limit).await;
    }

    pub async fn answer<B>(self: &Arc<Self>, request: Request<B>, peer: Peer) -> Response<Body>
    where
        B: HttpBody + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let bare = body.is_end_stream();
        // After a panic the long way says what is to be said.
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.at_once(&head, bare, peer))) {
            Ok(short::Early::Answered(response)) => response,
            // Boxed, so that the way above stays cheap.
            Ok(short::Early::Identified(at, who)) => {
                Box::pin(self.answer_in_full(head, body, peer, Some((at, who)))).await
            }
            Ok(short::Early::Unknown) | Err(_) => Box::pin(self.answer_in_full(head, body, peer, None)).await,
        }
    }

    async fn answer_in_full<B>(
        self: &Arc<Self>,
        head: Parts,
        body: B,
        peer: Peer,
        early: Option<(Moment, Identified)>,
    ) -> Response<Body>
    where
        B: HttpBody + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut body = Some(body);
        let head = Arc::new(head);
        let common = Common::parse(head.uri.query().unwrap_or_default());
        let mut known = Known {
            head_only: head.method == Method::HEAD,
            tls: peer.tls,
            // Even what is wrong with the query is said in the plain form.
            style: Style::of(common.clone().unwrap_or_default(), &head.headers),
            surface: Surface::of(head.uri.path()),
            from: self.client_address(&head, peer),
            ..Known::default()
        };
        // What waits for its client is its body; all else has limits of its own.
        let ready =
            tokio::time::timeout(REQUEST_TIMEOUT, caught(self.prepare(&head, &mut body, early, common, &mut known)));
        let ready = ready.await.unwrap_or_else(|_| Err(Refusal::new(Code::Unavailable, [])));
        if let Some(body) = body.take() {
            known.close |= !drained(body, head.version).await;
        }
        let (done, known) = match ready {
            Ok(Ready::Call(operation, call)) if known.write => {
                // A task of its own: what has begun is done and recorded even if the client goes away.
                let (interface, head) = (self.clone(), head.clone());
                let task = self.writes.spawn(async move {
                    let done = caught((operation.handler)(&call)).await;
                    interface.record(&head, &known, &done).await;
                    (done, known)
                });
                // It catches its own panics, and nobody aborts it.
                task.await.unwrap_or_else(|_| (Err(Refusal::new(Code::Unexpected, [])), Known::default()))
            }
            ready => {
                let done = match ready {
                    Ok(Ready::Reply(reply)) => Ok(reply),
                    Ok(Ready::Call(operation, call)) => caught(self.read(operation, &call, &known)).await,
                    Err(refusal) => Err(refusal),
                };
                self.record(&head, &known, &done).await;
                (done, known)
            }
        };
        match done {
            Ok(reply) => reply::whole(reply, &known),
            Err(refusal) => reply::refusal(&refusal, &known),
        }
    }

    /// Lets a request in, finds its operation, and reads its body.
    async fn prepare<B>(
        self: &Arc<Self>,
        head: &Arc<Parts>,
        body: &mut Option<B>,
        early: Option<(Moment, Identified)>,
        common: Result<Common, Refusal>,
        known: &mut Known,
    ) -> Result<Ready, Refusal>
    where
        B: HttpBody + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = head.uri.path();
        let (at, identified) = match early {
            Some((at, identified)) => (at, Some(identified)),
            None => (self.moment()?, None),
        };
        known.at = Some(at);
        let found = self.routes.find(path, &head.method);
        let open = match &found {
            Found::Operation(found) => !found.operation.access.needs_credential(),
            Found::Methods { open, .. } => *open,
            Found::Nothing => false,
        };
        if is_api(path) && !open {
            self.let_in(head, identified, at, known).await?;
        }
        let (operation, parameters) = match found {
            Found::Operation(found) => (found.operation, found.parameters),
            Found::Methods { allowed, .. } => {
                common?;
                let allowed = HeaderValue::try_from(allowed).unwrap_or(HeaderValue::from_static(""));
                return Err(Refusal::new(Code::MethodNotAllowed, [head.method.as_str()]).with(ALLOW, allowed));
            }
            Found::Nothing => {
                common?;
                return Err(Refusal::new(Code::ResourceNotFound, [without_token(path)]));
            }
        };
        match operation.query {
            Query::Nothing => known.style.common = Common::default(),
            _ => known.style.common = common?,
        }
        let media_type = self.media_type(head, operation, at, known)?;

        // Also to a token, a HEAD, or a key with an access list.
        let asking = self.asking(head, known);
        if let Some(asking) = asking
            && let Some(written) = self.reads.reply(at.version, asking)
        {
            return Ok(Ready::Reply(Written::clone(&written).into()));
        }

        let settings = &self.outside.settings;
        let mut call = Call {
            interface: self.clone(),
            head: head.clone(),
            surface: known.surface,
            credential: known.credential.clone(),
            parameters,
            project: None,
            style: known.style,
            media_type,
            base: base::of_request(settings.public_url.as_ref(), known.tls, &head.uri, &head.headers)?,
            now: at.now,
            version: at.version,
            body: Bytes::new(),
        };
        match operation.access {
            Access::Project(role) => call.project = Some(self.project(&call, role).await?),
            // Before a body of somebody unknown is read.
            Access::Client => match oauth::client(&call).await? {
                Ok(account) => {
                    known.credential = Some(account.clone());
                    self.may_come_in(&account, at, known)?;
                    call.credential = Some(account);
                }
                Err(reply) => return Ok(Ready::Reply(reply)),
            },
            Access::Open | Access::SignedIn => {}
        }
        known.write = !matches!(operation.method, Method::GET | Method::HEAD);
        if let Some(described) = &operation.body
            && let Some(body) = body.take()
        {
            // Until it was read to its end.
            known.close = head.version < http::Version::HTTP_2;
            call.body = read(body, described.largest).await?;
            known.close = false;
        }
        Ok(Ready::Call(operation, Box::new(call)))
    }

    /// Answers a request that changes nothing, and remembers the reply if it may be asked for again.
    async fn read(&self, operation: &Operation, call: &Call, known: &Known) -> Result<Reply, Refusal> {
        let reply = (operation.handler)(call).await?;
        // What is in other headers is not remembered.
        if let (Some(written), true, 200) = (&reply.written, reply.headers.is_empty(), reply.status.as_u16())
            && let Some(asking) = self.asking(&call.head, known)
        {
            self.reads.remember(call.version, asking, written);
        }
        Ok(reply)
    }

    fn moment(&self) -> Result<Moment, Refusal> {
        let outside = &self.outside;
        Ok(Moment { now: (outside.clock)(), uptime: (outside.uptime)(), version: outside.catalog.version()? })
    }

    fn client_address(&self, head: &Parts, peer: Peer) -> Option<IpAddr> {
        address::client(peer.address.ip(), &head.headers, &self.outside.settings.trusted_proxies)
    }

    /// The media type of a success: on a surface with versions, that of the one that was asked for.
    fn media_type(
        &self,
        head: &Parts,
        operation: &Operation,
        at: Moment,
        known: &Known,
    ) -> Result<HeaderValue, Refusal> {
        if !known.surface.is_some_and(|surface| surface.versioned) {
            return Ok(JSON);
        }
        let accept: Vec<_> = head.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let today = at.now.to_zoned(TimeZone::UTC).date();
        let resolved = version::resolve(version::requested(&accept.join(",")), operation.versions, today)?;
        Ok(HeaderValue::try_from(resolved.media_type()).unwrap_or(JSON))
    }

    /// What a reply to a request that only reads depends on, besides the catalog; nothing if that is not
    /// plain.
    fn asking<'a>(&self, head: &'a Parts, known: &Known) -> Option<Asking<'a>> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return None;
        }
        let versioned = known.surface.is_some_and(|surface| surface.versioned);
        let fixed = self.outside.settings.public_url.is_some();
        Some(Asking {
            by: known.credential.as_ref()?.id,
            target: target(head),
            host: if fixed { "" } else { base::host(&head.uri, &head.headers).unwrap_or_default() },
            tls: known.tls,
            gzip: known.style.gzip,
            accept: if versioned { only(&head.headers, ACCEPT)? } else { "" },
            // On which a version may have its sunset.
            day: if versioned { known.at?.now.as_second().div_euclid(86_400) } else { 0 },
        })
    }
}

impl server::Service for Interface {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        Interface::answer(self, request, peer).await
    }
}

/// A panic becomes a refusal.
async fn caught<T>(work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done,
        Err(_) => {
            // The panic hook has already said where it was.
            tracing::error!("a request ended in a panic");
            Err(Refusal::new(Code::Unexpected, []))
        }
    }
}

fn is_api(path: &str) -> bool {
    path.strip_prefix("/api").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The raw path and query.
fn target(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("", |target| target.as_str())
}

/// Reads a body that nobody wants, so that the connection can be used again; whether it is read. A large one
/// is not. With HTTP/1 the reply goes out meanwhile: each client that is challenged first sends its body
/// after the challenge. With HTTP/2 a reply before the end of the request resets its stream, which is more
/// than some clients bear.
async fn drained<B>(body: B, http: http::Version) -> bool
where
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.is_end_stream() {
        return true;
    }
    if body.size_hint().lower() > body::LARGEST as u64 {
        return http >= http::Version::HTTP_2;
    }
    let reading = tokio::time::timeout(DRAIN, read(body, body::LARGEST));
    match http >= http::Version::HTTP_2 {
        true => _ = reading.await,
        // As many as there are connections, at most.
        false => _ = tokio::spawn(reading),
    }
    true
}

async fn read<B>(body: B, largest: usize) -> Result<Bytes, Refusal>
where
    B: HttpBody + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Box::pin(Limited::new(body, largest)).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::new(Code::BodyTooLarge, [&largest.to_string()])),
        // The client broke off.
        Err(_) => Err(Refusal::new(Code::MalformedJson, [])),
    }
}
