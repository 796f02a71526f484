//! The reads that nearly every request does, and the replies that are asked for again and again (a
//! client that waits for a checkpoint polls it), remembered for as long as the catalog is unchanged.
//!
//! Nothing is answered from what the catalog no longer held when the request came in: its version is
//! asked for with each request, so a key that was deleted is refused at once. A catalog without a
//! version is read anew each time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use stillpoint_catalog::{ApiKey, Catalog, CatalogError, Cluster};
use stillpoint_core::ProjectId;

use crate::respond::Written;

/// Records of each kind; with more, all of the kind are forgotten and read again.
const CAPACITY: usize = 1_024;

/// What was read since the catalog last changed.
#[derive(Debug, Default)]
pub struct Reads(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    version: Option<u64>,
    /// With those that are not there: an unknown key takes as long as a known one.
    keys: HashMap<String, Option<Arc<ApiKey>>>,
    clusters: HashMap<(ProjectId, String), Option<Arc<Cluster>>>,
    replies: HashMap<Asked, Arc<Written>>,
}

/// All that a reply depends on, besides the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asked {
    /// The key's project: what one may read another may not.
    pub project: ProjectId,
    pub target: String,
    pub base: String,
    pub gzip: bool,
}

type Kind<K, T> = fn(&mut Remembered) -> &mut HashMap<K, Option<Arc<T>>>;

impl Reads {
    /// `version` is the catalog's, asked for before the record is read: the record can then only be
    /// newer, which is harmless.
    pub async fn key(
        &self,
        catalog: &dyn Catalog,
        version: Option<u64>,
        public: &str,
    ) -> Result<Option<Arc<ApiKey>>, CatalogError> {
        self.read(version, |seen| &mut seen.keys, public.to_owned(), async || catalog.key(public).await).await
    }

    pub async fn cluster(
        &self,
        catalog: &dyn Catalog,
        version: Option<u64>,
        project: ProjectId,
        name: &str,
    ) -> Result<Option<Arc<Cluster>>, CatalogError> {
        let key = (project, name.to_owned());
        self.read(version, |seen| &mut seen.clusters, key, async || catalog.cluster_named(project, name).await).await
    }

    /// The reply to a request that only reads, if it is known.
    pub fn reply(&self, version: Option<u64>, to: &Asked) -> Option<Arc<Written>> {
        self.at(version?, |seen| seen.replies.get(to).cloned())
    }

    /// Remembers a reply that was made of what the catalog held at `version` or later.
    pub fn remember(&self, version: Option<u64>, to: Asked, reply: Written) {
        if let Some(version) = version {
            self.at(version, |seen| insert(&mut seen.replies, to, Arc::new(reply)));
        }
    }

    async fn read<K: Eq + Hash, T>(
        &self,
        version: Option<u64>,
        kind: Kind<K, T>,
        key: K,
        read: impl AsyncFnOnce() -> Result<Option<T>, CatalogError>,
    ) -> Result<Option<Arc<T>>, CatalogError> {
        let Some(version) = version else {
            return Ok(read().await?.map(Arc::new));
        };
        if let Some(known) = self.at(version, |seen| kind(seen).get(&key).cloned()) {
            return Ok(known);
        }
        let record = read().await?.map(Arc::new);
        self.at(version, |seen| insert(kind(seen), key, record.clone()));
        Ok(record)
    }

    /// What is remembered of a version; nothing of another.
    fn at<R>(&self, version: u64, with: impl FnOnce(&mut Remembered) -> R) -> R {
        // A panic while it was held cannot leave it half-changed.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.version != Some(version) {
            *seen = Remembered { version: Some(version), ..Remembered::default() };
        }
        with(&mut seen)
    }
}

fn insert<K: Eq + Hash, V>(records: &mut HashMap<K, V>, key: K, value: V) {
    if records.len() >= CAPACITY {
        records.clear();
    }
    records.insert(key, value);
}
