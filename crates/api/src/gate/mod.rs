//! The way of every request: it is let in or refused, answered by its operation, and the reply written
//! as the client wants it, with a refusal's or a panic's in the same form.
//!
//! Under `/api` nothing is said to a client without credentials but the challenge, not even whether
//! a path exists; what is open to everybody is the description of the interface.

mod address;
mod identify;
mod reply;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::header::{ACCEPT, ALLOW, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use stillpoint_catalog::{AuditEntry, Credential};
use stillpoint_core::{ProjectId, Role};

use crate::audit::Audit;
use crate::base;
use crate::body;
use crate::digest::Verifier;
use crate::error::{Code, Refusal, shortened};
use crate::operations::{Access, Call, Found, Routes};
use crate::query::Common;
use crate::rates::{ATLAS_V2, Allowance, Rates};
use crate::reads::{Asking, Reads};
use crate::respond::{JSON, Reply, Style, Written};
use crate::server::{self, Peer};
use crate::state::ApiState;
use crate::surface::Surface;
use crate::version;
use identify::{Identified, Scheme};

pub use address::check as check_access_list;
pub use identify::{LONGEST_LOGIN, claimed, only};

/// How long a request with a body may take from its header to its reply.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The whole interface.
pub struct Interface {
    pub outside: ApiState,
    pub digest: Verifier,
    pub reads: Reads,
    routes: Routes,
    v2: Rates,
    v1: Option<Rates>,
    audit: Audit,
}

/// What came of the short way.
enum Early {
    Answered(Response<Full<Bytes>>),
    /// Who asks is known; a count of its nonce was taken, so that it must not be asked again.
    Identified(Identified),
    Unknown,
}

/// What is known of a request while it is answered, for its reply and for the audit trail.
#[derive(Default)]
struct Known {
    at: Option<Timestamp>,
    style: Style,
    surface: Option<&'static Surface>,
    from: Option<IpAddr>,
    credential: Option<Arc<Credential>>,
    /// Who it says it is, if that was not proved.
    claimed: Option<String>,
    allowance: Option<Allowance>,
}

impl Interface {
    /// To be made where a runtime is: the audit trail has a task.
    pub fn new(outside: ApiState) -> Interface {
        let mut secret = [0; 32];
        for piece in secret.chunks_mut(8) {
            piece.copy_from_slice(&(outside.chance)().to_le_bytes());
        }
        Interface {
            digest: Verifier::new(secret),
            reads: Reads::default(),
            routes: Routes::new(),
            v2: Rates::new(ATLAS_V2),
            v1: outside.settings.rate.map(Rates::new),
            audit: Audit::start(outside.catalog.clone(), outside.settings.audit, outside.clock.clone()),
            outside,
        }
    }

    /// Writes what is left of the audit trail; to be called once no more requests come in.
    pub async fn close(&self, limit: Duration) {
        self.audit.close(limit).await;
    }

    pub async fn answer<B>(&self, request: Request<B>, peer: Peer) -> Response<Full<Bytes>>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        // After a panic the long way says what is to be said.
        let early = std::panic::catch_unwind(AssertUnwindSafe(|| self.at_once(&head, peer))).unwrap_or(Early::Unknown);
        match early {
            Early::Answered(response) => response,
            // Boxed, so that the way above stays cheap.
            Early::Identified(identified) => Box::pin(self.answer_in_full(&head, body, peer, Some(identified))).await,
            Early::Unknown => Box::pin(self.answer_in_full(&head, body, peer, None)).await,
        }
    }

    /// The reply to a client that polls with its key, if nothing has changed since it last asked: most
    /// requests are of this kind. Whatever is not plainly so takes the long way.
    fn at_once(&self, head: &Parts, peer: Peer) -> Early {
        let Some(version) = self.outside.catalog.version().ok().flatten() else { return Early::Unknown };
        let now = (self.outside.clock)();
        let key = match self.identify_at_once(head, version, now) {
            Some(Identified::Somebody(key)) => key,
            Some(nobody) => return Early::Identified(nobody),
            None => return Early::Unknown,
        };
        let surface = Surface::of(head.uri.path());
        let style = Style::of(Common::default(), &head.headers);
        let asking = self.asking(key.id, head, peer, style, surface);
        let reply = (head.method == Method::GET && key.access_list.is_empty())
            .then(|| self.reads.reply(Some(version), asking))
            .flatten();
        let Some(reply) = reply else { return Early::Identified(Identified::Somebody(key)) };
        let allowance = self.take(surface, &key, now);
        if let Some(wait) = allowance.and_then(|allowance| allowance.wait) {
            let common = Common::parse(head.uri.query().unwrap_or_default()).unwrap_or_default();
            let known = Known {
                style: Style { common, ..style },
                surface,
                from: self.client_address(head, peer),
                credential: Some(key),
                allowance,
                ..Known::default()
            };
            let refusal = rate_limited(wait);
            self.audit.refusal(entry(head, &known, now, &refusal));
            return Early::Answered(reply::refusal(&refusal, &known, peer.tls));
        }
        Early::Answered(reply::of(&reply, allowance, peer.tls))
    }

    fn client_address(&self, head: &Parts, peer: Peer) -> Option<IpAddr> {
        address::client(peer.address.ip(), &head.headers, &self.outside.settings.trusted_proxies)
    }

    async fn answer_in_full<B>(
        &self,
        head: &Parts,
        body: B,
        peer: Peer,
        identified: Option<Identified>,
    ) -> Response<Full<Bytes>>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let common = Common::parse(head.uri.query().unwrap_or_default());
        let mut known = Known {
            // Even what is wrong with the query is said in the plain form.
            style: Style::of(common.clone().unwrap_or_default(), &head.headers),
            surface: Surface::of(head.uri.path()),
            ..Known::default()
        };
        // What waits for its client is its body; all else has limits of its own.
        let has_body = !body.is_end_stream();
        let work = AssertUnwindSafe(self.work(head, body, peer, identified, common, &mut known)).catch_unwind();
        let done = match has_body {
            true => tokio::time::timeout(REQUEST_TIMEOUT, work).await,
            false => Ok(work.await),
        };
        let done = match done {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => {
                // The panic hook has already said where it was.
                tracing::error!("a request ended in a panic");
                Err(Refusal::new(Code::Unexpected, []))
            }
            Err(_) => Err(Refusal::new(Code::Unavailable, [])),
        };
        self.record(head, &known, &done).await;
        match done {
            Ok(reply) => reply::whole(reply, &known, peer.tls),
            Err(refusal) => reply::refusal(&refusal, &known, peer.tls),
        }
    }

    async fn work<B>(
        &self,
        head: &Parts,
        body: B,
        peer: Peer,
        identified: Option<Identified>,
        common: Result<Common, Refusal>,
        known: &mut Known,
    ) -> Result<Reply, Refusal>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = head.uri.path();
        known.from = self.client_address(head, peer);
        let now = (self.outside.clock)();
        known.at = Some(now);
        let version = self.outside.catalog.version()?;
        let found = self.routes.find(path, &head.method);
        let open = match &found {
            Found::Operation(found) => !found.operation.access.needs_credential(),
            Found::Methods { open, .. } => *open,
            Found::Nothing => false,
        };
        if is_api(path) && !open {
            self.let_in(head, identified, known, now, version).await?;
        }
        let common = common?;
        let found = match found {
            Found::Operation(found) => found,
            Found::Methods { allowed, .. } => {
                let allowed = HeaderValue::try_from(allowed).unwrap_or(HeaderValue::from_static(""));
                return Err(Refusal::new(Code::MethodNotAllowed, [head.method.as_str()]).with(ALLOW, allowed));
            }
            Found::Nothing => return Err(Refusal::new(Code::ResourceNotFound, [path])),
        };
        let mut media_type = JSON;
        if known.surface.is_some_and(|surface| surface.versioned) {
            let accept =
                head.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
            let today = now.to_zoned(TimeZone::UTC).date();
            let asked = version::requested(&accept.join(","));
            let resolved = version::resolve(asked, found.operation.versions, today)?;
            media_type = HeaderValue::try_from(resolved.media_type()).unwrap_or(JSON);
        }

        // Also to a token, a HEAD, or a key with an access list.
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        let asking = known
            .credential
            .as_ref()
            .filter(|_| reads)
            .map(|credential| self.asking(credential.id, head, peer, known.style, known.surface));
        if let Some(asking) = asking
            && let Some(written) = self.reads.reply(version, asking)
        {
            return Ok(Written::clone(&written).into());
        }

        let settings = &self.outside.settings;
        let mut call = Call {
            interface: self,
            surface: known.surface,
            credential: known.credential.clone(),
            parameters: found.parameters,
            project: None,
            from: known.from,
            headers: &head.headers,
            query: head.uri.query().unwrap_or_default(),
            style: Style { common, ..known.style },
            media_type,
            base: base::of_request(settings.public_url.as_ref(), peer.tls, &head.uri, &head.headers)?,
            now,
            version,
            body: Bytes::new(),
        };
        if let Access::Project(role) = found.operation.access {
            call.project = Some(self.project(&call, role).await?);
        }
        if found.operation.body.is_some() {
            call.body = read(body).await?;
        }
        let reply = (found.operation.handler)(&call).await?;
        if let (Some(asking), Some(written), 200) = (asking, &reply.written, reply.status.as_u16()) {
            self.reads.remember(version, asking, written);
        }
        Ok(reply)
    }

    /// Finds out who it is, and whether it may come in from where it is, as often as it does.
    async fn let_in(
        &self,
        head: &Parts,
        identified: Option<Identified>,
        known: &mut Known,
        now: Timestamp,
        version: Option<u64>,
    ) -> Result<(), Refusal> {
        let bearer = known.surface.is_some_and(|surface| surface.bearer);
        let identified = match identified {
            Some(identified) => identified,
            None => self.identify(head, bearer, now, version).await?,
        };
        match identified {
            Identified::Somebody(credential) => known.credential = Some(credential),
            Identified::Nobody { scheme, stale, claimed } => {
                known.claimed = claimed.filter(|_| !stale);
                return Err(self.challenge(scheme, stale, now));
            }
        }
        let Some(credential) = &known.credential else { return Ok(()) };
        address::check(&credential.access_list, known.from)?;
        known.allowance = self.take(known.surface, credential, now);
        match known.allowance.and_then(|allowance| allowance.wait) {
            Some(wait) => Err(rate_limited(wait)),
            None => Ok(()),
        }
    }

    fn challenge(&self, scheme: Scheme, stale: bool, now: Timestamp) -> Refusal {
        let challenge = match scheme {
            Scheme::Digest => self.digest.challenge(now, (self.outside.chance)(), stale),
            Scheme::Bearer => HeaderValue::from_static("Bearer realm=\"MMS Public API\", error=\"invalid_token\""),
        };
        Refusal::new(Code::UserUnauthorized, []).with(http::header::WWW_AUTHENTICATE, challenge)
    }

    fn take(&self, surface: Option<&Surface>, credential: &Credential, now: Timestamp) -> Option<Allowance> {
        let rates = match surface?.versioned {
            true => &self.v2,
            false => self.v1.as_ref()?,
        };
        Some(rates.take(credential.id, now))
    }

    /// What a reply to this request depends on, besides the catalog.
    fn asking<'a>(
        &self,
        by: stillpoint_core::CredentialId,
        head: &'a Parts,
        peer: Peer,
        style: Style,
        surface: Option<&Surface>,
    ) -> Asking<'a> {
        let fixed = self.outside.settings.public_url.is_some();
        let accept = head.headers.get(ACCEPT).filter(|_| surface.is_some_and(|surface| surface.versioned));
        Asking {
            by,
            target: target(head),
            host: if fixed { "" } else { base::host(&head.uri, &head.headers).unwrap_or_default() },
            tls: peer.tls,
            gzip: style.gzip,
            accept: accept.map_or(b"", HeaderValue::as_bytes),
        }
    }

    /// The project of the path, if the credential has the role there.
    async fn project(&self, call: &Call<'_>, needed: Role) -> Result<ProjectId, Refusal> {
        let text = call.parameter("groupId");
        let id: ProjectId = text.parse().map_err(|_| Refusal::new(Code::InvalidGroupId, [text]))?;
        let credential = call.credential()?;
        match credential.roles.get(&id) {
            // Whoever has a role in a project has one in a project that exists.
            Some(role) if *role >= needed => return Ok(id),
            Some(_) => return Err(Refusal::new(Code::AccessForbidden, [text])),
            None => {}
        }
        let project = self.outside.catalog.project(id).await?;
        let project = project.ok_or_else(|| Refusal::new(Code::GroupNotFound, [text]))?;
        if project.organization != credential.organization {
            let challenge = self.digest.challenge(call.now, (self.outside.chance)(), false);
            return Err(Refusal::new(Code::NotInGroup, [text]).with(http::header::WWW_AUTHENTICATE, challenge));
        }
        Err(Refusal::new(Code::AccessForbidden, [text]))
    }

    /// Every write, and whatever was refused for who it is or where it comes from. A client's first
    /// request without credentials, or with a nonce that has become stale, is no refusal yet.
    async fn record(&self, head: &Parts, known: &Known, done: &Result<Reply, Refusal>) {
        let Some(now) = known.at else { return };
        let write = known.credential.is_some() && !matches!(head.method, Method::GET | Method::HEAD);
        match done {
            Ok(Reply { status, audit: Some(note), .. }) => {
                let entry = entry_of(head, known, now, status.as_u16(), note.error);
                let entry = AuditEntry { actor: note.actor.clone(), ..entry };
                match note.error {
                    None => self.audit.write(entry).await,
                    Some(_) => self.audit.refusal(entry),
                }
            }
            Ok(reply) if write => self.audit.write(entry_of(head, known, now, reply.status.as_u16(), None)).await,
            Err(refusal) if write && !matches!(refusal.code().status().as_u16(), 401 | 403 | 429) => {
                self.audit.write(entry(head, known, now, refusal)).await;
            }
            Err(refusal) => match refusal.code() {
                Code::UserUnauthorized if known.claimed.is_none() => {}
                Code::UserUnauthorized
                | Code::NotInGroup
                | Code::AccessForbidden
                | Code::IpAddressNotOnAccessList
                | Code::RateLimited => self.audit.refusal(entry(head, known, now, refusal)),
                _ => {}
            },
            Ok(_) => {}
        }
    }
}

impl server::Service for Interface {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Full<Bytes>> {
        Interface::answer(self, request, peer).await
    }
}

fn entry(head: &Parts, known: &Known, now: Timestamp, refusal: &Refusal) -> AuditEntry {
    let (status, name, _) = refusal.code().row();
    entry_of(head, known, now, status.as_u16(), Some(name))
}

fn entry_of(head: &Parts, known: &Known, now: Timestamp, status: u16, error: Option<&str>) -> AuditEntry {
    let actor = known.credential.as_ref().map(|credential| credential.login.clone());
    AuditEntry {
        at: now,
        actor: actor.or_else(|| known.claimed.clone()),
        from: known.from.map(|address| address.to_string()),
        // A query may be anything; what is done to what is in the path.
        action: shortened(&format!("{} {}", head.method, head.uri.path())),
        status: Some(status),
        error: error.map(str::to_owned),
    }
}

fn rate_limited(wait: u64) -> Refusal {
    Refusal::new(Code::RateLimited, [&wait.to_string()]).with(http::header::RETRY_AFTER, wait.into())
}

fn is_api(path: &str) -> bool {
    path.strip_prefix("/api").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The raw path and query.
fn target(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("", |target| target.as_str())
}

async fn read<B>(body: B) -> Result<Bytes, Refusal>
where
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Box::pin(Limited::new(body, body::LARGEST)).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Refusal::new(Code::BodyTooLarge, [&body::LARGEST.to_string()]))
        }
        // The client broke off.
        Err(_) => Err(Refusal::new(Code::MalformedJson, [])),
    }
}
