//! Everything that a client, an operator or the balancer may do to a sharded cluster, by chance.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use bson::{Bson, DateTime, Document, doc};
use mongodb::{Client, Database};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use stillpoint_core::ClusterTime;
use stillpoint_lab::Lab;
use stillpoint_lab::transaction::{Prepared, Transaction};
use tokio::time::timeout;

/// The sharded collection, in a database of its own.
pub const SHARDED: &str = "sharded.acct";

const LIMIT: Duration = Duration::from_secs(60);
/// After which it is taken that a step waits for a transaction that is held.
const WAIT: Duration = Duration::from_secs(1);

/// What was done, and how often.
pub type Done = BTreeMap<&'static str, u32>;

pub struct Workload<'a> {
    lab: &'a Lab,
    rng: StdRng,
    /// The database of this workload's own collections, on every shard.
    db: String,
    /// Half of what it does is of these.
    pub wanted: Vec<&'static str>,
    held: Vec<Prepared>,
    /// Names of indexes, users and the like are used once.
    next: u32,
    pub done: Done,
}

/// What may be done. A name stands more than once if it is to be done more often.
const WRITES: &[&str] = &[
    "insert",
    "insert",
    "insert many",
    "insert many",
    "update",
    "update",
    "update",
    "update",
    "update many",
    "replace",
    "replace with another type of _id",
    "upsert",
    "delete",
    "delete many",
    "find and modify",
    "transaction",
    "long transaction",
    "transaction across shards",
    "transaction that is held",
    "measurements",
    "applyOps",
    "capped insert",
    "sharded insert",
];
const COMMANDS: &[&str] = &[
    "create",
    "create capped",
    "create clustered",
    "create with a collation",
    "create with a validator",
    "create time-series",
    "create a view",
    "change a view",
    "drop a view",
    "drop",
    "rename",
    "rename onto",
    "create index",
    "create index",
    "create index",
    "create indexes",
    "create index of an empty collection",
    "drop index",
    "drop indexes",
    "collMod validator",
    "collMod index",
    "collMod index",
    "collMod images",
    "collMod capped",
    "collMod time-series",
    "collMod expiry",
    "convertToCapped",
    "emptycapped",
    "drop database",
    "create user",
    "create role",
    "store a function",
    "create in a transaction",
    "migrate",
];

/// Of a part's primary, whatever is open or held.
const ELECTIONS: &[&str] = &[
    "step down",
    "step down",
    "step down while a transaction is prepared",
    "step down while a transaction is committed",
    "step down of a coordinator or a participant",
];
/// How often one of these is done, which take longer.
const ELECTED: f64 = 0.04;
/// A transaction is prepared and committed within about as long.
const MOMENT: Duration = Duration::from_millis(15);

/// What workloads are done on: two shards with a sharded collection, of which a chunk may move.
pub async fn lab() -> Lab {
    let lab = Lab::builder()
        .test_commands(true)
        // So that transactions are chains of entries.
        .parameter("maxNumberOfTransactionOperationsInSingleOplogEntry=2")
        .start()
        .await
        .unwrap();
    let (db, _) = SHARDED.split_once('.').unwrap();
    lab.create_database(db, 0).await.unwrap();
    lab.shard_collection(SHARDED, &[25_000.into(), 50_000.into()], &[0, 0, 1]).await.unwrap();
    lab
}

impl<'a> Workload<'a> {
    pub fn new(lab: &'a Lab, seed: u64, wanted: Vec<&'static str>) -> Self {
        Workload {
            lab,
            rng: StdRng::seed_from_u64(seed),
            db: format!("w{seed}"),
            wanted,
            held: Vec::new(),
            next: 0,
            done: Done::new(),
        }
    }

    /// All that can be done.
    pub fn kinds() -> impl Iterator<Item = &'static str> {
        WRITES.iter().chain(COMMANDS).chain(ELECTIONS).copied()
    }

    /// Does something, unless the cluster refuses it: a name may be taken, a document may not be there.
    pub async fn step(&mut self) {
        let kinds = if self.rng.random_bool(0.7) { WRITES } else { COMMANDS };
        let kinds = if self.rng.random_bool(ELECTED) { ELECTIONS } else { kinds };
        let mut kind = *kinds.choose(&mut self.rng).unwrap();
        if let Some(wanted) = self.wanted.choose(&mut self.rng)
            && self.rng.random_bool(0.5)
        {
            kind = wanted;
        }
        let mut held = std::mem::take(&mut self.held);
        let ends: Vec<bool> = held.iter().map(|_| self.rng.random_bool(0.75)).collect();
        let outcome = {
            let mut act = std::pin::pin!(self.act(kind, !held.is_empty()));
            match timeout(WAIT, &mut act).await {
                Ok(outcome) => outcome,
                // It may wait for what a transaction that is held has locked.
                Err(_) => {
                    end(std::mem::take(&mut held), &ends).await;
                    timeout(LIMIT, act).await.unwrap_or_else(|_| panic!("{kind} does not end"))
                }
            }
        };
        self.held.extend(held);
        if outcome.is_ok() {
            *self.done.entry(kind).or_default() += 1;
        }
    }

    /// Ends the transactions that are held: some are aborted.
    pub async fn settle(&mut self) {
        let held = std::mem::take(&mut self.held);
        let ends: Vec<bool> = held.iter().map(|_| self.rng.random_bool(0.75)).collect();
        end(held, &ends).await;
    }

    /// The same, some of them as of a time that is later than they would be.
    pub async fn settle_as_of(&mut self, time: ClusterTime) {
        let time = bson::Timestamp { time: time.seconds, increment: time.increment };
        let held = std::mem::take(&mut self.held).into_iter();
        self.held = held.map(|held| if self.rng.random_bool(0.4) { held.as_of(time) } else { held }).collect();
        self.settle().await;
    }

    /// Leaves nothing behind but what is done.
    pub async fn end(self) -> Done {
        for shard in 0..2 {
            self.client(shard).database(&self.db).drop().await.unwrap();
        }
        self.done
    }

    fn shard(&mut self) -> usize {
        self.rng.random_range(0..2)
    }

    fn client(&self, shard: usize) -> Client {
        self.lab.shard(shard).client().clone()
    }

    fn database(&mut self) -> Database {
        let shard = self.shard();
        self.client(shard).database(&self.db)
    }

    fn plain(&mut self) -> String {
        format!("c{}", self.rng.random_range(0..5))
    }

    fn view(&mut self) -> String {
        format!("view{}", self.rng.random_range(0..2))
    }

    fn fresh(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}{}", self.next)
    }

    fn id(&mut self) -> Bson {
        let n = self.rng.random_range(0..30);
        match self.rng.random_range(0..8) {
            0 => Bson::String(format!("id{n}")),
            1 => Bson::Document(doc! {"a": n, "b": [n, "x"]}),
            2 => Bson::Double(f64::from(n) + 0.5),
            _ => Bson::Int32(n),
        }
    }

    fn document(&mut self) -> Document {
        let mut document = doc! {"_id": self.id()};
        for _ in 0..self.rng.random_range(0..6) {
            let name = format!("f{}", self.rng.random_range(0..8));
            let value = self.value(2);
            document.insert(name, value);
        }
        document
    }

    fn value(&mut self, depth: u32) -> Bson {
        match self.rng.random_range(0..if depth == 0 { 5 } else { 7 }) {
            0 => Bson::Int32(self.rng.random_range(-5..5)),
            1 => Bson::String("x".repeat(self.rng.random_range(0..40))),
            2 => Bson::Double(self.rng.random_range(0..100).into()),
            3 => Bson::Null,
            4 => Bson::DateTime(DateTime::from_millis(self.rng.random_range(0..1_000_000))),
            5 => (0..self.rng.random_range(0..5)).map(|_| self.value(depth - 1)).collect::<Vec<_>>().into(),
            _ => {
                let names = 0..self.rng.random_range(0..4);
                Bson::Document(names.map(|at| (format!("n{at}"), self.value(depth - 1))).collect())
            }
        }
    }

    fn update(&mut self) -> Document {
        let field = format!("f{}", self.rng.random_range(0..8));
        let inner = format!("{field}.n{}", self.rng.random_range(0..4));
        let element = format!("{field}.{}", self.rng.random_range(0..4));
        let value = self.value(2);
        match self.rng.random_range(0..12) {
            0 => doc! {"$set": {field: value}},
            1 => doc! {"$unset": {field: 1}},
            2 => doc! {"$set": {inner: value}},
            3 => doc! {"$unset": {inner: 1}},
            4 => doc! {"$set": {element: value}},
            5 => doc! {"$push": {field: {"$each": [value, 1, 2], "$slice": -3}}},
            6 => doc! {"$push": {field: {"$each": [value], "$position": 0}}},
            7 => doc! {"$pop": {field: 1}},
            8 => doc! {"$pull": {field: 1}},
            9 => doc! {"$inc": {"counter": 1}},
            10 => doc! {"$rename": {field: "renamed"}},
            _ => doc! {"$set": {"big": "y".repeat(200), "a.b.c": 1}, "$currentDate": {"at": true}},
        }
    }

    async fn act(&mut self, kind: &str, held: bool) -> Result<()> {
        let db = self.database();
        let name = self.plain();
        let collection = db.collection::<Document>(&name);
        let document = self.document();
        let filter = doc! {"_id": document.get("_id").unwrap()};
        match kind {
            "insert" => drop(collection.insert_one(document).await?),
            "insert many" => {
                let many: Vec<_> = (0..self.rng.random_range(2..20)).map(|_| self.document()).collect();
                drop(collection.insert_many(many).ordered(false).await);
            }
            "update" => {
                let update = self.update();
                anyhow::ensure!(collection.update_one(filter, update).await?.modified_count == 1);
            }
            "update many" => drop(collection.update_many(doc! {}, self.update()).await?),
            "replace" => anyhow::ensure!(collection.replace_one(filter, document).await?.matched_count == 1),
            "replace with another type of _id" => {
                let n = self.rng.random_range(0..30);
                let with = doc! {"_id": f64::from(n), "replaced": true};
                anyhow::ensure!(collection.replace_one(doc! {"_id": n}, with).await?.matched_count == 1);
            }
            "upsert" => drop(collection.update_one(filter, self.update()).upsert(true).await?),
            "delete" => anyhow::ensure!(collection.delete_one(filter).await?.deleted_count == 1),
            "delete many" => {
                collection.delete_many(doc! {"f0": {"$exists": true}}).await?;
            }
            "find and modify" => drop(collection.find_one_and_update(filter, self.update()).await?),
            "transaction" => self.transaction(&db, 2).await?,
            "long transaction" => self.transaction(&db, 9).await?,
            "transaction across shards" => drop(self.across(false).await?.commit().await?),
            "transaction that is held" => {
                anyhow::ensure!(!held);
                let prepared = self.across(true).await?.prepare().await?;
                self.held.push(prepared);
            }
            "create in a transaction" => {
                let name = self.fresh("made");
                let mut session = db.client().start_session().await?;
                session.start_transaction().await?;
                let made = db.collection::<Document>(&name);
                made.insert_one(doc! {"_id": 1}).session(&mut session).await?;
                made.insert_one(doc! {"_id": 2}).session(&mut session).await?;
                made.update_one(doc! {"_id": 1}, doc! {"$set": {"a": 1}}).session(&mut session).await?;
                session.commit_transaction().await?;
            }
            "measurements" => {
                let at = |second: i64| DateTime::from_millis(1_700_000_000_000 + second * 1_000);
                let points: Vec<_> = (0..self.rng.random_range(1..6))
                    .map(|_| doc! {"t": at(self.rng.random_range(0..9_000)), "m": self.rng.random_range(0..3), "v": self.rng.random_range(0..9)})
                    .collect();
                drop(db.collection::<Document>("series").insert_many(points).await?);
            }
            "applyOps" => {
                let ns = format!("{}.{name}", self.db);
                let id = self.id();
                let upsert = doc! {"op": "u", "ns": &ns, "o2": {"_id": id.clone()}, "o": {"$v": 2, "diff": {"u": {"applied": 1}}}};
                let more = doc! {"op": "i", "ns": &ns, "o": {"_id": id, "applied": 2}};
                db.client().database("admin").run_command(doc! {"applyOps": [more, upsert]}).await?;
            }
            "capped insert" => {
                let many: Vec<_> = (0..self.rng.random_range(1..8)).map(|_| doc! {"x": "z".repeat(200)}).collect();
                drop(db.collection::<Document>("capped").insert_many(many).await?);
            }
            "sharded insert" => {
                let n = self.rng.random_range(0..100_000);
                let shard = usize::from(n >= 50_000);
                let (db, name) = SHARDED.split_once('.').unwrap();
                self.client(shard).database(db).collection(name).insert_one(doc! {"_id": n}).await?;
            }
            "step down" => match self.rng.random_range(0..3) {
                2 => self.lab.config().step_down_for_a_moment().await?,
                shard => self.lab.shard(shard).step_down_for_a_moment().await?,
            },
            "step down while a transaction is prepared" => {
                anyhow::ensure!(!held);
                let transaction = self.across(true).await?;
                let (prepared, elected) = tokio::join!(transaction.prepare(), self.step_down_meanwhile());
                self.held.push(prepared?);
                elected?;
            }
            "step down while a transaction is committed" => {
                anyhow::ensure!(!held);
                let prepared = self.across(true).await?.prepare().await?;
                let (committed, elected) = tokio::join!(prepared.commit(), self.step_down_meanwhile());
                committed.and(elected)?;
            }
            "step down of a coordinator or a participant" => {
                anyhow::ensure!(!held);
                let transaction = self.across(false).await?;
                let (committed, elected) = tokio::join!(transaction.commit(), self.step_down_meanwhile());
                committed.and(elected)?;
            }
            _ => self.command(kind, held, db, &name).await?,
        }
        Ok(())
    }

    /// Of a shard's primary, at some moment of what is done meanwhile.
    async fn step_down_meanwhile(&mut self) -> Result<()> {
        let shard = self.shard();
        tokio::time::sleep(self.rng.random_range(Duration::ZERO..MOMENT)).await;
        self.lab.shard(shard).step_down_for_a_moment().await
    }

    async fn transaction(&mut self, db: &Database, steps: u32) -> Result<()> {
        let mut session = db.client().start_session().await?;
        session.start_transaction().await?;
        for _ in 0..steps {
            let collection = db.collection::<Document>(&self.plain());
            let document = self.document();
            let filter = doc! {"_id": document.get("_id").unwrap()};
            match self.rng.random_range(0..3) {
                0 => drop(collection.update_one(filter, self.update()).upsert(true).session(&mut session).await?),
                1 => {
                    collection.delete_one(filter).session(&mut session).await?;
                }
                _ => drop(collection.replace_one(filter, document).upsert(true).session(&mut session).await?),
            }
        }
        if self.rng.random_bool(0.2) {
            session.abort_transaction().await?;
        } else {
            session.commit_transaction().await?;
        }
        Ok(())
    }

    /// One that is held writes documents that nothing else writes one by one.
    async fn across(&mut self, held: bool) -> Result<Transaction> {
        let mut statements = Vec::new();
        for shard in ["rs0", "rs1"] {
            for _ in 0..self.rng.random_range(1..4) {
                let (name, mut document) = (self.plain(), self.document());
                if held {
                    document.insert("_id", format!("held{}", self.rng.random_range(0..4)));
                }
                let id = document.get("_id").unwrap().clone();
                let update = doc! {"q": {"_id": id}, "u": document, "upsert": true};
                statements.push((shard, doc! {"update": name, "updates": [update]}));
            }
        }
        let mut transaction = Transaction::begin(&self.lab.topology());
        for (shard, statement) in statements {
            if let Err(e) = transaction.run(shard, &self.db, statement).await {
                // Its locks would be there for a minute.
                transaction.abort().await?;
                return Err(e);
            }
        }
        Ok(transaction)
    }

    async fn command(&mut self, kind: &str, held: bool, db: Database, name: &str) -> Result<()> {
        // It would wait for the collections that are locked.
        anyhow::ensure!(!held || matches!(kind, "create user" | "create role" | "store a function"));
        let command = match kind {
            "create" => doc! {"create": name},
            "create capped" => doc! {"create": "capped", "capped": true, "size": 5_000, "max": 12},
            "create clustered" => doc! {"create": name, "clusteredIndex": {"key": {"_id": 1}, "unique": true}},
            "create with a collation" => doc! {"create": name, "collation": {"locale": "en", "strength": 2}},
            "create with a validator" => {
                doc! {"create": name, "validator": {"never": {"$exists": false}}, "validationLevel": "moderate"}
            }
            "create time-series" => doc! {"create": "series", "timeseries": {"timeField": "t", "metaField": "m"}},
            "create a view" => doc! {"create": self.view(), "viewOn": name, "pipeline": [{"$match": {"f0": 1}}]},
            "change a view" => doc! {"collMod": self.view(), "viewOn": name, "pipeline": []},
            "drop a view" => doc! {"drop": self.view()},
            "drop" => doc! {"drop": name},
            "rename" | "rename onto" => {
                let to = self.plain();
                let to = format!("{}.{to}", self.db);
                let from = format!("{}.{name}", self.db);
                let command = doc! {"renameCollection": from, "to": to, "dropTarget": kind == "rename onto"};
                db.client().database("admin").run_command(command).await?;
                return Ok(());
            }
            "create index" => {
                doc! {"createIndexes": name, "indexes": [{"key": {format!("f{}", self.rng.random_range(0..8)): 1}, "name": self.fresh("index"), "sparse": true}]}
            }
            "create indexes" => doc! {"createIndexes": name, "indexes": [
                {"key": {"f1": 1, "f2": -1}, "name": self.fresh("more")},
                {"key": {"f3": "text"}, "name": "text", "default_language": "none"},
                {"key": {"$**": 1}, "name": self.fresh("more"), "wildcardProjection": {"f4": 0}},
                {"key": {"counter": "hashed"}, "name": self.fresh("more")},
            ]},
            "create index of an empty collection" => {
                doc! {"createIndexes": self.fresh("empty"), "indexes": [{"key": {"a": 1}, "name": "a", "unique": true, "hidden": true}]}
            }
            "drop index" | "collMod index" => {
                let indexes = db.collection::<Document>(name).list_index_names().await?;
                // MongoDB 6.0.5 dies of a TTL on an index of another kind.
                let fits = |index: &&String| index.starts_with("index") || kind == "drop index" && *index != "_id_";
                let index = indexes.iter().filter(fits).collect::<Vec<_>>();
                let index = index.choose(&mut self.rng).ok_or_else(|| anyhow::anyhow!("none"))?.to_string();
                if kind == "drop index" {
                    doc! {"dropIndexes": name, "index": index}
                } else {
                    let hidden = self.rng.random_bool(0.5);
                    let change = match self.rng.random_range(0..4) {
                        0 => doc! {"name": index, "hidden": hidden},
                        1 => doc! {"name": index, "expireAfterSeconds": 1_000_000_000 + self.rng.random_range(0..9)},
                        2 => doc! {"name": index, "prepareUnique": hidden},
                        _ => doc! {"name": index, "unique": true},
                    };
                    doc! {"collMod": name, "index": change}
                }
            }
            "drop indexes" => doc! {"dropIndexes": name, "index": "*"},
            "collMod validator" => match self.rng.random_range(0..4) {
                0 => doc! {"collMod": name, "validator": {}},
                1 => doc! {"collMod": name, "validationLevel": "off"},
                2 => doc! {"collMod": name, "validationAction": "warn"},
                _ => {
                    doc! {"collMod": name, "validator": {"never": {"$exists": false}}, "recordPreImages": self.rng.random_bool(0.5)}
                }
            },
            "collMod images" => {
                doc! {"collMod": name, "changeStreamPreAndPostImages": {"enabled": self.rng.random_bool(0.7)}}
            }
            "collMod capped" => match self.rng.random_range(0..3) {
                0 => doc! {"collMod": "capped", "cappedSize": self.rng.random_range(1_000..20_000)},
                1 => doc! {"collMod": "capped", "cappedMax": self.rng.random_range(0..20)},
                _ => doc! {"collMod": "capped", "cappedSize": 9_999.0, "cappedMax": 7_i64},
            },
            "collMod time-series" => {
                doc! {"collMod": "series", "timeseries": {"granularity": (*["minutes", "hours"].choose(&mut self.rng).unwrap())}}
            }
            "collMod expiry" => {
                let expiry =
                    if self.rng.random_bool(0.5) { Bson::String("off".into()) } else { Bson::Int64(1_000_000_000) };
                doc! {"collMod": "series", "expireAfterSeconds": expiry}
            }
            "convertToCapped" => doc! {"convertToCapped": name, "size": 100_000},
            "emptycapped" => doc! {"emptycapped": "capped"},
            "drop database" => {
                anyhow::ensure!(self.rng.random_bool(0.2));
                doc! {"dropDatabase": 1}
            }
            "create user" => doc! {"createUser": self.fresh("user"), "pwd": "secret", "roles": ["read"]},
            "create role" => doc! {"createRole": self.fresh("role"), "privileges": [], "roles": ["read"]},
            "store a function" => {
                let function =
                    doc! {"_id": self.fresh("function"), "value": Bson::JavaScriptCode("function() {}".into())};
                db.collection::<Document>("system.js").insert_one(function).await?;
                return Ok(());
            }
            "migrate" => {
                anyhow::ensure!(self.rng.random_bool(0.3));
                let to = if self.rng.random_bool(0.5) { "rs0" } else { "rs1" };
                return self.lab.move_range(SHARDED, 25_000, to).await;
            }
            other => unreachable!("{other}"),
        };
        db.run_command(command).await?;
        Ok(())
    }
}

async fn end(held: Vec<Prepared>, commit: &[bool]) {
    for (held, commit) in held.into_iter().zip(commit) {
        if *commit {
            held.commit().await.unwrap();
        } else {
            held.abort().await.unwrap();
        }
    }
}
