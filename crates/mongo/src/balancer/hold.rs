//! Holding the balancer: the note that outlives everything, and the stop.
//!
//! The note is a no-op entry in the config servers' oplog whose `o` is `{stillpoint: "hold",
//! checkpoint, from, seen, until, settings: {balancer, autosplit}}`. If the catalog is lost while the
//! balancer is off, the next stillpoint that reads the balancer finds the note and puts it back.

use std::time::Duration;

use bson::{Document, doc};
use jiff::Timestamp;
use stillpoint_core::checkpoint::Found;
use stillpoint_core::{CheckpointId, ClusterTime};

use super::history::{self, Ours, judge};
use super::put_back::{note_release, restore};
use super::settings::{self, Settings};
use crate::error::{MongoError, Result};
use crate::link::ClusterLink;
use crate::part::{PartLink, cluster_time, timestamp};
use crate::privileges::{CONTROL_BALANCER, NOTHING, READ_CONFIG, READ_OPLOG, WRITE_NOTE};
use crate::token::note;

/// No stop takes longer, in seconds: the most that its limit can be set to, and an hour.
const LONGEST_STOP: i64 = 25 * 3600;

/// What the newest note says.
#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    pub checkpoint: String,
    pub from: String,
    pub seen: ClusterTime,
    pub until: Timestamp,
    pub settings: Settings,
}

impl Hold {
    fn ours(&self) -> Ours {
        Ours { addresses: vec![self.from.clone()], answered: false }
    }
}

/// The one connection that the balancer's stop will come from.
#[derive(Debug)]
pub struct StopConnection {
    config: PartLink,
    from: String,
}

impl StopConnection {
    /// Opens it, to the config servers' primary, and learns by which address that knows it.
    pub async fn open(link: &ClusterLink) -> Result<StopConnection> {
        let config = link.single_connection().await?;
        let (from, _) = whats_my_address(&config).await?;
        Ok(StopConnection { config, from })
    }

    /// Reads the balancer's settings. A hold that a lost stillpoint never ended is ended first.
    pub async fn read_balancer(&self, now: Timestamp) -> Result<Found> {
        let (mut settings, mut seen) = self.read_settings().await?;
        if !settings.running()? && end_lost_hold(&self.config, now).await? {
            (settings, seen) = self.read_settings().await?;
        }
        Ok(Found { running: settings.running()?, settings: settings.to_text(), seen, from: self.from.clone() })
    }

    /// The settings, and a time from which on every change is one after them: it is asked for before
    /// they are read, and they are read as of no earlier time.
    async fn read_settings(&self) -> Result<(Settings, ClusterTime)> {
        let (_, seen) = whats_my_address(&self.config).await?;
        Ok((settings::read(&self.config, Some(seen)).await?.0, seen))
    }

    /// Writes the note, majority-committed.
    pub async fn note_hold(&self, checkpoint: CheckpointId, found: &Found, until: Timestamp) -> Result<()> {
        let data = doc! {
            "stillpoint": "hold",
            "checkpoint": checkpoint.to_string(),
            "from": &found.from,
            "seen": timestamp(found.seen),
            "until": until.to_string(),
            "settings": Settings::from_text(&found.settings)?.to_document(),
        };
        self.config.run("admin", &WRITE_NOTE, note(data)).await.map(drop)
    }

    /// Stops the balancer if it was running, and waits for its round to end. Consumed: the connection
    /// is closed afterwards, so that it is known that nothing more can come from it.
    pub async fn stop(self, found: &Found, limit: Duration) -> Result<()> {
        if found.running {
            if whats_my_address(&self.config).await?.0 != found.from {
                return Err(MongoError::StopConnectionLost);
            }
            // Stop refuses a write concern. It gives up before our own limit does.
            let limit = limit.saturating_sub(Duration::from_secs(2)).max(Duration::from_secs(1));
            let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
            let stop = doc! {"_configsvrBalancerStop": 1, "maxTimeMS": limit};
            self.config.run("admin", &CONTROL_BALANCER, stop).await?;
        } else {
            while super::in_round(&self.config).await? {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}

/// The address that the server knows us by, and the time of its answer.
async fn whats_my_address(config: &PartLink) -> Result<(String, ClusterTime)> {
    let reply = config.run("admin", &NOTHING, doc! {"whatsmyuri": 1}).await?;
    let time = config.operation_time(&NOTHING, &reply)?;
    let address = reply.get_str("you").map_err(|_| MongoError::Reply {
        part: config.id.to_string(),
        what: "ask for our own address",
        why: "it has no `you`".into(),
    })?;
    Ok((address.to_owned(), time))
}

/// If the balancer is off only because a stillpoint that is gone stopped it, puts it back; whether
/// it did.
async fn end_lost_hold(config: &PartLink, now: Timestamp) -> Result<bool> {
    let Some(hold) = newest_hold(config).await? else {
        return Ok(false);
    };
    if !is_intact(config, &hold).await? {
        return Ok(false);
    }
    if hold.until > now {
        return Err(MongoError::HeldByAnother { checkpoint: hold.checkpoint, until: hold.until.to_string() });
    }
    tracing::warn!(
        checkpoint = hold.checkpoint,
        "the balancer was left off by a checkpoint that never ended; putting it back"
    );
    restore(config, &hold.settings, hold.seen, &hold.ours()).await?;
    note_release(config, &hold.from).await?;
    Ok(true)
}

/// Whether the balancer is off because of a hold, and of nothing else.
async fn is_intact(config: &PartLink, hold: &Hold) -> Result<bool> {
    let changes = match history::read(config, hold.seen).await {
        // It can no longer be told: then it is not ours to change.
        Err(MongoError::HistoryLost { .. }) => return Ok(false),
        changes => changes?,
    };
    let verdict = judge(&hold.settings, &changes, &hold.ours())?;
    let (now, _) = settings::read(config, None).await?;
    let [(_, intended), _] = &verdict.intended;
    Ok(settings::running(intended)? && !now.running()?)
}

/// The newest hold that was noted and not released.
async fn newest_hold(config: &PartLink) -> Result<Option<Hold>> {
    // A stop that ended is in the action log: the hold's note is older than that by at most the time
    // that a stop may take. Without one the whole oplog is looked through.
    let since = match last_stop(config).await? {
        Some(stopped) => (stopped / 1000 - LONGEST_STOP).clamp(0, i64::from(u32::MAX)) as u32,
        None => 0,
    };
    let hold = match newest_note(config, since, doc! {"o.stillpoint": "hold"}).await {
        // An oplog too large to look through in time: leaving the balancer as it is does no harm.
        Err(e @ MongoError::TooSlow { .. }) => {
            tracing::warn!(error = %e, "it is not known whether a lost checkpoint left the balancer off; it is left so");
            return Ok(None);
        }
        found => found?.as_ref().map(parse_hold).transpose()?,
    };
    let Some(hold) = hold else {
        return Ok(None);
    };
    let released = doc! {"o.stillpoint": "released", "o.from": &hold.from};
    let released = newest_note(config, hold.seen.seconds, released).await?;
    Ok(released.is_none().then_some(hold))
}

async fn newest_note(config: &PartLink, since: u32, mut filter: Document) -> Result<Option<Document>> {
    filter.insert("op", "n");
    filter.insert("ts", doc! {"$gte": bson::Timestamp { time: since, increment: 0 }});
    let command = doc! {
        "find": "oplog.rs",
        "filter": filter,
        "sort": {"$natural": -1},
        "limit": 1,
        "singleBatch": true,
        "readConcern": {"level": "majority"},
        "maxTimeMS": 8_000,
    };
    Ok(config.first_batch("local", &READ_OPLOG, command).await?.pop())
}

/// When the balancer was last stopped by a command, in milliseconds since the Unix epoch.
async fn last_stop(config: &PartLink) -> Result<Option<i64>> {
    let command = doc! {
        "find": "actionlog",
        "filter": {"what": "balancer.stop"},
        "sort": {"$natural": -1},
        "limit": 1,
        "singleBatch": true,
        "readConcern": {"level": "majority"},
        "maxTimeMS": 10_000,
    };
    let found = config.first_batch("config", &READ_CONFIG, command).await?;
    Ok(found.first().and_then(|action| action.get_datetime("time").ok()).map(|time| time.timestamp_millis()))
}

fn parse_hold(entry: &Document) -> Result<Hold> {
    let wrong =
        |what: &str| MongoError::Settings(format!("a hold's note in the config servers' oplog has no {what}: {entry}"));
    let note = entry.get_document("o").map_err(|_| wrong("o"))?;
    Ok(Hold {
        checkpoint: note.get_str("checkpoint").map_err(|_| wrong("checkpoint"))?.to_owned(),
        from: note.get_str("from").map_err(|_| wrong("from"))?.to_owned(),
        seen: note.get("seen").and_then(cluster_time).ok_or_else(|| wrong("seen"))?,
        until: note.get_str("until").ok().and_then(|until| until.parse().ok()).ok_or_else(|| wrong("until"))?,
        settings: Settings::from_document(note.get_document("settings").map_err(|_| wrong("settings"))?)?,
    })
}
