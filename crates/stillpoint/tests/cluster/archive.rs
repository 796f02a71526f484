//! `stillpoint export --archive`: read again by a reader that knows no more of the format than its page says, and
//! restored as `mongorestore` does it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use serde_json::Value;
use stillpoint_lab::{Lab, ReplicaSet};

use crate::captured::server_of;
use crate::snapshots::{ask, complete, furnish, of, split};
use crate::support::{Server, lab_of};

/// A database and a name in it.
type Name = (String, String);

/// An archive in memory.
pub struct Archive {
    header: Document,
    /// In their order: database, name, kind, metadata.
    contents: Vec<(String, String, String, Value)>,
    /// In the order in which they end.
    pub collections: Vec<(Name, Vec<Vec<u8>>)>,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(length).expect("the archive ends too early");
        self.0 = rest;
        taken
    }

    /// None is the mark of an end.
    fn document(&mut self) -> Option<&'a [u8]> {
        let length = i32::from_le_bytes(*self.0.first_chunk().expect("the archive ends too early"));
        match length {
            -1 => {
                self.take(4);
                None
            }
            _ => Some(self.take(usize::try_from(length).unwrap())),
        }
    }

    fn parsed(&mut self) -> Option<Document> {
        self.document().map(|bytes| Document::from_reader(bytes).unwrap())
    }
}

/// CRC-64 of ECMA-182, reflected, bit by bit.
fn checksum<'a>(documents: impl Iterator<Item = &'a Vec<u8>>) -> i64 {
    let step = |state: u64| if state & 1 == 1 { state >> 1 ^ 0xc96c_5795_d787_0f42 } else { state >> 1 };
    let byte = |state: u64, byte: &u8| (0..8).fold(state ^ u64::from(*byte), |state, _| step(state));
    !documents.flatten().fold(u64::MAX, byte) as i64
}

impl Archive {
    pub fn read(bytes: &[u8]) -> Archive {
        let mut reader = Reader(bytes);
        assert_eq!(reader.take(4), 0x8199_e26d_u32.to_le_bytes());
        let header = reader.parsed().unwrap();
        let mut contents = Vec::new();
        while let Some(one) = reader.parsed() {
            assert_eq!(one.keys().collect::<Vec<_>>(), ["db", "collection", "metadata", "size", "type"]);
            let text = |field: &str| one.get_str(field).unwrap().to_owned();
            let metadata = serde_json::from_str(&text("metadata")).unwrap();
            contents.push((text("db"), text("collection"), text("type"), metadata));
        }
        let (mut open, mut collections) = (BTreeMap::<_, Vec<Vec<u8>>>::new(), Vec::new());
        while !reader.0.is_empty() {
            let head = reader.parsed().expect("a block without a head");
            assert_eq!(head.keys().collect::<Vec<_>>(), ["db", "collection", "EOF", "CRC"]);
            let name = ["db", "collection"].map(|field| head.get_str(field).unwrap().to_owned());
            let name: Name = name.into();
            let documents = std::iter::from_fn(|| reader.document()).map(<[u8]>::to_vec).collect::<Vec<_>>();
            let crc = head.get_i64("CRC").unwrap();
            if head.get_bool("EOF").unwrap() {
                assert!(documents.is_empty(), "documents after the end of {name:?}");
                let all = open.remove(&name).unwrap_or_else(|| panic!("{name:?} ends and has not begun"));
                assert_eq!(crc, checksum(all.iter()), "{name:?}");
                collections.push((name, all));
            } else {
                assert_eq!(crc, 0);
                open.entry(name).or_default().extend(documents);
            }
        }
        assert!(open.is_empty(), "not whole: {:?}", open.keys());
        Archive { header, contents, collections }
    }

    pub fn documents(&self, db: &str, name: &str) -> &[Vec<u8>] {
        let found = self.collections.iter().find(|((of, collection), _)| of == db && collection == name);
        &found.unwrap_or_else(|| panic!("no collection {db}.{name}")).1
    }
}

/// Extended JSON as a document.
fn bson_of(value: &Value) -> Document {
    let Ok(Bson::Document(document)) = Bson::try_from(value.clone()) else { panic!("{value}") };
    document
}

/// What `mongorestore` does with an archive, but for users and what else it treats as special: makes each collection
/// with its options and the index of `_id`, writes the documents, and builds the other indexes.
async fn restore(archive: &Archive, db: &str, set: &ReplicaSet) {
    let contents = archive.contents.iter().filter(|(of, ..)| of == db);
    for (_, name, kind, metadata) in contents {
        let mut create = doc! {"create": name};
        create.extend(bson_of(&metadata["options"]));
        let indexes: Vec<Document> = metadata["indexes"].as_array().unwrap().iter().map(bson_of).collect();
        let is_of_ids = |index: &&Document| index.get_document("key").unwrap() == &doc! {"_id": 1};
        if let Some(of_ids) = indexes.iter().find(is_of_ids)
            && !create.contains_key("clusteredIndex")
        {
            create.insert("idIndex", of_ids.clone());
        }
        set.run(db, create.clone()).await.unwrap_or_else(|why| panic!("{create}: {why:#}"));
        let data = if kind == "timeseries" { format!("system.buckets.{name}") } else { name.clone() };
        let documents = archive.documents(db, &data).iter();
        let documents: Vec<_> = documents.map(|bytes| RawDocumentBuf::from_bytes(bytes.clone()).unwrap()).collect();
        let collection = set.client().database(db).collection::<RawDocumentBuf>(&data);
        for batch in documents.chunks(500) {
            collection.insert_many(batch).await.unwrap();
        }
        let others: Vec<_> = indexes.iter().filter(|index| !is_of_ids(index)).cloned().collect();
        if !others.is_empty() {
            let build = doc! {"createIndexes": name, "indexes": others};
            set.run(db, build.clone()).await.unwrap_or_else(|why| panic!("{build}: {why:#}"));
        }
    }
}

/// What a server says of a database: options, indexes and documents of each collection.
pub type Described = BTreeMap<String, (Document, Vec<Document>, Vec<Document>)>;

pub async fn described(set: &ReplicaSet, db: &str) -> Described {
    let database = set.client().database(db);
    let listed = database.run_cursor_command(doc! {"listCollections": 1}).await.unwrap();
    let listed: Vec<Document> = listed.try_collect().await.unwrap();
    let mut all = BTreeMap::new();
    for one in listed {
        let name = one.get_str("name").unwrap().to_owned();
        // What they stand for is compared.
        if name == "system.views" || name == "system.profile" || name.starts_with("system.buckets.") {
            continue;
        }
        let mut indexes = Vec::new();
        if one.get_str("type").unwrap() != "view" {
            let cursor = database.run_cursor_command(doc! {"listIndexes": &name}).await.unwrap();
            indexes = cursor.try_collect().await.unwrap();
            indexes.sort_by_key(|index: &Document| index.get_str("name").unwrap().to_owned());
        }
        let found = database.collection::<Document>(&name).find(doc! {}).await.unwrap();
        let mut documents: Vec<Document> = found.try_collect().await.unwrap();
        documents.sort_by_cached_key(Document::to_string);
        all.insert(name, (one.get_document("options").unwrap().clone(), indexes, documents));
    }
    all
}

pub fn assert_alike(before: &Described, after: &Described) {
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, before) in before {
        let after = &after[name];
        assert_eq!((&before.0, &before.1), (&after.0, &after.1), "{name}");
        assert!(before.2 == after.2, "the documents of {name}");
    }
}

/// Whether there is one on PATH.
pub async fn mongorestore(args: &[&str], into: &ReplicaSet) -> bool {
    let mut command = tokio::process::Command::new("mongorestore");
    match command.args(args).args(["--uri", &into.admin_uri()]).kill_on_drop(true).output().await {
        Err(why) if why.kind() == ErrorKind::NotFound => false,
        output => {
            let output = output.unwrap();
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
    }
}

/// Standard output as bytes.
pub async fn bytes_of(server: &Server, args: &[&str]) -> Vec<u8> {
    let mut command = tokio::process::Command::from(server.command(args));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn a_part_is_exported_as_an_archive_that_can_be_restored() {
    let lab = lab_of(Lab::builder()).await;
    let set = lab.shard(0);
    furnish(set).await;
    let keys = [doc! {"place": 1, "at": -1}, doc! {"warm": 1}];
    let indexes = keys.map(|key| doc! {"name": format!("of {}", key.keys().next().unwrap()), "key": key});
    set.run("shop", doc! {"createIndexes": "weather", "indexes": indexes.to_vec()}).await.unwrap();
    let (server, _) = server_of(&lab).await;
    let snapshot = complete(&server, ask(&server).await).await;
    let id: &'static str = snapshot.id.to_string().leak();
    let path = |name: &str| -> &'static str { server.folder().join(name).to_str().unwrap().to_owned().leak() };
    let (folder, file) = (path("out"), path("rs0.archive"));

    let files = server.json(&of("export", &["--snapshot", id, "--part", "rs0", "--out", folder])).await;
    let exported = server.json(&of("export", &["--snapshot", id, "--part", "rs0", "--archive", file])).await;
    assert_eq!((&exported["archive"], &exported["time"]), (&file.into(), &files["time"]));
    assert_eq!(exported["parts"], files["parts"]);
    assert!(!Path::new(&format!("{file}.partial")).exists());
    let bytes = std::fs::read(file).unwrap();
    let archive = Archive::read(&bytes);
    assert_eq!(archive.header.get_str("version").unwrap(), "0.1");
    assert_eq!(archive.header.get_str("server_version").unwrap(), "6.0.0");
    assert_eq!(archive.header.get_i32("concurrent_collections").unwrap(), 1);

    // It says what the files say.
    let mut documents = 0;
    for (db, name, kind, metadata) in &archive.contents {
        let text = std::fs::read_to_string(format!("{folder}/rs0/{db}/{name}.metadata.json")).unwrap();
        assert_eq!(*metadata, serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!((&metadata["collectionName"], &metadata["type"]), (&Value::from(&**name), &Value::from(&**kind)));
        let data = if kind == "timeseries" { format!("system.buckets.{name}") } else { name.clone() };
        let archived = archive.documents(db, &data);
        documents += archived.len();
        if kind == "view" {
            assert!(archived.is_empty());
        } else {
            let file = std::fs::read(format!("{folder}/rs0/{db}/{data}.bson")).unwrap();
            assert!(split(&file).into_iter().eq(archived), "{db}.{name}");
        }
    }
    assert_eq!(exported["parts"][0]["documents"], documents);
    assert_eq!(archive.contents.len(), archive.collections.len());
    let names: Vec<_> = archive.contents.iter().map(|(db, name, ..)| (db, name)).collect();
    assert!(names.is_sorted() && names.len() > 10, "{names:?}");

    // On standard output it is the same, and of a database only what is asked for.
    assert_eq!(bytes_of(&server, &of("export", &["--snapshot", id, "--part", "rs0", "--archive", "-"])).await, bytes);
    let only = of("export", &["--snapshot", id, "--part", "rs0", "--only", "shop", "--archive", "-"]);
    let only = Archive::read(&bytes_of(&server, &only).await);
    let expected: Vec<_> = archive.contents.iter().filter(|(db, ..)| db == "shop").cloned().collect();
    assert_eq!(only.contents, expected);
    assert_eq!(only.documents("shop", "goods"), archive.documents("shop", "goods"));

    // Nothing of that name is no empty archive.
    let none = path("none");
    for to in [["--archive", "-"], ["--archive", none], ["--out", none]] {
        let args = [&["--snapshot", id, "--part", "rs0", "--only", "shop.good"], &to[..]].concat();
        let refused = server.run(&of("export", &args), &[]).await;
        assert!(!refused.status.success() && refused.out.is_empty(), "{}", refused.out);
        assert!(
            refused.err.contains("--only: there was no collection shop.good: there was capped, "),
            "{}",
            refused.err
        );
        assert!(!Path::new(none).exists() && !Path::new(&format!("{none}.partial")).exists(), "{to:?}");
    }

    // Restored, the database is what it was.
    let before = described(set, "shop").await;
    let (_, indexes, documents) = &before["weather"];
    assert!(indexes.len() == 2 && documents.len() == 100 && before["cheap"].2.len() == 10, "{indexes:?}");
    let target = Lab::plain_replica_set().await.unwrap();
    restore(&only, "shop", &target).await;
    assert_alike(&before, &described(&target, "shop").await);

    // So it is when the tool itself restores it, where that is on PATH.
    for from in [format!("--archive={file}"), format!("--dir={folder}/rs0")] {
        let target = Lab::plain_replica_set().await.unwrap();
        if mongorestore(&[&from, "--nsInclude", "shop.*"], &target).await {
            assert_alike(&before, &described(&target, "shop").await);
        }
    }
}

#[tokio::test]
async fn an_archive_is_of_one_part_and_of_a_fresh_file() {
    let lab = lab_of(Lab::builder()).await;
    let (server, _) = server_of(&lab).await;
    let snapshot = complete(&server, ask(&server).await).await;
    let id: &'static str = snapshot.id.to_string().leak();
    let there: &'static str = server.folder().join("there").to_str().unwrap().to_owned().leak();
    std::fs::write(there, "precious").unwrap();
    let unfinished = server.folder().join("unfinished.partial");
    std::fs::write(&unfinished, "begun").unwrap();
    let unfinished: &'static str = server.folder().join("unfinished").to_str().unwrap().to_owned().leak();
    for (args, says) in [
        (&["--archive", "-"][..], "--part"),
        (&["--archive", "-", "--part", "rs0", "--part", "rs1"], "an archive is of one part"),
        (&["--archive", "-", "--part", "rs7"], "has no part \"rs7\""),
        (&["--archive", "-", "--part", "rs0", "--json"], "--json has no place there"),
        (&["--archive", "-", "--part", "rs0", "--out", "x"], "cannot be used with"),
        (&["--part", "rs0"], "--out"),
        (&["--archive", there, "--part", "rs0"], "is there already"),
        (&["--archive", unfinished, "--part", "rs0"], "another export is under way"),
    ] {
        let refused = server.run(&[&of("export", &["--snapshot", id])[..], args].concat(), &[]).await;
        assert!(!refused.status.success() && refused.err.contains(says), "{args:?}: {}", refused.err);
        assert_eq!(refused.out, "", "{args:?}");
    }
    assert_eq!(std::fs::read_to_string(there).unwrap(), "precious");
    assert!(!Path::new(unfinished).exists());
}
