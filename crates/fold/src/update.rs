//! What an update entry of the oplog makes of a document: exact to the byte, the order of fields included.
//!
//! Three kinds of `o` are known:
//! - a replacement: it has an `_id`, or no field that begins with `$`. The server looks at `_id` first, since
//!   a replacement may hold a field `$v` of the user's (`write_ops.cpp`, `parseFromOplogEntry`);
//! - `{$v: 2, diff}`, as MongoDB 5.0 and later write it: see [`diff`];
//! - `{$v: 1, $set, $unset}`, `$v` optional, as they wrote it before: see [`modifiers`].
//!
//! A secondary forgives what re-applying entries out of place does: it turns a diff of a value that is no
//! document into null, say. The fold applies each entry once and in its place, so that whatever a primary could
//! not have meant proves a broken rule, and is an error here.

use bson::raw::{RawDocument, RawDocumentBuf};

use crate::key::Key;
use stillpoint_oplog::document::{self as raw, Malformed};

mod diff;
mod modifiers;
mod out;
#[cfg(test)]
mod tests;

/// The longest document that the server itself makes: 16 MiB, which a client's may have, and 16 KiB more for its
/// own use (`BSONObjMaxInternalSize`). This also bounds the memory that an update may take.
pub const MAX_LENGTH: usize = (16 << 20) + (16 << 10);

/// Why an update cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    #[error("the update cannot be applied: {0}")]
    Whole(Wrong),
    #[error("the update cannot be applied: at {path:?}, {wrong}")]
    At { path: String, wrong: Wrong },
}

/// What is wrong with an update, or with the document that it should change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("the document is {0}")]
    Document(Malformed),
    #[error("the update is {0}")]
    Update(Malformed),
    #[error("it is of a version, {0}, that this program does not know")]
    Version(String),
    #[error("it has a field {0:?} that this program does not know")]
    Unknown(String),
    #[error("its {0:?} is no document")]
    NoDocument(String),
    #[error("a diff is empty")]
    Empty,
    #[error("{0:?} is changed twice")]
    Twice(String),
    #[error("the diff is of {wanted}, but {found} is there")]
    Mismatch { wanted: &'static str, found: &'static str },
    #[error("the diff is of what is not there")]
    Missing,
    #[error("an array's diff does not begin with a: true")]
    Header,
    #[error("the new length of an array is none")]
    Length,
    #[error("{0:?} is no index that can be")]
    Index(String),
    #[error("an element of an array is named {0:?}, and not as its index is")]
    Misnamed(String),
    #[error("the indexes are not in order, or past the new length")]
    Order,
    #[error("a diff of binary data is not as it should be")]
    Binary,
    #[error("a path has an empty or positional part")]
    Path,
    #[error("a field would be made in {0}")]
    NotViable(&'static str),
    #[error("more than {max} elements would be made", max = modifiers::MAX_PADDING)]
    Padding,
    #[error("_id would be removed or another")]
    Id,
    #[error("it is nested more than {depth} levels deep", depth = crate::DEPTH)]
    TooDeep,
    #[error("the document would be longer than {MAX_LENGTH} bytes")]
    TooLong,
}

/// The document that `pre` becomes by `o`, the field of that name of an update entry.
pub fn apply(pre: &RawDocument, o: &RawDocument) -> Result<RawDocumentBuf, UpdateError> {
    let (pre, o) = (pre.as_bytes(), o.as_bytes());
    let post = match kind(o).map_err(UpdateError::Whole)? {
        Kind::Replacement { has_id } => replacement(pre, o, has_id).map_err(UpdateError::Whole)?,
        Kind::Diff(diff) => diff::apply(pre, diff)?,
        Kind::Modifiers { set, unset } => modifiers::apply(pre, set, unset)?,
    };
    same_id(pre, &post).map_err(UpdateError::Whole)?;
    let end = |_| UpdateError::Whole(Wrong::Document(Malformed { at: 0, what: "a length that is not the document's" }));
    RawDocumentBuf::from_bytes(post).map_err(end)
}

enum Kind<'a> {
    Replacement { has_id: bool },
    Diff(&'a [u8]),
    Modifiers { set: Option<&'a [u8]>, unset: Option<&'a [u8]> },
}

fn kind(o: &[u8]) -> Result<Kind<'_>, Wrong> {
    let (mut dollars, mut version) = (false, None);
    for field in raw::fields(o).map_err(Wrong::Update)? {
        let field = field.map_err(Wrong::Update)?;
        if field.name == b"_id" {
            return Ok(Kind::Replacement { has_id: true });
        }
        dollars |= field.name.starts_with(b"$");
        if field.name == b"$v" {
            version = Some(field.value);
        }
    }
    if !dollars {
        return Ok(Kind::Replacement { has_id: false });
    }
    match version.map(|version| version.whole_number().ok_or(version.kind())) {
        Some(Ok(2)) => sections(o, [b"diff", b""])?[0].map(Kind::Diff).ok_or(Wrong::NoDocument("diff".to_owned())),
        None | Some(Ok(1)) => {
            let [set, unset] = sections(o, [b"$set", b"$unset"])?;
            Ok(Kind::Modifiers { set, unset })
        }
        Some(Ok(other)) => Err(Wrong::Version(other.to_string())),
        Some(Err(other)) => Err(Wrong::Version(other.to_owned())),
    }
}

/// The documents of these names, when there is nothing else but `$v`.
fn sections<'a>(o: &'a [u8], names: [&[u8]; 2]) -> Result<[Option<&'a [u8]>; 2], Wrong> {
    let mut found = [None; 2];
    for field in raw::fields(o).map_err(Wrong::Update)? {
        let field = field.map_err(Wrong::Update)?;
        if field.name == b"$v" {
            continue;
        }
        let place = names.iter().position(|name| *name == field.name && !name.is_empty());
        let place = place.ok_or_else(|| Wrong::Unknown(text(field.name)))?;
        let document = field.value.document().ok_or_else(|| Wrong::NoDocument(text(field.name)))?;
        if found[place].replace(document).is_some() {
            return Err(Wrong::Twice(text(field.name)));
        }
    }
    Ok(found)
}

/// Without an `_id`, the document's own comes first (`object_replace_executor.cpp`).
fn replacement(pre: &[u8], o: &[u8], has_id: bool) -> Result<Vec<u8>, Wrong> {
    let mut out = out::Out::new(o.len());
    if has_id {
        out.push(o)?;
        return Ok(out.finish());
    }
    let begun = out.begin()?;
    if let Some(id) = raw::find(pre, b"_id").map_err(Wrong::Document)? {
        out.field(b"_id", id)?;
    }
    out.push(o.get(4..o.len() - 1).unwrap_or_default())?;
    out.end(begun)?;
    Ok(out.finish())
}

/// Neither may an update take `_id` away, nor make it another: but 1 may become 1.0.
fn same_id(pre: &[u8], post: &[u8]) -> Result<(), Wrong> {
    let Some(before) = raw::find(pre, b"_id").map_err(Wrong::Document)? else { return Ok(()) };
    match raw::find(post, b"_id").map_err(Wrong::Update)? {
        Some(after) if after == before => Ok(()),
        Some(after) => match (Key::of_value(before), Key::of_value(after)) {
            (Ok(before), Ok(after)) if before == after => Ok(()),
            _ => Err(Wrong::Id),
        },
        None => Err(Wrong::Id),
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Where in a document: a list on the stack, written out only when there is an error.
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    name: &'a [u8],
    depth: usize,
}

impl<'a> Path<'a> {
    const ROOT: Path<'static> = Path { parent: None, name: b"", depth: 1 };

    fn then(&'a self, name: &'a [u8]) -> Result<Path<'a>, UpdateError> {
        let depth = self.depth + 1;
        if depth > crate::DEPTH {
            return Err(self.error(Wrong::TooDeep));
        }
        Ok(Path { parent: Some(self), name, depth })
    }

    fn error(&self, wrong: Wrong) -> UpdateError {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = at.parent {
            names.push(text(at.name));
            at = parent;
        }
        if names.is_empty() {
            return UpdateError::Whole(wrong);
        }
        names.reverse();
        UpdateError::At { path: names.join("."), wrong }
    }

    /// Errors of a step at this place.
    fn at<T>(&self, step: Result<T, Wrong>) -> Result<T, UpdateError> {
        step.map_err(|wrong| self.error(wrong))
    }

    fn in_document<T>(&self, step: Result<T, Malformed>) -> Result<T, UpdateError> {
        self.at(step.map_err(Wrong::Document))
    }

    fn in_update<T>(&self, step: Result<T, Malformed>) -> Result<T, UpdateError> {
        self.at(step.map_err(Wrong::Update))
    }
}
