//! A cluster that data was restored into, made empty again.
//!
//! Only one with the mark of that restore, and in it only shards that held nothing when they were looked at under the
//! mark. The config servers forget it first, so that no router shows half of it; then the shards learn that, and drop
//! what they have. Each step can be done again, and looks for the mark again.

use std::collections::BTreeSet;

use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use stillpoint_core::checkpoint::PartId;
use tokio::time::timeout;

use super::Destination;
use super::write::WRITE_LIMIT;
use crate::error::{MongoError, Result};
use crate::part::PartLink;
use crate::privileges::{
    self, DROP_DATABASES, EMPTY, FORGET_CHUNKS, FORGET_COLLECTIONS, FORGET_DATABASES, FORGET_ZONES, Need,
};

/// Databases that every server has for itself.
const OWN: [&str; 3] = ["admin", "config", "local"];

/// What came of emptying a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emptied {
    Done,
    /// It does not have the mark of that restore, or nobody looked whether it held anything under it.
    NotMarked,
    /// These shards were not there when it was looked at.
    Others(Vec<String>),
}

impl Destination {
    /// Drops every database but the servers' own, and what the config servers know of them. Zones that shards were
    /// put into stay, and so does the mark.
    pub async fn empty(&self, restore: &str) -> Result<Emptied> {
        let parts = self.parts().await?;
        let (config, shards): (Vec<_>, Vec<_>) = parts.iter().partition(|part| part.id == PartId::ConfigServers);
        for part in config.into_iter().chain(shards) {
            if let Some(not) = self.in_the_way(restore, &parts).await? {
                return Ok(not);
            }
            part.empty().await?;
        }
        for part in &parts {
            if let Some(db) = databases(&part.catalogue_now().await?).first() {
                let why = format!("the database {db} came into being meanwhile: somebody writes there");
                return Err(MongoError::Command { part: part.id.to_string(), what: DROP_DATABASES.what, why });
            }
        }
        Ok(Emptied::Done)
    }

    /// Why it is not to be emptied, if it is not.
    async fn in_the_way(&self, restore: &str, parts: &[PartLink]) -> Result<Option<Emptied>> {
        let Some(empty) = self.marked().marked_empty(restore).await? else { return Ok(Some(Emptied::NotMarked)) };
        let mut others = shards(parts);
        others.retain(|name| !empty.contains(name));
        Ok((!others.is_empty()).then_some(Emptied::Others(others)))
    }

    /// Notes that it was found empty, with the mark of that restore on it.
    pub async fn mark_empty(&self, restore: &str) -> Result<()> {
        self.marked().mark_empty(restore, &shards(&self.parts().await?)).await
    }
}

impl PartLink {
    /// What the user may not do, and would have to for the part to be emptied.
    pub async fn missing_to_empty(&self) -> Result<Vec<&'static Need>> {
        privileges::missing(self, EMPTY).await
    }

    async fn empty(&self) -> Result<()> {
        if self.id == PartId::ConfigServers {
            self.forget_all().await?;
        }
        self.drop_all().await
    }

    /// Makes config servers forget all but what they know of their own.
    async fn forget_all(&self) -> Result<()> {
        let own = self.config_rows("collections").await?;
        let own = own.iter().filter(|row| !is_of_a_user(row)).filter_map(|row| row.get("uuid").ok().flatten());
        let own: Vec<Bson> = own.filter_map(|uuid| Bson::try_from(uuid).ok()).collect();
        let theirs = doc! {"$not": {"$regex": "^(admin|config|local)(\\.|$)"}};
        self.delete("databases", doc! {"_id": theirs.clone()}, &FORGET_DATABASES).await?;
        self.delete("collections", doc! {"_id": theirs.clone()}, &FORGET_COLLECTIONS).await?;
        // Those of collections that are known no more.
        self.delete("chunks", doc! {"uuid": {"$nin": own}}, &FORGET_CHUNKS).await?;
        self.delete("tags", doc! {"ns": theirs}, &FORGET_ZONES).await
    }

    async fn delete(&self, collection: &str, filter: Document, need: &Need) -> Result<()> {
        let command = doc! {"delete": collection, "deletes": [{"q": filter, "limit": 0}]};
        self.change("config", need, command).await
    }

    async fn change(&self, db: &str, need: &Need, mut command: Document) -> Result<()> {
        command.insert("writeConcern", doc! {"w": "majority", "wtimeout": 60_000});
        let slow = |_| MongoError::TooSlow { part: self.id.to_string(), what: need.what };
        timeout(WRITE_LIMIT, self.run(db, need, command)).await.map_err(slow)?.map(drop)
    }

    /// Has a shard learn what is known no more, and drops its databases.
    async fn drop_all(&self) -> Result<()> {
        for row in self.config_rows("cache.collections").await?.iter().filter(|row| is_of_a_user(row)) {
            self.refresh_collection(row.get_str("_id").unwrap_or_default()).await?;
        }
        for row in self.config_rows("cache.databases").await?.iter().filter(|row| is_of_a_user(row)) {
            self.refresh_database(row.get_str("_id").unwrap_or_default()).await?;
        }
        for db in databases(&self.catalogue_now().await?) {
            self.change(&db, &DROP_DATABASES, doc! {"dropDatabase": 1}).await?;
        }
        Ok(())
    }
}

fn shards(parts: &[PartLink]) -> Vec<String> {
    let shards = parts.iter().filter(|part| part.id != PartId::ConfigServers);
    shards.map(|part| part.id.name().to_owned()).collect()
}

/// Whether what a row is called is a database of a user, or in one.
fn is_of_a_user(row: &RawDocument) -> bool {
    row.get_str("_id").is_ok_and(|name| !OWN.contains(&name.split('.').next().unwrap_or_default()))
}

fn databases(catalogue: &[RawDocumentBuf]) -> BTreeSet<String> {
    let names = catalogue.iter().filter_map(|row| row.get_str("db").ok());
    names.filter(|db| !OWN.contains(db)).map(str::to_owned).collect()
}
