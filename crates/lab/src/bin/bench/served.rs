//! `stillpoint serve` on a seeded catalog: no cluster.

use std::path::Path;

use anyhow::{Context, Result};
use stillpoint_lab::ports::Port;
use stillpoint_lab::product::{Server, configure};

use crate::load::Listening;
use crate::seed::{self, Seeds};
use crate::stage::ON_DEMAND;

/// More than the default, for the measure of memory.
const CONNECTIONS: usize = 11_000;

pub struct Served {
    server: Server,
    pub listening: Listening,
    pub seeds: Seeds,
    pub dir: tempfile::TempDir,
}

impl Served {
    pub async fn start(binary: &Path) -> Result<Served> {
        let dir = tempfile::Builder::new().prefix("stillpoint-bench-").tempdir()?;
        let seeds = seed::sow(dir.path()).await?;
        let free = Port::free()?;
        let port = free.number();
        // The seed's checkpoints are old.
        let config = configure(dir.path(), port, "off", &format!("keep = \"87840h\"\n\n{ON_DEMAND}"))?;
        let text = std::fs::read_to_string(&config)?;
        std::fs::write(&config, text.replace("[server]\n", &format!("[server]\nconnections = {CONNECTIONS}\n")))?;
        let mut server = Server::start(binary, dir.path(), &config, free)?;
        server.wait_until_it_answers().await?;
        let listening = Listening { pid: server.pid(), port };
        Ok(Served { server, listening, seeds, dir })
    }

    pub async fn stop(self) -> Result<()> {
        self.server.stop().await?;
        self.dir.close().context("cannot remove the bench's folder")
    }
}
