//! What the server's memory is with many connections, and after many challenges that nobody answered.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::client::{Login, Request, connect, receive, unanswered};
use crate::report::{Limit, Report};
use crate::served::Served;
use crate::usage::{Memory, raise_open_files};

const CONNECTIONS: usize = 10_000;
/// After which a connection that was not answered counts as one that the server did not take.
const PATIENCE: Duration = Duration::from_secs(2);
const IDLE_MIB: Limit = Limit::AtMost(32.0);
const CONNECTION_KIB: Limit = Limit::AtMost(32.0);
const CHALLENGES_MIB: Limit = Limit::AtMost(4.0);
const CHALLENGES: usize = 1_000_000;
const FLOODS: usize = 4;
/// Requests that are sent before the first of their replies is read.
const PIPELINED: usize = 50;

/// Wants a server that has done nothing yet.
pub async fn measure(report: &mut Report, binary: &std::path::Path) -> Result<()> {
    let (was, is) = raise_open_files()?;
    let served = Served::start(binary).await?;
    let pid = served.listening.pid;
    let idle = Memory::of(pid)?;
    report.ratio("memory, idle, MiB", mib(idle.now), IDLE_MIB, idle);

    let open = open_connections(&served)?;
    let many = Memory::of(pid)?;
    let each = many.now.saturating_sub(idle.now) as f64 / open.len() as f64;
    let taken = format!("{many} with {} of {CONNECTIONS}; open files {was}, raised to {is}", open.len());
    report.ratio("memory of an open connection, KiB", each, CONNECTION_KIB, taken);
    drop(open);
    served.stop().await?;

    let served = Served::start(binary).await?;
    let pid = served.listening.pid;
    let idle = Memory::of(pid)?;
    flood(&served)?;
    let after = Memory::of(pid)?;
    let grown = mib(after.now.saturating_sub(idle.now));
    let figures = format!("{after} after {CHALLENGES}; before {idle}");
    report.ratio("memory of unanswered challenges, MiB", grown, CHALLENGES_MIB, figures);
    served.stop().await
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Opens connections, each with one request that was answered, until they are enough or the server takes
/// no more. Quick: it closes those that are idle for ten seconds.
fn open_connections(served: &Served) -> Result<Vec<TcpStream>> {
    let (port, target) = (served.listening.port, &served.seeds.one);
    let login = &mut Login::ask(&mut connect(port, PATIENCE)?, &served.seeds.user, target)?;
    let mut request = Request::new(login, "GET", target);
    let mut buffer = vec![0; 4096];
    let mut open = Vec::new();
    while open.len() < CONNECTIONS {
        let Ok(mut stream) = connect(port, PATIENCE) else { break };
        stream.write_all(request.sign(login))?;
        if receive(&mut stream, &mut buffer).is_err() {
            break;
        }
        ensure!(buffer.starts_with(b"HTTP/1.1 200"), "a connection was refused");
        open.push(stream);
    }
    Ok(open)
}

/// Asks without credentials, over a few connections.
fn flood(served: &Served) -> Result<()> {
    let request = unanswered(&served.seeds.one);
    let requests = request.repeat(PIPELINED);
    let mut buffer = vec![0; 4096];
    let mut streams = Vec::new();
    // All challenges are of the same length.
    let mut length = 0;
    for _ in 0..FLOODS {
        let mut stream = connect(served.listening.port, PATIENCE)?;
        stream.write_all(request.as_bytes())?;
        length = receive(&mut stream, &mut buffer)?.end;
        streams.push(stream);
    }
    let mut replies = vec![0; length * PIPELINED];
    for _ in 0..CHALLENGES / PIPELINED / FLOODS {
        for stream in &mut streams {
            stream.write_all(requests.as_bytes())?;
        }
        for stream in &mut streams {
            stream.read_exact(&mut replies)?;
            ensure!(replies.chunks(length).all(|reply| reply.starts_with(b"HTTP/1.1 401")), "not a challenge");
        }
    }
    Ok(())
}
