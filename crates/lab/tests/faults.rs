//! Each fault does to a replica set what its name says, and ends.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use mongodb::options::{ClientOptions, WriteConcern};
use stillpoint_lab::wait::until;
use stillpoint_lab::{Lab, ReplicaSet};

const LIMIT: Duration = Duration::from_secs(60);

/// A client that gives up quickly, so that a test can see that nobody answers.
async fn impatient(set: &ReplicaSet) -> Client {
    let mut options = ClientOptions::parse(set.uri()).await.unwrap();
    options.server_selection_timeout = Some(Duration::from_secs(2));
    options.connect_timeout = Some(Duration::from_secs(2));
    Client::with_options(options).unwrap()
}

/// Majority-committed, or it could be rolled back by the next fault. Tried again, because a
/// shard's new primary refuses the first write to a collection (13388) and then learns of it.
async fn insert(set: &ReplicaSet) {
    let collection = set.client().database("test").collection::<Document>("c");
    let insert = || async {
        let insert = collection.insert_one(doc! {});
        insert.write_concern(WriteConcern::majority()).await.ok()
    };
    until(LIMIT, insert).await.unwrap();
}

#[tokio::test]
async fn a_single_member_steps_down_and_comes_back() {
    let set = Lab::plain_replica_set().await.unwrap();
    let term = |hello: Document| hello.get_object_id("electionId").unwrap();
    let before = term(set.run("admin", doc! {"hello": 1}).await.unwrap());
    assert_eq!(set.step_down().await.unwrap(), 0);
    let after = term(set.run("admin", doc! {"hello": 1}).await.unwrap());
    assert_ne!(before, after);
    insert(&set).await;
    set.step_down_for_a_moment().await.unwrap();
    assert_ne!(after, term(set.run("admin", doc! {"hello": 1}).await.unwrap()));
    insert(&set).await;
}

#[tokio::test]
async fn a_killed_member_is_gone_until_it_is_restarted_with_its_data() {
    let set = Lab::plain_replica_set().await.unwrap();
    insert(&set).await;
    set.kill(0).await.unwrap();
    assert!(set.pids().await.is_empty());
    assert!(set.primary().await.is_err());
    set.restart(0).await.unwrap();
    set.wait_for_primary(LIMIT).await.unwrap();
    let collection = set.client().database("test").collection::<Document>("c");
    assert_eq!(collection.count_documents(doc! {}).await.unwrap(), 1);
}

#[tokio::test]
async fn a_frozen_member_does_not_answer_until_it_is_thawed() {
    let set = Lab::plain_replica_set().await.unwrap();
    set.freeze(0).await.unwrap();
    let client = impatient(&set).await;
    assert!(client.list_database_names().await.is_err());
    set.thaw(0).await.unwrap();
    set.wait_for_primary(LIMIT).await.unwrap();
    insert(&set).await;
}

#[tokio::test]
async fn the_others_elect_a_primary_when_it_steps_down_dies_or_is_cut_off() {
    let lab = Lab::builder().shards(1).members(3).cuttable(true).start().await.unwrap();
    let set = lab.shard(0);
    let first = set.primary().await.unwrap();
    let second = set.step_down().await.unwrap();
    assert_ne!(first, second);
    insert(set).await;

    set.wait_for_all(LIMIT).await.unwrap();
    let dead = set.kill_primary().await.unwrap();
    let third = set.wait_for_primary(LIMIT).await.unwrap();
    assert_ne!(dead, third);
    insert(set).await;
    set.restart(dead).await.unwrap();
    set.wait_for_all(LIMIT).await.unwrap();

    let lonely = set.primary().await.unwrap();
    set.cut(lonely).await.unwrap();
    let fourth = set.wait_for_primary(LIMIT).await.unwrap();
    assert_ne!(lonely, fourth);
    insert(set).await;
    // Cut off both ways: it steps down as it hears from nobody, and stays behind.
    assert!(set.wait_for_all(Duration::from_secs(1)).await.is_err());
    set.mend(lonely).await.unwrap();
    set.wait_for_all(LIMIT).await.unwrap();
    assert_eq!(set.client().database("test").collection::<Document>("c").count_documents(doc! {}).await.unwrap(), 3);
}

#[tokio::test]
async fn a_cut_off_single_member_lives_but_cannot_be_reached() {
    let lab = Lab::builder().shards(1).cuttable(true).start().await.unwrap();
    let set = lab.shard(0);
    set.cut(0).await.unwrap();
    assert_eq!(set.pids().await.len(), 1);
    let client = impatient(set).await;
    assert!(client.list_database_names().await.is_err());
    set.mend(0).await.unwrap();
    insert(set).await;
}
