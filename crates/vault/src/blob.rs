//! The bytes of one stored blob, see `docs/formats/vault.md`.
//!
//! ```text
//!  0  6  "SPBLOB"
//!  6  1  format: 1
//!  7  1  0 plain, 1 AES-256-GCM
//!  8  4  id of the data key, big-endian; 0 in a plain blob
//! 12     plain: the content
//!        sealed: nonce (12), the encrypted content, tag (16)
//! ```

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce};
use stillpoint_core::stream::BlobId;

use crate::error::VaultError;
use crate::keys::{Keyring, cipher, new_nonce};

const MAGIC: &[u8; 6] = b"SPBLOB";
const FORMAT: u8 = 1;
const HEADER: usize = 12;
const TAG: usize = 16;

/// How much longer a stored blob is than its content, at most.
pub(crate) const OVERHEAD: u64 = (HEADER + NONCE_LEN + TAG) as u64;

/// Why a stored blob does not give its content.
#[derive(Debug, PartialEq)]
pub(crate) enum Unreadable {
    Damaged(String),
    UnknownKey(u32),
}

fn damaged<T>(why: impl Into<String>) -> Result<T, Unreadable> {
    Err(Unreadable::Damaged(why.into()))
}

/// The id of a content: BLAKE3, keyed in an encrypted vault.
pub(crate) fn id(keys: Option<&Keyring>, content: &[u8]) -> BlobId {
    BlobId(match keys {
        None => blake3::hash(content).into(),
        Some(keys) => blake3::keyed_hash(&keys.naming, content).into(),
    })
}

/// How long the stored blob of a content of `bytes` is.
pub(crate) fn stored_bytes(keys: Option<&Keyring>, bytes: u64) -> u64 {
    if keys.is_some() { bytes + OVERHEAD } else { bytes + HEADER as u64 }
}

fn header(sealed: bool, key: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..6].copy_from_slice(MAGIC);
    header[6] = FORMAT;
    header[7] = u8::from(sealed);
    header[8..].copy_from_slice(&key.to_be_bytes());
    header
}

/// What is authenticated with a sealed content: the header and the id.
fn bound(header: &[u8], id: BlobId) -> Aad<Vec<u8>> {
    Aad::from([header, &id.0].concat())
}

/// The pieces that, one after the other, are the stored blob.
pub(crate) fn encode(keys: Option<&Keyring>, id: BlobId, content: Bytes) -> Result<Vec<Bytes>, VaultError> {
    let Some(keys) = keys else {
        return Ok(vec![Bytes::copy_from_slice(&header(false, 0)), content]);
    };
    let (key_id, key) = keys.newest().ok_or(VaultError::NoChance)?;
    let header = header(true, key_id);
    let nonce = new_nonce()?;
    let mut body = Vec::with_capacity(content.len() + TAG);
    body.extend_from_slice(&content);
    cipher(key)
        .map_err(|_| VaultError::NoChance)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound(&header, id), &mut body)
        .map_err(|_| VaultError::NoChance)?;
    Ok(vec![[&header[..], &nonce].concat().into(), body.into()])
}

/// The content of a stored blob, if it is the one of `expected`.
pub(crate) fn decode(keys: Option<&Keyring>, expected: BlobId, stored: Vec<u8>) -> Result<Bytes, Unreadable> {
    let Some((header, _)) = stored.split_at_checked(HEADER) else {
        return damaged(format!("it has {} bytes, fewer than a header", stored.len()));
    };
    if &header[..6] != MAGIC {
        return damaged("it does not begin as a blob does");
    }
    if header[6] != FORMAT {
        return damaged(format!("its format is {}, and {FORMAT} is known", header[6]));
    }
    let content = match (header[7], keys) {
        (0, None) if header[8..] == [0; 4] => Bytes::from(stored).slice(HEADER..),
        (0, None) => return damaged("it is plain and yet names a key"),
        (1, Some(keys)) => open(keys, expected, stored)?,
        (0, Some(_)) => return damaged("it is not encrypted, and everything in this vault is"),
        (1, None) => return damaged("it is encrypted, and nothing in this vault is"),
        (kind, _) => return damaged(format!("its header names kind {kind}, and 0 and 1 are known")),
    };
    let found = id(keys, &content);
    if found != expected {
        return damaged(format!("its content is that of {found}"));
    }
    Ok(content)
}

fn open(keys: &Keyring, expected: BlobId, mut stored: Vec<u8>) -> Result<Bytes, Unreadable> {
    const BODY: usize = HEADER + NONCE_LEN;
    if stored.len() < BODY + AES_256_GCM.tag_len() {
        return damaged(format!("it has {} bytes, fewer than an encrypted blob of nothing", stored.len()));
    }
    let (front, body) = stored.split_at_mut(BODY);
    let (header, nonce) = front.split_at(HEADER);
    let key_id = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    let key = keys.data.get(&key_id).ok_or(Unreadable::UnknownKey(key_id))?;
    let opened = Nonce::try_assume_unique_for_key(nonce).ok().and_then(|nonce| {
        cipher(key).ok()?.open_in_place(nonce, bound(header, expected), body).ok().map(|plain| plain.len())
    });
    match opened {
        Some(bytes) => Ok(Bytes::from(stored).slice(BODY..BODY + bytes)),
        None => damaged("it does not open: bytes of it were changed, or it is another blob"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::new_key;

    fn keyring() -> Keyring {
        Keyring { naming: new_key().unwrap(), data: [(1, new_key().unwrap()), (2, new_key().unwrap())].into() }
    }

    fn stored(keys: Option<&Keyring>, content: &'static [u8]) -> (BlobId, Vec<u8>) {
        let id = id(keys, content);
        let pieces = encode(keys, id, Bytes::from_static(content)).unwrap();
        let stored = pieces.concat();
        assert_eq!(stored.len() as u64, stored_bytes(keys, content.len() as u64));
        (id, stored)
    }

    #[test]
    fn a_blob_reads_back_as_it_was_stored() {
        let keys = keyring();
        for keys in [None, Some(&keys)] {
            for content in [&b""[..], b"x", b"the oplog of a part"] {
                let (id, stored) = stored(keys, content);
                assert_eq!(decode(keys, id, stored).unwrap(), content);
            }
        }
    }

    #[test]
    fn no_changed_bit_and_no_cut_goes_unnoticed() {
        let keys = keyring();
        for keys in [None, Some(&keys)] {
            let (id, stored) = stored(keys, b"the oplog of a part");
            for at in 0..stored.len() {
                for bit in 0..8 {
                    let mut changed = stored.clone();
                    changed[at] ^= 1 << bit;
                    assert!(decode(keys, id, changed).is_err(), "bit {bit} of byte {at}");
                }
                assert!(decode(keys, id, stored[..at].to_vec()).is_err(), "{at} bytes");
            }
            let longer = [&stored[..], b"x"].concat();
            assert!(decode(keys, id, longer).is_err());
        }
    }

    #[test]
    fn a_blob_in_the_place_of_another_does_not_open() {
        let keys = keyring();
        for keys in [None, Some(&keys)] {
            let (one, _) = stored(keys, b"one");
            let (_, other) = stored(keys, b"two");
            assert!(matches!(decode(keys, one, other), Err(Unreadable::Damaged(_))));
        }
    }

    #[test]
    fn encrypted_content_is_not_to_be_seen_and_its_id_is_no_plain_hash() {
        let keys = keyring();
        let content = b"a secret that is long enough to be looked for";
        let (id, stored) = stored(Some(&keys), content);
        assert!(!stored.windows(8).any(|window| content.windows(8).any(|part| part == window)));
        assert_ne!(id, super::id(None, content));
        assert_ne!(id, super::id(Some(&keyring()), content));
    }

    #[test]
    fn a_plain_blob_is_not_taken_by_an_encrypted_vault_nor_the_other_way_round() {
        let keys = keyring();
        let (_, plain) = stored(None, b"x");
        assert!(decode(Some(&keys), super::id(Some(&keys), b"x"), plain).is_err());
        let (_, sealed) = stored(Some(&keys), b"x");
        assert!(decode(None, super::id(None, b"x"), sealed).is_err());
    }

    #[test]
    fn a_key_that_is_not_there_is_named() {
        let keys = keyring();
        let (id, stored) = stored(Some(&keys), b"x");
        let older = Keyring { naming: keys.naming.clone(), data: [(1, keys.data[&1].clone())].into() };
        assert_eq!(decode(Some(&older), id, stored), Err(Unreadable::UnknownKey(2)));
    }
}
