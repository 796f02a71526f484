//! How the newest restore of a cluster's data stands. What came of those of drills is told with the drills.

use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, Cluster, DRILLS_KEPT, Page};
use stillpoint_core::restore::{Restore, State};

use crate::error::CliError;
use crate::output::size;

pub struct Restores {
    newest: Option<Restore>,
}

pub async fn look(catalog: &dyn Catalog, cluster: &Cluster) -> Result<Restores, CliError> {
    // Of so many one at least is no drill's, if there is one.
    let page = Page { skip: 0, take: DRILLS_KEPT + 1 };
    Ok(Restores {
        newest: catalog.restores(cluster.id, page).await?.into_iter().find(|restore| restore.drill.is_none()),
    })
}

impl Restores {
    /// What a monitor is to be told.
    pub fn attention(&self) -> Vec<String> {
        let Some(newest) = &self.newest else { return Vec::new() };
        let failure = newest.failure.iter().map(|failure| format!("restore {} is broken: {failure}", newest.id));
        let trouble = newest.trouble.iter().map(|trouble| format!("restore {} is in trouble: {trouble}", newest.id));
        failure.chain(trouble).collect()
    }

    pub fn document(&self) -> Value {
        let one = |restore: &Restore| {
            let (written, expected) = (restore.written(), restore.expected());
            json!({
                "id": restore.id,
                "state": restore.state.name(),
                "time": restore.time.to_string(),
                "requested": restore.requested,
                "ended": restore.ended,
                "documents": written.documents,
                "bytes": written.bytes,
                "expectedBytes": expected.bytes,
                "failure": restore.failure,
                "trouble": restore.trouble,
            })
        };
        json!({"newest": self.newest.as_ref().map(one)})
    }

    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(newest) = self.newest.as_ref().filter(|newest| !newest.state.ended()) {
            let mut line = format!("restore {} to {} is {}", newest.id, newest.time, newest.state);
            if newest.state == State::Loading {
                let (written, expected) = (newest.written().bytes, newest.expected().bytes);
                line += &format!(", {} of about {}", size(written), size(expected));
            }
            lines.push(line);
        }
        lines.extend(self.attention());
        lines
    }
}
