//! What `mongodump` writes of a collection besides its documents, so that `mongorestore` can make it again.

use bson::raw::{RawBson, RawDocument};
use bson::{Bson, Document};
use serde_json::{Map, Value, json};
use stillpoint_fold::catalogue::Fields;
use stillpoint_fold::{Collection, Uuid};

use super::SnapshotError;

#[cfg(test)]
mod tests;

/// The collection whose documents are a database's views.
pub const VIEWS: &str = "system.views";
const BUCKETS: &str = "system.buckets.";

/// Of a collection, a view, or a time-series collection over its buckets.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    pub db: String,
    /// As clients call it: of a time-series collection not the name of its buckets.
    pub name: String,
    pub kind: Kind,
    /// What stands in a `.metadata.json`: options, indexes, UUID, name and kind, in canonical extended JSON.
    pub document: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Collection,
    TimeSeries,
    View,
}

impl Kind {
    /// As MongoDB writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Collection => "collection",
            Kind::TimeSeries => "timeseries",
            Kind::View => "view",
        }
    }
}

/// `db.collection` in its two halves.
pub fn split(ns: &str) -> (&str, &str) {
    ns.split_once('.').unwrap_or((ns, ""))
}

impl Metadata {
    /// Of a collection; none of one that only says which views there are.
    pub fn of(uuid: Uuid, collection: &Collection) -> Option<Metadata> {
        let (db, name) = split(&collection.ns);
        if name == VIEWS {
            return None;
        }
        let (mut options, mut indexes) = (collection.options.clone(), Vec::new());
        let series = name.strip_prefix(BUCKETS).filter(|_| options.contains_key("timeseries"));
        for spec in collection.indexes.values() {
            indexes.push(match series {
                Some(_) => fields(&series_index(spec, &options)),
                None => fields(spec),
            });
        }
        if series.is_some() {
            // The server's own, for the buckets.
            options.retain(|name, _| !["validator", "clusteredIndex"].contains(&name.as_str()));
        }
        let (name, kind) = series.map_or((name, Kind::Collection), |name| (name, Kind::TimeSeries));
        let uuid = bson::Uuid::from_bytes(uuid.0).to_string().replace('-', "");
        Some(Metadata::new(db, name, kind, Value::Object(fields(&options)), indexes, uuid))
    }

    /// Of a view, from its document in `system.views`; none of a time-series collection, whose buckets say it.
    pub fn of_view(db: &str, document: &RawDocument) -> Result<Option<Metadata>, SnapshotError> {
        let wrong = |why: String| SnapshotError::Document { ns: format!("{db}.{VIEWS}"), why };
        let mut options = Document::try_from(document).map_err(|e| wrong(e.to_string()))?;
        let ns = options.remove("_id").and_then(|id| id.as_str().map(str::to_owned));
        let ns = ns.ok_or_else(|| wrong("a view without a name".into()))?;
        let name = ns.strip_prefix(&format!("{db}.")).ok_or_else(|| wrong(format!("a view {ns}")))?;
        if options.get_str("viewOn").is_ok_and(|on| on.strip_prefix(BUCKETS) == Some(name)) {
            return Ok(None);
        }
        let options = Bson::Document(options).into_canonical_extjson();
        Ok(Some(Metadata::new(db, name, Kind::View, options, Vec::new(), String::new())))
    }

    fn new(
        db: &str,
        name: &str,
        kind: Kind,
        options: Value,
        indexes: Vec<Map<String, Value>>,
        uuid: String,
    ) -> Metadata {
        let document = json!({
            "options": options,
            "indexes": indexes,
            "uuid": uuid,
            "collectionName": name,
            "type": kind.as_str(),
        });
        Metadata { db: db.to_owned(), name: name.to_owned(), kind, document }
    }

    /// The collection that has its documents.
    pub fn data_name(&self) -> String {
        match self.kind {
            Kind::TimeSeries => format!("{BUCKETS}{}", self.name),
            Kind::Collection | Kind::View => self.name.clone(),
        }
    }
}

/// Extended JSON, canonical: no type is lost.
fn json_of(value: &RawBson) -> Value {
    Bson::try_from(value.clone()).map_or(Value::Null, Bson::into_canonical_extjson)
}

fn fields(fields: &Fields) -> Map<String, Value> {
    fields.iter().map(|(name, value)| (name.clone(), json_of(value))).collect()
}

/// An index of buckets as one of their time-series collection: as its client made it, if the server kept that, or
/// from the buckets' fields that stand for its own. Measured on 6.0 with what `listIndexes` says.
fn series_index(spec: &Fields, options: &Fields) -> Fields {
    if let Some(RawBson::Document(original)) = spec.get("originalSpec") {
        let original = original.iter().filter_map(Result::ok);
        return original.map(|(name, value)| (name.as_str().to_owned(), value.into())).collect();
    }
    let mut spec = spec.clone();
    if let Some(RawBson::Document(key)) = spec.get("key")
        && let Ok(key) = Document::try_from(&**key)
        && let Some(own) = series_key(&key, meta_field(options).as_deref())
        && let Ok(own) = bson::raw::RawDocumentBuf::try_from(&own)
    {
        spec.insert("key".to_owned(), RawBson::Document(own));
    }
    spec
}

fn meta_field(options: &Fields) -> Option<String> {
    let RawBson::Document(series) = options.get("timeseries")? else { return None };
    series.get_str("metaField").ok().map(str::to_owned)
}

/// The buckets have a field's least and greatest value, in the order in which they are to be read. None for what
/// is no such key.
fn series_key(key: &Document, meta: Option<&str>) -> Option<Document> {
    let mut own = Document::new();
    let mut fields = key.iter();
    while let Some((path, value)) = fields.next() {
        if path == "meta" || path.starts_with("meta.") {
            own.insert(format!("{}{}", meta?, &path["meta".len()..]), value.clone());
        } else if let Some(field) = path.strip_prefix("control.min.").or_else(|| path.strip_prefix("control.max.")) {
            let (other, _) = fields.next()?;
            let pair = [path.as_str(), other.as_str()];
            let ascending = pair == [format!("control.min.{field}"), format!("control.max.{field}")];
            let descending = pair == [format!("control.max.{field}"), format!("control.min.{field}")];
            if !ascending && !descending {
                return None;
            }
            own.insert(field, value.clone());
        } else {
            own.insert(
                path.strip_prefix("data.")?,
                if value.as_str() == Some("2dsphere_bucket") { "2dsphere".into() } else { value.clone() },
            );
        }
    }
    Some(own)
}
