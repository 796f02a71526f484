//! The command line's grammar.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use jiff::Timestamp;
use stillpoint_core::drill::Every;
use stillpoint_core::restore::{LINK_HOURS, USUAL_LINK_HOURS};
use stillpoint_core::{CheckpointId, ClusterTime, DrillId, RestoreId, Role, SnapshotId};

/// Checkpoints and point-in-time restore for sharded MongoDB clusters.
#[derive(Debug, Parser)]
#[command(name = "stillpoint", version, propagate_version = true)]
pub struct Cli {
    /// The configuration file; `stillpoint.toml` here, if there is one.
    #[arg(long, global = true, value_name = "FILE", env = "STILLPOINT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print one JSON document on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: take checkpoints and answer the API.
    Serve,
    /// Organisations, which own projects, keys and service accounts. Most need only the one that is
    /// there, `default`.
    #[command(subcommand)]
    Organization(OrganizationCommand),
    /// Projects, which the API also calls groups.
    #[command(subcommand)]
    Project(ProjectCommand),
    /// API keys, for HTTP Digest.
    #[command(subcommand)]
    Key(CredentialCommand),
    /// Service accounts, for OAuth on v2 of the API.
    #[command(subcommand)]
    ServiceAccount(CredentialCommand),
    /// The sharded clusters to look after.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Checkpoints of a cluster.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Snapshots of a cluster: the data that checkpoints are restored from, with the stored oplogs.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Compare what is stored of a point in time with what the cluster itself says of it, or with a cluster that
    /// was restored to it.
    Verify {
        #[command(flatten)]
        point: PointArgs,
        #[command(flatten)]
        against: AgainstArgs,
    },
    /// Write the data at a point in time to files, laid out as mongodump does: OUT/PART/DB/COLLECTION.bson.
    /// Or that of one part to an archive, for mongorestore --archive.
    Export {
        #[command(flatten)]
        point: PointArgs,
        /// A shard, by name, or `config` for the config servers; repeat it for more. All without it.
        #[arg(long = "part", value_name = "NAME")]
        parts: Vec<String>,
        /// A database, or a collection as DB.COLLECTION; repeat it for more. All without it.
        #[arg(long, value_name = "NS")]
        only: Vec<String>,
        /// A folder that is not there yet.
        #[arg(long, value_name = "DIR", required_unless_present = "archive", conflicts_with = "archive")]
        out: Option<PathBuf>,
        /// An archive of the one part that --part names: a file that is not there yet, or `-` for standard output.
        #[arg(long, value_name = "FILE", requires = "parts")]
        archive: Option<PathBuf>,
        /// Also the documents that a shard had and did not own, as a migration leaves them.
        #[arg(long)]
        with_orphans: bool,
    },
    /// Print a collection's documents at a point in time, or one of them, as lines of extended JSON.
    Cat {
        #[command(flatten)]
        point: PointArgs,
        /// A shard, by name, or `config` for the config servers; repeat it for more. All without it.
        #[arg(long = "part", value_name = "NAME")]
        parts: Vec<String>,
        /// The collection, as DB.COLLECTION.
        #[arg(long, value_name = "NS")]
        ns: String,
        /// The document's _id, in extended JSON: 7, '"seven"', '{"$oid": "…"}'.
        #[arg(long, value_name = "JSON")]
        id: Option<String>,
        /// Also the documents that a shard had and did not own, as a migration leaves them.
        #[arg(long)]
        with_orphans: bool,
    },
    /// Compare two points in time of a cluster, from what is stored: which collections came, went, were renamed,
    /// have other options or indexes, and how many documents were added, removed, changed.
    Diff {
        #[command(flatten)]
        point: PointArgs,
        #[command(flatten)]
        to: ToArgs,
        /// A shard, by name, or `config` for the config servers; repeat it for more. All without it.
        #[arg(long = "part", value_name = "NAME")]
        parts: Vec<String>,
        /// A database, or a collection as DB.COLLECTION, by its name then or now; repeat it for more. All without it.
        #[arg(long, value_name = "NS")]
        only: Vec<String>,
        /// Print the _id of each document that was added (+), removed (-) or changed (~) as a line of extended JSON.
        #[arg(long)]
        documents: bool,
    },
    /// Restore the data at a point in time into another, empty cluster or replica set, or as files to be downloaded.
    Restore(RestoreArgs),
    /// Restores that were asked for, over the API too.
    #[command(subcommand)]
    RestoreJob(RestoreJobCommand),
    /// Drills: the newest checkpoint, restored into a throw-away cluster on the server's machine, or one that is given
    /// for it, compared, and removed again. What it took is the RTO, what would have been lost the RPO.
    #[command(subcommand)]
    Drill(DrillCommand),
    /// The stored oplogs.
    #[command(subcommand)]
    Oplog(OplogCommand),
    /// The vault, where the oplogs are stored.
    #[command(subcommand)]
    Vault(VaultCommand),
    /// Whether a server runs, what each cluster's checkpoints are doing, and how capture stands.
    Status {
        /// For monitors: end with 1 if anything needs attention, and say what.
        #[arg(long)]
        check: bool,
    },
    /// Examine a cluster: reachability, versions, privileges, oplogs, clocks.
    Doctor(DoctorArgs),
    /// Who did what, newest first: writes and refused requests.
    Audit {
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Print the API's description as an OpenAPI 3.1 document.
    Openapi,
}

#[derive(Debug, Subcommand)]
pub enum OrganizationCommand {
    /// Make an organisation.
    Create { name: String },
    /// List the organisations.
    List,
}

#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Make a project.
    Create {
        name: String,
        /// The organisation that owns it, by name.
        #[arg(long, value_name = "NAME", default_value = stillpoint_catalog::DEFAULT_ORGANIZATION)]
        organization: String,
    },
    /// List the projects.
    List,
}

#[derive(Debug, Args)]
pub struct OfProject {
    /// The project, by name or id.
    #[arg(long, short, value_name = "PROJECT")]
    pub project: String,
}

#[derive(Debug, Subcommand)]
pub enum CredentialCommand {
    /// Make one with a role in a project. Its secret is shown once.
    Create {
        #[command(flatten)]
        of: OfProject,
        /// What it may do: GROUP_READ_ONLY or GROUP_OWNER.
        #[arg(long)]
        role: Role,
        /// Addresses that requests may come from, as 192.0.2.7 or 192.0.2.0/24; repeat it for more.
        /// Without any, requests may come from anywhere. Behind a proxy what counts is the proxy's
        /// address, unless the proxy is one of server.trusted_proxies.
        #[arg(long = "access-list", value_name = "CIDR", value_parser = network)]
        access_list: Vec<IpNet>,
    },
    /// List those that have a role in a project, without their secrets.
    List {
        #[command(flatten)]
        of: OfProject,
    },
    /// Give one a role in a further project of its organisation, or another role.
    Grant {
        #[command(flatten)]
        of: OfProject,
        /// A key's public part, or a service account's client id.
        login: String,
        /// GROUP_READ_ONLY or GROUP_OWNER.
        #[arg(long)]
        role: Role,
    },
    /// Take its role in a project away; refused if it is its last, since `delete` is for that.
    Revoke {
        #[command(flatten)]
        of: OfProject,
        /// A key's public part, or a service account's client id.
        login: String,
    },
    /// Replace the addresses that one may come from, for all projects in which it has a role.
    AccessList {
        #[command(flatten)]
        of: OfProject,
        /// A key's public part, or a service account's client id.
        login: String,
        /// As 192.0.2.7 or 192.0.2.0/24. Without any, requests may come from anywhere.
        #[arg(value_name = "CIDR", value_parser = network)]
        access_list: Vec<IpNet>,
    },
    /// Give one a new secret, for all projects in which it has a role. The old one, and tokens that were
    /// given for it, are refused from then on.
    Rotate {
        #[command(flatten)]
        of: OfProject,
        /// A key's public part, or a service account's client id.
        login: String,
    },
    /// Delete one, in all projects in which it has a role; it is refused from then on.
    Delete {
        #[command(flatten)]
        of: OfProject,
        /// A key's public part, or a service account's client id.
        login: String,
    },
}

#[derive(Debug, Args)]
pub struct UriArgs {
    /// The config servers' connection string, as in mongodb://user:pw@cfg1,cfg2,cfg3/?replicaSet=cfg.
    /// Others on this machine can see it while the command runs: prefer --uri-file, or the environment:
    /// $STILLPOINT_CLUSTER_URI is used when neither is given.
    #[arg(long, value_name = "URI")]
    pub uri: Option<String>,
    /// A file that holds the connection string; `-` for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "uri")]
    pub uri_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Examine a cluster and look after it from now on.
    Add {
        #[command(flatten)]
        of: OfProject,
        /// A name for it, as the API's paths use it: letters, digits, - and _.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        uri: UriArgs,
    },
    /// List a project's clusters.
    List {
        #[command(flatten)]
        of: OfProject,
    },
    /// Show a cluster and its parts.
    Show {
        #[command(flatten)]
        of: OfProject,
        name: String,
    },
    /// Forget a cluster, its checkpoints, snapshots and stored oplogs. The cluster itself is not touched. A snapshot
    /// that is under way is given up; a checkpoint or a restore must have ended.
    Remove {
        #[command(flatten)]
        of: OfProject,
        name: String,
        /// Wait until a checkpoint of it, and restores from it or into it, have ended.
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Args)]
pub struct OfCluster {
    #[command(flatten)]
    pub project: OfProject,
    /// The cluster, by name.
    #[arg(long, short, value_name = "CLUSTER")]
    pub cluster: String,
}

/// A point in time to look at.
#[derive(Debug, Args)]
#[group(id = "point")]
pub struct PointArgs {
    #[command(flatten)]
    pub of: OfCluster,
    #[command(flatten)]
    pub time: TimeArgs,
}

#[derive(Debug, Clone, Copy, Args)]
#[group(id = "time", required = true, multiple = false)]
pub struct TimeArgs {
    /// What a checkpoint restores to.
    #[arg(long, value_name = "ID")]
    pub checkpoint: Option<CheckpointId>,
    /// What a snapshot is of.
    #[arg(long, value_name = "ID")]
    pub snapshot: Option<SnapshotId>,
    /// Any time that is stored: 2026-11-24T08:00:00Z, or SECONDS:INCREMENT for a cluster time.
    #[arg(long, value_name = "TIME")]
    pub at: Option<At>,
}

/// The point in time that another is compared with.
#[derive(Debug, Clone, Copy, Args)]
#[group(id = "to", required = true, multiple = false)]
pub struct ToArgs {
    /// What a checkpoint restores to, to compare with.
    #[arg(long, value_name = "ID")]
    to_checkpoint: Option<CheckpointId>,
    /// What a snapshot is of, to compare with.
    #[arg(long, value_name = "ID")]
    to_snapshot: Option<SnapshotId>,
    /// Any time that is stored, to compare with.
    #[arg(long, value_name = "TIME")]
    to_at: Option<At>,
}

impl ToArgs {
    pub fn time(self) -> TimeArgs {
        TimeArgs { checkpoint: self.to_checkpoint, snapshot: self.to_snapshot, at: self.to_at }
    }
}

/// A cluster time, or a date: what was written before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(pub ClusterTime);

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<At, String> {
        if let Ok(time) = text.parse() {
            return Ok(At(time));
        }
        let date: Timestamp = text.parse().map_err(|_| "write it as 2026-11-24T08:00:00Z or SECONDS:INCREMENT")?;
        Ok(At(ClusterTime::at(date)))
    }
}

#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// Take a checkpoint now: the server takes it, this command waits for the end.
    Take {
        #[command(flatten)]
        of: OfCluster,
        /// Only ask for it.
        #[arg(long)]
        no_wait: bool,
    },
    /// List the checkpoints, newest first.
    List {
        #[command(flatten)]
        of: OfCluster,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Show a checkpoint.
    Show {
        #[command(flatten)]
        of: OfCluster,
        id: CheckpointId,
    },
    /// Delete a checkpoint that has ended.
    Delete {
        #[command(flatten)]
        of: OfCluster,
        id: CheckpointId,
    },
}

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Take a snapshot now: the server takes it, this command waits for the end and tells how far it is.
    Take {
        #[command(flatten)]
        of: OfCluster,
        /// Only ask for it.
        #[arg(long)]
        no_wait: bool,
    },
    /// List the snapshots, newest first, those that are not complete too.
    List {
        #[command(flatten)]
        of: OfCluster,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Show a snapshot.
    Show {
        #[command(flatten)]
        of: OfCluster,
        id: SnapshotId,
    },
    /// Keep a complete snapshot until you say otherwise, whatever the schedule says (`doNotDelete`).
    Keep {
        #[command(flatten)]
        of: OfCluster,
        id: SnapshotId,
    },
    /// Let a complete snapshot go when the schedule has said, or at another time. One that is needed stays beyond that.
    Expire {
        #[command(flatten)]
        of: OfCluster,
        id: SnapshotId,
        /// The other time, as 2026-12-24T08:00:00Z.
        #[arg(long, value_name = "TIME")]
        at: Option<Timestamp>,
    },
    /// Delete a snapshot that has ended and that nothing needs.
    Delete {
        #[command(flatten)]
        of: OfCluster,
        id: SnapshotId,
    },
}

#[derive(Debug, Args)]
pub struct AgainstArgs {
    /// A file with the connection string of a cluster, or of a replica set, that was restored to that time and has not
    /// changed since; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub against_file: Option<PathBuf>,
    #[command(flatten)]
    pub mapping: MappingArgs,
}

/// Which data goes where in a restore.
#[derive(Debug, Args)]
pub struct MappingArgs {
    /// The target's shard that takes a shard's data; repeat it for more. The others go by the order of their
    /// names. Several shards may go into one.
    #[arg(long, value_name = "FROM=TO")]
    pub shard_map: Vec<String>,
    /// The one shard whose data goes into a single replica set.
    #[arg(long, value_name = "NAME")]
    pub part: Option<String>,
    /// A database, or a collection as DB.COLLECTION; with =NAME, under that name. Repeat it for more. All without
    /// it.
    #[arg(long, value_name = "NS[=NAME]")]
    pub only: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum RestoreJobCommand {
    /// List the restores of a cluster's data, newest first.
    List {
        #[command(flatten)]
        of: OfCluster,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Show a restore, and the links of what can be downloaded.
    Show {
        #[command(flatten)]
        of: OfCluster,
        id: RestoreId,
    },
    /// End a restore that is under way. Its target is left as it is, and marked as not whole, but a drill's goes or is
    /// emptied; files to be downloaded go, also those that are ready.
    Cancel {
        #[command(flatten)]
        of: OfCluster,
        id: RestoreId,
    },
}

/// What a throw-away cluster is started with, or which cluster is given.
#[derive(Debug, Args)]
pub struct StageArgs {
    /// The mongod to run, of the same version as the cluster's featureCompatibilityVersion; without it, the one on the
    /// server's PATH.
    #[arg(long, value_name = "FILE")]
    pub mongod: Option<PathBuf>,
    /// The folder on whose disk the data goes for the time being; without it, snapshots.temp_folder.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// A file with the connection string of a cluster to do it in instead, which is empty and for drills alone: each
    /// drill fills it and drops all that is in it. The server reads the file for each drill.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mongod", "folder"])]
    pub to_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// Run a drill now: the server runs it, this command waits for the end. Ends with 1 if it does not pass.
    Run {
        #[command(flatten)]
        of: OfCluster,
        #[command(flatten)]
        stage: StageArgs,
        /// Only ask for it.
        #[arg(long)]
        no_wait: bool,
    },
    /// Set when a cluster's drills are, or show it: one at once, then from the end of one that passed to the next.
    Schedule {
        #[command(flatten)]
        of: OfCluster,
        /// As 7d, 12h or 30m.
        #[arg(long, value_name = "TIME", conflicts_with = "off")]
        every: Option<Every>,
        /// Schedule no more.
        #[arg(long, conflicts_with_all = ["mongod", "folder", "to_file"])]
        off: bool,
        #[command(flatten)]
        stage: StageArgs,
    },
    /// List the drills, newest first; the newest 100 are kept.
    List {
        #[command(flatten)]
        of: OfCluster,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Show a drill.
    Show {
        #[command(flatten)]
        of: OfCluster,
        id: DrillId,
    },
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub point: PointArgs,
    /// The connection string of the target: of its config servers, or of a single replica set. Others on this
    /// machine can see it while the command runs: prefer --to-file.
    #[arg(long, value_name = "URI", conflicts_with_all = ["to_file", "to_cluster"])]
    pub to: Option<String>,
    /// A file that holds the connection string of the target; `-` for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "to_cluster")]
    pub to_file: Option<PathBuf>,
    /// A cluster that is looked after here, by name.
    #[arg(long, value_name = "CLUSTER")]
    pub to_cluster: Option<String>,
    /// The project of that one, if it is another.
    #[arg(long, value_name = "PROJECT", requires = "to_cluster")]
    pub to_project: Option<String>,
    /// Make a file of each part instead, for `mongorestore --gzip --archive`, and show a link for each by which
    /// whoever has it can download that file from the server, once.
    #[arg(long, conflicts_with_all = [
        "to", "to_file", "to_cluster", "shard_map", "part", "only", "users", "no_verify", "dry_run",
    ])]
    pub download: bool,
    /// How many hours the links are good for once the files are ready.
    #[arg(
        long, value_name = "HOURS", requires = "download", default_value_t = USUAL_LINK_HOURS,
        value_parser = clap::value_parser!(u32).range(i64::from(*LINK_HOURS.start())..=i64::from(*LINK_HOURS.end())),
    )]
    pub link_hours: u32,
    #[command(flatten)]
    pub mapping: MappingArgs,
    /// Restore users and roles, too. Those that the target has stay as they are.
    #[arg(long)]
    pub users: bool,
    /// Do not compare the target with what was written.
    #[arg(long)]
    pub no_verify: bool,
    /// Only look at the target, and say what would go where, and about how long it would take.
    #[arg(long)]
    pub dry_run: bool,
    /// Only ask for it.
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, Subcommand)]
pub enum OplogCommand {
    /// List what is stored of each part.
    List {
        #[command(flatten)]
        of: OfCluster,
    },
    /// Write the stored entries of a part to standard output, as BSON, exactly as the server wrote them.
    Export {
        #[command(flatten)]
        of: OfCluster,
        /// A shard, by name, or `config` for the config servers.
        #[arg(long, value_name = "NAME")]
        part: String,
        /// The first to write is the first at or after this time; without it, the first that is stored.
        #[arg(long, value_name = "SECONDS:INCREMENT")]
        from: Option<ClusterTime>,
        /// The last to write is the last at or before this time; without it, the last that is stored.
        #[arg(long, value_name = "SECONDS:INCREMENT")]
        to: Option<ClusterTime>,
    },
}

#[derive(Debug, Subcommand)]
pub enum VaultCommand {
    /// Show where the vault is and what opens it.
    Show,
    /// Read everything in the vault, and note what is missing or damaged; ends with 1 if anything is.
    Check {
        #[command(flatten)]
        of: AnyCluster,
    },
    /// Seal an encrypted vault with a new master key. The old one does not open it any more.
    RotateKey {
        /// A file that holds the new key, with mode 0600; `openssl rand -hex 32` makes one.
        #[arg(long, value_name = "FILE")]
        new_key_file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct AnyCluster {
    /// The project, by name or id.
    #[arg(long, short, value_name = "PROJECT", requires = "cluster")]
    pub project: Option<String>,
    /// Of one cluster only, by name.
    #[arg(long, short, value_name = "CLUSTER", requires = "project")]
    pub cluster: Option<String>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The project, by name or id.
    #[arg(long, short, value_name = "PROJECT", requires = "cluster")]
    pub project: Option<String>,
    /// The cluster, by name.
    #[arg(long, short, value_name = "CLUSTER", requires = "project", conflicts_with_all = ["uri", "uri_file"])]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub uri: UriArgs,
}

/// A network, or one address as the network of just that.
pub fn network(text: &str) -> Result<IpNet, String> {
    // An IPv4 address in the form of IPv6 is the IPv4 address.
    let address = || text.parse::<std::net::IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    text.parse::<IpNet>().or_else(|_| address()).map_err(|_| "write it as 192.0.2.7 or 192.0.2.0/24".into())
}
