//! Which collections there are, with which options and indexes, and how commands change that.
//!
//! What a command's entry leaves in the catalogue was measured on MongoDB 6.0: each rule here has its case in
//! the tests on real clusters.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bson::raw::{CString, RawArrayBuf, RawBson, RawDocument, RawDocumentBuf, cstr};
use bson::spec::BinarySubtype;
use bson::{Binary, rawdoc};

use crate::operation::{Command, Uuid};

mod modify;
#[cfg(test)]
mod tests;

/// The fields of a document by name: in the catalogue their order means nothing, that within a value does.
pub type Fields = BTreeMap<String, RawBson>;

/// The name of the index of `_id`.
const ID_INDEX: &str = "_id_";

#[derive(Debug, Clone, PartialEq)]
pub struct Collection {
    /// `db.collection`.
    pub ns: String,
    /// Without `uuid`.
    pub options: Fields,
    /// The specifications of those that are built, by name.
    pub indexes: BTreeMap<String, Fields>,
}

/// The collections by UUID.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue {
    collections: BTreeMap<Uuid, Collection>,
    names: BTreeMap<String, Uuid>,
}

/// Why a command does not fit the catalogue: a rule is broken, or an entry is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    #[error("no collection has the UUID {0}")]
    NoCollection(Uuid),
    #[error("the collection {ns} with the UUID {collection} is there already")]
    Exists { ns: String, collection: Uuid },
    #[error("{ns} has no index {index:?}")]
    NoIndex { ns: String, index: String },
    #[error("{ns} has an index {index:?} already")]
    IndexExists { ns: String, index: String },
    #[error("the database {db} is dropped and has {ns} still")]
    NotEmpty { db: String, ns: String },
    #[error("it changes {0} of a collection in a way that this program does not know")]
    Modify(String),
    #[error("it is malformed: {0}")]
    Malformed(String),
}

type Result<T> = std::result::Result<T, CatalogueError>;

pub(crate) fn malformed(error: impl ToString) -> CatalogueError {
    CatalogueError::Malformed(error.to_string())
}

/// The fields of a document but for `without`.
fn fields(document: &RawDocument, without: &[&str]) -> Result<Fields> {
    let mut fields = Fields::new();
    for field in document {
        let (name, value) = field.map_err(malformed)?;
        if !without.contains(&name.as_str()) {
            fields.insert(name.as_str().to_owned(), value.into());
        }
    }
    Ok(fields)
}

impl Collection {
    /// One document of `$listCatalog`, of the type `collection`.
    pub fn listed(document: &RawDocument) -> Result<(Uuid, Collection)> {
        let md = document.get_document("md").map_err(malformed)?;
        let ns = md.get_str("ns").map_err(malformed)?.to_owned();
        let options = md.get_document("options").map_err(malformed)?;
        let uuid = options.get("uuid").map_err(malformed)?.ok_or_else(|| malformed("options without uuid"))?;
        let uuid = crate::operation::uuid(uuid).map_err(malformed)?;
        let mut indexes = BTreeMap::new();
        for index in md.get_array("indexes").map_err(malformed)? {
            let index = index.map_err(malformed)?;
            let index = index.as_document().ok_or_else(|| malformed("indexes that are no documents"))?;
            // One that is not is being built: the end of its build is in the stream.
            if index.get_bool("ready").map_err(malformed)? {
                let spec = index.get_document("spec").map_err(malformed)?;
                indexes.insert(spec.get_str("name").map_err(malformed)?.to_owned(), fields(spec, &[])?);
            }
        }
        Ok((uuid, Collection { ns, options: fields(options, &["uuid"])?, indexes }))
    }

    /// What [`listed`](Self::listed) reads again.
    pub fn to_listed(&self, uuid: Uuid) -> RawDocumentBuf {
        let document = |fields: &Fields| {
            let mut document = RawDocumentBuf::new();
            for (name, value) in fields {
                // No name that was read from a document has a zero byte.
                if let Ok(name) = CString::try_from(name.as_str()) {
                    document.append(name, value.clone());
                }
            }
            document
        };
        let mut options = document(&self.options);
        let uuid = Binary { subtype: BinarySubtype::Uuid, bytes: uuid.0.to_vec() };
        options.append(cstr!("uuid"), uuid);
        let mut indexes = RawArrayBuf::new();
        for spec in self.indexes.values() {
            indexes.push(rawdoc! {"spec": document(spec), "ready": true});
        }
        rawdoc! {"md": {"ns": self.ns.as_str(), "options": options, "indexes": indexes}}
    }

    pub fn is_capped(&self) -> bool {
        self.options.get("capped") == Some(&RawBson::Boolean(true))
    }

    /// Whether its documents are in the order in which they were inserted. One that was clustered and then
    /// made capped has them in the order of their `_id`s, as other collections do.
    pub fn is_in_insertion_order(&self) -> bool {
        self.is_capped() && !self.options.contains_key("clusteredIndex")
    }

    /// As an entry creates it.
    fn created(ns: String, command: &RawDocument) -> Result<Collection> {
        let options = fields(command, &["create", "idIndex"])?;
        let mut indexes = BTreeMap::new();
        if let Some(spec) = command.get("idIndex").map_err(malformed)? {
            let spec = spec.as_document().ok_or_else(|| malformed("an idIndex that is no document"))?;
            indexes.insert(ID_INDEX.to_owned(), fields(spec, &[])?);
        } else if !options.contains_key("clusteredIndex")
            && options.get("autoIndexId") != Some(&RawBson::Boolean(false))
        {
            // An operator's applyOps may leave it out.
            let mut spec = fields(&bson::rawdoc! {"v": 2, "key": {"_id": 1}, "name": ID_INDEX}, &[])?;
            if let Some(collation) = options.get("collation") {
                spec.insert("collation".to_owned(), collation.clone());
            }
            indexes.insert(ID_INDEX.to_owned(), spec);
        }
        Ok(Collection { ns, options, indexes })
    }

    fn add_index(&mut self, spec: Fields) -> Result<()> {
        let Some(RawBson::String(name)) = spec.get("name") else {
            return Err(malformed("an index without a name"));
        };
        match self.indexes.entry(name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(spec);
                Ok(())
            }
            Entry::Occupied(entry) => {
                Err(CatalogueError::IndexExists { ns: self.ns.clone(), index: entry.key().clone() })
            }
        }
    }
}

impl Catalogue {
    pub fn get(&self, collection: Uuid) -> Option<&Collection> {
        self.collections.get(&collection)
    }

    pub fn named(&self, ns: &str) -> Option<Uuid> {
        self.names.get(ns).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Uuid, &Collection)> {
        self.collections.iter().map(|(uuid, collection)| (*uuid, collection))
    }

    pub fn add(&mut self, uuid: Uuid, collection: Collection) -> Result<()> {
        let exists = |uuid| CatalogueError::Exists { ns: collection.ns.clone(), collection: uuid };
        if let Some(other) = self.named(&collection.ns) {
            return Err(exists(other));
        }
        if self.collections.contains_key(&uuid) {
            return Err(exists(uuid));
        }
        self.names.insert(collection.ns.clone(), uuid);
        self.collections.insert(uuid, collection);
        Ok(())
    }

    /// What the command leaves.
    pub fn apply(&mut self, command: &Command<'_>) -> Result<()> {
        match *command {
            Command::Create { collection, db, name, options } => {
                self.add(collection, Collection::created(format!("{db}.{name}"), options)?)
            }
            Command::Drop { collection } => self.remove(collection).map(drop),
            Command::Rename { collection, to, drop_target } => {
                if let Some(target) = drop_target {
                    self.remove(target)?;
                }
                let mut renamed = self.remove(collection)?;
                renamed.ns = to.to_owned();
                renamed.options.remove("temp");
                self.add(collection, renamed)
            }
            Command::CreateIndex { collection, spec } => {
                self.collection(collection)?.add_index(fields(spec, &["createIndexes"])?)
            }
            Command::CommitIndexBuild { collection, specs } => {
                let collection = self.collection(collection)?;
                for spec in specs {
                    let spec = spec.map_err(malformed)?;
                    let spec = spec.as_document().ok_or_else(|| malformed("indexes that are no documents"))?;
                    collection.add_index(fields(spec, &[])?)?;
                }
                Ok(())
            }
            Command::DropIndex { collection, name } => {
                let collection = self.collection(collection)?;
                match collection.indexes.remove(name) {
                    Some(_) => Ok(()),
                    None => Err(CatalogueError::NoIndex { ns: collection.ns.clone(), index: name.to_owned() }),
                }
            }
            Command::Modify { collection, change } => modify::apply(self.collection(collection)?, change),
            Command::Empty { collection } => self.collection(collection).map(|_| ()),
            Command::DropDatabase { db } => {
                let prefix = format!("{db}.");
                match self.names.range(prefix.clone()..).next() {
                    Some((ns, _)) if ns.starts_with(&prefix) => {
                        Err(CatalogueError::NotEmpty { db: db.to_owned(), ns: ns.clone() })
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    fn collection(&mut self, uuid: Uuid) -> Result<&mut Collection> {
        self.collections.get_mut(&uuid).ok_or(CatalogueError::NoCollection(uuid))
    }

    fn remove(&mut self, uuid: Uuid) -> Result<Collection> {
        let collection = self.collections.remove(&uuid).ok_or(CatalogueError::NoCollection(uuid))?;
        self.names.remove(&collection.ns);
        Ok(collection)
    }
}
