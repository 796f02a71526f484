//! The segment that is being filled: what goes into it, and when it is to be sealed.

use jiff::Timestamp;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{BlobId, OpenTransaction, Segment, StoredToken};
use stillpoint_core::{ClusterId, ClusterTime, OpTime};
use stillpoint_oplog::segment::{DEFAULT_BLOCK, DEFAULT_LEVEL, Seal, SegmentWriter, WriteError};
use stillpoint_oplog::transactions::{TransactionError, Transactions};
use stillpoint_oplog::{Entry, EntryError, Kind};

use super::part::Pace;
use super::ports::EntryBatch;

/// What must not be in an oplog: capture stops rather than pass it over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("after {after}: {why}")]
    Entry { after: OpTimeOrStart, why: EntryError },
    #[error("after {after}: the server's reply holds something that is no entry: {why}")]
    NotAnEntry { after: OpTimeOrStart, why: String },
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    #[error(transparent)]
    Segment(#[from] WriteError),
}

/// Where in the stream something went wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpTimeOrStart(Option<OpTime>);

impl std::fmt::Display for OpTimeOrStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(at) => at.fmt(f),
            None => f.write_str("the beginning of the stream"),
        }
    }
}

/// Which stream a segment is of.
#[derive(Debug, Clone)]
pub(crate) struct Of {
    pub cluster: ClusterId,
    pub part: PartId,
}

/// A segment being filled.
pub(crate) struct Sealer {
    of: Of,
    full: u64,
    long: u64,
    writer: SegmentWriter,
    transactions: Transactions,
    /// The transactions that were open before its first entry.
    open_before: Vec<OpenTransaction>,
    tokens: Vec<StoredToken>,
    /// The last entry of the stream, in this segment or before it.
    last: Option<OpTime>,
    /// The last entry that is stored: the oplog is read from it on, once more.
    overlap: Option<OpTime>,
}

/// A segment that has all its entries, and is to be stored.
pub(crate) struct Full {
    of: Of,
    first: OpTime,
    last: OpTime,
    writer: SegmentWriter,
    open_before: Vec<OpenTransaction>,
    open_after: Vec<OpenTransaction>,
    tokens: Vec<StoredToken>,
}

impl Sealer {
    /// For the entries after `last`, which is read once more and left out.
    pub fn new(
        of: Of,
        pace: &Pace,
        last: Option<OpTime>,
        open: Vec<OpenTransaction>,
        complete_from: ClusterTime,
    ) -> Result<Sealer, Unfit> {
        Ok(Sealer {
            of,
            full: pace.full,
            long: pace.long,
            writer: writer()?,
            open_before: open.clone(),
            transactions: Transactions::new(open, complete_from)?,
            tokens: Vec::new(),
            last,
            overlap: last,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.writer.is_empty()
    }

    /// The newest entry, in this segment or before it.
    pub fn last(&self) -> Option<ClusterTime> {
        self.last.map(|last| last.time)
    }

    /// Takes the entries of a batch from the `skip`th on, until the segment is to be sealed, if it is: then
    /// how many of the batch are taken.
    pub fn take(&mut self, batch: &impl EntryBatch, skip: usize) -> Result<Option<usize>, Unfit> {
        for (n, bytes) in batch.entries().enumerate().skip(skip) {
            let bytes = bytes.map_err(|why| Unfit::NotAnEntry { after: OpTimeOrStart(self.last), why })?;
            if self.entry(bytes)? {
                return Ok(Some(n + 1));
            }
        }
        Ok(None)
    }

    /// Whether the segment is to be sealed after it: it is a token, or the segment is large.
    fn entry(&mut self, bytes: &[u8]) -> Result<bool, Unfit> {
        let entry = Entry::read(bytes).map_err(|why| Unfit::Entry { after: OpTimeOrStart(self.last), why })?;
        if self.overlap.take() == Some(entry.at) {
            return Ok(false);
        }
        self.writer.push(bytes, entry.at)?;
        self.transactions.see(&entry)?;
        self.last = Some(entry.at);
        if let Kind::Token(token) = &entry.kind {
            self.tokens.push(StoredToken { checkpoint: token.checkpoint, attempt: token.attempt, at: entry.at });
            return Ok(true);
        }
        Ok(self.writer.compressed_bytes() >= self.full || self.writer.raw_bytes() >= self.long)
    }

    /// Takes out what there is, if there is anything, and begins the next segment.
    pub fn cut(&mut self) -> Result<Option<Full>, Unfit> {
        let (Some(first), Some(last)) = (self.writer.first(), self.writer.last()) else { return Ok(None) };
        let open = self.transactions.open();
        Ok(Some(Full {
            of: self.of.clone(),
            first,
            last,
            writer: std::mem::replace(&mut self.writer, writer()?),
            open_before: std::mem::replace(&mut self.open_before, open.clone()),
            open_after: open,
            tokens: std::mem::take(&mut self.tokens),
        }))
    }
}

fn writer() -> Result<SegmentWriter, WriteError> {
    SegmentWriter::new(DEFAULT_LEVEL, DEFAULT_BLOCK)
}

/// A sealed segment's bytes, and its record but for what the vault makes of it.
pub(crate) struct Sealed {
    pub content: Vec<u8>,
    pub record: Segment,
}

impl Full {
    /// Compresses what is left and writes the header.
    pub fn seal(self, previous: Option<BlobId>, now: Timestamp) -> Result<Sealed, Unfit> {
        let (entries, bytes) = (self.writer.entries(), self.writer.raw_bytes());
        let Of { cluster, part } = self.of;
        let content = self.writer.seal(Seal { cluster, part: part.clone(), previous, open: self.open_before })?;
        let record = Segment {
            cluster,
            part,
            // Known once it is stored.
            blob: BlobId([0; 32]),
            previous,
            first: self.first,
            last: self.last,
            entries,
            bytes,
            stored: 0,
            sealed: now,
            tokens: self.tokens,
            open: self.open_after,
        };
        Ok(Sealed { content, record })
    }
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    struct Entries(Vec<Vec<u8>>);

    impl EntryBatch for Entries {
        fn entries(&self) -> impl Iterator<Item = Result<&[u8], String>> {
            self.0.iter().map(|entry| Ok(entry.as_slice()))
        }

        fn bytes(&self) -> usize {
            0
        }

        fn committed(&self) -> Option<ClusterTime> {
            None
        }
    }

    fn batch(n: u32, what: impl FnMut(u32) -> Document) -> Entries {
        let bytes = (1..=n).map(what).zip(1..).map(|(mut entry, time)| {
            entry.extend(doc! {"ts": bson::Timestamp { time, increment: 1 }, "t": 1_i64});
            bson::serialize_to_vec(&entry).unwrap()
        });
        Entries(bytes.collect())
    }

    fn sealer(full: u64, long: u64) -> Sealer {
        let of = Of { cluster: ClusterId::new(Timestamp::UNIX_EPOCH, 1), part: PartId::ConfigServers };
        let pace = Pace { full, long, ..Pace::default() };
        Sealer::new(of, &pace, None, vec![], ClusterTime::ZERO).unwrap()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_segment_is_sealed_at_a_token() {
        let id = stillpoint_core::CheckpointId::new(Timestamp::UNIX_EPOCH, 1);
        let note = doc! {"stillpoint": "token", "checkpoint": id.to_string(), "part": "shard rs0", "attempt": 1};
        let batch = batch(9, |n| doc! {"op": "n", "ns": "", "o": if n == 4 { note.clone() } else { doc! {} }});
        let mut sealer = sealer(MIB, MIB);
        assert_eq!(sealer.take(&batch, 0).unwrap(), Some(4));
        assert_eq!(sealer.cut().unwrap().unwrap().tokens[0].checkpoint, id);
        assert_eq!((sealer.take(&batch, 4).unwrap(), sealer.is_empty()), (None, false));
    }

    #[test]
    fn a_segment_is_sealed_when_it_is_full() {
        let mut rng = StdRng::seed_from_u64(1);
        let text = |_| doc! {"op": "i", "ns": "a.b", "o": {"text": hex::<100_000>(&mut rng)}};
        // Of hex a half is left. Ten are a block, which counts once the next begins; two are not yet enough.
        assert_eq!(sealer(MIB, 100 * MIB).take(&batch(40, text), 0).unwrap(), Some(31));
    }

    fn hex<const BYTES: usize>(rng: &mut StdRng) -> String {
        (0..BYTES).map(|_| char::from_digit(rng.random_range(0..16), 16).unwrap()).collect()
    }

    #[test]
    fn a_segment_is_sealed_when_it_is_long_however_well_it_is_compressed() {
        let text = "x".repeat(100_000);
        let batch = batch(40, |_| doc! {"op": "i", "ns": "a.b", "o": {"text": &text}});
        assert_eq!(sealer(MIB, MIB).take(&batch, 0).unwrap(), Some(11));
    }
}
