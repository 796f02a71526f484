//! What goes wrong.

use serde::{Deserialize, Serialize};

/// Something that goes wrong for some requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    pub what: What,
    /// `GET`, `PUT` …; any if there is none.
    pub method: Option<String>,
    /// What the request's path and query contain.
    pub target: String,
    /// Requests that it spares first.
    pub after: u32,
    /// Requests that it then hits; all if there is none.
    pub times: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum What {
    /// Nothing is done; the reply has this status and S3 error code.
    Refuse { status: u16, code: String },
    /// It is done, and the reply comes late.
    Delay { millis: u64 },
    /// The connection is closed after this many bytes of the request's body.
    CutRequest { bytes: u64 },
    /// It is done, and the connection is closed without a reply.
    LoseReply,
    /// The connection is closed after this many bytes of the reply's body.
    CutReply { bytes: u64 },
    /// The lowest bit of this byte of the reply's body is another.
    Corrupt { at: u64 },
}

impl Fault {
    /// For every request, until it is cleared.
    pub fn new(what: What) -> Fault {
        Fault { what, method: None, target: String::new(), after: 0, times: None }
    }

    pub fn refuse(status: u16, code: &str) -> Fault {
        Fault::new(What::Refuse { status, code: code.to_owned() })
    }

    pub fn on(mut self, method: &str, target: &str) -> Fault {
        self.method = Some(method.to_owned());
        self.target = target.to_owned();
        self
    }

    pub fn after(mut self, requests: u32) -> Fault {
        self.after = requests;
        self
    }

    pub fn times(mut self, requests: u32) -> Fault {
        self.times = Some(requests);
        self
    }

    /// Whether it hits this request, which then counts.
    pub(crate) fn hits(&mut self, method: &str, target: &str) -> bool {
        if self.method.as_deref().is_some_and(|m| m != method) || !target.contains(&self.target) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        match &mut self.times {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

/// What the server's process is told, a line of JSON each; it answers with how many requests were hit so far.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    Add(Fault),
    Clear,
    Count,
}
