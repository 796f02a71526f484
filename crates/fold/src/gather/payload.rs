//! A change as bytes.

/// A change as it is sorted: a byte that tells what it is, and documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    Insert {
        document: &'a [u8],
        upsert: bool,
    },
    Update {
        update: &'a [u8],
        /// What it is an update of if there is no document: see [`Write::upsert`].
        upsert: Option<&'a [u8]>,
    },
    Delete {
        upsert: bool,
    },
}

pub(super) const INSERT: u8 = 1;
pub(super) const UPDATE: u8 = 2;
pub(super) const DELETE: u8 = 3;
pub(super) const UPSERT: u8 = 0x80;

impl<'a> Payload<'a> {
    pub fn split(bytes: &'a [u8]) -> Option<Payload<'a>> {
        let (tag, rest) = bytes.split_first()?;
        let upsert = tag & UPSERT != 0;
        match tag & !UPSERT {
            INSERT => Some(Payload::Insert { document: rest, upsert }),
            UPDATE if upsert => {
                let length = i32::from_le_bytes(*rest.first_chunk()?);
                let (id, update) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                Some(Payload::Update { update, upsert: Some(id) })
            }
            UPDATE => Some(Payload::Update { update: rest, upsert: None }),
            DELETE => Some(Payload::Delete { upsert }),
            _ => None,
        }
    }
}
