use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::{Amount, Options, Part, Point, Restore, State, Target};

use super::*;
use crate::fixture::Fixture;

fn began() -> Timestamp {
    Timestamp::from_second(1_795_521_600).unwrap()
}

fn after(hours: i64) -> Timestamp {
    began() + SignedDuration::from_hours(hours)
}

struct World {
    fixture: Fixture,
    downloads: PathBuf,
}

impl World {
    async fn new() -> World {
        let fixture = Fixture::new(began()).await;
        let downloads = fixture.folder.path().join("downloads");
        std::fs::create_dir(&downloads).unwrap();
        World { fixture, downloads }
    }

    fn setup(&self, now: Timestamp) -> Setup {
        let Fixture { catalog, vault, .. } = &self.fixture;
        let mut setup = Setup::new(catalog.clone(), vault.clone(), Arc::new(move || now), "here".into());
        setup.restores.downloads = self.downloads.clone();
        setup
    }

    /// A restore that is in a state, with two parts whose files are there, one of them beside its place, too.
    async fn restore(&self, n: u64, state: State) -> Restore {
        let part = |job| Part {
            file: Some(File { name: "a".into(), bytes: 1, sha256: "00".into(), gone: None }),
            ..Part::new(RestoreId::new(began(), job), PartId::ConfigServers, Amount::default())
        };
        let (id, time) = (RestoreId::new(began(), 100 * n), ClusterTime::new(7, 1));
        let target = Target::Download { hours: 3 };
        let queued =
            Restore::queued(id, self.fixture.cluster.id, began(), Point::Time(time), time, target, Options::default());
        let restore = Restore {
            state,
            ended: state.ended().then(began),
            failure: (state == State::Broken).then(|| "no".into()),
            cancelled: state == State::Killed,
            parts: vec![part(100 * n + 1), part(100 * n + 2)],
            ..queued
        };
        self.fixture.catalog.queue_restore(&restore, None).await.unwrap();
        for part in &restore.parts {
            self.put(&File::stored_as(part.job));
        }
        self.put(&format!("{}{PARTIAL}", File::stored_as(restore.parts[0].job)));
        restore
    }

    fn put(&self, name: &str) {
        std::fs::write(self.downloads.join(name), "x").unwrap();
    }

    async fn swept(&self, now: Timestamp) -> (u64, Vec<String>) {
        let deleted = sweep_once(&self.setup(now)).await.unwrap();
        let names = std::fs::read_dir(&self.downloads).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        (deleted, names)
    }
}

fn places(restore: &Restore) -> Vec<String> {
    restore.parts.iter().map(|part| File::stored_as(part.job)).collect()
}

#[tokio::test]
async fn a_file_stays_while_its_restore_is_under_way_or_its_link_is_good() {
    let world = World::new().await;
    let ready = world.restore(1, State::Finished).await;
    let begun = world.restore(2, State::Loading).await;
    let mut expected = [places(&ready), places(&begun)].concat();
    expected.push(format!("{}{PARTIAL}", places(&begun)[0]));
    expected.sort();
    // What was left beside a file that is in its place is nobody's.
    assert_eq!(world.swept(after(2)).await, (1, expected.clone()));
    assert_eq!(world.swept(after(2)).await, (0, expected));

    // Its time is over: that is noted before the file goes.
    let (deleted, names) = world.swept(after(3)).await;
    assert!(deleted == 2 && names.len() == 3, "{names:?}");
    let noted = world.fixture.catalog.download(ready.parts[0].job).await.unwrap().unwrap();
    let gone: Vec<_> = noted.parts.iter().map(|part| part.file.as_ref().unwrap().gone).collect();
    assert_eq!(gone, [Some(Gone::Expired(after(3))); 2]);
}

#[tokio::test]
async fn what_was_downloaded_cancelled_broken_or_left_goes_and_nothing_else() {
    let world = World::new().await;
    for (n, state) in [(1, State::Killed), (2, State::Broken)] {
        world.restore(n, state).await;
    }
    let used = world.restore(3, State::Finished).await;
    world.fixture.catalog.end_download(used.parts[0].job, Gone::Downloaded(after(1))).await.unwrap();
    // Of a cluster that was removed, say.
    let nobody = File::stored_as(RestoreId::new(began(), 999));
    world.put(&nobody);
    world.put(&format!("{nobody}{PARTIAL}"));
    let others = ["notes.txt", "archive.gz", "7.archive.gz", ".archive.gz.partial"].map(str::to_owned);
    let similar = [nobody.replace(".gz", ""), nobody.replace(".gz", ".gz.old"), format!("a{nobody}")];
    let others: Vec<_> = others.into_iter().chain(similar).collect();
    others.iter().for_each(|name| world.put(name));
    let (_, names) = world.swept(after(1)).await;
    let mut expected = others;
    expected.push(places(&used)[1].clone());
    expected.sort();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn one_that_cannot_be_deleted_keeps_no_other() {
    let world = World::new().await;
    let of = |n| File::stored_as(RestoreId::new(began(), n));
    for n in 1..9 {
        world.put(&of(n));
    }
    std::fs::create_dir(world.downloads.join(of(9))).unwrap();
    sweep_once(&world.setup(after(0))).await.unwrap_err();
    let left: Vec<_> = std::fs::read_dir(&world.downloads).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [of(9).as_str()]);
}

#[tokio::test]
async fn a_folder_that_is_not_there_has_nothing_in_it() {
    let world = World::new().await;
    std::fs::remove_dir(&world.downloads).unwrap();
    assert_eq!(sweep_once(&world.setup(after(0))).await.unwrap(), 0);
    // One that cannot be read is told.
    std::fs::write(&world.downloads, "a file").unwrap();
    let failed = sweep_once(&world.setup(after(0))).await.unwrap_err().to_string();
    assert!(failed.contains("downloads"), "{failed}");
}
