//! What a restore of a point in time would have written, without writing it: to be compared with a target that was
//! restored before, or by other means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bson::raw::RawDocument;
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::Options;
use stillpoint_core::verification::{PartVerification, Verification};
use stillpoint_fold::{Collection, Uuid};
use stillpoint_mongo::{Destination, PartLink};
use stillpoint_snapshot::{Digest, manifest};

use super::compare::{Stage, compare};
use super::load::{Trying, Written};
use super::plan::Plan;
use super::routing::{Routing, TABLES, absent};
use super::selection::Selection;
use super::{RestoreError, fold, merge, one_name_each};
use crate::snapshots::state::Sink;
use crate::snapshots::{Archive, SnapshotError, blocking};

/// For a target that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let ownerships = Arc::new(routing.ownerships()?);
    one_name_each(&plan, &shards, &ownerships)?;
    let mut written = BTreeMap::<PartId, BTreeMap<Uuid, Written>>::new();
    for (step, folded) in plan.loads().zip(shards) {
        let selection = plan.selection(step, &ownerships);
        let its = blocking(move || {
            let wants = selection.clone();
            let mut expecting = Expecting { selection, open: None, written: BTreeMap::new(), failure: None };
            let poured = folded.into(&mut expecting, &|uuid, one| wants.name(uuid, one).is_some());
            match (expecting.failure, poured) {
                (Some(why), _) => Ok(Err(why)),
                (None, Err(why)) => Err(why),
                (None, Ok(())) => Ok(Ok(expecting.written)),
            }
        });
        merge(written.entry(step.to.id.clone()).or_default(), its.await??);
    }
    let trying = Trying { stop: archive.stop.clone(), patience: PATIENCE };
    let none = BTreeMap::new();
    let mut parts = Vec::<PartVerification>::new();
    for target in plan.targets() {
        parts.push(match &target.id {
            PartId::ConfigServers => rows(target, &plan, &routing).await?,
            id => compare(target, written.get(id).unwrap_or(&none), &plan.naming, Stage::Finished, &trying).await?,
        });
    }
    if let (Some(mark), Some(part)) = (destination.marked().marked().await?, parts.first_mut()) {
        part.different
            .add("config.stillpoint.restore", format!("the target is marked by restore {mark}, which did not end"));
    }
    Ok(Verification { at: (archive.clock)(), time, parts })
}

/// Compares what the target's config servers know with what they would have been told.
async fn rows(config: &PartLink, plan: &Plan, routing: &Routing) -> Result<PartVerification, RestoreError> {
    let mut result = PartVerification::new(config.id.clone());
    for table in TABLES {
        let expected = routing.rows(table, &plan.naming, &plan.shards)?;
        let there = config.config_rows(table).await?;
        match absent(&expected, &there).count() {
            0 => {
                result.equal += 1;
                result.documents += expected.len() as u64;
            }
            missing => result.different.add(
                &format!("config.{table}"),
                format!("{missing} of {} rows are not there as they would have been written", expected.len()),
            ),
        }
    }
    Ok(result)
}

struct Expecting {
    selection: Selection,
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
        self.open = self.selection.name(uuid, collection).map(|ns| {
            (uuid, Written { collection: Collection { ns, ..collection.clone() }, documents: Digest::EMPTY })
        });
        Ok(())
    }

    fn document(&mut self, _: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        let Some((uuid, written)) = &mut self.open else { return Ok(()) };
        match self.selection.document(*uuid, &written.collection.ns, document) {
            Ok(None) => {}
            Ok(Some(document)) => written.documents.add(document.as_bytes()),
            Err(why) => {
                self.failure = Some(why);
                return Err(SnapshotError::Stopped);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        self.written.extend(self.open.take());
        Ok(())
    }
}
