//! What can go wrong, by what the operator or the caller should do about it.

use std::error::Error as _;
use std::io;

use stillpoint_core::CatalogId;

pub type Result<T, E = VaultError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("{url:?} is no place for a vault: {why}")]
    Url { url: String, why: String },
    #[error("the settings for {vault} cannot be used: {why}")]
    Settings { vault: String, why: String },
    #[error("there is no vault at {vault}: `stillpoint serve` makes one; if there was one, is its disk mounted?")]
    NoVault { vault: String },
    #[error(
        "{vault} has no {manifest} but other things ({found:?}): give the vault a folder or prefix of its own, or put {manifest} back from its backup",
        manifest = crate::MANIFEST
    )]
    NotEmpty { vault: String, found: String },
    #[error("{vault} is of format {found}, this stillpoint knows {known}: use the version that wrote it, or a newer one", known = crate::FORMAT)]
    Format { vault: String, found: u64 },
    #[error("{manifest} of {vault} cannot be read ({why}): put it back from its backup", manifest = crate::MANIFEST)]
    BadManifest { vault: String, why: String },
    #[error(
        "{vault} belongs to another catalog ({owner}, this one is {catalog}): give this one a folder or prefix of its own, or put the catalog back from its backup"
    )]
    Owner { vault: String, owner: CatalogId, catalog: CatalogId },

    #[error("{vault} is encrypted and was sealed with master key {sealed_with}: name the file that has it")]
    NoMasterKey { vault: String, sealed_with: String },
    #[error(
        "{vault} is not encrypted, but there is a master key (in {key}): take it out of the settings, or give the encrypted vault a folder or prefix of its own"
    )]
    NotEncrypted { vault: String, key: String },
    #[error(
        "{vault} was sealed with master key {sealed_with}; the one in {key} is {fingerprint}: put the right one there"
    )]
    WrongKey { vault: String, sealed_with: String, key: String, fingerprint: String },
    #[error(
        "{name} was sealed with data key {key}, which {vault} has not: was {manifest} put back from a backup older than the last key rotation?",
        manifest = crate::MANIFEST
    )]
    UnknownKey { vault: String, name: String, key: u32 },
    #[error("{vault} has this master key ({fingerprint}) already: a rotation needs a new one")]
    SameKey { vault: String, fingerprint: String },
    #[error("{manifest} of {vault} was changed by another process at the same time: look, then try again", manifest = crate::MANIFEST)]
    Conflict { vault: String },

    #[error("{name:?} is no name for a blob: {why}")]
    Name { name: String, why: String },
    #[error("{name} is not in {vault}")]
    Missing { vault: String, name: String },
    #[error("{name} in {vault} is damaged: {why}")]
    Damaged { vault: String, name: String, why: String },
    #[error("{name} has {bytes} bytes and at most {most} are allowed")]
    TooLarge { name: String, bytes: u64, most: u64 },

    #[error("{vault}: the bucket {bucket:?} does not exist: create it, or correct the vault's address")]
    NoBucket { vault: String, bucket: String },
    #[error("{vault}: no S3 credentials: {why}")]
    NoCredentials { vault: String, why: String },
    #[error("{vault}: not allowed to {doing}: {why}")]
    Refused { vault: String, doing: String, why: String },
    #[error("{vault}: what was written did not read back the same while trying it out: {why}")]
    Unfaithful { vault: String, why: String },
    #[error("{vault} did not {doing}: {why}")]
    Unavailable { vault: String, doing: String, why: String },
    #[error("the system gave no random numbers")]
    NoChance,
}

impl VaultError {
    /// Whether what was stored is not there as it was: no further try gives it.
    pub fn is_loss(&self) -> bool {
        matches!(self, VaultError::Missing { .. } | VaultError::Damaged { .. })
    }

    /// Whether the same may well succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, VaultError::Unavailable { .. })
    }
}

/// What an object store said, sorted.
#[derive(Debug)]
pub(crate) enum Answer {
    Missing,
    /// It exists already, or is no longer what it was.
    Changed,
    /// More bytes than a blob may have: how many.
    TooLarge(u64),
    NoBucket,
    Refused(String),
    Failed(String),
}

impl From<object_store::Error> for Answer {
    fn from(e: object_store::Error) -> Answer {
        use object_store::Error;
        let text = e.to_string();
        if text.contains("NoSuchBucket") {
            return Answer::NoBucket;
        }
        match &e {
            Error::NotFound { .. } => Answer::Missing,
            Error::AlreadyExists { .. } | Error::Precondition { .. } => Answer::Changed,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Answer::Refused(reason(&e, &text)),
            // Of lists it is not sorted out.
            _ if ["401", "403"].iter().any(|status| text.contains(&format!("status code: {status}"))) => {
                Answer::Refused(reason(&e, &text))
            }
            _ => match io_kind(&e) {
                Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                    Answer::Refused(reason(&e, &text))
                }
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    Answer::Failed("no space is left on its disk".into())
                }
                _ => Answer::Failed(reason(&e, &text)),
            },
        }
    }
}

fn io_kind(e: &object_store::Error) -> Option<io::ErrorKind> {
    let mut source = e.source();
    while let Some(e) = source {
        if let Some(e) = e.downcast_ref::<io::Error>() {
            return Some(e.kind());
        }
        source = e.source();
    }
    None
}

/// Characters of a foreign message that are shown.
const SHOWN: usize = 300;

/// The store's own words, without the many layers around them.
fn reason(e: &object_store::Error, text: &str) -> String {
    let said = match (between(text, "<Code>", "</Code>"), between(text, "<Message>", "</Message>")) {
        (Some(code), message) => match hint(code) {
            Some(hint) => format!("{hint} ({code})"),
            None => format!("{code}: {}", message.unwrap_or("no reason given")),
        },
        (None, _) => innermost(e),
    };
    said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN).collect()
}

fn innermost(e: &object_store::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        text = e.to_string();
        source = e.source();
    }
    text
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(within, _)| within)
}

fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "InvalidAccessKeyId" => "the access key id is not known there",
        "SignatureDoesNotMatch" => "the secret access key is not the one of this access key id",
        "ExpiredToken" => "the session token has expired",
        "RequestTimeTooSkewed" => "this machine's clock is wrong",
        "AccessDenied" => "these credentials may not do this",
        "NotSignedUp" => "these credentials have no access to the service",
        _ => return None,
    })
}
