//! Reading a segment, from any bytes whatever.

use bytes::Bytes;
use stillpoint_core::{ClusterTime, OpTime};
use zstd::bulk::Decompressor;
use zstd::zstd_safe::{find_frame_compressed_size, get_frame_content_size};

use super::Header;
use super::format::{Block, FORMAT, FRAME, HeaderFault, MAGIC, MAX_BLOCK, MAX_HEADER, PRELUDE, read_header};
use super::write::open_before;
use crate::document::SHORTEST;
use crate::entry::{Entry, EntryError, split};

/// How much a reader allocates at most, whatever the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The length of the header.
    pub header: usize,
    /// The length of a block before compression.
    pub block: usize,
}

impl Default for Limits {
    /// The format's own.
    fn default() -> Self {
        Limits { header: MAX_HEADER, block: MAX_BLOCK }
    }
}

/// Why bytes are no segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    #[error("this is no segment: it does not begin as one")]
    NoSegment,
    #[error("this segment is of format {0}, and this program reads format {FORMAT} only")]
    Format(u32),
    #[error("the segment ends after {length} bytes, in its header")]
    Short { length: usize },
    #[error("the segment's header is {length} bytes long, and the limit is {limit}")]
    HeaderLength { length: usize, limit: usize },
    #[error("the segment's header: {0}")]
    Header(#[from] HeaderFault),
    #[error("the segment's header contradicts itself: {0}")]
    Contradiction(&'static str),
    #[error("block {block} of the segment contradicts the rest of the index: {what}")]
    Index { block: usize, what: &'static str },
    #[error("block {block} of the segment is {length} bytes long before compression, and the limit is {limit}")]
    BlockLength { block: usize, length: usize, limit: usize },
    #[error("block {block} of the segment: {what}")]
    Block { block: usize, what: String },
    #[error("byte {at} of block {block} of the segment: {why}")]
    Entry { block: usize, at: usize, why: EntryError },
    #[error("the entry at {at} in block {block} of the segment: {what}")]
    Order { block: usize, at: OpTime, what: &'static str },
    #[error("the segment has {found} entries, the last at {last}, and its header says {said} and {said_last}")]
    Entries { found: u64, last: OpTime, said: u64, said_last: OpTime },
}

/// A segment whose header and index are in order; of its blocks nothing is known yet.
#[derive(Debug, Clone)]
pub struct SegmentReader {
    header: Header,
    index: Vec<Block>,
    blocks: Bytes,
}

/// An entry, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEntry {
    pub at: OpTime,
    /// A part of its block, which stays in memory as long as this does.
    pub bytes: Bytes,
}

impl AsRef<[u8]> for RawEntry {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl SegmentReader {
    /// Checks all that can be checked without decompressing.
    pub fn open(bytes: Bytes, limits: Limits) -> Result<SegmentReader, SegmentError> {
        let short = SegmentError::Short { length: bytes.len() };
        if bytes.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(SegmentError::NoSegment);
        }
        let number = |at: usize| bytes.get(at..)?.first_chunk().map(|number| u32::from_le_bytes(*number));
        match number(MAGIC.len()).ok_or_else(|| short.clone())? {
            FORMAT => {}
            other => return Err(SegmentError::Format(other)),
        }
        let length = number(MAGIC.len() + 4).ok_or_else(|| short.clone())? as usize;
        let limit = limits.header.min(MAX_HEADER);
        if length > limit {
            return Err(SegmentError::HeaderLength { length, limit });
        }
        let (header, index) = read_header(bytes.get(PRELUDE..PRELUDE + length).ok_or(short)?)?;
        let blocks = bytes.slice(PRELUDE + length..);
        agree(&header, &index)?;
        contiguous(&header, &index, blocks.len(), limits.block.min(MAX_BLOCK))?;
        Ok(SegmentReader { header, index, blocks })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The entries at or after `from`, with one block at a time in memory. It ends after the first error.
    ///
    /// Each entry is checked to be one and to be in order, and at the end whether the last is the last.
    /// Only from the segment's beginning can they be counted.
    pub fn entries_from(&self, from: ClusterTime) -> Entries<'_> {
        let block = self.index.partition_point(|block| block.first <= from).saturating_sub(1);
        Entries { reader: self, from, decompressor: None, block, whole: block == 0, rest: None, count: 0, last: None }
    }
}

fn agree(header: &Header, index: &[Block]) -> Result<(), SegmentError> {
    let Header { first, last, entries, bytes, .. } = *header;
    let rules = [
        (!index.is_empty() && entries > 0, "it has no entries"),
        (if entries == 1 { first == last } else { first.time < last.time }, "the last entry and the first"),
        (entries >= index.len() as u64, "fewer entries than blocks"),
        (
            entries.checked_mul(SHORTEST as u64).is_some_and(|least| least <= bytes),
            "more entries than their bytes hold",
        ),
        (
            index.first().is_none_or(|block| block.first == first.time),
            "the first block does not begin at the first entry",
        ),
        (index.last().is_none_or(|block| block.first <= last.time), "the last block begins after the last entry"),
        (header.open.iter().all(|open| open_before(open, first)), "a transaction is open that was not begun before it"),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(SegmentError::Contradiction(what)))
}

fn contiguous(header: &Header, index: &[Block], length: usize, limit: usize) -> Result<(), SegmentError> {
    let (mut offset, mut raw, mut before) = (0_u64, 0_u64, None);
    for (block, line) in index.iter().enumerate() {
        let wrong = |what| Err(SegmentError::Index { block, what });
        if line.raw > limit {
            return Err(SegmentError::BlockLength { block, length: line.raw, limit });
        }
        if line.offset != offset {
            return wrong("it does not begin where the one before it ends");
        }
        if line.stored == 0 || line.raw < SHORTEST {
            return wrong("it is empty");
        }
        if before.is_some_and(|before| before >= line.first) {
            return wrong("it is not later than the one before it");
        }
        before = Some(line.first);
        // Each is at most the file's length and the limit, of which there are few: no overflow, yet checked.
        let (Some(end), Some(sum)) = (offset.checked_add(line.stored as u64), raw.checked_add(line.raw as u64)) else {
            return wrong("it ends after the end of the file");
        };
        if end > length as u64 {
            return wrong("it ends after the end of the file");
        }
        (offset, raw) = (end, sum);
    }
    if offset != length as u64 {
        return Err(SegmentError::Contradiction("something follows the last block"));
    }
    if raw != header.bytes {
        return Err(SegmentError::Contradiction("the blocks are not as long as the entries"));
    }
    Ok(())
}

/// See [`SegmentReader::entries_from`].
pub struct Entries<'a> {
    reader: &'a SegmentReader,
    from: ClusterTime,
    decompressor: Option<Decompressor<'static>>,
    /// The one being read, or the next to be.
    block: usize,
    /// What is left of it.
    rest: Option<(Bytes, usize)>,
    /// Whether it began at the segment's beginning.
    whole: bool,
    count: u64,
    last: Option<OpTime>,
}

impl Entries<'_> {
    fn next_entry(&mut self) -> Result<Option<RawEntry>, SegmentError> {
        loop {
            let (bytes, at) = match self.rest.take() {
                Some(rest) => rest,
                None if self.block < self.reader.index.len() => (self.decompress()?, 0),
                None => return self.end().map(|()| None),
            };
            let entry = self.entry(&bytes, at)?;
            let end = at + entry.bytes.len();
            if end == bytes.len() {
                self.block += 1;
            } else {
                self.rest = Some((bytes, end));
            }
            if entry.at.time >= self.from {
                return Ok(Some(entry));
            }
        }
    }

    /// The block that is next, decompressed into no more than the index says.
    fn decompress(&mut self) -> Result<Bytes, SegmentError> {
        let block = self.block;
        let fault = |what: String| SegmentError::Block { block, what };
        let Block { offset, stored, raw, .. } = self.reader.index[block];
        // Within the file, since `open` looked.
        let frame = &self.reader.blocks[offset as usize..offset as usize + stored];
        // By its first bytes, too: zstd would also take formats from before its first version.
        if !frame.starts_with(&FRAME) || find_frame_compressed_size(frame) != Ok(stored) {
            return Err(fault("it is not one zstd frame".into()));
        }
        if !matches!(get_frame_content_size(frame), Ok(Some(said)) if said == raw as u64) {
            return Err(fault(format!("its frame does not say that it is {raw} bytes long")));
        }
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(|why| fault(why.to_string()))?),
        };
        let bytes = decompressor.decompress(frame, raw).map_err(|why| fault(why.to_string()))?;
        if bytes.len() != raw {
            return Err(fault(format!("it is {} bytes long, and the index says {raw}", bytes.len())));
        }
        Ok(Bytes::from(bytes))
    }

    fn entry(&mut self, bytes: &Bytes, at: usize) -> Result<RawEntry, SegmentError> {
        let block = self.block;
        let fault = |why: EntryError| SegmentError::Entry { block, at, why };
        let document = match split(&bytes[at..]).next() {
            Some(document) => document.map_err(|why| fault(why.into()))?,
            None => return Err(SegmentError::Block { block, what: "it has no entries".into() }),
        };
        let entry = Entry::read(document).map_err(fault)?;
        let wrong = |what| Err(SegmentError::Order { block, at: entry.at, what });
        if at == 0 && entry.at.time != self.reader.index[block].first {
            return wrong("it is the first of its block, and the index says another");
        }
        match self.last {
            Some(last) if entry.at.time <= last.time => return wrong("it is not after the one before it"),
            None if self.whole && entry.at != self.reader.header.first => {
                return wrong("it is the first, and the header says another");
            }
            _ => {}
        }
        self.last = Some(entry.at);
        self.count += 1;
        Ok(RawEntry { at: entry.at, bytes: bytes.slice(at..at + document.len()) })
    }

    fn end(&self) -> Result<(), SegmentError> {
        let Header { entries: said, last: said_last, .. } = self.reader.header;
        match self.last {
            Some(last) if last != said_last || self.whole && self.count != said => {
                Err(SegmentError::Entries { found: self.count, last, said, said_last })
            }
            _ => Ok(()),
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<RawEntry, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.next_entry();
        if !matches!(entry, Ok(Some(_))) {
            self.block = self.reader.index.len();
            self.rest = None;
            self.last = None;
        }
        entry.transpose()
    }
}

#[cfg(test)]
impl SegmentReader {
    pub(super) fn parts_for_tests(&self) -> (Header, Vec<Block>, Vec<u8>) {
        (self.header.clone(), self.index.clone(), self.blocks.to_vec())
    }

    pub(super) fn blocks_for_tests(&self) -> Vec<usize> {
        self.index.iter().map(|block| block.raw).collect()
    }
}
