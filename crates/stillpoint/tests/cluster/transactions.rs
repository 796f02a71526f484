//! Transactions across a checkpoint, a beginning and an election: what real servers write of them, and
//! what the stored stream says of them.

use std::time::Duration;

use bson::{Document, doc};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::{ClusterTime, OpTime};
use stillpoint_lab::transaction::{Prepared, Transaction};
use stillpoint_lab::wait::until;
use stillpoint_lab::wire::operation_time;
use stillpoint_lab::{Lab, ReplicaSet};
use stillpoint_oplog::segment::SegmentError;
use stillpoint_oplog::{EntryError, Outcome, SegmentReader, TransactionError, Unresolved};
use stillpoint_vault::Vault;

use crate::captured::{Captured, assert_part, majority, prepared, prepared_of, server_of, shard, stored, until_stored};
use crate::support::{NS, SOON, Server, lab, lab_of, oplog};

/// Two of these are more than an entry takes.
const LARGE: usize = 9 << 20;
/// Lets each entry take one operation only, so that every transaction of several is a chain.
const CHAINS: &str = "maxNumberOfTransactionOperationsInSingleOplogEntry=1";
const ELECTED: Duration = Duration::from_secs(60);

fn clock(ts: bson::Timestamp) -> ClusterTime {
    ClusterTime::new(ts.time, ts.increment)
}

async fn insert(transaction: &mut Transaction, shard: &str, document: Document) {
    let statement = doc! {"insert": "accounts", "documents": [document]};
    transaction.run(shard, "bank", statement).await.unwrap();
}

/// A transaction that is prepared on both shards.
async fn prepare(lab: &Lab, id: i32) -> Prepared {
    let mut transaction = Transaction::begin(&lab.topology());
    insert(&mut transaction, "rs0", doc! {"_id": -id}).await;
    insert(&mut transaction, "rs1", doc! {"_id": id}).await;
    transaction.prepare().await.unwrap()
}

#[derive(Debug)]
struct Wrong(#[expect(dead_code, reason = "it is for the panic's message")] String);

impl From<EntryError> for Wrong {
    fn from(e: EntryError) -> Wrong {
        Wrong(e.to_string())
    }
}

impl From<TransactionError> for Wrong {
    fn from(e: TransactionError) -> Wrong {
        Wrong(e.to_string())
    }
}

impl From<SegmentError> for Wrong {
    fn from(e: SegmentError) -> Wrong {
        Wrong(e.to_string())
    }
}

/// What T cuts through, from the beginning of the stream, and the same from the segment that T is in.
async fn unresolved_at(server: &Server, vault: &Vault, part: &PartId, t: ClusterTime) -> Unresolved {
    let (stream, stored) = stored(server, vault, part).await;
    let readers: Vec<SegmentReader> = stored.into_iter().map(|(_, reader)| reader).collect();
    let read = |from: usize| {
        let entries = readers[from..].iter().flat_map(|reader| reader.entries_from(ClusterTime::ZERO));
        let open = readers[from].header().open.clone();
        Unresolved::at(t, open, stream.complete_from, entries.map(|entry| entry.map_err(Wrong::from))).unwrap()
    };
    let near = readers.iter().rposition(|reader| reader.header().first.time <= t).unwrap();
    let (all, near) = (read(0), read(near));
    assert_eq!(all, near, "{part}");
    assert!(all.passed(), "{part}: {all:?}");
    all
}

/// Waits until all that there is now is stored, and compares it.
async fn captured(lab: &Lab, server: &Server, vault: &Vault, part: &PartId) -> Captured {
    until_stored(lab, server, part, SOON).await;
    assert_part(lab, server, vault, part).await
}

/// Writes an entry that is nobody's; its time.
async fn note(set: &ReplicaSet) -> bson::Timestamp {
    let note = doc! {"appendOplogNote": 1, "data": {"test": 1}, "writeConcern": {"w": "majority"}};
    operation_time(&set.run("admin", note).await.unwrap()).unwrap()
}

/// The steps of transactions in an oplog, oldest first.
async fn steps(set: &ReplicaSet, after: ClusterTime) -> Vec<Document> {
    let step = doc! {"op": "c", "ts": {"$gt": crate::support::timestamp(after)}, "$or": [
        {"o.applyOps.ns": NS},
        {"o.commitTransaction": {"$exists": true}},
        {"o.abortTransaction": {"$exists": true}},
    ]};
    oplog(set, step).await
}

fn position(entry: &Document) -> OpTime {
    OpTime::new(clock(entry.get_timestamp("ts").unwrap()), entry.get_i64("t").unwrap())
}

fn previous(entry: &Document) -> Option<OpTime> {
    let previous = entry.get_document("prevOpTime").ok()?;
    let time = clock(previous.get_timestamp("ts").unwrap());
    (time != ClusterTime::ZERO).then(|| OpTime::new(time, previous.get_i64("t").unwrap()))
}

#[tokio::test]
async fn a_checkpoint_cuts_through_exactly_the_transactions_that_were_held_open_across_it() {
    let lab = lab().await;
    let (server, vault) = server_of(&lab).await;
    prepare(&lab, 1).await.commit().await.unwrap();
    let committed = prepare(&lab, 2).await;
    let aborted = prepare(&lab, 3).await;
    let later = prepare(&lab, 4).await;
    let commit = clock(committed.commit_timestamp());
    let record = server.complete().await;
    let cut = record.cut.unwrap();
    assert!(commit <= cut);
    let mut before = Vec::new();
    for i in 0..2 {
        let part = shard(i);
        // T must be passed.
        note(lab.shard(i)).await;
        captured(&lab, &server, &vault, &part).await;
        let unresolved = unresolved_at(&server, &vault, &part, cut).await;
        let mut named: Vec<_> = unresolved.transactions.iter().map(|one| (one.session.clone(), one.number)).collect();
        named.sort();
        assert_eq!(named, prepared(lab.shard(i)).await);
        assert_eq!((named.len(), unresolved.pending().count(), unresolved.until()), (3, 3, None));
        assert_eq!(unresolved.oldest, Some(unresolved.transactions[0].first));
        assert_eq!(clock(committed.prepare_timestamps()[i]), unresolved.transactions[0].prepared);
        before.push(unresolved);
    }
    committed.commit().await.unwrap();
    aborted.abort().await.unwrap();
    let mut latest = bson::Timestamp { time: 0, increment: 0 };
    for set in lab.shards() {
        latest = latest.max(note(set).await);
    }
    later.as_of(latest).commit().await.unwrap();
    for (i, before) in before.iter().enumerate() {
        let part = shard(i);
        let all = captured(&lab, &server, &vault, &part).await;
        assert_eq!(all.open, []);
        let unresolved = unresolved_at(&server, &vault, &part, cut).await;
        assert_eq!((unresolved.pending().count(), unresolved.oldest), (0, before.oldest));
        let outcomes: Vec<_> = unresolved.transactions.iter().map(|one| one.ending.unwrap().outcome).collect();
        let expected = [Outcome::Committed(commit), Outcome::Aborted, Outcome::Committed(clock(latest))];
        assert_eq!(outcomes, expected);
        assert!(unresolved.transactions.iter().all(|one| one.ending.unwrap().at.time > cut));
        let belongs: Vec<_> = unresolved.committed().map(|(one, time)| (one.prepared, time)).collect();
        assert_eq!(belongs, [(before.transactions[0].prepared, commit)]);
        // As of the later commit's time it belongs to the state, too.
        let later = unresolved_at(&server, &vault, &part, clock(latest)).await;
        assert_eq!(later.committed().count(), 1, "{later:?}");
    }
}

#[tokio::test]
async fn a_stream_that_begins_while_a_transaction_is_prepared_has_its_first_entry_and_its_commit() {
    let lab = lab_of(Lab::builder().parameter(CHAINS)).await;
    let mut transaction = Transaction::begin(&lab.topology());
    for id in [-1, -2, -3] {
        insert(&mut transaction, "rs0", doc! {"_id": id}).await;
    }
    insert(&mut transaction, "rs1", doc! {"_id": 1}).await;
    let held = transaction.prepare().await.unwrap();
    let ended = prepare(&lab, 20).await;
    let mut first = Vec::new();
    for set in lab.shards() {
        first.push(position(&steps(set, ClusterTime::ZERO).await[0]));
        note(set).await;
    }
    ended.commit().await.unwrap();
    let (server, vault) = server_of(&lab).await;
    for (i, first) in first.iter().enumerate() {
        let all = captured(&lab, &server, &vault, &shard(i)).await;
        assert!(all.stream.from <= first.time && first.time < all.stream.complete_from, "{:?} {first}", all.stream);
        assert_eq!(prepared_of(&all.open), prepared(lab.shard(i)).await);
        assert_eq!((all.open.len(), all.open[0].first), (1, *first));
    }
    let commit = clock(held.commit_timestamp());
    held.commit().await.unwrap();
    for (i, first) in first.iter().enumerate() {
        let all = captured(&lab, &server, &vault, &shard(i)).await;
        assert_eq!(all.open, []);
        let unresolved = unresolved_at(&server, &vault, &shard(i), all.stream.complete_from).await;
        let [one] = &unresolved.transactions[..] else { panic!("{unresolved:?}") };
        assert_eq!((one.first, one.ending.unwrap().outcome), (*first, Outcome::Committed(commit)));
    }
}

#[tokio::test]
async fn a_prepared_transaction_that_is_too_large_for_an_entry_is_a_chain_and_is_followed() {
    let lab = lab().await;
    let (server, vault) = server_of(&lab).await;
    let begin = majority(lab.shard(0)).await;
    let mut transaction = Transaction::begin(&lab.topology());
    for id in [-1, -2] {
        insert(&mut transaction, "rs0", doc! {"_id": id, "text": "x".repeat(LARGE)}).await;
    }
    insert(&mut transaction, "rs1", doc! {"_id": 1}).await;
    let held = transaction.prepare().await.unwrap();
    let record = server.complete().await;
    let entries = steps(lab.shard(0), begin).await;
    assert_eq!(entries.len(), 2);
    assert!(entries[0].get_document("o").unwrap().get_bool("partialTxn").unwrap());
    assert_eq!((previous(&entries[0]), previous(&entries[1])), (None, Some(position(&entries[0]))));
    let all = captured(&lab, &server, &vault, &shard(0)).await;
    let [open] = &all.open[..] else { panic!("{:?}", all.open) };
    assert_eq!((open.first, open.last), (position(&entries[0]), position(&entries[1])));
    assert_eq!(open.prepared, Some(open.last.time));
    held.commit().await.unwrap();
    let all = captured(&lab, &server, &vault, &shard(0)).await;
    // At least the chain of two, the token and the commit.
    assert!(all.open.is_empty() && all.entries >= 4 && all.bytes > 2 * LARGE as u64, "{all:?}");
    let unresolved = unresolved_at(&server, &vault, &shard(0), record.cut.unwrap()).await;
    assert_eq!(unresolved.oldest, Some(position(&entries[0])));
    assert_eq!(unresolved.committed().count(), 1);
}

#[tokio::test]
async fn a_prepared_transaction_survives_a_step_down_and_one_in_progress_leaves_nothing() {
    let lab = lab_of(Lab::builder().members(3)).await;
    let (server, vault) = server_of(&lab).await;
    let set = lab.shard(0);
    let begin = majority(set).await;
    let (committed, aborted) = (prepare(&lab, 1).await, prepare(&lab, 2).await);
    let mut in_progress = Transaction::begin(&lab.topology());
    insert(&mut in_progress, "rs0", doc! {"_id": -3}).await;
    set.step_down().await.unwrap();
    assert_eq!(prepared(set).await.len(), 2);
    let _ = in_progress.abort().await;
    committed.commit().await.unwrap();
    aborted.abort().await.unwrap();
    let entries = steps(set, begin).await;
    assert_eq!(entries.len(), 4, "{entries:?}");
    // Both name the prepare's entry, of the term before.
    assert_eq!(previous(&entries[2]), Some(position(&entries[0])));
    assert_eq!(previous(&entries[3]), Some(position(&entries[1])));
    assert!(position(&entries[2]).term > position(&entries[0]).term);
    let all = captured(&lab, &server, &vault, &shard(0)).await;
    assert_eq!(all.open, []);
}

/// As when it is interrupted in the middle of it: what it wrote of the transaction is undone, and it aborts it.
#[tokio::test]
async fn a_primary_that_fails_to_prepare_writes_an_abort_of_what_nothing_tells_of() {
    let lab = lab().await;
    let (server, vault) = server_of(&lab).await;
    until_stored(&lab, &server, &shard(0), SOON).await;
    let begin = majority(lab.shard(0)).await;
    let fail = doc! {"configureFailPoint": "failCollectionInserts", "mode": {"times": 1},
    "data": {"collectionNS": "config.transactions"}};
    lab.shard(0).run("admin", fail).await.unwrap();
    let mut transaction = Transaction::begin(&lab.topology());
    insert(&mut transaction, "rs0", doc! {"_id": -1}).await;
    transaction.prepare().await.unwrap_err();
    let entries = steps(lab.shard(0), begin).await;
    let [abort] = &entries[..] else { panic!("{entries:?}") };
    assert!(abort.get_document("o").unwrap().contains_key("abortTransaction"));
    assert_eq!(previous(abort), None);
    server.complete().await;
    let all = captured(&lab, &server, &vault, &shard(0)).await;
    assert_eq!(all.open, []);
    // Later ones are followed as ever.
    prepare(&lab, 2).await.commit().await.unwrap();
    assert_eq!(captured(&lab, &server, &vault, &shard(0)).await.open, []);
}

/// The secondary that is elected has the first entries of a transaction and not the rest: the old primary
/// died in between.
#[tokio::test]
async fn a_new_primary_aborts_a_transaction_of_which_it_has_the_first_entries_only() {
    let lab = Lab::builder()
        .shards(1)
        .members(3)
        .test_commands(true)
        .parameter(CHAINS)
        .parameter("bgSyncOplogFetcherBatchSize=1")
        .start()
        .await
        .unwrap();
    lab.create_database("bank", 0).await.unwrap();
    lab.shard_collection(NS, &[], &[0]).await.unwrap();
    let (server, vault) = server_of(&lab).await;
    let set = lab.shard(0);
    let begin = majority(set).await;
    let primary = set.primary().await.unwrap();
    let secondaries: Vec<_> = (0..3).filter(|member| *member != primary).collect();
    for member in &secondaries {
        let mut connection = set.endpoint().connect(*member).await.unwrap();
        let stop = doc! {"configureFailPoint": "stopReplProducerOnDocument", "mode": "alwaysOn",
        "data": {"document": {"applyOps.o._id": 2}}};
        connection.run("admin", stop).await.unwrap();
    }
    let mut transaction = Transaction::begin(&lab.topology());
    for id in [1, 2, 3] {
        insert(&mut transaction, "rs0", doc! {"_id": id}).await;
    }
    let commit = tokio::spawn(transaction.commit());
    // The first entry is on a secondary, and the second is not.
    let in_progress = || async {
        let mut connection = set.endpoint().connect(secondaries[0]).await.ok()?;
        let find = doc! {"find": "transactions", "filter": {"state": "inProgress"},
        "$readPreference": {"mode": "secondaryPreferred"}};
        let reply = connection.run("config", find).await.ok()?;
        let found = reply.get_document("cursor").ok()?.get_array("firstBatch").ok()?;
        (!found.is_empty()).then_some(())
    };
    until(SOON, in_progress).await.expect("no transaction in progress on the secondary");
    set.kill(primary).await.unwrap();
    for member in &secondaries {
        let mut connection = set.endpoint().connect(*member).await.unwrap();
        let off = doc! {"configureFailPoint": "stopReplProducerOnDocument", "mode": "off"};
        connection.run("admin", off).await.unwrap();
    }
    set.wait_for_primary(ELECTED).await.unwrap();
    let outcome = commit.await.unwrap();
    set.restart(primary).await.unwrap();
    set.wait_for_all(ELECTED).await.unwrap();
    note(set).await;
    let entries = steps(set, begin).await;
    let all = captured(&lab, &server, &vault, &shard(0)).await;
    assert_eq!(all.open, []);
    let names: Vec<_> =
        entries.iter().map(|entry| entry.get_document("o").unwrap().keys().next().unwrap().as_str()).collect();
    assert_eq!(names, ["applyOps", "abortTransaction"]);
    assert!(outcome.is_err());
    assert_eq!(previous(&entries[1]), None, "it does not know the last entry");
    assert!(position(&entries[1]).term > position(&entries[0]).term);
}
