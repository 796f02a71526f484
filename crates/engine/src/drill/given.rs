//! A cluster that drills are given, which each of them fills and empties again.
//!
//! What makes emptying it safe: a restore marks a cluster, and then looks whether it holds anything, before it writes;
//! a drill's restore notes beside the mark that it did not, and leaves both. Only with both a cluster is emptied, so all
//! that goes came after the mark.

use std::path::Path;

use secrecy::SecretString;
use stillpoint_catalog::Catalog;
use stillpoint_core::{ClusterId, RestoreId};
use stillpoint_mongo::privileges::drill_grant_commands;
use stillpoint_mongo::target::empty::Emptied;
use stillpoint_mongo::{Destination, MongoError, PartLink};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::DrillError;
use crate::restore::{RestoreError, Trying, nothing_missing};

/// No connection string is as long.
const LONGEST: u64 = 64 << 10;

pub struct Given {
    uri: SecretString,
    destination: Destination,
}

impl Given {
    /// Connects to the cluster that a file names. `kept` are the identities of those that are looked after here.
    ///
    /// # Errors
    /// A file that cannot be read; a cluster that does not answer, or on which no drill can be done.
    pub async fn connect(file: &Path, kept: &[String]) -> Result<Given, DrillError> {
        let uri = read(file).await.map_err(|why| DrillError::File { path: file.to_owned(), why })?;
        let destination = Destination::connect(&uri).await.map_err(DrillError::Given)?;
        match destination.identity().await.map_err(DrillError::Given)? {
            None => Err(DrillError::Unfit(format!(
                "{} names a single replica set: a drill is given the config servers of a sharded cluster",
                file.display()
            ))),
            Some(identity) if kept.contains(&identity) => Err(DrillError::Unfit(format!(
                "{} names a cluster that is looked after here: a drill is given one that is for drills alone",
                file.display()
            ))),
            Some(_) => Ok(Given { uri, destination }),
        }
    }

    pub fn uri(&self) -> &SecretString {
        &self.uri
    }

    pub fn name(&self) -> &str {
        &self.destination.marked().replica_set
    }

    /// Makes sure that it can be emptied, and empties it if an earlier drill could not. Whether anything else is in it
    /// is for the restore to find.
    pub async fn prepare(&self, catalog: &dyn Catalog, cluster: ClusterId, trying: &Trying) -> Result<(), DrillError> {
        for part in self.destination.parts().await.map_err(DrillError::Given)? {
            may_be_filled_and_emptied(&part).await?;
        }
        let Some(mark) = self.destination.marked().marked().await.map_err(DrillError::Given)? else { return Ok(()) };
        let Ok(id) = mark.parse::<RestoreId>() else { return Ok(()) };
        match catalog.restore(cluster, id).await? {
            Some(restore) if restore.drill.is_some() && restore.state.ended() => {
                tracing::warn!(%cluster, restore = %id, "drill: emptying what an earlier one left");
                let emptied = self.empty(id, trying).await;
                emptied.map(drop).map_err(|why| DrillError::Unfit(format!("it cannot be emptied: {why}")))
            }
            _ => Ok(()),
        }
    }

    /// Empties it, if it has the mark of that restore; whether it has.
    pub async fn empty(&self, restore: RestoreId, trying: &Trying) -> Result<bool, RestoreError> {
        let (marked, id) = (self.destination.marked(), restore.to_string());
        match trying.again(|| self.destination.empty(&id)).await? {
            // With the mark alone nothing was written.
            Emptied::Done | Emptied::NotMarked => {}
            Emptied::Others(shards) => {
                return Err(RestoreError::Refused(format!(
                    "it has the shards {} by now, of which nobody knows what they held before: remove them, or empty \
                     it by hand (drop its databases, then config.stillpoint.restore)",
                    shards.join(", ")
                )));
            }
        }
        let unmark = || async {
            let is_ours = marked.marked().await?.as_deref() == Some(&id);
            if is_ours {
                marked.unmark().await?;
            }
            Ok::<_, MongoError>(is_ours)
        };
        trying.again(unmark).await
    }
}

async fn read(file: &Path) -> std::io::Result<SecretString> {
    let mut text = String::new();
    File::open(file).await?.take(LONGEST).read_to_string(&mut text).await?;
    Ok(SecretString::from(text.trim()))
}

async fn may_be_filled_and_emptied(part: &PartLink) -> Result<(), DrillError> {
    let mut missing = part.missing_for_restore(false).await.map_err(DrillError::Given)?;
    missing.extend(part.missing_to_empty().await.map_err(DrillError::Given)?);
    nothing_missing(part, &missing, &drill_grant_commands()).map_err(DrillError::Unfit)
}
