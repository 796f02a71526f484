//! The clients that are scripts, a test each.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::packages::{clean, node, python};
use crate::process::run;
use crate::seed::{owner, reader};
use crate::server::{Report, Server, tells_no_secret};
use crate::surfaces::SURFACES;

/// A hundred requests and fewer.
const LIMIT: Duration = Duration::from_secs(120);

/// A file beside this one.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Runs a script on every surface; `command` is all that comes before its arguments.
async fn on_every_surface(command: impl Fn() -> Command) {
    for surface in &SURFACES {
        let server = Server::start().await;
        let mut command = command();
        command.args([&server.base, &surface.collection(&server.seed)]);
        command.envs([("CLIENT_OWNER", owner()), ("CLIENT_READER", reader())]);
        command.envs([("CLIENT_ACCEPT", surface.accept), ("CLIENT_CLUSTER", &(surface.cluster)(&server.seed))]);
        let ended = run(command, LIMIT);
        tells_no_secret(&format!("{ended:?}"));
        let report: Report = serde_json::from_str(&ended.ok()).unwrap();
        server.bears_out(&report).await;
    }
}

#[tokio::test]
async fn curl() {
    // Needs no package.
    on_every_surface(|| {
        let mut command = clean("python3");
        command.arg("-s").arg(script("curl_client.py"));
        command
    })
    .await;
}

#[tokio::test]
async fn requests() {
    on_every_surface(|| {
        let mut command = python();
        command.arg(script("requests_client.py"));
        command
    })
    .await;
}

#[tokio::test]
async fn httpx() {
    on_every_surface(|| {
        let mut command = python();
        command.arg(script("httpx_client.py"));
        command
    })
    .await;
}

#[tokio::test]
async fn urllib() {
    on_every_surface(|| {
        let mut command = node();
        command.arg(script("node_client.cjs"));
        command
    })
    .await;
}
