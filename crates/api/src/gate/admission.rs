//! Who makes a request (a key, with Digest, or a service account, with a bearer token), and whether it
//! may: from where it does, as often as it does, in the project of the path.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use secrecy::ExposeSecret;
use stillpoint_catalog::{Credential, CredentialKind};
use stillpoint_core::{ProjectId, Role};

use super::{Interface, Known, Moment, address, target};
use crate::digest::{Answer, REALM, Verdict};
use crate::error::{Code, Refusal};
use crate::headers::only;
use crate::oauth;
use crate::operations::Call;

/// The longest public key or client id that is looked up.
pub const LONGEST_LOGIN: usize = 128;

pub enum Identified {
    Somebody(Arc<Credential>),
    /// To be challenged; `stale` if only its nonce is. `claimed` is who it says it is, if it was refused
    /// for what it gave, and not just for having given nothing or something old.
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
    /// Finds out who it is, and whether it may come in from where it is, as often as it does.
    pub(super) async fn let_in(
        &self,
        head: &Parts,
        identified: Option<Identified>,
        at: Moment,
        known: &mut Known,
    ) -> Result<(), Refusal> {
        let identified = match identified {
            Some(identified) => identified,
            None => self.identify(head, at, known).await?,
        };
        match identified {
            Identified::Somebody(credential) => {
                known.credential = Some(credential.clone());
                self.may_come_in(&credential, at, known)
            }
            Identified::Nobody { scheme, stale, claimed } => {
                known.claimed = claimed;
                Err(self.challenge(Code::UserUnauthorized, [], scheme, stale, at))
            }
        }
    }

    pub(super) fn may_come_in(&self, credential: &Credential, at: Moment, known: &mut Known) -> Result<(), Refusal> {
        address::check(&credential.access_list, known.from)?;
        self.take(credential, at, known)
    }

    /// Takes one request from the credential's bucket, if its surface has one.
    pub(super) fn take(&self, credential: &Credential, at: Moment, known: &mut Known) -> Result<(), Refusal> {
        // What is common to all is service accounts' own.
        let rates = match known.surface.is_none_or(|surface| surface.versioned) {
            true => Some(&self.v2),
            false => self.v1.as_ref(),
        };
        known.allowance = rates.map(|rates| rates.take(credential.id, at.uptime));
        match known.allowance.and_then(|allowance| allowance.wait) {
            Some(wait) => Err(Refusal::new(Code::RateLimited, [&wait.to_string()]).with(RETRY_AFTER, wait.into())),
            None => Ok(()),
        }
    }

    fn challenge<const N: usize>(
        &self,
        code: Code,
        parameters: [&str; N],
        scheme: Scheme,
        stale: bool,
        at: Moment,
    ) -> Refusal {
        let challenge = match scheme {
            Scheme::Digest => self.digest.challenge(at.uptime, (self.outside.chance)(), stale),
            Scheme::Bearer => HeaderValue::from_static("Bearer realm=\"MMS Public API\", error=\"invalid_token\""),
        };
        Refusal::new(code, parameters).with(WWW_AUTHENTICATE, challenge)
    }

    /// The project of the path, if the credential has the role there.
    pub(super) async fn project(&self, call: &Call, needed: Role) -> Result<ProjectId, Refusal> {
        let text = call.parameter("groupId");
        let id: ProjectId = text.parse().map_err(|_| Refusal::new(Code::InvalidGroupId, [text]))?;
        let credential = call.credential()?;
        match credential.roles.get(&id) {
            // Whoever has a role in a project has one in a project that exists.
            Some(role) if *role >= needed => return Ok(id),
            Some(_) => return Err(Refusal::new(Code::AccessForbidden, [text])),
            None => {}
        }
        let project = self.outside.catalog.project(id).await?;
        let project = project.ok_or_else(|| Refusal::new(Code::GroupNotFound, [text]))?;
        if project.organization != credential.organization {
            let scheme = match credential.kind {
                CredentialKind::Key => Scheme::Digest,
                CredentialKind::ServiceAccount => Scheme::Bearer,
            };
            return Err(self.challenge(Code::NotInGroup, [text], scheme, false, self.moment()?));
        }
        Err(Refusal::new(Code::AccessForbidden, [text]))
    }

    async fn identify(&self, head: &Parts, at: Moment, known: &Known) -> Result<Identified, Refusal> {
        let nobody = |scheme, claimed| Ok(Identified::Nobody { scheme, stale: false, claimed });
        let Some(text) = only(&head.headers, AUTHORIZATION) else { return nobody(Scheme::Digest, None) };
        let catalog = &*self.outside.catalog;
        if let Some(token) = oauth::bearer(text).filter(|_| known.surface.is_some_and(|surface| surface.bearer)) {
            let found = self.reads.token(catalog, at.version, &oauth::hash(token)).await?;
            return match found {
                Some(found) if found.1 > at.now => Ok(Identified::Somebody(found.0.clone())),
                Some(found) => nobody(Scheme::Bearer, Some(claimed(Some(&found.0)))),
                None => nobody(Scheme::Bearer, Some("an unknown token".to_owned())),
            };
        }
        let Some(answer) = digest(text) else { return nobody(Scheme::Digest, Some(claimed(None))) };
        let key = self.reads.key(catalog, at.version, &answer.username).await?;
        Ok(self.verified(&answer, head, key, at))
    }

    /// Who it is, if it comes with a key that was looked up before, whether or not there is such a key.
    pub(super) fn identify_at_once(&self, head: &Parts, at: Moment) -> Option<Identified> {
        let answer = digest(only(&head.headers, AUTHORIZATION)?)?;
        let key = self.reads.known_key(at.version?, &answer.username)?;
        Some(self.verified(&answer, head, key, at))
    }

    fn verified(&self, answer: &Answer, head: &Parts, key: Option<Arc<Credential>>, at: Moment) -> Identified {
        let proof = key.as_ref().map(|key| key.proof.expose_secret());
        let target = self.signed_target(answer, target(head));
        match (self.digest.verify(answer, head.method.as_str(), target, proof, at.uptime), key) {
            (Verdict::Accepted, Some(key)) => Identified::Somebody(key),
            (verdict, key) => Identified::Nobody {
                scheme: Scheme::Digest,
                stale: matches!(verdict, Verdict::Stale | Verdict::Replayed),
                // An old nonce is the way of the protocol; the same answer twice is not.
                claimed: (verdict != Verdict::Stale).then(|| claimed(key.as_deref())),
            },
        }
    }

    /// What the client must have signed: the target of the request, or that with the path of the public
    /// URL before it, which a proxy has taken off.
    fn signed_target<'a>(&self, answer: &'a Answer, target: &'a str) -> &'a str {
        let prefix = self.outside.settings.public_url.as_ref().map_or("", |url| url.path());
        match !prefix.is_empty() && answer.uri.strip_prefix(prefix) == Some(target) {
            true => &answer.uri,
            false => target,
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
