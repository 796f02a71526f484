//! When the next checkpoint of a cluster is due.

use std::time::Duration;

use jiff::Timestamp;

/// The intervals that the API offers, in minutes.
pub const INTERVALS_MIN: [u32; 3] = [15, 30, 60];

/// The next checkpoint is due one interval after the *end* of the last, so that a slow one is never
/// followed at once by another. Before the first one `since` is when the cluster was added.
pub fn next_due(since: Timestamp, interval: Duration, now: Timestamp) -> Timestamp {
    // A clock that was set back must not put the next checkpoint off for ever.
    since.min(now).checked_add(interval).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER: Duration = Duration::from_secs(15 * 60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_next_is_due_one_interval_after_the_end_of_the_last() {
        assert_eq!(next_due(at(1000), QUARTER, at(1001)), at(1900));
        assert!(next_due(at(1000), QUARTER, at(5000)) < at(5000), "overdue after a pause");
    }

    #[test]
    fn a_last_end_in_the_future_counts_as_now() {
        assert_eq!(next_due(at(999_999), QUARTER, at(1000)), at(1900));
    }
}
