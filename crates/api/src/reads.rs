//! The reads that nearly every request does, and the replies that are asked for again and again (a
//! client that waits for a checkpoint polls it), remembered for as long as the catalog is unchanged.
//!
//! Nothing is answered from what the catalog no longer held when the request came in: its version is
//! asked for with each request, so a key that was deleted is refused with the next one (see
//! [`Catalog::version`] for the millisecond that another process's change may take). A catalog without a
//! version is read anew each time.

use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::{Equivalent, HashMap};
use jiff::Timestamp;
use stillpoint_catalog::{Catalog, CatalogError, Cluster, Credential, CredentialKind};
use stillpoint_core::{ClusterId, CredentialId, ProjectId};

use crate::respond::Written;

/// Records of each kind; with more, all of the kind are forgotten and read again.
const CAPACITY: usize = 1_024;
/// Bytes of all replies; with more, likewise.
const REPLY_BYTES: usize = 16 << 20;

/// What was read since the catalog last changed.
#[derive(Debug, Default)]
pub struct Reads(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    version: Option<u64>,
    /// With those that are not there: an unknown key takes as long as a known one.
    keys: Records<String, Credential>,
    tokens: Records<[u8; 32], (Arc<Credential>, Timestamp)>,
    named: Records<(ProjectId, String), Cluster>,
    clusters: Records<ClusterId, Cluster>,
    replies: HashMap<Asked, Arc<Written>>,
    reply_bytes: usize,
}

type Records<K, T> = HashMap<K, Option<Arc<T>>>;
type Kind<K, T> = fn(&mut Remembered) -> &mut Records<K, T>;

/// All that a reply depends on, besides the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asking<'a> {
    /// What one may read another may not.
    pub by: CredentialId,
    pub target: &'a str,
    /// What links begin with, if that is the client's to say.
    pub host: &'a str,
    pub tls: bool,
    pub gzip: bool,
    /// `Accept`, where it makes a difference.
    pub accept: &'a str,
    /// Days since the Unix epoch, where it makes a difference.
    pub day: i64,
}

/// [`Asking`], kept. Both must hash alike: the same fields in the same order.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Asked {
    by: CredentialId,
    target: Box<str>,
    host: Box<str>,
    tls: bool,
    gzip: bool,
    accept: Box<str>,
    day: i64,
}

impl From<Asking<'_>> for Asked {
    fn from(asking: Asking<'_>) -> Asked {
        let Asking { by, target, host, tls, gzip, accept, day } = asking;
        Asked { by, target: target.into(), host: host.into(), tls, gzip, accept: accept.into(), day }
    }
}

impl Equivalent<Asked> for Asking<'_> {
    fn equivalent(&self, key: &Asked) -> bool {
        let Asked { by, target, host, tls, gzip, accept, day } = key;
        *self == Asking { by: *by, target, host, tls: *tls, gzip: *gzip, accept, day: *day }
    }
}

impl Reads {
    /// `version` is the catalog's, asked for before the record is read: the record can then only be
    /// newer, which is harmless.
    pub async fn key(
        &self,
        catalog: &dyn Catalog,
        version: Option<u64>,
        public: &str,
    ) -> Result<Option<Arc<Credential>>, CatalogError> {
        let read = async || catalog.credential(CredentialKind::Key, public).await;
        self.read(version, |seen| &mut seen.keys, public, public.to_owned(), read).await
    }

    /// Whose token it is, and until when.
    pub async fn token(
        &self,
        catalog: &dyn Catalog,
        version: Option<u64>,
        hash: &[u8; 32],
    ) -> Result<Option<Arc<(Arc<Credential>, Timestamp)>>, CatalogError> {
        let read = async || Ok(catalog.token(hash).await?.map(|(account, expires)| (Arc::new(account), expires)));
        self.read(version, |seen| &mut seen.tokens, hash, *hash, read).await
    }

    pub async fn cluster_named(
        &self,
        catalog: &dyn Catalog,
        version: Option<u64>,
        project: ProjectId,
        name: &str,
    ) -> Result<Option<Arc<Cluster>>, CatalogError> {
        let key = (project, name.to_owned());
        let read = async || catalog.cluster_named(project, name).await;
        self.read(version, |seen| &mut seen.named, &key, key.clone(), read).await
    }

    pub async fn cluster(
        &self,
        catalog: &dyn Catalog,
        version: Option<u64>,
        id: ClusterId,
    ) -> Result<Option<Arc<Cluster>>, CatalogError> {
        self.read(version, |seen| &mut seen.clusters, &id, id, async || catalog.cluster(id).await).await
    }

    /// A key that was looked up before, or that there is none.
    pub fn known_key(&self, version: u64, public: &str) -> Option<Option<Arc<Credential>>> {
        self.at(version, |seen| seen.keys.get(public).cloned())
    }

    /// The reply to a request that only reads, if it is known.
    pub fn reply(&self, version: Option<u64>, to: Asking<'_>) -> Option<Arc<Written>> {
        self.at(version?, |seen| seen.replies.get(&to).cloned())
    }

    /// Remembers a reply that was made of what the catalog held at `version` or later.
    pub fn remember(&self, version: Option<u64>, to: Asking<'_>, reply: &Written) {
        let Some(version) = version else { return };
        self.at(version, |seen| {
            let bytes = reply.bytes.len() + to.target.len() + to.host.len() + to.accept.len();
            seen.reply_bytes += bytes;
            if seen.reply_bytes > REPLY_BYTES || seen.replies.len() >= CAPACITY {
                seen.replies.clear();
                seen.reply_bytes = bytes;
            }
            // One that was there already is counted twice, which errs on the safe side.
            seen.replies.insert(to.into(), Arc::new(reply.clone()));
        });
    }

    async fn read<K: Eq + Hash, Q: Equivalent<K> + Hash + ?Sized, T>(
        &self,
        version: Option<u64>,
        kind: Kind<K, T>,
        query: &Q,
        key: K,
        read: impl AsyncFnOnce() -> Result<Option<T>, CatalogError>,
    ) -> Result<Option<Arc<T>>, CatalogError> {
        let Some(version) = version else {
            return Ok(read().await?.map(Arc::new));
        };
        if let Some(known) = self.at(version, |seen| kind(seen).get(query).cloned()) {
            return Ok(known);
        }
        let record = read().await?.map(Arc::new);
        self.at(version, |seen| {
            let records = kind(seen);
            if records.len() >= CAPACITY {
                records.clear();
            }
            records.insert(key, record.clone());
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_found_as_it_was_kept_and_nothing_else() {
        let by = CredentialId::new(Timestamp::UNIX_EPOCH, 1);
        let asking = Asking { by, target: "/a", host: "h", tls: true, gzip: false, accept: "x", day: 3 };
        let written =
            Written { status: http::StatusCode::OK, media_type: crate::respond::JSON, bytes: "{}".into(), gzip: false };
        let reads = Reads::default();
        reads.remember(Some(7), asking, &written);
        assert!(reads.reply(Some(7), asking).is_some());
        let others = [
            Asking { by: CredentialId::new(Timestamp::UNIX_EPOCH, 2), ..asking },
            Asking { target: "/b", ..asking },
            Asking { host: "i", ..asking },
            Asking { tls: false, ..asking },
            Asking { gzip: true, ..asking },
            Asking { accept: "", ..asking },
            Asking { day: 4, ..asking },
        ];
        for other in others {
            assert!(reads.reply(Some(7), other).is_none(), "{other:?}");
        }
        assert!(reads.reply(Some(8), asking).is_none(), "the catalog has changed");
        assert!(reads.reply(Some(7), asking).is_none(), "and what was before is forgotten");
        reads.remember(None, asking, &written);
        assert!(reads.reply(None, asking).is_none());
    }
}
