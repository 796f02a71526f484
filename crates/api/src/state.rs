//! What the interface is given from outside.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use stillpoint_catalog::Catalog;
use tokio::sync::Notify;

use crate::audit;
use crate::base::PublicUrl;
use crate::rates::Rate;

/// Everything that a request may need and that is not in it.
#[derive(Clone)]
pub struct ApiState {
    pub catalog: Arc<dyn Catalog>,
    /// Rung (`notify_waiters`) after a checkpoint was queued or a schedule changed, so that the engine
    /// looks at once.
    pub wake: Arc<Notify>,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// How long the process has run: a clock that nobody sets.
    pub uptime: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Random numbers that cannot be guessed: ids, nonces and tokens are made of them.
    pub chance: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub settings: Settings,
}

/// What the operator decides.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where clients reach this server, if not under the name that they give in `Host`.
    pub public_url: Option<PublicUrl>,
    /// Proxies whose `X-Forwarded-For` says where a request comes from.
    pub trusted_proxies: Vec<IpNet>,
    /// Of v1.0 and Ops Manager; v2 has the published one, see [`crate::rates::ATLAS_V2`].
    pub rate: Option<Rate>,
    /// Between checkpoints of a cluster for which none has been set.
    pub interval: Option<Duration>,
    pub audit: audit::Keep,
    /// The folder of the files that are to be downloaded.
    pub downloads: PathBuf,
}

impl ApiState {
    /// 256 bits of chance.
    pub fn random(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.chunks_mut(8).for_each(|piece| piece.copy_from_slice(&(self.chance)().to_le_bytes()));
        bytes
    }
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState")
            .field("catalog", &self.catalog)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
