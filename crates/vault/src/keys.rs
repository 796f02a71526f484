//! The keys of an encrypted vault, and how they are wrapped.
//!
//! A sealed value is `nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)`, AES-256-GCM with a random nonce.
//! What it is for is authenticated with it, so that one cannot be put in another's place.

use std::collections::BTreeMap;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::error::VaultError;

pub(crate) type Key = Zeroizing<[u8; 32]>;

/// Whatever does not open: another key, another purpose, or a changed byte. GCM cannot tell which.
#[derive(Debug, PartialEq)]
pub(crate) struct Unopened;

/// The unwrapped keys of one vault.
pub(crate) struct Keyring {
    /// What turns content into a blob's id; the same for as long as the vault lives.
    pub(crate) naming: Key,
    /// By id; the last is the one that new blobs are sealed with.
    pub(crate) data: BTreeMap<u32, Key>,
}

impl Keyring {
    pub(crate) fn newest(&self) -> Option<(u32, &Key)> {
        self.data.last_key_value().map(|(id, key)| (*id, key))
    }
}

pub(crate) fn new_key() -> Result<Key, VaultError> {
    let mut key = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(key.as_mut()).map_err(|_| VaultError::NoChance)?;
    Ok(key)
}

pub(crate) fn new_nonce() -> Result<[u8; NONCE_LEN], VaultError> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| VaultError::NoChance)?;
    Ok(nonce)
}

/// Made when needed, and not kept: its copy of the key is not zeroized.
pub(crate) fn cipher(key: &Key) -> Result<LessSafeKey, Unopened> {
    UnboundKey::new(&AES_256_GCM, key.as_ref()).map(LessSafeKey::new).map_err(|_| Unopened)
}

/// Wraps `key` for `purpose`.
pub(crate) fn wrap(wrapping: &Key, purpose: &str, key: &Key) -> Result<Vec<u8>, VaultError> {
    let nonce = new_nonce()?;
    let mut body = Zeroizing::new(key.to_vec());
    let tag = cipher(wrapping)
        .map_err(|_| VaultError::NoChance)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), &mut body)
        .map_err(|_| VaultError::NoChance)?;
    Ok([&nonce, body.as_slice(), tag.as_ref()].concat())
}

pub(crate) fn unwrap(wrapping: &Key, purpose: &str, sealed: &[u8]) -> Result<Key, Unopened> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(Unopened)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopened)?;
    let mut body = Zeroizing::new(body.to_vec());
    let plain = cipher(wrapping)?.open_in_place(nonce, Aad::from(purpose), &mut body).map_err(|_| Unopened)?;
    let mut key = Zeroizing::new([0; 32]);
    (plain.len() == key.len()).then(|| key.copy_from_slice(plain)).ok_or(Unopened)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_opens_for_its_purpose_with_its_key_only() {
        let (wrapping, other, key) = (new_key().unwrap(), new_key().unwrap(), new_key().unwrap());
        let sealed = wrap(&wrapping, "data key 1", &key).unwrap();
        assert_eq!(unwrap(&wrapping, "data key 1", &sealed).unwrap().as_ref(), key.as_ref());
        assert_eq!(unwrap(&wrapping, "data key 2", &sealed), Err(Unopened));
        assert_eq!(unwrap(&other, "data key 1", &sealed), Err(Unopened));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(unwrap(&wrapping, "data key 1", &changed), Err(Unopened), "byte {at}");
            assert_eq!(unwrap(&wrapping, "data key 1", &sealed[..at]), Err(Unopened), "{at} bytes");
        }
    }
}
