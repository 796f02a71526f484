//! A client that does as little as an HTTP client can, so that what is measured is the server: it shares
//! the machine's cores with it. It blocks, and builds each request in place.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use md5::{Digest, Md5};

const REALM: &str = "MMS Public API";
/// What the bare route gets: it has no challenge, and requests of the same length all the same.
const NO_NONCE: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Nothing that is measured takes as long.
const PATIENCE: Duration = Duration::from_secs(10);

/// An API key with its secret.
#[derive(Clone)]
pub struct User {
    pub public: String,
    pub private: String,
}

impl User {
    /// What the server keeps of the secret.
    pub fn ha1(&self) -> String {
        text_of(Md5::digest(format!("{}:{REALM}:{}", self.public, self.private)).into())
    }
}

/// A nonce and how often it was used.
pub struct Login {
    user: String,
    nonce: String,
    /// The hash of what every answer begins with.
    begun: Md5,
    count: u32,
}

impl Login {
    /// Asks without credentials, for the challenge.
    pub fn ask(stream: &mut TcpStream, user: &User, target: &str) -> Result<Login> {
        stream.write_all(unanswered(target).as_bytes())?;
        let mut buffer = vec![0; 4096];
        let body = receive(stream, &mut buffer)?;
        let head = std::str::from_utf8(&buffer[..body.start])?;
        let nonce = match head.starts_with("HTTP/1.1 401") {
            true => head.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()),
            false => Some(NO_NONCE),
        };
        let nonce = nonce.context("no nonce in the challenge")?.to_owned();
        let begun = Md5::new_with_prefix(format!("{}:{nonce}:", user.ha1()));
        Ok(Login { user: user.public.clone(), nonce, begun, count: 0 })
    }
}

/// A request without credentials.
pub fn unanswered(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// A request, of which only the count and the answer change.
pub struct Request {
    bytes: Vec<u8>,
    count_at: usize,
    response_at: usize,
    /// What every answer ends with.
    end: String,
}

impl Request {
    pub fn new(login: &Login, method: &str, target: &str) -> Request {
        let mut text = format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Digest username=\"{}\", realm=\"{REALM}\", \
             nonce=\"{}\", uri=\"{target}\", qop=auth, nc=",
            login.user, login.nonce
        );
        let count_at = text.len();
        text.push_str("00000000, cnonce=\"abc\", response=\"");
        let response_at = text.len();
        text.push_str("00000000000000000000000000000000\"\r\n\r\n");
        let end = format!(":abc:auth:{}", text_of(Md5::digest(format!("{method}:{target}")).into()));
        Request { bytes: text.into_bytes(), count_at, response_at, end }
    }

    /// The request with the next count.
    pub fn sign(&mut self, login: &mut Login) -> &[u8] {
        login.count += 1;
        let count = self.count_at..self.count_at + 8;
        digits(&login.count.to_be_bytes(), &mut self.bytes[count.clone()]);
        let mut hash = login.begun.clone();
        hash.update(&self.bytes[count]);
        hash.update(&self.end);
        digits(&hash.finalize(), &mut self.bytes[self.response_at..self.response_at + 32]);
        &self.bytes
    }
}

/// One keep-alive connection that answers a challenge once, then reuses its nonce, and asks for its
/// targets in turn.
pub struct Client {
    stream: TcpStream,
    login: Login,
    requests: Vec<Request>,
    next: usize,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(port: u16, user: &User, targets: &[String]) -> Result<Client> {
        let mut stream = connect(port, PATIENCE)?;
        let login = Login::ask(&mut stream, user, targets.first().context("nothing to ask for")?)?;
        let requests = targets.iter().map(|target| Request::new(&login, "GET", target)).collect();
        Ok(Client { stream, login, requests, next: 0, buffer: vec![0; 64 * 1024] })
    }

    pub fn send(&mut self) -> Result<()> {
        let place = self.next;
        self.next = (place + 1) % self.requests.len();
        Ok(self.stream.write_all(self.requests[place].sign(&mut self.login))?)
    }

    /// Something else than its targets, once; the body of the reply.
    pub fn ask(&mut self, method: &str, target: &str) -> Result<&[u8]> {
        self.stream.write_all(Request::new(&self.login, method, target).sign(&mut self.login))?;
        self.receive()
    }

    /// The body of the reply to what was sent last.
    pub fn receive(&mut self) -> Result<&[u8]> {
        let body = receive(&mut self.stream, &mut self.buffer)?;
        ensure!(
            self.buffer.starts_with(b"HTTP/1.1 20"),
            "refused: {}",
            String::from_utf8_lossy(&self.buffer[..body.end])
        );
        Ok(&self.buffer[body])
    }
}

pub fn connect(port: u16, patience: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), patience)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    Ok(stream)
}

/// Reads one reply to the beginning of the buffer, which grows if it must; where its body is.
pub fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Range<usize>> {
    let (mut filled, mut body) = (0, None);
    loop {
        if filled == buffer.len() {
            buffer.resize(filled * 2, 0);
        }
        let read = stream.read(&mut buffer[filled..])?;
        ensure!(read > 0, "the server closed the connection");
        filled += read;
        if body.is_none() {
            body = body_of(&buffer[..filled])?;
        }
        if let Some(body) = body.clone().filter(|body| filled >= body.end) {
            return Ok(body);
        }
    }
}

/// Where the body of a reply will be, once its head is there.
fn body_of(reply: &[u8]) -> Result<Option<Range<usize>>> {
    let (mut at, mut length) = (0, None);
    for line in reply.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        if line == b"\r\n" {
            let length: usize = length.context("no content-length")?;
            return Ok(Some(at..at + length));
        }
        if let Some(digits) = line.strip_prefix(b"content-length: ") {
            length = Some(std::str::from_utf8(digits)?.trim_end().parse()?);
        }
    }
    Ok(None)
}

fn text_of(hash: [u8; 16]) -> String {
    let mut text = [0; 32];
    digits(&hash, &mut text);
    text.into_iter().map(char::from).collect()
}

/// Each byte as two hex digits.
fn digits(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}
