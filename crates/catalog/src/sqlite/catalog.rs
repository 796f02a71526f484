//! The trait on SQLite: each method as one read or one write transaction. What is in them is in the file
//! of its kind.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::params;
use secrecy::SecretString;
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

use super::{
    SqliteCatalog, audit, checkpoints, credentials, drills, gaps, identity, leases, restores, retention, rows,
    segments, snapshots, streams,
};
use super::{store, unless_gone, unless_taken};
use crate::{
    AccessToken, AuditEntry, Catalog, CatalogError, Cluster, Credential, CredentialKind, Lease, LeaseState,
    Organization, Page, Project, Result, SegmentTotals,
};

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn begin_serving(&self) -> Result<()> {
        let mut path = self.0.path.as_os_str().to_owned();
        path.push(".serve");
        let failed = |e: std::io::Error| CatalogError::Store(e.to_string());
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        // The kernel gives the lock up when the process ends, however it ends.
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(CatalogError::AnotherServer(self.0.path.display().to_string()));
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(failed(e)),
        }
        let _ = self.0.serving.set(file);
        self.write(|transaction, _| leases::end_all(transaction)).await
    }

    fn version(&self) -> Result<Option<u64>> {
        Ok(Some(self.0.watch.version()?))
    }

    async fn create_organization(&self, organization: &Organization) -> Result<()> {
        let Organization { id, name, created } = organization.clone();
        self.write(move |transaction, _| {
            let sql = "INSERT INTO organizations (id, name, created) VALUES (?1, ?2, ?3)";
            let inserted = transaction.execute(sql, params![id.to_string(), name, created.to_string()]);
            let taken = || CatalogError::Duplicate { kind: "organisation", name: name.clone() };
            inserted.map(drop).map_err(|e| unless_taken(e, taken))
        })
        .await
    }

    async fn organizations(&self) -> Result<Vec<Organization>> {
        self.read(rows::organizations)
    }

    async fn create_project(&self, project: &Project) -> Result<()> {
        let Project { id, organization, name, created } = project.clone();
        self.write(move |transaction, _| {
            let sql = "INSERT INTO projects (id, organization, name, created) VALUES (?1, ?2, ?3, ?4)";
            let values = params![id.to_string(), organization.to_string(), name, created.to_string()];
            let taken = || CatalogError::Duplicate { kind: "project", name: name.clone() };
            let inserted = transaction.execute(sql, values);
            inserted.map(drop).map_err(|e| unless_gone(e, "organisation", |e| unless_taken(e, taken)))
        })
        .await
    }

    async fn project(&self, id: ProjectId) -> Result<Option<Project>> {
        self.read(|connection| rows::project(connection, "id", &id.to_string()))
    }

    async fn project_named(&self, name: &str) -> Result<Option<Project>> {
        self.read(|connection| rows::project(connection, "name", name))
    }

    async fn projects(&self) -> Result<Vec<Project>> {
        self.read(rows::projects)
    }

    async fn create_credential(&self, credential: &Credential) -> Result<()> {
        let credential = credential.clone();
        self.write(move |transaction, sealer| credentials::insert(transaction, sealer, &credential)).await
    }

    async fn credential(&self, kind: CredentialKind, login: &str) -> Result<Option<Credential>> {
        self.read_as_one(|connection| credentials::by_login(connection, &self.0.sealer, &self.0.decoy, kind, login))
    }

    async fn credentials(&self, kind: CredentialKind, project: ProjectId) -> Result<Vec<Credential>> {
        self.read_as_one(|connection| credentials::of_project(connection, &self.0.sealer, kind, project))
    }

    async fn rotate_credential(&self, id: CredentialId, proof: &SecretString) -> Result<bool> {
        let proof = proof.clone();
        self.write(move |transaction, sealer| credentials::rotate(transaction, sealer, id, &proof)).await
    }

    async fn grant(&self, id: CredentialId, project: ProjectId, role: Option<Role>) -> Result<()> {
        self.write(move |transaction, _| credentials::grant(transaction, id, project, role)).await
    }

    async fn restrict_credential(&self, id: CredentialId, access_list: &[IpNet]) -> Result<bool> {
        let access_list = access_list.to_vec();
        self.write(move |transaction, _| credentials::restrict(transaction, id, &access_list)).await
    }

    async fn delete_credential(&self, id: CredentialId) -> Result<bool> {
        self.write(move |transaction, _| credentials::delete(transaction, id)).await
    }

    async fn create_token(&self, token: &AccessToken, proof: &SecretString, now: Timestamp) -> Result<()> {
        let (token, proof) = (token.clone(), proof.clone());
        self.write(move |transaction, sealer| credentials::insert_token(transaction, sealer, &token, &proof, now)).await
    }

    async fn token(&self, hash: &[u8; 32]) -> Result<Option<(Credential, Timestamp)>> {
        self.read_as_one(|connection| credentials::token(connection, &self.0.sealer, hash))
    }

    async fn revoke_token(&self, account: CredentialId, hash: &[u8; 32]) -> Result<()> {
        let hash = *hash;
        self.write(move |transaction, _| credentials::delete_token(transaction, account, &hash)).await
    }

    async fn add_cluster(&self, cluster: &Cluster) -> Result<()> {
        let cluster = cluster.clone();
        self.write(move |transaction, sealer| {
            if let Some(name) = rows::cluster_of_identity(transaction, &cluster.identity)? {
                return Err(CatalogError::SameCluster(name));
            }
            let taken = || CatalogError::Duplicate { kind: "cluster", name: cluster.name.clone() };
            rows::insert_cluster(transaction, sealer, &cluster)?
                .map_err(|e| unless_gone(e, "project", |e| unless_taken(e, taken)))
        })
        .await
    }

    async fn cluster(&self, id: ClusterId) -> Result<Option<Cluster>> {
        self.read(|connection| rows::cluster(connection, &self.0.sealer, id))
    }

    async fn cluster_named(&self, project: ProjectId, name: &str) -> Result<Option<Cluster>> {
        self.read(|connection| rows::cluster_named(connection, &self.0.sealer, project, name))
    }

    async fn count_clusters(&self, project: ProjectId) -> Result<u64> {
        self.read(|connection| rows::count_clusters(connection, project))
    }

    async fn clusters(&self, project: Option<ProjectId>) -> Result<Vec<Cluster>> {
        self.read(|connection| rows::clusters(connection, &self.0.sealer, project))
    }

    async fn remove_cluster(&self, id: ClusterId, now: Timestamp) -> Result<()> {
        self.write(move |transaction, _| rows::delete_cluster(transaction, id, now)).await
    }

    async fn schedule(&self, cluster: ClusterId) -> Result<Schedule> {
        self.read(|connection| rows::schedule(connection, cluster))
    }

    async fn change_schedule(&self, cluster: ClusterId, changes: &[(Setting, u32)]) -> Result<Schedule> {
        let changes = changes.to_vec();
        self.write(move |transaction, _| {
            let mut schedule = rows::schedule(transaction, cluster)?;
            changes.iter().for_each(|(setting, value)| schedule.set(*setting, *value));
            rows::save_schedule(transaction, cluster, &schedule)?.map_err(|e| unless_gone(e, "cluster", store))?;
            Ok(schedule)
        })
        .await
    }

    async fn claim_lease(
        &self,
        cluster: ClusterId,
        holder: &str,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Option<Lease>> {
        let holder = holder.to_owned();
        self.write(move |transaction, _| leases::claim(transaction, cluster, holder, now, ttl)).await
    }

    async fn renew_lease(&self, lease: &Lease, now: Timestamp, ttl: Duration) -> Result<()> {
        let lease = lease.clone();
        self.write(move |transaction, _| leases::renew(transaction, &lease, now, ttl)).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.write(move |transaction, _| leases::release(transaction, &lease)).await
    }

    async fn lease(&self, cluster: ClusterId) -> Result<Option<LeaseState>> {
        self.read(|connection| leases::lease(connection, cluster))
    }

    async fn queue_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let checkpoint = checkpoint.clone();
        self.write(move |transaction, _| checkpoints::queue(transaction, &checkpoint)).await
    }

    async fn save_checkpoint(&self, lease: &Lease, checkpoint: &Checkpoint) -> Result<()> {
        let (lease, checkpoint) = (lease.clone(), checkpoint.clone());
        self.write(move |transaction, _| checkpoints::save(transaction, &lease, &checkpoint)).await
    }

    async fn checkpoint(&self, cluster: ClusterId, id: CheckpointId) -> Result<Option<Checkpoint>> {
        self.read(|connection| checkpoints::one_of(connection, cluster, id))
    }

    async fn checkpoints(&self, cluster: ClusterId, page: Page) -> Result<Vec<Checkpoint>> {
        self.read(|connection| checkpoints::page(connection, cluster, page))
    }

    async fn count_checkpoints(&self, cluster: ClusterId) -> Result<u64> {
        self.read(|connection| checkpoints::count(connection, cluster))
    }

    async fn unfinished_checkpoint(&self, cluster: ClusterId) -> Result<Option<Checkpoint>> {
        self.read(|connection| checkpoints::unfinished(connection, cluster))
    }

    async fn note_verification(&self, lease: &Lease, id: CheckpointId, verification: &Verification) -> Result<()> {
        let (lease, verification) = (lease.clone(), verification.clone());
        self.write(move |transaction, _| checkpoints::verified(transaction, &lease, id, verification)).await
    }

    async fn delete_checkpoint(&self, cluster: ClusterId, id: CheckpointId) -> Result<()> {
        self.write(move |transaction, _| checkpoints::delete(transaction, cluster, id)).await
    }

    async fn withdraw_checkpoint(&self, cluster: ClusterId, id: CheckpointId) -> Result<bool> {
        self.write(move |transaction, _| checkpoints::withdraw(transaction, cluster, id)).await
    }

    async fn oldest_cut(&self, cluster: ClusterId) -> Result<Option<ClusterTime>> {
        self.read(|connection| checkpoints::oldest_cut(connection, cluster))
    }

    async fn expired_checkpoints(&self, cluster: ClusterId, before: Timestamp, most: u64) -> Result<Vec<CheckpointId>> {
        self.read_as_one(|connection| checkpoints::expired(connection, cluster, before, most))
    }

    async fn append_audit(&self, entries: &[AuditEntry]) -> Result<()> {
        let entries = entries.to_vec();
        self.write(move |transaction, _| entries.iter().try_for_each(|entry| audit::insert(transaction, entry))).await
    }

    async fn audit(&self, page: Page) -> Result<Vec<AuditEntry>> {
        self.read(|connection| audit::page(connection, page))
    }

    async fn trim_audit(&self, before: Timestamp, most: u64) -> Result<u64> {
        self.write(move |transaction, _| audit::trim(transaction, before, most)).await
    }

    async fn id(&self) -> Result<CatalogId> {
        self.read(identity::id)
    }

    async fn bind_vault(&self, vault: VaultId) -> Result<()> {
        self.write(move |transaction, _| identity::bind_vault(transaction, vault)).await
    }

    async fn vault(&self) -> Result<Option<VaultId>> {
        self.read(identity::vault)
    }

    async fn streams(&self, cluster: ClusterId) -> Result<Vec<Stream>> {
        self.read(|connection| streams::all_of(connection, cluster))
    }

    async fn stream(&self, cluster: ClusterId, part: &PartId) -> Result<Option<Stream>> {
        self.read(|connection| streams::stream(connection, cluster, part))
    }

    async fn begin_stream(&self, lease: &Lease, stream: &Stream, gap: Option<&Gap>) -> Result<()> {
        let (lease, stream, gap) = (lease.clone(), stream.clone(), gap.cloned());
        self.write(move |transaction, _| streams::begin(transaction, &lease, &stream, gap.as_ref())).await
    }

    async fn end_stream(&self, lease: &Lease, part: &PartId, at: Timestamp) -> Result<()> {
        let (lease, part) = (lease.clone(), part.clone());
        self.write(move |transaction, _| streams::end(transaction, &lease, &part, at)).await
    }

    async fn gaps(&self, cluster: ClusterId) -> Result<Vec<Gap>> {
        self.read(|connection| gaps::all_of(connection, cluster))
    }

    async fn add_gap(&self, cluster: ClusterId, gap: &Gap) -> Result<()> {
        let gap = gap.clone();
        self.write(move |transaction, _| gaps::insert(transaction, cluster, &gap)).await
    }

    async fn remove_gap(
        &self,
        cluster: ClusterId,
        part: &PartId,
        after: ClusterTime,
        until: ClusterTime,
    ) -> Result<()> {
        let part = part.clone();
        self.write(move |transaction, _| gaps::delete(transaction, cluster, &part, after, until)).await
    }

    async fn report_capture(&self, cluster: ClusterId, part: &PartId, report: &CaptureReport) -> Result<()> {
        let (part, report) = (part.clone(), report.clone());
        self.write(move |transaction, _| streams::report(transaction, cluster, &part, &report)).await
    }

    async fn capture_reports(&self, cluster: ClusterId) -> Result<Vec<(PartId, CaptureReport)>> {
        self.read(|connection| streams::reports(connection, cluster))
    }

    async fn keep_blobs(&self, place: &str) -> Result<()> {
        // Hardly ever.
        if !self.read(|connection| retention::is_doomed(connection, place))? {
            return Ok(());
        }
        let place = place.to_owned();
        self.write(move |transaction, _| retention::save(transaction, &place)).await
    }

    async fn keep_blob(&self, name: &str) -> Result<()> {
        if !self.read(|connection| retention::is_doomed_itself(connection, name))? {
            return Ok(());
        }
        let name = name.to_owned();
        self.write(move |transaction, _| retention::save_one(transaction, &name)).await
    }

    async fn append_segment(&self, lease: &Lease, segment: &Segment) -> Result<()> {
        let (lease, segment) = (lease.clone(), segment.clone());
        self.write(move |transaction, _| segments::append(transaction, &lease, &segment)).await
    }

    async fn last_segment(&self, cluster: ClusterId, part: &PartId) -> Result<Option<Segment>> {
        self.read_as_one(|connection| segments::last(connection, cluster, part))
    }

    async fn segments(
        &self,
        cluster: ClusterId,
        part: &PartId,
        from: ClusterTime,
        to: ClusterTime,
        most: u64,
    ) -> Result<Vec<Segment>> {
        self.read_as_one(|connection| segments::between(connection, cluster, part, from, to, most))
    }

    async fn segment_before(&self, cluster: ClusterId, part: &PartId, time: ClusterTime) -> Result<Option<Segment>> {
        self.read_as_one(|connection| segments::before(connection, cluster, part, time))
    }

    async fn segment_totals(&self, cluster: ClusterId, part: &PartId) -> Result<SegmentTotals> {
        self.read(|connection| segments::totals(connection, cluster, part))
    }

    async fn stored_tokens(&self, cluster: ClusterId, id: CheckpointId) -> Result<Vec<(PartId, StoredToken)>> {
        self.read(|connection| segments::tokens(connection, cluster, id))
    }

    async fn queue_snapshot(&self, snapshot: &Snapshot) -> Result<()> {
        let snapshot = snapshot.clone();
        self.write(move |transaction, _| snapshots::queue(transaction, &snapshot)).await
    }

    async fn save_snapshot(&self, lease: &Lease, snapshot: &Snapshot, blobs: &[String]) -> Result<()> {
        let (lease, snapshot, blobs) = (lease.clone(), snapshot.clone(), blobs.to_vec());
        self.write(move |transaction, _| snapshots::save(transaction, &lease, &snapshot, &blobs)).await
    }

    async fn keep_snapshot(
        &self,
        cluster: ClusterId,
        id: SnapshotId,
        expires: Option<Timestamp>,
        do_not_delete: bool,
    ) -> Result<Snapshot> {
        self.write(move |transaction, _| snapshots::keep(transaction, cluster, id, expires, do_not_delete)).await
    }

    async fn note_damage(&self, cluster: ClusterId, id: SnapshotId, damage: Option<&str>) -> Result<()> {
        let damage = damage.map(str::to_owned);
        self.write(move |transaction, _| snapshots::damaged(transaction, cluster, id, damage)).await
    }

    async fn snapshot(&self, cluster: ClusterId, id: SnapshotId) -> Result<Option<Snapshot>> {
        self.read(|connection| snapshots::one_of(connection, cluster, id))
    }

    async fn snapshots(&self, cluster: ClusterId, page: Page) -> Result<Vec<Snapshot>> {
        self.read(|connection| snapshots::page(connection, cluster, page))
    }

    async fn count_snapshots(&self, cluster: ClusterId) -> Result<u64> {
        self.read(|connection| snapshots::count(connection, cluster))
    }

    async fn unfinished_snapshot(&self, cluster: ClusterId) -> Result<Option<Snapshot>> {
        self.read(|connection| snapshots::unfinished(connection, cluster))
    }

    async fn delete_snapshot(&self, cluster: ClusterId, id: SnapshotId, now: Timestamp) -> Result<()> {
        self.write(move |transaction, _| snapshots::delete(transaction, cluster, id, now)).await
    }

    async fn add_pieces(
        &self,
        lease: &Lease,
        id: SnapshotId,
        part: &PartId,
        pieces: &[String],
        blobs: &[String],
    ) -> Result<()> {
        let (lease, part, pieces, blobs) = (lease.clone(), part.clone(), pieces.to_vec(), blobs.to_vec());
        self.write(move |transaction, _| snapshots::add_pieces(transaction, &lease, id, &part, &pieces, &blobs)).await
    }

    async fn pieces(&self, cluster: ClusterId, id: SnapshotId, part: &PartId) -> Result<Vec<String>> {
        self.read_as_one(|connection| snapshots::pieces(connection, cluster, id, part))
    }

    async fn queue_restore(&self, restore: &Restore, uri: Option<&SecretString>) -> Result<()> {
        let (restore, uri) = (restore.clone(), uri.cloned());
        self.write(move |transaction, sealer| restores::queue(transaction, sealer, &restore, uri.as_ref())).await
    }

    async fn restore_uri(&self, cluster: ClusterId, id: RestoreId) -> Result<Option<SecretString>> {
        self.read(|connection| restores::uri(connection, &self.0.sealer, cluster, id))
    }

    async fn save_restore(&self, lease: &Lease, restore: &Restore, marks: &[Mark]) -> Result<()> {
        let (lease, restore, marks) = (lease.clone(), restore.clone(), marks.to_vec());
        self.write(move |transaction, _| restores::save(transaction, &lease, restore, &marks)).await
    }

    async fn restore_marks(&self, cluster: ClusterId, id: RestoreId) -> Result<Vec<Mark>> {
        self.read_as_one(|connection| restores::marks(connection, cluster, id))
    }

    async fn restore(&self, cluster: ClusterId, id: RestoreId) -> Result<Option<Restore>> {
        self.read(|connection| restores::one_of(connection, cluster, id))
    }

    async fn restores(&self, cluster: ClusterId, page: Page) -> Result<Vec<Restore>> {
        self.read(|connection| restores::page(connection, cluster, page))
    }

    async fn count_restores(&self, cluster: ClusterId) -> Result<u64> {
        self.read(|connection| restores::count(connection, cluster))
    }

    async fn count_restored_parts(&self, cluster: ClusterId) -> Result<u64> {
        self.read(|connection| restores::count_parts(connection, cluster))
    }

    async fn forget_restores(&self, cluster: ClusterId, before: Timestamp, most: u64) -> Result<u64> {
        self.write(move |transaction, _| restores::forget(transaction, cluster, before, most)).await
    }

    async fn unfinished_restore(&self, cluster: ClusterId) -> Result<Option<Restore>> {
        self.read(|connection| restores::unfinished(connection, cluster))
    }

    async fn cancel_restore(&self, cluster: ClusterId, id: RestoreId, now: Timestamp) -> Result<Restore> {
        self.write(move |transaction, _| restores::cancel(transaction, cluster, id, now)).await
    }

    async fn queue_drill(&self, drill: &Drill) -> Result<()> {
        let drill = drill.clone();
        self.write(move |transaction, _| drills::queue(transaction, &drill)).await
    }

    async fn save_drill(&self, lease: &Lease, drill: &Drill) -> Result<()> {
        let (lease, drill) = (lease.clone(), drill.clone());
        self.write(move |transaction, _| drills::save(transaction, &lease, &drill)).await
    }

    async fn drill(&self, cluster: ClusterId, id: DrillId) -> Result<Option<Drill>> {
        self.read(|connection| drills::one_of(connection, cluster, id))
    }

    async fn drills(&self, cluster: ClusterId, page: Page) -> Result<Vec<Drill>> {
        self.read(|connection| drills::page(connection, cluster, page))
    }

    async fn unfinished_drill(&self, cluster: ClusterId) -> Result<Option<Drill>> {
        self.read(|connection| drills::unfinished(connection, cluster))
    }

    async fn drill_schedule(&self, cluster: ClusterId) -> Result<Option<drill::Schedule>> {
        self.read(|connection| drills::schedule(connection, cluster))
    }

    async fn set_drill_schedule(&self, cluster: ClusterId, schedule: Option<&drill::Schedule>) -> Result<()> {
        let schedule = schedule.cloned();
        self.write(move |transaction, _| drills::set_schedule(transaction, cluster, schedule.as_ref())).await
    }

    fn download_token(&self, job: RestoreId) -> SecretString {
        restores::token(&self.0.sealer, job)
    }

    fn job_of_token(&self, token: &str) -> Option<RestoreId> {
        restores::job_of(&self.0.sealer, token)
    }

    async fn download(&self, job: RestoreId) -> Result<Option<Restore>> {
        self.read(|connection| restores::download(connection, job))
    }

    async fn end_download(&self, job: RestoreId, gone: Gone) -> Result<()> {
        self.write(move |transaction, _| restores::end_download(transaction, job, gone)).await
    }

    async fn drop_segments(&self, lease: &Lease, part: &PartId, before: OpTime, now: Timestamp) -> Result<u64> {
        let (lease, part) = (lease.clone(), part.clone());
        self.write(move |transaction, _| retention::drop_segments(transaction, &lease, &part, before, now)).await
    }

    async fn doomed(&self, before: Timestamp, most: u64) -> Result<Vec<String>> {
        self.read(|connection| retention::doomed(connection, before, most))
    }

    async fn doom(&self, names: &[String], now: Timestamp) -> Result<u64> {
        let names = names.to_vec();
        self.write(move |transaction, _| retention::doom(transaction, &names, now)).await
    }

    async fn condemn(&self, names: &[String]) -> Result<Vec<String>> {
        let names = names.to_vec();
        self.write(move |transaction, _| retention::condemn(transaction, &names)).await
    }

    async fn forget_doomed(&self, names: &[String]) -> Result<()> {
        let names = names.to_vec();
        self.write(move |transaction, _| retention::forget(transaction, &names)).await
    }

    async fn unreferenced(&self, names: &[String]) -> Result<Vec<String>> {
        self.read_as_one(|connection| retention::unreferenced(connection, names))
    }
}
