//! What is to be taken of a cluster and how long it is kept; and when its next checkpoint and its next
//! snapshot are due.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::snapshot::{Snapshot, State};

/// The intervals that the API offers, in minutes.
pub const INTERVALS_MIN: [u32; 3] = [15, 30, 60];

/// From a snapshot that failed to the next.
const AFTER_FAILURE: Duration = Duration::from_secs(900);

/// The schedule of one cluster: the API's `snapshotSchedule`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// As the server's configuration has it, if nobody has set it for this cluster.
    pub cluster_checkpoint_interval_min: Option<u32>,
    pub snapshot_interval_hours: u32,
    pub snapshot_retention_days: u32,
    pub daily_snapshot_retention_days: u32,
    pub weekly_snapshot_retention_weeks: u32,
    pub monthly_snapshot_retention_months: u32,
    pub point_in_time_window_hours: u32,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule {
            cluster_checkpoint_interval_min: None,
            snapshot_interval_hours: 6,
            snapshot_retention_days: 2,
            daily_snapshot_retention_days: 7,
            weekly_snapshot_retention_weeks: 4,
            monthly_snapshot_retention_months: 13,
            point_in_time_window_hours: 24,
        }
    }
}

/// One field of a [`Schedule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    ClusterCheckpointIntervalMin,
    SnapshotIntervalHours,
    SnapshotRetentionDays,
    DailySnapshotRetentionDays,
    WeeklySnapshotRetentionWeeks,
    MonthlySnapshotRetentionMonths,
    PointInTimeWindowHours,
}

impl Setting {
    pub const ALL: [Setting; 7] = [
        Setting::ClusterCheckpointIntervalMin,
        Setting::DailySnapshotRetentionDays,
        Setting::MonthlySnapshotRetentionMonths,
        Setting::PointInTimeWindowHours,
        Setting::SnapshotIntervalHours,
        Setting::SnapshotRetentionDays,
        Setting::WeeklySnapshotRetentionWeeks,
    ];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Setting::ClusterCheckpointIntervalMin => "clusterCheckpointIntervalMin",
            Setting::SnapshotIntervalHours => "snapshotIntervalHours",
            Setting::SnapshotRetentionDays => "snapshotRetentionDays",
            Setting::DailySnapshotRetentionDays => "dailySnapshotRetentionDays",
            Setting::WeeklySnapshotRetentionWeeks => "weeklySnapshotRetentionWeeks",
            Setting::MonthlySnapshotRetentionMonths => "monthlySnapshotRetentionMonths",
            Setting::PointInTimeWindowHours => "pointInTimeWindowHours",
        }
    }

    /// The values that it may have. The published API has all but the last, which has no limit there;
    /// a year and a day is this product's.
    pub fn allowed(self) -> &'static [RangeInclusive<u32>] {
        match self {
            Setting::ClusterCheckpointIntervalMin => &[15..=15, 30..=30, 60..=60],
            Setting::SnapshotIntervalHours => &[6..=6, 8..=8, 12..=12, 24..=24],
            Setting::SnapshotRetentionDays => &[2..=5],
            Setting::DailySnapshotRetentionDays => {
                &[0..=0, 3..=7, 15..=15, 30..=30, 60..=60, 90..=90, 120..=120, 180..=180, 360..=360]
            }
            Setting::WeeklySnapshotRetentionWeeks => &[0..=8, 12..=12, 16..=16, 20..=20, 24..=24, 52..=52],
            Setting::MonthlySnapshotRetentionMonths => &[0..=13, 18..=18, 24..=24, 36..=36],
            Setting::PointInTimeWindowHours => &[1..=8784],
        }
    }

    pub fn allows(self, value: u32) -> bool {
        self.allowed().iter().any(|range| range.contains(&value))
    }
}

impl Schedule {
    pub fn set(&mut self, setting: Setting, value: u32) {
        match setting {
            Setting::ClusterCheckpointIntervalMin => self.cluster_checkpoint_interval_min = Some(value),
            Setting::SnapshotIntervalHours => self.snapshot_interval_hours = value,
            Setting::SnapshotRetentionDays => self.snapshot_retention_days = value,
            Setting::DailySnapshotRetentionDays => self.daily_snapshot_retention_days = value,
            Setting::WeeklySnapshotRetentionWeeks => self.weekly_snapshot_retention_weeks = value,
            Setting::MonthlySnapshotRetentionMonths => self.monthly_snapshot_retention_months = value,
            Setting::PointInTimeWindowHours => self.point_in_time_window_hours = value,
        }
    }

    /// The time from the end of one checkpoint to the next; `configured` is the server's.
    pub fn interval(&self, configured: Option<Duration>) -> Option<Duration> {
        match self.cluster_checkpoint_interval_min {
            Some(minutes) => Some(Duration::from_secs(u64::from(minutes) * 60)),
            None => configured,
        }
    }
}

/// When the next snapshot is due, `recent` being the last ones, the newest first: at once if there is none. Each
/// that fails may have read the whole cluster, so that the next is tried after [`AFTER_FAILURE`], and after four
/// times as long with each further one, but no later than regularly.
pub fn next_snapshot_due(schedule: &Schedule, recent: &[Snapshot], now: Timestamp) -> Timestamp {
    let Some(ended) = recent.first().and_then(|last| last.ended) else { return now };
    let interval = Duration::from_secs(u64::from(schedule.snapshot_interval_hours) * 3_600);
    let failures = recent.iter().take_while(|snapshot| snapshot.state == State::Failed).count() as u32;
    let pause = match failures {
        0 => interval,
        _ => AFTER_FAILURE.saturating_mul(4_u32.saturating_pow(failures - 1)).min(interval),
    };
    next_due(ended, pause, now)
}

/// The next checkpoint is due one interval after the *end* of the last, so that a slow one is never
/// followed at once by another. Before the first one `since` is when the cluster was added.
pub fn next_due(since: Timestamp, interval: Duration, now: Timestamp) -> Timestamp {
    // A clock that was set back must not put the next checkpoint off for ever.
    since.min(now).checked_add(interval).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClusterId, SnapshotId};

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
    fn what_was_set_for_the_cluster_goes_before_what_is_configured() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.interval(None), None);
        assert_eq!(schedule.interval(Some(QUARTER)), Some(QUARTER));
        schedule.set(Setting::ClusterCheckpointIntervalMin, 30);
        assert_eq!(schedule.interval(None), Some(2 * QUARTER));
    }

    #[test]
    fn the_defaults_are_allowed_and_each_setting_is_a_field_of_its_name() {
        for setting in Setting::ALL {
            let mut schedule = Schedule::default();
            let written = serde_json::to_value(&schedule).unwrap();
            if let Some(default) = written[setting.name()].as_u64() {
                assert!(setting.allows(default as u32), "{}", setting.name());
            }
            let value = *setting.allowed().last().unwrap().end();
            schedule.set(setting, value);
            assert_eq!(serde_json::to_value(&schedule).unwrap()[setting.name()], value);
            assert!(!setting.allows(9_999));
        }
    }

    #[test]
    fn the_first_snapshot_is_due_at_once_and_the_next_one_interval_after_its_end() {
        let schedule = Schedule { snapshot_interval_hours: 8, ..Schedule::default() };
        let ended = |state, end| {
            let queued = Snapshot::queued(SnapshotId::new(at(end), 1), ClusterId::new(at(0), 1), at(end));
            Snapshot { state, ended: Some(at(end)), ..queued }
        };
        let good = |end| ended(State::Completed, end);
        assert_eq!(next_snapshot_due(&schedule, &[], at(1000)), at(1000));
        assert_eq!(next_snapshot_due(&schedule, &[good(500)], at(1000)), at(500 + 8 * 3_600));
        assert_eq!(next_snapshot_due(&schedule, &[good(999_999)], at(1000)), at(1000 + 8 * 3_600));

        let failed = |end| ended(State::Failed, end);
        assert_eq!(next_snapshot_due(&schedule, &[failed(500), good(400)], at(501)), at(500 + 900));
        let twice = [failed(9_000), failed(500), good(400), failed(300)];
        assert_eq!(next_snapshot_due(&schedule, &twice, at(9_001)), at(9_000 + 4 * 900));
        let often: Vec<_> = (0..5).map(|n| failed(9_000 - n)).collect();
        assert_eq!(next_snapshot_due(&schedule, &often, at(9_001)), at(9_000 + 8 * 3_600));
    }

    #[test]
    fn a_last_end_in_the_future_counts_as_now() {
        assert_eq!(next_due(at(999_999), QUARTER, at(1000)), at(1900));
    }
}
