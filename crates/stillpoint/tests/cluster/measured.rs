//! What MongoDB does, measured: the facts that the protocol rests on.

use bson::{Document, doc};
use stillpoint_lab::Lab;
use stillpoint_lab::wire::operation_time;

use crate::support::{
    assert_balancer, documents, never_configured, oplog, started_by_command, stopped_by_command, with_window,
};

async fn one_shard() -> Lab {
    Lab::builder().shards(1).start().await.unwrap()
}

/// The entries of `config.actionlog` on the balancer, oldest first.
async fn actions(lab: &Lab) -> Vec<Document> {
    let of_balancer =
        doc! {"ns": "config.actionlog", "op": "i", "o.what": {"$in": ["balancer.stop", "balancer.start"]}};
    let entries = oplog(lab.config(), of_balancer).await;
    entries.into_iter().map(|entry| entry.get_document("o").unwrap().clone()).collect()
}

/// The entries of `config.settings`.
async fn writes(lab: &Lab) -> usize {
    oplog(lab.config(), doc! {"ns": "config.settings", "op": {"$in": ["i", "u", "d"]}}).await.len()
}

#[tokio::test]
async fn a_stop_of_a_balancer_never_touched_writes_both_documents_and_who_it_was() {
    let lab = one_shard().await;
    assert_balancer(&lab, &never_configured(), "at first").await;
    assert_eq!(writes(&lab).await, 0);
    let primary = lab.config().primary().await.unwrap();
    let mut connection = lab.config().endpoint().connect(primary).await.unwrap();
    let mine = connection.run("admin", doc! {"whatsmyuri": 1}).await.unwrap();
    let stop = doc! {"_configsvrBalancerStop": 1, "maxTimeMS": 10_000};
    connection.run("admin", stop.clone()).await.unwrap();
    assert_balancer(&lab, &stopped_by_command(), "after a stop").await;
    let (first, written) = (actions(&lab).await, writes(&lab).await);
    assert_eq!((first.len(), written), (1, 2), "{first:?}");
    assert_eq!(first[0].get_str("what").unwrap(), "balancer.stop");
    assert_eq!(first[0].get_str("clientAddr").unwrap(), mine.get_str("you").unwrap());
    // The settings come first, so that their writer can be told by what follows.
    let both = oplog(lab.config(), doc! {"ns": {"$in": ["config.settings", "config.actionlog"]}, "op": "i"}).await;
    let names: Vec<_> = both.iter().map(|entry| entry.get_str("ns").unwrap()).collect();
    let last = names.iter().rposition(|name| *name == "config.settings").unwrap();
    assert!(names[last..].contains(&"config.actionlog"), "{names:?}");

    connection.run("admin", stop).await.unwrap();
    assert_eq!(writes(&lab).await, written, "a stop of a stopped balancer changes nothing");
    assert_eq!(actions(&lab).await.len(), 2, "and is noted all the same");
}

#[tokio::test]
async fn a_stop_refuses_a_write_concern() {
    let lab = one_shard().await;
    let stop = doc! {"_configsvrBalancerStop": 1, "maxTimeMS": 10_000, "writeConcern": {"w": "majority"}};
    let error = lab.config().run("admin", stop).await.unwrap_err();
    assert_eq!(stillpoint_lab::wire::code(&error), Some(72), "{error:#}");
    assert_balancer(&lab, &never_configured(), "after a refused stop").await;
}

#[tokio::test]
async fn a_stop_and_a_start_set_their_fields_and_leave_the_others() {
    let lab = one_shard().await;
    lab.set_balancer_documents(&with_window()).await.unwrap();
    lab.operator_stops_balancer().await.unwrap();
    let mut expected = with_window();
    let balancer = expected.balancer.as_mut().unwrap();
    balancer.insert("stopped", true);
    balancer.insert("mode", "off");
    expected.autosplit = Some(doc! {"_id": "autosplit", "enabled": false});
    assert_balancer(&lab, &expected, "after a stop").await;

    let balancer = doc! {"_id": "balancer", "mode": "autoSplitOnly", "stopped": true};
    let found = documents(Some(balancer), Some(doc! {"_id": "autosplit", "enabled": false}));
    lab.set_balancer_documents(&found).await.unwrap();
    lab.operator_starts_balancer().await.unwrap();
    assert_balancer(&lab, &started_by_command(), "a start is no way to put a balancer back").await;
    let last = actions(&lab).await.pop().unwrap();
    assert_eq!(last.get_str("what").unwrap(), "balancer.start");
}

#[tokio::test]
async fn a_note_that_is_told_a_later_cluster_time_is_after_it() {
    let lab = one_shard().await;
    let shard = lab.shard(0);
    let note = |n: i32| doc! {"appendOplogNote": 1, "data": {"test": n}, "writeConcern": {"w": "majority"}};
    let ahead = lab.config();
    let untold = operation_time(&shard.run("admin", note(0)).await.unwrap()).unwrap();
    let mut told = ahead.run("admin", doc! {"ping": 1}).await.unwrap().get_document("$clusterTime").unwrap().clone();
    let time = bson::Timestamp { time: untold.time + 120, increment: 3 };
    told.insert("clusterTime", time);
    let mut with_time = note(1);
    with_time.insert("$clusterTime", told);
    shard.run("admin", with_time).await.unwrap();
    let entries = oplog(shard, doc! {"op": "n", "o.test": {"$in": [0, 1]}}).await;
    let times: Vec<_> = entries.iter().map(|entry| entry.get_timestamp("ts").unwrap()).collect();
    assert!(times.len() == 2 && times[0] < time && times[1] > time, "{times:?} with {time}");
}
