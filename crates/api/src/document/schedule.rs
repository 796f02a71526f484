//! The schedule of a cluster.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use stillpoint_core::schedule::Schedule;
use stillpoint_core::{ClusterId, ProjectId};

use super::{Id, Link, Place};

/// What is taken of a cluster, how often, and how long it is kept.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SnapshotSchedule")]
pub struct ScheduleDocument<'a> {
    /// Minutes from the end of one checkpoint to the next. 0 if the server takes none by itself, and
    /// rounded up if its configuration has a shorter time, as long as it has not been set here.
    cluster_checkpoint_interval_min: u32,
    #[schemars(with = "Id")]
    cluster_id: ClusterId,
    /// Days; 0 keeps no daily snapshots.
    daily_snapshot_retention_days: u32,
    #[schemars(with = "Id")]
    group_id: ProjectId,
    links: Vec<Link<'a>>,
    /// Months; 0 keeps no monthly snapshots.
    monthly_snapshot_retention_months: u32,
    /// How far back in hours any second can be restored to.
    point_in_time_window_hours: u32,
    /// Hours from one snapshot to the next.
    snapshot_interval_hours: u32,
    /// Days that each snapshot is kept.
    snapshot_retention_days: u32,
    /// Weeks; 0 keeps no weekly snapshots.
    weekly_snapshot_retention_weeks: u32,
}

impl<'a> ScheduleDocument<'a> {
    /// `configured` is the interval of the server's configuration.
    pub fn new(place: &'a Place, schedule: &Schedule, configured: Option<Duration>) -> ScheduleDocument<'a> {
        ScheduleDocument {
            cluster_checkpoint_interval_min: interval_min(schedule, configured),
            cluster_id: place.cluster,
            daily_snapshot_retention_days: schedule.daily_snapshot_retention_days,
            group_id: place.project,
            links: vec![
                Link::below(&place.cluster_url, "snapshotSchedule", "self"),
                Link::new(&place.cluster_url, "http://mms.mongodb.com/cluster"),
                Link::new(&place.group_url, "http://mms.mongodb.com/group"),
            ],
            monthly_snapshot_retention_months: schedule.monthly_snapshot_retention_months,
            point_in_time_window_hours: schedule.point_in_time_window_hours,
            snapshot_interval_hours: schedule.snapshot_interval_hours,
            snapshot_retention_days: schedule.snapshot_retention_days,
            weekly_snapshot_retention_weeks: schedule.weekly_snapshot_retention_weeks,
        }
    }
}

/// The interval as clients see it.
pub fn interval_min(schedule: &Schedule, configured: Option<Duration>) -> u32 {
    let seconds = schedule.interval(configured).map_or(0, |interval| interval.as_secs());
    u32::try_from(seconds.div_ceil(60)).unwrap_or(u32::MAX)
}
