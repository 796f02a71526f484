//! Identifiers: 24 lower-case hex digits, as the API's clients expect, one type for each kind.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that is not 24 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: ids are 24 hexadecimal digits")]
pub struct NotAnId;

/// Twelve bytes: seconds since the Unix epoch (4), 65,536ths of a second (2), then chance (6).
/// Sorts by creation time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Raw([u8; 12]);

impl Raw {
    fn new(now: Timestamp, chance: u64) -> Self {
        // Only the low 32 bits fit, as in BSON's own ObjectId; they last until 2106.
        let seconds = (now.as_second() & 0xffff_ffff) as u32;
        let fraction = (i64::from(now.subsec_nanosecond()).max(0) << 16) / 1_000_000_000;
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&seconds.to_be_bytes());
        bytes[4..].copy_from_slice(&chance.to_be_bytes());
        bytes[4..6].copy_from_slice(&(fraction as u16).to_be_bytes());
        Raw(bytes)
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written at once: every link of every reply has several.
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|n| b"0123456789abcdef"[usize::from(n)]);
        let mut text = [0; 24];
        text.iter_mut().zip(digits).for_each(|(place, digit)| *place = digit);
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl FromStr for Raw {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        from_hex(text).map(Raw).ok_or(NotAnId)
    }
}

/// So many bytes from twice as many hex digits, and nothing else.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Raw);

        impl $name {
            /// A new id from the time and random bits (48 of them are used), both given by the caller.
            pub fn new(now: Timestamp, chance: u64) -> Self {
                $name(Raw::new(now, chance))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                text.parse().map($name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A project, which the API also calls a group.
    ProjectId
);
id!(
    /// A sharded cluster that stillpoint looks after.
    ClusterId
);
id!(
    /// A checkpoint; also what its tokens carry.
    CheckpointId
);
id!(
    /// An organisation, which owns projects and credentials.
    OrganizationId
);
id!(
    /// A snapshot.
    SnapshotId
);
id!(
    /// A restore.
    RestoreId
);
id!(
    /// A drill.
    DrillId
);
id!(
    /// An API key or a service account (not what a client logs in with).
    CredentialId
);
id!(
    /// A catalog, so that a vault knows whose it is.
    CatalogId
);
id!(
    /// A vault.
    VaultId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written_and_sorts_by_time() {
        let early = CheckpointId::new(Timestamp::from_millisecond(1_700_000_000_250).unwrap(), u64::MAX);
        let late = CheckpointId::new(Timestamp::from_millisecond(1_700_000_000_251).unwrap(), 0);
        assert_eq!(early.to_string(), "6553f1004000ffffffffffff");
        assert_eq!(early.to_string().parse(), Ok(early));
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn text_that_is_not_24_hex_digits_is_no_id() {
        for text in ["", "6553f100", "6b8cd3c380eef5349ef77gf7", "+553f100ffffffffffffffff", "é553f100fffffffffffffff"]
        {
            assert_eq!(text.parse::<ClusterId>(), Err(NotAnId), "{text}");
        }
    }
}
