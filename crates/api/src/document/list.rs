//! Links, lists and envelopes.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use stillpoint_core::CheckpointId;

/// A part of a list, with the ways to its neighbours.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ListOf{T}")]
pub struct ListDocument<'a, T> {
    /// `self`, `previous` unless it is the first page, `next` unless it is the last.
    pub links: Vec<Link<'a>>,
    pub results: Vec<T>,
    /// The HTTP status; only with `envelope=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How many there are on all pages; not with `includeCount=false`.
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
#[derive(Debug, Serialize, JsonSchema)]
pub struct Link<'a> {
    #[schemars(with = "String")]
    href: Href<'a>,
    /// How what is there relates to this document.
    rel: &'static str,
}

impl<'a> Link<'a> {
    pub fn new(url: &'a str, rel: &'static str) -> Link<'a> {
        Link { href: Href::Whole(url), rel }
    }

    /// `child` of the resource at `url`.
    pub fn below(url: &'a str, child: impl Into<Cow<'static, str>>, rel: &'static str) -> Link<'a> {
        Link { href: Href::Below(url, child.into()), rel }
    }

    pub fn item(collection: &'a str, id: CheckpointId) -> Link<'a> {
        Link { href: Href::Item(collection, id), rel: "self" }
    }

    /// The links of page `page` of the list at `url`, which may have parameters of its own.
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
    Below(&'a str, Cow<'static, str>),
    Item(&'a str, CheckpointId),
    Page { url: &'a str, page: u64, per_page: u64 },
}

impl Serialize for Href<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Href::Whole(url) => s.serialize_str(url),
            Href::Below(url, child) => s.collect_str(&format_args!("{url}/{child}")),
            Href::Item(url, id) => s.collect_str(&format_args!("{url}/{id}")),
            Href::Page { url, page, per_page } => {
                let mark = if url.contains('?') { '&' } else { '?' };
                s.collect_str(&format_args!("{url}{mark}pageNum={page}&itemsPerPage={per_page}"))
            }
        }
    }
}
