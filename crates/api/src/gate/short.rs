//! The short way: the reply to a client that polls with its key, if nothing has changed since it last
//! asked. Most requests are of this kind; whatever is not plainly so takes the long way.

use http::Response;
use http::request::Parts;

use super::admission::Identified;
use super::{Interface, Known, Moment, reply};
use crate::query::Common;
use crate::respond::{Body, Style};
use crate::server::Peer;
use crate::surface::Surface;

/// What came of it.
pub(super) enum Early {
    Answered(Response<Body>),
    /// Who asks is known, as of that moment. A count of its nonce was taken, so that it must not be asked
    /// again; and what it may do must be read from the same version of the catalog as it was.
    Identified(Moment, Identified),
    Unknown,
}

impl Interface {
    /// `bare` if the request has no body.
    pub(super) fn at_once(&self, head: &Parts, bare: bool, peer: Peer) -> Early {
        let Ok(at) = self.moment() else { return Early::Unknown };
        let key = match self.identify_at_once(head, at) {
            Some(Identified::Somebody(key)) => key,
            Some(nobody) => return Early::Identified(at, nobody),
            None => return Early::Unknown,
        };
        let mut known = Known {
            at: Some(at),
            tls: peer.tls,
            style: Style::of(Common::default(), &head.headers),
            surface: Surface::of(head.uri.path()),
            ..Known::default()
        };
        // One with an access list is held against it on the long way; a HEAD is answered there, and a body
        // that nobody wants is read.
        if !bare || !key.access_list.is_empty() || head.method != http::Method::GET {
            return Early::Identified(at, Identified::Somebody(key));
        }
        known.credential = Some(key.clone());
        let found = self.asking(head, &known).and_then(|asking| self.reads.reply(at.version, asking));
        let Some(written) = found else { return Early::Identified(at, Identified::Somebody(key)) };
        match self.take(&key, at, &mut known) {
            Ok(()) => Early::Answered(reply::of(&written, &known)),
            Err(refusal) => {
                known.from = self.client_address(head, peer);
                known.style.common = Common::parse(head.uri.query().unwrap_or_default()).unwrap_or_default();
                self.record_refusal(head, &known, &refusal);
                Early::Answered(reply::refusal(&refusal, &known))
            }
        }
    }
}
