//! `stillpoint cluster remove` while something of the cluster is under way.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use jiff::Timestamp;
use secrecy::SecretString;
use stillpoint_catalog::CatalogError;
use stillpoint_core::checkpoint::Checkpoint;
use stillpoint_core::drill::{Drill, Stage, State as DrillState};
use stillpoint_core::restore::{Options, Point, Restore, Target};
use stillpoint_core::snapshot::Snapshot;
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime, DrillId, RestoreId, SnapshotId};

use crate::support::{Operator, Store, ago};

const REMOVE: [&str; 5] = ["cluster", "remove", "-p", "p", "c"];

fn restore(from: ClusterId, target: Target) -> Restore {
    let now = ago(0);
    let time = ClusterTime::at(now);
    Restore::queued(RestoreId::new(now, 1), from, now, Point::Time(time), time, target, Options::default())
}

async fn another(store: &Store<'_>) -> ClusterId {
    let id = ClusterId::new(ago(0), 2);
    let another =
        stillpoint_catalog::Cluster { id, name: "other".into(), identity: "2".into(), ..store.cluster.clone() };
    store.catalog.add_cluster(&another).await.unwrap();
    id
}

#[tokio::test]
async fn a_checkpoint_or_a_restore_that_is_under_way_is_named_with_what_ends_it() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let (cluster, other) = (store.cluster.id, another(&store).await);
    let now: Timestamp = ago(0);
    let refused = |says: &str| {
        operator.run(&REMOVE).fails(1, &format!("c cannot be removed: {says}")).fails(1, "or wait with --wait");
    };

    let checkpoint = Checkpoint::queued(CheckpointId::new(now, 1), cluster, now);
    store.catalog.queue_checkpoint(&checkpoint).await.unwrap();
    refused(&format!("checkpoint {} of it is under way; `stillpoint status` says how far it is", checkpoint.id));
    assert!(store.catalog.withdraw_checkpoint(cluster, checkpoint.id).await.unwrap());

    let drill = Drill::queued(DrillId::new(now, 1), cluster, now, false, Stage::default());
    store.catalog.queue_drill(&drill).await.unwrap();
    refused(&format!("drill {} of it is QUEUED; `stillpoint drill show` says how far it is", drill.id));
    let ended = Drill { state: DrillState::Interrupted, ended: Some(now), failure: Some("no".into()), ..drill };
    store.catalog.save_drill(&store.lease, &ended).await.unwrap();

    let from = restore(cluster, Target::Hosts("host:1".into()));
    let uri = SecretString::from("mongodb://host:1/");
    store.catalog.queue_restore(&from, Some(&uri)).await.unwrap();
    let ends = |name: &str, id| format!("`stillpoint restore-job cancel --project p --cluster {name} {id}` ends it");
    refused(&format!("restore {} from it is under way; {}", from.id, ends("c", from.id)));
    store.catalog.cancel_restore(cluster, from.id, now).await.unwrap();

    let into = restore(other, Target::Cluster(cluster));
    store.catalog.queue_restore(&into, None).await.unwrap();
    refused(&format!("restore {} into it is under way; {}", into.id, ends("other", into.id)));
    // That of another pair is nothing to this one.
    operator.run(&["restore-job", "cancel", "-p", "p", "-c", "other", &into.id.to_string()]).ok();
    let elsewhere = Restore { id: RestoreId::new(now, 2), ..restore(other, Target::Hosts("host:1".into())) };
    store.catalog.queue_restore(&elsewhere, Some(&uri)).await.unwrap();
    let removed = operator.run(&REMOVE);
    assert_eq!(removed.ok().stdout.trim(), "forgot c; the cluster itself was not touched");
}

#[tokio::test]
async fn a_snapshot_that_is_under_way_is_given_up_and_can_write_nothing_more() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let snapshot = Snapshot::queued(SnapshotId::new(ago(0), 1), store.cluster.id, ago(0));
    store.catalog.queue_snapshot(&snapshot).await.unwrap();
    let packs = ["snapshots/a-1".to_owned(), "snapshots/a-2".to_owned()];
    store.try_save_snapshot(&snapshot, &packs[..1]).await.unwrap();
    let removed = operator.run(&REMOVE);
    let says =
        format!("snapshot {}, which was under way, is given up, and what it stored goes with the rest", snapshot.id);
    assert!(removed.ok().stdout.contains(&says), "{removed:?}");
    // Whoever is still at it finds out, and what it stores meanwhile is of nobody.
    let fenced = store.try_save_snapshot(&snapshot, &packs[1..]).await;
    assert!(matches!(fenced, Err(CatalogError::Fenced | CatalogError::Gone(_))), "{fenced:?}");
    assert_eq!(store.catalog.doomed(ago(-60), 10).await.unwrap(), packs[..1]);
    assert_eq!(store.catalog.unreferenced(&packs).await.unwrap(), packs[1..]);
}

#[tokio::test]
async fn it_waits_for_what_is_under_way_if_it_is_told_to() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let running = restore(store.cluster.id, Target::Hosts("host:1".into()));
    store.catalog.queue_restore(&running, Some(&SecretString::from("mongodb://host:1/"))).await.unwrap();
    let wait = [&REMOVE[..], &["--wait"]].concat();
    let mut command = operator.command(&wait);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = stillpoint_lab::process::spawn(command).unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with(&format!("waiting: restore {} from it is under way", running.id)), "{line}");
    assert!(store.catalog.cluster(store.cluster.id).await.unwrap().is_some());
    store.catalog.cancel_restore(store.cluster.id, running.id, ago(0)).await.unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success() && rest.is_empty(), "{rest}");
    assert!(store.catalog.cluster(store.cluster.id).await.unwrap().is_none());
}

#[tokio::test]
async fn it_does_not_wait_for_a_server_that_is_not_there() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let running = restore(store.cluster.id, Target::Hosts("host:1".into()));
    store.catalog.queue_restore(&running, Some(&SecretString::from("mongodb://host:1/"))).await.unwrap();
    store.stop_server().await;
    let wait = [&REMOVE[..], &["--wait"]].concat();
    operator.run(&wait).fails(1, "no server goes on with it: start `stillpoint serve`");
}
