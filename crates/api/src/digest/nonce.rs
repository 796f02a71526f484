//! Nonces that prove themselves, and the counts that were used with them.
//!
//! A nonce is `time (8 bytes) ‖ chance (8) ‖ HMAC-SHA-256 of both, cut to 16`, in hex, under a key
//! that lives as long as the process. So the time is the process's own, which never goes back. So a challenge that nobody answers costs no memory, however
//! many there are. Only a nonce that came with a right answer is remembered, with the counts (`nc`)
//! used so far, until it is too old; see [`Used`].

use std::collections::BTreeMap;
use std::time::Duration;

use ring::hmac;

/// How long a nonce is good for.
pub const LIFETIME: Duration = Duration::from_secs(300);
/// Nonces in use that are remembered at once: some 5 MB. With more, the oldest goes stale early.
pub const CAPACITY: usize = 65_536;
/// How far behind the highest count of its nonce a count may come in: clients send requests over
/// several connections, so they overtake each other.
pub const WINDOW: u32 = u128::BITS;

const TAG: usize = 16;
/// The proof of a nonce.
pub type Tag = [u8; TAG];

/// A nonce of ours: when it was made (milliseconds since the process began), then chance. Sorts by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nonce([u8; 16]);

impl Nonce {
    pub fn new(now: Duration, chance: u64) -> Nonce {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&milliseconds(now).to_be_bytes());
        bytes[8..].copy_from_slice(&chance.to_be_bytes());
        Nonce(bytes)
    }

    /// As it goes to the client.
    pub fn text(&self, key: &hmac::Key) -> String {
        let tag = hmac::sign(key, &self.0);
        let mut bytes = [0; 16 + TAG];
        bytes[..16].copy_from_slice(&self.0);
        bytes[16..].copy_from_slice(&tag.as_ref()[..TAG]);
        hex::encode(bytes)
    }

    /// What a client gave back, and its proof, which is to be checked.
    pub fn read(text: &str) -> Option<(Nonce, Tag)> {
        let mut bytes = [0; 16 + TAG];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        let (head, tag) = bytes.split_first_chunk::<16>()?;
        Some((Nonce(*head), tag.try_into().ok()?))
    }

    /// Whether it is a nonce of this process.
    pub fn is_proved_by(&self, tag: &Tag, key: &hmac::Key) -> bool {
        let right = hmac::sign(key, &self.0);
        bool::from(subtle::ConstantTimeEq::ct_eq(&right.as_ref()[..TAG], tag.as_slice()))
    }

    fn made(&self) -> u64 {
        self.0.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn too_old(&self, now: Duration) -> bool {
        milliseconds(now).saturating_sub(self.made()) >= LIFETIME.as_millis() as u64
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What taking a count of a nonce came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Fresh,
    /// The nonce is too old, or the count too far behind to know.
    Old,
    /// The count was taken before.
    Again,
}

/// The counts used with one nonce.
#[derive(Debug, Clone, Copy)]
struct Counts {
    tag: Tag,
    highest: u32,
    /// Bit n: `highest - n` was used.
    used: u128,
}

impl Counts {
    fn take(&mut self, nc: u32) -> Taken {
        if let Some(ahead) = nc.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            self.used = self.used.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = nc;
            return Taken::Fresh;
        }
        let Some(bit) = 1u128.checked_shl(self.highest - nc) else { return Taken::Old };
        let before = self.used;
        self.used |= bit;
        if before & bit == 0 { Taken::Fresh } else { Taken::Again }
    }
}

/// The nonces that were answered rightly, at most [`CAPACITY`].
#[derive(Debug, Default)]
pub struct Used {
    counts: BTreeMap<Nonce, Counts>,
    /// The newest nonce that was ever forgotten. One at or before it that is not in the table may
    /// have been used already, so it is stale.
    forgotten: Option<Nonce>,
}

impl Used {
    /// Whether this nonce is remembered with this proof, so that it need not be checked again.
    pub fn knows(&self, nonce: &Nonce, tag: &Tag) -> bool {
        self.counts
            .get(nonce)
            .is_some_and(|counts| bool::from(subtle::ConstantTimeEq::ct_eq(&counts.tag[..], &tag[..])))
    }

    /// Takes a count of a nonce that was proved.
    pub fn take(&mut self, nonce: Nonce, tag: Tag, nc: u32, now: Duration) -> Taken {
        if nonce.too_old(now) {
            return Taken::Old;
        }
        if let Some(counts) = self.counts.get_mut(&nonce) {
            return counts.take(nc);
        }
        if self.forgotten.is_some_and(|forgotten| nonce <= forgotten) {
            return Taken::Old;
        }
        while let Some(oldest) = self.counts.first_entry()
            && (oldest.key().too_old(now) || self.counts.len() >= CAPACITY)
        {
            self.forgotten = self.counts.pop_first().map(|(nonce, _)| nonce);
        }
        // The one that comes in may itself be the oldest.
        if self.forgotten.is_some_and(|forgotten| nonce <= forgotten) {
            return Taken::Old;
        }
        self.counts.insert(nonce, Counts { tag, highest: nc, used: 1 });
        Taken::Fresh
    }

    pub fn len(&self) -> usize {
        self.counts.len()
    }
}
