//! A part's data as files, laid out as `mongodump` does: `DB/COLLECTION.bson`, the documents one after the
//! other, and `DB/COLLECTION.metadata.json`, what there is to say of it. A view, and a time-series collection
//! over its buckets, have a metadata file only.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bson::raw::RawDocument;
use stillpoint_fold::{Collection, Uuid};
use stillpoint_snapshot::manifest;

use super::SnapshotError;
use super::metadata::{self, Metadata, VIEWS};
use super::state::Sink;

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
    metadata: Option<Metadata>,
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

fn write_metadata(folder: &Path, metadata: &Metadata) -> Result<(), SnapshotError> {
    let path = folder.join(escaped(&metadata.db)).join(format!("{}.metadata.json", escaped(&metadata.name)));
    let write = || -> io::Result<()> {
        let mut file = File::create(&path)?;
        file.write_all(metadata.document.to_string().as_bytes())?;
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
        let (db, name) = metadata::split(&collection.ns);
        let folder = self.folder.join(escaped(db));
        fs::create_dir_all(&folder).map_err(|why| failed(&folder, why))?;
        let path = folder.join(format!("{}.bson", escaped(name)));
        let file = match name {
            VIEWS => None,
            _ => Some(BufWriter::new(File::create_new(&path).map_err(|why| failed(&path, why))?)),
        };
        self.open = Some(Open { db: db.to_owned(), metadata: Metadata::of(uuid, collection), file });
        Ok(())
    }

    fn document(&mut self, _: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let Some(file) = &mut open.file else {
            let view = Metadata::of_view(&open.db, document)?;
            return view.map_or(Ok(()), |view| write_metadata(&self.folder, &view));
        };
        self.exported.documents += 1;
        self.exported.bytes += document.as_bytes().len() as u64;
        file.write_all(document.as_bytes()).map_err(|why| failed(&self.folder, why))
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        let Some(Open { metadata, file, .. }) = self.open.take() else { return Ok(()) };
        let Some(file) = file else { return Ok(()) };
        let file = file.into_inner().map_err(|why| failed(&self.folder, why.into_error()))?;
        file.sync_all().map_err(|why| failed(&self.folder, why))?;
        self.exported.collections += 1;
        match metadata {
            Some(metadata) => write_metadata(&self.folder, &metadata),
            None => Ok(()),
        }
    }
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
