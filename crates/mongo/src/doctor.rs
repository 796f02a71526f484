//! Looks at a cluster as an operator would before trusting a tool to it, and says what is wrong and
//! what to do about it.

use bson::{Bson, Document, doc};
use futures::future::join_all;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Serialize;
use stillpoint_core::checkpoint::PartId;

use crate::error::{MongoError, Result, plain};
use crate::link::ClusterLink;
use crate::part::{PartLink, hello};
use crate::privileges::{self, Granted, NOTHING, SEE_STATUS, grant_commands};

/// An oplog that holds less than this is said to be short.
const SHORT_OPLOG_HOURS: f64 = 24.0;
/// A snapshot read must find its time within this, the server's own default.
const SHORT_HISTORY_SECONDS: i64 = 300;
/// Clocks that differ by more make dates and snapshots misleading; the protocol does not mind.
const CLOCKS_DIFFER_SECONDS: f64 = 5.0;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub level: Level,
    /// Which part, if it is about one.
    pub part: Option<String>,
    pub what: String,
    /// What to do, a line each; commands are for mongosh, on that part's primary.
    pub remedy: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    Good,
    Warning,
    /// A checkpoint cannot be taken.
    Problem,
}

/// Examines a cluster; each wait inside is bounded.
pub async fn examine(uri: &SecretString, now: Timestamp) -> Vec<Finding> {
    let link = match ClusterLink::connect(uri).await {
        Ok(link) => link,
        Err(e) => return vec![problem(None, e.to_string(), remedy_of(&e))],
    };
    let parts = match link.parts().await {
        Ok(parts) => parts,
        Err(e) => {
            // A user who may not even read the shards is told all that is missing there at once.
            let mut findings = examine_part(&link.config, now).await;
            if !findings.iter().any(|finding| finding.level == Level::Problem) {
                findings.push(problem(Some(&PartId::ConfigServers), e.to_string(), remedy_of(&e)));
            }
            return findings;
        }
    };
    let mut findings = vec![];
    let shards = parts.len() - 1;
    if shards == 0 {
        findings.push(problem(None, "the cluster has no shard".into(), vec!["add one with sh.addShard(…)".into()]));
    } else {
        findings.push(good(None, format!("{shards} shards and the config servers {:?}", link.config.replica_set)));
    }
    findings.extend(join_all(parts.iter().map(|part| examine_part(part, now))).await.into_iter().flatten());
    findings
}

async fn examine_part(part: &PartLink, now: Timestamp) -> Vec<Finding> {
    // Without a primary, or with a wrong password, nothing else can be said.
    let hello = match hello(part).await {
        Ok(hello) => hello,
        Err(e) => return vec![problem(Some(&part.id), e.to_string(), remedy_of(&e))],
    };
    let mut findings = vec![clock(part, &hello, now)];
    let looks = tokio::join!(version(part), members(part), oplog(part), history(part), needs(part));
    let refused = matches!(&looks.4, Ok(found) if found.iter().any(|finding| finding.level == Level::Problem));
    for look in [looks.0, looks.1, looks.2, looks.3, looks.4] {
        match look {
            Ok(found) => findings.extend(found),
            // Said once, and with the remedy, by `needs`.
            Err(MongoError::Unauthorized { .. }) if refused => {}
            Err(e) => findings.push(problem(Some(&part.id), e.to_string(), remedy_of(&e))),
        }
    }
    findings
}

fn clock(part: &PartLink, hello: &Document, now: Timestamp) -> Finding {
    let theirs = hello.get_datetime("localTime").map(|time| time.timestamp_millis()).unwrap_or_default();
    let apart = (theirs - now.as_millisecond()).abs() as f64 / 1000.0;
    if apart > CLOCKS_DIFFER_SECONDS {
        let remedy = vec!["let NTP set the clocks of all hosts".into()];
        return warning(&part.id, format!("its clock and this machine's are {apart:.0} s apart"), remedy);
    }
    good(Some(&part.id), "its clock agrees with this machine's".into())
}

async fn version(part: &PartLink) -> Result<Vec<Finding>> {
    let info = part.run("admin", &NOTHING, doc! {"buildInfo": 1}).await?;
    let version = info.get_str("version").unwrap_or("unknown");
    Ok(vec![good(Some(&part.id), format!("MongoDB {version}, replica set {:?}", part.replica_set))])
}

async fn members(part: &PartLink) -> Result<Vec<Finding>> {
    let status = part.run("admin", &SEE_STATUS, doc! {"replSetGetStatus": 1}).await?;
    let members = status.get_array("members").map(Vec::as_slice).unwrap_or_default();
    let states = members.iter().filter_map(Bson::as_document);
    let ill: Vec<_> = states
        .filter(|member| !matches!(member.get_i32("state"), Ok(1 | 2 | 7)))
        .map(|member| {
            format!("{} is {}", member.get_str("name").unwrap_or("?"), member.get_str("stateStr").unwrap_or("?"))
        })
        .collect();
    Ok(vec![match ill.is_empty() {
        true => good(Some(&part.id), format!("all {} members are healthy", members.len())),
        false => {
            warning(&part.id, ill.join(", "), vec!["tokens need a majority: mend this before more members fail".into()])
        }
    }])
}

async fn oplog(part: &PartLink) -> Result<Vec<Finding>> {
    let (first, last) = tokio::try_join!(part.end_of_oplog(1), part.end_of_oplog(-1))?;
    let [first, last] = [first, last].map(|end| end.map_or(0, |entry| entry.time.seconds));
    let hours = f64::from(last.saturating_sub(first)) / 3600.0;
    let what = format!("its oplog reaches back {hours:.1} hours");
    Ok(vec![match hours < SHORT_OPLOG_HOURS {
        true => warning(
            &part.id,
            format!("{what}; a new cluster's does at first"),
            vec!["if it stays so short, make the oplog larger: replSetResizeOplog".into()],
        ),
        false => good(Some(&part.id), what),
    }])
}

async fn history(part: &PartLink) -> Result<Vec<Finding>> {
    let command = doc! {"getParameter": 1, "minSnapshotHistoryWindowInSeconds": 1};
    let reply = match part.run("admin", &SEE_STATUS, command).await {
        // No checkpoint needs it, so a user who may not see it is no problem.
        Err(MongoError::Unauthorized { .. }) => return Ok(vec![]),
        reply => reply?,
    };
    let seconds = match reply.get("minSnapshotHistoryWindowInSeconds") {
        Some(Bson::Int32(seconds)) => i64::from(*seconds),
        Some(Bson::Int64(seconds)) => *seconds,
        Some(Bson::Double(seconds)) => *seconds as i64,
        _ => return Ok(vec![]),
    };
    let what = format!("snapshot reads reach back {seconds} s");
    Ok(vec![match seconds < SHORT_HISTORY_SECONDS {
        true => {
            warning(&part.id, what, vec!["setParameter: minSnapshotHistoryWindowInSeconds: 300, the default".into()])
        }
        false => good(Some(&part.id), what),
    }])
}

async fn needs(part: &PartLink) -> Result<Vec<Finding>> {
    let granted = Granted::of(part).await?;
    let Some((name, database)) = &granted.user else {
        return anonymous(part).await;
    };
    let missing = granted.lacks(privileges::ALL, &part.id);
    if missing.is_empty() {
        return Ok(vec![good(Some(&part.id), format!("the user {name:?} may do all that a checkpoint needs"))]);
    }
    let list: Vec<_> =
        missing.iter().map(|need| format!("{} (action `{}` on {})", need.what, need.action, need.resource)).collect();
    Ok(vec![problem(
        Some(&part.id),
        format!("the user {name:?} may not {}", list.join("; nor ")),
        grant_commands(Some((name, database))),
    )])
}

/// Without a user: either the part asks for none, or it will refuse everything.
async fn anonymous(part: &PartLink) -> Result<Vec<Finding>> {
    let trial = doc! {"find": "oplog.rs", "limit": 1, "projection": {"ts": 1}, "singleBatch": true};
    match part.client.database("local").run_command(trial).await {
        Ok(_) => Ok(vec![good(Some(&part.id), "it asks for no user (authorization is off)".into())]),
        Err(e) => Ok(vec![problem(
            Some(&part.id),
            format!("the connection string names no user, and the part asks for one: {}", plain(&e)),
            grant_commands(None),
        )]),
    }
}

fn remedy_of(error: &MongoError) -> Vec<String> {
    match error {
        MongoError::AuthenticationFailed { .. } => grant_commands(None),
        MongoError::Unreachable { .. } => {
            vec!["check the host, the port, the network and that a primary is elected".into()]
        }
        _ => vec![],
    }
}

fn finding(level: Level, part: Option<&PartId>, what: String, remedy: Vec<String>) -> Finding {
    Finding { level, part: part.map(PartId::to_string), what, remedy }
}

fn good(part: Option<&PartId>, what: String) -> Finding {
    finding(Level::Good, part, what, vec![])
}

fn warning(part: &PartId, what: String, remedy: Vec<String>) -> Finding {
    finding(Level::Warning, Some(part), what, remedy)
}

fn problem(part: Option<&PartId>, what: String, remedy: Vec<String>) -> Finding {
    finding(Level::Problem, part, what, remedy)
}
