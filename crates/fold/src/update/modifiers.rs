//! `{$v: 1, $set, $unset}`, as MongoDB wrote updates before 5.0.
//!
//! Fields that are there keep their place; new ones come after them in the order of their names, numbers by
//! their value, whatever the order in the entry (`update_object_node.cpp`, `cmpPathsAndArrayIndexes`). What a
//! path needs is made as documents, never as arrays. In arrays, what is unset becomes null, and so does what
//! lies before a new element.

use std::cmp::Ordering;

use super::out::{self, Out, digits};
use super::{Path, UpdateError, Wrong, text};
use stillpoint_oplog::document::{self as raw, ARRAY, DOCUMENT, NULL, Value};

/// The most elements that the server makes before a new one (`path_support.h`, `kMaxPaddingAllowed`).
pub(super) const MAX_PADDING: u64 = 1_500_000;

pub(super) fn apply(pre: &[u8], set: Option<&[u8]>, unset: Option<&[u8]>) -> Result<Vec<u8>, UpdateError> {
    let length = pre.len() + set.map_or(0, <[u8]>::len);
    let mut all = Vec::new();
    for (operator, paths) in [(true, set), (false, unset)] {
        let Some(paths) = paths else { continue };
        for field in Path::ROOT.in_update(raw::fields(paths))? {
            let field = Path::ROOT.in_update(field)?;
            let modifier = Modifier { path: field.name, value: operator.then_some(field.value) };
            // `$` and `$[…]` are for commands: in an entry there is an index.
            if modifier.parts().any(|Part(part)| part.is_empty() || part == b"$" || part.starts_with(b"$[")) {
                return Err(Path { parent: Some(&Path::ROOT), name: field.name, depth: 2 }.error(Wrong::Path));
            }
            all.push(modifier);
        }
    }
    all.sort_by(|left, right| left.parts().cmp(right.parts()));
    let mut out = Out::new(length);
    document(&mut out, pre, &all, &Path::ROOT)?;
    Ok(out.finish())
}

/// A path and what it is set to; nothing when it is unset.
struct Modifier<'a> {
    path: &'a [u8],
    value: Option<Value<'a>>,
}

impl<'a> Modifier<'a> {
    fn parts(&self) -> impl Iterator<Item = Part<'a>> {
        self.path.split(|byte| *byte == b'.').map(Part)
    }
}

/// A part of a path, in the server's order.
#[derive(PartialEq, Eq)]
struct Part<'a>(&'a [u8]);

impl Part<'_> {
    fn is_number(&self) -> bool {
        self.0.first().is_some_and(u8::is_ascii_digit) && (self.0[0] != b'0' || self.0.len() == 1)
    }
}

impl Ord for Part<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let numbers = self.is_number() && other.is_number();
        let length = if numbers { self.0.len().cmp(&other.0.len()) } else { Ordering::Equal };
        length.then_with(|| self.0.cmp(other.0))
    }
}

impl PartialOrd for Part<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The modifiers that share a part of their paths.
#[derive(Clone, Copy)]
struct Group<'a> {
    name: &'a [u8],
    modifiers: &'a [Modifier<'a>],
    /// How many parts of the paths lead to what has this name.
    depth: usize,
}

impl<'a> Group<'a> {
    /// The modifier of what has this name itself.
    fn leaf(self) -> Option<&'a Modifier<'a>> {
        self.modifiers.first().filter(|first| part(first.path, self.depth).is_none())
    }

    fn sets(self) -> bool {
        self.modifiers.iter().any(|modifier| modifier.value.is_some())
    }
}

fn part(path: &[u8], depth: usize) -> Option<&[u8]> {
    path.split(|byte| *byte == b'.').nth(depth)
}

/// Groups by the part of their paths at the depth of `path`, in the server's order.
fn groups<'a>(modifiers: &'a [Modifier<'a>], path: &Path<'_>) -> Result<Vec<Group<'a>>, UpdateError> {
    let depth = path.depth - 1;
    let mut groups = Vec::new();
    for modifiers in modifiers.chunk_by(|left, right| part(left.path, depth) == part(right.path, depth)) {
        let name = part(modifiers[0].path, depth).unwrap_or_default();
        let group = Group { name, modifiers, depth: depth + 1 };
        if group.leaf().is_some() && modifiers.len() > 1 {
            return Err(path.error(Wrong::Twice(text(name))));
        }
        groups.push(group);
    }
    Ok(groups)
}

fn document(out: &mut Out, pre: &[u8], modifiers: &[Modifier<'_>], path: &Path<'_>) -> Result<(), UpdateError> {
    let groups = groups(modifiers, path)?;
    let mut placed = vec![false; groups.len()];
    let begun = path.at(out.begin())?;
    for field in path.in_document(raw::fields(pre))? {
        let field = path.in_document(field)?;
        let at = groups.binary_search_by(|group| Part(group.name).cmp(&Part(field.name))).ok();
        // Of several fields of one name, the first is meant.
        match at.filter(|at| !placed[*at]) {
            None => path.at(out.push(field.whole))?,
            Some(at) => {
                placed[at] = true;
                existing(out, field.name, field.value, groups[at], false, &path.then(field.name)?)?;
            }
        }
    }
    for (group, _) in groups.iter().zip(placed).filter(|(_, placed)| !placed) {
        new(out, group.name, *group, path)?;
    }
    path.at(out.end(begun))
}

fn array(out: &mut Out, pre: &[u8], modifiers: &[Modifier<'_>], path: &Path<'_>) -> Result<(), UpdateError> {
    let mut elements = Vec::new();
    for group in groups(modifiers, path)? {
        match out::index(group.name) {
            Some(index) => elements.push((index, group)),
            // Nothing is there to be unset.
            None if !group.sets() && !group.name.iter().all(u8::is_ascii_digit) => {}
            None => return Err(path.error(Wrong::Index(text(group.name)))),
        }
    }
    let mut elements = elements.into_iter().peekable();
    let begun = path.at(out.begin())?;
    let mut length = 0;
    for field in path.in_document(raw::fields(pre))? {
        let field = path.in_document(field)?;
        // Whether 6.0 names them anew depends on the lengths of what is set.
        if field.name != digits(length, &mut [0; 20]) {
            return Err(path.error(Wrong::Misnamed(text(field.name))));
        }
        match elements.next_if(|(index, _)| *index == length) {
            None => path.at(out.push(field.whole))?,
            Some((_, group)) => existing(out, field.name, field.value, group, true, &path.then(field.name)?)?,
        }
        length += 1;
    }
    for (index, group) in elements.filter(|(_, group)| group.sets()) {
        if index.saturating_sub(length) > MAX_PADDING {
            return Err(path.then(group.name)?.error(Wrong::Padding));
        }
        while length < index {
            path.at(out.null(length))?;
            length += 1;
        }
        new(out, group.name, group, path)?;
        length += 1;
    }
    path.at(out.end(begun))
}

/// A field or element that is there.
fn existing(
    out: &mut Out,
    name: &[u8],
    pre: Value<'_>,
    group: Group<'_>,
    in_array: bool,
    path: &Path<'_>,
) -> Result<(), UpdateError> {
    let value = match group.leaf() {
        Some(leaf) => leaf.value.or(in_array.then_some(Value { tag: NULL, bytes: &[] })),
        None if pre.tag == DOCUMENT || pre.tag == ARRAY => {
            path.at(out.name(pre.tag, name))?;
            let change = if pre.tag == DOCUMENT { document } else { array };
            return change(out, pre.bytes, group.modifiers, path);
        }
        None if group.sets() => return Err(path.error(Wrong::NotViable(pre.kind()))),
        // Nothing is there to be unset.
        None => Some(pre),
    };
    value.map_or(Ok(()), |value| path.at(out.field(name, value)))
}

/// A field or element that is not there, with the documents that lead to what is set. What is unset needs none.
fn new(out: &mut Out, name: &[u8], group: Group<'_>, path: &Path<'_>) -> Result<(), UpdateError> {
    if !group.sets() {
        return Ok(());
    }
    let path = path.then(name)?;
    if let Some(value) = group.leaf().and_then(|leaf| leaf.value) {
        return path.at(out.field(name, value));
    }
    let begun = path.at(out.begin_document(name))?;
    for group in groups(group.modifiers, &path)? {
        new(out, group.name, group, &path)?;
    }
    path.at(out.end(begun))
}
