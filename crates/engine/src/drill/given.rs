//! A cluster that drills are given, which each of them fills and empties again.
//!
//! What makes emptying it safe: a restore writes only into an empty cluster, and marks it before anything else; a
//! drill's restore leaves the mark. Only a cluster with the mark of a drill's restore is emptied, so all that goes was
//! put there after the mark.

use std::path::Path;

use secrecy::SecretString;
use stillpoint_catalog::Catalog;
use stillpoint_core::{ClusterId, RestoreId};
use stillpoint_mongo::privileges::drill_grant_commands;
use stillpoint_mongo::{Destination, PartLink};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::DrillError;
use crate::restore::{RestoreError, Trying, denied};

/// No connection string is as long.
const LONGEST: u64 = 64 << 10;

pub struct Given {
    uri: SecretString,
    destination: Destination,
}

impl Given {
    /// Connects to the cluster that a file names. `source` is the identity of the cluster whose drill it is.
    ///
    /// # Errors
    /// A file that cannot be read; a cluster that does not answer, or on which no drill can be done.
    pub async fn connect(file: &Path, source: &str) -> Result<Given, DrillError> {
        let uri = read(file).await.map_err(|why| DrillError::File { path: file.to_owned(), why })?;
        let destination = Destination::connect(&uri).await.map_err(DrillError::Given)?;
        match destination.identity().await.map_err(DrillError::Given)? {
            None => Err(DrillError::Unfit(format!(
                "{} names a single replica set: a drill is given the config servers of a sharded cluster",
                file.display()
            ))),
            Some(identity) if identity == source => Err(DrillError::Unfit(format!(
                "{} names the cluster itself: a drill is given another one, which holds nothing",
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
                self.empty(id, trying).await.map_err(|why| DrillError::Unfit(format!("it cannot be emptied: {why}")))
            }
            _ => Ok(()),
        }
    }

    /// Empties it, if it has the mark of that restore.
    pub async fn empty(&self, restore: RestoreId, trying: &Trying) -> Result<(), RestoreError> {
        let marked = self.destination.marked();
        let mark = trying.again(|| marked.marked()).await?;
        if mark != Some(restore.to_string()) {
            return Ok(());
        }
        trying.again(|| self.destination.empty()).await?;
        trying.again(|| marked.unmark()).await
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
    match missing.is_empty() {
        true => Ok(()),
        false => Err(DrillError::Unfit(denied(part, &missing, &drill_grant_commands()))),
    }
}
