//! How a part's capture stands, for the log, the metrics and the operator.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use stillpoint_core::ClusterTime;
use stillpoint_core::stream::{CaptureReport, Segment};
use stillpoint_mongo::tail::Extent;

/// What one part's capture has come to; written by its task, read by whoever wants to know.
#[derive(Debug)]
pub(crate) struct Figures {
    /// What it is about, for the log.
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stored: Option<ClusterTime>,
    committed: Option<ClusterTime>,
    /// The newest entry that is in a segment, sealed or not.
    taken: Option<ClusterTime>,
    extent: Option<Extent>,
    trouble: Option<(Timestamp, String)>,
    /// The trouble is over once something is read; another once something is stored.
    reading: bool,
    halted: bool,
}

impl State {
    fn well(&mut self, capture: &str) {
        self.halted = false;
        if self.trouble.take().is_some() {
            tracing::info!(capture, stored = self.stored.map(tracing::field::display), "capture goes on");
        }
    }
}

impl Figures {
    pub fn new(name: String) -> Figures {
        Figures { name, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here can panic while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stored(&self) -> Option<ClusterTime> {
        self.state().stored
    }

    /// Capture goes on after what is stored.
    pub fn resumed(&self, stored: Option<ClusterTime>) {
        self.state().stored = stored;
    }

    /// A batch was read: the part can be reached.
    pub fn read(&self, committed: Option<ClusterTime>) {
        let mut state = self.state();
        state.committed = state.committed.max(committed);
        if state.reading {
            state.well(&self.name);
        }
    }

    /// An entry was taken in, and all before it.
    pub fn taken(&self, last: Option<ClusterTime>) {
        self.state().taken = last;
    }

    /// Whether everything was taken in that a majority had when it was last asked.
    pub fn has_caught_up(&self) -> bool {
        let state = self.state();
        state.committed.is_some() && state.taken >= state.committed
    }

    /// Whether all that was taken in is stored.
    pub fn has_stored_all(&self) -> bool {
        let state = self.state();
        state.stored >= state.taken
    }

    pub fn sealed(&self, segment: &Segment) {
        let mut state = self.state();
        state.stored = Some(segment.last.time);
        state.well(&self.name);
    }

    pub fn extent(&self, extent: Extent) {
        self.state().extent = Some(extent);
    }

    /// Something is in the way, of reading or else of storing, and is tried again. Said in the log once, and
    /// again when it changes.
    pub fn trouble(&self, now: Timestamp, why: String, reading: bool) {
        self.note(now, why, false, reading);
    }

    /// No further try helps until somebody does something.
    pub fn halted(&self, now: Timestamp, why: String) {
        self.note(now, why, true, false);
    }

    fn note(&self, now: Timestamp, why: String, halted: bool, reading: bool) {
        let mut state = self.state();
        let since = state.trouble.as_ref().map_or(now, |(since, _)| *since);
        let is_new = state.trouble.as_ref().is_none_or(|(_, before)| *before != why);
        match (is_new, halted) {
            (true, true) => tracing::error!(capture = self.name, why, "capture has halted"),
            (true, false) => tracing::warn!(capture = self.name, why, "capture: trying again"),
            (false, _) => {}
        }
        state.trouble = Some((since, why));
        (state.halted, state.reading) = (halted, reading);
    }

    /// What is in the way, if anything is.
    pub fn in_the_way(&self) -> Option<String> {
        self.state().trouble.as_ref().map(|(_, why)| why.clone())
    }

    pub fn report(&self, now: Timestamp) -> CaptureReport {
        let state = self.state();
        let oldest = state.extent.map(|extent| extent.oldest.time);
        let majority = state.committed.max(state.stored);
        CaptureReport {
            at: now,
            stored: state.stored,
            majority,
            oldest,
            behind_bytes: behind(state.stored, majority, state.extent),
            trouble: state.trouble.clone(),
            halted: state.halted,
        }
    }
}

/// The bytes of the oplog after what is stored, as if it had grown at one rate all along.
fn behind(stored: Option<ClusterTime>, majority: Option<ClusterTime>, extent: Option<Extent>) -> Option<u64> {
    let (stored, majority, extent) = (stored?, majority?, extent?);
    let window = u64::from(majority.seconds.saturating_sub(extent.oldest.time.seconds)).max(1);
    let lag = u64::from(majority.seconds.saturating_sub(stored.seconds)).min(window);
    Some(((u128::from(extent.bytes) * u128::from(lag)) / u128::from(window)) as u64)
}

#[cfg(test)]
mod tests {
    use stillpoint_core::OpTime;

    use super::*;

    #[test]
    fn the_bytes_behind_are_the_oplogs_share_of_the_seconds_behind() {
        let time = |seconds| Some(ClusterTime::new(seconds, 1));
        let extent = Some(Extent { oldest: OpTime::new(ClusterTime::new(1_000, 1), 1), bytes: 1 << 30 });
        assert_eq!(behind(time(2_000), time(2_000), extent), Some(0));
        assert_eq!(behind(time(1_500), time(2_000), extent), Some(1 << 29));
        assert_eq!(
            behind(time(500), time(2_000), extent),
            Some(1 << 30),
            "more than the oplog holds is lost, not behind"
        );
        assert_eq!(behind(time(1_000), time(1_000), extent), Some(0), "a new oplog");
        assert_eq!(behind(None, time(2_000), extent), None);
    }

    #[test]
    fn what_is_in_the_way_is_reported_since_it_first_was_until_a_segment_is_stored() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let figures = Figures::new("rs0".into());
        figures.trouble(at(1), "one".into(), false);
        figures.halted(at(2), "two".into());
        figures.read(None);
        let report = figures.report(at(3));
        assert_eq!((report.trouble, report.halted), (Some((at(1), "two".into())), true));
    }

    #[test]
    fn what_was_in_the_way_of_reading_is_over_once_something_is_read() {
        let figures = Figures::new("rs0".into());
        figures.trouble(Timestamp::UNIX_EPOCH, "no primary".into(), true);
        figures.read(None);
        assert_eq!(figures.in_the_way(), None);
        figures.trouble(Timestamp::UNIX_EPOCH, "the vault is away".into(), false);
        figures.read(None);
        assert_eq!(figures.in_the_way().as_deref(), Some("the vault is away"));
    }
}
