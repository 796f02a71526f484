//! Connections: their limits, TLS, and a shutdown that lets requests under way finish.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::respond::Body;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    pub tls: bool,
}

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: Peer) -> impl Future<Output = Response<Body>> + Send;
}

/// How to serve.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What new connections use, see [`crate::tls::follow`]; plain HTTP without it.
    pub tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    pub limits: Limits,
}

/// What a connection may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections. Further ones wait in the kernel's queue until one closes.
    pub connections: usize,
    /// Open connections from one address, so that nobody takes all; further ones are closed at once.
    pub per_address: usize,
    /// From where there may be any number: the machine itself, and proxies that many are behind.
    pub many_from: Vec<IpNet>,
    /// For the TLS handshake, and for a first request.
    pub header: Duration,
    /// How long a connection may be idle after that, or take for a further request's header. Longer than
    /// clients usually keep theirs, or they would send a request as it is closed.
    pub idle: Duration,
    /// Bytes of a request's header.
    pub header_bytes: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// How long a shutdown waits for requests under way; and an idle connection for its last bytes.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1024,
            per_address: 256,
            many_from: Vec::new(),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            header_bytes: 32 * 1024,
            streams: 100,
            drain: Duration::from_secs(30),
        }
    }
}

/// Serves until `shutdown` is done; then accepts no more, lets requests under way finish within
/// [`Limits::drain`], and gives the number of connections that had to be cut off.
pub async fn serve(
    listener: TcpListener,
    service: Arc<impl Service>,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> usize {
    let room = Arc::new(Semaphore::new(options.limits.connections));
    let (stop, stopping) = watch::channel(());
    let server =
        Arc::new(Server { builder: builder(&options.limits), tls: options.tls, limits: options.limits, service });
    let mut connections = JoinSet::new();
    let from = Arc::new(PerAddress::default());
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (stream, address, permit) = accept(&listener, &room) => {
                let Some(one) = from.one_more(address.ip(), &server.limits) else {
                    tracing::debug!(%address, "closed: it has as many connections as one address may have");
                    continue;
                };
                let (server, stopping) = (server.clone(), stopping.clone());
                connections.spawn(async move {
                    server.connection(stream, address, stopping).await;
                    drop((permit, one));
                });
            }
        }
    }

    // Closed before the wait, so that new clients are told at once.
    drop(listener);
    drop(stop);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(server.limits.drain, all).await.is_err() {
        tracing::warn!(connections = connections.len(), "cut off at shutdown");
    }
    let cut_off = connections.len();
    connections.shutdown().await;
    cut_off
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        // Holds the header, so it is what limits it; hyper wants 8 KiB at least.
        .max_buf_size(limits.header_bytes.max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.streams)
        // What clients may send ahead of what is read: bodies here are small.
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(128 * 1024)
        .keep_alive_interval(limits.idle / 2)
        .keep_alive_timeout(limits.header);
    builder
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, address)) => return (stream, address, permit),
            Err(error) => pause_after(&error).await,
        }
    }
}

/// A client that went away meanwhile is nothing; but without file handles left, trying again at once
/// would only burn the processor.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "a connection could not be accepted");
        sleep(Duration::from_millis(200)).await;
    }
}

/// How many connections there are from each address.
#[derive(Default)]
struct PerAddress(Mutex<HashMap<IpAddr, usize>>);

/// One connection from an address; none counts where any number may be.
struct One(Option<(Arc<PerAddress>, IpAddr)>);

impl PerAddress {
    fn one_more(self: &Arc<Self>, address: IpAddr, limits: &Limits) -> Option<One> {
        let address = address.to_canonical();
        if limits.many_from.iter().any(|net| net.contains(&address)) {
            return Some(One(None));
        }
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= limits.per_address {
            return None;
        }
        *count += 1;
        Some(One(Some((self.clone(), address))))
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let Some((all, address)) = &self.0 else { return };
        let mut counts = all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(address);
            }
        }
    }
}

struct Server<S> {
    builder: auto::Builder<TokioExecutor>,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    limits: Limits,
    service: Arc<S>,
}

/// Whether anything goes on on a connection.
#[derive(Default)]
struct Activity {
    under_way: AtomicUsize,
    /// Since it was last looked at.
    seen: AtomicBool,
}

/// One request under way, also if its client goes away in the middle of it.
struct UnderWay<'a>(&'a Activity);

impl<'a> UnderWay<'a> {
    fn begin(activity: &'a Activity) -> UnderWay<'a> {
        activity.under_way.fetch_add(1, Ordering::Relaxed);
        activity.seen.store(true, Ordering::Relaxed);
        UnderWay(activity)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.seen.store(true, Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that is sent. Each piece of it that is taken is something that goes on; a client that takes none is not
/// waited for.
struct Watched {
    body: Body,
    activity: Arc<Activity>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.activity.seen.store(true, Ordering::Relaxed);
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Activity {
    /// Done once nothing went on for `first`, or, after a first request, for `idle` to twice that.
    async fn ends(&self, first: Duration, idle: Duration) {
        let mut wait = first;
        loop {
            sleep(wait).await;
            let seen = self.seen.swap(false, Ordering::Relaxed);
            if !seen && self.under_way.load(Ordering::Relaxed) == 0 {
                return;
            }
            wait = idle;
        }
    }
}

impl<T: Service> Server<T> {
    async fn connection(&self, stream: TcpStream, address: SocketAddr, mut stopping: watch::Receiver<()>) {
        // Replies are small: none should wait for more.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.http(stream, Peer { address, tls: false }, stopping).await;
        };
        let acceptor = TlsAcceptor::from(tls.borrow().clone());
        let handshake = tokio::select! {
            handshake = timeout(self.limits.header, acceptor.accept(stream)) => handshake,
            _ = stopping.changed() => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.http(stream, Peer { address, tls: true }, stopping).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn http<S>(&self, stream: S, peer: Peer, mut stopping: watch::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let activity = Arc::new(Activity::default());
        let service = service_fn(|request: Request<Incoming>| {
            let (service, activity) = (self.service.clone(), activity.clone());
            async move {
                let under_way = UnderWay::begin(&activity);
                let response = service.answer(request, peer).await;
                drop(under_way);
                Ok::<_, Infallible>(response.map(|body| Watched { body, activity }))
            }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let wait = tokio::select! {
            done = connection.as_mut() => return ended(done),
            // The sender is gone: the server stops. `serve` ends the wait, perhaps sooner.
            _ = stopping.changed() => self.limits.drain,
            // Nothing is under way: not even a whole header has come.
            () = activity.ends(self.limits.header, self.limits.idle) => self.limits.header.min(self.limits.drain),
        };
        connection.as_mut().graceful_shutdown();
        match timeout(wait, connection).await {
            Ok(done) => ended(done),
            Err(_) => tracing::debug!("a connection did not end in time"),
        }
    }
}

/// What goes wrong with one connection is its client's affair.
fn ended(done: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = done {
        tracing::debug!(error, "a connection broke");
    }
}
