//! Cluster times: the BSON timestamp that orders a sharded cluster's oplog entries.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The `ts` of an oplog entry: seconds since the Unix epoch, then an ordinal within the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterTime {
    pub seconds: u32,
    pub increment: u32,
}

impl ClusterTime {
    pub const fn new(seconds: u32, increment: u32) -> Self {
        ClusterTime { seconds, increment }
    }

    pub const ZERO: ClusterTime = ClusterTime::new(0, 0);
    pub const MAX: ClusterTime = ClusterTime::new(u32::MAX, u32::MAX);

    /// The latest time before this one.
    pub fn before(self) -> ClusterTime {
        match (self.seconds, self.increment) {
            (0, 0) => self,
            (seconds, 0) => ClusterTime::new(seconds - 1, u32::MAX),
            (seconds, increment) => ClusterTime::new(seconds, increment - 1),
        }
    }

    /// The earliest time after this one.
    pub fn after(self) -> ClusterTime {
        match (self.seconds, self.increment) {
            (u32::MAX, u32::MAX) => self,
            (seconds, u32::MAX) => ClusterTime::new(seconds + 1, 0),
            (seconds, increment) => ClusterTime::new(seconds, increment + 1),
        }
    }

    /// The first cluster time of a wall clock's second.
    pub fn at(time: Timestamp) -> ClusterTime {
        ClusterTime::new(u32::try_from(time.as_second().max(0)).unwrap_or(u32::MAX), 0)
    }

    /// The wall clock's whole second of this time.
    pub fn date(self) -> Timestamp {
        // Any u32 of seconds lies far inside what a Timestamp holds (to the year 9999).
        Timestamp::from_second(i64::from(self.seconds)).unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Display for ClusterTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seconds, self.increment)
    }
}

/// The place of an entry in a replica set's oplog, MongoDB's optime: its `ts`, and `t`, the term of the
/// primary that wrote it. The `ts` alone orders a majority-committed oplog; with the term it names one
/// entry and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpTime {
    pub time: ClusterTime,
    pub term: i64,
}

impl OpTime {
    pub const fn new(time: ClusterTime, term: i64) -> Self {
        OpTime { time, term }
    }
}

impl fmt::Display for OpTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (term {})", self.time, self.term)
    }
}

/// Text that is not `SECONDS:INCREMENT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a cluster time: write SECONDS:INCREMENT, as in 1795552483:21")]
pub struct NotAClusterTime;

impl FromStr for ClusterTime {
    type Err = NotAClusterTime;

    fn from_str(text: &str) -> Result<Self, NotAClusterTime> {
        let (seconds, increment) = text.split_once(':').ok_or(NotAClusterTime)?;
        match (seconds.parse(), increment.parse()) {
            (Ok(seconds), Ok(increment)) => Ok(ClusterTime { seconds, increment }),
            _ => Err(NotAClusterTime),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_order_by_seconds_then_increment() {
        let mut times = [ClusterTime::new(2, 1), ClusterTime::new(1, 9), ClusterTime::new(1, 10)];
        times.sort();
        assert_eq!(times, [ClusterTime::new(1, 9), ClusterTime::new(1, 10), ClusterTime::new(2, 1)]);
    }

    #[test]
    fn before_and_after_are_neighbours() {
        for time in [ClusterTime::new(5, 0), ClusterTime::new(5, 7), ClusterTime::new(5, u32::MAX)] {
            assert_eq!((time.before().after(), time.after().before()), (time, time));
            assert!(time.before() < time && time < time.after());
        }
        assert_eq!((ClusterTime::ZERO.before(), ClusterTime::MAX.after()), (ClusterTime::ZERO, ClusterTime::MAX));
    }

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        let time = ClusterTime::new(1_795_552_483, 21);
        assert_eq!(time.to_string().parse(), Ok(time));
        assert_eq!("1795552483".parse::<ClusterTime>(), Err(NotAClusterTime));
        assert_eq!("1:-1".parse::<ClusterTime>(), Err(NotAClusterTime));
    }
}
