//! Which catalog this is, and whose vault its segments are in.

use rusqlite::{Connection, Transaction, params};
use stillpoint_core::{CatalogId, VaultId};

use super::rows::{corrupt, execute, one, parsed};
use super::store;
use crate::{CatalogError, Result};

pub fn id(connection: &Connection) -> Result<CatalogId> {
    let found = one(connection, "SELECT catalog FROM identity", [], |row| parsed(row, "catalog"))?;
    found.ok_or_else(|| corrupt("the catalog's id", "it is not there"))
}

pub fn vault(connection: &Connection) -> Result<Option<VaultId>> {
    one(connection, "SELECT vault FROM identity WHERE vault IS NOT NULL", [], |row| parsed(row, "vault"))
}

pub fn bind_vault(transaction: &Transaction, vault: VaultId) -> Result<()> {
    match self::vault(transaction)? {
        Some(bound) if bound == vault => Ok(()),
        Some(bound) => Err(CatalogError::AnotherVault { bound, found: vault }),
        None => {
            let sql = "UPDATE identity SET vault = ?1";
            execute(transaction, sql, params![vault.to_string()]).map(drop).map_err(store)
        }
    }
}
