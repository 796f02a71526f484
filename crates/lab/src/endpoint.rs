//! Where a replica set is and who may talk to it: what a client needs, apart from the processes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bson::{Document, doc};
use futures::future::{join_all, try_join_all};
use tokio::time::timeout;

use crate::wait::until;
use crate::wire::{Connection, Credentials, Gossip};

/// A member that does not answer `hello` in this time counts as no primary.
const HELLO_LIMIT: Duration = Duration::from_secs(1);

/// A replica set as its clients see it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub name: String,
    /// Each member's advertised `host:port`.
    pub addresses: Vec<String>,
    /// The lab's administrator, when there is auth.
    pub admin: Option<Credentials>,
}

/// A cluster as its clients see it; cheap to clone.
#[derive(Debug, Clone)]
pub struct Topology {
    pub config: Arc<Endpoint>,
    pub shards: Arc<[Arc<Endpoint>]>,
}

impl Topology {
    /// The shard of this name.
    pub fn shard(&self, name: &str) -> Result<&Arc<Endpoint>> {
        self.shards.iter().find(|shard| shard.name == name).with_context(|| format!("the lab has no shard {name}"))
    }

    /// The config servers first, then the shards.
    pub fn parts(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        std::iter::once(&self.config).chain(self.shards.iter())
    }

    /// The highest cluster time that any primary knows of now, to be told to the others.
    pub async fn gossip(&self) -> Result<Gossip> {
        let gossip = Gossip::default();
        try_join_all(self.parts().map(|part| async {
            let connection = part.connect_primary().await?;
            connection.gossiping(gossip.clone()).run("admin", doc! {"ping": 1}).await
        }))
        .await
        .context("cannot ask every part for its cluster time")?;
        Ok(gossip)
    }
}

impl Endpoint {
    /// A raw connection to member `i`, logged in as the administrator.
    pub async fn connect(&self, i: usize) -> Result<Connection> {
        let address = self.addresses.get(i).with_context(|| format!("{} has no member {i}", self.name))?;
        Connection::open(address, self.admin.as_ref()).await
    }

    /// A raw connection to the present primary.
    pub async fn connect_primary(&self) -> Result<Connection> {
        self.connect(self.primary().await?).await
    }

    /// Runs a command on the primary with a connection of its own.
    pub async fn run(&self, db: &str, command: Document) -> Result<Document> {
        self.connect_primary().await?.run(db, command).await
    }

    /// The index of the primary, looked for among all members now. Of two that both think so,
    /// the one elected later.
    pub async fn primary(&self) -> Result<usize> {
        self.hellos()
            .await
            .iter()
            .enumerate()
            .filter_map(|(i, hello)| {
                let hello = hello.as_ref()?;
                is_primary(hello).then(|| (hello.get_object_id("electionId").ok(), i))
            })
            .max()
            .map(|(_, i)| i)
            .with_context(|| format!("{} has no primary", self.name))
    }

    /// Waits until there is a primary that takes writes.
    pub async fn wait_for_primary(&self, limit: Duration) -> Result<usize> {
        until(limit, || async { self.primary().await.ok() })
            .await
            .with_context(|| format!("{} has no primary after {limit:?}", self.name))
    }

    /// Waits until every member is primary or secondary, and says which is primary.
    pub async fn wait_for_all(&self, limit: Duration) -> Result<usize> {
        until(limit, || self.all_serving())
            .await
            .with_context(|| format!("not every member of {} serves after {limit:?}", self.name))
    }

    async fn all_serving(&self) -> Option<usize> {
        let mut primary = None;
        for (i, hello) in self.hellos().await.into_iter().enumerate() {
            let hello = hello?;
            if is_primary(&hello) {
                primary = Some(i);
            } else if !hello.get_bool("secondary").unwrap_or(false) {
                return None;
            }
        }
        primary
    }

    async fn hellos(&self) -> Vec<Option<Document>> {
        join_all(self.addresses.iter().map(|address| hello(address))).await
    }

    /// The connection string for `user`.
    pub fn connection_string(&self, user: Option<&Credentials>) -> String {
        let (hosts, set) = (self.addresses.join(","), &self.name);
        match user {
            Some(Credentials { user, password }) => {
                format!("mongodb://{user}:{password}@{hosts}/?replicaSet={set}&authSource=admin")
            }
            None => format!("mongodb://{hosts}/?replicaSet={set}"),
        }
    }

    /// `rs0/host:port,host:port`, as `addShard` takes it.
    pub fn seed_list(&self) -> String {
        format!("{}/{}", self.name, self.addresses.join(","))
    }
}

fn is_primary(hello: &Document) -> bool {
    hello.get_bool("isWritablePrimary").unwrap_or(false)
}

async fn hello(address: &str) -> Option<Document> {
    let ask = async {
        let mut connection = Connection::open(address, None).await?;
        connection.run("admin", doc! {"hello": 1}).await
    };
    timeout(HELLO_LIMIT, ask).await.ok()?.ok()
}
