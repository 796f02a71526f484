//! One part of a real cluster: a snapshot of it, and what the fold makes of that and of the part's stream.

use std::collections::BTreeMap;

use stillpoint_core::ClusterTime;
use stillpoint_fold::gather::is_derived;
use stillpoint_fold::merge::{Since, Stored};
use stillpoint_fold::{Budget, Catalogue, FoldError, Gather, Merge, Outcomes, Piece, Uuid};
use stillpoint_mongo::PartLink;
use stillpoint_mongo::snapshot::{Order, ReadError, When};
use stillpoint_mongo::tail::Beginning;
use stillpoint_oplog::Entry;

use crate::live::{CollectionState, State, catalogue, key, order, read};

/// So many documents are a piece: few, so that a snapshot has many times.
const PIECE: usize = 12;

/// A snapshot that is being taken, piece by piece, while others write.
#[derive(Clone)]
pub struct Snapshot {
    pub beginning: Beginning,
    pub at: ClusterTime,
    pub catalogue: Catalogue,
    pieces: BTreeMap<Uuid, Vec<Piece>>,
    documents: BTreeMap<Uuid, Vec<Stored>>,
    /// Collections of which there is more to read.
    left: Vec<Uuid>,
    /// When the last piece was read.
    pub until: ClusterTime,
}

impl Snapshot {
    pub async fn begin(link: &PartLink) -> Snapshot {
        let beginning = link.beginning(None).await.unwrap();
        let at = link.committed().await.unwrap().max(beginning.complete_from);
        let catalogue = catalogue(link, at).await.unwrap();
        let left = catalogue.iter().filter(|(_, one)| !is_derived(&one.ns)).map(|(uuid, _)| uuid).collect();
        Snapshot { beginning, at, catalogue, pieces: BTreeMap::new(), documents: BTreeMap::new(), left, until: at }
    }

    /// Reads one more piece, at a time of its own; says whether there is more.
    pub async fn read(&mut self, link: &PartLink) -> bool {
        let Some(uuid) = self.left.pop() else { return false };
        let collection = self.catalogue.get(uuid).unwrap();
        let at = link.committed().await.unwrap();
        let pieces = self.pieces.entry(uuid).or_default();
        let documents = self.documents.entry(uuid).or_default();
        let whole = order(collection) == Order::Natural;
        let read = if collection.is_capped() {
            read(link, uuid, collection, When::NotBefore(at), Order::Natural, usize::MAX).await
        } else if whole {
            read(link, uuid, collection, When::At(at), Order::Natural, usize::MAX).await
        } else {
            let from = documents.last().map(|last| last.document.get("_id").unwrap().unwrap().into());
            // The first of them is the last of the piece before, or what is there now instead.
            read(link, uuid, collection, When::At(at), Order::ById { from }, PIECE).await
        };
        let read = match read {
            Ok(read) => read,
            // It was dropped since the catalogue was read, and its drop is in the stream.
            Err(ReadError::Gone { .. }) => {
                self.pieces.remove(&uuid);
                self.documents.remove(&uuid);
                return true;
            }
            // A majority has not come to its last change yet.
            Err(ReadError::Unavailable { .. }) => {
                self.left.push(uuid);
                return true;
            }
            Err(e) => panic!("{e}"),
        };
        let settled = if collection.is_capped() { link.committed().await.unwrap() } else { at };
        self.until = self.until.max(settled);
        let last = documents.last().map(|last| key(&last.document));
        let more = !whole && read.len() == PIECE;
        let new: Vec<_> = read.into_iter().filter(|one| last.as_ref().is_none_or(|last| key(one) > *last)).collect();
        let begin = documents.len() as u64;
        documents.extend(new.into_iter().zip(begin..).map(|(document, place)| Stored { document, place }));
        documents.sort_by_cached_key(|one| key(&one.document));
        let until = more.then(|| {
            let mut end = key(&documents.last().unwrap().document);
            end.push(0);
            end
        });
        pieces.push(Piece { until, at, settled });
        if more {
            self.left.push(uuid);
        }
        true
    }

    /// Claims of all its pieces that they were read at a time.
    pub fn read_at(&mut self, at: ClusterTime) {
        for piece in self.pieces.values_mut().flatten() {
            (piece.at, piece.settled) = (at, at);
        }
    }

    /// What the fold makes of this and the stream.
    pub fn fold(&self, entries: &[Vec<u8>], until: ClusterTime) -> Result<State, FoldError> {
        let entries = || entries.iter().map(|bytes| Entry::read(bytes).unwrap());
        // So little that most is spilled.
        let budget = Budget { memory: 4 << 10, folder: std::env::temp_dir() };
        let few = Budget { memory: 200, ..budget.clone() };
        let mut outcomes = Outcomes::new(until, vec![], self.beginning.complete_from, few)?;
        for entry in entries() {
            outcomes.see(&entry)?;
            if outcomes.is_complete() {
                break;
            }
        }
        let committed = outcomes.end()?;
        let (catalogue, complete_from) = (self.catalogue.clone(), self.beginning.complete_from);
        let mut gather = Gather::new(catalogue, self.at, committed, vec![], complete_from, budget)?;
        for entry in entries() {
            gather.see(&entry)?;
        }
        let mut gathered = gather.end()?;
        let mut state = State(BTreeMap::new());
        for (uuid, collection) in gathered.catalogue.iter().filter(|(_, one)| !is_derived(&one.ns)) {
            let base = self.documents.get(&uuid).cloned().unwrap_or_default();
            let created = [Piece::whole(self.at)];
            let pieces = self.pieces.get(&uuid).map_or(&created[..], |pieces| &pieces[..]);
            let emptied = gathered.emptied.get(&uuid).copied();
            let base = base.into_iter().map(Ok::<_, FoldError>);
            let mut kept =
                Merge::new(uuid, base, &mut gathered.changes, pieces, emptied)?.collect::<Result<Vec<_>, _>>()?;
            if collection.is_in_insertion_order() {
                kept.sort_by_key(|one| one.since);
            }
            assert!(kept.iter().all(|one| matches!(one.since, Since::Stored(_)) || one.key == key(&one.document)));
            state.0.insert(
                collection.ns.clone(),
                CollectionState {
                    uuid,
                    options: collection.options.clone(),
                    indexes: collection.indexes.clone(),
                    documents: kept.into_iter().map(|one| one.document).collect(),
                },
            );
        }
        Ok(state)
    }
}
