//! `stillpoint snapshot`

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use jiff::Timestamp;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::snapshot::{Data, Part, Snapshot, State};
use stillpoint_core::stream::BlobId;
use stillpoint_core::{ClusterTime, SnapshotId};

use crate::status::completed_checkpoint;
use crate::support::{Operator, Store, ago, shard};

fn words<'a>(verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["snapshot", verb, "-p", "p", "-c", "c"], more].concat()
}

fn queued(store: &Store, requested: Timestamp) -> Snapshot {
    Snapshot::queued(SnapshotId::new(requested, 1), store.cluster.id, requested)
}

fn part(id: PartId, at: ClusterTime, complete: bool) -> Part {
    let data = Data {
        manifest: BlobId([1; 32]),
        at,
        stream: at,
        collections: 3,
        documents: 1_000,
        bytes: 70_000,
        stored: 9_000,
    };
    Part { id, replica_set: "set".into(), read: Some(data), data: complete.then_some(data) }
}

fn reading(store: &Store, requested: Timestamp) -> Snapshot {
    let parts = vec![part(shard(), ClusterTime::at(requested), false)];
    Snapshot { state: State::Reading, parts, ..queued(store, requested) }
}

/// As of the time at which it was asked for.
fn completed(store: &Store, requested: Timestamp) -> Snapshot {
    completed_at(store, requested, ClusterTime::at(requested))
}

fn completed_at(store: &Store, requested: Timestamp, cut: ClusterTime) -> Snapshot {
    Snapshot {
        state: State::Completed,
        ended: Some(requested),
        cut: Some(cut),
        parts: [shard(), PartId::ConfigServers].map(|id| part(id, cut, true)).to_vec(),
        ..queued(store, requested)
    }
}

fn failed(store: &Store, requested: Timestamp) -> Snapshot {
    let failure = Some("the vault has no room left".into());
    Snapshot { state: State::Failed, ended: Some(requested), failure, ..queued(store, requested) }
}

#[tokio::test]
async fn they_are_listed_and_shown_for_people_and_for_programs() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    assert_eq!(operator.run(&words("list", &[])).lines().len(), 1);
    let base = completed(&store, ago(7_200));
    let newest = Snapshot { base: Some(base.id), expires: Some(ago(-86_400)), ..completed(&store, ago(3_600)) };
    let failed = failed(&store, ago(60));
    for snapshot in [&base, &newest, &failed] {
        store.catalog.queue_snapshot(snapshot).await.unwrap();
    }
    let [base, newest, failed] = [base, newest, failed].map(|snapshot| (snapshot.id.to_string(), snapshot));

    let table = operator.run(&words("list", &[]));
    let lines = table.lines();
    assert!(lines[0].starts_with("ID ") && lines[0].ends_with("KEPT UNTIL"), "{lines:?}");
    let starts: Vec<_> = lines[1..].iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(starts, [&failed.0, &newest.0, &base.0]);
    for says in ["COMPLETED", "2000", "140 kB", "36 kB", &newest.1.expires.unwrap().to_string()] {
        assert!(lines[2].contains(says), "{says}: {lines:?}");
    }
    let shown = operator.run(&words("show", &[&newest.0]));
    for says in ["goes on from", &base.0, "as of", "shard rs0", "the config servers", "70 kB"] {
        assert!(shown.ok().stdout.contains(says), "{says}: {shown:?}");
    }

    let list = operator.json(&words("list", &[]));
    let documents = list.as_array().unwrap();
    assert_eq!(operator.json(&words("list", &["--limit", "1"])).as_array().unwrap(), &documents[..1]);
    assert_eq!((&documents[1]["incremental"], &documents[2]["incremental"]), (&true.into(), &false.into()));
    assert_eq!(documents[1]["parts"][0]["storageSizeBytes"], 18_000);
    for (document, (id, _)) in documents.iter().zip([&failed, &newest, &base]) {
        assert_eq!(&document["id"], id);
        let mut one = operator.json(&words("show", &[id]));
        assert!(one["links"].as_array().unwrap().len() > 1);
        one["links"] = document["links"].clone();
        assert_eq!(&one, document);
    }

    // Why one failed is the operator's to see, and in no document.
    let shown = operator.run(&words("show", &[&failed.0]));
    assert!(shown.ok().stdout.contains("the vault has no room left"), "{shown:?}");
    let shown = operator.run(&[&["--json"], &*words("show", &[&failed.0])].concat());
    assert!(!shown.json().to_string().contains("room") && shown.stderr.contains("no room left"), "{shown:?}");

    operator
        .run(&words("show", &["6b94183187d9d64b6f2868b5"]))
        .fails(1, "`stillpoint snapshot list --project p --cluster c` lists them");
}

#[tokio::test]
async fn only_one_that_nothing_needs_is_deleted() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    // The window is a day.
    let [oldest, stays, other, newest] = [4, 3, 2, 1].map(|hours| completed(&store, ago(hours * 3_600)));
    let stays = Snapshot { do_not_delete: true, ..stays };
    let (failed, reading) = (failed(&store, ago(120)), reading(&store, ago(60)));
    for snapshot in [&oldest, &stays, &other, &newest, &failed, &reading] {
        store.catalog.queue_snapshot(snapshot).await.unwrap();
    }
    let delete = |snapshot: &Snapshot| operator.run(&words("delete", &[&snapshot.id.to_string()]));
    for (snapshot, why) in [
        (&oldest, "the oldest checkpoints and times that are kept are restored from it"),
        (&newest, "the next one goes on from it; delete it when there is a newer one"),
        (&stays, "it is marked doNotDelete; `stillpoint snapshot expire` takes that back"),
    ] {
        delete(snapshot).fails(1, &format!("snapshot {} cannot be deleted: {why}", snapshot.id));
    }
    delete(&reading)
        .fails(1, "the snapshot is in use by a checkpoint, a snapshot, a restore or a drill that is not yet finished");
    assert_eq!(store.catalog.count_snapshots(store.cluster.id).await.unwrap(), 6);

    assert_eq!(delete(&failed).ok().stdout.trim(), format!("deleted {}", failed.id));
    let id = other.id.to_string();
    let document = operator.json(&words("delete", &[&id]));
    assert_eq!(document["id"], id.as_str());
    delete(&other).fails(1, "there is no snapshot");
    assert_eq!(store.catalog.count_snapshots(store.cluster.id).await.unwrap(), 4);
    let trail = operator.run(&["audit"]);
    assert_eq!(trail.ok().stdout.matches("snapshot delete ").count(), 2, "{trail:?}");
    assert!(trail.stdout.contains(&format!("snapshot delete {id}")), "{trail:?}");
}

#[tokio::test]
async fn how_long_one_is_kept_can_be_set() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let until = "2031-02-03T04:05:06Z";
    let other = Snapshot { expires: Some(ago(-3_600)), ..completed(&store, ago(7_200)) };
    let (newest, reading) = (completed(&store, ago(3_600)), reading(&store, ago(60)));
    for snapshot in [&other, &newest, &reading] {
        store.catalog.queue_snapshot(snapshot).await.unwrap();
    }
    let id = other.id.to_string();
    let stored = async || {
        let found = store.catalog.snapshot(store.cluster.id, other.id).await.unwrap().unwrap();
        (found.expires, found.do_not_delete)
    };

    let kept = operator.run(&words("keep", &[&id]));
    assert_eq!(kept.ok().stdout.trim(), format!("{id} is kept until you say otherwise"));
    assert_eq!(stored().await, (other.expires, true));
    operator.run(&words("delete", &[&id])).fails(1, "it is marked doNotDelete");
    // As the schedule said.
    let document = operator.json(&words("expire", &[&id]));
    assert_eq!((&document["id"], &document["doNotDelete"]), (&id.as_str().into(), &false.into()));
    assert_eq!(stored().await, (other.expires, false));
    operator.run(&words("keep", &[&id])).ok();
    let expires = operator.run(&words("expire", &[&id, "--at", until]));
    assert_eq!(expires.ok().stdout.trim(), format!("{id} is kept until {until}"));
    assert_eq!(stored().await, (Some(until.parse().unwrap()), false));
    let list = operator.run(&words("list", &[]));
    assert!(list.ok().stdout.contains(until), "{list:?}");

    for verb in ["keep", "expire"] {
        let unfinished = operator.run(&words(verb, &[&reading.id.to_string()]));
        unfinished.fails(1, "is READING: how long it is kept is set once it is complete");
        operator.run(&words(verb, &["6b94183187d9d64b6f2868b5"])).fails(1, "there is no snapshot");
    }
    operator.run(&words("expire", &[&id, "--at", "tomorrow"])).fails(2, "--at <TIME>");
    let trail = operator.run(&["audit"]);
    for (verb, times) in [("keep", 2), ("expire", 2)] {
        assert_eq!(trail.ok().stdout.matches(&format!("snapshot {verb} {id}")).count(), times, "{trail:?}");
    }
}

/// Begins `snapshot take`, and gives what it says, line by line, and what to end it with.
struct Take {
    child: std::process::Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Take {
    fn begin(operator: &Operator) -> Take {
        let mut command = operator.command(&words("take", &[]));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = stillpoint_lab::process::spawn(command).unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Take { child, said }
    }

    fn says(&mut self, expected: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), expected);
    }

    /// Its exit code, and what it printed at last on standard output and standard error.
    fn end(mut self) -> (i32, String, String) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.said.read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap().code().unwrap(), stdout, stderr)
    }
}

/// The snapshot that a command has queued.
async fn asked_for(store: &Store<'_>) -> Snapshot {
    loop {
        if let Some(snapshot) = store.catalog.unfinished_snapshot(store.cluster.id).await.unwrap() {
            return snapshot;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_command_follows_it_to_its_end() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let mut take = Take::begin(&operator);
    let queued = asked_for(&store).await;
    let save = async |snapshot: Snapshot| {
        let snapshot = Snapshot { id: queued.id, requested: queued.requested, ..snapshot };
        store.save_snapshot(&snapshot).await;
    };
    let now = ago(0);
    save(Snapshot { parts: vec![], ..reading(&store, now) }).await;
    take.says("reading the cluster");
    save(reading(&store, now)).await;
    take.says("reading the cluster; 1000 documents, 70 kB");
    let trouble = Some("the shard rs0 does not answer".into());
    save(Snapshot { trouble, ..reading(&store, now) }).await;
    take.says("the shard rs0 does not answer");
    save(Snapshot { state: State::Folding, ended: None, ..completed(&store, now) }).await;
    take.says("following the stored oplogs to the snapshot's time; 2000 documents, 140 kB");
    save(completed(&store, now)).await;
    take.says("completed; 2000 documents, 140 kB");
    let (code, stdout, stderr) = take.end();
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains(&queued.id.to_string()) && stdout.contains("COMPLETED"), "{stdout}");

    let take = Take::begin(&operator);
    let queued = asked_for(&store).await;
    store.save_snapshot(&Snapshot { id: queued.id, ..failed(&store, now) }).await;
    let (code, stdout, stderr) = take.end();
    assert!(code == 1 && stdout.contains("FAILED"), "{stdout}");
    assert!(stderr.ends_with("failed\nerror: the snapshot failed: the vault has no room left\n"), "{stderr}");

    let take = Take::begin(&operator);
    let queued = asked_for(&store).await;
    store.stop_server().await;
    let (code, stdout, stderr) = take.end();
    let says = format!("error: the server has stopped before snapshot {} was complete", queued.id);
    assert!(code == 1 && stdout.is_empty() && stderr.contains(&says), "{stdout}{stderr}");
    let trail = operator.run(&["audit"]);
    assert_eq!(trail.ok().stdout.matches("snapshot take ").count(), 3, "{trail:?}");
}

#[tokio::test]
async fn one_is_asked_for_at_a_time_and_of_a_server() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let queued = operator.json(&words("take", &["--no-wait"]));
    let id = queued["id"].as_str().unwrap();
    assert_eq!(queued["stillpoint"]["state"], "QUEUED");
    assert_eq!(asked_for(&store).await.id.to_string(), id);
    operator.run(&words("take", &[])).fails(1, &format!("snapshot {id} of this cluster is not yet finished"));
    store.stop_server().await;
    operator.run(&words("take", &[])).fails(1, "no server is running on this catalog: start `stillpoint serve`");
    assert_eq!(store.catalog.count_snapshots(store.cluster.id).await.unwrap(), 1);
}

#[tokio::test]
async fn a_checkpoint_can_be_restored_once_a_snapshot_has_its_parts() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    store.fill().await;
    store.begin(&PartId::ConfigServers).await;
    let (queued, ended) = completed_checkpoint(&store);
    let (id, cut) = (queued.id.to_string(), ended.cut.unwrap());
    store.queue(queued, ended).await;
    let show = ["checkpoint", "show", "-p", "p", "-c", "c", &id];
    let ran = operator.run(&show);
    assert_eq!(ran.ok().stdout.matches("no snapshot has it as of then or before").count(), 2, "{ran:?}");
    assert_eq!(operator.json(&show)["restorable"], false);
    store.catalog.queue_snapshot(&completed_at(&store, ago(1), cut)).await.unwrap();
    let ran = operator.run(&[&["--json"], &show[..]].concat());
    assert!(ran.json()["restorable"] == true && ran.stderr.is_empty(), "{ran:?}");
    let list = operator.run(&["checkpoint", "list", "-p", "p", "-c", "c"]);
    assert!(list.lines()[1].ends_with("true"), "{list:?}");
}
