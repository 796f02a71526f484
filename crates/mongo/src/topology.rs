//! Which shards a cluster has.

use bson::doc;
use mongodb::options::ServerAddress;
use stillpoint_core::ClusterTime;

use crate::error::{MongoError, Result};
use crate::part::{PartLink, cluster_time, read_config};
use crate::privileges::READ_CONFIG;

/// More shards than any cluster has; one more is an error, never a part left out.
const MOST_SHARDS: usize = 4096;

/// A shard as `config.shards` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartAddress {
    pub name: String,
    pub replica_set: String,
    /// `HOST:PORT,HOST:PORT…`
    pub hosts: String,
    /// When it was added to the cluster; not known of servers before 5.0.
    pub added: Option<ClusterTime>,
}

impl PartAddress {
    /// From the `host` of `config.shards`, which is `SET/HOST:PORT,HOST:PORT…`.
    fn parse(name: &str, host: &str) -> Result<PartAddress> {
        match host.split_once('/') {
            Some((set, hosts)) if !set.is_empty() && !hosts.is_empty() => {
                Ok(PartAddress { name: name.into(), replica_set: set.into(), hosts: hosts.into(), added: None })
            }
            _ => Err(MongoError::BadShardHost { name: name.into(), host: host.into() }),
        }
    }

    pub fn members(&self) -> Result<Vec<ServerAddress>> {
        let bad = |_| MongoError::BadShardHost { name: self.name.clone(), host: self.hosts.clone() };
        self.hosts.split(',').map(|host| ServerAddress::parse(host).map_err(bad)).collect()
    }
}

/// The shards, by name, majority-committed.
pub async fn shards(config: &PartLink) -> Result<Vec<PartAddress>> {
    let rows = read_config(config, &READ_CONFIG, "shards", doc! {}, MOST_SHARDS as i64 + 1).await?;
    let wrong = |why: &str| MongoError::Reply { part: config.id.to_string(), what: "config.shards", why: why.into() };
    if rows.len() > MOST_SHARDS {
        return Err(wrong("it has more shards than can be"));
    }
    let mut shards = rows
        .iter()
        .map(|row| match (row.get_str("_id"), row.get_str("host")) {
            (Ok(name), Ok(host)) => {
                let added = row.get("topologyTime").and_then(cluster_time);
                Ok(PartAddress { added, ..PartAddress::parse(name, host)? })
            }
            _ => Err(wrong("a shard without _id or host")),
        })
        .collect::<Result<Vec<_>>>()?;
    shards.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shards_host_is_taken_apart() {
        let address = PartAddress::parse("east", "rs0/a.example:27018,[::1]:27019").unwrap();
        assert_eq!((address.name.as_str(), address.replica_set.as_str()), ("east", "rs0"));
        assert_eq!(address.members().unwrap().len(), 2);
        for host in ["", "a:27018", "/a:27018", "rs0/"] {
            assert!(matches!(PartAddress::parse("east", host), Err(MongoError::BadShardHost { .. })), "{host}");
        }
        assert!(PartAddress::parse("east", "rs0/a:port").unwrap().members().is_err());
    }
}
