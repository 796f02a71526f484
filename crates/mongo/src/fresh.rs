//! Servers with nothing in them, made a sharded cluster of replica sets of one member each.
//!
//! They share a key file, and the only user is the one that all members of a cluster have, `__system`, whose password
//! the key is: so there is never a moment in which a server lets somebody in without one.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::{AuthMechanism, ClientOptions, Credential, ServerAddress};
use secrecy::{ExposeSecret, SecretString};
use stillpoint_core::checkpoint::PartId;
use tokio::time::{Instant, sleep};

use crate::error::{MongoError, Result};
use crate::link::client;
use crate::part::{PartLink, hello};
use crate::privileges::{Need, On};

/// How long the only member of a set may take to become its primary.
const ELECTION_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
const CONNECT: Duration = Duration::from_secs(10);

/// `__system` may do everything.
const BEGIN: Need = Need {
    what: "make a new server a replica set",
    action: "replSetConfigure",
    resource: "the cluster",
    namespace: None,
    on: On::Every,
};
const ADD_SHARD: Need = Need {
    what: "add a shard to a new cluster",
    action: "internal",
    resource: "the cluster",
    namespace: None,
    on: On::ConfigServers,
};

/// The only member of a new replica set.
#[derive(Debug)]
pub struct Fresh {
    link: PartLink,
    address: String,
    key: SecretString,
}

impl Fresh {
    /// Makes a server a replica set of that name, and waits until it takes writes. A shard's part is called as the
    /// shard will be.
    pub async fn begin(address: &str, part: PartId, set: &str, key: &SecretString) -> Result<Fresh> {
        let host = ServerAddress::parse(address).map_err(|e| MongoError::BadUri(e.to_string()))?;
        let credential = Credential::builder()
            .username("__system".to_owned())
            .password(key.expose_secret().to_owned())
            .source("local".to_owned())
            .mechanism(AuthMechanism::ScramSha256)
            .build();
        let options = ClientOptions::builder()
            .hosts(vec![host])
            .direct_connection(true)
            .credential(credential)
            .connect_timeout(CONNECT)
            .server_selection_timeout(CONNECT)
            .build();
        let is_config = part == PartId::ConfigServers;
        let link = PartLink { id: part, replica_set: set.to_owned(), added: None, client: client(options)? };
        let mut config = doc! {"_id": set, "members": [{"_id": 0, "host": address}]};
        if is_config {
            config.insert("configsvr", true);
        }
        link.run("admin", &BEGIN, doc! {"replSetInitiate": config}).await?;
        let fresh = Fresh { link, address: address.to_owned(), key: key.clone() };
        fresh.until_primary().await?;
        Ok(fresh)
    }

    async fn until_primary(&self) -> Result<()> {
        let end = Instant::now() + ELECTION_LIMIT;
        let is_primary = |hello: &Document| hello.get_bool("isWritablePrimary").unwrap_or(false);
        while !is_primary(&hello(&self.link).await?) {
            if Instant::now() > end {
                return Err(MongoError::TooSlow { part: self.link.id.to_string(), what: BEGIN.what });
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Adds a shard to the cluster whose only config server this is.
    pub async fn add_shard(&self, shard: &Fresh) -> Result<()> {
        let PartId::Shard(name) = &shard.link.id else { return Ok(()) };
        let command = doc! {
            "_configsvrAddShard": format!("{}/{}", shard.link.replica_set, shard.address),
            "name": name,
            "writeConcern": {"w": "majority", "wtimeout": 60_000},
            "maxTimeMS": 60_000,
        };
        self.link.run("admin", &ADD_SHARD, command).await.map(drop)
    }

    /// Its connection string, with the key.
    pub fn uri(&self) -> SecretString {
        let (key, address, set) = (self.key.expose_secret(), &self.address, &self.link.replica_set);
        format!("mongodb://__system:{key}@{address}/?replicaSet={set}&authSource=local").into()
    }
}
