//! How long Get One takes while checkpoints are being taken, against how long it takes without.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::bare::Bare;
use crate::client::{Client, User};
use crate::report::{Limit, Report, median, quantile};
use crate::stage::Stage;

const CEILING: Limit = Limit::AtMost(1.5);
const RATE: usize = 500;
const CONNECTIONS: usize = 8;
/// On each side.
const SAMPLES: usize = 10_000;
const FEWEST_WINDOWS: usize = 5;

/// The bare route has the same done to it: what it suffers is the machine's doing, not the server's.
pub async fn measure(report: &mut Report, stage: &Stage, length: Duration) -> Result<()> {
    let id = stage.take().await?;
    let target = format!("/api/atlas/v1.0/groups/{}/clusters/Cluster0/backupCheckpoints/{id}", stage.group);
    let mut client = Client::connect(stage.port, &stage.user, std::slice::from_ref(&target))?;
    client.send()?;
    let bare = Bare::start(client.receive()?)?;
    let (ratio, figures) = compare(stage, stage.port, &target, length).await?;
    report.ratio("latency of Get One with checkpoints / without", ratio, CEILING, figures);
    let (ratio, figures) = compare(stage, bare.listening.port, &target, length).await?;
    report.ratio("latency of the bare route, likewise", ratio, Limit::None, figures);
    Ok(())
}

/// Windows in turn; the median of their ratios.
async fn compare(stage: &Stage, port: u16, target: &str, length: Duration) -> Result<(f64, String)> {
    let start = || {
        let (user, target) = (stage.user.clone(), target.to_owned());
        tokio::task::spawn_blocking(move || window(port, &user, &target, length))
    };
    let windows = SAMPLES.div_ceil(RATE * length.as_secs() as usize).max(FEWEST_WINDOWS);
    let (mut with, mut without, mut taken) = (Vec::new(), Vec::new(), 0);
    for _ in 0..windows {
        without.push(start().await??);
        let window = start();
        while !window.is_finished() {
            stage.take().await?;
            taken += 1;
        }
        with.push(window.await??);
    }

    let p99s = |windows: &[Vec<f64>]| windows.iter().map(|window| quantile(window.clone(), 0.99)).collect::<Vec<_>>();
    let ratios = p99s(&with).iter().zip(p99s(&without)).map(|(with, without)| with / without).collect();
    let figures = format!(
        "p99 {:.0} and {:.0} us, p50 {:.0} and {:.0}; {} samples each, {taken} checkpoints",
        median(p99s(&with)),
        median(p99s(&without)),
        quantile(with.concat(), 0.5),
        quantile(without.concat(), 0.5),
        with.concat().len()
    );
    Ok((median(ratios), figures))
}

/// Requests at a fixed rate whether or not earlier ones were answered in time, and the microseconds of
/// each from when it was due.
fn window(port: u16, user: &User, target: &str, length: Duration) -> Result<Vec<f64>> {
    let connect = |_| Client::connect(port, user, &[target.to_owned()]);
    let clients: Vec<Client> = (0..CONNECTIONS).map(connect).collect::<Result<_>>()?;
    let pause = Duration::from_secs(1) / RATE as u32;
    let each = RATE * length.as_secs() as usize / CONNECTIONS;
    let begin = Instant::now() + Duration::from_millis(20);
    let ask = |mut client: Client, place: usize| {
        std::thread::spawn(move || {
            wake_punctually();
            let mut took = Vec::with_capacity(each);
            for n in 0..each {
                let due = begin + pause * (n * CONNECTIONS + place) as u32;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                client.send()?;
                client.receive()?;
                took.push(due.elapsed().as_secs_f64() * 1e6);
            }
            anyhow::Ok(took)
        })
    };
    let threads: Vec<_> = clients.into_iter().enumerate().map(|(place, client)| ask(client, place)).collect();
    let mut all = Vec::new();
    for thread in threads {
        all.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
    }
    Ok(all)
}

/// Else the kernel may wake this thread 50 microseconds late, which would be part of each latency.
fn wake_punctually() {
    // SAFETY: changes only how exactly this thread is woken.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}
