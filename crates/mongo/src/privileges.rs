//! What the user must be allowed on each part, and the commands that allow it.

use stillpoint_core::checkpoint::PartId;

/// One thing that stillpoint does, and the privilege that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Completes "the user may not …".
    pub what: &'static str,
    pub action: &'static str,
    /// In words: `the cluster`, or a collection.
    pub resource: &'static str,
    /// Database and collection; `None` is the cluster itself.
    pub namespace: Option<(&'static str, &'static str)>,
    pub on: On,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Every,
    Shards,
    ConfigServers,
}

impl Need {
    pub fn concerns(&self, part: &PartId) -> bool {
        match self.on {
            On::Every => true,
            On::Shards => matches!(part, PartId::Shard(_)),
            On::ConfigServers => *part == PartId::ConfigServers,
        }
    }
}

macro_rules! needs {
    ($($name:ident: $on:ident, $what:literal, $action:literal, $resource:literal, $namespace:expr;)*) => {
        $(pub const $name: Need = Need {
            what: $what, action: $action, resource: $resource, namespace: $namespace, on: On::$on,
        };)*
        /// Everything that capture, checkpoints and snapshots need.
        pub const ALL: &[Need] = &[$($name),*];
    };
}

needs! {
    READ_OPLOG: Every, "read the oplog", "find", "local.oplog.rs", Some(("local", "oplog.rs"));
    SEE_OPLOG_SIZE: Every, "see the size of the oplog", "collStats", "local.oplog.rs", Some(("local", "oplog.rs"));
    READ_TRANSACTIONS: Every, "see which transactions are prepared", "find", "config.transactions", Some(("config", "transactions"));
    READ_DATA: Every, "read the collections", "find", "every collection", Some(("", ""));
    READ_VIEWS: Every, "read the definitions of views", "find", "system.views of every database", Some(("", "system.views"));
    WRITE_NOTE: Every, "write a note into the oplog", "appendOplogNote", "the cluster", None;
    SEE_OPERATIONS: Every, "see the operations under way", "inprog", "the cluster", None;
    SEE_STATUS: Every, "see the replica set's status", "replSetGetStatus", "the cluster", None;
    READ_CONFIG: Every, "read the collections of config", "find", "the database config", Some(("config", "shards"));
    SEE_DDL: Every, "see the DDL operations under way", "find", "config.system.sharding_ddl_coordinators", Some(("config", "system.sharding_ddl_coordinators"));
    CONTROL_BALANCER: ConfigServers, "stop the balancer", "internal", "the cluster", None;
    READ_SETTINGS: ConfigServers, "read the balancer's settings", "find", "config.settings", Some(("config", "settings"));
    PUT_BACK_BALANCER: ConfigServers, "put the balancer's settings back", "update", "config.settings", Some(("config", "settings"));
    INSERT_SETTINGS: ConfigServers, "put back balancer settings that somebody removed meanwhile", "insert", "config.settings", Some(("config", "settings"));
    REMOVE_SETTINGS: ConfigServers, "remove balancer settings that were not there before", "remove", "config.settings", Some(("config", "settings"));
}

/// Needs no privilege at all.
pub const NOTHING: Need =
    Need { what: "say hello", action: "none", resource: "the server", namespace: None, on: On::Every };

/// The role's definition, for the operator's guide and the doctor.
const ROLE: &str = r#"{createRole: "stillpoint", roles: ["backup", "clusterMonitor"], privileges: [
    {resource: {cluster: true}, actions: ["internal"]},
    {resource: {db: "config", collection: "system.sharding_ddl_coordinators"}, actions: ["find"]},
    {resource: {db: "", collection: "system.views"}, actions: ["find"]},
    {resource: {db: "config", collection: "settings"}, actions: ["find", "insert", "update", "remove"]}]}"#;

/// The commands that make the role and give it to `user` (`name` and `database`), or, without one,
/// make a user; to be run in mongosh on the primary of each part.
pub fn grant_commands(user: Option<(&str, &str)>) -> Vec<String> {
    let role = format!("db.getSiblingDB(\"admin\").runCommand({ROLE})");
    let user = match user {
        Some((name, database)) => format!(
            "db.getSiblingDB({database:?}).runCommand({{grantRolesToUser: {name:?}, roles: [{{role: \"stillpoint\", db: \"admin\"}}]}})"
        ),
        None => "db.getSiblingDB(\"admin\").createUser({user: \"stillpoint\", pwd: passwordPrompt(), roles: [\"stillpoint\"]})".into(),
    };
    vec![role, user, "if the role exists already: the first with updateRole instead of createRole".into()]
}
