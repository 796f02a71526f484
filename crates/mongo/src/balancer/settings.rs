//! The documents `balancer` and `autosplit` of `config.settings`.

use bson::{Bson, Document, doc};
use stillpoint_core::ClusterTime;

use crate::error::{MongoError, Result};
use crate::part::{PartLink, timestamp};
use crate::privileges::READ_SETTINGS;

/// One of the two documents that a stop changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Switch {
    Balancer,
    Autosplit,
}

impl Switch {
    pub const BOTH: [Switch; 2] = [Switch::Balancer, Switch::Autosplit];

    pub fn id(self) -> &'static str {
        match self {
            Switch::Balancer => "balancer",
            Switch::Autosplit => "autosplit",
        }
    }

    pub fn of(id: &str) -> Option<Switch> {
        Switch::BOTH.into_iter().find(|switch| switch.id() == id)
    }

    /// The fields that a stop sets; all others are nobody's business.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Switch::Balancer => &["mode", "stopped"],
            Switch::Autosplit => &["enabled"],
        }
    }

    /// Those fields as a stop leaves them.
    pub fn stopped(self) -> Fields {
        match self {
            Switch::Balancer => Fields(vec![Some("off".into()), Some(true.into())]),
            Switch::Autosplit => Fields(vec![Some(false.into())]),
        }
    }

    /// Those fields as a start leaves them.
    pub fn started(self) -> Fields {
        match self {
            Switch::Balancer => Fields(vec![Some("full".into()), Some(false.into())]),
            Switch::Autosplit => Fields(vec![Some(true.into())]),
        }
    }
}

/// The values of [`Switch::fields`], in that order; `None` is a field that is not there.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields(pub Vec<Option<Bson>>);

impl Fields {
    pub fn of(switch: Switch, document: Option<&Document>) -> Fields {
        let value = |field: &&str| document.and_then(|document| document.get(*field).cloned());
        Fields(switch.fields().iter().map(value).collect())
    }

    pub fn are_absent(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// Whether a balancer with these fields moves chunks. The server's own rule: `stopped: true` is off
/// whatever the mode; otherwise the mode counts, `full` when there is none.
pub fn running(fields: &Fields) -> Result<bool> {
    let [mode, stopped] = fields.0.as_slice() else {
        return Err(MongoError::Settings("not the balancer's fields".into()));
    };
    let stopped = match stopped {
        None => false,
        Some(Bson::Boolean(stopped)) => *stopped,
        Some(other) => {
            return Err(MongoError::Settings(format!("`stopped` of the balancer is {other}, not true or false")));
        }
    };
    let mode = match mode {
        None => "full",
        Some(Bson::String(mode)) => mode,
        Some(other) => return Err(MongoError::Settings(format!("`mode` of the balancer is {other}, not a text"))),
    };
    match mode {
        "off" => Ok(false),
        "full" | "autoSplitOnly" | "autoMergeOnly" => Ok(!stopped),
        other => Err(MongoError::Settings(format!(
            "the balancer's mode {other:?} is not known; set it to \"full\" or \"off\" first"
        ))),
    }
}

/// Both documents, whole.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    pub balancer: Option<Document>,
    pub autosplit: Option<Document>,
}

impl Settings {
    pub fn get(&self, switch: Switch) -> Option<&Document> {
        match switch {
            Switch::Balancer => self.balancer.as_ref(),
            Switch::Autosplit => self.autosplit.as_ref(),
        }
    }

    pub fn fields(&self, switch: Switch) -> Fields {
        Fields::of(switch, self.get(switch))
    }

    pub fn running(&self) -> Result<bool> {
        running(&self.fields(Switch::Balancer))
    }

    pub fn to_document(&self) -> Document {
        let value = |document: &Option<Document>| document.clone().map_or(Bson::Null, Bson::Document);
        doc! {"balancer": value(&self.balancer), "autosplit": value(&self.autosplit)}
    }

    pub fn from_document(document: &Document) -> Result<Settings> {
        let value = |key: &str| match document.get(key) {
            Some(Bson::Document(value)) => Ok(Some(value.clone())),
            Some(Bson::Null) => Ok(None),
            _ => Err(MongoError::Settings(format!("the noted settings have no {key}"))),
        };
        Ok(Settings { balancer: value("balancer")?, autosplit: value("autosplit")? })
    }

    /// Canonical extended JSON, which keeps every BSON type.
    pub fn to_text(&self) -> String {
        Bson::Document(self.to_document()).into_canonical_extjson().to_string()
    }

    pub fn from_text(text: &str) -> Result<Settings> {
        let unreadable = |why: String| MongoError::Settings(format!("the recorded settings cannot be read: {why}"));
        let json: serde_json::Value = serde_json::from_str(text).map_err(|e| unreadable(e.to_string()))?;
        match Bson::try_from(json) {
            Ok(Bson::Document(document)) => Settings::from_document(&document),
            Ok(_) => Err(unreadable("they are no document".into())),
            Err(e) => Err(unreadable(e.to_string())),
        }
    }
}

/// The settings, majority-committed, and a cluster time when they were so: not before `after`.
pub async fn read(config: &PartLink, after: Option<ClusterTime>) -> Result<(Settings, ClusterTime)> {
    let mut concern = doc! {"level": "majority"};
    if let Some(after) = after {
        concern.insert("afterClusterTime", timestamp(after));
    }
    let command = doc! {
        "find": "settings",
        "filter": {"_id": {"$in": ["balancer", "autosplit"]}},
        "limit": 2,
        "singleBatch": true,
        "readConcern": concern,
        "maxTimeMS": 10_000,
    };
    let (rows, time) = config.first_batch_at("config", &READ_SETTINGS, command).await?;
    let mut settings = Settings::default();
    for row in rows {
        match row.get_str("_id") {
            Ok("balancer") => settings.balancer = Some(row),
            _ => settings.autosplit = Some(row),
        }
    }
    Ok((settings, time))
}
