//! TLS from a certificate and a key in PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the TLS {what} file {path} cannot be read: {why}")]
    Unreadable { what: &'static str, path: PathBuf, why: String },
    #[error("the TLS {what} file {path} holds no {what} in PEM form")]
    Empty { what: &'static str, path: PathBuf },
    #[error("the TLS certificate {certificate} and the key {key} cannot be used: {why}")]
    Unusable { certificate: PathBuf, key: PathBuf, why: rustls::Error },
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
