//! What can go wrong while talking to a cluster, told so that an operator knows what to do.
//!
//! These texts may name hosts; they are for the log, the command line and the record, never for an
//! API reply. They never hold a connection string or a password.

use mongodb::error::{Error, ErrorKind};
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;

use crate::privileges::Need;

/// The server's code for a command that the user may not run.
const UNAUTHORIZED: i32 = 13;
const AUTHENTICATION_FAILED: i32 = 18;
/// `MaxTimeMSExpired`.
const MAX_TIME_EXPIRED: i32 = 50;

#[derive(Debug, thiserror::Error)]
pub enum MongoError {
    #[error("the connection string is not valid: {0}")]
    BadUri(String),
    #[error("{host} is a mongos: name the config servers, as in mongodb://user:pw@cfg1,cfg2,cfg3/?replicaSet=cfg")]
    IsMongos { host: String },
    #[error(
        "{host} is not a config server but a member of the plain replica set {set:?}: name the config servers of a sharded cluster"
    )]
    NotConfigServer { host: String, set: String },
    #[error("{host} is not a member of a replica set: name the config servers of a sharded cluster")]
    NotReplicaSet { host: String },
    #[error("{host} is a member of {found:?}, but the connection string says replicaSet={given}")]
    OtherReplicaSet { host: String, found: String, given: String },
    #[error("{host} runs MongoDB {version}: stillpoint needs {needed} or later")]
    TooOld { host: String, version: String, needed: &'static str },
    #[error("{part} cannot be reached: {why}")]
    Unreachable { part: String, why: String },
    #[error(
        "{part} refused the user name or the password: the same user must exist on the config servers and on every shard ({why})"
    )]
    AuthenticationFailed { part: String, why: String },
    #[error(
        "{part}: the user may not {what}; it needs the action `{action}` on {resource}. Run `stillpoint doctor` for the commands that grant it"
    )]
    Unauthorized { part: String, what: &'static str, action: &'static str, resource: &'static str },
    #[error("{part}: {what}: it took longer than it may")]
    TooSlow { part: String, what: &'static str },
    #[error("{part}: {what}: {why}")]
    Command { part: String, what: &'static str, why: String },
    #[error("{part}: {what}: the server's reply is not understood: {why}")]
    Reply { part: String, what: &'static str, why: String },
    #[error("config.settings: {0}")]
    Settings(String),
    #[error(
        "the config servers' oplog no longer reaches back to {seen}: it cannot be told who changed the balancer since"
    )]
    HistoryLost { seen: ClusterTime },
    #[error(
        "another stillpoint holds the balancer until {until} (checkpoint {checkpoint}): take the checkpoint after that"
    )]
    HeldByAnother { checkpoint: String, until: String },
    #[error("the connection that the balancer's stop was to come from was lost before it was sent")]
    StopConnectionLost,
    #[error(
        "the balancer is as it was found, but the connection {from}, which may still carry a stop, is open: waiting until it is gone"
    )]
    StopConnectionOpen { from: String },
    #[error("the shard {name} in config.shards has the host {host:?}, which is not SET/HOST,HOST…")]
    BadShardHost { name: String, host: String },
}

pub type Result<T> = std::result::Result<T, MongoError>;

impl MongoError {
    /// Whether no further try can help, until somebody changes something.
    pub fn is_lasting(&self) -> bool {
        use MongoError::*;
        match self {
            Unreachable { .. } | TooSlow { .. } | Command { .. } | StopConnectionOpen { .. } | StopConnectionLost => {
                false
            }
            BadUri(_) | IsMongos { .. } | NotConfigServer { .. } | NotReplicaSet { .. } | OtherReplicaSet { .. } => {
                true
            }
            TooOld { .. } | AuthenticationFailed { .. } | Unauthorized { .. } | Reply { .. } | Settings(_) => true,
            HistoryLost { .. } | HeldByAnother { .. } | BadShardHost { .. } => true,
        }
    }

    /// The error of a command that `need` describes, sent to `part`.
    pub(crate) fn from_driver(part: &PartId, need: &Need, error: &Error) -> MongoError {
        let part = part.to_string();
        match error.kind.as_ref() {
            ErrorKind::Command(e) if e.code == UNAUTHORIZED => {
                MongoError::Unauthorized { part, what: need.what, action: need.action, resource: need.resource }
            }
            ErrorKind::Command(e) if e.code == MAX_TIME_EXPIRED => MongoError::TooSlow { part, what: need.what },
            _ if is_authentication(error) => MongoError::AuthenticationFailed { part, why: plain(error) },
            ErrorKind::ServerSelection { .. } | ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => {
                MongoError::Unreachable { part, why: plain(error) }
            }
            _ => MongoError::Command { part, what: need.what, why: plain(error) },
        }
    }
}

/// Whether the server refused who we are, be it at the handshake or while a server was selected.
pub(crate) fn is_authentication(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Authentication { .. } => true,
        ErrorKind::Command(e) => e.code == AUTHENTICATION_FAILED,
        ErrorKind::ServerSelection { message, .. } => message.contains("SCRAM failure"),
        _ => false,
    }
}

/// The driver's message without its labels and kinds.
pub(crate) fn plain(error: &Error) -> String {
    match error.kind.as_ref() {
        ErrorKind::Command(e) => format!("{} (error {} {})", e.message, e.code, e.code_name),
        ErrorKind::ServerSelection { message, .. } => reasons(message).unwrap_or_else(|| error.kind.to_string()),
        kind => kind.to_string(),
    }
}

/// Why no server can be had, out of the driver's description of all it knows of them; `None` unless it
/// has an error of each.
fn reasons(message: &str) -> Option<String> {
    let reason = |server: &str| {
        let (address, rest) = server.split_once(", ")?;
        let (why, _) = rest.split_once("Error: Kind: ")?.1.split_once(", labels: ")?;
        Some(format!("{address}: {why}"))
    };
    let reasons: Option<Vec<_>> = message.split("Address: ").skip(1).map(reason).collect();
    reasons.filter(|reasons| !reasons.is_empty()).map(|reasons| reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_no_server_can_be_had_is_told_without_the_drivers_state() {
        let dead = |port: u16| {
            format!(
                "{{ Address: 127.0.0.1:{port}, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), \
                 labels: {{\"RetryableError\"}}, source: None, server response: None }}"
            )
        };
        let of = |servers: &str| {
            reasons(&format!(
                "Server selection timeout: No available servers. Topology: {{ Type: Single, Servers: [ {servers} ] }}"
            ))
        };
        let refused = |port: u16| format!("127.0.0.1:{port}: I/O error: Connection refused (os error 111)");
        assert_eq!(of(&dead(1)), Some(refused(1)));
        assert_eq!(of(&[dead(1), dead(2)].join(", ")), Some([refused(1), refused(2)].join("; ")));
        // One that answers is no reason: then the driver's own words tell more.
        assert_eq!(of(&format!("{}, {{ Address: 127.0.0.1:3, Type: RsSecondary }}", dead(1))), None);
        assert_eq!(of(""), None);
    }
}
