//! The clients that are scripts, a test each.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::packages::{clean, node, python};
use crate::process::run;
use crate::seed::{account, owner, reader};
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

/// Not even a token, which is as good as a secret while it lasts, is in the log.
#[tokio::test]
async fn a_service_account() {
    #[derive(serde::Deserialize)]
    struct Told {
        seen: Vec<stillpoint_core::CheckpointId>,
        token: String,
    }
    let server = Server::start().await;
    let mut command = python();
    command.arg(script("oauth_client.py")).args([&server.base, &SURFACES[1].collection(&server.seed)]);
    command.env("CLIENT_ACCOUNT", account());
    let ended = run(command, LIMIT);
    tells_no_secret(&format!("{ended:?}"));
    let told: Told = serde_json::from_str(&ended.ok()).unwrap();
    assert_eq!(told.seen, server.seed.checkpoints);
    server.has_told_no_secret();
    assert!(!server.log().contains(&told.token));
    let catalog = std::fs::read(server.folder().join("stillpoint.db")).unwrap();
    assert!(!catalog.windows(told.token.len()).any(|window| window == told.token.as_bytes()), "kept as its hash only");
}
