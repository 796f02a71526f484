//! The nodes that name a collection's chunks: built, walked, compared.
//!
//! What reads is a machine that says which node it needs: the caller's reads are async, and it alone knows
//! how to fetch, keep and await them. A closure would have to be async in the same way, or block.

mod build;
mod diff;
mod node;
mod walk;

pub use build::TreeBuilder;
pub(crate) use build::{Built, Spot};
pub use diff::{Diff, Side};
pub(crate) use node::{Encoder, HERE};
pub use node::{Node, NodeError};
pub use walk::Walk;

use crate::reference::{ContentId, Layout, Reference};

/// The most references in a node.
pub const MAX_CHILDREN: usize = 1024;

/// The fewest, but for the last node of a level: so each level has an eighth of the nodes of the one below.
pub const MIN_CHILDREN: usize = 8;

/// A node ends after one in 2⁶ references.
pub(crate) const NODE_BITS: u32 = 6;

/// The highest level: 8¹⁵ chunks.
pub const MAX_LEVEL: u8 = 15;

/// What a machine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<T> {
    /// It goes on when it is given this node.
    Need(Reference),
    Item(T),
    End,
}

/// A node that is not the one that was referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error("no node was needed")]
    NotNeeded,
    #[error("node {given} was given for node {needed}")]
    Other { given: ContentId, needed: ContentId },
    #[error("node {node} is not as its parent says: {what}")]
    Contradiction { node: ContentId, what: &'static str },
    #[error("the two trees are kept in different orders, or in the order of insertion: only sorted ones compare")]
    Incomparable,
}

/// Whether a node is the one that is referred to.
fn check(node: &Node, needed: &Reference, level: u8, layout: Layout) -> Result<(), TreeError> {
    let entry = &needed.entry;
    if node.id != entry.id {
        return Err(TreeError::Other { given: node.id, needed: entry.id });
    }
    let ends = (node.references.first(), node.references.last());
    let rules = [
        (node.level == level, "its level"),
        (node.layout == layout, "its layout"),
        (node.digest() == entry.digest, "its digest"),
        (ends.0.is_some_and(|first| first.entry.first == entry.first), "its first key"),
        (ends.1.is_some_and(|last| last.entry.last == entry.last), "its last key"),
    ];
    let broken = rules.into_iter().find(|(holds, _)| !holds);
    broken.map_or(Ok(()), |(_, what)| Err(TreeError::Contradiction { node: node.id, what }))
}
