//! The point in time that a command is about, and what is stored of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use stillpoint_catalog::{Catalog, Cluster};
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::coverage::Obstacle;
use stillpoint_core::snapshot::Data;
use stillpoint_core::wanted::{is_wanted, missing};
use stillpoint_engine::snapshots::Archive;
use stillpoint_engine::snapshots::owners::{self, Ownerships};

use crate::cli::{OfCluster, PointArgs, TimeArgs, ToArgs};
use crate::config::Config;
use crate::context::{now, of_cluster, open_catalog, open_vault};
use crate::error::CliError;

/// A point in time that can be read.
pub struct Point {
    pub cluster: Cluster,
    pub time: ClusterTime,
    pub archive: Archive,
    pub catalog: Arc<dyn Catalog>,
    /// What each part goes on from.
    pub parts: Parts,
}

/// What is stored of a cluster, and how its user calls it.
struct Stored {
    cluster: Cluster,
    archive: Archive,
    catalog: Arc<dyn Catalog>,
    /// Completes `stillpoint checkpoint list`.
    of: String,
}

/// What each part goes on from to a time.
type Parts = Vec<(PartId, Data)>;

impl Stored {
    async fn open(config: &Config, of: &OfCluster) -> Result<Stored, CliError> {
        let catalog = open_catalog(config)?;
        let (project, cluster) = of_cluster(&*catalog, of).await?;
        let vault = open_vault(config, &*catalog).await?;
        let room = config.snapshots()?.room;
        let archive = Archive::open(catalog.clone(), vault, Arc::new(now), cluster.id, room).await?;
        let of = format!("--project {} --cluster {}", project.name, cluster.name);
        Ok(Stored { cluster, archive, catalog, of })
    }

    /// The time that is named, and the parts that the cluster had then.
    async fn named(&self, args: &TimeArgs) -> Result<(ClusterTime, Vec<PartId>), CliError> {
        let list = |what: &str| format!("{what} list {}", self.of);
        let missing = |kind, name: String| CliError::NotFound { kind, name, list: list(kind) };
        let no_time = |what: String| CliError::Failed(format!("{what} has no time to go back to: it did not complete"));
        let (time, parts) = match (args.checkpoint, args.snapshot, args.at) {
            (Some(id), ..) => {
                let found = self.catalog.checkpoint(self.cluster.id, id).await?;
                let found = found.ok_or_else(|| missing("checkpoint", id.to_string()))?;
                let time = found.cut.filter(|_| found.completed().is_some());
                let time = time.ok_or_else(|| no_time(format!("checkpoint {id}")))?;
                (time, found.parts.into_iter().map(|part| part.id).collect())
            }
            (_, Some(id), _) => {
                let found = self.catalog.snapshot(self.cluster.id, id).await?;
                let found = found.ok_or_else(|| missing("snapshot", id.to_string()))?;
                let time = found.cut.filter(|_| found.is_complete());
                let time = time.ok_or_else(|| no_time(format!("snapshot {id}")))?;
                (time, found.parts.into_iter().map(|part| part.id).collect())
            }
            (_, _, Some(at)) => (at.0, self.archive.parts(at.0)),
            // The grammar asks for one of them.
            _ => return Err(CliError::Usage("name a checkpoint, a snapshot or a time".into())),
        };
        if parts.is_empty() {
            let list = list("snapshot");
            return Err(CliError::Failed(format!(
                "no snapshot is as of {time} or before; `stillpoint {list}` lists them"
            )));
        }
        Ok((time, parts))
    }

    /// Refused if the cluster has none of such a name.
    fn check(&self, only: &[String], parts: &[PartId]) -> Result<(), CliError> {
        if let Some(unknown) = only.iter().find(|name| !parts.iter().any(|part| part.name() == name.as_str())) {
            let there: Vec<_> = parts.iter().map(PartId::name).collect();
            return Err(CliError::Failed(format!(
                "{} has no part {unknown:?}; it has {}",
                self.cluster.name,
                there.join(", ")
            )));
        }
        Ok(())
    }

    /// What is stored of those that are wanted; refused with the reason if one cannot be restored.
    fn bases(&self, time: ClusterTime, parts: Vec<PartId>, only: &[String]) -> Result<Parts, CliError> {
        let (mut found, mut obstacles) = (Vec::new(), Vec::new());
        for part in parts {
            if !only.is_empty() && !only.iter().any(|name| part.name() == name.as_str()) {
                continue;
            }
            match self.archive.base(&part, time) {
                Ok(base) => found.push((part, base)),
                Err(why) => obstacles.extend(why),
            }
        }
        if !obstacles.is_empty() {
            return Err(CliError::Failed(format!("{time} cannot be restored: {}", Obstacle::all(&obstacles))));
        }
        Ok(found)
    }
}

impl Point {
    /// Opens it; refused with the reason if it cannot be restored, or with `only`, that part of it.
    pub async fn open(config: &Config, args: &PointArgs, only: &[String]) -> Result<Point, CliError> {
        let stored = Stored::open(config, &args.of).await?;
        let (time, parts) = stored.named(&args.time).await?;
        stored.check(only, &parts)?;
        let parts = stored.bases(time, parts, only)?;
        let Stored { cluster, archive, catalog, .. } = stored;
        Ok(Point { cluster, time, archive, catalog, parts })
    }

    /// Who owned what then of the sharded collections, as far as that matters: not of the config servers' own data,
    /// nor if orphans are wanted, too.
    pub async fn ownerships(&self, with_orphans: bool) -> Result<Arc<Ownerships>, CliError> {
        if with_orphans || self.parts.iter().all(|(part, _)| *part == PartId::ConfigServers) {
            return Ok(Arc::default());
        }
        let found = owners::at(&self.archive, self.time).await;
        found.map(Arc::new).map_err(|why| match why.is_lasting() {
            true => CliError::Failed(format!("{why}. --with-orphans gives all that the shards had, whoever owned it")),
            false => why.into(),
        })
    }
}

/// For a line that tells how many documents there were.
pub fn without(orphans: u64) -> String {
    if orphans == 0 { String::new() } else { format!(", without {orphans} orphans") }
}

/// Two points in time of one cluster that can be read.
pub struct Points {
    pub archive: Archive,
    pub from: ClusterTime,
    pub to: ClusterTime,
    /// By their names; what each goes on from to both times, if it was there.
    pub parts: BTreeMap<PartId, [Option<Data>; 2]>,
}

impl Points {
    /// Opens both, as [`Point::open`] does one. A part need not have been there at both.
    pub async fn open(config: &Config, args: &PointArgs, to: &ToArgs, only: &[String]) -> Result<Points, CliError> {
        let stored = Stored::open(config, &args.of).await?;
        let (from, was) = stored.named(&args.time).await?;
        let (to, is) = stored.named(&to.time()).await?;
        let mut all = [was.clone(), is.clone()].concat();
        all.sort();
        all.dedup();
        stored.check(only, &all)?;
        let mut parts: BTreeMap<PartId, [Option<Data>; 2]> = BTreeMap::new();
        for (side, time, there) in [(0, from, was), (1, to, is)] {
            for (part, base) in stored.bases(time, there, only)? {
                parts.entry(part).or_default()[side] = Some(base);
            }
        }
        Ok(Points { archive: stored.archive, from, to, parts })
    }
}

/// What was asked for with `--only`, and what there was to be asked for.
#[derive(Clone)]
pub struct Only {
    names: Vec<String>,
    there: Arc<Mutex<BTreeSet<String>>>,
}

impl Only {
    pub fn new(names: Vec<String>) -> Only {
        Only { names, there: Arc::default() }
    }

    pub fn wants(&self, ns: &str) -> bool {
        if !self.names.is_empty() {
            self.there.lock().unwrap_or_else(PoisonError::into_inner).insert(ns.to_owned());
        }
        is_wanted(&self.names, ns)
    }

    /// Refused if nothing of all that was seen is called so.
    pub fn check(&self) -> Result<(), CliError> {
        match missing(&self.names, &self.there.lock().unwrap_or_else(PoisonError::into_inner)) {
            Some(why) => Err(CliError::Failed(format!("--only: {why}"))),
            None => Ok(()),
        }
    }
}

/// A folder or file that is not there yet: it is filled beside its place, and only then put there. What is not filled
/// to its end goes.
pub struct Fresh {
    pub path: PathBuf,
    place: PathBuf,
    ended: bool,
}

impl Fresh {
    pub fn folder(place: &Path) -> Result<Fresh, CliError> {
        Fresh::begin(place, |path| fs::create_dir(path)).map(|(fresh, ())| fresh)
    }

    pub fn file(place: &Path) -> Result<(Fresh, File), CliError> {
        Fresh::begin(place, |path| File::create_new(path))
    }

    fn begin<T>(place: &Path, create: impl FnOnce(&Path) -> io::Result<T>) -> Result<(Fresh, T), CliError> {
        if place.exists() {
            return Err(CliError::Failed(format!("{} is there already: name one that is not", place.display())));
        }
        let mut name = place.file_name().map(|name| name.to_owned()).unwrap_or_default();
        name.push(".partial");
        let path = place.with_file_name(name);
        let created = create(&path).map_err(|why| match why.kind() {
            io::ErrorKind::AlreadyExists => CliError::Failed(format!(
                "{} is there: another export is under way, or was interrupted; delete it if it was",
                path.display()
            )),
            _ => CliError::Failed(format!("{} cannot be made: {why}", place.display())),
        })?;
        Ok((Fresh { path, place: place.to_owned(), ended: false }, created))
    }

    pub fn end(mut self) -> Result<(), CliError> {
        // What is whole stays, even where it cannot be moved.
        self.ended = true;
        let moved = fs::rename(&self.path, &self.place);
        moved.map_err(|why| CliError::Failed(format!("{} cannot be put in its place: {why}", self.path.display())))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.ended {
            let _ = if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
        }
    }
}
