//! What goes wrong during a soak, one thing after the other, some of it at the same time.

use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use stillpoint_catalog::Catalog;
use stillpoint_lab::{Lab, ReplicaSet};
use stillpoint_lab_s3::{Fault, Server as S3, What};
use tokio::time::sleep;

use crate::bank;
use crate::support::{SOON, Server};

/// Between two things that go wrong.
const PAUSE: std::ops::Range<u64> = 100..1500;
/// How long a member is frozen: through an election, or not.
const FROZEN: std::ops::Range<u64> = 200..4000;
const RESTORED: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum Act {
    Checkpoint,
    Snapshot,
    StepDown,
    KillServer,
    StopServer,
    CrashServer,
    Fault,
    ClearFaults,
    KillVault,
    Freeze,
    FreezeAll,
    KillMember,
}

/// Each as often as it is here.
const ACTS: [Act; 22] = [
    Act::Snapshot,
    Act::Snapshot,
    Act::Checkpoint,
    Act::Checkpoint,
    Act::Checkpoint,
    Act::Checkpoint,
    Act::StepDown,
    Act::StepDown,
    Act::KillServer,
    Act::KillServer,
    Act::StopServer,
    Act::CrashServer,
    Act::CrashServer,
    Act::Fault,
    Act::Fault,
    Act::Fault,
    Act::Fault,
    Act::ClearFaults,
    Act::KillVault,
    Act::Freeze,
    Act::FreezeAll,
    Act::KillMember,
];

/// What is done often enough for the server to die after it.
const CRASHES: [&str; 2] = ["store-segment", "note-segment"];

/// As the server's records say it.
#[expect(clippy::disallowed_methods, reason = "what is done is held against the server's own times")]
fn now() -> Timestamp {
    Timestamp::now()
}

pub struct Chaos<'a> {
    lab: &'a Lab,
    server: Server,
    s3: S3,
    rng: StdRng,
}

impl<'a> Chaos<'a> {
    pub fn new(lab: &'a Lab, server: Server, s3: S3, rng: StdRng) -> Chaos<'a> {
        Chaos { lab, server, s3, rng }
    }

    /// Does one thing, and ends it if it must end.
    pub async fn act(&mut self) {
        self.pause().await;
        let act = *ACTS.choose(&mut self.rng).unwrap();
        eprintln!("{:.1} {act:?}", now());
        match act {
            Act::Checkpoint => self.checkpoint().await,
            Act::Snapshot => bank::ask(&self.server).await,
            Act::StepDown => {
                self.set().step_down().await.unwrap();
            }
            Act::KillServer => {
                self.server.signal(libc::SIGKILL);
                self.server.crashed().await;
                self.serve_again().await;
            }
            Act::StopServer => {
                // What is not stored within the time to finish, as with a vault that fails, is read again.
                self.server.signal(libc::SIGTERM);
                self.server.ended(SOON).await;
                self.serve_again().await;
            }
            Act::CrashServer => {
                self.server.signal(libc::SIGKILL);
                self.server.crashed().await;
                self.s3.clear().unwrap();
                let after = *CRASHES.choose(&mut self.rng).unwrap();
                self.server.serve(Some(after)).await;
                self.server.crashed().await;
                self.serve_again().await;
            }
            Act::Fault => {
                let fault = self.fault();
                eprintln!("  {fault:?}");
                self.s3.add(fault).unwrap();
            }
            Act::ClearFaults => self.s3.clear().unwrap(),
            Act::KillVault => {
                self.s3.kill().unwrap();
                self.pause().await;
                self.s3.restart().unwrap();
            }
            Act::Freeze => {
                let (set, frozen) = (self.set(), self.some(FROZEN));
                let member = self.rng.random_range(0..set.members());
                set.freeze(member).await.unwrap();
                sleep(frozen).await;
                set.thaw(member).await.unwrap();
                set.wait_for_all(RESTORED).await.unwrap();
            }
            Act::FreezeAll => {
                let (set, frozen) = (self.set(), self.some(FROZEN));
                for member in 0..set.members() {
                    set.freeze(member).await.unwrap();
                }
                sleep(frozen).await;
                for member in 0..set.members() {
                    set.thaw(member).await.unwrap();
                }
                set.wait_for_all(RESTORED).await.unwrap();
            }
            Act::KillMember => {
                let set = self.set();
                let member = self.rng.random_range(0..set.members());
                set.kill(member).await.unwrap();
                self.pause().await;
                set.restart(member).await.unwrap();
                set.wait_for_all(RESTORED).await.unwrap();
            }
        }
    }

    /// Ends all that is wrong.
    pub async fn end(mut self) -> (Server, S3) {
        self.s3.clear().unwrap();
        for set in self.lab.parts() {
            set.wait_for_all(RESTORED).await.unwrap();
        }
        // One may be under way: the next server ends what a killed one has begun.
        let unfinished = self.server.catalog().unfinished_checkpoint(self.server.cluster()).await.unwrap();
        if let Some(under_way) = unfinished {
            self.server.end_of(under_way.id, SOON * 4).await;
        }
        (self.server, self.s3)
    }

    /// Asks for a checkpoint, and waits for it sometimes.
    async fn checkpoint(&mut self) {
        let catalog = self.server.catalog();
        let id = match catalog.unfinished_checkpoint(self.server.cluster()).await.unwrap() {
            Some(under_way) => under_way.id,
            None => self.server.ask().await,
        };
        if self.rng.random_bool(0.5) {
            self.server.end_of(id, SOON * 4).await;
        }
    }

    /// It refuses to start with a vault that it cannot try out.
    async fn serve_again(&mut self) {
        self.pause().await;
        self.s3.clear().unwrap();
        self.server.serve(None).await;
    }

    fn set(&mut self) -> &'a ReplicaSet {
        let sets: Vec<_> = self.lab.parts().collect();
        let set = sets.choose(&mut self.rng).unwrap();
        eprintln!("  {}", set.name());
        set
    }

    fn some(&mut self, millis: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(millis))
    }

    async fn pause(&mut self) {
        let pause = self.some(PAUSE);
        sleep(pause).await;
    }

    fn fault(&mut self) -> Fault {
        let rng = &mut self.rng;
        let what = match rng.random_range(0..7) {
            0 => What::Refuse { status: 503, code: "SlowDown".into() },
            1 => What::Refuse { status: 500, code: "InternalError".into() },
            2 => What::Delay { millis: rng.random_range(100..3000) },
            3 => What::CutRequest { bytes: rng.random_range(0..20_000) },
            4 => What::LoseReply,
            5 => What::CutReply { bytes: rng.random_range(0..20_000) },
            _ => What::Corrupt { at: rng.random_range(0..2000) },
        };
        let mut fault = Fault::new(what).after(rng.random_range(0..3));
        if rng.random_bool(0.5) {
            fault = fault.on("PUT", "");
        }
        fault.times(rng.random_range(1..20))
    }
}
