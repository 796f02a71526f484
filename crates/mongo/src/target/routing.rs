//! What the config servers of a target know of its collections, and the mark of an unfinished restore.
//!
//! The mark is a document on the target itself: whoever finds the target half full, by whatever means, can find
//! out why. It is written before anything else, and its collection dropped when the restore is finished.

use bson::raw::{RawArrayBuf, RawBsonRef, RawDocumentBuf};
use bson::{Document, doc, rawdoc};

use crate::error::Result;
use crate::part::PartLink;
use crate::privileges::{
    CONTROL_ROUTING, MARK_TARGET, Need, READ_CONFIG, UNMARK_TARGET, WRITE_ROLES, WRITE_ROUTING, WRITE_USERS,
};

/// In the database `config`.
pub const MARK: &str = "stillpoint.restore";
/// In the same collection, behind the mark.
const FOUND_EMPTY: &str = "restore.found.empty";
/// `NamespaceNotFound`
const NO_SUCH_COLLECTION: i32 = 26;
/// Rows that are inserted at once.
const AT_ONCE: usize = 1_000;

impl PartLink {
    /// All rows of a collection of `config`, as a majority has them.
    pub async fn config_rows(&self, collection: &str) -> Result<Vec<RawDocumentBuf>> {
        let command = rawdoc! {"find": collection, "sort": {"_id": 1}, "readConcern": {"level": "majority"}};
        self.all("config", &READ_CONFIG, command).await
    }

    /// Inserts rows into a collection of `config`. Those whose `_id` is there count as written.
    pub async fn insert_config_rows(&self, collection: &str, rows: &[RawDocumentBuf]) -> Result<()> {
        self.insert_rows("config", collection, rows, &WRITE_ROUTING).await
    }

    /// Inserts users, as `admin.system.users` has them; those that are there stay as they are.
    pub async fn insert_users(&self, users: &[RawDocumentBuf]) -> Result<()> {
        self.insert_rows("admin", "system.users", users, &WRITE_USERS).await
    }

    /// The same of roles.
    pub async fn insert_roles(&self, roles: &[RawDocumentBuf]) -> Result<()> {
        self.insert_rows("admin", "system.roles", roles, &WRITE_ROLES).await
    }

    async fn insert_rows(&self, db: &str, collection: &str, rows: &[RawDocumentBuf], need: &Need) -> Result<()> {
        for some in rows.chunks(AT_ONCE) {
            let mut documents = RawArrayBuf::new();
            some.iter().for_each(|row| documents.push(row));
            self.insert_all(db, collection, &documents, need, false).await?;
        }
        Ok(())
    }

    /// Puts a shard into a zone; to be sent to the config servers.
    pub async fn add_to_zone(&self, shard: &str, zone: &str) -> Result<()> {
        let command = doc! {
            "_configsvrAddShardToZone": shard, "zone": zone,
            "writeConcern": {"w": "majority", "wtimeout": 60_000}, "maxTimeMS": 60_000,
        };
        self.run("admin", &CONTROL_ROUTING, command).await.map(drop)
    }

    /// Makes a shard ask the config servers what they know of a database.
    pub async fn refresh_database(&self, db: &str) -> Result<()> {
        self.run("admin", &CONTROL_ROUTING, doc! {"_flushDatabaseCacheUpdates": db, "maxTimeMS": 60_000})
            .await
            .map(drop)
    }

    /// The same of a sharded collection.
    pub async fn refresh_collection(&self, ns: &str) -> Result<()> {
        let command = doc! {"_flushRoutingTableCacheUpdates": ns, "maxTimeMS": 60_000};
        self.run("admin", &CONTROL_ROUTING, command).await.map(drop)
    }

    /// The id of the restore that the target is marked with, if it is.
    pub async fn marked(&self) -> Result<Option<String>> {
        let rows = self.config_rows(MARK).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let restore = row.get_str("restore").map_err(|e| self.not_understood(&MARK_TARGET, e.to_string()))?;
        Ok(Some(restore.to_owned()))
    }

    /// Marks the target, unless it is marked already; which restore's the mark is then. There is one place for a mark.
    pub async fn mark(&self, mark: &Document) -> Result<Option<String>> {
        let mut one = doc! {"_id": "restore"};
        one.extend(mark.clone());
        let row = RawDocumentBuf::try_from(&one).map_err(|e| self.not_understood(&MARK_TARGET, e.to_string()))?;
        self.insert_rows("config", MARK, &[row], &MARK_TARGET).await?;
        self.marked().await
    }

    /// Notes beside the mark that these shards were looked at while it was there, and held nothing: whatever is in
    /// them from now on came after it.
    pub async fn mark_empty(&self, restore: &str, shards: &[String]) -> Result<()> {
        let mut names = RawArrayBuf::new();
        shards.iter().for_each(|name| names.push(name.as_str()));
        let row = rawdoc! {"_id": FOUND_EMPTY, "restore": restore, "shards": names};
        self.insert_rows("config", MARK, &[row], &MARK_TARGET).await
    }

    /// The shards that held nothing while the target had the mark of that restore, if it has it still.
    pub async fn marked_empty(&self, restore: &str) -> Result<Option<Vec<String>>> {
        let rows = self.config_rows(MARK).await?;
        let is = |row: &RawDocumentBuf, id: &str| {
            row.get_str("_id").is_ok_and(|is| is == id) && row.get_str("restore").is_ok_and(|is| is == restore)
        };
        let [mark, found] = &rows[..] else { return Ok(None) };
        if !is(mark, "restore") || !is(found, FOUND_EMPTY) {
            return Ok(None);
        }
        let wrong = |why: String| self.not_understood(&MARK_TARGET, why);
        let names = found.get_array("shards").map_err(|e| wrong(e.to_string()))?;
        let names = names.into_iter().map(|value| match value {
            Ok(RawBsonRef::String(name)) => Ok(name.to_owned()),
            other => Err(wrong(format!("{other:?} is no name of a shard"))),
        });
        names.collect::<Result<_>>().map(Some)
    }

    /// Takes the mark away.
    pub async fn unmark(&self) -> Result<()> {
        let command = doc! {"drop": MARK, "writeConcern": {"w": "majority", "wtimeout": 60_000}, "maxTimeMS": 60_000};
        match self.client.database("config").run_command(command).await {
            Err(e) if matches!(e.kind.as_ref(), mongodb::error::ErrorKind::Command(e) if e.code == NO_SUCH_COLLECTION) => {
                Ok(())
            }
            reply => self.confirmed(&UNMARK_TARGET, reply).map(drop),
        }
    }
}
