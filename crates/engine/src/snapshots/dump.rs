//! A part's data as one stream, an archive as `mongodump --archive` writes it and `mongorestore --archive` takes
//! it. The format is in `docs/formats/archive.md`.
//!
//! An archive begins with what there is to say of every collection, and views are known from documents only. So a
//! part's state is needed twice: once for the [`Contents`], and again for the documents.

use std::collections::BTreeSet;
use std::io::{self, Write};

use bson::raw::{RawDocument, RawDocumentBuf};
use bson::rawdoc;
use crc_fast::{CrcAlgorithm, Digest};
use stillpoint_fold::gather::is_derived;
use stillpoint_fold::{Catalogue, Collection, Uuid};
use stillpoint_snapshot::manifest;

use super::SnapshotError;
use super::export::Exported;
use super::metadata::{Kind, Metadata, VIEWS, split};
use super::state::{Sink, State};

#[cfg(test)]
mod tests;

/// The first bytes, as a little-endian number.
const MAGIC: u32 = 0x8199_e26d;
/// After the last document of a block: no document has this length.
const END: [u8; 4] = [0xff; 4];
/// Of the format.
const VERSION: &str = "0.1";
const TOOL: &str = concat!("stillpoint ", env!("CARGO_PKG_VERSION"));

/// What each member says of its data's version.
const COMPATIBILITY: (&str, &str) = ("admin.system.version", "featureCompatibilityVersion");

/// What an archive says before the first document.
#[derive(Debug, Clone, PartialEq)]
pub struct Contents {
    /// Of every collection that is wanted, in the order of their names.
    all: Vec<Metadata>,
    /// The server's, as `6.0.0`.
    server: String,
}

impl Contents {
    /// Of the collections that are `wanted`. Of the documents only views and the version are read.
    ///
    /// # Errors
    /// Those of the [state](State::into); a view that is not understood; data without a
    /// `featureCompatibilityVersion`.
    pub fn of(state: State, wanted: &dyn Fn(&Collection) -> bool) -> Result<Contents, SnapshotError> {
        let mut survey = Survey { all: listed(state.catalogue(), wanted), version: None, at: At::Elsewhere };
        state.into(&mut survey, &|_, one| one.ns == COMPATIBILITY.0 || split(&one.ns).1 == VIEWS && wanted(one))?;
        let Survey { mut all, version, .. } = survey;
        all.sort_by(|one, other| (&one.db, &one.name).cmp(&(&other.db, &other.name)));
        let version = version.ok_or_else(|| SnapshotError::Document {
            ns: COMPATIBILITY.0.to_owned(),
            why: "no document says the featureCompatibilityVersion".to_owned(),
        })?;
        // A version has three numbers to those who read archives.
        Ok(Contents { all, server: format!("{version}.0") })
    }
}

fn listed(catalogue: &Catalogue, wanted: &dyn Fn(&Collection) -> bool) -> Vec<Metadata> {
    let all = catalogue.iter().filter(|(_, one)| !is_derived(&one.ns) && wanted(one));
    all.filter_map(|(uuid, one)| Metadata::of(uuid, one)).collect()
}

/// Looks for what only documents say.
struct Survey {
    all: Vec<Metadata>,
    version: Option<String>,
    at: At,
}

enum At {
    Elsewhere,
    Version,
    /// In a database's views.
    Views(String),
}

impl Sink for Survey {
    fn begin(
        &mut self,
        _: Uuid,
        collection: &Collection,
        _: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        self.at = match split(&collection.ns) {
            (db, VIEWS) => At::Views(db.to_owned()),
            _ if collection.ns == COMPATIBILITY.0 => At::Version,
            _ => At::Elsewhere,
        };
        Ok(())
    }

    fn document(&mut self, _: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        match &self.at {
            At::Elsewhere => {}
            At::Version if document.get_str("_id").is_ok_and(|id| id == COMPATIBILITY.1) => {
                self.version = document.get_str("version").ok().map(str::to_owned);
            }
            At::Version => {}
            At::Views(db) => self.all.extend(Metadata::of_view(db, document)?),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        Ok(())
    }
}

/// Writes a part's collections, one after the other, to `out`. For the same time and the same collections as its
/// contents are of.
pub struct Dump<W> {
    out: W,
    /// How `out` is called, for an error.
    name: String,
    /// Databases and names of views, which have no documents.
    views: Vec<(String, String)>,
    /// The same of what is announced and has not come yet.
    due: BTreeSet<(String, String)>,
    open: Option<Open>,
    exported: Exported,
}

struct Open {
    db: String,
    collection: String,
    checksum: Digest,
}

impl<W: Write> Dump<W> {
    /// Writes the beginning.
    pub fn begin(out: W, name: String, contents: &Contents) -> Result<Dump<W>, SnapshotError> {
        let (mut views, mut due) = (Vec::new(), BTreeSet::new());
        for one in &contents.all {
            let name = (one.db.clone(), one.data_name());
            match one.kind {
                Kind::View => views.push(name),
                Kind::Collection | Kind::TimeSeries => drop(due.insert(name)),
            }
        }
        let mut dump = Dump { out, name, views, due, open: None, exported: Exported::default() };
        dump.write(&MAGIC.to_le_bytes())?;
        dump.write(
            rawdoc! {
                "concurrent_collections": 1,
                "version": VERSION,
                "server_version": contents.server.as_str(),
                "tool_version": TOOL,
            }
            .as_bytes(),
        )?;
        for Metadata { db, name, kind, document } in &contents.all {
            let announced = rawdoc! {
                "db": db.as_str(),
                "collection": name.as_str(),
                "metadata": document.to_string(),
                // Not known before the documents; mongodump writes none, either.
                "size": 0,
                "type": kind.as_str(),
            };
            dump.write(announced.as_bytes())?;
        }
        dump.write(&END)?;
        Ok(dump)
    }

    /// Writes the end; of everything, or it is no archive.
    pub fn finish(mut self) -> Result<(W, Exported), SnapshotError> {
        for (db, view) in std::mem::take(&mut self.views) {
            self.open(db, view)?;
            self.close()?;
        }
        if let Some((db, collection)) = self.due.first() {
            return Err(SnapshotError::Definition {
                ns: format!("{db}.{collection}"),
                why: "it is among the contents, and not in the data".to_owned(),
            });
        }
        self.out.flush().map_err(|why| self.failed(why))?;
        Ok((self.out, self.exported))
    }

    fn failed(&self, why: io::Error) -> SnapshotError {
        SnapshotError::Output { path: self.name.clone(), why }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.out.write_all(bytes).map_err(|why| self.failed(why))
    }

    fn open(&mut self, db: String, collection: String) -> Result<(), SnapshotError> {
        self.write(header(&db, &collection, None).as_bytes())?;
        self.open = Some(Open { db, collection, checksum: Digest::new(CrcAlgorithm::Crc64Xz) });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SnapshotError> {
        let Some(Open { db, collection, checksum }) = self.open.take() else { return Ok(()) };
        self.write(&END)?;
        self.write(header(&db, &collection, Some(checksum.finalize())).as_bytes())?;
        self.write(&END)
    }
}

/// Of documents that follow, or with their checksum, of the end of a collection.
fn header(db: &str, collection: &str, checksum: Option<u64>) -> RawDocumentBuf {
    rawdoc! {
        "db": db,
        "collection": collection,
        "EOF": checksum.is_some(),
        "CRC": checksum.unwrap_or_default().cast_signed(),
    }
}

impl<W: Write> Sink for Dump<W> {
    fn begin(
        &mut self,
        _: Uuid,
        collection: &Collection,
        _: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        let (db, name) = split(&collection.ns);
        if name == VIEWS {
            return Ok(());
        }
        let (db, name) = (db.to_owned(), name.to_owned());
        if !self.due.remove(&(db.clone(), name.clone())) {
            return Err(SnapshotError::Definition {
                ns: collection.ns.clone(),
                why: "it is in the data, and not among the contents".to_owned(),
            });
        }
        self.exported.collections += 1;
        self.open(db, name)
    }

    fn document(&mut self, _: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        // Views are told already.
        let Some(open) = &mut self.open else { return Ok(()) };
        open.checksum.update(document.as_bytes());
        self.exported.documents += 1;
        self.exported.bytes += document.as_bytes().len() as u64;
        self.write(document.as_bytes())
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        self.close()
    }
}
