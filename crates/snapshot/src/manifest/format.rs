//! The document that a manifest is.

use bson::raw::{CStr, RawArrayBuf, RawBinaryRef, RawDocument, RawDocumentBuf};
use bson::spec::BinarySubtype;
use bson::{RawBsonRef, Timestamp, cstr};
use stillpoint_core::ClusterTime;
use stillpoint_core::stream::BlobId;

use super::{Collection, MAX_COLLECTIONS, MAX_PIECES, Manifest, ManifestError, Piece};
use crate::reference::{ContentId, Entry, KeyBound, Layout, MAX_BOUND, Place, Reference, Root};
use crate::{Cut, Digest};

fn timestamp(time: ClusterTime) -> RawBsonRef<'static> {
    RawBsonRef::Timestamp(Timestamp { time: time.seconds, increment: time.increment })
}

fn binary(bytes: &[u8]) -> RawBsonRef<'_> {
    RawBsonRef::Binary(RawBinaryRef { subtype: BinarySubtype::Generic, bytes })
}

fn binary_or_null(bytes: Option<&[u8]>) -> RawBsonRef<'_> {
    bytes.map_or(RawBsonRef::Null, binary)
}

/// None if a number is too high.
pub(super) fn document(manifest: &Manifest) -> Option<Vec<u8>> {
    let mut collections = RawArrayBuf::new();
    for told in &manifest.collections {
        collections.push(collection_document(told)?);
    }
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("cluster"), manifest.cluster.to_string());
    document.append(cstr!("part"), manifest.part.as_str());
    document.append(cstr!("catalog"), timestamp(manifest.catalog));
    document.append(cstr!("earliest"), timestamp(manifest.earliest));
    document.append(cstr!("latest"), timestamp(manifest.latest));
    document.append(cstr!("stream"), timestamp(manifest.stream));
    document.append(cstr!("made"), bson::DateTime::from_millis(manifest.made));
    document.append(cstr!("base"), binary_or_null(manifest.base.as_ref().map(|id| &id.0[..])));
    document.append(cstr!("compatibility"), manifest.compatibility.as_str());
    document.append(cstr!("keys"), i64::from(manifest.keys));
    document.append(cstr!("collections"), collections);
    Some(document.into_bytes())
}

pub(super) fn collection_document(told: &Collection) -> Option<RawDocumentBuf> {
    let mut pieces = RawArrayBuf::new();
    for piece in &told.pieces {
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("from"), binary_or_null(piece.from.as_deref()));
        document.append(cstr!("to"), binary_or_null(piece.to.as_deref()));
        document.append(cstr!("at"), timestamp(piece.at));
        if piece.settled != piece.at {
            document.append(cstr!("settled"), timestamp(piece.settled));
        }
        pieces.push(document);
    }
    let uuid = RawBsonRef::Binary(RawBinaryRef { subtype: BinarySubtype::Uuid, bytes: &told.uuid });
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("ns"), told.namespace.as_str());
    document.append(cstr!("uuid"), uuid);
    document.append(cstr!("definition"), RawDocument::from_bytes(&told.definition).ok()?);
    document.append(cstr!("sorted"), told.layout == Layout::Sorted);
    document.append(cstr!("cut"), i32::from(told.cut.bits()));
    match &told.root {
        Some(root) => document.append(cstr!("root"), root_document(root)?),
        None => document.append(cstr!("root"), RawBsonRef::Null),
    }
    document.append(cstr!("pieces"), pieces);
    Some(document)
}

fn root_document(root: &Root) -> Option<RawDocumentBuf> {
    let Reference { entry, place } = &root.reference;
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("level"), i32::from(root.level));
    document.append(cstr!("id"), binary(&entry.id.0));
    document.append(cstr!("first"), binary(entry.first.bytes()));
    document.append(cstr!("last"), binary(entry.last.bytes()));
    document.append(cstr!("documents"), i64::try_from(entry.digest.documents).ok()?);
    document.append(cstr!("bytes"), i64::try_from(entry.digest.bytes).ok()?);
    document.append(cstr!("hash"), binary(&entry.digest.hash.to_le_bytes()));
    document.append(cstr!("pack"), binary(&place.pack.0));
    document.append(cstr!("stored"), i64::from(place.stored));
    Some(document)
}

/// The fields of a document, of which a later program's are passed over. None if it is malformed.
fn fields<'a>(document: &'a RawDocument, mut see: impl FnMut(&'a str, Value<'a>)) -> Option<()> {
    document.iter().try_for_each(|field| {
        let (name, value): (&CStr, _) = field.ok()?;
        see(name.as_str(), Value(value));
        Some(())
    })
}

#[derive(Clone, Copy)]
struct Value<'a>(RawBsonRef<'a>);

impl<'a> Value<'a> {
    fn binary(self) -> Option<&'a [u8]> {
        self.0.as_binary().filter(|binary| binary.subtype == BinarySubtype::Generic).map(|binary| binary.bytes)
    }

    fn hash(self) -> Option<[u8; 32]> {
        self.binary()?.try_into().ok()
    }

    /// The outer None for what is neither.
    fn binary_or_null(self) -> Option<Option<&'a [u8]>> {
        match self.0 {
            RawBsonRef::Null => Some(None),
            _ => self.binary().map(Some),
        }
    }

    fn bound(self) -> Option<KeyBound> {
        self.binary().filter(|bytes| bytes.len() <= MAX_BOUND).map(KeyBound::of)
    }

    fn natural<T: TryFrom<i64>>(self) -> Option<T> {
        let number = self.0.as_i64().or_else(|| self.0.as_i32().map(i64::from))?;
        T::try_from(number).ok()
    }

    fn time(self) -> Option<ClusterTime> {
        self.0.as_timestamp().map(|time| ClusterTime::new(time.time, time.increment))
    }

    fn text(self) -> Option<String> {
        self.0.as_str().map(str::to_owned)
    }

    /// An array of documents, in the order of the file; what its names are is not looked at.
    fn list<T>(self, most: usize, read: fn(&RawDocument) -> Option<T>) -> Option<Vec<T>> {
        let mut list = Vec::new();
        for item in self.0.as_array()? {
            if list.len() == most {
                return None;
            }
            list.push(read(item.ok()?.as_document()?)?);
        }
        Some(list)
    }
}

pub(super) fn manifest(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let (mut cluster, mut part, mut catalog, mut earliest, mut latest) = (None, None, None, None, None);
    let (mut stream, mut made, mut base, mut compatibility, mut keys) = (None, None, None, None, None);
    let mut collections = None;
    let document = RawDocument::from_bytes(bytes).map_err(|_| ManifestError::Field("document"))?;
    let whole = fields(document, |name, value| match name {
        "cluster" => cluster = value.text().and_then(|text| text.parse().ok()),
        "part" => part = value.text(),
        "catalog" => catalog = value.time(),
        "earliest" => earliest = value.time(),
        "latest" => latest = value.time(),
        "stream" => stream = value.time(),
        "made" => made = value.0.as_datetime().map(|date| date.timestamp_millis()),
        "base" => base = value.binary_or_null().and_then(blob_or_none),
        "compatibility" => compatibility = value.text(),
        "keys" => keys = value.natural(),
        "collections" => collections = value.list(MAX_COLLECTIONS, collection),
        _ => {}
    });
    whole.ok_or(ManifestError::Field("document"))?;
    Ok(Manifest {
        cluster: cluster.ok_or(ManifestError::Field("cluster"))?,
        part: part.ok_or(ManifestError::Field("part"))?,
        catalog: catalog.ok_or(ManifestError::Field("catalog"))?,
        earliest: earliest.ok_or(ManifestError::Field("earliest"))?,
        latest: latest.ok_or(ManifestError::Field("latest"))?,
        stream: stream.ok_or(ManifestError::Field("stream"))?,
        made: made.ok_or(ManifestError::Field("made"))?,
        base: base.ok_or(ManifestError::Field("base"))?,
        compatibility: compatibility.ok_or(ManifestError::Field("compatibility"))?,
        keys: keys.ok_or(ManifestError::Field("keys"))?,
        collections: collections.ok_or(ManifestError::Field("collections"))?,
    })
}

/// The outer None for bytes that are no id.
fn blob_or_none(bytes: Option<&[u8]>) -> Option<Option<BlobId>> {
    match bytes {
        None => Some(None),
        Some(bytes) => bytes.try_into().ok().map(|id| Some(BlobId(id))),
    }
}

pub(super) fn collection(document: &RawDocument) -> Option<Collection> {
    let (mut namespace, mut uuid, mut definition, mut layout) = (None, None, None, None);
    let (mut cut, mut found, mut pieces) = (None, None, None);
    fields(document, |name, value| match name {
        "ns" => namespace = value.text(),
        "uuid" => {
            let uuid_only = value.0.as_binary().filter(|binary| binary.subtype == BinarySubtype::Uuid);
            uuid = uuid_only.and_then(|binary| binary.bytes.try_into().ok());
        }
        "definition" => definition = value.0.as_document().map(|document| document.as_bytes().to_vec()),
        "sorted" => {
            layout = value.0.as_bool().map(|sorted| if sorted { Layout::Sorted } else { Layout::Insertion });
        }
        "cut" => cut = value.natural().and_then(Cut::new),
        "root" => found = Some(value),
        "pieces" => pieces = value.list(MAX_PIECES, piece),
        _ => {}
    })?;
    let layout = layout?;
    let root = match found?.0 {
        RawBsonRef::Null => None,
        value => Some(root(value.as_document()?, layout)?),
    };
    let (namespace, uuid, definition) = (namespace?, uuid?, definition?);
    Some(Collection { namespace, uuid, definition, layout, cut: cut?, root, pieces: pieces? })
}

fn root(document: &RawDocument, layout: Layout) -> Option<Root> {
    let (mut level, mut id, mut first, mut last, mut documents) = (None, None, None, None, None);
    let (mut bytes, mut hash, mut pack, mut stored) = (None, None, None, None);
    fields(document, |name, value| match name {
        "level" => level = value.natural(),
        "id" => id = value.hash().map(ContentId),
        "first" => first = value.bound(),
        "last" => last = value.bound(),
        "documents" => documents = value.natural(),
        "bytes" => bytes = value.natural(),
        "hash" => hash = value.binary().and_then(|bytes| Some(u128::from_le_bytes(bytes.try_into().ok()?))),
        "pack" => pack = value.hash().map(BlobId),
        "stored" => stored = value.natural(),
        _ => {}
    })?;
    let digest = Digest { documents: documents?, bytes: bytes?, hash: hash? };
    let entry = Entry { id: id?, first: first?, last: last?, digest };
    let place = Place { pack: pack?, stored: stored? };
    Some(Root { layout, level: level?, reference: Reference { entry, place } })
}

fn piece(document: &RawDocument) -> Option<Piece> {
    let (mut from, mut to, mut at, mut settled) = (None, None, None, Ok(None));
    fields(document, |name, value| match name {
        "from" => from = value.binary_or_null(),
        "to" => to = value.binary_or_null(),
        "at" => at = value.time(),
        "settled" => settled = value.time().map(Some).ok_or(()),
        _ => {}
    })?;
    let (at, settled) = (at?, settled.ok()?);
    Some(Piece { from: from?.map(<[u8]>::to_vec), to: to?.map(<[u8]>::to_vec), at, settled: settled.unwrap_or(at) })
}
