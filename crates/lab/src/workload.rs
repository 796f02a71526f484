//! Clients that insert and move money between shards without a pause, through elections,
//! restarts and migrations, and keep account of what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, Timestamp, doc};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::cluster::Lab;
use crate::pool::Pool;
use crate::routing::{Chunk, Routing};
use crate::snapshot::{self, split};
use crate::transaction::{SETTLE_LIMIT, Transaction, is_transient};
use crate::wire::{code, majority, operation_time};

/// What an account begins with.
pub const BALANCE: i64 = 1000;
/// Enough that few clients wait for a document of a transfer that is held open.
const ACCOUNTS_PER_CHUNK: i64 = 24;
/// Unbounded chunks are used up to here; far below where `f64` loses integers.
const BOUND: i64 = 1 << 40;
/// Between two writes of one client: the lab shares two cores with what it tests.
const THINK: Duration = Duration::from_millis(4);
const PAUSE: Duration = Duration::from_millis(50);
/// The longest that a transfer is held between prepare and commit.
const HELD: std::ops::Range<u64> = 0..600;
const STALE_CONFIG: i32 = 13388;
const DUPLICATE_KEY: i32 = 11000;

/// Clients at work on one sharded collection. Dropping it stops them at once and may leave a
/// transaction prepared; [`stop`](Self::stop) does not.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    clients: JoinSet<Result<()>>,
    seed: u64,
    total: i64,
}

/// What a workload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub seed: u64,
    /// Acknowledged inserts, each a document `{kind: "note"}`.
    pub inserts: u64,
    /// Acknowledged transfers, `held` among them.
    pub transfers: u64,
    /// Transfers that were held open between prepare and the commits.
    pub held: u64,
    /// Transfers given up before any commit: conflicts, elections.
    pub aborted: u64,
    /// The sum of all balances, at any cluster time.
    pub total: i64,
}

#[derive(Debug, Default)]
struct Shared {
    /// Seconds in the upper half, so that the order is that of cluster times.
    acknowledged: AtomicU64,
    inserts: AtomicU64,
    transfers: AtomicU64,
    held: AtomicU64,
    aborted: AtomicU64,
}

impl Workload {
    /// Makes accounts in every chunk of `ns` and sets `clients` clients to work, with a seed by
    /// chance (it is logged, and in the summary).
    pub async fn start(lab: &Lab, ns: &str, clients: usize) -> Result<Self> {
        Self::start_seeded(lab, ns, clients, rand::rng().random()).await
    }

    /// The same with a given seed. What the clients choose depends only on it; how their writes
    /// interleave does not.
    pub async fn start_seeded(lab: &Lab, ns: &str, clients: usize, seed: u64) -> Result<Self> {
        tracing::info!(seed, ns, "workload starts");
        let topology = lab.topology();
        let routing = Routing::load(&topology, ns).await?;
        let accounts: Vec<i64> = routing.chunks.iter().flat_map(accounts_of).collect();
        ensure!(accounts.len() > 1, "{ns} has no room for accounts");
        let shared = Arc::new(Shared::default());
        let stop = watch::Sender::new(false);
        let client = |number: usize| Client {
            pool: Pool::new(&topology),
            ns: ns.to_owned(),
            routing: routing.clone(),
            accounts: accounts.clone(),
            rng: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
            number,
            serial: 0,
            shared: shared.clone(),
        };
        let mut first = client(0);
        for account in &accounts {
            first.open_account(*account).await?;
        }
        let mut running = JoinSet::new();
        for number in 0..clients {
            running.spawn(client(number).work(stop.subscribe()));
        }
        Ok(Self { shared, stop, clients: running, seed, total: BALANCE * accounts.len() as i64 })
    }

    /// The highest `operationTime` of the writes acknowledged until now: a checkpoint taken from
    /// now on must hold them all.
    pub fn acknowledged(&self) -> Timestamp {
        let bits = self.shared.acknowledged.load(Ordering::SeqCst);
        Timestamp { time: (bits >> 32) as u32, increment: bits as u32 }
    }

    /// What was done until now.
    pub fn summary(&self) -> Summary {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Summary {
            seed: self.seed,
            inserts: count(&self.shared.inserts),
            transfers: count(&self.shared.transfers),
            held: count(&self.shared.held),
            aborted: count(&self.shared.aborted),
            total: self.total,
        }
    }

    /// Lets each client end what it began, and says what was done. An error if a client met one
    /// that no election, restart or migration explains.
    pub async fn stop(mut self) -> Result<Summary> {
        // Fails only when no client is left; then there is nothing to tell.
        let _ = self.stop.send(true);
        while let Some(client) = self.clients.join_next().await {
            client
                .context("a client of the workload panicked")?
                .with_context(|| format!("a client of the workload failed (seed {})", self.seed))?;
        }
        Ok(self.summary())
    }
}

/// The sum of all balances of the collection as of a cluster time.
pub async fn total_at(lab: &Lab, ns: &str, time: Timestamp) -> Result<i64> {
    snapshot::find_at(lab, ns, time, doc! {"kind": "account"})
        .await?
        .iter()
        .map(|account| account.get_i64("balance").context("an account without balance"))
        .sum()
}

struct Client {
    pool: Pool,
    ns: String,
    routing: Routing,
    accounts: Vec<i64>,
    rng: StdRng,
    number: usize,
    serial: i64,
    shared: Arc<Shared>,
}

impl Client {
    async fn work(mut self, stop: watch::Receiver<bool>) -> Result<()> {
        // A dropped sender is a dropped workload, which has aborted this task as well.
        while !*stop.borrow() {
            if self.rng.random_bool(0.5) {
                self.insert().await?;
            } else {
                self.transfer().await?;
            }
            sleep(THINK).await;
        }
        Ok(())
    }

    async fn open_account(&mut self, id: i64) -> Result<()> {
        let collection = split(&self.ns)?.1;
        let command = doc! {
            "update": collection,
            "updates": [{
                "q": {"_id": id, "kind": "account"},
                "u": {"$setOnInsert": {"balance": BALANCE}},
                "upsert": true,
            }],
        };
        self.write(id, command).await.context("cannot open the accounts")
    }

    async fn insert(&mut self) -> Result<()> {
        let collection = split(&self.ns)?.1.to_owned();
        loop {
            let chunk = self.routing.chunks.choose(&mut self.rng).context("no chunks")?;
            let Some((low, high)) = range_of(chunk) else {
                continue;
            };
            let id = self.rng.random_range(low..high);
            let document = doc! {"_id": id, "kind": "note", "client": self.number as i64, "serial": self.serial};
            match self.write(id, doc! {"insert": &collection, "documents": [document]}).await {
                Ok(()) => break,
                Err(error) if code(&error) == Some(DUPLICATE_KEY) => continue,
                Err(error) => return Err(error.context("an insert failed")),
            }
        }
        self.shared.inserts.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// A retryable write of one document: sent again, with the same number, until its outcome is
    /// known.
    async fn write(&mut self, id: i64, mut command: Document) -> Result<()> {
        self.serial += 1;
        let session = self.pool.session();
        command.insert("lsid", session.lsid.clone());
        command.insert("txnNumber", session.number);
        command.insert("writeConcern", majority());
        let end = Instant::now() + SETTLE_LIMIT;
        loop {
            match self.try_write(id, command.clone()).await {
                Ok(reply) => {
                    self.pool.reuse(&session);
                    self.acknowledge(operation_time(&reply)?);
                    return Ok(());
                }
                Err(error) if !is_passing(&error) || Instant::now() > end => return Err(error),
                Err(_) => self.recover().await,
            }
        }
    }

    async fn try_write(&mut self, id: i64, mut command: Document) -> Result<Document> {
        let shard = self.routing.owner(&id.into())?.to_owned();
        command.insert("shardVersion", self.routing.version(&shard));
        let mut connection = self.pool.take(&shard).await?;
        let reply = connection.run(split(&self.ns)?.0, command).await?;
        self.pool.put(&shard, connection);
        Ok(reply)
    }

    /// One attempt at a transfer, which ends acknowledged or undone.
    async fn transfer(&mut self) -> Result<()> {
        let (from, to) = self.two_accounts()?;
        let amount = self.rng.random_range(1..=10);
        let held = self.rng.random_bool(1.0 / 3.0);
        let hold = Duration::from_millis(self.rng.random_range(HELD));
        let mut transaction = Transaction::begin_in(&self.pool);
        for (id, amount) in [(from, -amount), (to, amount)] {
            if let Err(error) = self.add(&mut transaction, id, amount).await {
                return self.give_up(transaction, error).await;
            }
        }
        let outcome = if held {
            match transaction.prepare().await {
                Ok(prepared) => {
                    sleep(hold).await;
                    // From here on there is no way back, so an error is the test's to see.
                    Ok(prepared.commit().await?)
                }
                Err(error) => Err(error),
            }
        } else {
            transaction.commit().await
        };
        match outcome {
            Ok(time) => {
                self.shared.transfers.fetch_add(1, Ordering::SeqCst);
                self.shared.held.fetch_add(held.into(), Ordering::SeqCst);
                self.acknowledge(time);
                Ok(())
            }
            Err(error) => self.undone(error).await,
        }
    }

    async fn add(&self, transaction: &mut Transaction, id: i64, amount: i64) -> Result<()> {
        let (db, collection) = split(&self.ns)?;
        let shard = self.routing.owner(&id.into())?;
        let statement = doc! {
            "update": collection,
            "updates": [{"q": {"_id": id}, "u": {"$inc": {"balance": amount}}}],
            "shardVersion": self.routing.version(shard),
        };
        let reply = transaction.run(shard, db, statement).await?;
        ensure!(reply.get_i32("n")? == 1, "the account {id} is gone");
        Ok(())
    }

    /// Two accounts on different shards, where there are several.
    fn two_accounts(&mut self) -> Result<(i64, i64)> {
        let pick = |rng: &mut StdRng, from: &[i64]| from.choose(rng).copied().context("no account");
        let from = pick(&mut self.rng, &self.accounts)?;
        let shard = self.routing.owner(&from.into())?;
        let mut others = Vec::new();
        for id in &self.accounts {
            if self.routing.owner(&(*id).into())? != shard {
                others.push(*id);
            }
        }
        if others.is_empty() {
            others = self.accounts.iter().copied().filter(|id| *id != from).collect();
        }
        Ok((from, pick(&mut self.rng, &others)?))
    }

    async fn give_up(&mut self, transaction: Transaction, error: anyhow::Error) -> Result<()> {
        transaction.abort().await?;
        self.undone(error).await
    }

    async fn undone(&mut self, error: anyhow::Error) -> Result<()> {
        tracing::debug!("a transfer was undone: {error:#}");
        self.shared.aborted.fetch_add(1, Ordering::SeqCst);
        self.recover().await;
        Ok(())
    }

    /// After a failure: new connections and, if it can be had, a new routing table.
    async fn recover(&mut self) {
        self.pool.clear();
        sleep(PAUSE).await;
        if let Ok(routing) = Routing::load(&self.pool.topology, &self.ns).await {
            self.routing = routing;
        }
    }

    fn acknowledge(&self, time: Timestamp) {
        let bits = u64::from(time.time) << 32 | u64::from(time.increment);
        self.shared.acknowledged.fetch_max(bits, Ordering::SeqCst);
    }
}

fn is_passing(error: &anyhow::Error) -> bool {
    is_transient(error) || code(error) == Some(STALE_CONFIG)
}

/// The integers of a chunk, if it holds any.
fn range_of(chunk: &Chunk) -> Option<(i64, i64)> {
    let number = |bound: &Bson| match bound {
        Bson::MinKey => Some(-BOUND),
        Bson::MaxKey => Some(BOUND),
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        _ => None,
    };
    let (low, high) = (number(&chunk.min)?, number(&chunk.max)?);
    (low < high).then_some((low, high))
}

/// The ids of a chunk's accounts, next to the bound that it has.
fn accounts_of(chunk: &Chunk) -> Vec<i64> {
    match range_of(chunk) {
        Some((low, high)) if chunk.min == Bson::MinKey && chunk.max == Bson::MaxKey => {
            (0..ACCOUNTS_PER_CHUNK).filter(|id| (low..high).contains(id)).collect()
        }
        Some((low, high)) if chunk.min == Bson::MinKey => {
            (high - ACCOUNTS_PER_CHUNK..high).filter(|id| *id >= low).collect()
        }
        Some((low, high)) => (low..high.min(low + ACCOUNTS_PER_CHUNK)).collect(),
        None => Vec::new(),
    }
}
