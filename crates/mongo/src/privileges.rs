//! What the user must be allowed on each part, and the commands that allow it.

use bson::{Bson, Document, doc};
use stillpoint_core::checkpoint::PartId;

use crate::error::Result;
use crate::part::PartLink;

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
    ($(#[$doc:meta])* $all:ident: $($name:ident: $on:ident, $what:literal, $action:literal, $resource:literal, $namespace:expr;)*) => {
        $(pub const $name: Need = Need {
            what: $what, action: $action, resource: $resource, namespace: $namespace, on: On::$on,
        };)*
        $(#[$doc])*
        pub const $all: &[Need] = &[$($name),*];
    };
}

needs! {
    /// Everything that capture, checkpoints and snapshots need.
    ALL:
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

needs! {
    /// What a restore needs on its target.
    RESTORE:
    READ_TARGET: Every, "read the collections", "find", "every collection", Some(("", ""));
    READ_TARGET_VIEWS: Every, "read the definitions of views", "find", "system.views of every database", Some(("", "system.views"));
    SEE_SPACE: Every, "see how much of the disk is free", "dbStats", "every database", Some(("", ""));
    CREATE_COLLECTIONS: Every, "create collections", "createCollection", "every database", Some(("", ""));
    CREATE_VIEWS: Every, "create views", "insert", "system.views of every database", Some(("", "system.views"));
    CREATE_VIEW_LISTS: Every, "create lists of views", "createCollection", "system.views of every database", Some(("", "system.views"));
    INSERT_DATA: Every, "insert documents", "insert", "every collection", Some(("", ""));
    BYPASS_VALIDATION: Every, "insert documents whatever a validator says", "bypassDocumentValidation", "every collection", Some(("", ""));
    BUILD_INDEXES: Every, "build indexes", "createIndex", "every collection", Some(("", ""));
    MODIFY_COLLECTIONS: Every, "set when documents go", "collMod", "every collection", Some(("", ""));
    MARK_TARGET: Every, "mark the target as unfinished", "insert", "the database config", Some(("config", "stillpoint.restore"));
    UNMARK_TARGET: Every, "take the mark away", "dropCollection", "the database config", Some(("config", "stillpoint.restore"));
    CONTROL_ROUTING: Every, "make servers know of collections", "internal", "the cluster", None;
    WRITE_ROUTING: ConfigServers, "write what is known of collections", "insert", "the database config", Some(("config", "chunks"));
}

needs! {
    /// What it needs besides to restore users and roles.
    RESTORE_USERS:
    WRITE_USERS: ConfigServers, "restore users", "insert", "system.users of every database", Some(("", "system.users"));
    WRITE_ROLES: ConfigServers, "restore roles", "insert", "admin.system.roles", Some(("admin", "system.roles"));
}

needs! {
    /// What a drill needs besides on a cluster that it is to empty.
    EMPTY:
    DROP_DATABASES: Shards, "drop databases", "dropDatabase", "every database", Some(("", ""));
    FORGET_DATABASES: ConfigServers, "remove what is known of databases", "remove", "config.databases", Some(("config", "databases"));
    FORGET_COLLECTIONS: ConfigServers, "remove what is known of collections", "remove", "config.collections", Some(("config", "collections"));
    FORGET_CHUNKS: ConfigServers, "remove what is known of chunks", "remove", "config.chunks", Some(("config", "chunks"));
    FORGET_ZONES: ConfigServers, "remove what is known of zones", "remove", "config.tags", Some(("config", "tags"));
}

/// What a restore needs for documents that have a timestamp of zero, which few have.
pub const UPDATE_DATA: Need = Need {
    what: "write documents with a timestamp of zero",
    action: "update",
    resource: "every collection",
    namespace: Some(("", "")),
    on: On::Every,
};

/// Needs no privilege at all.
pub const NOTHING: Need =
    Need { what: "say hello", action: "none", resource: "the server", namespace: None, on: On::Every };

/// The role's definition, for the operator's guide and the doctor.
const ROLE: &str = r#"{createRole: "stillpoint", roles: ["backup", "clusterMonitor"], privileges: [
    {resource: {cluster: true}, actions: ["internal"]},
    {resource: {db: "config", collection: "system.sharding_ddl_coordinators"}, actions: ["find"]},
    {resource: {db: "", collection: "system.views"}, actions: ["find"]},
    {resource: {db: "config", collection: "settings"}, actions: ["find", "insert", "update", "remove"]}]}"#;

/// The role that a restore needs on each part of its target; the second privilege is for `--users` only.
const RESTORE_ROLE: &str = r#"{createRole: "stillpointRestore", roles: ["restore", "backup", "clusterMonitor"], privileges: [
    {resource: {cluster: true}, actions: ["internal"]},
    {resource: {db: "admin", collection: "system.roles"}, actions: ["insert"]},
    {resource: {db: "", collection: "system.views"}, actions: ["find", "insert", "createCollection"]}]}"#;

/// The role that a drill needs on each part of the cluster that it is given.
const DRILL_ROLE: &str = r#"{createRole: "stillpointDrill", roles: ["restore", "backup", "clusterMonitor"], privileges: [
    {resource: {cluster: true}, actions: ["internal"]},
    {resource: {db: "", collection: "system.views"}, actions: ["find", "insert", "createCollection"]},
    {resource: {db: "", collection: ""}, actions: ["dropDatabase"]},
    {resource: {db: "config", collection: "databases"}, actions: ["remove"]},
    {resource: {db: "config", collection: "collections"}, actions: ["remove"]},
    {resource: {db: "config", collection: "chunks"}, actions: ["remove"]},
    {resource: {db: "config", collection: "tags"}, actions: ["remove"]}]}"#;

/// The commands that make the role and give it to `user` (`name` and `database`), or, without one,
/// make a user; to be run in mongosh on the primary of each part.
pub fn grant_commands(user: Option<(&str, &str)>) -> Vec<String> {
    grant("stillpoint", ROLE, user)
}

/// The same for the target of a restore.
pub fn restore_grant_commands() -> Vec<String> {
    grant("stillpointRestore", RESTORE_ROLE, None)
}

/// The same for the cluster that drills are given.
pub fn drill_grant_commands() -> Vec<String> {
    grant("stillpointDrill", DRILL_ROLE, None)
}

fn grant(role: &str, definition: &str, user: Option<(&str, &str)>) -> Vec<String> {
    let create = format!("db.getSiblingDB(\"admin\").runCommand({definition})");
    let user = match user {
        Some((name, database)) => format!(
            "db.getSiblingDB({database:?}).runCommand({{grantRolesToUser: {name:?}, roles: [{{role: {role:?}, db: \"admin\"}}]}})"
        ),
        None => format!(
            "db.getSiblingDB(\"admin\").createUser({{user: {role:?}, pwd: passwordPrompt(), roles: [{role:?}]}})"
        ),
    };
    vec![create, user, "if the role exists already: the first with updateRole instead of createRole".into()]
}

/// What a user has on a part, by `connectionStatus`: its name and database, if there is one.
pub(crate) struct Granted {
    pub user: Option<(String, String)>,
    privileges: Vec<Bson>,
}

impl Granted {
    pub async fn of(part: &PartLink) -> Result<Granted> {
        let status = part.run("admin", &NOTHING, doc! {"connectionStatus": 1, "showPrivileges": true}).await?;
        let auth = status.get_document("authInfo").cloned().unwrap_or_default();
        let array = |key: &str| auth.get_array(key).cloned().unwrap_or_default();
        let users = array("authenticatedUsers");
        let user = users.first().and_then(Bson::as_document).map(|user| {
            let text = |key: &str, or: &str| user.get_str(key).unwrap_or(or).to_owned();
            (text("user", "?"), text("db", "admin"))
        });
        Ok(Granted { user, privileges: array("authenticatedUserPrivileges") })
    }

    /// Those of the needs that concern the part and that it may not.
    pub fn lacks(&self, needs: &'static [Need], part: &PartId) -> Vec<&'static Need> {
        needs.iter().filter(|need| need.concerns(part) && !granted(&self.privileges, need)).collect()
    }
}

/// What of `needs` the user may not do on a part; nothing if the part asks for no user.
pub(crate) async fn missing(part: &PartLink, needs: &'static [Need]) -> Result<Vec<&'static Need>> {
    let granted = Granted::of(part).await?;
    Ok(if granted.user.is_some() { granted.lacks(needs, &part.id) } else { Vec::new() })
}

fn granted(privileges: &[Bson], need: &Need) -> bool {
    privileges.iter().filter_map(Bson::as_document).any(|privilege| {
        let actions = privilege.get_array("actions").map(Vec::as_slice).unwrap_or_default();
        let resource = privilege.get_document("resource").ok();
        let allows = actions.iter().any(|action| action.as_str().is_some_and(|a| a == need.action || a == "anyAction"));
        allows && resource.is_some_and(|resource| covers(resource, need))
    })
}

fn covers(resource: &Document, need: &Need) -> bool {
    if resource.get_bool("anyResource").unwrap_or(false) {
        return true;
    }
    match need.namespace {
        None => resource.get_bool("cluster").unwrap_or(false),
        Some((database, collection)) => {
            // An empty collection's name stands for all of a database but its system collections. An
            // empty database's name does not stand for local and config, whose privileges the built-in
            // roles name themselves.
            let is = |key: &str, name: &str| resource.get_str(key).is_ok_and(|value| value == name);
            let any = is("collection", "") && !collection.starts_with("system.");
            is("db", database) && (is("collection", collection) || any)
        }
    }
}
