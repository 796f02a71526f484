//! The master key: 32 random bytes that are not in the vault and wrap the keys that are.
//!
//! In a file they are 64 hex digits, base64 text or the bytes themselves; in a variable of the environment
//! hex digits or base64. `openssl rand -hex 32` makes one.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error("the master key file {path} cannot be read: {why}")]
    File { path: PathBuf, why: String },
    #[error("the master key file {path} may be read by others (mode {mode:03o}): run `chmod 600` on it")]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "{0} holds no master key: that is 32 random bytes, as 64 hex digits or as base64 (`openssl rand -hex 32` makes one)"
    )]
    NoKey(String),
}

/// The BLAKE3 contexts under which keys are derived from the master key.
const FINGERPRINT: &str = "stillpoint vault v1 master key fingerprint";
const WRAPPING: &str = "stillpoint vault v1 key wrapping";

/// More than this is in no key file.
const MOST: u64 = 1024;

/// What wraps the keys of an encrypted vault.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; 32]>,
    /// Where it came from, for messages.
    source: String,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({} from {})", self.fingerprint(), self.source)
    }
}

impl MasterKey {
    pub fn from_file(path: &Path) -> Result<MasterKey, MasterKeyError> {
        let failed = |e: std::io::Error| MasterKeyError::File { path: path.into(), why: e.to_string() };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(MasterKeyError::Open { path: path.into(), mode });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize + 1));
        file.take(MOST + 1).read_to_end(&mut bytes).map_err(failed)?;
        let source = path.display().to_string();
        let key = raw(&bytes).or_else(|| text(std::str::from_utf8(&bytes).ok()?));
        key.map(|bytes| MasterKey { bytes, source: source.clone() }).ok_or(MasterKeyError::NoKey(source))
    }

    /// From text that is hex digits or base64; `source` says where it comes from, such as the name of a
    /// variable of the environment.
    pub fn from_text(source: &str, secret: &SecretString) -> Result<MasterKey, MasterKeyError> {
        let bytes = text(secret.expose_secret()).ok_or_else(|| MasterKeyError::NoKey(source.to_owned()))?;
        Ok(MasterKey { bytes, source: source.to_owned() })
    }

    /// Eight hex digits that tell keys apart and give nothing of them away.
    pub fn fingerprint(&self) -> String {
        hex::encode(&blake3::derive_key(FINGERPRINT, self.bytes.as_ref())[..4])
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn wrapping_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(WRAPPING, self.bytes.as_ref()))
    }
}

/// Bytes as they are; what could be typed is not random, but half a key in hex or a password.
fn raw(bytes: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let key: [u8; 32] = bytes.try_into().ok()?;
    let typed = key.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    let key = Zeroizing::new(key);
    (!typed).then_some(key)
}

fn text(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let text = text.trim();
    let mut key = Zeroizing::new([0; 32]);
    if hex::decode_to_slice(text, key.as_mut()).is_ok() {
        return Some(key);
    }
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    (bytes.len() == 32).then(|| key.copy_from_slice(&bytes))?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn hex_base64_and_the_bytes_themselves_are_the_same_key() {
        let bytes: [u8; 32] = std::array::from_fn(|i| (i * 7) as u8);
        let mut prints = Vec::new();
        for stored in [
            bytes.to_vec(),
            hex::encode(bytes).into_bytes(),
            format!("{}\n", hex::encode_upper(bytes)).into_bytes(),
            format!("{}\n", STANDARD.encode(bytes)).into_bytes(),
        ] {
            let (_folder, path) = written(&stored, 0o600);
            prints.push(MasterKey::from_file(&path).unwrap().fingerprint());
        }
        prints.push(MasterKey::from_text("KEY", &hex::encode(bytes).into()).unwrap().fingerprint());
        prints.dedup();
        assert_eq!(prints.len(), 1);
        assert_eq!(prints[0].len(), 8);
    }

    #[test]
    fn what_is_no_key_or_can_be_read_by_others_is_refused() {
        for stored in
            [&b""[..], b"short", &[7; 31], &[7; 33], b"correct horse battery staple, yes", &[b'a'; 32], &[b'0'; 5000]]
        {
            let (_folder, path) = written(stored, 0o600);
            assert!(matches!(MasterKey::from_file(&path), Err(MasterKeyError::NoKey(_))), "{}", stored.len());
        }
        let (_folder, path) = written(&[7; 32], 0o640);
        assert!(matches!(MasterKey::from_file(&path), Err(MasterKeyError::Open { mode: 0o640, .. })));
        let missing = Path::new("/nowhere/key");
        assert!(matches!(MasterKey::from_file(missing), Err(MasterKeyError::File { .. })));
    }

    #[test]
    fn it_is_never_shown() {
        let text = "ab".repeat(32);
        let key = MasterKey::from_text("KEY", &text.clone().into()).unwrap();
        assert!(!format!("{key:?}").contains(&text[..10]), "{key:?}");
        let refused = MasterKey::from_text("KEY", &"secret-but-short".into()).unwrap_err();
        assert!(!refused.to_string().contains("secret-but"));
    }
}
