//! `stillpoint serve`, running.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use stillpoint_lab::process::{signal, spawn};

use super::Operator;

const LIMIT: Duration = Duration::from_secs(30);

/// A server that is killed, if it still runs, when it is dropped.
pub struct Server<'a> {
    operator: &'a Operator,
    process: Child,
    log: PathBuf,
    /// `127.0.0.1:PORT`
    address: String,
}

impl Server<'_> {
    pub fn start(operator: &Operator) -> Server<'_> {
        let mut server = Server::begin(operator);
        let since = Instant::now();
        loop {
            let text = server.log();
            if let Some((_, address)) = text.split_once("listens on http://")
                && let Some((address, _)) = address.split_once('\n')
            {
                address.trim().clone_into(&mut server.address);
                return server;
            }
            let ended = server.process.try_wait().unwrap();
            assert!(ended.is_none() && since.elapsed() < LIMIT, "the server does not start: {ended:?} {text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// One that has yet to start.
    pub fn begin(operator: &Operator) -> Server<'_> {
        let log = operator.path("serve.log");
        let mut command = operator.command(&["serve"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Server { operator, process: spawn(command).unwrap(), log, address: String::new() }
    }

    /// The first line of the reply to a GET without credentials.
    pub fn get(&self, path: &str) -> String {
        self.request("GET", path, "").lines().next().unwrap_or_default().to_owned()
    }

    /// The whole reply to a request without credentials and body; `headers` end with a line break each.
    pub fn request(&self, method: &str, path: &str, headers: &str) -> String {
        self.request_at(&self.address, method, path, headers)
    }

    /// Likewise, at another address that the server has.
    pub fn request_at(&self, address: &str, method: &str, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        self.operator.printed(&reply);
        reply
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// As an init system stops it: it ends, and well. What it has logged.
    pub fn stops(mut self) -> String {
        signal(&self.process, libc::SIGTERM).unwrap();
        let since = Instant::now();
        loop {
            let log = self.log();
            if let Some(status) = self.process.try_wait().unwrap() {
                assert!(status.success(), "the server ended with {status}: {log}");
                return self.log();
            }
            assert!(since.elapsed() < LIMIT, "the server does not stop: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn kill_9(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !std::thread::panicking() {
            self.operator.printed(&self.log());
        }
    }
}
