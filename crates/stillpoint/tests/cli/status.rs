//! `stillpoint status`, as monitors use it, and what a checkpoint lacks.

use serde_json::json;
use stillpoint_core::checkpoint::{Checkpoint, Failure, Found, Part, PartId, PutBack, Reason, Released, State, Token};
use stillpoint_core::restore::{self, Restore};
use stillpoint_core::snapshot::{self, Snapshot};
use stillpoint_core::{CheckpointId, ClusterTime, RestoreId, SnapshotId};

use crate::support::{Operator, Store, ago, shard};

const STATUS: [&str; 2] = ["status", "--check"];

#[test]
fn without_a_cluster_nothing_needs_attention() {
    Operator::with_project().run(&STATUS).ok();
}

#[tokio::test]
async fn capture_that_goes_well_is_shown_and_needs_no_attention() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    store.fill().await;
    store.report(|_| ()).await;
    let ran = operator.run(&STATUS);
    assert!(ran.ok().stdout.contains("c: shard rs0: stored until 20"), "{ran:?}");
    assert!(ran.stdout.contains(", 8 s behind, 2 h 1 min of its oplog's window left"), "{ran:?}");
    let status = operator.json(&STATUS);
    let cluster = &status["clusters"][0];
    assert_eq!((&cluster["attention"], &cluster["gaps"]), (&json!([]), &json!([])));
    let capture = &cluster["capture"][0];
    assert_eq!((&capture["part"], &capture["lagSeconds"]), (&json!("rs0"), &json!(8)));
    assert_eq!((&capture["stale"], &capture["halted"]), (&json!(false), &json!(false)));
}

#[tokio::test]
async fn what_needs_attention_ends_a_monitors_check_with_1() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    store.fill().await;
    let needs = |says: &str| {
        operator.run(&["status"]).ok();
        operator.run(&STATUS).fails_with_result(1, "this needs attention:").fails_with_result(1, says);
        let attention = operator.json(&["status"])["clusters"][0]["attention"].to_string();
        assert!(attention.contains(says), "{attention}");
    };

    store.report(|report| report.trouble = Some((ago(400), "no primary".into()))).await;
    needs("shard rs0: capture is in trouble since ");
    store.report(|report| (report.trouble, report.halted) = (Some((ago(4), "rolled back".into())), true)).await;
    needs("shard rs0: capture HALTED since ");
    assert!(operator.run(&["status"]).stdout.contains(": rolled back"));
    store.report(|report| report.stored = Some(ClusterTime::at(ago(500)))).await;
    needs(" s behind");
    store.report(|report| report.at = ago(40)).await;
    needs("no report on capture since ");
    assert!(operator.run(&["status"]).stdout.contains(" s ago, at "));

    store.report(|_| ()).await;
    operator.run(&STATUS).ok();
    let gap = store.gap();
    store.catalog.add_gap(store.cluster.id, &gap).await.unwrap();
    needs("nothing between 20:1 and 30:1");
    let ran = operator.run(&["status"]);
    assert!(ran.stdout.contains("c: shard rs0: a GAP from 20:1 (1970-01-01T00:00:20Z) to 30:1"), "{ran:?}");
    store.catalog.remove_gap(store.cluster.id, &gap.part, gap.after, gap.until).await.unwrap();

    assert!(operator.run(&["status"]).stdout.contains("c: no snapshot yet: no checkpoint can be restored"));
    let snapshot = Snapshot::queued(SnapshotId::new(ago(9), 9), store.cluster.id, ago(9));
    let in_trouble = Snapshot { trouble: Some("the vault is full".into()), ..snapshot.clone() };
    store.catalog.queue_snapshot(&in_trouble).await.unwrap();
    needs("is in trouble: the vault is full");
    assert!(operator.run(&["status"]).stdout.contains(" is QUEUED"));
    let (state, ended, failure) = (snapshot::State::Failed, Some(ago(7)), Some("an unknown entry".into()));
    store.save_snapshot(&Snapshot { state, ended, failure, ..snapshot.clone() }).await;
    needs("failed: an unknown entry");
    store.catalog.note_damage(store.cluster.id, snapshot.id, Some("a pack is missing")).await.unwrap();
    needs("is damaged: a pack is missing");
    store.catalog.delete_snapshot(store.cluster.id, snapshot.id, ago(0)).await.unwrap();
    operator.run(&STATUS).ok();

    let time = ClusterTime::new(25, 1);
    let (point, target) = (restore::Point::Time(time), restore::Target::Hosts("other".into()));
    let (id, options) = (RestoreId::new(ago(9), 9), restore::Options::default());
    let restore = Restore {
        trouble: Some("the target does not answer".into()),
        ..Restore::queued(id, store.cluster.id, ago(9), point, time, target, options)
    };
    let uri = "mongodb://other".to_owned().into();
    store.catalog.queue_restore(&restore, Some(&uri)).await.unwrap();
    needs("is in trouble: the target does not answer");
    assert!(operator.run(&["status"]).stdout.contains(" to 25:1 is QUEUED"));
    store.catalog.cancel_restore(store.cluster.id, restore.id, ago(8)).await.unwrap();
    operator.run(&STATUS).ok();
    let broken = Restore {
        id: RestoreId::new(ago(7), 7),
        state: restore::State::Broken,
        ended: Some(ago(7)),
        trouble: None,
        failure: Some("its disk is full".into()),
        ..restore.clone()
    };
    store.catalog.queue_restore(&broken, None).await.unwrap();
    needs("is broken: its disk is full");
    let another = Restore { id: RestoreId::new(ago(6), 6), trouble: None, requested: ago(6), ..restore };
    store.catalog.queue_restore(&another, Some(&uri)).await.unwrap();
    operator.run(&STATUS).ok();

    let queued = Checkpoint::queued(CheckpointId::new(ago(9), 9), store.cluster.id, ago(9));
    let failure = Failure { reason: Reason::Unreachable, detail: "host".into() };
    let failed = Checkpoint { state: State::Failed, ended: Some(ago(8)), failure: Some(failure), ..queued.clone() };
    store.queue(queued, failed).await;
    needs("failed. A part of the cluster could not be reached.");

    store.stop_server().await;
    needs("no server runs: start `stillpoint serve`");
}

/// A checkpoint of the store's cluster as it was queued and as it ended, at second 25.
pub fn completed_checkpoint(store: &Store) -> (Checkpoint, Checkpoint) {
    let queued = Checkpoint::queued(CheckpointId::new(ago(9), 9), store.cluster.id, ago(9));
    let part = |id, second| {
        let time = ClusterTime::new(second, 1);
        let token = Token { attempt: 1, time, discovered: true, discovered_at: Some(ago(3)) };
        Part { id, replica_set: "set".into(), term: None, token: Some(token) }
    };
    let found =
        Found { running: true, settings: "{}".into(), seen: ClusterTime::new(1, 1), from: "127.0.0.1:1".into() };
    let completed = Checkpoint {
        state: State::Completed,
        parts: vec![part(shard(), 25), part(PartId::ConfigServers, 26)],
        clock: Some(ClusterTime::new(24, 1)),
        cut: Some(ClusterTime::new(25, 1)),
        found: Some(found),
        held_since: Some(ago(6)),
        released: Some(Released { at: ago(5), how: PutBack::AsFound }),
        ended: Some(ago(2)),
        ..queued.clone()
    };
    (queued, completed)
}

#[tokio::test]
async fn a_checkpoint_says_what_of_the_oplogs_is_missing_and_how_long_discovery_took() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    store.fill().await;
    let (queued, completed) = completed_checkpoint(&store);
    store.catalog.add_gap(store.cluster.id, &store.gap()).await.unwrap();
    let id = queued.id.to_string();
    store.queue(queued, completed).await;
    let ran = operator.run(&["checkpoint", "show", "-p", "p", "-c", "c", &id]);
    let says = [
        "because ",
        "shard rs0: nothing between 20:1 and 30:1",
        "make the oplog larger",
        "the config servers: its oplog is not stored.",
        "discovery ",
    ];
    for says in says {
        assert!(ran.ok().stdout.contains(says), "{says}: {ran:?}");
    }
    let ran = operator.run(&["--json", "checkpoint", "show", "-p", "p", "-c", "c", &id]);
    assert!(ran.json()["stillpoint"].is_null() && ran.stderr.matches("not restorable: ").count() == 2, "{ran:?}");
}
