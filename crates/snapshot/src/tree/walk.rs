//! Walking over a tree's chunks in their order: all of them, or those that may hold keys of a range.

use super::{Node, Step, TreeError, check};
use crate::reference::{Layout, Reference, Root};

/// A walk over the chunks of a tree. It holds one node of each level at most.
pub struct Walk {
    layout: Layout,
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    /// What is still to come, the next at the end, each with its level; chunks have 0.
    ahead: Vec<(u8, Reference)>,
}

impl Walk {
    /// Over all chunks. An empty collection has no root.
    pub fn all(root: Option<&Root>) -> Walk {
        let layout = root.map_or(Layout::Sorted, |root| root.layout);
        let ahead = root.map(|root| (root.level, root.reference.clone()));
        Walk { layout, from: None, to: None, ahead: ahead.into_iter().collect() }
    }

    /// Over the chunks that may hold keys from `from` to `to`, both included. With keys that are alike in
    /// their first 256 bytes it may be some more. In a tree that is not sorted it is all.
    pub fn range(root: Option<&Root>, from: Option<&[u8]>, to: Option<&[u8]>) -> Walk {
        let mut walk = Walk::all(root);
        if walk.layout == Layout::Sorted {
            (walk.from, walk.to) = (from.map(<[u8]>::to_vec), to.map(<[u8]>::to_vec));
        }
        walk.ahead.retain(|(_, reference)| wanted(&walk.from, &walk.to, reference));
        walk
    }

    /// Over the chunks that may hold one key.
    pub fn lookup(root: Option<&Root>, key: &[u8]) -> Walk {
        Walk::range(root, Some(key), Some(key))
    }

    /// The next chunk, or the node that is needed before it; the same node again until it is given.
    pub fn step(&mut self) -> Step<Reference> {
        match self.ahead.pop() {
            None => Step::End,
            Some((0, reference)) => Step::Item(reference),
            Some((level, reference)) => {
                self.ahead.push((level, reference.clone()));
                Step::Need(reference)
            }
        }
    }

    /// The nodes that are to be read next, as far as they are known: what may be fetched ahead.
    pub fn upcoming(&self) -> impl Iterator<Item = &Reference> {
        self.ahead.iter().rev().filter(|(level, _)| *level > 0).map(|(_, reference)| reference)
    }

    /// Gives the node that was needed. After an error nothing has changed.
    pub fn give(&mut self, node: Node) -> Result<(), TreeError> {
        let Some((level, needed)) = self.ahead.last().filter(|(level, _)| *level > 0) else {
            return Err(TreeError::NotNeeded);
        };
        check(&node, needed, *level, self.layout)?;
        self.ahead.pop();
        let children = node.references.into_iter().rev().filter(|child| wanted(&self.from, &self.to, child));
        self.ahead.extend(children.map(|child| (node.level - 1, child)));
        Ok(())
    }
}

fn wanted(from: &Option<Vec<u8>>, to: &Option<Vec<u8>>, reference: &Reference) -> bool {
    from.as_deref().is_none_or(|from| reference.entry.last.can_be_at_or_after(from))
        && to.as_deref().is_none_or(|to| reference.entry.first.can_be_at_or_before(to))
}
