//! The order of `_id`s: as bytes that compare like the values.
//!
//! Two values have the same bytes exactly when MongoDB's unique index takes them as equal: 1, 1.0 and
//! Decimal128 1.00 are, alone or nested in documents. Otherwise the bytes are in the order of MongoDB's
//! comparison without a collation. The order of types and what counts in each is as in `bsonelement.cpp`
//! (`compareElements`) and `key_string.cpp`, and measured on 6.0. A collection with a collation has another
//! order, and another equality, of strings; this one is still an order of it in which no two `_id`s are equal.

use std::fmt;

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};

use stillpoint_oplog::document::{self as raw, Malformed, Value};

pub(crate) mod number;
#[cfg(test)]
mod tests;

/// The version of these bytes: they are stored, and what is stored says which they are.
pub const VERSION: u32 = 1;

/// An `_id`, as bytes whose order is MongoDB's. No key is the beginning of another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<[u8]>);

/// Why a value has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("an _id is {0}")]
    Malformed(#[from] Malformed),
    #[error("an _id is nested more than {depth} levels deep", depth = crate::DEPTH)]
    TooDeep,
    #[error("a document has no _id")]
    None,
}

impl Key {
    /// The key of a document: that of its `_id`.
    pub fn of_document(document: &RawDocument) -> Result<Self, KeyError> {
        Self::of_value(raw::find(document.as_bytes(), b"_id")?.ok_or(KeyError::None)?)
    }

    /// The key of an `_id`.
    pub fn of(id: RawBsonRef<'_>) -> Result<Self, KeyError> {
        let mut document = RawDocumentBuf::new();
        document.append(bson::raw::cstr!("_id"), id);
        Self::of_document(&document)
    }

    pub(crate) fn of_value(id: Value<'_>) -> Result<Self, KeyError> {
        let mut key = Vec::with_capacity(id.bytes.len() + 16);
        append(&mut key, id)?;
        Ok(Self(key.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Writes a value after others: several in a row are in the order of the first, then of the second, and so on.
pub(crate) fn append(key: &mut Vec<u8>, one: Value<'_>) -> Result<(), KeyError> {
    key.push(rank(one)?);
    value(key, one, 1)
}

/// After the last field of a document: before every rank.
const END: u8 = 0;

/// The order of types. Types of one rank are compared with each other.
fn rank(value: Value<'_>) -> Result<u8, Malformed> {
    Ok(match value.tag {
        raw::MIN_KEY => 1,
        raw::UNDEFINED => 2,
        raw::NULL => 3,
        raw::DOUBLE | raw::INT32 | raw::INT64 | raw::DECIMAL128 => 4,
        raw::STRING | raw::SYMBOL => 5,
        raw::DOCUMENT => 6,
        raw::ARRAY => 7,
        raw::BINARY => 8,
        raw::OBJECT_ID => 9,
        raw::BOOLEAN => 10,
        raw::DATE => 11,
        raw::TIMESTAMP => 12,
        raw::REGEX => 13,
        raw::DB_POINTER => 14,
        raw::CODE => 15,
        raw::CODE_WITH_SCOPE => 16,
        raw::MAX_KEY => 17,
        _ => return Err(Malformed { at: 0, what: "a value of no known type" }),
    })
}

/// What comes after the rank. `depth` is that of the document that the value is in.
fn value(key: &mut Vec<u8>, value: Value<'_>, depth: usize) -> Result<(), KeyError> {
    let Value { tag, bytes } = value;
    match tag {
        raw::DOUBLE => number::double(key, f64::from_le_bytes(fixed(bytes)?)),
        raw::INT32 => number::integer(key, i32::from_le_bytes(fixed(bytes)?).into()),
        raw::INT64 => number::integer(key, i64::from_le_bytes(fixed(bytes)?)),
        raw::DECIMAL128 => number::decimal(key, u128::from_le_bytes(fixed(bytes)?)),
        raw::STRING | raw::SYMBOL | raw::CODE => string(key, text(bytes)?),
        raw::DOCUMENT => fields(key, bytes, depth + 1, true)?,
        raw::ARRAY => fields(key, bytes, depth + 1, false)?,
        // Length, subtype, bytes: their order here, not there.
        raw::BINARY => {
            let (subtype, bytes) = value.binary().ok_or(CUT)?;
            key.extend((bytes.len() as u32).to_be_bytes());
            key.push(subtype);
            key.extend(bytes);
        }
        raw::OBJECT_ID => key.extend(bytes),
        raw::BOOLEAN => key.push(u8::from(bytes != [0])),
        raw::DATE => key.extend((i64::from_le_bytes(fixed(bytes)?) ^ i64::MIN).to_be_bytes()),
        raw::TIMESTAMP => key.extend(u64::from_le_bytes(fixed(bytes)?).to_be_bytes()),
        // The pattern and the flags, each ended by a zero already.
        raw::REGEX => key.extend(bytes),
        raw::DB_POINTER => {
            let (name, id) = bytes.split_at_checked(bytes.len().wrapping_sub(12)).ok_or(CUT)?;
            let name = text(name)?;
            key.extend((name.len() as u32).to_be_bytes());
            key.extend(name);
            key.extend(id);
        }
        raw::CODE_WITH_SCOPE => {
            let (code, scope) = code_and_scope(bytes)?;
            string(key, text(code)?);
            fields(key, scope, depth + 1, true)?;
        }
        _ => {}
    }
    Ok(())
}

/// The type of each field counts first, then its name, then its value; then whether there are more. Of an
/// array's elements the names do not count: a unique index does not look at them.
fn fields(key: &mut Vec<u8>, bytes: &[u8], depth: usize, named: bool) -> Result<(), KeyError> {
    if depth > crate::DEPTH {
        return Err(KeyError::TooDeep);
    }
    for field in raw::fields(bytes)? {
        let field = field?;
        key.push(rank(field.value)?);
        if named {
            key.extend(field.name);
            key.push(0);
        }
        value(key, field.value, depth)?;
    }
    key.push(END);
    Ok(())
}

/// A zero inside is followed by 255, so that the zero at the end is less than whatever else could be there.
fn string(key: &mut Vec<u8>, text: &[u8]) {
    for (at, part) in text.split(|byte| *byte == 0).enumerate() {
        if at > 0 {
            key.extend([0, 0xff]);
        }
        key.extend(part);
    }
    key.extend([0, 0]);
}

pub(crate) const CUT: Malformed = Malformed { at: 0, what: "a value that is cut short" };

/// The parts of code with a scope: a string, its length included, and a document.
pub(crate) fn code_and_scope(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let rest = bytes.get(4..).ok_or(CUT)?;
    let length = u32::from_le_bytes(*rest.first_chunk().ok_or(CUT)?) as usize;
    rest.split_at_checked(length.saturating_add(4)).ok_or(CUT)
}

pub(crate) fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Malformed> {
    bytes.try_into().map_err(|_| CUT)
}

/// A string without its length and the zero at its end.
fn text(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let text = bytes.get(4..).and_then(|text| text.strip_suffix(&[0])).ok_or(CUT)?;
    let length = u32::from_le_bytes(fixed(&bytes[..4])?) as usize;
    if length == text.len() + 1 { Ok(text) } else { Err(CUT) }
}
