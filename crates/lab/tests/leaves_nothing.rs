//! Processes end with the test that started them: when it panics, and when it is killed itself.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use stillpoint_lab::wait::until;
use stillpoint_lab::{Lab, folder};

/// Set for a child that only starts a lab, says its processes and waits to be killed.
const VICTIM: &str = "STILLPOINT_LAB_VICTIM";

/// Whether it runs: a zombie, which whoever inherited it has yet to reap, does not.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn gone(pids: &[u32]) -> bool {
    let gone = || async { (!pids.iter().any(|pid| runs(*pid))).then_some(()) };
    until(Duration::from_secs(10), gone).await.is_some()
}

#[tokio::test]
async fn a_panic_stops_the_processes() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let lab = Lab::builder().shards(1).start().await.unwrap();
        tell.send(lab.pids().await).unwrap();
        panic!("as a test does that fails");
    });
    let pids = told.await.unwrap();
    assert_eq!(pids.len(), 2);
    assert!(task.await.unwrap_err().is_panic());
    assert!(gone(&pids).await);
}

/// Not a test of its own: what the next test runs in a process that it can kill.
#[tokio::test]
async fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let lab = Lab::builder().shards(1).start().await.unwrap();
    for pid in lab.pids().await {
        println!("pid {pid}");
    }
    println!("ready");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn kill_9_of_the_test_stops_the_processes() {
    // A place of its own for the folders that the killed process cannot remove.
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, "1")
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pids = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, pid)) = line.split_once("pid ") {
            pids.push(pid.parse().unwrap());
        }
        if line.ends_with("ready") {
            break;
        }
    }
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| runs(*pid)));
    let folders = || std::fs::read_dir(dir.path()).unwrap().count();
    folder::sweep(dir.path());
    assert_eq!(folders(), 2, "those in use stay");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(gone(&pids).await);
    folder::sweep(dir.path());
    assert_eq!(folders(), 0, "the next lab removes those of the dead");
}

#[tokio::test]
async fn the_folders_are_removed() {
    let set = Lab::plain_replica_set().await.unwrap();
    let pid = set.pids().await[0];
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let dir = line.split('\0').skip_while(|arg| *arg != "--dbpath").nth(1).unwrap().to_owned();
    assert!(Path::new(&dir).exists());
    drop(set);
    assert!(!Path::new(&dir).exists());
}
