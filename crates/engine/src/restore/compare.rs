//! Whether the target has what was written into it: every collection, its options and indexes, and a digest of
//! its documents.

use std::collections::BTreeMap;

use stillpoint_core::verification::PartVerification;
use stillpoint_fold::gather::is_derived;
use stillpoint_fold::{Collection, Uuid};
use stillpoint_mongo::PartLink;
use stillpoint_mongo::snapshot::When;

use super::RestoreError;
use super::load::{Trying, Written};
use super::naming::Naming;
use crate::snapshots::read::listed;
use crate::snapshots::verify::{difference, documents};

/// When it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before the last step: what lets documents go is not there yet.
    Loaded,
    Finished,
}

/// Compares a part of the target with what was written into it, whatever part it was of. Nobody else writes there:
/// it is read as a majority has it, however long that takes.
pub async fn compare(
    link: &PartLink,
    written: &BTreeMap<Uuid, Written>,
    naming: &Naming,
    stage: Stage,
    trying: &Trying,
) -> Result<PartVerification, RestoreError> {
    let mut result = PartVerification::new(link.id.clone());
    let time = trying.again(|| link.committed()).await?;
    let there: BTreeMap<_, _> = listed(&trying.again(|| link.catalogue_now()).await?)?
        .into_iter()
        .filter(|(_, one)| !is_derived(&one.ns) && naming.writes(&one.ns))
        .collect();
    for (_, missing) in written.iter().filter(|(uuid, _)| !there.contains_key(uuid)) {
        result.different.add(&missing.collection.ns, "it was written, and the target does not have it");
    }
    for (uuid, collection) in there {
        let ns = &collection.ns;
        let Some(written) = written.get(&uuid) else {
            result.different.add(ns, "the target has it, and it was not written");
            continue;
        };
        let expected = match stage {
            Stage::Loaded => written.lasting(),
            Stage::Finished => written.collection.clone(),
        };
        if expected != collection {
            result.different.add(ns, difference("not as it was written", &expected, &collection));
            continue;
        }
        let digest = trying.again(|| documents(link, uuid, &collection, When::NotBefore(time))).await?;
        if digest == written.documents {
            result.equal += 1;
            result.documents += digest.documents;
            result.bytes += digest.bytes;
            continue;
        }
        let (documents, bytes) = (written.documents.documents, written.documents.bytes);
        result.different.add(
            ns,
            format!(
                "its documents: {documents} of {bytes} bytes were written, and the target has {} of {} bytes",
                digest.documents, digest.bytes
            ),
        );
    }
    Ok(result)
}

/// What the collections became in the last step, with what lets documents go.
pub async fn compare_definitions(
    link: &PartLink,
    written: &BTreeMap<Uuid, Written>,
) -> Result<Option<String>, RestoreError> {
    let there: BTreeMap<_, Collection> = listed(&link.catalogue_now().await?)?.into_iter().collect();
    let differing = written.iter().filter(|(uuid, written)| there.get(uuid) != Some(&written.collection));
    Ok(differing.map(|(_, written)| written.collection.ns.clone()).min())
}
