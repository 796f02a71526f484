//! A TCP proxy before each member, so that the member can be cut off from everybody and mended.
//!
//! Members advertise their proxy's port. Cutting one closes the connections *to* it and refuses
//! new ones; the [`Switchboard`] also breaks those *from* it to other proxied members, so that
//! the member is alone as it would be behind a dead network link.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::ports::Port;

/// Commands that one proxy may have waiting.
const QUEUE: usize = 4;

/// The process ids of the members that are cut off, shared by all proxies of one lab.
#[derive(Debug, Clone)]
pub struct Switchboard(watch::Sender<HashSet<u32>>);

impl Default for Switchboard {
    fn default() -> Self {
        Self(watch::Sender::new(HashSet::new()))
    }
}

impl Switchboard {
    pub fn ban(&self, pid: u32) {
        self.0.send_modify(|pids| {
            pids.insert(pid);
        });
    }

    pub fn allow(&self, pid: u32) {
        self.0.send_modify(|pids| {
            pids.remove(&pid);
        });
    }
}

/// One listening port that leads to one member.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    commands: mpsc::Sender<(Open, oneshot::Sender<Result<()>>)>,
}

type Open = bool;

impl Proxy {
    /// Starts to forward a free port to `upstream`.
    pub async fn start(upstream: String, board: &Switchboard) -> Result<Self> {
        let port = Port::free()?;
        let number = port.number();
        let (commands, queue) = mpsc::channel(QUEUE);
        runtime()?.spawn(serve(port, upstream, board.0.subscribe(), queue));
        let this = Self { port: number, commands };
        this.mend().await?;
        Ok(this)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection and refuses new ones; returns when that is so.
    pub async fn cut(&self) -> Result<()> {
        self.tell(false).await
    }

    /// Accepts connections again; returns when that is so.
    pub async fn mend(&self) -> Result<()> {
        self.tell(true).await
    }

    async fn tell(&self, open: Open) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.commands.send((open, done)).await.ok().context("the proxy's task is gone")?;
        answer.await.context("the proxy's task is gone")?
    }
}

/// A runtime of their own, so that a test that blocks its thread does not cut the network.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("lab-proxy")
                .enable_all()
                .build()
                .ok()
        })
        .as_ref()
        .context("cannot start the proxies' runtime")
}

/// Runs until the [`Proxy`] is dropped; the connections end with it.
async fn serve(
    port: Port,
    upstream: String,
    banned: watch::Receiver<HashSet<u32>>,
    mut commands: mpsc::Receiver<(Open, oneshot::Sender<Result<()>>)>,
) {
    let mut listener: Option<TcpListener> = None;
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = commands.recv() => {
                let Some((open, done)) = command else { return };
                let result = if !open {
                    listener = None;
                    connections.shutdown().await;
                    Ok(())
                } else if listener.is_none() {
                    TcpListener::bind(("127.0.0.1", port.number()))
                        .await
                        .map(|bound| listener = Some(bound))
                        .context("cannot listen on the proxy's port")
                } else {
                    Ok(())
                };
                // Who asked may have stopped waiting.
                let _ = done.send(result);
            }
            accepted = accept => {
                // An error here is a connection that broke before it was accepted.
                if let Ok((client, peer)) = accepted {
                    connections.spawn(forward(client, peer, upstream.clone(), banned.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn forward(mut client: TcpStream, peer: SocketAddr, upstream: String, mut banned: watch::Receiver<HashSet<u32>>) {
    let forwarded = async {
        let mut server = TcpStream::connect(&upstream).await?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        copy_bidirectional(&mut client, &mut server).await
    };
    // `wait_for` looks at the present value first. The sender lives as long as its lab.
    let ban = banned.wait_for(|pids| pids.iter().any(|pid| owns(*pid, peer.port())));
    tokio::select! {
        // How a connection ended is between its two ends.
        _ = forwarded => {}
        _ = ban => {}
    }
}

/// Whether the process holds the socket bound to this local port of 127.0.0.1.
fn owns(pid: u32, port: u16) -> bool {
    let Some(inode) = socket_inode(port) else {
        return false;
    };
    let target = format!("socket:[{inode}]");
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
        fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == target.as_str()))
    })
}

/// The inode of the socket whose *local* end is 127.0.0.1:`port` and which is connected, from
/// `/proc/net/tcp` (see proc_pid_net(5); columns: sl, local, remote, st, …, inode at 9).
fn socket_inode(port: u16) -> Option<String> {
    let local = format!("0100007F:{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        (fields.nth(1)? == local).then_some(())?;
        Some(fields.nth(7)?.to_owned())
    })
}
