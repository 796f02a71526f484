//! One object store, every wait on it bounded.
//!
//! Requests are repeated by `object_store` itself; what it gives up too early, such as a reply that
//! breaks off, is begun again here.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResultPayload, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutPayload, UpdateVersion,
};
use tokio::time::Instant;

use crate::error::{Answer, Result, VaultError};
use crate::options::{Limits, Options, Place};
use crate::{blob, local, s3};

/// Parts of one blob that are under way at once.
const PARTS_AT_ONCE: usize = 4;
/// How often a call is begun again that broke off on the way.
const ATTEMPTS: u32 = 4;
/// The pause before it is; doubles each time.
const PAUSE: Duration = Duration::from_millis(100);

/// What an object was when it was read.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) bytes: Vec<u8>,
    version: UpdateVersion,
}

#[derive(Debug, Clone)]
pub(crate) struct Store {
    inner: Arc<dyn ObjectStore>,
    place: Place,
    /// For messages.
    pub(crate) shown: String,
    /// The folder, if it is one.
    pub(crate) root: Option<PathBuf>,
    pub(crate) limits: Limits,
}

impl Store {
    /// Opens the place of a vault; makes its folder if there is none and `create`.
    pub(crate) async fn open(options: &Options, create: bool) -> Result<Store> {
        let place = Place::parse(&options.url)?;
        let (inner, root): (Arc<dyn ObjectStore>, _) = match &place {
            Place::Folder(path) => {
                let (folder, root) = local::open(path, &place.to_string(), create)?;
                (Arc::new(folder), Some(root))
            }
            Place::Bucket { bucket, prefix } => {
                (s3::open(bucket, prefix.clone(), &place.to_string(), &options.s3, &options.limits).await?, None)
            }
        };
        Ok(Store { inner, shown: place.to_string(), place, root, limits: options.limits.clone() })
    }

    /// The most that one request may take with all its repetitions.
    fn patience(&self) -> Duration {
        self.limits.retry_time + self.limits.request_timeout
    }

    async fn bounded<T>(&self, call: impl Future<Output = object_store::Result<T>>) -> Result<T, Answer> {
        match tokio::time::timeout(self.patience(), call).await {
            Ok(done) => done.map_err(Answer::from),
            Err(_) => Err(Answer::Failed(format!("no answer within {:?}", self.patience()))),
        }
    }

    /// Begins a call again that failed for no lasting reason.
    async fn persist<T, F: Future<Output = Result<T, Answer>>>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> Result<T, Answer> {
        let begun = Instant::now();
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match call().await {
                Err(Answer::Failed(_)) if self.root.is_none() && begun.elapsed() < self.limits.retry_time => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                done => return done,
            }
        }
        call().await
    }

    pub(crate) async fn read(&self, name: &Path) -> Result<Read, Answer> {
        self.persist(|| self.read_once(name)).await
    }

    async fn read_once(&self, name: &Path) -> Result<Read, Answer> {
        let first = self.bounded(self.inner.get(name)).await?;
        let meta = first.meta.clone();
        let most = self.limits.most.saturating_add(blob::OVERHEAD);
        if meta.size > most {
            return Err(Answer::TooLarge(meta.size));
        }
        let version = UpdateVersion { e_tag: meta.e_tag.clone(), version: meta.version.clone() };
        if meta.size <= self.part() || matches!(first.payload, GetResultPayload::File(..)) {
            let bytes = self.bounded(first.bytes()).await?;
            return Ok(Read { bytes: bytes.into(), version });
        }
        drop(first);
        let mut bytes = Vec::with_capacity(usize::try_from(meta.size).unwrap_or_default());
        let mut from = 0;
        while from < meta.size {
            let until = meta.size.min(from + self.part());
            let options = GetOptions {
                range: Some(GetRange::Bounded(from..until)),
                if_match: meta.e_tag.clone(),
                ..GetOptions::default()
            };
            let piece = self.bounded(async { self.inner.get_opts(name, options).await?.bytes().await }).await;
            let piece = match piece {
                // Put again meanwhile: from the beginning.
                Err(Answer::Changed) => return Err(Answer::Failed("it was replaced while it was read".into())),
                piece => piece?,
            };
            if piece.len() as u64 != until - from {
                return Err(Answer::Failed("a piece of it was shorter than asked for".into()));
            }
            bytes.extend_from_slice(&piece);
            from = until;
        }
        Ok(Read { bytes, version })
    }

    /// What is known of an object, if it is there.
    pub(crate) async fn look(&self, name: &Path) -> Result<Option<ObjectMeta>, Answer> {
        match self.persist(|| self.bounded(self.inner.head(name))).await {
            Ok(meta) => Ok(Some(meta)),
            Err(Answer::Missing) => Ok(None),
            Err(answer) => Err(answer),
        }
    }

    fn part(&self) -> u64 {
        self.limits.part.max(1)
    }

    /// Writes an object, over one that is there already. Nobody ever sees a part of it.
    pub(crate) async fn put(&self, name: &Path, pieces: &[Bytes]) -> Result<(), Answer> {
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.persist(|| async {
            if self.root.is_some() || bytes <= self.limits.multipart_from {
                let payload = PutPayload::from_iter(pieces.iter().cloned());
                return self.bounded(self.inner.put(name, payload)).await.map(drop);
            }
            let mut upload = self.bounded(self.inner.put_multipart(name)).await?;
            let done = self.upload(upload.as_mut(), pieces).await;
            if done.is_err() {
                // If this fails too, its parts are left to the bucket's lifecycle rule.
                let _ = self.bounded(upload.abort()).await;
            }
            match done {
                // It may well be there, if only the reply was lost; once more is certain.
                Err(Answer::Missing) => Err(Answer::Failed("the upload was ended".into())),
                done => done,
            }
        })
        .await
    }

    /// Makes sure that an object which is there survives a power cut.
    pub(crate) async fn settle(&self, name: &Path) -> Result<(), Answer> {
        let Some(root) = self.root.clone() else { return Ok(()) };
        let name = name.to_string();
        match tokio::task::spawn_blocking(move || local::settle(&root, &name)).await {
            Ok(done) => done.map_err(|e| Answer::Failed(e.to_string())),
            Err(e) => Err(Answer::Failed(e.to_string())),
        }
    }

    async fn upload(&self, upload: &mut dyn MultipartUpload, pieces: &[Bytes]) -> Result<(), Answer> {
        stream::iter(parts(pieces, self.part()))
            .map(|part| self.bounded(upload.put_part(PutPayload::from_iter(part))))
            .buffer_unordered(PARTS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.bounded(upload.complete()).await.map(drop)
    }

    /// Writes an object unless there is one: then it is `Changed`. After `Failed` it may be there.
    pub(crate) async fn create(&self, name: &Path, bytes: Vec<u8>) -> Result<(), Answer> {
        self.bounded(self.inner.put_opts(name, bytes.into(), PutMode::Create.into())).await.map(drop)
    }

    /// Writes an object if it still is what was read: otherwise it is `Changed`. After `Failed` it may be there.
    pub(crate) async fn replace(&self, name: &Path, read: &Read, bytes: Vec<u8>) -> Result<(), Answer> {
        let Some(root) = &self.root else {
            let mode = PutMode::Update(read.version.clone());
            return self.bounded(self.inner.put_opts(name, bytes.into(), mode.into())).await.map(drop);
        };
        let _lock = local::lock(root)?;
        if self.read(name).await?.bytes != read.bytes {
            return Err(Answer::Changed);
        }
        self.put(name, &[bytes.into()]).await
    }

    /// Removes an object; that there is none is as good.
    pub(crate) async fn delete(&self, name: &Path) -> Result<(), Answer> {
        let deleted = match &self.root {
            Some(root) if local::is_leftover(name.as_ref()) => local::delete(root, name.as_ref()),
            _ => self.persist(|| self.bounded(self.inner.delete(name))).await,
        };
        match deleted {
            Err(Answer::Missing) => Ok(()),
            done => done,
        }
    }

    /// The objects under a folder or prefix, one page of them in memory at a time.
    pub(crate) fn list(&self, prefix: &Path) -> BoxStream<'static, Result<ObjectMeta, Answer>> {
        let prefix = (!prefix.as_ref().is_empty()).then(|| prefix.clone());
        let listing = Listing { list: self.inner.list(prefix.as_ref()), last: None, left: ATTEMPTS };
        let store = self.clone();
        stream::try_unfold((store, prefix, listing), |(store, prefix, mut listing)| async move {
            let found = listing.next(&store, prefix.as_ref()).await?;
            Ok(found.map(|meta| (meta, (store, prefix, listing))))
        })
        .boxed()
    }

    /// The error for what went wrong while trying to do something to `name`.
    pub(crate) fn error(&self, doing: &str, name: &str, answer: Answer) -> VaultError {
        let vault = self.shown.clone();
        let doing = format!("{doing} {name}");
        match answer {
            Answer::Missing => VaultError::Missing { vault, name: name.to_owned() },
            Answer::TooLarge(bytes) => VaultError::TooLarge { name: name.to_owned(), bytes, most: self.limits.most },
            Answer::Changed => VaultError::Conflict { vault },
            Answer::NoBucket => {
                let bucket = if let Place::Bucket { bucket, .. } = &self.place { bucket.as_str() } else { "" };
                VaultError::NoBucket { vault, bucket: bucket.to_owned() }
            }
            Answer::Refused(why) => VaultError::Refused { vault, doing, why },
            Answer::Failed(why) => VaultError::Unavailable { vault, doing, why },
        }
    }
}

/// A list that is under way.
struct Listing {
    list: BoxStream<'static, object_store::Result<ObjectMeta>>,
    last: Option<Path>,
    /// How often it may still fail before it goes on.
    left: u32,
}

impl Listing {
    async fn next(&mut self, store: &Store, prefix: Option<&Path>) -> Result<Option<ObjectMeta>, Answer> {
        loop {
            match store.bounded(async { self.list.next().await.transpose() }).await {
                Ok(found) => {
                    self.last = found.as_ref().map(|meta| meta.location.clone());
                    self.left = ATTEMPTS;
                    return Ok(found);
                }
                // In a bucket lists are in order, and go on after any name.
                Err(Answer::Failed(_)) if store.root.is_none() && self.left > 1 => {
                    self.left -= 1;
                    tokio::time::sleep(PAUSE).await;
                    self.list = match &self.last {
                        Some(last) => store.inner.list_with_offset(prefix, last),
                        None => store.inner.list(prefix),
                    };
                }
                Err(answer) => return Err(answer),
            }
        }
    }
}

/// Cuts what `pieces` make together into parts of `bytes` each, without copying.
fn parts(pieces: &[Bytes], bytes: u64) -> Vec<Vec<Bytes>> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut parts = vec![Vec::new()];
    let mut room = bytes;
    for piece in pieces {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            if room == 0 {
                parts.push(Vec::new());
                room = bytes;
            }
            let taken = rest.split_to(room.min(rest.len()));
            room -= taken.len();
            if let Some(part) = parts.last_mut() {
                part.push(taken);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_of_one_size_but_the_last_and_lose_nothing() {
        let pieces = [Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defghijk")];
        let cut: Vec<Vec<u8>> = parts(&pieces, 4).iter().map(|part| part.concat()).collect();
        assert_eq!(cut, [b"abcd".to_vec(), b"efgh".to_vec(), b"ijk".to_vec()]);
        assert_eq!(parts(&pieces, 11).len(), 1);
    }
}
