//! Whether all of the stored snapshots is in the vault, and as it was stored: every manifest, node and chunk is
//! read once, whichever snapshots it is in. A snapshot of which something is missing or damaged is noted as such,
//! and nothing goes on from it until all of it is there again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use stillpoint_catalog::{Catalog, Page};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::snapshot::{Data, Snapshot};
use stillpoint_core::{ClusterId, SnapshotId};
use stillpoint_snapshot::{ContentId, Digest, Walk};
use stillpoint_vault::Vault;
use tokio::runtime::Handle;

use super::SnapshotError;
use super::read::blocking;
use super::unpack::{self, Packs};

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub snapshots: u64,
    pub chunks: u64,
    /// Of their documents.
    pub bytes: u64,
    /// What is wrong, one for each snapshot.
    pub damaged: Vec<(ClusterId, SnapshotId, String)>,
    /// Those that were noted as damaged, and are whole again.
    pub mended: Vec<(ClusterId, SnapshotId)>,
}

/// Checks the snapshots of a cluster, or of all; `tell` is called with each that is begun.
pub async fn check(
    catalog: &dyn Catalog,
    vault: &Vault,
    only: Option<ClusterId>,
    mut tell: impl FnMut(SnapshotId),
) -> Result<Report, SnapshotError> {
    let mut report = Report::default();
    for cluster in catalog.clusters(None).await?.into_iter().filter(|one| only.is_none_or(|only| only == one.id)) {
        // Of each part its chunks that were read.
        let seen = Arc::new(Mutex::new(HashSet::new()));
        for snapshot in catalog.snapshots(cluster.id, Page::ALL).await?.into_iter().filter(Snapshot::is_complete) {
            tell(snapshot.id);
            report.snapshots += 1;
            let mut damage = None;
            for part in &snapshot.parts {
                let Some(data) = part.data else { continue };
                match check_part(vault, cluster.id, &part.id, &data, &seen).await {
                    Ok((chunks, bytes)) => {
                        report.chunks += chunks;
                        report.bytes += bytes;
                    }
                    Err(why) if is_damage(&why) => {
                        damage = Some(format!("{}: {why}", part.id));
                        break;
                    }
                    Err(why) => return Err(why),
                }
            }
            catalog.note_damage(cluster.id, snapshot.id, damage.as_deref()).await?;
            match (damage, snapshot.damage) {
                (Some(damage), _) => report.damaged.push((cluster.id, snapshot.id, damage)),
                (None, Some(_)) => report.mended.push((cluster.id, snapshot.id)),
                (None, None) => {}
            }
        }
    }
    Ok(report)
}

/// Whether something stored is not what it was.
pub(super) fn is_damage(why: &SnapshotError) -> bool {
    match why {
        SnapshotError::Damaged { .. } => true,
        SnapshotError::Vault(why) => why.is_loss(),
        _ => false,
    }
}

type Seen = Arc<Mutex<HashSet<(PartId, ContentId)>>>;

/// The chunks that were read, and their bytes.
async fn check_part(
    vault: &Vault,
    cluster: ClusterId,
    part: &PartId,
    data: &Data,
    seen: &Seen,
) -> Result<(u64, u64), SnapshotError> {
    let manifest = unpack::manifest(vault, cluster, part, data).await?;
    let mut packs = Packs::new(Handle::current(), vault.clone(), cluster, part)?;
    let (part, seen) = (part.clone(), seen.clone());
    blocking(move || {
        let (mut chunks, mut bytes) = (0, 0);
        for collection in &manifest.collections {
            let mut walk = Walk::all(collection.root.as_ref());
            while let Some(chunk) = packs.next(&mut walk, |_, _| {})? {
                let key = (part.clone(), chunk.entry.id);
                if seen.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
                    continue;
                }
                // Its content is checked against its id; whether that is what the tree says of it, here.
                let documents = packs.chunk(&chunk)?;
                let mut digest = Digest::EMPTY;
                for document in stillpoint_snapshot::documents(&documents) {
                    digest.add(document.map_err(|why| SnapshotError::damaged(&collection.namespace, why))?);
                }
                if digest != chunk.entry.digest {
                    return Err(SnapshotError::damaged(&collection.namespace, "a chunk has another digest"));
                }
                seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
                chunks += 1;
                bytes += documents.len() as u64;
            }
        }
        Ok((chunks, bytes))
    })
    .await
}
