//! The floor for requests: bare routes that return the bytes of a file, in a process of their own, as
//! the server is.

use std::io::BufRead;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use axum::http::header;
use axum::routing::get;
use stillpoint_lab::process;

use crate::load::Listening;

/// Serves the file's bytes on a free port of the loopback, and prints the port.
pub async fn serve(file: &str) -> Result<()> {
    let bytes = axum::body::Bytes::from(std::fs::read(file)?);
    let json = [(header::CONTENT_TYPE, "application/json")];
    let route = get(move || async move { (json, bytes) });
    let list = "/api/atlas/v1.0/groups/{group}/clusters/{cluster}/backupCheckpoints";
    let one = format!("{list}/{{checkpoint}}");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    axum::serve(listener, axum::Router::new().route(list, route.clone()).route(&one, route)).await?;
    Ok(())
}

/// A process that serves some bytes.
pub struct Bare {
    child: Child,
    pub listening: Listening,
}

impl Bare {
    pub fn start(bytes: &[u8]) -> Result<Bare> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), bytes)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bare").arg(file.path()).stdout(Stdio::piped());
        let mut child = process::spawn(command)?;
        let mut line = String::new();
        // It has read the file before it prints the port.
        std::io::BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let listening = Listening { pid: child.id(), port: line.trim().parse()? };
        Ok(Bare { child, listening })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Fails only for one that ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
