//! The documents, and the surfaces that they are rendered for.
//!
//! Each document is one type whose fields stand in the alphabetical order of their JSON names; the
//! order is what clients see. A further surface (v2, Ops Manager) is a further [`Surface`], not a
//! further document: only the links differ.

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, Serializer};
use stillpoint_core::checkpoint::{Checkpoint, Part, PartId, Reason, State};
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime, ProjectId};

/// Where the resources of one flavour of the API are.
#[derive(Debug, PartialEq, Eq)]
pub struct Surface {
    pub prefix: &'static str,
    /// What the collection of checkpoints is called.
    pub checkpoints: &'static str,
}

/// Atlas Administration API v1.0.
pub const ATLAS_V1: Surface = Surface { prefix: "/api/atlas/v1.0", checkpoints: "backupCheckpoints" };

/// What is left of a cluster's name in a link: RFC 3986's unreserved characters.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The URLs above a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub project: ProjectId,
    pub group_url: String,
    pub cluster_url: String,
    /// Of the collection.
    pub checkpoints_url: String,
}

impl Place {
    /// `base` is where clients reach the server, without a slash at its end.
    pub fn new(base: &str, surface: &Surface, project: ProjectId, cluster: &str) -> Place {
        let group_url = format!("{base}{}/groups/{project}", surface.prefix);
        let cluster_url = format!("{group_url}/clusters/{}", utf8_percent_encode(cluster, UNRESERVED));
        let checkpoints_url = [&cluster_url, "/", surface.checkpoints].concat();
        Place { project, group_url, cluster_url, checkpoints_url }
    }

    pub fn checkpoint_url(&self, id: CheckpointId) -> String {
        format!("{}/{id}", self.checkpoints_url)
    }
}

/// All that a checkpoint's document is made of.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub place: &'a Place,
    pub checkpoint: &'a Checkpoint,
}

/// The document of one checkpoint, as Get One gives it.
pub fn checkpoint_document(view: &View) -> serde_json::Value {
    // Every key is a string and nothing in it can fail to be written.
    serde_json::to_value(CheckpointDocument::one(view)).unwrap_or_default()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointDocument<'a> {
    cluster_id: ClusterId,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Date>,
    group_id: ProjectId,
    id: CheckpointId,
    links: Vec<Link<'a>>,
    parts: Vec<PartDocument<'a>>,
    restorable: bool,
    started: Date,
    /// What the published document has no field for. Never in that of a completed checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    stillpoint: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Date>,
}

impl<'a> CheckpointDocument<'a> {
    /// As Get One gives it: its `self` is the collection, as in the published example.
    pub fn one(view: &View<'a>) -> CheckpointDocument<'a> {
        let link = |url: &'a str, rel| Link { href: Href::Whole(url), rel };
        let place = view.place;
        let links = vec![
            link(&place.checkpoints_url, "self"),
            link(&place.cluster_url, "http://mms.mongodb.com/cluster"),
            link(&place.group_url, "http://mms.mongodb.com/group"),
        ];
        CheckpointDocument::with(view, links)
    }

    /// As an item of a list.
    pub fn item(view: &View<'a>) -> CheckpointDocument<'a> {
        let href = Href::Item(&view.place.checkpoints_url, view.checkpoint.id);
        CheckpointDocument::with(view, vec![Link { href, rel: "self" }])
    }

    fn with(view: &View<'a>, links: Vec<Link<'a>>) -> CheckpointDocument<'a> {
        let checkpoint = view.checkpoint;
        CheckpointDocument {
            cluster_id: checkpoint.cluster,
            completed: checkpoint.completed().map(Date),
            group_id: view.place.project,
            id: checkpoint.id,
            links,
            parts: checkpoint.parts.iter().map(PartDocument::of).collect(),
            restorable: checkpoint.restorable(),
            started: Date(checkpoint.started),
            stillpoint: Progress::of(checkpoint),
            timestamp: checkpoint.cut.map(|cut| Date(cut.date())),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PartDocument<'a> {
    replica_set_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard_name: Option<&'a str>,
    token_discovered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_timestamp: Option<TimestampDocument>,
    type_name: &'static str,
}

impl<'a> PartDocument<'a> {
    fn of(part: &'a Part) -> PartDocument<'a> {
        let (shard_name, type_name) = match &part.id {
            PartId::Shard(name) => (Some(name.as_str()), "REPLICA_SET"),
            PartId::ConfigServers => (None, "CONFIG_SERVER_REPLICA_SET"),
        };
        let discovered = part.token.filter(|token| token.discovered);
        PartDocument {
            replica_set_name: &part.replica_set,
            shard_name,
            token_discovered: discovered.is_some(),
            token_timestamp: discovered.map(|token| TimestampDocument::of(token.time)),
            type_name,
        }
    }
}

/// A BSON timestamp.
#[derive(Debug, Serialize)]
struct TimestampDocument {
    date: Date,
    increment: u32,
}

impl TimestampDocument {
    fn of(time: ClusterTime) -> TimestampDocument {
        TimestampDocument { date: Date(time.date()), increment: time.increment }
    }
}

/// How far a checkpoint that has not completed has come.
#[derive(Debug, Serialize)]
struct Progress {
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureDocument>,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct FailureDocument {
    code: Reason,
    detail: &'static str,
}

impl Progress {
    /// The record's own texts may name hosts: only what is safe for any client goes in.
    fn of(checkpoint: &Checkpoint) -> Option<Progress> {
        if checkpoint.state == State::Completed {
            return None;
        }
        let failed = checkpoint.failure.as_ref().filter(|_| checkpoint.state == State::Failed);
        Some(Progress {
            failure: failed.map(|failure| FailureDocument { code: failure.reason, detail: failure.reason.sentence() }),
            state: checkpoint.state,
            trouble: checkpoint.trouble.as_ref().filter(|_| !checkpoint.state.ended()).map(|_| "retrying"),
        })
    }
}

/// A part of a list, with the ways to its neighbours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListDocument<'a, T> {
    pub links: Vec<Link<'a>>,
    pub results: Vec<T>,
    /// Only in an envelope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_count: Option<u64>,
}

/// One document in its envelope.
#[derive(Debug, Serialize)]
pub struct Enveloped<'a, T> {
    pub content: &'a T,
    pub status: u16,
}

/// A web link.
#[derive(Debug, Serialize)]
pub struct Link<'a> {
    href: Href<'a>,
    rel: &'static str,
}

impl<'a> Link<'a> {
    /// The links of page `page` of the list at `url`.
    pub fn paging(url: &'a str, page: u64, per_page: u64, more: bool) -> Vec<Link<'a>> {
        let link = |page, rel| Link { href: Href::Page { url, page, per_page }, rel };
        let mut links = vec![link(page, "self")];
        if page > 1 {
            links.push(link(page - 1, "previous"));
        }
        if more {
            links.push(link(page + 1, "next"));
        }
        links
    }
}

/// A URL, put together only as it is written.
#[derive(Debug)]
enum Href<'a> {
    Whole(&'a str),
    Item(&'a str, CheckpointId),
    Page { url: &'a str, page: u64, per_page: u64 },
}

impl Serialize for Href<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Href::Whole(url) => s.serialize_str(url),
            Href::Item(url, id) => s.collect_str(&format_args!("{url}/{id}")),
            Href::Page { url, page, per_page } => {
                s.collect_str(&format_args!("{url}?pageNum={page}&itemsPerPage={per_page}"))
            }
        }
    }
}

/// `YYYY-MM-DDTHH:MM:SSZ`: whole seconds, as the published documents have.
#[derive(Debug, Clone, Copy)]
struct Date(Timestamp);

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let whole = Timestamp::from_second(self.0.as_second()).unwrap_or(self.0);
        s.collect_str(&whole)
    }
}
