//! Which shard owns which range of a collection, and the versions that prove to a shard that a
//! client knows it.
//!
//! A write without a shard version is taken by any shard, owner or not. With one, a shard that
//! no longer owns the range refuses (`StaleConfig`), as it does for a router.

use anyhow::{Context, Result, bail};
use bson::oid::ObjectId;
use bson::{Bson, Document, Timestamp, doc};

use crate::endpoint::Topology;
use crate::snapshot::{self, ReadAt};
use crate::wire::Gossip;

/// One range of a collection's `_id`.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub min: Bson,
    pub max: Bson,
    pub shard: String,
    version: Timestamp,
}

/// The routing table of a collection sharded by `_id`.
#[derive(Debug, Clone)]
pub struct Routing {
    epoch: ObjectId,
    timestamp: Timestamp,
    /// In the order of their ranges.
    pub chunks: Vec<Chunk>,
}

impl Routing {
    /// The table as it is now, majority-committed.
    pub async fn load(topology: &Topology, ns: &str) -> Result<Self> {
        Self::load_at(topology, &Gossip::default(), ns, ReadAt::Majority).await
    }

    /// The table as it was.
    pub async fn load_at(topology: &Topology, gossip: &Gossip, ns: &str, at: ReadAt) -> Result<Self> {
        let config = &topology.config;
        let collection = snapshot::find(config, gossip, "config.collections", at, doc! {"_id": ns})
            .await?
            .pop()
            .with_context(|| format!("{ns} is not sharded"))?;
        let uuid = collection.get("uuid").cloned().context("no uuid")?;
        let mut chunks = snapshot::find(config, gossip, "config.chunks", at, doc! {"uuid": uuid})
            .await?
            .iter()
            .map(Chunk::parse)
            .collect::<Result<Vec<_>>>()?;
        // Bounds that cannot be ordered are reported by `chunk`.
        chunks.sort_by(|a, b| {
            let order = Key::of(&a.min).ok().partial_cmp(&Key::of(&b.min).ok());
            order.unwrap_or(std::cmp::Ordering::Equal)
        });
        Ok(Self {
            epoch: collection.get_object_id("lastmodEpoch")?,
            timestamp: collection.get_timestamp("timestamp")?,
            chunks,
        })
    }

    /// The chunk that holds this `_id`.
    pub fn chunk(&self, id: &Bson) -> Result<&Chunk> {
        let key = Key::of(id)?;
        for chunk in &self.chunks {
            if Key::of(&chunk.min)? <= key && key < Key::of(&chunk.max)? {
                return Ok(chunk);
            }
        }
        bail!("no chunk holds {id}")
    }

    /// The name of the shard that owns this `_id`.
    pub fn owner(&self, id: &Bson) -> Result<&str> {
        Ok(&self.chunk(id)?.shard)
    }

    /// What a command to `shard` carries as `shardVersion`.
    pub fn version(&self, shard: &str) -> Document {
        let version = self
            .chunks
            .iter()
            .filter(|chunk| chunk.shard == shard)
            .map(|chunk| chunk.version)
            .max()
            .unwrap_or(Timestamp { time: 0, increment: 0 });
        doc! {"t": self.timestamp, "e": self.epoch, "v": version}
    }

    /// The fields by which the collection's chunks are versioned, for `splitChunk`.
    pub(crate) fn epoch(&self) -> (ObjectId, Timestamp) {
        (self.epoch, self.timestamp)
    }
}

impl Chunk {
    fn parse(document: &Document) -> Result<Self> {
        let bound = |name| -> Result<Bson> {
            let bound = document.get_document(name)?.get("_id").cloned();
            bound.context("the lab only knows collections sharded by _id")
        };
        Ok(Self {
            min: bound("min")?,
            max: bound("max")?,
            shard: document.get_str("shard")?.to_owned(),
            version: document.get_timestamp("lastmod")?,
        })
    }
}

/// The types of `_id` the lab's collections use, in BSON's order.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Key<'a> {
    Min,
    Number(f64),
    Text(&'a str),
    Id(ObjectId),
    Max,
}

impl<'a> Key<'a> {
    fn of(value: &'a Bson) -> Result<Self> {
        Ok(match value {
            Bson::MinKey => Self::Min,
            Bson::Int32(number) => Self::Number(f64::from(*number)),
            // Exact below 2^53, and the lab's own are below 2^41.
            Bson::Int64(number) => Self::Number(*number as f64),
            Bson::Double(number) => Self::Number(*number),
            Bson::String(text) => Self::Text(text),
            Bson::ObjectId(id) => Self::Id(*id),
            Bson::MaxKey => Self::Max,
            other => bail!("the lab cannot order {other}"),
        })
    }
}
