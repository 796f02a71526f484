//! How a document becomes a response: compact or pretty, in an envelope or not, compressed or not.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{Either, Full};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use crate::document::{Enveloped, ListDocument};
use crate::error::{Code, Refusal};
use crate::query::Common;
use crate::sending::Sending;

/// Below this, a reply is one packet with or without compression.
const WORTH_COMPRESSING: usize = 1_400;
/// About what Get One takes for a cluster of a few shards.
const USUAL: usize = 2_048;

/// How a client wants its reply written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    pub common: Common,
    pub gzip: bool,
}

impl Style {
    pub fn of(common: Common, headers: &HeaderMap) -> Style {
        Style { common, gzip: headers.get_all(ACCEPT_ENCODING).iter().any(asks_for_gzip) }
    }

    /// A list, whose envelope is in the list itself.
    pub fn list<T: Serialize>(self, mut list: ListDocument<'_, T>) -> Result<Written, Refusal> {
        list.status = self.common.envelope.then_some(StatusCode::OK.as_u16());
        Style { common: Common { envelope: false, ..self.common }, ..self }.one(StatusCode::OK, &list)
    }

    /// A document.
    pub fn one<T: Serialize>(self, status: StatusCode, document: &T) -> Result<Written, Refusal> {
        let bytes = match self.common.envelope {
            true => self.json(&Enveloped { content: document, status: status.as_u16() })?,
            false => self.json(document)?,
        };
        self.written(status, JSON, bytes)
    }

    /// A text of another kind.
    pub fn written(self, status: StatusCode, media_type: HeaderValue, bytes: Vec<u8>) -> Result<Written, Refusal> {
        let gzip = self.gzip && bytes.len() >= WORTH_COMPRESSING;
        let bytes = if gzip { compressed(&bytes)? } else { bytes };
        Ok(Written { status, media_type, bytes: bytes.into(), gzip })
    }

    fn json<T: Serialize>(self, document: &T) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::with_capacity(USUAL);
        let written = match self.common.pretty {
            true => document.serialize(&mut Serializer::with_formatter(&mut bytes, Pretty::default())),
            false => document.serialize(&mut Serializer::with_formatter(&mut bytes, CompactFormatter)),
        };
        written.map_err(unexpected)?;
        Ok(bytes)
    }
}

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The body of a response: at hand, or read while it is sent.
pub type Body = Either<Full<Bytes>, Sending>;

/// A body as it goes out.
#[derive(Debug, Clone)]
pub struct Written {
    pub status: StatusCode,
    pub media_type: HeaderValue,
    pub bytes: Bytes,
    pub gzip: bool,
}

/// What a handler answers.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    /// Nothing with 204.
    pub written: Option<Written>,
    /// A file, instead of what is written.
    pub file: Option<Sending>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For the audit trail, if it is not plain from the request and the status.
    pub audit: Option<AuditNote>,
}

#[derive(Debug)]
pub struct AuditNote {
    /// What was done, if the path is not to be told.
    pub action: Option<String>,
    pub actor: Option<String>,
    /// Why nothing was done.
    pub error: Option<&'static str>,
    pub refused: bool,
}

impl Reply {
    pub fn nothing() -> Reply {
        Reply { status: StatusCode::NO_CONTENT, written: None, file: None, headers: Vec::new(), audit: None }
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Reply {
        self.headers.push((name, value));
        self
    }
}

impl From<Written> for Reply {
    fn from(written: Written) -> Reply {
        Reply { status: written.status, written: Some(written), file: None, headers: Vec::new(), audit: None }
    }
}

fn unexpected(error: impl std::error::Error) -> Refusal {
    tracing::error!(%error, "a document could not be written");
    Refusal::new(Code::Unexpected, [])
}

fn compressed(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    // Done where it is asked for: the largest list takes a few milliseconds at this level.
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(unexpected)
}

/// Whether `gzip` is among the codings asked for and not refused with `q=0`.
fn asks_for_gzip(value: &HeaderValue) -> bool {
    let Ok(value) = value.to_str() else { return false };
    value.split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_some_and(|q| q > 0.0)
    })
}

/// The published example's form: two spaces a level, and none after a colon.
#[derive(Debug, Default)]
struct Pretty {
    level: usize,
    filled: bool,
}

impl Pretty {
    fn open<W: ?Sized + Write>(&mut self, out: &mut W, bracket: u8) -> io::Result<()> {
        self.level += 1;
        self.filled = false;
        out.write_all(&[bracket])
    }

    fn close<W: ?Sized + Write>(&mut self, out: &mut W, bracket: u8) -> io::Result<()> {
        self.level -= 1;
        if self.filled {
            self.line(out)?;
        }
        self.filled = true;
        out.write_all(&[bracket])
    }

    fn next<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        self.filled = true;
        self.line(out)
    }

    fn line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        out.write_all(b"\n")?;
        (0..self.level).try_for_each(|_| out.write_all(b"  "))
    }
}

impl Formatter for Pretty {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b'[')
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b']')
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.next(out, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b'{')
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b'}')
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.next(out, first)
    }
}
