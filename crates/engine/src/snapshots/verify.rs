//! Whether what is stored of a part is what the part itself says of the same time.
//!
//! The stored data is folded to the time and digested, collection by collection; then the same is done with a
//! snapshot read of the part. What the server no longer can read is said to be open, and never taken for equal.

use std::collections::BTreeMap;

use bson::raw::RawDocument;
use stillpoint_core::ClusterTime;
use stillpoint_core::verification::PartVerification;
use stillpoint_fold::gather::is_derived;
use stillpoint_fold::{Collection, Uuid};
use stillpoint_mongo::PartLink;
use stillpoint_mongo::snapshot::{Order, ReadError, When};
use stillpoint_snapshot::{Digest, Reference, Root, manifest};

use super::SnapshotError;
use super::read::{blocking, listed};
use super::state::{Sink, Source};

/// A collection: all that the catalogue has of it, and the digest of its documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Digested {
    pub collection: Collection,
    pub documents: Digest,
}

/// Digests a state. What has not changed since it was stored was digested then.
#[derive(Default)]
struct Digests {
    open: Option<(Uuid, Digested)>,
    all: BTreeMap<Uuid, Digested>,
}

impl Digests {
    fn add(&mut self, digest: &Digest) -> Result<bool, SnapshotError> {
        if let Some((_, open)) = &mut self.open {
            open.documents.combine(digest);
        }
        Ok(true)
    }
}

impl Sink for Digests {
    fn begin(
        &mut self,
        uuid: Uuid,
        collection: &Collection,
        _: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        self.open = Some((uuid, Digested { collection: collection.clone(), documents: Digest::EMPTY }));
        Ok(())
    }

    fn tree(&mut self, root: &Root) -> Result<bool, SnapshotError> {
        self.add(&root.reference.entry.digest)
    }

    fn chunk(&mut self, chunk: &Reference, _: Option<&[u8]>) -> Result<bool, SnapshotError> {
        self.add(&chunk.entry.digest)
    }

    fn document(&mut self, _: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        self.add(&Digest::of(document.as_bytes())).map(drop)
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        self.all.extend(self.open.take());
        Ok(())
    }
}

/// What is stored of a part, as of a time.
pub async fn stored(source: Source, time: ClusterTime) -> Result<BTreeMap<Uuid, Digested>, SnapshotError> {
    blocking(move || {
        let mut digests = Digests::default();
        source.at(time)?.into(&mut digests, &|_, _| true)?;
        Ok(digests.all)
    })
    .await
}

/// Compares that with the part itself.
pub async fn compare(
    stored: &BTreeMap<Uuid, Digested>,
    link: &PartLink,
    time: ClusterTime,
) -> Result<PartVerification, SnapshotError> {
    let mut result = PartVerification::new(link.id.clone());
    let catalogue = match link.catalogue_at(time).await {
        Ok(documents) => documents,
        Err(ReadError::Unavailable { why, .. }) => {
            result.problem = Some(format!("the server can no longer read it as of {time}: {why}"));
            return Ok(result);
        }
        Err(e) => return Err(e.into()),
    };
    let live: BTreeMap<_, _> = listed(&catalogue)?.into_iter().filter(|(_, one)| !is_derived(&one.ns)).collect();
    for (_, missing) in stored.iter().filter(|(uuid, _)| !live.contains_key(uuid)) {
        result.different.add(&missing.collection.ns, "it is stored, and the cluster does not have it");
    }
    for (uuid, collection) in live {
        let ns = &collection.ns;
        let Some(stored) = stored.get(&uuid) else {
            result.different.add(ns, "the cluster has it, and it is not stored");
            continue;
        };
        if stored.collection != collection {
            result.different.add(ns, difference("not the same", &stored.collection, &collection));
            continue;
        }
        let when = if collection.is_capped() { When::NotBefore(time) } else { When::At(time) };
        match documents(link, uuid, &collection, when).await {
            Ok(digest) if digest == stored.documents => {
                result.equal += 1;
                result.documents += digest.documents;
                result.bytes += digest.bytes;
            }
            // It may have been written to since.
            Ok(_) if collection.is_capped() => {
                result.open.add(ns, "a capped collection cannot be read as of a time, and this one has changed since");
            }
            Ok(digest) => {
                let counts = format!("{} documents of {} bytes", digest.documents, digest.bytes);
                let (documents, bytes) = (stored.documents.documents, stored.documents.bytes);
                let why = format!("its documents: stored {documents} of {bytes} bytes, in the cluster {counts}");
                result.different.add(ns, why);
            }
            Err(SnapshotError::Read(ReadError::Unavailable { why, .. })) => {
                result.open.add(ns, format!("the server cannot read it as of then any more: {why}"));
            }
            Err(SnapshotError::Read(ReadError::Gone { .. })) => result.open.add(ns, "it has been dropped since"),
            Err(e) => return Err(e),
        }
    }
    Ok(result)
}

pub fn difference(what: &str, stored: &Collection, live: &Collection) -> String {
    let name = if stored.ns == live.ns { "" } else { " its name," };
    let options = if stored.options == live.options { "" } else { " its options," };
    let indexes = if stored.indexes == live.indexes { "" } else { " its indexes," };
    format!("{what}:{name}{options}{indexes}").trim_end_matches(',').to_owned()
}

/// The digest of a collection's documents, read from a part.
pub async fn documents(
    link: &PartLink,
    uuid: Uuid,
    collection: &Collection,
    when: When,
) -> Result<Digest, SnapshotError> {
    let db = collection.ns.split('.').next().unwrap_or_default();
    let mut documents = link.documents(db, uuid.0, when, Order::Natural).await?;
    let mut digest = Digest::EMPTY;
    while let Some(batch) = documents.next().await? {
        let ns = collection.ns.clone();
        // Hashing takes milliseconds: not on a thread that others wait for.
        let of_batch = blocking(move || {
            let mut digest = Digest::EMPTY;
            for document in batch.documents() {
                let document = document.map_err(|why| SnapshotError::Document { ns: ns.clone(), why })?;
                digest.add(document.as_bytes());
            }
            Ok(digest)
        });
        digest.combine(&of_batch.await?);
    }
    Ok(digest)
}
