//! A request on its way to its answer.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use stillpoint_catalog::{Catalog, Cluster, Credential};
use stillpoint_core::ProjectId;

use crate::document::{Link, ListDocument, Place};
use crate::error::{Code, Refusal};
use crate::gate::Interface;
use crate::query::Paging;
use crate::respond::{Reply, Style, Written};
use crate::surface::{ClusterBy, Surface};

/// The longest cluster name that is looked up.
const LONGEST_NAME: usize = 255;

/// What an operation works with.
pub struct Call {
    pub interface: Arc<Interface>,
    pub head: Arc<Parts>,
    /// Not for what is common to all.
    pub surface: Option<&'static Surface>,
    pub credential: Option<Arc<Credential>>,
    /// Of the path, decoded.
    pub parameters: Vec<(String, String)>,
    /// That of the path, once the credential is known to have the role in it.
    pub project: Option<ProjectId>,
    pub style: Style,
    pub media_type: HeaderValue,
    /// The beginning of every link in the reply.
    pub base: String,
    pub now: Timestamp,
    /// The catalog's, when the request came in.
    pub version: Option<u64>,
    pub body: Bytes,
}

impl Call {
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    pub fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    pub fn catalog(&self) -> &dyn Catalog {
        &*self.interface.outside.catalog
    }

    pub fn chance(&self) -> u64 {
        (self.interface.outside.chance)()
    }

    /// A parameter of the path.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    // The gate has set these three for every operation that needs them; else it is a defect.

    pub fn surface(&self) -> Result<&'static Surface, Refusal> {
        self.surface.ok_or_else(|| Refusal::new(Code::Unexpected, []))
    }

    pub fn credential(&self) -> Result<&Arc<Credential>, Refusal> {
        self.credential.as_ref().ok_or_else(|| Refusal::new(Code::Unexpected, []))
    }

    pub fn project(&self) -> Result<ProjectId, Refusal> {
        self.project.ok_or_else(|| Refusal::new(Code::Unexpected, []))
    }

    /// The cluster of the path, if it is the project's.
    pub async fn cluster(&self) -> Result<Arc<Cluster>, Refusal> {
        let (project, by) = (self.project()?, self.surface()?.cluster);
        let text = self.parameter(by.parameter());
        let (reads, catalog) = (&self.interface.reads, self.catalog());
        let found = match by {
            ClusterBy::Id => {
                let id = text.parse().map_err(|_| Refusal::new(Code::InvalidClusterId, [text]))?;
                reads.cluster(catalog, self.version, id).await?.filter(|cluster| cluster.project == project)
            }
            ClusterBy::Name if text.len() > LONGEST_NAME || text.contains(char::is_control) => None,
            ClusterBy::Name => reads.cluster_named(catalog, self.version, project, text).await?,
        };
        found.ok_or_else(|| self.no_cluster(project))
    }

    pub fn no_cluster(&self, project: ProjectId) -> Refusal {
        Refusal::new(Code::ClusterNotFound, [self.cluster_text(), &project.to_string()])
    }

    /// What the client calls the cluster of the path.
    pub fn cluster_text(&self) -> &str {
        self.surface.map_or("", |surface| self.parameter(surface.cluster.parameter()))
    }

    pub fn place(&self, cluster: &Cluster) -> Result<Place, Refusal> {
        Ok(Place::new(&self.base, self.surface()?, cluster.project, cluster.id, &cluster.name))
    }

    /// The URL of a project.
    pub fn group_url(&self, project: ProjectId) -> Result<String, Refusal> {
        Ok(format!("{}{}/groups/{project}", self.base, self.surface()?.prefix))
    }

    pub fn one<T: Serialize>(&self, status: StatusCode, document: &T) -> Result<Reply, Refusal> {
        let written = self.style.one(status, document)?;
        Ok(Written { media_type: self.media_type.clone(), ..written }.into())
    }

    /// A page of a list: `results` of `total_count`, and whether there are `more` behind it.
    pub fn list<T: Serialize>(
        &self,
        url: &str,
        paging: Paging,
        results: Vec<T>,
        more: bool,
        total_count: Option<u64>,
    ) -> Result<Reply, Refusal> {
        let links = Link::paging(url, paging.page, paging.per_page, more);
        let written = self.style.list(ListDocument { links, results, status: None, total_count })?;
        Ok(Written { media_type: self.media_type.clone(), ..written }.into())
    }

    /// A page of what is all at hand.
    pub fn list_of<'r, R, T: Serialize>(
        &self,
        url: &str,
        records: &'r [R],
        document: impl FnMut(&'r R) -> T,
    ) -> Result<Reply, Refusal> {
        let paging = Paging::parse(self.query())?;
        let (page, more) = paging.of(records);
        self.list(url, paging, page.iter().map(document).collect(), more, paging.count.then_some(records.len() as u64))
    }
}

/// Decodes a piece of a path. What is not UTF-8 comes out with replacement characters, which are in no
/// id and no name.
pub fn decoded(piece: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(piece).decode_utf8_lossy()
}
