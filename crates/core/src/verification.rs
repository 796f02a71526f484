//! What came of comparing what is stored of a cluster with the cluster itself.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ClusterTime;
use crate::checkpoint::PartId;

/// So many collections of a part are named in a record; how many more there are is counted.
pub const NAMED: usize = 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// When it was done.
    pub at: Timestamp,
    /// The time as of which both were compared.
    pub time: ClusterTime,
    pub parts: Vec<PartVerification>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartVerification {
    pub part: PartId,
    /// Collections that are equal, and their documents.
    pub equal: u64,
    pub documents: u64,
    pub bytes: u64,
    pub different: Collections,
    /// Those that could not be compared.
    pub open: Collections,
    /// Why nothing of the part could be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Collections, the first [`NAMED`] of them by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collections {
    pub count: u64,
    pub named: Vec<Named>,
}

/// A collection, and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub ns: String,
    pub why: String,
}

impl Collections {
    pub fn add(&mut self, ns: &str, why: impl Into<String>) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(Named { ns: ns.to_owned(), why: why.into() });
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// All is equal.
    Equal,
    /// All that could be compared is equal.
    PartlyCompared,
    /// Nothing of a part could be compared.
    NotVerifiable,
    /// Something differs.
    Different,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Equal => "EQUAL",
            Verdict::PartlyCompared => "PARTLY_COMPARED",
            Verdict::NotVerifiable => "NOT_VERIFIABLE",
            Verdict::Different => "DIFFERENT",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartVerification {
    pub fn new(part: PartId) -> PartVerification {
        PartVerification {
            part,
            equal: 0,
            documents: 0,
            bytes: 0,
            different: Collections::default(),
            open: Collections::default(),
            problem: None,
        }
    }

    pub fn verdict(&self) -> Verdict {
        match self {
            one if one.different.count > 0 => Verdict::Different,
            one if one.problem.is_some() => Verdict::NotVerifiable,
            one if one.open.count > 0 => Verdict::PartlyCompared,
            _ => Verdict::Equal,
        }
    }
}

impl Verification {
    /// The worst of its parts; without any nothing was compared.
    pub fn verdict(&self) -> Verdict {
        self.parts.iter().map(PartVerification::verdict).max().unwrap_or(Verdict::NotVerifiable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts_and_nothing_is_taken_for_equal() {
        let part = PartVerification::new(PartId::ConfigServers);
        let verdict = |parts: &[&PartVerification]| {
            let parts = parts.iter().map(|part| (*part).clone()).collect();
            Verification { at: Timestamp::UNIX_EPOCH, time: ClusterTime::ZERO, parts }.verdict()
        };
        assert_eq!(verdict(&[]), Verdict::NotVerifiable);
        let equal = PartVerification { equal: 3, ..part.clone() };
        assert_eq!(verdict(&[&equal, &equal]), Verdict::Equal);
        let mut partly = equal.clone();
        partly.open.add("shop.log", "capped");
        assert_eq!(verdict(&[&partly, &equal]), Verdict::PartlyCompared);
        let gone = PartVerification { problem: Some("too old".into()), ..part };
        assert_eq!(verdict(&[&partly, &gone]), Verdict::NotVerifiable);
        let mut different = gone.clone();
        different.different.add("shop.orders", "documents");
        assert_eq!(verdict(&[&different, &equal]), Verdict::Different);
    }

    #[test]
    fn many_collections_are_counted_and_some_named() {
        let mut collections = Collections::default();
        (0..30).for_each(|n| collections.add(&format!("shop.c{n}"), "x"));
        assert_eq!((collections.count, collections.named.len()), (30, NAMED));
    }
}
