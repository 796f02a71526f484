//! Chunks and nodes into packs.
//!
//! A node says in which packs its children are, and a pack's id is known only when the vault has it, since
//! an encrypted vault makes it with a key. So nodes wait until the packs of their children are stored, and
//! only then get their places; their ids do not depend on them. Chunks do not wait for nodes: nodes have
//! packs of their own, so that walking a tree reads no chunks. Only what is left at the end shares a pack.

use std::collections::{HashMap, VecDeque};
use std::io;

use stillpoint_core::stream::BlobId;

use crate::pack::PackWriter;
use crate::reference::{ContentId, Entry, Layout, Place, Reference, Root};
use crate::tree::{Built, Encoder, Spot};
use crate::{Chunk, TreeBuilder};

/// The level of compression. Of synthetic documents of 520 bytes, in chunks of 140 KiB, with all hashes made,
/// level 1 makes 28.0 % at 177 MB/s, level 3 25.9 % at 141 MB/s, level 5 25.4 % at 62 MB/s. `gzip -6` makes
/// 24.1 % of them in one piece, at a fifth of zstd's speed at level 3.
pub const DEFAULT_LEVEL: i32 = 3;

/// The length from which on a pack is full.
pub const DEFAULT_PACK: usize = 8 << 20;

/// What a writer wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This is to be stored, and its id told with [`Writer::stored`].
    Store(Sealed),
    /// It goes on when it is given more, or told an id; when it is finishing, only when it is told one.
    Idle,
    /// All is stored, and the roots are known.
    Done,
}

/// A pack that is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub number: u64,
    pub bytes: Vec<u8>,
}

/// Why packs cannot be written. The writer is of no more use then.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("zstd does not take level {level}: {why}")]
    Level { level: i32, why: io::Error },
    #[error("{id} was not put into a pack: {why}")]
    Compress { id: ContentId, why: io::Error },
}

/// The root of a tree that was ended, for [`Writer::root`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    layout: Layout,
    level: u8,
    entry: Entry,
    spot: Spot,
}

/// Packs that are filling up. Many trees may be built with one writer, one after the other or at once.
///
/// It holds two packs, what is sealed and not yet taken, and the nodes whose children are in packs of
/// which the ids are not yet told.
pub struct Writer {
    chunks: Filling,
    nodes: Filling,
    pack_bytes: usize,
    packs: u64,
    sealed: VecDeque<Sealed>,
    /// The packs whose ids are not yet told.
    untold: u64,
    told: HashMap<u64, BlobId>,
    /// Of what no node that was placed refers to: the number of its pack, and its length in it.
    spots: HashMap<u64, (u64, u32)>,
    next_spot: u64,
    /// Children before their parents.
    waiting: VecDeque<(u64, Built)>,
    finishing: bool,
}

struct Filling {
    pack: PackWriter,
    number: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chunks,
    Nodes,
}

impl Writer {
    /// `level` is zstd's; packs end at `pack_bytes`.
    pub fn new(level: i32, pack_bytes: usize) -> Result<Writer, WriteError> {
        let pack = || PackWriter::new(level).map_err(|why| WriteError::Level { level, why });
        Ok(Writer {
            chunks: Filling { pack: pack()?, number: 0 },
            nodes: Filling { pack: pack()?, number: 1 },
            pack_bytes,
            packs: 2,
            sealed: VecDeque::new(),
            untold: 0,
            told: HashMap::new(),
            spots: HashMap::new(),
            next_spot: 0,
            waiting: VecDeque::new(),
            finishing: false,
        })
    }

    /// Stores a chunk, and adds it to a tree.
    pub fn add(&mut self, tree: &mut TreeBuilder, chunk: &Chunk<'_>) -> Result<(), WriteError> {
        let id = chunk.entry.id;
        let at = self.put(Kind::Chunks, id, chunk.documents.len(), chunk.documents)?;
        let spot = self.new_spot();
        self.spots.insert(spot, at);
        tree.push(chunk.entry.clone(), Spot::New(spot), &mut |built| self.node(built));
        if self.is_full(Kind::Chunks) {
            self.seal(Kind::Chunks);
        }
        Ok(())
    }

    /// Adds a chunk of an earlier snapshot to a tree, where it is.
    pub fn keep(&mut self, tree: &mut TreeBuilder, chunk: &Reference) {
        tree.push(chunk.entry.clone(), Spot::Old(chunk.place), &mut |built| self.node(built));
    }

    /// Ends a tree; None if it has no chunks.
    pub fn end(&mut self, tree: TreeBuilder) -> Option<Unplaced> {
        let layout = tree.layout();
        let (level, entry, spot) = tree.end(&mut |built| self.node(built))?;
        Some(Unplaced { layout, level, entry, spot })
    }

    /// All trees are ended: what is not full is to be stored, too.
    pub fn finish(&mut self) {
        self.finishing = true;
    }

    /// Tells the id of a pack.
    pub fn stored(&mut self, number: u64, pack: BlobId) -> Result<(), WriteError> {
        if self.told.insert(number, pack).is_none() {
            self.untold = self.untold.saturating_sub(1);
        }
        if self.finishing { Ok(()) } else { self.place(Kind::Nodes) }
    }

    /// What is to be done now. Of packs that are to be stored many may be under way at once.
    pub fn advance(&mut self) -> Result<Next, WriteError> {
        if self.finishing && self.sealed.is_empty() && self.untold == 0 {
            self.end_packs()?;
        }
        match self.sealed.pop_front() {
            Some(sealed) => Ok(Next::Store(sealed)),
            None if self.finishing && self.untold == 0 => Ok(Next::Done),
            None => Ok(Next::Idle),
        }
    }

    /// The root of a tree, once the writer is done.
    pub fn root(&self, tree: &Unplaced) -> Option<Root> {
        let place = match tree.spot {
            Spot::Old(place) => place,
            Spot::New(spot) => {
                let (number, stored) = *self.spots.get(&spot)?;
                Place { pack: *self.told.get(&number)?, stored }
            }
        };
        let reference = Reference { entry: tree.entry.clone(), place };
        Some(Root { layout: tree.layout, level: tree.level, reference })
    }

    /// Seals what is left, when every id so far is told.
    fn end_packs(&mut self) -> Result<(), WriteError> {
        if self.nodes.pack.is_empty() {
            // Into the pack of the last chunks: a small part has no other.
            self.place(Kind::Chunks)?;
        }
        self.seal(Kind::Chunks);
        if self.untold == 0 {
            self.place(Kind::Nodes)?;
            self.seal(Kind::Nodes);
        }
        Ok(())
    }

    fn node(&mut self, built: Built) -> Spot {
        let spot = self.new_spot();
        self.waiting.push_back((spot, built));
        Spot::New(spot)
    }

    fn new_spot(&mut self) -> u64 {
        self.next_spot += 1;
        self.next_spot
    }

    /// Into the pack that is filling up; gives the pack's number, and the length in it.
    fn put(&mut self, kind: Kind, id: ContentId, content: usize, bytes: &[u8]) -> Result<(u64, u32), WriteError> {
        let filling = self.filling(kind);
        let stored = filling.pack.add(id, content, bytes).map_err(|why| WriteError::Compress { id, why })?;
        Ok((filling.number, stored))
    }

    /// Gives places to the nodes that wait, as far as those of their children are known.
    fn place(&mut self, kind: Kind) -> Result<(), WriteError> {
        loop {
            if self.is_full(kind) {
                self.seal(kind);
            }
            let number = self.filling(kind).number;
            let Some((_, built)) = self.waiting.front() else { return Ok(()) };
            let places = built.children.iter().map(|child| self.resolve(*child, number));
            let Some(places) = places.collect::<Option<Vec<_>>>() else { return Ok(()) };
            let Some((spot, built)) = self.waiting.pop_front() else { return Ok(()) };
            let mut bytes = built.content;
            let content = bytes.len();
            places.into_iter().for_each(|(pack, stored)| Encoder::place(&mut bytes, pack, stored));
            let at = self.put(kind, built.id, content, &bytes)?;
            for child in built.children {
                if let Spot::New(child) = child {
                    self.spots.remove(&child);
                }
            }
            self.spots.insert(spot, at);
        }
    }

    /// Where a child is for a node in pack `number`; no pack for this one.
    fn resolve(&self, child: Spot, number: u64) -> Option<(Option<BlobId>, u32)> {
        match child {
            Spot::Old(place) => Some((Some(place.pack), place.stored)),
            Spot::New(spot) => {
                let (pack, stored) = *self.spots.get(&spot)?;
                if pack == number { Some((None, stored)) } else { Some((Some(*self.told.get(&pack)?), stored)) }
            }
        }
    }

    fn filling(&mut self, kind: Kind) -> &mut Filling {
        match kind {
            Kind::Chunks => &mut self.chunks,
            Kind::Nodes => &mut self.nodes,
        }
    }

    fn is_full(&mut self, kind: Kind) -> bool {
        let most = self.pack_bytes;
        let pack = &self.filling(kind).pack;
        !pack.is_empty() && (pack.stored_bytes() >= most || pack.is_full())
    }

    fn seal(&mut self, kind: Kind) {
        let next = self.packs;
        let filling = self.filling(kind);
        if filling.pack.is_empty() {
            return;
        }
        let bytes = filling.pack.seal();
        let number = std::mem::replace(&mut filling.number, next);
        self.packs += 1;
        self.untold += 1;
        self.sealed.push_back(Sealed { number, bytes });
    }
}
