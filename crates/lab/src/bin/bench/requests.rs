//! Get One over Digest with a nonce that is used again, against a bare route with the same bytes.

use std::time::Duration;

use anyhow::Result;

use crate::bare::Bare;
use crate::client::Client;
use crate::load;
use crate::report::{Limit, Report};
use crate::served::Served;

const FLOOR: Limit = Limit::AtLeast(0.8);

pub fn measure(report: &mut Report, served: &Served, round: Duration) -> Result<()> {
    let targets = std::slice::from_ref(&served.seeds.one);
    let bytes = fetch(served, targets)?;
    let bare = Bare::start(&bytes)?;
    let found = load::compare(served.listening, bare.listening, &served.seeds.user, targets, round)?;
    report.ratio(&format!("Get One / bare route ({} bytes)", bytes.len()), found.ratio, FLOOR, &found);
    Ok(())
}

/// The bytes of the first target.
pub fn fetch(served: &Served, targets: &[String]) -> Result<Vec<u8>> {
    let mut client = Client::connect(served.listening.port, &served.seeds.user, targets)?;
    client.send()?;
    Ok(client.receive()?.to_vec())
}
