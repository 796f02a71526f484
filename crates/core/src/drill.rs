//! The record of a drill, as the catalog keeps it: the newest checkpoint, restored into a throw-away cluster, or one
//! that is given for it, to find out whether that can be done, how long it takes, and how much would be lost. And
//! when the next is due.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::restore::{Amount, State as RestoreState};
use crate::{CheckpointId, ClusterId, ClusterTime, DrillId, RestoreId};

/// After one that did not pass: the first wait until it is tried again. Each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(15 * 60);
/// How long somebody is told of one that failed, and after which none is scheduled.
const UNSCHEDULED: SignedDuration = SignedDuration::from_hours(7 * 24);
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drill {
    pub id: DrillId,
    /// The cluster whose data it is.
    pub cluster: ClusterId,
    pub state: State,
    /// When it was asked for.
    pub requested: Timestamp,
    /// By the schedule, and not by somebody.
    #[serde(default)]
    pub scheduled: bool,
    pub stage: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// What was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointId>,
    /// T: the time as of which the data is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<ClusterTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// How long each step has taken.
    #[serde(default)]
    pub split: Split,
    /// What the cluster got.
    #[serde(default)]
    pub written: Amount,
    /// Why it did not pass, and what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Why the cluster that it was given could not be emptied again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
}

/// How far a drill has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Asked for; nobody has begun it.
    Queued,
    /// The throw-away cluster is started, or the given one made ready.
    Preparing,
    /// The restore into it is under way.
    Restoring,
    Passed,
    /// The checkpoint could not be restored.
    Failed,
    /// It was ended before it could tell: the server stopped, or somebody cancelled its restore.
    Interrupted,
}

/// Where a drill is done: what its throw-away cluster is started with, or a cluster that it is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// The server's program; the one on the PATH of whoever starts it if there is none here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mongod: Option<PathBuf>,
    /// Where its folder is made; among the temporary files if there is none here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// A file on the server's machine that holds the connection string of a cluster. It is read for each drill, so
    /// that a password can be changed there, and is not kept in the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_file: Option<PathBuf>,
}

/// What would have been lost if the cluster had been, when the drill began: seconds before it (RPO).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Restored to the newest checkpoint that could be.
    pub checkpoint_seconds: u64,
    /// Restored to the newest time that could be: up to where the stored oplogs of all parts reach.
    pub stream_seconds: u64,
}

/// Milliseconds of each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Split {
    /// The throw-away cluster was started, or the given one made ready.
    pub preparing: u64,
    /// Stored data and oplogs were followed to the time.
    pub checking: u64,
    pub loading: u64,
    pub verifying: u64,
    pub opening: u64,
}

/// When a cluster's drills are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    pub every: Every,
    pub stage: Stage,
    /// When it was set.
    pub since: Timestamp,
}

/// From the end of one drill that passed to the next, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Every(u64);

impl Every {
    const LEAST: u64 = 60;
    const MOST: u64 = 366 * 24 * 3_600;

    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Every, String> {
        let unit = text.char_indices().next_back().map_or(0, |(at, _)| at);
        let seconds = match &text[unit..] {
            "m" => 60,
            "h" => 3_600,
            "d" => 24 * 3_600,
            _ => return Err("write it as 7d, 12h or 30m".into()),
        };
        let number: u64 = text[..unit].parse().map_err(|_| "write it as 7d, 12h or 30m")?;
        match number.checked_mul(seconds) {
            Some(all) if (Every::LEAST..=Every::MOST).contains(&all) => Ok(Every(all)),
            _ => Err("it must be from 1m to 366d".into()),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            days if days.is_multiple_of(24 * 3_600) => write!(f, "{}d", days / (24 * 3_600)),
            hours if hours.is_multiple_of(3_600) => write!(f, "{}h", hours / 3_600),
            minutes => write!(f, "{}m", minutes / 60),
        }
    }
}

impl State {
    pub fn ended(self) -> bool {
        self >= State::Passed
    }

    pub fn name(self) -> &'static str {
        match self {
            State::Queued => "QUEUED",
            State::Preparing => "PREPARING",
            State::Restoring => "RESTORING",
            State::Passed => "PASSED",
            State::Failed => "FAILED",
            State::Interrupted => "INTERRUPTED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Split {
    /// What a restore was last seen at goes on for so long.
    pub fn add(&mut self, state: RestoreState, milliseconds: u64) {
        match state {
            RestoreState::Queued | RestoreState::Checking => self.checking += milliseconds,
            RestoreState::Loading => self.loading += milliseconds,
            RestoreState::Verifying => self.verifying += milliseconds,
            RestoreState::Opening => self.opening += milliseconds,
            RestoreState::Finished | RestoreState::Broken | RestoreState::Killed => {}
        }
    }

    pub fn total(&self) -> u64 {
        self.preparing + self.checking + self.loading + self.verifying + self.opening
    }
}

impl Loss {
    /// `streams` is where the stored oplogs of all parts reach, if the cluster can be restored to there.
    pub fn of(now: Timestamp, checkpoint: ClusterTime, streams: Option<ClusterTime>) -> Loss {
        // A clock that is behind the cluster's makes no negative times.
        let since = |time: ClusterTime| now.as_second().saturating_sub(i64::from(time.seconds)).max(0).unsigned_abs();
        let newest = streams.map_or(checkpoint, |streams| streams.max(checkpoint));
        Loss { checkpoint_seconds: since(checkpoint), stream_seconds: since(newest) }
    }
}

impl Drill {
    pub fn queued(id: DrillId, cluster: ClusterId, now: Timestamp, scheduled: bool, stage: Stage) -> Drill {
        Drill {
            id,
            cluster,
            state: State::Queued,
            requested: now,
            scheduled,
            stage,
            begun: None,
            ended: None,
            checkpoint: None,
            time: None,
            restore: None,
            loss: None,
            split: Split::default(),
            written: Amount::default(),
            failure: None,
            left: None,
        }
    }

    /// From its begin until the checkpoint was restored, compared and shown: milliseconds (RTO).
    pub fn recovery(&self) -> Option<u64> {
        (self.state == State::Passed).then(|| self.split.total())
    }

    /// Whether somebody is still to know what came of it, though none are scheduled.
    fn ended_lately(&self, now: Timestamp) -> bool {
        self.ended.is_some_and(|ended| now.duration_since(ended) < UNSCHEDULED)
    }

    /// A rule that it breaks: a record that does is never written.
    pub fn broken_rule(&self) -> Option<&'static str> {
        let told = matches!(self.state, State::Failed | State::Interrupted);
        let passed = self.state == State::Passed;
        let rules = [
            (self.ended.is_some() == self.state.ended(), "it has an end if and only if it has ended"),
            (self.failure.is_some() == told, "it has a failure if and only if it did not pass"),
            (!passed || self.begun.is_some(), "it passed and was never begun"),
            (!passed || self.loss.is_some(), "it passed and nobody knows what would have been lost"),
            (!passed || self.restore.is_some() && self.time.is_some(), "it passed and nothing was restored"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, rule)| rule)
    }
}

/// The newest that could tell, of drills that are newest first.
pub fn newest_told(drills: &[Drill]) -> Option<&Drill> {
    drills.iter().find(|drill| matches!(drill.state, State::Passed | State::Failed))
}

/// The newest that could tell, if it failed and somebody is to know: as long as drills are scheduled, and else for
/// [`UNSCHEDULED`] after it.
pub fn to_be_told<'a>(drills: &'a [Drill], schedule: Option<&Schedule>, now: Timestamp) -> Option<&'a Drill> {
    let failed = newest_told(drills).filter(|told| told.state == State::Failed)?;
    (schedule.is_some() || failed.ended_lately(now)).then_some(failed)
}

/// The newest that passed, of drills that are newest first.
pub fn newest_passed(drills: &[Drill]) -> Option<&Drill> {
    drills.iter().find(|drill| drill.state == State::Passed)
}

/// The newest that got into a cluster that it was given, if it could not empty it again and somebody is to know: as
/// long as drills are done there, and else for [`UNSCHEDULED`] after it.
pub fn left_full<'a>(drills: &'a [Drill], schedule: Option<&Schedule>, now: Timestamp) -> Option<&'a Drill> {
    let got_in = |drill: &&Drill| drill.state.ended() && drill.stage.to_file.is_some() && drill.restore.is_some();
    let newest = drills.iter().find(got_in).filter(|drill| drill.left.is_some())?;
    let used = schedule.is_some_and(|schedule| schedule.stage.to_file == newest.stage.to_file);
    (used || newest.ended_lately(now)).then_some(newest)
}

impl Schedule {
    /// When the next is due; `drills` are the cluster's that have ended, newest first. Whoever asks for one puts
    /// the next off as well. However many were missed, one makes up for them.
    pub fn next_due(&self, drills: &[Drill], now: Timestamp) -> Timestamp {
        let every = self.every.duration();
        // A clock that was set back must not put the next one off for ever.
        let after = |drill: &Drill, wait: Duration| {
            drill.ended.unwrap_or(now).min(now).checked_add(wait).unwrap_or(Timestamp::MAX)
        };
        let Some(newest) = drills.first() else { return self.since.min(now) };
        match drills.iter().take_while(|drill| drill.state != State::Passed).count() {
            0 => after(newest, every),
            failed => {
                let doubled = FIRST_WAIT.saturating_mul(1 << (failed - 1).min(16));
                // What was set anew after it failed is tried at once.
                match newest.ended.is_some_and(|ended| ended < self.since) {
                    true => self.since.min(now),
                    false => after(newest, doubled.min(LONGEST_WAIT).min(every)),
                }
            }
        }
    }

    /// Since when none has passed, if that is longer ago than twice the interval.
    pub fn overdue(&self, drills: &[Drill], now: Timestamp) -> Option<Timestamp> {
        let passed = newest_passed(drills).and_then(|drill| drill.ended);
        let since = passed.map_or(self.since, |passed| passed.max(self.since));
        let allowed = SignedDuration::try_from(self.every.duration() * 2).unwrap_or(SignedDuration::MAX);
        (now.duration_since(since) > allowed).then_some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3_600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000_000 + second).unwrap()
    }

    fn drill(state: State, ended: i64) -> Drill {
        let (id, cluster) = (DrillId::new(at(ended), 1), ClusterId::new(at(0), 1));
        let queued = Drill::queued(id, cluster, at(ended - 60), true, Stage::default());
        let time = ClusterTime::new(7, 1);
        let told = matches!(state, State::Failed | State::Interrupted);
        Drill {
            state,
            begun: Some(at(ended - 50)),
            ended: Some(at(ended)),
            time: Some(time),
            restore: Some(RestoreId::new(at(ended), 1)),
            loss: Some(Loss { checkpoint_seconds: 9, stream_seconds: 3 }),
            failure: told.then(|| "a blob is missing".into()),
            ..queued
        }
    }

    fn weekly() -> Schedule {
        Schedule { every: "7d".parse().unwrap(), stage: Stage::default(), since: at(0) }
    }

    #[test]
    fn an_interval_is_written_with_its_unit() {
        for (text, seconds) in [("7d", 7 * DAY), ("1m", 60), ("36h", 36 * 3_600), ("366d", 366 * DAY)] {
            let every: Every = text.parse().unwrap();
            assert_eq!(every.duration(), Duration::from_secs(seconds as u64), "{text}");
            assert_eq!(every.to_string(), text);
        }
        assert_eq!("48h".parse::<Every>().unwrap().to_string(), "2d");
        for text in [
            "",
            "d",
            "7",
            "0d",
            "367d",
            "-1d",
            "7 d",
            "7w",
            "1.5d",
            "99999999999999999999d",
            "18446744073709551615m",
            "7é",
        ] {
            assert!(text.parse::<Every>().is_err(), "{text}");
        }
    }

    #[test]
    fn one_that_failed_is_told_of_for_a_week_or_while_any_are_scheduled() {
        let failed = [drill(State::Interrupted, 2 * DAY), drill(State::Failed, DAY), drill(State::Passed, 0)];
        assert_eq!(to_be_told(&failed, None, at(DAY + 9)), Some(&failed[1]));
        assert_eq!(to_be_told(&failed, None, at(9 * DAY)), None, "somebody tried it once");
        assert_eq!(to_be_told(&failed, Some(&weekly()), at(99 * DAY)), Some(&failed[1]));
        let passed = [drill(State::Passed, 2 * DAY), drill(State::Failed, DAY)];
        assert_eq!(to_be_told(&passed, Some(&weekly()), at(3 * DAY)), None);
    }

    #[test]
    fn a_cluster_that_was_left_full_is_told_of_until_one_has_emptied_it() {
        let stage = Stage { to_file: Some("/srv/drills.uri".into()), ..Stage::default() };
        let given = |ended, left: Option<&str>| Drill {
            stage: stage.clone(),
            left: left.map(str::to_owned),
            ..drill(State::Passed, ended)
        };
        // One that did not get that far says nothing of it.
        let later = Drill { restore: None, ..given(2 * DAY, None) };
        let full = [later, given(DAY, Some("no answer")), given(0, None)];
        assert_eq!(left_full(&full, None, at(3 * DAY)), Some(&full[1]));
        assert_eq!(left_full(&full, None, at(9 * DAY)), None);
        let schedule = Schedule { stage: stage.clone(), ..weekly() };
        assert_eq!(left_full(&full, Some(&schedule), at(99 * DAY)), Some(&full[1]));
        assert_eq!(left_full(&full, Some(&weekly()), at(99 * DAY)), None, "that cluster is used no more");
        let emptied = [given(2 * DAY, None), full[1].clone()];
        assert_eq!(left_full(&emptied, Some(&schedule), at(3 * DAY)), None);
    }

    #[test]
    fn the_first_is_due_at_once_and_the_next_an_interval_after_one_that_passed() {
        let schedule = weekly();
        assert_eq!(schedule.next_due(&[], at(5)), at(0));
        let passed = [drill(State::Passed, 100), drill(State::Failed, 50)];
        assert_eq!(schedule.next_due(&passed, at(200)), at(100 + 7 * DAY));
        // However long the server was down, one makes up for all.
        let now = at(100 * DAY);
        assert!(schedule.next_due(&passed, now) < now);
        let after = [drill(State::Passed, 100 * DAY), passed[0].clone()];
        assert!(schedule.next_due(&after, now) > now);
        // A last end in the future counts as now.
        assert_eq!(schedule.next_due(&[drill(State::Passed, 99 * DAY)], at(5)), at(5 + 7 * DAY));
    }

    #[test]
    fn one_that_did_not_pass_is_tried_again_ever_more_rarely() {
        let schedule = weekly();
        let mut drills = vec![drill(State::Passed, 0)];
        let mut waits = Vec::new();
        for n in 1..=12 {
            let state = if n % 2 == 0 { State::Interrupted } else { State::Failed };
            drills.insert(0, drill(state, n * 100));
            waits.push(schedule.next_due(&drills, at(5_000)).duration_since(at(n * 100)).as_secs() / 60);
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 960, 1_440, 1_440, 1_440, 1_440, 1_440]);
        // Never more rarely than those that pass.
        let often = Schedule { every: "20m".parse().unwrap(), ..weekly() };
        assert_eq!(often.next_due(&drills, at(5_000)), at(1_200 + 20 * 60));
        // Nor is one waited for that was set anew meanwhile.
        let anew = Schedule { since: at(1_300), ..weekly() };
        assert_eq!(anew.next_due(&drills, at(5_000)), at(1_300));
        drills.truncate(1);
        let endless = vec![drills[0].clone(); 100];
        assert_eq!(schedule.next_due(&endless, at(5_000)), at(1_200 + DAY), "no doubling overflows");
    }

    #[test]
    fn it_is_overdue_when_none_has_passed_for_twice_the_interval() {
        let schedule = weekly();
        assert_eq!(schedule.overdue(&[], at(14 * DAY)), None);
        assert_eq!(schedule.overdue(&[], at(14 * DAY + 1)), Some(at(0)));
        let drills =
            [drill(State::Interrupted, 20 * DAY), drill(State::Failed, 19 * DAY), drill(State::Passed, 10 * DAY)];
        assert_eq!(schedule.overdue(&drills, at(24 * DAY)), None);
        assert_eq!(schedule.overdue(&drills, at(24 * DAY + 1)), Some(at(10 * DAY)));
        // What was due before there was a schedule does not count.
        let anew = Schedule { since: at(24 * DAY), ..weekly() };
        assert_eq!(anew.overdue(&drills, at(30 * DAY)), None);
    }

    #[test]
    fn what_would_be_lost_is_told_of_the_newest_checkpoint_and_of_the_streams() {
        let now = at(0);
        let time = |ago: i64| ClusterTime::new((now.as_second() - ago) as u32, 1);
        let loss = |checkpoint, streams| {
            let loss = Loss::of(now, checkpoint, streams);
            (loss.checkpoint_seconds, loss.stream_seconds)
        };
        assert_eq!(loss(time(3_000), Some(time(12))), (3_000, 12));
        assert_eq!(loss(time(3_000), None), (3_000, 3_000));
        assert_eq!(loss(time(10), Some(time(12))), (10, 10), "the streams reach the checkpoint in any case");
        assert_eq!(loss(time(-5), Some(time(-9))), (0, 0), "a clock that is behind");
    }

    #[test]
    fn a_record_that_contradicts_itself_breaks_a_rule() {
        let passed = drill(State::Passed, 9);
        for whole in [passed.clone(), drill(State::Failed, 9), drill(State::Interrupted, 9)] {
            assert_eq!(whole.broken_rule(), None);
        }
        assert_eq!(passed.recovery(), Some(0));
        assert_eq!(drill(State::Failed, 9).recovery(), None);
        let broken = [
            Drill { ended: None, ..passed.clone() },
            Drill { failure: Some("no".into()), ..passed.clone() },
            Drill { begun: None, ..passed.clone() },
            Drill { loss: None, ..passed.clone() },
            Drill { restore: None, ..passed.clone() },
            Drill { time: None, ..passed.clone() },
            Drill { failure: None, ..drill(State::Failed, 9) },
            Drill { state: State::Restoring, ..passed },
        ];
        for drill in broken {
            assert!(drill.broken_rule().is_some(), "{drill:?}");
        }
    }

    #[test]
    fn each_state_of_the_restore_counts_for_its_step() {
        let mut split = Split::default();
        for (n, state) in [RestoreState::Queued, RestoreState::Checking, RestoreState::Loading].into_iter().enumerate()
        {
            split.add(state, 10 + n as u64);
        }
        split.add(RestoreState::Verifying, 100);
        split.add(RestoreState::Opening, 1_000);
        split.add(RestoreState::Finished, 10_000);
        let expected = Split { preparing: 0, checking: 21, loading: 12, verifying: 100, opening: 1_000 };
        assert_eq!((split, split.total()), (expected, 1_133));
    }
}
