//! The words of the format that its writer and its reader share.

use bson::raw::{RawArrayBuf, RawDocumentBuf};
use bson::spec::BinarySubtype;
use bson::{RawBsonRef, Timestamp, cstr};
use stillpoint_core::stream::{BlobId, OpenTransaction};
use stillpoint_core::{ClusterTime, OpTime};

use super::Header;
use crate::document::{Field, Malformed, fields};

/// What a segment begins with.
pub(super) const MAGIC: [u8; 8] = *b"stillseg";

/// The version that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// What a zstd frame begins with (RFC 8878).
pub(super) const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The magic bytes, the version, the header's length.
pub(super) const PRELUDE: usize = 16;

/// The longest header.
pub const MAX_HEADER: usize = 4 << 20;

/// The longest entry: the server's limit for a document and what it adds to one are 16 MiB + 16 KiB.
pub const MAX_ENTRY: usize = (16 << 20) + (64 << 10);

/// The longest block, before compression.
pub const MAX_BLOCK: usize = MAX_ENTRY;

/// One line of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// The `ts` of its first entry.
    pub first: ClusterTime,
    /// Where it begins, counted from the first block.
    pub offset: u64,
    /// Its length in the file.
    pub stored: usize,
    /// The length of its entries.
    pub raw: usize,
}

/// A field of the header that is missing or not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    #[error("it is {0}")]
    Malformed(#[from] Malformed),
    #[error("{0} is missing or is not what it must be")]
    Field(&'static str),
}

fn timestamp(time: ClusterTime) -> RawBsonRef<'static> {
    RawBsonRef::Timestamp(Timestamp { time: time.seconds, increment: time.increment })
}

fn optime(at: OpTime) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("ts"), timestamp(at.time));
    document.append(cstr!("t"), at.term);
    document
}

fn binary(bytes: &[u8]) -> RawBsonRef<'_> {
    RawBsonRef::Binary(bson::raw::RawBinaryRef { subtype: BinarySubtype::Generic, bytes })
}

/// None if a session is no hex or a length is too high.
pub(super) fn write_header(header: &Header, blocks: &[Block]) -> Option<Vec<u8>> {
    let mut open = RawArrayBuf::new();
    for transaction in &header.open {
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("session"), binary(&hex::decode(&transaction.session).ok()?));
        document.append(cstr!("number"), transaction.number);
        document.append(cstr!("first"), optime(transaction.first));
        document.append(cstr!("last"), optime(transaction.last));
        if let Some(prepared) = transaction.prepared {
            document.append(cstr!("prepared"), timestamp(prepared));
        }
        open.push(document);
    }
    let mut index = RawArrayBuf::new();
    for block in blocks {
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("first"), timestamp(block.first));
        document.append(cstr!("offset"), i64::try_from(block.offset).ok()?);
        document.append(cstr!("stored"), i32::try_from(block.stored).ok()?);
        document.append(cstr!("raw"), i32::try_from(block.raw).ok()?);
        index.push(document);
    }
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("cluster"), header.cluster.to_string());
    document.append(cstr!("part"), header.part.as_str());
    document.append(cstr!("first"), optime(header.first));
    document.append(cstr!("last"), optime(header.last));
    document.append(cstr!("entries"), i64::try_from(header.entries).ok()?);
    document.append(cstr!("bytes"), i64::try_from(header.bytes).ok()?);
    document.append(cstr!("previous"), header.previous.as_ref().map_or(RawBsonRef::Null, |id| binary(&id.0)));
    document.append(cstr!("open"), open);
    document.append(cstr!("blocks"), index);
    Some(document.into_bytes())
}

pub(super) fn read_header(bytes: &[u8]) -> Result<(Header, Vec<Block>), HeaderFault> {
    let (mut cluster, mut part, mut first, mut last) = (None, None, None, None);
    let (mut entries, mut raw, mut previous, mut open, mut blocks) = (None, None, None, None, None);
    for field in fields(bytes)? {
        let field = field?;
        match field.name {
            b"cluster" => cluster = field.value.text().and_then(|text| text.parse().ok()),
            b"part" => part = field.value.text(),
            b"first" => first = field.value.optime(),
            b"last" => last = field.value.optime(),
            b"entries" => entries = natural(field),
            b"bytes" => raw = natural(field),
            b"previous" if field.value.is_null() => previous = Some(None),
            b"previous" => {
                previous = field.value.generic().and_then(|id| id.try_into().ok()).map(|id| Some(BlobId(id)))
            }
            b"open" => open = list(field, transaction),
            b"blocks" => blocks = list(field, block),
            // From a later program, which would have changed the version if this one had to know it.
            _ => {}
        }
    }
    let header = Header {
        cluster: cluster.ok_or(HeaderFault::Field("cluster"))?,
        part: part.ok_or(HeaderFault::Field("part"))?.to_owned(),
        first: first.ok_or(HeaderFault::Field("first"))?,
        last: last.ok_or(HeaderFault::Field("last"))?,
        entries: entries.ok_or(HeaderFault::Field("entries"))?,
        bytes: raw.ok_or(HeaderFault::Field("bytes"))?,
        previous: previous.ok_or(HeaderFault::Field("previous"))?,
        open: open.ok_or(HeaderFault::Field("open"))?,
    };
    Ok((header, blocks.ok_or(HeaderFault::Field("blocks"))?))
}

fn natural(field: Field<'_>) -> Option<u64> {
    field.value.integer().and_then(|number| u64::try_from(number).ok())
}

fn length(field: Field<'_>) -> Option<usize> {
    field.value.integer().and_then(|number| usize::try_from(number).ok())
}

/// An array of documents, in the order of the file; what its names are is not looked at.
fn list<T>(field: Field<'_>, read: fn(&[u8]) -> Option<T>) -> Option<Vec<T>> {
    fields(field.value.array()?).ok()?.map(|item| read(item.ok()?.value.document()?)).collect()
}

fn transaction(bytes: &[u8]) -> Option<OpenTransaction> {
    let (mut session, mut number, mut first, mut last, mut prepared) = (None, None, None, None, None);
    for field in fields(bytes).ok()? {
        let field = field.ok()?;
        match field.name {
            b"session" => session = Some(hex::encode(field.value.generic()?)),
            b"number" => number = field.value.integer(),
            b"first" => first = field.value.optime(),
            b"last" => last = field.value.optime(),
            b"prepared" => prepared = Some(field.value.timestamp()?),
            _ => {}
        }
    }
    Some(OpenTransaction { session: session?, number: number?, first: first?, last: last?, prepared })
}

fn block(bytes: &[u8]) -> Option<Block> {
    let (mut first, mut offset, mut stored, mut raw) = (None, None, None, None);
    for field in fields(bytes).ok()? {
        let field = field.ok()?;
        match field.name {
            b"first" => first = field.value.timestamp(),
            b"offset" => offset = natural(field),
            b"stored" => stored = length(field),
            b"raw" => raw = length(field),
            _ => {}
        }
    }
    Some(Block { first: first?, offset: offset?, stored: stored?, raw: raw? })
}
