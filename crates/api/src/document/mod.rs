//! The documents. Each is one type whose fields stand in the alphabetical order of their JSON names;
//! the order is what clients see. The surfaces differ in links, and in what a [`Surface`] says.
//!
//! Their JSON schemas, in [`crate::describe`], are made from these types: what is said of a field here
//! is what the reference says.
//!
//! [`Surface`]: crate::surface::Surface

mod checkpoint;
mod cluster;
mod list;
mod place;
mod project;
mod restore_job;
mod schedule;
mod snapshot;

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use stillpoint_core::ClusterTime;

pub use checkpoint::{CheckpointDocument, View, checkpoint_document};
pub use cluster::ClusterDocument;
pub use list::{Enveloped, Link, ListDocument};
pub use place::Place;
pub use project::ProjectDocument;
pub use restore_job::{RestoreJobDocument, RestoreJobView};
pub use schedule::{ScheduleDocument, interval_min};
pub use snapshot::{SnapshotDocument, SnapshotView, snapshot_document};

/// `YYYY-MM-DDTHH:MM:SSZ`: whole seconds, as the published documents have.
#[derive(Debug, Clone, Copy)]
pub struct Date(pub Timestamp);

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let whole = Timestamp::from_second(self.0.as_second()).unwrap_or(self.0);
        s.collect_str(&whole)
    }
}

impl JsonSchema for Date {
    fn schema_name() -> Cow<'static, str> {
        "Date".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

/// What an id looks like, whatever it is the id of.
pub struct Id;

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9a-f]{24}$"})
    }
}

/// A BSON timestamp.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BsonTimestamp")]
struct TimestampDocument {
    date: Date,
    increment: u32,
}

impl TimestampDocument {
    fn of(time: ClusterTime) -> TimestampDocument {
        TimestampDocument { date: Date(time.date()), increment: time.increment }
    }
}
