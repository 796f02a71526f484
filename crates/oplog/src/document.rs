//! A walk over the fields of one BSON document: borrowed, without recursion, checking every length.
//!
//! Strings are bytes here, unless they are asked for as text: the server does not check that they are UTF-8.

use stillpoint_core::{ClusterTime, OpTime};

pub const DOUBLE: u8 = 0x01;
pub const STRING: u8 = 0x02;
pub const DOCUMENT: u8 = 0x03;
pub const ARRAY: u8 = 0x04;
pub const BINARY: u8 = 0x05;
pub const UNDEFINED: u8 = 0x06;
pub const OBJECT_ID: u8 = 0x07;
pub const BOOLEAN: u8 = 0x08;
pub const DATE: u8 = 0x09;
pub const NULL: u8 = 0x0a;
pub const REGEX: u8 = 0x0b;
pub const DB_POINTER: u8 = 0x0c;
pub const CODE: u8 = 0x0d;
pub const SYMBOL: u8 = 0x0e;
pub const CODE_WITH_SCOPE: u8 = 0x0f;
pub const INT32: u8 = 0x10;
pub const TIMESTAMP: u8 = 0x11;
pub const INT64: u8 = 0x12;
pub const DECIMAL128: u8 = 0x13;
pub const MAX_KEY: u8 = 0x7f;
pub const MIN_KEY: u8 = 0xff;

/// The shortest document: its length and its end.
pub(crate) const SHORTEST: usize = 5;

/// Bytes that are no BSON document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not BSON: {what} at byte {at}")]
pub struct Malformed {
    /// Counted from the beginning of the innermost document.
    pub at: usize,
    pub what: &'static str,
}

/// A value, not looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    pub tag: u8,
    pub bytes: &'a [u8],
}

/// A field, and all of its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    pub name: &'a [u8],
    pub value: Value<'a>,
    pub whole: &'a [u8],
}

/// The fields of a document, until the first that is malformed.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    document: &'a [u8],
    at: usize,
}

/// The document that `bytes` are, no more and no less.
pub fn fields(bytes: &[u8]) -> Result<Fields<'_>, Malformed> {
    match length(bytes) {
        Ok(length) if length == bytes.len() => Ok(Fields { document: bytes, at: 4 }),
        Ok(_) => Err(Malformed { at: 0, what: "a length that is not the document's" }),
        Err(what) => Err(Malformed { at: 0, what }),
    }
}

/// The first field of this name.
pub fn find<'a>(document: &'a [u8], name: &[u8]) -> Result<Option<Value<'a>>, Malformed> {
    for field in fields(document)? {
        let field = field?;
        if field.name == name {
            return Ok(Some(field.value));
        }
    }
    Ok(None)
}

/// The length of the document that `bytes` begin with.
pub(crate) fn length(bytes: &[u8]) -> Result<usize, &'static str> {
    let length = int32(bytes).ok_or("no length")?;
    let length = usize::try_from(length).map_err(|_| "a negative length")?;
    if length < SHORTEST {
        return Err("a length too short for a document");
    }
    match bytes.get(length - 1) {
        None => Err("a length past the end"),
        Some(0) => Ok(length),
        Some(_) => Err("a document without its end"),
    }
}

fn int32(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|bytes| i32::from_le_bytes(*bytes))
}

/// The length of a value.
fn size(tag: u8, rest: &[u8]) -> Result<usize, &'static str> {
    let prefixed = |more: usize| {
        let length = int32(rest).and_then(|length| usize::try_from(length).ok()).ok_or("a value without a length")?;
        length.checked_add(more).ok_or("a length past the end")
    };
    Ok(match tag {
        UNDEFINED | NULL | MAX_KEY | MIN_KEY => 0,
        BOOLEAN => 1,
        INT32 => 4,
        DOUBLE | DATE | TIMESTAMP | INT64 => 8,
        OBJECT_ID => 12,
        DECIMAL128 => 16,
        STRING | CODE | SYMBOL => prefixed(4)?,
        BINARY => prefixed(5)?,
        DB_POINTER => prefixed(16)?,
        CODE_WITH_SCOPE => prefixed(0)?.max(4),
        DOCUMENT | ARRAY => length(rest)?,
        REGEX => {
            let mut ends = rest.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at);
            ends.nth(1).ok_or("a regular expression without its end")? + 1
        }
        _ => return Err("a value of no known type"),
    })
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<Option<Field<'a>>, &'static str> {
        let whole = self.document.get(self.at..).unwrap_or_default();
        let (&tag, rest) = whole.split_first().ok_or("a document without its end")?;
        if tag == 0 {
            return if rest.is_empty() { Ok(None) } else { Err("an end before the end") };
        }
        let end = rest.iter().position(|byte| *byte == 0).ok_or("a name without its end")?;
        let (name, rest) = (&rest[..end], &rest[end + 1..]);
        let bytes = rest.get(..size(tag, rest)?).ok_or("a length past the end")?;
        let length = 1 + end + 1 + bytes.len();
        self.at += length;
        Ok(Some(Field { name, value: Value { tag, bytes }, whole: &whole[..length] }))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.document.is_empty() {
            return None;
        }
        let at = self.at;
        let field = self.field().map_err(|what| Malformed { at, what });
        if !matches!(field, Ok(Some(_))) {
            self.document = &[];
        }
        field.transpose()
    }
}

impl<'a> Value<'a> {
    pub fn is_null(self) -> bool {
        self.tag == NULL
    }

    pub fn boolean(self) -> Option<bool> {
        (self.tag == BOOLEAN).then(|| self.bytes == [1])
    }

    pub fn integer(self) -> Option<i64> {
        match self.tag {
            INT32 => int32(self.bytes).map(i64::from),
            INT64 => self.bytes.first_chunk().map(|bytes| i64::from_le_bytes(*bytes)),
            _ => None,
        }
    }

    /// A whole number, of whichever type.
    pub fn whole_number(self) -> Option<i64> {
        if self.tag != DOUBLE {
            return self.integer();
        }
        let value = self.bytes.first_chunk().map(|bytes| f64::from_le_bytes(*bytes))?;
        // Every whole number up to 2^53 is a double.
        (value.fract() == 0.0 && value.abs() <= 9e15).then_some(value as i64)
    }

    pub fn timestamp(self) -> Option<ClusterTime> {
        let bytes = self.bytes.first_chunk().filter(|_| self.tag == TIMESTAMP)?;
        let value = u64::from_le_bytes(*bytes);
        Some(ClusterTime::new((value >> 32) as u32, value as u32))
    }

    pub fn text(self) -> Option<&'a str> {
        let bytes = self.bytes.get(4..).filter(|_| self.tag == STRING)?;
        bytes.strip_suffix(&[0]).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The document's bytes, its own fields not looked into.
    pub fn document(self) -> Option<&'a [u8]> {
        (self.tag == DOCUMENT).then_some(self.bytes)
    }

    pub fn array(self) -> Option<&'a [u8]> {
        (self.tag == ARRAY).then_some(self.bytes)
    }

    /// The subtype and the bytes.
    pub fn binary(self) -> Option<(u8, &'a [u8])> {
        let (subtype, bytes) = self.bytes.get(4..).filter(|_| self.tag == BINARY)?.split_first()?;
        Some((*subtype, bytes))
    }

    /// Binary data of the generic subtype.
    pub fn generic(self) -> Option<&'a [u8]> {
        self.binary().filter(|(subtype, _)| *subtype == 0).map(|(_, bytes)| bytes)
    }

    /// A document `{ts, t}`; without `t`, as before replication protocol 1, the term is -1.
    pub fn optime(self) -> Option<OpTime> {
        let (mut time, mut term) = (None, -1);
        for field in fields(self.document()?).ok()? {
            let field = field.ok()?;
            match field.name {
                b"ts" => time = Some(field.value.timestamp()?),
                b"t" => term = field.value.integer()?,
                _ => {}
            }
        }
        Some(OpTime::new(time?, term))
    }

    /// What it is, for a message.
    pub fn kind(self) -> &'static str {
        match self.tag {
            DOUBLE => "a double",
            STRING => "a string",
            DOCUMENT => "a document",
            ARRAY => "an array",
            BINARY => "binary data",
            UNDEFINED => "undefined",
            OBJECT_ID => "an object id",
            BOOLEAN => "a boolean",
            DATE => "a date",
            NULL => "null",
            REGEX => "a regular expression",
            DB_POINTER => "a pointer",
            CODE | CODE_WITH_SCOPE => "code",
            SYMBOL => "a symbol",
            INT32 | INT64 => "an integer",
            TIMESTAMP => "a timestamp",
            DECIMAL128 => "a decimal",
            MAX_KEY => "the greatest key",
            MIN_KEY => "the least key",
            _ => "a value of no known type",
        }
    }
}
