//! The real server as a child process, the command line, the catalog behind both, and a lab for them.
//!
//! Each wait is for a condition and has a limit. Whatever was started here ends with the test, in a
//! panic too.

use std::fs::{self, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::options::ReadConcern;
use serde_json::Value;
use stillpoint_catalog::sqlite::SqliteCatalog;
use stillpoint_catalog::{Catalog, Page};
use stillpoint_core::checkpoint::{Checkpoint, PartId, Reason, State};
use stillpoint_core::stream::Gap;
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime};
use stillpoint_lab::cluster::Builder;
use stillpoint_lab::ports::Port;
use stillpoint_lab::routing::Routing;
use stillpoint_lab::sharding::{BalancerDocuments, HeldMigration};
use stillpoint_lab::wait::until;
use stillpoint_lab::wire::majority;
use stillpoint_lab::{Lab, ReplicaSet, process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub const NS: &str = "bank.accounts";
/// Where the chunk begins that [`hold_migration`] moves.
const MOVED: i32 = 1000;
const PROJECT: &str = "tests";
const CLUSTER: &str = "Cluster0";
/// From launch until the server answers.
const SERVER_START: Duration = Duration::from_secs(30);
/// One command of the command line, a checkpoint it follows included.
const COMMAND: Duration = Duration::from_secs(90);
/// The longest that anything is waited for that should happen at once.
pub const SOON: Duration = Duration::from_secs(30);

/// Short, so that a test which meets one of them ends, and long enough for two busy cores.
pub const LIMITS: &str = "survey = \"10s\"\nbalancer_stop = \"10s\"\nquiet = \"30s\"\ntoken = \"5s\"\n\
                          token_attempts = 3\nput_back = \"5s\"\ndiscover = \"10s\"\nsave = \"10s\"\n";

/// `stillpoint serve` with a folder, a port and a catalog of its own.
pub struct Server {
    folder: TempDir,
    port: Port,
    child: Option<Child>,
    cluster: Option<ClusterId>,
}

/// What a command printed, and how it ended.
pub struct Ran {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Server {
    /// A server that knows the lab, takes checkpoints on demand only, and has [`LIMITS`].
    pub async fn of(lab: &Lab) -> Server {
        Server::with(lab, &format!("interval = \"off\"\n{LIMITS}")).await
    }

    /// The same with this as its configuration of checkpoints.
    pub async fn with(lab: &Lab, checkpoint: &str) -> Server {
        let mut server = Server::installed(checkpoint);
        server.serve(None).await;
        server.add_cluster(lab).await;
        server
    }

    /// A folder with a configuration; nothing runs yet.
    pub fn installed(checkpoint: &str) -> Server {
        let folder = tempfile::Builder::new().prefix("stillpoint-cluster-test-").tempdir().unwrap();
        let port = Port::free().unwrap();
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{}\"\nshutdown = \"20s\"\n\n\
             [catalog]\nurl = \"sqlite:data/stillpoint.db\"\n\n[secrets]\nkey_file = \"data/stillpoint.key\"\n\n\
             [log]\nfilter = \"stillpoint_engine=debug,info\"\n\n[snapshots]\nscheduled = false\nnote_mib = 1\n\n[checkpoint]\n{checkpoint}",
            port.number()
        );
        fs::write(folder.path().join("stillpoint.toml"), text).unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        Server { folder, port, child: None, cluster: None }
    }

    /// Changes a piece of its configuration, for its next start.
    pub fn configure(&self, before: &str, after: &str) {
        let file = self.folder.path().join("stillpoint.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(before), "{text}");
        fs::write(file, text.replace(before, after)).unwrap();
    }

    /// Starts it and waits until it answers; `crash_after` names the action after which it kills itself.
    pub async fn serve(&mut self, crash_after: Option<&str>) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = self.command(&["serve"]);
        if let Some(action) = crash_after {
            command.env("STILLPOINT_CRASH_AFTER", action);
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(process::spawn(command).unwrap());
        let port = self.port.number();
        let answered = until(SERVER_START, || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            async move {
                match ended {
                    Some(status) => Some(Err(status)),
                    None => answers_http(port).await.then_some(Ok(())),
                }
            }
        });
        answered.await.expect("the server does not answer").expect("the server ended by itself");
    }

    /// Forgets what was configured and kept, as a machine does that is lost, and starts anew.
    pub async fn lose_everything(&mut self) {
        assert!(self.child.is_none());
        fs::remove_dir_all(self.folder.path().join("data")).unwrap();
        fs::create_dir(self.folder.path().join("data")).unwrap();
        fs::remove_dir_all(self.folder.path().join("vault")).unwrap();
        self.cluster = None;
    }

    pub async fn add_cluster(&mut self, lab: &Lab) {
        self.json(&["project", "create", PROJECT]).await;
        self.add_to_project(lab).await;
    }

    pub async fn add_to_project(&mut self, lab: &Lab) {
        let uri = self.folder.path().join("uri");
        fs::write(&uri, lab.uri()).unwrap();
        let add = ["cluster", "add", "--project", PROJECT, "--name", CLUSTER, "--uri-file", uri.to_str().unwrap()];
        let added = self.json(&add).await;
        self.cluster = Some(added["id"].as_str().unwrap().parse().unwrap());
    }

    pub fn signal(&self, signal: i32) {
        process::signal(self.child.as_ref().expect("it does not run"), signal).unwrap();
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("it does not run");
        let status = until(limit, || {
            let status = child.try_wait().unwrap();
            async move { status }
        })
        .await;
        if status.is_none() {
            self.child = Some(child);
        }
        status.unwrap_or_else(|| panic!("the server did not end within {limit:?}"))
    }

    /// Waits until it has killed itself, and makes sure that it did.
    pub async fn crashed(&mut self) {
        let status = self.ended(SOON).await;
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it ended with {status}");
    }

    pub async fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.ended(SOON).await;
        assert!(status.success(), "it ended with {status}");
    }

    /// Where its configuration, its catalog and its vault are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("serve.log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stillpoint"));
        let config = self.folder.path().join("stillpoint.toml");
        command.current_dir(self.folder.path()).arg("--config").arg(config).args(args);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STILLPOINT_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = self.command(args);
        command.envs(environment.iter().copied());
        let mut command = tokio::process::Command::from(command);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(COMMAND, output).await.unwrap_or_else(|_| panic!("{args:?} takes too long")).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { status: output.status, out: text(output.stdout), err: text(output.stderr) }
    }

    /// The document that a command prints, which must succeed.
    pub async fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat(), &[]).await;
        assert!(ran.status.success(), "{args:?}: {}{}", ran.err, ran.out);
        serde_json::from_str(&ran.out).unwrap()
    }

    /// The one cluster, as `status` shows it.
    pub async fn status(&self) -> Value {
        self.json(&["status"]).await["clusters"][0].clone()
    }

    pub fn catalog(&self) -> SqliteCatalog {
        let data = self.folder.path().join("data");
        SqliteCatalog::open_with_key_file(&data.join("stillpoint.db"), &data.join("stillpoint.key")).unwrap()
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster.expect("no cluster was added")
    }

    /// Takes a checkpoint through the command line and gives its document and record, however it ended.
    pub async fn take_document(&self) -> (Value, Checkpoint) {
        let take = ["checkpoint", "take", "--project", PROJECT, "--cluster", CLUSTER, "--json"];
        let ran = self.run(&take, &[]).await;
        let document: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err));
        let record = self.record(document["id"].as_str().unwrap().parse().unwrap()).await;
        assert_eq!(ran.status.success(), record.state == State::Completed, "{} {record:?}", ran.err);
        (document, record)
    }

    pub async fn take(&self) -> Checkpoint {
        self.take_document().await.1
    }

    /// Takes a checkpoint that must complete.
    pub async fn complete(&self) -> Checkpoint {
        let record = self.take().await;
        assert_eq!(record.state, State::Completed, "{record:?}");
        record
    }

    /// Asks for a checkpoint and does not wait for it.
    pub async fn ask(&self) -> CheckpointId {
        let ask = ["checkpoint", "take", "--project", PROJECT, "--cluster", CLUSTER, "--no-wait"];
        self.json(&ask).await["id"].as_str().unwrap().parse().unwrap()
    }

    pub async fn record(&self, id: CheckpointId) -> Checkpoint {
        self.catalog().checkpoint(self.cluster(), id).await.unwrap().unwrap()
    }

    pub async fn records(&self) -> Vec<Checkpoint> {
        self.catalog().checkpoints(self.cluster(), Page { skip: 0, take: 10_000 }).await.unwrap()
    }

    pub async fn gaps(&self) -> Vec<Gap> {
        self.catalog().gaps(self.cluster()).await.unwrap()
    }

    /// Waits until the record is as `wanted` says.
    pub async fn until(&self, id: CheckpointId, limit: Duration, wanted: impl Fn(&Checkpoint) -> bool) -> Checkpoint {
        let (catalog, cluster) = (self.catalog(), self.cluster());
        let look = || async {
            let record = catalog.checkpoint(cluster, id).await.unwrap().unwrap();
            wanted(&record).then_some(record)
        };
        match until(limit, look).await {
            Some(record) => record,
            None => panic!("not within {limit:?}: {:?}", self.record(id).await),
        }
    }

    /// Waits until the checkpoint has ended.
    pub async fn end_of(&self, id: CheckpointId, limit: Duration) -> Checkpoint {
        self.until(id, limit, |record| record.state.ended()).await
    }

    /// Asks for a checkpoint and waits until it is held up by the movement that is under way, its
    /// balancer stopped.
    pub async fn held_up(&self, lab: &Lab) -> CheckpointId {
        let answered = || self.log().matches(r#"done action="stop-balancer""#).count();
        let before = answered();
        let id = self.ask().await;
        let moving = |record: &Checkpoint| {
            let trouble = record.trouble.as_ref().is_some_and(|trouble| trouble.text.contains("migration"));
            record.state == State::Holding && trouble
        };
        self.until(id, SOON, moving).await;
        // What moves is looked for while the balancer is being stopped, and its documents say so before
        // the stop is answered: one that an election interrupts there fails the checkpoint.
        let stopped = || async { (answered() > before).then_some(()) };
        until(SOON, stopped).await.expect("held, and the balancer's stop is not answered");
        assert!(is_off(&lab.balancer_documents().await.unwrap()), "held, and the balancer is on");
        id
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only for one that has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the server's log ends with\n{}", process::tail(&self.log_file(), 60));
        }
    }
}

async fn answers_http(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut start = [0; 5];
        stream.read_exact(&mut start).await.ok()?;
        (&start == b"HTTP/").then_some(())
    };
    matches!(timeout(Duration::from_secs(2), ask).await, Ok(Some(())))
}

/// Two shards and a config server of one member each, whose migrations can be held, with [`NS`].
pub async fn lab() -> Lab {
    lab_of(Lab::builder().test_commands(true)).await
}

/// A lab of two shards or more with a collection on both: `rs0` has what is below 0, `rs1` the rest.
pub async fn lab_of(builder: Builder) -> Lab {
    let lab = builder.start().await.unwrap();
    lab.create_database("bank", 0).await.unwrap();
    lab.shard_collection(NS, &[0.into(), MOVED.into()], &[0, 1, 1]).await.unwrap();
    lab
}

/// Holds a migration open, of the chunk from 1000 on, to the shard that does not have it.
pub async fn hold_migration(lab: &Lab) -> HeldMigration {
    let routing = Routing::load(&lab.topology(), NS).await.unwrap();
    let owner = routing.owner(&MOVED.into()).unwrap();
    lab.hold_migration(NS, MOVED, if owner == "rs0" { "rs1" } else { "rs0" }).await.unwrap()
}

/// Has a replica set's primary do this with the commands of a name, until it is told otherwise or has
/// done it as often as `mode` says; see MongoDB's `failCommand`. How often it was done before.
pub async fn fail_command(set: &ReplicaSet, name: &str, mode: impl Into<Bson>, how: Document) -> i64 {
    let mut data = doc! {"failCommands": [name]};
    data.extend(how);
    let command = doc! {"configureFailPoint": "failCommand", "mode": mode.into(), "data": data};
    let reply = set.run("admin", command).await.unwrap();
    reply.get_i64("count").or_else(|_| reply.get_i32("count").map(i64::from)).unwrap_or(0)
}

/// Waits until that was done once more than `before`.
pub async fn command_failed(set: &ReplicaSet, before: i64) {
    let entered = doc! {"waitForFailPoint": "failCommand", "timesEntered": before + 1, "maxTimeMS": 15_000};
    set.run("admin", entered).await.unwrap();
}

/// The balancer's documents field for field and in order, which comparing documents does not see.
#[derive(PartialEq)]
pub struct AsIs(BalancerDocuments);

impl AsIs {
    fn bytes(document: &Option<Document>) -> Option<Vec<u8>> {
        document.as_ref().map(|document| bson::serialize_to_vec(document).unwrap())
    }
}

impl std::fmt::Debug for AsIs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |document: &Option<Document>| document.as_ref().map_or("absent".into(), Document::to_string);
        write!(f, "balancer {}, autosplit {}", text(&self.0.balancer), text(&self.0.autosplit))
    }
}

/// Asserts that the balancer's documents are these, field for field and in order.
#[track_caller]
pub fn assert_same(now: &BalancerDocuments, expected: &BalancerDocuments, when: &str) {
    let same = AsIs::bytes(&now.balancer) == AsIs::bytes(&expected.balancer)
        && AsIs::bytes(&now.autosplit) == AsIs::bytes(&expected.autosplit);
    assert!(same, "{when}: the balancer was to be {:?}, and is {:?}", AsIs(expected.clone()), AsIs(now.clone()));
}

/// The same of the documents as they are now; asked again through elections. If they are not, who changed
/// them is told.
pub async fn assert_balancer(lab: &Lab, expected: &BalancerDocuments, when: &str) {
    let now = until(SOON, || settled(lab)).await.expect("the balancer's documents cannot be read");
    if AsIs::bytes(&now.balancer) != AsIs::bytes(&expected.balancer)
        || AsIs::bytes(&now.autosplit) != AsIs::bytes(&expected.autosplit)
    {
        let of_balancer = doc! {"$or": [
            {"ns": "config.settings"},
            {"ns": "config.actionlog", "o.what": {"$in": ["balancer.stop", "balancer.start"]}},
            {"op": "n", "o.stillpoint": "hold"},
        ]};
        let entries = oplog(lab.config(), of_balancer).await;
        for entry in entries.iter().rev().take(12).rev() {
            eprintln!("{entry}");
        }
    }
    assert_same(&now, expected, when);
}

/// The balancer's documents once a majority has all that the present primary has: a primary that steps
/// down may show what is rolled back, and a majority may not yet show what is there to stay.
async fn settled(lab: &Lab) -> Option<BalancerDocuments> {
    let note = doc! {"appendOplogNote": 1, "data": {"test": "settle"}, "writeConcern": majority()};
    lab.config().run("admin", note).await.ok()?;
    let settings = lab.config().client().database("config").collection::<Document>("settings");
    let find = async |id: &str| settings.find_one(doc! {"_id": id}).read_concern(ReadConcern::majority()).await;
    Some(documents(find("balancer").await.ok()?, find("autosplit").await.ok()?))
}

/// Sets the balancer's documents; tried again through elections.
pub async fn set_balancer(lab: &Lab, documents: &BalancerDocuments) {
    let set = until(SOON, || async { lab.set_balancer_documents(documents).await.ok() }).await;
    set.expect("the balancer's documents cannot be set");
}

/// Whether no chunk is moved: the server's own rule.
pub fn is_off(documents: &BalancerDocuments) -> bool {
    let balancer = documents.balancer.clone().unwrap_or_default();
    balancer.get_bool("stopped").unwrap_or(false) || balancer.get_str("mode").is_ok_and(|mode| mode == "off")
}

pub fn documents(balancer: Option<Document>, autosplit: Option<Document>) -> BalancerDocuments {
    BalancerDocuments { balancer, autosplit }
}

pub fn never_configured() -> BalancerDocuments {
    BalancerDocuments::default()
}

/// On, with what an operator may have added.
pub fn with_window() -> BalancerDocuments {
    let balancer = doc! {
        "_id": "balancer",
        "activeWindow": {"start": "23:00", "stop": "6:00"},
        "_secondaryThrottle": true,
        "stopped": false,
    };
    documents(Some(balancer), None)
}

/// As an operator's stop leaves a balancer that was never touched.
pub fn stopped_by_command() -> BalancerDocuments {
    let balancer = doc! {"_id": "balancer", "mode": "off", "stopped": true};
    documents(Some(balancer), Some(doc! {"_id": "autosplit", "enabled": false}))
}

/// As an operator's start leaves a balancer that was never touched.
pub fn started_by_command() -> BalancerDocuments {
    let balancer = doc! {"_id": "balancer", "mode": "full", "stopped": false};
    documents(Some(balancer), Some(doc! {"_id": "autosplit", "enabled": true}))
}

pub fn timestamp(time: ClusterTime) -> bson::Timestamp {
    bson::Timestamp { time: time.seconds, increment: time.increment }
}

/// The lab's replica set that is this part.
pub fn set_of<'a>(lab: &'a Lab, part: &PartId) -> &'a ReplicaSet {
    match part {
        PartId::ConfigServers => lab.config(),
        PartId::Shard(name) => lab.shards().iter().find(|shard| shard.name() == name).unwrap(),
    }
}

/// What of a replica set's oplog matches, oldest first, majority-committed; asked again through elections.
pub async fn oplog(set: &ReplicaSet, filter: Document) -> Vec<Document> {
    let read = || async {
        let entries = set.client().database("local").collection::<Document>("oplog.rs");
        let find = entries.find(filter.clone()).sort(doc! {"$natural": 1}).read_concern(ReadConcern::majority());
        let mut cursor = find.await.ok()?;
        let mut all = Vec::new();
        while cursor.advance().await.ok()? {
            all.push(cursor.deserialize_current().unwrap());
        }
        Some(all)
    };
    until(SOON, read).await.expect("an oplog cannot be read")
}

/// Asserts that a completed checkpoint's tokens are in the parts' oplogs where it says, and after C.
pub async fn assert_tokens(lab: &Lab, record: &Checkpoint) {
    assert_eq!(record.state, State::Completed);
    let (clock, cut) = (record.clock.unwrap(), record.cut.unwrap());
    let parts: Vec<_> = record.parts.iter().map(|part| part.id.clone()).collect();
    let mut expected: Vec<_> = lab.shards().iter().map(|shard| PartId::Shard(shard.name().into())).collect();
    expected.push(PartId::ConfigServers);
    assert_eq!(parts, expected);
    for part in &record.parts {
        let token = part.token.unwrap();
        let filter = doc! {"op": "n", "o.stillpoint": "token", "o.checkpoint": record.id.to_string()};
        let entries = oplog(set_of(lab, &part.id), filter).await;
        let entry = entries.iter().find(|entry| entry.get_timestamp("ts").unwrap() == timestamp(token.time));
        let entry = entry.unwrap_or_else(|| panic!("no token of {} at {}: {entries:?}", part.id, token.time));
        let note = entry.get_document("o").unwrap();
        assert_eq!(note.get_str("part").unwrap(), part.id.to_string());
        assert!(token.discovered && token.time > clock, "{}: {token:?} with the clock at {clock}", part.id);
    }
    assert_eq!(record.parts.iter().map(|part| part.token.unwrap().time).min(), Some(cut));
}

#[track_caller]
pub fn assert_failed(record: &Checkpoint, reason: Reason) {
    assert_eq!(record.state, State::Failed, "{record:?}");
    assert_eq!(record.failure.as_ref().unwrap().reason, reason, "{record:?}");
}
