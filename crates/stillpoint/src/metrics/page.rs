//! The series, and how they are written: a text that is good both as Prometheus' own format (0.0.4) and as
//! OpenMetrics.

use std::fmt;

use bytes::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use stillpoint_core::stream::GapCause;

use super::figures::{OfCluster, OfPart};

type Labels = Vec<(&'static str, String)>;

/// One value of each part.
struct PartSeries {
    name: &'static str,
    help: &'static str,
    value: fn(&OfPart) -> Option<f64>,
}

/// One value of each cluster.
struct ClusterSeries {
    name: &'static str,
    help: &'static str,
    value: fn(&OfCluster) -> Option<f64>,
}

const OF_PARTS: [PartSeries; 11] = [
    PartSeries {
        name: "stillpoint_capture_lag_seconds",
        help: "Seconds of the part's oplog that a majority of its members has and that are not yet in the vault.",
        value: |part| part.capture.as_ref()?.lag_seconds().map(f64::from),
    },
    PartSeries {
        name: "stillpoint_capture_lag_bytes",
        help: "Bytes of the part's oplog that are not yet in the vault, estimated from its size and its window.",
        value: |part| part.capture.as_ref()?.behind_bytes.map(|bytes| bytes as f64),
    },
    PartSeries {
        name: "stillpoint_oplog_window_left_seconds",
        help: "Seconds that capture may stand still before the part's oplog overwrites entries that are not stored.",
        value: |part| part.capture.as_ref()?.window_left_seconds().map(f64::from),
    },
    PartSeries {
        name: "stillpoint_capture_stored_timestamp_seconds",
        help: "Cluster time of the part's newest entry in the vault, in seconds since the Unix epoch.",
        value: |part| part.stored_until.map(|time| f64::from(time.seconds)),
    },
    PartSeries {
        name: "stillpoint_capture_trouble",
        help: "1 while something is in the way of the part's capture, else 0; stillpoint status says what it is.",
        value: |part| Some(flag(part.capture.as_ref()?.trouble.is_some())),
    },
    PartSeries {
        name: "stillpoint_capture_halted",
        help: "1 if the part's capture has ended until somebody does something, else 0.",
        value: |part| Some(flag(part.capture.as_ref()?.halted)),
    },
    PartSeries {
        name: "stillpoint_capture_trouble_since_timestamp_seconds",
        help: "Since when something is in the way of the part's capture, in seconds since the Unix epoch.",
        value: |part| part.capture.as_ref()?.trouble.as_ref().map(|(since, _)| since.as_second() as f64),
    },
    PartSeries {
        name: "stillpoint_stored_bytes",
        help: "Bytes of the part's segments in the vault, as they are stored.",
        value: |part| part.totals.map(|totals| totals.stored as f64),
    },
    PartSeries {
        name: "stillpoint_stored_oplog_bytes",
        help: "Bytes of the oplog entries in the part's segments, as MongoDB wrote them.",
        value: |part| part.totals.map(|totals| totals.bytes as f64),
    },
    PartSeries {
        name: "stillpoint_stored_segments",
        help: "Number of the part's segments in the vault.",
        value: |part| part.totals.map(|totals| totals.segments as f64),
    },
    PartSeries {
        name: "stillpoint_stored_entries",
        help: "Number of oplog entries in the part's segments.",
        value: |part| part.totals.map(|totals| totals.entries as f64),
    },
];

const OF_CLUSTERS: [ClusterSeries; 11] = [
    ClusterSeries {
        name: "stillpoint_checkpoint_last_completed_timestamp_seconds",
        help: "When the last checkpoint completed, in seconds since the Unix epoch.",
        value: |cluster| cluster.last_completed.map(|time| time.as_second() as f64),
    },
    ClusterSeries {
        name: "stillpoint_checkpoint_age_seconds",
        help: "Seconds since the last checkpoint completed, or since the cluster was added if none has.",
        value: |cluster| Some(cluster.age),
    },
    ClusterSeries {
        name: "stillpoint_checkpoint_last_failed",
        help: "1 if the last checkpoint that ended failed, else 0.",
        value: |cluster| Some(flag(cluster.last_failed)),
    },
    ClusterSeries {
        name: "stillpoint_balancer_held_seconds",
        help: "Seconds for which a checkpoint has held the balancer until now, 0 while none does.",
        value: |cluster| Some(cluster.balancer_held),
    },
    ClusterSeries {
        name: "stillpoint_checkpoint_discovery_seconds",
        help: "Seconds from the balancer's return until all tokens of the last completed checkpoint were stored.",
        value: |cluster| cluster.discovery,
    },
    ClusterSeries {
        name: "stillpoint_drill_last_failed",
        help: "1 if the last drill that could tell failed, else 0.",
        value: |cluster| cluster.drills.last_failed.map(flag),
    },
    ClusterSeries {
        name: "stillpoint_drill_overdue",
        help: "1 if no drill has passed for twice the interval that is scheduled, else 0.",
        value: |cluster| cluster.drills.overdue.map(flag),
    },
    ClusterSeries {
        name: "stillpoint_drill_last_passed_timestamp_seconds",
        help: "When the last drill passed, in seconds since the Unix epoch.",
        value: |cluster| cluster.drills.last_passed.map(|time| time.as_second() as f64),
    },
    ClusterSeries {
        name: "stillpoint_drill_rto_seconds",
        help: "Seconds from the begin of the last drill that passed until its checkpoint was restored and compared.",
        value: |cluster| cluster.drills.recovery,
    },
    ClusterSeries {
        name: "stillpoint_drill_rpo_seconds",
        help: "Seconds of writes that would have been lost when the last drill that passed began, by the stored oplogs.",
        value: |cluster| cluster.drills.loss.map(|(stream, _)| stream),
    },
    ClusterSeries {
        name: "stillpoint_drill_checkpoint_rpo_seconds",
        help: "The same with the newest checkpoint alone.",
        value: |cluster| cluster.drills.loss.map(|(_, checkpoint)| checkpoint),
    },
];

const OF_SNAPSHOTS: [ClusterSeries; 6] = [
    ClusterSeries {
        name: "stillpoint_snapshot_newest_timestamp_seconds",
        help: "What the newest complete snapshot that is not damaged is as of, in seconds since the Unix epoch.",
        value: |cluster| cluster.snapshots.newest.map(|time| time.as_second() as f64),
    },
    ClusterSeries {
        name: "stillpoint_snapshot_age_seconds",
        help: "Seconds since what the newest complete snapshot that is not damaged is as of, or since the cluster was \
               added if there is none.",
        value: |cluster| Some(cluster.snapshots.age),
    },
    ClusterSeries {
        name: "stillpoint_snapshot_running",
        help: "1 while a snapshot is taken or waits to be, else 0.",
        value: |cluster| Some(flag(cluster.snapshots.is_running)),
    },
    ClusterSeries {
        name: "stillpoint_snapshot_last_failed",
        help: "1 if the last snapshot that ended failed, else 0.",
        value: |cluster| Some(flag(cluster.snapshots.last_failed)),
    },
    ClusterSeries {
        name: "stillpoint_snapshot_failed_timestamp_seconds",
        help: "When a snapshot last failed, in seconds since the Unix epoch.",
        value: |cluster| cluster.snapshots.failed.map(|time| time.as_second() as f64),
    },
    ClusterSeries {
        name: "stillpoint_snapshots_damaged",
        help: "Number of snapshots of which something is missing or damaged in the vault.",
        value: |cluster| Some(cluster.snapshots.damaged as f64),
    },
];

const OF_RESTORES: [ClusterSeries; 3] = [
    ClusterSeries {
        name: "stillpoint_restore_running",
        help: "1 while a restore from the cluster is under way or waits to be, else 0.",
        value: |cluster| Some(flag(cluster.restores.is_running)),
    },
    ClusterSeries {
        name: "stillpoint_restore_last_broken",
        help: "1 if the last restore from the cluster that ended could not be done, 0 if it is finished or was ended.",
        value: |cluster| cluster.restores.last.map(|(_, broken)| flag(broken)),
    },
    ClusterSeries {
        name: "stillpoint_restore_last_ended_timestamp_seconds",
        help: "When the last restore from the cluster ended, in seconds since the Unix epoch.",
        value: |cluster| cluster.restores.last.map(|(ended, _)| ended.as_second() as f64),
    },
];

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// The page; `None` if it cannot be written, which is a defect.
pub fn render(clusters: Vec<OfCluster>) -> Option<Bytes> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures(clusters)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).ok()?;
    Some(text.into())
}

#[derive(Debug)]
struct Figures(Vec<OfCluster>);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let version = (vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0);
        family(&mut encoder, "stillpoint_build_info", "1, with the version of stillpoint.", [version])?;

        let of_parts = || self.0.iter().flat_map(|cluster| cluster.parts.iter().map(move |part| (cluster, part)));
        for series in &OF_PARTS {
            let values =
                of_parts().filter_map(|(cluster, part)| Some((part_labels(cluster, part), (series.value)(part)?)));
            family(&mut encoder, series.name, series.help, values)?;
        }
        let gaps = of_parts().filter(|(_, part)| part.totals.is_some()).flat_map(|(cluster, part)| {
            GapCause::ALL.into_iter().zip(part.gaps).map(move |(cause, count)| {
                let mut labels = part_labels(cluster, part);
                labels.push(("cause", cause.name().to_owned()));
                (labels, count as f64)
            })
        });
        family(&mut encoder, "stillpoint_gaps", "Number of gaps in the part's stored oplog, by their cause.", gaps)?;

        for series in OF_CLUSTERS.iter().chain(&OF_SNAPSHOTS).chain(&OF_RESTORES) {
            let values = self.0.iter().filter_map(|cluster| Some((cluster_labels(cluster), (series.value)(cluster)?)));
            family(&mut encoder, series.name, series.help, values)?;
        }
        Ok(())
    }
}

fn cluster_labels(cluster: &OfCluster) -> Labels {
    vec![("project", escaped(&cluster.project)), ("cluster", escaped(&cluster.cluster))]
}

fn part_labels(cluster: &OfCluster, part: &OfPart) -> Labels {
    let mut labels = cluster_labels(cluster);
    labels.push(("part", part.part.key()));
    labels
}

/// The encoder writes a label's value as it is.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A gauge with all its values; nothing at all if there are none.
fn family(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels, f64)>,
) -> fmt::Result {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
