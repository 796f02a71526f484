//! Whether each segment follows one before it.
//!
//! A stream that began anew is a run of its own in the same list: its first segment follows none, and it may
//! overlap what was stored before.

use stillpoint_core::ClusterTime;
use stillpoint_core::stream::Segment;

/// The runs seen so far.
#[derive(Default)]
pub(super) struct Chain {
    /// The last segment of each run.
    ends: Vec<Segment>,
    reached: Option<ClusterTime>,
}

/// How a segment goes on from those before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joint {
    /// It is the first.
    First,
    /// No entry is between them and it.
    Joined,
    /// A run begins after all that was seen: between them there must be a gap.
    Apart,
    /// The one that it names is not before it.
    Broken(String),
}

impl Chain {
    /// The last entry of all that was seen.
    pub fn reached(&self) -> Option<ClusterTime> {
        self.reached
    }

    /// Adds the next segment; how it goes on, and from which.
    pub fn take(&mut self, segment: &Segment) -> (Joint, Option<Segment>) {
        let first = segment.first.time;
        let end = segment.previous.and_then(|previous| self.ends.iter().position(|end| end.blob == previous));
        let overlaps = self.reached.is_some_and(|reached| first <= reached.after());
        let joint = match (self.reached, end, segment.previous) {
            (None, _, _) => Joint::First,
            (Some(_), Some(_), _) => Joint::Joined,
            (Some(_), None, None) if overlaps => Joint::Joined,
            (Some(_), None, None) => Joint::Apart,
            // Its own was before what is read or kept, if nothing else is before it either.
            (Some(_), None, Some(_)) if self.ends.iter().all(|end| end.last.time >= first) => Joint::Joined,
            (Some(_), None, Some(previous)) => {
                Joint::Broken(format!("it follows {previous}, and there is no such segment before it"))
            }
        };
        let previous = match end {
            Some(end) => Some(self.ends.swap_remove(end)),
            None => None,
        };
        self.ends.push(segment.clone());
        self.reached = self.reached.max(Some(segment.last.time));
        (joint, previous)
    }
}
