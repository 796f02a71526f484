//! What one part's capture needs from outside: an oplog to read, a vault, and the catalog. Behind traits,
//! so that a simulation can stand in for all three and let each call fail.

use async_trait::async_trait;
use bytes::Bytes;
use stillpoint_catalog::{CatalogError, Lease};
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{BlobId, Gap, Position, Segment, Stream};
use stillpoint_mongo::tail::{Batch, Beginning, Opened, Tail};
use stillpoint_mongo::{MongoError, PartLink};
use stillpoint_vault::VaultError;

use crate::{Depot, Setup};

/// A part's oplog.
#[async_trait]
pub(crate) trait Source: Send + Sync + 'static {
    type Tail: Entries;

    /// See [`PartLink::beginning`].
    async fn beginning(&self, since: Option<ClusterTime>) -> Result<Beginning, MongoError>;
    /// See [`PartLink::tail`].
    async fn open(&self, position: Position) -> Result<Opened<Self::Tail, <Self::Tail as Entries>::Batch>, MongoError>;
}

/// An oplog being read. After an error it must be opened again.
#[async_trait]
pub(crate) trait Entries: Send + 'static {
    type Batch: EntryBatch;

    /// May be dropped and called again without losing anything.
    async fn next(&mut self) -> Result<Self::Batch, MongoError>;
}

pub(crate) trait EntryBatch: Send + 'static {
    /// See [`Batch::entries`].
    fn entries(&self) -> impl Iterator<Item = Result<&[u8], String>>;
    fn bytes(&self) -> usize;
    fn committed(&self) -> Option<ClusterTime>;
}

/// Where segments go.
#[async_trait]
pub(crate) trait Blobs: Send + Sync + 'static {
    /// The id of the content, and the bytes stored for it.
    async fn put(&self, place: &str, content: Bytes) -> Result<(BlobId, u64), VaultError>;
}

/// What the catalog says of one part's stream, under a lease.
#[async_trait]
pub(crate) trait Ledger: Send + Sync + 'static {
    async fn stream(&self) -> Result<Option<Stream>, CatalogError>;
    async fn begin(&self, stream: &Stream, gap: Option<&Gap>) -> Result<(), CatalogError>;
    async fn last_segment(&self) -> Result<Option<Segment>, CatalogError>;
    /// See [`Catalog::keep_blobs`](stillpoint_catalog::Catalog::keep_blobs).
    async fn keep_blobs(&self, place: &str) -> Result<(), CatalogError>;
    async fn append(&self, segment: &Segment) -> Result<(), CatalogError>;
}

// The real ones.

#[async_trait]
impl Source for PartLink {
    type Tail = Tail;

    async fn beginning(&self, since: Option<ClusterTime>) -> Result<Beginning, MongoError> {
        PartLink::beginning(self, since).await
    }

    async fn open(&self, position: Position) -> Result<Opened<Tail, Batch>, MongoError> {
        self.tail(position).await
    }
}

#[async_trait]
impl Entries for Tail {
    type Batch = Batch;

    async fn next(&mut self) -> Result<Batch, MongoError> {
        Tail::next(self).await
    }
}

impl EntryBatch for Batch {
    fn entries(&self) -> impl Iterator<Item = Result<&[u8], String>> {
        Batch::entries(self)
    }

    fn bytes(&self) -> usize {
        Batch::bytes(self)
    }

    fn committed(&self) -> Option<ClusterTime> {
        Batch::committed(self)
    }
}

#[async_trait]
impl Blobs for Depot {
    async fn put(&self, place: &str, content: Bytes) -> Result<(BlobId, u64), VaultError> {
        let stored = self.vault().await?.put(place, content).await?;
        Ok((stored.blob, stored.stored))
    }
}

/// One part's stream in the catalog.
pub(crate) struct CatalogLedger {
    pub setup: Setup,
    pub lease: Lease,
    pub part: PartId,
}

#[async_trait]
impl Ledger for CatalogLedger {
    async fn stream(&self) -> Result<Option<Stream>, CatalogError> {
        self.setup.catalog.stream(self.lease.cluster, &self.part).await
    }

    async fn begin(&self, stream: &Stream, gap: Option<&Gap>) -> Result<(), CatalogError> {
        self.setup.catalog.begin_stream(&self.lease, stream, gap).await
    }

    async fn last_segment(&self) -> Result<Option<Segment>, CatalogError> {
        self.setup.catalog.last_segment(self.lease.cluster, &self.part).await
    }

    async fn keep_blobs(&self, place: &str) -> Result<(), CatalogError> {
        self.setup.catalog.keep_blobs(place).await
    }

    async fn append(&self, segment: &Segment) -> Result<(), CatalogError> {
        self.setup.catalog.append_segment(&self.lease, segment).await?;
        self.setup.stored.notify_waiters();
        Ok(())
    }
}
