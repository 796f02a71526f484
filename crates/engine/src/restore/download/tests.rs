use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use stillpoint_core::SnapshotId;
use stillpoint_core::restore::{Options, Part, Point, Target};
use stillpoint_core::snapshot::{self, Snapshot};
use stillpoint_core::stream::{BlobId, Stream};

use super::*;
use crate::Setup;
use crate::actions::Connection;
use crate::fixture::Fixture;
use crate::restore::how_far;

fn now() -> Timestamp {
    Timestamp::from_second(1_795_521_600).unwrap()
}

fn time() -> ClusterTime {
    ClusterTime::new(1_795_521_000, 3)
}

/// A cluster with a snapshot of one part, of which the vault has nothing, and a restore to its time that is queued.
async fn queued(bytes: u64) -> (Fixture, Run, Restore) {
    let fixture = Fixture::new(now()).await;
    let Fixture { folder, catalog, vault, cluster, lease } = &fixture;
    let part = PartId::ConfigServers;
    let stream = Stream {
        cluster: cluster.id,
        part: part.clone(),
        replica_set: "set".into(),
        from: ClusterTime::new(1, 1),
        complete_from: ClusterTime::new(1, 1),
        since: ClusterTime::new(1, 1),
        began: now(),
        ended: None,
        unresolved: None,
        kept_from: None,
    };
    catalog.begin_stream(lease, &stream, None).await.unwrap();
    let manifest = BlobId([7; 32]);
    let data = Data { manifest, at: time(), stream: time(), collections: 1, documents: 2, bytes, stored: 5 };
    let snapshot = Snapshot {
        state: snapshot::State::Completed,
        ended: Some(now()),
        cut: Some(time()),
        parts: vec![snapshot::Part { id: part.clone(), replica_set: "set".into(), read: None, data: Some(data) }],
        ..Snapshot::queued(SnapshotId::new(now(), 1), cluster.id, now())
    };
    catalog.queue_snapshot(&snapshot).await.unwrap();
    let part = Part::new(RestoreId::new(now(), 2), part, Amount::from(&data));
    let (id, point, target) = (RestoreId::new(now(), 1), Point::Time(time()), Target::Download { hours: 1 });
    let restore = Restore::queued(id, cluster.id, now(), point, time(), target, Options::default());
    let restore = Restore { parts: vec![part], ..restore };
    catalog.queue_restore(&restore, None).await.unwrap();
    let mut setup = Setup::new(catalog.clone(), vault.clone(), Arc::new(now), "here".into());
    setup.restores.downloads = folder.path().join("a").join("downloads");
    setup.restores.patience = Duration::ZERO;
    let connection = Arc::new(Connection::new(cluster.clone()));
    let run = Run { setup, lease: lease.clone(), connection };
    (fixture, run, restore)
}

async fn ended(run: &Run, restore: &Restore) -> Restore {
    run.to_the_end(restore.clone(), &CancellationToken::new()).await.unwrap();
    run.setup.catalog.restore(restore.cluster, restore.id).await.unwrap().unwrap()
}

#[tokio::test]
async fn files_that_do_not_fit_are_not_begun() {
    let (_fixture, run, restore) = queued(1 << 62).await;
    let ended = ended(&run, &restore).await;
    assert_eq!(ended.state, State::Broken);
    let failure = ended.failure.unwrap();
    for says in
        [&((1_u64 << 62) + SPARE).to_string(), "are free", "restore.downloads", "There is nothing to be downloaded"]
    {
        assert!(failure.contains(says), "{failure}");
    }
}

#[tokio::test]
async fn what_was_written_of_a_file_that_is_begun_anew_is_no_progress() {
    let (_fixture, _run, queued) = queued(5).await;
    let loading = Restore { state: State::Loading, ..queued };
    let mut more = loading.clone();
    more.parts[0].written.documents = 9;
    assert_eq!(how_far(&more), how_far(&loading), "on a full disk it would be written for ever");
    more.parts[0].file = Some(Ready { name: "a".into(), bytes: 1, sha256: "00".into(), gone: None });
    assert_ne!(how_far(&more), how_far(&loading));
    let target = Target::Hosts("host:1".into());
    let (into, mut more) = (Restore { target: target.clone(), ..loading.clone() }, Restore { target, ..loading });
    more.parts[0].written.documents = 9;
    assert_ne!(how_far(&more), how_far(&into));
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named() {
    let (fixture, run, restore) = queued(5).await;
    std::fs::write(fixture.folder.path().join("a"), "a file").unwrap();
    let failure = ended(&run, &restore).await.failure.unwrap();
    assert!(failure.contains("a/downloads cannot be used") && failure.contains("restore.downloads"), "{failure}");
}

/// It may be somebody else's: its mode is the operator's to change.
#[tokio::test]
async fn a_folder_that_others_may_look_into_is_not_used() {
    let (_fixture, run, restore) = queued(5).await;
    let folder = run.setup.restores.downloads.clone();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o750)).unwrap();
    let failure = ended(&run, &restore).await.failure.unwrap();
    assert!(failure.contains("mode 750") && failure.contains("chmod 700"), "{failure}");
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o750);
}

#[tokio::test]
async fn what_breaks_leaves_no_file() {
    let (_fixture, run, restore) = queued(5).await;
    let folder = run.setup.restores.downloads.clone();
    make_folder(&folder).unwrap();
    let (place, partial) = places(&folder, restore.parts[0].job);
    for path in [&place, &partial] {
        std::fs::write(path, "of a process that was killed").unwrap();
    }
    let ended = ended(&run, &restore).await;
    assert_eq!(ended.state, State::Broken, "its snapshot is not in the vault: {:?}", ended.failure);
    assert!(!place.exists() && !partial.exists());
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn one_that_is_cancelled_is_not_made() {
    let (fixture, run, restore) = queued(5).await;
    let lease = &fixture.lease;
    let checking = Restore { state: State::Checking, ..restore.clone() };
    fixture.catalog.save_restore(lease, &checking, &[]).await.unwrap();
    fixture.catalog.cancel_restore(restore.cluster, restore.id, now()).await.unwrap();
    assert_eq!(ended(&run, &checking).await.state, State::Killed);
}

#[test]
fn a_files_name_tells_whose_it_is_and_has_nothing_odd_in_it() {
    let shard = PartId::Shard("a/b \"c\"\r\n".into());
    assert_eq!(told_name("Clüster 0", &shard, time()), "Cl_ster_0-a_b__c___-1795521000-3.archive.gz");
    assert_eq!(told_name("C", &PartId::ConfigServers, time()), "C-config-1795521000-3.archive.gz");
}

#[test]
fn a_file_is_measured_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut measured = Measured { file: File::create(&path).unwrap(), bytes: 0, hash: Context::new(&SHA256) };
    for piece in ["abc", "", "defg"] {
        measured.write_all(piece.as_bytes()).unwrap();
    }
    let Measured { bytes, hash, .. } = measured;
    // As `printf abcdefg | sha256sum` says.
    let expected = "7d1a54127b222502f5b79b5fb0803061152a44f92b37e23c6527baf665d4da9a";
    assert_eq!((bytes, hex::encode(hash.finish()).as_str()), (7, expected));
    assert_eq!(fs::read(&path).unwrap(), b"abcdefg");
}
