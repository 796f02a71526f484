//! What the source's config servers knew of its collections at the time, and what the target's are to know.
//!
//! Rows are taken as they are, but for the names of shards, and of what is renamed. The balancer's settings, the
//! shards themselves and all that is of the moment (locks, pings, logs, migrations) are not restored.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use bson::{Bson, Document};
use stillpoint_fold::{Collection, Uuid};
use stillpoint_snapshot::manifest;

use super::RestoreError;
use super::naming::Naming;
use crate::snapshots::SnapshotError;
use crate::snapshots::owners::{self, Ownerships};
use crate::snapshots::state::Sink;

/// The collections of config servers whose rows are restored, in the order in which they are written: a router asks
/// for the database first, so that it finds nothing before it finds all.
pub const TABLES: [&str; 4] = ["tags", "chunks", "collections", "databases"];
const USERS: &str = "admin.system.users";
const ROLES: &str = "admin.system.roles";
/// An operation is under way while one of these has a document.
const UNDER_WAY: [&str; 2] = ["config.system.sharding_ddl_coordinators", "config.reshardingOperations"];

/// Rows of the source's config servers, by namespace.
#[derive(Debug, Default)]
pub struct Routing {
    rows: BTreeMap<String, Vec<RawDocumentBuf>>,
    open: Option<String>,
}

impl Routing {
    pub fn is_wanted(_: Uuid, collection: &Collection) -> bool {
        let ns = &collection.ns;
        TABLES.iter().any(|table| ns.strip_prefix("config.") == Some(table))
            || [USERS, ROLES, "config.shards"].contains(&ns.as_str())
            || UNDER_WAY.contains(&ns.as_str())
    }

    fn of(&self, ns: &str) -> &[RawDocumentBuf] {
        self.rows.get(ns).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn users(&self) -> (&[RawDocumentBuf], &[RawDocumentBuf]) {
        (self.of(USERS), self.of(ROLES))
    }

    /// Whether a collection tells of an operation that is under way.
    pub fn is_under_way(_: Uuid, collection: &Collection) -> bool {
        UNDER_WAY.contains(&collection.ns.as_str())
    }

    /// Of an operation that was under way on the servers at the time, if there was one. A migration is
    /// none: at any time one shard owns a chunk.
    pub fn under_way(&self) -> Option<&str> {
        UNDER_WAY.into_iter().find(|ns| !self.of(ns).is_empty())
    }

    /// Who owns what of each sharded collection, by its UUID.
    pub fn ownerships(&self) -> Result<Ownerships, RestoreError> {
        owners::of(self.of("config.collections"), self.of("config.chunks")).map_err(RestoreError::of_ownership)
    }

    /// The zones of each shard of the source, as far as ranges of what is restored are in them.
    pub fn zones(&self, naming: &Naming) -> Result<Vec<(&str, Vec<String>)>, RestoreError> {
        let mut used = BTreeSet::new();
        for row in self.of("config.tags") {
            if naming.of(text(row, "ns", "config.tags")?).is_some() {
                used.insert(text(row, "tag", "config.tags")?);
            }
        }
        let zones = |row: &'_ RawDocumentBuf| -> Vec<String> {
            let tags = row.get_array("tags").into_iter().flatten();
            let tags = tags.filter_map(|tag| tag.ok()?.as_str().map(str::to_owned));
            tags.filter(|tag| used.contains(tag.as_str())).collect()
        };
        self.of("config.shards").iter().map(|row| Ok((text(row, "_id", "config.shards")?, zones(row)))).collect()
    }

    /// The rows of a table as the target is to have them: in the order of their `_id`s as they come.
    pub fn rows(
        &self,
        table: &str,
        naming: &Naming,
        shards: &BTreeMap<String, String>,
    ) -> Result<Vec<RawDocumentBuf>, RestoreError> {
        let ns = format!("config.{table}");
        let wanted = self.wanted(naming)?;
        let rename = Renaming { table: &ns, naming, shards };
        let mut made = Vec::new();
        for row in self.of(&ns) {
            let uuid = || uuid_of(row, &ns);
            let row = Document::try_from(row.as_ref()).map_err(|e| unknown(&ns, e))?;
            let row = match table {
                "databases" => rename.database(row)?,
                "collections" => rename.collection(row)?,
                "chunks" if wanted.contains(&uuid()?) => Some(rename.chunk(row)?),
                "chunks" => None,
                _ => rename.tag(row)?,
            };
            if let Some(row) = row {
                made.push(RawDocumentBuf::try_from(&row).map_err(|e| unknown(&ns, e))?);
            }
        }
        Ok(made)
    }

    /// The sharded collections that are restored.
    fn wanted(&self, naming: &Naming) -> Result<BTreeSet<Uuid>, RestoreError> {
        let mut wanted = BTreeSet::new();
        for row in self.of("config.collections") {
            if naming.of(text(row, "_id", "config.collections")?).is_some() {
                wanted.insert(uuid_of(row, "config.collections")?);
            }
        }
        Ok(wanted)
    }
}

impl Sink for Routing {
    fn begin(
        &mut self,
        _: Uuid,
        collection: &Collection,
        _: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        self.open = Some(collection.ns.clone());
        Ok(())
    }

    fn document(&mut self, _: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        if let Some(ns) = &self.open {
            self.rows.entry(ns.clone()).or_default().push(document.to_owned());
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        self.open = None;
        Ok(())
    }
}

/// Those of the rows that are not among what is there, to the byte.
pub fn absent<'a>(rows: &'a [RawDocumentBuf], there: &'a [RawDocumentBuf]) -> impl Iterator<Item = &'a RawDocumentBuf> {
    let there: HashSet<_> = there.iter().map(|row| row.as_bytes()).collect();
    rows.iter().filter(move |row| !there.contains(row.as_bytes()))
}

/// Names as the target has them.
struct Renaming<'a> {
    table: &'a str,
    naming: &'a Naming,
    shards: &'a BTreeMap<String, String>,
}

impl Renaming<'_> {
    fn database(&self, mut row: Document) -> Result<Option<Document>, RestoreError> {
        let name = row.get_str("_id").map_err(|e| unknown(self.table, e))?;
        let Some(name) = self.naming.database(name) else { return Ok(None) };
        row.insert("_id", name);
        self.shard(&mut row, "primary")?;
        Ok(Some(row))
    }

    fn collection(&self, mut row: Document) -> Result<Option<Document>, RestoreError> {
        let ns = row.get_str("_id").map_err(|e| unknown(self.table, e))?;
        let Some(name) = self.naming.of(ns) else { return Ok(None) };
        if row.contains_key("reshardingFields") {
            return Err(RestoreError::Refused(format!(
                "{ns} was being resharded at that time: choose one before or after that"
            )));
        }
        row.insert("_id", name);
        Ok(Some(row))
    }

    fn chunk(&self, mut row: Document) -> Result<Document, RestoreError> {
        self.shard(&mut row, "shard")?;
        if let Some(history) = row.get_mut("history") {
            let history = history.as_array_mut().ok_or_else(|| unknown(self.table, "a history that is no array"))?;
            for entry in history {
                let entry = entry.as_document_mut().ok_or_else(|| unknown(self.table, "a history of no documents"))?;
                self.past(entry)?;
            }
        }
        Ok(row)
    }

    fn tag(&self, mut row: Document) -> Result<Option<Document>, RestoreError> {
        let ns = row.get_str("ns").map_err(|e| unknown(self.table, e))?;
        let Some(name) = self.naming.of(ns) else { return Ok(None) };
        if let Some(Bson::Document(id)) = row.get_mut("_id")
            && id.contains_key("ns")
        {
            id.insert("ns", name.clone());
        }
        row.insert("ns", name);
        Ok(Some(row))
    }

    fn shard(&self, row: &mut Document, field: &str) -> Result<(), RestoreError> {
        let name = row.get_str(field).map_err(|e| unknown(self.table, e))?;
        let to = self.shards.get(name);
        let to = to.ok_or_else(|| unknown(self.table, format!("a row of the shard {name}, which is not there")))?;
        row.insert(field, to.clone());
        Ok(())
    }

    /// A shard that had the chunk once may be gone since. It keeps its name then.
    fn past(&self, entry: &mut Document) -> Result<(), RestoreError> {
        let name = entry.get_str("shard").map_err(|e| unknown(self.table, e))?;
        if let Some(to) = self.shards.get(name) {
            entry.insert("shard", to.clone());
        }
        Ok(())
    }
}

fn unknown(table: &str, why: impl ToString) -> RestoreError {
    RestoreError::Refused(format!(
        "{table} at that time has what this program does not understand: {}",
        why.to_string()
    ))
}

fn text<'a>(row: &'a RawDocument, field: &str, table: &str) -> Result<&'a str, RestoreError> {
    row.get_str(field).map_err(|e| unknown(table, e))
}

fn uuid_of(row: &RawDocument, table: &str) -> Result<Uuid, RestoreError> {
    match row.get("uuid") {
        Ok(Some(RawBsonRef::Binary(binary))) => binary.bytes.try_into().ok().map(Uuid),
        _ => None,
    }
    .ok_or_else(|| unknown(table, "a row without uuid"))
}
