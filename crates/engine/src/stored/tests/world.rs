//! A vault and a catalog in a folder, with one part's segments.

use std::path::PathBuf;
use std::sync::Arc;

use bson::{Bson, doc};
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use stillpoint_catalog::{Catalog, Lease};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{Gap, GapCause, OpenTransaction, Segment, Stream, place};
use stillpoint_core::{ClusterId, ClusterTime, OpTime};
use stillpoint_oplog::SegmentWriter;
use stillpoint_oplog::segment::Seal;
use stillpoint_vault::Vault;
use tempfile::TempDir;

use crate::fixture::Fixture;
use crate::stored::{Check, Report, StoredError, StoredOplog};

pub fn time(seconds: u32) -> ClusterTime {
    ClusterTime::new(seconds, 1)
}

pub fn at(seconds: u32) -> OpTime {
    OpTime::new(time(seconds), 1)
}

pub fn entry(seconds: u32) -> Vec<u8> {
    let ts = Bson::Timestamp(bson::Timestamp { time: seconds, increment: 1 });
    doc! {"op": "n", "ns": "", "o": {"msg": format!("entry {seconds}")}, "ts": ts, "t": 1_i64}.to_vec().unwrap()
}

pub fn open(first: u32, last: u32) -> OpenTransaction {
    OpenTransaction { session: "00".into(), number: 1, first: at(first), last: at(last), prepared: None }
}

pub struct World {
    folder: TempDir,
    pub catalog: Arc<dyn Catalog>,
    pub vault: Arc<Vault>,
    pub cluster: ClusterId,
    pub part: PartId,
    lease: Lease,
    previous: Option<Segment>,
}

impl World {
    /// With a stream from second 1 on, of which nothing is stored yet.
    pub async fn new() -> World {
        let now = Timestamp::from_second(1_000).unwrap();
        let Fixture { folder, catalog, vault, cluster, lease } = Fixture::new(now).await;
        let part = PartId::Shard("rs 0".into());
        let world = World { folder, catalog, vault: Arc::new(vault), cluster: cluster.id, part, lease, previous: None };
        world.begin_stream(1, 1, None).await;
        world
    }

    /// Ten segments of ten entries, from second 11 to 110.
    pub async fn with_segments() -> (World, Vec<Segment>) {
        let mut world = World::new().await;
        let mut segments = Vec::new();
        for n in 1..=10 {
            segments.push(world.store(10 * n + 1, 10 * n + 10, vec![]).await);
        }
        (world, segments)
    }

    async fn begin_stream(&self, from: u32, since: u32, gap: Option<&Gap>) {
        let stream = Stream {
            cluster: self.cluster,
            part: self.part.clone(),
            replica_set: "rs".into(),
            from: time(from),
            complete_from: time(from),
            since: time(since),
            began: Timestamp::UNIX_EPOCH,
            ended: None,
            unresolved: None,
            kept_from: None,
        };
        self.catalog.begin_stream(&self.lease, &stream, gap).await.unwrap();
    }

    /// The stream begins anew at `from`.
    pub async fn begin_anew(&mut self, from: u32, gap: Option<Gap>) {
        self.begin_stream(from, 1, gap.as_ref()).await;
        self.previous = None;
    }

    pub fn gap(&self, after: u32, until: u32, cause: GapCause) -> Gap {
        Gap {
            part: self.part.clone(),
            after: time(after),
            until: time(until),
            cause,
            found: Timestamp::UNIX_EPOCH,
            detail: "a detail".into(),
        }
    }

    /// Stores the entries of these seconds, after which these transactions are open.
    pub async fn store(&mut self, first: u32, last: u32, open: Vec<OpenTransaction>) -> Segment {
        let content = self.content(first, last);
        self.put(content, first, last, open).await
    }

    pub fn content(&self, first: u32, last: u32) -> Vec<u8> {
        let open = self.previous.as_ref().map_or_else(Vec::new, |segment| segment.open.clone());
        self.content_after(open, first, last)
    }

    /// The same with these transactions open before it.
    pub fn content_after(&self, open: Vec<OpenTransaction>, first: u32, last: u32) -> Vec<u8> {
        let mut writer = SegmentWriter::new(3, 200).unwrap();
        (first..=last).for_each(|second| writer.push(&entry(second), at(second)).unwrap());
        let previous = self.previous.as_ref().map(|segment| segment.blob);
        writer.seal(Seal { cluster: self.cluster, part: self.part.clone(), previous, open }).unwrap()
    }

    /// Stores this content, whatever it is, as the entries of these seconds.
    pub async fn put(&mut self, content: Vec<u8>, first: u32, last: u32, open: Vec<OpenTransaction>) -> Segment {
        let stored = self.vault.put(&place(self.cluster, &self.part, time(first)), Bytes::from(content)).await.unwrap();
        let segment = Segment {
            cluster: self.cluster,
            part: self.part.clone(),
            blob: stored.blob,
            previous: self.previous.as_ref().map(|segment| segment.blob),
            first: at(first),
            last: at(last),
            entries: u64::from(last - first + 1),
            bytes: (first..=last).map(|second| entry(second).len() as u64).sum(),
            stored: stored.stored,
            sealed: Timestamp::UNIX_EPOCH,
            tokens: vec![],
            open,
        };
        self.catalog.append_segment(&self.lease, &segment).await.unwrap();
        self.previous = Some(segment.clone());
        segment
    }

    /// Forgets the oldest segments, that end before this second.
    pub async fn drop_before(&self, second: u32) -> u64 {
        self.catalog.drop_segments(&self.lease, &self.part, at(second), Timestamp::UNIX_EPOCH).await.unwrap()
    }

    pub fn file(&self, segment: &Segment) -> PathBuf {
        self.folder.path().join("vault").join(segment.name())
    }

    /// Takes a segment's file away; what it was.
    pub fn lose(&self, segment: &Segment) -> Vec<u8> {
        let bytes = std::fs::read(self.file(segment)).unwrap();
        std::fs::remove_file(self.file(segment)).unwrap();
        bytes
    }

    /// Changes a byte of a segment's file; what it was.
    pub fn damage(&self, segment: &Segment) -> Vec<u8> {
        let bytes = std::fs::read(self.file(segment)).unwrap();
        let mut changed = bytes.clone();
        changed[40] ^= 1;
        self.put_back(segment, &changed);
        bytes
    }

    pub fn put_back(&self, segment: &Segment, bytes: &[u8]) {
        std::fs::write(self.file(segment), bytes).unwrap();
    }

    fn clock() -> crate::Clock {
        Arc::new(|| Timestamp::from_second(2_000).unwrap())
    }

    /// The seconds of the entries that are read, each the very bytes, until an error.
    pub async fn read(&self, from: Option<u32>, to: Option<u32>) -> (Vec<u32>, Option<StoredError>) {
        let oplog =
            StoredOplog::new(self.catalog.clone(), self.vault.clone(), World::clock(), self.cluster, self.part.clone());
        let mut entries = oplog.entries(from.map(time), to.map(time));
        let mut read = Vec::new();
        loop {
            match entries.try_next().await {
                Ok(Some(found)) => {
                    let second = found.at.time.seconds;
                    assert_eq!(found.bytes, entry(second));
                    read.push(second);
                }
                Ok(None) => return (read, None),
                Err(e) => return (read, Some(e)),
            }
        }
    }

    /// All of these seconds and no others are read, without an error.
    #[track_caller]
    pub fn reads(&self, from: Option<u32>, to: Option<u32>, seconds: std::ops::RangeInclusive<u32>) -> Reads<'_> {
        Reads { world: self, from, to, seconds: seconds.collect() }
    }

    pub async fn check(&self) -> Report {
        let check = Check { catalog: self.catalog.clone(), vault: self.vault.clone(), clock: World::clock() };
        check.run(None, |_| ()).await.unwrap()
    }

    pub async fn gaps(&self) -> Vec<Gap> {
        self.catalog.gaps(self.cluster).await.unwrap()
    }

    /// The gaps in seconds, with their causes; those times are whole ones.
    pub async fn gap_times(&self) -> Vec<(ClusterTime, ClusterTime, GapCause)> {
        self.gaps().await.into_iter().map(|gap| (gap.after, gap.until, gap.cause)).collect()
    }
}

/// What is to be read, see [`World::reads`].
pub struct Reads<'a> {
    world: &'a World,
    from: Option<u32>,
    to: Option<u32>,
    seconds: Vec<u32>,
}

impl Reads<'_> {
    pub async fn exactly(self) {
        let (read, error) = self.world.read(self.from, self.to).await;
        assert!(error.is_none(), "{error:?} after {read:?}");
        assert_eq!(read, self.seconds, "from {:?} to {:?}", self.from, self.to);
    }
}
