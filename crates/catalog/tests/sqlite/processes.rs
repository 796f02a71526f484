//! Several handles, threads and processes on one file, and processes that are killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use stillpoint_catalog::{Catalog, CatalogError, Page, Project, Result};
use stillpoint_core::ProjectId;
use stillpoint_core::stream::Segment;

use crate::conformance::{
    NOON, assert_stored, at, completed, every_segment, project, queued, run_of, segment, token, with_cluster,
    with_project, with_stream,
};
use crate::{Place, paths};

/// Set for a child: what it does, and the folder of the catalog.
const PART: &str = "STILLPOINT_CATALOG_PART";
const FOLDER: &str = "STILLPOINT_CATALOG_FOLDER";

/// Not a test of its own: what the tests below run in other processes.
#[tokio::test]
async fn child() {
    let Ok(part) = std::env::var(PART) else { return };
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    match part.as_str() {
        "write" => write_for_ever(&folder).await,
        "append" => append_for_ever(&folder).await,
        "lock" => lock(&folder),
        "open" => open_when_told(&folder).await,
        other => panic!("{other}"),
    }
}

/// A child of this test that is killed, if need be, when it is dropped.
struct Other {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Other {
    fn start(part: &str, folder: &Path) -> Other {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::child", "--nocapture"])
            .env(PART, part)
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Other { process, lines }
    }

    /// The rest of its next line that begins with `head`.
    fn next(&mut self, head: &str) -> Option<String> {
        self.lines.by_ref().map_while(|line| line.ok()).find_map(|line| line.strip_prefix(head).map(str::to_owned))
    }

    /// Kills it in the middle of the writes after the first `n`, and gives all that it said are done.
    fn kill_9_after(mut self, n: usize, pause: Duration) -> Vec<String> {
        // A line that is cut off has no full stop.
        let mut said: Vec<_> = self.acknowledged().take(n).collect();
        std::thread::sleep(pause);
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        // What it said until then is still in the pipe.
        said.extend(self.acknowledged());
        said
    }

    fn acknowledged(&mut self) -> impl Iterator<Item = String> {
        self.lines.by_ref().map_while(|line| line.ok()).filter_map(|line| line.strip_suffix('.').map(str::to_owned))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn on_a_thread<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> std::thread::JoinHandle<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime.block_on(task))
}

/// Runs `work` on two handles of its own at the same moment, and gives both answers.
fn at_once<T, F, W>(place: &Place, work: W) -> Vec<Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send,
    W: Fn(stillpoint_catalog::sqlite::SqliteCatalog, u64) -> F + Clone + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(2));
    let threads: Vec<_> = (0..2)
        .map(|n| {
            let (catalog, barrier, work) = (place.open().unwrap(), barrier.clone(), work.clone());
            on_a_thread(async move {
                barrier.wait();
                work(catalog, n).await
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[tokio::test]
async fn of_two_checkpoints_queued_at_once_one_wins() {
    let place = Place::empty();
    let catalog = place.open().unwrap();
    let (_, cluster) = with_cluster(&catalog).await;
    for round in 0..20 {
        let of = cluster.clone();
        let answers = at_once(&place, move |catalog, n| {
            let checkpoint = queued(&of, round * 2 + n as i64);
            async move { catalog.queue_checkpoint(&checkpoint).await.map(|()| checkpoint.id) }
        });
        let won: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        let [won] = won[..] else { panic!("{answers:?}") };
        let lost = answers.iter().find_map(|answer| answer.as_ref().err()).unwrap();
        assert!(matches!(lost, CatalogError::CheckpointUnderWay(id) if id == won), "{lost}");
        assert_eq!(catalog.count_checkpoints(cluster.id).await.unwrap(), 1);
        assert!(catalog.withdraw_checkpoint(cluster.id, *won).await.unwrap());
    }
}

#[tokio::test]
async fn of_two_projects_of_one_name_made_at_once_one_wins() {
    let place = Place::empty();
    let catalog = place.open().unwrap();
    for round in 0..20 {
        let answers = at_once(&place, move |catalog, n| {
            let (id, name) = (ProjectId::new(at(round), n), format!("p{round:02}"));
            async move { catalog.create_project(&Project { id, name, ..project(&catalog, 1).await }).await }
        });
        let lost: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert!(matches!(lost[..], [CatalogError::Duplicate { .. }]), "{answers:?}");
    }
    assert_eq!(catalog.projects().await.unwrap().len(), 20);
}

#[tokio::test]
async fn of_two_claims_at_once_one_gets_the_lease() {
    let place = Place::empty();
    let catalog = place.open().unwrap();
    let (_, cluster) = with_cluster(&catalog).await;
    for round in 0..20 {
        let now = at(round * 100);
        let answers = at_once(&place, move |catalog, n| async move {
            catalog.claim_lease(cluster.id, &format!("holder {n}"), now, Duration::from_secs(60)).await
        });
        let given = answers.into_iter().filter_map(|answer| answer.unwrap()).collect::<Vec<_>>();
        assert_eq!(given.len(), 1, "{given:?}");
        assert_eq!(given[0].epoch, round as u64 + 1);
    }
}

/// One task reads and writes in a loop on each of four handles: nobody sees "busy", nothing is lost.
#[tokio::test]
async fn many_writers_and_readers_wait_for_each_other() {
    const WRITES: u64 = 40;
    let place = Place::empty();
    let catalog = place.open().unwrap();
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let catalog = place.open().unwrap();
            on_a_thread(async move {
                for i in 0..WRITES {
                    let (id, name) = (ProjectId::new(at(0), n * WRITES + i), format!("{n}-{i}"));
                    let project = Project { id, name, ..project(&catalog, 1).await };
                    catalog.create_project(&project).await.unwrap();
                    assert_eq!(catalog.project(project.id).await.unwrap(), Some(project));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(catalog.projects().await.unwrap().len() as u64, 4 * WRITES);
}

/// Opens a catalog as soon as the file `go` is there, and makes the project `shared` and one of its own.
async fn open_when_told(folder: &Path) {
    println!("ready");
    while !folder.join("go").exists() {
        std::thread::sleep(Duration::from_micros(200));
    }
    let (catalog, key) = paths(folder);
    let catalog = stillpoint_catalog::sqlite::SqliteCatalog::open_with_key_file(&catalog, &key).unwrap();
    let chance = u64::from(std::process::id());
    let project = project(&catalog, 1).await;
    let shared = Project { id: ProjectId::new(at(0), chance), name: "shared".into(), ..project.clone() };
    let won = match catalog.create_project(&shared).await {
        Ok(()) => "won",
        Err(CatalogError::Duplicate { .. }) => "lost",
        Err(e) => panic!("{e}"),
    };
    let own = Project { id: ProjectId::new(at(1), chance), name: chance.to_string(), ..project };
    catalog.create_project(&own).await.unwrap();
    println!("{won}");
}

#[tokio::test]
async fn processes_that_start_at_once_make_one_catalog_and_one_key() {
    const PROCESSES: usize = 5;
    for _ in 0..3 {
        let place = Place::empty();
        let mut others: Vec<_> = (0..PROCESSES).map(|_| Other::start("open", place.folder.path())).collect();
        for other in &mut others {
            other.next("ready").unwrap();
        }
        std::fs::write(place.folder.path().join("go"), "").unwrap();
        let mut won = 0;
        for other in &mut others {
            won += usize::from(other.next("won").is_some());
            assert!(other.process.wait().unwrap().success());
        }
        assert_eq!(won, 1);
        assert_eq!(place.open().unwrap().projects().await.unwrap().len(), PROCESSES + 1);
    }
}

const LOCKED: Duration = Duration::from_secs(2);

/// Holds the catalog's write lock for a while, as a slow writer does.
fn lock(folder: &Path) {
    let raw = rusqlite::Connection::open(paths(folder).0).unwrap();
    raw.execute_batch("BEGIN IMMEDIATE").unwrap();
    println!("locked");
    std::thread::sleep(LOCKED);
    raw.execute_batch("COMMIT").unwrap();
}

#[tokio::test]
async fn a_write_waits_for_another_processs() {
    let place = Place::empty();
    let catalog = place.open().unwrap();
    let mut other = Other::start("lock", place.folder.path());
    other.next("locked").unwrap();
    let since = Instant::now();
    assert_eq!(catalog.projects().await.unwrap(), []);
    assert!(since.elapsed() < LOCKED / 2, "reads wait for nobody");
    // Opening writes too, should there be something to bring up to date.
    with_project(&place.open().unwrap(), 1).await;
    with_project(&catalog, 2).await;
    assert!(since.elapsed() > LOCKED / 2, "the lock was not there");
}

/// Saves checkpoints, one after the other, and says so once each is kept.
async fn write_for_ever(folder: &Path) {
    let (catalog, key) = paths(folder);
    let catalog = stillpoint_catalog::sqlite::SqliteCatalog::open_with_key_file(&catalog, &key).unwrap();
    let cluster = catalog.clusters(None).await.unwrap().remove(0);
    let lease = catalog.claim_lease(cluster.id, "victim", at(0), Duration::from_secs(1)).await.unwrap().unwrap();
    for second in catalog.count_checkpoints(cluster.id).await.unwrap() as i64.. {
        catalog.queue_checkpoint(&queued(&cluster, second)).await.unwrap();
        println!("queued {second}.");
        catalog.save_checkpoint(&lease, &completed(&cluster, second)).await.unwrap();
        println!("saved {second}.");
    }
}

#[tokio::test]
async fn after_kill_9_every_acknowledged_write_is_there() {
    let place = Place::empty();
    let (_, cluster) = with_cluster(&place.open().unwrap()).await;
    for round in 0..4 {
        let before = place.open().unwrap().count_checkpoints(cluster.id).await.unwrap() as usize;
        let victim = Other::start("write", place.folder.path());
        // Not always at the same point of a write.
        let said = victim.kill_9_after(6 + round, Duration::from_micros(700 * round as u64));
        assert!(said.len() >= 6 + round, "{said:?}");

        let catalog = place.open().unwrap();
        let found = catalog.checkpoints(cluster.id, Page { skip: 0, take: u64::MAX }).await.unwrap();
        for line in &said {
            let (verb, second) = line.split_once(' ').unwrap();
            let second: i64 = second.parse().unwrap();
            let kept = found.iter().find(|checkpoint| checkpoint.started.as_second() - NOON == second);
            let kept = kept.unwrap_or_else(|| panic!("{line} is lost"));
            assert!(verb == "queued" || *kept == completed(&cluster, second), "{line} is lost: {kept:?}");
        }
        let queued = said.iter().filter(|line| line.starts_with("queued")).count();
        // The write that was under way may be there too, and no other.
        assert!((before + queued..=before + queued + 1).contains(&found.len()), "{said:?} {}", found.len());
        if let Some(unfinished) = catalog.unfinished_checkpoint(cluster.id).await.unwrap() {
            assert!(catalog.withdraw_checkpoint(cluster.id, unfinished.id).await.unwrap());
        }
        assert_sound(&place, &cluster.id.to_string());
    }
}

/// Goes on with the stream from where it is, and says so once each segment is kept.
async fn append_for_ever(folder: &Path) {
    let (catalog, key) = paths(folder);
    let catalog = stillpoint_catalog::sqlite::SqliteCatalog::open_with_key_file(&catalog, &key).unwrap();
    let cluster = catalog.clusters(None).await.unwrap().remove(0);
    let part = catalog.streams(cluster.id).await.unwrap().remove(0).part;
    let lease = catalog.claim_lease(cluster.id, "a", at(0), Duration::from_secs(1)).await.unwrap().unwrap();
    let mut last = catalog.last_segment(cluster.id, &part).await.unwrap();
    for n in catalog.segment_totals(cluster.id, &part).await.unwrap().segments as i64.. {
        let tokens = vec![token(&cluster, n as u32, 10 * n)];
        let next = Segment { tokens, ..segment(&cluster, &part, last.as_ref(), n) };
        catalog.append_segment(&lease, &next).await.unwrap();
        println!("appended {n}.");
        last = Some(next);
    }
}

#[tokio::test]
async fn after_kill_9_a_stream_has_no_hole_and_goes_on() {
    let place = Place::empty();
    let (cluster, _, part) = with_stream(&place.open().unwrap()).await;
    let mut before = 0;
    for round in 0..4 {
        let victim = Other::start("append", place.folder.path());
        let said = victim.kill_9_after(6 + round, Duration::from_micros(700 * round as u64));
        assert!(said.len() >= 6 + round, "{said:?}");

        let catalog = place.open().unwrap();
        let found = every_segment(&catalog, &cluster, &part).await;
        // The one that was under way may be there too, and no other.
        assert!((before + said.len()..=before + said.len() + 1).contains(&found.len()), "{said:?} {}", found.len());
        let tokens = (0..found.len() as i64).map(|n| token(&cluster, n as u32, 10 * n)).collect::<Vec<_>>();
        let mut expected = run_of(&cluster, &part, None, 0..found.len() as i64);
        expected.iter_mut().zip(&tokens).for_each(|(segment, token)| segment.tokens = vec![token.clone()]);
        assert_stored(&catalog, &cluster, &part, &expected).await;
        assert_eq!(catalog.last_segment(cluster.id, &part).await.unwrap().as_ref(), expected.last());
        let stored = catalog.stored_tokens(cluster.id, tokens[0].checkpoint).await.unwrap();
        assert!(stored.iter().map(|(_, token)| token).eq(&tokens), "{stored:?}");
        assert_sound(&place, &cluster.id.to_string());
        before = found.len();
    }
}

fn assert_sound(place: &Place, cluster: &str) {
    let raw = rusqlite::Connection::open(&place.catalog).unwrap();
    let verdict: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let torn: i64 = raw
        .query_row(
            "SELECT count(*) FROM checkpoints WHERE cluster = ?1 AND ended <> (record ->> 'state' IN ('COMPLETED', 'FAILED'))",
            [cluster],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(torn, 0, "a row and its record disagree");
}
