//! Chunks and nodes into packs, and packs into the vault, from a thread that may wait for it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use stillpoint_catalog::Catalog;
use stillpoint_core::ClusterId;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::BlobId;
use stillpoint_snapshot::writer::DEFAULT_PACK;
use stillpoint_snapshot::{Chunk, Next, Node, Reference, Root, Sealed, TreeBuilder, Unplaced, Writer, pack};
use stillpoint_vault::{Stored, Vault};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::SnapshotError;

/// Packs that are being stored at once.
const UNDER_WAY: usize = 2;

/// Stores a blob. It may be there already and be doomed: then it is no longer, until it is noted.
pub async fn put(catalog: &dyn Catalog, vault: &Vault, place: &str, content: Bytes) -> Result<Stored, SnapshotError> {
    let id = vault.id_of(content.clone()).await;
    catalog.keep_blob(&format!("{place}-{id}")).await?;
    Ok(vault.put(place, content).await?)
}

/// Packs that are being filled and stored.
pub struct Packer {
    handle: Handle,
    catalog: Arc<dyn Catalog>,
    vault: Vault,
    place: String,
    writer: Writer,
    under_way: VecDeque<(u64, JoinHandle<Result<Stored, SnapshotError>>)>,
    stored: u64,
    /// The packs of what was stored or kept.
    packs: BTreeSet<BlobId>,
}

/// All is stored.
pub struct Packed {
    writer: Writer,
    place: String,
    /// Bytes in the vault that were not there before, as far as it is known.
    pub stored: u64,
    packs: BTreeSet<BlobId>,
}

impl Packer {
    /// `level` is zstd's.
    pub fn new(
        handle: Handle,
        catalog: Arc<dyn Catalog>,
        vault: Vault,
        cluster: ClusterId,
        part: &PartId,
        level: i32,
    ) -> Result<Packer, SnapshotError> {
        Ok(Packer {
            handle,
            catalog,
            vault,
            place: pack::place(cluster, part),
            writer: Writer::new(level, DEFAULT_PACK)?,
            under_way: VecDeque::new(),
            stored: 0,
            packs: BTreeSet::new(),
        })
    }

    pub fn add(&mut self, tree: &mut TreeBuilder, chunk: &Chunk<'_>) -> Result<(), SnapshotError> {
        self.writer.add(tree, chunk)?;
        self.advance().map(drop)
    }

    /// A chunk of an earlier snapshot, where it is.
    pub fn keep(&mut self, tree: &mut TreeBuilder, chunk: &Reference) -> Result<(), SnapshotError> {
        self.packs.insert(chunk.place.pack);
        self.writer.keep(tree, chunk);
        self.advance().map(drop)
    }

    /// A node of an earlier snapshot, which may be needed again.
    pub fn know(&mut self, tree: &mut TreeBuilder, node: &Node, reference: &Reference) {
        self.packs.insert(reference.place.pack);
        tree.know(node, reference);
    }

    pub fn end(&mut self, tree: TreeBuilder) -> Result<Option<Unplaced>, SnapshotError> {
        let root = self.writer.end(tree);
        self.advance()?;
        Ok(root)
    }

    /// Begins to store what is full; whether all is stored.
    fn advance(&mut self) -> Result<bool, SnapshotError> {
        loop {
            match self.writer.advance()? {
                Next::Done => return Ok(true),
                Next::Idle => return Ok(false),
                Next::Store(Sealed { number, bytes }) => {
                    if self.under_way.len() >= UNDER_WAY {
                        self.wait()?;
                    }
                    let (catalog, vault, place) = (self.catalog.clone(), self.vault.clone(), self.place.clone());
                    let task = self.handle.spawn(async move { put(&*catalog, &vault, &place, bytes.into()).await });
                    self.under_way.push_back((number, task));
                }
            }
        }
    }

    /// Waits for the pack that has been under way the longest.
    fn wait(&mut self) -> Result<bool, SnapshotError> {
        let Some((number, task)) = self.under_way.pop_front() else { return Ok(false) };
        let stored = match self.handle.block_on(task) {
            Ok(stored) => stored?,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => return Err(SnapshotError::Stopped),
        };
        self.stored += stored.stored;
        self.packs.insert(stored.blob);
        self.writer.stored(number, stored.blob)?;
        Ok(true)
    }

    /// Stores what is left, when all trees are ended.
    pub fn finish(mut self) -> Result<Packed, SnapshotError> {
        self.writer.finish();
        while !self.advance()? {
            self.wait()?;
        }
        Ok(Packed { writer: self.writer, place: self.place, stored: self.stored, packs: self.packs })
    }
}

impl Packed {
    pub fn root(&self, tree: &Unplaced) -> Option<Root> {
        self.writer.root(tree)
    }

    /// The names of the packs that are referred to.
    pub fn names(&self) -> Vec<String> {
        self.packs.iter().map(|pack| format!("{}-{pack}", self.place)).collect()
    }
}
