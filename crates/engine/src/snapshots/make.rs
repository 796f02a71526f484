//! A snapshot of a part, made of its data at one time: chunks that have not changed stay where they are.

use bson::raw::{RawDocument, RawDocumentBuf};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::BlobId;
use stillpoint_core::{ClusterId, ClusterTime};
use stillpoint_fold::{Collection, Uuid, key};
use stillpoint_snapshot::{Chunk, ChunkBuilder, Cut, Manifest, Node, Reference, TreeBuilder, Unplaced, manifest};

use super::SnapshotError;
use super::pack::{Packed, Packer};
use super::state::{Sink, layout};

/// So many documents, or bytes of them, tell how long those of a collection are.
const SAMPLE: usize = 256;
const SAMPLE_BYTES: usize = 1 << 20;

/// Makes the trees of a part's collections.
pub struct Maker {
    packer: Packer,
    open: Option<Open>,
    made: Vec<Made>,
}

/// A collection whose documents come.
struct Open {
    uuid: Uuid,
    ns: String,
    definition: RawDocumentBuf,
    tree: TreeBuilder,
    chunks: Chunks,
}

/// Documents on their way into chunks.
pub enum Chunks {
    /// How they are to be cut is not known yet: the first of them.
    Sampling {
        collection: Collection,
        first: Vec<(Vec<u8>, Vec<u8>)>,
        bytes: usize,
    },
    Cutting {
        cut: Cut,
        builder: ChunkBuilder,
    },
}

impl Chunks {
    /// `cut` is the rule that the collection's documents were cut with before.
    pub fn new(collection: &Collection, cut: Option<Cut>) -> Chunks {
        match cut {
            Some(cut) => Chunks::Cutting { cut, builder: ChunkBuilder::new(cut, layout(collection)) },
            None => Chunks::Sampling { collection: collection.clone(), first: Vec::new(), bytes: 0 },
        }
    }

    /// Adds a document; `full` is given each chunk that ends before it.
    pub fn push(
        &mut self,
        key: &[u8],
        document: &[u8],
        full: &mut dyn FnMut(&Chunk<'_>) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        match self {
            Chunks::Sampling { first, bytes, .. } => {
                first.push((key.to_vec(), document.to_vec()));
                *bytes += document.len();
                if first.len() < SAMPLE && *bytes < SAMPLE_BYTES { Ok(()) } else { self.cut(full).map(drop) }
            }
            Chunks::Cutting { builder, .. } => push(builder, key, document, full),
        }
    }

    /// Cuts what came first; the rule.
    fn cut(&mut self, full: &mut dyn FnMut(&Chunk<'_>) -> Result<(), SnapshotError>) -> Result<Cut, SnapshotError> {
        let (collection, first, bytes) = match self {
            Chunks::Cutting { cut, .. } => return Ok(*cut),
            Chunks::Sampling { collection, first, bytes } => (collection, std::mem::take(first), *bytes),
        };
        let cut = Cut::for_average(bytes.checked_div(first.len()).unwrap_or(512) as u64);
        let mut builder = ChunkBuilder::new(cut, layout(collection));
        for (key, document) in first {
            push(&mut builder, &key, &document, full)?;
        }
        *self = Chunks::Cutting { cut, builder };
        Ok(cut)
    }

    /// Ends the last chunk; the rule.
    pub fn end(&mut self, full: &mut dyn FnMut(&Chunk<'_>) -> Result<(), SnapshotError>) -> Result<Cut, SnapshotError> {
        let cut = self.cut(full)?;
        if let Chunks::Cutting { builder, .. } = self
            && let Some(last) = builder.flush()
        {
            full(&last)?;
        }
        Ok(cut)
    }
}

fn push(
    builder: &mut ChunkBuilder,
    key: &[u8],
    document: &[u8],
    full: &mut dyn FnMut(&Chunk<'_>) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    let ended = builder.push(key, document);
    let ended = ended.map_err(|why| SnapshotError::Document { ns: String::new(), why: why.to_string() })?;
    ended.map_or(Ok(()), |chunk| full(&chunk))
}

struct Made {
    uuid: Uuid,
    ns: String,
    definition: RawDocumentBuf,
    layout: stillpoint_snapshot::Layout,
    cut: Cut,
    root: Option<Unplaced>,
}

impl Maker {
    pub fn new(packer: Packer) -> Maker {
        Maker { packer, open: None, made: Vec::new() }
    }

    /// Stores what is left.
    pub fn finish(self) -> Result<MadePart, SnapshotError> {
        Ok(MadePart { packed: self.packer.finish()?, made: self.made })
    }

    fn open(&mut self) -> Result<(&mut Open, &mut Packer), SnapshotError> {
        match &mut self.open {
            Some(open) => Ok((open, &mut self.packer)),
            None => Err(SnapshotError::damaged("a state", "a document came outside of a collection")),
        }
    }
}

impl Sink for Maker {
    fn begin(
        &mut self,
        uuid: Uuid,
        collection: &Collection,
        stored: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        self.open = Some(Open {
            uuid,
            ns: collection.ns.clone(),
            definition: collection.to_listed(uuid),
            tree: TreeBuilder::new(layout(collection)),
            chunks: Chunks::new(collection, stored.map(|stored| stored.cut)),
        });
        Ok(())
    }

    fn node(&mut self, node: &Node, reference: &Reference) {
        if let Some(open) = &mut self.open {
            self.packer.know(&mut open.tree, node, reference);
        }
    }

    fn chunk(&mut self, chunk: &Reference, next: Option<&[u8]>) -> Result<bool, SnapshotError> {
        let (open, packer) = self.open()?;
        let Open { tree, chunks, .. } = open;
        let Chunks::Cutting { cut, builder } = chunks else { return Ok(false) };
        // Only where chunks would be cut if all documents came one by one.
        let (waiting, waiting_bytes) = builder.waiting();
        let begins = builder.is_empty() || cut.before_chunk(&chunk.entry.first, waiting, waiting_bytes) == Some(true);
        let digest = &chunk.entry.digest;
        let ends = next.is_none_or(|next| cut.before(next, digest.documents, digest.bytes));
        if !begins || !ends {
            return Ok(false);
        }
        if let Some(before) = builder.flush() {
            packer.add(tree, &before)?;
        }
        packer.keep(tree, chunk)?;
        Ok(true)
    }

    fn document(&mut self, key: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        let (Open { tree, chunks, ns, .. }, packer) = self.open()?;
        let pushed = chunks.push(key, document.as_bytes(), &mut |chunk| packer.add(tree, chunk));
        pushed.map_err(|why| named(why, ns))
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let Open { uuid, ns, definition, mut tree, mut chunks } = open;
        let packer = &mut self.packer;
        let cut = chunks.end(&mut |chunk| packer.add(&mut tree, chunk)).map_err(|why| named(why, &ns))?;
        let layout = tree.layout();
        let root = packer.end(tree)?;
        self.made.push(Made { uuid, ns, definition, layout, cut, root });
        Ok(())
    }
}

/// With the collection's name.
pub fn named(why: SnapshotError, ns: &str) -> SnapshotError {
    match why {
        SnapshotError::Document { why, .. } => SnapshotError::Document { ns: ns.to_owned(), why },
        other => other,
    }
}

/// All that a snapshot of a part is made of, stored but for its manifest.
pub struct MadePart {
    packed: Packed,
    made: Vec<Made>,
}

/// What a manifest says beside its collections.
pub struct About<'a> {
    pub cluster: ClusterId,
    pub part: &'a PartId,
    pub at: ClusterTime,
    pub stream: ClusterTime,
    pub made: jiff::Timestamp,
    pub base: Option<BlobId>,
    pub compatibility: String,
}

impl MadePart {
    /// Bytes that were stored.
    pub fn stored(&self) -> u64 {
        self.packed.stored
    }

    /// The names of the blobs that it is in.
    pub fn names(&self) -> Vec<String> {
        self.packed.names()
    }

    pub fn manifest(&self, about: &About<'_>) -> Result<Manifest, SnapshotError> {
        let mut collections = Vec::with_capacity(self.made.len());
        for made in &self.made {
            let root = made.root.as_ref().map(|root| self.packed.root(root));
            if let Some(None) = root {
                return Err(SnapshotError::damaged(&made.ns, "its root was not stored"));
            }
            collections.push(manifest::Collection {
                namespace: made.ns.clone(),
                uuid: made.uuid.0,
                definition: made.definition.as_bytes().to_vec(),
                layout: made.layout,
                cut: made.cut,
                root: root.flatten(),
                pieces: vec![manifest::Piece { from: None, to: None, at: about.at, settled: about.at }],
            });
        }
        collections.sort_by(|a, b| a.namespace.cmp(&b.namespace));
        Ok(Manifest {
            cluster: about.cluster,
            part: about.part.key(),
            catalog: about.at,
            earliest: about.at,
            latest: about.at,
            stream: about.stream,
            made: about.made.as_millisecond(),
            base: about.base,
            compatibility: about.compatibility.clone(),
            keys: key::VERSION,
            collections,
        })
    }
}
