//! A catalog with a project or two, a router on it, and a client that can Digest.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use digest_auth::{AuthContext, HttpMethod};
use http_body_util::BodyExt;
use jiff::Timestamp;
use stillpoint_api::{ApiState, Limits, Options, Peer, ha1, router, serve};
use stillpoint_catalog::seal::Sealer;
use stillpoint_catalog::sqlite::SqliteCatalog;
use stillpoint_catalog::{ApiKey, Catalog, Cluster, Project};
use stillpoint_core::checkpoint::{Checkpoint, Failure, Found, Part, PartId, PutBack, Reason, Released, State, Token};
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime, KeyId, ProjectId, Role};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tower::ServiceExt;

pub const GROUP: &str = "6b8cd3c380eef5349ef77af7";
pub const OTHER_GROUP: &str = "6b8cd3c380eef5349ef77af8";
pub const CLUSTER: &str = "6b8cd6d580eef54711017e89";
pub const CHECKPOINT: &str = "6b94183187d9d64b6f2868b5";
pub const OWNER: &str = "owneraaa";
pub const READER: &str = "readeraa";
pub const OTHER: &str = "otheraaa";
pub const NEARBY: &str = "nearbyaa";

pub fn private(public: &str) -> String {
    format!("private-{public}")
}

pub fn collection() -> String {
    format!("/api/atlas/v1.0/groups/{GROUP}/clusters/Cluster0/backupCheckpoints")
}

pub fn item() -> String {
    format!("{}/{CHECKPOINT}", collection())
}

pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub struct Lab {
    pub folder: TempDir,
    pub catalog: SqliteCatalog,
    pub router: Router,
    pub wake: Arc<Notify>,
    /// Milliseconds since the Unix epoch; a negative clock panics.
    pub clock: Arc<AtomicI64>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub fn key(public: &str, project: &str, role: Role, access_list: &[&str]) -> ApiKey {
    ApiKey {
        id: KeyId::new(time("2026-01-01T00:00:00Z"), public.bytes().map(u64::from).sum()),
        project: project.parse().unwrap(),
        public: public.into(),
        ha1: ha1(public, &private(public)).into(),
        role,
        access_list: access_list.iter().map(|net| net.parse().unwrap()).collect(),
        created: time("2026-01-01T00:00:00Z"),
    }
}

impl Lab {
    /// Two projects with keys; one cluster with one completed checkpoint.
    pub async fn new() -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let sealer = Sealer::from_file(&folder.path().join("key")).unwrap();
        let catalog = SqliteCatalog::open(&folder.path().join("catalog"), sealer).unwrap();
        let created = time("2026-01-01T00:00:00Z");
        for (id, name) in [(GROUP, "one"), (OTHER_GROUP, "other")] {
            let project = Project { id: id.parse().unwrap(), name: name.into(), created };
            catalog.create_project(&project).await.unwrap();
        }
        for key in [
            key(OWNER, GROUP, Role::GroupOwner, &[]),
            key(READER, GROUP, Role::GroupReadOnly, &[]),
            key(OTHER, OTHER_GROUP, Role::GroupOwner, &[]),
            key(NEARBY, GROUP, Role::GroupOwner, &["10.0.0.0/8", "2001:db8::/32"]),
        ] {
            catalog.create_key(&key).await.unwrap();
        }
        for (n, name) in ["Cluster0", "a/b c%"].into_iter().enumerate() {
            let id = if n == 0 { CLUSTER.parse().unwrap() } else { ClusterId::new(created, n as u64) };
            let uri = "mongodb://user:secret@config.internal/".into();
            let cluster = Cluster {
                id,
                project: GROUP.parse::<ProjectId>().unwrap(),
                name: name.into(),
                identity: format!("identity-{n}"),
                uri,
                created,
            };
            catalog.add_cluster(&cluster).await.unwrap();
        }
        catalog.queue_checkpoint(&completed(CHECKPOINT.parse().unwrap())).await.unwrap();

        let clock = Arc::new(AtomicI64::new(time("2026-11-24T12:00:00.250Z").as_millisecond()));
        let wake = Arc::new(Notify::new());
        let (for_clock, numbers) = (clock.clone(), AtomicU64::new(1));
        let state = ApiState {
            catalog: Arc::new(catalog.clone()),
            wake: wake.clone(),
            clock: Arc::new(move || {
                Timestamp::from_millisecond(u64::try_from(for_clock.load(Ordering::SeqCst)).unwrap() as i64).unwrap()
            }),
            chance: Arc::new(move || numbers.fetch_add(1, Ordering::SeqCst)),
            public_url: None,
        };
        Lab { folder, catalog, router: router(state), wake, clock }
    }

    /// A request, as it is, to the router; from `127.0.0.1`.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        self.send_from("127.0.0.1:4000", false, request).await
    }

    pub async fn send_from(&self, address: &str, tls: bool, mut request: Request<Body>) -> Reply {
        request.extensions_mut().insert(Peer { address: address.parse().unwrap(), tls });
        if !request.headers().contains_key(header::HOST) && request.uri().authority().is_none() {
            request.headers_mut().insert(header::HOST, "backup.example.net".parse().unwrap());
        }
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&bytes).into_owned() }
    }

    /// The `Authorization` of a request, for a fresh challenge.
    pub async fn login(&self, public: &str, method: &Method, target: &str) -> String {
        let challenge = self.send(Request::get("/api").body(Body::empty()).unwrap()).await;
        answer(challenge.header("www-authenticate").unwrap(), public, &private(public), method, target)
    }

    /// A request with credentials.
    pub async fn ask(&self, public: &str, method: &str, target: &str) -> Reply {
        self.ask_with(public, method, target, &[], "").await
    }

    pub async fn get(&self, target: &str) -> Reply {
        self.ask(READER, "GET", target).await
    }

    pub async fn ask_with(
        &self,
        public: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let method: Method = method.parse().unwrap();
        let login = self.login(public, &method, target).await;
        let mut request = Request::builder().method(method).uri(target).header("authorization", login);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub async fn serve(&self, options: Options) -> Running {
        Running::start(self.router.clone(), options).await
    }
}

pub fn answer(challenge: &str, public: &str, private: &str, method: &Method, target: &str) -> String {
    let mut prompt = digest_auth::parse(challenge).unwrap();
    let method = HttpMethod::from(method.as_str().to_owned());
    let context = AuthContext::new_with_method(public, private, target, None::<&[u8]>, method);
    prompt.respond(&context).unwrap().to_string()
}

/// A server on a port of its own.
pub struct Running {
    pub address: SocketAddr,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    pub task: JoinHandle<usize>,
}

impl Running {
    pub async fn start(router: Router, options: Options) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, router, options, async {
            let _ = stopped.await;
        }));
        Running { address, stop: Mutex::new(Some(stop)), task }
    }

    pub fn stop(&self) {
        let _ = self.stop.lock().unwrap().take().unwrap().send(());
    }
}

pub fn limits() -> Limits {
    Limits::default()
}

/// The published example, but for a group id that is one.
pub fn completed(id: CheckpointId) -> Checkpoint {
    let at = time("2018-02-13T16:54:09Z");
    let seconds = at.as_second() as u32;
    let part = |id, replica_set: &str, increment| Part {
        id,
        replica_set: replica_set.into(),
        term: Some(1),
        token: Some(Token { attempt: 1, time: ClusterTime::new(seconds, increment), discovered: true }),
    };
    Checkpoint {
        state: State::Completed,
        parts: vec![
            part(PartId::Shard("Cluster0-shard-1".into()), "Cluster0-shard-1", 1),
            part(PartId::Shard("Cluster0-shard-0".into()), "Cluster0-shard-0", 1),
            part(PartId::ConfigServers, "Cluster0-config-0", 2),
        ],
        clock: Some(ClusterTime::new(seconds - 1, 7)),
        cut: Some(ClusterTime::new(seconds, 1)),
        found: Some(Found {
            running: true,
            settings: "{}".into(),
            seen: ClusterTime::new(seconds - 1, 1),
            from: "10.1.2.3:4567".into(),
        }),
        held_since: Some(at),
        released: Some(Released { at, how: PutBack::AsFound }),
        ended: Some(at),
        ..Checkpoint::queued(id, CLUSTER.parse().unwrap(), at)
    }
}

/// One that failed before it touched anything.
pub fn failed(id: CheckpointId, at: Timestamp) -> Checkpoint {
    Checkpoint {
        state: State::Failed,
        ended: Some(at),
        failure: Some(Failure { reason: Reason::Unreachable, detail: "config.internal:27019: no route".into() }),
        ..Checkpoint::queued(id, CLUSTER.parse().unwrap(), at)
    }
}
