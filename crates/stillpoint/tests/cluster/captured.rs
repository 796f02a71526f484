//! What is stored of every part, read back from the catalog and the vault, and held against the part's
//! own oplog: entry by entry, byte by byte, nothing missing and nothing twice.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use mongodb::options::ReadConcern;
use stillpoint_catalog::Catalog;
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::{Checkpoint, PartId, State};
use stillpoint_core::stream::{BlobId, OpenTransaction, Segment, StoredToken, Stream};
use stillpoint_lab::wait::until;
use stillpoint_lab::{Lab, ReplicaSet};
use stillpoint_oplog::segment::Limits;
use stillpoint_oplog::{Entry, Kind, SegmentReader, Transactions};
use stillpoint_vault::{Options, Vault};

use crate::support::{LIMITS, Server, set_of, timestamp};

/// What is stored of one part since its stream began.
#[derive(Debug)]
pub struct Captured {
    pub stream: Stream,
    pub segments: Vec<Segment>,
    /// The tokens in it.
    pub tokens: Vec<StoredToken>,
    /// The transactions that are open after its last entry.
    pub open: Vec<OpenTransaction>,
    pub entries: u64,
    pub bytes: u64,
}

/// The vault that a server has when it is told nothing of one.
pub fn folder(server: &Server) -> Options {
    Options::new(format!("file:{}", server.folder().join("vault").display()))
}

/// A server that stores entries after a second, and its vault.
pub async fn server_of(lab: &Lab) -> (Server, Vault) {
    let server = Server::with(lab, &format!("interval = \"off\"\n{LIMITS}\n[capture]\nseal_after = \"1s\"\n")).await;
    let vault = Vault::open(&folder(&server), None).await.unwrap();
    (server, vault)
}

pub fn shard(i: usize) -> PartId {
    PartId::Shard(format!("rs{i}"))
}

/// The parts of a lab, the config servers last.
pub fn parts(lab: &Lab) -> Vec<PartId> {
    let shards = lab.shards().iter().map(|shard| PartId::Shard(shard.name().into()));
    shards.chain([PartId::ConfigServers]).collect()
}

/// The newest entry that a majority of the set has.
pub async fn majority(set: &ReplicaSet) -> ClusterTime {
    let newest = || async {
        let hello = set.run("admin", doc! {"hello": 1}).await.ok()?;
        let optime = hello.get_document("lastWrite").ok()?.get_document("majorityOpTime").ok()?;
        let ts = optime.get_timestamp("ts").ok()?;
        Some(ClusterTime::new(ts.time, ts.increment))
    };
    until(Duration::from_secs(60), newest).await.expect("a set without lastWrite.majorityOpTime")
}

/// Waits until everything is stored that is in the part's oplog now.
pub async fn until_stored(lab: &Lab, server: &Server, part: &PartId, limit: Duration) {
    let wanted = majority(set_of(lab, part)).await;
    until_stored_up_to(server, part, wanted, limit).await;
}

/// Waits until the stream reaches to a time.
pub async fn until_stored_up_to(server: &Server, part: &PartId, wanted: ClusterTime, limit: Duration) {
    let catalog = server.catalog();
    let last =
        || async { catalog.last_segment(server.cluster(), part).await.unwrap().map(|segment| segment.last.time) };
    let reached = until(limit, || async { last().await.filter(|last| *last >= wanted) }).await;
    if reached.is_none() {
        panic!("{part}: stored to {:?}, not to {wanted} within {limit:?}", last().await);
    }
}

/// All segments of a part since its stream began, in order.
pub async fn segments(server: &Server, part: &PartId, from: ClusterTime) -> Vec<Segment> {
    let (catalog, mut all) = (server.catalog(), Vec::<Segment>::new());
    let mut after = from;
    loop {
        let page = catalog.segments(server.cluster(), part, after, ClusterTime::MAX, 100).await.unwrap();
        let more = page.len() == 100;
        // A page begins with the last segment of the one before it.
        let repeated = all.last().is_some_and(|last| page.first().is_some_and(|first| first.blob == last.blob));
        all.extend(page.into_iter().skip(usize::from(repeated)));
        match all.last() {
            Some(last) if more => after = last.last.time,
            _ => return all,
        }
    }
}

/// The stored segments of a part as readers, each with its record.
pub async fn stored(server: &Server, vault: &Vault, part: &PartId) -> (Stream, Vec<(Segment, SegmentReader)>) {
    let stream = server.catalog().stream(server.cluster(), part).await.unwrap();
    let stream = stream.unwrap_or_else(|| panic!("{part} has no stream"));
    let mut readers = Vec::new();
    for segment in segments(server, part, stream.from).await {
        readers.push((segment.clone(), open(vault, &segment).await));
    }
    (stream, readers)
}

async fn open(vault: &Vault, segment: &Segment) -> SegmentReader {
    let content = vault.get(&segment.name(), segment.blob).await.unwrap_or_else(|e| panic!("{segment:?}: {e}"));
    SegmentReader::open(content, Limits::default()).unwrap_or_else(|e| panic!("{segment:?}: {e}"))
}

/// Compares what is stored of a part with the part's own oplog.
pub async fn assert_part(lab: &Lab, server: &Server, vault: &Vault, part: &PartId) -> Captured {
    let stream = server.catalog().stream(server.cluster(), part).await.unwrap();
    let stream = stream.unwrap_or_else(|| panic!("{part} has no stream"));
    let segments = segments(server, part, stream.from).await;
    let oplog = set_of(lab, part).client().database("local").collection::<RawDocumentBuf>("oplog.rs");
    let find = oplog.find(doc! {"ts": {"$gte": timestamp(stream.from)}}).sort(doc! {"$natural": 1});
    let mut real = find.read_concern(ReadConcern::majority()).await.unwrap();
    let mut table = Transactions::new(Vec::new(), stream.complete_from).unwrap();
    let (mut previous, mut tokens, mut entries, mut bytes): (Option<BlobId>, Vec<StoredToken>, u64, u64) =
        (None, Vec::new(), 0, 0);
    for segment in &segments {
        let reader = open(vault, segment).await;
        let header = reader.header();
        assert_eq!(segment.previous, previous, "{part}: the chain at {}", segment.first);
        assert_eq!((header.cluster, &header.part), (segment.cluster, &part.key()));
        assert_eq!((header.first, header.last), (segment.first, segment.last));
        assert_eq!((header.entries, header.bytes), (segment.entries, segment.bytes));
        assert_eq!(header.previous, segment.previous);
        assert_eq!(header.open, table.open(), "{part}: open before {}", segment.first);
        let (mut count, mut in_it) = (0, Vec::new());
        for entry in reader.entries_from(ClusterTime::ZERO) {
            let entry = entry.unwrap_or_else(|e| panic!("{part}: {segment:?}: {e}"));
            assert!(real.advance().await.unwrap(), "{part}: {} is stored and not in the oplog", entry.at);
            let real = real.current().as_bytes();
            if real != &entry.bytes[..] {
                let real = bson::deserialize_from_slice::<Document>(real);
                let stored = bson::deserialize_from_slice::<Document>(&entry.bytes);
                panic!("{part}: the oplog has {real:?}, and stored is {stored:?}");
            }
            let read = Entry::read(&entry.bytes).unwrap();
            table.see(&read).unwrap();
            if let Kind::Token(token) = read.kind {
                in_it.push(StoredToken { checkpoint: token.checkpoint, attempt: token.attempt, at: entry.at });
            }
            count += 1;
            bytes += entry.bytes.len() as u64;
        }
        assert_eq!(count, segment.entries);
        assert_eq!(in_it, segment.tokens, "{part}: tokens of the segment at {}", segment.first);
        assert_eq!(segment.open, table.open(), "{part}: open after {}", segment.last);
        tokens.extend(in_it);
        entries += count;
        previous = Some(segment.blob);
    }
    Captured { stream, segments, tokens, open: table.open(), entries, bytes }
}

/// Waits until all is stored that is in the oplogs now, and compares all of it.
pub async fn assert_all(lab: &Lab, server: &Server, vault: &Vault, limit: Duration) -> BTreeMap<PartId, Captured> {
    let mut all = BTreeMap::new();
    for part in parts(lab) {
        until_stored(lab, server, &part, limit).await;
        all.insert(part.clone(), assert_part(lab, server, vault, &part).await);
    }
    all
}

/// Asserts that each token of a completed checkpoint is stored where its record says.
pub fn assert_stored_tokens(record: &Checkpoint, captured: &BTreeMap<PartId, Captured>) {
    assert_eq!(record.state, State::Completed);
    for part in &record.parts {
        let token = part.token.unwrap();
        let tokens = &captured[&part.id].tokens;
        let is_it = |stored: &&StoredToken| stored.checkpoint == record.id && stored.attempt == token.attempt;
        let stored: Vec<_> = tokens.iter().filter(is_it).map(|stored| stored.at.time).collect();
        assert!(stored.contains(&token.time), "{}: {token:?} of {} is not among {stored:?}", part.id, record.id);
    }
}

/// The sessions of the transactions that are prepared on a set now, as an [`OpenTransaction`] has them.
pub async fn prepared(set: &ReplicaSet) -> Vec<(String, i64)> {
    let transactions = set.client().database("config").collection::<RawDocumentBuf>("transactions");
    let mut cursor = transactions.find(doc! {"state": "prepared"}).await.unwrap();
    let mut found = Vec::new();
    while cursor.advance().await.unwrap() {
        let record = cursor.current();
        let lsid = record.get_document("_id").unwrap().as_bytes();
        let hex = lsid.iter().map(|byte| format!("{byte:02x}")).collect();
        found.push((hex, record.get_i64("txnNum").unwrap()));
    }
    found.sort();
    found
}

/// Those of the open ones that are prepared, as [`prepared`] has them.
pub fn prepared_of(open: &[OpenTransaction]) -> Vec<(String, i64)> {
    let mut all: Vec<_> =
        open.iter().filter(|one| one.prepared.is_some()).map(|one| (one.session.clone(), one.number)).collect();
    all.sort();
    all
}
