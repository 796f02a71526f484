//! The vault, opened when it first can be.
//!
//! A server must come up though its vault does not answer: it may owe a balancer its return. Until the vault
//! can be opened, whoever needs it gets the reason.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use stillpoint_vault::{Vault, VaultError};
use tokio::sync::OnceCell;

type Open = dyn Fn() -> BoxFuture<'static, Result<Vault, VaultError>> + Send + Sync;

/// A vault, or what opens it.
#[derive(Clone)]
pub struct Depot {
    opened: Arc<OnceCell<Vault>>,
    open: Arc<Open>,
}

impl Depot {
    /// `open` is called whenever the vault is needed, until it has succeeded once.
    pub fn new(open: impl Fn() -> BoxFuture<'static, Result<Vault, VaultError>> + Send + Sync + 'static) -> Depot {
        Depot { opened: Arc::default(), open: Arc::new(open) }
    }

    pub async fn vault(&self) -> Result<&Vault, VaultError> {
        self.opened.get_or_try_init(|| (self.open)()).await
    }
}

impl From<Vault> for Depot {
    fn from(vault: Vault) -> Depot {
        Depot::new(move || {
            let vault = vault.clone();
            Box::pin(async { Ok(vault) })
        })
    }
}

impl fmt::Debug for Depot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Depot").field("opened", &self.opened.initialized()).finish_non_exhaustive()
    }
}
