//! A catalog with a project or two, a router on it, and a client that can Digest.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use digest_auth::{AuthContext, HttpMethod};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use stillpoint_api::{ApiState, Interface, Limits, Options, Peer, Service, Settings, ha1, serve};
use stillpoint_catalog::seal::Sealer;
use stillpoint_catalog::sqlite::SqliteCatalog;
use stillpoint_catalog::{AuditEntry, Catalog, Cluster, Credential, CredentialKind, Organization, Page, Project};
use stillpoint_core::checkpoint::{Checkpoint, Failure, Found, Part, PartId, PutBack, Reason, Released, State, Token};
use stillpoint_core::restore::{self, Amount, Point, Restore, Target};
use stillpoint_core::snapshot::{self, Data, Snapshot};
use stillpoint_core::stream::BlobId;
use stillpoint_core::verification::{PartVerification, Verification};
use stillpoint_core::{
    CheckpointId, ClusterId, ClusterTime, CredentialId, OrganizationId, ProjectId, RestoreId, Role, SnapshotId,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

pub const GROUP: &str = "6b8cd3c380eef5349ef77af7";
pub const OTHER_GROUP: &str = "6b8cd3c380eef5349ef77af8";
pub const CLUSTER: &str = "6b8cd6d580eef54711017e89";
pub const CHECKPOINT: &str = "6b94183187d9d64b6f2868b5";
/// Between two others, so that nothing needs it.
pub const SNAPSHOT: &str = "6b94183187d9d64b6f2868b6";
pub const OLDEST_SNAPSHOT: &str = "6b94183187d9d64b6f2868b4";
pub const NEWEST_SNAPSHOT: &str = "6b94183187d9d64b6f2868b7";
/// A restore that is finished, and the job of its shard.
pub const BATCH: &str = "6b94183187d9d64b6f2868b8";
pub const JOB: &str = "6b94183187d9d64b6f2868b9";
/// Of one that is under way, in a lab that has one.
pub const RUNNING_JOB: &str = "6b94183187d9d64b6f2868c1";
pub const OWNER: &str = "owneraaa";
pub const READER: &str = "readeraa";
pub const OTHER: &str = "otheraaa";
pub const NEARBY: &str = "nearbyaa";
/// Of another organisation, as is its project.
pub const FOREIGN: &str = "foreigna";
pub const ACCOUNT_READER: &str = "mdb_sa_id_6b8cd3c380eef5349ef77af8";
pub const ACCOUNT_FOREIGN: &str = "mdb_sa_id_6b8cd3c380eef5349ef77af9";
pub const ACCOUNT_NEARBY: &str = "mdb_sa_id_6b8cd3c380eef5349ef77afa";
pub const ORGANIZATION: &str = "6b8cd3c380eef5349ef77a01";
pub const FOREIGN_GROUP: &str = "6b8cd3c380eef5349ef77afa";
/// Has a role in both projects of its organisation.
pub const BOTH: &str = "bothaaaa";
pub const ACCOUNT: &str = "mdb_sa_id_6b8cd3c380eef5349ef77af7";

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
    pub interface: Arc<Interface>,
    pub wake: Arc<Notify>,
    /// Milliseconds since the Unix epoch; a negative clock panics.
    pub clock: Arc<AtomicI64>,
    /// Milliseconds that the process has run.
    pub uptime: Arc<AtomicU64>,
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

pub fn key(public: &str, organization: OrganizationId, roles: &[(&str, Role)], access_list: &[&str]) -> Credential {
    Credential {
        id: CredentialId::new(
            time("2026-01-01T00:00:00Z"),
            public.bytes().fold(7, |sum: u64, b| sum.wrapping_mul(31) + u64::from(b)),
        ),
        kind: CredentialKind::Key,
        organization,
        login: public.into(),
        proof: ha1(public, &private(public)).into(),
        roles: roles.iter().map(|(project, role)| (project.parse().unwrap(), *role)).collect(),
        access_list: access_list.iter().map(|net| net.parse().unwrap()).collect(),
        created: time("2026-01-01T00:00:00Z"),
    }
}

/// A service account with the secret that [`private`] gives.
pub fn account(login: &str, organization: OrganizationId, roles: &[(&str, Role)], access: &[&str]) -> Credential {
    let proof = stillpoint_api::oauth::proof(&private(login)).into();
    Credential { kind: CredentialKind::ServiceAccount, proof, ..key(login, organization, roles, access) }
}

impl Lab {
    pub async fn new() -> Lab {
        Lab::with(Settings::default()).await
    }

    /// Two projects of one organisation and one of another, with keys; one cluster with one completed
    /// checkpoint, three snapshots, which are too late for it, and a restore that is finished; and an empty one.
    pub async fn with(settings: Settings) -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { downloads: folder.path().join("downloads"), ..settings };
        let sealer = Sealer::from_file(&folder.path().join("key")).unwrap();
        let catalog = SqliteCatalog::open(&folder.path().join("catalog"), sealer).unwrap();
        let created = time("2026-01-01T00:00:00Z");
        let organization: OrganizationId = ORGANIZATION.parse().unwrap();
        let foreign = OrganizationId::new(created, 2);
        for (id, name) in [(organization, "ours"), (foreign, "foreign")] {
            let organization = Organization { id, name: name.into(), created };
            catalog.create_organization(&organization).await.unwrap();
        }
        for (id, name, organization) in
            [(GROUP, "one", organization), (OTHER_GROUP, "other", organization), (FOREIGN_GROUP, "foreign", foreign)]
        {
            let project = Project { id: id.parse().unwrap(), organization, name: name.into(), created };
            catalog.create_project(&project).await.unwrap();
        }
        let (owner, reader) = (Role::GroupOwner, Role::GroupReadOnly);
        for credential in [
            key(OWNER, organization, &[(GROUP, owner)], &[]),
            key(READER, organization, &[(GROUP, reader)], &[]),
            key(OTHER, organization, &[(OTHER_GROUP, owner)], &[]),
            key(BOTH, organization, &[(GROUP, reader), (OTHER_GROUP, owner)], &[]),
            key(NEARBY, organization, &[(GROUP, owner)], &["10.0.0.0/8", "2001:db8::/32"]),
            key(FOREIGN, foreign, &[(FOREIGN_GROUP, owner)], &[]),
            account(ACCOUNT, organization, &[(GROUP, owner)], &[]),
            account(ACCOUNT_READER, organization, &[(GROUP, reader)], &[]),
            account(ACCOUNT_FOREIGN, foreign, &[(FOREIGN_GROUP, owner)], &[]),
            account(ACCOUNT_NEARBY, organization, &[(GROUP, owner)], &["10.0.0.0/8"]),
        ] {
            catalog.create_credential(&credential).await.unwrap();
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
        for (id, date) in [
            (OLDEST_SNAPSHOT, "2026-11-24T09:00:00Z"),
            (SNAPSHOT, "2026-11-24T10:00:00Z"),
            (NEWEST_SNAPSHOT, "2026-11-24T11:00:00Z"),
        ] {
            let at = ClusterTime::new(time(date).as_second() as u32, 7);
            let parts = [PartId::Shard("Cluster0-shard-0".into()), PartId::ConfigServers];
            catalog.queue_snapshot(&completed_snapshot(id.parse().unwrap(), &parts, at)).await.unwrap();
        }
        catalog.queue_restore(&finished_restore(), None).await.unwrap();

        let clock = Arc::new(AtomicI64::new(time("2026-11-24T12:00:00.250Z").as_millisecond()));
        let wake = Arc::new(Notify::new());
        let uptime = Arc::new(AtomicU64::new(1_000));
        let (for_clock, for_uptime, numbers) = (clock.clone(), uptime.clone(), AtomicU64::new(1));
        let state = ApiState {
            catalog: Arc::new(catalog.clone()),
            wake: wake.clone(),
            clock: Arc::new(move || {
                Timestamp::from_millisecond(u64::try_from(for_clock.load(Ordering::SeqCst)).unwrap() as i64).unwrap()
            }),
            uptime: Arc::new(move || Duration::from_millis(for_uptime.load(Ordering::SeqCst))),
            chance: Arc::new(move || numbers.fetch_add(1, Ordering::SeqCst)),
            settings,
        };
        Lab { folder, catalog, interface: Arc::new(Interface::new(state)), wake, clock, uptime }
    }

    /// A request, as it is, to the interface; from `127.0.0.1`.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        self.send_from("127.0.0.1:4000", false, request).await
    }

    pub async fn send_from(&self, address: &str, tls: bool, request: Request<Full<Bytes>>) -> Reply {
        let (reply, bytes) = self.exchange(address, tls, request).await;
        Reply { body: String::from_utf8_lossy(&bytes).into_owned(), ..reply }
    }

    pub async fn exchange(&self, address: &str, tls: bool, mut request: Request<Full<Bytes>>) -> (Reply, Bytes) {
        let peer = Peer { address: address.parse().unwrap(), tls };
        if !request.headers().contains_key(header::HOST) && request.uri().authority().is_none() {
            request.headers_mut().insert(header::HOST, "backup.example.net".parse().unwrap());
        }
        let (parts, body) = self.interface.answer(request, peer).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (Reply { status: parts.status, headers: parts.headers, body: String::new() }, bytes)
    }

    /// The audit trail, oldest first, once it is written.
    pub async fn audit(&self) -> Vec<AuditEntry> {
        self.interface.close(Duration::from_secs(5)).await;
        let mut entries = self.catalog.audit(Page { skip: 0, take: 10_000 }).await.unwrap();
        entries.reverse();
        entries
    }

    /// The `Authorization` of a request, for a fresh challenge.
    pub async fn login(&self, public: &str, method: &Method, target: &str) -> String {
        self.login_with(public, &private(public), method, target).await
    }

    pub async fn login_with(&self, public: &str, private: &str, method: &Method, target: &str) -> String {
        let challenge = self.send(Request::get("/api").body(Full::default()).unwrap()).await;
        answer(challenge.header("www-authenticate").unwrap(), public, private, method, target)
    }

    pub async fn credential(&self, public: &str) -> Credential {
        self.catalog.credential(CredentialKind::Key, public).await.unwrap().unwrap()
    }

    /// A request of a service account for a token, or for the end of one.
    pub async fn oauth(&self, what: &str, account: &str, form: &str) -> Reply {
        self.oauth_from("127.0.0.1:4000", what, account, form).await
    }

    pub async fn oauth_from(&self, address: &str, what: &str, account: &str, form: &str) -> Reply {
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{account}:{}", private(account)));
        let request = Request::post(format!("/api/oauth/{what}"))
            .header("authorization", format!("Basic {basic}"))
            .header("content-type", "application/x-www-form-urlencoded");
        self.send_from(address, false, request.body(Full::from(form.to_owned())).unwrap()).await
    }

    pub async fn token(&self, account: &str) -> String {
        self.token_from(account, "127.0.0.1:4000").await
    }

    pub async fn token_from(&self, account: &str, address: &str) -> String {
        let reply = self.oauth_from(address, "token", account, "grant_type=client_credentials").await;
        reply.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// Another interface on the same catalog.
    pub fn again(&self, settings: Settings) -> Interface {
        Interface::new(ApiState { settings, ..self.interface.outside.clone() })
    }

    pub async fn get_as(&self, public: &str, target: &str) -> Reply {
        self.ask(public, "GET", target).await
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
        self.send(request.body(Full::from(body.to_owned())).unwrap()).await
    }

    pub async fn serve(&self, options: Options) -> Running {
        Running::start(self.interface.clone(), options).await
    }
}

impl Lab {
    /// Time passes.
    pub fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds as i64 * 1_000, Ordering::SeqCst);
        self.uptime.fetch_add(seconds * 1_000, Ordering::SeqCst);
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
    pub async fn start(service: Arc<impl Service>, options: Options) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, service, options, async {
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
        token: Some(Token {
            attempt: 1,
            time: ClusterTime::new(seconds, increment),
            discovered: true,
            discovered_at: None,
        }),
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

/// One that is complete.
pub fn completed_snapshot(id: SnapshotId, parts: &[PartId], at: ClusterTime) -> Snapshot {
    let data = Data {
        manifest: BlobId([9; 32]),
        at,
        stream: at,
        collections: 2,
        documents: 1_000,
        bytes: 70_000,
        stored: 900,
    };
    let part = |id: &PartId| snapshot::Part {
        id: id.clone(),
        replica_set: match id {
            PartId::Shard(name) => name.clone(),
            PartId::ConfigServers => "Cluster0-config-0".into(),
        },
        read: Some(data),
        data: Some(data),
    };
    Snapshot {
        state: snapshot::State::Completed,
        ended: Some(time("2026-11-24T11:00:00Z")),
        cut: Some(at),
        parts: parts.iter().map(part).collect(),
        ..Snapshot::queued(id, CLUSTER.parse().unwrap(), time("2026-11-24T10:00:00Z"))
    }
}

/// The empty cluster.
pub fn target() -> ClusterId {
    ClusterId::new(time("2026-01-01T00:00:00Z"), 1)
}

/// [`BATCH`]: the snapshot, into the empty cluster.
pub fn finished_restore() -> Restore {
    let cut = ClusterTime::new(time("2026-11-24T10:00:00Z").as_second() as u32, 7);
    let job: RestoreId = JOB.parse().unwrap();
    let amount = Amount { collections: 2, documents: 1_000, bytes: 70_000 };
    let part = |job, id, shard: Option<&str>| restore::Part {
        job,
        id,
        shard: shard.map(str::to_owned),
        expected: amount,
        written: amount,
        doing: None,
        file: None,
    };
    let shard = PartId::Shard("Cluster0-shard-0".into());
    let verified = PartVerification { equal: 2, documents: 1_000, ..PartVerification::new(shard.clone()) };
    let (id, cluster) = (BATCH.parse().unwrap(), CLUSTER.parse().unwrap());
    let point = Point::Snapshot(SNAPSHOT.parse().unwrap());
    let options = restore::Options { verify: true, ..restore::Options::default() };
    let requested = time("2026-11-24T11:10:00.5Z");
    Restore {
        state: restore::State::Finished,
        ended: Some(time("2026-11-24T11:20:00Z")),
        parts: vec![
            part(job, shard, Some("target-0")),
            part("6b94183187d9d64b6f2868ba".parse().unwrap(), PartId::ConfigServers, None),
        ],
        verification: Some(Verification { at: time("2026-11-24T11:19:00Z"), time: cut, parts: vec![verified] }),
        ..Restore::queued(id, cluster, requested, point, cut, Target::Cluster(target()), options)
    }
}

/// One that is under way, with a job that is [`RUNNING_JOB`].
pub fn loading_restore() -> Restore {
    let mut restore = finished_restore();
    let ids = ["6b94183187d9d64b6f2868c0", RUNNING_JOB, "6b94183187d9d64b6f2868c2"].map(|id| id.parse().unwrap());
    (restore.id, restore.parts[0].job, restore.parts[1].job) = (ids[0], ids[1], ids[2]);
    restore.parts[0].written = Amount { collections: 1, documents: 400, bytes: 28_000 };
    restore.parts[1].written = Amount::default();
    Restore { state: restore::State::Loading, ended: None, verification: None, ..restore }
}
