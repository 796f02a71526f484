//! A cluster whose oplogs are stored, without the cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use jiff::{SignedDuration, Timestamp};
use stillpoint_catalog::sqlite::SqliteCatalog;
use stillpoint_catalog::{Catalog, CatalogError, Cluster, Lease};
use stillpoint_core::checkpoint::{Checkpoint, PartId};
use stillpoint_core::snapshot::Snapshot;
use stillpoint_core::stream::{CaptureReport, Gap, GapCause, Segment, Stream, place};
use stillpoint_core::{ClusterId, ClusterTime, OpTime};
use stillpoint_oplog::SegmentWriter;
use stillpoint_oplog::segment::Seal;
use stillpoint_vault::{MasterKey, Options, Vault};

use super::Operator;

/// The catalog and the vault in an operator's folder, with the cluster `c` of the project `p`.
pub struct Store<'a> {
    operator: &'a Operator,
    pub catalog: Arc<dyn Catalog>,
    vault: Vault,
    pub cluster: Cluster,
    pub lease: Lease,
}

/// The clock that the command line looks at, too.
#[expect(clippy::disallowed_methods, reason = "what is too old is told by the real clock")]
pub fn ago(seconds: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(seconds)
}

fn at(second: u32) -> OpTime {
    OpTime::new(ClusterTime::new(second, 1), 1)
}

pub fn shard() -> PartId {
    PartId::Shard("rs0".into())
}

fn entry(second: u32) -> Vec<u8> {
    let ts = bson::Bson::Timestamp(bson::Timestamp { time: second, increment: 1 });
    doc! {"op": "n", "ns": "", "o": {"msg": format!("entry {second} {}", "é".repeat(30))}, "ts": ts, "t": 1_i64}
        .to_vec()
        .unwrap()
}

/// The entries of these seconds, one after the other.
pub fn entries(seconds: std::ops::RangeInclusive<u32>) -> Vec<u8> {
    seconds.flat_map(entry).collect()
}

impl<'a> Store<'a> {
    pub async fn new(operator: &'a Operator) -> Store<'a> {
        Store::with_key(operator, None).await
    }

    /// With a vault that is encrypted if there is a key. A lease of the cluster is held for a minute, as by
    /// a server.
    pub async fn with_key(operator: &'a Operator, master_key: Option<MasterKey>) -> Store<'a> {
        let (file, key) = (operator.path("stillpoint.db"), operator.path("stillpoint.key"));
        let catalog: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open_with_key_file(&file, &key).unwrap());
        let mut options = Options::new(format!("file:{}", operator.path("vault").display()));
        options.master_key = master_key;
        let vault = Vault::create_or_open(&options, catalog.id().await.unwrap(), ago(0), 1).await.unwrap();
        catalog.bind_vault(vault.id()).await.unwrap();
        let cluster = Cluster {
            id: ClusterId::new(ago(3600), 1),
            project: catalog.project_named("p").await.unwrap().unwrap().id,
            name: "c".into(),
            identity: "1".into(),
            uri: "mongodb://host/".into(),
            created: ago(3600),
        };
        catalog.add_cluster(&cluster).await.unwrap();
        let minute = Duration::from_secs(60);
        let lease = catalog.claim_lease(cluster.id, "a server", ago(0), minute).await.unwrap().unwrap();
        Store { operator, catalog, vault, cluster, lease }
    }

    /// Puts a checkpoint into the catalog, as `ended`.
    pub async fn queue(&self, queued: Checkpoint, ended: Checkpoint) {
        self.catalog.queue_checkpoint(&queued).await.unwrap();
        self.catalog.save_checkpoint(&self.lease, &ended).await.unwrap();
    }

    pub async fn save_snapshot(&self, snapshot: &Snapshot) {
        self.try_save_snapshot(snapshot, &[]).await.unwrap();
    }

    pub async fn try_save_snapshot(&self, snapshot: &Snapshot, blobs: &[String]) -> Result<(), CatalogError> {
        self.catalog.save_snapshot(&self.lease, snapshot, blobs).await
    }

    pub async fn stop_server(&self) {
        self.catalog.release_lease(&self.lease).await.unwrap();
    }

    pub async fn begin(&self, part: &PartId) {
        let stream = Stream {
            cluster: self.cluster.id,
            part: part.clone(),
            replica_set: "set".into(),
            from: at(11).time,
            complete_from: at(11).time,
            since: at(11).time,
            began: ago(3600),
            ended: None,
            unresolved: None,
            kept_from: None,
        };
        self.catalog.begin_stream(&self.lease, &stream, None).await.unwrap();
    }

    /// Begins the shard's stream and stores its entries from second 11 to 50, ten in each segment.
    pub async fn fill(&self) -> Vec<Segment> {
        self.begin(&shard()).await;
        let mut segments: Vec<Segment> = Vec::new();
        for first in [11, 21, 31, 41] {
            let previous = segments.last().map(|segment| segment.blob);
            segments.push(self.store(first, first + 9, previous).await);
        }
        segments
    }

    async fn store(&self, first: u32, last: u32, previous: Option<stillpoint_core::stream::BlobId>) -> Segment {
        let mut writer = SegmentWriter::new(3, 200).unwrap();
        (first..=last).for_each(|second| writer.push(&entry(second), at(second)).unwrap());
        let seal = Seal { cluster: self.cluster.id, part: shard(), previous, open: vec![] };
        let content = writer.seal(seal).unwrap().into();
        let stored = self.vault.put(&place(self.cluster.id, &shard(), at(first).time), content).await.unwrap();
        let segment = Segment {
            cluster: self.cluster.id,
            part: shard(),
            blob: stored.blob,
            previous,
            first: at(first),
            last: at(last),
            entries: u64::from(last - first + 1),
            bytes: entries(first..=last).len() as u64,
            stored: stored.stored,
            sealed: ago(0),
            tokens: vec![],
            open: vec![],
        };
        self.catalog.append_segment(&self.lease, &segment).await.unwrap();
        segment
    }

    pub fn file(&self, segment: &Segment) -> PathBuf {
        self.operator.path("vault").join(segment.name())
    }

    /// Capture of the shard that stands well, but for what `change` does to it.
    pub async fn report(&self, change: impl FnOnce(&mut CaptureReport)) {
        let time = |seconds| Some(ClusterTime::at(ago(seconds)));
        let mut report = CaptureReport {
            at: ago(0),
            stored: time(8),
            majority: time(0),
            oldest: time(7_300),
            behind_bytes: Some(100),
            trouble: None,
            halted: false,
        };
        change(&mut report);
        self.catalog.report_capture(self.cluster.id, &shard(), &report).await.unwrap();
    }

    pub fn gap(&self) -> Gap {
        Gap {
            part: shard(),
            after: at(20).time,
            until: at(30).time,
            cause: GapCause::RolledOver,
            found: ago(0),
            detail: "make the oplog larger".into(),
        }
    }
}
