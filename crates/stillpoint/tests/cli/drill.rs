//! `stillpoint drill`, and what `status` says of drills, without a throw-away cluster.

use serde_json::{Value, json};
use stillpoint_catalog::Page;
use stillpoint_core::drill::{Drill, Loss, Schedule, Split, Stage, State};
use stillpoint_core::restore::{self, Amount, Restore};
use stillpoint_core::{CheckpointId, ClusterTime, DrillId, RestoreId};

use crate::support::{Operator, Store, ago};

fn words<'a>(verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["drill", verb, "-p", "p", "-c", "c"], more].concat()
}

fn queued(store: &Store, seconds: i64) -> Drill {
    Drill::queued(DrillId::new(ago(seconds), 1), store.cluster.id, ago(seconds), true, Stage::default())
}

fn passed(store: &Store, seconds: i64) -> Drill {
    Drill {
        state: State::Passed,
        begun: Some(ago(seconds)),
        ended: Some(ago(seconds)),
        checkpoint: Some(CheckpointId::new(ago(9_000), 7)),
        time: Some(ClusterTime::new(1_795_521_600, 3)),
        restore: Some(RestoreId::new(ago(seconds), 1)),
        loss: Some(Loss { checkpoint_seconds: 3_660, stream_seconds: 12 }),
        split: Split { preparing: 5_200, checking: 800, loading: 40_000, verifying: 9_000, opening: 40 },
        written: Amount { collections: 3, documents: 4_000, bytes: 12_000_000 },
        ..queued(store, seconds)
    }
}

fn ended(store: &Store, seconds: i64, state: State, failure: &str) -> Drill {
    Drill { state, ended: Some(ago(seconds)), failure: Some(failure.into()), ..queued(store, seconds) }
}

async fn queue(store: &Store<'_>, drill: &Drill) {
    store.catalog.queue_drill(drill).await.unwrap();
}

#[tokio::test]
async fn they_are_listed_and_shown_for_people_and_for_programs() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    assert_eq!(operator.run(&words("list", &[])).lines().len(), 1);
    let (old, new) = (passed(&store, 600), ended(&store, 60, State::Failed, "a pack is missing: put it back"));
    queue(&store, &old).await;
    queue(&store, &new).await;
    let table = operator.run(&words("list", &[]));
    let lines = table.lines();
    assert!(lines[0].starts_with("ID ") && lines[1].contains("FAILED"), "{lines:?}");
    for says in [&*old.id.to_string(), "PASSED", "2026-11-24T12:00:00Z", "55.0 s", "12 s", "4000", "12 MB"] {
        assert!(lines[2].contains(says), "{says}: {lines:?}");
    }
    let (old, new) = (old.id.to_string(), new.id.to_string());
    let shown = operator.run(&words("show", &[&old]));
    for says in [
        "by the schedule",
        "55.0 s: making ready 5.2 s",
        "writing 40.0 s",
        "12 s with the stored oplogs, 61 min with the checkpoint alone",
    ] {
        assert!(shown.ok().stdout.contains(says), "{says}: {shown:?}");
    }
    assert!(operator.run(&words("show", &[&new])).ok().stdout.contains("a pack is missing: put it back"));
    let documents = operator.json(&words("list", &["--limit", "1"]));
    assert_eq!(documents.as_array().unwrap().len(), 1);
    assert_eq!((&documents[0]["state"], &documents[0]["rtoSeconds"]), (&json!("FAILED"), &Value::Null));
    let document = operator.json(&words("show", &[&old]));
    assert_eq!((&document["rtoSeconds"], &document["steps"]["verifyingSeconds"]), (&json!(55.04), &json!(9.0)));
    assert_eq!((&document["rpoSeconds"], &document["checkpointRpoSeconds"]), (&json!(12), &json!(3_660)));
    operator
        .run(&words("show", &["6b94183187d9d64b6f2868b5"]))
        .fails(1, "`stillpoint drill list --project p --cluster c` lists them");
}

#[tokio::test]
async fn a_schedule_is_set_shown_and_taken_back() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    assert_eq!(operator.run(&words("schedule", &[])).ok().stdout.trim(), "no drills are scheduled");
    let folder = operator.path("drills");
    operator
        .run(&words("schedule", &["--every", "7d", "--folder", "drills"]))
        .fails(1, &format!("--folder: {} is not a folder", folder.display()));
    operator.run(&words("schedule", &["--every", "7d", "--mongod", "stillpoint.toml"])).fails(1, "not a program");
    operator.run(&words("schedule", &["--mongod", "/bin/true"])).fails(2, "go with --every");
    assert_eq!(store.catalog.drill_schedule(store.cluster.id).await.unwrap(), None);

    std::fs::create_dir(&folder).unwrap();
    let ran = operator.run(&words("schedule", &["--every", "7d", "--folder", "drills", "--mongod", "/bin/true"]));
    assert!(ran.ok().stdout.contains("a drill every 7d, the next now, as soon as a server runs"), "{ran:?}");
    let set = operator.json(&words("schedule", &[]));
    assert_eq!((&set["every"], &set["everySeconds"]), (&json!("7d"), &json!(604_800)));
    assert_eq!((&set["folder"], &set["mongod"]), (&json!(folder), &json!("/bin/true")), "as the server will need it");
    // Or in a cluster that a file names.
    let given = ["--every", "7d", "--to-file", "drills.uri"];
    operator.run(&words("schedule", &given)).fails(1, "drills.uri");
    std::fs::write(operator.path("drills.uri"), "mongodb://drills").unwrap();
    operator.run(&words("schedule", &[&given[..], &["--folder", "drills"]].concat())).fails(2, "cannot be used with");
    operator.run(&words("schedule", &["--to-file", "drills.uri"])).fails(2, "go with --every");
    assert!(operator.run(&words("schedule", &given)).ok().stdout.contains("a drill every 7d"));
    let set = operator.json(&words("schedule", &[]));
    assert_eq!((&set["toFile"], &set["mongod"]), (&json!(operator.path("drills.uri")), &Value::Null));
    queue(&store, &passed(&store, 3_600)).await;
    assert!(operator.run(&words("schedule", &[])).ok().stdout.contains("the next at 20"));

    assert_eq!(operator.json(&words("schedule", &["--off"]))["every"], Value::Null);
    assert_eq!(store.catalog.drill_schedule(store.cluster.id).await.unwrap(), None);
    let audit = operator.run(&["audit"]);
    for says in [": every 7d", ": off"] {
        assert!(
            audit.ok().stdout.contains(&format!("drill schedule of cluster {}{says}", store.cluster.id)),
            "{audit:?}"
        );
    }
}

#[tokio::test]
async fn one_at_a_time_is_asked_for_and_a_server_is_needed() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let asked = operator.json(&words("run", &["--no-wait"]));
    assert_eq!((&asked["state"], &asked["scheduled"]), (&json!("QUEUED"), &json!(false)));
    operator.run(&words("run", &["--no-wait"])).fails(1, "is not yet finished: wait for it, or cancel its restore");
    assert_eq!(store.catalog.drills(store.cluster.id, Page::ALL).await.unwrap().len(), 1);
    let status = operator.run(&["status"]);
    assert!(status.ok().stdout.contains(&format!("drill {} is QUEUED", asked["id"].as_str().unwrap())), "{status:?}");
    store.stop_server().await;
    operator.run(&words("run", &[])).fails(1, "no server is running on this catalog");
}

#[tokio::test]
async fn a_monitor_is_told_of_one_that_failed_and_of_none_that_passed() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    store.fill().await;
    let check = ["status", "--check"];
    let reported = async || store.report(|_| ()).await;
    reported().await;
    let status = operator.run(&check);
    assert!(
        status.ok().stdout.contains("no drill has passed yet: whether it can be restored is not known"),
        "{status:?}"
    );

    queue(&store, &ended(&store, 900, State::Failed, "a pack is missing")).await;
    operator.run(&check).fails_with_result(1, "failed: a pack is missing");
    // One that could not tell says nothing else.
    queue(&store, &ended(&store, 800, State::Interrupted, "the server was stopped")).await;
    operator.run(&check).fails_with_result(1, "failed: a pack is missing");
    queue(&store, &passed(&store, 700)).await;
    reported().await;
    let status = operator.run(&check);
    assert!(status.ok().stdout.contains(": RTO 55.0 s, RPO 12 s"), "{status:?}");

    // What came of its restore is told with it, and of a restore that somebody wanted as before.
    let (time, target) = (ClusterTime::new(25, 1), restore::Target::Hosts("a throw-away cluster".into()));
    let of = |seconds, drill| {
        let (id, point) = (RestoreId::new(ago(seconds), 9), restore::Point::Time(time));
        let queued = Restore::queued(
            id,
            store.cluster.id,
            ago(seconds),
            point,
            time,
            target.clone(),
            restore::Options::default(),
        );
        let (state, failure) = (restore::State::Broken, Some(format!("broken {seconds}")));
        Restore { drill, state, failure, ended: Some(ago(seconds)), ..queued }
    };
    store.catalog.queue_restore(&of(600, Some(DrillId::new(ago(0), 1))), None).await.unwrap();
    operator.run(&check).ok();
    store.catalog.queue_restore(&of(601, None), None).await.unwrap();
    operator.run(&check).fails_with_result(1, "is broken: broken 601");
    let done = Restore {
        id: RestoreId::new(ago(590), 9),
        state: restore::State::Killed,
        cancelled: true,
        failure: None,
        ..of(590, None)
    };
    store.catalog.queue_restore(&done, None).await.unwrap();
    operator.run(&check).ok();

    let schedule = Schedule { every: "5m".parse().unwrap(), stage: Stage::default(), since: ago(3_600) };
    store.catalog.set_drill_schedule(store.cluster.id, Some(&schedule)).await.unwrap();
    operator.run(&check).fails_with_result(1, "no drill has passed since ");
    let status = operator.json(&["status"]);
    let drills = &status["clusters"][0]["drills"];
    assert_eq!((&drills["every"], &drills["lastPassed"]["rtoSeconds"]), (&json!("5m"), &json!(55.04)), "{drills}");
    queue(&store, &passed(&store, 500)).await;
    operator.run(&check).ok();
}
