//! What differs between two trees, without reading what does not.

use std::cmp::Ordering;

use super::{Node, Step, TreeError, check};
use crate::reference::{Layout, Reference, Root};

/// Of which tree something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Left,
    Right,
}

/// A walk over the chunks that are in one of two sorted trees only, in the order of their first keys. It
/// holds one node of each level of each tree at most.
///
/// Of chunks whose keys are alike in their first 256 bytes some that are in both may come, once from
/// either side.
pub struct Diff {
    left: Vec<(u8, Reference)>,
    right: Vec<(u8, Reference)>,
    needed: Option<Side>,
}

impl Diff {
    pub fn new(left: Option<&Root>, right: Option<&Root>) -> Result<Diff, TreeError> {
        if [left, right].into_iter().flatten().any(|root| root.layout != Layout::Sorted) {
            return Err(TreeError::Incomparable);
        }
        let ahead = |root: Option<&Root>| root.map(|root| (root.level, root.reference.clone())).into_iter().collect();
        Ok(Diff { left: ahead(left), right: ahead(right), needed: None })
    }

    /// The next chunk that differs, or the node that is needed before it.
    pub fn step(&mut self) -> Step<(Side, Reference)> {
        let side = loop {
            if let Some(side) = self.needed {
                break side;
            }
            match (self.left.last(), self.right.last()) {
                (None, None) => return Step::End,
                (Some(_), None) => break Side::Left,
                (None, Some(_)) => break Side::Right,
                (Some((left_level, left)), Some((right_level, right))) => {
                    if left_level == right_level && left.entry.id == right.entry.id {
                        self.left.pop();
                        self.right.pop();
                        continue;
                    }
                    break next((*left_level, left), (*right_level, right));
                }
            }
        };
        let ahead = self.ahead(side);
        match ahead.pop() {
            None => Step::End,
            Some((0, reference)) => Step::Item((side, reference)),
            Some((level, reference)) => {
                ahead.push((level, reference.clone()));
                self.needed = Some(side);
                Step::Need(reference)
            }
        }
    }

    /// Gives the node that was needed. After an error nothing has changed.
    pub fn give(&mut self, node: Node) -> Result<(), TreeError> {
        let side = self.needed.ok_or(TreeError::NotNeeded)?;
        let ahead = self.ahead(side);
        let Some((level, needed)) = ahead.last() else { return Err(TreeError::NotNeeded) };
        check(&node, needed, *level, Layout::Sorted)?;
        ahead.pop();
        ahead.extend(node.references.into_iter().rev().map(|child| (node.level - 1, child)));
        self.needed = None;
        Ok(())
    }

    fn ahead(&mut self, side: Side) -> &mut Vec<(u8, Reference)> {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }
}

/// Which of two that differ to take first: what lies before the other has nothing in common with it, nor
/// with what follows it; of two that overlap a node must be opened, the higher one.
fn next((left_level, left): (u8, &Reference), (right_level, right): (u8, &Reference)) -> Side {
    if left.entry.last < right.entry.first {
        return Side::Left;
    }
    if right.entry.last < left.entry.first {
        return Side::Right;
    }
    match left_level.cmp(&right_level) {
        Ordering::Greater => Side::Left,
        Ordering::Less => Side::Right,
        Ordering::Equal if left.entry.first <= right.entry.first => Side::Left,
        Ordering::Equal => Side::Right,
    }
}
