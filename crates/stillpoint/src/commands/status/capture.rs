//! How the capture of a cluster's parts stands, from the reports that its server leaves.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, Cluster};
use stillpoint_core::ClusterTime;
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::stream::{CaptureReport, Gap};

use crate::commands::gap_document;
use crate::context::now;
use crate::error::CliError;

/// A server reports every five seconds; one that has not for so long does not run.
const FRESH: SignedDuration = SignedDuration::from_secs(30);
/// Trouble that lasts longer, or entries that are behind by more, need attention.
const PATIENCE: SignedDuration = SignedDuration::from_secs(300);

/// The capture of one cluster.
pub struct Standing {
    now: Timestamp,
    parts: Vec<Part>,
    gaps: Vec<Gap>,
}

struct Part {
    id: PartId,
    /// Its shard is no longer in the cluster.
    ended: Option<Timestamp>,
    report: Option<CaptureReport>,
}

pub async fn look(catalog: &dyn Catalog, cluster: &Cluster) -> Result<Standing, CliError> {
    let reports = catalog.capture_reports(cluster.id).await?;
    let streams = catalog.streams(cluster.id).await?;
    let mut parts: Vec<Part> =
        streams.into_iter().map(|stream| Part { id: stream.part, ended: stream.ended, report: None }).collect();
    for (id, report) in reports {
        match parts.iter_mut().find(|part| part.id == id) {
            Some(part) => part.report = Some(report),
            // Its stream could not be begun yet.
            None => parts.push(Part { id, ended: None, report: Some(report) }),
        }
    }
    Ok(Standing { now: now(), parts, gaps: catalog.gaps(cluster.id).await? })
}

impl Standing {
    fn age(&self, report: &CaptureReport) -> SignedDuration {
        self.now.duration_since(report.at)
    }

    /// Those whose oplogs should be captured now.
    fn running(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.ended.is_none())
    }

    /// When the newest report was made, if that was too long ago.
    fn stale(&self) -> Option<Timestamp> {
        let newest = self.running().filter_map(|part| part.report.as_ref()).max_by_key(|report| report.at)?;
        (self.age(newest) > FRESH).then_some(newest.at)
    }

    /// What a monitor is to be told.
    pub fn attention(&self, served_since: Option<Timestamp>) -> Vec<String> {
        let mut all = Vec::new();
        if let (Some(at), Some(_)) = (self.stale(), served_since) {
            all.push(format!("no report on capture since {at}"));
        }
        if served_since.is_some_and(|since| self.now.duration_since(since) > PATIENCE)
            && self.running().next().is_none()
        {
            all.push("no oplog is captured".into());
        }
        for part in self.running() {
            all.extend(part.report.iter().filter_map(|report| self.attention_of(&part.id, report)));
        }
        all.extend(self.gaps.iter().map(Gap::to_string));
        all
    }

    fn attention_of(&self, part: &PartId, report: &CaptureReport) -> Option<String> {
        let lag = report.lag_seconds().map_or(SignedDuration::ZERO, |lag| SignedDuration::from_secs(lag.into()));
        match &report.trouble {
            Some((since, why)) if report.halted => Some(format!("{part}: capture HALTED since {since}: {why}")),
            None if report.halted => Some(format!("{part}: capture HALTED")),
            Some((since, why)) if self.now.duration_since(*since) > PATIENCE => {
                Some(format!("{part}: capture is in trouble since {since}: {why}"))
            }
            _ if lag > PATIENCE => Some(format!("{part}: capture is {} s behind", lag.as_secs())),
            _ => None,
        }
    }

    /// A line for each part, and for each gap.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(at) = self.stale() {
            let ago = self.now.duration_since(at).as_secs();
            lines.push(format!("capture was last reported on {ago} s ago, at {at}: no server runs"));
        }
        lines.extend(self.parts.iter().map(Part::line));
        lines.extend(self.gaps.iter().map(|gap| {
            let until = match gap.until {
                ClusterTime::MAX => "on".into(),
                until => format!("to {until} ({})", until.date()),
            };
            format!(
                "{}: a GAP from {} ({}) {until}. {} {}",
                gap.part,
                gap.after,
                gap.after.date(),
                gap.cause.sentence(),
                gap.detail
            )
        }));
        lines
    }

    pub fn documents(&self) -> (Vec<Value>, Vec<Value>) {
        let parts = self.parts.iter().map(|part| part.document(self)).collect();
        (parts, self.gaps.iter().map(gap_document).collect())
    }
}

impl Part {
    fn line(&self) -> String {
        let id = &self.id;
        let Some(report) = &self.report else { return format!("{id}: its oplog is not yet stored") };
        let mut line = match report.stored {
            Some(stored) => format!("{id}: stored until {}", stored.date()),
            None => format!("{id}: nothing stored yet"),
        };
        if let Some(ended) = self.ended {
            return format!("{line}, no longer in the cluster at {ended}");
        }
        if let Some(lag) = report.lag_seconds() {
            line += &format!(", {lag} s behind");
        }
        if let Some(left) = report.window_left_seconds() {
            line += &format!(", {} of its oplog's window left", hours(left));
        }
        match &report.trouble {
            Some((since, why)) if report.halted => line += &format!(", HALTED since {since}: {why}"),
            Some((since, why)) => line += &format!(", in trouble since {since}: {why}"),
            None if report.halted => line += ", HALTED",
            None => {}
        }
        line
    }

    fn document(&self, standing: &Standing) -> Value {
        let report = self.report.as_ref();
        let trouble = report.and_then(|report| report.trouble.as_ref());
        let stored = report.and_then(|report| report.stored);
        json!({
            "part": self.id.name(),
            "ended": self.ended,
            "reported": report.map(|report| report.at),
            "stale": report.is_some_and(|report| standing.age(report) > FRESH),
            "storedUntil": stored.map(|stored| stored.to_string()),
            "storedUntilDate": stored.map(|stored| stored.date()),
            "lagSeconds": report.and_then(CaptureReport::lag_seconds),
            "windowLeftSeconds": report.and_then(CaptureReport::window_left_seconds),
            "behindBytes": report.and_then(|report| report.behind_bytes),
            "trouble": trouble.map(|(since, text)| json!({"since": since, "text": text})),
            "halted": report.is_some_and(|report| report.halted),
        })
    }
}

/// Seconds, as hours and minutes.
fn hours(seconds: u32) -> String {
    match seconds / 60 {
        0 => "less than a minute".into(),
        minutes @ 1..60 => format!("{minutes} min"),
        minutes => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use stillpoint_core::stream::GapCause;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(10_000 + second).unwrap()
    }

    fn report() -> CaptureReport {
        CaptureReport {
            at: at(-3),
            stored: Some(ClusterTime::new(9_990, 1)),
            majority: Some(ClusterTime::new(9_995, 1)),
            oldest: Some(ClusterTime::new(5_000, 1)),
            behind_bytes: Some(7),
            trouble: None,
            halted: false,
        }
    }

    fn standing(report: CaptureReport) -> Standing {
        let part = Part { id: PartId::Shard("rs0".into()), ended: None, report: Some(report) };
        Standing { now: at(0), parts: vec![part], gaps: vec![] }
    }

    #[test]
    fn capture_that_goes_well_is_one_line_and_needs_no_attention() {
        let standing = standing(report());
        let line = "shard rs0: stored until 1970-01-01T02:46:30Z, 5 s behind, 1 h 23 min of its oplog's window left";
        assert_eq!(standing.lines(), [line]);
        assert!(standing.attention(Some(at(-900))).is_empty());
    }

    #[test]
    fn a_monitor_is_told_what_lasts() {
        let told = |report| standing(report).attention(Some(at(-900)));
        let trouble = |since, halted| CaptureReport { trouble: Some((at(since), "why".into())), halted, ..report() };
        assert!(told(trouble(-299, false)).is_empty(), "it may pass");
        assert!(told(trouble(-301, false))[0].contains("in trouble since"));
        assert!(told(trouble(-1, true))[0].contains("HALTED since"));
        assert!(told(CaptureReport { majority: Some(ClusterTime::new(10_290, 1)), ..report() }).is_empty());
        assert!(told(CaptureReport { majority: Some(ClusterTime::new(10_291, 1)), ..report() })[0].contains("301 s"));
        assert!(told(CaptureReport { at: at(-31), ..report() })[0].contains("no report on capture since"));
        let nothing = Standing { now: at(0), parts: vec![], gaps: vec![] };
        assert_eq!(nothing.attention(Some(at(-301))), ["no oplog is captured"]);
        assert!(nothing.attention(Some(at(-299))).is_empty() && nothing.attention(None).is_empty());
    }

    #[test]
    fn gaps_and_what_is_in_the_way_are_said() {
        let halted = CaptureReport { at: at(-40), trouble: Some((at(-50), "why".into())), halted: true, ..report() };
        let gap = Gap {
            part: PartId::ConfigServers,
            after: ClusterTime::new(8_000, 1),
            until: ClusterTime::new(9_000, 1),
            cause: GapCause::RolledOver,
            found: at(-60),
            detail: "make the oplog larger".into(),
        };
        let standing = Standing { gaps: vec![gap], ..standing(halted) };
        let lines = standing.lines();
        assert!(lines[0].contains("40 s ago") && lines[0].ends_with("no server runs"), "{lines:?}");
        assert!(lines[1].contains("HALTED since") && lines[1].ends_with(": why"), "{lines:?}");
        assert!(lines[2].contains("a GAP from 8000:1") && lines[2].ends_with("make the oplog larger"), "{lines:?}");
        assert_eq!(standing.attention(None).len(), 2);
    }

    #[test]
    fn a_part_that_is_gone_needs_no_attention() {
        let mut standing = standing(CaptureReport { at: at(-4_000), halted: true, ..report() });
        standing.parts[0].ended = Some(at(-4_000));
        assert!(standing.attention(None).is_empty());
        assert!(standing.lines()[0].contains("no longer in the cluster at"));
        assert_eq!(standing.lines().len(), 1, "nor does its old report mean that no server runs");
    }
}
