//! Transactions with a session of our own: on one shard, across shards, or held open between
//! prepare and commit, as they are when a coordinator is slow.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, Timestamp, doc};
use futures::future::{join_all, try_join_all};
use rand::Rng;
use tokio::time::{Instant, sleep};

use crate::endpoint::Topology;
use crate::pool::{Pool, Session};
use crate::wire::{Connection, code, majority, operation_time};

/// The limit on a statement; a frozen shard ends a transaction after it.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);
/// How long a commit or abort is tried through elections and restarts.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(90);
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
const NO_SUCH_TRANSACTION: i32 = 251;

/// A logical session id: 16 random bytes.
pub fn new_lsid() -> Document {
    let bytes: [u8; 16] = rand::rng().random();
    doc! {"id": Binary { subtype: BinarySubtype::Uuid, bytes: bytes.to_vec() }}
}

/// A transaction that runs statements on shards of its caller's choice. Dropped unsettled, it is
/// ended by the servers after `transactionLifetimeLimitSeconds` (60), unless it is prepared.
#[derive(Debug)]
pub struct Transaction {
    pool: Pool,
    session: Session,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    shard: String,
    /// None after a failure.
    connection: Option<Connection>,
}

impl Transaction {
    /// Begins a transaction in a new session; nothing is sent yet.
    pub fn begin(topology: &Topology) -> Self {
        Self::begin_in(&Pool::new(topology))
    }

    /// The same with a client's connections and cluster time.
    pub fn begin_in(pool: &Pool) -> Self {
        Self { pool: pool.clone(), session: pool.session(), parts: Vec::new() }
    }

    /// Runs a statement on a shard. The first shard becomes the coordinator. After an error the
    /// transaction can only be aborted.
    pub async fn run(&mut self, shard: &str, db: &str, mut statement: Document) -> Result<Document> {
        self.stamp(&mut statement);
        let index = match self.parts.iter().position(|part| part.shard == shard) {
            Some(index) => index,
            None => {
                statement.insert("startTransaction", true);
                statement.insert("readConcern", doc! {"level": "snapshot"});
                if self.parts.is_empty() {
                    statement.insert("coordinator", true);
                }
                let connection = Some(self.pool.take(shard).await?);
                // Before it runs, so that an abort reaches this shard whatever comes of it.
                self.parts.push(Part { shard: shard.to_owned(), connection });
                self.parts.len() - 1
            }
        };
        self.parts[index].run(db, statement).await
    }

    /// Commits: on one shard directly, across shards through the coordinator. The reply's
    /// `operationTime`, which is no earlier than the commit.
    pub async fn commit(mut self) -> Result<Timestamp> {
        let mut command = if self.parts.len() > 1 {
            let participants: Vec<Bson> = self.parts.iter().map(|part| doc! {"shardId": &part.shard}.into()).collect();
            doc! {"coordinateCommitTransaction": 1, "participants": participants}
        } else {
            doc! {"commitTransaction": 1}
        };
        self.stamp_durable(&mut command);
        let pool = self.pool.clone();
        let coordinator = self.parts.first_mut().context("the transaction is empty")?;
        match coordinator.settle(&pool, command).await {
            Ok(reply) => {
                self.give_back();
                operation_time(&reply)
            }
            Err(error) => {
                if code(&error) == Some(NO_SUCH_TRANSACTION) {
                    // Decided: aborted. Shards that the coordinator did not get to tell would
                    // hold on to their documents for a minute.
                    self.abort().await?;
                }
                Err(error.context("the transaction did not commit"))
            }
        }
    }

    /// Prepares it on every shard and stops there. If one cannot, all are aborted.
    pub async fn prepare(mut self) -> Result<Prepared> {
        ensure!(!self.parts.is_empty(), "the transaction is empty");
        let mut command = doc! {"prepareTransaction": 1};
        self.stamp_durable(&mut command);
        let prepare = |part| Part::run(part, "admin", command.clone());
        let times = join_all(self.parts.iter_mut().map(prepare))
            .await
            .into_iter()
            .map(|reply| Ok(reply?.get_timestamp("prepareTimestamp")?))
            .collect::<Result<Vec<Timestamp>>>();
        match times {
            Ok(times) => Ok(Prepared {
                commit_timestamp: times.iter().copied().max().context("no shard")?,
                prepare_timestamps: times,
                transaction: self,
            }),
            Err(error) => {
                self.abort().await?;
                Err(error.context("the transaction could not be prepared"))
            }
        }
    }

    /// Aborts it wherever it ran.
    pub async fn abort(mut self) -> Result<()> {
        let mut command = doc! {"abortTransaction": 1};
        self.stamp_durable(&mut command);
        let pool = &self.pool;
        try_join_all(self.parts.iter_mut().map(|part| async {
            match part.settle(pool, command.clone()).await {
                Err(error) if code(&error) != Some(NO_SUCH_TRANSACTION) => {
                    Err(error.context("a transaction could not be aborted"))
                }
                _ => Ok(()),
            }
        }))
        .await?;
        Ok(())
    }

    fn stamp(&self, command: &mut Document) {
        command.insert("lsid", self.session.lsid.clone());
        command.insert("txnNumber", self.session.number);
        command.insert("autocommit", false);
    }

    fn stamp_durable(&self, command: &mut Document) {
        self.stamp(command);
        command.insert("writeConcern", majority());
    }

    /// After it was committed.
    fn give_back(&mut self) {
        self.pool.reuse(&self.session);
        for part in &mut self.parts {
            if let Some(connection) = part.connection.take() {
                self.pool.put(&part.shard, connection);
            }
        }
    }
}

impl Part {
    async fn run(&mut self, db: &str, command: Document) -> Result<Document> {
        let Some(mut connection) = self.connection.take() else {
            bail!("an earlier statement on {} failed", self.shard);
        };
        let reply = connection.run_within(STATEMENT_LIMIT, db, command).await?;
        self.connection = Some(connection);
        Ok(reply)
    }

    /// Sends a command that may be sent again to whoever is primary, until it has a definite
    /// answer.
    async fn settle(&mut self, pool: &Pool, command: Document) -> Result<Document> {
        let end = Instant::now() + SETTLE_LIMIT;
        loop {
            if self.connection.is_none() {
                self.connection = pool.take(&self.shard).await.ok();
            }
            match self.run("admin", command.clone()).await {
                Err(error) if is_transient(&error) && Instant::now() < end => {
                    // The idle ones lead to the same member.
                    pool.clear();
                    sleep(SETTLE_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// A transaction that is prepared on all its shards. It survives elections and restarts and
/// blocks readers of what it wrote until it is settled, so settle it.
#[derive(Debug)]
#[must_use = "a prepared transaction blocks its documents until it is committed or aborted"]
pub struct Prepared {
    transaction: Transaction,
    prepare_timestamps: Vec<Timestamp>,
    commit_timestamp: Timestamp,
}

impl Prepared {
    /// One for each shard, in the order in which the transaction reached them.
    pub fn prepare_timestamps(&self) -> &[Timestamp] {
        &self.prepare_timestamps
    }

    /// The cluster time at which its writes will have happened: the latest prepare.
    pub fn commit_timestamp(&self) -> Timestamp {
        self.commit_timestamp
    }

    /// It will have happened at a later cluster time than the latest prepare.
    pub fn as_of(mut self, time: Timestamp) -> Self {
        self.commit_timestamp = self.commit_timestamp.max(time);
        self
    }

    /// Commits on all shards; the highest `operationTime` of the replies.
    pub async fn commit(mut self) -> Result<Timestamp> {
        let command = self.command();
        let Transaction { pool, parts, .. } = &mut self.transaction;
        let commit = |part| commit_part(part, pool, command.clone());
        let times = try_join_all(parts.iter_mut().map(commit)).await?;
        self.transaction.give_back();
        times.into_iter().max().context("no shard")
    }

    /// Commits on one shard only, as a coordinator does that is slow to reach the others; the
    /// rest is left for [`commit`](Self::commit).
    pub async fn commit_on(&mut self, shard: &str) -> Result<Timestamp> {
        let command = self.command();
        let Transaction { pool, parts, .. } = &mut self.transaction;
        let part = parts
            .iter_mut()
            .find(|part| part.shard == shard)
            .with_context(|| format!("the transaction was not on {shard}"))?;
        commit_part(part, pool, command).await
    }

    /// Aborts on all shards.
    pub async fn abort(self) -> Result<()> {
        self.transaction.abort().await
    }

    fn command(&self) -> Document {
        let mut command = doc! {"commitTransaction": 1, "commitTimestamp": self.commit_timestamp};
        self.transaction.stamp_durable(&mut command);
        command
    }
}

async fn commit_part(part: &mut Part, pool: &Pool, command: Document) -> Result<Timestamp> {
    let reply = part.settle(pool, command).await.context("a prepared transaction did not commit")?;
    operation_time(&reply)
}

/// Whether an error says nothing about the outcome, or only that another member must be asked.
pub(crate) fn is_transient(error: &anyhow::Error) -> bool {
    // The "retryable" codes of the drivers' specification, then what a shard says of itself or
    // of others while it comes up: 50 MaxTimeMSExpired, 64 WriteConcernFailed, 133
    // FailedToSatisfyReadPreference, 202 NetworkInterfaceExceededTimeLimit, 211 KeyNotFound.
    const CODES: [i32; 18] =
        [6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436, 50, 64, 133, 202, 211];
    code(error).is_none_or(|code| CODES.contains(&code))
}
