//! A catalog that was filled without a cluster: all that the bench knows of the catalog's records and
//! tables.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rusqlite::{Connection, params};
use stillpoint_catalog::sqlite::SqliteCatalog;
use stillpoint_catalog::{Catalog, Cluster, Credential, CredentialKind, Project};
use stillpoint_core::checkpoint::{Checkpoint, Found, Part, PartId, PutBack, Released, State, Token};
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime, CredentialId, ProjectId, Role};

use crate::client::User;

/// Checkpoints in the catalog, an hour apart.
pub const CHECKPOINTS: i64 = 10_000;
const FIRST: i64 = 1_760_000_000;

/// What was put in.
pub struct Seeds {
    pub user: User,
    /// The target of the list.
    pub list: String,
    /// The target of one checkpoint, neither the first nor the last.
    pub one: String,
}

/// Fills the catalog `stillpoint.db` of a folder, which must not be there yet.
pub async fn sow(dir: &Path) -> Result<Seeds> {
    let file = dir.join("stillpoint.db");
    let catalog = SqliteCatalog::open_with_key_file(&file, &dir.join("stillpoint.key"))?;
    let created = at(FIRST)?;
    let organizations = catalog.organizations().await?;
    let organization = organizations.first().context("no organisation")?.id;
    let project = Project { id: ProjectId::new(created, 1), organization, name: "bench".into(), created };
    catalog.create_project(&project).await?;
    let other = Project { id: ProjectId::new(created, 2), name: "other-0".into(), ..project.clone() };
    catalog.create_project(&other).await?;
    let user = User { public: "benchaaa".into(), private: "a-secret-of-nothing".into() };
    let key = Credential {
        id: CredentialId::new(created, 3),
        kind: CredentialKind::Key,
        organization,
        login: user.public.clone(),
        proof: user.ha1().into(),
        roles: [(project.id, Role::GroupOwner)].into(),
        access_list: Vec::new(),
        created,
    };
    catalog.create_credential(&key).await?;
    let cluster = Cluster {
        id: ClusterId::new(created, 4),
        project: project.id,
        name: "Cluster0".into(),
        identity: "nowhere".into(),
        // Nobody listens on port 1.
        uri: "mongodb://127.0.0.1:1/?replicaSet=cfg".into(),
        created,
    };
    catalog.add_cluster(&cluster).await?;
    drop(catalog);

    // Through the catalog each would be a transaction of its own, with its own wait for the disk.
    let mut connection = Connection::open(&file)?;
    let transaction = connection.transaction()?;
    let mut insert =
        transaction.prepare("INSERT INTO checkpoints (cluster, id, ended, record) VALUES (?1, ?2, ?3, ?4)")?;
    let mut middle = None;
    for n in 0..CHECKPOINTS {
        let checkpoint = completed(cluster.id, n)?;
        let record = serde_json::to_string(&checkpoint)?;
        insert.execute(params![cluster.id.to_string(), checkpoint.id.to_string(), true, record])?;
        if n == CHECKPOINTS / 2 {
            middle = Some(checkpoint.id);
        }
    }
    drop(insert);
    transaction.commit()?;
    let list = format!("/api/atlas/v1.0/groups/{}/clusters/{}/backupCheckpoints", project.id, cluster.name);
    let one = format!("{list}/{}", middle.context("no checkpoint")?);
    Ok(Seeds { user, list, one })
}

/// A completed checkpoint of two shards and the config servers.
fn completed(cluster: ClusterId, n: i64) -> Result<Checkpoint> {
    let begin = FIRST + n * 3600;
    let seconds = u32::try_from(begin)?;
    let part = |id, replica_set: &str, increment| Part {
        id,
        replica_set: replica_set.into(),
        term: Some(1),
        token: Some(Token {
            attempt: 1,
            time: ClusterTime::new(seconds + 1, increment),
            discovered: true,
            discovered_at: None,
        }),
    };
    let checkpoint = Checkpoint {
        started: at(begin)?,
        state: State::Completed,
        parts: vec![
            part(PartId::Shard("rs0".into()), "rs0", 2),
            part(PartId::Shard("rs1".into()), "rs1", 3),
            part(PartId::ConfigServers, "cfg", 4),
        ],
        clock: Some(ClusterTime::new(seconds + 1, 1)),
        cut: Some(ClusterTime::new(seconds + 1, 2)),
        found: Some(Found {
            running: true,
            settings: r#"{"balancer":{"_id":"balancer","mode":"full","stopped":false}}"#.into(),
            seen: ClusterTime::new(seconds, 1),
            from: "127.0.0.1:40000".into(),
        }),
        held_since: Some(at(begin + 1)?),
        released: Some(Released { at: at(begin + 2)?, how: PutBack::AsFound }),
        ended: Some(at(begin + 3)?),
        ..Checkpoint::queued(CheckpointId::new(at(begin)?, n as u64), cluster, at(begin)?)
    };
    match checkpoint.broken_rule() {
        Some(rule) => anyhow::bail!("a checkpoint that cannot be: {rule}"),
        None => Ok(checkpoint),
    }
}

fn at(second: i64) -> Result<Timestamp> {
    Ok(Timestamp::from_second(second)?)
}

/// Changes a catalog that a server has open, in what no reply shows.
pub struct Scribe {
    connection: Connection,
    changes: u64,
}

impl Scribe {
    pub fn open(dir: &Path) -> Result<Scribe> {
        let connection = Connection::open(dir.join("stillpoint.db"))?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        // It is the change that is wanted, not the disk's part in it.
        connection.pragma_update(None, "synchronous", "off")?;
        Ok(Scribe { connection, changes: 0 })
    }

    pub fn change(&mut self) -> Result<()> {
        self.changes += 1;
        let name = format!("other-{}", self.changes);
        self.connection.execute("UPDATE projects SET name = ?1 WHERE name LIKE 'other-%'", params![name])?;
        Ok(())
    }
}
