//! A user of the command line, in a folder of their own.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use stillpoint_lab::process::spawn;
use tempfile::TempDir;

/// No command takes longer, whatever it meets.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs commands in a folder with a `stillpoint.toml`, remembers all that they printed, and makes sure
/// that no secret was among it.
pub struct Operator {
    folder: TempDir,
    secrets: Mutex<Vec<String>>,
    printed: Mutex<Vec<String>>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    #[expect(dead_code, reason = "for messages of tests that fail")]
    what: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Operator {
    pub fn new() -> Operator {
        let operator =
            Operator { folder: tempfile::tempdir().unwrap(), secrets: Mutex::default(), printed: Mutex::default() };
        operator.configure(
            "[server]\nlisten = \"127.0.0.1:0\"\n[checkpoint]\ninterval = \"off\"\n[snapshots]\nscheduled = false\n",
        );
        operator
    }

    /// One who has made the project `p`.
    pub fn with_project() -> Operator {
        let operator = Operator::new();
        operator.run(&["project", "create", "p"]).ok();
        operator
    }

    pub fn configure(&self, text: &str) {
        std::fs::write(self.path("stillpoint.toml"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// From now on, and in what was printed until now, this must not be seen.
    pub fn secret(&self, secret: &str) {
        assert!(secret.len() >= 8, "too short to look for: {secret}");
        self.secrets.lock().unwrap().push(secret.to_owned());
        self.look_for_secrets();
    }

    pub fn printed(&self, text: &str) {
        self.printed.lock().unwrap().push(text.to_owned());
        self.look_for_secrets();
    }

    fn look_for_secrets(&self) {
        let printed = self.printed.lock().unwrap();
        for secret in self.secrets.lock().unwrap().iter() {
            if let Some(text) = printed.iter().find(|text| text.contains(secret)) {
                panic!("a secret was printed: {text}");
            }
        }
    }

    /// The command, not yet run: in the operator's folder, with nothing of this test's environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stillpoint"));
        command.args(arguments).env_clear().current_dir(self.folder.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "", &[])
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[&["--json"], arguments].concat()).json()
    }

    pub fn run_with(&self, arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Ran {
        let ran = self.run_unseen(arguments, input, environment);
        self.printed(&ran.stdout);
        self.printed(&ran.stderr);
        ran
    }

    /// For the one output that shows a secret on purpose: it is told apart by the caller.
    pub fn run_unseen(&self, arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(environment.iter().copied());
        let what = format!("stillpoint {}", arguments.join(" "));
        let mut child = spawn(command).unwrap();
        // One that does not read its input closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let read = |mut pipe: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut text = String::new();
                pipe.read_to_string(&mut text).unwrap();
                text
            })
        };
        let stdout = read(Box::new(child.stdout.take().unwrap()));
        let stderr = read(Box::new(child.stderr.take().unwrap()));
        let since = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if since.elapsed() > LIMIT {
                child.kill().unwrap();
                panic!("{what} does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let code = status.code().unwrap_or_else(|| panic!("{what}: {status}"));
        Ran { what, code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    }

    /// What the project `p` has.
    pub fn clusters(&self) -> Vec<Value> {
        self.json(&["cluster", "list", "-p", "p"]).as_array().unwrap().clone()
    }

    /// Tries to add a cluster, which must fail with `says` on standard error and leave none behind.
    pub fn add_is_refused(&self, uri: &str, says: &[&str]) -> Ran {
        let before = self.clusters();
        let ran = self.run_with(&["cluster", "add", "-p", "p", "--name", "bad", "--uri", "-"], uri, &[]);
        for says in says {
            ran.fails(1, says);
        }
        assert_eq!(self.clusters(), before, "{ran:?}");
        ran
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.look_for_secrets();
        }
    }
}

impl Ran {
    pub fn ok(&self) -> &Ran {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It succeeded, and printed one JSON document and nothing else on standard output.
    pub fn json(&self) -> Value {
        self.ok();
        self.result()
    }

    /// The JSON document on standard output, however it ended.
    pub fn result(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// It ended with `code`, said so on standard error, and had no result.
    #[track_caller]
    pub fn fails(&self, code: i32, says: &str) -> &Ran {
        assert_eq!(self.stdout, "", "{self:?}");
        self.fails_with_result(code, says)
    }

    /// The same, for those whose result is worth having even then.
    #[track_caller]
    pub fn fails_with_result(&self, code: i32, says: &str) -> &Ran {
        assert_eq!(self.code, code, "{self:?}");
        let last = self.stderr.lines().any(|line| line.starts_with("error: "));
        assert!(last && self.stderr.contains(says), "no {says:?} in {self:?}");
        self
    }

    /// The lines of a table on standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.ok().stdout.lines().collect()
    }
}

#[test]
#[should_panic(expected = "a secret was printed")]
fn a_secret_that_was_printed_before_it_was_known_is_found() {
    let operator = Operator::new();
    operator.printed("the password is correct-horse");
    operator.secret("correct-horse");
}
