//! A point in time of a cluster, from what is stored.

use std::sync::Arc;

use stillpoint_catalog::{Catalog, CatalogError, Holdings};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::coverage::{Obstacle, Stored};
use stillpoint_core::restore::Amount;
use stillpoint_core::snapshot::Data;
use stillpoint_core::{ClusterId, ClusterTime};
use stillpoint_snapshot::Manifest;
use stillpoint_vault::Vault;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::origin::Origin;
use super::room::Room;
use super::state::Source;
use super::unpack::{self, Packs};
use super::{SnapshotError, room_for};
use crate::Clock;
use crate::stored::StoredOplog;

/// What is stored of a cluster, to be asked for its state at times.
pub struct Archive {
    pub catalog: Arc<dyn Catalog>,
    pub vault: Vault,
    pub clock: Clock,
    pub cluster: ClusterId,
    pub room: Room,
    pub stop: CancellationToken,
    held: Holdings,
}

impl Archive {
    pub async fn open(
        catalog: Arc<dyn Catalog>,
        vault: Vault,
        clock: Clock,
        cluster: ClusterId,
        room: Room,
    ) -> Result<Archive, CatalogError> {
        let held = Holdings::of(&*catalog, cluster).await?;
        Ok(Archive { catalog, vault, clock, cluster, room, stop: CancellationToken::new(), held })
    }

    /// The parts that the cluster had at a time, as far as is known; none if no snapshot is old enough.
    pub fn parts(&self, time: ClusterTime) -> Vec<PartId> {
        self.stored().parts(time)
    }

    /// The stored data that a part goes on from to a time.
    pub fn base(&self, part: &PartId, time: ClusterTime) -> Result<Data, Vec<Obstacle>> {
        self.stored().base(part, time).copied()
    }

    pub fn stored(&self) -> Stored<'_> {
        self.held.stored()
    }

    /// The `featureCompatibilityVersion` that a part had when its stored data was read.
    pub async fn compatibility(&self, part: &PartId, base: &Data) -> Result<String, SnapshotError> {
        Ok(self.manifest(part, base).await?.0.compatibility)
    }

    /// The collections of stored data, and what they came to.
    pub async fn collections(&self, part: &PartId, base: &Data) -> Result<Vec<(String, Amount)>, SnapshotError> {
        let (manifest, _) = self.manifest(part, base).await?;
        let collections = manifest.collections.into_iter().map(|one| {
            let digest = one.root.map(|root| root.reference.entry.digest).unwrap_or_default();
            (one.namespace, Amount { collections: 1, documents: digest.documents, bytes: digest.bytes })
        });
        Ok(collections.collect())
    }

    /// What stored data says of itself, and the snapshot that it is of.
    async fn manifest(&self, part: &PartId, base: &Data) -> Result<(Manifest, Origin), SnapshotError> {
        let of = self.stored().snapshots.iter().find(|snapshot| snapshot.data(part) == Some(base));
        let origin = Origin::new(self.catalog.clone(), self.cluster, of.map(|snapshot| snapshot.id));
        let manifest = origin.noted(unpack::manifest(&self.vault, self.cluster, part, base).await).await?;
        Ok((manifest, origin))
    }

    /// All that a part's state at a time is made of.
    pub async fn source(&self, part: &PartId, base: &Data, time: ClusterTime) -> Result<Source, SnapshotError> {
        let (manifest, origin) = self.manifest(part, base).await?;
        let claim = room_for(&*self.catalog, self.cluster, part, base.stream, time, &self.room, &self.stop).await?;
        let handle = Handle::current();
        let oplog = StoredOplog::new(
            self.catalog.clone(),
            Arc::new(self.vault.clone()),
            self.clock.clone(),
            self.cluster,
            part.clone(),
        );
        Ok(Source {
            packs: Packs::new(handle.clone(), self.vault.clone(), self.cluster, part)?,
            handle,
            part: part.clone(),
            base: manifest,
            origin,
            oplog,
            room: self.room.clone(),
            claim,
            stop: self.stop.clone(),
        })
    }
}
