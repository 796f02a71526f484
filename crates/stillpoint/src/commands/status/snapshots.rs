//! How a cluster's snapshots stand.

use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, Cluster, Page};
use stillpoint_core::checkpoint::Checkpoint;
use stillpoint_core::snapshot::{Snapshot, State};
use stillpoint_core::verification::Verdict;

use crate::error::CliError;

pub struct Snapshots {
    newest: Option<Snapshot>,
    /// From which the next one goes on.
    last: Option<Snapshot>,
    damaged: Vec<Snapshot>,
    /// Checkpoints that were found not to be what the cluster was.
    different: Vec<String>,
}

/// `recent` are the newest checkpoints.
pub async fn look(catalog: &dyn Catalog, cluster: &Cluster, recent: &[Checkpoint]) -> Result<Snapshots, CliError> {
    let all = catalog.snapshots(cluster.id, Page::ALL).await?;
    let different = recent.iter().filter(|checkpoint| {
        checkpoint.verification.as_ref().is_some_and(|verification| verification.verdict() == Verdict::Different)
    });
    Ok(Snapshots {
        newest: all.first().cloned(),
        last: all.iter().find(|snapshot| snapshot.is_sound()).cloned(),
        damaged: all.iter().filter(|snapshot| snapshot.damage.is_some()).cloned().collect(),
        different: different.map(|checkpoint| checkpoint.id.to_string()).collect(),
    })
}

impl Snapshots {
    /// What a monitor is to be told.
    pub fn attention(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(Snapshot { id, state: State::Failed, failure: Some(failure), .. }) = &self.newest {
            all.push(format!("snapshot {id} failed: {failure}"));
        }
        if let Some(Snapshot { id, trouble: Some(trouble), .. }) = &self.newest {
            all.push(format!("snapshot {id} is in trouble: {trouble}"));
        }
        for Snapshot { id, damage, .. } in &self.damaged {
            all.push(format!("snapshot {id} is damaged: {}", damage.as_deref().unwrap_or_default()));
        }
        for id in &self.different {
            all.push(format!(
                "checkpoint {id}: what is stored is not what the cluster was; keep everything, and report it"
            ));
        }
        all
    }

    pub fn document(&self) -> Value {
        let one = |snapshot: &Snapshot| {
            json!({
                "id": snapshot.id,
                "state": snapshot.state.name(),
                "requested": snapshot.requested,
                "ended": snapshot.ended,
                "cut": snapshot.cut.map(|cut| cut.to_string()),
                "failure": snapshot.failure,
                "trouble": snapshot.trouble,
                "damage": snapshot.damage,
            })
        };
        json!({"newest": self.newest.as_ref().map(one), "last": self.last.as_ref().map(one)})
    }

    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self.last.as_ref().and_then(|last| Some((last.id, last.cut?))) {
            Some((id, cut)) => lines.push(format!("last snapshot {id}, as of {cut} ({})", cut.date())),
            None => lines.push("no snapshot yet: no checkpoint can be restored".into()),
        }
        if let Some(newest) = self.newest.as_ref().filter(|newest| !newest.state.ended()) {
            lines.push(format!("snapshot {} is {}", newest.id, newest.state));
        }
        lines.extend(self.attention());
        lines
    }
}
