//! What must hold of a manifest, whoever made it.

use std::collections::HashSet;

use bson::RawDocument;

use super::{
    Collection, MAX_COLLECTIONS, MAX_DEFINITION, MAX_NAMESPACE, MAX_PIECE_KEY, MAX_PIECES, Manifest, ManifestError,
    Piece,
};
use crate::chunk::SHORTEST;
use crate::reference::{Layout, Root};
use crate::tree::{HERE, MAX_LEVEL};

/// The first rule that is broken.
pub(super) fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    let Manifest { catalog, earliest, latest, stream, collections, .. } = manifest;
    let times = earliest..=latest;
    let rules = [
        (stream <= earliest, "the stream is needed from after its earliest time"),
        (times.contains(&catalog), "its list of collections is not of its times"),
        (collections.len() <= MAX_COLLECTIONS, "it has more collections than it can"),
    ];
    if let Some((_, what)) = rules.into_iter().find(|(holds, _)| !holds) {
        return Err(ManifestError::Contradiction(what));
    }
    let mut uuids = HashSet::with_capacity(collections.len());
    let mut before: Option<&Collection> = None;
    for (collection, told) in collections.iter().enumerate() {
        let wrong = |what| Err(ManifestError::Collection { collection, what });
        if before.is_some_and(|before| before.namespace >= told.namespace) {
            return wrong("it is not after the one before it");
        }
        if !uuids.insert(told.uuid) {
            return wrong("it has the UUID of another");
        }
        if let Some(what) = fault(told) {
            return wrong(what);
        }
        if told.pieces.iter().any(|piece| !times.contains(&&piece.at) || !times.contains(&&piece.settled)) {
            return wrong("a piece is not of the snapshot's times");
        }
        before = Some(told);
    }
    Ok(())
}

fn fault(told: &Collection) -> Option<&'static str> {
    let Collection { namespace, definition, root, pieces, layout, .. } = told;
    let name = namespace.split_once('.').is_some_and(|(database, name)| !database.is_empty() && !name.is_empty());
    let rules = [
        (name && namespace.len() <= MAX_NAMESPACE, "its namespace is none"),
        (definition.len() <= MAX_DEFINITION && RawDocument::from_bytes(definition).is_ok(), "its definition is none"),
        (root.as_ref().is_none_or(|root| root.layout == *layout && can_be(root)), "its root is none"),
        (pieces.iter().all(|piece| piece.at <= piece.settled), "a piece is settled before its time"),
        (pieces.len() <= MAX_PIECES && adjacent(pieces), "its pieces are not one after the other"),
        (*layout == Layout::Sorted || pieces.len() == 1, "it has pieces and no order"),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map(|(_, what)| what)
}

fn can_be(root: &Root) -> bool {
    let entry = &root.reference.entry;
    (1..=MAX_LEVEL).contains(&root.level)
        && root.reference.place.stored > 0
        && root.reference.place.pack != HERE
        && entry.digest.documents > 0
        && i64::try_from(entry.digest.bytes).is_ok()
        && entry.digest.documents.checked_mul(SHORTEST as u64).is_some_and(|least| least <= entry.digest.bytes)
        && (root.layout == Layout::Insertion || entry.first <= entry.last)
}

/// From the beginning to the end, none of them empty.
fn adjacent(pieces: &[Piece]) -> bool {
    let short = |key: &Option<Vec<u8>>| key.as_ref().is_none_or(|key| key.len() <= MAX_PIECE_KEY);
    let full = |piece: &Piece| match (&piece.from, &piece.to) {
        (Some(from), Some(to)) => from < to,
        _ => true,
    };
    pieces.first().is_some_and(|first| first.from.is_none())
        && pieces.last().is_some_and(|last| last.to.is_none())
        && pieces.iter().all(|piece| full(piece) && short(&piece.to))
        && pieces.windows(2).all(|pair| pair[0].to.is_some() && pair[0].to == pair[1].from)
}
