//! Who owns what of a cluster's sharded collections at a time, as its config servers' stored data says; and a shard's
//! data without its orphans: what a migration copied and did not commit, or moved away and has not deleted yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::coverage::Obstacle;
use stillpoint_fold::ownership::{Ownership, OwnershipError};
use stillpoint_fold::{Collection, Uuid};
use stillpoint_snapshot::{Node, Reference, Root, manifest};

use super::state::Sink;
use super::{Archive, SnapshotError, blocking};

const COLLECTIONS: &str = "config.collections";
const CHUNKS: &str = "config.chunks";
/// The sessions of clients: every cluster makes its own.
pub(crate) const SESSIONS: &str = "config.system.sessions";

/// Of each sharded collection, by its UUID.
pub type Ownerships = BTreeMap<Uuid, Ownership>;

/// Who owned what of the archive's cluster at a time.
///
/// # Errors
/// Data of the config servers that is not stored as of that time, or not understood.
pub async fn at(archive: &Archive, time: ClusterTime) -> Result<Ownerships, SnapshotError> {
    let config = PartId::ConfigServers;
    let base = archive.base(&config, time).map_err(|why| SnapshotError::Routing { time, why: Obstacle::all(&why) })?;
    let source = archive.source(&config, &base, time).await?;
    blocking(move || {
        let mut rows = Rows::default();
        source.at(time)?.into(&mut rows, &|_, one| [COLLECTIONS, CHUNKS].contains(&&*one.ns))?;
        of(&rows.collections, &rows.chunks)
    })
    .await
}

/// From all rows of the config servers' two collections.
pub(crate) fn of(collections: &[RawDocumentBuf], chunks: &[RawDocumentBuf]) -> Result<Ownerships, SnapshotError> {
    let mut of = BTreeMap::<Uuid, Vec<&RawDocument>>::new();
    for row in chunks {
        of.entry(uuid(row, CHUNKS, "chunks")?).or_default().push(row);
    }
    let mut all = Ownerships::new();
    for row in collections {
        let ns = row.get_str("_id").map_err(|_| unknown(COLLECTIONS, "collections", "_id"))?;
        if ns == SESSIONS {
            continue;
        }
        let uuid = uuid(row, COLLECTIONS, "collections")?;
        let ownership = Ownership::new(row, of.remove(&uuid).unwrap_or_default());
        all.insert(uuid, ownership.map_err(|why| SnapshotError::Ownership { ns: ns.to_owned(), why })?);
    }
    Ok(all)
}

fn uuid(row: &RawDocument, ns: &str, table: &'static str) -> Result<Uuid, SnapshotError> {
    match row.get("uuid") {
        Ok(Some(RawBsonRef::Binary(binary))) => binary.bytes.try_into().ok().map(Uuid),
        _ => None,
    }
    .ok_or_else(|| unknown(ns, table, "uuid"))
}

fn unknown(ns: &str, table: &'static str, field: &'static str) -> SnapshotError {
    SnapshotError::Ownership { ns: ns.to_owned(), why: OwnershipError::Row { table, field } }
}

#[derive(Default)]
struct Rows {
    collections: Vec<RawDocumentBuf>,
    chunks: Vec<RawDocumentBuf>,
    are_chunks: bool,
}

impl Sink for Rows {
    fn begin(&mut self, _: Uuid, one: &Collection, _: Option<&manifest::Collection>) -> Result<(), SnapshotError> {
        self.are_chunks = one.ns == CHUNKS;
        Ok(())
    }

    fn document(&mut self, _: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        let rows = if self.are_chunks { &mut self.chunks } else { &mut self.collections };
        rows.push(document.to_owned());
        Ok(())
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        Ok(())
    }
}

/// What a part owns of its data: all that is not sharded; all of the config servers'.
#[derive(Debug, Clone)]
pub struct Owner {
    part: PartId,
    ownerships: Arc<Ownerships>,
}

impl Owner {
    /// Of nothing but what is in these `ownerships` it is asked whether it owns it.
    pub fn new(part: PartId, ownerships: Arc<Ownerships>) -> Owner {
        Owner { part, ownerships }
    }

    /// What tells of a collection's documents which are the part's; none if all are.
    fn sharded(&self, uuid: Uuid) -> Option<(&str, &Ownership)> {
        match &self.part {
            PartId::Shard(shard) => Some((shard, self.ownerships.get(&uuid)?)),
            PartId::ConfigServers => None,
        }
    }

    pub fn part(&self) -> &PartId {
        &self.part
    }

    /// Whether some range of a collection is the part's. One that is not sharded is where it is.
    pub fn owns_any(&self, uuid: Uuid) -> bool {
        self.sharded(uuid).is_none_or(|(shard, ownership)| ownership.shards().any(|owner| owner == shard))
    }

    /// Whether a document of a collection, that is called `ns`, is no orphan.
    pub fn owns(&self, uuid: Uuid, ns: &str, document: &RawDocument) -> Result<bool, SnapshotError> {
        let Some((shard, ownership)) = self.sharded(uuid) else { return Ok(true) };
        let owner = ownership.owner(document);
        Ok(owner.map_err(|why| SnapshotError::Ownership { ns: ns.to_owned(), why })? == Some(shard))
    }
}

/// Hands on what is no orphan.
pub struct Owned<S> {
    sink: S,
    owner: Owner,
    open: Option<(Uuid, String)>,
    orphans: u64,
}

impl<S: Sink> Owned<S> {
    pub fn new(sink: S, owner: Owner) -> Owned<S> {
        Owned { sink, owner, open: None, orphans: 0 }
    }

    /// The sink, and how many documents it was not given.
    pub fn finish(self) -> (S, u64) {
        (self.sink, self.orphans)
    }
}

impl<S: Sink> Sink for Owned<S> {
    fn begin(
        &mut self,
        uuid: Uuid,
        collection: &Collection,
        stored: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        self.open = self.owner.sharded(uuid).map(|_| (uuid, collection.ns.clone()));
        self.sink.begin(uuid, collection, stored)
    }

    /// Each document of a sharded collection is looked at.
    fn tree(&mut self, root: &Root) -> Result<bool, SnapshotError> {
        if self.open.is_some() { Ok(false) } else { self.sink.tree(root) }
    }

    fn node(&mut self, node: &Node, reference: &Reference) {
        self.sink.node(node, reference);
    }

    fn chunk(&mut self, chunk: &Reference, next: Option<&[u8]>) -> Result<bool, SnapshotError> {
        if self.open.is_some() { Ok(false) } else { self.sink.chunk(chunk, next) }
    }

    fn read(&mut self, chunk: &Reference) {
        self.sink.read(chunk);
    }

    fn document(&mut self, key: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        if let Some((uuid, ns)) = &self.open
            && !self.owner.owns(*uuid, ns, document)?
        {
            self.orphans += 1;
            return Ok(());
        }
        self.sink.document(key, document)
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        self.sink.end()
    }
}
