//! How a cluster's drills stand.

use jiff::Timestamp;
use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, Cluster, Page};
use stillpoint_core::drill::{Drill, Schedule, left_full, newest_passed, to_be_told};

use crate::commands::drill::{document, long, seconds};
use crate::context::now;
use crate::error::CliError;

pub struct Drills {
    /// Newest first.
    all: Vec<Drill>,
    schedule: Option<Schedule>,
    now: Timestamp,
}

pub async fn look(catalog: &dyn Catalog, cluster: &Cluster) -> Result<Drills, CliError> {
    let all = catalog.drills(cluster.id, Page::ALL).await?;
    Ok(Drills { all, schedule: catalog.drill_schedule(cluster.id).await?, now: now() })
}

impl Drills {
    /// What a monitor is to be told.
    pub fn attention(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(Drill { id, failure: Some(failure), .. }) = to_be_told(&self.all, self.schedule.as_ref(), self.now)
        {
            all.push(format!("drill {id} failed: {failure}"));
        }
        if let Some(Drill { id, left: Some(left), .. }) = left_full(&self.all, self.schedule.as_ref(), self.now) {
            all.push(format!("drill {id} has left its cluster full: {left}"));
        }
        if let Some(schedule) = &self.schedule
            && let Some(since) = schedule.overdue(&self.all, self.now)
        {
            all.push(format!(
                "no drill has passed since {since}, and one every {} is scheduled: `stillpoint drill list` says what came of \
                 them",
                schedule.every
            ));
        }
        all
    }

    pub fn document(&self) -> Value {
        json!({
            "every": self.schedule.as_ref().map(|schedule| schedule.every.to_string()),
            "newest": self.all.first().map(document),
            "lastPassed": newest_passed(&self.all).map(document),
        })
    }

    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(drill) = newest_passed(&self.all) {
            let told = drill.recovery().zip(drill.loss).zip(drill.ended);
            lines.extend(told.map(|((rto, loss), ended)| {
                format!(
                    "last drill that passed {}, at {ended}: RTO {}, RPO {}",
                    drill.id,
                    seconds(rto),
                    long(loss.stream_seconds)
                )
            }));
        } else {
            lines.push("no drill has passed yet: whether it can be restored is not known".into());
        }
        if let Some(newest) = self.all.first().filter(|newest| !newest.state.ended()) {
            lines.push(format!("drill {} is {}", newest.id, newest.state));
        }
        lines.extend(self.attention());
        lines
    }
}
