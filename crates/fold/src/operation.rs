//! What one oplog entry does: writes to documents, changes of the catalogue, or nothing.
//!
//! The fields of an entry and the names of the commands are those of MongoDB 5.0 to 8.0
//! (`repl/oplog_entry.idl`). Whatever is not known is an error: it may change data in a way that only a
//! newer program understands.

use bson::raw::{RawArray, RawBsonRef, RawDocument};
use bson::spec::BinarySubtype;

#[cfg(test)]
mod tests;

/// A collection's UUID, which it keeps when it is renamed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

/// How deep `applyOps` may be in `applyOps`: as deep as the server takes it.
const DEPTH: usize = 10;

/// One step of what an entry does.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    /// To one document.
    Write(Write<'a>),
    /// To the catalogue.
    Command(Command<'a>),
}

#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    pub collection: Uuid,
    /// `db.collection`, as it was called then.
    pub ns: &'a str,
    pub id: RawBsonRef<'a>,
    pub change: Change<'a>,
    /// By an operator's `applyOps` command: an update may make its document, an insert may replace one, and
    /// a delete may find none.
    pub upsert: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    Insert(&'a RawDocument),
    /// The `o` of an update: see [`update`](crate::update).
    Update(&'a RawDocument),
    Delete,
}

#[derive(Debug, Clone, Copy)]
pub enum Command<'a> {
    Create {
        collection: Uuid,
        db: &'a str,
        name: &'a str,
        options: &'a RawDocument,
    },
    Drop {
        collection: Uuid,
    },
    Rename {
        collection: Uuid,
        to: &'a str,
        drop_target: Option<Uuid>,
    },
    /// An index that is there at once, its specification among the fields of the command.
    CreateIndex {
        collection: Uuid,
        spec: &'a RawDocument,
    },
    /// An index build's end, which makes these indexes.
    CommitIndexBuild {
        collection: Uuid,
        specs: &'a RawArray,
    },
    DropIndex {
        collection: Uuid,
        name: &'a str,
    },
    Modify {
        collection: Uuid,
        change: &'a RawDocument,
    },
    /// `emptycapped`: all documents are gone.
    Empty {
        collection: Uuid,
    },
    /// After the drops of its collections.
    DropDatabase {
        db: &'a str,
    },
}

/// Why an entry cannot be folded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    #[error("it is malformed: {0}")]
    Malformed(String),
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error("it has the field {0}, which this program does not know")]
    Field(String),
    #[error("it is of oplog version {0}, and this program knows version 2")]
    Version(i64),
    #[error("its op is {0:?}, which this program does not know")]
    Op(String),
    #[error("it is the command {0:?}, which this program does not know")]
    Command(String),
    #[error("it is {0}, whose data is not in the oplog: only a snapshot that is taken after it has it")]
    Elsewhere(&'static str),
    #[error("it has applyOps in applyOps more than {DEPTH} deep")]
    TooDeep,
}

type Result<T, E = OperationError> = std::result::Result<T, E>;

/// The fields of an entry, or of an operation in an `applyOps`, that say what it does.
#[derive(Default)]
struct Fields<'a> {
    op: &'a str,
    ns: &'a str,
    collection: Option<Uuid>,
    object: Option<&'a RawDocument>,
    object2: Option<&'a RawDocument>,
    /// Whether an update may make its document.
    upsert: bool,
    /// Whether it is in an operator's `applyOps`.
    by_operator: bool,
    /// Whether it is in a transaction or of one, or of a batch of writes: not an operator's `applyOps`.
    chained: bool,
}

/// Hands what the entry does to `take`, in order. Steps of a transaction hand over what they do when it is
/// committed; its commit and abort hand over nothing.
pub fn operations<'a, E: From<OperationError>>(
    entry: &'a RawDocument,
    take: &mut dyn FnMut(Operation<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let fields = Fields::of(entry)?;
    fields.hand_over(0, take)
}

impl<'a> Fields<'a> {
    fn of(document: &'a RawDocument) -> Result<Self> {
        let mut fields = Fields::default();
        for field in document {
            let (name, value) = field.map_err(malformed)?;
            match name.as_str() {
                "op" => fields.op = value.as_str().ok_or(OperationError::Missing("op that is a string"))?,
                "ns" => fields.ns = value.as_str().ok_or(OperationError::Missing("ns that is a string"))?,
                "ui" => fields.collection = Some(uuid(value)?),
                "o" => fields.object = value.as_document(),
                "o2" => fields.object2 = value.as_document(),
                "b" => fields.upsert = value.as_bool().ok_or(OperationError::Missing("b that is a boolean"))?,
                "prevOpTime" | "multiOpType" => fields.chained = true,
                "v" => match integer(value) {
                    Some(2) => {}
                    version => return Err(OperationError::Version(version.unwrap_or(-1))),
                },
                // Where and when it was written, by whom, and for whom else: nothing that changes what is done.
                "ts"
                | "t"
                | "h"
                | "wall"
                | "lsid"
                | "txnNumber"
                | "stmtId"
                | "fromMigrate"
                | "preImageOpTime"
                | "postImageOpTime"
                | "needsRetryImage"
                | "destinedRecipient"
                | "checkExistenceForDiffInsert"
                | "versionContext"
                | "_id" => {}
                _ => return Err(OperationError::Field(name.as_str().to_owned())),
            }
        }
        Ok(fields)
    }

    fn hand_over<E: From<OperationError>>(
        &self,
        depth: usize,
        take: &mut dyn FnMut(Operation<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let object = self.object.ok_or(OperationError::Missing("o that is a document"))?;
        let (id, change) = match self.op {
            "n" => return Ok(()),
            "c" => return self.command(object, depth, take),
            "i" => (self.id(object)?, Change::Insert(object)),
            "u" => {
                let key = self.object2.ok_or(OperationError::Missing("o2 that is a document"))?;
                (self.id(key)?, Change::Update(object))
            }
            "d" => (self.id(object)?, Change::Delete),
            op => return Err(OperationError::Op(op.to_owned()).into()),
        };
        let upsert = match change {
            Change::Update(_) => self.upsert,
            // Measured: whatever the command's alwaysUpsert is.
            Change::Insert(_) | Change::Delete => self.by_operator,
        };
        let collection = self.collection()?;
        take(Operation::Write(Write { collection, ns: self.ns, id, change, upsert }))
    }

    fn collection(&self) -> Result<Uuid> {
        self.collection.ok_or(OperationError::Missing("ui, its collection's UUID"))
    }

    fn id(&self, document: &'a RawDocument) -> Result<RawBsonRef<'a>> {
        document.get("_id").map_err(malformed)?.ok_or(OperationError::Missing("_id of its document"))
    }

    fn command<E: From<OperationError>>(
        &self,
        object: &'a RawDocument,
        depth: usize,
        take: &mut dyn FnMut(Operation<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (name, value) = match object.iter().next() {
            Some(first) => first.map_err(malformed)?,
            None => return Err(OperationError::Missing("command in o").into()),
        };
        let name = name.as_str();
        let text = |name: &'static str| object.get_str(name).map_err(|_| OperationError::Missing(name));
        let command = match name {
            "applyOps" => return self.apply_ops(object, depth, take),
            // What they end is known before, see `Outcomes`.
            "commitTransaction" | "abortTransaction" => return Ok(()),
            // An index is in the catalogue once its build is committed.
            "startIndexBuild" | "abortIndexBuild" => return Ok(()),
            // Checks, and a server's own files.
            "dbCheck" | "dropIdent" | "setMultikeyMetadata" => return Ok(()),
            "create" => Command::Create {
                collection: self.collection()?,
                db: self.db()?,
                name: value.as_str().ok_or(OperationError::Missing("o.create that is a string"))?,
                options: object,
            },
            "drop" => Command::Drop { collection: self.collection()? },
            "renameCollection" => Command::Rename {
                collection: self.collection()?,
                to: text("to")?,
                drop_target: match object.get("dropTarget").map_err(malformed)? {
                    None => None,
                    Some(RawBsonRef::Boolean(false)) => None,
                    Some(target) => Some(uuid(target)?),
                },
            },
            "createIndexes" => Command::CreateIndex { collection: self.collection()?, spec: object },
            "commitIndexBuild" => Command::CommitIndexBuild {
                collection: self.collection()?,
                specs: match object.get("indexes").map_err(malformed)? {
                    Some(RawBsonRef::Array(specs)) => specs,
                    _ => return Err(OperationError::Missing("o.indexes that is an array").into()),
                },
            },
            "dropIndexes" | "deleteIndexes" => {
                Command::DropIndex { collection: self.collection()?, name: text("index")? }
            }
            "collMod" => Command::Modify { collection: self.collection()?, change: object },
            "emptycapped" => Command::Empty { collection: self.collection()? },
            "dropDatabase" => Command::DropDatabase { db: self.db()? },
            "importCollection" => return Err(OperationError::Elsewhere("importCollection").into()),
            "modifyCollectionShardingIndexCatalog" => {
                return Err(OperationError::Elsewhere("modifyCollectionShardingIndexCatalog").into());
            }
            _ => return Err(OperationError::Command(name.to_owned()).into()),
        };
        take(Operation::Command(command))
    }

    fn db(&self) -> Result<&'a str> {
        self.ns.strip_suffix(".$cmd").ok_or(OperationError::Missing("ns that is a database's $cmd"))
    }

    fn apply_ops<E: From<OperationError>>(
        &self,
        object: &'a RawDocument,
        depth: usize,
        take: &mut dyn FnMut(Operation<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        if depth >= DEPTH {
            return Err(OperationError::TooDeep.into());
        }
        let operations = object.get_array("applyOps").map_err(|_| OperationError::Missing("o.applyOps, an array"))?;
        // The command's own default.
        let always = object.get("alwaysUpsert").map_err(malformed)?;
        let by_operator = !self.chained;
        let upsert = by_operator && always != Some(RawBsonRef::Boolean(false));
        for operation in operations {
            let operation = operation.map_err(malformed)?;
            let operation = operation.as_document().ok_or(OperationError::Missing("applyOps of documents"))?;
            let mut fields = Fields::of(operation)?;
            fields.upsert |= upsert;
            fields.by_operator = by_operator;
            fields.chained = self.chained;
            fields.hand_over(depth + 1, take)?;
        }
        Ok(())
    }
}

fn malformed(error: bson::error::Error) -> OperationError {
    OperationError::Malformed(error.to_string())
}

fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(value) => Some(value.into()),
        RawBsonRef::Int64(value) => Some(value),
        _ => None,
    }
}

/// A UUID is binary of the subtype 4.
pub(crate) fn uuid(value: RawBsonRef<'_>) -> Result<Uuid> {
    match value.as_binary() {
        Some(binary) if binary.subtype == BinarySubtype::Uuid => {
            binary.bytes.try_into().map(Uuid).map_err(|_| OperationError::Missing("UUID of 16 bytes"))
        }
        _ => Err(OperationError::Missing("UUID, binary of the subtype 4")),
    }
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}
