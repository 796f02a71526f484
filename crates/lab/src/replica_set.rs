//! One replica set: its members, its primary, and the faults that can be put on it.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Bson, Document, doc};
use futures::future::try_join_all;
use mongodb::Client;
use mongodb::options::ClientOptions;
use stillpoint_mongod::Folder;
use tokio::sync::Mutex;

use crate::endpoint::Endpoint;
use crate::folder;
use crate::process::Mongod;
use crate::proxy::{Proxy, Switchboard};
use crate::users::Users;
use crate::wait::until;
use crate::wire::{Connection, code};

/// The limit on an election, a restart or a step-down on a busy machine.
pub const ELECTION_LIMIT: Duration = Duration::from_secs(60);

/// An oplog that is to be overwritten in a test, in MB.
const SMALL_OPLOG: u32 = 50;

/// What a replica set is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Config,
    Shard,
    Plain,
}

/// How to start a replica set.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: String,
    pub role: Role,
    pub members: usize,
    pub test_commands: bool,
    /// In MB.
    pub oplog: u32,
    /// `name=value`, of server parameters that can only be set at the start.
    pub parameters: Vec<String>,
    pub binary: PathBuf,
    /// Given: the set has a key file and the lab's users.
    pub users: Option<Users>,
    /// Given: each member is behind a proxy.
    pub board: Option<Switchboard>,
}

/// A running replica set. Dropping it kills its members and removes their folders.
#[derive(Debug)]
pub struct ReplicaSet {
    endpoint: Arc<Endpoint>,
    members: Vec<Member>,
    users: Option<Users>,
    board: Option<Switchboard>,
    client: Client,
    // Last, so that the processes are gone before their folders.
    _dir: Folder,
}

#[derive(Debug)]
struct Member {
    process: Mutex<Mongod>,
    proxy: Option<Proxy>,
    advertised: String,
}

impl ReplicaSet {
    /// Starts the members, initiates the set, waits until all of them serve, and makes the users.
    pub async fn start(plan: Plan) -> Result<Self> {
        let name = plan.name.clone();
        Self::try_start(plan).await.with_context(|| format!("cannot start the replica set {name}"))
    }

    async fn try_start(plan: Plan) -> Result<Self> {
        ensure!(plan.members > 0, "a replica set needs a member");
        let dir = folder::create(&plan.name)?;
        let args = arguments(&plan, &dir)?;
        let members = try_join_all((0..plan.members).map(|i| {
            let dir = dir.path().join(i.to_string());
            Member::start(plan.binary.clone(), dir, args.clone(), plan.board.as_ref())
        }))
        .await?;
        initiate(&plan, &members).await?;
        let endpoint = Endpoint {
            name: plan.name,
            addresses: members.iter().map(|m| m.advertised.clone()).collect(),
            admin: plan.users.as_ref().map(|users| users.admin().clone()),
        };
        let primary = endpoint.wait_for_all(ELECTION_LIMIT).await?;
        if let Some(users) = &plan.users {
            users.create(&endpoint.addresses[primary]).await?;
        }
        let uri = endpoint.connection_string(endpoint.admin.as_ref());
        let mut options = ClientOptions::parse(uri).await?;
        options.server_selection_timeout = Some(Duration::from_secs(30));
        options.connect_timeout = Some(Duration::from_secs(3));
        // The least that a driver may be told; elections here take about a second.
        options.heartbeat_freq = Some(Duration::from_millis(500));
        options.app_name = Some("stillpoint-lab".to_owned());
        Ok(Self {
            endpoint: Arc::new(endpoint),
            members,
            users: plan.users,
            board: plan.board,
            client: Client::with_options(options)?,
            _dir: dir,
        })
    }

    pub fn name(&self) -> &str {
        &self.endpoint.name
    }

    /// What a client needs to know of the set, apart from its processes.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The number of members.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// A client of the lab's administrator that follows the primary.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The connection string of the least-privileged user (without a user, when there is no auth).
    pub fn uri(&self) -> String {
        let user = self.users.as_ref().map(Users::stillpoint);
        self.endpoint.connection_string(user)
    }

    /// The connection string for a restore into it.
    pub fn restore_uri(&self) -> String {
        let user = self.users.as_ref().map(Users::restorer);
        self.endpoint.connection_string(user)
    }

    /// The connection string of the lab's administrator.
    pub fn admin_uri(&self) -> String {
        self.endpoint.connection_string(self.endpoint.admin.as_ref())
    }

    /// The ids of the processes that run.
    pub async fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for member in &self.members {
            pids.extend(member.process.lock().await.pid());
        }
        pids
    }

    /// The index of the primary, looked for among all members now.
    pub async fn primary(&self) -> Result<usize> {
        self.endpoint.primary().await
    }

    /// Waits until there is a primary that takes writes.
    pub async fn wait_for_primary(&self, limit: Duration) -> Result<usize> {
        self.endpoint.wait_for_primary(limit).await
    }

    /// Waits until every member is primary or secondary.
    pub async fn wait_for_all(&self, limit: Duration) -> Result<()> {
        self.endpoint.wait_for_all(limit).await.map(|_| ())
    }

    /// Runs a command on the primary as the administrator, raw: what it holds is not altered.
    pub async fn run(&self, db: &str, command: Document) -> Result<Document> {
        self.endpoint.run(db, command).await
    }

    /// Makes the primary step down and waits for the next. With several members another one is
    /// elected; a single member is back after a second or so.
    pub async fn step_down(&self) -> Result<usize> {
        let old = self.wait_for_primary(ELECTION_LIMIT).await?;
        let alone = self.members.len() == 1;
        let command = if alone {
            doc! {"replSetStepDown": 1, "secondaryCatchUpPeriodSecs": 0, "force": true}
        } else {
            doc! {"replSetStepDown": 20, "secondaryCatchUpPeriodSecs": 10}
        };
        match self.endpoint.connect(old).await?.run("admin", command).await {
            // Without a code the connection broke, as it does when the old primary lets go.
            Err(error) if code(&error).is_some() => {
                return Err(error).with_context(|| format!("{} does not step down", self.name()));
            }
            _ => {}
        }
        let new = until(ELECTION_LIMIT, || async { self.primary().await.ok().filter(|new| alone || *new != old) })
            .await
            .with_context(|| format!("{} elected no other primary", self.name()))?;
        if !alone {
            // Else the next step-downs would soon find nobody who may be elected.
            let unfreeze = doc! {"replSetFreeze": 0};
            let mut old = self.endpoint.connect(old).await?;
            old.run("admin", unfreeze)
                .await
                .with_context(|| format!("{}'s old primary cannot be elected again", self.name()))?;
        }
        Ok(new)
    }

    /// Makes the only member step down and be elected again, in a new term, within some hundredths of a second.
    pub async fn step_down_for_a_moment(&self) -> Result<()> {
        ensure!(self.members.len() == 1, "{} has other members, that would be elected", self.name());
        let mut connection = self.endpoint.connect(0).await?;
        let step_down = doc! {"replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 0, "force": true};
        connection.run("admin", step_down).await.with_context(|| format!("{} does not step down", self.name()))?;
        // Whoever is alone, and may be elected again, elects itself at once.
        let mut connection = self.endpoint.connect(0).await?;
        connection.run("admin", doc! {"replSetFreeze": 0}).await.context("it cannot be elected again")?;
        self.wait_for_primary(ELECTION_LIMIT).await?;
        Ok(())
    }

    /// `kill -9`; returns when the process is gone.
    pub async fn kill(&self, i: usize) -> Result<()> {
        let mut process = self.member(i)?.process.lock().await;
        if let (Some(board), Some(pid)) = (&self.board, process.pid()) {
            // Another process may get the id.
            board.allow(pid);
        }
        process.kill()
    }

    /// Kills the primary and says which it was.
    pub async fn kill_primary(&self) -> Result<usize> {
        let primary = self.wait_for_primary(ELECTION_LIMIT).await?;
        self.kill(primary).await?;
        Ok(primary)
    }

    /// Starts a member (again) on its folder and port; returns when it answers. A member that is
    /// cut off must be mended first: it could not find itself in the set.
    pub async fn restart(&self, i: usize) -> Result<()> {
        self.member(i)?.process.lock().await.restart().await
    }

    /// Starts a member again with nothing, and waits until it has everything from the others. Its oplog then
    /// begins about here.
    pub async fn resync(&self, i: usize) -> Result<()> {
        {
            let mut process = self.member(i)?.process.lock().await;
            process.wipe()?;
            process.restart().await?;
        }
        self.wait_for_all(ELECTION_LIMIT).await
    }

    /// As on a disk that is full: what a member writes beyond the first `bytes` of a file fails, until it is
    /// started again.
    pub async fn limit_files(&self, i: usize, bytes: u64) -> Result<()> {
        self.member(i)?.process.lock().await.limit_files(bytes)
    }

    /// Waits until a member has ended by itself: how, and its log.
    pub async fn until_ended(&self, i: usize, limit: Duration) -> Result<(ExitStatus, String)> {
        let member = self.member(i)?;
        let ended = until(limit, || async { member.process.lock().await.ended() }).await;
        let status = ended.with_context(|| format!("member {i} of {} runs still", self.name()))?;
        let log = std::fs::read(member.process.lock().await.log()).context("it has no log")?;
        Ok((status, String::from_utf8_lossy(&log).into_owned()))
    }

    /// SIGSTOP: its connections stay open and nothing answers.
    pub async fn freeze(&self, i: usize) -> Result<()> {
        self.member(i)?.process.lock().await.freeze()
    }

    /// SIGCONT.
    pub async fn thaw(&self, i: usize) -> Result<()> {
        self.member(i)?.process.lock().await.thaw()
    }

    /// Cuts a member off from clients and from all other members of the lab, both ways.
    /// Needs `cuttable(true)`.
    pub async fn cut(&self, i: usize) -> Result<()> {
        let (member, proxy, board) = self.cuttable(i)?;
        if let Some(pid) = member.process.lock().await.pid() {
            board.ban(pid);
        }
        proxy.cut().await
    }

    /// Ends a [`cut`](Self::cut).
    pub async fn mend(&self, i: usize) -> Result<()> {
        let (member, proxy, board) = self.cuttable(i)?;
        if let Some(pid) = member.process.lock().await.pid() {
            board.allow(pid);
        }
        proxy.mend().await
    }

    fn cuttable(&self, i: usize) -> Result<(&Member, &Proxy, &Switchboard)> {
        let member = self.member(i)?;
        match (&member.proxy, &self.board) {
            (Some(proxy), Some(board)) => Ok((member, proxy, board)),
            _ => anyhow::bail!("the lab was not built with cuttable(true)"),
        }
    }

    fn member(&self, i: usize) -> Result<&Member> {
        self.members.get(i).with_context(|| format!("{} has no member {i}", self.name()))
    }
}

impl Member {
    async fn start(binary: PathBuf, dir: PathBuf, args: Vec<String>, board: Option<&Switchboard>) -> Result<Self> {
        let process = Mongod::start(binary, dir, args).await?;
        let proxy = match board {
            Some(board) => Some(Proxy::start(process.address(), board).await?),
            None => None,
        };
        let advertised = match &proxy {
            Some(proxy) => format!("127.0.0.1:{}", proxy.port()),
            None => process.address(),
        };
        Ok(Self { process: Mutex::new(process), proxy, advertised })
    }
}

fn arguments(plan: &Plan, dir: &Folder) -> Result<Vec<String>> {
    let mut args: Vec<String> = ["--replSet", &plan.name].map(str::to_owned).into();
    match plan.role {
        Role::Config => args.push("--configsvr".to_owned()),
        Role::Shard => args.push("--shardsvr".to_owned()),
        Role::Plain => {}
    }
    let mut add = |pair: [&str; 2]| args.extend(pair.map(str::to_owned));
    add(["--wiredTigerCacheSizeGB", "0.25"]);
    add(["--oplogSize", &plan.oplog.to_string()]);
    // Its files and samples are of no use here, and cost time at start.
    add(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
    if plan.test_commands {
        add(["--setParameter", "enableTestCommands=1"]);
    }
    if plan.oplog < SMALL_OPLOG {
        // Nothing is overwritten that is not yet in a snapshot on disk, and there is one a minute.
        add(["--syncdelay", "1"]);
    }
    for parameter in &plan.parameters {
        add(["--setParameter", parameter]);
    }
    if let Some(users) = &plan.users {
        let path = users.write_key_file(dir.path())?;
        add(["--keyFile", &path.to_string_lossy()]);
    }
    Ok(args)
}

async fn initiate(plan: &Plan, members: &[Member]) -> Result<()> {
    let mut settings = doc! {"electionTimeoutMillis": 1000};
    if members.len() > 1 {
        // Heartbeats rarer than the election timeout would make secondaries call elections.
        settings.insert("heartbeatIntervalMillis", 250);
    }
    let mut config = doc! {"_id": &plan.name, "settings": settings};
    if plan.role == Role::Config {
        config.insert("configsvr", true);
    }
    let list: Vec<Bson> =
        members.iter().enumerate().map(|(i, m)| doc! {"_id": i as i32, "host": &m.advertised}.into()).collect();
    config.insert("members", list);
    // Without users yet, the localhost exception lets this through.
    let mut connection = Connection::open(&members[0].advertised, None).await?;
    connection.run("admin", doc! {"replSetInitiate": config}).await.context("cannot initiate it")?;
    Ok(())
}
