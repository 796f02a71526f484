//! How long Get One takes while a checkpoint is being taken, against how long while none is.
//!
//! A checkpoint makes the cluster's own processes work, which here share a machine with the server; so the
//! bare route is asked at the same times, and what it suffers is the machine's doing, not the server's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use serde_json::Value;
use stillpoint_lab::product::text;

use crate::bare::Bare;
use crate::client::{Client, User};
use crate::report::{Limit, Report, median, quantile};
use crate::stage::Stage;

const CEILING: Limit = Limit::AtMost(1.5);
/// Of requests to each of the two.
const RATE: usize = 500;
/// To each of the two.
const CONNECTIONS: usize = 8;
const WINDOWS: usize = 9;
/// With a checkpoint under way, and without, in each window.
const SAMPLES: usize = 600;
/// Between one checkpoint and the next.
const PAUSE: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(5);
/// No checkpoint of an idle cluster takes as long.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn measure(report: &mut Report, stage: &Stage, length: Duration) -> Result<()> {
    let all = format!("/api/atlas/v1.0/groups/{}/clusters/Cluster0/backupCheckpoints", stage.group);
    let mut taker = Taker::connect(stage, &all)?;
    let target = format!("{all}/{}", taker.take()?.id);
    let bare = Bare::start(taker.client.ask("GET", &target)?)?;

    let ports = [stage.port, bare.listening.port];
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..WINDOWS {
        // A nonce is good for five minutes.
        taker = Taker::connect(stage, &all)?;
        let [of_ours, of_floor] = window(&mut taker, ports, &stage.user, &target, length)?;
        ours.push(of_ours);
        floor.push(of_floor);
    }
    let ratios = |windows: &[Window]| windows.iter().map(Window::ratio).collect::<Vec<_>>();
    let (of_ours, of_floor) = (ratios(&ours), ratios(&floor));
    // Window by window: what else the machine does befalls both at once.
    let by: Vec<f64> = of_ours.iter().zip(&of_floor).map(|(ours, floor)| ours / floor).collect();
    report.ratio("latency of Get One, checkpoint / none", median(of_ours), Limit::None, figures(&ours));
    report.ratio("latency of the bare route, likewise", median(of_floor), Limit::None, figures(&floor));
    let windows = by.iter().map(|by| format!("{by:.2}")).collect::<Vec<_>>().join(" ");
    report.ratio("  of these, Get One / bare route", median(by), CEILING, format!("windows {windows}"));
    Ok(())
}

/// The microseconds of the requests that were due while a checkpoint was under way, and of those that were
/// due while none was.
struct Window {
    with: Vec<f64>,
    without: Vec<f64>,
}

impl Window {
    fn ratio(&self) -> f64 {
        quantile(self.with.clone(), 0.99) / quantile(self.without.clone(), 0.99)
    }
}

fn figures(windows: &[Window]) -> String {
    let of =
        |side: fn(&Window) -> &Vec<f64>| windows.iter().flat_map(|window| side(window).clone()).collect::<Vec<_>>();
    let (with, without) = (of(|window| &window.with), of(|window| &window.without));
    let pair = |share| format!("{:.0} and {:.0}", quantile(with.clone(), share), quantile(without.clone(), share));
    format!("p50 {} us, p90 {}, p99 {}; {} and {} samples", pair(0.5), pair(0.9), pair(0.99), with.len(), without.len())
}

/// A checkpoint that was taken.
struct Taken {
    id: String,
    begin: Instant,
    /// When it was last seen not to have ended.
    under_way: Instant,
    /// When it was seen to have.
    ended: Instant,
}

/// Takes checkpoints over a connection of its own, and starts no process for it.
struct Taker {
    client: Client,
    all: String,
}

impl Taker {
    fn connect(stage: &Stage, all: &str) -> Result<Taker> {
        Ok(Taker { client: Client::connect(stage.port, &stage.user, &[all.to_owned()])?, all: all.to_owned() })
    }

    fn take(&mut self) -> Result<Taken> {
        let begin = Instant::now();
        let queued: Value = serde_json::from_slice(self.client.ask("POST", &self.all)?)?;
        let id = text(&queued, "id")?.to_owned();
        let one = format!("{}/{id}", self.all);
        let mut under_way = begin;
        loop {
            std::thread::sleep(POLL);
            let asked = Instant::now();
            let now: Value = serde_json::from_slice(self.client.ask("GET", &one)?)?;
            if now.get("completed").is_some() {
                return Ok(Taken { id, begin, under_way, ended: Instant::now() });
            }
            ensure!(now.pointer("/stillpoint/failure").is_none(), "a checkpoint failed: {now}");
            ensure!(begin.elapsed() < PATIENCE, "a checkpoint does not end: {now}");
            under_way = asked;
        }
    }
}

/// A request: when it was due, and how long after that it was answered.
struct Sample {
    due: Instant,
    took: Duration,
}

/// Asks both in turn, at a fixed rate whether or not earlier requests were answered in time, and takes
/// checkpoints, until there is enough of each kind.
fn window(taker: &mut Taker, ports: [u16; 2], user: &User, target: &str, length: Duration) -> Result<[Window; 2]> {
    let pause = Duration::from_secs(1) / RATE as u32;
    let connect = |port| -> Result<Vec<Client>> {
        (0..CONNECTIONS).map(move |_| Client::connect(port, user, &[target.to_owned()])).collect()
    };
    let clients: [Vec<Client>; 2] = [connect(ports[0])?, connect(ports[1])?];
    let begin = Instant::now() + Duration::from_millis(20);
    let enough = AtomicBool::new(false);
    let enough = &enough;
    let ask = |mut client: Client, first: Instant| {
        move || {
            wake_punctually();
            let mut samples = Vec::new();
            for n in 0.. {
                let due = first + pause * (n * CONNECTIONS) as u32;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if enough.load(Ordering::Relaxed) {
                    break;
                }
                client.send()?;
                client.receive()?;
                samples.push(Sample { due, took: due.elapsed() });
            }
            anyhow::Ok(samples)
        }
    };
    std::thread::scope(|scope| {
        let mut threads = [Vec::new(), Vec::new()];
        for (side, clients) in clients.into_iter().enumerate() {
            for (place, client) in clients.into_iter().enumerate() {
                let first = begin + pause * place as u32 + pause / 2 * side as u32;
                threads[side].push(scope.spawn(ask(client, first)));
            }
        }
        let taken = take_until(taker, begin, length);
        enough.store(true, Ordering::Relaxed);
        let mut of = [Vec::new(), Vec::new()];
        for (samples, threads) in of.iter_mut().zip(threads) {
            for thread in threads {
                samples.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
            }
        }
        let taken = taken?;
        Ok(of.map(|samples| sort(samples, &taken)))
    })
}

/// Takes checkpoints until time enough has passed with and without one under way.
fn take_until(taker: &mut Taker, begin: Instant, length: Duration) -> Result<Vec<Taken>> {
    let enough = Duration::from_secs(1) * SAMPLES as u32 / RATE as u32;
    let mut taken: Vec<Taken> = Vec::new();
    loop {
        std::thread::sleep(PAUSE);
        let during: Duration = taken.iter().map(|taken| taken.under_way - taken.begin).sum();
        let all: Duration = taken.iter().map(|taken| taken.ended - taken.begin).sum();
        if during >= enough && begin.elapsed().saturating_sub(all) >= enough && begin.elapsed() >= length {
            return Ok(taken);
        }
        taken.push(taker.take()?);
    }
}

/// Those that were due while a checkpoint was under way, and while none was; the few that were due
/// between the last two looks at one are neither.
fn sort(samples: Vec<Sample>, taken: &[Taken]) -> Window {
    let mut window = Window { with: Vec::new(), without: Vec::new() };
    for Sample { due, took } in samples {
        let took = took.as_secs_f64() * 1e6;
        match taken.iter().find(|taken| (taken.begin..taken.ended).contains(&due)) {
            None => window.without.push(took),
            Some(taken) if due <= taken.under_way => window.with.push(took),
            Some(_) => {}
        }
    }
    window
}

/// Else the kernel may wake this thread 50 microseconds late, which would be part of each latency.
fn wake_punctually() {
    // SAFETY: changes only how exactly this thread is woken.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}
