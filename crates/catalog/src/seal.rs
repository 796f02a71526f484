//! Sealing of secrets at rest: AES-256-GCM with the key of the key file.
//!
//! The key file holds one line, `stillpoint-key-v1:` and 64 hex digits. It is made at first use with
//! mode 0600, and never overwritten. A sealed value is `nonce (12 bytes) ‖ ciphertext ‖ tag`; what it
//! belongs to (kind and id) is authenticated with it, so that one cannot be put in another's place.
//!
//! From the same key follow proofs: 256 bits that only who has the key can make of a text, so that they need not
//! be kept at all.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac::{self, HMAC_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::SecretString;
use zeroize::Zeroizing;

const PREFIX: &str = "stillpoint-key-v1:";
/// What the key of the proofs is derived for, so that it is another than the one that seals.
const PROOFS: &[u8] = b"stillpoint-proofs-v1";

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the key file {path} cannot be used: {why}")]
    KeyFile { path: PathBuf, why: String },
    #[error(
        "the key file {path} is corrupt: it must hold one line, `{PREFIX}` and 64 hex digits. Put the right one back from its backup; without it the stored connection strings and keys are lost"
    )]
    KeyFileCorrupt { path: PathBuf },
    #[error("the key file {path} may be read by others (mode {mode:03o}): run `chmod 600` on it")]
    KeyFileOpen { path: PathBuf, mode: u32 },
    #[error("{0} cannot be opened with this key file: it was sealed with another key, or damaged")]
    WrongKey(String),
    #[error("the system gave no random numbers")]
    NoChance,
}

/// Seals and opens secrets with one key.
pub struct Sealer {
    key: LessSafeKey,
    proofs: hmac::Key,
    chance: SystemRandom,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// The key of an existing file, or of a new one if there is none.
    pub fn from_file(path: &Path) -> Result<Sealer, SealError> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                refuse_open_mode(path)?;
                Sealer::from_text(path, &Zeroizing::new(text))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Sealer::create(path),
            Err(e) if e.kind() == ErrorKind::InvalidData => Err(SealError::KeyFileCorrupt { path: path.into() }),
            Err(e) => Err(SealError::KeyFile { path: path.into(), why: e.to_string() }),
        }
    }

    fn from_text(path: &Path, text: &str) -> Result<Sealer, SealError> {
        let corrupt = || SealError::KeyFileCorrupt { path: path.into() };
        let digits = text.trim_end_matches('\n').strip_prefix(PREFIX).ok_or_else(corrupt)?;
        let bytes = Zeroizing::new(hex::decode(digits).map_err(|_| corrupt())?);
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| corrupt())?;
        let proofs = hmac::sign(&hmac::Key::new(HMAC_SHA256, &bytes), PROOFS);
        let proofs = hmac::Key::new(HMAC_SHA256, proofs.as_ref());
        Ok(Sealer { key: LessSafeKey::new(key), proofs, chance: SystemRandom::new() })
    }

    /// Writes a new key beside `path` and links it into place, so that of two processes that start at
    /// once one wins and both use the same key, and no half-written file is ever seen.
    fn create(path: &Path) -> Result<Sealer, SealError> {
        let failed = |e: std::io::Error| SealError::KeyFile { path: path.into(), why: e.to_string() };
        let mut bytes = Zeroizing::new([0u8; 32]);
        let chance = SystemRandom::new();
        chance.fill(bytes.as_mut()).map_err(|_| SealError::NoChance)?;
        let text = Zeroizing::new(format!("{PREFIX}{}\n", hex::encode(bytes.as_ref())));

        let mut suffix = [0u8; 8];
        chance.fill(&mut suffix).map_err(|_| SealError::NoChance)?;
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}.new", hex::encode(suffix)));
        let new = PathBuf::from(new);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            match std::fs::hard_link(&new, path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
                done => done,
            }
        })();
        let _ = std::fs::remove_file(&new);
        written.map_err(failed)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
        Sealer::from_text(path, &text)
    }

    /// What proves a text, say `download 6553f1…`.
    pub fn proof(&self, text: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(hmac::sign(&self.proofs, text.as_bytes()).as_ref().to_vec())
    }

    /// Whether that is its proof; it takes as long whatever of it is wrong.
    pub fn proves(&self, text: &str, proof: &[u8]) -> bool {
        hmac::verify(&self.proofs, text.as_bytes(), proof).is_ok()
    }

    /// Seals a secret that belongs to `owner`, say `cluster 6553f1…`.
    pub fn seal(&self, owner: &str, secret: &str) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0u8; NONCE_LEN];
        self.chance.fill(&mut nonce).map_err(|_| SealError::NoChance)?;
        let mut sealed = Zeroizing::new(secret.as_bytes().to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(owner), &mut sealed)
            .map_err(|_| SealError::NoChance)?;
        Ok([&nonce, sealed.as_slice(), tag.as_ref()].concat())
    }

    /// Opens what was sealed for the same `owner`.
    pub fn open(&self, owner: &str, sealed: &[u8]) -> Result<SecretString, SealError> {
        let wrong = || SealError::WrongKey(owner.to_owned());
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut body = Zeroizing::new(body.to_vec());
        let plain = self.key.open_in_place(nonce, Aad::from(owner), &mut body).map_err(|_| wrong())?;
        let text = std::str::from_utf8(plain).map_err(|_| wrong())?;
        Ok(SecretString::from(text))
    }
}

fn refuse_open_mode(path: &Path) -> Result<(), SealError> {
    let metadata = std::fs::metadata(path).map_err(|e| SealError::KeyFile { path: path.into(), why: e.to_string() })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SealError::KeyFileOpen { path: path.into(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn the_key_file_is_made_once_with_mode_0600_and_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let sealed = Sealer::from_file(&path).unwrap().seal("cluster 1", "mongodb://user:pw@host").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!String::from_utf8_lossy(&sealed).contains("pw"));

        let again = Sealer::from_file(&path).unwrap();
        assert_eq!(again.open("cluster 1", &sealed).unwrap().expose_secret(), "mongodb://user:pw@host");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn another_key_another_owner_or_a_changed_byte_does_not_open() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = Sealer::from_file(&folder.path().join("key")).unwrap();
        let sealed = sealer.seal("cluster 1", "secret").unwrap();
        let other = Sealer::from_file(&folder.path().join("other")).unwrap();
        assert!(matches!(other.open("cluster 1", &sealed), Err(SealError::WrongKey(_))));
        assert!(matches!(sealer.open("cluster 2", &sealed), Err(SealError::WrongKey(_))));
        assert!(matches!(sealer.open("cluster 1", &sealed[..5]), Err(SealError::WrongKey(_))));
        let mut changed = sealed;
        *changed.last_mut().unwrap() ^= 1;
        assert!(matches!(sealer.open("cluster 1", &changed), Err(SealError::WrongKey(_))));
    }

    #[test]
    fn a_proof_is_of_one_text_and_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = Sealer::from_file(&folder.path().join("key")).unwrap();
        let other = Sealer::from_file(&folder.path().join("other")).unwrap();
        let proof = sealer.proof("download 1");
        assert_eq!(proof.len(), 32);
        assert!(sealer.proves("download 1", &proof));
        let again = Sealer::from_file(&folder.path().join("key")).unwrap();
        assert!(again.proves("download 1", &proof), "it is the same after a start");
        assert!(!sealer.proves("download 2", &proof) && !other.proves("download 1", &proof));
        assert!(!sealer.proves("download 1", &proof[..31]) && !sealer.proves("download 1", &[]));
        for i in 0..32 {
            let mut changed = proof.clone();
            changed[i] ^= 1;
            assert!(!sealer.proves("download 1", &changed), "{i}");
        }
    }

    #[test]
    fn a_corrupt_or_open_key_file_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for text in ["", "stillpoint-key-v1:abc\n", "stillpoint-key-v2:00\n"] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            assert!(matches!(Sealer::from_file(&path), Err(SealError::KeyFileCorrupt { .. })), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(Sealer::from_file(&path), Err(SealError::KeyFileCorrupt { .. })));

        let good = folder.path().join("good");
        Sealer::from_file(&good).unwrap();
        std::fs::set_permissions(&good, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(Sealer::from_file(&good), Err(SealError::KeyFileOpen { mode: 0o644, .. })));
    }
}
