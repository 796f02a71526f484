//! Connections to the parts of a cluster, from the connection string of its config servers.
//!
//! Each part has a driver client of its own that follows its replica set's primary through elections.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bson::doc;
use mongodb::Client;
use mongodb::options::{ClientOptions, ServerAddress};
use secrecy::{ExposeSecret, SecretString};
use stillpoint_core::checkpoint::PartId;

use crate::error::{MongoError, Result, is_authentication, plain};
use crate::part::{PartLink, hello, read_config};
use crate::privileges::READ_CONFIG;
use crate::topology::{self, PartAddress};

/// How long one command waits for a primary; the caller's own limit may be shorter.
const SELECTION: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);
/// Connections to each member: tokens, looks and notes never need more at once.
const POOL: u32 = 4;
/// The oldest server that gossips, snapshots and prepares as the protocol needs.
pub const OLDEST: &str = "4.4";
const OLDEST_WIRE: i32 = 9;

/// A sharded cluster, through its config servers.
#[derive(Debug)]
pub struct ClusterLink {
    /// Credentials, TLS and the rest of the connection string, used for every part.
    options: ClientOptions,
    pub config: PartLink,
    /// Clients of shards, by the shard's name and address: one that moved gets a new client.
    shards: Mutex<BTreeMap<(String, String), PartLink>>,
}

impl ClusterLink {
    /// Connects to config servers, and makes sure that they are.
    pub async fn connect(uri: &SecretString) -> Result<ClusterLink> {
        let seeds = Seeds::examine(uri, POOL).await?;
        if !seeds.is_config {
            return Err(MongoError::NotConfigServer { host: seeds.host, set: seeds.set });
        }
        seeds.cluster()
    }

    /// The parts as `config.shards` has them now: shards by name, then the config servers.
    pub async fn parts(&self) -> Result<Vec<PartLink>> {
        let addresses = topology::shards(&self.config).await?;
        let mut parts = Vec::with_capacity(addresses.len() + 1);
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.retain(|key, _| addresses.iter().any(|address| key.0 == address.name && key.1 == address.hosts));
        for address in addresses {
            let key = (address.name.clone(), address.hosts.clone());
            let part = match shards.get(&key) {
                Some(part) => part.clone(),
                None => {
                    let part = self.shard(&address)?;
                    shards.insert(key, part.clone());
                    part
                }
            };
            parts.push(part);
        }
        parts.push(self.config.clone());
        Ok(parts)
    }

    /// The id that the cluster gave itself when its first shard was added: the same whatever hosts it
    /// is reached by.
    pub async fn identity(&self) -> Result<String> {
        let rows = read_config(&self.config, &READ_CONFIG, "version", doc! {}, 1).await?;
        let id = rows.first().and_then(|row| row.get_object_id("clusterId").ok());
        id.map(|id| id.to_hex()).ok_or_else(|| MongoError::Reply {
            part: self.config.id.to_string(),
            what: "config.version",
            why: "it has no clusterId: add a shard first".into(),
        })
    }

    fn shard(&self, address: &PartAddress) -> Result<PartLink> {
        let mut options = self.options.clone();
        options.hosts = address.members()?;
        options.repl_set_name = Some(address.replica_set.clone());
        let client = client(options)?;
        Ok(PartLink {
            id: PartId::Shard(address.name.clone()),
            replica_set: address.replica_set.clone(),
            added: address.added,
            client,
        })
    }

    /// A connection of its own to the present primary of the config servers, for the balancer's stop. To
    /// that member alone: what followed an election would go out by a connection with another address,
    /// and be taken for somebody else's.
    pub(crate) async fn single_connection(&self) -> Result<PartLink> {
        let hello = hello(&self.config).await?;
        let primary = hello.get_str("me").ok().and_then(|me| ServerAddress::parse(me).ok());
        let primary = primary.ok_or_else(|| MongoError::Reply {
            part: self.config.id.to_string(),
            what: "say hello",
            why: "it has no `me`".into(),
        })?;
        let mut options = self.options.clone();
        options.hosts = vec![primary];
        options.direct_connection = Some(true);
        options.max_pool_size = Some(1);
        Ok(PartLink { client: client(options)?, ..self.config.clone() })
    }
}

/// The members that a connection string names, once each was asked who it is.
pub(crate) struct Seeds {
    options: ClientOptions,
    set: String,
    host: String,
    pub is_config: bool,
}

impl Seeds {
    /// `pool` connections to each member are made at most.
    pub async fn examine(uri: &SecretString, pool: u32) -> Result<Seeds> {
        let mut options = parse(uri).await?;
        options.app_name.get_or_insert_with(|| "stillpoint".into());
        options.connect_timeout.get_or_insert(CONNECT);
        options.server_selection_timeout.get_or_insert(SELECTION);
        options.max_pool_size = Some(pool);
        // The connection that the balancer's stop comes from must be one, and stay the same.
        options.min_pool_size = None;
        options.max_idle_time = None;
        options.direct_connection = None;
        let Seed { set, host, is_config } = examine_seeds(&options).await?;
        options.repl_set_name = Some(set.clone());
        Ok(Seeds { options, set, host, is_config })
    }

    pub fn cluster(self) -> Result<ClusterLink> {
        let Seeds { options, set, .. } = self;
        let client = client(options.clone())?;
        let config = PartLink { id: PartId::ConfigServers, replica_set: set, added: None, client };
        Ok(ClusterLink { options, config, shards: Mutex::default() })
    }

    /// The set itself, by its name.
    pub fn replica_set(self) -> Result<PartLink> {
        let Seeds { options, set, .. } = self;
        Ok(PartLink { id: PartId::Shard(set.clone()), replica_set: set, added: None, client: client(options)? })
    }
}

/// What a member says of itself.
struct Seed {
    set: String,
    host: String,
    is_config: bool,
}

pub(crate) fn client(options: ClientOptions) -> Result<Client> {
    Client::with_options(options).map_err(|e| MongoError::BadUri(plain(&e)))
}

/// Parses a connection string.
async fn parse(uri: &SecretString) -> Result<ClientOptions> {
    let text = uri.expose_secret().trim();
    if !text.starts_with("mongodb://") && !text.starts_with("mongodb+srv://") {
        return Err(MongoError::BadUri("it must begin with mongodb:// or mongodb+srv://".into()));
    }
    let parsed = ClientOptions::parse(text).await;
    parsed.map_err(|e| {
        let why = plain(&e);
        MongoError::BadUri(if quotes_a_secret(&why, text) { NOT_UNDERSTOOD.into() } else { why })
    })
}

/// Stands for a message of the driver that is better not shown.
const NOT_UNDERSTOOD: &str = "it must be mongodb://USER:PASSWORD@HOST:PORT,HOST:PORT/?OPTIONS, with each of \
    : / ? # [ ] @ % in the user's name and the password written as %XX (what exactly is wrong is not shown: \
    it may hold something of them)";

/// Whether a message about a connection string holds any of what may be the user's name or password.
/// Where a character was not written as %XX, the driver takes some of them for a host or an option and
/// quotes just that; where the hosts were forgotten, all of it.
fn quotes_a_secret(message: &str, uri: &str) -> bool {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let user = match rest.rsplit_once('@') {
        Some((user, _)) => user,
        None => rest.split(['/', '?']).next().and_then(|hosts| hosts.split_once(':')).map_or("", |(_, rest)| rest),
    };
    user.split([':', '/', '?', '#', '[', ']', '@', '%', ',', '&', '='])
        .any(|piece| !piece.is_empty() && message.contains(piece))
}

/// Asks each member of the connection string, on its own, who it is: so that a wrong one is named
/// for what it is, and not as "no primary was found".
async fn examine_seeds(options: &ClientOptions) -> Result<Seed> {
    let looks = options.hosts.iter().map(|host| examine_seed(options, host));
    let mut set = None;
    let mut unreachable = None;
    for look in futures::future::join_all(looks).await {
        match look {
            Ok(seed) => set = Some(seed),
            Err(e @ MongoError::Unreachable { .. }) => unreachable = Some(e),
            Err(e) => return Err(e),
        }
    }
    match (set, unreachable) {
        (Some(set), _) => Ok(set),
        (None, Some(e)) => Err(e),
        (None, None) => Err(MongoError::BadUri("it names no host".into())),
    }
}

async fn examine_seed(options: &ClientOptions, host: &ServerAddress) -> Result<Seed> {
    let mut direct = options.clone();
    direct.hosts = vec![host.clone()];
    direct.direct_connection = Some(true);
    direct.repl_set_name = None;
    direct.server_selection_timeout = Some(CONNECT);
    let host = host.to_string();
    let unreachable = |why: String| MongoError::Unreachable { part: host.clone(), why };
    let admin = client(direct)?.database("admin");
    let hello = admin.run_command(doc! {"hello": 1}).into_future();
    // The driver's own limits cover selection and connecting, not a server that never answers.
    let reply = match tokio::time::timeout(CONNECT * 2, hello).await {
        Err(_) => return Err(unreachable("it does not answer".into())),
        Ok(Err(e)) if is_authentication(&e) => {
            return Err(MongoError::AuthenticationFailed { part: host, why: plain(&e) });
        }
        // The driver itself refuses what is older than it knows, with these words.
        Ok(Err(e)) if e.to_string().contains("wire version") => {
            let message = e.to_string();
            let wire =
                message.split("wire version ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
            let version = release(wire.and_then(|wire| wire.parse().ok()).unwrap_or(0));
            return Err(MongoError::TooOld { host, version: version.into(), needed: OLDEST });
        }
        Ok(Err(e)) => return Err(unreachable(plain(&e))),
        Ok(Ok(reply)) => reply,
    };
    if reply.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        return Err(MongoError::IsMongos { host });
    }
    let wire = reply.get_i32("maxWireVersion").unwrap_or(0);
    if wire < OLDEST_WIRE {
        return Err(MongoError::TooOld { host, version: release(wire).into(), needed: OLDEST });
    }
    let Ok(set) = reply.get_str("setName") else {
        return Err(MongoError::NotReplicaSet { host });
    };
    if let Some(given) = options.repl_set_name.as_ref().filter(|given| given.as_str() != set) {
        return Err(MongoError::OtherReplicaSet { host, found: set.into(), given: given.clone() });
    }
    // Config servers alone say `configsvr: 2` in their hello.
    Ok(Seed { set: set.to_owned(), is_config: reply.get("configsvr").is_some(), host })
}

/// The release of an old server, by its wire version.
fn release(wire: i32) -> &'static str {
    match wire {
        8 => "4.2",
        7 => "4.0",
        6 => "3.6",
        _ => "of an unknown, old release",
    }
}
