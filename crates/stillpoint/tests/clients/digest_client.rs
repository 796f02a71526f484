//! A Rust client: hyper's, with `digest_auth`. It keeps its connections and its nonce.

use std::time::Duration;

use bytes::Bytes;
use digest_auth::{AuthContext, HttpMethod, WwwAuthenticateHeader};
use http_body_util::{BodyExt, Full};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use hyper::{Request, Uri};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use crate::contract::keep;
use crate::server::Server;
use crate::surfaces::SURFACES;

const LIMIT: Duration = Duration::from_secs(20);

pub struct DigestClient {
    client: Client<HttpConnector, Full<Bytes>>,
    public: String,
    private: String,
    /// The last challenge, which counts its answers.
    challenge: Option<WwwAuthenticateHeader>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

impl DigestClient {
    /// With a key, `public:private`.
    pub fn new(key: &str) -> DigestClient {
        let (public, private) = key.split_once(':').unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        DigestClient { client, public: public.into(), private: private.into(), challenge: None }
    }

    /// Answers a challenge once.
    pub async fn send(&mut self, method: &str, url: &str, accept: &str, body: Option<&str>) -> Reply {
        let known = self.challenge.is_some();
        let reply = self.send_once(method, url, accept, body).await;
        match reply.header(WWW_AUTHENTICATE.as_str()) {
            Some(challenge) => {
                assert!(!known, "a nonce that was good before was refused: {challenge}");
                self.challenge = Some(digest_auth::parse(challenge).unwrap());
                self.send_once(method, url, accept, body).await
            }
            None => reply,
        }
    }

    async fn send_once(&mut self, method: &str, url: &str, accept: &str, body: Option<&str>) -> Reply {
        let uri: Uri = url.parse().unwrap();
        let target = uri.path_and_query().unwrap().to_string();
        let mut request = Request::builder().method(method).uri(uri);
        if !accept.is_empty() {
            request = request.header(ACCEPT, accept);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(challenge) = &mut self.challenge {
            let method = HttpMethod::from(method.to_owned());
            let context = AuthContext::new_with_method(&self.public, &self.private, target, None::<&[u8]>, method);
            request = request.header(AUTHORIZATION, challenge.respond(&context).unwrap().to_string());
        }
        let request = request.body(Full::from(body.unwrap_or_default().to_owned())).unwrap();
        let exchange = async {
            let (head, body) = self.client.request(request).await.unwrap().into_parts();
            (head, body.collect().await.unwrap().to_bytes())
        };
        let (head, bytes) = timeout(LIMIT, exchange).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Reply { status: head.status.as_u16(), headers: head.headers, text }
    }
}

#[tokio::test]
async fn hyper_with_digest_auth() {
    for surface in &SURFACES {
        let server = Server::start().await;
        let report = keep(&server, surface).await;
        server.bears_out(&report).await;
    }
}
