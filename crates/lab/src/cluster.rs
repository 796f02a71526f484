//! [`Lab`]: a sharded cluster of real processes from one call.

use anyhow::{Context, Result};
use bson::doc;
use futures::future::try_join_all;

use crate::endpoint::Topology;
use crate::mongod::mongod;
use crate::proxy::Switchboard;
use crate::replica_set::{Plan, ReplicaSet, Role};
use crate::users::Users;
use crate::wire::{Credentials, majority};

/// A running sharded cluster. Dropping it, in a panic too, stops its processes by their ids and
/// removes their folders.
#[derive(Debug)]
pub struct Lab {
    config: ReplicaSet,
    shards: Vec<ReplicaSet>,
    users: Option<Users>,
}

/// What a lab should be like; see [`Lab::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    name: &'static str,
    shards: usize,
    members: usize,
    config_members: usize,
    auth: bool,
    test_commands: bool,
    cuttable: bool,
    oplog: u32,
    parameters: Vec<String>,
    added: usize,
}

/// Of an oplog, in MB.
const OPLOG: u32 = 200;

impl Lab {
    /// Two shards and a config server, of one member each, without users or proxies.
    pub fn builder() -> Builder {
        Builder {
            name: "rs",
            shards: 2,
            members: 1,
            config_members: 1,
            auth: false,
            test_commands: false,
            cuttable: false,
            oplog: OPLOG,
            parameters: Vec::new(),
            added: usize::MAX,
        }
    }

    /// A replica set of one member that is no part of any sharded cluster.
    pub async fn plain_replica_set() -> Result<ReplicaSet> {
        ReplicaSet::start(Plan {
            name: "plain".to_owned(),
            role: Role::Plain,
            members: 1,
            test_commands: false,
            oplog: OPLOG,
            parameters: Vec::new(),
            binary: mongod().await?,
            users: None,
            board: None,
        })
        .await
    }

    pub fn config(&self) -> &ReplicaSet {
        &self.config
    }

    pub fn shards(&self) -> &[ReplicaSet] {
        &self.shards
    }

    /// The shard `rs{i}`, or as it is named. Panics when there is none: a mistake in the test.
    pub fn shard(&self, i: usize) -> &ReplicaSet {
        &self.shards[i]
    }

    /// The cluster as its clients see it.
    pub fn topology(&self) -> Topology {
        Topology {
            config: self.config.endpoint().clone(),
            shards: self.shards.iter().map(|shard| shard.endpoint().clone()).collect(),
        }
    }

    /// The config servers first, then the shards.
    pub fn parts(&self) -> impl Iterator<Item = &ReplicaSet> {
        std::iter::once(&self.config).chain(&self.shards)
    }

    /// The config servers' connection string, for the least-privileged user when there is auth.
    pub fn uri(&self) -> String {
        self.config.uri()
    }

    /// The same for a restore into the lab.
    pub fn restore_uri(&self) -> String {
        self.config.restore_uri()
    }

    /// The same for the lab's administrator.
    pub fn admin_uri(&self) -> String {
        self.config.admin_uri()
    }

    /// The lab's administrator, when there is auth.
    pub fn admin(&self) -> Option<&Credentials> {
        self.users.as_ref().map(Users::admin)
    }

    /// The least-privileged user, when there is auth.
    pub fn stillpoint_user(&self) -> Option<&Credentials> {
        self.users.as_ref().map(Users::stillpoint)
    }

    /// Adds the shard `rs{i}` to the cluster.
    pub async fn add_shard(&self, i: usize) -> Result<()> {
        let shard = self.shard(i);
        let add = doc! {
            "_configsvrAddShard": shard.endpoint().seed_list(),
            "name": shard.name(),
            "writeConcern": majority(),
        };
        let added = self.config.run("admin", add).await;
        added.map(drop).with_context(|| format!("cannot add the shard {}", shard.name()))
    }

    /// Removes a shard that has no chunks.
    pub async fn remove_shard(&self, i: usize) -> Result<()> {
        let name = self.shard(i).name();
        loop {
            let remove = doc! {"_configsvrRemoveShard": name, "writeConcern": majority()};
            let reply = self.config.run("admin", remove).await.with_context(|| format!("cannot remove {name}"))?;
            match reply.get_str("state")? {
                "completed" => return Ok(()),
                "started" => {}
                other => anyhow::bail!("{name} is not removed: {other}: {reply}"),
            }
        }
    }

    /// The ids of all its processes.
    pub async fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for part in self.parts() {
            pids.extend(part.pids().await);
        }
        pids
    }
}

impl Builder {
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// What the names of its shards begin with, instead of `rs`.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Members of each shard.
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    pub fn config_members(mut self, members: usize) -> Self {
        self.config_members = members;
        self
    }

    /// A key file, an administrator and a least-privileged user on every set.
    pub fn auth(mut self, auth: bool) -> Self {
        self.auth = auth;
        self
    }

    /// Failpoints.
    pub fn test_commands(mut self, test_commands: bool) -> Self {
        self.test_commands = test_commands;
        self
    }

    /// A proxy before each member, so that it can be cut off.
    pub fn cuttable(mut self, cuttable: bool) -> Self {
        self.cuttable = cuttable;
        self
    }

    /// The size of the oplogs in MB.
    pub fn oplog(mut self, megabytes: u32) -> Self {
        self.oplog = megabytes;
        self
    }

    /// Sets a server parameter, `name=value`, at the start of each member.
    pub fn parameter(mut self, parameter: &str) -> Self {
        self.parameters.push(parameter.to_owned());
        self
    }

    /// Only the first `added` of the shards are in the cluster from the beginning; see [`Lab::add_shard`].
    pub fn added(mut self, added: usize) -> Self {
        self.added = added;
        self
    }

    /// Starts everything at once and returns when all shards are added and every member serves.
    pub async fn start(self) -> Result<Lab> {
        let binary = mongod().await?;
        let users = self.auth.then(Users::generate);
        let board = self.cuttable.then(Switchboard::default);
        let plan = |name: String, role, members| Plan {
            name,
            role,
            members,
            test_commands: self.test_commands,
            oplog: self.oplog,
            parameters: self.parameters.clone(),
            binary: binary.clone(),
            users: users.clone(),
            board: board.clone(),
        };
        let config = plan(
            if self.name == "rs" { "cfg".to_owned() } else { format!("{}-cfg", self.name) },
            Role::Config,
            self.config_members,
        );
        let shards = (0..self.shards).map(|i| plan(format!("{}{i}", self.name), Role::Shard, self.members));
        let (config, shards) =
            futures::future::try_join(ReplicaSet::start(config), try_join_all(shards.map(ReplicaSet::start))).await?;
        let lab = Lab { config, shards, users };
        for i in 0..lab.shards.len().min(self.added) {
            lab.add_shard(i).await?;
        }
        Ok(lab)
    }
}
