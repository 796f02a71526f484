//! A client that does as little as an HTTP client can, so that what is measured is the server.

use anyhow::{Context, Result, ensure};
use md5::{Digest, Md5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One keep-alive connection that answers a challenge once and then reuses its nonce.
pub struct Client {
    stream: TcpStream,
    path: String,
    /// User, HA1 and HA2.
    user: String,
    ha1: String,
    ha2: String,
    nonce: String,
    count: u32,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(port: u16, path: &str, user: &(String, String)) -> Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            path: path.into(),
            user: user.0.clone(),
            ha1: md5(&format!("{}:MMS Public API:{}", user.0, user.1)),
            ha2: md5(&format!("GET:{path}")),
            nonce: "none".into(),
            count: 0,
            buffer: vec![0; 64 * 1024],
        };
        // The bare route has no challenge; it gets the same requests all the same.
        let (status, head, _) = client.exchange(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await?;
        if status == 401 {
            let nonce = head.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next());
            client.nonce = nonce.context("no nonce in the challenge")?.into();
        }
        Ok(client)
    }

    /// One request; the body's bytes.
    pub async fn get(&mut self) -> Result<Vec<u8>> {
        self.count += 1;
        let (nonce, count) = (&self.nonce, self.count);
        let response = md5(&format!("{}:{nonce}:{count:08x}:abc:auth:{}", self.ha1, self.ha2));
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: x\r\nauthorization: Digest username=\"{}\", realm=\"MMS Public API\", nonce=\"{nonce}\", \
             uri=\"{}\", qop=auth, nc={count:08x}, cnonce=\"abc\", response=\"{response}\"\r\n\r\n",
            self.path, self.user, self.path
        );
        let (status, head, body) = self.exchange(&request).await?;
        ensure!(status == 200, "{head}");
        Ok(body)
    }

    async fn exchange(&mut self, request: &str) -> Result<(u16, String, Vec<u8>)> {
        self.stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the server closed the connection");
            filled += read;
            let Some(end) = self.buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end])?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no length")?;
            let whole = end + 4 + length.trim().parse::<usize>()?;
            if filled >= whole {
                let status = head.split(' ').nth(1).context("no status")?.parse()?;
                return Ok((status, head.to_owned(), self.buffer[end + 4..whole].to_vec()));
            }
        }
    }
}

fn md5(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
