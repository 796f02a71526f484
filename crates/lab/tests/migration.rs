//! Chunks move, a migration can be held open, and the balancer's state can be seen and set.

use bson::doc;
use stillpoint_lab::Lab;
use stillpoint_lab::routing::Routing;

#[tokio::test]
async fn a_held_migration_is_visible_and_ends_when_released() {
    let lab = Lab::builder().test_commands(true).start().await.unwrap();
    let begin = std::time::Instant::now();
    lab.create_database("bank", 0).await.unwrap();
    lab.shard_collection("bank.acct", &[0.into(), 1000.into()], &[0, 1, 0]).await.unwrap();
    eprintln!("sharded in {:?}", begin.elapsed());
    let routing = Routing::load(&lab.topology(), "bank.acct").await.unwrap();
    assert_eq!(routing.owner(&5.into()).unwrap(), "rs1");
    assert_eq!(routing.owner(&1000.into()).unwrap(), "rs0");
    let held = lab.hold_migration("bank.acct", 1000, "rs1").await.unwrap();
    let coordinators = lab.shard(0).client().database("config").collection::<bson::Document>("migrationCoordinators");
    assert_eq!(coordinators.count_documents(doc! {}).await.unwrap(), 1);
    held.release().await.unwrap();
    assert_eq!(coordinators.count_documents(doc! {}).await.unwrap(), 0);
    let routing = Routing::load(&lab.topology(), "bank.acct").await.unwrap();
    assert_eq!(routing.owner(&1000.into()).unwrap(), "rs1");
}

#[tokio::test]
async fn the_balancer_is_seen_stopped_started_and_put_back() {
    let lab = Lab::builder().shards(1).start().await.unwrap();
    let untouched = lab.balancer_documents().await.unwrap();
    assert_eq!(untouched, Default::default());
    lab.operator_stops_balancer().await.unwrap();
    let stopped = lab.balancer_documents().await.unwrap();
    assert_eq!(stopped.balancer.unwrap().get_str("mode").unwrap(), "off");
    lab.operator_starts_balancer().await.unwrap();
    let started = lab.balancer_documents().await.unwrap();
    assert_eq!(started.balancer.unwrap().get_str("mode").unwrap(), "full");
    lab.set_balancer_documents(&untouched).await.unwrap();
    assert_eq!(lab.balancer_documents().await.unwrap(), untouched);
}
