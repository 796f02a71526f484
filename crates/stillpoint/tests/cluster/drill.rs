//! A checkpoint, restored into a throw-away cluster of which nothing is left: when it passes, when it fails, and when
//! the server is stopped or killed in the middle of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bson::doc;
use serde_json::Value;
use stillpoint_lab::wait::until;
use stillpoint_lab::wire::Connection;
use stillpoint_lab::{Lab, mongod};

use crate::captured::server_of;
use crate::restore::{checkpoint, files, much};
use crate::snapshots::{ask, complete, furnish};
use crate::support::{Ran, SOON, Server, lab_of};

const LIMIT: Duration = Duration::from_secs(180);
const OF: [&str; 4] = ["--project", "tests", "--cluster", "Cluster0"];

/// A server with a cluster that it has a snapshot and a checkpoint of, and a place for drills.
struct World {
    server: Server,
    _lab: Lab,
    mongod: PathBuf,
}

impl World {
    async fn new() -> World {
        World::with(lab_of(Lab::builder().auth(true)).await).await
    }

    async fn with(lab: Lab) -> World {
        for shard in lab.shards() {
            furnish(shard).await;
        }
        let (server, _) = server_of(&lab).await;
        complete(&server, ask(&server).await).await;
        checkpoint(&server).await;
        fs::create_dir(server.folder().join("drills")).unwrap();
        World { server, _lab: lab, mongod: mongod::mongod().await.unwrap() }
    }

    fn folder(&self) -> PathBuf {
        self.server.folder().join("drills")
    }

    /// `stillpoint drill` with what the throw-away cluster is started with.
    async fn drill(&self, verb: &[&str], more: &[&str]) -> Ran {
        let folder = self.folder();
        let stage = ["--mongod", self.mongod.to_str().unwrap(), "--folder", folder.to_str().unwrap()];
        self.server.run(&[&["drill"], verb, &OF[..], &stage, more].concat(), &[]).await
    }

    /// Asks for a drill, and does not wait for it.
    async fn ask(&self) -> String {
        let ran = self.drill(&["run"], &["--no-wait", "--json"]).await;
        assert!(ran.status.success(), "{}", ran.err);
        let document: Value = serde_json::from_str(&ran.out).unwrap();
        document["id"].as_str().unwrap().to_owned()
    }

    async fn list(&self) -> Vec<Value> {
        let list = self.server.json(&[&["drill", "list"], &OF[..]].concat()).await;
        list.as_array().unwrap().clone()
    }

    async fn show(&self, id: &str) -> Value {
        self.server.json(&[&["drill", "show"], &OF[..], &[id]].concat()).await
    }

    async fn until(&self, id: &str, states: &[&str]) -> Value {
        let look =
            || async { Some(self.show(id).await).filter(|one| states.iter().any(|state| one["state"] == *state)) };
        match until(LIMIT, look).await {
            Some(drill) => drill,
            None => panic!("{}\n{}", self.show(id).await, self.server.log()),
        }
    }

    /// The folder of the throw-away cluster, once so many of its servers run.
    async fn staged(&self, servers: usize) -> (PathBuf, Vec<u32>) {
        let look = || async {
            let folder = fs::read_dir(self.folder()).unwrap().next()?.unwrap().path();
            let pids = pids(&folder);
            (pids.len() >= servers).then_some((folder, pids))
        };
        until(SOON, look).await.unwrap_or_else(|| panic!("no throw-away cluster\n{}", self.server.log()))
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(self.folder()).unwrap().next().is_none()
    }

    async fn attention(&self) -> String {
        let status = self.server.status().await;
        status["attention"].to_string()
    }
}

/// As they were noted there.
fn pids(folder: &Path) -> Vec<u32> {
    let noted = fs::read_to_string(folder.join("servers")).unwrap_or_default();
    noted.lines().filter_map(|line| line.split_once(' ')?.0.parse().ok()).collect()
}

/// Whether it runs: a zombie does not.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn assert_gone(pids: &[u32]) {
    assert!(!pids.is_empty());
    let gone = || async { (!pids.iter().any(|pid| runs(*pid))).then_some(()) };
    until(SOON, gone).await.unwrap_or_else(|| panic!("some of {pids:?} still run"));
}

/// The port that a server was told to listen on, and that no secret was among what it was told.
fn port(pid: u32, key: &str) -> u16 {
    let command = String::from_utf8(fs::read(format!("/proc/{pid}/cmdline")).unwrap()).unwrap();
    assert!(!command.contains(key), "a process list tells the key");
    let words: Vec<_> = command.split('\0').collect();
    let at = |name: &str| words[words.iter().position(|word| *word == name).unwrap() + 1];
    assert_eq!(at("--bind_ip"), "127.0.0.1");
    at("--port").parse().unwrap()
}

#[tokio::test]
async fn the_newest_checkpoint_is_restored_into_a_cluster_of_which_nothing_is_left() {
    let world = World::new().await;
    let (newest, cut) = checkpoint(&world.server).await;

    // The first that is scheduled comes at once.
    let ran = world.drill(&["schedule"], &["--every", "7d"]).await;
    assert!(ran.status.success() && ran.out.contains("a drill every 7d, the next now"), "{}{}", ran.out, ran.err);
    let (folder, pids) = world.staged(3).await;
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let key = fs::read_to_string(folder.join("key")).unwrap();
    assert_eq!(fs::metadata(folder.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
    for pid in &pids {
        // Nobody comes in without the key, nor by being the first.
        let mut stranger = Connection::open(&format!("127.0.0.1:{}", port(*pid, &key)), None).await.unwrap();
        let user = doc! {"createUser": "stranger", "pwd": "secret", "roles": ["root"]};
        let refused = stranger.run("admin", user).await.unwrap_err();
        assert!(format!("{refused:#}").contains("requires authentication"), "{refused:#}");
    }
    let id = world.list().await[0]["id"].as_str().unwrap().to_owned();
    let drill = world.until(&id, &["PASSED", "FAILED", "INTERRUPTED"]).await;
    assert_eq!(
        (&drill["state"], &drill["scheduled"]),
        (&"PASSED".into(), &true.into()),
        "{drill}\n{}",
        world.server.log()
    );
    assert_eq!((drill["checkpointId"].as_str(), drill["time"].as_str()), (Some(&*newest), Some(&*cut.to_string())));
    let (rto, steps) = (drill["rtoSeconds"].as_f64().unwrap(), &drill["steps"]);
    let step = |name: &str| steps[name].as_f64().unwrap();
    assert!(
        step("preparingSeconds") > 0.0 && step("loadingSeconds") > 0.0 && rto > step("preparingSeconds"),
        "{drill}"
    );
    let loss = |name: &str| drill[name].as_u64().unwrap();
    assert!(loss("rpoSeconds") <= loss("checkpointRpoSeconds") && loss("checkpointRpoSeconds") < 180, "{drill}");
    let restore = drill["restoreId"].as_str().unwrap();
    let restore = world.server.json(&[&["restore-job", "show"], &OF[..], &[restore]].concat()).await;
    assert_eq!((&restore["verdict"], restore["drillId"].as_str()), (&"EQUAL".into(), Some(&*id)), "{restore}");
    assert!(drill["documents"].as_u64().unwrap() >= 3_900, "what was furnished: {drill}");
    assert_gone(&pids).await;
    assert!(world.is_empty());
    for file in files(world.server.folder()) {
        let written = fs::read(&file).unwrap_or_default();
        assert!(!written.windows(key.len()).any(|bytes| bytes == key.as_bytes()), "{file} has the key");
    }

    // The next is not due, and one that is asked for tells how it went.
    let ran = world.drill(&["run"], &[]).await;
    assert!(ran.status.success(), "{}{}", ran.err, ran.out);
    for says in ["PASSED", "RTO", "RPO", "by hand", &newest] {
        assert!(ran.out.contains(says), "{says}: {}", ran.out);
    }
    assert_eq!(world.list().await.len(), 2);
    assert!(world.is_empty());
    let ran = world.server.run(&["status", "--check"], &[]).await;
    assert!(ran.status.success() && ran.out.contains("last drill that passed"), "{}{}", ran.out, ran.err);
}

/// A cluster that is given for drills, and the file that names it.
struct Given {
    lab: Lab,
    file: PathBuf,
}

impl Given {
    /// Its user may do what a restore needs.
    async fn new(world: &World) -> Given {
        let lab = Lab::builder().auth(true).named("new").start().await.unwrap();
        let file = world.server.folder().join("drills.uri");
        fs::write(&file, lab.restore_uri()).unwrap();
        Given { lab, file }
    }

    fn to(&self) -> [&str; 2] {
        ["--to-file", self.file.to_str().unwrap()]
    }

    /// Gives the user the role that a drill has asked for, in its own words, and no other.
    async fn allow(&self, told: &str) {
        let (_, role) = told.split_once("runCommand(").unwrap();
        let (role, _) = role.split_once("]})").unwrap();
        let mut role = format!("{role}]}}");
        for word in ["createRole", "roles", "privileges", "resource", "cluster", "db", "collection", "actions"] {
            role = role.replace(&format!("{word}: "), &format!("\"{word}\": "));
        }
        let create: bson::Document = serde_json::from_str(&role).unwrap_or_else(|e| panic!("{e}: {role}"));
        let role = create.get_str("createRole").unwrap().to_owned();
        for part in self.lab.parts() {
            part.run("admin", create.clone()).await.unwrap();
            part.run("admin", doc! {"updateUser": "restorer", "roles": [&role]}).await.unwrap();
        }
    }

    async fn assert_empty(&self) {
        for part in self.lab.parts() {
            let databases = part.run("admin", doc! {"listDatabases": 1, "nameOnly": true}).await.unwrap();
            let databases = databases.get_array("databases").unwrap().iter();
            let names = databases.map(|one| one.as_document().unwrap().get_str("name").unwrap().to_owned());
            let others: Vec<_> = names.filter(|name| !["admin", "config", "local"].contains(&name.as_str())).collect();
            assert!(others.is_empty(), "{others:?} on {}", part.name());
            let tables = ["databases", "collections", "chunks", "tags", "cache.databases", "cache.collections"];
            for table in tables.into_iter().chain(["stillpoint.restore"]) {
                let own = doc! {"_id": {"$not": {"$regex": "^config"}}, "uuid": {"$nin": self.own().await}};
                let rows = part.client().database("config").collection::<bson::Document>(table);
                assert_eq!(rows.count_documents(own).await.unwrap(), 0, "config.{table} on {}", part.name());
            }
        }
    }

    /// The ids of the collections that the cluster has for itself.
    async fn own(&self) -> Vec<bson::Bson> {
        let collections = self.lab.config().client().database("config").collection::<bson::Document>("collections");
        collections.distinct("uuid", doc! {"_id": {"$regex": "^config"}}).await.unwrap()
    }
}

/// A drill whose server is killed once it has done that.
async fn killed(world: &mut World, run: &[&str], at: &str) -> String {
    world.server.stop().await;
    world.server.serve(Some(at)).await;
    let id = asked(world, run).await;
    world.server.crashed().await;
    id
}

/// A drill that is not waited for.
async fn asked(world: &World, run: &[&str]) -> String {
    let ran = world.server.run(&[run, &["--no-wait", "--json"]].concat(), &[]).await;
    serde_json::from_str::<Value>(&ran.out).unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_cluster_that_is_given_is_filled_and_emptied_by_each() {
    let mut world = World::new().await;
    let given = Given::new(&world).await;

    // What its user may not do is said, with what allows it, before anything is written.
    let run = [&["drill", "run"], &OF[..], &given.to()].concat();
    let ran = world.server.run(&run, &[]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.out);
    assert!(ran.err.contains("may not drop databases") && ran.err.contains("stillpointDrill"), "{}", ran.err);
    given.allow(&ran.err).await;

    // Nothing that was there before goes.
    let theirs = given.lab.shard(0).client().database("theirs").collection::<bson::Document>("kept");
    theirs.insert_one(doc! {"_id": 1}).await.unwrap();
    let ran = world.server.run(&run, &[]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.out);
    assert!(ran.err.contains("theirs.kept") && ran.err.contains("mend it there"), "{}", ran.err);
    let config = given.lab.config().client().database("config");
    let marks = config.collection::<bson::Document>("stillpoint.restore");
    marks.insert_one(doc! {"_id": "restore", "restore": "6b09d60000000000000000ff"}).await.unwrap();
    let ran = world.server.run(&run, &[]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.out);
    assert!(ran.err.contains("a part of another restore"), "{}", ran.err);
    assert_eq!(theirs.count_documents(doc! {}).await.unwrap(), 1);
    marks.drop().await.unwrap();
    given.lab.shard(0).run("theirs", doc! {"dropDatabase": 1}).await.unwrap();

    // The second finds it as the first did.
    for _ in 0..2 {
        let ran = world.server.run(&run, &[]).await;
        assert!(ran.status.success() && ran.out.contains("PASSED"), "{}{}\n{}", ran.out, ran.err, world.server.log());
        given.assert_empty().await;
    }
    let drill = world.list().await[0].clone();
    assert!(drill["documents"].as_u64().unwrap() >= 3_900 && drill["left"].is_null(), "{drill}");

    // Killed once all is there, and while it is written: the next server empties it.
    for at in ["restore-opened", "restore-noted"] {
        let id = killed(&mut world, &run, at).await;
        assert_eq!(marks.count_documents(doc! {}).await.unwrap(), 2, "{at}");
        world.server.serve(None).await;
        let drill = world.until(&id, &["PASSED", "FAILED", "INTERRUPTED"]).await;
        assert_eq!((&drill["state"], &drill["left"]), (&"INTERRUPTED".into(), &Value::Null), "{drill}");
        given.assert_empty().await;
    }

    // What is in there before it was found empty under the mark is nobody's to drop.
    let id = killed(&mut world, &run, "restore-marked").await;
    theirs.insert_one(doc! {"_id": 2}).await.unwrap();
    world.server.serve(None).await;
    world.until(&id, &["INTERRUPTED"]).await;
    assert_eq!(theirs.count_documents(doc! {}).await.unwrap(), 1);
    assert_eq!(marks.count_documents(doc! {}).await.unwrap(), 0);
    given.lab.shard(0).run("theirs", doc! {"dropDatabase": 1}).await.unwrap();

    // Nor what is in a shard that came later.
    let id = killed(&mut world, &run, "restore-opened").await;
    let found = doc! {"_id": "restore.found.empty"};
    marks.update_one(found.clone(), doc! {"$set": {"shards": ["new0"]}}).await.unwrap();
    world.server.serve(None).await;
    let drill = world.until(&id, &["INTERRUPTED"]).await;
    assert!(drill["left"].as_str().unwrap_or_default().contains("the shards new1 by now"), "{drill}");
    assert!(world.attention().await.contains("has left its cluster full"));
    marks.update_one(found, doc! {"$set": {"shards": ["new0", "new1"]}}).await.unwrap();
    let ran = world.server.run(&run, &[]).await;
    assert!(ran.status.success(), "it is emptied first: {}{}", ran.out, ran.err);
    given.assert_empty().await;

    // Without the mark nothing goes, and it is told where to look.
    let id = killed(&mut world, &run, "restore-opened").await;
    marks.drop().await.unwrap();
    world.server.serve(None).await;
    let drill = world.until(&id, &["INTERRUPTED"]).await;
    assert!(drill["left"].as_str().unwrap_or_default().contains("does not have the mark"), "{drill}");
    for shard in given.lab.shards() {
        let there = shard.run("admin", doc! {"listDatabases": 1, "nameOnly": true}).await.unwrap();
        assert!(there.get_array("databases").unwrap().len() > 3);
    }
    // As an operator puts it back.
    let restore = drill["restoreId"].as_str().unwrap();
    marks.insert_one(doc! {"_id": "restore", "restore": restore}).await.unwrap();
    let found = doc! {"_id": "restore.found.empty", "restore": restore, "shards": ["new0", "new1"]};
    marks.insert_one(found).await.unwrap();

    // One that cannot be emptied is told of until the next drill has done it.
    let revoke = doc! {"revokePrivilegesFromRole": "stillpointDrill", "privileges": [
    {"resource": {"db": "", "collection": ""}, "actions": ["dropDatabase"]}]};
    let id = asked(&world, &run).await;
    world.until(&id, &["RESTORING"]).await;
    for shard in given.lab.shards() {
        shard.run("admin", revoke.clone()).await.unwrap();
    }
    let drill = world.until(&id, &["PASSED", "FAILED", "INTERRUPTED"]).await;
    let left = drill["left"].as_str().unwrap_or_default();
    assert!(drill["state"] == "PASSED" && left.contains("could not be emptied"), "{drill}\n{}", world.server.log());
    assert!(world.attention().await.contains("has left its cluster full"));
    for shard in given.lab.shards() {
        let mut grant = revoke.clone();
        grant.remove("revokePrivilegesFromRole");
        let mut command = doc! {"grantPrivilegesToRole": "stillpointDrill"};
        command.extend(grant);
        shard.run("admin", command).await.unwrap();
    }
    let ran = world.server.run(&run, &[]).await;
    assert!(ran.status.success(), "{}{}", ran.out, ran.err);
    given.assert_empty().await;
    assert!(!world.attention().await.contains("drill"));
}

#[tokio::test]
async fn a_drill_that_fails_says_why_and_what_to_do_and_leaves_nothing() {
    let lab = lab_of(Lab::builder()).await;
    much(&lab, 40_000).await;
    let mut world = World::with(lab).await;

    // A server of another version is never started.
    let real = world.mongod.clone();
    world.mongod = world.server.folder().join("mongod");
    fs::write(&world.mongod, "#!/bin/sh\necho db version v4.2.0\n").unwrap();
    fs::set_permissions(&world.mongod, PermissionsExt::from_mode(0o755)).unwrap();
    let ran = world.drill(&["run"], &[]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.out);
    assert!(ran.err.contains("is a mongod 4.2") && ran.err.contains("with --mongod"), "{}", ran.err);
    assert!(world.attention().await.contains("is a mongod 4.2"));

    // A server of the throw-away cluster that ends by itself is noticed at once, and not waited for.
    world.mongod = real;
    let id = world.ask().await;
    world.until(&id, &["RESTORING"]).await;
    let (_, pids) = world.staged(3).await;
    let killed = std::process::Command::new("kill").args(["-9", &pids[0].to_string()]).status().unwrap();
    assert!(killed.success());
    let drill = world.until(&id, &["PASSED", "FAILED", "INTERRUPTED"]).await;
    let failure = drill["failure"].as_str().unwrap_or_default();
    assert!(
        drill["state"] == "FAILED" && failure.contains("ended (signal: 9") && failure.contains("run the drill again"),
        "{drill}"
    );
    assert_gone(&pids).await;
    assert!(world.is_empty());

    // Whoever cancels its restore, for one of their own, ends it, and that is no failure.
    let id = world.ask().await;
    let restore = world.until(&id, &["RESTORING"]).await["restoreId"].as_str().unwrap().to_owned();
    let asked = || async {
        let ran = world.server.run(&[&["restore-job", "cancel"], &OF[..], &[&restore]].concat(), &[]).await;
        ran.status.success().then_some(())
    };
    until(SOON, asked).await.expect("it cannot be cancelled");
    let drill = world.until(&id, &["PASSED", "FAILED", "INTERRUPTED"]).await;
    assert_eq!(drill["state"], "INTERRUPTED", "{drill}");
    assert!(world.is_empty());

    // What the checkpoint needs is not in the vault any more.
    for pack in files(&world.server.folder().join("vault")).into_iter().filter(|name| name.contains("/pack-")) {
        fs::remove_file(pack).unwrap();
    }
    let ran = world.drill(&["run"], &[]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.out);
    assert!(ran.err.contains("/pack-") && ran.err.contains("vault check"), "{}", ran.err);
    assert!(!ran.err.contains("empty it"), "its target is gone: {}", ran.err);
    let drills = world.list().await;
    let states: Vec<_> = drills.iter().map(|drill| drill["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["FAILED", "INTERRUPTED", "FAILED", "FAILED"]);
    assert!(world.is_empty());
    let check = world.server.run(&["status", "--check"], &[]).await;
    assert_eq!(check.status.code(), Some(1));
    assert!(check.err.contains("drill") && check.err.contains("/pack-"), "{}", check.err);
    // Once of the drill, and not of its restore, too; and of the snapshot, which is noted as damaged.
    let of = |what: &str| check.err.lines().filter(|line| line.contains("/pack-") && line.contains(what)).count();
    assert_eq!(check.err.matches("/pack-").count(), 2, "{}", check.err);
    assert_eq!((of("Cluster0: drill "), of("Cluster0: snapshot ")), (1, 1), "{}", check.err);
}

#[tokio::test]
async fn what_a_server_leaves_that_is_stopped_or_killed_in_the_middle_is_removed() {
    let mut world = World::new().await;

    // Stopped: nothing is left when it has ended.
    let stopped = world.ask().await;
    let (_, pids) = world.staged(1).await;
    world.server.stop().await;
    assert_gone(&pids).await;
    assert!(world.is_empty());

    // Killed while the restore is under way: its servers end with it, and the next one removes the rest.
    world.server.serve(Some("drill-asked")).await;
    assert_eq!(world.show(&stopped).await["state"], "INTERRUPTED");
    let killed = world.ask().await;
    world.server.crashed().await;
    let (folder, pids) = world.staged(3).await;
    assert_gone(&pids).await;
    world.server.serve(None).await;
    let drill = world.until(&killed, &["PASSED", "FAILED", "INTERRUPTED"]).await;
    assert_eq!(drill["state"], "INTERRUPTED", "{drill}");
    let swept = || async { (!folder.exists()).then_some(()) };
    until(SOON, swept).await.expect("the folder is still there");
    let restore = drill["restoreId"].as_str().unwrap();
    let show = [&["restore-job", "show"], &OF[..], &[restore]].concat();
    let over = || async { (world.server.json(&show).await["state"] == "KILLED").then_some(()) };
    until(SOON, over).await.expect("its restore goes on");
    assert!(!world.attention().await.contains("drill"), "neither says anything of the checkpoint");

    // Nothing is in the way of the next.
    let passed = world.ask().await;
    let drill = world.until(&passed, &["PASSED", "FAILED", "INTERRUPTED"]).await;
    assert_eq!(drill["state"], "PASSED", "{drill}\n{}", world.server.log());
    assert!(world.is_empty());
}
