//! Documents that a shard has and does not own are in no export and are not printed, unless they are asked for.

use bson::{Document, doc};
use stillpoint_catalog::Catalog;
use stillpoint_core::SnapshotId;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::File;
use stillpoint_lab::wire::majority;
use stillpoint_lab::{Lab, ReplicaSet};

use crate::archive::{Archive, bytes_of};
use crate::captured::server_of;
use crate::downloads::{folder, unpacked};
use crate::snapshots::{ask, complete, of, split};
use crate::support::{NS, Server, hold_migration, lab};

/// What each shard owns, whatever is moved: the chunk from 1000 on is the second's.
const FIRST: std::ops::Range<i32> = -50..0;
const SECOND: [std::ops::Range<i32>; 2] = [0..70, 1000..1040];

fn second() -> Vec<i32> {
    SECOND.into_iter().flatten().collect()
}

async fn insert(set: &ReplicaSet, db: &str, name: &str, ids: impl IntoIterator<Item = i32>) {
    let documents: Vec<_> = ids.into_iter().map(|id| doc! {"_id": id}).collect();
    set.run(db, doc! {"insert": name, "documents": documents}).await.unwrap();
}

fn ids(documents: &[impl AsRef<[u8]>]) -> Vec<i32> {
    let mut ids: Vec<_> =
        documents.iter().map(|one| Document::from_reader(one.as_ref()).unwrap().get_i32("_id").unwrap()).collect();
    ids.sort_unstable();
    ids
}

/// The first shard's export holds these of the sharded collection and leaves out so many, as files, as an archive and
/// printed; the second's is what it owns.
async fn holds(server: &Server, snapshot: SnapshotId, more: &[&'static str], first: &[i32], left_out: usize) {
    let id: &'static str = snapshot.to_string().leak();
    let name = format!("{id}{}", more.concat());
    let path: &'static str = server.folder().join(name).to_str().unwrap().to_owned().leak();
    let args = |command, args: &[&'static str]| of(command, &[&["--snapshot", id], args, more].concat());
    let exported = server.json(&args("export", &["--out", path])).await;
    let (db, name) = NS.split_once('.').unwrap();
    for (shard, expected, left_out) in [("rs0", first, left_out), ("rs1", &second()[..], 0)] {
        let file = std::fs::read(format!("{path}/{shard}/{db}/{name}.bson")).unwrap();
        assert_eq!(ids(&split(&file)), expected, "{shard}");
        let part = exported["parts"].as_array().unwrap().iter().find(|part| part["part"] == shard).unwrap();
        assert_eq!(part["orphans"], left_out, "{part}");
    }
    // What is not sharded has no orphans, nor have the config servers.
    let plain = std::fs::read(format!("{path}/rs0/{db}/plain.bson")).unwrap();
    assert_eq!(ids(&split(&plain)), (0..30).collect::<Vec<_>>());
    assert!(std::fs::metadata(format!("{path}/config/config/chunks.bson")).unwrap().len() > 0);

    let archive = bytes_of(server, &args("export", &["--part", "rs0", "--archive", "-"])).await;
    let archive = Archive::read(&archive);
    assert_eq!(ids(archive.documents(db, name)), first);
    assert_eq!(ids(archive.documents(db, "plain")).len(), 30);

    let printed = String::from_utf8(bytes_of(server, &args("cat", &["--ns", NS])).await).unwrap();
    assert_eq!(printed.lines().count(), first.len() + second().len());
}

/// The first shard's file that is to be downloaded.
async fn file(server: &Server, snapshot: SnapshotId) -> Archive {
    let asked = server.json(&of("restore", &["--snapshot", snapshot.to_string().leak(), "--download"])).await;
    let id = asked["id"].as_str().unwrap().parse().unwrap();
    let restore = server.catalog().restore(server.cluster(), id).await.unwrap().unwrap();
    let part = restore.parts.iter().find(|part| part.id == PartId::Shard("rs0".into())).unwrap();
    unpacked(&std::fs::read(folder(server).join(File::stored_as(part.job))).unwrap())
}

#[tokio::test]
async fn what_a_migration_copied_or_left_behind_is_not_exported() {
    let lab: Lab = lab().await;
    let (db, name) = NS.split_once('.').unwrap();
    insert(lab.shard(0), db, name, FIRST).await;
    insert(lab.shard(1), db, name, second()).await;
    insert(lab.shard(0), db, "plain", 0..30).await;
    let (server, _) = server_of(&lab).await;
    let owned: Vec<_> = FIRST.collect();
    let all: Vec<_> = FIRST.chain(1000..1040).collect();

    // Copied to the first shard, and not yet its own.
    let migration = hold_migration(&lab).await;
    let copied = complete(&server, ask(&server).await).await.id;
    migration.release().await.unwrap();
    // Moved back to the second, and not yet deleted from the first.
    let back = doc! {
        "_configsvrMoveRange": NS, "toShard": "rs1", "min": {"_id": 1000}, "waitForDelete": false,
        "writeConcern": majority(),
    };
    lab.config().run("admin", back).await.unwrap();
    let left = complete(&server, ask(&server).await).await.id;
    for snapshot in [copied, left] {
        holds(&server, snapshot, &[], &owned, 40).await;
        holds(&server, snapshot, &["--with-orphans"], &all, 0).await;
        assert_eq!(ids(file(&server, snapshot).await.documents(db, name)), owned);
        let id: &'static str = snapshot.to_string().leak();
        let one = of("cat", &["--snapshot", id, "--ns", NS, "--id", "1007", "--part", "rs0"]);
        let refused = server.run(&one, &[]).await;
        assert!(!refused.status.success() && refused.err.contains("--with-orphans prints it"), "{}", refused.err);
        assert_eq!(refused.out, "");
        let printed = bytes_of(&server, &[&one[..], &["--with-orphans"]].concat()).await;
        assert_eq!(String::from_utf8(printed).unwrap().lines().count(), 1);
    }
}
