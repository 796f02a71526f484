//! TLS from a certificate and a key in PEM files, read again when they change.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the TLS {what} file {path} cannot be read: {why}")]
    Unreadable { what: &'static str, path: PathBuf, why: String },
    #[error("the TLS {what} file {path} holds no {what} in PEM form")]
    Empty { what: &'static str, path: PathBuf },
    #[error("the TLS certificate {certificate} and the key {key} cannot be used: {why}")]
    Unusable { certificate: PathBuf, key: PathBuf, why: rustls::Error },
}

/// What new connections are to use. Follows the files for as long as it has a receiver: a new pair is
/// taken within moments; one that cannot be used is an error in the log, and the last good one stays.
pub fn follow(certificate: PathBuf, key: PathBuf) -> Result<watch::Receiver<Arc<ServerConfig>>, TlsError> {
    let mut used = (mark(&certificate), mark(&key));
    let (sender, receiver) = watch::channel(from_files(&certificate, &key)?);
    tokio::spawn(async move {
        let mut told = used;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            // Two stats and, seldom, two small files.
            let now = (mark(&certificate), mark(&key));
            if now == used {
                continue;
            }
            match from_files(&certificate, &key) {
                Ok(config) => {
                    tracing::info!(certificate = %certificate.display(), "the TLS certificate was read again");
                    used = now;
                    sender.send_replace(config);
                }
                // Often just the moment between the two files. Tried again until it can be used, said once.
                Err(error) if told != now => {
                    told = now;
                    tracing::error!(%error, "the last good TLS certificate stays in use");
                }
                Err(_) => {}
            }
        }
    });
    Ok(receiver)
}

/// What changes when a file does, also if another is put in its place.
fn mark(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let of = |data: Metadata| (data.ino(), data.size(), data.mtime(), data.mtime_nsec());
    std::fs::metadata(path).ok().map(of)
}

/// Reads the certificate, with its chain, and its key. HTTP/2 and HTTP/1.1 are offered.
pub fn from_files(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| failed("certificate", certificate, error))?;
    if chain.is_empty() {
        return Err(TlsError::Empty { what: "certificate", path: certificate.into() });
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| failed("key", key, error))?;

    let unusable = |why| TlsError::Unusable { certificate: certificate.into(), key: key.into(), why };
    // Named, so that another crate's choice of a provider for the process makes no difference.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn failed(what: &'static str, path: &Path, error: pem::Error) -> TlsError {
    match error {
        pem::Error::NoItemsFound => TlsError::Empty { what, path: path.into() },
        other => TlsError::Unreadable { what, path: path.into(), why: other.to_string() },
    }
}
