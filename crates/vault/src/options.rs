//! Where a vault is and how long to wait for it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use object_store::path::Path;
use secrecy::SecretString;

use crate::error::{Result, VaultError};
use crate::master_key::MasterKey;

/// Where a vault is, and what opens it.
#[derive(Debug, Clone)]
pub struct Options {
    /// `file:PATH`, `file:///PATH` or `s3://BUCKET/PREFIX`. A relative path is one of the working folder.
    pub url: String,
    pub s3: S3,
    /// There must be one if the vault is encrypted, and none if it is not; it decides what a new vault is.
    pub master_key: Option<MasterKey>,
    pub limits: Limits,
}

impl Options {
    pub fn new(url: impl Into<String>) -> Options {
        Options { url: url.into(), s3: S3::default(), master_key: None, limits: Limits::default() }
    }
}

/// What an S3 vault needs beside its address. What is not given comes from the usual `AWS_…` variables of
/// the environment; credentials then also from the instance's metadata, if they are nowhere else.
#[derive(Debug, Clone, Default)]
pub struct S3 {
    /// For other services than Amazon's: `https://HOST:PORT`.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<SecretString>,
    pub session_token: Option<SecretString>,
    /// Whether the endpoint may be `http://`.
    pub allow_http: bool,
    /// Whether the bucket is in the URL's path, as most other services than Amazon's want it, and not in its
    /// host name.
    pub path_style: bool,
}

/// How long to wait, and how large things may be.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of one request, from connecting to the last byte of the reply; at most a part is sent or read in it.
    pub request_timeout: Duration,
    pub connect_timeout: Duration,
    /// Failed requests are repeated this long, and not begun again after it. One call on a blob waits at
    /// most this and one `request_timeout` for each part.
    pub retry_time: Duration,
    pub retries: u32,
    /// A blob out of an object store whose bytes are wrong is read again for so long, with pauses that grow. A
    /// folder's is read again at once, and once: its disk keeps what it has.
    pub reread_time: Duration,
    /// Longer blobs are uploaded in parts.
    pub multipart_from: u64,
    /// Of a part, at least 5 MiB where the service wants that; also what one request reads at most.
    pub part: u64,
    /// The content of a blob; it is in memory once, or twice in an encrypted vault.
    pub most: u64,
}

const MIB: u64 = 1 << 20;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            retry_time: Duration::from_secs(180),
            retries: 10,
            reread_time: Duration::from_secs(30),
            multipart_from: 8 * MIB,
            part: 8 * MIB,
            most: 1024 * MIB,
        }
    }
}

/// An address, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    Folder(PathBuf),
    Bucket { bucket: String, prefix: Path },
}

impl Place {
    pub(crate) fn parse(url: &str) -> Result<Place> {
        let wrong = |why: &str| VaultError::Url { url: without_user(url), why: why.to_owned() };
        if let Some(path) = url.strip_prefix("file:") {
            let path = match path.strip_prefix("//") {
                Some(path) if path.starts_with('/') => path,
                Some(_) => return Err(wrong("after `file://` comes a path that begins with `/`")),
                None => path,
            };
            if path.is_empty() {
                return Err(wrong("the path is missing"));
            }
            return Ok(Place::Folder(path.into()));
        }
        let Some(rest) = url.strip_prefix("s3://") else {
            return Err(wrong("it begins with `file:` or `s3://`"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
            return Err(wrong("after `s3://` comes the bucket's name: letters, digits, `-`, `.` and `_`"));
        }
        let prefix = Path::parse(prefix).map_err(|e| wrong(&e.to_string()))?;
        Ok(Place::Bucket { bucket: bucket.to_owned(), prefix })
    }
}

/// An address as it may be shown: what is before an `@` may be a user and a password.
pub(crate) fn without_user(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        (_, None) => url.to_owned(),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Folder(path) => write!(f, "file:{}", path.display()),
            Place::Bucket { bucket, prefix } if prefix.as_ref().is_empty() => write!(f, "s3://{bucket}"),
            Place::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_folder_or_a_bucket_with_a_prefix() {
        for (url, shown) in [
            ("file:/var/lib/vault", "file:/var/lib/vault"),
            ("file:///var/lib/vault", "file:/var/lib/vault"),
            ("file:vault", "file:vault"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ] {
            assert_eq!(Place::parse(url).unwrap().to_string(), shown, "{url}");
        }
        for url in [
            "",
            "vault",
            "/var",
            "file:",
            "file://host/x",
            "s3://",
            "s3:///x",
            "s3://b?x=1",
            "s3://b/c//d",
            "s3://b/..",
        ] {
            assert!(matches!(Place::parse(url), Err(VaultError::Url { .. })), "{url}");
        }
    }

    #[test]
    fn what_may_be_a_password_is_not_shown() {
        for url in ["s3://KEY:hush@bucket/p", "KEY:hush@bucket", "s3://KEY:hu/hush@bu@cket", "file://hush@host"] {
            let refused = Place::parse(url).unwrap_err().to_string();
            assert!(refused.contains('@') && !refused.contains("hu"), "{refused}");
        }
    }
}
