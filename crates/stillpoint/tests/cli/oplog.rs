//! `stillpoint oplog`

use std::fs::File;
use std::os::fd::FromRawFd;
use std::process::{Output, Stdio};

use serde_json::json;

use crate::support::{Operator, Store, entries};

const EXPORT: [&str; 6] = ["oplog", "export", "-p", "p", "-c", "c"];

fn export(operator: &Operator, more: &[&str]) -> Output {
    let words = [&EXPORT[..], more].concat();
    let output = operator.command(&words).stdin(Stdio::null()).output().unwrap();
    operator.printed(&String::from_utf8_lossy(&output.stderr));
    output
}

#[tokio::test]
async fn the_entries_are_written_as_the_server_wrote_them() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    store.fill().await;
    for (more, seconds, says) in [
        (&[][..], 11..=50, "40 entries, "),
        (&["--from", "15:1", "--to", "35:1"], 15..=35, "from 15:1 to 35:1"),
        (&["--from", "15:2"], 16..=50, "from 16:1 to 50:1"),
        (&["--to", "60:1", "--json"], 11..=50, "after 50:1 nothing up to 60:1 is stored"),
    ] {
        let output = export(&operator, &[&["--part", "rs0"], more].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.contains(says), "{more:?}: {stderr}");
        assert!(output.stdout == entries(seconds), "{more:?}");
    }
    let none = export(&operator, &["--part", "rs0", "--from", "70:1"]);
    assert!(none.status.success() && none.stdout.is_empty() && none.stderr == b"no entries\n", "{none:?}");
}

#[tokio::test]
async fn what_cannot_be_exported_is_said_with_what_can() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let run = |more: &[&str]| operator.run(&[&EXPORT[..], more].concat());
    run(&["--part", "rs0"]).fails(1, "no oplog is stored yet: `stillpoint serve` stores them");
    store.begin(&stillpoint_core::checkpoint::PartId::ConfigServers).await;
    run(&["--part", "config"]).fails(1, "the config servers: nothing of its oplog is stored");
    store.fill().await;
    run(&["--part", "rs1"]).fails(1, "c has no part \"rs1\"; it has config, rs0");
    run(&["--part", "rs0", "--from", "20"]).fails(2, "write SECONDS:INCREMENT");
    run(&["--part", "rs0", "--from", "20:1", "--to", "19:1"]).fails(2, "--from 20:1 is after --to 19:1");
    run(&["--part", "rs0", "--from", "5:1"]).fails(1, "is stored from 11:1 on, and 5:1 was asked for");
}

#[tokio::test]
async fn what_was_written_before_a_lost_segment_is_said_and_it_becomes_a_gap() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let segments = store.fill().await;
    std::fs::remove_file(store.file(&segments[2])).unwrap();
    let output = export(&operator, &["--part", "rs0"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout == entries(11..=30)), (Some(1), true));
    assert!(stderr.contains("20 entries, ") && stderr.contains("from 11:1 to 30:1"), "{stderr}");
    assert!(stderr.contains("error: shard rs0: the entries from 31:1 to 40:1 are lost"), "{stderr}");

    let list = operator.json(&["oplog", "list", "-p", "p", "-c", "c"]);
    assert_eq!(list[0]["gaps"][0]["cause"], "SEGMENT_MISSING");
    assert_eq!((&list[0]["gaps"][0]["after"], &list[0]["gaps"][0]["until"]), (&json!("30:1"), &json!("40:2")));
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    store.fill().await;
    let mut command = operator.command(&[&EXPORT[..], &["--part", "rs0"]].concat());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_terminal_gets_no_bson() {
    let operator = Operator::with_project();
    let (mut ours, mut theirs) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: both pointers are to integers of ours, and the others may be null.
    let opened = unsafe { libc::openpty(&mut ours, &mut theirs, null, null.cast(), null.cast()) };
    assert_eq!(opened, 0);
    // SAFETY: they were just opened, and nobody else has them.
    let (_ours, theirs) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    let mut command = operator.command(&[&EXPORT[..], &["--part", "rs0"]].concat());
    let child = command.stdin(Stdio::null()).stdout(theirs).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("BSON is not for a terminal"), "{stderr}");
}

#[tokio::test]
async fn the_list_says_what_is_stored_of_each_part() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let empty = operator.run(&["oplog", "list", "-p", "p", "-c", "c"]);
    assert!(empty.lines()[0].contains("no oplog is stored yet"), "{empty:?}");
    let segments = store.fill().await;
    store.begin(&stillpoint_core::checkpoint::PartId::ConfigServers).await;
    store.catalog.add_gap(store.cluster.id, &store.gap()).await.unwrap();
    let list = operator.json(&["oplog", "list", "-p", "p", "-c", "c"]);
    let stored: u64 = segments.iter().map(|segment| segment.stored).sum();
    let mut shard = list[1].clone();
    assert_eq!(shard["gaps"].as_array_mut().unwrap().pop().unwrap()["cause"], "ROLLED_OVER");
    assert_eq!(
        shard,
        json!({
            "part": "rs0", "replicaSet": "set", "from": "11:1", "completeSince": "11:1", "storedUntil": "50:1",
            "wholeUntil": "50:1", "ended": null, "segments": 4, "entries": 40, "bytes": entries(11..=50).len(),
            "storedBytes": stored, "gaps": [],
        })
    );
    assert_eq!((&list[0]["part"], &list[0]["storedUntil"]), (&json!("config"), &json!(null)));
    let table = operator.run(&["oplog", "list", "-p", "p", "-c", "c"]);
    assert!(table.lines()[2].contains("50:1 (1970-01-01T00:00:50Z)"), "{table:?}");
    assert!(table.stdout.contains("make the oplog larger"), "{table:?}");
}
