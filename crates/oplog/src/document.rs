//! A walk over the fields of one BSON document: borrowed, without recursion, checking every length.

use stillpoint_core::{ClusterTime, OpTime};

/// The shortest document: its length and its end.
pub(crate) const SHORTEST: usize = 5;

const STRING: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const BINARY: u8 = 0x05;
const BOOLEAN: u8 = 0x08;
const NULL: u8 = 0x0a;
const INT32: u8 = 0x10;
const TIMESTAMP: u8 = 0x11;
const INT64: u8 = 0x12;

/// Bytes that are no BSON document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not BSON: {what} at byte {at}")]
pub struct Malformed {
    /// Counted from the beginning of the document.
    pub at: usize,
    pub what: &'static str,
}

/// A field, its value not looked into.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a> {
    pub name: &'a [u8],
    tag: u8,
    value: &'a [u8],
}

/// The fields of a document, until the first that is malformed.
pub(crate) struct Fields<'a> {
    document: &'a [u8],
    at: usize,
}

/// The document that `bytes` are, no more and no less.
pub(crate) fn fields(bytes: &[u8]) -> Result<Fields<'_>, Malformed> {
    match length(bytes) {
        Ok(length) if length == bytes.len() => Ok(Fields { document: bytes, at: 4 }),
        Ok(_) => Err(Malformed { at: 0, what: "a length that is not the document's" }),
        Err(what) => Err(Malformed { at: 0, what }),
    }
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
        0x06 | NULL | 0x7f | 0xff => 0,
        BOOLEAN => 1,
        INT32 => 4,
        0x01 | 0x09 | TIMESTAMP | INT64 => 8,
        0x07 => 12,
        0x13 => 16,
        STRING | 0x0d | 0x0e => prefixed(4)?,
        BINARY => prefixed(5)?,
        0x0c => prefixed(16)?,
        0x0f => prefixed(0)?.max(4),
        DOCUMENT | ARRAY => length(rest)?,
        0x0b => {
            let mut ends = rest.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at);
            ends.nth(1).ok_or("a regular expression without its end")? + 1
        }
        _ => return Err("a value of no known type"),
    })
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<Option<Field<'a>>, &'static str> {
        let rest = self.document.get(self.at..).unwrap_or_default();
        let (&tag, rest) = rest.split_first().ok_or("a document without its end")?;
        if tag == 0 {
            return if rest.is_empty() { Ok(None) } else { Err("an end before the end") };
        }
        let end = rest.iter().position(|byte| *byte == 0).ok_or("a name without its end")?;
        let (name, rest) = (&rest[..end], &rest[end + 1..]);
        let value = rest.get(..size(tag, rest)?).ok_or("a length past the end")?;
        self.at += 1 + end + 1 + value.len();
        Ok(Some(Field { name, tag, value }))
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

impl<'a> Field<'a> {
    pub fn is_null(&self) -> bool {
        self.tag == NULL
    }

    pub fn boolean(&self) -> Option<bool> {
        (self.tag == BOOLEAN).then(|| self.value == [1])
    }

    pub fn integer(&self) -> Option<i64> {
        match self.tag {
            INT32 => int32(self.value).map(i64::from),
            INT64 => self.value.first_chunk().map(|bytes| i64::from_le_bytes(*bytes)),
            _ => None,
        }
    }

    pub fn timestamp(&self) -> Option<ClusterTime> {
        let bytes = self.value.first_chunk().filter(|_| self.tag == TIMESTAMP)?;
        let value = u64::from_le_bytes(*bytes);
        Some(ClusterTime::new((value >> 32) as u32, value as u32))
    }

    pub fn text(&self) -> Option<&'a str> {
        let bytes = self.value.get(4..).filter(|_| self.tag == STRING)?;
        bytes.strip_suffix(&[0]).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The document's bytes, its own fields not looked into.
    pub fn document(&self) -> Option<&'a [u8]> {
        (self.tag == DOCUMENT).then_some(self.value)
    }

    pub fn array(&self) -> Option<&'a [u8]> {
        (self.tag == ARRAY).then_some(self.value)
    }

    /// Bytes of the generic subtype.
    pub fn binary(&self) -> Option<&'a [u8]> {
        if self.tag != BINARY || self.value.get(4) != Some(&0) {
            return None;
        }
        self.value.get(5..)
    }

    /// A document `{ts, t}`; without `t`, as before replication protocol 1, the term is -1.
    pub fn optime(&self) -> Option<OpTime> {
        let (mut time, mut term) = (None, -1);
        for field in fields(self.document()?).ok()? {
            let field = field.ok()?;
            match field.name {
                b"ts" => time = Some(field.timestamp()?),
                b"t" => term = field.integer()?,
                _ => {}
            }
        }
        Some(OpTime::new(time?, term))
    }
}
