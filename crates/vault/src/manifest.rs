//! `vault.json`: whose the vault is, and its wrapped keys.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stillpoint_core::{CatalogId, VaultId};

use crate::error::{Result, VaultError};
use crate::keys::{self, Keyring};
use crate::master_key::MasterKey;

/// The object that makes a folder or prefix a vault.
pub const MANIFEST: &str = "vault.json";
/// The format of vaults that this version writes and reads.
pub const FORMAT: u64 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) format: u64,
    pub(crate) id: VaultId,
    /// Its owner.
    pub(crate) catalog: CatalogId,
    pub(crate) created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) encryption: Option<Encryption>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Encryption {
    /// The fingerprint of the key that wraps the others.
    pub(crate) master_key: String,
    pub(crate) naming_key: Wrapped,
    pub(crate) data_keys: Vec<DataKey>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DataKey {
    pub(crate) id: u32,
    pub(crate) created: Timestamp,
    pub(crate) key: Wrapped,
}

/// A wrapped key, in hex.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Wrapped(String);

impl Manifest {
    /// That of a new vault, encrypted if there is a master key.
    pub(crate) fn new(id: VaultId, catalog: CatalogId, created: Timestamp, master: Option<&MasterKey>) -> Result<Self> {
        let mut manifest = Manifest { format: FORMAT, id, catalog, created, encryption: None };
        if let Some(master) = master {
            let keys = Keyring { naming: keys::new_key()?, data: [(1, keys::new_key()?)].into() };
            manifest.wrap(&keys, master, created)?;
        }
        Ok(manifest)
    }

    /// The same vault with its keys and a fresh data key wrapped by `master`.
    pub(crate) fn rotated(&self, keys: &Keyring, master: &MasterKey, now: Timestamp) -> Result<Manifest> {
        let mut data = keys.data.clone();
        let fresh = data.last_key_value().map_or(0, |(id, _)| *id).saturating_add(1);
        data.insert(fresh, keys::new_key()?);
        let mut rotated = self.clone();
        rotated.wrap(&Keyring { naming: keys.naming.clone(), data }, master, now)?;
        Ok(rotated)
    }

    fn wrap(&mut self, keys: &Keyring, master: &MasterKey, now: Timestamp) -> Result<()> {
        let wrapping = master.wrapping_key();
        let wrap = |purpose: String, key| keys::wrap(&wrapping, &purpose, key).map(hex::encode).map(Wrapped);
        let before: BTreeMap<_, _> =
            self.encryption.iter().flat_map(|e| &e.data_keys).map(|key| (key.id, key.created)).collect();
        let data_keys = keys.data.iter().map(|(id, key)| {
            let created = before.get(id).copied().unwrap_or(now);
            Ok(DataKey { id: *id, created, key: wrap(self.data_purpose(*id), key)? })
        });
        self.encryption = Some(Encryption {
            master_key: master.fingerprint(),
            naming_key: wrap(self.naming_purpose(), &keys.naming)?,
            data_keys: data_keys.collect::<Result<_>>()?,
        });
        Ok(())
    }

    fn naming_purpose(&self) -> String {
        format!("stillpoint vault {} naming key", self.id)
    }

    fn data_purpose(&self, id: u32) -> String {
        format!("stillpoint vault {} data key {id}", self.id)
    }

    /// The keys, if there are any and `master` is theirs; `vault` is for messages.
    pub(crate) fn unlock(&self, vault: &str, master: Option<&MasterKey>) -> Result<Option<Keyring>> {
        let (encryption, master) = match (&self.encryption, master) {
            (None, None) => return Ok(None),
            (Some(encryption), Some(master)) => (encryption, master),
            (Some(encryption), None) => {
                return Err(VaultError::NoMasterKey {
                    vault: vault.to_owned(),
                    sealed_with: encryption.master_key.clone(),
                });
            }
            (None, Some(master)) => {
                return Err(VaultError::NotEncrypted { vault: vault.to_owned(), key: master.source().to_owned() });
            }
        };
        if encryption.master_key != master.fingerprint() {
            return Err(VaultError::WrongKey {
                vault: vault.to_owned(),
                sealed_with: encryption.master_key.clone(),
                key: master.source().to_owned(),
                fingerprint: master.fingerprint(),
            });
        }
        let wrapping = master.wrapping_key();
        let unwrap = |what: &str, purpose: String, wrapped: &Wrapped| {
            let opened = hex::decode(&wrapped.0).ok().and_then(|w| keys::unwrap(&wrapping, &purpose, &w).ok());
            opened
                .ok_or_else(|| bad(vault, format!("its {what} does not open, though the master key is the right one")))
        };
        let mut data = BTreeMap::new();
        for key in &encryption.data_keys {
            let opened = unwrap(&format!("data key {}", key.id), self.data_purpose(key.id), &key.key)?;
            if key.id == 0 || data.insert(key.id, opened).is_some() {
                return Err(bad(vault, format!("it has data key {} where it may not be", key.id)));
            }
        }
        if data.is_empty() {
            return Err(bad(vault, "it has no data key".into()));
        }
        Ok(Some(Keyring { naming: unwrap("naming key", self.naming_purpose(), &encryption.naming_key)?, data }))
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|_| VaultError::NoChance)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    pub(crate) fn from_bytes(vault: &str, bytes: &[u8]) -> Result<Manifest> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u64,
        }
        let read = |e: serde_json::Error| bad(vault, e.to_string());
        let Versioned { format } = serde_json::from_slice(bytes).map_err(read)?;
        if format != FORMAT {
            return Err(VaultError::Format { vault: vault.to_owned(), found: format });
        }
        serde_json::from_slice(bytes).map_err(read)
    }
}

fn bad(vault: &str, why: String) -> VaultError {
    VaultError::BadManifest { vault: vault.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(digit: &str) -> MasterKey {
        MasterKey::from_text("KEY", &digit.repeat(64).into()).unwrap()
    }

    fn manifest(master: Option<&MasterKey>) -> Manifest {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        Manifest::new(VaultId::new(now, 1), CatalogId::new(now, 2), now, master).unwrap()
    }

    #[test]
    fn what_was_written_reads_back_and_opens() {
        for master in [None, Some(master("a"))] {
            let new = manifest(master.as_ref());
            let read = Manifest::from_bytes("v", &new.to_bytes().unwrap()).unwrap();
            assert_eq!(read, new);
            assert_eq!(read.unlock("v", master.as_ref()).unwrap().is_some(), master.is_some());
        }
    }

    #[test]
    fn an_unknown_format_or_field_or_no_json_is_refused() {
        let newer = r#"{"format": 7, "whatever": true}"#;
        let refused = Manifest::from_bytes("file:v", newer.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("format 7") && refused.contains("knows 1"), "{refused}");
        let mut odd: serde_json::Value = serde_json::from_slice(&manifest(None).to_bytes().unwrap()).unwrap();
        odd["surprise"] = 1.into();
        for text in [odd.to_string(), "{}".into(), "not json".into(), String::new()] {
            let refused = Manifest::from_bytes("v", text.as_bytes());
            assert!(matches!(refused, Err(VaultError::BadManifest { .. })), "{text}");
        }
    }

    #[test]
    fn rotation_keeps_the_keys_and_adds_one() {
        let (old, new) = (master("a"), master("b"));
        let first = manifest(Some(&old));
        let keys = first.unlock("v", Some(&old)).unwrap().unwrap();
        let second = first.rotated(&keys, &new, Timestamp::UNIX_EPOCH).unwrap();
        let again = second.unlock("v", Some(&new)).unwrap().unwrap();
        assert_eq!(again.naming, keys.naming);
        assert_eq!(again.data[&1], keys.data[&1]);
        assert_eq!(again.newest().unwrap().0, 2);
        assert!(matches!(second.unlock("v", Some(&old)), Err(VaultError::WrongKey { .. })));
    }

    #[test]
    fn keys_of_another_vault_or_swapped_ones_do_not_open() {
        let master = master("a");
        let one = manifest(Some(&master));
        let mut other = one.clone();
        other.id = VaultId::new(Timestamp::UNIX_EPOCH, 9);
        assert!(matches!(other.unlock("v", Some(&master)), Err(VaultError::BadManifest { .. })));

        let keys = one.unlock("v", Some(&master)).unwrap().unwrap();
        let mut swapped = one.rotated(&keys, &master, Timestamp::UNIX_EPOCH).unwrap();
        let encryption = swapped.encryption.as_mut().unwrap();
        encryption.data_keys[0].id = 2;
        encryption.data_keys[1].id = 1;
        assert!(matches!(swapped.unlock("v", Some(&master)), Err(VaultError::BadManifest { .. })));
    }
}
