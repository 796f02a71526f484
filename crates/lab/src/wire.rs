//! A raw OP_MSG connection, for what a driver would not let through: transactions with a chosen
//! `lsid`, shard versions, gossiped cluster times.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bson::{Bson, Document, Timestamp, doc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::scram;

/// The limit on one command unless another is given.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(20);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const OP_MSG: i32 = 2013;
const HEADER: usize = 16;
/// The server's own limit on a message.
const MAX_MESSAGE: usize = 48_000_000;

/// A user of the `admin` database.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

/// The server answered `ok: 0`, or with a write or write concern error.
#[derive(Debug, Clone)]
pub struct CommandError {
    pub code: i32,
    pub name: String,
    pub message: String,
    pub labels: Vec<String>,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name, self.code, self.message)
    }
}

impl std::error::Error for CommandError {}

/// The code of the server's error, if `error` is one; `None` means that the outcome is unknown.
pub fn code(error: &anyhow::Error) -> Option<i32> {
    error.downcast_ref::<CommandError>().map(|error| error.code)
}

/// The highest `$clusterTime` seen by the connections that share it, signature and all.
#[derive(Debug, Clone, Default)]
pub struct Gossip(Arc<Mutex<Option<Document>>>);

impl Gossip {
    fn get(&self) -> Option<Document> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see(&self, reply: &Document) {
        let Ok(new) = reply.get_document("$clusterTime") else {
            return;
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let time = |doc: &Document| doc.get_timestamp("clusterTime").ok();
        if known.as_ref().and_then(time) < time(new) {
            *known = Some(new.clone());
        }
    }
}

/// One connection to one `mongod`. After an error that is not a [`CommandError`] it is of no
/// further use.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    request: i32,
    gossip: Option<Gossip>,
}

impl Connection {
    /// Connects to `host:port`, and logs in when there are credentials.
    pub async fn open(address: &str, credentials: Option<&Credentials>) -> Result<Self> {
        let stream = timeout(CONNECT_LIMIT, TcpStream::connect(address))
            .await
            .with_context(|| format!("{address} accepts no connection"))?
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        let mut this = Self { stream, request: 0, gossip: None };
        if let Some(credentials) = credentials {
            scram::log_in(&mut this, credentials)
                .await
                .with_context(|| format!("cannot log in at {address} as {}", credentials.user))?;
        }
        Ok(this)
    }

    /// From now on, every command carries the highest cluster time of all who share `gossip`.
    pub fn gossiping(mut self, gossip: Gossip) -> Self {
        self.gossip = Some(gossip);
        self
    }

    /// Runs a command within [`COMMAND_LIMIT`].
    pub async fn run(&mut self, db: &str, command: Document) -> Result<Document> {
        self.run_within(COMMAND_LIMIT, db, command).await
    }

    /// Runs a command; an `ok: 0`, a write error or a write concern error is a [`CommandError`].
    pub async fn run_within(&mut self, limit: Duration, db: &str, mut command: Document) -> Result<Document> {
        let name = command.keys().next().cloned().unwrap_or_default();
        command.insert("$db", db);
        if let Some(time) = self.gossip.as_ref().and_then(Gossip::get) {
            command.insert("$clusterTime", time);
        }
        let reply = timeout(limit, self.exchange(&command))
            .await
            .with_context(|| format!("no reply to {name} within {limit:?}"))?
            .with_context(|| format!("the connection broke during {name}"))?;
        if let Some(gossip) = &self.gossip {
            gossip.see(&reply);
        }
        match failure(&reply) {
            Some(error) => Err(error.into()),
            None => Ok(reply),
        }
    }

    async fn exchange(&mut self, command: &Document) -> Result<Document> {
        self.request += 1;
        let mut message = Vec::with_capacity(512);
        for field in [0, self.request, 0, OP_MSG, 0] {
            message.extend_from_slice(&i32::to_le_bytes(field));
        }
        message.push(0); // section kind 0: one document
        bson::serialize_to_buffer(command, &mut message).context("cannot encode the command")?;
        let length = i32::try_from(message.len()).context("the command is too long")?;
        message[..4].copy_from_slice(&length.to_le_bytes());
        self.stream.write_all(&message).await?;

        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header).await?;
        let field = |at: usize| i32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = usize::try_from(field(0)).unwrap_or(0);
        ensure!((HEADER + 5..=MAX_MESSAGE).contains(&length), "a reply of {length} bytes");
        if field(8) != self.request || field(12) != OP_MSG {
            bail!("a reply to another request");
        }
        let mut body = vec![0; length - HEADER];
        self.stream.read_exact(&mut body).await?;
        ensure!(body[4] == 0, "a reply with section kind {}", body[4]);
        bson::deserialize_from_slice(&body[5..]).context("cannot decode the reply")
    }
}

fn failure(reply: &Document) -> Option<CommandError> {
    let ok = matches!(reply.get("ok"), Some(Bson::Double(1.0) | Bson::Int32(1) | Bson::Boolean(true)));
    let source = if !ok {
        reply
    } else if let Some(Bson::Document(first)) = reply.get_array("writeErrors").ok().and_then(|errors| errors.first()) {
        first
    } else {
        reply.get_document("writeConcernError").ok()?
    };
    Some(CommandError {
        code: source.get_i32("code").unwrap_or(0),
        name: source.get_str("codeName").unwrap_or("error").to_owned(),
        message: source.get_str("errmsg").unwrap_or_default().to_owned(),
        labels: reply
            .get_array("errorLabels")
            .map(|labels| labels.iter().filter_map(|l| Some(l.as_str()?.to_owned())).collect())
            .unwrap_or_default(),
    })
}

/// The `operationTime` of a reply.
pub fn operation_time(reply: &Document) -> Result<Timestamp> {
    reply.get_timestamp("operationTime").context("the reply has no operationTime")
}

/// `{w: "majority"}` with a limit that ends before [`COMMAND_LIMIT`].
pub fn majority() -> Document {
    doc! {"w": "majority", "wtimeout": 15_000}
}
