use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stillpoint_catalog::sqlite::SqliteCatalog;
use stillpoint_catalog::{Cluster, Project, SegmentTotals};
use stillpoint_core::checkpoint::{Checkpoint, Failure, Found, Part, PutBack, Reason, Released, State, Token};
use stillpoint_core::restore::{Options, Point, Restore, Target};
use stillpoint_core::snapshot::Snapshot;
use stillpoint_core::{CheckpointId, ClusterTime, DrillId, ProjectId, RestoreId, SnapshotId, restore, snapshot};
use tempfile::TempDir;

use super::figures::{OfCluster, OfDrills, OfPart, OfRestores, OfSnapshots, gather};
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// With something to say in every series.
fn everything() -> Vec<OfCluster> {
    let capture = CaptureReport {
        at: at(1_000),
        stored: Some(ClusterTime::new(900, 1)),
        majority: Some(ClusterTime::new(910, 1)),
        oldest: Some(ClusterTime::new(100, 1)),
        behind_bytes: Some(4_096),
        trouble: Some((at(950), "shard0.internal:27018 does not answer".into())),
        halted: true,
    };
    let part = OfPart {
        part: PartId::Shard("rs 0".into()),
        stored_until: capture.stored,
        capture: Some(capture),
        totals: Some(SegmentTotals { segments: 2, entries: 30, bytes: 5_000_000_000, stored: 600 }),
        gaps: [1, 0, 0, 2],
    };
    vec![OfCluster {
        project: "p".into(),
        cluster: "a \"b\" \\ c\nd".into(),
        parts: vec![part],
        last_completed: Some(at(700)),
        age: 300.0,
        last_failed: true,
        balancer_held: 12.5,
        discovery: Some(0.75),
        drills: OfDrills {
            last_failed: Some(true),
            last_passed: Some(at(600)),
            recovery: Some(41.5),
            loss: Some((12.0, 3_000.0)),
            overdue: Some(false),
        },
        snapshots: OfSnapshots {
            newest: Some(at(600)),
            age: 400.0,
            is_running: true,
            last_failed: true,
            failed: Some(at(650)),
            damaged: 2,
        },
        restores: OfRestores { is_running: true, last: Some((at(500), true)) },
    }]
}

fn names(page: &str) -> BTreeSet<&str> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect()
}

#[test]
fn every_series_is_written_with_its_labels_and_no_text_that_may_name_hosts() {
    let page = page::render(everything()).unwrap();
    let page = std::str::from_utf8(&page).unwrap();
    let samples: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
    let cluster = r#"project="p",cluster="a \"b\" \\ c\nd""#;
    let of_part = format!(r#"{cluster},part="shard-rs%200""#);
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        format!("stillpoint_build_info{{version=\"{version}\"}} 1.0"),
        format!("stillpoint_capture_lag_seconds{{{of_part}}} 10.0"),
        format!("stillpoint_capture_lag_bytes{{{of_part}}} 4096.0"),
        format!("stillpoint_oplog_window_left_seconds{{{of_part}}} 800.0"),
        format!("stillpoint_capture_stored_timestamp_seconds{{{of_part}}} 900.0"),
        format!("stillpoint_capture_trouble{{{of_part}}} 1.0"),
        format!("stillpoint_capture_halted{{{of_part}}} 1.0"),
        format!("stillpoint_capture_trouble_since_timestamp_seconds{{{of_part}}} 950.0"),
        format!("stillpoint_stored_bytes{{{of_part}}} 600.0"),
        format!("stillpoint_stored_oplog_bytes{{{of_part}}} 5000000000.0"),
        format!("stillpoint_stored_segments{{{of_part}}} 2.0"),
        format!("stillpoint_stored_entries{{{of_part}}} 30.0"),
        format!("stillpoint_gaps{{{of_part},cause=\"ROLLED_OVER\"}} 1.0"),
        format!("stillpoint_gaps{{{of_part},cause=\"SHARD_AWAY\"}} 0.0"),
        format!("stillpoint_gaps{{{of_part},cause=\"SEGMENT_MISSING\"}} 0.0"),
        format!("stillpoint_gaps{{{of_part},cause=\"SEGMENT_DAMAGED\"}} 2.0"),
        format!("stillpoint_checkpoint_last_completed_timestamp_seconds{{{cluster}}} 700.0"),
        format!("stillpoint_checkpoint_age_seconds{{{cluster}}} 300.0"),
        format!("stillpoint_checkpoint_last_failed{{{cluster}}} 1.0"),
        format!("stillpoint_balancer_held_seconds{{{cluster}}} 12.5"),
        format!("stillpoint_checkpoint_discovery_seconds{{{cluster}}} 0.75"),
        format!("stillpoint_drill_last_failed{{{cluster}}} 1.0"),
        format!("stillpoint_drill_overdue{{{cluster}}} 0.0"),
        format!("stillpoint_drill_last_passed_timestamp_seconds{{{cluster}}} 600.0"),
        format!("stillpoint_drill_rto_seconds{{{cluster}}} 41.5"),
        format!("stillpoint_drill_rpo_seconds{{{cluster}}} 12.0"),
        format!("stillpoint_drill_checkpoint_rpo_seconds{{{cluster}}} 3000.0"),
        format!("stillpoint_snapshot_newest_timestamp_seconds{{{cluster}}} 600.0"),
        format!("stillpoint_snapshot_age_seconds{{{cluster}}} 400.0"),
        format!("stillpoint_snapshot_running{{{cluster}}} 1.0"),
        format!("stillpoint_snapshot_last_failed{{{cluster}}} 1.0"),
        format!("stillpoint_snapshot_failed_timestamp_seconds{{{cluster}}} 650.0"),
        format!("stillpoint_snapshots_damaged{{{cluster}}} 2.0"),
        format!("stillpoint_restore_running{{{cluster}}} 1.0"),
        format!("stillpoint_restore_last_broken{{{cluster}}} 1.0"),
        format!("stillpoint_restore_last_ended_timestamp_seconds{{{cluster}}} 500.0"),
    ];
    assert_eq!(samples, expected);
    assert!(!page.contains("internal"), "{page}");
    for name in names(page) {
        for line in [format!("# HELP {name} "), format!("# TYPE {name} gauge\n")] {
            assert_eq!(page.matches(&line).count(), 1, "{line}");
        }
    }
}

#[test]
fn the_alert_rules_and_the_guide_name_series_that_there_are() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let read = |name| std::fs::read_to_string(folder.join(name)).unwrap();
    let page = page::render(everything()).unwrap();
    let there = names(std::str::from_utf8(&page).unwrap());
    let named = |text: &str| {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("stillpoint_")).map(str::to_owned).collect::<BTreeSet<_>>()
    };

    let rules = read("alerts.yml");
    let in_rules = named(&rules);
    assert!(in_rules.len() >= 8, "{in_rules:?}");
    for name in &in_rules {
        assert!(there.contains(name.as_str()), "alerts.yml: {name}");
    }
    let alerts = rules.matches("- alert: ").count();
    assert_eq!(alerts, 15);
    for each in ["expr: ", "severity: ", "summary: ", "description: "] {
        assert_eq!(rules.matches(each).count(), alerts, "{each}");
    }
    // The severities are those that the guide tells apart.
    assert_eq!(rules.matches("severity: critical").count() + rules.matches("severity: warning").count(), alerts);

    let guide = read("operating.md");
    let in_guide = named(&guide);
    for name in there {
        assert!(in_guide.contains(name), "operating.md does not say what {name} is");
    }
}

struct Lab {
    _folder: TempDir,
    catalog: Arc<SqliteCatalog>,
    cluster: ClusterId,
}

impl Lab {
    async fn new() -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let open = SqliteCatalog::open_with_key_file(&folder.path().join("db"), &folder.path().join("key"));
        let catalog = open.unwrap();
        let (project, cluster) = (ProjectId::new(at(0), 1), ClusterId::new(at(0), 1));
        let organization = catalog.organizations().await.unwrap()[0].id;
        let name = "p".to_owned();
        catalog.create_project(&Project { id: project, organization, name, created: at(0) }).await.unwrap();
        let cluster_record = Cluster {
            id: cluster,
            project,
            name: "c".into(),
            identity: "identity".into(),
            uri: "mongodb://user:secret@config.internal/".into(),
            created: at(0),
        };
        catalog.add_cluster(&cluster_record).await.unwrap();
        Lab { _folder: folder, catalog: Arc::new(catalog), cluster }
    }

    async fn add(&self, started: i64, with: impl FnOnce(Checkpoint) -> Checkpoint) {
        let id = CheckpointId::new(at(started), started as u64);
        self.catalog.queue_checkpoint(&with(Checkpoint::queued(id, self.cluster, at(started)))).await.unwrap();
    }

    async fn figures(&self, now: i64) -> OfCluster {
        gather(&*self.catalog, Vec::new(), at(now)).await.unwrap().remove(0)
    }
}

fn held(checkpoint: Checkpoint) -> Checkpoint {
    let time = ClusterTime::new(checkpoint.started.as_second() as u32, 1);
    let found = Found { running: true, settings: "{}".into(), seen: time, from: "127.0.0.1:1".into() };
    Checkpoint { state: State::Holding, held_since: Some(checkpoint.started), found: Some(found), ..checkpoint }
}

fn completed(checkpoint: Checkpoint) -> Checkpoint {
    let started = checkpoint.started;
    let time = |increment| ClusterTime::new(started.as_second() as u32, increment);
    let token = Token { attempt: 1, time: time(2), discovered: true, discovered_at: Some(at(started.as_second() + 5)) };
    let part = Part { id: PartId::ConfigServers, replica_set: "cfg".into(), term: Some(1), token: Some(token) };
    Checkpoint {
        state: State::Completed,
        parts: vec![part],
        clock: Some(time(1)),
        cut: Some(time(2)),
        released: Some(Released { at: at(started.as_second() + 2), how: PutBack::AsFound }),
        ended: Some(at(started.as_second() + 5)),
        ..held(checkpoint)
    }
}

fn failed(checkpoint: Checkpoint) -> Checkpoint {
    let failure = Failure { reason: Reason::Unreachable, detail: "config.internal".into() };
    Checkpoint { state: State::Failed, ended: Some(checkpoint.started), failure: Some(failure), ..checkpoint }
}

#[tokio::test]
async fn the_last_completed_checkpoint_is_found_behind_any_number_that_failed() {
    let lab = Lab::new().await;
    let before = lab.figures(50).await;
    assert_eq!((before.last_completed, before.age, before.last_failed), (None, 50.0, false), "since it was added");
    lab.add(100, completed).await;
    let one = lab.figures(150).await;
    assert_eq!((one.last_completed, one.age, one.discovery), (Some(at(102)), 48.0, Some(3.0)));
    assert!(!one.last_failed);
    for n in 0..130 {
        lab.add(200 + n, failed).await;
    }
    let many = lab.figures(1_000).await;
    assert_eq!((many.last_completed, many.last_failed, many.balancer_held), (Some(at(102)), true, 0.0));
    lab.add(900, held).await;
    let holding = lab.figures(1_000).await;
    assert_eq!((holding.balancer_held, holding.last_failed), (100.0, true), "the last that ended");
    assert_eq!(lab.figures(10).await.age, 0.0, "a clock that was set back");
}

#[tokio::test]
async fn snapshots_and_restores_are_told_by_the_last_of_each_kind() {
    let lab = Lab::new().await;
    let snapshot = |requested: i64| Snapshot::queued(SnapshotId::new(at(requested), 1), lab.cluster, at(requested));
    let add = async |snapshot: Snapshot| lab.catalog.queue_snapshot(&snapshot).await.unwrap();
    let completed = |requested: i64| Snapshot {
        state: snapshot::State::Completed,
        ended: Some(at(requested + 20)),
        cut: Some(ClusterTime::at(at(requested + 10))),
        ..snapshot(requested)
    };
    let failed = |requested: i64| Snapshot {
        state: snapshot::State::Failed,
        ended: Some(at(requested + 5)),
        failure: Some("shard0.internal does not answer".into()),
        ..snapshot(requested)
    };
    let told = async |now: i64| {
        let OfSnapshots { newest, age, is_running, last_failed, failed, damaged } = lab.figures(now).await.snapshots;
        (
            newest.map(|time| time.as_second()),
            age,
            is_running,
            last_failed,
            failed.map(|time| time.as_second()),
            damaged,
        )
    };
    assert_eq!(told(50).await, (None, 50.0, false, false, None, 0), "since it was added");
    add(failed(100)).await;
    assert_eq!(told(150).await, (None, 150.0, false, true, Some(105), 0));
    add(completed(200)).await;
    assert_eq!(told(250).await, (Some(210), 40.0, false, false, Some(105), 0));
    add(completed(300)).await;
    add(failed(400)).await;
    add(snapshot(500)).await;
    assert_eq!(told(600).await, (Some(310), 290.0, true, true, Some(405), 0));
    // Nothing goes on from one that is damaged.
    lab.catalog.note_damage(lab.cluster, completed(300).id, Some("a pack is missing")).await.unwrap();
    assert_eq!(told(600).await, (Some(210), 390.0, true, true, Some(405), 1));
    assert_eq!(told(10).await.1, 0.0, "a clock that was set back");

    let restore = |requested: i64, state, ended: Option<i64>| {
        let (id, time) = (RestoreId::new(at(requested), 1), ClusterTime::at(at(210)));
        let (point, target) = (Point::Time(time), Target::Hosts("host:1".into()));
        let queued = Restore::queued(id, lab.cluster, at(requested), point, time, target, Options::default());
        let failure = (state == restore::State::Broken).then(|| "the target is not empty".to_owned());
        Restore { state, failure, ended: ended.map(at), ..queued }
    };
    let add = async |restore: Restore| {
        let uri = "mongodb://host:1/".into();
        lab.catalog.queue_restore(&restore, Some(&uri)).await.unwrap();
    };
    let told = async || {
        let OfRestores { is_running, last } = lab.figures(1_000).await.restores;
        (is_running, last.map(|(ended, broken)| (ended.as_second(), broken)))
    };
    assert_eq!(told().await, (false, None));
    add(restore(700, restore::State::Broken, Some(710))).await;
    assert_eq!(told().await, (false, Some((710, true))));
    add(restore(800, restore::State::Queued, None)).await;
    assert_eq!(told().await, (true, Some((710, true))), "the last that ended");
    lab.catalog.cancel_restore(lab.cluster, RestoreId::new(at(800), 1), at(820)).await.unwrap();
    assert_eq!(told().await, (false, Some((820, false))), "that somebody ended it is no failure");
    let of_a_drill = Some(DrillId::new(at(900), 1));
    add(Restore { drill: of_a_drill, ..restore(900, restore::State::Broken, Some(910)) }).await;
    add(Restore { drill: of_a_drill, ..restore(950, restore::State::Queued, None) }).await;
    assert_eq!(told().await, (false, Some((820, false))), "a drill's is told of as a drill");
}

#[tokio::test]
async fn a_page_is_made_once_a_second_however_many_ask() {
    let lab = Lab::new().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let (counter, cluster) = (asked.clone(), lab.cluster);
    let reports = move |now| {
        counter.fetch_add(1, Ordering::SeqCst);
        let report = CaptureReport {
            at: now,
            stored: None,
            majority: None,
            oldest: None,
            behind_bytes: None,
            trouble: None,
            halted: false,
        };
        vec![(cluster, PartId::ConfigServers, report)]
    };
    let metrics = Arc::new(Metrics::new(lab.catalog.clone(), Box::new(reports), Arc::new(|| at(1_000))));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let metrics = metrics.clone();
            tokio::spawn(async move { metrics.page().await.unwrap() })
        })
        .collect();
    for task in tasks {
        let page = String::from_utf8(task.await.unwrap().to_vec()).unwrap();
        assert!(
            page.contains("stillpoint_capture_halted{project=\"p\",cluster=\"c\",part=\"config\"} 0.0\n"),
            "{page}"
        );
        assert!(!page.contains("stillpoint_stored_bytes"), "there is no stream yet: {page}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    tokio::time::sleep(FRESH).await;
    metrics.page().await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}
