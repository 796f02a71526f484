//! Building a tree, from its chunks in their order.

use std::collections::HashMap;

use super::{Encoder, MAX_CHILDREN, MIN_CHILDREN, NODE_BITS, Node};
use crate::Digest;
use crate::reference::{ContentId, Entry, Layout, Place, Reference};

/// A node that is full.
pub(crate) struct Built {
    pub id: ContentId,
    pub content: Vec<u8>,
    pub children: Vec<Spot>,
}

/// Where a child is, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Spot {
    /// In a pack of an earlier snapshot.
    Old(Place),
    /// In a pack of this one: its number among what the writer was given.
    New(u64),
}

/// The nodes that are filling up, one of each level.
pub struct TreeBuilder {
    layout: Layout,
    levels: Vec<Level>,
    /// Nodes of an earlier snapshot, and where they are.
    known: HashMap<ContentId, ([u8; 32], Place)>,
}

#[derive(Default)]
struct Level {
    children: Vec<(Entry, Spot)>,
    /// How many nodes it has given to the next level.
    ended: u64,
}

impl TreeBuilder {
    pub fn new(layout: Layout) -> TreeBuilder {
        TreeBuilder { layout, levels: Vec::new(), known: HashMap::new() }
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Tells of a node of an earlier snapshot. If the new tree has the same one, with its children in the
    /// same packs, it is not stored again. It takes about 150 bytes of memory for each.
    pub fn know(&mut self, node: &Node, reference: &Reference) {
        let places = node.references.iter().map(|child| child.place);
        self.known.insert(node.id, (places_hash(places), reference.place));
    }

    /// Adds what comes next. `store` is given every node that is full and new.
    pub(crate) fn push(&mut self, entry: Entry, spot: Spot, store: &mut impl FnMut(Built) -> Spot) {
        let mut next = (entry, spot);
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Level::default());
            }
            let children = &mut self.levels[level].children;
            let ends = boundary(next.0.id);
            children.push(next);
            if !(children.len() >= MAX_CHILDREN || ends && children.len() >= MIN_CHILDREN) {
                break;
            }
            next = self.end_node(level, store);
        }
    }

    /// Ends the tree; gives the level of its root and the root. None if nothing was pushed.
    pub(crate) fn end(mut self, store: &mut impl FnMut(Built) -> Spot) -> Option<(u8, Entry, Spot)> {
        let mut level = 0;
        while level < self.levels.len() {
            let Level { children, ended } = &self.levels[level];
            // The only node of the level below.
            if level > 0 && *ended == 0 && children.len() == 1 {
                let (entry, spot) = self.levels[level].children.remove(0);
                return Some((level as u8, entry, spot));
            }
            if !children.is_empty() {
                let next = self.end_node(level, store);
                if self.levels.len() == level + 1 {
                    self.levels.push(Level::default());
                }
                self.levels[level + 1].children.push(next);
            }
            level += 1;
        }
        None
    }

    fn end_node(&mut self, level: usize, store: &mut impl FnMut(Built) -> Spot) -> (Entry, Spot) {
        let Level { children, ended } = &mut self.levels[level];
        *ended += 1;
        let children = std::mem::take(children);
        let entries = children.iter().map(|(entry, _)| entry);
        // Each level is an eighth of the one below, so level 15 is never reached.
        let content = Encoder::content(self.layout, level as u8 + 1, entries.clone());
        let id = ContentId::of(&content);
        let digest: Digest = entries.map(|entry| entry.digest).sum();
        let first = children[0].0.first.clone();
        let last = children[children.len() - 1].0.last.clone();
        let children: Vec<Spot> = children.into_iter().map(|(_, spot)| spot).collect();
        let spot = match self.known(id, &children) {
            Some(place) => Spot::Old(place),
            None => store(Built { id, content, children }),
        };
        (Entry { id, first, last, digest }, spot)
    }

    fn known(&self, id: ContentId, children: &[Spot]) -> Option<Place> {
        let (hash, place) = self.known.get(&id)?;
        let old: Option<Vec<Place>> = children
            .iter()
            .map(|spot| match spot {
                Spot::Old(place) => Some(*place),
                Spot::New(_) => None,
            })
            .collect();
        (places_hash(old?.into_iter()) == *hash).then_some(*place)
    }
}

/// Whether a node ends after the child with this id, which is a hash already.
fn boundary(id: ContentId) -> bool {
    id.0.first_chunk().is_some_and(|bytes| u32::from_le_bytes(*bytes).trailing_zeros() >= NODE_BITS)
}

fn places_hash(places: impl Iterator<Item = Place>) -> [u8; 32] {
    let mut bytes = Vec::new();
    places.for_each(|place| Encoder::place(&mut bytes, Some(place.pack), place.stored));
    *blake3::hash(&bytes).as_bytes()
}
