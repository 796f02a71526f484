//! Real clients against a real server.

use std::process::Stdio;

use http::Method;
use stillpoint_api::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::{Lab, OWNER, READER, Running, answer, collection, item, limits, private};

async fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--include", "--max-time", "20"]).args(arguments).stdin(Stdio::null());
    let output = command.output().await.expect("curl is on the machine");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The published example's request.
#[tokio::test]
async fn curl_with_digest() {
    let lab = Lab::new().await;
    let server = lab.serve(Options::default()).await;
    let url = format!("http://{}{}?pretty=true", server.address, item());
    let user = format!("{READER}:{}", private(READER));
    let output =
        curl(&["--user", &user, "--digest", "--header", "Content-Type: application/json", "-X", "GET", &url]).await;
    assert!(output.starts_with("HTTP/1.1 401 Unauthorized\r\n"));
    assert!(output.contains("\r\n\r\nHTTP/1.1 200 OK\r\n"), "{output}");
    assert!(
        output.ends_with("\n}") && output.contains(&format!("\"href\":\"http://{}/api", server.address)),
        "{output}"
    );

    let wrong = curl(&["--user", "readeraa:wrong", "--digest", &url]).await;
    assert!(wrong.contains("\r\n\r\nHTTP/1.1 401 Unauthorized\r\n"), "{wrong}");
}

#[tokio::test]
async fn curl_asks_for_a_checkpoint_and_deletes_one() {
    let lab = Lab::new().await;
    let server = lab.serve(Options::default()).await;
    let user = format!("{OWNER}:{}", private(OWNER));
    let url = |path: &str| format!("http://{}{path}", server.address);
    let json = ["--header", "Content-Type: application/json", "--data", "{}"];
    let created = curl(&[&["--user", &user, "--digest", &url(&collection())], &json[..]].concat()).await;
    assert!(
        created.contains("HTTP/1.1 201 Created\r\n") && created.contains("\r\nlocation: http://127.0.0.1:"),
        "{created}"
    );
    let deleted = curl(&["--user", &user, "--digest", "-X", "DELETE", &url(&item())]).await;
    assert!(deleted.ends_with("\r\n\r\n") && deleted.contains("HTTP/1.1 204 No Content\r\n"), "{deleted}");
    // Without credentials: this curl breaks when it uses such a connection a second time. With them,
    // HTTP/2 is in `over_tls_links_begin_with_https_and_hsts_is_given`.
    let http2 = curl(&["--http2-prior-knowledge", &url(&collection())]).await;
    assert!(http2.starts_with("HTTP/2 401"), "{http2}");
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let lab = Lab::new().await;
    let server = lab.serve(Options::default()).await;
    let url = format!("http://{}{}", server.address, item());
    let user = format!("{READER}:{}", private(READER));
    let get = curl(&["--user", &user, "--digest", &url]).await;
    let head = curl(&["--user", &user, "--digest", "--head", &url]).await;
    let last = |text: &str| text.rsplit_once("HTTP/1.1 200 OK\r\n").unwrap().1.to_owned();
    let (get, head) = (last(&get), last(&head));
    let (get_headers, body) = get.split_once("\r\n\r\n").unwrap();
    let (head_headers, nothing) = head.split_once("\r\n\r\n").unwrap();
    let without_date = |headers: &str| {
        let mut lines: Vec<_> = headers.lines().filter(|line| !line.starts_with("date:")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(without_date(head_headers), without_date(get_headers));
    assert!(head_headers.contains(&format!("content-length: {}", body.len())), "{head_headers}");
    assert_eq!(nothing, "");
}

/// Sends a request on an open connection and reads its reply: the status line, the challenge if there
/// is one, and the body.
async fn exchange(stream: &mut TcpStream, method: &str, target: &str, more: &str) -> (String, Option<String>, String) {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: backup.example.net\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "closed");
    };
    let text = String::from_utf8(read[..head].to_vec()).unwrap();
    let header =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    let length: usize = header("content-length:").map_or(0, |value| value.parse().unwrap());
    while read.len() < head + length {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "closed");
    }
    let body = String::from_utf8(read[head..].to_vec()).unwrap();
    (text.lines().next().unwrap().to_owned(), header("www-authenticate:"), body)
}

#[tokio::test]
async fn a_client_that_keeps_its_connection_and_its_nonce() {
    let lab = Lab::new().await;
    let server: Running = lab.serve(Options { limits: limits(), tls: None }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let target = format!("{}?pageNum=1", collection());
    let (status, challenge, _) = exchange(&mut stream, "GET", &target, "").await;
    assert_eq!(status, "HTTP/1.1 401 Unauthorized");

    let mut prompt = digest_auth::parse(&challenge.unwrap()).unwrap();
    for _ in 0..50 {
        let context = digest_auth::AuthContext::new(READER, private(READER), &target);
        let login = prompt.respond(&context).unwrap().to_string();
        let (status, challenge, _) =
            exchange(&mut stream, "GET", &target, &format!("Authorization: {login}\r\n")).await;
        assert_eq!((status.as_str(), challenge), ("HTTP/1.1 200 OK", None));
    }
}

#[tokio::test]
async fn the_challenge_comes_before_the_body_is_read() {
    let lab = Lab::new().await;
    let server = lab.serve(Options::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // The body that is announced is never sent.
    let (status, challenge, _) = exchange(&mut stream, "POST", &collection(), "Content-Length: 1000000\r\n").await;
    assert_eq!(status, "HTTP/1.1 401 Unauthorized");
    assert_eq!(rest_of(stream).await, "", "what is so large is not waited for");

    let login = answer(&challenge.unwrap(), OWNER, &private(OWNER), &Method::POST, &collection());
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let more = format!("Authorization: {login}\r\nContent-Length: 0\r\n");
    assert_eq!(exchange(&mut stream, "POST", &collection(), &more).await.0, "HTTP/1.1 201 Created");
}

async fn rest_of(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = tokio::time::timeout(std::time::Duration::from_secs(10), stream.read_to_string(&mut text)).await;
    read.expect("the connection stays open").unwrap();
    text
}

/// As every client does that is challenged first, and sends the header and the body one after the other.
#[tokio::test]
async fn a_body_that_comes_after_the_challenge_does_not_cost_the_connection() {
    let lab = Lab::new().await;
    let server = lab.serve(Options::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let length = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    let (status, challenge, _) = exchange(&mut stream, "POST", &collection(), length).await;
    assert_eq!(status, "HTTP/1.1 401 Unauthorized");
    // Long after the reply.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    stream.write_all(b"{}").await.unwrap();
    let login = answer(&challenge.unwrap(), OWNER, &private(OWNER), &Method::POST, &collection());
    let more = format!("Authorization: {login}\r\nContent-Length: 0\r\n");
    assert_eq!(exchange(&mut stream, "POST", &collection(), &more).await.0, "HTTP/1.1 201 Created");

    // Nor does one that no operation wants.
    let (_, challenge, _) = exchange(&mut stream, "GET", &item(), "").await;
    let login = answer(&challenge.unwrap(), READER, &private(READER), &Method::GET, &item());
    let more = format!("Authorization: {login}\r\nContent-Length: 2\r\n");
    assert_eq!(exchange(&mut stream, "GET", &item(), &more).await.0, "HTTP/1.1 200 OK");
    stream.write_all(b"{}").await.unwrap();
    assert_eq!(exchange(&mut stream, "GET", &item(), "").await.0, "HTTP/1.1 401 Unauthorized");
}
