//! A part's oplog as it is kept: the stream, its segments, its gaps.
//!
//! A stream begins at [`Stream::from`] and grows by [`Segment`]s, each of which names its predecessor.
//! Where entries are missing there is a [`Gap`], and the stream goes on after it without a predecessor.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::checkpoint::PartId;
use crate::ids::from_hex;
use crate::{CheckpointId, ClusterId, ClusterTime, OpTime};

/// What a blob of the vault is called by: 32 bytes that its content determines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub [u8; 32]);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

/// Text that is not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a blob's id: 64 hexadecimal digits")]
pub struct NotABlobId;

impl FromStr for BlobId {
    type Err = NotABlobId;

    fn from_str(text: &str) -> Result<Self, NotABlobId> {
        // It is a part of a name, and so is written in one way only.
        let id = from_hex(text).filter(|_| !text.bytes().any(|b| b.is_ascii_uppercase()));
        id.map(BlobId).ok_or(NotABlobId)
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The oplog of one part, from some entry on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    pub cluster: ClusterId,
    pub part: PartId,
    pub replica_set: String,
    /// The first entry to store is the first at or after this time: where the oldest transaction began
    /// that was prepared when the stream did.
    pub from: ClusterTime,
    /// Of every transaction that is open at this time or later, the stream has all entries; one that ends
    /// with the entry at this very time is not open.
    pub complete_from: ClusterTime,
    /// The [`complete_from`](Self::complete_from) of its first beginning: there may be gaps since.
    pub since: ClusterTime,
    pub began: Timestamp,
    /// When its shard was no longer in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// When the oldest transaction was prepared that is not ended in what is stored. What was prepared by a
    /// time must be ended before the part can be restored to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<ClusterTime>,
    /// What is before it was given up, since nothing needed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from: Option<ClusterTime>,
}

impl Stream {
    /// Whether what is stored from a time on is still there, but for gaps.
    pub fn is_kept_from(&self, time: ClusterTime) -> bool {
        self.kept_from.is_none_or(|kept| kept <= time)
    }
}

/// Where to go on reading an oplog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// After this entry, which must be there still.
    After(OpTime),
    /// At the first entry at or after this time.
    At(ClusterTime),
}

/// A sealed run of a part's oplog in the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    pub cluster: ClusterId,
    pub part: PartId,
    /// Of the content; with [`Segment::place`] it names the blob.
    pub blob: BlobId,
    /// The segment that ends where this one begins; none at the beginning of a stream and after a gap.
    pub previous: Option<BlobId>,
    pub first: OpTime,
    pub last: OpTime,
    pub entries: u64,
    /// Of the entries as the server wrote them.
    pub bytes: u64,
    /// Of the blob.
    pub stored: u64,
    pub sealed: Timestamp,
    /// The tokens in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<StoredToken>,
    /// The transactions that are open at its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<OpenTransaction>,
}

impl Segment {
    /// The blob's name without its id: `oplog/CLUSTER/PART/SECONDS-INCREMENT` of the first entry.
    pub fn place(&self) -> String {
        place(self.cluster, &self.part, self.first.time)
    }

    /// The blob's whole name in the vault.
    pub fn name(&self) -> String {
        format!("{}-{}", self.place(), self.blob)
    }
}

/// Where the segments of all clusters are in the vault.
pub const SEGMENTS: &str = "oplog";

/// The blob's name of a segment, without its id.
pub fn place(cluster: ClusterId, part: &PartId, first: ClusterTime) -> String {
    format!("{SEGMENTS}/{cluster}/{}/{:010}-{:010}", part.key(), first.seconds, first.increment)
}

/// A token as it is in a stored segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredToken {
    pub checkpoint: CheckpointId,
    pub attempt: u32,
    pub at: OpTime,
}

/// A transaction that has entries in the oplog and is neither committed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpenTransaction {
    /// The logical session, `lsid` as it is in the entries: BSON, in hex.
    pub session: String,
    pub number: i64,
    /// Its first entry: what must be kept for it.
    pub first: OpTime,
    /// Its last entry so far, to which the next refers (`prevOpTime`).
    pub last: OpTime,
    /// The `ts` of its prepare, if it is prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<ClusterTime>,
}

/// Entries that a stream should have and has not. No time in between `after` and `until` can be restored,
/// nor one that needs an entry between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub part: PartId,
    /// The last time before it that is whole: what was prepared by then is resolved before the gap.
    pub after: ClusterTime,
    /// The first time after it that is whole again: of what is open from then on there are all entries.
    /// [`ClusterTime::MAX`] while there is none yet.
    pub until: ClusterTime,
    pub cause: GapCause,
    pub found: Timestamp,
    /// For the operator.
    pub detail: String,
}

/// Why entries are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GapCause {
    /// The oplog no longer reached back to what was stored last.
    RolledOver,
    /// The shard was not in the cluster.
    ShardAway,
    /// A segment is not in the vault.
    SegmentMissing,
    /// A segment in the vault is not what was stored.
    SegmentDamaged,
}

impl GapCause {
    pub const ALL: [GapCause; 4] =
        [GapCause::RolledOver, GapCause::ShardAway, GapCause::SegmentMissing, GapCause::SegmentDamaged];

    pub fn name(self) -> &'static str {
        match self {
            GapCause::RolledOver => "ROLLED_OVER",
            GapCause::ShardAway => "SHARD_AWAY",
            GapCause::SegmentMissing => "SEGMENT_MISSING",
            GapCause::SegmentDamaged => "SEGMENT_DAMAGED",
        }
    }

    /// One sentence that is safe to show to any client.
    pub fn sentence(self) -> &'static str {
        match self {
            GapCause::RolledOver => "The oplog was overwritten before it was captured.",
            GapCause::ShardAway => "The shard was not in the cluster.",
            GapCause::SegmentMissing => "A part of the stored oplog is missing from the vault.",
            GapCause::SegmentDamaged => "A part of the stored oplog is damaged in the vault.",
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { part, after, until, .. } = self;
        match *until {
            ClusterTime::MAX => write!(f, "{part}: nothing after {after}: {}", self.cause.sentence()),
            until => write!(f, "{part}: nothing between {after} and {until}: {}", self.cause.sentence()),
        }
    }
}

impl Gap {
    /// Whether something that needs the entries from `from` to `to`, both included, is touched by it.
    pub fn touches(&self, from: ClusterTime, to: ClusterTime) -> bool {
        from < self.until && to > self.after
    }
}

/// How a part's capture stands, for the operator; written now and then, and never waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureReport {
    pub at: Timestamp,
    /// The newest entry that is in the vault.
    pub stored: Option<ClusterTime>,
    /// The newest entry that a majority of the part's members has.
    pub majority: Option<ClusterTime>,
    /// The oldest entry of the part's oplog.
    pub oldest: Option<ClusterTime>,
    /// The bytes of the oplog after what is stored, estimated from the oplog's size and its window.
    pub behind_bytes: Option<u64>,
    /// What is in the way now; with it, since when.
    pub trouble: Option<(Timestamp, String)>,
    /// Capture has ended until somebody does something.
    pub halted: bool,
}

impl CaptureReport {
    /// Seconds of oplog that are not yet in the vault.
    pub fn lag_seconds(&self) -> Option<u32> {
        Some(self.majority?.seconds.saturating_sub(self.stored?.seconds))
    }

    /// Seconds of oplog between its oldest entry and what is stored: how long capture may stand still
    /// before entries are lost, at the rate of late.
    pub fn window_left_seconds(&self) -> Option<u32> {
        Some(self.stored?.seconds.saturating_sub(self.oldest?.seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blobs_id_reads_back_as_it_was_written() {
        let id = BlobId([0xa7; 32]);
        assert_eq!(id.to_string(), "a7".repeat(32));
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "a7", &"A7".repeat(32), &"g7".repeat(32), &"é".repeat(32)] {
            assert_eq!(text.parse::<BlobId>(), Err(NotABlobId), "{text}");
        }
    }

    #[test]
    fn segments_sort_in_the_vault_as_in_time() {
        let cluster = ClusterId::new(Timestamp::from_second(1_700_000_000).unwrap(), 7);
        let at =
            |seconds, increment| place(cluster, &PartId::Shard("a/b c".into()), ClusterTime::new(seconds, increment));
        assert_eq!(at(7, 12), format!("oplog/{cluster}/shard-a%2Fb%20c/0000000007-0000000012"));
        assert!(at(7, 12) < at(7, 100) && at(7, 100) < at(1_700_000_000, 1));
    }

    #[test]
    fn a_gap_touches_what_needs_an_entry_of_it() {
        let time = |seconds| ClusterTime::new(seconds, 0);
        let gap = Gap {
            part: PartId::ConfigServers,
            after: time(10),
            until: time(20),
            cause: GapCause::RolledOver,
            found: Timestamp::UNIX_EPOCH,
            detail: String::new(),
        };
        for (from, to, touches) in
            [(5, 10, false), (5, 11, true), (12, 13, true), (19, 30, true), (20, 30, false), (5, 30, true)]
        {
            assert_eq!(gap.touches(time(from), time(to)), touches, "{from} to {to}");
        }
    }
}
