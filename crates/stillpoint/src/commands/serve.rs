//! `stillpoint serve`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stillpoint_api::{ApiState, Interface, Options};
use stillpoint_engine::{Engine, Setup};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Log, LogFormat};
use crate::context::{chance, depot, now, open_or_make_catalog};
use crate::error::CliError;
use crate::metrics::{self, BesideApi, Metrics, OnItsOwn};

/// How long the last entries of the audit trail may take.
const AUDIT_WITHIN: Duration = Duration::from_secs(5);

pub async fn run(config: Config) -> Result<(), CliError> {
    start_log(&config.log)?;
    // Before anything is begun: a signal that nobody listens for ends the process where it stands.
    let mut signals = Signals::listen()?;
    let limit = Duration::try_from(config.server.shutdown).unwrap_or_default();
    let Running { engine, server, stop } = tokio::select! {
        started = start(config) => started?,
        () = signals.next() => {
            tracing::info!("stopped before it had started");
            return Ok(());
        }
    };
    signals.next().await;
    tracing::info!("stopping; a second signal stops at once and leaves unfinished checkpoints to the next start");
    let _ = stop.send(true);
    tokio::select! {
        (ended, _) = async { tokio::join!(engine.stop(limit), server) } => match ended {
            true => Ok(()),
            false => Err(CliError::Failed(
                "not everything ended in time: an unfinished checkpoint is ended at the next start; see `stillpoint status`".into(),
            )),
        },
        () = signals.next() => Err(CliError::Failed("stopped at once, by a second signal".into())),
    }
}

/// What was started, and is to be stopped.
struct Running {
    engine: Engine,
    server: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// Nothing is begun before the last wait in here: one that is given up leaves nothing behind.
async fn start(config: Config) -> Result<Running, CliError> {
    refuse_open_plain_http(&config)?;
    let settings = config.api()?;
    let tls = match (&config.server.tls_cert, &config.server.tls_key) {
        (Some(certificate), Some(key)) => {
            let tls = stillpoint_api::tls::follow(config.path(certificate), config.path(key));
            Some(tls.map_err(|e| CliError::Failed(e.to_string()))?)
        }
        _ => None,
    };
    // The port first: when it is taken, nothing has been begun.
    let listener = listen("server.listen", config.server.listen).await?;
    let address = address_of(&listener)?;
    let for_metrics = match config.metrics.listen {
        Some(address) => Some(listen("metrics.listen", address).await?),
        None => None,
    };
    let catalog = open_or_make_catalog(&config)?;

    let depot = depot(&config, catalog.clone()).await?;

    let mut setup = Setup::new(catalog.clone(), depot, Arc::new(now), instance());
    setup.limits = config.limits();
    setup.interval = config.interval()?;
    setup.pace = config.pace();
    setup.retention = config.retention();
    setup.snapshots = config.snapshots()?;
    setup.restores = config.restores()?;
    setup.after_action = crash_point();
    let wake = setup.wake.clone();
    let captures = setup.captures.clone();
    let metrics = Metrics::new(catalog.clone(), Box::new(move |now| captures.reports(now)), Arc::new(now));
    let engine = Engine::start(setup).await?;

    let begun = Instant::now();
    let (clock, uptime) = (Arc::new(now), Arc::new(move || begun.elapsed()));
    let state = ApiState { catalog, wake, clock, uptime, chance: Arc::new(chance), settings };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let limit = Duration::try_from(config.server.shutdown).unwrap_or_default();
    let mut options = Options { tls, ..Options::default() };
    options.limits.drain = limit;
    options.limits.connections = config.server.connections;
    options.limits.per_address = config.server.connections.div_ceil(4);
    options.limits.many_from = config.many_from();
    let (stop, stopping) = watch::channel(false);
    if let Some(listener) = &for_metrics {
        tracing::info!("metrics are at http://{}/metrics", address_of(listener)?);
    }
    let api = Arc::new(Interface::new(state));
    let server = tokio::spawn(serve(api, listener, options, Arc::new(metrics), for_metrics, stopping));
    tracing::info!("stillpoint {} listens on {scheme}://{address}", env!("CARGO_PKG_VERSION"));
    Ok(Running { engine, server, stop })
}

/// The API and the metrics, until they are told to stop.
async fn serve(
    api: Arc<Interface>,
    listener: TcpListener,
    options: Options,
    metrics: Arc<Metrics>,
    for_metrics: Option<TcpListener>,
    stopping: watch::Receiver<bool>,
) {
    let stopped = || {
        let mut stopping = stopping.clone();
        async move {
            // An error means that the sender is gone, which is a shutdown too.
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    };
    match for_metrics {
        Some(own) => {
            let few = Options { tls: None, limits: metrics::limits() };
            tokio::join!(
                stillpoint_api::serve(listener, api.clone(), options, stopped()),
                stillpoint_api::serve(own, Arc::new(OnItsOwn(metrics)), few, stopped()),
            );
        }
        None => {
            let both = Arc::new(BesideApi { metrics, api: api.clone() });
            stillpoint_api::serve(listener, both, options, stopped()).await;
        }
    }
    api.close(AUDIT_WITHIN).await;
}

fn start_log(log: &Log) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|e| CliError::Config(format!("log.filter: {e}")))?;
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let started = match log.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|e| CliError::Failed(e.to_string()))
}

/// API keys in the clear are not to cross a network because somebody forgot.
fn refuse_open_plain_http(config: &Config) -> Result<(), CliError> {
    let server = &config.server;
    if server.tls_cert.is_some() || server.allow_plain_http || server.listen.ip().is_loopback() {
        return Ok(());
    }
    Err(CliError::Config(format!(
        "server.listen = {} can be reached by others, without TLS: set server.tls_cert and server.tls_key, or \
         server.allow_plain_http = true if a proxy in front does TLS",
        server.listen
    )))
}

async fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => CliError::Failed(format!(
            "{address} is in use: is another stillpoint running? Stop it, or set {setting} to another port"
        )),
        _ => CliError::Failed(format!("cannot listen on {address}: {e}")),
    })
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, CliError> {
    listener.local_addr().map_err(|e| CliError::Failed(e.to_string()))
}

/// Names this process in leases: unlike a pid alone, never another's.
fn instance() -> String {
    format!("{}-{:08x}", std::process::id(), chance() as u32)
}

/// What asks the server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, CliError> {
        let of = |kind| signal(kind).map_err(|e| CliError::Failed(e.to_string()));
        Ok(Signals { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    /// Also one that has come since the last was waited for.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// In builds for tests only: `STILLPOINT_CRASH_AFTER=stop-balancer` kills this process, as a power
/// failure would, once that action was performed for the first time.
fn crash_point() -> Option<stillpoint_engine::Hook> {
    if !cfg!(debug_assertions) {
        return None;
    }
    let at = std::env::var("STILLPOINT_CRASH_AFTER").ok()?;
    Some(Arc::new(move |action| {
        if action == at {
            // SAFETY: sends a signal to this very process; no memory is involved.
            unsafe { libc::kill(std::process::id() as i32, libc::SIGKILL) };
            loop {
                std::thread::park();
            }
        }
    }))
}
