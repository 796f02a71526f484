//! What the server finds in its catalog: a project with two keys, and a cluster that cannot be reached
//! with 250 completed checkpoints, 20 snapshots, two restores into another, and one whose files can be downloaded.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use stillpoint_catalog::sqlite::SqliteCatalog;
use stillpoint_catalog::{Catalog, Cluster, Credential, CredentialKind, Project};
use stillpoint_core::checkpoint::{Checkpoint, Found, Part, PartId, PutBack, Released, State, Token};
use stillpoint_core::restore::{self, Amount, File, Point, Restore, Target};
use stillpoint_core::snapshot::{self, Data, Snapshot};
use stillpoint_core::stream::{BlobId, Stream};
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime, CredentialId, ProjectId, RestoreId, Role, SnapshotId};

/// More than two pages of the usual length.
const CHECKPOINTS: u64 = 250;
const SNAPSHOTS: u64 = 20;
/// The secrets. None of them may be in anything that is printed.
const OWNER: (&str, &str) = ("owneraaa", "0a54d1f2-4d1e-4f0b-9d62-owners-secret");
const READER: (&str, &str) = ("readeraa", "7c3b9e80-52aa-4c11-8f0e-readers-secret");
const ACCOUNT: (&str, &str) = ("mdb_sa_id_6b8cd3c380eef5349ef77af7", "mdb_sa_sk_the-accounts-secret");
const PASSWORD: &str = "clusters-secret";
/// Nobody listens there, which takes a while to find out.
pub const UNREACHABLE: &str = "mongodb://backup:clusters-secret@127.0.0.1:1/?replicaSet=cfg";
/// No connection string at all.
pub const UNREADABLE: &str = "mongodb://backup:clusters-secret@";
pub const SECRETS: [&str; 4] = [OWNER.1, READER.1, ACCOUNT.1, PASSWORD];
pub const CLUSTER: &str = "Cluster0";
/// The cluster that others are restored into.
pub const TARGET: &str = "Cluster1";

#[derive(Debug)]
pub struct Seed {
    pub catalog: SqliteCatalog,
    pub project: ProjectId,
    pub cluster: ClusterId,
    pub target: ClusterId,
    /// Newest first.
    pub checkpoints: Vec<CheckpointId>,
    /// Newest last.
    pub snapshots: Vec<SnapshotId>,
    /// Of a restore that nobody has begun, and of one that is broken.
    pub jobs: Vec<RestoreId>,
    /// The secrets of the links of what can be downloaded.
    pub links: Vec<String>,
}

/// `public:private` of the key that may write.
pub fn owner() -> String {
    format!("{}:{}", OWNER.0, OWNER.1)
}

/// `public:private` of the key that may only read.
pub fn reader() -> String {
    format!("{}:{}", READER.0, READER.1)
}

/// `id:secret` of a service account that may write.
pub fn account() -> String {
    format!("{}:{}", ACCOUNT.0, ACCOUNT.1)
}

impl Seed {
    /// A catalog in `folder`, named as `stillpoint_lab::product::configure` says, with a cluster at `uri`.
    pub async fn new(folder: &Path, uri: &str) -> Seed {
        let open = SqliteCatalog::open_with_key_file(&folder.join("stillpoint.db"), &folder.join("stillpoint.key"));
        let catalog = open.unwrap();
        let created: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let project = ProjectId::new(created, 1);
        let organization = catalog.organizations().await.unwrap()[0].id;
        catalog.create_project(&Project { id: project, organization, name: "p".into(), created }).await.unwrap();
        for (n, (public, private), role) in [(1, OWNER, Role::GroupOwner), (2, READER, Role::GroupReadOnly)] {
            let key = Credential {
                id: CredentialId::new(created, n),
                kind: CredentialKind::Key,
                organization,
                login: public.into(),
                proof: stillpoint_api::ha1(public, private).into(),
                roles: [(project, role)].into(),
                access_list: Vec::new(),
                created,
            };
            catalog.create_credential(&key).await.unwrap();
        }
        let account = Credential {
            id: CredentialId::new(created, 3),
            kind: CredentialKind::ServiceAccount,
            organization,
            login: ACCOUNT.0.into(),
            proof: stillpoint_api::oauth::proof(ACCOUNT.1).into(),
            roles: [(project, Role::GroupOwner)].into(),
            access_list: Vec::new(),
            created,
        };
        catalog.create_credential(&account).await.unwrap();
        let cluster = ClusterId::new(created, 1);
        let (name, identity) = (CLUSTER.into(), "identity".into());
        let record = Cluster { id: cluster, project, name, identity, uri: uri.into(), created };
        catalog.add_cluster(&record).await.unwrap();
        let target = ClusterId::new(created, 2);
        let (name, identity) = (TARGET.into(), "target".into());
        catalog.add_cluster(&Cluster { id: target, name, identity, ..record }).await.unwrap();
        // So that each of its checkpoints can be restored.
        let lease = catalog.claim_lease(cluster, "seed", created, Duration::from_secs(1)).await.unwrap().unwrap();
        for (part, replica_set) in parts() {
            let from = ClusterTime::at(created);
            let stream = Stream {
                cluster,
                part,
                replica_set: replica_set.into(),
                from,
                complete_from: from,
                since: from,
                began: created,
                ended: None,
                unresolved: None,
                kept_from: None,
            };
            catalog.begin_stream(&lease, &stream, None).await.unwrap();
        }
        catalog.release_lease(&lease).await.unwrap();
        let mut checkpoints = Vec::new();
        for n in 0..CHECKPOINTS {
            let started = created + SignedDuration::from_mins(15 * n as i64);
            let checkpoint = completed(CheckpointId::new(started, n), cluster, started);
            catalog.queue_checkpoint(&checkpoint).await.unwrap();
            checkpoints.insert(0, checkpoint.id);
        }
        let mut snapshots = Vec::new();
        for n in 0..SNAPSHOTS {
            let ended = created + SignedDuration::from_hours(6 * n as i64);
            let snapshot = complete(SnapshotId::new(ended, n), cluster, ended);
            catalog.queue_snapshot(&snapshot).await.unwrap();
            snapshots.push(snapshot.id);
        }
        let broken = Restore {
            state: restore::State::Broken,
            ended: Some(created),
            failure: Some("the target is not empty".into()),
            ..queued(1, created, cluster, target)
        };
        let ready = ready(3, created, cluster);
        catalog.queue_restore(&ready, None).await.unwrap();
        let files = folder.join("stillpoint.downloads");
        std::fs::create_dir(&files).unwrap();
        let mut links = Vec::new();
        for part in &ready.parts {
            std::fs::write(files.join(File::stored_as(part.job)), FILE).unwrap();
            links.push(catalog.download_token(part.job).expose_secret().to_owned());
        }
        let mut jobs = Vec::new();
        for restore in [broken, queued(2, created, cluster, target)] {
            catalog.queue_restore(&restore, None).await.unwrap();
            jobs.extend(restore.parts.iter().map(|part| part.job));
        }
        Seed { catalog, project, cluster, target, checkpoints, snapshots, jobs, links }
    }
}

/// A shard and the config servers, and what their replica sets are called.
fn parts() -> [(PartId, &'static str); 2] {
    [(PartId::Shard("rs0".into()), "rs0"), (PartId::ConfigServers, "cfg")]
}

/// A restore that nobody has begun.
fn queued(n: u64, requested: Timestamp, cluster: ClusterId, target: ClusterId) -> Restore {
    let time = ClusterTime::at(requested).after();
    let part = |(at, (id, _)): (usize, (PartId, _))| restore::Part {
        job: RestoreId::new(requested, 100 * n + at as u64),
        id,
        shard: None,
        expected: Amount { collections: 2, documents: 3, bytes: 400 },
        written: Amount::default(),
        doing: None,
        file: None,
    };
    let options = restore::Options { verify: true, ..restore::Options::default() };
    let (id, target) = (RestoreId::new(requested, n), Target::Cluster(target));
    Restore {
        parts: parts().into_iter().enumerate().map(part).collect(),
        ..Restore::queued(id, cluster, requested, Point::Time(time), time, target, options)
    }
}

const FILE: &str = "an archive";

/// A restore into files that are ready, and stay so for longer than any test.
fn ready(n: u64, requested: Timestamp, cluster: ClusterId) -> Restore {
    let file = File { name: "a.archive.gz".into(), bytes: FILE.len() as u64, sha256: "0f".repeat(32), gone: None };
    let mut restore = queued(n, requested, cluster, cluster);
    restore.parts.iter_mut().for_each(|part| part.file = Some(file.clone()));
    Restore {
        state: restore::State::Finished,
        ended: Some("2100-01-01T00:00:00Z".parse().unwrap()),
        target: Target::Download { hours: 1 },
        options: restore::Options::default(),
        ..restore
    }
}

/// A snapshot of a shard and the config servers.
fn complete(id: SnapshotId, cluster: ClusterId, ended: Timestamp) -> Snapshot {
    let at = ClusterTime::new(ended.as_second() as u32, 1);
    let manifest = BlobId([7; 32]);
    let data = Data { manifest, at, stream: at, collections: 2, documents: 3, bytes: 400, stored: 200 };
    let part = |(id, replica_set): (_, &str)| snapshot::Part {
        id,
        replica_set: replica_set.into(),
        read: None,
        data: Some(data),
    };
    Snapshot {
        state: snapshot::State::Completed,
        ended: Some(ended),
        cut: Some(at),
        parts: parts().into_iter().map(part).collect(),
        ..Snapshot::queued(id, cluster, ended)
    }
}

/// A checkpoint of a shard and the config servers that took two seconds.
fn completed(id: CheckpointId, cluster: ClusterId, started: Timestamp) -> Checkpoint {
    let ended = started + SignedDuration::from_secs(2);
    let time = |increment| ClusterTime::new(started.as_second() as u32 + 1, increment);
    let part = |id, replica_set: &str, increment| Part {
        id,
        replica_set: replica_set.into(),
        term: Some(1),
        token: Some(Token { attempt: 1, time: time(increment), discovered: true, discovered_at: None }),
    };
    Checkpoint {
        state: State::Completed,
        parts: vec![part(PartId::Shard("rs0".into()), "rs0", 2), part(PartId::ConfigServers, "cfg", 3)],
        clock: Some(time(1)),
        cut: Some(time(2)),
        found: Some(Found { running: true, settings: "{}".into(), seen: time(1), from: "127.0.0.1:4567".into() }),
        held_since: Some(started),
        released: Some(Released { at: ended, how: PutBack::AsFound }),
        ended: Some(ended),
        ..Checkpoint::queued(id, cluster, started)
    }
}
