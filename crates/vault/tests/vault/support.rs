//! Homes for vaults, and what the tests say of them.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use stillpoint_core::CatalogId;
use stillpoint_lab_s3::{ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY, Server, TEST};
use stillpoint_vault::{Limits, MasterKey, Options, S3, Vault, VaultError};
use tempfile::TempDir;

pub const MIB: usize = 1 << 20;
/// What the vault's objects are under in the bucket.
const PREFIX: &str = "some/prefix";

/// Before any clock of today, so that nothing that a test makes is old.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

/// After any clock of today.
pub fn later() -> Timestamp {
    Timestamp::from_second(9_000_000_000).unwrap()
}

pub fn catalog(number: u64) -> CatalogId {
    CatalogId::new(now(), number)
}

pub fn master(digit: &str) -> MasterKey {
    MasterKey::from_text(&format!("KEY_{digit}"), &digit.repeat(64).into()).unwrap()
}

/// Bytes that do not repeat.
pub fn content(seed: u64, bytes: usize) -> Bytes {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut content);
    content.into()
}

enum Kind {
    Folder(TempDir),
    S3(Box<Server>),
}

/// Where a vault is, with all that it needs.
pub struct Home {
    kind: Kind,
    pub options: Options,
}

impl Home {
    pub fn folder(encrypted: bool) -> Home {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(format!("file://{}", folder.path().join("new/vault").display()));
        Home { kind: Kind::Folder(folder), options }.with(encrypted)
    }

    pub fn s3(encrypted: bool) -> Home {
        let server = Server::start(TEST).unwrap();
        let mut options = Options::new(format!("s3://{BUCKET}/{PREFIX}"));
        options.s3 = S3 {
            endpoint: Some(server.endpoint()),
            region: Some("us-east-1".into()),
            access_key_id: Some(ACCESS_KEY_ID.into()),
            secret_access_key: Some(SECRET_ACCESS_KEY.into()),
            session_token: None,
            allow_http: true,
            path_style: true,
        };
        Home { kind: Kind::S3(Box::new(server)), options }.with(encrypted)
    }

    fn with(mut self, encrypted: bool) -> Home {
        self.options.master_key = encrypted.then(|| master("a"));
        let reread_time = Duration::from_millis(100);
        self.options.limits = Limits { multipart_from: 5 << 20, part: 5 << 20, reread_time, ..Limits::default() };
        self
    }

    /// With a patience that a test can outlast, and that does for a small blob.
    pub fn impatient(self) -> Home {
        self.waiting(Duration::from_secs(1))
    }

    /// With so long for a request.
    pub fn waiting(mut self, timeout: Duration) -> Home {
        self.options.limits = Limits {
            request_timeout: timeout,
            connect_timeout: Duration::from_secs(1),
            retry_time: 3 * timeout,
            retries: 6,
            ..self.options.limits
        };
        self
    }

    pub fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Folder(_))
    }

    pub fn is_encrypted(&self) -> bool {
        self.options.master_key.is_some()
    }

    pub fn server(&mut self) -> &mut Server {
        match &mut self.kind {
            Kind::S3(server) => server,
            Kind::Folder(_) => panic!("a folder has no server"),
        }
    }

    pub async fn create(&self) -> Vault {
        self.try_create().await.unwrap()
    }

    pub async fn try_create(&self) -> Result<Vault, VaultError> {
        Vault::create_or_open(&self.options, catalog(1), now(), 7).await
    }

    pub async fn open(&self) -> Result<Vault, VaultError> {
        Vault::open(&self.options, Some(catalog(1))).await
    }

    /// The file that an object is in, behind the vault's back.
    pub fn file(&self, name: &str) -> PathBuf {
        match &self.kind {
            Kind::Folder(folder) => folder.path().join("new/vault").join(name),
            Kind::S3(server) => server.file(&format!("{PREFIX}/{name}")),
        }
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.file(name)).unwrap();
        change(&mut bytes);
        std::fs::write(self.file(name), bytes).unwrap();
    }
}

/// The names under a prefix, sorted.
pub async fn names(vault: &Vault, prefix: &str) -> Vec<String> {
    let mut names: Vec<_> = vault.list(prefix).map_ok(|listed| listed.name).try_collect().await.unwrap();
    names.sort();
    names
}

/// Puts a content and gives its name with its id.
pub async fn put(vault: &Vault, place: &str, content: Bytes) -> (String, stillpoint_core::stream::BlobId) {
    let stored = vault.put(place, content).await.unwrap();
    (format!("{place}-{}", stored.blob), stored.blob)
}
