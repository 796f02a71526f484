//! The product on a cluster of the lab.

use std::path::PathBuf;

use anyhow::{Context, Result};
use stillpoint_lab::Lab;
use stillpoint_lab::ports::Port;
use stillpoint_lab::product::{Cli, Server, configure, text, write_secret};

use crate::client::User;

/// The product, set up on a lab.
pub struct Stage {
    pub lab: Lab,
    server: Server,
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
        let config = configure(dir.path(), port, "off")?;
        let uri = write_secret(&dir.path().join("uri"), &lab.uri())?;
        let mut server = Server::start(binary, dir.path(), &config, free)?;
        server.wait_until_it_answers().await?;
        let cli = Cli { binary, config: &config };
        let group = text(&cli.run(&["project", "create", "bench"]).await?, "id")?.to_owned();
        let key = cli.run(&["key", "create", "--project", "bench", "--role", "GROUP_OWNER"]).await?;
        let user = User { public: text(&key, "publicKey")?.to_owned(), private: text(&key, "privateKey")?.to_owned() };
        let uri = uri.to_string_lossy();
        cli.run(&["cluster", "add", "--project", "bench", "--name", "Cluster0", "--uri-file", &uri]).await?;
        Ok(Stage { lab, server, binary: binary.to_owned(), config, port, group, user, dir })
    }

    pub async fn take(&self) -> Result<String> {
        let cli = Cli { binary: &self.binary, config: &self.config };
        let taken = cli.run(&["checkpoint", "take", "--project", "bench", "--cluster", "Cluster0"]).await?;
        Ok(text(&taken, "id")?.to_owned())
    }

    pub async fn strike(self) -> Result<()> {
        self.server.stop().await?;
        drop(self.lab);
        self.dir.close().context("cannot remove the bench's folder")
    }
}
