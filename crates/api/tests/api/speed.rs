//! How fast Get One is next to a bare route. Run it alone, in release:
//! `cargo test --release -p stillpoint-api --test api -- --ignored --nocapture`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use digest_auth::AuthContext;
use stillpoint_api::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use crate::support::{Lab, READER, Running, item, private};

const CONNECTIONS: usize = 16;
const REQUESTS: usize = 4_000;

/// A server on a thread of its own, whose processor time can be read.
struct OnAThread {
    address: SocketAddr,
    schedstat: PathBuf,
}

impl OnAThread {
    /// Seconds that it was on a processor: unlike requests a second, hardly moved by what else runs.
    fn busy(&self) -> f64 {
        let text = std::fs::read_to_string(&self.schedstat).unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
    }
}

fn on_a_thread<F: Future<Output = SocketAddr>>(name: &str, start: impl FnOnce() -> F + Send + 'static) -> OnAThread {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name(name.to_owned());
    let served = thread.spawn(move || {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let task = std::fs::read_link("/proc/thread-self").unwrap();
            let schedstat = Path::new("/proc").join(task).join("schedstat");
            tell.send(OnAThread { address: start().await, schedstat }).unwrap();
            std::future::pending::<()>().await;
        })
    });
    served.unwrap();
    told.recv().unwrap()
}

async fn read_reply(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> usize {
    buffer.clear();
    loop {
        assert_ne!(stream.read_buf(buffer).await.unwrap(), 0);
        let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head]).unwrap();
        let length: usize = text.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        if buffer.len() >= head + 4 + length {
            return head;
        }
    }
}

/// Microseconds of the server's processor time for a request, over connections that each know their
/// requests beforehand; and requests a second.
async fn measure(server: &OnAThread, requests: Vec<Vec<String>>) -> (f64, f64) {
    let (address, begun, before) = (server.address, Instant::now(), server.busy());
    let mut clients = Vec::new();
    for mine in requests {
        clients.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut buffer = Vec::new();
            for request in mine {
                stream.write_all(request.as_bytes()).await.unwrap();
                read_reply(&mut stream, &mut buffer).await;
                assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer));
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    let count = (CONNECTIONS * REQUESTS) as f64;
    ((server.busy() - before) * 1e6 / count, count / begun.elapsed().as_secs_f64())
}

async fn logged_in(address: SocketAddr) -> Vec<String> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {} HTTP/1.1\r\nHost: {address}\r\n", item());
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let mut buffer = Vec::new();
    let end = read_reply(&mut stream, &mut buffer).await;
    let text = std::str::from_utf8(&buffer[..end]).unwrap();
    let challenge = text.lines().find_map(|line| line.strip_prefix("www-authenticate: ")).unwrap();
    let mut prompt = digest_auth::parse(challenge).unwrap();
    let mut request = || {
        let login = prompt.respond(&AuthContext::new(READER, private(READER), item())).unwrap();
        format!("{head}Authorization: {login}\r\n\r\n")
    };
    (0..REQUESTS).map(|_| request()).collect()
}

#[test]
#[ignore = "a measurement: needs --release and an idle machine"]
fn get_one_next_to_a_bare_route() {
    let ours = on_a_thread("ours", || async {
        let lab = Box::leak(Box::new(Lab::new().await));
        let running: &'static Running = Box::leak(Box::new(lab.serve(Options::default()).await));
        running.address
    });
    let bare = on_a_thread("bare", || async {
        let body = include_str!("seed.json");
        let router = Router::new().route(&item(), get(move || async move { body }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, router).await });
        address
    });
    let client = Builder::new_current_thread().enable_all().build().unwrap();
    client.block_on(async {
        let plain = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", item(), bare.address);
        let mut best = f64::MAX;
        let mut least = f64::MAX;
        for _ in 0..3 {
            let mut requests = Vec::new();
            for _ in 0..CONNECTIONS {
                requests.push(logged_in(ours.address).await);
            }
            let (busy, rate) = measure(&ours, requests).await;
            let (bare_busy, bare_rate) = measure(&bare, vec![vec![plain.clone(); REQUESTS]; CONNECTIONS]).await;
            println!("Get One {busy:.1} us, {rate:.0}/s; a bare route {bare_busy:.1} us, {bare_rate:.0}/s");
            (best, least) = (best.min(busy), least.min(bare_busy));
        }
        println!("{:.2} of a bare route", least / best);
    });
}
