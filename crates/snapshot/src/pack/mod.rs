//! The file in which chunks and nodes are kept, many in one: a small collection is no small object.

mod read;
mod write;

pub use read::{Item, Limits, PackError, PackReader, Unpacker};
pub use write::PackWriter;

use stillpoint_core::ClusterId;
use stillpoint_core::checkpoint::PartId;

use crate::cut::MAX_CHUNK;
use crate::manifest::SNAPSHOTS;

/// The blob's name of a pack, without its id. All packs of a part have the same, since a reference has an
/// id only.
pub fn place(cluster: ClusterId, part: &PartId) -> String {
    format!("{SNAPSHOTS}/{cluster}/{}/pack", part.key())
}

/// What a pack begins with.
pub(crate) const MAGIC: [u8; 8] = *b"stillpck";

/// The version that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// The magic bytes, the version, the number of items.
pub(crate) const PRELUDE: usize = 16;

/// The length of a line of the index.
pub(crate) const LINE: usize = 44;

/// The most items.
pub const MAX_ITEMS: usize = 16_384;

/// The longest item before compression.
pub const MAX_ITEM: usize = MAX_CHUNK;

/// What a zstd frame begins with (RFC 8878).
pub(crate) const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
