//! Databases, sharded collections, migrations and the balancer, by the commands that a router
//! would send.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bson::{Bson, Document, doc};
use mongodb::Collection;
use mongodb::options::WriteConcern;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cluster::Lab;
use crate::endpoint::Endpoint;
use crate::routing::Routing;
use crate::snapshot::{self, ReadAt, split};
use crate::wire::{Gossip, code, majority};

/// The limit on one migration of the lab's small chunks.
pub const MIGRATION_LIMIT: Duration = Duration::from_secs(60);
/// On the donor, after the recipient has cloned and before the critical section.
const HOLD: &str = "moveChunkHangAtStep4";

const LOCK_TIMEOUT: i32 = 24;
const CONFLICTING_OPERATION: i32 = 117;

/// The two documents of `config.settings` that hold the balancer's state.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BalancerDocuments {
    pub balancer: Option<Document>,
    pub autosplit: Option<Document>,
}

impl Lab {
    /// Creates a database with `rs{primary}` as its primary shard.
    pub async fn create_database(&self, db: &str, primary: usize) -> Result<()> {
        let command = doc! {
            "_configsvrCreateDatabase": db,
            "primaryShardId": self.shard(primary).name(),
            "writeConcern": majority(),
        };
        self.config().run("admin", command).await.with_context(|| format!("cannot create the database {db}"))?;
        Ok(())
    }

    /// Shards a collection of an existing database by ranges of `_id`, split at `splits`; the
    /// range before `splits[i]` goes to the shard `owners[i]`, the rest to the last owner.
    pub async fn shard_collection(&self, ns: &str, splits: &[Bson], owners: &[usize]) -> Result<()> {
        ensure!(owners.len() == splits.len() + 1, "one owner more than splits, please");
        let (db, collection) = split(ns)?;
        let topology = self.topology();
        let database = snapshot::find(
            &topology.config,
            &Gossip::default(),
            "config.databases",
            ReadAt::Majority,
            doc! {"_id": db},
        )
        .await?
        .pop()
        .with_context(|| format!("create the database {db} first"))?;
        let primary = topology.shard(database.get_str("primary")?)?;
        let create = doc! {
            "_shardsvrCreateCollection": collection,
            "shardKey": {"_id": 1},
            "writeConcern": majority(),
            "databaseVersion": database.get("version").cloned(),
        };
        primary.run(db, create).await.with_context(|| format!("cannot shard {ns}"))?;
        if !splits.is_empty() {
            let routing = Routing::load(&topology, ns).await?;
            let (epoch, timestamp) = routing.epoch();
            let keys: Vec<Bson> = splits.iter().map(|id| doc! {"_id": id}.into()).collect();
            let command = doc! {
                "splitChunk": ns,
                "from": &primary.name,
                "keyPattern": {"_id": 1},
                "min": {"_id": Bson::MinKey},
                "max": {"_id": Bson::MaxKey},
                "splitKeys": keys,
                "epoch": epoch,
                "timestamp": timestamp,
            };
            primary.run("admin", command).await.with_context(|| format!("cannot split {ns}"))?;
        }
        let mins = std::iter::once(&Bson::MinKey).chain(splits);
        for (min, owner) in mins.zip(owners) {
            let owner = self.shard(*owner).name();
            if owner != primary.name {
                self.move_range(ns, min.clone(), owner).await?;
            }
        }
        Ok(())
    }

    /// Migrates the chunk that begins at `min` to the shard named `to`, and waits until the
    /// donor has deleted its copy.
    pub async fn move_range(&self, ns: &str, min: impl Into<Bson>, to: &str) -> Result<()> {
        move_range(self.config().endpoint().clone(), ns.to_owned(), min.into(), to.to_owned()).await
    }

    /// Begins a migration and holds it open, cloned but not committed, until it is released.
    /// Needs `test_commands(true)`. A step-down of the donor ends it.
    pub async fn hold_migration(&self, ns: &str, min: impl Into<Bson>, to: &str) -> Result<HeldMigration> {
        let min = min.into();
        let topology = self.topology();
        let routing = Routing::load(&topology, ns).await?;
        let chunk = routing
            .chunks
            .iter()
            .find(|chunk| chunk.min == min)
            .with_context(|| format!("no chunk of {ns} begins at {min}"))?;
        let donor = topology.shard(&chunk.shard)?.clone();
        let on = doc! {"configureFailPoint": HOLD, "mode": "alwaysOn"};
        let entered = donor
            .run("admin", on)
            .await
            .context("cannot set a failpoint: was the lab built with test_commands(true)?")?
            .get_i64("count")
            .or_else(|_| anyhow::Ok(0))?;
        let config = topology.config.clone();
        let task = tokio::spawn(move_range(config, ns.to_owned(), min, to.to_owned()));
        let mut held = HeldMigration { donor: donor.clone(), task: Some(task) };
        let reached = doc! {
            "waitForFailPoint": HOLD,
            "timesEntered": entered + 1,
            "maxTimeMS": 15_000,
        };
        let Some(migration) = &mut held.task else {
            bail!("the migration has no task");
        };
        tokio::select! {
            reached = donor.run("admin", reached) => {
                reached.context("the migration did not get to where it is held")?;
                Ok(held)
            }
            ended = migration => {
                held.task = None;
                let_go(&donor).await?;
                ended.context("the migration's task was lost")??;
                bail!("the migration ended without a stop");
            }
        }
    }

    /// The balancer's documents as they are now; none for a balancer that was never touched.
    pub async fn balancer_documents(&self) -> Result<BalancerDocuments> {
        let settings = self.settings();
        Ok(BalancerDocuments {
            balancer: settings.find_one(doc! {"_id": "balancer"}).await?,
            autosplit: settings.find_one(doc! {"_id": "autosplit"}).await?,
        })
    }

    /// Writes the balancer's documents directly; removes those that are `None`.
    pub async fn set_balancer_documents(&self, documents: &BalancerDocuments) -> Result<()> {
        let settings = self.settings();
        for (id, document) in [("balancer", &documents.balancer), ("autosplit", &documents.autosplit)] {
            let filter = doc! {"_id": id};
            match document {
                Some(document) => {
                    settings.replace_one(filter, document).upsert(true).await?;
                }
                None => {
                    settings.delete_one(filter).await?;
                }
            }
        }
        Ok(())
    }

    /// What `sh.stopBalancer()` does through a router.
    pub async fn operator_stops_balancer(&self) -> Result<()> {
        self.config()
            .run("admin", doc! {"_configsvrBalancerStop": 1, "maxTimeMS": 15_000})
            .await
            .context("cannot stop the balancer")?;
        Ok(())
    }

    /// What `sh.startBalancer()` does through a router.
    pub async fn operator_starts_balancer(&self) -> Result<()> {
        self.config()
            .run("admin", doc! {"_configsvrBalancerStart": 1, "maxTimeMS": 15_000})
            .await
            .context("cannot start the balancer")?;
        Ok(())
    }

    fn settings(&self) -> Collection<Document> {
        let options = mongodb::options::CollectionOptions::builder().write_concern(WriteConcern::majority()).build();
        self.config().client().database("config").collection_with_options("settings", options)
    }
}

async fn move_range(config: Arc<Endpoint>, ns: String, min: Bson, to: String) -> Result<()> {
    let end = Instant::now() + MIGRATION_LIMIT;
    loop {
        let command = doc! {
            "_configsvrMoveRange": &ns,
            "toShard": &to,
            "min": {"_id": min.clone()},
            "waitForDelete": true,
            "writeConcern": majority(),
        };
        let mut connection = config.connect_primary().await?;
        match connection.run_within(MIGRATION_LIMIT, "admin", command).await {
            Ok(_) => return Ok(()),
            // The donor waits 0.5 s for the collection's lock before it commits, and no longer:
            // a transaction that is held open keeps it, and the migration is undone.
            Err(error)
                if matches!(code(&error), Some(LOCK_TIMEOUT | CONFLICTING_OPERATION)) && Instant::now() < end =>
            {
                tracing::debug!("a migration is tried again: {error:#}");
            }
            Err(error) => {
                return Err(error.context(format!("cannot move the chunk of {ns} at {min} to {to}")));
            }
        }
    }
}

/// A migration that waits on its donor. Dropping it lets the migration go on, soon.
#[derive(Debug)]
pub struct HeldMigration {
    donor: Arc<Endpoint>,
    task: Option<JoinHandle<Result<()>>>,
}

impl HeldMigration {
    /// Lets the migration go on and waits for its end.
    pub async fn release(mut self) -> Result<()> {
        let off = let_go(&self.donor).await;
        if let Some(task) = self.task.take() {
            task.await.context("the migration's task was lost")??;
        }
        off
    }
}

impl Drop for HeldMigration {
    fn drop(&mut self) {
        if self.task.is_none() {
            return;
        }
        // Outside of a runtime the lab is about to end too, and the migration with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let donor = self.donor.clone();
            runtime.spawn(async move {
                if let Err(error) = let_go(&donor).await {
                    tracing::warn!("a held migration was not released: {error:#}");
                }
            });
        }
    }
}

async fn let_go(donor: &Endpoint) -> Result<()> {
    let off = doc! {"configureFailPoint": HOLD, "mode": "off"};
    donor.run("admin", off).await.context("cannot release the migration")?;
    Ok(())
}
