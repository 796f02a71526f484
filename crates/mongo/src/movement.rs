//! What moves data or changes the sharded catalogue right now.
//!
//! A stopped balancer says nothing of migrations that were started by hand, nor (before the fix of
//! SERVER-100155) of one whose round a step-down interrupted; so the shards themselves are asked.

use bson::{Document, doc};
use futures::future::try_join_all;
use stillpoint_core::checkpoint::PartId;

use crate::error::Result;
use crate::part::PartLink;
use crate::privileges::{SEE_DDL, SEE_OPERATIONS};

/// Collections of `config` that hold a document for as long as something is under way (one that does not
/// exist is empty), and what a document in it means. The first is read with the right that is most
/// easily missing: its name begins with `system.`.
const ON_EVERY_PART: (&str, &str) = ("system.sharding_ddl_coordinators", "a DDL operation");
const ON_SHARDS: &[(&str, &str)] = &[
    ("migrationCoordinators", "a migration"),
    ("migrationRecipients", "a migration"),
    ("localReshardingOperations.donor", "resharding"),
    ("localReshardingOperations.recipient", "resharding"),
];
const ON_CONFIG_SERVERS: &[(&str, &str)] = &[("migrations", "a migration"), ("reshardingOperations", "resharding")];

/// Commands that move data or change the sharded catalogue while they run.
const COMMANDS: &[&str] = &[
    "moveChunk",
    "movePrimary",
    "moveRange",
    "moveCollection",
    "reshardCollection",
    "unshardCollection",
    "_configsvrMoveChunk",
    "_configsvrMovePrimary",
    "_configsvrMoveRange",
    "_configsvrReshardCollection",
    "_recvChunkStart",
    "_shardsvrMoveRange",
    "_shardsvrMovePrimary",
    "_shardsvrReshardCollection",
    "_shardsvrRenameCollection",
    "_shardsvrDropCollection",
    "_shardsvrDropDatabase",
    "_shardsvrCreateCollection",
    "_shardsvrRefineCollectionShardKey",
    "_shardsvrCollMod",
];

/// The server's own thread that receives a chunk.
const MIGRATE_THREAD: &str = "migrateThread";

/// Everything under way on any part, in words; empty when all is quiet.
pub async fn look(parts: &[PartLink]) -> Result<Vec<String>> {
    let looks = try_join_all(parts.iter().map(look_at)).await?;
    let mut moving: Vec<_> = looks.into_iter().flatten().collect();
    moving.sort();
    moving.dedup();
    Ok(moving)
}

async fn look_at(part: &PartLink) -> Result<Vec<String>> {
    let (marks, operations) = tokio::try_join!(marks(part), operations(part))?;
    Ok([marks, operations].concat())
}

/// All marks in one command: this is done while the balancer is held.
async fn marks(part: &PartLink) -> Result<Vec<String>> {
    let marked = |meaning: &str| doc! {"$project": {"nss": 1, "ns": 1, "meaning": meaning}};
    let (first, meaning) = ON_EVERY_PART;
    let others = match part.id {
        PartId::Shard(_) => ON_SHARDS,
        PartId::ConfigServers => ON_CONFIG_SERVERS,
    };
    let mut pipeline = vec![marked(meaning)];
    for (collection, meaning) in others {
        pipeline.push(doc! {"$unionWith": {"coll": *collection, "pipeline": [marked(meaning)]}});
    }
    pipeline.push(doc! {"$limit": 10});
    let command = doc! {
        "aggregate": first,
        "pipeline": pipeline,
        "cursor": {},
        "readConcern": {"level": "majority"},
        "maxTimeMS": 10_000,
    };
    let found = part.first_batch("config", &SEE_DDL, command).await?;
    Ok(found.iter().map(|row| in_words(&part.id, row)).collect())
}

async fn operations(part: &PartLink) -> Result<Vec<String>> {
    let names: Vec<_> = COMMANDS.iter().map(|name| doc! {format!("command.{name}"): {"$exists": true}}).collect();
    let mut any = names;
    any.push(doc! {"desc": MIGRATE_THREAD});
    let command = doc! {
        "aggregate": 1,
        "pipeline": [
            {"$currentOp": {"allUsers": true, "idleConnections": false}},
            {"$match": {"$or": any}},
            {"$limit": 5},
            {"$project": {"desc": 1, "command": 1}},
        ],
        "cursor": {},
        "maxTimeMS": 10_000,
    };
    let found = part.first_batch("admin", &SEE_OPERATIONS, command).await?;
    Ok(found.iter().map(|operation| operation_in_words(&part.id, operation)).collect())
}

fn in_words(part: &PartId, row: &Document) -> String {
    let meaning = row.get_str("meaning").unwrap_or("something");
    let namespace = ["nss", "ns"].iter().find_map(|key| row.get_str(key).ok());
    // DDL coordinators keep theirs inside the _id.
    let inner = row.get_document("_id").ok().and_then(|id| id.get_str("namespace").ok());
    match namespace.or(inner) {
        Some(namespace) => format!("{meaning} of {namespace} on {part}"),
        None => format!("{meaning} on {part}"),
    }
}

fn operation_in_words(part: &PartId, operation: &Document) -> String {
    let command = operation.get_document("command").ok();
    let named = command.and_then(|command| {
        let name = COMMANDS.iter().find(|name| command.contains_key(**name))?;
        let namespace = command.get_str(name).unwrap_or("?");
        // Commands on a collection's own database name just the collection.
        match command.get_str("$db") {
            Ok(database) if database != "admin" && !namespace.contains('.') => {
                Some((*name, format!("{database}.{namespace}")))
            }
            _ => Some((*name, namespace.to_owned())),
        }
    });
    match named {
        Some((name, namespace)) => format!("{name} of {namespace} on {part}"),
        None => format!("a chunk being received on {part}"),
    }
}
