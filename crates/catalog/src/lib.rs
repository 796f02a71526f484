//! The catalog: where stillpoint's records are.
//!
//! One trait, [`Catalog`], that says nothing of how it is kept; [`sqlite`] is the embedded one. It
//! decides what may be written together and who may write: names are unique, a cluster has at most
//! one unfinished checkpoint, snapshot, drill and restore each, and at most one restore into it,
//! the segments of a stream follow each other, a blob lives as long as a record has it, and checkpoints,
//! snapshots, restores, drills and streams are only written under a [`Lease`] that still holds.
//! It never talks to a cluster and knows nothing of HTTP.
//!
//! Secrets (the URI of a cluster or of a restore's target, a key's HA1, the hash of a service account's secret) are
//! sealed before they reach the store and opened on the way out, see [`seal`]. The links of downloads are not kept:
//! they follow from the key file.
//!
//! # Layout
//! - `holdings`: what is stored of a cluster, for the question what can be restored
//! - [`records`]: what is kept
//! - [`seal`]: encryption of secrets with the key file
//! - [`sqlite`]: the embedded catalog
//! - `tests/conformance`: the suite that every implementation runs

mod holdings;
pub mod records;
pub mod seal;
pub mod sqlite;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::Timestamp;
use secrecy::SecretString;
use std::time::Duration;
use stillpoint_core::checkpoint::{Checkpoint, PartId};
use stillpoint_core::drill::{self, Drill};
use stillpoint_core::restore::{Gone, Mark, Restore};
use stillpoint_core::schedule::{Schedule, Setting};
use stillpoint_core::snapshot::Snapshot;
use stillpoint_core::stream::{CaptureReport, Gap, Segment, StoredToken, Stream};
use stillpoint_core::verification::Verification;
use stillpoint_core::{
    CatalogId, CheckpointId, ClusterId, ClusterTime, CredentialId, DrillId, OpTime, ProjectId, RestoreId, Role,
    SnapshotId, VaultId,
};

pub use holdings::Holdings;
pub use records::{
    AccessToken, AuditEntry, Cluster, Credential, CredentialKind, Lease, LeaseState, Organization, Page, Project,
    SegmentTotals,
};

/// The organisation that every catalog has from the beginning.
pub const DEFAULT_ORGANIZATION: &str = "default";
/// Access tokens of one service account at once; with more, the one that ends first is given up.
pub const TOKENS_PER_ACCOUNT: usize = 1_000;
/// Segments that [`Catalog::drop_segments`] forgets at once; when it was so many, there may be more.
pub const DROPPED_AT_ONCE: u64 = 1_000;
/// Drills that are kept of a cluster: the newest.
pub const DRILLS_KEPT: u64 = 100;

/// What went wrong in the catalog, by what the caller should do about it.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("{} {kind} named {name:?} exists already: choose another name", article(kind))]
    Duplicate { kind: &'static str, name: String },
    #[error("the project belongs to another organisation: a key or a service account has roles in its own only")]
    AnotherOrganization,
    #[error("it is its last role: delete the key or service account instead")]
    LastRole,
    #[error("this cluster is kept already, as {0:?}: one is enough, two would stop each other's balancer")]
    SameCluster(String),
    #[error("the key file {key} is missing, and the catalog {catalog} was sealed with it: put it back from its backup")]
    KeyFileMissing { key: String, catalog: String },
    #[error(
        "checkpoint {0} of this cluster is not yet finished: wait for it, or see what holds it with `stillpoint status`"
    )]
    CheckpointUnderWay(CheckpointId),
    #[error(
        "snapshot {0} of this cluster is not yet finished: wait for it, or see what holds it with `stillpoint status`"
    )]
    SnapshotUnderWay(SnapshotId),
    #[error("restore {0}, from the same cluster or into the same one, is not yet finished: wait for it, or cancel it")]
    RestoreUnderWay(RestoreId),
    #[error("drill {0} of this cluster is not yet finished: wait for it, or cancel its restore")]
    DrillUnderWay(DrillId),
    #[error("another holder has the lease of this cluster")]
    Fenced,
    #[error("checkpoint {0} has gone further than what was to be written")]
    Outdated(CheckpointId),
    #[error("snapshot {0} has gone further than what was to be written")]
    SnapshotOutdated(SnapshotId),
    #[error("restore {0} has gone further than what was to be written")]
    RestoreOutdated(RestoreId),
    #[error("drill {0} has gone further than what was to be written")]
    DrillOutdated(DrillId),
    #[error("restore {0} has ended: there is nothing to be cancelled any more")]
    RestoreEnded(RestoreId),
    #[error("a record that cannot be was to be written, a defect: {0}")]
    BrokenRule(&'static str),
    #[error("a segment that does not follow what is stored was to be added to it: {0}")]
    NotContiguous(String),
    #[error("the blobs at {0} are just being deleted from the vault: what is stored there waits until that is done")]
    BeingDeleted(String),
    #[error(
        "vault.url leads to vault {found}, and the segments of this catalog are in vault {bound}: set vault.url back \
         to where that one is; in another, none of them would be found"
    )]
    AnotherVault { bound: VaultId, found: VaultId },
    #[error("there is no {0} to be found; it may have been removed meanwhile")]
    Gone(&'static str),
    #[error(
        "{0} is in use by a checkpoint, a snapshot, a restore or a drill that is not yet finished: wait for it; `stillpoint status` says how far it is"
    )]
    InUse(&'static str),
    #[error("another `stillpoint serve` has this catalog open ({0}): stop it first")]
    AnotherServer(String),
    #[error(
        "the catalog {path} was written by a newer stillpoint (format {found}, this one knows {known}): use that version"
    )]
    Newer { path: String, found: i64, known: i64 },
    #[error("the catalog {path} cannot be opened: {why}")]
    Unreadable { path: String, why: String },
    #[error("a record in the catalog cannot be read ({what}): {why}")]
    Corrupt { what: String, why: String },
    #[error(transparent)]
    Seal(#[from] seal::SealError),
    #[error("the catalog did not answer: {0}")]
    Store(String),
}

fn article(word: &str) -> &'static str {
    if word.starts_with('o') { "an" } else { "a" }
}

pub type Result<T> = std::result::Result<T, CatalogError>;

/// The records of stillpoint. All times are given by the caller.
#[async_trait]
pub trait Catalog: Send + Sync + std::fmt::Debug {
    /// Makes this process a server of the catalog. An embedded catalog has at most one at a time, and
    /// ends the leases of those that died; the right lasts as long as the process.
    async fn begin_serving(&self) -> Result<()>;

    /// A number that changes whenever anything in the catalog does that replies are made of, whoever changes
    /// it (not leases, the audit trail, segments, doomed blobs, reports on capture): what was read after one
    /// value is still right while the value is the same. Another process's change may be noticed up to a
    /// millisecond late. `None` where it cannot be known.
    fn version(&self) -> Result<Option<u64>>;

    async fn create_organization(&self, organization: &Organization) -> Result<()>;
    /// By name; [`DEFAULT_ORGANIZATION`] is always among them.
    async fn organizations(&self) -> Result<Vec<Organization>>;

    async fn create_project(&self, project: &Project) -> Result<()>;
    async fn project(&self, id: ProjectId) -> Result<Option<Project>>;
    async fn project_named(&self, name: &str) -> Result<Option<Project>>;
    /// By name.
    async fn projects(&self) -> Result<Vec<Project>>;

    async fn create_credential(&self, credential: &Credential) -> Result<()>;
    async fn credential(&self, kind: CredentialKind, login: &str) -> Result<Option<Credential>>;
    /// Those that have a role in the project, by creation.
    async fn credentials(&self, kind: CredentialKind, project: ProjectId) -> Result<Vec<Credential>>;
    /// Gives it another secret and ends its tokens; whether it was there.
    async fn rotate_credential(&self, id: CredentialId, proof: &SecretString) -> Result<bool>;
    /// Gives it a role in a project, instead of the one it had there; `None` takes it away, unless it is its
    /// last: a credential that nobody finds any more could not be deleted either.
    async fn grant(&self, id: CredentialId, project: ProjectId, role: Option<Role>) -> Result<()>;
    /// Replaces the addresses that it may come from; whether it was there.
    async fn restrict_credential(&self, id: CredentialId, access_list: &[IpNet]) -> Result<bool>;
    /// Also ends its tokens; whether it was there.
    async fn delete_credential(&self, id: CredentialId) -> Result<bool>;

    /// Keeps a token until it ends; at most [`TOKENS_PER_ACCOUNT`] of an account. `Gone` unless the
    /// account still has the secret that the token was asked for with.
    async fn create_token(&self, token: &AccessToken, proof: &SecretString, now: Timestamp) -> Result<()>;
    /// Whose token it is, and until when.
    async fn token(&self, hash: &[u8; 32]) -> Result<Option<(Credential, Timestamp)>>;
    /// Ends a token, if it is this account's.
    async fn revoke_token(&self, account: CredentialId, hash: &[u8; 32]) -> Result<()>;

    async fn add_cluster(&self, cluster: &Cluster) -> Result<()>;
    async fn cluster(&self, id: ClusterId) -> Result<Option<Cluster>>;
    async fn cluster_named(&self, project: ProjectId, name: &str) -> Result<Option<Cluster>>;
    async fn count_clusters(&self, project: ProjectId) -> Result<u64>;
    /// By name; of one project, or all.
    async fn clusters(&self, project: Option<ProjectId>) -> Result<Vec<Cluster>>;
    /// Forgets a cluster and all that is kept of it, and notes its blobs as doomed at `now`;
    /// refused while one of its checkpoints or drills is unfinished, or a restore from it or into it. What came of
    /// restores into it stays with the clusters that they were from.
    async fn remove_cluster(&self, id: ClusterId, now: Timestamp) -> Result<()>;

    /// The default until it is set.
    async fn schedule(&self, cluster: ClusterId) -> Result<Schedule>;
    /// Changes a schedule as one step; gives what it became.
    async fn change_schedule(&self, cluster: ClusterId, changes: &[(Setting, u32)]) -> Result<Schedule>;

    /// Takes the lease of a cluster for `ttl` if nobody else's is still running. A lease that is
    /// taken has a higher epoch than every lease of that cluster before it.
    async fn claim_lease(
        &self,
        cluster: ClusterId,
        holder: &str,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Lease>>;
    /// Lengthens a lease; `Fenced` when it is no longer this holder's.
    async fn renew_lease(&self, lease: &Lease, now: Timestamp, ttl: Duration) -> Result<()>;
    /// Gives a lease up, if it is still this holder's.
    async fn release_lease(&self, lease: &Lease) -> Result<()>;
    async fn lease(&self, cluster: ClusterId) -> Result<Option<LeaseState>>;

    /// Queues a checkpoint; `CheckpointUnderWay` while another of the cluster is unfinished.
    async fn queue_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()>;
    /// Writes a checkpoint; `Fenced` when the lease is no longer this holder's, `Outdated` when the
    /// stored one has ended or is in a later state.
    async fn save_checkpoint(&self, lease: &Lease, checkpoint: &Checkpoint) -> Result<()>;
    async fn checkpoint(&self, cluster: ClusterId, id: CheckpointId) -> Result<Option<Checkpoint>>;
    /// Newest first.
    async fn checkpoints(&self, cluster: ClusterId, page: Page) -> Result<Vec<Checkpoint>>;
    async fn count_checkpoints(&self, cluster: ClusterId) -> Result<u64>;
    async fn unfinished_checkpoint(&self, cluster: ClusterId) -> Result<Option<Checkpoint>>;
    /// Notes what came of comparing a checkpoint that has ended with its cluster; what was noted before goes.
    async fn note_verification(&self, lease: &Lease, id: CheckpointId, verification: &Verification) -> Result<()>;
    /// Forgets a checkpoint; refused while it is unfinished.
    async fn delete_checkpoint(&self, cluster: ClusterId, id: CheckpointId) -> Result<()>;
    /// Forgets a queued checkpoint that no server has begun; whether it was still queued.
    async fn withdraw_checkpoint(&self, cluster: ClusterId, id: CheckpointId) -> Result<bool>;
    /// The earliest time that a checkpoint of the cluster restores to.
    async fn oldest_cut(&self, cluster: ClusterId) -> Result<Option<ClusterTime>>;
    /// The oldest checkpoints that ended before `before`, but never the newest completed one; oldest first.
    async fn expired_checkpoints(&self, cluster: ClusterId, before: Timestamp, most: u64) -> Result<Vec<CheckpointId>>;

    async fn append_audit(&self, entries: &[AuditEntry]) -> Result<()>;
    /// Newest first.
    async fn audit(&self, page: Page) -> Result<Vec<AuditEntry>>;
    /// Forgets what is older than `before`, and the oldest beyond `most` of those that were refused and of
    /// the others; how many that were.
    async fn trim_audit(&self, before: Timestamp, most: u64) -> Result<u64>;

    /// The catalog's own, made with it.
    async fn id(&self) -> Result<CatalogId>;
    /// Remembers the vault that the segments are in; `AnotherVault` once it is another.
    async fn bind_vault(&self, vault: VaultId) -> Result<()>;
    async fn vault(&self) -> Result<Option<VaultId>>;

    /// By the parts' keys.
    async fn streams(&self, cluster: ClusterId) -> Result<Vec<Stream>>;
    async fn stream(&self, cluster: ClusterId, part: &PartId) -> Result<Option<Stream>>;
    /// Begins a part's stream, for the first time or anew, and notes the gap before it. The segments that are
    /// there stay, and the next one has no predecessor. If the shard was away, the gap takes the place of the
    /// one without an end that was noted when it went.
    async fn begin_stream(&self, lease: &Lease, stream: &Stream, gap: Option<&Gap>) -> Result<()>;
    /// Notes when the stream ended; a stream that ended before keeps that time.
    async fn end_stream(&self, lease: &Lease, part: &PartId, at: Timestamp) -> Result<()>;

    /// By the parts' keys, then [`Gap::after`].
    async fn gaps(&self, cluster: ClusterId) -> Result<Vec<Gap>>;
    /// Replaces the gap of the part that has the same two times.
    async fn add_gap(&self, cluster: ClusterId, gap: &Gap) -> Result<()>;
    /// Forgets a gap, if it is there.
    async fn remove_gap(&self, cluster: ClusterId, part: &PartId, after: ClusterTime, until: ClusterTime)
    -> Result<()>;

    /// Replaces the part's report.
    async fn report_capture(&self, cluster: ClusterId, part: &PartId, report: &CaptureReport) -> Result<()>;
    /// By the parts' keys.
    async fn capture_reports(&self, cluster: ClusterId) -> Result<Vec<(PartId, CaptureReport)>>;

    /// To be called before a segment is stored, and again before that is tried again: its blob may be in the
    /// vault already, and be doomed. Then it is no longer. `BeingDeleted` while it is too late for that.
    async fn keep_blobs(&self, place: &str) -> Result<()>;
    /// The same for one blob, by its whole name.
    async fn keep_blob(&self, name: &str) -> Result<()>;
    /// Adds a segment and the tokens in it to its stream; its blob is doomed no longer. `NotContiguous` unless
    /// it follows the last one since the stream began, or is, in all, one that has been added since then;
    /// `BeingDeleted` as [`keep_blobs`](Catalog::keep_blobs) says.
    async fn append_segment(&self, lease: &Lease, segment: &Segment) -> Result<()>;
    /// The last since the stream began.
    async fn last_segment(&self, cluster: ClusterId, part: &PartId) -> Result<Option<Segment>>;
    /// At most `most` of those that reach into the time between `from` and `to`, both included, in order of
    /// their last entries. The next page is asked for from the last entry of this one, and begins with
    /// its segment again.
    async fn segments(
        &self,
        cluster: ClusterId,
        part: &PartId,
        from: ClusterTime,
        to: ClusterTime,
        most: u64,
    ) -> Result<Vec<Segment>>;
    /// Of those that end before a time the last.
    async fn segment_before(&self, cluster: ClusterId, part: &PartId, time: ClusterTime) -> Result<Option<Segment>>;
    /// Counters: as quick with many segments as with few.
    async fn segment_totals(&self, cluster: ClusterId, part: &PartId) -> Result<SegmentTotals>;
    /// The tokens of a checkpoint in stored segments, by the parts' keys, then time.
    async fn stored_tokens(&self, cluster: ClusterId, checkpoint: CheckpointId) -> Result<Vec<(PartId, StoredToken)>>;

    /// Queues a snapshot; `SnapshotUnderWay` while another of the cluster is unfinished.
    async fn queue_snapshot(&self, snapshot: &Snapshot) -> Result<()>;
    /// Writes a snapshot, and notes these blobs as its own, beside those that were noted before: they live as
    /// long as it. `Fenced` when the lease is no longer this holder's, `SnapshotOutdated` when the stored one
    /// has ended or is in a later state, `BeingDeleted` if it is too late for one of the blobs. When it ends,
    /// its pieces are forgotten.
    async fn save_snapshot(&self, lease: &Lease, snapshot: &Snapshot, blobs: &[String]) -> Result<()>;
    /// Changes how long one that has ended is kept; gives what it became.
    async fn keep_snapshot(
        &self,
        cluster: ClusterId,
        id: SnapshotId,
        expires: Option<Timestamp>,
        do_not_delete: bool,
    ) -> Result<Snapshot>;
    /// Notes what of one that has ended is missing or damaged, or that nothing is any more.
    async fn note_damage(&self, cluster: ClusterId, id: SnapshotId, damage: Option<&str>) -> Result<()>;
    async fn snapshot(&self, cluster: ClusterId, id: SnapshotId) -> Result<Option<Snapshot>>;
    /// Newest first.
    async fn snapshots(&self, cluster: ClusterId, page: Page) -> Result<Vec<Snapshot>>;
    async fn count_snapshots(&self, cluster: ClusterId) -> Result<u64>;
    async fn unfinished_snapshot(&self, cluster: ClusterId) -> Result<Option<Snapshot>>;
    /// Forgets a snapshot, and dooms the blobs that no other has; refused while it, or one that goes on from
    /// it, is unfinished, and while a restore of its cluster to its time or later is: that may go on from it.
    async fn delete_snapshot(&self, cluster: ClusterId, id: SnapshotId, now: Timestamp) -> Result<()>;
    /// Notes what was read of a part for an unfinished snapshot, in the reader's own words, and the blobs that
    /// it is in, as [`save_snapshot`](Catalog::save_snapshot) does; `SnapshotOutdated` when it has ended.
    async fn add_pieces(
        &self,
        lease: &Lease,
        id: SnapshotId,
        part: &PartId,
        pieces: &[String],
        blobs: &[String],
    ) -> Result<()>;
    /// In the order in which they were added.
    async fn pieces(&self, cluster: ClusterId, id: SnapshotId, part: &PartId) -> Result<Vec<String>>;

    /// Queues a restore, and keeps the connection string of its target, sealed, until it ends; there is one
    /// unless the target is a cluster of this catalog. `RestoreUnderWay` while another is unfinished that is
    /// from the same cluster, or into the same one of this catalog.
    async fn queue_restore(&self, restore: &Restore, uri: Option<&SecretString>) -> Result<()>;
    /// The connection string of an unfinished restore's target, if it was queued with one.
    async fn restore_uri(&self, cluster: ClusterId, id: RestoreId) -> Result<Option<SecretString>>;
    /// Writes a restore, and these marks, each in the place of the one of the same part and collection.
    /// `Fenced` when the lease of the cluster that it is from is no longer this holder's, `RestoreOutdated`
    /// when the stored one has ended or is in a later state. One that somebody has cancelled stays so, whatever
    /// is written. When it ends, its marks and the connection string of its target are forgotten.
    async fn save_restore(&self, lease: &Lease, restore: &Restore, marks: &[Mark]) -> Result<()>;
    /// Of an unfinished restore, by the parts' keys, then the collections.
    async fn restore_marks(&self, cluster: ClusterId, id: RestoreId) -> Result<Vec<Mark>>;
    async fn restore(&self, cluster: ClusterId, id: RestoreId) -> Result<Option<Restore>>;
    /// Those from a cluster, newest first.
    async fn restores(&self, cluster: ClusterId, page: Page) -> Result<Vec<Restore>>;
    async fn count_restores(&self, cluster: ClusterId) -> Result<u64>;
    /// How many parts the restores from a cluster have, all together.
    async fn count_restored_parts(&self, cluster: ClusterId) -> Result<u64>;
    /// Forgets restores from a cluster that have ended: those that were asked for before `before`, and all but the
    /// newest `most`; how many.
    async fn forget_restores(&self, cluster: ClusterId, before: Timestamp, most: u64) -> Result<u64>;
    /// The one from a cluster.
    async fn unfinished_restore(&self, cluster: ClusterId) -> Result<Option<Restore>>;
    /// Asks for the end of a restore; gives what it became. One that nobody has begun is killed at once, one
    /// that is under way by whoever is at it, and one of which something can be downloaded still at once, too.
    /// `RestoreEnded` when it is over.
    async fn cancel_restore(&self, cluster: ClusterId, id: RestoreId, now: Timestamp) -> Result<Restore>;

    /// Queues a drill; `DrillUnderWay` while another of the cluster is unfinished. Of those that have ended all but
    /// the newest [`DRILLS_KEPT`] are forgotten, and what came of their restores with them.
    async fn queue_drill(&self, drill: &Drill) -> Result<()>;
    /// Writes a drill; `Fenced` when the lease is no longer this holder's, `DrillOutdated` when the stored one has
    /// ended or is in a later state.
    async fn save_drill(&self, lease: &Lease, drill: &Drill) -> Result<()>;
    async fn drill(&self, cluster: ClusterId, id: DrillId) -> Result<Option<Drill>>;
    /// Newest first.
    async fn drills(&self, cluster: ClusterId, page: Page) -> Result<Vec<Drill>>;
    async fn unfinished_drill(&self, cluster: ClusterId) -> Result<Option<Drill>>;
    /// When the cluster's drills are, if they are scheduled.
    async fn drill_schedule(&self, cluster: ClusterId) -> Result<Option<drill::Schedule>>;
    async fn set_drill_schedule(&self, cluster: ClusterId, schedule: Option<&drill::Schedule>) -> Result<()>;

    /// The secret of a job's link: always the same, and kept nowhere.
    fn download_token(&self, job: RestoreId) -> SecretString;
    /// Whose link it is the secret of; the answer takes as long whatever of it is wrong.
    fn job_of_token(&self, token: &str) -> Option<RestoreId>;
    /// The restore that a job belongs to, of one that is to be downloaded.
    async fn download(&self, job: RestoreId) -> Result<Option<Restore>>;
    /// Notes that a job's file is no longer to be had; what was noted first stays.
    async fn end_download(&self, job: RestoreId, gone: Gone) -> Result<()>;

    /// Forgets the oldest segments of a part whose last entries are before `before`, at most
    /// [`DROPPED_AT_ONCE`] and never the newest, and notes their blobs as doomed at `now`; how many.
    async fn drop_segments(&self, lease: &Lease, part: &PartId, before: OpTime, now: Timestamp) -> Result<u64>;
    /// Notes blobs as doomed at `now`, those that no segment and no snapshot has and that are not doomed yet; how many.
    async fn doom(&self, names: &[String], now: Timestamp) -> Result<u64>;
    /// The names of blobs that were doomed before `before`, at most `most`, the oldest first, but before them
    /// those that were condemned.
    async fn doomed(&self, before: Timestamp, most: u64) -> Result<Vec<String>>;
    /// Those of them that are doomed still are about to be deleted from the vault: nothing can save them now.
    async fn condemn(&self, names: &[String]) -> Result<Vec<String>>;
    /// Once they have been deleted.
    async fn forget_doomed(&self, names: &[String]) -> Result<()>;
    /// Of these names of blobs, those that are neither a segment's nor a snapshot's nor doomed.
    async fn unreferenced(&self, names: &[String]) -> Result<Vec<String>>;
}
