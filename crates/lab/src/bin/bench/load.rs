//! Get One under load, against the bare route.

use std::io::BufRead;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use stillpoint_lab::process;

use crate::Stage;
use crate::hold::median;
use crate::requests::Client;

const CONNECTIONS: usize = 8;
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;

/// Rounds in turn, against the server and against the bare route.
pub async fn measure(stage: &Stage, checkpoint: &str) -> Result<String> {
    let path = format!("/api/atlas/v1.0/groups/{}/clusters/Cluster0/backupCheckpoints/{checkpoint}", stage.group);
    let document = Client::connect(stage.port, &path, &stage.user).await?.get().await?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &document)?;
    let (mut bare, bare_port) = start_bare(file.path())?;

    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(round(stage.port, &path, stage).await?);
        floors.push(round(bare_port, &path, stage).await?);
    }
    bare.kill()?;
    bare.wait()?;
    let ratios = ours.iter().zip(&floors).map(|(ours, floor)| ours / floor).collect();
    let (ours, floor) = (median(ours), median(floors));
    Ok(format!("{:.2}  ({ours:.0} and {floor:.0} requests/s on {CONNECTIONS} connections; medians)", median(ratios)))
}

async fn round(port: u16, path: &str, stage: &Stage) -> Result<f64> {
    let until = Instant::now() + ROUND;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(port, path, &stage.user).await?;
        clients.spawn(async move {
            let mut requests = 0u64;
            while Instant::now() < until {
                client.get().await?;
                requests += 1;
            }
            anyhow::Ok(requests)
        });
    }
    let begin = Instant::now();
    let mut requests = 0;
    while let Some(done) = clients.join_next().await {
        requests += done??;
    }
    Ok(requests as f64 / begin.elapsed().as_secs_f64())
}

/// The bare route in a process of its own, as the server is.
fn start_bare(file: &std::path::Path) -> Result<(Child, u16)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--bare").arg(file).stdout(Stdio::piped());
    let mut child = process::spawn(command)?;
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    Ok((child, line.trim().parse()?))
}

/// The most memory that a process ever had, as the kernel counts it.
pub fn peak_mib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = peak.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024)
}
