//! The running tasks of a server: one keeper for each cluster, which holds the cluster's lease, captures
//! its oplogs, takes its checkpoints, and ends those that a server before it left unfinished.
//!
//! What to do is decided by [`stillpoint_core`]; how it is said to MongoDB is known by
//! [`stillpoint_mongo`]; what is kept goes through the [`Catalog`]. This room only runs them.
//!
//! # Layout
//! - [`supervisor`]: starts and stops a keeper for each cluster in the catalog
//! - [`keeper`]: one cluster's lease, schedule and checkpoints
//! - [`capture`]: one cluster's oplogs, into the vault
//! - [`depot`]: the vault, opened when it first can be
//! - [`snapshots`]: the data of its parts
//! - [`restore`]: the data of its parts, into another cluster, or into files
//! - [`downloads`]: such files, once nobody is to have them
//! - [`drill`]: a checkpoint restored into a throw-away cluster, to know that it can be
//! - [`retention`]: what nothing needs any more
//! - [`stored`]: what is stored, read again and checked
//! - [`runner`]: performs the commands of one checkpoint
//! - [`actions`]: each command, done on a real cluster

mod actions;
mod capture;
mod depot;
mod downloads;
mod drill;
#[cfg(test)]
mod fixture;
mod keeper;
pub mod restore;
mod retention;
mod runner;
pub mod snapshots;
pub mod stored;
mod supervisor;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use stillpoint_catalog::Catalog;
use stillpoint_core::checkpoint::Limits;
use tokio::sync::{Notify, Semaphore};

pub use capture::{Captures, Pace};
pub use depot::Depot;
pub use restore::Restores;
pub use retention::Retention;
pub use snapshots::Snapshots;
pub use supervisor::Engine;

/// Where the engine gets the time from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Called with an action's name once it was performed, before its outcome is acted upon.
pub type Hook = Arc<dyn Fn(&'static str) + Send + Sync>;

/// What an engine works with.
#[derive(Clone)]
pub struct Setup {
    pub catalog: Arc<dyn Catalog>,
    pub vault: Depot,
    pub clock: Clock,
    /// Names this process in leases.
    pub instance: String,
    pub limits: Limits,
    /// From the end of one checkpoint to the next; `None` takes them on demand only.
    pub interval: Option<Duration>,
    /// How long a lease lasts without renewal; it is renewed three times in that time.
    pub lease_ttl: Duration,
    /// How often the catalog is looked at for something to do.
    pub poll: Duration,
    /// Rung by whoever puts something to do into the catalog, so that it need not wait for the poll.
    pub wake: Arc<Notify>,
    /// How capture goes about it.
    pub pace: Pace,
    pub retention: Retention,
    pub snapshots: Snapshots,
    pub restores: Restores,
    /// How capture stands.
    pub captures: Arc<Captures>,
    /// Rung when a segment has been stored.
    stored: Arc<Notify>,
    /// Permits for large batches of entries in memory.
    room: Arc<Semaphore>,
    /// A permit for the one drill of the server.
    drilling: Arc<Semaphore>,
    /// For tests that stop the process at a given step.
    pub after_action: Option<Hook>,
}

impl Setup {
    pub fn new(catalog: Arc<dyn Catalog>, vault: impl Into<Depot>, clock: Clock, instance: String) -> Setup {
        Setup {
            catalog,
            vault: vault.into(),
            clock,
            instance,
            limits: Limits::default(),
            interval: None,
            lease_ttl: Duration::from_secs(15),
            poll: Duration::from_millis(250),
            wake: Arc::new(Notify::new()),
            pace: Pace::default(),
            retention: Retention::default(),
            snapshots: Snapshots::default(),
            restores: Restores::default(),
            captures: Arc::default(),
            stored: Arc::new(Notify::new()),
            room: Arc::new(Semaphore::new(capture::ROOM)),
            drilling: Arc::new(Semaphore::new(1)),
            after_action: None,
        }
    }

    fn done(&self, step: &'static str) {
        if let Some(hook) = &self.after_action {
            hook(step);
        }
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("instance", &self.instance)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}
