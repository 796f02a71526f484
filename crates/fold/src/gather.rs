//! What a stream says about each collection and each document: the second of the two passes.

use std::collections::BTreeMap;

use bson::raw::{RawDocument, RawDocumentBuf, cstr};
use stillpoint_core::stream::OpenTransaction;
use stillpoint_core::{ClusterTime, OpTime};
use stillpoint_oplog::entry::What;
use stillpoint_oplog::{Entry, Kind, Transactions};

use crate::catalogue::Catalogue;
use crate::error::FoldError;
use crate::key;
use crate::operation::{Change, Command, Operation, OperationError, Uuid, Write, operations};
use crate::outcomes::Committed;
use crate::sort::{Budget, Moment, Sorted, Sorter};

mod payload;
#[cfg(test)]
mod tests;

pub(crate) use payload::Payload;
use payload::{DELETE, INSERT, UPDATE, UPSERT};

/// Namespaces that servers write by themselves and for themselves: a part's sessions, index builds under way,
/// keys that it signs with. They are no data of the cluster; their entries, where there are any, tell of a
/// part only.
pub fn is_derived(ns: &str) -> bool {
    ns.starts_with("local.")
        || ns.ends_with(".system.profile")
        || matches!(
            ns,
            "admin.system.keys"
                | "config.system.indexBuilds"
                | "config.transactions"
                | "config.image_collection"
                | "config.system.preimages"
                | "config.system.change_collection"
        )
}

/// Takes the entries of a stream, and sorts what they do after `from` and up to T.
#[derive(Debug)]
pub struct Gather {
    /// The time as of which `catalogue` was read.
    from: ClusterTime,
    committed: Committed,
    table: Transactions,
    catalogue: Catalogue,
    sorter: Sorter,
    /// When a collection last lost all its documents at once.
    emptied: BTreeMap<Uuid, Moment>,
    /// Commands of transactions, until their time has come.
    later: BTreeMap<Moment, Later>,
    /// The last command that was applied.
    applied: Option<Moment>,
    /// Collections that nothing is known of when a transaction writes to them: it must make them.
    unmade: BTreeMap<Uuid, (OpTime, String)>,
}

#[derive(Debug)]
struct Later {
    at: OpTime,
    entry: Vec<u8>,
}

/// What the stream says, and what is there at T but for the documents.
#[derive(Debug)]
pub struct Gathered {
    pub catalogue: Catalogue,
    pub changes: Sorted,
    pub emptied: BTreeMap<Uuid, Moment>,
    /// How much of it is on disk.
    pub spilled: u64,
}

impl Gather {
    /// `catalogue` is as of `from`; `open` and `complete_from` as in [`Transactions::new`], for the place where
    /// the entries begin: at the first entry of the oldest transaction that is open at `from`, or before it.
    pub fn new(
        catalogue: Catalogue,
        from: ClusterTime,
        mut committed: Committed,
        mut open: Vec<OpenTransaction>,
        complete_from: ClusterTime,
        budget: Budget,
    ) -> Result<Gather, FoldError> {
        open.sort_by_key(|open| open.first);
        for OpenTransaction { first, .. } in &open {
            committed.begins(*first)?;
            // Its first entry is not among those that will be seen.
            if committed.at(*first).is_some_and(|commit| commit > from) {
                return Err(FoldError::Headless { at: *first });
            }
        }
        Ok(Gather {
            from,
            committed,
            table: Transactions::new(open, complete_from)?,
            catalogue,
            sorter: Sorter::new(budget),
            emptied: BTreeMap::new(),
            later: BTreeMap::new(),
            applied: None,
            unmade: BTreeMap::new(),
        })
    }

    pub fn see(&mut self, entry: &Entry<'_>) -> Result<(), FoldError> {
        let Some(commit) = self.commit(entry)? else { return Ok(()) };
        if commit <= self.from || commit > self.committed.until() {
            return Ok(());
        }
        let document = document(entry.at, entry.bytes)?;
        let mut moment = Moment { commit, entry: entry.at.time, index: 0 };
        let mut deferred = false;
        operations(document, &mut |operation| {
            match operation {
                Operation::Write(write) => self.write(entry.at, moment, &write)?,
                // The entries that come before its transaction's commit come first.
                Operation::Command(_) if commit > entry.at.time => deferred = true,
                Operation::Command(command) => self.command(entry.at, moment, &command)?,
            }
            moment.index += 1;
            Ok(())
        })
        .map_err(|stop: Stop| stop.at(entry.at))?;
        if deferred {
            let later = Later { at: entry.at, entry: entry.bytes.to_vec() };
            self.later.insert(Moment { index: 0, ..moment }, later);
        }
        Ok(())
    }

    /// As of when the entry counts; none if it does not, or is the end of what was counted before.
    fn commit(&mut self, entry: &Entry<'_>) -> Result<Option<ClusterTime>, FoldError> {
        let resolution = self.table.see(entry)?;
        let Kind::Step(step) = entry.kind else { return Ok(Some(entry.at.time)) };
        let first = match step.what {
            What::Commit(_) | What::Abort => {
                let from = self.from;
                if let Some(end) = &resolution {
                    self.committed.ends(end.first);
                }
                return match resolution.map(|end| end.outcome) {
                    // It is not among the open ones, and its operations were not read.
                    None if matches!(step.what, What::Commit(commit) if commit > from) => {
                        Err(FoldError::Headless { at: entry.at })
                    }
                    _ => Ok(None),
                };
            }
            What::Whole => match resolution {
                Some(end) if end.first == entry.at => return Ok(Some(entry.at.time)),
                Some(end) => Some(end.first),
                None => None,
            },
            What::Part | What::Prepare => self.table.first(entry),
        };
        match first {
            Some(first) => {
                if first == entry.at {
                    self.committed.begins(first)?;
                }
                let commit = self.committed.at(first);
                if step.what == What::Whole {
                    self.committed.ends(first);
                }
                Ok(commit)
            }
            None if entry.at.time <= self.from => Ok(None),
            None => Err(FoldError::Headless { at: entry.at }),
        }
    }

    fn write(&mut self, at: OpTime, moment: Moment, write: &Write<'_>) -> Result<(), Stop> {
        if is_derived(write.ns) {
            return Ok(());
        }
        // What is between it and its transaction's commit has not been seen yet.
        self.until(Moment { commit: moment.entry, ..moment })?;
        if self.catalogue.get(write.collection).is_none() {
            let (ns, collection) = (write.ns.to_owned(), write.collection);
            if moment.commit == moment.entry {
                return Err(Stop::Fold(FoldError::UnknownCollection { at, ns, collection }));
            }
            self.unmade.entry(collection).or_insert((at, ns));
        }
        let key = key::Key::of(write.id).map_err(|error| Stop::Fold(FoldError::Key { at, error }))?;
        let mut made = RawDocumentBuf::new();
        let (tag, document): (u8, &[u8]) = match write.change {
            Change::Insert(document) => (INSERT, document.as_bytes()),
            Change::Update(update) => {
                if write.upsert {
                    made.append(cstr!("_id"), write.id);
                }
                (UPDATE, update.as_bytes())
            }
            Change::Delete => (DELETE, &[]),
        };
        let tag = if write.upsert { tag | UPSERT } else { tag };
        let made = if made.is_empty() { &[] } else { made.as_bytes() };
        let payload = [&[tag], made, document];
        self.sorter.push(write.collection, key.as_bytes(), moment, &payload).map_err(FoldError::from)?;
        Ok(())
    }

    fn command(&mut self, at: OpTime, moment: Moment, command: &Command<'_>) -> Result<(), FoldError> {
        self.until(moment)?;
        self.apply(at, moment, command)
    }

    /// Applies the commands that were put off and come before `moment`.
    fn until(&mut self, moment: Moment) -> Result<(), FoldError> {
        while let Some(first) = self.later.first_entry()
            && *first.key() < moment
        {
            let (mut moment, later) = first.remove_entry();
            operations(document(later.at, &later.entry)?, &mut |operation| {
                if let Operation::Command(command) = operation {
                    self.apply(later.at, moment, &command)?;
                }
                moment.index += 1;
                Ok(())
            })
            .map_err(|stop: Stop| stop.at(later.at))?;
        }
        Ok(())
    }

    fn apply(&mut self, at: OpTime, moment: Moment, command: &Command<'_>) -> Result<(), FoldError> {
        if let Some(applied) = self.applied
            && applied >= moment
        {
            return Err(FoldError::Disorder { at, commit: moment.commit, after: applied.commit });
        }
        self.applied = Some(moment);
        match *command {
            // Its UUID may be used again, if somebody restores the collection.
            Command::Empty { collection } | Command::Drop { collection } => {
                self.emptied.insert(collection, moment);
            }
            Command::Rename { drop_target: Some(target), .. } => {
                self.emptied.insert(target, moment);
            }
            Command::Create { collection, .. } => {
                self.unmade.remove(&collection);
            }
            _ => {}
        }
        self.catalogue.apply(command).map_err(|error| FoldError::Catalogue { at, error })
    }

    /// How much of it is on disk.
    pub fn spilled(&self) -> u64 {
        self.sorter.spilled()
    }

    /// After the last entry.
    pub fn end(mut self) -> Result<Gathered, FoldError> {
        self.until(Moment { commit: ClusterTime::MAX, entry: ClusterTime::MAX, index: u32::MAX })?;
        if let Some((collection, (at, ns))) = self.unmade.into_iter().min_by_key(|(_, (at, _))| *at) {
            return Err(FoldError::UnknownCollection { at, ns, collection });
        }
        let spilled = self.sorter.spilled();
        Ok(Gathered { catalogue: self.catalogue, changes: self.sorter.end()?, emptied: self.emptied, spilled })
    }
}

fn document(at: OpTime, bytes: &[u8]) -> Result<&RawDocument, FoldError> {
    RawDocument::from_bytes(bytes)
        .map_err(|error| FoldError::Operation { at, error: OperationError::Malformed(error.to_string()) })
}

/// An error of one of an entry's operations, or of reading them.
enum Stop {
    Operation(OperationError),
    Fold(FoldError),
}

impl Stop {
    fn at(self, at: OpTime) -> FoldError {
        match self {
            Stop::Operation(error) => FoldError::Operation { at, error },
            Stop::Fold(error) => error,
        }
    }
}

impl From<OperationError> for Stop {
    fn from(error: OperationError) -> Stop {
        Stop::Operation(error)
    }
}

impl From<FoldError> for Stop {
    fn from(error: FoldError) -> Stop {
        Stop::Fold(error)
    }
}
