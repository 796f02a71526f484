//! What is in a part's packs, for a thread that may wait for the vault.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use stillpoint_core::ClusterId;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::snapshot::Data;
use stillpoint_core::stream::BlobId;
use stillpoint_snapshot::manifest::{self, MAX_MANIFEST};
use stillpoint_snapshot::pack::{self, Item, Limits};
use stillpoint_snapshot::{ContentId, Manifest, Node, PackReader, Place, Reference, Step, Unpacker, Walk};
use stillpoint_vault::Vault;
use tokio::runtime::Handle;

use super::SnapshotError;

/// Packs of chunks in memory at once; a pack is some 8 MiB.
const CHUNK_PACKS: usize = 6;
/// Packs of nodes in memory at once.
const NODE_PACKS: usize = 2;

/// The packs of a part.
pub struct Packs {
    handle: Handle,
    vault: Vault,
    place: String,
    chunks: Kept,
    nodes: Kept,
    unpacker: Unpacker,
}

/// The packs that were used last, the last of them at the end.
struct Kept {
    most: usize,
    packs: VecDeque<(BlobId, Arc<PackReader>)>,
}

impl Kept {
    fn new(most: usize) -> Kept {
        Kept { most, packs: VecDeque::new() }
    }

    fn find(&mut self, id: BlobId) -> Option<Arc<PackReader>> {
        let at = self.packs.iter().position(|(other, _)| *other == id)?;
        let found = self.packs.remove(at)?;
        self.packs.push_back(found.clone());
        Some(found.1)
    }

    fn keep(&mut self, id: BlobId, pack: Arc<PackReader>) {
        if self.packs.len() >= self.most {
            self.packs.pop_front();
        }
        self.packs.push_back((id, pack));
    }
}

impl Packs {
    pub fn new(handle: Handle, vault: Vault, cluster: ClusterId, part: &PartId) -> Result<Packs, SnapshotError> {
        let unpacker = Unpacker::new().map_err(SnapshotError::Spill)?;
        let place = pack::place(cluster, part);
        let (chunks, nodes) = (Kept::new(CHUNK_PACKS), Kept::new(NODE_PACKS));
        Ok(Packs { handle, vault, place, chunks, nodes, unpacker })
    }

    fn name(&self, id: BlobId) -> String {
        format!("{}-{id}", self.place)
    }

    /// The documents of a chunk, one after the other.
    pub fn chunk(&mut self, chunk: &Reference) -> Result<Bytes, SnapshotError> {
        Ok(self.item(true, chunk.entry.id, chunk.place)?.content)
    }

    pub fn node(&mut self, node: &Reference) -> Result<Node, SnapshotError> {
        let item = self.item(false, node.entry.id, node.place)?;
        let pack = node.place.pack;
        Node::read(&item, pack).map_err(|why| SnapshotError::damaged(&self.name(pack), why))
    }

    /// The next chunk of a walk; `seen` gets each node that is read for it.
    pub fn next(
        &mut self,
        walk: &mut Walk,
        mut seen: impl FnMut(&Node, &Reference),
    ) -> Result<Option<Reference>, SnapshotError> {
        loop {
            match walk.step() {
                Step::End => return Ok(None),
                Step::Item(chunk) => return Ok(Some(chunk)),
                Step::Need(needed) => {
                    let node = self.node(&needed)?;
                    seen(&node, &needed);
                    let name = self.name(needed.place.pack);
                    walk.give(node).map_err(|why| SnapshotError::damaged(&name, why))?;
                }
            }
        }
    }

    fn item(&mut self, is_chunk: bool, id: ContentId, place: Place) -> Result<Item, SnapshotError> {
        let name = self.name(place.pack);
        let kept = if is_chunk { &mut self.chunks } else { &mut self.nodes };
        let pack = match kept.find(place.pack) {
            Some(pack) => pack,
            None => {
                let bytes = self.handle.block_on(self.vault.get(&name, place.pack))?;
                let opened = PackReader::open(bytes, Limits::default());
                let pack = Arc::new(opened.map_err(|why| SnapshotError::damaged(&name, why))?);
                kept.keep(place.pack, pack.clone());
                pack
            }
        };
        pack.get(id, &mut self.unpacker).map_err(|why| SnapshotError::damaged(&name, why))
    }
}

/// The manifest of a part's data.
pub async fn manifest(
    vault: &Vault,
    cluster: ClusterId,
    part: &PartId,
    data: &Data,
) -> Result<Manifest, SnapshotError> {
    let name = manifest_name(cluster, part, data);
    let bytes = vault.get(&name, data.manifest).await?;
    let read = tokio::task::spawn_blocking(move || Manifest::read(&bytes, MAX_MANIFEST)).await;
    let manifest = match read {
        Ok(read) => read.map_err(|why| SnapshotError::damaged(&name, why))?,
        Err(why) => return Err(SnapshotError::damaged(&name, why)),
    };
    if manifest.cluster != cluster || manifest.part != part.key() || manifest.latest != data.at {
        return Err(SnapshotError::damaged(&name, "it is of another part or time"));
    }
    if manifest.keys != stillpoint_fold::key::VERSION {
        let why = format!(
            "its keys are of version {}, and this program knows {}",
            manifest.keys,
            stillpoint_fold::key::VERSION
        );
        return Err(SnapshotError::damaged(&name, why));
    }
    Ok(manifest)
}

/// The name of a manifest's blob.
pub fn manifest_name(cluster: ClusterId, part: &PartId, data: &Data) -> String {
    format!("{}-{}", manifest::place(cluster, part, data.at), data.manifest)
}
