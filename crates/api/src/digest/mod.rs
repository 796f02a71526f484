//! HTTP Digest authentication (RFC 7616) as this API's clients know it: MD5, `qop="auth"`, one
//! challenge in one fixed form.
//!
//! What is kept of a key is HA1, never its secret. An unknown key and a wrong secret take the same
//! way through [`Verifier::verify`] and get the same answer.

mod header;
mod nonce;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use md5::{Digest, Md5};
use ring::hmac;
use subtle::{Choice, ConstantTimeEq};

pub use header::{Answer, HeaderError};
pub use nonce::{CAPACITY, LIFETIME, WINDOW};

use nonce::{Nonce, Taken, Used};

/// What HA1 is bound to: keys made for another realm do not work here.
pub const REALM: &str = "MMS Public API";

/// HA1 = MD5(public ":" realm ":" private) in lower-case hex: what the catalog keeps of a key.
pub fn ha1(public: &str, private: &str) -> String {
    hex::encode(md5([public, ":", REALM, ":", private]))
}

/// The HA1 of no key: an unknown key's answer is checked against it.
const NOBODY: &str = "00000000000000000000000000000000";

/// What a client's answer was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// Right, but its nonce is too old or not of this process: to be answered again with a new one.
    Stale,
    /// Right, but it was given before. To the client it is as stale.
    Replayed,
    Refused,
}

/// Makes challenges and verifies answers. All times are since the process began.
pub struct Verifier {
    key: hmac::Key,
    used: Mutex<Used>,
}

impl Verifier {
    /// `secret` is what makes nonces of this process its own.
    pub fn new(secret: [u8; 32]) -> Verifier {
        Verifier { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), used: Mutex::default() }
    }

    /// The value of `WWW-Authenticate`. Its form is fixed: a widely used Go client splits it at comma
    /// and space and reads no other.
    pub fn challenge(&self, now: Duration, chance: u64, stale: bool) -> HeaderValue {
        let nonce = Nonce::new(now, chance).text(&self.key);
        let text =
            format!(r#"Digest realm="{REALM}", domain="", nonce="{nonce}", algorithm=MD5, qop="auth", stale={stale}"#);
        // Hex digits and fixed text are always a header value.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Digest"))
    }

    /// Verifies an answer to a request for `target`, the raw path and query. `ha1` is that of the
    /// key, or `None` if there is no such key.
    pub fn verify(&self, answer: &Answer, method: &str, target: &str, ha1: Option<&str>, now: Duration) -> Verdict {
        let right = response(ha1.unwrap_or(NOBODY), answer, method);
        let known = Choice::from(u8::from(ha1.is_some()));
        let same = right.ct_eq(&answer.response) & known;
        if !bool::from(same) || answer.uri != target {
            return Verdict::Refused;
        }
        let Some((nonce, tag)) = Nonce::read(&answer.nonce) else { return Verdict::Stale };
        // A panic while it was held cannot leave the table half-changed.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = used.knows(&nonce, &tag) || nonce.is_proved_by(&tag, &self.key);
        if !ours {
            return Verdict::Stale;
        }
        match used.take(nonce, tag, answer.nc, now) {
            Taken::Fresh => Verdict::Accepted,
            Taken::Old => Verdict::Stale,
            Taken::Again => Verdict::Replayed,
        }
    }

    /// Nonces that are remembered now.
    pub fn remembered(&self) -> usize {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// MD5(HA1 ":" nonce ":" nc ":" cnonce ":" qop ":" MD5(method ":" uri)), RFC 7616 §3.4.1.
fn response(ha1: &str, answer: &Answer, method: &str) -> [u8; 16] {
    let mut ha2 = [0; 32];
    // Sixteen bytes are thirty-two digits: it cannot fail.
    let _ = hex::encode_to_slice(md5([method, ":", &answer.uri]), &mut ha2);
    let ha2 = std::str::from_utf8(&ha2).unwrap_or_default();
    md5([ha1, ":", &answer.nonce, ":", &answer.nc_text, ":", &answer.cnonce, ":auth:", ha2])
}

fn md5<const N: usize>(pieces: [&str; N]) -> [u8; 16] {
    let mut hash = Md5::new();
    pieces.iter().for_each(|piece| hash.update(piece.as_bytes()));
    hash.finalize().into()
}
