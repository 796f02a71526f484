//! A snapshot and a stream made by hand, and what the fold makes of them.

use bson::raw::{RawDocument, RawDocumentBuf};
use bson::{Document, doc};
use stillpoint_core::ClusterTime;
use stillpoint_core::stream::OpenTransaction;
use stillpoint_oplog::Entry;

use super::entries::{C, NS, time};
use crate::merge::{Since, Stored};
use crate::operation::Uuid;
use crate::{Budget, Catalogue, Collection, FoldError, Gather, Gathered, Merge, Outcomes, Piece};

pub struct Story {
    /// As of when the catalogue was read.
    pub from: u32,
    pub until: u32,
    pub catalogue: Catalogue,
    pub open: Vec<OpenTransaction>,
    pub complete_from: ClusterTime,
    pub entries: Vec<Vec<u8>>,
    pub pieces: Vec<Piece>,
    pub base: Vec<Document>,
}

pub fn plain(ns: &str) -> Collection {
    Collection { ns: ns.to_owned(), options: Default::default(), indexes: Default::default() }
}

impl Story {
    /// Of one empty collection, as of `from`.
    pub fn new(from: u32, until: u32, entries: Vec<Vec<u8>>) -> Story {
        let mut catalogue = Catalogue::default();
        catalogue.add(C, plain(NS)).unwrap();
        Story {
            from,
            until,
            catalogue,
            open: Vec::new(),
            complete_from: ClusterTime::ZERO,
            entries,
            pieces: vec![Piece::whole(time(from))],
            base: Vec::new(),
        }
    }

    pub fn base(mut self, base: Vec<Document>) -> Story {
        self.base = base;
        self
    }

    pub fn pieces(mut self, pieces: Vec<Piece>) -> Story {
        self.pieces = pieces;
        self
    }

    pub fn gathered(&self) -> Result<Gathered, FoldError> {
        // So little that nearly all is spilled.
        let budget = Budget { memory: 100, folder: std::env::temp_dir() };
        let mut outcomes = Outcomes::new(time(self.until), self.open.clone(), self.complete_from, budget)?;
        for bytes in &self.entries {
            outcomes.see(&Entry::read(bytes)?)?;
        }
        let budget = Budget { memory: 1 << 20, folder: std::env::temp_dir() };
        let (open, from) = (self.open.clone(), time(self.from));
        let committed = outcomes.end()?;
        let mut gather = Gather::new(self.catalogue.clone(), from, committed, open, self.complete_from, budget)?;
        for bytes in &self.entries {
            gather.see(&Entry::read(bytes)?)?;
        }
        gather.end()
    }

    /// What is in the collection, and since when.
    pub fn of(&self, collection: Uuid) -> Result<Vec<(Document, Since)>, FoldError> {
        let mut gathered = self.gathered()?;
        let emptied = gathered.emptied.get(&collection).copied();
        let base = self.base.iter().zip(0..).map(|(document, place)| {
            Ok::<_, FoldError>(Stored { document: RawDocumentBuf::try_from(document).unwrap(), place })
        });
        let merge = Merge::new(collection, base, &mut gathered.changes, &self.pieces, emptied)?;
        let plain = |document: &RawDocument| Document::try_from(document).unwrap();
        merge.map(|kept| kept.map(|kept| (plain(&kept.document), kept.since))).collect()
    }

    pub fn kept(&self) -> Result<Vec<Document>, FoldError> {
        Ok(self.of(C)?.into_iter().map(|(document, _)| document).collect())
    }

    /// That the documents have these `_id`s and `a`s.
    #[track_caller]
    pub fn keeps(&self, expected: &[(i32, i32)]) {
        let expected: Vec<_> = expected.iter().map(|(id, a)| has(*id, *a)).collect();
        assert_eq!(self.kept().unwrap(), expected);
    }

    #[track_caller]
    pub fn fails(&self, expected: &str) {
        assert_eq!(self.kept().unwrap_err().to_string(), expected);
    }
}

/// A document of the tests.
pub fn has(id: i32, a: i32) -> Document {
    doc! {"_id": id, "a": a}
}
