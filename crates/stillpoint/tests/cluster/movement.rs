//! Tokens wait until nothing moves, and not for ever.

use bson::doc;
use stillpoint_core::checkpoint::{PutBack, Reason, State};
use stillpoint_lab::mongod::mongod;
use stillpoint_lab::replica_set::{Plan, ReplicaSet, Role};
use stillpoint_lab::wire::majority;

use crate::support::{
    LIMITS, SOON, Server, assert_balancer, assert_failed, assert_tokens, hold_migration, lab, never_configured,
    with_window,
};

#[tokio::test]
async fn a_checkpoint_waits_for_a_migration_to_end() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    let migration = hold_migration(&lab).await;
    let id = server.held_up(&lab).await;
    let held = server.record(id).await;
    assert!(held.clock.is_none() && held.parts.iter().all(|part| part.token.is_none()), "{held:?}");
    let status = server.status().await;
    assert_eq!(status["newest"]["state"], "HOLDING");
    assert!(status["newest"]["trouble"]["text"].as_str().unwrap().contains("migration"), "{status}");
    assert!(status["newest"]["balancerHeldSince"].is_string(), "{status}");
    migration.release().await.unwrap();
    let record = server.end_of(id, SOON).await;
    assert_tokens(&lab, &record).await;
    assert_eq!(record.trouble, None);
}

#[tokio::test]
async fn a_migration_that_does_not_end_in_time_fails_the_checkpoint() {
    let lab = lab().await;
    let limits = LIMITS.replace("quiet = \"30s\"", "quiet = \"2s\"");
    let server = Server::with(&lab, &format!("interval = \"off\"\n{limits}")).await;
    lab.set_balancer_documents(&with_window()).await.unwrap();
    let migration = hold_migration(&lab).await;
    let record = server.take().await;
    assert_failed(&record, Reason::DataMoving);
    assert_eq!(record.released.as_ref().unwrap().how, PutBack::AsFound);
    assert!(record.parts.iter().all(|part| part.token.is_none()), "{record:?}");
    assert_balancer(&lab, &with_window(), "after a failed checkpoint").await;
    migration.release().await.unwrap();
    server.complete().await;
}

#[tokio::test]
async fn a_shard_that_comes_during_the_hold_fails_the_checkpoint() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    let plan = Plan {
        name: "rs2".into(),
        role: Role::Shard,
        members: 1,
        test_commands: true,
        oplog: 200,
        parameters: Vec::new(),
        binary: mongod().await.unwrap(),
        users: None,
        board: None,
    };
    let new = ReplicaSet::start(plan).await.unwrap();
    let migration = hold_migration(&lab).await;
    let id = server.held_up(&lab).await;
    let add = doc! {"_configsvrAddShard": new.endpoint().seed_list(), "name": "rs2", "writeConcern": majority()};
    lab.config().run("admin", add).await.unwrap();
    migration.release().await.unwrap();
    let record = server.end_of(id, SOON).await;
    assert_failed(&record, Reason::PartsChanged);
    assert_balancer(&lab, &never_configured(), "after a failed checkpoint").await;
    let next = server.complete().await;
    assert_eq!(next.parts.len(), 4);
    assert_eq!(next.state, State::Completed);
}
