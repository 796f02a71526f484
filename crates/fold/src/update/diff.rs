//! `$v: 2` diffs.
//!
//! A document's diff has, in this order and each at most once, sections of fields to delete `d`, to update
//! `u`, to insert `i` and of binary data `b`, then a diff `s<field>` for each field changed inside. An array's
//! begins with `a: true` and may have a new length `l`, then in order of the indexes `u<index>` and `s<index>`.
//! The format and the order of fields are those of `document_diff_serialization.h` and
//! `document_diff_applier.cpp`, and were measured on 6.0; `b` is of 7.1 and later.

use super::out::{self, Out, digits};
use super::{Path, UpdateError, Wrong, text};
use stillpoint_oplog::document::{self as raw, ARRAY, BINARY, BOOLEAN, DOCUMENT, Field, INT32, Value};

pub(super) fn apply(pre: &[u8], diff: &[u8]) -> Result<Vec<u8>, UpdateError> {
    let mut out = Out::new(pre.len() + diff.len());
    document(&mut out, pre, diff, &Path::ROOT)?;
    Ok(out.finish())
}

/// What becomes of one field.
struct Change<'a> {
    name: &'a [u8],
    kind: Kind,
    value: Value<'a>,
    /// For an update: whether the field was there, and so has kept its place.
    placed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Delete,
    Update,
    Insert,
    Binary,
    Inside,
}

/// The changes of a document's fields.
struct Changes<'a> {
    /// As the diff has them, which is the order in which new fields are added.
    all: Vec<Change<'a>>,
    /// Where they are, by name.
    by_name: Vec<u32>,
}

impl<'a> Changes<'a> {
    fn read(diff: &'a [u8], path: &Path<'_>) -> Result<Self, UpdateError> {
        let mut all = Vec::new();
        let mut last = None;
        for section in path.in_update(raw::fields(diff))? {
            let section = path.in_update(section)?;
            let kind = match section.name {
                b"d" => Kind::Delete,
                b"u" => Kind::Update,
                b"i" => Kind::Insert,
                b"b" => Kind::Binary,
                [b's', ..] => Kind::Inside,
                _ => return Err(path.error(Wrong::Unknown(text(section.name)))),
            };
            if last.is_some_and(|last| kind < last || (kind == last && kind != Kind::Inside)) {
                return Err(path.error(Wrong::Unknown(text(section.name))));
            }
            last = Some(kind);
            let Some(document) = section.value.document() else {
                return Err(path.error(Wrong::NoDocument(text(section.name))));
            };
            if kind == Kind::Inside {
                all.push(Change { name: &section.name[1..], kind, value: section.value, placed: false });
                continue;
            }
            for field in path.in_update(raw::fields(document))? {
                let Field { name, value, .. } = path.in_update(field)?;
                all.push(Change { name, kind, value, placed: false });
            }
        }
        if last.is_none() {
            return Err(path.error(Wrong::Empty));
        }
        Self::sorted(all).map_err(|name| path.error(Wrong::Twice(text(name))))
    }

    fn sorted(all: Vec<Change<'a>>) -> Result<Self, &'a [u8]> {
        let mut by_name: Vec<u32> = (0..all.len() as u32).collect();
        by_name.sort_unstable_by_key(|at| all[*at as usize].name);
        let twice = by_name.windows(2).find(|pair| all[pair[0] as usize].name == all[pair[1] as usize].name);
        match twice {
            Some(pair) => Err(all[pair[0] as usize].name),
            None => Ok(Self { all, by_name }),
        }
    }

    fn of(&mut self, name: &[u8]) -> Option<&mut Change<'a>> {
        let at = self.by_name.binary_search_by_key(&name, |at| self.all[*at as usize].name).ok()?;
        self.all.get_mut(self.by_name[at] as usize)
    }
}

fn document(out: &mut Out, pre: &[u8], diff: &[u8], path: &Path<'_>) -> Result<(), UpdateError> {
    let mut changes = Changes::read(diff, path)?;
    let begun = path.at(out.begin())?;
    // Fields that stay as they are, one after the other, are copied as one.
    let (mut kept, mut at) = (4, 4);
    for field in path.in_document(raw::fields(pre))? {
        let field = path.in_document(field)?;
        let next = at + field.whole.len();
        if let Some(change) = changes.of(field.name) {
            path.at(out.push(&pre[kept..at]))?;
            kept = next;
            let path = path.then(field.name)?;
            // Of several fields of one name, each is changed.
            change.placed = true;
            match change.kind {
                Kind::Delete => {}
                // One that is there already goes to the end: so a pipeline may move it.
                Kind::Insert => {}
                Kind::Update => path.at(out.field(field.name, change.value))?,
                Kind::Binary => binary(out, field, change.value.document(), &path)?,
                Kind::Inside => inside(out, field.name, field.value, change.value.bytes, &path)?,
            }
        }
        at = next;
    }
    path.at(out.push(&pre[kept..at]))?;
    for change in &changes.all {
        match change.kind {
            Kind::Insert => path.at(out.field(change.name, change.value))?,
            Kind::Update if !change.placed => path.at(out.field(change.name, change.value))?,
            Kind::Binary | Kind::Inside if !change.placed => {
                return Err(path.then(change.name)?.error(Wrong::Missing));
            }
            _ => {}
        }
    }
    path.at(out.end(begun))
}

/// A change inside a document or array that is there.
fn inside(out: &mut Out, name: &[u8], pre: Value<'_>, diff: &[u8], path: &Path<'_>) -> Result<(), UpdateError> {
    let first = path.in_update(path.in_update(raw::fields(diff))?.next().transpose())?;
    let wanted = match first {
        None => return Err(path.error(Wrong::Empty)),
        Some(field) if field.name == b"a" => ARRAY,
        Some(_) => DOCUMENT,
    };
    if pre.tag != wanted {
        let wanted = if wanted == ARRAY { "an array" } else { "a document" };
        return Err(path.error(Wrong::Mismatch { wanted, found: pre.kind() }));
    }
    path.at(out.name(wanted, name))?;
    if wanted == ARRAY { array(out, pre.bytes, diff, path) } else { document(out, pre.bytes, diff, path) }
}

/// What becomes of one element.
struct Element<'a> {
    index: u64,
    inside: bool,
    value: Value<'a>,
}

/// An array's diff.
struct Elements<'a> {
    fields: raw::Fields<'a>,
    length: Option<u64>,
    next: Option<Element<'a>>,
}

impl<'a> Elements<'a> {
    fn read(diff: &'a [u8], path: &Path<'_>) -> Result<Self, UpdateError> {
        let mut fields = path.in_update(raw::fields(diff))?;
        let header = path.in_update(fields.next().transpose())?;
        if !header.is_some_and(|header| header.value == Value { tag: BOOLEAN, bytes: &[1] }) {
            return Err(path.error(Wrong::Header));
        }
        let mut elements = Self { fields, length: None, next: None };
        let mut ahead = elements.fields.clone();
        if let Some(field) = path.in_update(ahead.next().transpose())?.filter(|field| field.name == b"l") {
            let length = field.value.integer().filter(|_| field.value.tag == INT32);
            let length = length.and_then(|length| u64::try_from(length).ok());
            elements.length = Some(length.ok_or_else(|| path.error(Wrong::Length))?);
            elements.fields = ahead;
        }
        elements.advance(None, path)?;
        Ok(elements)
    }

    /// The change of this element, if there is one. The indexes must be asked for in order.
    fn of(&mut self, index: u64, path: &Path<'_>) -> Result<Option<Element<'a>>, UpdateError> {
        match self.next.take_if(|next| next.index == index) {
            Some(element) => {
                self.advance(Some(index), path)?;
                Ok(Some(element))
            }
            None => Ok(None),
        }
    }

    fn advance(&mut self, last: Option<u64>, path: &Path<'_>) -> Result<(), UpdateError> {
        let Some(field) = path.in_update(self.fields.next().transpose())? else { return Ok(()) };
        let (inside, name) = match field.name {
            [b'u', name @ ..] => (false, name),
            [b's', name @ ..] => (true, name),
            _ => return Err(path.error(Wrong::Unknown(text(field.name)))),
        };
        let index = out::index(name).ok_or_else(|| path.error(Wrong::Index(text(name))))?;
        if last.is_some_and(|last| last >= index) || self.length.is_some_and(|length| length <= index) {
            return Err(path.error(Wrong::Order));
        }
        if inside && field.value.document().is_none() {
            return Err(path.error(Wrong::NoDocument(text(field.name))));
        }
        self.next = Some(Element { index, inside, value: field.value });
        Ok(())
    }
}

fn array(out: &mut Out, pre: &[u8], diff: &[u8], path: &Path<'_>) -> Result<(), UpdateError> {
    let mut elements = Elements::read(diff, path)?;
    let begun = path.at(out.begin())?;
    let mut index = 0;
    for field in path.in_document(raw::fields(pre))? {
        let field = path.in_document(field)?;
        if elements.length.is_some_and(|length| length <= index) {
            break;
        }
        let mut name = [0; 20];
        let name = digits(index, &mut name);
        match elements.of(index, path)? {
            // Elements that were misnamed are named as they should be.
            None if field.name == name => path.at(out.push(field.whole))?,
            None => path.at(out.field(name, field.value))?,
            Some(Element { inside: false, value, .. }) => path.at(out.field(name, value))?,
            Some(Element { value, .. }) => inside(out, name, field.value, value.bytes, &path.then(name)?)?,
        }
        index += 1;
    }
    // Past the old end: what is not in the diff becomes null.
    while elements.next.is_some() || elements.length.is_some_and(|length| index < length) {
        match elements.of(index, path)? {
            None => path.at(out.null(index))?,
            Some(Element { inside: false, value, .. }) => path.at(out.element(index, value))?,
            Some(_) => return Err(path.then(digits(index, &mut [0; 20]))?.error(Wrong::Missing)),
        }
        index += 1;
    }
    path.at(out.end(begun))
}

/// `{o: offset, d: data}`: the binary data up to the offset stays, and the rest becomes `d`; its subtype stays.
/// Time-series buckets are written so (`timeseries_write_util.cpp`, `makeBSONColumnDocDiff`).
fn binary(out: &mut Out, pre: Field<'_>, diff: Option<&[u8]>, path: &Path<'_>) -> Result<(), UpdateError> {
    let (mut offset, mut data) = (None, None);
    let diff = diff.ok_or_else(|| path.error(Wrong::Binary))?;
    for field in path.in_update(raw::fields(diff))? {
        let field = path.in_update(field)?;
        match field.name {
            b"o" if offset.is_none() => offset = field.value.whole_number(),
            b"d" if data.is_none() => data = field.value.binary(),
            _ => return Err(path.error(Wrong::Unknown(text(field.name)))),
        }
    }
    let (Some(offset), Some((0, data))) = (offset, data) else { return Err(path.error(Wrong::Binary)) };
    // The bytes of subtype 2 have a length of their own.
    let Some((subtype, before)) = pre.value.binary().filter(|(subtype, _)| *subtype != 2) else {
        return Err(path.error(Wrong::Mismatch { wanted: "binary data", found: pre.value.kind() }));
    };
    let kept = usize::try_from(offset).ok().and_then(|offset| before.get(..offset));
    let kept = kept.ok_or_else(|| path.error(Wrong::Binary))?;
    path.at(out.name(BINARY, pre.name))?;
    let length = (kept.len() + data.len()) as u32;
    for part in [&length.to_le_bytes()[..], &[subtype], kept, data] {
        path.at(out.push(part))?;
    }
    Ok(())
}
