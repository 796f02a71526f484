//! The demo, as `make demo` runs it, on the debug build of the product.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stillpoint_lab::process;

/// Every process of one demo has it in its environment. No server is given what is called as our settings are.
const MARK: &str = "LAB_TEST_OF_A_DEMO";
/// Two of them at once, each with two clusters, on a debug build.
const LIMIT: Duration = Duration::from_secs(180);

/// The product's binary beside the demo's, built if it is not there yet.
fn product() -> Result<PathBuf> {
    let demo = Path::new(env!("CARGO_BIN_EXE_demo"));
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--locked", "-p", "stillpoint"]).status()?;
    ensure!(built.success(), "the product does not build");
    Ok(demo.with_file_name("stillpoint"))
}

fn demo(mark: &str, once: bool) -> Result<Child> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg("--binary").arg(product()?).args(once.then_some("--once")).env(MARK, mark);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(process::spawn(command)?)
}

/// Processes with the mark, as a list of their command lines.
fn alive(mark: &str) -> Vec<String> {
    let needle = format!("{MARK}={mark}");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| fs::read(entry.path().join("environ")).is_ok_and(|environ| contains(&environ, &needle)))
        .filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|line| !line.is_empty())
        .collect()
}

fn contains(environ: &[u8], needle: &str) -> bool {
    environ.split(|byte| *byte == 0).any(|variable| variable == needle.as_bytes())
}

fn check(reply: &Value) {
    assert_eq!(reply["restorable"], true);
    assert!(reply["completed"].is_string() && reply["timestamp"].is_string(), "{reply}");
    let parts = reply["parts"].as_array().expect("parts");
    assert_eq!(parts.len(), 3, "two shards and the config servers");
    assert!(parts.iter().all(|part| part["tokenDiscovered"] == true), "{reply}");
}

#[test]
fn once_it_prints_the_apis_reply_and_how_to_get_it_again_and_ends_by_itself() -> Result<()> {
    let mark = format!("once-{}", std::process::id());
    let output = demo(&mark, true)?.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    check(&serde_json::from_slice(&output.stdout)?);
    assert!(told.contains("a snapshot read of the cluster at its time: EQUAL"), "{told}");
    assert!(told.contains("curl --digest") && told.contains("/backupCheckpoints/"), "{told}");
    assert_eq!(alive(&mark), Vec::<String>::new());
    Ok(())
}

#[test]
fn two_demos_do_not_collide_and_ctrl_c_leaves_nothing() -> Result<()> {
    let marks = ["first", "second"].map(|name| format!("{name}-{}", std::process::id()));
    let mut demos = marks.iter().map(|mark| demo(mark, false)).collect::<Result<Vec<_>>>()?;
    for demo in &mut demos {
        let mut told = BufReader::new(demo.stderr.take().context("no stderr")?);
        let begin = Instant::now();
        let mut line = String::new();
        while !line.contains("Ctrl-C ends the demo") {
            line.clear();
            ensure!(told.read_line(&mut line)? > 0 && begin.elapsed() < LIMIT, "the demo ended early");
        }
        // Kept open, so that the demo can go on talking.
        demo.stderr = Some(told.into_inner());
    }
    for mark in &marks {
        assert!(alive(mark).len() > 3, "a server and three members at least");
    }
    for demo in &demos {
        process::signal(demo, libc::SIGINT)?;
    }
    for (mut demo, mark) in demos.into_iter().zip(&marks) {
        let mut reply = String::new();
        demo.stdout.take().context("no stdout")?.read_to_string(&mut reply)?;
        assert!(demo.wait()?.success());
        check(&serde_json::from_str(&reply)?);
        assert_eq!(alive(mark), Vec::<String>::new());
    }
    Ok(())
}
