//! Which shard owns a document of a sharded collection.
//!
//! A shard may have documents that it does not own: what a migration copied and did not commit, or moved away
//! and has not deleted yet. They are no part of the cluster's data, and so of no restore.
//!
//! What is known of a collection comes from the config servers' data, all as of one time: its row of
//! `config.collections`, and its rows of `config.chunks`. The value of the shard key is found as in the server's
//! `ShardKeyPattern::extractShardKeyFromDoc` (`shard_key_pattern.cpp`), and its chunk as in
//! `ChunkMap::findIntersectingChunk` (`chunk_manager.cpp`): always without a collation, whatever the collection's
//! own. Measured on 6.0 against the filter that a shard puts on what it reads (`tests/exact/owners.rs`).

use bson::raw::{RawDocument, RawDocumentBuf};
use bson::{Bson, Document};

use stillpoint_oplog::document::{self as raw, Malformed, Value};

use crate::key::{self, KeyError};
use crate::operation::{self, Uuid};

pub mod hashed;
#[cfg(test)]
mod tests;

/// The chunks of a sharded collection.
#[derive(Debug, Clone)]
pub struct Ownership {
    key: Vec<KeyField>,
    shards: Vec<String>,
    /// In order; each ends where the next begins, and the first begins with the least key that there is.
    ranges: Vec<Range>,
    /// The greatest key that there is, which is in no range.
    end: Vec<u8>,
}

/// Chunks of one shard in a row.
#[derive(Debug, Clone)]
struct Range {
    /// The bound, as bytes that compare like it.
    from: Vec<u8>,
    /// Which of the shards.
    shard: usize,
}

/// A field of the shard key.
#[derive(Debug, Clone)]
struct KeyField {
    /// With dots.
    path: String,
    hashed: bool,
}

/// Why the chunks of a collection, or a document's shard, are not known. Bounds are written as MongoDB shows
/// documents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnershipError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it is nested more than {depth} levels deep", depth = crate::DEPTH)]
    TooDeep,
    #[error("a row of config.{table} has no {field} as this program knows it")]
    Row { table: &'static str, field: &'static str },
    #[error("the shard key {0} has a field that is neither 1 nor \"hashed\"")]
    Pattern(String),
    #[error("the chunk from {min} to {max} is of another collection, {collection}")]
    Foreign { min: String, max: String, collection: Uuid },
    #[error("{bound} bounds a chunk and has not the fields of the shard key {pattern}")]
    Bound { bound: String, pattern: String },
    #[error("the chunk from {min} to {max} ends before it begins")]
    Backwards { min: String, max: String },
    #[error("no chunk has what is from {from} to {to}")]
    Gap { from: String, to: String },
    #[error("the chunk from {min} to {max} has what a chunk before it has, which ends at {end}")]
    Overlap { min: String, max: String, end: String },
    #[error("{0} is of the shard key, and there is an array in the document there")]
    Array(String),
}

type Result<T> = std::result::Result<T, OwnershipError>;

impl From<KeyError> for OwnershipError {
    fn from(why: KeyError) -> Self {
        match why {
            KeyError::Malformed(why) => Self::Malformed(why),
            KeyError::TooDeep => Self::TooDeep,
            KeyError::None => Self::Malformed(key::CUT),
        }
    }
}

/// What counts for a field that is missing.
const NULL: Value<'static> = Value { tag: raw::NULL, bytes: &[] };

impl Ownership {
    /// From a collection's row of `config.collections` and all its rows of `config.chunks`, in any order.
    /// Time-series collections have theirs under the name of their buckets, with a key of the buckets' fields.
    ///
    /// # Errors
    /// Rows or a shard key that this program does not understand; chunks that leave something out, or have
    /// something twice.
    pub fn new<'a>(collection: &RawDocument, chunks: impl IntoIterator<Item = &'a RawDocument>) -> Result<Self> {
        let row = |field| OwnershipError::Row { table: "collections", field };
        let pattern = collection.get_document("key").map_err(|_| row("key"))?;
        let key = KeyField::all(pattern)?;
        let uuid = uuid(collection).ok_or_else(|| row("uuid"))?;
        let chunks = chunks.into_iter().map(|row| Chunk::read(row, pattern, &key, uuid));
        let mut chunks = chunks.collect::<Result<Vec<_>>>()?;
        chunks.sort_unstable_by(|one, other| one.from.cmp(&other.from));

        let (least, greatest) = (everywhere(&key, Bson::MinKey)?, everywhere(&key, Bson::MaxKey)?);
        let end = encoded(&greatest, pattern, &key)?;
        let (mut shards, mut ranges) = (Vec::<String>::new(), Vec::<Range>::new());
        let (mut reached, mut until) = (encoded(&least, pattern, &key)?, &*least);
        for chunk in chunks {
            let Chunk { min, max, .. } = chunk;
            if chunk.from > reached {
                return Err(OwnershipError::Gap { from: shown(until), to: shown(min) });
            }
            if chunk.from < reached {
                return Err(OwnershipError::Overlap { min: shown(min), max: shown(max), end: shown(until) });
            }
            let shard = shards.iter().position(|known| known == chunk.shard).unwrap_or_else(|| {
                shards.push(chunk.shard.to_owned());
                shards.len() - 1
            });
            if ranges.last().is_none_or(|last| last.shard != shard) {
                ranges.push(Range { from: chunk.from, shard });
            }
            (reached, until) = (chunk.to, max);
        }
        if reached != end {
            return Err(OwnershipError::Gap { from: shown(until), to: shown(&greatest) });
        }
        Ok(Self { key, shards, ranges, end })
    }

    /// The name of the shard that owns a document, as in `config.shards`. None owns one whose shard key is MaxKey
    /// in all fields: no chunk has its end, and the server takes it for an orphan wherever it is.
    ///
    /// # Errors
    /// A document that is no BSON, or has an array on the way to a field of the shard key, as none can have.
    pub fn owner(&self, document: &RawDocument) -> Result<Option<&str>> {
        let mut key = Vec::with_capacity(64);
        for field in &self.key {
            let value = field.of(document)?;
            match field.hashed {
                true => append_hash(&mut key, hashed::of_value(value)?)?,
                false => key::append(&mut key, value)?,
            }
        }
        if key >= self.end {
            return Ok(None);
        }
        let after = self.ranges.partition_point(|range| range.from <= key);
        Ok(self.ranges[..after].last().and_then(|range| self.shards.get(range.shard)).map(String::as_str))
    }

    /// The shards that own anything, each once.
    pub fn shards(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().map(String::as_str)
    }
}

/// A hash as the bounds of chunks have it.
fn append_hash(key: &mut Vec<u8>, hash: i64) -> Result<()> {
    Ok(key::append(key, Value { tag: raw::INT64, bytes: &hash.to_le_bytes() })?)
}

impl KeyField {
    fn all(pattern: &RawDocument) -> Result<Vec<Self>> {
        let unknown = || OwnershipError::Pattern(shown(pattern));
        let fields = raw::fields(pattern.as_bytes())?.map(|field| {
            let field = field?;
            let hashed = match field.value.text() {
                Some("hashed") => true,
                None if field.value.whole_number() == Some(1) => false,
                _ => return Err(unknown()),
            };
            let path = std::str::from_utf8(field.name).map_err(|_| unknown())?.to_owned();
            Ok(Self { path, hashed })
        });
        let fields = fields.collect::<Result<Vec<_>>>()?;
        if fields.is_empty() { Err(unknown()) } else { Ok(fields) }
    }

    /// Its value in a document.
    fn of<'a>(&self, document: &'a RawDocument) -> Result<Value<'a>> {
        let mut value = Value { tag: raw::DOCUMENT, bytes: document.as_bytes() };
        for name in self.path.split('.') {
            let Some(document) = value.document() else { return Ok(NULL) };
            value = match raw::find(document, name.as_bytes())? {
                None => return Ok(NULL),
                Some(array) if array.tag == raw::ARRAY => return Err(OwnershipError::Array(self.path.clone())),
                Some(found) => found,
            };
        }
        Ok(value)
    }
}

/// A row of `config.chunks`.
struct Chunk<'a> {
    min: &'a RawDocument,
    max: &'a RawDocument,
    from: Vec<u8>,
    to: Vec<u8>,
    shard: &'a str,
}

impl<'a> Chunk<'a> {
    fn read(row: &'a RawDocument, pattern: &RawDocument, key: &[KeyField], collection: Uuid) -> Result<Self> {
        let wrong = |field| OwnershipError::Row { table: "chunks", field };
        let min = row.get_document("min").map_err(|_| wrong("min"))?;
        let max = row.get_document("max").map_err(|_| wrong("max"))?;
        let shard = row.get_str("shard").map_err(|_| wrong("shard"))?;
        let of = uuid(row).ok_or_else(|| wrong("uuid"))?;
        if of != collection {
            return Err(OwnershipError::Foreign { min: shown(min), max: shown(max), collection: of });
        }
        let (from, to) = (encoded(min, pattern, key)?, encoded(max, pattern, key)?);
        if to <= from {
            return Err(OwnershipError::Backwards { min: shown(min), max: shown(max) });
        }
        Ok(Self { min, max, from, to, shard })
    }
}

fn uuid(row: &RawDocument) -> Option<Uuid> {
    let uuid = row.get("uuid").ok()??;
    operation::uuid(uuid).ok()
}

/// A bound, as bytes that compare like it.
fn encoded(bound: &RawDocument, pattern: &RawDocument, key: &[KeyField]) -> Result<Vec<u8>> {
    let wrong = || OwnershipError::Bound { bound: shown(bound), pattern: shown(pattern) };
    let mut fields = raw::fields(bound.as_bytes())?;
    let mut bytes = Vec::new();
    for wanted in key {
        let field = fields.next().ok_or_else(wrong)??;
        if field.name != wanted.path.as_bytes() {
            return Err(wrong());
        }
        key::append(&mut bytes, field.value)?;
    }
    if fields.next().is_some() { Err(wrong()) } else { Ok(bytes) }
}

/// The bound that has one value in every field.
fn everywhere(key: &[KeyField], value: Bson) -> Result<RawDocumentBuf> {
    let bound: Document = key.iter().map(|field| (field.path.clone(), value.clone())).collect();
    let bound = RawDocumentBuf::try_from(&bound);
    bound.map_err(|_| OwnershipError::Malformed(Malformed { at: 0, what: "the name of a field" }))
}

/// For a message.
fn shown(document: &RawDocument) -> String {
    Document::try_from(document).map_or_else(|why| format!("a document that is no BSON ({why})"), |all| all.to_string())
}
