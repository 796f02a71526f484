//! Capture through what happens to a cluster, to its members, to the vault and to the server.

use std::fs;

use bson::{Document, doc};
use stillpoint_catalog::Catalog;
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::{PartId, State};
use stillpoint_core::stream::{CaptureReport, GapCause, Position};
use stillpoint_lab::transaction::Transaction;
use stillpoint_lab::wait::until;
use stillpoint_lab::{Lab, ReplicaSet};
use stillpoint_mongo::tail::Opened;
use stillpoint_mongo::{ClusterLink, PartLink};
use stillpoint_oplog::Entry;

use crate::captured::{
    assert_all, assert_part, assert_stored_tokens, majority, prepared, prepared_of, segments, server_of, shard,
    until_stored, until_stored_up_to,
};
use crate::support::{SOON, Server, assert_tokens, lab, lab_of, oplog};

async fn note(set: &ReplicaSet, text: &str) {
    let note = doc! {"appendOplogNote": 1, "data": {"test": text}, "writeConcern": {"w": "majority"}};
    set.run("admin", note).await.unwrap();
}

async fn reports(server: &Server) -> Vec<(PartId, CaptureReport)> {
    server.catalog().capture_reports(server.cluster()).await.unwrap()
}

/// Waits until something is in the way of a part's capture.
async fn troubled(server: &Server, part: &PartId) -> String {
    let look = || async {
        let all = reports(server).await;
        all.into_iter().find(|(of, _)| of == part).and_then(|(_, report)| report.trouble).map(|(_, why)| why)
    };
    until(SOON, look).await.unwrap_or_else(|| panic!("{part} has no trouble"))
}

/// Writes a megabyte, or nothing in an election.
async fn write_much(set: &ReplicaSet) {
    let documents = (0..4).map(|_| doc! {"text": "x".repeat(1 << 18)});
    let _ = set.client().database("test").collection::<Document>("much").insert_many(documents).await;
}

/// Writes until the oplog no longer has its first entries.
async fn roll_over(set: &ReplicaSet) {
    let first = oldest(set).await;
    let rolled = || async {
        write_much(set).await;
        (oldest(set).await > first).then_some(())
    };
    until(SOON, rolled).await.expect("the oplog was not overwritten");
}

async fn oldest(set: &ReplicaSet) -> bson::Timestamp {
    let find = doc! {"find": "oplog.rs", "sort": {"$natural": 1}, "limit": 1, "singleBatch": true};
    let reply = set.run("local", find).await.unwrap();
    let batch = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
    batch[0].as_document().unwrap().get_timestamp("ts").unwrap()
}

#[tokio::test]
async fn an_oplog_that_was_overwritten_while_the_server_was_down_is_a_gap_and_capture_goes_on_after_it() {
    let lab = Lab::builder().shards(1).oplog(4).start().await.unwrap();
    let (mut server, vault) = server_of(&lab).await;
    let before = server.complete().await;
    until_stored(&lab, &server, &shard(0), SOON).await;
    assert_part(&lab, &server, &vault, &shard(0)).await;
    server.stop().await;
    let stored = segments(&server, &shard(0), before.cut.unwrap()).await.pop().unwrap().last.time;
    roll_over(lab.shard(0)).await;
    server.serve(None).await;
    let after = server.complete().await;
    assert_tokens(&lab, &after).await;

    let gaps = server.gaps().await;
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((&gap.part, gap.cause), (&shard(0), GapCause::RolledOver));
    assert!(server.log().contains(&format!("capture: a gap. {gap}")));
    let stream = server.catalog().stream(server.cluster(), &shard(0)).await.unwrap().unwrap();
    assert!(stream.since < gap.after && gap.after <= stored, "{gap:?} {stored}");
    assert_eq!((gap.until, stream.complete_from), (stream.complete_from, gap.until));
    assert!(!gap.touches(before.cut.unwrap(), before.cut.unwrap()));
    assert!(!gap.touches(after.cut.unwrap(), after.cut.unwrap()));
    until_stored(&lab, &server, &shard(0), SOON).await;
    assert_part(&lab, &server, &vault, &shard(0)).await;
    // What was stored before it is there still.
    let all = segments(&server, &shard(0), stream.since).await;
    let heads: Vec<_> = all.iter().filter(|segment| segment.previous.is_none()).map(|head| head.first.time).collect();
    assert!(heads.len() == 2 && heads[1] > stored, "{heads:?}");
    for segment in &all {
        vault.get(&segment.name(), segment.blob).await.unwrap();
        assert!(segment.last.time <= stored || segment.first.time >= stream.from, "{segment:?} is in {gap:?}");
    }
    // The config servers' oplog reaches back as far as before.
    until_stored(&lab, &server, &PartId::ConfigServers, SOON).await;
    assert_part(&lab, &server, &vault, &PartId::ConfigServers).await;
}

/// The server runs, reads ahead, and cannot store.
#[tokio::test]
async fn an_oplog_that_is_overwritten_while_the_vault_is_away_is_a_gap_and_capture_goes_on_after_it() {
    let lab = Lab::builder().shards(1).oplog(4).start().await.unwrap();
    let (server, vault) = server_of(&lab).await;
    let before = server.complete().await;
    let (there, away) = (server.folder().join("vault"), server.folder().join("away"));
    fs::rename(&there, &away).unwrap();
    note(lab.shard(0), "not stored yet").await;
    troubled(&server, &shard(0)).await;
    // More than is read ahead.
    for _ in 0..200 {
        write_much(lab.shard(0)).await;
    }
    let newest = majority(lab.shard(0)).await;
    let rolled = || async {
        roll_over(lab.shard(0)).await;
        let first = oldest(lab.shard(0)).await;
        (ClusterTime::new(first.time, first.increment) > newest).then_some(())
    };
    until(SOON, rolled).await.expect("the oplog was not overwritten");
    fs::rename(&away, &there).unwrap();
    let after = server.complete().await;
    let gaps = server.gaps().await;
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((&gap.part, gap.cause), (&shard(0), GapCause::RolledOver));
    assert!(before.cut.unwrap() <= gap.after && gap.after < newest && newest < gap.until, "{gap:?} {newest}");
    assert!(!gap.touches(after.cut.unwrap(), after.cut.unwrap()), "{gap:?}");
    let captured = assert_all(&lab, &server, &vault, SOON).await;
    assert_stored_tokens(&after, &captured);
}

/// MongoDB keeps what a prepared transaction needs, however large the oplog becomes.
#[tokio::test]
async fn an_oplog_is_not_overwritten_while_a_transaction_in_it_is_prepared() {
    let lab = lab_of(Lab::builder().oplog(4)).await;
    let (mut server, vault) = server_of(&lab).await;
    server.complete().await;
    let mut transaction = Transaction::begin(&lab.topology());
    for (shard, id) in [("rs0", -1), ("rs1", 1)] {
        let insert = doc! {"insert": "accounts", "documents": [{"_id": id}]};
        transaction.run(shard, "bank", insert).await.unwrap();
    }
    let held = transaction.prepare().await.unwrap();
    server.stop().await;
    let first = oldest(lab.shard(0)).await;
    // Ten times what it may hold.
    for _ in 0..40 {
        write_much(lab.shard(0)).await;
    }
    assert_eq!(oldest(lab.shard(0)).await, first);
    server.serve(None).await;
    server.complete().await;
    let all = assert_all(&lab, &server, &vault, SOON).await;
    assert_eq!(prepared_of(&all[&shard(0)].open), prepared(lab.shard(0)).await);
    assert!(first < held.prepare_timestamps()[0]);
    held.commit().await.unwrap();
    let all = assert_all(&lab, &server, &vault, SOON).await;
    assert_eq!(all[&shard(0)].open, []);
    assert_eq!(server.gaps().await, []);
    roll_over(lab.shard(0)).await;
}

/// The part of a lab's only shard, as capture has it.
async fn link_of(lab: &Lab) -> PartLink {
    let cluster = ClusterLink::connect(&lab.uri().into()).await.unwrap();
    cluster.parts().await.unwrap().into_iter().find(|part| part.id == shard(0)).unwrap()
}

/// Opens the oplog of a part where it was left, once its members answer: the first entry, or why not.
async fn opened(part: &PartLink, position: Position) -> Result<ClusterTime, String> {
    let open = || async { part.tail(position).await.ok() };
    match until(SOON, open).await.expect("the oplog cannot be opened") {
        Opened::Tail(_, batch) => Ok(Entry::read(batch.entries().next().unwrap().unwrap()).unwrap().at.time),
        Opened::RolledOver { oldest, away } => Err(format!("rolled over, it begins at {oldest}; away: {away:?}")),
        Opened::Diverged { instead } => Err(format!("diverged, there is {instead}")),
    }
}

/// A member that was resynced has the entries since then only. What the others have is not lost.
#[tokio::test]
async fn an_oplog_is_captured_though_it_begins_later_on_some_members() {
    let lab = Lab::builder().shards(1).members(3).start().await.unwrap();
    let (mut server, vault) = server_of(&lab).await;
    until_stored(&lab, &server, &shard(0), SOON).await;
    server.stop().await;
    let set = lab.shard(0);
    let stored = server.catalog().last_segment(server.cluster(), &shard(0)).await.unwrap().unwrap().last;
    note(set, "while no server runs").await;
    let primary = set.primary().await.unwrap();
    let secondaries: Vec<_> = (0..3).filter(|member| *member != primary).collect();
    for member in &secondaries {
        set.resync(*member).await.unwrap();
    }
    // Both secondaries begin too late.
    let part = link_of(&lab).await;
    assert_eq!(opened(&part, Position::At(stored.time)).await, Ok(stored.time));
    assert_eq!(opened(&part, Position::After(stored)).await, Ok(stored.time));
    server.serve(None).await;
    server.complete().await;
    assert_all(&lab, &server, &vault, SOON).await;
    assert_eq!(server.gaps().await, []);
    server.stop().await;

    // The primary begins too late, and the only secondary does not.
    let primary = set.step_down().await.unwrap();
    let young = secondaries.into_iter().find(|member| *member != primary).unwrap();
    set.kill(young).await.unwrap();
    let part = link_of(&lab).await;
    // Before the driver has found the secondary there is only the primary to ask.
    for position in [Position::At(stored.time), Position::After(stored)] {
        let found = || async { opened(&part, position).await.ok() };
        assert_eq!(until(SOON, found).await, Some(stored.time), "{position:?}");
    }
}

/// The driver takes any secondary, and one of the two has begun anew, as the primary has.
#[tokio::test]
async fn an_oplog_is_captured_though_only_one_of_two_secondaries_reaches_back() {
    let lab = Lab::builder().shards(1).members(3).start().await.unwrap();
    let (mut server, vault) = server_of(&lab).await;
    until_stored(&lab, &server, &shard(0), SOON).await;
    server.stop().await;
    let set = lab.shard(0);
    let stored = server.catalog().last_segment(server.cluster(), &shard(0)).await.unwrap().unwrap().last;
    note(set, "while no server runs").await;
    let old = set.primary().await.unwrap();
    for member in (0..3).filter(|member| *member != old) {
        set.resync(member).await.unwrap();
    }
    set.step_down().await.unwrap();
    set.wait_for_all(SOON).await.unwrap();
    let part = link_of(&lab).await;
    // Every time: one of two is right half of the time.
    for round in 0..20 {
        for position in [Position::At(stored.time), Position::After(stored)] {
            assert_eq!(opened(&part, position).await, Ok(stored.time), "{position:?}, {round}");
        }
    }

    // While it is away nobody knows what it has, and the gap says so.
    let address = set.endpoint().addresses[old].clone();
    set.kill(old).await.unwrap();
    set.wait_for_primary(SOON).await.unwrap();
    server.serve(None).await;
    server.complete().await;
    let gaps = server.gaps().await;
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((&gap.part, gap.cause), (&shard(0), GapCause::RolledOver));
    assert!(gap.detail.contains(&format!("may have been on {address} (")), "{}", gap.detail);
    set.restart(old).await.unwrap();
    assert_all(&lab, &server, &vault, SOON).await;
}

#[tokio::test]
async fn a_shard_that_is_added_is_captured_from_then_on_and_one_that_is_removed_to_its_end() {
    let lab = lab_of(Lab::builder().shards(3).added(2)).await;
    let (mut server, vault) = server_of(&lab).await;
    until_stored(&lab, &server, &shard(0), SOON).await;
    let before = majority(lab.shard(2)).await;
    lab.add_shard(2).await.unwrap();
    note(lab.shard(2), "while nobody may know it yet").await;
    let written = majority(lab.shard(2)).await;
    let (catalog, cluster) = (server.catalog(), server.cluster());
    let begun = || async { catalog.stream(cluster, &shard(2)).await.unwrap() };
    let stream = until(SOON, begun).await.expect("the new shard is not captured");
    until_stored_up_to(&server, &shard(2), written, SOON).await;
    let captured = assert_part(&lab, &server, &vault, &shard(2)).await;
    assert!(stream.from > before && stream.from < written, "{stream:?} {before} {written}");
    let added = oplog(lab.config(), doc! {"ns": "config.shards", "op": "i", "o._id": "rs2"}).await;
    let added = added[0].get_document("o").unwrap().get_timestamp("topologyTime").unwrap();
    assert_eq!(captured.stream.complete_from, ClusterTime::new(added.time, added.increment));
    let record = server.complete().await;
    assert_tokens(&lab, &record).await;

    note(lab.shard(2), "the last").await;
    let last = majority(lab.shard(2)).await;
    lab.remove_shard(2).await.unwrap();
    let ended = || async { begun().await.filter(|stream| stream.ended.is_some()) };
    until(SOON, ended).await.expect("the removed shard's stream has not ended");
    until_stored_up_to(&server, &shard(2), last, SOON).await;
    assert_part(&lab, &server, &vault, &shard(2)).await;
    assert_eq!(server.gaps().await, []);
    let next = server.complete().await;
    assert_eq!(next.parts.len(), 3);

    // It comes back: what it had meanwhile is missing.
    lab.add_shard(2).await.unwrap();
    let again = || async { begun().await.filter(|stream| stream.ended.is_none()) };
    let stream = until(SOON, again).await.expect("the shard that is back is not captured");
    let gaps = server.gaps().await;
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((&gap.part, gap.cause, gap.until), (&shard(2), GapCause::ShardAway, stream.complete_from));
    assert!(gap.after >= last && gap.after < gap.until, "{gap:?}");
    server.complete().await;

    // It goes while no server runs: what it had last is missing until it is back.
    server.stop().await;
    let first = gap.clone();
    note(lab.shard(2), "nobody reads it").await;
    lab.remove_shard(2).await.unwrap();
    server.serve(None).await;
    let ended = || async { server.catalog().stream(server.cluster(), &shard(2)).await.unwrap().unwrap().ended };
    until(SOON, ended).await.expect("the removed shard's stream has not ended");
    let gaps = server.gaps().await;
    let [before, gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((before, gap.cause, gap.until), (&first, GapCause::ShardAway, ClusterTime::MAX));
    lab.add_shard(2).await.unwrap();
    until(SOON, || async { ended().await.is_none().then_some(()) })
        .await
        .expect("the shard that is back is not captured");
    let stream = server.catalog().stream(server.cluster(), &shard(2)).await.unwrap().unwrap();
    let gaps = server.gaps().await;
    let [before, back] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((before, back.after, back.until), (&first, gap.after, stream.complete_from));
}

#[tokio::test]
async fn a_part_whose_members_do_not_answer_for_a_while_has_no_gap() {
    let lab = lab().await;
    let (server, vault) = server_of(&lab).await;
    until_stored(&lab, &server, &shard(0), SOON).await;
    note(lab.shard(0), "before").await;
    lab.shard(0).freeze(0).await.unwrap();
    // The others go on meanwhile.
    note(lab.shard(1), "meanwhile").await;
    until_stored(&lab, &server, &shard(1), SOON).await;
    lab.shard(0).thaw(0).await.unwrap();
    lab.shard(0).wait_for_all(SOON).await.unwrap();
    note(lab.shard(0), "after").await;
    assert_all(&lab, &server, &vault, SOON).await;
    assert_eq!(server.gaps().await, []);
}

#[tokio::test]
async fn a_vault_that_is_away_is_told_of_and_a_checkpoint_waits_for_it() {
    let lab = lab().await;
    let (server, vault) = server_of(&lab).await;
    until_stored(&lab, &server, &shard(0), SOON).await;
    let (there, away) = (server.folder().join("vault"), server.folder().join("away"));
    fs::rename(&there, &away).unwrap();
    let id = server.ask().await;
    let why = troubled(&server, &shard(0)).await;
    assert!(why.contains(there.to_str().unwrap()), "{why}");
    // Its tokens are written and the balancer is put back: nothing of the cluster waits for the vault.
    let record = server.until(id, SOON, |record| record.state == State::Discovering && record.trouble.is_some()).await;
    assert!(record.released.is_some() && record.parts.iter().all(|part| !part.token.unwrap().discovered), "{record:?}");
    assert!(!there.exists(), "a vault that is away was begun anew");
    fs::rename(&away, &there).unwrap();
    let record = server.end_of(id, SOON).await;
    assert_tokens(&lab, &record).await;
    let captured = assert_all(&lab, &server, &vault, SOON).await;
    assert_stored_tokens(&record, &captured);
    let well = || async { reports(&server).await.iter().all(|(_, report)| report.trouble.is_none()).then_some(()) };
    until(SOON, well).await.expect("its trouble is over and still told");
}

/// For longer than a write waits for another's.
#[tokio::test]
async fn a_catalog_that_is_locked_is_told_of_and_waited_for() {
    let lab = lab().await;
    let (server, vault) = server_of(&lab).await;
    until_stored(&lab, &server, &shard(0), SOON).await;
    // It is opened before it is locked, and read meanwhile.
    let catalog = server.catalog();
    let lock = rusqlite::Connection::open(server.folder().join("data/stillpoint.db")).unwrap();
    lock.busy_timeout(SOON).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    note(lab.shard(0), "while it is locked").await;
    let wanted = majority(lab.shard(0)).await;
    let told = || async { server.log().contains("capture: trying again").then_some(()) };
    until(SOON, told).await.expect("nothing is told of it");
    assert!(server.log().contains("database is locked"));
    let stored = catalog.last_segment(server.cluster(), &shard(0)).await.unwrap().unwrap();
    assert!(stored.last.time < wanted);
    lock.execute_batch("COMMIT").unwrap();
    let record = server.complete().await;
    let captured = assert_all(&lab, &server, &vault, SOON).await;
    assert_stored_tokens(&record, &captured);
    assert_eq!(server.gaps().await, []);
}

#[tokio::test]
async fn a_server_that_dies_between_storing_a_segment_and_noting_it_stores_nothing_twice() {
    let lab = lab().await;
    let (mut server, vault) = server_of(&lab).await;
    for round in 0..4 {
        server.stop().await;
        for step in ["store-segment", "note-segment"] {
            for set in lab.parts() {
                note(set, &format!("{round} {step}")).await;
            }
            server.serve(Some(step)).await;
            server.crashed().await;
        }
        server.serve(None).await;
        server.complete().await;
    }
    let all = assert_all(&lab, &server, &vault, SOON).await;
    assert!(all.values().map(|part| part.segments.len()).sum::<usize>() > 4);
    assert_eq!(server.gaps().await, []);
}
