//! What a restore of a point in time would have written, without writing it: to be compared with a target that was
//! restored before, or by other means.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::raw::RawDocument;
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::Options;
use stillpoint_core::verification::{PartVerification, Verification};
use stillpoint_fold::ownership::Ownership;
use stillpoint_fold::{Collection, Uuid};
use stillpoint_mongo::Destination;
use stillpoint_snapshot::{Digest, manifest};

use super::compare::{Stage, compare};
use super::load::{Written, owns, parts_of};
use super::naming::{Naming, VIEWS};
use super::plan::Plan;
use super::{RestoreError, fold, merge, one_name_each};
use crate::snapshots::state::Sink;
use crate::snapshots::{Archive, SnapshotError, blocking};

/// Compares a target with what a restore of the time would have written into it.
pub async fn against(
    archive: &Archive,
    destination: &Destination,
    options: &Options,
    time: ClusterTime,
    parts_at_once: usize,
) -> Result<Verification, RestoreError> {
    let plan = Plan::make(archive, destination, options, time).await?;
    let (shards, routing) = fold(archive, &plan, time, parts_at_once).await?;
    one_name_each(&plan, &shards)?;
    let ownerships = Arc::new(routing.ownerships()?);
    let mut written = BTreeMap::<PartId, BTreeMap<Uuid, Written>>::new();
    for (part, folded) in shards {
        let Some(to) = plan.steps.iter().find(|step| step.part == part).map(|step| step.to.id.clone()) else {
            continue;
        };
        let naming = plan.naming.clone();
        let mut expecting = Expecting {
            part,
            naming,
            ownerships: ownerships.clone(),
            open: None,
            written: BTreeMap::new(),
            failure: None,
        };
        let its = blocking(move || {
            let naming = expecting.naming.clone();
            let poured = folded.into(&mut expecting, &|one| naming.of(&one.ns).is_some());
            match (expecting.failure, poured) {
                (Some(why), _) => Ok(Err(why)),
                (None, Err(why)) => Err(why),
                (None, Ok(())) => Ok(Ok(expecting.written)),
            }
        });
        merge(written.entry(to).or_default(), its.await??)?;
    }
    let none = BTreeMap::new();
    let mut parts = Vec::<PartVerification>::new();
    for target in plan.targets().into_iter().filter(|target| target.id != PartId::ConfigServers) {
        let written = written.get(&target.id).unwrap_or(&none);
        parts.push(compare(target, written, &plan.naming, Stage::Finished).await?);
    }
    Ok(Verification { at: (archive.clock)(), time, parts })
}

struct Expecting {
    part: PartId,
    naming: Naming,
    ownerships: Arc<BTreeMap<Uuid, Ownership>>,
    open: Option<(Uuid, Written)>,
    written: BTreeMap<Uuid, Written>,
    failure: Option<RestoreError>,
}

impl Sink for Expecting {
    fn begin(
        &mut self,
        uuid: Uuid,
        collection: &Collection,
        _: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        self.open = self.naming.of(&collection.ns).map(|ns| {
            (uuid, Written { collection: Collection { ns, ..collection.clone() }, documents: Digest::EMPTY })
        });
        Ok(())
    }

    fn document(&mut self, _: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        let Some((uuid, written)) = &mut self.open else { return Ok(()) };
        let ns = &written.collection.ns;
        match owns(&self.part, &self.ownerships, *uuid, ns, document) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(why) => {
                self.failure = Some(why);
                return Err(SnapshotError::Stopped);
            }
        }
        if parts_of(ns).1 == VIEWS {
            if let Some(view) = self.naming.view(document) {
                written.documents.add(view.as_bytes());
            }
            return Ok(());
        }
        written.documents.add(document.as_bytes());
        Ok(())
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        self.written.extend(self.open.take());
        Ok(())
    }
}
