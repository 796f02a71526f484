//! What the command line says when it fails.

use std::path::PathBuf;

use stillpoint_catalog::CatalogError;
use stillpoint_engine::snapshots::SnapshotError;
use stillpoint_engine::stored::StoredError;
use stillpoint_mongo::MongoError;
use stillpoint_vault::VaultError;

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Wrong use: exit code 2.
    #[error("{0}")]
    Usage(String),
    #[error("the configuration: {0}")]
    Config(String),
    #[error("there is no {kind} {name:?}; `stillpoint {list}` lists them")]
    NotFound { kind: &'static str, name: String, list: String },
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Mongo(#[from] MongoError),
    #[error("the vault: {0}")]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("{0}")]
    Failed(String),
    #[error("{path} cannot be read: {why}")]
    File { path: PathBuf, why: std::io::Error },
    #[error(
        "no server is running on this catalog: start `stillpoint serve` with the same configuration, then ask again"
    )]
    NoServer,
}

impl CliError {
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 2,
            _ => 1,
        }
    }
}
