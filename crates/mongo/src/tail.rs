//! A part's oplog, read as it grows: majority-committed entries, raw, in batches.
//!
//! An entry that a majority has can not be rolled back, so what was read once stays true whichever
//! member it is read from: secondaries are asked first, to spare the primary. But members' oplogs do not
//! reach equally far back: that one begins later than it should says nothing of the others. So the primary
//! is asked next, and if its oplog begins too late, every other member that bears data and is not hidden,
//! each by its own address: entries are lost only if none that answers has them.

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, RawBsonRef, RawDocument, doc, rawdoc};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mongodb::ServerInfo;
use mongodb::error::Error;
use mongodb::options::{CursorType, ReadPreference, ReadPreferenceOptions, SelectionCriteria, ServerAddress};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use stillpoint_core::stream::Position;
use stillpoint_core::{ClusterTime, OpTime};
use tokio::time::timeout;

use crate::error::{MongoError, Result, plain};
use crate::part::{PartLink, cluster_time, hello, read_config, timestamp};
use crate::privileges::{NOTHING, READ_OPLOG, READ_TRANSACTIONS, SEE_OPLOG_SIZE};

/// How long the server waits for a new entry before it answers with an empty batch.
const AWAIT: Duration = Duration::from_millis(1_000);
/// A member that is further behind is not read from: the least that MongoDB takes.
const STALENESS: Duration = Duration::from_secs(90);
/// For a member that is asked by its address, the driver's search for it included. Capture waits for the
/// opening as a whole, so it must be well below that limit.
const MEMBER: Duration = Duration::from_secs(8);
/// More transactions than can be prepared at once; one more is an error, never one left out.
const MOST_PREPARED: i64 = 100_000;

/// An oplog that is being read.
pub struct Tail {
    part: PartLink,
    cursor: Box<RawBatchCursor>,
}

/// What came of opening an oplog where it was left: a [`Tail`] and its first [`Batch`], or why not.
pub enum Opened<T, B> {
    /// The first entry of the batch is the one that was left off at, if one was.
    Tail(T, B),
    /// The oplog begins after it on every member that answered. Those that did not may have it.
    RolledOver { oldest: OpTime, away: Vec<Away> },
    /// The oplog reaches back to it, and it is not there: something else is, or nothing.
    Diverged { instead: OpTime },
}

/// A member whose oplog is not known, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    pub member: String,
    pub why: String,
}

/// Some entries, in the order of the oplog; none if there was nothing new for a moment.
pub struct Batch(RawBatch);

impl Batch {
    /// Each entry as the server wrote it.
    pub fn entries(&self) -> impl Iterator<Item = std::result::Result<&[u8], String>> {
        documents(&self.0).map(|entry| entry.map(RawDocument::as_bytes))
    }

    /// The bytes of the whole reply.
    pub fn bytes(&self) -> usize {
        self.0.as_raw_document().as_bytes().len()
    }

    /// The newest time that a majority of the part's members has, as the member that answered knows.
    pub fn committed(&self) -> Option<ClusterTime> {
        let time = self.0.as_raw_document().get_timestamp("lastCommittedOpTime").ok()?;
        Some(ClusterTime::new(time.time, time.increment))
    }
}

/// The documents of a batch. An element that is no document would be a defect of the server.
pub(crate) fn documents(batch: &RawBatch) -> impl Iterator<Item = std::result::Result<&RawDocument, String>> {
    let (array, broken) = match batch.doc_slices() {
        Ok(array) => (Some(array), None),
        Err(e) => (None, Some(e.to_string())),
    };
    let documents = array.into_iter().flatten().map(|element| match element {
        Ok(element) => element.as_document().ok_or_else(|| "it is no document".into()),
        Err(e) => Err(e.to_string()),
    });
    broken.map(Err).into_iter().chain(documents)
}

/// Where a stream is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// The first entry of the oldest transaction that is prepared, or the newest entry.
    pub from: ClusterTime,
    /// Every transaction that is open at this time or later has all its entries from there on.
    pub complete_from: ClusterTime,
}

/// How far an oplog reaches, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub oldest: OpTime,
    pub bytes: u64,
}

impl PartLink {
    /// Where a stream that begins now has to begin; or one that is to hold everything `since` a time.
    ///
    /// The primary's newest majority-committed entry is asked for before and after the transactions: one
    /// that is open at the second time was either prepared when they were read, and so is among them, or
    /// is younger than the first.
    pub async fn beginning(&self, since: Option<ClusterTime>) -> Result<Beginning> {
        let before = self.committed().await?;
        let filter = doc! {"state": "prepared"};
        let prepared = read_config(self, &READ_TRANSACTIONS, "transactions", filter, MOST_PREPARED).await?;
        let wrong = |why: &str| self.not_understood(&READ_TRANSACTIONS, why);
        if prepared.len() as i64 >= MOST_PREPARED {
            return Err(wrong("more transactions are prepared than can be"));
        }
        let starts = prepared.iter().map(|record| {
            let start =
                record.get_document("startOpTime").ok().and_then(|start| start.get("ts")).and_then(cluster_time);
            start.ok_or_else(|| wrong("a prepared transaction without startOpTime.ts"))
        });
        let starts = starts.collect::<Result<Vec<_>>>()?;
        let after = self.committed().await?;
        // At the first time, too: the chain's last entry may be a prepare that came after they were read.
        for time in [before, after] {
            if self.is_inside_a_transaction(time).await? {
                return Err(self.unreachable("a majority has only a part of a large transaction's entries yet"));
            }
        }
        let from = starts.into_iter().chain([since.unwrap_or(before)]).min().unwrap_or(before);
        Ok(Beginning { from, complete_from: since.unwrap_or(after) })
    }

    /// Whether the entry at this time is one of a chain of `partialTxn` entries, and not its last. They
    /// follow each other, so that at any other entry no chain is unfinished but those that are prepared.
    async fn is_inside_a_transaction(&self, time: ClusterTime) -> Result<bool> {
        let command = doc! {
            "find": "oplog.rs", "filter": {"ts": timestamp(time), "o.partialTxn": true}, "projection": {"ts": 1},
            "limit": 1, "singleBatch": true, "readConcern": {"level": "majority"}, "maxTimeMS": 10_000,
        };
        Ok(!self.first_batch("local", &READ_OPLOG, command).await?.is_empty())
    }

    /// The newest entry that a majority has.
    pub async fn committed(&self) -> Result<ClusterTime> {
        let hello = hello(self).await?;
        let newest = hello.get_document("lastWrite").and_then(|write| write.get_document("majorityOpTime"));
        let time = newest.ok().and_then(|optime| optime.get("ts")).and_then(cluster_time);
        time.ok_or_else(|| self.not_understood(&NOTHING, "it has no lastWrite.majorityOpTime.ts"))
    }

    /// Reads the oplog from a position on.
    pub async fn tail(&self, position: Position) -> Result<Opened<Tail, Batch>> {
        let (tail, batch, first) = self.find_from(time_of(position), secondaries_first()).await?;
        match first {
            Some(first) if is_at(position, first) => Ok(Opened::Tail(tail, batch)),
            _ => self.tail_of_any(position).await,
        }
    }

    /// The same where each member answers for itself: the primary, and all others if its oplog begins too late.
    async fn tail_of_any(&self, position: Position) -> Result<Opened<Tail, Batch>> {
        let hello = hello(self).await?;
        let elected = self.election_in(&hello)?;
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        let opened = self.tail_of(position, primary).await?;
        self.still_elected(&elected).await?;
        let Opened::RolledOver { oldest, .. } = opened else { return Ok(opened) };
        let opened = self.tail_of_others(position, oldest, &others(&hello)).await;
        // In an election members do not answer that do so a moment later.
        self.still_elected(&elected).await?;
        Ok(opened)
    }

    /// All at once, the first that has it; the primary's oldest entry is known to be too young.
    async fn tail_of_others(&self, position: Position, oldest: OpTime, members: &[&str]) -> Opened<Tail, Batch> {
        let ask = |member: &str| {
            let (part, member) = (self.clone(), member.to_owned());
            async move {
                let answer = match ServerAddress::parse(&member) {
                    Ok(address) => timeout(MEMBER, part.tail_of(position, only(address))).await,
                    Err(e) => Ok(Err(part.unreachable(&plain(&e)))),
                };
                (member, answer)
            }
        };
        let mut asked: FuturesUnordered<_> = members.iter().map(|member| ask(member)).collect();
        let (mut oldest, mut away, mut diverged) = (oldest, Vec::new(), None);
        while let Some((member, answer)) = asked.next().await {
            let why = match answer {
                Ok(Ok(opened @ Opened::Tail(..))) => return opened,
                Ok(Ok(Opened::RolledOver { oldest: of_this, .. })) => {
                    oldest = oldest.min(of_this);
                    continue;
                }
                Ok(Ok(Opened::Diverged { instead })) => {
                    diverged = Some(instead);
                    continue;
                }
                Ok(Err(MongoError::Unreachable { why, .. })) => why,
                Ok(Err(e)) => e.to_string(),
                Err(_) => format!("it did not answer within {MEMBER:?}"),
            };
            away.push(Away { member, why });
        }
        away.sort_by(|a, b| a.member.cmp(&b.member));
        match diverged {
            Some(instead) => Opened::Diverged { instead },
            None => Opened::RolledOver { oldest, away },
        }
    }

    /// What one member has at a position, and what its oplog begins with if that is not there.
    async fn tail_of(&self, position: Position, member: SelectionCriteria) -> Result<Opened<Tail, Batch>> {
        let from = time_of(position);
        let (tail, batch, first) = self.find_from(from, member.clone()).await?;
        if first.is_some_and(|first| is_at(position, first)) {
            return Ok(Opened::Tail(tail, batch));
        }
        // Asked after the first batch: what it holds was there, and nothing before it has gone since.
        let oldest = self.end_of_oplog_of(member, 1).await?.ok_or_else(|| self.no_oldest())?;
        match (position, first) {
            _ if oldest.time > from => Ok(Opened::RolledOver { oldest, away: Vec::new() }),
            (Position::After(_), Some(instead)) => Ok(Opened::Diverged { instead }),
            (Position::At(_), Some(_)) => Ok(Opened::Tail(tail, batch)),
            (_, None) => Err(self.unreachable("it has not yet what was read from another member")),
        }
    }

    /// A tail from a time on, with its first batch and that one's first entry.
    async fn find_from(&self, from: ClusterTime, member: SelectionCriteria) -> Result<(Tail, Batch, Option<OpTime>)> {
        let command = rawdoc! {
            "find": "oplog.rs",
            // A bound on ts is what lets the server begin at the right place.
            "filter": {"ts": {"$gte": timestamp(from)}},
            "tailable": true,
            "awaitData": true,
            "readConcern": {"level": "majority"},
            // The first batch only says whether this is where it was left; what follows comes as it fits.
            "batchSize": 1,
            "maxTimeMS": 30_000,
        };
        let local = self.client.database("local");
        let cursor = local
            .run_raw_cursor_command(command)
            .cursor_type(CursorType::TailableAwait)
            .max_time(AWAIT)
            .selection_criteria(member)
            .batch()
            .await
            .map_err(|e| self.tail_error(&e))?;
        let mut tail = Tail { part: self.clone(), cursor: Box::new(cursor) };
        let batch = tail.next().await?;
        let first = match batch.entries().next() {
            Some(Ok(entry)) => optime(entry),
            Some(Err(why)) => return Err(self.not_understood(&READ_OPLOG, why)),
            None => None,
        };
        Ok((tail, batch, first))
    }

    /// Which election made the primary that said this hello: no two have the same.
    fn election_in(&self, hello: &Document) -> Result<Bson> {
        let election = hello.get("electionId").cloned();
        election.ok_or_else(|| self.not_understood(&NOTHING, "it has no electionId"))
    }

    /// What was asked of the primary since was asked of that one.
    async fn still_elected(&self, elected: &Bson) -> Result<()> {
        if self.election_in(&hello(self).await?)? != *elected {
            return Err(self.unreachable("another member became primary while the oplog was opened"));
        }
        Ok(())
    }

    fn unreachable(&self, why: &str) -> MongoError {
        MongoError::Unreachable { part: self.id.to_string(), why: why.into() }
    }

    /// The oldest entry of the primary's oplog.
    async fn oldest_entry(&self) -> Result<OpTime> {
        self.end_of_oplog(1).await?.ok_or_else(|| self.no_oldest())
    }

    fn no_oldest(&self) -> MongoError {
        self.not_understood(&READ_OPLOG, "the oplog's first entry has no ts")
    }

    /// The entry at one end of the primary's oplog, majority-committed: the oldest with direction 1, the newest
    /// with -1.
    pub(crate) async fn end_of_oplog(&self, direction: i32) -> Result<Option<OpTime>> {
        self.end_of_oplog_of(SelectionCriteria::ReadPreference(ReadPreference::Primary), direction).await
    }

    /// The same of any member.
    async fn end_of_oplog_of(&self, member: SelectionCriteria, direction: i32) -> Result<Option<OpTime>> {
        let command = doc! {
            "find": "oplog.rs", "sort": {"$natural": direction}, "projection": {"ts": 1, "t": 1}, "limit": 1,
            "singleBatch": true, "readConcern": {"level": "majority"}, "maxTimeMS": 10_000,
        };
        let found = self.first_batch_of(member, "local", &READ_OPLOG, command).await?;
        Ok(found.first().and_then(|entry| bson::serialize_to_vec(entry).ok()).and_then(|entry| optime(&entry)))
    }

    /// How far the primary's oplog reaches back, and its size.
    pub async fn oplog_extent(&self) -> Result<Extent> {
        let oldest = self.oldest_entry().await?;
        let stats = self.run("local", &SEE_OPLOG_SIZE, doc! {"collStats": "oplog.rs", "maxTimeMS": 10_000}).await?;
        let bytes = match stats.get("size") {
            Some(Bson::Int32(n)) => u64::try_from(*n).ok(),
            Some(Bson::Int64(n)) => u64::try_from(*n).ok(),
            Some(Bson::Double(n)) if *n >= 0.0 => Some(*n as u64),
            _ => None,
        };
        Ok(Extent { oldest, bytes: bytes.ok_or_else(|| self.not_understood(&READ_OPLOG, "collStats has no size"))? })
    }

    fn tail_error(&self, error: &Error) -> MongoError {
        MongoError::from_driver(&self.id, &READ_OPLOG, error)
    }
}

impl Tail {
    /// The next batch. What is under way when this is dropped is not lost, and goes on with the next
    /// call; but after an error a batch may be missing: open the oplog again.
    pub async fn next(&mut self) -> Result<Batch> {
        match self.cursor.next().await {
            Some(Ok(batch)) => Ok(Batch(batch)),
            Some(Err(e)) => Err(self.part.tail_error(&e)),
            None => Err(self.part.unreachable("the server closed the cursor on its oplog")),
        }
    }
}

/// The time from which on a position's entries are.
fn time_of(position: Position) -> ClusterTime {
    match position {
        Position::After(last) => last.time,
        Position::At(time) => time,
    }
}

/// Whether an entry is the one that a position names.
fn is_at(position: Position, entry: OpTime) -> bool {
    match position {
        Position::After(last) => entry == last,
        Position::At(time) => entry.time == time,
    }
}

/// The members that bear data and are not hidden, as the primary names them, without itself.
fn others(hello: &Document) -> Vec<&str> {
    let primary = hello.get_str("me").ok();
    let listed = ["hosts", "passives"].into_iter().filter_map(|list| hello.get_array(list).ok()).flatten();
    listed.filter_map(Bson::as_str).filter(|member| Some(*member) != primary).collect()
}

/// The member with this address, primary or not.
fn only(address: ServerAddress) -> SelectionCriteria {
    SelectionCriteria::Predicate(Arc::new(move |server: &ServerInfo| *server.address() == address))
}

/// The `ts` and `t` of an entry.
fn optime(entry: &[u8]) -> Option<OpTime> {
    let entry = RawDocument::from_bytes(entry).ok()?;
    let time = entry.get_timestamp("ts").ok()?;
    // An integer of either kind, as the oplog room reads it.
    let term = match entry.get("t").ok()? {
        Some(RawBsonRef::Int64(term)) => term,
        Some(RawBsonRef::Int32(term)) => i64::from(term),
        _ => -1,
    };
    Some(OpTime::new(ClusterTime::new(time.time, time.increment), term))
}

pub(crate) fn secondaries_first() -> SelectionCriteria {
    let options = ReadPreferenceOptions::builder().max_staleness(STALENESS).build();
    SelectionCriteria::ReadPreference(ReadPreference::SecondaryPreferred { options: Some(options) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_an_integer_of_either_kind() {
        let ts = bson::Timestamp { time: 7, increment: 2 };
        for (entry, term) in [(doc! {"ts": ts, "t": 3_i64}, 3), (doc! {"ts": ts, "t": 3_i32}, 3), (doc! {"ts": ts}, -1)]
        {
            let bytes = bson::serialize_to_vec(&entry).unwrap();
            assert_eq!(optime(&bytes), Some(OpTime::new(ClusterTime::new(7, 2), term)), "{entry}");
        }
    }
}
