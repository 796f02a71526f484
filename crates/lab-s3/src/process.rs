//! Within the server's process.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::fail::Failing;
use crate::fault::Command;
use crate::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};

/// The variable that asks a process to be the server.
pub(crate) const ASKED: &str = "STILLPOINT_LAB_S3";
/// What the server's own lines on standard output begin with.
pub(crate) const LINE: &str = "s3 server: ";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) folder: PathBuf,
    /// 0 for any that is free.
    pub(crate) port: u16,
}

/// Is the server until its standard input ends, if this process was started for it; otherwise does nothing.
pub fn serve_if_asked() {
    let Ok(start) = std::env::var(ASKED) else { return };
    let ended = serve(&start);
    if let Err(e) = &ended {
        eprintln!("s3 server: {e:#}");
    }
    std::process::exit(i32::from(ended.is_err()));
}

fn serve(start: &str) -> Result<()> {
    let start: Start = serde_json::from_str(start)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let failing = Arc::new(Failing::new(service(&start.folder)?, start.folder));
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", start.port)))?;
    answer(u64::from(listener.local_addr()?.port()))?;
    runtime.spawn(accept(listener, Arc::clone(&failing)));
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Command::Add(fault) => failing.add(fault),
            Command::Clear => failing.clear(),
            Command::Count => {}
        }
        answer(failing.hits())?;
    }
    Ok(())
}

fn answer(number: u64) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{LINE}{number}")?;
    Ok(output.flush()?)
}

fn service(folder: &Path) -> Result<s3s::service::S3Service> {
    let files = FileSystem::new(folder).ok().context("the S3 server's folder cannot be used")?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    Ok(builder.build())
}

async fn accept(listener: TcpListener, failing: Arc<Failing>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let failing = Arc::clone(&failing);
        tokio::spawn(async move {
            let service = service_fn(move |request| Arc::clone(&failing).call(request));
            // It ends with an error when a fault, or the client, cuts it.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// The file at the folder's top that s3s-fs keeps of an upload in parts until it ends.
pub(crate) fn upload_file(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!(".upload-{id}.json"))
}

pub(crate) fn unfinished_uploads(folder: &Path) -> Result<usize> {
    let mut uploads = 0;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        uploads += usize::from(name.to_string_lossy().starts_with(".upload-"));
    }
    Ok(uploads)
}
