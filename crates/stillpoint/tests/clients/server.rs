//! `stillpoint serve` on a seeded catalog.

use std::path::Path;

use stillpoint_catalog::Catalog;
use stillpoint_core::CheckpointId;
use stillpoint_lab::ports::Port;
use stillpoint_lab::product::{self, configure};
use tempfile::TempDir;

use crate::seed::{SECRETS, Seed, UNREACHABLE, UNREADABLE};

/// A server that is killed when it is dropped.
pub struct Server {
    process: product::Server,
    pub base: String,
    pub seed: Seed,
    folder: TempDir,
}

/// What a client did, by its own account.
#[derive(Debug, serde::Deserialize)]
pub struct Report {
    pub client: String,
    /// The checkpoints in the order in which it saw them.
    pub seen: Vec<CheckpointId>,
    pub created: CheckpointId,
    pub deleted: CheckpointId,
}

impl Server {
    /// A checkpoint that is asked for stays unfinished for longer than a client takes.
    pub async fn start() -> Server {
        Server::with_a_cluster_at(UNREACHABLE).await
    }

    /// A checkpoint that is asked for ends soon, so that another can be asked for.
    pub async fn with_a_cluster_that_fails_at_once() -> Server {
        Server::with_a_cluster_at(UNREADABLE).await
    }

    async fn with_a_cluster_at(uri: &str) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let seed = Seed::new(folder.path(), uri).await;
        let port = Port::free().unwrap();
        let base = format!("http://127.0.0.1:{}", port.number());
        // The seed's checkpoints are old. And not even in such a log is a secret.
        let more = "keep = \"87840h\"\n\n[snapshots]\nscheduled = false\n\n[log]\nfilter = \"trace\"\n";
        let config = configure(folder.path(), port.number(), "off", more).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_stillpoint"));
        let mut process = product::Server::start(binary, folder.path(), &config, port).unwrap();
        process.wait_until_it_answers().await.unwrap();
        Server { process, base, seed, folder }
    }

    /// A place for files that ends with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Compares what a client says with what was seeded and with what the catalog has now.
    pub async fn bears_out(&self, report: &Report) {
        let Seed { catalog, cluster, checkpoints, .. } = &self.seed;
        assert_eq!(&report.seen, checkpoints, "{}", report.client);
        assert_eq!(checkpoints.last(), Some(&report.deleted));
        assert_eq!(catalog.checkpoint(*cluster, report.deleted).await.unwrap(), None);
        let unfinished = catalog.unfinished_checkpoint(*cluster).await.unwrap().unwrap();
        assert_eq!(unfinished.id, report.created);
        assert_eq!(catalog.count_checkpoints(*cluster).await.unwrap(), checkpoints.len() as u64);
        self.has_told_no_secret();
        // What was done and what was refused is in the log, too.
        let log = self.log();
        let told = |what: &str| log.lines().any(|line| line.contains(" audit: ") && line.contains(what));
        assert!(told("owneraaa") && told("DELETE ") && told("status=204") && told("ACCESS_FORBIDDEN"), "{log}");
    }

    pub fn has_told_no_secret(&self) {
        let log = self.log();
        tells_no_secret(&log);
        // Nor the link of a file, whoever has asked for it.
        assert!(!self.seed.links.iter().any(|link| log.contains(&link[24..])), "a link was printed: {log}");
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.process.log).unwrap()
    }
}

pub fn tells_no_secret(text: &str) {
    assert!(!SECRETS.iter().any(|secret| text.contains(secret)), "a secret was printed: {text}");
}
