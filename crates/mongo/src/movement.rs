//! What moves data or changes the sharded catalogue right now.
//!
//! A stopped balancer says nothing of migrations that were started by hand, nor (before the fix of
//! SERVER-100155) of one whose round a step-down interrupted; so the shards themselves are asked.

use bson::{Document, doc};
use futures::future::try_join_all;
use stillpoint_core::checkpoint::PartId;

use crate::error::Result;
use crate::link::{PartLink, read_config};
use crate::privileges::{Need, READ_CONFIG, SEE_DDL, SEE_OPERATIONS};

/// Collections of `config` that hold a document for as long as something is under way, on every part
/// (one that a part does not have is empty), and what a document in it means.
const MARKS: &[(&str, &str, &Need)] = &[
    ("migrations", "a migration", &READ_CONFIG),
    ("migrationCoordinators", "a migration", &READ_CONFIG),
    ("migrationRecipients", "a migration", &READ_CONFIG),
    // Its name begins with `system.`, so that a right to read the database does not cover it.
    ("system.sharding_ddl_coordinators", "a DDL operation", &SEE_DDL),
    ("reshardingOperations", "resharding", &READ_CONFIG),
    ("localReshardingOperations.donor", "resharding", &READ_CONFIG),
    ("localReshardingOperations.recipient", "resharding", &READ_CONFIG),
];

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
    let marks = async {
        let looks = MARKS.iter().map(|(collection, meaning, need)| async move {
            let rows = read_config(part, need, collection, doc! {}, 3).await?;
            Ok(rows.iter().map(|row| in_words(&part.id, meaning, row)).collect::<Vec<_>>())
        });
        Ok(try_join_all(looks).await?.concat())
    };
    let (marks, operations) = tokio::try_join!(marks, operations(part))?;
    Ok([marks, operations].concat())
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

fn in_words(part: &PartId, meaning: &str, row: &Document) -> String {
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
        Some((*name, command.get_str(name).unwrap_or("?")))
    });
    match named {
        Some((name, namespace)) => format!("{name} of {namespace} on {part}"),
        None => format!("a chunk being received on {part}"),
    }
}
