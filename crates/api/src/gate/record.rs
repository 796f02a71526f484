//! What goes into the audit trail: every write, and whatever was refused for who it is or where it comes
//! from. A client's first request without credentials, or with a nonce that has become stale, is no
//! refusal yet.

use http::request::Parts;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use stillpoint_catalog::AuditEntry;

use super::{Interface, Known};
use crate::error::{Code, Refusal, shortened};
use crate::respond::Reply;

/// What a terminal might take for more than text.
const UNPRINTABLE: &AsciiSet = &CONTROLS.add(b' ');

impl Interface {
    pub(super) async fn record(&self, head: &Parts, known: &Known, done: &Result<Reply, Refusal>) {
        match done {
            Ok(Reply { status, audit: Some(note), .. }) => {
                let Some(entry) = entry(head, known, status.as_u16(), note.error) else { return };
                let refused = note.refused;
                let actor = entry.actor.or_else(|| note.actor.clone());
                let entry = AuditEntry { actor, refused, ..entry };
                match refused {
                    true => self.audit.refusal(entry),
                    false => self.audit.write(entry).await,
                }
            }
            Ok(reply) if known.write => {
                if let Some(entry) = entry(head, known, reply.status.as_u16(), None) {
                    self.audit.write(entry).await;
                }
            }
            Ok(_) => {}
            Err(refusal) if known.write => {
                let (status, name, _) = refusal.code().row();
                if let Some(entry) = entry(head, known, status.as_u16(), Some(name)) {
                    self.audit.write(entry).await;
                }
            }
            Err(refusal) => self.record_refusal(head, known, refusal),
        }
    }

    pub(super) fn record_refusal(&self, head: &Parts, known: &Known, refusal: &Refusal) {
        let counts = match refusal.code() {
            Code::UserUnauthorized => known.claimed.is_some(),
            Code::NotInGroup | Code::AccessForbidden | Code::IpAddressNotOnAccessList | Code::RateLimited => true,
            _ => false,
        };
        let (status, name, _) = refusal.code().row();
        if let (true, Some(entry)) = (counts, entry(head, known, status.as_u16(), Some(name))) {
            self.audit.refusal(AuditEntry { refused: true, ..entry });
        }
    }
}

fn entry(head: &Parts, known: &Known, status: u16, error: Option<&str>) -> Option<AuditEntry> {
    let actor = known.credential.as_ref().map(|credential| credential.login.clone());
    // A query may be anything; what is done to what is in the path.
    let path = utf8_percent_encode(head.uri.path(), UNPRINTABLE);
    let action = shortened(&format!("{} {path}", head.method));
    Some(AuditEntry {
        actor: actor.or_else(|| known.claimed.clone()),
        from: known.from.map(|address| address.to_string()),
        status: Some(status),
        error: error.map(str::to_owned),
        ..AuditEntry::done(known.at?.now, action)
    })
}
