//! The bank: money only moves between accounts, so at every time there is as much as at the beginning. Each
//! checkpoint is folded from what is stored, and counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bson::raw::RawDocument;
use jiff::Timestamp;
use stillpoint_catalog::Catalog;
use stillpoint_core::SnapshotId;
use stillpoint_core::checkpoint::{Checkpoint, PartId, State};
use stillpoint_core::snapshot::{self, Snapshot};
use stillpoint_core::verification::Verdict;
use stillpoint_engine::snapshots::check::check;
use stillpoint_engine::snapshots::find::Finder;
use stillpoint_engine::snapshots::state::Room;
use stillpoint_engine::snapshots::verify::{compare, stored};
use stillpoint_engine::snapshots::{Archive, SnapshotError, blocking};
use stillpoint_engine::stored::Check;
use stillpoint_lab::Lab;
use stillpoint_lab::wait::until;
use stillpoint_mongo::ClusterLink;
use stillpoint_vault::Vault;

use crate::support::{NS, Server};

const LIMIT: Duration = Duration::from_secs(180);

#[expect(clippy::disallowed_methods, reason = "records of a test are of now")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Asks for a snapshot, unless one is under way.
pub async fn ask(server: &Server) {
    let catalog = server.catalog();
    if catalog.unfinished_snapshot(server.cluster()).await.unwrap().is_none() {
        let id = SnapshotId::new(now(), rand::random());
        catalog.queue_snapshot(&Snapshot::queued(id, server.cluster(), now())).await.unwrap();
    }
}

/// Waits until none is under way, and gives all that there are.
pub async fn settled(server: &Server) -> Vec<Snapshot> {
    let catalog = server.catalog();
    let unfinished = || async { catalog.unfinished_snapshot(server.cluster()).await.unwrap() };
    let ended = until(LIMIT, || async { unfinished().await.is_none().then_some(()) }).await;
    if ended.is_none() {
        panic!("{:?}\n{}", unfinished().await, server.log());
    }
    catalog.snapshots(server.cluster(), stillpoint_catalog::Page::ALL).await.unwrap()
}

/// The money that a part's accounts have at a time.
async fn money(archive: &Archive, part: &PartId, checkpoint: &Checkpoint) -> i64 {
    let time = checkpoint.cut.unwrap();
    let base = archive.base(part, time).unwrap_or_else(|why| panic!("{} {part}: {why:?}", checkpoint.id));
    let source = archive.source(part, &base, time).await.unwrap();
    let counted = blocking(move || {
        let mut money = 0;
        let mut finder = Finder::new(None, |_, document: &RawDocument| {
            if document.get_str("kind").is_ok_and(|kind| kind == "account") {
                money += document
                    .get_i64("balance")
                    .map_err(|why| SnapshotError::Document { ns: NS.into(), why: why.to_string() })?;
            }
            Ok(())
        });
        source.at(time)?.into(&mut finder, &|_, collection| collection.ns == NS)?;
        Ok(money)
    });
    counted.await.unwrap()
}

/// Reads everything: what a fault of the vault made look damaged is whole, and is no longer said to be damaged.
pub async fn is_whole(server: &Server, vault: &Vault) {
    let catalog = Arc::new(server.catalog());
    let segments = Check { catalog: catalog.clone(), vault: Arc::new(vault.clone()), clock: Arc::new(now) };
    let report = segments.run(None, |_| ()).await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    report.mended.iter().for_each(|(_, gap)| eprintln!("looked damaged, and is whole: {gap}"));
    let checked = check(&*catalog, vault, None, |_| ()).await.unwrap();
    assert!(checked.damaged.is_empty(), "{checked:?}");
}

/// Counts the money at each completed checkpoint, and compares the last with the cluster; how many there were.
pub async fn count(lab: &Lab, server: &Server, vault: &Vault, records: &[Checkpoint], total: i64) -> usize {
    let catalog = Arc::new(server.catalog());
    for snapshot in settled(server).await {
        if snapshot.state == snapshot::State::Failed {
            eprintln!("snapshot {} failed: {:?}", snapshot.id, snapshot.failure);
        }
    }
    let room = Room::new(64 << 20, server.folder().to_owned());
    let archive = Archive::open(catalog, vault.clone(), Arc::new(now), server.cluster(), room).await.unwrap();
    let completed: Vec<_> = records.iter().filter(|record| record.state == State::Completed).collect();
    for checkpoint in &completed {
        let mut of = BTreeMap::new();
        for part in checkpoint.parts.iter().filter(|part| part.id != PartId::ConfigServers) {
            of.insert(part.id.clone(), money(&archive, &part.id, checkpoint).await);
        }
        assert_eq!(of.values().sum::<i64>(), total, "checkpoint {}: {of:?}", checkpoint.id);
    }
    let newest = completed.iter().max_by_key(|checkpoint| checkpoint.cut).unwrap();
    let cluster = ClusterLink::connect(&lab.uri().into()).await.unwrap();
    for link in cluster.parts().await.unwrap() {
        let cut = newest.cut.unwrap();
        let base = archive.base(&link.id, cut).unwrap();
        let stored = stored(archive.source(&link.id, &base, cut).await.unwrap(), cut).await.unwrap();
        let compared = compare(&stored, &link, cut).await.unwrap();
        assert_eq!(compared.verdict(), Verdict::Equal, "{compared:?}");
    }
    completed.len()
}
