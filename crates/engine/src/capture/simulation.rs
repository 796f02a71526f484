//! One part's capture against a simulated oplog, vault and catalog, each of whose calls may fail before or
//! after it has done what it does, take its time, or be the last one that the process makes.
//!
//! Each seed is one history: an oplog that grows, and a process that is killed and started again. At its
//! end everything works for a while, and then what is stored must be what the oplog was, byte for byte.
//! `SEEDS` says how many are tried, `SEED` tries one again; a failure names its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bson::spec::BinarySubtype;
use bson::{Binary, doc};
use bytes::Bytes;
use futures::FutureExt;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stillpoint_catalog::CatalogError;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{BlobId, Gap, GapCause, Position, Segment, Stream};
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime, OpTime};
use stillpoint_mongo::MongoError;
use stillpoint_mongo::tail::{Beginning, Opened};
use stillpoint_oplog::segment::{Limits, SegmentReader};
use stillpoint_vault::VaultError;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::figures::Figures;
use super::part::{End, Pace, PartCapture};
use super::ports::{Blobs, Entries, EntryBatch, Ledger, Source};
use super::sealer::Of;

#[derive(Clone)]
struct World(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Rung when the process is to die.
    death: Notify,
}

struct State {
    rng: StdRng,
    /// Every entry that there ever was.
    oplog: Vec<(OpTime, Vec<u8>)>,
    /// How many a majority has.
    committed: usize,
    /// How many are no longer there.
    truncated: usize,
    /// Sessions with a prepared transaction: its number, its first entry and its prepare.
    prepared: BTreeMap<u8, (i64, OpTime, OpTime)>,
    numbers: i64,
    /// In a hundred calls.
    faults: u32,
    /// Calls until the process dies.
    lives: u32,
    may_roll_over: bool,
    /// Nobody writes, nothing fails.
    quiet: bool,
    blobs: BTreeMap<String, Bytes>,
    /// Those of them that no segment has.
    unnamed: BTreeSet<String>,
    doomed: BTreeMap<String, Doom>,
    /// The part answers nothing.
    silent: bool,
    /// The vault does not.
    vault_silent: bool,
    /// Entries that were read, some of them several times.
    read: usize,
    replica_set: String,
    stream: Option<Stream>,
    /// Since the stream's last beginning, after those of earlier ones.
    segments: Vec<Segment>,
    begun_at: usize,
    gaps: Vec<Gap>,
}

/// How far the sweep has come with a blob that nothing names.
#[derive(Clone, Copy)]
enum Doom {
    Since(Instant),
    Condemned,
    /// And not yet forgotten.
    Deleted,
}

/// From when a blob is doomed until it is condemned: longer than it takes to store one and note it.
const GRACE: Duration = Duration::from_secs(60);
const CLUSTER: u64 = 7;
/// How many entries [`World::fall_behind`] makes.
const BEHIND: usize = 2_000;

fn cluster() -> ClusterId {
    ClusterId::new(Timestamp::UNIX_EPOCH, CLUSTER)
}

impl State {
    fn next_optime(&mut self) -> OpTime {
        let last = self.oplog.last().map_or(OpTime::new(ClusterTime::new(1_000, 0), 1), |(at, _)| *at);
        let term = last.term + i64::from(self.rng.random_ratio(1, 40));
        let time = match self.rng.random_ratio(1, 4) {
            true => ClusterTime::new(last.time.seconds + self.rng.random_range(1..5), 1),
            false => ClusterTime::new(last.time.seconds, last.time.increment + 1),
        };
        OpTime::new(time, term)
    }

    fn append(&mut self, mut entry: bson::Document) -> OpTime {
        let at = self.next_optime();
        entry.insert("ts", bson::Timestamp { time: at.time.seconds, increment: at.time.increment });
        entry.insert("t", at.term);
        self.oplog.push((at, bson::serialize_to_vec(&entry).unwrap()));
        at
    }

    /// Clients write.
    fn write(&mut self) {
        for _ in 0..self.rng.random_range(0..6) {
            let session = self.rng.random_range(0..4u8);
            match self.rng.random_range(0..12) {
                0 => {
                    let checkpoint = CheckpointId::new(Timestamp::UNIX_EPOCH, self.rng.random()).to_string();
                    let o = doc! {"stillpoint": "token", "checkpoint": checkpoint, "part": "shard rs0", "attempt": 1};
                    self.append(doc! {"op": "n", "ns": "", "o": o});
                }
                1 | 2 if !self.prepared.contains_key(&session) => {
                    self.numbers += 1;
                    let number = self.numbers;
                    let none = OpTime::new(ClusterTime::ZERO, -1);
                    let o = doc! {"applyOps": [], "prepare": true};
                    let at = self.append(transaction(session, number, o, none));
                    self.prepared.insert(session, (number, at, at));
                }
                3 | 4 if self.prepared.contains_key(&session) => {
                    let (number, _, at) = self.prepared.remove(&session).unwrap();
                    let commit = bson::Timestamp { time: at.time.seconds, increment: at.time.increment };
                    let o = match self.rng.random_bool(0.7) {
                        true => doc! {"commitTransaction": 1, "commitTimestamp": commit},
                        false => doc! {"abortTransaction": 1},
                    };
                    self.append(transaction(session, number, o, at));
                }
                _ => {
                    let text = "x".repeat(self.rng.random_range(0..300));
                    self.append(
                        doc! {"op": "i", "ns": "bank.accounts", "o": {"_id": self.oplog.len() as i64, "text": text}},
                    );
                }
            }
        }
        self.committed = self.rng.random_range(self.committed..=self.oplog.len());
        let stored = self.segments.last().map_or(0, |segment| self.index_of(segment.last) + 1);
        let limit = if self.may_roll_over && self.rng.random_ratio(1, 50) { self.committed } else { stored };
        // The server keeps what a prepared transaction needs.
        let oldest = self.prepared.values().map(|(_, first, _)| *first).min();
        let limit = limit.min(oldest.map_or(usize::MAX, |first| self.index_of(first)));
        if limit > self.truncated + 1 {
            self.truncated = self.rng.random_range(self.truncated..limit.min(self.committed));
        }
    }

    /// The sweep takes a step, with one of the blobs that no segment has.
    fn sweep(&mut self) {
        if self.unnamed.is_empty() {
            return;
        }
        let name = self.unnamed.iter().nth(self.rng.random_range(0..self.unnamed.len())).cloned().unwrap();
        match self.doomed.get(&name) {
            None => {
                self.doomed.insert(name, Doom::Since(Instant::now()));
            }
            Some(Doom::Since(at)) if at.elapsed() < GRACE => {}
            Some(Doom::Since(_)) => {
                self.doomed.insert(name, Doom::Condemned);
            }
            Some(Doom::Condemned) => {
                self.blobs.remove(&name);
                self.doomed.insert(name, Doom::Deleted);
            }
            Some(Doom::Deleted) => {
                self.doomed.remove(&name);
                if !self.blobs.contains_key(&name) {
                    self.unnamed.remove(&name);
                }
            }
        }
    }

    fn save(&mut self, place: &str) -> Result<(), CatalogError> {
        let is_there = |name: &String| name.rsplit_once('-').is_some_and(|(of, _)| of == place);
        if self.doomed.iter().any(|(name, doom)| is_there(name) && !matches!(doom, Doom::Since(_))) {
            return Err(CatalogError::BeingDeleted(place.into()));
        }
        self.doomed.retain(|name, _| !is_there(name));
        Ok(())
    }

    /// Whether the part never answers a question.
    fn never_answers(&mut self) -> bool {
        self.silent || !self.quiet && self.faults > 0 && self.rng.random_ratio(1, 10)
    }

    fn index_of(&self, at: OpTime) -> usize {
        self.oplog.partition_point(|(other, _)| *other < at)
    }
}

fn transaction(session: u8, number: i64, o: bson::Document, before: OpTime) -> bson::Document {
    let id = Binary { subtype: BinarySubtype::Uuid, bytes: vec![session; 16] };
    let ts = bson::Timestamp { time: before.time.seconds, increment: before.time.increment };
    doc! {
        "lsid": {"id": id}, "txnNumber": number, "op": "c", "ns": "admin.$cmd", "o": o,
        "prevOpTime": {"ts": ts, "t": before.term},
    }
}

/// What a simulated call is to come to.
enum Fate {
    Done,
    FailBefore,
    FailAfter,
}

impl World {
    fn new(seed: u64) -> World {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            oplog: Vec::new(),
            committed: 0,
            truncated: 0,
            prepared: BTreeMap::new(),
            numbers: 0,
            faults: 0,
            lives: u32::MAX,
            may_roll_over: seed.is_multiple_of(4),
            quiet: false,
            blobs: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            doomed: BTreeMap::new(),
            silent: false,
            vault_silent: false,
            read: 0,
            replica_set: "rs0".into(),
            stream: None,
            segments: Vec::new(),
            begun_at: 0,
            gaps: Vec::new(),
        };
        World(Arc::new(Inner { state: Mutex::new(state), death: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// What each call passes through: clients write meanwhile, it takes its time, and may be the last.
    async fn fate(&self) -> Fate {
        let (delay, dead, fate) = {
            let mut state = self.state();
            // Sometimes nothing, sometimes much.
            if state.quiet || state.rng.random_ratio(1, 6) {
                (0..4).for_each(|_| state.sweep());
            }
            if state.quiet {
                return Fate::Done;
            }
            state.write();
            if state.lives == 1 {
                self.0.death.notify_one();
            }
            state.lives = state.lives.saturating_sub(1);
            let delay = if state.rng.random_ratio(1, 8) { state.rng.random_range(1..3_000) } else { 0 };
            let fails = state.rng.random_range(0..100) < state.faults;
            let fate = match (fails, state.rng.random_bool(0.5)) {
                (true, true) => Fate::FailBefore,
                (true, false) => Fate::FailAfter,
                (false, _) => Fate::Done,
            };
            (delay, state.lives == 0, fate)
        };
        if dead {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(delay)).await;
        fate
    }

    /// A call to what `act` does, with an error of the caller's making.
    async fn call<T, E>(&self, error: impl Fn() -> E, act: impl FnOnce(&mut State) -> Result<T, E>) -> Result<T, E> {
        let fate = self.fate().await;
        if matches!(fate, Fate::FailBefore) {
            return Err(error());
        }
        let done = act(&mut self.state());
        if matches!(fate, Fate::FailAfter) {
            return Err(error());
        }
        // What was done is known a moment later only.
        self.fate().await;
        done
    }
}

fn cut_off() -> MongoError {
    MongoError::Unreachable { part: "rs0".into(), why: "the network parted".into() }
}

#[async_trait]
impl Source for World {
    type Tail = SimTail;

    async fn beginning(&self, _: Option<ClusterTime>) -> Result<Beginning, MongoError> {
        if self.state().never_answers() {
            std::future::pending::<()>().await;
        }
        self.call(cut_off, |state| {
            if state.committed == 0 {
                return Err(cut_off());
            }
            let newest = state.oplog[state.committed - 1].0;
            let open = state.prepared.values().map(|(_, first, _)| first.time).filter(|first| *first <= newest.time);
            // A transaction may be over in what is not yet committed: then it is among those open, too.
            let resolved = state.oplog[state.committed..].iter().filter_map(|(_, entry)| {
                let entry: bson::Document = bson::deserialize_from_slice(entry).ok()?;
                let before = entry.get_document("prevOpTime").ok()?.get_timestamp("ts").ok()?;
                (before.time > 0).then(|| ClusterTime::new(before.time, before.increment))
            });
            let from = open.chain(resolved).min().unwrap_or(newest.time).min(newest.time);
            Ok(Beginning { from, complete_from: newest.time })
        })
        .await
    }

    async fn open(&self, position: Position) -> Result<Opened<SimTail, SimBatch>, MongoError> {
        if self.state().never_answers() {
            std::future::pending::<()>().await;
        }
        let world = self.clone();
        self.call(cut_off, |state| {
            let from = match position {
                Position::After(last) => last.time,
                Position::At(time) => time,
            };
            let oldest = state.oplog[state.truncated].0;
            if oldest.time > from {
                return Ok(Opened::RolledOver { oldest, away: Vec::new() });
            }
            let index = state.oplog.partition_point(|(at, _)| at.time < from);
            if index >= state.committed {
                return Err(cut_off());
            }
            let batch = SimBatch { entries: vec![state.oplog[index].1.clone()] };
            match position {
                Position::After(last) if state.oplog[index].0 != last => {
                    Ok(Opened::Diverged { instead: state.oplog[index].0 })
                }
                _ => Ok(Opened::Tail(SimTail { world, next: index + 1 }, batch)),
            }
        })
        .await
    }
}

struct SimTail {
    world: World,
    next: usize,
}

struct SimBatch {
    entries: Vec<Vec<u8>>,
}

#[async_trait]
impl Entries for SimTail {
    type Batch = SimBatch;

    async fn next(&mut self) -> Result<SimBatch, MongoError> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let next = self.next;
        let batch = self.world.call(cut_off, |state| {
            if state.truncated > next {
                return Err(cut_off());
            }
            let end = state.committed.min(next + state.rng.random_range(0..30));
            Ok(state.oplog[next..end.max(next)].iter().map(|(_, entry)| entry.clone()).collect::<Vec<_>>())
        });
        let entries = batch.await?;
        self.next += entries.len();
        self.world.state().read += entries.len();
        Ok(SimBatch { entries })
    }
}

impl EntryBatch for SimBatch {
    fn entries(&self) -> impl Iterator<Item = Result<&[u8], String>> {
        self.entries.iter().map(|entry| Ok(entry.as_slice()))
    }

    fn bytes(&self) -> usize {
        self.entries.len() << 16
    }

    fn committed(&self) -> Option<ClusterTime> {
        None
    }
}

#[async_trait]
impl Blobs for World {
    async fn put(&self, place: &str, content: Bytes) -> Result<(BlobId, u64), VaultError> {
        if self.state().vault_silent {
            std::future::pending::<()>().await;
        }
        let failed =
            || VaultError::Unavailable { vault: "it".into(), doing: "write".into(), why: "the disk is full".into() };
        self.call(failed, |state| {
            let blob = BlobId(*blake3::hash(&content).as_bytes());
            let name = format!("{place}-{blob}");
            if state.blobs.insert(name.clone(), content.clone()).is_none() {
                state.unnamed.insert(name);
            }
            Ok((blob, content.len() as u64))
        })
        .await
    }
}

fn locked() -> CatalogError {
    CatalogError::Store("database is locked".into())
}

#[async_trait]
impl Ledger for World {
    async fn stream(&self) -> Result<Option<Stream>, CatalogError> {
        self.call(locked, |state| Ok(state.stream.clone())).await
    }

    async fn begin(&self, stream: &Stream, gap: Option<&Gap>) -> Result<(), CatalogError> {
        self.call(locked, |state| {
            state.stream = Some(stream.clone());
            state.begun_at = state.segments.len();
            state.gaps.extend(gap.cloned());
            Ok(())
        })
        .await
    }

    async fn last_segment(&self) -> Result<Option<Segment>, CatalogError> {
        self.call(locked, |state| Ok(state.segments[state.begun_at..].last().cloned())).await
    }

    async fn keep_blobs(&self, place: &str) -> Result<(), CatalogError> {
        self.call(locked, |state| state.save(place)).await
    }

    async fn append(&self, segment: &Segment) -> Result<(), CatalogError> {
        self.call(locked, |state| {
            let last = state.segments[state.begun_at..].last();
            if last == Some(segment) {
                return Ok(());
            }
            assert_eq!(segment.previous, last.map(|last| last.blob), "not the next segment");
            assert!(last.is_none_or(|last| last.last < segment.first), "stored twice");
            state.save(&segment.place())?;
            assert!(state.blobs.contains_key(&segment.name()), "noted and not in the vault");
            state.unnamed.remove(&segment.name());
            state.segments.push(segment.clone());
            Ok(())
        })
        .await
    }
}

impl World {
    fn process(&self) -> PartCapture<World, World, World> {
        let (full, long, replica_set) = {
            let mut state = self.state();
            let (full, long) = (state.rng.random_range(500..4_000), state.rng.random_range(2_000..20_000));
            (full, long, state.replica_set.clone())
        };
        PartCapture {
            of: Of { cluster: cluster(), part: PartId::Shard("rs0".into()) },
            replica_set,
            since: None,
            source: self.clone(),
            blobs: self.clone(),
            ledger: self.clone(),
            pace: Pace { full, long, ..Pace::default() },
            clock: Arc::new(|| Timestamp::UNIX_EPOCH),
            room: Arc::new(Semaphore::new(1)),
            figures: Arc::new(Figures::new("rs0".into())),
            after_action: None,
        }
    }

    /// A process that lives for so many calls, or is stopped, and stops.
    async fn live(&self, lives: u32, faults: u32, stop_after: Option<Duration>) {
        {
            let mut state = self.state();
            (state.lives, state.faults) = (lives, faults);
        }
        // The last process may have ended by itself just as it was to die.
        let _ = self.0.death.notified().now_or_never();
        let stop = CancellationToken::new();
        let process = self.process();
        let stopped = async {
            tokio::time::sleep(stop_after.unwrap_or(Duration::from_secs(600))).await;
            stop.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            end = process.run(&stop) => assert_eq!(end, End::Stopped),
            () = self.0.death.notified() => {}
            () = stopped => {}
        }
        let report = process.figures.report(Timestamp::UNIX_EPOCH);
        assert!(!report.halted, "{report:?}");
    }

    /// Much is written while nothing is read.
    fn fall_behind(&self) {
        let mut state = self.state();
        let wanted = state.oplog.len() + BEHIND;
        while state.oplog.len() < wanted {
            state.write();
        }
        state.committed = state.oplog.len();
    }

    /// Everything works for a while, and then all is stored.
    async fn settle(&self) {
        {
            let mut state = self.state();
            state.append(doc! {"op": "n", "ns": "", "o": {"msg": "the last entry"}});
            state.committed = state.oplog.len();
            state.quiet = true;
        }
        self.live(u32::MAX, 0, Some(Duration::from_secs(120))).await;
        self.check();
    }

    /// What is stored, and what the oplog was.
    fn check(&self) {
        let state = self.state();
        let stream = state.stream.as_ref().unwrap();
        let mut previous: Option<&Segment> = None;
        let mut runs: Vec<Vec<(OpTime, Vec<u8>)>> = Vec::new();
        for segment in &state.segments {
            if segment.previous.is_none() {
                runs.push(Vec::new());
            }
            assert_eq!(segment.previous, previous.filter(|_| segment.previous.is_some()).map(|p| p.blob));
            let reader = SegmentReader::open(state.blobs[&segment.name()].clone(), Limits::default()).unwrap();
            let run = runs.last_mut().unwrap();
            let before = run.len();
            for entry in reader.entries_from(ClusterTime::ZERO) {
                let entry = entry.unwrap();
                run.push((entry.at, entry.bytes.to_vec()));
            }
            assert_eq!((run.len() - before) as u64, segment.entries);
            assert_eq!((run[before].0, run.last().unwrap().0), (segment.first, segment.last));
            previous = Some(segment);
        }
        for run in &runs {
            let first = state.index_of(run[0].0);
            assert_eq!(*run, state.oplog[first..first + run.len()], "not the oplog's entries, each once");
        }
        // What is not stored is said to be missing.
        for pair in runs.windows(2) {
            let end = state.index_of(pair[0].last().unwrap().0) + 1;
            let missing = &state.oplog[end..state.index_of(pair[1][0].0).max(end)];
            let is_known = |at: ClusterTime| state.gaps.iter().any(|gap| gap.touches(at, at));
            assert!(missing.iter().all(|(at, _)| is_known(at.time)), "a gap that is not known");
        }
        let last = runs.last().unwrap();
        assert!(last[0].0.time >= stream.from);
        assert_eq!(last.last().unwrap().0, state.oplog[state.committed - 1].0, "all that was committed");
        let mut open: Vec<_> = state.prepared.values().map(|(number, first, _)| (*number, *first)).collect();
        let mut stored: Vec<_> =
            state.segments.last().unwrap().open.iter().map(|open| (open.number, open.first)).collect();
        open.sort();
        stored.sort();
        assert_eq!(open, stored, "the transactions that are open");
        assert!(state.may_roll_over || state.gaps.is_empty());
    }
}

async fn history(seed: u64) {
    let world = World::new(seed);
    let rounds = world.state().rng.random_range(1..6);
    for _ in 0..rounds {
        let (lives, faults, stop) = {
            let mut state = world.state();
            let lives = state.rng.random_range(1..120);
            let faults = [0, 5, 30][state.rng.random_range(0..3)];
            let stop = state.rng.random_ratio(1, 3).then(|| Duration::from_secs(state.rng.random_range(1..60)));
            (lives, faults, stop)
        };
        world.live(lives, faults, stop).await;
        // No process runs for a while, and the sweep of another has not ended.
        let down = world.state().rng.random_range(0..200);
        tokio::time::sleep(Duration::from_secs(down)).await;
    }
    world.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_part_that_never_answers_is_not_waited_for_at_a_stop() {
    let world = World::new(1);
    world.state().silent = true;
    let (process, stop) = (world.process(), CancellationToken::new());
    let begun = Instant::now();
    let asked = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        stop.cancel();
    };
    let (end, ()) = tokio::join!(process.run(&stop), asked);
    assert_eq!((end, begun.elapsed().as_secs()), (End::Stopped, 5));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_never_answered_is_asked_again() {
    let world = World::new(1);
    world.state().silent = true;
    let answers = async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        world.state().silent = false;
    };
    tokio::join!(world.live(u32::MAX, 0, Some(Duration::from_secs(200))), answers);
    assert!(world.state().stream.is_some());
}

#[tokio::test(start_paused = true)]
async fn reading_waits_for_a_vault_that_does_not_answer() {
    let world = World::new(1);
    world.live(u32::MAX, 0, Some(Duration::from_secs(60))).await;
    world.fall_behind();
    world.state().vault_silent = true;
    let before = world.state().read;
    let (process, stop) = (world.process(), CancellationToken::new());
    let watched = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        let read = world.state().read;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(world.state().read, read, "it reads on and on");
        // What is in two segments and two batches.
        assert!((1..BEHIND / 5).contains(&(read - before)), "{}", read - before);
    };
    tokio::select! {
        end = process.run(&stop) => panic!("{end:?}"),
        () = watched => {}
    }
    world.state().vault_silent = false;
    world.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_is_read_only_when_there_is_room_for_it() {
    let world = World::new(1);
    world.live(u32::MAX, 0, Some(Duration::from_secs(60))).await;
    world.fall_behind();
    let (process, stop) = (world.process(), CancellationToken::new());
    let room = process.room.clone().acquire_owned().await.unwrap();
    let before = world.state().read;
    let watched = async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(world.state().read, before);
        drop(room);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(world.state().read > before + BEHIND / 5, "it does not give back its room");
    };
    tokio::select! {
        end = process.run(&stop) => panic!("{end:?}"),
        () = watched => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_halt_says_what_to_do() {
    let world = World::new(1);
    world.live(u32::MAX, 0, Some(Duration::from_secs(60))).await;
    {
        let mut state = world.state();
        state.append(doc! {"op": "n", "ns": "", "o": {}, "txnNumber": "one"});
        state.committed = state.oplog.len();
    }
    let (process, stop) = (world.process(), CancellationToken::new());
    let stopped = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        stop.cancel();
    };
    tokio::join!(process.run(&stop), stopped);
    let report = process.figures.report(Timestamp::UNIX_EPOCH);
    let (_, why) = report.trouble.unwrap();
    assert!(report.halted && why.contains("txnNumber") && why.contains("remove the cluster"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn what_has_the_name_of_a_shard_that_left_does_not_go_on_with_its_stream() {
    let world = World::new(1);
    world.live(u32::MAX, 0, Some(Duration::from_secs(60))).await;
    let last = world.state().segments.last().unwrap().clone();
    world.state().replica_set = "other".into();
    world.live(u32::MAX, 0, Some(Duration::from_secs(60))).await;
    let state = world.state();
    let stream = state.stream.as_ref().unwrap();
    assert_eq!(stream.replica_set, "other");
    let [gap] = &state.gaps[..] else { panic!("{:?}", state.gaps) };
    assert_eq!((gap.cause, gap.until), (GapCause::ShardAway, stream.complete_from));
    assert!(gap.after <= last.last.time && gap.detail.contains("rs0") && gap.detail.contains("other"), "{gap:?}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_fails_whenever_every_entry_is_stored_once() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(2_000),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(1_000_000), history(seed)).await.expect("it hangs")
            })
        }));
        assert!(tried.is_ok(), "SEED={seed} failed");
    }
}
