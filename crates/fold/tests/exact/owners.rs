//! Owners against the filter that a real shard puts on what it reads: every document is written to both shards,
//! and each shows what it owns.

use std::collections::{BTreeMap, BTreeSet};

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, Timestamp, doc};
use futures::TryStreamExt;
use mongodb::options::ReadConcern;
use rand::Rng;
use rand::rngs::StdRng;
use stillpoint_fold::{Key, Ownership, OwnershipError};
use stillpoint_lab::Lab;
use stillpoint_lab::wire::{code, majority};

use crate::generate::{self, cases, seeded};
use crate::keys;
use crate::server::raw;

const DB: &str = "test";
const STALE_CONFIG: i32 = 13388;

struct Cluster {
    lab: Lab,
}

/// What the config servers say of a collection.
struct Rows {
    collection: RawDocumentBuf,
    chunks: Vec<RawDocumentBuf>,
}

impl Rows {
    fn ownership(&self) -> Ownership {
        Ownership::new(&self.collection, self.chunks.iter().map(|chunk| &**chunk)).unwrap()
    }

    fn pattern(&self) -> Document {
        Document::try_from(self.collection.get_document("key").unwrap()).unwrap()
    }

    /// What a shard must be told for it to leave orphans out.
    fn version(&self, shard: &str) -> Document {
        let chunks = self.chunks.iter().filter(|chunk| chunk.get_str("shard").unwrap() == shard);
        let newest = chunks.map(|chunk| chunk.get_timestamp("lastmod").unwrap()).max();
        let (epoch, timestamp) = self.epoch();
        doc! {"t": timestamp, "e": epoch, "v": newest.unwrap_or(Timestamp { time: 0, increment: 0 })}
    }

    fn epoch(&self) -> (Bson, Bson) {
        let row = Document::try_from(&self.collection).unwrap();
        (row["lastmodEpoch"].clone(), row["timestamp"].clone())
    }
}

impl Cluster {
    async fn start() -> Self {
        let lab = Lab::builder().start().await.unwrap();
        lab.create_database(DB, 0).await.unwrap();
        Self { lab }
    }

    async fn config(&self, table: &str, filter: Document) -> Vec<RawDocumentBuf> {
        let table = self.lab.config().client().database("config").collection::<RawDocumentBuf>(table);
        let found = table.find(filter).read_concern(ReadConcern::majority()).await.unwrap();
        found.try_collect().await.unwrap()
    }

    async fn rows(&self, name: &str) -> Rows {
        let collection = self.config("collections", doc! {"_id": format!("{DB}.{name}")}).await.remove(0);
        let uuid: Bson = Document::try_from(&collection).unwrap()["uuid"].clone();
        Rows { collection, chunks: self.config("chunks", doc! {"uuid": uuid}).await }
    }

    /// What `shardCollection` has the database's primary do.
    async fn shard(&self, name: &str, key: Document, more: Document) {
        let database = Document::try_from(&self.config("databases", doc! {"_id": DB}).await[0]).unwrap();
        let mut create = doc! {"_shardsvrCreateCollection": name, "shardKey": key, "writeConcern": majority()};
        create.insert("databaseVersion", database["version"].clone());
        create.extend(more);
        self.lab.topology().shard("rs0").unwrap().run(DB, create).await.unwrap();
    }

    /// Splits the only chunk, and moves every other piece to the second shard.
    async fn split(&self, name: &str, splits: &[Document]) {
        let ns = format!("{DB}.{name}");
        let rows = self.rows(name).await;
        assert_eq!(rows.chunks.len(), 1);
        let pattern = rows.pattern();
        let all = |value: Bson| -> Document { pattern.keys().map(|field| (field.clone(), value.clone())).collect() };
        let (epoch, timestamp) = rows.epoch();
        let split = doc! {
            "splitChunk": &ns, "from": "rs0", "keyPattern": &pattern, "splitKeys": splits.to_vec(),
            "min": all(Bson::MinKey), "max": all(Bson::MaxKey), "epoch": epoch, "timestamp": timestamp,
        };
        self.lab.topology().shard("rs0").unwrap().run("admin", split).await.unwrap();
        for min in splits.iter().step_by(2) {
            let to_second = doc! {
                "_configsvrMoveRange": &ns, "toShard": "rs1", "min": min, "waitForDelete": true,
                "writeConcern": majority(),
            };
            self.lab.config().endpoint().run("admin", to_second).await.unwrap();
        }
    }

    /// Writes to both shards, as only those do that know nothing of owners.
    async fn insert(&self, name: &str, documents: &[RawDocumentBuf]) {
        for shard in self.lab.shards() {
            let collection = shard.client().database(DB).collection::<RawDocumentBuf>(name);
            for batch in documents.chunks(500) {
                collection.insert_many(batch).await.unwrap();
            }
        }
    }

    /// Measured: nobody can write a document with an array in its shard key, not even to a shard itself.
    async fn refuses(&self, name: &str, document: &RawDocumentBuf) {
        for shard in self.lab.shards() {
            let collection = shard.client().database(DB).collection::<RawDocumentBuf>(name);
            let refused = collection.insert_one(document).await.unwrap_err().to_string();
            assert!(refused.contains("No shard key found in document"), "{refused}");
        }
    }

    /// The shards that show a document.
    async fn shown(&self, name: &str) -> BTreeMap<Key, Vec<String>> {
        let rows = self.rows(name).await;
        let mut shown = BTreeMap::<Key, Vec<String>>::new();
        for shard in self.lab.topology().shards.iter() {
            let find = doc! {
                "find": name, "projection": {"_id": 1}, "batchSize": 100_000, "shardVersion": rows.version(&shard.name),
            };
            // It may have to learn the version first.
            let found = match shard.run(DB, find.clone()).await {
                Err(why) if code(&why) == Some(STALE_CONFIG) => shard.run(DB, find).await,
                found => found,
            };
            let found = found.unwrap();
            let cursor = found.get_document("cursor").unwrap();
            assert_eq!(cursor.get_i64("id").unwrap(), 0, "all in one batch");
            for document in cursor.get_array("firstBatch").unwrap() {
                let key = Key::of_document(&raw(document.as_document().unwrap())).unwrap();
                shown.entry(key).or_default().push(shard.name.clone());
            }
        }
        shown
    }

    /// Writes them, and compares.
    async fn judge(&self, name: &str, documents: &[RawDocumentBuf]) {
        self.insert(name, documents).await;
        let (owners, shown) = (self.rows(name).await.ownership(), self.shown(name).await);
        let mut seen = BTreeMap::new();
        for document in documents {
            let found = shown.get(&Key::of_document(document).unwrap()).map_or(&[][..], Vec::as_slice);
            let owner = owners.owner(document).unwrap();
            let owned: Vec<_> = owner.into_iter().map(str::to_owned).collect();
            assert_eq!(owned, found, "{name}: {}", Document::try_from(document).unwrap());
            *seen.entry(owner).or_insert(0) += 1;
        }
        println!("{name}: {seen:?}");
        for shard in ["rs0", "rs1"] {
            assert!(seen.get(&Some(shard)).is_some_and(|count| count * 20 > documents.len()), "{name}: {seen:?}");
        }
    }
}

fn no_array(value: Bson) -> Bson {
    if let Bson::Array(all) = value { doc! {"all": all}.into() } else { value }
}

/// A value that a shard key may have.
fn value(chance: &mut StdRng) -> Bson {
    match chance.random_range(0..3) {
        0 => keys::number(chance),
        _ => no_array(generate::value(chance, 2)),
    }
}

/// Different bounds of a shard key, in no order.
fn bounds(documents: &[RawDocumentBuf], pattern: &Document, count: usize) -> Vec<Document> {
    let of = |document: &RawDocumentBuf, path: &str| {
        let mut at = Bson::Document(Document::try_from(document).unwrap());
        for part in path.split('.') {
            at = at.as_document().and_then(|at| at.get(part)).cloned().unwrap_or(Bson::Null);
        }
        at
    };
    let bound = |document: &RawDocumentBuf| -> Document {
        pattern.keys().map(|path| (path.clone(), of(document, path))).collect()
    };
    documents.iter().map(bound).take(count).collect()
}

/// In the order of what owns them, without those that are the same.
fn sorted(pattern: &Document, bounds: Vec<Document>) -> Vec<Document> {
    let key = |bound: &Document| -> Vec<Key> {
        let key = |path| Key::of_document(&raw(&doc! {"_id": bound[path].clone()})).unwrap();
        pattern.keys().map(|path| key(path.as_str())).collect()
    };
    let sorted: BTreeMap<_, _> = bounds.into_iter().map(|bound| (key(&bound), bound)).collect();
    sorted.into_values().collect()
}

#[tokio::test]
async fn a_shard_shows_what_it_owns() {
    let cluster = Cluster::start().await;
    let mut chance = seeded("owners");
    let count = cases(600) as i32;

    // Two chunks a shard from the beginning.
    cluster.shard("hashed", doc! {"_id": "hashed"}, doc! {}).await;
    let mut ids = BTreeSet::new();
    let mut documents = Vec::new();
    for _ in 0..count {
        let id = value(&mut chance);
        if matches!(id, Bson::RegularExpression(_) | Bson::Undefined) {
            continue;
        }
        let document = raw(&doc! {"_id": id});
        if ids.insert(Key::of_document(&document).unwrap()) {
            documents.push(document);
        }
    }
    cluster.judge("hashed", &documents).await;

    // Ranges of two fields, one of them of a document within.
    let pattern = doc! {"a": 1, "b.c": 1};
    cluster.shard("ranged", pattern.clone(), doc! {}).await;
    let documents: Vec<_> = (0..count)
        .map(|n| {
            let a = if chance.random_ratio(1, 3) { chance.random_range(0..3).into() } else { value(&mut chance) };
            let b = match chance.random_range(0..8) {
                0 => no_array(generate::value(&mut chance, 0)),
                1 => generate::document(&mut chance, 2).into(),
                _ => doc! {"c": value(&mut chance)}.into(),
            };
            let mut document = doc! {"_id": n, "a": a, "b": b};
            match chance.random_range(0..40) {
                0 => drop(document.remove("a")),
                1 => drop(document.remove("b")),
                _ => {}
            }
            raw(&document)
        })
        .collect();
    let (min, max) = (Bson::MinKey, Bson::MaxKey);
    let mut all = bounds(&documents, &pattern, 24);
    // Measured: a chunk is not bounded by these, though documents have them; an array no document has there.
    let bounds_none = |value: &Bson| matches!(value, Bson::RegularExpression(_) | Bson::Undefined | Bson::Array(_));
    all.retain(|bound| !bound.values().any(bounds_none));
    all.extend([doc! {"a": 1, "b.c": &min}, doc! {"a": 2, "b.c": &max}, doc! {"a": &min, "b.c": &max}]);
    cluster.split("ranged", &sorted(&pattern, all)).await;
    let odd = [
        doc! {"a": &min, "b": {"c": &min}},
        doc! {"a": &max},
        doc! {"b": {"c": &max}},
        doc! {},
        doc! {"a.b": 1, "b.c": 7},
    ];
    let odd = odd.into_iter().zip(count..).map(|(mut odd, n)| {
        odd.insert("_id", n);
        raw(&odd)
    });
    let owners = cluster.rows("ranged").await.ownership();
    let (arrays, documents): (Vec<_>, Vec<_>) = documents
        .into_iter()
        .chain(odd)
        .chain([raw(&doc! {"_id": -1, "a": [1], "b": 1}), raw(&doc! {"_id": -2, "a": 1, "b": [{"c": 1}]})])
        .partition(|document| matches!(owners.owner(document), Err(OwnershipError::Array(_))));
    cluster.judge("ranged", &documents).await;
    assert!(arrays.len() >= 2);
    for array in arrays {
        cluster.refuses("ranged", &array).await;
    }

    let pattern = doc! {"region": 1, "uid": "hashed"};
    // The collection's own collation does not count.
    let primary = cluster.lab.shard(0);
    let collation = doc! {"locale": "de", "strength": 2};
    primary.run(DB, doc! {"create": "both", "collation": collation}).await.unwrap();
    let simple = doc! {"locale": "simple"};
    let index = doc! {"key": &pattern, "name": "both", "collation": &simple};
    primary.run(DB, doc! {"createIndexes": "both", "indexes": [index]}).await.unwrap();
    cluster.shard("both", pattern.clone(), doc! {"collation": simple}).await;
    let at = |region: &str, uid: Bson| doc! {"region": region, "uid": uid};
    let splits = vec![
        at("as", 0_i64.into()),
        at("eu", min.clone()),
        at("eu", (-(1_i64 << 61)).into()),
        at("eu", (1_i64 << 61).into()),
        at("eu", max.clone()),
        at("us", min.clone()),
    ];
    cluster.split("both", &sorted(&pattern, splits)).await;
    let documents: Vec<_> = (0..count)
        .map(|n| {
            let region = ["as", "eu", "eu", "us", "", "EU"][chance.random_range(0..6)];
            let mut document = doc! {"_id": n, "region": region, "uid": value(&mut chance)};
            match chance.random_range(0..30) {
                0 => drop(document.remove("region")),
                1 => drop(document.remove("uid")),
                _ => {}
            }
            raw(&document)
        })
        .collect();
    cluster.judge("both", &documents).await;
}

/// Measured: a document of the greatest key that there is can be written only before its collection is sharded, and
/// then no shard shows it.
#[tokio::test]
async fn nobody_owns_the_greatest_key() {
    let cluster = Cluster::start().await;
    let primary = cluster.lab.shard(0);
    let index = doc! {"key": {"a": 1}, "name": "a_1"};
    primary.run(DB, doc! {"createIndexes": "old", "indexes": [index]}).await.unwrap();
    let documents = [doc! {"_id": 1, "a": Bson::MaxKey}, doc! {"_id": 2, "a": Bson::MinKey}, doc! {"_id": 3}];
    primary.run(DB, doc! {"insert": "old", "documents": documents.to_vec()}).await.unwrap();
    cluster.shard("old", doc! {"a": 1}, doc! {}).await;
    let shown = cluster.shown("old").await;
    let owners = cluster.rows("old").await.ownership();
    let owned = documents.each_ref().map(|document| owners.owner(&raw(document)).unwrap().map(str::to_owned));
    assert_eq!(owned, [None, Some("rs0".to_owned()), Some("rs0".to_owned())]);
    for (document, owner) in documents.iter().zip(owned) {
        let found = shown.get(&Key::of_document(&raw(document)).unwrap()).map_or(&[][..], Vec::as_slice);
        assert_eq!(Vec::from_iter(owner), found, "{document}");
    }
    let again = primary.run(DB, doc! {"insert": "old", "documents": [{"_id": 4, "a": Bson::MaxKey}]}).await;
    let refused = again.unwrap_err().to_string();
    assert!(refused.contains("Cannot target single shard"), "{refused}");
}

/// Measured: the chunks of a time-series collection are those of its buckets, under fields that a client never
/// sees.
#[tokio::test]
async fn buckets_of_a_time_series_collection_have_owners() {
    let cluster = Cluster::start().await;
    let kind = doc! {"timeseries": {"timeField": "at", "metaField": "place"}};
    cluster.shard("weather", doc! {"place.city": 1, "at": 1}, kind).await;
    let name = "system.buckets.weather";
    let pattern = cluster.rows(name).await.pattern();
    assert_eq!(pattern, doc! {"meta.city": 1, "control.min.at": 1});
    let at = |seconds: i64| bson::DateTime::from_millis(1_795_521_600_000 + seconds * 1000);
    let bound = |city: &str, seconds| doc! {"meta.city": city, "control.min.at": at(seconds)};
    cluster.split(name, &[bound("bern", 0), bound("oslo", 600), bound("oslo", 1200)]).await;
    let documents: Vec<_> = (0..200)
        .map(|n| {
            let (city, time) = (["aix", "bern", "oslo"][n % 3], at(n as i64 * 10 - 100));
            let control = doc! {"version": 1, "min": {"at": time, "t": 1}, "max": {"at": time, "t": 1}};
            let data = doc! {"at": {"0": time}, "t": {"0": 1}};
            raw(&doc! {"_id": bson::oid::ObjectId::new(), "control": control, "meta": {"city": city}, "data": data})
        })
        .collect();
    cluster.judge(name, &documents).await;
}
