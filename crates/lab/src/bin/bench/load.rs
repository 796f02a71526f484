//! As many requests as can be, against the server and against the bare route in turn.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::client::{Client, User};
use crate::report::median;
use crate::usage::Busy;

const THREADS: usize = 2;
const CONNECTIONS_EACH: usize = 4;
/// Many and short ones: what else the machine does comes and goes.
const ROUNDS: usize = 9;

/// A process to send requests to.
#[derive(Clone, Copy)]
pub struct Listening {
    pub pid: u32,
    pub port: u16,
}

/// What a round gave: requests a second, and the server's and the client's microseconds for each.
struct Round {
    rate: f64,
    server: Busy,
    client: Busy,
}

/// Medians of the rounds.
pub struct Comparison {
    pub ratio: f64,
    /// The lowest and the highest of the ratios.
    range: (f64, f64),
    ours: Round,
    floor: Round,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let round = |round: &Round| {
            let (server, client) = (round.server, round.client.total());
            format!("{:.0}/s (server {:.1} + {:.1} us, client {client:.1})", round.rate, server.user, server.kernel)
        };
        let (lowest, highest) = self.range;
        let by_processor = self.floor.server.total() / self.ours.server.total();
        write!(f, "{}; bare {}; ", round(&self.ours), round(&self.floor))?;
        write!(f, "rounds {lowest:.3} to {highest:.3}; by the server's processor time {by_processor:.3}")
    }
}

/// Rounds in turn. Each connection asks for the targets in turn.
pub fn compare(
    ours: Listening,
    floor: Listening,
    user: &User,
    targets: &[String],
    length: Duration,
) -> Result<Comparison> {
    let (mut of_ours, mut of_floor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_ours.push(round(ours, user, targets, length)?);
        of_floor.push(round(floor, user, targets, length)?);
    }
    let ratios: Vec<f64> = of_ours.iter().zip(&of_floor).map(|(ours, floor)| ours.rate / floor.rate).collect();
    let range = (ratios.iter().copied().fold(f64::MAX, f64::min), ratios.iter().copied().fold(0.0, f64::max));
    Ok(Comparison { ratio: median(ratios), range, ours: middle(&of_ours), floor: middle(&of_floor) })
}

fn middle(rounds: &[Round]) -> Round {
    let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    Round {
        rate: of(|round| round.rate),
        server: Busy { user: of(|round| round.server.user), kernel: of(|round| round.server.kernel) },
        client: Busy { user: of(|round| round.client.user), kernel: of(|round| round.client.kernel) },
    }
}

fn round(to: Listening, user: &User, targets: &[String], length: Duration) -> Result<Round> {
    let connect = |_| (0..CONNECTIONS_EACH).map(|_| Client::connect(to.port, user, targets)).collect();
    let clients: Vec<Vec<Client>> = (0..THREADS).map(connect).collect::<Result<_>>()?;
    let before = (Busy::of(to.pid)?, Busy::of(std::process::id())?);
    let begin = Instant::now();
    let until = begin + length;
    let threads: Vec<_> =
        clients.into_iter().map(|clients| std::thread::spawn(move || ask_until(until, clients))).collect();
    let mut requests = 0;
    for thread in threads {
        requests += thread.join().map_err(|_| anyhow!("a client panicked"))??;
    }
    let requests = requests as f64;
    let rate = requests / begin.elapsed().as_secs_f64();
    let server = Busy::of(to.pid)?.since(before.0, requests);
    let client = Busy::of(std::process::id())?.since(before.1, requests);
    Ok(Round { rate, server, client })
}

/// One request under way on each connection, always: two system calls each and no wait for readiness.
fn ask_until(until: Instant, mut clients: Vec<Client>) -> Result<u64> {
    let mut requests = 0;
    clients.iter_mut().try_for_each(Client::send)?;
    while Instant::now() < until {
        for client in &mut clients {
            client.receive()?;
            client.send()?;
            requests += 1;
        }
    }
    for client in &mut clients {
        client.receive()?;
        requests += 1;
    }
    Ok(requests)
}
