//! What the interface is given from outside.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use stillpoint_catalog::Catalog;
use tokio::sync::Notify;

use crate::base::PublicUrl;
use crate::digest::Verifier;
use crate::reads::Reads;

/// Everything that a request may need and that is not in it.
#[derive(Clone)]
pub struct ApiState {
    pub catalog: Arc<dyn Catalog>,
    /// Rung (`notify_waiters`) after a checkpoint was queued, so that the engine begins it at once.
    pub wake: Arc<Notify>,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Random numbers that cannot be guessed: ids and nonces are made of them.
    pub chance: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Where clients reach this server, if not under the name that they give in `Host`.
    pub public_url: Option<PublicUrl>,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState")
            .field("catalog", &self.catalog)
            .field("public_url", &self.public_url)
            .finish_non_exhaustive()
    }
}

/// The state of a running interface.
pub struct Api {
    pub outside: ApiState,
    pub digest: Verifier,
    pub reads: Reads,
}

impl Api {
    pub fn new(outside: ApiState) -> Api {
        let mut secret = [0; 32];
        for piece in secret.chunks_mut(8) {
            piece.copy_from_slice(&(outside.chance)().to_le_bytes());
        }
        Api { outside, digest: Verifier::new(secret), reads: Reads::default() }
    }

    pub fn catalog(&self) -> &dyn Catalog {
        &*self.outside.catalog
    }
}
