//! The product on a cluster of the lab.

use std::path::PathBuf;

use anyhow::{Context, Result};
use stillpoint_catalog::sqlite::SqliteCatalog;
use stillpoint_lab::Lab;
use stillpoint_lab::ports::Port;
use stillpoint_lab::product::{Cli, Server, configure, text, write_secret};

use crate::client::User;

/// What is measured is not to be disturbed.
pub const ON_DEMAND: &str = "[snapshots]\nscheduled = false\n";

/// The product, set up on a lab.
pub struct Stage {
    pub lab: Lab,
    /// `None` while it is stopped.
    server: Option<Server>,
    binary: PathBuf,
    config: PathBuf,
    pub port: u16,
    pub group: String,
    pub user: User,
    dir: tempfile::TempDir,
}

impl Stage {
    pub async fn set(binary: &std::path::Path, shards: usize) -> Result<Stage> {
        let lab = Lab::builder().shards(shards).auth(true).start().await?;
        let dir = tempfile::Builder::new().prefix("stillpoint-bench-").tempdir()?;
        let free = Port::free()?;
        let port = free.number();
        let config = configure(dir.path(), port, "off", ON_DEMAND)?;
        let uri = write_secret(&dir.path().join("uri"), &lab.uri())?;
        let mut server = Server::start(binary, dir.path(), &config, free)?;
        server.wait_until_it_answers().await?;
        let cli = Cli { binary, config: &config };
        let group = text(&cli.run(&["project", "create", "bench"]).await?, "id")?.to_owned();
        let key = cli.run(&["key", "create", "--project", "bench", "--role", "GROUP_OWNER"]).await?;
        let user = User { public: text(&key, "publicKey")?.to_owned(), private: text(&key, "privateKey")?.to_owned() };
        let uri = uri.to_string_lossy();
        cli.run(&["cluster", "add", "--project", "bench", "--name", "Cluster0", "--uri-file", &uri]).await?;
        Ok(Stage { lab, server: Some(server), binary: binary.to_owned(), config, port, group, user, dir })
    }

    pub async fn take(&self) -> Result<String> {
        let taken = self.command(&["checkpoint", "take"]).await?;
        Ok(text(&taken, "id")?.to_owned())
    }

    /// What a command on the cluster prints.
    pub async fn command(&self, args: &[&str]) -> Result<serde_json::Value> {
        let cli = Cli { binary: &self.binary, config: &self.config };
        cli.run(&[args, &["--project", "bench", "--cluster", "Cluster0"]].concat()).await
    }

    /// For files that go with it.
    pub fn folder(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub async fn stop_server(&mut self) -> Result<()> {
        match self.server.take() {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }

    pub async fn start_server(&mut self) -> Result<()> {
        let free = Port::free()?;
        self.port = free.number();
        self.config = configure(self.dir.path(), self.port, "off", ON_DEMAND)?;
        let mut server = Server::start(&self.binary, self.dir.path(), &self.config, free)?;
        server.wait_until_it_answers().await?;
        self.server = Some(server);
        Ok(())
    }

    pub fn pid(&self) -> Result<u32> {
        Ok(self.server.as_ref().context("no server runs")?.pid())
    }

    /// The server's catalog, opened beside it.
    pub fn catalog(&self) -> Result<SqliteCatalog> {
        let at = |name: &str| self.dir.path().join(name);
        Ok(SqliteCatalog::open_with_key_file(&at("stillpoint.db"), &at("stillpoint.key"))?)
    }

    /// The stored oplog of a part, in a file.
    pub async fn export(&self, part: &str) -> Result<PathBuf> {
        let path = self.dir.path().join("oplog.bson");
        let status = tokio::process::Command::new(&self.binary)
            .arg("--config")
            .arg(&self.config)
            .args(["oplog", "export", "--project", "bench", "--cluster", "Cluster0", "--part", part])
            .stdout(std::fs::File::create(&path)?)
            .status()
            .await?;
        anyhow::ensure!(status.success(), "the export failed");
        Ok(path)
    }

    pub async fn strike(mut self) -> Result<()> {
        self.stop_server().await?;
        drop(self.lab);
        self.dir.close().context("cannot remove the bench's folder")
    }
}
