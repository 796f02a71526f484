//! The key file and the three users of a lab with authentication.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bson::doc;
use rand::Rng;
use std::io::Write;

use crate::wire::{Connection, Credentials};

/// The custom role of the least-privileged user.
pub const ROLE: &str = "stillpoint";
const RESTORE_ROLE: &str = "stillpointRestore";

/// The secrets of one lab: the same on each of its replica sets, made anew for every lab.
#[derive(Debug, Clone)]
pub struct Users {
    key: String,
    admin: Credentials,
    stillpoint: Credentials,
    restorer: Credentials,
}

impl Users {
    pub fn generate() -> Self {
        let credentials = |user: &str| Credentials { user: user.to_owned(), password: secret(20) };
        Self {
            key: secret(64),
            admin: credentials("admin"),
            stillpoint: credentials("stillpoint"),
            restorer: credentials("restorer"),
        }
    }

    /// May do everything, `_configsvr…` and `_shardsvr…` commands included.
    pub fn admin(&self) -> &Credentials {
        &self.admin
    }

    /// May do what a checkpoint needs and no more.
    pub fn stillpoint(&self) -> &Credentials {
        &self.stillpoint
    }

    /// May do what a restore into the lab needs and no more.
    pub fn restorer(&self) -> &Credentials {
        &self.restorer
    }

    /// Writes the key file that the members of all sets share.
    pub fn write_key_file(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join("key");
        // mongod refuses a key that others can read.
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(self.key.as_bytes()))
            .context("cannot write the key file")?;
        Ok(path)
    }

    /// Makes the users on a new set, through its primary. The first comes in by the localhost
    /// exception, which ends with it.
    pub async fn create(&self, primary: &str) -> Result<()> {
        let mut connection = Connection::open(primary, None).await?;
        connection
            .run(
                "admin",
                doc! {
                    "createUser": &self.admin.user,
                    "pwd": &self.admin.password,
                    // root may not run `_configsvr…`; __system may not be all that root is.
                    "roles": ["root", "__system"],
                },
            )
            .await
            .context("cannot make the administrator")?;
        let mut connection = Connection::open(primary, Some(&self.admin)).await?;
        connection
            .run(
                "admin",
                doc! {
                    "createRole": ROLE,
                    "privileges": [
                        {"resource": {"cluster": true}, "actions": ["internal"]},
                        {
                            "resource": {"db": "config", "collection": "system.sharding_ddl_coordinators"},
                            "actions": ["find"],
                        },
                        {"resource": {"db": "", "collection": "system.views"}, "actions": ["find"]},
                        {
                            "resource": {"db": "config", "collection": "settings"},
                            "actions": ["find", "insert", "update", "remove"],
                        },
                    ],
                    "roles": [],
                },
            )
            .await
            .context("cannot make the role")?;
        connection
            .run(
                "admin",
                doc! {
                    "createUser": &self.stillpoint.user,
                    "pwd": &self.stillpoint.password,
                    "roles": ["backup", "clusterMonitor", ROLE],
                },
            )
            .await
            .context("cannot make the user")?;
        connection
            .run(
                "admin",
                doc! {
                    "createRole": RESTORE_ROLE,
                    "privileges": [
                        {"resource": {"cluster": true}, "actions": ["internal"]},
                        {"resource": {"db": "admin", "collection": "system.roles"}, "actions": ["insert"]},
                        {
                            "resource": {"db": "", "collection": "system.views"},
                            "actions": ["find", "insert", "createCollection"],
                        },
                    ],
                    "roles": ["restore", "backup", "clusterMonitor"],
                },
            )
            .await
            .context("cannot make the role of a restore")?;
        connection
            .run(
                "admin",
                doc! {
                    "createUser": &self.restorer.user,
                    "pwd": &self.restorer.password,
                    "roles": [RESTORE_ROLE],
                },
            )
            .await
            .context("cannot make the user of a restore")?;
        Ok(())
    }
}

fn secret(length: usize) -> String {
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(length).map(char::from).collect()
}
