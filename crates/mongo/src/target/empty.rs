//! A cluster that data was restored into, made empty again.
//!
//! Whoever calls this has made sure that nothing in it is to be kept. The config servers forget it first, so that no
//! router shows half of it; then the shards learn that, and drop what they have. Each step can be done again.

use std::collections::BTreeSet;

use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};

use super::Destination;
use crate::error::Result;
use crate::part::PartLink;
use crate::privileges::{
    self, DROP_DATABASES, EMPTY, FORGET_CHUNKS, FORGET_COLLECTIONS, FORGET_DATABASES, FORGET_ZONES, Need,
};

/// Databases that every server has for itself.
const OWN: [&str; 3] = ["admin", "config", "local"];

impl Destination {
    /// Drops every database but the servers' own, and what the config servers know of them. Zones that shards were
    /// put into stay.
    pub async fn empty(&self) -> Result<()> {
        if let Destination::Cluster(cluster) = self {
            cluster.config.forget_all().await?;
        }
        for part in self.parts().await? {
            part.drop_all().await?;
        }
        Ok(())
    }
}

impl PartLink {
    /// What the user may not do, and would have to for the part to be emptied.
    pub async fn missing_to_empty(&self) -> Result<Vec<&'static Need>> {
        privileges::missing(self, EMPTY).await
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
        let command = doc! {
            "delete": collection, "deletes": [{"q": filter, "limit": 0}],
            "writeConcern": {"w": "majority", "wtimeout": 60_000},
        };
        self.run("config", need, command).await.map(drop)
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
            let command = doc! {"dropDatabase": 1, "writeConcern": {"w": "majority", "wtimeout": 60_000}};
            self.run(&db, &DROP_DATABASES, command).await?;
        }
        Ok(())
    }
}

/// Whether what a row is called is a database of a user, or in one.
fn is_of_a_user(row: &RawDocument) -> bool {
    row.get_str("_id").is_ok_and(|name| !OWN.contains(&name.split('.').next().unwrap_or_default()))
}

fn databases(catalogue: &[RawDocumentBuf]) -> BTreeSet<String> {
    let names = catalogue.iter().filter_map(|row| row.get_str("db").ok());
    names.filter(|db| !OWN.contains(db)).map(str::to_owned).collect()
}
