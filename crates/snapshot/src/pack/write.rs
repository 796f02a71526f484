//! Filling a pack, item by item, each compressed by itself.

use std::collections::HashMap;
use std::io;

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use super::{FORMAT, LINE, MAGIC, MAX_ITEM, MAX_ITEMS, PRELUDE};
use crate::reference::ContentId;

/// One pack after the other, with one compressor.
pub struct PackWriter {
    compressor: Compressor<'static>,
    stored: Vec<u8>,
    index: Vec<u8>,
    /// How long each item is in the pack.
    items: HashMap<ContentId, u32>,
}

impl PackWriter {
    /// `level` is zstd's.
    pub fn new(level: i32) -> io::Result<PackWriter> {
        let mut compressor = Compressor::new(level)?;
        compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
        // The id is the checksum.
        compressor.set_parameter(CParameter::ChecksumFlag(false))?;
        Ok(PackWriter { compressor, stored: Vec::new(), index: Vec::new(), items: HashMap::new() })
    }

    /// Adds an item whose first `content` bytes have the id `id`, unless it is in the pack already, and
    /// gives its length in the pack.
    pub fn add(&mut self, id: ContentId, content: usize, bytes: &[u8]) -> io::Result<u32> {
        if let Some(stored) = self.items.get(&id) {
            return Ok(*stored);
        }
        if bytes.is_empty() || bytes.len() > MAX_ITEM || content > bytes.len() || self.items.len() >= MAX_ITEMS {
            return Err(io::Error::other(format!("an item of {content} and {} bytes", bytes.len())));
        }
        let offset = self.stored.len();
        self.stored.reserve(compress_bound(bytes.len()));
        let mut end = io::Cursor::new(std::mem::take(&mut self.stored));
        end.set_position(offset as u64);
        let written = self.compressor.compress_to_buffer(bytes, &mut end);
        self.stored = end.into_inner();
        if written.is_err() {
            self.stored.truncate(offset);
        }
        let stored = u32::try_from(written?).map_err(io::Error::other)?;
        self.index.extend_from_slice(&id.0);
        for number in [stored, bytes.len() as u32, content as u32] {
            self.index.extend_from_slice(&number.to_le_bytes());
        }
        self.items.insert(id, stored);
        Ok(stored)
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The length of its items so far.
    pub fn stored_bytes(&self) -> usize {
        self.stored.len()
    }

    /// Whether it has as many items as a pack can have.
    pub fn is_full(&self) -> bool {
        self.items.len() >= MAX_ITEMS
    }

    /// The pack. The next item begins another.
    pub fn seal(&mut self) -> Vec<u8> {
        let mut head = Vec::with_capacity(PRELUDE + self.index.len());
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.extend_from_slice(&((self.index.len() / LINE) as u32).to_le_bytes());
        head.append(&mut self.index);
        self.items.clear();
        let mut pack = std::mem::take(&mut self.stored);
        pack.splice(..0, head);
        pack
    }
}
