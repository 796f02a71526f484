//! A segment out of the vault, held against its record.

use std::fmt;

use bytes::Bytes;
use stillpoint_core::ClusterTime;
use stillpoint_core::stream::{GapCause, Segment};
use stillpoint_oplog::SegmentReader;
use stillpoint_oplog::segment::{Header, Limits};
use stillpoint_vault::{Vault, VaultError};

/// What is wrong with a stored segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Missing,
    Damaged(String),
}

impl Fault {
    pub fn cause(&self) -> GapCause {
        match self {
            Fault::Missing => GapCause::SegmentMissing,
            Fault::Damaged(_) => GapCause::SegmentDamaged,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => f.write_str("it is not in the vault"),
            Fault::Damaged(why) => write!(f, "it is damaged: {why}"),
        }
    }
}

/// The segment that the record is of, and which follows `previous`, if that is known; of its entries nothing
/// is known yet.
pub(super) async fn fetch(
    vault: &Vault,
    record: &Segment,
    previous: Option<&Segment>,
) -> Result<Result<SegmentReader, Fault>, VaultError> {
    match vault.get(&record.name(), record.blob).await {
        Ok(content) => Ok(open(content, record, previous)),
        Err(VaultError::Missing { .. }) => Ok(Err(Fault::Missing)),
        Err(VaultError::Damaged { why, .. }) => Ok(Err(Fault::Damaged(why))),
        Err(e @ VaultError::TooLarge { .. }) => Ok(Err(Fault::Damaged(e.to_string()))),
        Err(e) => Err(e),
    }
}

fn open(content: Bytes, record: &Segment, before: Option<&Segment>) -> Result<SegmentReader, Fault> {
    let damaged = |why: String| Err(Fault::Damaged(why));
    let reader = match SegmentReader::open(content, Limits::default()) {
        Ok(reader) => reader,
        Err(why) => return damaged(why.to_string()),
    };
    let Header { cluster, part, first, last, entries, bytes, previous, open } = reader.header();
    // The record says which transactions are open after it.
    let open_before = match (record.previous, before) {
        (None, _) => Some(&[][..]),
        (Some(_), before) => before.map(|before| &before.open[..]),
    };
    let agree = [
        (*cluster == record.cluster, "cluster"),
        (*part == record.part.key(), "part"),
        (*first == record.first, "first entry"),
        (*last == record.last, "last entry"),
        (*entries == record.entries, "number of entries"),
        (*bytes == record.bytes, "length"),
        (*previous == record.previous, "predecessor"),
        (open_before.is_none_or(|before| before == open), "transactions that are open before it"),
    ];
    match agree.iter().find(|(same, _)| !same) {
        Some((_, what)) => damaged(format!("its header and its record in the catalog do not have the same {what}")),
        None => Ok(reader),
    }
}

/// Goes through all its entries, which takes a processor for a while.
pub(super) async fn read_through(reader: SegmentReader) -> Result<(), Fault> {
    let read = move || match reader.entries_from(ClusterTime::ZERO).find_map(Result::err) {
        Some(why) => Err(Fault::Damaged(why.to_string())),
        None => Ok(()),
    };
    joined(tokio::task::spawn_blocking(read)).await
}

/// What a task on a thread of its own came to.
pub(super) async fn joined<T>(task: tokio::task::JoinHandle<T>) -> T {
    match task.await {
        Ok(done) => done,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        // Only when the runtime is going away, and this with it.
        Err(_) => std::future::pending().await,
    }
}
