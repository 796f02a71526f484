//! One oplog entry, read as far as routing and sealing need it: in one pass, without allocating.
//!
//! What makes an entry a step of a transaction is as in MongoDB 4.4 to 7.0 (`repl/oplog_entry`).

use std::fmt;

use stillpoint_core::{CheckpointId, ClusterTime, OpTime};

use crate::document::{self, Malformed};

#[cfg(test)]
mod tests;

/// An entry of the oplog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub at: OpTime,
    /// The whole document.
    pub bytes: &'a [u8],
    /// Whose transaction or retryable write it belongs to.
    pub session: Option<Session<'a>>,
    pub kind: Kind<'a>,
}

/// A transaction or a retryable write of a logical session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Session<'a> {
    /// `lsid`: a BSON document.
    pub id: &'a [u8],
    /// `txnNumber`.
    pub number: i64,
}

impl fmt::Display for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {} of session ", self.number)?;
        self.id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A token of stillpoint's.
    Token(TokenNote<'a>),
    /// A step of a transaction.
    Step(Step),
    /// Any other, a retryable write among them.
    Other,
}

/// The `o` of a token: `{stillpoint: "token", checkpoint, part, attempt}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenNote<'a> {
    pub checkpoint: CheckpointId,
    /// The part, as [`PartId`](stillpoint_core::checkpoint::PartId) displays it.
    pub part: &'a str,
    pub attempt: u32,
}

/// A step of a transaction, or of a batch of writes that are applied as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// `prevOpTime`: the entry before it in its transaction.
    pub previous: Option<OpTime>,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// `applyOps` with `partialTxn: true`: more follow.
    Part,
    /// `applyOps` with `prepare: true`, the last of its operations.
    Prepare,
    /// `applyOps` with neither: it commits, as of its own time.
    Whole,
    /// `commitTransaction` of a prepared one, as of a time that is at or before the entry's own.
    Commit(ClusterTime),
    /// `abortTransaction`.
    Abort,
}

/// Why an entry cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("an oplog entry is {0}")]
    Malformed(#[from] Malformed),
    #[error("an oplog entry has no {field} that is {wanted}")]
    Position { field: &'static str, wanted: &'static str },
    #[error("the oplog entry at {at} has no {field} that is {wanted}")]
    Field { at: OpTime, field: &'static str, wanted: &'static str },
    #[error("the oplog entry at {at} has multiOpType {value}, which this program does not know")]
    MultiOpType { at: OpTime, value: i64 },
}

/// The fields of an entry that matter here.
#[derive(Default)]
struct Found<'a> {
    time: Option<ClusterTime>,
    term: Option<i64>,
    op: Option<&'a str>,
    /// `o`.
    object: Option<&'a [u8]>,
    session: Option<&'a [u8]>,
    number: Option<i64>,
    /// Whether there is a `prevOpTime`, and what it is unless it is the null one.
    previous: Option<Option<OpTime>>,
    multi_op_type: Option<i64>,
}

impl<'a> Entry<'a> {
    /// Reads the document that `bytes` are.
    pub fn read(bytes: &'a [u8]) -> Result<Entry<'a>, EntryError> {
        let found = Found::of(bytes)?;
        let time = found.time.ok_or(EntryError::Position { field: "ts", wanted: "a timestamp" })?;
        let at = OpTime::new(time, found.term.unwrap_or(-1));
        let op = found.op.ok_or(EntryError::Field { at, field: "op", wanted: "a string" })?;
        let kind = match (op, found.object) {
            ("n", Some(object)) => token(object)?.map_or(Kind::Other, Kind::Token),
            ("c", Some(object)) => step(at, &found, object)?.map_or(Kind::Other, Kind::Step),
            ("c", None) => return Err(EntryError::Field { at, field: "o", wanted: "a document" }),
            _ => Kind::Other,
        };
        let session = found.session.zip(found.number).map(|(id, number)| Session { id, number });
        if session.is_none() && matches!(kind, Kind::Step(step) if step.wants_session()) {
            return Err(EntryError::Field { at, field: "lsid and txnNumber", wanted: "a transaction's" });
        }
        Ok(Entry { at, bytes, session, kind })
    }
}

impl Step {
    /// Batches of writes have none (MongoDB 7.0 and later write them in several entries, too).
    fn wants_session(self) -> bool {
        !matches!(self.what, What::Part | What::Whole)
    }
}

impl<'a> Found<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let mut found = Found::default();
        for field in document::fields(bytes)? {
            let field = field?;
            let wrong = |field, wanted| EntryError::Position { field, wanted };
            match field.name {
                b"ts" => found.time = field.value.timestamp(),
                b"t" => found.term = Some(field.value.integer().ok_or(wrong("t", "an integer"))?),
                b"op" => found.op = field.value.text(),
                b"o" => found.object = field.value.document(),
                b"lsid" => found.session = Some(field.value.document().ok_or(wrong("lsid", "a document"))?),
                b"txnNumber" => found.number = Some(field.value.integer().ok_or(wrong("txnNumber", "an integer"))?),
                b"prevOpTime" => {
                    let previous = field.value.optime().ok_or(wrong("prevOpTime", "an optime"))?;
                    found.previous = Some((previous.time != ClusterTime::new(0, 0)).then_some(previous));
                }
                b"multiOpType" => {
                    found.multi_op_type = Some(field.value.integer().ok_or(wrong("multiOpType", "an integer"))?)
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Anybody may write a note: one that is nearly a token is none.
fn token(object: &[u8]) -> Result<Option<TokenNote<'_>>, EntryError> {
    let (mut is_token, mut checkpoint, mut part, mut attempt) = (false, None, None, None);
    for field in document::fields(object)? {
        let field = field?;
        match field.name {
            b"stillpoint" => is_token = field.value.text() == Some("token"),
            b"checkpoint" => checkpoint = field.value.text().and_then(|text| text.parse().ok()),
            b"part" => part = field.value.text(),
            b"attempt" => attempt = field.value.integer().and_then(|number| u32::try_from(number).ok()),
            _ => {}
        }
    }
    Ok(match (is_token, checkpoint, part, attempt) {
        (true, Some(checkpoint), Some(part), Some(attempt)) => Some(TokenNote { checkpoint, part, attempt }),
        _ => None,
    })
}

/// The first field of a command's `o` names the command.
fn step(at: OpTime, found: &Found<'_>, object: &[u8]) -> Result<Option<Step>, EntryError> {
    let mut fields = document::fields(object)?;
    let Some(command) = fields.next().transpose()? else { return Ok(None) };
    let previous = found.previous.flatten();
    let what = match command.name {
        b"applyOps" => {
            let (mut partial, mut prepare) = (false, false);
            for field in fields {
                let field = field?;
                match field.name {
                    b"partialTxn" => partial = field.value.boolean() == Some(true),
                    b"prepare" => prepare = field.value.boolean() == Some(true),
                    _ => {}
                }
            }
            match found.multi_op_type {
                None | Some(0) => {}
                // Several retryable writes in one entry, applied one by one: `prevOpTime` is then the
                // write before them in their session.
                Some(1) => return Ok(None),
                Some(value) => return Err(EntryError::MultiOpType { at, value }),
            }
            match (prepare, partial) {
                (true, _) => What::Prepare,
                (false, true) => What::Part,
                // Without `prevOpTime`, not even the null one, it is the applyOps command of a user.
                (false, false) if found.previous.is_none() => return Ok(None),
                (false, false) => What::Whole,
            }
        }
        b"commitTransaction" => {
            let mut time = None;
            for field in fields {
                let field = field?;
                if field.name == b"commitTimestamp" {
                    time = field.value.timestamp();
                }
            }
            What::Commit(time.ok_or(EntryError::Field { at, field: "o.commitTimestamp", wanted: "a timestamp" })?)
        }
        b"abortTransaction" => What::Abort,
        _ => return Ok(None),
    };
    Ok(Some(Step { previous, what }))
}

/// The documents that `bytes` are one after the other, as a batch from the server is. It ends after the
/// first that is malformed; where an error says it is, is counted from the beginning of `bytes`.
pub fn split(bytes: &[u8]) -> Split<'_> {
    Split { bytes, at: 0 }
}

/// See [`split`].
#[derive(Debug)]
pub struct Split<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Split<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        match document::length(rest) {
            Ok(length) => {
                self.at += length;
                Some(Ok(&rest[..length]))
            }
            Err(what) => {
                self.bytes = &[];
                Some(Err(Malformed { at: self.at, what }))
            }
        }
    }
}
