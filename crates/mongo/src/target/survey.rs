//! What a part of a target is like before anything is written.

use bson::{Bson, RawDocumentBuf, doc, rawdoc};

use crate::error::Result;
use crate::part::PartLink;
use crate::privileges::{self, Need, READ_DATA, RESTORE, RESTORE_USERS, SEE_SPACE};

/// What was found of a part.
#[derive(Debug)]
pub struct Survey {
    /// Its collections and views, each as `$listCatalog` has it.
    pub catalogue: Vec<RawDocumentBuf>,
    /// Bytes that are free on its primary's disk, where the server tells.
    pub free: Option<u64>,
}

impl PartLink {
    /// What the user may not do, and would have to for a restore, or for one with users and roles.
    pub async fn missing_for_restore(&self, users: bool) -> Result<Vec<&'static Need>> {
        let mut missing = privileges::missing(self, RESTORE).await?;
        if users {
            missing.extend(privileges::missing(self, RESTORE_USERS).await?);
        }
        Ok(missing)
    }

    /// Looks at a part of a target. One whose `featureCompatibilityVersion` is before 6.0 cannot list what it has.
    pub async fn survey(&self) -> Result<Survey> {
        let (catalogue, free) = tokio::try_join!(self.catalogue_now(), self.free())?;
        Ok(Survey { catalogue, free })
    }

    /// What a replica set is called in the sharded cluster that it is a part of, if it is of one.
    pub async fn is_shard(&self) -> Result<Option<String>> {
        let command = doc! {
            "find": "system.version", "filter": {"_id": "shardIdentity"}, "limit": 1, "singleBatch": true,
            "readConcern": {"level": "majority"}, "maxTimeMS": 10_000,
        };
        let found = self.first_batch("admin", &READ_DATA, command).await?;
        Ok(found.first().map(|identity| identity.get_str("shardName").unwrap_or("?").to_owned()))
    }

    /// Every collection and view of the part as a majority has them, each as `$listCatalog` has it.
    pub async fn catalogue_now(&self) -> Result<Vec<RawDocumentBuf>> {
        let command = rawdoc! {
            "aggregate": 1,
            "pipeline": [{"$listCatalog": {}}],
            "cursor": {},
            "readConcern": {"level": "majority"},
            "maxTimeMS": 60_000,
        };
        self.all("admin", &READ_DATA, command).await
    }

    async fn free(&self) -> Result<Option<u64>> {
        let stats = self.run("admin", &SEE_SPACE, doc! {"dbStats": 1, "maxTimeMS": 10_000}).await?;
        let number = |name: &str| match stats.get(name) {
            Some(Bson::Double(n)) if *n >= 0.0 => Some(*n as u64),
            Some(Bson::Int64(n)) => u64::try_from(*n).ok(),
            Some(Bson::Int32(n)) => u64::try_from(*n).ok(),
            _ => None,
        };
        Ok(number("fsTotalSize").zip(number("fsUsedSize")).map(|(total, used)| total.saturating_sub(used)))
    }
}
