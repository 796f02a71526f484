//! The balancer: read, noted, stopped, and put back as it was.
//!
//! What MongoDB 6.0 does, measured:
//! - A balancer that was never touched has no document in `config.settings`: it is on.
//! - `_configsvrBalancerStop` sets `mode: "off", stopped: true` in the document `balancer` and
//!   `enabled: false` in `autosplit`, waits for the round in progress, and then adds an entry
//!   `balancer.stop` to `config.actionlog`, with the address of the client. A stop of a balancer that
//!   is already off changes no settings, but still adds that entry.
//! - `_configsvrBalancerStart` sets `full`, `false` and `true`, whatever they were before, and does
//!   not begin a round any sooner than a write to the settings does: rounds begin every ten seconds.
//!
//! So the settings are put back by writing them, field by field, and who did what is read from the
//! config servers' oplog: see [`history`].

mod history;
mod hold;
mod put_back;
mod settings;
#[cfg(test)]
mod tests;

use bson::doc;

pub use hold::{Hold, StopConnection};
pub use put_back::put_back;
pub use settings::Settings;

use crate::error::Result;
use crate::part::PartLink;
use crate::privileges::CONTROL_BALANCER;

/// What the config servers say of the balancer's current round.
pub async fn in_round(config: &PartLink) -> Result<bool> {
    let status =
        config.run("admin", &CONTROL_BALANCER, doc! {"_configsvrBalancerStatus": 1, "maxTimeMS": 10_000}).await?;
    Ok(status.get_bool("inBalancerRound").unwrap_or(true))
}
