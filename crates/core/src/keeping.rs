//! Until when a snapshot is kept, and which of them may go.
//!
//! A snapshot is kept for the longest of the times that the schedule has for it: as one among all, and as the
//! first of its day, of its week and of its month. It stays longer while what is kept needs it: a time is
//! restored from the newest snapshot at or before it.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::schedule::Schedule;
use crate::snapshot::Snapshot;
use crate::{ClusterTime, SnapshotId};

/// Until when a snapshot of this date is kept; `others` are the dates of the completed ones before it.
/// Days, weeks and months are those of UTC, weeks from Monday on.
pub fn kept_until(schedule: &Schedule, date: Timestamp, others: &[Timestamp]) -> Timestamp {
    let earlier: Vec<_> = others.iter().filter(|other| **other <= date).map(|other| day(*other)).collect();
    let own = day(date);
    let days = |n: u32| hours(date, 24 * i64::from(n));
    let mut until = days(schedule.snapshot_retention_days);
    if !earlier.contains(&own) {
        until = until.max(days(schedule.daily_snapshot_retention_days));
    }
    if !earlier.iter().any(|other| week(*other) == week(own)) {
        until = until.max(days(7 * schedule.weekly_snapshot_retention_weeks));
    }
    if !earlier.iter().any(|other| other.first_of_month() == own.first_of_month()) {
        until = until.max(months(date, schedule.monthly_snapshot_retention_months));
    }
    until
}

fn day(date: Timestamp) -> Date {
    date.to_zoned(TimeZone::UTC).date()
}

fn week(day: Date) -> (i16, i8) {
    let week = day.iso_week_date();
    (week.year(), week.week())
}

fn hours(date: Timestamp, hours: i64) -> Timestamp {
    date.checked_add(SignedDuration::from_hours(hours)).unwrap_or(Timestamp::MAX)
}

fn months(date: Timestamp, months: u32) -> Timestamp {
    let later = date.to_zoned(TimeZone::UTC).checked_add(i64::from(months).months());
    later.map_or(Timestamp::MAX, |later| later.timestamp())
}

/// The oldest time that must stay restorable: that of the oldest checkpoint that is kept, or the beginning of
/// the point-in-time window, whichever is earlier.
pub fn keep_from(schedule: &Schedule, oldest_cut: Option<ClusterTime>, now: Timestamp) -> ClusterTime {
    let window = hours(now, -i64::from(schedule.point_in_time_window_hours));
    ClusterTime::at(window).min(oldest_cut.unwrap_or(ClusterTime::MAX))
}

/// What a snapshot is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The next snapshot goes on from it.
    Newest,
    /// The oldest times that are kept are restored from it.
    Oldest,
}

impl Need {
    /// Why it stays, for the operator.
    pub fn sentence(self) -> &'static str {
        match self {
            Need::Newest => "the next one goes on from it; delete it when there is a newer one",
            Need::Oldest => "the oldest checkpoints and times that are kept are restored from it",
        }
    }
}

/// What a snapshot is needed for among all of its cluster; nothing unless it is sound.
pub fn need(snapshots: &[Snapshot], id: SnapshotId, keep_from: ClusterTime) -> Option<Need> {
    let complete = || snapshots.iter().filter(|snapshot| snapshot.is_sound());
    let cut = |snapshot: &&Snapshot| (snapshot.cut, snapshot.id);
    let before = complete().filter(|snapshot| snapshot.cut.is_some_and(|cut| cut <= keep_from)).max_by_key(cut);
    // If all are later, the times from the first one on are what can be restored.
    let oldest = before.or_else(|| complete().min_by_key(cut));
    let newest = complete().max_by_key(cut);
    let is = |snapshot: Option<&Snapshot>| snapshot.is_some_and(|snapshot| snapshot.id == id);
    match (is(oldest), is(newest)) {
        (true, _) => Some(Need::Oldest),
        (false, true) => Some(Need::Newest),
        (false, false) => None,
    }
}

/// The completed snapshots of a cluster that may be deleted now: their time is over, nobody said that they
/// should stay, and nothing needs them.
pub fn may_go(snapshots: &[Snapshot], keep_from: ClusterTime, now: Timestamp) -> Vec<SnapshotId> {
    let over = |snapshot: &&Snapshot| {
        snapshot.is_complete()
            && !snapshot.do_not_delete
            && snapshot.expires.is_some_and(|expires| expires <= now)
            && need(snapshots, snapshot.id, keep_from).is_none()
    };
    snapshots.iter().filter(over).map(|snapshot| snapshot.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClusterId;
    use crate::snapshot::State;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Until when one is kept that is not the first of anything but of what `others` leave.
    fn until(schedule: &Schedule, date: &str, others: &[&str]) -> String {
        let others: Vec<_> = others.iter().map(|other| at(other)).collect();
        kept_until(schedule, at(date), &others).to_string()
    }

    #[test]
    fn the_longest_of_the_classes_that_it_is_the_first_of_counts() {
        let schedule = Schedule {
            snapshot_retention_days: 2,
            daily_snapshot_retention_days: 7,
            weekly_snapshot_retention_weeks: 4,
            monthly_snapshot_retention_months: 13,
            ..Schedule::default()
        };
        // 2026-11-26 is a Thursday.
        let date = "2026-11-26T13:00:00Z";
        for (others, expected) in [
            (&[][..], "2027-12-26T13:00:00Z"),
            (&["2026-10-31T23:59:59Z"], "2027-12-26T13:00:00Z"),
            (&["2026-11-01T00:00:00Z"], "2026-12-24T13:00:00Z"),
            (&["2026-11-22T23:59:59Z"], "2026-12-24T13:00:00Z"),
            (&["2026-11-23T00:00:00Z"], "2026-12-03T13:00:00Z"),
            (&["2026-11-25T23:59:59Z"], "2026-12-03T13:00:00Z"),
            (&["2026-11-26T00:00:00Z"], "2026-11-28T13:00:00Z"),
            // Those after it say nothing of it, in whatever order they come.
            (&["2026-11-26T14:00:00Z", "2026-11-23T00:00:00Z"], "2026-12-03T13:00:00Z"),
            (&["2026-11-26T14:00:00Z"], "2027-12-26T13:00:00Z"),
        ] {
            assert_eq!(until(&schedule, date, others), expected, "{others:?}");
        }
        // The month that it would end in may be shorter.
        assert_eq!(until(&schedule, "2026-01-31T01:00:00Z", &[]), "2027-02-28T01:00:00Z");
    }

    #[test]
    fn a_class_of_nothing_is_not_kept_and_a_shorter_one_takes_nothing_away() {
        let none = Schedule {
            snapshot_retention_days: 3,
            daily_snapshot_retention_days: 0,
            weekly_snapshot_retention_weeks: 0,
            monthly_snapshot_retention_months: 0,
            ..Schedule::default()
        };
        let date = "2026-11-26T13:00:00Z";
        assert_eq!(until(&none, date, &[]), "2026-11-29T13:00:00Z");
        let weekly = Schedule { weekly_snapshot_retention_weeks: 1, ..none.clone() };
        assert_eq!(until(&weekly, date, &[]), "2026-12-03T13:00:00Z");
        let longest = Schedule { daily_snapshot_retention_days: 360, ..weekly };
        assert_eq!(until(&longest, date, &[]), "2027-11-21T13:00:00Z");
        let monthly = Schedule { monthly_snapshot_retention_months: 1, ..none };
        assert_eq!(until(&monthly, "2026-02-01T00:00:00Z", &[]), "2026-03-01T00:00:00Z");
    }

    #[test]
    fn a_week_may_have_days_of_two_years_and_months() {
        let weekly = Schedule {
            daily_snapshot_retention_days: 0,
            monthly_snapshot_retention_months: 0,
            weekly_snapshot_retention_weeks: 2,
            ..Schedule::default()
        };
        // 2027-01-01 is a Friday, of the last week of 2026.
        let date = "2027-01-01T00:00:00Z";
        assert_eq!(until(&weekly, date, &["2026-12-27T23:00:00Z"]), "2027-01-15T00:00:00Z");
        assert_eq!(until(&weekly, date, &["2026-12-28T00:00:00Z"]), "2027-01-03T00:00:00Z");
        // The same number of another year is another week, and so is the month.
        assert_eq!(until(&weekly, date, &["2021-01-01T00:00:00Z"]), "2027-01-15T00:00:00Z");
        let monthly = Schedule { monthly_snapshot_retention_months: 1, weekly_snapshot_retention_weeks: 0, ..weekly };
        assert_eq!(until(&monthly, date, &["2026-01-01T00:00:00Z"]), "2027-02-01T00:00:00Z");
    }

    #[test]
    fn what_is_kept_begins_with_the_window_or_the_oldest_checkpoint() {
        let schedule = Schedule { point_in_time_window_hours: 24, ..Schedule::default() };
        let now = at("2026-11-26T13:00:00Z");
        let window = ClusterTime::at(at("2026-11-25T13:00:00Z"));
        assert_eq!(keep_from(&schedule, None, now), window);
        assert_eq!(keep_from(&schedule, Some(window.before()), now), window.before());
        assert_eq!(keep_from(&schedule, Some(window.after()), now), window);
    }

    fn time(second: u32) -> ClusterTime {
        ClusterTime::new(second, 1)
    }

    /// A completed one as of a second, that may go from then on.
    fn snapshot(second: u32) -> Snapshot {
        let date = time(second).date();
        Snapshot {
            state: State::Completed,
            cut: Some(time(second)),
            ended: Some(date),
            expires: Some(date),
            // Ids are of this host's clock, which may have been put back.
            ..Snapshot::queued(SnapshotId::new(Timestamp::UNIX_EPOCH, 100 - u64::from(second)), cluster(), date)
        }
    }

    fn cluster() -> ClusterId {
        ClusterId::new(Timestamp::UNIX_EPOCH, 1)
    }

    fn gone(snapshots: &[Snapshot], keep_from: u32, now: u32) -> Vec<u32> {
        let gone = may_go(snapshots, time(keep_from), time(now).date());
        let second = |id| snapshots.iter().find(|one| one.id == id).unwrap().cut.unwrap().seconds;
        let mut seconds: Vec<_> = gone.into_iter().map(second).collect();
        seconds.sort_unstable();
        seconds
    }

    #[test]
    fn the_newest_and_the_one_that_the_oldest_time_needs_stay() {
        let all = [30, 10, 20, 40].map(snapshot);
        assert_eq!(gone(&all, 25, 100), [10, 30]);
        assert_eq!(gone(&all, 20, 100), [10, 30]);
        assert_eq!(gone(&all, 19, 100), [20, 30]);
        assert_eq!(gone(&all, 90, 100), [10, 20, 30], "the newest is both");
        assert_eq!(gone(&all, 5, 100), [20, 30], "what can be restored begins with the first");
        assert_eq!(gone(&all[..1], 5, 100), [0; 0]);
        assert_eq!(gone(&[], 5, 100), [0; 0]);
        let need = |n: usize, from| need(&all, all[n].id, time(from));
        assert_eq!([0, 1, 2, 3].map(|n| need(n, 25)), [None, None, Some(Need::Oldest), Some(Need::Newest)]);
        assert_eq!(need(3, 90), Some(Need::Oldest));
    }

    #[test]
    fn one_goes_when_its_time_is_over_unless_somebody_said_that_it_stays() {
        let mut all = [10, 20, 30, 40].map(snapshot);
        assert_eq!(gone(&all, 90, 9), [0; 0]);
        assert_eq!(gone(&all, 90, 10), [10]);
        assert_eq!(gone(&all, 90, 29), [10, 20]);
        all[0].do_not_delete = true;
        all[1].expires = None;
        assert_eq!(gone(&all, 90, 100), [30]);
    }

    #[test]
    fn one_that_is_not_complete_neither_goes_nor_stands_for_another() {
        let mut all = [10, 20, 30].map(snapshot);
        (all[2].state, all[2].ended) = (State::Folding, None);
        assert_eq!(gone(&all, 25, 100), [10]);
        all[1].state = State::Failed;
        assert_eq!(gone(&all, 25, 100), [0; 0]);
        assert_eq!(need(&all, all[1].id, time(25)), None);
    }
}
