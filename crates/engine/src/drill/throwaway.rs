//! The throw-away cluster of a drill: a server for each part, on this machine, which goes with all that is in it.
//!
//! Nobody else can talk to it: it listens on the loopback, and lets in only who knows its key, which is in a file
//! that only our user can read and, sealed, in the record of the restore while that is under way.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::drill;
use stillpoint_mongo::fresh::Fresh;
use stillpoint_mongod::{Folder, Server, ServerError, binary, folder};

use super::DrillError;
use crate::snapshots::room::free;

/// What the names of its folders begin with.
const PREFIX: &str = "stillpoint-drill-";
/// Of its oplogs, in MB: nothing reads them.
const OPLOG: u32 = 200;
/// Of the memory of each server, in GB: the least that may be asked for.
const CACHE: &str = "0.25";
/// What a server takes of the disk without any data: its journal, its oplog, and some.
const BARE: u64 = 600 << 20;
/// Servers that are started at once: each has only so long to start.
const AT_ONCE: usize = 8;

/// What is to be put on it.
#[derive(Debug)]
pub struct Needs {
    pub parts: Vec<PartId>,
    /// Of all documents, as they are outside of a server: one compresses them, and adds indexes.
    pub bytes: u64,
    pub compatibility: String,
}

/// A running cluster. Dropping it kills its servers and removes their folder.
#[derive(Debug)]
pub struct Throwaway {
    servers: Vec<Server>,
    uri: SecretString,
    // Last, so that the servers are gone before it.
    folder: Folder,
}

/// Where the folders of throw-away clusters are made.
pub fn parent(stage: &drill::Stage, temporary: &Path) -> PathBuf {
    let parent = stage.folder.as_deref().unwrap_or(temporary);
    // As the commands of its servers have it, by which they are known.
    std::path::absolute(parent).unwrap_or_else(|_| parent.to_owned())
}

/// Removes what killed servers left of theirs.
pub async fn sweep(parent: PathBuf) {
    let swept = tokio::task::spawn_blocking(move || folder::sweep(&parent, PREFIX)).await;
    for folder in swept.unwrap_or_default() {
        tracing::warn!(folder = %folder.display(), "drill: removed a throw-away cluster that a killed server left");
    }
}

impl Throwaway {
    /// # Errors
    /// A server of another version, or none; too little room; whatever keeps one from starting.
    pub async fn start(stage: &drill::Stage, parent: &Path, needs: &Needs) -> Result<Throwaway, DrillError> {
        let binary = program(stage, &needs.compatibility).await?;
        room(parent, needs)?;
        let folder = Folder::create(parent, PREFIX)?;
        let key = key();
        let key_file = folder.path().join("key");
        write_key(&key_file, &key).map_err(|why| ServerError::File { path: key_file.clone(), why })?;
        let starts = needs.parts.iter().enumerate().map(|(n, part)| {
            let (binary, folder, key, key_file) = (&binary, &folder, &key, &key_file);
            async move {
                let set = format!("drill{n}");
                let args = arguments(part, &set, key_file);
                let server = Server::start(binary, folder, &set, &args).await?;
                let fresh = Fresh::begin(&server.address(), part.clone(), &set, key).await?;
                Ok::<_, DrillError>((server, fresh))
            }
        });
        let starts: Vec<_> = starts.collect();
        let started: Vec<_> = stream::iter(starts).buffered(AT_ONCE).try_collect().await?;
        let (servers, fresh): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        let config = needs.parts.iter().position(|part| *part == PartId::ConfigServers);
        let config = config.and_then(|at| fresh.get(at)).ok_or(DrillError::NoConfigServers)?;
        for shard in &fresh {
            config.add_shard(shard).await?;
        }
        let uri = config.uri();
        Ok(Throwaway { servers, uri, folder })
    }

    /// Of its config server.
    pub fn uri(&self) -> &SecretString {
        &self.uri
    }

    /// What one of its servers left that ended by itself.
    pub fn failed(&mut self) -> Option<ServerError> {
        self.servers.iter_mut().find_map(Server::failed)
    }

    /// Ends its servers and removes all that they had.
    pub async fn remove(self) -> Result<(), ServerError> {
        let Throwaway { servers, folder, .. } = self;
        let path = folder.path().to_owned();
        let removed = tokio::task::spawn_blocking(move || {
            drop(servers);
            folder.remove()
        });
        removed.await.unwrap_or_else(|e| Err(ServerError::File { path, why: io::Error::other(e) }))
    }
}

/// The `mongod` to be run, which must be of the version that the data is of.
async fn program(stage: &drill::Stage, compatibility: &str) -> Result<PathBuf, DrillError> {
    let path = match &stage.mongod {
        Some(path) => path.clone(),
        None => binary::on_path(&std::env::var_os("PATH").unwrap_or_default())?,
    };
    match binary::version(&path).await? {
        version if version == compatibility => Ok(path),
        version => Err(DrillError::Version { path, version, needed: compatibility.to_owned() }),
    }
}

fn room(parent: &Path, needs: &Needs) -> Result<(), DrillError> {
    let free = free(parent).map_err(|why| ServerError::File { path: parent.to_owned(), why })?;
    let needed = needed(needs);
    match free < needed {
        true => Err(DrillError::NoRoom { folder: parent.to_owned(), needed, free }),
        false => Ok(()),
    }
}

fn needed(needs: &Needs) -> u64 {
    needs.bytes.saturating_add(BARE * needs.parts.len() as u64)
}

fn key() -> SecretString {
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(64).map(char::from).collect::<String>().into()
}

fn write_key(path: &Path, key: &SecretString) -> io::Result<()> {
    // mongod refuses a key that others can read.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key.expose_secret().as_bytes())
}

fn arguments(part: &PartId, set: &str, key_file: &Path) -> Vec<String> {
    let role = match part {
        PartId::ConfigServers => "--configsvr",
        PartId::Shard(_) => "--shardsvr",
    };
    let key_file = key_file.to_string_lossy();
    let oplog = OPLOG.to_string();
    let all = [
        role,
        "--replSet",
        set,
        "--keyFile",
        &key_file,
        "--wiredTigerCacheSizeGB",
        CACHE,
        "--oplogSize",
        &oplog,
        // Nobody makes a first user: there is one.
        "--setParameter",
        "enableLocalhostAuthBypass=false",
        "--setParameter",
        "diagnosticDataCollectionEnabled=false",
    ];
    all.map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(bytes: u64) -> Needs {
        let parts = vec![PartId::Shard("rs0".into()), PartId::ConfigServers];
        Needs { parts, bytes, compatibility: "6.0".into() }
    }

    #[test]
    fn a_disk_without_room_for_all_of_it_is_refused_before_anything_is_started() {
        assert_eq!(needed(&needs(5)), 5 + 2 * BARE);
        let folder = tempfile::tempdir().unwrap();
        room(folder.path(), &needs(0)).unwrap();
        let refused = room(folder.path(), &needs(u64::MAX));
        assert!(matches!(refused, Err(DrillError::NoRoom { needed: u64::MAX, .. })), "{refused:?}");
        assert!(room(&folder.path().join("missing"), &needs(0)).is_err());
    }

    #[test]
    fn no_secret_is_among_the_words_of_a_command() {
        let folder = tempfile::tempdir().unwrap();
        let (key, file) = (key(), folder.path().join("key"));
        write_key(&file, &key).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), key.expose_secret());
        let words = arguments(&PartId::ConfigServers, "drill0", &file);
        assert!(words.contains(&"--configsvr".to_owned()));
        assert!(!words.iter().any(|word| word.contains(key.expose_secret())));
    }

    #[tokio::test]
    async fn a_server_of_another_version_is_not_started() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mongod");
        std::fs::write(&path, "#!/bin/sh\necho db version v7.0.2\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let stage = drill::Stage { mongod: Some(path.clone()), folder: None, to_file: None };
        let refused = Throwaway::start(&stage, folder.path(), &needs(0)).await.unwrap_err();
        assert!(matches!(&refused, DrillError::Version { version, .. } if version == "7.0"), "{refused:?}");
        assert_eq!(program(&stage, "7.0").await.unwrap(), path);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was made");
    }
}
