//! Making the settings what they would be without stillpoint.

use bson::{Bson, Document, doc};
use futures::future::try_join_all;
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::{Found, PutBack};

use super::history::{self, Change, Ours, Verdict, What, judge};
use super::settings::{self, Fields, Settings, Switch};
use crate::error::{MongoError, Result};
use crate::part::PartLink;
use crate::privileges::{INSERT_SETTINGS, PUT_BACK_BALANCER, REMOVE_SETTINGS, SEE_OPERATIONS, WRITE_NOTE};
use crate::token::note;

/// Writes and looks again until nothing is left to do; somebody would have to change the settings
/// between each look and write to exhaust it.
const MOST_ROUNDS: usize = 10;

/// Puts the balancer back. See [`stillpoint_core::checkpoint::Action::PutBackBalancer`].
pub async fn put_back(
    config: &PartLink,
    found: &Found,
    stop_answered: bool,
    held_until: Option<ClusterTime>,
) -> Result<PutBack> {
    let settings = Settings::from_text(&found.settings)?;
    let lost = |error| match error {
        // No further try can change that.
        MongoError::HistoryLost { .. } => Ok(PutBack::HistoryLost),
        error => Err(error),
    };
    if !found.running {
        // It was off and was left alone: whatever changed was somebody else's doing.
        return match history::read(config, found.seen).await {
            Ok(changes) => Ok(outcome(&settings, &judge(&settings, &changes, &Ours::none())?, held_until)),
            Err(error) => lost(error),
        };
    }
    let ours = Ours { addresses: vec![found.from.clone()], answered: stop_answered };
    let mut verdict = match restore(config, &settings, found.seen, &ours).await {
        Ok(verdict) => verdict,
        Err(error) => return lost(error),
    };
    if !stop_answered {
        if is_connected(config, &found.from).await? {
            return Err(MongoError::StopConnectionOpen { from: found.from.clone() });
        }
        // A stop may have come between the writing and the looking, and one that failed may have left
        // entries that a majority does not have yet, which no reading shows: so they get it first.
        config.run("admin", &WRITE_NOTE, note(doc! {"stillpoint": "settle"})).await?;
        verdict = restore(config, &settings, found.seen, &ours).await?;
    }
    note_release(config, &found.from).await?;
    Ok(outcome(&settings, &verdict, held_until))
}

fn outcome(found: &Settings, verdict: &Verdict, held_until: Option<ClusterTime>) -> PutBack {
    let as_found = verdict.intended.iter().all(|(switch, fields)| *fields == found.fields(*switch));
    let started = held_until.is_some_and(|until| verdict.started.iter().any(|at| *at <= until));
    match (started, as_found) {
        (true, _) => PutBack::StartedByOthers,
        (false, true) => PutBack::AsFound,
        (false, false) => PutBack::AsChangedByOthers,
    }
}

/// Says in the oplog that the hold from this address has ended, so that nobody ends it again.
pub(super) async fn note_release(config: &PartLink, from: &str) -> Result<()> {
    let data = doc! {"stillpoint": "released", "from": from};
    config.run("admin", &WRITE_NOTE, note(data)).await.map(drop)
}

/// Whether the server still has a connection from this address.
async fn is_connected(config: &PartLink, from: &str) -> Result<bool> {
    let command = doc! {
        "aggregate": 1,
        "pipeline": [
            {"$currentOp": {"allUsers": true, "idleConnections": true}},
            {"$match": {"client": from}},
            {"$limit": 1},
            {"$project": {"client": 1}},
        ],
        "cursor": {},
        "maxTimeMS": 10_000,
    };
    let found = config.first_batch("admin", &SEE_OPERATIONS, command).await?;
    Ok(!found.is_empty())
}

/// Stops of the balancer by others that have not ended: they wait for its round, and their entry in
/// the action log comes only then. As changes, later than all others.
async fn stops_under_way(config: &PartLink, ours: &Ours) -> Result<Vec<Change>> {
    let command = doc! {
        "aggregate": 1,
        "pipeline": [
            {"$currentOp": {"allUsers": true, "idleConnections": false}},
            {"$match": {"command._configsvrBalancerStop": {"$exists": true}}},
            {"$limit": 100},
            {"$project": {"client": 1}},
        ],
        "cursor": {},
        "maxTimeMS": 10_000,
    };
    let stops = config.first_batch("admin", &SEE_OPERATIONS, command).await?;
    let client = |stop: &Document| stop.get_str("client").unwrap_or_default().to_owned();
    let others = stops.iter().map(client).filter(|from| !ours.addresses.contains(from));
    let at = ClusterTime::new(u32::MAX, u32::MAX);
    Ok(others.map(|from| Change { at, what: What::Command { stop: true, from } }).collect())
}

/// Brings the settings to what the history since `seen` says they should be, and gives that verdict.
pub(super) async fn restore(config: &PartLink, found: &Settings, seen: ClusterTime, ours: &Ours) -> Result<Verdict> {
    // For whoever looks later our own writes here are changes like any other. In this call they are
    // left out, so that a stop by somebody else between our look and our write is not undone by it.
    let mut written: Vec<Change> = Vec::new();
    let mut fresh: Vec<Write> = Vec::new();
    let mut looked_at = seen;
    for _ in 0..MOST_ROUNDS {
        let (mut changes, (now, _), under_way) =
            tokio::try_join!(history::read(config, seen), settings::read(config, None), stops_under_way(config, ours))?;
        for write in fresh.drain(..) {
            written.extend(changes.iter().find(|change| change.at > looked_at && write.made(change)).cloned());
        }
        looked_at = changes.last().map_or(looked_at, |change| change.at);
        changes.retain(|change| !written.contains(change));
        changes.extend(under_way);
        let verdict = judge(found, &changes, ours)?;
        fresh = verdict
            .intended
            .iter()
            .filter_map(|(switch, intended)| plan(*switch, found.get(*switch), intended, now.get(*switch)))
            .collect();
        if fresh.is_empty() {
            return Ok(verdict);
        }
        try_join_all(fresh.iter().map(|write| write.perform(config))).await?;
    }
    Err(MongoError::Settings("somebody keeps changing the balancer's settings".into()))
}

/// A write that happens only if the document is still what the plan was made from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Write {
    Delete { switch: Switch, was: Document },
    Update { switch: Switch, was: Document, to: Fields },
    Insert { switch: Switch, to: Fields },
}

/// What brings the switch's fields to `intended`; every other field is left as it is now.
pub(super) fn plan(
    switch: Switch,
    found: Option<&Document>,
    intended: &Fields,
    now: Option<&Document>,
) -> Option<Write> {
    if Fields::of(switch, now) == *intended {
        return None;
    }
    let Some(was) = now else {
        return Some(Write::Insert { switch, to: intended.clone() });
    };
    let nothing_else = was.keys().all(|key| key == "_id" || switch.fields().contains(&key.as_str()));
    if found.is_none() && intended.are_absent() && nothing_else {
        return Some(Write::Delete { switch, was: was.clone() });
    }
    Some(Write::Update { switch, was: was.clone(), to: intended.clone() })
}

impl Write {
    async fn perform(&self, config: &PartLink) -> Result<()> {
        let write_concern = doc! {"w": "majority", "wtimeout": 10_000};
        let unchanged = |switch: &Switch, was: &Document| {
            // The whole document, field for field and in order.
            doc! {"_id": switch.id(), "$expr": {"$eq": ["$$ROOT", {"$literal": was.clone()}]}}
        };
        match self {
            Write::Delete { switch, was } => {
                let command = doc! {
                    "delete": "settings",
                    "deletes": [{"q": unchanged(switch, was), "limit": 1}],
                    "writeConcern": write_concern,
                    "maxTimeMS": 10_000,
                };
                config.run("config", &REMOVE_SETTINGS, command).await?;
            }
            Write::Update { switch, was, to } => {
                let (mut set, mut unset) = (doc! {}, doc! {});
                for (field, value) in switch.fields().iter().zip(&to.0) {
                    match value {
                        Some(value) => drop(set.insert(*field, value.clone())),
                        None => drop(unset.insert(*field, "")),
                    }
                }
                let mut update = doc! {};
                for (operator, fields) in [("$set", set), ("$unset", unset)] {
                    if !fields.is_empty() {
                        update.insert(operator, fields);
                    }
                }
                let command = doc! {
                    "update": "settings",
                    "updates": [{"q": unchanged(switch, was), "u": update, "multi": false, "upsert": false}],
                    "writeConcern": write_concern,
                    "maxTimeMS": 10_000,
                };
                config.run("config", &PUT_BACK_BALANCER, command).await?;
            }
            Write::Insert { switch, to } => {
                let mut document = doc! {"_id": switch.id()};
                for (field, value) in switch.fields().iter().zip(&to.0) {
                    if let Some(value) = value {
                        document.insert(*field, value.clone());
                    }
                }
                let command = doc! {
                    "insert": "settings",
                    "documents": [document],
                    "writeConcern": write_concern,
                    "maxTimeMS": 10_000,
                };
                config.run("config", &INSERT_SETTINGS, command).await?;
            }
        }
        Ok(())
    }

    /// Whether this write made that change.
    fn made(&self, change: &Change) -> bool {
        match (self, &change.what) {
            (Write::Delete { switch, .. }, What::Whole(of, None)) => switch == of,
            (Write::Insert { switch, to }, What::Whole(of, Some(document))) => {
                switch == of && Fields::of(*of, Some(document)) == *to
            }
            (Write::Update { switch, to, .. }, What::Some(of, set)) => {
                let expected =
                    |field: &String| switch.fields().iter().position(|f| f == field).map(|n| to.0[n].clone());
                let as_set = |(field, value): &(String, Option<Bson>)| expected(field).as_ref() == Some(value);
                switch == of && !set.is_empty() && set.iter().all(as_set)
            }
            _ => false,
        }
    }
}
