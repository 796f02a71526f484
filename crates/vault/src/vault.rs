//! The vault itself: open, put, get, list, delete, rotate.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::path::Path;
use stillpoint_core::stream::BlobId;
use stillpoint_core::{CatalogId, VaultId};

use crate::blob::{self, Unreadable};
use crate::error::{Answer, Result, VaultError};
use crate::keys::Keyring;
use crate::local;
use crate::manifest::{MANIFEST, Manifest};
use crate::master_key::MasterKey;
use crate::options::Options;
use crate::patience::Patience;
use crate::probe::{self, PROBES};
use crate::store::{Read, Store};

/// The longest name of a blob, and of one step in it: what every kind of store takes.
const NAME: usize = 800;
const STEP: usize = 240;

/// A blob that is in the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub blob: BlobId,
    /// Its bytes in the vault.
    pub stored: u64,
}

/// What is in the vault, as a list of it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub bytes: u64,
    /// By the store's clock.
    pub modified: Timestamp,
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Of the master key that opens the vault from now on.
    pub fingerprint: String,
    /// The data key that new blobs are sealed with.
    pub data_key: u32,
}

/// An open vault; its clones are the same one.
#[derive(Clone)]
pub struct Vault {
    store: Store,
    id: VaultId,
    owner: CatalogId,
    lock: Arc<RwLock<Lock>>,
    patience: Arc<Patience>,
}

struct Lock {
    master: Option<MasterKey>,
    keys: Option<Arc<Keyring>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({} at {})", self.id, self.store.shown)
    }
}

impl Vault {
    /// Opens a vault that is there, to read from it: nothing is written to try it out. With a `catalog` it
    /// must be that one's.
    pub async fn open(options: &Options, catalog: Option<CatalogId>) -> Result<Vault> {
        let store = Store::open(options, false).await?;
        match find(&store).await? {
            Some((manifest, _)) => Vault::with(store, manifest, catalog, options.master_key.clone()),
            None => Err(VaultError::NoVault { vault: store.shown }),
        }
    }

    /// Opens the vault of `catalog`, or makes one if there is nothing yet, and tries out that it can be
    /// written, read, listed and deleted from. A new one's id is made from `now` and `chance`.
    pub async fn create_or_open(options: &Options, catalog: CatalogId, now: Timestamp, chance: u64) -> Result<Vault> {
        let store = Store::open(options, true).await?;
        if let Some((manifest, _)) = find(&store).await? {
            let vault = Vault::with(store, manifest, Some(catalog), options.master_key.clone())?;
            probe::run(&vault.store, now).await?;
            return Ok(vault);
        }
        let stranger = first_stranger(&store).await?;
        if stranger.is_none() {
            probe::run(&store, now).await?;
            let manifest = Manifest::new(VaultId::new(now, chance), catalog, now, options.master_key.as_ref())?;
            match store.create(&path(MANIFEST), manifest.to_bytes()?).await {
                // Another process was first, or the reply was lost: what is there counts.
                Ok(()) | Err(Answer::Changed | Answer::Failed(_)) => {}
                Err(answer) => return Err(store.error("write", MANIFEST, answer)),
            }
        }
        match (find(&store).await?, stranger) {
            (Some((manifest, _)), _) => Vault::with(store, manifest, Some(catalog), options.master_key.clone()),
            (None, Some(found)) => Err(VaultError::NotEmpty { vault: store.shown, found }),
            (None, None) => Err(store.error("write", MANIFEST, Answer::Failed("it is not there afterwards".into()))),
        }
    }

    fn with(store: Store, manifest: Manifest, catalog: Option<CatalogId>, master: Option<MasterKey>) -> Result<Vault> {
        if let Some(catalog) = catalog.filter(|catalog| *catalog != manifest.catalog) {
            return Err(VaultError::Owner { vault: store.shown, owner: manifest.catalog, catalog });
        }
        let keys = manifest.unlock(&store.shown, master.as_ref())?.map(Arc::new);
        let lock = Arc::new(RwLock::new(Lock { master, keys }));
        let patience = Arc::new(Patience::new(store.limits.reread_time));
        Ok(Vault { store, id: manifest.id, owner: manifest.catalog, lock, patience })
    }

    pub fn id(&self) -> VaultId {
        self.id
    }

    /// The catalog that it belongs to.
    pub fn owner(&self) -> CatalogId {
        self.owner
    }

    /// Its address, for messages.
    pub fn place(&self) -> &str {
        &self.store.shown
    }

    pub fn is_encrypted(&self) -> bool {
        self.keys().is_some()
    }

    fn keys(&self) -> Option<Arc<Keyring>> {
        self.lock.read().unwrap_or_else(PoisonError::into_inner).keys.clone()
    }

    fn master(&self) -> Option<MasterKey> {
        self.lock.read().unwrap_or_else(PoisonError::into_inner).master.clone()
    }

    fn set(&self, master: Option<MasterKey>, keys: Option<Keyring>) {
        let mut lock = self.lock.write().unwrap_or_else(PoisonError::into_inner);
        *lock = Lock { master, keys: keys.map(Arc::new) };
    }

    /// Stores a content under `{place}-{its id}`. When this returns it is in the vault for good; before, all
    /// of it or nothing is. One that is there already and whole is left as it is; a damaged one is replaced.
    pub async fn put(&self, place: &str, content: Bytes) -> Result<Stored> {
        let (bytes, most) = (content.len() as u64, self.store.limits.most);
        let keys = self.keys();
        let (id, content, keys) = blocking(move || (blob::id(keys.as_deref(), &content), content, keys)).await;
        let name = format!("{place}-{id}");
        let path = blob_path(&name)?;
        if bytes > most {
            return Err(VaultError::TooLarge { name, bytes, most });
        }
        let stored = blob::stored_bytes(keys.as_deref(), bytes);
        let failed = |answer| self.store.error("write", &name, answer);
        match self.store.look(&path).await.map_err(failed)? {
            Some(there) if there.size == stored && self.read(&path, &name, id).await.is_ok() => {
                // Whoever wrote it may have died, or failed, before it was there for good.
                self.store.settle(&path).await.map_err(failed)?;
                return Ok(Stored { blob: id, stored });
            }
            Some(_) => {}
            // A disk that is not mounted is an empty folder.
            None if self.store.root.is_some() => self.is_there("write", &name).await?,
            None => {}
        }
        let pieces = blocking(move || blob::encode(keys.as_deref(), id, content)).await?;
        self.store.put(&path, &pieces).await.map_err(failed)?;
        Ok(Stored { blob: id, stored })
    }

    /// What a content would be called by.
    pub async fn id_of(&self, content: Bytes) -> BlobId {
        let keys = self.keys();
        blocking(move || blob::id(keys.as_deref(), &content)).await
    }

    /// The content of a blob by its whole name, checked against its id.
    pub async fn get(&self, name: &str, blob: BlobId) -> Result<Bytes> {
        let path = blob_path(name)?;
        if !name.ends_with(&format!("-{blob}")) {
            return Err(VaultError::Name { name: name.to_owned(), why: format!("it does not end in -{blob}") });
        }
        match self.read(&path, name, blob).await {
            Err(VaultError::Damaged { .. }) => self.read_again(&path, name, blob).await,
            // Another process may have rotated the keys.
            Err(VaultError::UnknownKey { .. }) => {
                self.reload().await?;
                self.read(&path, name, blob).await
            }
            Err(VaultError::Missing { vault, name }) => {
                self.is_there("read", &name).await?;
                Err(VaultError::Missing { vault, name })
            }
            done => done,
        }
    }

    /// Its bytes were wrong: they may have been changed on the way only, or by a store that is in trouble for a
    /// while. So it is read again at once, then after pauses, before it counts as damaged.
    async fn read_again(&self, path: &Path, name: &str, id: BlobId) -> Result<Bytes> {
        let mut pauses = self.patience.pauses();
        loop {
            let done = self.read(path, name, id).await;
            if !matches!(done, Err(VaultError::Damaged { .. })) || self.store.root.is_some() {
                return done;
            }
            let Some(pause) = pauses.next() else { return done };
            tokio::time::sleep(pause).await;
        }
    }

    async fn read(&self, path: &Path, name: &str, id: BlobId) -> Result<Bytes> {
        let Read { bytes, .. } =
            self.store.read(path).await.map_err(|answer| self.store.error("read", name, answer))?;
        let keys = self.keys();
        let (vault, name) = (self.store.shown.clone(), name.to_owned());
        blocking(move || blob::decode(keys.as_deref(), id, bytes)).await.map_err(|unreadable| match unreadable {
            Unreadable::Damaged(why) => VaultError::Damaged { vault, name, why },
            Unreadable::UnknownKey(key) => VaultError::UnknownKey { vault, name, key },
        })
    }

    /// Whether the vault itself is there: if not, nothing can be said of what is in it.
    async fn is_there(&self, doing: &str, name: &str) -> Result<()> {
        match self.store.look(&path(MANIFEST)).await.map_err(|answer| self.store.error("read", MANIFEST, answer))? {
            Some(_) => Ok(()),
            None => {
                let why = format!("its {MANIFEST} is gone too: is the vault's disk mounted?");
                Err(self.store.error(doing, name, Answer::Failed(why)))
            }
        }
    }

    /// What is under a folder or prefix (whole steps of a name), or everything for an empty one; in no
    /// order that every store keeps to. `vault.json` and probes are listed too, and [leftovers](Self::leftovers) are not.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<Listed>> {
        let (vault, prefix) = (self.clone(), prefix.to_owned());
        let list = async move {
            let under =
                Path::parse(&prefix).map_err(|e| VaultError::Name { name: prefix.clone(), why: e.to_string() })?;
            vault.is_there("list", &prefix).await?;
            let list = vault.store.list(&under);
            Ok(list
                .map_ok(|meta| Listed {
                    modified: probe::modified(&meta),
                    bytes: meta.size,
                    name: meta.location.into(),
                })
                .map_err(move |answer| vault.store.error("list", &prefix, answer)))
        };
        stream::once(list).try_flatten().boxed()
    }

    /// What interrupted writes left in a local folder, for [`Vault::delete`]. One that is younger than a write
    /// can take may be of a write that is under way. In a bucket a lifecycle rule ends interrupted uploads.
    pub fn leftovers(&self) -> BoxStream<'static, Result<Listed>> {
        let Some(root) = self.store.root.clone() else { return stream::empty().boxed() };
        let store = self.store.clone();
        local::leftovers(root).map_err(move |answer| store.error("list", "what is left over", answer)).boxed()
    }

    /// Deletes a blob or a leftover; one that is gone already is as good.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let wrong = |why: String| VaultError::Name { name: name.to_owned(), why };
        let path = Path::parse(name).map_err(|e| wrong(e.to_string()))?;
        if path.as_ref() != name || name.is_empty() || name == MANIFEST {
            return Err(wrong("it is not a blob's".into()));
        }
        self.store.delete(&path).await.map_err(|answer| self.store.error("delete", name, answer))
    }

    /// Wraps every data key with `new`, and adds one that is used from then on; no blob is rewritten. When
    /// this returns, the master key before no longer opens the vault. Other processes that have it open
    /// go on with the data keys they know, and need the new master key at their next start.
    pub async fn rotate(&self, new: &MasterKey, now: Timestamp) -> Result<Rotation> {
        let vault = || self.store.shown.clone();
        let Some((manifest, read)) = find(&self.store).await? else {
            return Err(VaultError::NoVault { vault: vault() });
        };
        let Some(keys) = manifest.unlock(&self.store.shown, self.master().as_ref())? else {
            return Err(VaultError::NotEncrypted { vault: vault(), key: new.source().to_owned() });
        };
        if self.master().is_some_and(|master| master.fingerprint() == new.fingerprint()) {
            return Err(VaultError::SameKey { vault: vault(), fingerprint: new.fingerprint() });
        }
        let rotated = manifest.rotated(&keys, new, now)?;
        // Before it is too late: what is about to be written opens.
        let keys = rotated.unlock(&self.store.shown, Some(new))?;
        match self.store.replace(&path(MANIFEST), &read, rotated.to_bytes()?).await {
            Ok(()) => {}
            // The reply may have been lost.
            Err(answer @ (Answer::Changed | Answer::Failed(_))) => {
                if find(&self.store).await?.is_none_or(|(there, _)| there != rotated) {
                    return Err(self.store.error("write", MANIFEST, answer));
                }
            }
            Err(answer) => return Err(self.store.error("write", MANIFEST, answer)),
        }
        let data_key = keys.as_ref().and_then(Keyring::newest).map_or(0, |(id, _)| id);
        self.set(Some(new.clone()), keys);
        Ok(Rotation { fingerprint: new.fingerprint(), data_key })
    }

    async fn reload(&self) -> Result<()> {
        let Some((manifest, _)) = find(&self.store).await? else {
            return Err(VaultError::NoVault { vault: self.store.shown.clone() });
        };
        let master = self.master();
        let keys = manifest.unlock(&self.store.shown, master.as_ref())?;
        self.set(master, keys);
        Ok(())
    }
}

/// `vault.json`, if it is there.
async fn find(store: &Store) -> Result<Option<(Manifest, Read)>> {
    match store.read(&path(MANIFEST)).await {
        Ok(read) => Ok(Some((Manifest::from_bytes(&store.shown, &read.bytes)?, read))),
        Err(Answer::Missing) => {
            // Some services say so of a bucket that does not exist; a list of it fails.
            let first = store.list(&Path::default()).next().await.transpose();
            first.map_err(|answer| store.error("list", "what is there", answer))?;
            Ok(None)
        }
        Err(answer) => Err(store.error("read", MANIFEST, answer)),
    }
}

/// Something that a new vault's place may not hold.
async fn first_stranger(store: &Store) -> Result<Option<String>> {
    let mut list = store.list(&Path::default());
    while let Some(found) = list.next().await {
        let name = String::from(found.map_err(|answer| store.error("list", "what is there", answer))?.location);
        let probe = name.strip_prefix(PROBES).is_some_and(|rest| rest.starts_with('/'));
        if !probe && name != MANIFEST {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn path(name: &str) -> Path {
    Path::from(name)
}

/// The path of a blob's name, which goes as it is into a URL's path and a file's name.
fn blob_path(name: &str) -> Result<Path> {
    let wrong = |why: &str| VaultError::Name { name: name.to_owned(), why: why.to_owned() };
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%=+,@".contains(&b)) {
        return Err(wrong("letters, digits and /-._~%=+,@ may be in it"));
    }
    if name.starts_with('-') {
        return Err(wrong("something must be before the id"));
    }
    if name.len() > NAME || name.split('/').any(|step| step.len() > STEP) {
        return Err(wrong("it is too long"));
    }
    let path = Path::parse(name).map_err(|_| wrong("its steps may not be empty, `.` or `..`"))?;
    if path.as_ref() != name {
        return Err(wrong("it may not begin or end with `/`"));
    }
    if name.split('/').next().is_some_and(|first| first == PROBES || first == MANIFEST) {
        return Err(wrong("that place is the vault's own"));
    }
    Ok(path)
}

/// Hashing and encryption take milliseconds to seconds: not on a thread that others wait for.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        // Only when the runtime is going away, and this with it.
        Err(_) => std::future::pending().await,
    }
}
