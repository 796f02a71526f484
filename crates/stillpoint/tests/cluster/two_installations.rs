//! Two installations, each with a catalog of its own, look after one cluster by mistake.

use bson::doc;
use stillpoint_core::checkpoint::{PutBack, Reason, State};
use stillpoint_lab::wait::until;

use crate::support::{SOON, Server, assert_balancer, assert_failed, hold_migration, lab, started_by_command};

#[tokio::test]
async fn holds_that_overlap_do_not_take_each_other_for_an_operator() {
    let lab = lab().await;
    let (first, second) = (Server::of(&lab).await, Server::of(&lab).await);
    lab.set_balancer_documents(&started_by_command()).await.unwrap();

    // The second reads the balancer before the first stops it, and stops it after.
    let migration = hold_migration(&lab).await;
    let pause = doc! {
        "configureFailPoint": "failCommand",
        "mode": {"times": 1},
        "data": {"failCommands": ["_configsvrBalancerStop"], "blockConnection": true, "blockTimeMS": 3_000},
    };
    lab.config().run("admin", pause).await.unwrap();
    let late = second.ask().await;
    let holding = |record: &stillpoint_core::checkpoint::Checkpoint| record.state == State::Holding;
    second.until(late, SOON, holding).await;
    let early = first.held_up(&lab).await;
    let logged = until(SOON, || async { (stops_logged(&lab).await >= 2).then_some(()) });
    logged.await.expect("both stops are in the action log");
    migration.release().await.unwrap();

    let (early, late) = (first.end_of(early, SOON).await, second.end_of(late, SOON).await);
    assert_balancer(&lab, &started_by_command(), "after both").await;
    let started = [&early, &late].map(|record| record.released.as_ref().unwrap().how == PutBack::StartedByOthers);
    for (record, started) in [(&early, started[0]), (&late, started[1])] {
        match started {
            true => assert_failed(record, Reason::BalancerStartedByOthers),
            false => assert_eq!(record.state, State::Completed, "{record:?}"),
        }
    }
}

async fn stops_logged(lab: &stillpoint_lab::Lab) -> u64 {
    let log = lab.config().client().database("config").collection::<bson::Document>("actionlog");
    log.count_documents(doc! {"what": "balancer.stop"}).await.unwrap()
}
