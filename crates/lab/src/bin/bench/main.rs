//! `make bench`: ratios, each against its floor in the same run, so that a slow or busy machine
//! makes no difference to them.
//!
//! - the time that the balancer is off ÷ the same commands issued bare, with 2 and with 8 shards
//! - Get One over Digest ÷ a bare route with the same bytes
//! - the server's peak memory, idle and after that load

mod bare;
mod hold;
mod load;
mod requests;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use stillpoint_lab::ports::Port;
use stillpoint_lab::product::{Cli, Server, configure, text, write_secret};
use stillpoint_lab::{Lab, Workload};

/// The product, set up on a lab.
pub struct Stage {
    pub lab: Lab,
    pub server: Server,
    pub binary: PathBuf,
    pub config: PathBuf,
    pub port: u16,
    pub group: String,
    pub user: (String, String),
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
        let user = (text(&key, "publicKey")?.to_owned(), text(&key, "privateKey")?.to_owned());
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

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--binary", binary] => run(std::fs::canonicalize(binary)?).await,
        ["--bare", file] => bare::serve(file).await,
        _ => bail!("usage: bench --binary PATH"),
    }
}

async fn run(binary: PathBuf) -> Result<()> {
    let stage = Stage::set(&binary, 2).await?;
    stage.lab.create_database("bank", 0).await?;
    stage.lab.shard_collection("bank.accounts", &[0.into()], &[0, 1]).await?;
    let quiet_2 = hold::measure(&stage, 30).await?;
    println!("balancer off, 2 shards            {quiet_2}");
    let workload = Workload::start(&stage.lab, "bank.accounts", 2).await?;
    println!("balancer off, 2 shards, under load {}", hold::measure(&stage, 20).await?);
    workload.stop().await?;

    let id = stage.take().await?;
    println!("server's peak memory, idle        {} MiB", load::peak_mib(stage.server.pid())?);
    println!("Get One over Digest ÷ bare route  {}", load::measure(&stage, &id).await?);
    println!("server's peak memory, after that  {} MiB", load::peak_mib(stage.server.pid())?);
    stage.strike().await?;

    let stage = Stage::set(&binary, 8).await?;
    let quiet_8 = hold::measure(&stage, 20).await?;
    println!("balancer off, 8 shards            {quiet_8}");
    println!("  8 shards ÷ 2 shards, of those ratios: {:.2}", quiet_8.ratio() / quiet_2.ratio());
    stage.strike().await
}
