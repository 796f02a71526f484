//! The least-privileged user of a lab with authentication may do what a checkpoint needs, on
//! every part, and no more.

use bson::{Document, doc};
use mongodb::Client;
use stillpoint_lab::Lab;

#[tokio::test]
async fn the_user_may_do_what_a_checkpoint_needs_and_no_more() {
    let lab = Lab::builder().shards(1).auth(true).start().await.unwrap();
    assert!(lab.uri().contains("stillpoint:"));
    for part in lab.parts() {
        let client = Client::with_uri_str(part.uri()).await.unwrap();
        let admin = client.database("admin");
        let note = doc! {"appendOplogNote": 1, "data": {"token": 1}, "writeConcern": {"w": "majority"}};
        admin.run_command(note).await.unwrap();
        let oplog = client.database("local").collection::<Document>("oplog.rs");
        assert!(oplog.find_one(doc! {"o.token": 1}).await.unwrap().is_some());
        admin
            .run_command(doc! {
                "aggregate": 1,
                "pipeline": [{"$currentOp": {"allUsers": true, "localOps": true}}],
                "cursor": {},
            })
            .await
            .unwrap();
        admin.run_command(doc! {"replSetGetStatus": 1}).await.unwrap();
        let other = client.database("bank").collection::<Document>("acct");
        assert!(other.insert_one(doc! {}).await.is_err());
    }
    let client = Client::with_uri_str(lab.uri()).await.unwrap();
    let config = client.database("config");
    let shards = config.collection::<Document>("shards");
    assert_eq!(shards.count_documents(doc! {}).await.unwrap(), 1);
    let settings = config.collection::<Document>("settings");
    let balancer = doc! {"_id": "balancer", "mode": "full", "stopped": false};
    settings.replace_one(doc! {"_id": "balancer"}, &balancer).upsert(true).await.unwrap();
    assert_eq!(settings.find_one(doc! {"_id": "balancer"}).await.unwrap(), Some(balancer));
    settings.delete_one(doc! {"_id": "balancer"}).await.unwrap();
    let admin = client.database("admin");
    for command in ["_configsvrBalancerStop", "_configsvrBalancerStatus", "_configsvrBalancerStart"] {
        admin.run_command(doc! {command: 1, "maxTimeMS": 10_000}).await.unwrap();
    }
    assert!(config.collection::<Document>("chunks").delete_many(doc! {}).await.is_err());
}

#[tokio::test]
async fn nobody_gets_in_without_a_password() {
    let lab = Lab::builder().shards(1).auth(true).start().await.unwrap();
    let addresses = lab.config().endpoint().connection_string(None);
    let client = Client::with_uri_str(addresses).await.unwrap();
    assert!(client.list_database_names().await.is_err());
}
