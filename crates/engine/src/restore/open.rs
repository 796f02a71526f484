//! The last step: what lets documents go, users and roles, and what the target's config servers get to know.
//!
//! Until here no router shows anything of what was written. Each of these can be done again.

use std::collections::BTreeMap;

use bson::RawDocumentBuf;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::Options;
use stillpoint_fold::Uuid;
use stillpoint_mongo::{Destination, MongoError, PartLink};

use super::RestoreError;
use super::compare::compare_definitions;
use super::load::{Trying, Written, expires, parts_of, specs};
use super::naming::Naming;
use super::plan::Plan;
use super::routing::{Routing, TABLES, absent};

pub struct Opening<'a> {
    pub plan: &'a Plan,
    pub destination: &'a Destination,
    pub options: &'a Options,
    pub routing: &'a Routing,
    /// By the target's part.
    pub written: &'a BTreeMap<PartId, BTreeMap<Uuid, Written>>,
    pub trying: &'a Trying,
}

impl Opening<'_> {
    /// All but to take the mark away: when this is done the target's config servers know all of it.
    pub async fn open(&self, doing: impl Fn(&str)) -> Result<(), RestoreError> {
        for target in self.plan.targets() {
            if let Some(written) = self.written.get(&target.id) {
                doing("setting when documents go");
                self.let_go(target, written).await?;
            }
        }
        if self.options.users {
            doing("restoring users and roles");
            self.users().await?;
        }
        if self.plan.has_config() {
            doing("telling the config servers");
            self.tell(self.destination.marked()).await?;
        }
        Ok(())
    }

    async fn let_go(&self, target: &PartLink, written: &BTreeMap<Uuid, Written>) -> Result<(), RestoreError> {
        for written in written.values() {
            let collection = &written.collection;
            let (db, name) = parts_of(&collection.ns);
            let specs = specs(collection, expires)?;
            if !specs.is_empty() {
                self.trying.again(|| target.build_indexes(db, name, &specs)).await?;
            }
            let mut last = written.passed().fields(collection);
            last.extend(collection.options.get("expireAfterSeconds").map(|seconds| ("expireAfterSeconds", seconds)));
            if !last.is_empty() {
                self.trying.again(|| target.modify(db, name, &last)).await?;
            }
        }
        match compare_definitions(target, written).await? {
            None => Ok(()),
            Some(ns) => Err(RestoreError::Different(format!(
                "{}: the options or indexes of {ns} are not what they were in the source, after all steps",
                target.id
            ))),
        }
    }

    /// Those that are there already stay as they are.
    async fn users(&self) -> Result<(), RestoreError> {
        let config = self.destination.marked();
        let (users, roles) = self.routing.users();
        self.trying.again(|| config.insert_roles(roles)).await?;
        self.trying.again(|| config.insert_users(users)).await
    }

    async fn tell(&self, config: &PartLink) -> Result<(), RestoreError> {
        let (naming, shards) = (&self.plan.naming, &self.plan.shards);
        for (shard, zones) in self.routing.zones(naming)? {
            let Some(to) = shards.get(shard) else { continue };
            for zone in zones {
                self.trying.again(|| config.add_to_zone(to, &zone)).await?;
            }
        }
        for table in TABLES {
            let rows = self.routing.rows(table, naming, shards)?;
            self.trying.again(|| config.insert_config_rows(table, &rows)).await?;
            let there = self.trying.again(|| config.config_rows(table)).await?;
            if let Some(missing) = absent(&rows, &there).next() {
                return Err(RestoreError::Different(format!(
                    "config.{table} of the target has not the row that was written into it: {missing:?}"
                )));
            }
        }
        Ok(())
    }
}

/// Has the shards learn what they have at once, and not from the first router that comes. What routers would do anyhow
/// need not succeed.
pub async fn introduce(destination: &Destination, naming: &Naming, trying: &Trying) -> Result<(), RestoreError> {
    let config = destination.marked();
    if let Destination::Cluster(_) = destination {
        let names = |rows: Vec<RawDocumentBuf>| -> Vec<String> {
            rows.iter().filter_map(|row| row.get_str("_id").ok().map(str::to_owned)).collect()
        };
        let ours = |name: &String| naming.writes(name);
        let databases = names(trying.again(|| config.config_rows("databases")).await?);
        let collections = names(trying.again(|| config.config_rows("collections")).await?);
        for target in destination.parts().await?.iter().filter(|target| target.id != config.id) {
            for db in databases.iter().filter(|name| ours(name)) {
                told(target.refresh_database(db).await);
            }
            for ns in collections.iter().filter(|name| ours(name)) {
                told(target.refresh_collection(ns).await);
            }
        }
    }
    Ok(())
}

fn told(refreshed: Result<(), MongoError>) {
    if let Err(why) = refreshed {
        tracing::warn!(error = %why, "restore: a shard learns of it from its routers");
    }
}
