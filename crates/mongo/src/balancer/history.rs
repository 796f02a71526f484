//! Who changed the balancer's switch, from the config servers' oplog.
//!
//! The question is always: what would the settings be had stillpoint not been there? Start from what
//! was found, leave out the entries that stillpoint's own stop made, and apply all others. That is
//! right for an operator who stops, starts or edits the balancer at any moment, for a stop whose
//! reply was lost, and for an earlier attempt to put it back, which is just one more change.
//!
//! An entry in `config.settings` does not say who made it; the entry in `config.actionlog` that
//! follows it, at the end of the same command, does.

use bson::{Bson, Document, doc};
use stillpoint_core::ClusterTime;

use super::settings::{Fields, Settings, Switch, running};
use crate::error::{MongoError, Result};
use crate::part::{PartLink, cluster_time, timestamp};
use crate::privileges::READ_OPLOG;

/// More changes than any checkpoint sees; one more is an error, never left out.
const MOST_ENTRIES: usize = 10_000;
/// Seconds within which the oplog's old end counts as near.
const NEAR: u32 = 60;

/// Something in the oplog that concerns the switch.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub at: ClusterTime,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The document was inserted, replaced or deleted.
    Whole(Switch, Option<Document>),
    /// Fields of the document were set, or removed (`None`).
    Some(Switch, Vec<(String, Option<Bson>)>),
    /// A stop or a start ended, sent from this address.
    Command { stop: bool, from: String },
    /// A stillpoint noted that it is about to stop the balancer from this address.
    Hold { from: String },
}

/// How our own stops are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    pub addresses: Vec<String>,
    /// A stop of ours was answered, so its entry is in the action log, whatever address it has there.
    pub answered: bool,
}

impl Ours {
    /// No stop was sent.
    pub fn none() -> Ours {
        Ours { addresses: Vec::new(), answered: false }
    }
}

/// What the history says.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The switch's fields had stillpoint not been there, for both documents.
    pub intended: [(Switch, Fields); 2],
    /// When somebody else started the balancer, each time.
    pub started: Vec<ClusterTime>,
}

/// All changes after `seen`, oldest first, majority-committed.
pub async fn read(config: &PartLink, seen: ClusterTime) -> Result<Vec<Change>> {
    let command = doc! {
        "find": "oplog.rs",
        "filter": {
            "ts": {"$gt": timestamp(seen)},
            "$or": [
                {"ns": "config.settings"},
                {"ns": "config.actionlog", "o.what": {"$in": ["balancer.stop", "balancer.start"]}},
                {"op": "n", "o.stillpoint": "hold"},
                {"o.applyOps.ns": "config.settings"},
                {"ns": "config.$cmd", "$or": [
                    {"o.drop": "settings"},
                    {"o.renameCollection": "config.settings"},
                    {"o.to": "config.settings"},
                ]},
            ],
        },
        "limit": MOST_ENTRIES as i64 + 1,
        "batchSize": MOST_ENTRIES as i64 + 1,
        "readConcern": {"level": "majority"},
        "maxTimeMS": 600_000,
    };
    let entries = config.first_batch("local", &READ_OPLOG, command);
    let (entries, mut oldest) = tokio::try_join!(entries, oldest(config))?;
    // The oplog may be cut at its old end between the two reads: where that end is near, it is looked
    // at again now that the entries are here.
    if oldest.is_none_or(|oldest| seen.seconds.saturating_sub(oldest.seconds) < NEAR) {
        oldest = self::oldest(config).await?;
    }
    if oldest.is_none_or(|oldest| oldest > seen) {
        return Err(MongoError::HistoryLost { seen });
    }
    if entries.len() > MOST_ENTRIES {
        return Err(MongoError::Settings(format!("more than {MOST_ENTRIES} changes of config.settings since {seen}")));
    }
    let mut changes = Vec::new();
    for entry in &entries {
        let at = entry.get("ts").and_then(cluster_time);
        let at = at.ok_or_else(|| MongoError::Settings("an oplog entry without ts".into()))?;
        parse(entry, at, &mut changes)?;
    }
    Ok(changes)
}

/// The time of the oplog's first entry.
async fn oldest(config: &PartLink) -> Result<Option<ClusterTime>> {
    let first = doc! {
        "find": "oplog.rs",
        "filter": {},
        "sort": {"$natural": 1},
        "projection": {"ts": 1},
        "limit": 1,
        "singleBatch": true,
        "readConcern": {"level": "majority"},
        "maxTimeMS": 10_000,
    };
    let entries = config.first_batch("local", &READ_OPLOG, first).await?;
    Ok(entries.first().and_then(|entry| entry.get("ts")).and_then(cluster_time))
}

pub(super) fn parse(entry: &Document, at: ClusterTime, changes: &mut Vec<Change>) -> Result<()> {
    let unknown = || {
        MongoError::Settings(format!(
            "the oplog entry at {at} changes the balancer's settings in a way that is not known: {entry}"
        ))
    };
    let object = entry.get_document("o").map_err(|_| unknown())?;
    let op = entry.get_str("op").map_err(|_| unknown())?;
    let namespace = entry.get_str("ns").map_err(|_| unknown())?;
    if op == "c" {
        if let Ok(operations) = object.get_array("applyOps") {
            for operation in operations {
                let operation = operation.as_document().ok_or_else(unknown)?;
                if operation.get_str("ns").is_ok_and(|ns| ns == "config.settings") {
                    parse(operation, at, changes)?;
                }
            }
            return Ok(());
        }
        if object.get_str("drop").is_ok_and(|name| name == "settings") {
            changes.extend(Switch::BOTH.map(|switch| Change { at, what: What::Whole(switch, None) }));
            return Ok(());
        }
        return Err(unknown());
    }
    if namespace == "config.actionlog" {
        if let Some(command) = (op == "i").then(|| command(object)).flatten() {
            changes.push(Change { at, what: command });
        }
        return Ok(());
    }
    if op == "n" {
        if object.get_str("stillpoint").is_ok_and(|note| note == "hold") {
            let from = object.get_str("from").map_err(|_| unknown())?.to_owned();
            changes.push(Change { at, what: What::Hold { from } });
        }
        return Ok(());
    }
    let key = if op == "u" { entry.get_document("o2").map_err(|_| unknown())? } else { object };
    let Some(switch) = key.get_str("_id").ok().and_then(Switch::of) else {
        return Ok(());
    };
    let what = match op {
        "i" => What::Whole(switch, Some(object.clone())),
        "d" => What::Whole(switch, None),
        "u" => update(switch, object).ok_or_else(unknown)?,
        _ => return Err(unknown()),
    };
    changes.push(Change { at, what });
    Ok(())
}

fn command(action: &Document) -> Option<What> {
    let stop = match action.get_str("what").ok()? {
        "balancer.stop" => true,
        "balancer.start" => false,
        _ => return None,
    };
    let from = action.get_str("clientAddr").unwrap_or_default().to_owned();
    Some(What::Command { stop, from })
}

/// An update's `o`: a `$v: 2` diff, `$v: 1` modifiers, or a replacement.
fn update(switch: Switch, object: &Document) -> Option<What> {
    let sections: [(&str, bool); 3] = [("u", true), ("i", true), ("d", false)];
    let modifiers: [(&str, bool); 2] = [("$set", true), ("$unset", false)];
    let mut fields = Vec::new();
    let mut take = |from: &Document, (key, set): (&str, bool)| -> Option<()> {
        if let Some(section) = from.get(key) {
            let section = section.as_document()?;
            fields.extend(section.iter().map(|(field, value)| (field.clone(), set.then(|| value.clone()))));
        }
        Some(())
    };
    if let Some(diff) = object.get("diff") {
        let diff = diff.as_document()?;
        // Sections `s…` change inside a field, such as activeWindow: none of the switch's is a document.
        let known = |key: &str| key.starts_with('s') || sections.iter().any(|(section, _)| *section == key);
        if object.get("$v") != Some(&Bson::Int32(2)) || !diff.keys().all(|key| known(key)) {
            return None;
        }
        sections.into_iter().try_for_each(|section| take(diff, section))?;
        return Some(What::Some(switch, fields));
    }
    if object.keys().any(|key| key.starts_with('$')) {
        let known = |key: &str| key == "$v" || modifiers.iter().any(|(modifier, _)| *modifier == key);
        if !object.keys().all(|key| known(key)) {
            return None;
        }
        modifiers.into_iter().try_for_each(|modifier| take(object, modifier))?;
        return Some(What::Some(switch, fields));
    }
    Some(What::Whole(switch, Some(object.clone())))
}

impl What {
    /// The switch's fields after this change.
    fn apply(&self, fields: &Fields, of: Switch) -> Fields {
        match self {
            What::Whole(switch, document) if *switch == of => Fields::of(of, document.as_ref()),
            What::Some(switch, set) if *switch == of => {
                let value = |(name, before): (&&str, &Option<Bson>)| {
                    let set = set.iter().rev().find(|(field, _)| field == name);
                    set.map_or(before.clone(), |(_, value)| value.clone())
                };
                Fields(of.fields().iter().zip(&fields.0).map(value).collect())
            }
            _ => fields.clone(),
        }
    }

    fn switch(&self) -> Option<Switch> {
        match self {
            What::Whole(switch, _) | What::Some(switch, _) => Some(*switch),
            What::Command { .. } | What::Hold { .. } => None,
        }
    }

    /// Whether a stop makes exactly this change to a document with the fields `before`.
    fn is_a_stops(&self, before: &Fields) -> bool {
        match self {
            What::Whole(switch, Some(document)) => {
                Fields::of(*switch, Some(document)) == switch.stopped() && document.len() == switch.fields().len() + 1
            }
            What::Whole(_, None) => false,
            What::Some(switch, set) => {
                let only_ours = set.iter().all(|(field, _)| switch.fields().contains(&field.as_str()));
                only_ours && self.apply(before, *switch) == switch.stopped()
            }
            What::Command { .. } | What::Hold { .. } => false,
        }
    }
}

/// What the settings would be without stillpoint. The stops of other stillpoints, which noted their
/// holds, are left out as ours are: each of us puts back what nobody else wanted changed.
pub fn judge(found: &Settings, changes: &[Change], ours: &Ours) -> Result<Verdict> {
    let holds = changes.iter().filter_map(|change| match &change.what {
        What::Hold { from } => Some(from.clone()),
        _ => None,
    });
    let addresses: Vec<_> = ours.addresses.iter().cloned().chain(holds).collect();
    let stop_of = |change: &Change, known: &dyn Fn(&str) -> bool| match &change.what {
        What::Command { stop: true, from } => known(from),
        _ => false,
    };
    // Should a release log another address than it told us, the first stop is the one it answered.
    let by_address = |change: &Change| stop_of(change, &|from| addresses.iter().any(|known| known == from));
    let first_stop = changes.iter().position(|change| stop_of(change, &|_| true));
    let unknown = first_stop.filter(|_| ours.answered && !changes.iter().any(by_address));
    let is_ours = |index: usize| by_address(&changes[index]) || unknown == Some(index);
    let mine = own_entries(found, changes, &is_ours, !addresses.is_empty());
    let mut actual = Switch::BOTH.map(|switch| found.fields(switch));
    let mut intended = actual.clone();
    let mut started = Vec::new();
    // Later servers have no auto-splitter, and their stops leave `autosplit` alone.
    let has_autosplit = found.autosplit.is_some() || changes.iter().any(|c| c.what.switch() == Some(Switch::Autosplit));

    for (index, change) in changes.iter().enumerate() {
        let was_running = running(&actual[0]).unwrap_or(false);
        for (n, switch) in Switch::BOTH.into_iter().enumerate() {
            actual[n] = change.what.apply(&actual[n], switch);
            if mine.contains(&index) || is_ours(index) {
                continue;
            }
            intended[n] = match &change.what {
                What::Command { .. } if switch == Switch::Autosplit && !has_autosplit => continue,
                What::Command { stop: true, .. } => switch.stopped(),
                What::Command { stop: false, .. } => switch.started(),
                what => what.apply(&intended[n], switch),
            };
        }
        if !was_running && running(&actual[0]).unwrap_or(true) {
            started.push(change.at);
        }
    }
    let [balancer, autosplit] = intended;
    Ok(Verdict { intended: [(Switch::Balancer, balancer), (Switch::Autosplit, autosplit)], started })
}

/// Which entries our own stops made: those that look like a stop's and are followed by its entry in
/// the action log. One that was sent and has not ended has no such entry yet: then the first that look
/// so.
fn own_entries(found: &Settings, changes: &[Change], is_ours: &dyn Fn(usize) -> bool, sent: bool) -> Vec<usize> {
    let mut fields = Switch::BOTH.map(|switch| found.fields(switch));
    let mut open: Vec<(usize, Switch)> = Vec::new();
    let mut own = Vec::new();
    let mut ended = false;
    for (index, change) in changes.iter().enumerate() {
        match &change.what {
            What::Command { stop: true, .. } => {
                if is_ours(index) {
                    own.extend(open.iter().map(|(index, _)| *index));
                    ended = true;
                }
                open.clear();
            }
            What::Command { stop: false, .. } | What::Hold { .. } => {}
            what => {
                for (n, switch) in Switch::BOTH.into_iter().enumerate() {
                    if what.switch() == Some(switch) && what.is_a_stops(&fields[n]) {
                        open.push((index, switch));
                    }
                    fields[n] = what.apply(&fields[n], switch);
                }
            }
        }
    }
    if sent && !ended {
        let first = |switch| open.iter().find(|(_, s)| *s == switch).map(|(index, _)| *index);
        own.extend(Switch::BOTH.into_iter().filter_map(first));
    }
    own
}
