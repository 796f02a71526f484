//! Which part goes where, and whether the target will do: looked at before anything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bson::doc;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::coverage::Obstacle;
use stillpoint_core::restore::{Amount, Options, Part, Restore};
use stillpoint_core::snapshot::Data;
use stillpoint_core::wanted::is_wanted;
use stillpoint_core::{ClusterTime, RestoreId};
use stillpoint_fold::gather::is_derived;
use stillpoint_mongo::privileges::{Need, restore_grant_commands};
use stillpoint_mongo::target::survey::Survey;
use stillpoint_mongo::{Destination, PartLink};

use super::RestoreError;
use super::load::parts_of;
use super::naming::{Naming, is_internal};
use super::selection::Selection;
use crate::snapshots::Archive;
use crate::snapshots::owners::{Owner, Ownerships};
use crate::snapshots::read::listed;

/// Collections of a target that is not empty are named up to so many.
const NAMED: usize = 5;
/// What a shard's server takes in a second, about: for an estimate only.
const BYTES_A_SECOND: u64 = 40_000_000;

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    pub naming: Arc<Naming>,
    /// Each shard of the source, and the target's that takes its data.
    pub shards: BTreeMap<String, String>,
    pub steps: Vec<Step>,
    users: bool,
    /// What is named and was not there yet in what is gone on from.
    unseen: Option<String>,
}

/// The data of one part, and the part of the target that takes it.
#[derive(Debug)]
pub struct Step {
    pub part: PartId,
    pub base: Data,
    /// What of the base is to be written, about: as it was then.
    pub expected: Amount,
    /// The target's.
    pub to: PartLink,
}

impl Step {
    fn new(part: &PartId, base: Data, to: &PartLink) -> Step {
        Step { part: part.clone(), base, expected: Amount::from(&base), to: to.clone() }
    }
}

/// What a plan was found to come to, for an operator.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    /// Of bytes that are free on a part's disk, by the target's part.
    pub free: BTreeMap<String, u64>,
    pub warnings: Vec<String>,
}

impl Plan {
    /// # Errors
    /// A time that cannot be restored; parts and shards that do not fit together.
    pub async fn make(
        archive: &Archive,
        destination: &Destination,
        options: &Options,
        time: ClusterTime,
    ) -> Result<Plan, RestoreError> {
        let naming = Naming::new(&options.only)?;
        let parts = archive.parts(time);
        if parts.is_empty() {
            return Err(RestoreError::refused(format!(
                "no snapshot is as of {time} or before: there is nothing to restore"
            )));
        }
        let mut bases = BTreeMap::new();
        for part in &parts {
            bases.insert(part.clone(), base(archive, part, time)?);
        }
        let targets = destination.parts().await?;
        let of = |part: &PartId| bases[part];
        let (shards, mut steps) = match (destination, &options.part) {
            (Destination::ReplicaSet(_), Some(_)) if options.users => {
                return Err(RestoreError::refused(
                    "users and roles are the config servers': they go into a sharded cluster",
                ));
            }
            (Destination::ReplicaSet(set), Some(part)) => {
                let PartId::Shard(name) = part else {
                    return Err(RestoreError::refused(
                        "the config servers' data has no use in a replica set: name a shard",
                    ));
                };
                if !bases.contains_key(part) {
                    return Err(RestoreError::Refused(format!(
                        "there is no shard {name} at that time: it has {}",
                        names(&parts)
                    )));
                }
                let step = Step::new(part, of(part), set);
                (BTreeMap::from([(name.clone(), set.replica_set.clone())]), vec![step])
            }
            (Destination::ReplicaSet(_), None) => {
                return Err(RestoreError::Refused(format!(
                    "the target is a single replica set: name the one part that it is to have with --part ({})",
                    names(&parts)
                )));
            }
            (Destination::Cluster(_), Some(_)) => {
                return Err(RestoreError::refused(
                    "the target is a sharded cluster: a single part goes into a replica set",
                ));
            }
            (Destination::Cluster(_), None) => {
                let sources: Vec<_> = parts.iter().filter_map(shard).collect();
                let there: Vec<_> = targets.iter().filter_map(|target| shard(&target.id)).collect();
                let shards = mapped(&sources, &there, &options.shards)?;
                let step = |part: &PartId| {
                    let to = match part {
                        PartId::Shard(name) => PartId::Shard(shards.get(name)?.clone()),
                        PartId::ConfigServers => PartId::ConfigServers,
                    };
                    Some(Step::new(part, of(part), targets.iter().find(|target| target.id == to)?))
                };
                let steps: Vec<_> = parts.iter().filter_map(step).collect();
                (shards, steps)
            }
        };
        let mut there = BTreeSet::new();
        let only: Vec<_> = options.only.iter().map(|only| only.from.clone()).collect();
        if !only.is_empty() {
            for step in steps.iter_mut().filter(|step| step.part != PartId::ConfigServers) {
                let collections = archive.collections(&step.part, &step.base).await?;
                let wanted = collections.iter().filter(|(ns, _)| is_wanted(&only, ns));
                step.expected = wanted.fold(Amount::default(), |sum, (_, amount)| sum + *amount);
                there.extend(collections.into_iter().map(|(ns, _)| ns).filter(|ns| !is_internal(parts_of(ns).0)));
            }
        }
        let unseen = naming.missing(&there);
        Ok(Plan { naming: Arc::new(naming), shards, steps, users: options.users, unseen })
    }

    /// As a record has it.
    pub fn parts(&self, job: impl Fn(&PartId) -> RestoreId) -> Vec<Part> {
        let part = |step: &Step| Part {
            shard: shard(&step.to.id).map(str::to_owned).filter(|_| self.has_config()),
            ..Part::new(job(&step.part), step.part.clone(), step.expected)
        };
        self.steps.iter().map(part).collect()
    }

    /// Whether the config servers' data is restored.
    pub fn has_config(&self) -> bool {
        self.steps.iter().any(|step| step.part == PartId::ConfigServers)
    }

    /// The parts of the target that are written to, each once.
    pub fn targets(&self) -> Vec<&PartLink> {
        let mut targets = Vec::<&PartLink>::new();
        for step in &self.steps {
            if !targets.iter().any(|target| target.id == step.to.id) {
                targets.push(&step.to);
            }
        }
        targets
    }

    /// About how long the load takes, in seconds: the part that takes longest.
    pub fn estimate(&self) -> u64 {
        let mut bytes = BTreeMap::<&PartId, u64>::new();
        for step in &self.steps {
            *bytes.entry(&step.to.id).or_default() += step.expected.bytes;
        }
        bytes.values().max().copied().unwrap_or_default() / BYTES_A_SECOND + 1
    }

    /// Looks at the target.
    ///
    /// # Errors
    /// Whatever makes it unfit. `ours` is the restore that it holds a part of.
    pub async fn check(
        &self,
        archive: &Archive,
        destination: &Destination,
        source: &str,
        ours: Option<RestoreId>,
    ) -> Result<Outlook, RestoreError> {
        if destination.identity().await?.is_some_and(|identity| identity == source) {
            return Err(RestoreError::refused(
                "the target is the source itself: a restore never writes into what it is of",
            ));
        }
        let mut outlook = Outlook::default();
        for target in destination.parts().await? {
            privileges(&target, self.users).await?;
            if let Destination::ReplicaSet(set) = destination
                && let Some(shard) = set.is_shard().await?
            {
                return Err(RestoreError::Refused(format!(
                    "the target {} is the shard {shard} of a sharded cluster: name that cluster's config servers, or a \
                     replica set that is no part of one",
                    set.replica_set
                )));
            }
            let compatibility = target.compatibility().await?;
            for step in self.steps.iter().filter(|step| step.to.id == target.id) {
                self.compatible(archive, step, &compatibility).await?;
            }
        }
        match (destination.marked().marked().await?, ours) {
            (None, None) => {
                outlook = self.is_empty(destination).await?;
            }
            (Some(mark), Some(ours)) if mark == ours.to_string() => {}
            (None, Some(_)) => {
                return Err(RestoreError::refused(
                    "the target does not have the mark of this restore any more: somebody emptied or replaced it meanwhile",
                ));
            }
            (Some(mark), _) => return Err(self.marked_by_another(destination, &mark)),
        }
        if let Some(unseen) = &self.unseen {
            outlook.warnings.push(format!(
                "--only: {unseen} in the snapshot that this goes on from. If it was not made later, the restore ends with \
                 that, and nothing is written"
            ));
        }
        Ok(outlook)
    }

    pub fn marked_by_another(&self, destination: &Destination, mark: &str) -> RestoreError {
        RestoreError::Refused(format!(
            "the target holds a part of another restore, {mark}, that did not end: drop its databases, then config.{} on \
             {}, and restore again",
            stillpoint_mongo::target::routing::MARK,
            destination.marked().id
        ))
    }

    /// Whether there is nothing where the restore writes.
    pub async fn is_empty(&self, destination: &Destination) -> Result<Outlook, RestoreError> {
        let mut outlook = Outlook::default();
        let mut full = Vec::new();
        for target in destination.parts().await? {
            let survey = target.survey().await?;
            full.extend(self.occupied(&survey)?.into_iter().map(|ns| format!("{ns} ({})", target.id)));
            if target.id == PartId::ConfigServers {
                full.extend(self.known(&target).await?);
            }
            if let Some(free) = survey.free {
                let needed: u64 =
                    self.steps.iter().filter(|step| step.to.id == target.id).map(|step| step.expected.bytes).sum();
                if needed > free {
                    outlook.warnings.push(format!(
                        "{}: {needed} bytes of documents go onto a disk with {free} free; they are stored compressed, \
                         which may or may not suffice",
                        target.id
                    ));
                }
                outlook.free.insert(target.id.to_string(), free);
            }
        }
        if full.is_empty() {
            return Ok(outlook);
        }
        let more = full.len().saturating_sub(NAMED);
        let named = full[..full.len() - more].join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(RestoreError::Refused(format!(
            "the target is not empty: it has {named}{more}. A restore only writes into an empty one: drop what is there, \
             or name another target"
        )))
    }

    /// Those of shards.
    pub fn loads(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.part != PartId::ConfigServers)
    }

    /// What of a step's data goes into the target.
    pub fn selection(&self, step: &Step, ownerships: &Arc<Ownerships>) -> Selection {
        Selection {
            owner: Owner::new(step.part.clone(), ownerships.clone()),
            naming: self.naming.clone(),
            merges: self.merges(&step.to.id),
        }
    }

    /// Whether a part of the target takes the data of several.
    pub fn merges(&self, to: &PartId) -> bool {
        self.steps.iter().filter(|step| step.to.id == *to).count() > 1
    }

    /// What the part has already where something is to be written.
    fn occupied(&self, survey: &Survey) -> Result<Vec<String>, RestoreError> {
        let there = listed(&survey.catalogue)?.into_iter().map(|(_, collection)| collection.ns);
        Ok(there.filter(|ns| !is_derived(ns) && self.naming.writes(ns)).collect())
    }

    /// What the config servers know already.
    async fn known(&self, config: &PartLink) -> Result<Vec<String>, RestoreError> {
        let mut known = Vec::new();
        for table in ["databases", "collections", "tags"] {
            for row in config.config_rows(table).await? {
                let name = row.get_str(if table == "tags" { "ns" } else { "_id" }).unwrap_or("?").to_owned();
                if self.naming.writes(&name) {
                    known.push(format!("{name} (config.{table})"));
                }
            }
        }
        Ok(known)
    }

    /// What is written for one version is not what another one reads.
    async fn compatible(&self, archive: &Archive, step: &Step, is: &str) -> Result<(), RestoreError> {
        let theirs = archive.compatibility(&step.part, &step.base).await?;
        let number = |version: &str| version.split('.').map(|n| n.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
        let (source, target) = (number(&theirs), number(is));
        let fits = match (source, target) {
            // Rows of config servers are not the same in all versions.
            (Some(source), Some(target)) if self.has_config() => source == target,
            (Some(source), Some(target)) => source <= target,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let needed = if self.has_config() { "the same" } else { "the same or a later one" };
        Err(RestoreError::Refused(format!(
            "{}: its featureCompatibilityVersion is {is}, and the data is of {theirs}: it must be {needed} \
             (setFeatureCompatibilityVersion)",
            step.to.id
        )))
    }

    /// The mark that the target gets before anything else.
    pub fn mark(restore: &Restore, now: jiff::Timestamp) -> bson::Document {
        doc! {
            "restore": restore.id.to_string(),
            "what": "stillpoint is restoring into this cluster: until this collection is gone it is not whole",
            "cluster": restore.cluster.to_string(),
            "time": restore.time.to_string(),
            "started": bson::DateTime::from_millis(now.as_millisecond()),
        }
    }
}

/// What a part's state at a time is made from.
pub fn base(archive: &Archive, part: &PartId, time: ClusterTime) -> Result<Data, RestoreError> {
    archive
        .base(part, time)
        .map_err(|why| RestoreError::Refused(format!("{time} cannot be restored: {}", Obstacle::all(&why))))
}

async fn privileges(target: &PartLink, users: bool) -> Result<(), RestoreError> {
    let missing = target.missing_for_restore(users).await?;
    nothing_missing(target, &missing, &restore_grant_commands()).map_err(RestoreError::Refused)
}

/// # Errors
/// What the user may not do, and what allows it.
pub(crate) fn nothing_missing(target: &PartLink, missing: &[&Need], commands: &[String]) -> Result<(), String> {
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<_> =
        missing.iter().map(|need| format!("{} (action `{}` on {})", need.what, need.action, need.resource)).collect();
    Err(format!(
        "{}: the user of the target may not {}. In mongosh, on the primary of each part of the target:\n{}",
        target.id,
        list.join("; nor "),
        commands.join("\n")
    ))
}

/// As far as the stored data tells.
fn shard(part: &PartId) -> Option<&str> {
    match part {
        PartId::Shard(name) => Some(name),
        PartId::ConfigServers => None,
    }
}

fn names(parts: &[PartId]) -> String {
    parts.iter().filter_map(shard).collect::<Vec<_>>().join(", ")
}

/// The target's shard for each of the source: as was asked; then in the order of their names; when there are
/// not enough, some take the data of several.
fn mapped(
    sources: &[&str],
    targets: &[&str],
    asked: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, RestoreError> {
    for (from, to) in asked {
        if !sources.contains(&from.as_str()) {
            return Err(RestoreError::Refused(format!(
                "the source has no shard {from}: it has {}",
                sources.join(", ")
            )));
        }
        if !targets.contains(&to.as_str()) {
            return Err(RestoreError::Refused(format!("the target has no shard {to}: it has {}", targets.join(", "))));
        }
    }
    if targets.is_empty() {
        return Err(RestoreError::refused("the target has no shard: add some first"));
    }
    let taken: BTreeSet<_> = asked.values().map(String::as_str).collect();
    let free = targets.iter().filter(|target| !taken.contains(*target));
    let mut next = free.chain(targets.iter().cycle());
    let to = |source: &&str| {
        let to = asked.get(*source).cloned().or_else(|| next.next().map(|to| (*to).to_owned()));
        to.map(|to| ((*source).to_owned(), to))
    };
    Ok(sources.iter().filter_map(to).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(sources: &[&str], targets: &[&str], asked: &[(&str, &str)]) -> Result<Vec<(String, String)>, RestoreError> {
        let asked = asked.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        mapped(sources, targets, &asked).map(|all| all.into_iter().collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
    }

    #[test]
    fn shards_are_taken_as_asked_then_in_order() {
        assert_eq!(map(&["a", "b"], &["x", "y"], &[]).unwrap(), pairs(&[("a", "x"), ("b", "y")]));
        assert_eq!(map(&["a", "b"], &["x", "y"], &[("a", "y")]).unwrap(), pairs(&[("a", "y"), ("b", "x")]));
        assert_eq!(map(&["a"], &["x", "y"], &[]).unwrap(), pairs(&[("a", "x")]));
        let fewer = map(&["a", "b", "c"], &["x", "y"], &[]).unwrap();
        assert_eq!(fewer, pairs(&[("a", "x"), ("b", "y"), ("c", "x")]));
        assert_eq!(map(&["a", "b"], &["x"], &[("a", "x")]).unwrap(), pairs(&[("a", "x"), ("b", "x")]));
        for (targets, asked) in [(&["x"][..], ("z", "x")), (&["x"], ("a", "z")), (&[], ("a", "x"))] {
            assert!(matches!(map(&["a"], targets, &[asked]), Err(RestoreError::Refused(_))));
        }
        assert!(matches!(map(&["a"], &[], &[]), Err(RestoreError::Refused(_))));
    }
}
