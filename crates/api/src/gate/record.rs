//! What goes into the audit trail: every write, and whatever was refused for who it is or where it comes
//! from. A client's first request without credentials, or with a nonce that has become stale, is no
//! refusal yet.

use http::request::Parts;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use stillpoint_catalog::AuditEntry;

use super::{Interface, Known};
use crate::error::{Code, Refusal, shortened};
use crate::operations::without_token;
use crate::respond::Reply;

/// What a terminal might take for more than text.
const UNPRINTABLE: &AsciiSet = &CONTROLS.add(b' ');

impl Interface {
    pub(super) async fn record(&self, head: &Parts, known: &Known, done: &Result<Reply, Refusal>) {
        let entry = match done {
            Ok(Reply { status, audit: Some(note), .. }) => {
                entry(head, known, status.as_u16(), note.error).map(|entry| AuditEntry {
                    action: note.action.clone().unwrap_or_else(|| entry.action.clone()),
                    actor: entry.actor.clone().or_else(|| note.actor.clone()),
                    refused: note.refused,
                    ..entry
                })
            }
            Ok(reply) if known.write => entry(head, known, reply.status.as_u16(), None),
            Ok(_) => None,
            Err(refusal) if known.write => entry_of(head, known, refusal),
            Err(refusal) => return self.record_refusal(head, known, refusal),
        };
        match entry {
            Some(entry) if entry.refused => self.audit.refusal(entry),
            Some(entry) => self.audit.write(entry).await,
            None => {}
        }
    }

    pub(super) fn record_refusal(&self, head: &Parts, known: &Known, refusal: &Refusal) {
        let counts = match refusal.code() {
            Code::UserUnauthorized => known.claimed.is_some(),
            Code::NotInGroup | Code::AccessForbidden | Code::IpAddressNotOnAccessList | Code::RateLimited => true,
            _ => false,
        };
        if let (true, Some(entry)) = (counts, entry_of(head, known, refusal)) {
            self.audit.refusal(AuditEntry { refused: true, ..entry });
        }
    }
}

fn entry_of(head: &Parts, known: &Known, refusal: &Refusal) -> Option<AuditEntry> {
    let (status, name, _) = refusal.code().row();
    entry(head, known, status.as_u16(), Some(name))
}

fn entry(head: &Parts, known: &Known, status: u16, error: Option<&str>) -> Option<AuditEntry> {
    let actor = known.credential.as_ref().map(|credential| credential.login.clone());
    // A query may be anything; what is done to what is in the path.
    let path = utf8_percent_encode(without_token(head.uri.path()), UNPRINTABLE);
    let action = shortened(&format!("{} {path}", head.method));
    Some(AuditEntry {
        actor: actor.or_else(|| known.claimed.clone()),
        from: known.from.map(|address| address.to_string()),
        status: Some(status),
        error: error.map(str::to_owned),
        ..AuditEntry::done(known.at?.now, action)
    })
}
