//! Processes that end: by themselves, at their limit, or with the test.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stillpoint_lab::process::spawn;

#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Killed when it is dropped, should it still run.
struct Running(Child);

/// Runs a command to its end, which it must reach within `limit`.
pub fn run(mut command: Command, limit: Duration) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("{command:?}");
    let mut running = Running(spawn(command).unwrap_or_else(|e| panic!("{what} cannot be run: {e}")));
    let stdout = read(running.0.stdout.take().unwrap());
    let stderr = read(running.0.stderr.take().unwrap());
    let since = Instant::now();
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            break status;
        }
        if since.elapsed() > limit {
            drop(running);
            panic!("{what} does not end: {}{}", stdout.join().unwrap(), stderr.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ended { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn read(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Ended {
    /// What it printed, if it ended well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{}\n{}{}", self.status, self.stdout, self.stderr);
        self.stdout
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only for one that has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[should_panic(expected = "does not end: begun")]
fn a_process_without_end_is_killed() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo begun; exec sleep 60"]);
    run(command, Duration::from_millis(200));
}
