//! What every catalog must do, whatever it is kept in.
//!
//! An implementation's own test file says `mod conformance;` and
//! `conformance::conformance_suite!(fresh);`, where `fresh` is an async function that gives an empty
//! catalog and whatever must live as long as it.

mod audit;
mod checkpoints;
mod credentials;
mod drills;
mod leases;
mod records;
mod restores;
mod retention;
mod segments;
mod snapshots;
mod streams;

use jiff::Timestamp;
use stillpoint_catalog::{Catalog, Cluster, Credential, CredentialKind, DEFAULT_ORGANIZATION, Organization, Project};
use stillpoint_core::checkpoint::{
    Checkpoint, Failure, Found, Part, PartId, PutBack, Reason, Released, State, Token, Trouble,
};
use stillpoint_core::stream::{BlobId, Gap, Segment, Stream};
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime, CredentialId, OpTime, OrganizationId, ProjectId, Role};

pub use audit::*;
pub use checkpoints::*;
pub use credentials::*;
pub use drills::*;
pub use leases::*;
pub use records::*;
pub use restores::*;
pub use retention::*;
pub use segments::*;
pub use snapshots::*;
pub use streams::*;

/// A test of its own for each rule.
macro_rules! conformance_suite {
    ($fresh:path) => {
        $crate::conformance::conformance_suite!($fresh:
            projects_read_back_by_id_name_and_list,
            a_project_name_is_taken_once,
            an_organisation_is_there_from_the_beginning_and_names_are_taken_once,
            a_project_of_no_organisation_is_refused,
            credentials_read_back_with_everything_in_them,
            a_login_is_taken_once_for_its_kind,
            a_credential_of_no_organisation_or_project_is_refused,
            roles_are_given_changed_and_taken_within_the_organisation,
            rotating_and_deleting_end_what_was_before,
            a_token_is_its_accounts_until_it_is_revoked,
            tokens_are_bounded_and_those_that_ended_go,
            a_token_is_given_only_for_the_secret_that_counts_now,
            a_schedule_is_the_default_until_it_is_changed,
            the_audit_trail_is_newest_first_and_trimmed_by_age_and_number,
            the_version_stands_while_nothing_changes_that_is_replied,
            clusters_read_back_with_everything_in_them,
            a_cluster_name_is_taken_once_in_a_project,
            a_cluster_is_kept_once_whatever_its_name,
            a_cluster_of_no_project_is_refused,
            removing_a_cluster_takes_its_checkpoints_and_lease_along,
            removing_a_cluster_waits_for_its_checkpoint,
            a_lease_is_given_to_one_holder_at_a_time,
            a_lease_that_ran_out_goes_to_whoever_asks,
            a_renewed_lease_lasts_from_then_on,
            an_earlier_lease_can_neither_renew_nor_release,
            epochs_only_grow,
            a_lease_of_no_cluster_is_refused,
            leases_of_clusters_do_not_meet,
            one_checkpoint_is_unfinished_at_a_time,
            a_checkpoint_of_no_cluster_is_refused,
            a_checkpoint_reads_back_in_every_state,
            a_write_under_a_lease_that_another_took_is_fenced,
            a_write_under_a_lease_that_the_same_holder_took_again_is_fenced,
            a_checkpoint_never_goes_back_nor_breaks_a_rule,
            a_write_under_another_clusters_lease_is_fenced,
            a_deleted_checkpoint_does_not_come_back_by_a_late_write,
            lists_are_newest_first_and_in_pages,
            an_unfinished_checkpoint_is_not_deleted,
            only_a_queued_checkpoint_is_withdrawn,
            what_came_of_verifying_a_checkpoint_is_noted_once_it_has_ended,
            a_catalog_has_an_id_of_its_own,
            a_catalog_is_bound_to_the_first_vault,
            streams_read_back_by_part_with_the_gap_before_them,
            a_stream_ends_once_until_it_begins_anew,
            gaps_are_in_order_and_replaced_and_removed,
            of_reports_on_capture_the_last_of_each_part_counts,
            the_version_counts_streams_and_gaps_but_not_what_grows_all_the_time,
            segments_are_added_each_after_the_one_before_it,
            a_segment_that_does_not_follow_is_refused,
            a_segment_that_is_added_again_is_there_once,
            a_stream_that_begins_anew_keeps_what_is_there,
            segments_are_found_by_time_and_in_pages,
            a_token_is_found_in_every_part_that_has_it,
            a_stream_is_written_under_the_newest_lease_only,
            the_oldest_segments_are_dropped_and_their_blobs_doomed,
            the_newest_segment_is_never_dropped,
            so_many_segments_are_dropped_at_once,
            a_blob_that_nothing_names_is_told_apart,
            a_blob_lives_as_long_as_a_segment_has_it,
            removing_a_cluster_dooms_its_blobs_and_forgets_its_streams,
            a_doomed_blob_can_be_saved_until_it_is_condemned,
            the_oldest_cut_is_the_earliest_time_whatever_the_ids,
            the_last_segment_before_a_time_is_of_whatever_run,
            a_shard_that_is_back_gives_its_gap_an_end,
            a_checkpoint_expires_unless_it_is_the_newest_completed_one,
            what_is_unresolved_of_a_stream_follows_its_last_segment,
            one_snapshot_is_unfinished_at_a_time,
            a_snapshot_reads_back_in_every_state,
            snapshots_are_listed_newest_first_and_in_pages,
            a_snapshot_is_written_under_the_newest_lease_only,
            a_snapshot_never_goes_back_nor_breaks_a_rule,
            a_blob_lives_as_long_as_a_snapshot_has_it,
            a_blob_that_a_snapshot_notes_again_is_saved_unless_it_is_condemned,
            pieces_are_in_their_order_until_the_snapshot_ends,
            a_snapshot_that_is_in_use_is_not_deleted,
            how_long_a_snapshot_is_kept_changes_once_it_has_ended,
            damage_of_a_snapshot_is_noted_and_taken_back_once_it_has_ended,
            one_blob_is_saved_from_doom_by_its_name,
            removing_a_cluster_dooms_the_blobs_of_its_snapshots,
            the_version_counts_snapshots_but_not_their_pieces,
            one_restore_from_a_cluster_is_unfinished_at_a_time,
            one_restore_into_a_cluster_is_unfinished_at_a_time,
            a_restore_reads_back_in_every_state,
            restores_are_listed_newest_first_and_in_pages,
            a_restore_is_written_under_the_newest_lease_only,
            a_restore_never_goes_back_nor_breaks_a_rule,
            the_connection_string_of_a_target_is_kept_until_the_restore_ends,
            of_the_marks_of_a_collection_the_last_counts_until_the_restore_ends,
            a_restore_that_nobody_has_begun_is_killed_when_it_is_cancelled,
            a_restore_that_is_under_way_stays_cancelled_whatever_is_written,
            a_snapshot_stays_while_a_restore_may_go_on_from_it,
            removing_a_cluster_waits_for_restores_and_takes_those_from_it_along,
            ended_restores_are_forgotten_by_age_and_number,
            the_version_counts_restores,
            one_drill_of_a_cluster_is_unfinished_at_a_time,
            a_drill_is_written_under_the_newest_lease_never_goes_back_nor_breaks_a_rule,
            the_newest_drills_are_kept_and_the_restores_of_others_go_with_them,
            drills_are_scheduled_until_they_are_not_and_go_with_their_cluster,
            what_is_to_be_downloaded_is_found_by_its_job,
            a_file_goes_once_and_what_was_noted_first_stays,
            a_finished_download_is_cancelled_while_some_of_it_is_to_be_had,
            a_download_that_is_cancelled_just_before_its_end_has_no_links,
            a_link_follows_from_the_key_and_the_job,
        );
    };
    ($fresh:path: $($rule:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $rule() {
            let (catalog, _kept) = $fresh().await;
            $crate::conformance::$rule(&catalog).await;
        }
    )*};
}
pub(crate) use conformance_suite;

pub const NOON: i64 = 1_795_521_600;
pub const PASSWORD: &str = "correct-horse-battery-staple";
pub const HA1: &str = "939e7578ed9e3c518a452acee763bce9";

/// So many seconds after noon on 24 November 2026, UTC.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(NOON + second).unwrap()
}

/// The organisation that every catalog has.
pub async fn organization(catalog: &dyn Catalog) -> Organization {
    let all = catalog.organizations().await.unwrap();
    all.into_iter().find(|organization| organization.name == DEFAULT_ORGANIZATION).unwrap()
}

pub async fn project(catalog: &dyn Catalog, n: u64) -> Project {
    let organization = organization(catalog).await.id;
    Project { id: ProjectId::new(at(0), n), organization, name: format!("project-{n}"), created: at(n as i64) }
}

/// A project that is kept.
pub async fn with_project(catalog: &dyn Catalog, n: u64) -> Project {
    let project = project(catalog, n).await;
    catalog.create_project(&project).await.unwrap();
    project
}

pub fn key(project: &Project, public: &str, n: u64) -> Credential {
    Credential {
        id: CredentialId::new(at(n as i64), n),
        kind: CredentialKind::Key,
        organization: project.organization,
        login: public.into(),
        proof: HA1.into(),
        roles: [(project.id, Role::GroupOwner)].into(),
        access_list: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::7/128".parse().unwrap()],
        created: at(n as i64),
    }
}

pub fn cluster(project: &Project, name: &str, n: u64) -> Cluster {
    Cluster {
        id: ClusterId::new(at(0), n),
        project: project.id,
        name: name.into(),
        identity: format!("6b8cd6d580eef547110{n:05}"),
        uri: format!("mongodb://stillpoint:{PASSWORD}@cfg{n}.example:27019/?replicaSet=cfg").into(),
        created: at(n as i64),
    }
}

/// `second` decides where it stands among others.
pub fn queued(cluster: &Cluster, second: i64) -> Checkpoint {
    Checkpoint::queued(CheckpointId::new(at(second), second as u64), cluster.id, at(second))
}

pub fn started(cluster: &Cluster, second: i64) -> Checkpoint {
    Checkpoint { state: State::Started, ..queued(cluster, second) }
}

pub fn holding(cluster: &Cluster, second: i64) -> Checkpoint {
    let found = Found {
        running: true,
        settings: r#"{"balancer":{"_id":"balancer","mode":"full","activeWindow":{"start":"1:00","stop":"5:00"}}}"#
            .into(),
        seen: ClusterTime::new((NOON + second) as u32, 3),
        from: "192.0.2.1:40000".into(),
    };
    Checkpoint {
        state: State::Holding,
        parts: vec![part(PartId::Shard("rs0".into()), "rs0", None), part(PartId::ConfigServers, "cfg", None)],
        found: Some(found),
        held_since: Some(at(second)),
        trouble: Some(Trouble { since: at(second + 1), text: "the shard rs0 does not answer".into() }),
        ..queued(cluster, second)
    }
}

pub fn completed(cluster: &Cluster, second: i64) -> Checkpoint {
    let time = |increment| ClusterTime::new((NOON + second) as u32, increment);
    let token = |increment| Some(Token { attempt: 1, time: time(increment), discovered: true, discovered_at: None });
    Checkpoint {
        state: State::Completed,
        parts: vec![part(PartId::Shard("rs0".into()), "rs0", token(7)), part(PartId::ConfigServers, "cfg", token(9))],
        clock: Some(time(5)),
        cut: Some(time(7)),
        released: Some(Released { at: at(second + 2), how: PutBack::AsFound }),
        ended: Some(at(second + 3)),
        trouble: None,
        ..holding(cluster, second)
    }
}

pub fn failed(cluster: &Cluster, second: i64) -> Checkpoint {
    let failure = Failure { reason: Reason::Unreachable, detail: "shard rs0 cannot be reached".into() };
    Checkpoint { state: State::Failed, ended: Some(at(second + 1)), failure: Some(failure), ..queued(cluster, second) }
}

fn part(id: PartId, replica_set: &str, token: Option<Token>) -> Part {
    Part { id, replica_set: replica_set.into(), term: None, token }
}

/// A project with one cluster.
pub async fn with_cluster(catalog: &dyn Catalog) -> (Project, Cluster) {
    let project = with_project(catalog, 1).await;
    let cluster = cluster(&project, "Cluster0", 1);
    catalog.add_cluster(&cluster).await.unwrap();
    (project, cluster)
}
