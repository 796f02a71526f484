//! Reading a pack, from any bytes whatever.

use std::io;

use bytes::Bytes;
use zstd::bulk::Decompressor;
use zstd::zstd_safe::{find_frame_compressed_size, get_frame_content_size};

use super::{FORMAT, FRAME, LINE, MAGIC, MAX_ITEM, MAX_ITEMS, PRELUDE};
use crate::reference::ContentId;

/// How much a reader allocates at most, whatever the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The length of an item before compression.
    pub item: usize,
}

impl Default for Limits {
    /// The format's own.
    fn default() -> Self {
        Limits { item: MAX_ITEM }
    }
}

/// Why bytes are no pack, or an item is not in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    #[error("this is no pack: it does not begin as one")]
    NoPack,
    #[error("this pack is of format {0}, and this program reads format {FORMAT} only")]
    Format(u32),
    #[error("the pack ends after {length} bytes, in its index")]
    Short { length: usize },
    #[error("the pack says that it has {items} items, and between 1 and {MAX_ITEMS} can be in one")]
    Items { items: u32 },
    #[error("item {item} of the pack contradicts the rest of it: {what}")]
    Index { item: usize, what: &'static str },
    #[error("item {item} of the pack is {length} bytes long before compression, and the limit is {limit}")]
    ItemLength { item: usize, length: usize, limit: usize },
    #[error("{0} is not in the pack")]
    Missing(ContentId),
    #[error("item {item} of the pack, {id}: {what}")]
    Item { item: usize, id: ContentId, what: String },
}

/// One line of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    id: ContentId,
    offset: usize,
    stored: usize,
    raw: usize,
    content: usize,
}

/// A pack whose index is in order; of its items nothing is known yet.
#[derive(Debug, Clone)]
pub struct PackReader {
    index: Vec<Line>,
    /// The items by their ids.
    sorted: Vec<u32>,
    bytes: Bytes,
}

/// A chunk or a node out of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub id: ContentId,
    /// What `id` is the hash of.
    pub content: Bytes,
    /// What follows it: where the children of a node are. A chunk has nothing.
    pub places: Bytes,
}

/// What decompresses; to be used again for the next pack.
pub struct Unpacker(Decompressor<'static>);

impl Unpacker {
    pub fn new() -> io::Result<Unpacker> {
        Decompressor::new().map(Unpacker)
    }
}

impl PackReader {
    /// Checks all that can be checked without decompressing.
    pub fn open(bytes: Bytes, limits: Limits) -> Result<PackReader, PackError> {
        let short = PackError::Short { length: bytes.len() };
        if bytes.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(PackError::NoPack);
        }
        match number(&bytes, MAGIC.len()).ok_or_else(|| short.clone())? {
            FORMAT => {}
            other => return Err(PackError::Format(other)),
        }
        let items = number(&bytes, MAGIC.len() + 4).ok_or_else(|| short.clone())?;
        if items == 0 || items as usize > MAX_ITEMS {
            return Err(PackError::Items { items });
        }
        let end = PRELUDE + items as usize * LINE;
        let lines = bytes.get(PRELUDE..end).ok_or(short)?;
        let index = contiguous(lines, end, bytes.len(), limits.item.min(MAX_ITEM))?;
        let mut sorted: Vec<u32> = (0..items).collect();
        sorted.sort_unstable_by_key(|item| index[*item as usize].id);
        if let Some(pair) = sorted.windows(2).find(|pair| index[pair[0] as usize].id == index[pair[1] as usize].id) {
            let item = pair[0].max(pair[1]) as usize;
            return Err(PackError::Index { item, what: "it has the id of another" });
        }
        Ok(PackReader { index, sorted, bytes })
    }

    /// The ids of what is in it, in the order in which it was stored, and whether it is a node.
    pub fn items(&self) -> impl Iterator<Item = (ContentId, bool)> {
        self.index.iter().map(|line| (line.id, line.content < line.raw))
    }

    /// The item with this id, decompressed into no more than the index says and checked against the id.
    pub fn get(&self, id: ContentId, unpacker: &mut Unpacker) -> Result<Item, PackError> {
        let found = self.sorted.binary_search_by_key(&id, |item| self.index[*item as usize].id);
        let item = self.sorted[found.map_err(|_| PackError::Missing(id))?] as usize;
        let Line { offset, stored, raw, content, .. } = self.index[item];
        let fault = |what: String| PackError::Item { item, id, what };
        // Within the file, since `open` looked.
        let frame = &self.bytes[offset..offset + stored];
        // By its first bytes, too: zstd would also take formats from before its first version.
        if !frame.starts_with(&FRAME) || find_frame_compressed_size(frame) != Ok(stored) {
            return Err(fault("it is not one zstd frame".into()));
        }
        if !matches!(get_frame_content_size(frame), Ok(Some(said)) if said == raw as u64) {
            return Err(fault(format!("its frame does not say that it is {raw} bytes long")));
        }
        let bytes = unpacker.0.decompress(frame, raw).map_err(|why| fault(why.to_string()))?;
        if bytes.len() != raw {
            return Err(fault(format!("it is {} bytes long, and the index says {raw}", bytes.len())));
        }
        let mut bytes = Bytes::from(bytes);
        let places = bytes.split_off(content);
        if ContentId::of(&bytes) != id {
            return Err(fault("its content has another hash".into()));
        }
        Ok(Item { id, content: bytes, places })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|number| u32::from_le_bytes(*number))
}

fn contiguous(lines: &[u8], begin: usize, end: usize, limit: usize) -> Result<Vec<Line>, PackError> {
    let mut index = Vec::with_capacity(lines.len() / LINE);
    let mut offset = begin;
    for (item, line) in lines.chunks_exact(LINE).enumerate() {
        let wrong = |what| PackError::Index { item, what };
        let field = |at| number(line, at).map_or(0, |number| number as usize);
        let id = ContentId(line.first_chunk().copied().unwrap_or_default());
        let (stored, raw, content) = (field(32), field(36), field(40));
        if raw > limit {
            return Err(PackError::ItemLength { item, length: raw, limit });
        }
        if stored == 0 || content == 0 {
            return Err(wrong("it is empty"));
        }
        if content > raw {
            return Err(wrong("its content is longer than all of it"));
        }
        index.push(Line { id, offset, stored, raw, content });
        offset = offset.checked_add(stored).filter(|to| *to <= end).ok_or_else(|| wrong("it ends after the end"))?;
    }
    if offset != end {
        return Err(PackError::Index { item: index.len() - 1, what: "something follows it, the last" });
    }
    Ok(index)
}
