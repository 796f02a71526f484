//! Who makes a request: a key, with Digest, or a service account, with a bearer token.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use http::request::Parts;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use stillpoint_catalog::Credential;

use super::{Interface, target};
use crate::digest::{Answer, REALM, Verdict};
use crate::error::Refusal;
use crate::oauth;

/// The longest public key or client id that is looked up.
pub const LONGEST_LOGIN: usize = 128;

pub enum Identified {
    Somebody(Arc<Credential>),
    /// To be challenged; `stale` if only its nonce is. `claimed` is who it says it is, if it gave
    /// anything to be checked.
    Nobody {
        scheme: Scheme,
        stale: bool,
        claimed: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Digest,
    Bearer,
}

impl Interface {
    pub(super) async fn identify(
        &self,
        head: &Parts,
        bearer: bool,
        now: Timestamp,
        version: Option<u64>,
    ) -> Result<Identified, Refusal> {
        let nobody = |scheme, claimed| Ok(Identified::Nobody { scheme, stale: false, claimed });
        let Some(text) = only(&head.headers, AUTHORIZATION) else { return nobody(Scheme::Digest, None) };
        if let Some(token) = oauth::bearer(text).filter(|_| bearer) {
            let hash = oauth::hash(token);
            let found = self.reads.token(&*self.outside.catalog, version, &hash).await?;
            return match found {
                Some(found) if found.1 > now => Ok(Identified::Somebody(found.0.clone())),
                Some(found) => nobody(Scheme::Bearer, Some(claimed(Some(&found.0)))),
                None => nobody(Scheme::Bearer, Some("an unknown token".to_owned())),
            };
        }
        let Some(answer) = digest(text) else { return nobody(Scheme::Digest, Some(claimed(None))) };
        let key = self.reads.key(&*self.outside.catalog, version, &answer.username).await?;
        Ok(self.verified(&answer, head, key, now))
    }

    /// Who it is, if it comes with a key that was looked up before, whether or not there is such a key.
    pub(super) fn identify_at_once(&self, head: &Parts, version: u64, now: Timestamp) -> Option<Identified> {
        let answer = digest(only(&head.headers, AUTHORIZATION)?)?;
        let key = self.reads.known_key(version, &answer.username)?;
        Some(self.verified(&answer, head, key, now))
    }

    fn verified(&self, answer: &Answer, head: &Parts, key: Option<Arc<Credential>>, now: Timestamp) -> Identified {
        let proof = key.as_ref().map(|key| key.proof.expose_secret());
        match (self.digest.verify(answer, head.method.as_str(), target(head), proof, now), key) {
            (Verdict::Accepted, Some(key)) => Identified::Somebody(key),
            (verdict, key) => {
                let (stale, claimed) = (verdict == Verdict::Stale, Some(claimed(key.as_deref())));
                Identified::Nobody { scheme: Scheme::Digest, stale, claimed }
            }
        }
    }
}

fn digest(header: &str) -> Option<Answer<'_>> {
    Answer::parse(header, REALM).ok().filter(|answer| answer.username.len() <= LONGEST_LOGIN)
}

/// Who asks, if that was not proved, for the log. What is no login of ours is not repeated: it may be a
/// secret in the wrong place.
pub fn claimed(known: Option<&Credential>) -> String {
    known.map_or_else(|| "somebody unknown".to_owned(), |known| format!("{} (not proved)", known.login))
}

/// The one value of a header.
pub fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
