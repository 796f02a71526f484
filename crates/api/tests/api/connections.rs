//! Connections: shutdown, limits, TLS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use stillpoint_api::tls::{TlsError, follow, from_files};
use stillpoint_api::{Body, Limits, Options, Peer, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::support::{Lab, OWNER, READER, Running, collection, item, limits, private};

fn schedule() -> String {
    collection().replace("backupCheckpoints", "snapshotSchedule")
}

/// Answers once it is let go, with who asked.
struct Slow {
    began: Notify,
    go: Notify,
}

impl Service for Slow {
    async fn answer(self: &Arc<Self>, _: Request<Incoming>, peer: Peer) -> Response<Body> {
        self.began.notify_one();
        self.go.notified().await;
        Response::new(Either::Left(Full::from(format!("done for {peer:?}"))))
    }
}

fn slow() -> Arc<Slow> {
    Arc::new(Slow { began: Notify::new(), go: Notify::new() })
}

async fn open(server: &Running, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// All that comes until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    String::from_utf8_lossy(&read).into_owned()
}

const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test]
async fn a_shutdown_lets_a_request_under_way_finish_and_closes_idle_connections() {
    let slow = slow();
    let server = Running::start(slow.clone(), Options::default()).await;
    let idle = open(&server, "").await;
    let busy = open(&server, SLOW).await;
    slow.began.notified().await;
    server.stop();
    assert_eq!(rest(idle).await, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "no new connections");
    assert!(!server.task.is_finished());
    slow.go.notify_one();
    let reply = rest(busy).await;
    assert!(reply.starts_with("HTTP/1.1 200 OK") && reply.contains("\r\n\r\ndone"), "{reply}");
    assert_eq!(server.task.await.unwrap(), 0);
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_off() {
    let slow = slow();
    let limits = Limits { drain: Duration::from_millis(200), ..limits() };
    let server = Running::start(slow.clone(), Options { limits, tls: None }).await;
    let busy = open(&server, SLOW).await;
    slow.began.notified().await;
    server.stop();
    assert_eq!(server.task.await.unwrap(), 1);
    assert_eq!(rest(busy).await, "");
}

#[tokio::test]
async fn a_header_that_does_not_come_in_time_ends_the_connection() {
    let slow = slow();
    let limits = Limits { header: Duration::from_millis(200), idle: Duration::from_millis(200), ..limits() };
    let server = Running::start(slow.clone(), Options { limits, tls: None }).await;
    for text in ["", "GET", "GET /slow HTTP/1.1\r\nHost: h\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let begun = Instant::now();
        rest(open(&server, text).await).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{text}");
    }
}

#[tokio::test]
async fn a_header_that_is_too_large_is_refused() {
    let slow = slow();
    let server = Running::start(slow.clone(), Options::default()).await;
    let large = format!("GET /slow HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let reply = rest(open(&server, &large).await).await;
    assert!(reply.starts_with("HTTP/1.1 431") || reply.is_empty(), "{reply}");
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_one_to_close() {
    let slow = slow();
    let limits = Limits { connections: 1, ..limits() };
    let server = Running::start(slow.clone(), Options { limits, tls: None }).await;
    let first = open(&server, "").await;
    sleep(Duration::from_millis(50)).await;
    let second = open(&server, SLOW).await;
    let waited = tokio::time::timeout(Duration::from_millis(200), slow.began.notified()).await;
    assert!(waited.is_err(), "the second was served beside the first");
    drop(first);
    slow.began.notified().await;
    slow.go.notify_one();
    drop(second);
}

#[tokio::test]
async fn one_address_does_not_take_all_connections() {
    let slow = slow();
    let limits = Limits { per_address: 2, ..limits() };
    let server = Running::start(slow.clone(), Options { limits: limits.clone(), tls: None }).await;
    let (first, _second) = (open(&server, "").await, open(&server, "").await);
    assert_eq!(rest(open(&server, SLOW).await).await, "", "closed at once");
    drop(first);
    let since = Instant::now();
    loop {
        let third = open(&server, SLOW).await;
        // It is served once the first is seen to be gone.
        if tokio::time::timeout(Duration::from_millis(200), slow.began.notified()).await.is_ok() {
            break;
        }
        drop(third);
        assert!(since.elapsed() < Duration::from_secs(10), "its place was not given back");
    }

    let many_from = vec!["127.0.0.0/8".parse().unwrap()];
    let server = Running::start(slow.clone(), Options { limits: Limits { many_from, ..limits }, tls: None }).await;
    let mut open_ones = Vec::new();
    for _ in 0..5 {
        open_ones.push(open(&server, SLOW).await);
        slow.began.notified().await;
    }
}

#[tokio::test]
async fn a_connection_may_be_idle_longer_than_a_first_request_may_take() {
    let slow = slow();
    let limits = Limits { header: Duration::from_millis(200), idle: Duration::from_secs(60), ..limits() };
    let server = Running::start(slow.clone(), Options { limits, tls: None }).await;
    let mut stream = open(&server, SLOW).await;
    slow.go.notify_one();
    let mut read = [0; 1024];
    assert_ne!(stream.read(&mut read).await.unwrap(), 0);
    let quiet = tokio::time::timeout(Duration::from_millis(800), stream.read(&mut read)).await;
    assert!(quiet.is_err(), "it was closed");
    stream.write_all(SLOW.as_bytes()).await.unwrap();
    slow.go.notify_one();
    assert_ne!(stream.read(&mut read).await.unwrap(), 0);
}

#[tokio::test]
async fn over_tls_links_begin_with_https_and_hsts_is_given() {
    let lab = Lab::new().await;
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (lab.folder.path().join("cert.pem"), lab.folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server =
        lab.serve(Options { tls: Some(follow(certificate.clone(), key.clone()).unwrap()), limits: limits() }).await;

    let url = format!("https://localhost:{}{}", server.address.port(), item());
    for version in ["--http1.1", "--http2"] {
        let mut command = Command::new("curl");
        command.args(["--silent", "--include", "--digest", "--max-time", "20", version, "--cacert"]).arg(&certificate);
        command.args(["--user", &format!("{READER}:{}", private(READER)), &url]);
        let output =
            command.args(["--resolve", &format!("localhost:{}:127.0.0.1", server.address.port())]).output().await;
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(text.contains("strict-transport-security: max-age=300"), "{text}");
        assert!(text.contains(&format!("\"href\":\"https://localhost:{}/api", server.address.port())), "{text}");
    }

    // Over HTTP/2 a body after a HEAD would be a breach of the protocol.
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--head", "--max-time", "20", "--http2", "--cacert"]).arg(&certificate);
    command.args(["--resolve", &format!("localhost:{}:127.0.0.1", server.address.port()), &url]);
    let output = command.output().await.unwrap();
    let (head, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && head.starts_with("HTTP/2 401"), "{head}{errors}");
    assert!(head.contains("content-length: ") && !head.contains("content-length: 0"), "{head}");

    // Digest, with a body: the challenge must not end the stream before the body has come.
    let url = format!("https://localhost:{}{}", server.address.port(), schedule());
    for _ in 0..6 {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--http2", "--digest", "--cacert"]);
        command.arg(&certificate).args(["--user", &format!("{OWNER}:{}", private(OWNER)), "-X", "PATCH"]);
        command.args(["--header", "Content-Type: application/json", "--data", r#"{"snapshotIntervalHours":12}"#]);
        command.args(["--resolve", &format!("localhost:{}:127.0.0.1", server.address.port()), &url]);
        let output = command.output().await.unwrap();
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("\"snapshotIntervalHours\":12"), "{text}{errors}");
    }

    let wrong = |certificate, key| from_files(certificate, key).unwrap_err();
    assert!(matches!(wrong(&key, &key), TlsError::Empty { what: "certificate", .. }));
    assert!(matches!(wrong(&certificate, &certificate), TlsError::Empty { what: "key", .. }));
    let missing = lab.folder.path().join("none.pem");
    assert!(matches!(wrong(&missing, &key), TlsError::Unreadable { what: "certificate", .. }));
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    assert!(matches!(wrong(&certificate, &key), TlsError::Unusable { .. }));
}

#[tokio::test]
async fn the_service_is_told_who_is_at_the_other_end() {
    let slow = slow();
    slow.go.notify_one();
    let server = Running::start(slow, Options::default()).await;
    let stream = open(&server, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    let own = stream.local_addr().unwrap();
    assert!(rest(stream).await.ends_with(&format!("Peer {{ address: {own}, tls: false }}")));
}

/// The certificate that a server shows, as curl sees it: whether it is the one in the file.
async fn is_trusted(port: u16, certificate: &std::path::Path) -> bool {
    let mut command = Command::new("curl");
    command.args(["--silent", "--output", "/dev/null", "--max-time", "20", "--cacert"]).arg(certificate);
    command.args(["--resolve", &format!("localhost:{port}:127.0.0.1"), &format!("https://localhost:{port}/api")]);
    command.status().await.unwrap().success()
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart_and_a_broken_one_is_not() {
    let lab = Lab::new().await;
    let path = |name: &str| lab.folder.path().join(name);
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let make = |copy: &std::path::Path| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(copy, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        // Put in its place as certificate managers do it.
        std::fs::copy(copy, path("next.pem")).unwrap();
        std::fs::rename(path("next.pem"), &certificate).unwrap();
    };
    let (first, second) = (path("first.pem"), path("second.pem"));
    make(&first);
    let tls = Some(follow(certificate.clone(), key.clone()).unwrap());
    let server = lab.serve(Options { tls, limits: limits() }).await;
    let port = server.address.port();
    assert!(is_trusted(port, &first).await);

    make(&second);
    let since = Instant::now();
    while !is_trusted(port, &second).await {
        assert!(since.elapsed() < Duration::from_secs(20), "the new certificate is not taken");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(!is_trusted(port, &first).await);

    // Longer than the files go unnoticed: the last good pair stays.
    std::fs::write(&key, "no key").unwrap();
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(2_500) {
        assert!(is_trusted(port, &second).await);
    }
}

/// Never ends, and never comes.
struct Nothing;

impl hyper::body::Body for Nothing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, std::io::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_not_waited_for() {
    let lab = Lab::new().await;
    let login = lab.login(OWNER, &Method::POST, &collection()).await;
    let request = Request::post(collection()).header("authorization", login).header("host", "h").body(Nothing).unwrap();
    // The clock jumps to whatever is waited for next.
    tokio::time::pause();
    let since = tokio::time::Instant::now();
    let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), tls: false };
    let reply = lab.interface.answer(request, peer).await;
    assert_eq!(reply.status(), 503);
    assert_eq!(since.elapsed().as_secs(), 60);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let lab = Lab::new().await;
    let server = lab.serve(Options::default()).await;
    let login = lab.login(OWNER, &Method::POST, &collection()).await;
    let head = format!("POST {} HTTP/1.1\r\nHost: h\r\nAuthorization: {login}\r\nConnection: close\r\n", collection());
    let large = format!("{head}Content-Length: 70000\r\n\r\n{}", "x".repeat(70_000));
    let reply = rest(open(&server, &large).await).await;
    assert!(reply.starts_with("HTTP/1.1 413") && reply.contains("PAYLOAD_TOO_LARGE"), "{reply}");
    assert!(reply.contains("\r\nconnection: close\r\n"), "{reply}");
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_come_in_time_ends_the_connection() {
    let lab = Lab::new().await;
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (lab.folder.path().join("cert.pem"), lab.folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let limits = Limits { header: Duration::from_millis(200), ..limits() };
    let server = lab.serve(Options { tls: Some(follow(certificate, key).unwrap()), limits }).await;
    for text in ["", "\u{16}\u{3}\u{1}", "GET / HTTP/1.1\r\n\r\n"] {
        let begun = Instant::now();
        rest(open(&server, text).await).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{text:?}");
    }
}

/// Gives more than fits between a server and a client that does not read.
struct Large;

impl Service for Large {
    async fn answer(self: &Arc<Self>, _: Request<Incoming>, _: Peer) -> Response<Body> {
        Response::new(Either::Left(Full::from(vec![b'x'; 64 << 20])))
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let (header, idle) = (Duration::from_millis(200), Duration::from_millis(200));
    let limits = Limits { header, idle, ..limits() };
    let server = Running::start(Arc::new(Large), Options { limits, tls: None }).await;
    let stream = open(&server, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    sleep(Duration::from_millis(1_500)).await;
    // What had been sent by then, and no more.
    let read = tokio::time::timeout(Duration::from_secs(10), rest(stream)).await.expect("it is given up");
    assert!(read.len() < 64 << 20, "{}", read.len());
}
