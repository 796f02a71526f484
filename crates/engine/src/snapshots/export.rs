//! A part's data as files, laid out as `mongodump` does: `DB/COLLECTION.bson`, the documents one after the
//! other, and `DB/COLLECTION.metadata.json`, what there is to say of it. A view, and a time-series collection
//! over its buckets, have a metadata file only.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bson::raw::{RawBson, RawDocument};
use bson::{Bson, Document};
use serde_json::{Value, json};
use stillpoint_fold::catalogue::Fields;
use stillpoint_fold::{Collection, Uuid};
use stillpoint_snapshot::manifest;

use super::SnapshotError;
use super::state::Sink;

const VIEWS: &str = "system.views";
const BUCKETS: &str = "system.buckets.";

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    pub collections: u64,
    pub documents: u64,
    pub bytes: u64,
}

/// Writes a part's collections into a folder of its own.
pub struct Exporter {
    folder: PathBuf,
    open: Option<Open>,
    exported: Exported,
}

struct Open {
    db: String,
    name: String,
    uuid: Uuid,
    collection: Collection,
    /// None for `system.views`.
    file: Option<BufWriter<File>>,
}

impl Exporter {
    pub fn new(folder: PathBuf) -> Exporter {
        Exporter { folder, open: None, exported: Exported::default() }
    }

    pub fn exported(&self) -> Exported {
        self.exported
    }
}

/// A file's name for a collection: `/`, `%` and what a shell or a file system could trip over as %XX.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~$&+:=@".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn failed(path: &Path, why: io::Error) -> SnapshotError {
    SnapshotError::Output { path: path.display().to_string(), why }
}

/// Extended JSON, canonical: no type is lost.
fn json_of(value: &RawBson) -> Value {
    Bson::try_from(value.clone()).map_or(Value::Null, Bson::into_canonical_extjson)
}

fn fields(fields: &Fields) -> Value {
    Value::Object(fields.iter().map(|(name, value)| (name.clone(), json_of(value))).collect())
}

fn write_metadata(folder: &Path, db: &str, name: &str, metadata: &Value) -> Result<(), SnapshotError> {
    let path = folder.join(escaped(db)).join(format!("{}.metadata.json", escaped(name)));
    let write = || -> io::Result<()> {
        let mut file = File::create(&path)?;
        file.write_all(metadata.to_string().as_bytes())?;
        file.sync_all()
    };
    write().map_err(|why| failed(&path, why))
}

impl Sink for Exporter {
    fn begin(
        &mut self,
        uuid: Uuid,
        collection: &Collection,
        _: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        let (db, name) = collection.ns.split_once('.').unwrap_or((&collection.ns, ""));
        let folder = self.folder.join(escaped(db));
        fs::create_dir_all(&folder).map_err(|why| failed(&folder, why))?;
        let path = folder.join(format!("{}.bson", escaped(name)));
        let file = match name {
            VIEWS => None,
            _ => Some(BufWriter::new(File::create_new(&path).map_err(|why| failed(&path, why))?)),
        };
        let (db, name) = (db.to_owned(), name.to_owned());
        self.open = Some(Open { db, name, uuid, collection: collection.clone(), file });
        Ok(())
    }

    fn document(&mut self, _: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let Some(file) = &mut open.file else { return view(&self.folder, &open.db, document) };
        self.exported.documents += 1;
        self.exported.bytes += document.as_bytes().len() as u64;
        file.write_all(document.as_bytes()).map_err(|why| failed(&self.folder, why))
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        let Some(Open { db, name, uuid, collection, file }) = self.open.take() else { return Ok(()) };
        let Some(file) = file else { return Ok(()) };
        let file = file.into_inner().map_err(|why| failed(&self.folder, why.into_error()))?;
        file.sync_all().map_err(|why| failed(&self.folder, why))?;
        self.exported.collections += 1;
        let indexes: Vec<_> = collection.indexes.values().map(fields).collect();
        let uuid = bson::Uuid::from_bytes(uuid.0).to_string().replace('-', "");
        // What is kept of a time-series collection is its buckets; its own name tells what it is.
        let (shown, kind) = match name.strip_prefix(BUCKETS) {
            Some(name) => (name, "timeseries"),
            None => (&name[..], "collection"),
        };
        let metadata = json!({
            "options": fields(&collection.options),
            "indexes": indexes,
            "uuid": uuid,
            "collectionName": shown,
            "type": kind,
        });
        write_metadata(&self.folder, &db, shown, &metadata)
    }
}

/// A view's metadata, from its document in `system.views`. A time-series collection's come with its buckets.
fn view(folder: &Path, db: &str, document: &RawDocument) -> Result<(), SnapshotError> {
    let wrong = |why: String| SnapshotError::Document { ns: format!("{db}.{VIEWS}"), why };
    let mut options = Document::try_from(document).map_err(|e| wrong(e.to_string()))?;
    let ns = options.remove("_id").and_then(|id| id.as_str().map(str::to_owned));
    let ns = ns.ok_or_else(|| wrong("a view without a name".into()))?;
    let name = ns.strip_prefix(&format!("{db}.")).ok_or_else(|| wrong(format!("a view {ns}")))?;
    if options.get_str("viewOn").is_ok_and(|on| on.strip_prefix(BUCKETS) == Some(name)) {
        return Ok(());
    }
    let metadata = json!({
        "options": Bson::Document(options).into_canonical_extjson(),
        "indexes": [],
        "uuid": "",
        "collectionName": name,
        "type": "view",
    });
    write_metadata(folder, db, name, &metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_is_one_step_and_tells_the_collections_name() {
        assert_eq!(escaped("orders"), "orders");
        assert_eq!(escaped("system.buckets.weather"), "system.buckets.weather");
        assert_eq!(escaped("a/b%c d"), "a%2Fb%25c%20d");
        assert_eq!(escaped("ü"), "%C3%BC");
    }
}
