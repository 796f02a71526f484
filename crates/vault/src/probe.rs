//! Whether what a server will do to the vault is allowed: with a small object that is written, read,
//! listed and deleted.

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use object_store::path::Path;

use crate::error::{Answer, Result, VaultError};
use crate::keys::new_key;
use crate::store::Store;

/// Where the objects for trying out are; each is deleted at once, or by a later try a day after.
pub const PROBES: &str = "probe";

/// After this time nobody is trying any more.
const OLD: SignedDuration = SignedDuration::from_hours(24);
pub(crate) async fn run(store: &Store, now: Timestamp) -> Result<()> {
    let content = new_key()?.to_vec();
    let name = format!("{PROBES}/{}", blake3::hash(&content).to_hex());
    let path = Path::from(name.as_str());
    let failed = |doing: &str, answer: Answer| match answer {
        Answer::Missing | Answer::Changed | Answer::TooLarge(_) => unfaithful(store, format!("{doing} found another")),
        answer => store.error(doing, &name, answer),
    };
    store.put(&path, &[content.clone().into()]).await.map_err(|answer| failed("write", answer))?;
    let read = store.read(&path).await.map_err(|answer| failed("read", answer))?;
    if read.bytes != content {
        return Err(unfaithful(store, format!("{} bytes came back of {}", read.bytes.len(), content.len())));
    }
    if !list(store, &path, now).await.map_err(|(doing, answer)| failed(doing, answer))? {
        return Err(unfaithful(store, "it was not in the list of what there is".into()));
    }
    store.delete(&path).await.map_err(|answer| failed("delete", answer))?;
    match store.look(&path).await.map_err(|answer| failed("look at", answer))? {
        Some(_) => Err(unfaithful(store, "it is still there after it was deleted".into())),
        None => Ok(()),
    }
}

/// Whether it is in the list; deletes those that were left behind.
async fn list(store: &Store, path: &Path, now: Timestamp) -> Result<bool, (&'static str, Answer)> {
    let mut listed = false;
    let mut list = store.list(&Path::from(PROBES));
    while let Some(found) = list.next().await {
        let found = found.map_err(|answer| ("list", answer))?;
        listed |= found.location == *path;
        if now.duration_since(modified(&found)) > OLD {
            store.delete(&found.location).await.map_err(|answer| ("delete", answer))?;
        }
    }
    Ok(listed)
}

fn unfaithful(store: &Store, why: String) -> VaultError {
    VaultError::Unfaithful { vault: store.shown.clone(), why }
}

/// When an object was written, by the store's clock.
pub(crate) fn modified(meta: &object_store::ObjectMeta) -> Timestamp {
    Timestamp::from_microsecond(meta.last_modified.timestamp_micros()).unwrap_or_default()
}
