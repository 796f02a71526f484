//! The workload's totals add up at any cluster time, whatever happens to the cluster meanwhile.

use std::time::Duration;

use bson::{Timestamp, doc};
use stillpoint_lab::wait::until;
use stillpoint_lab::wire::Gossip;
use stillpoint_lab::workload::total_at;
use stillpoint_lab::{Lab, Workload, snapshot};

const NS: &str = "bank.acct";
const LIMIT: Duration = Duration::from_secs(60);

async fn banking(lab: &Lab) -> Workload {
    lab.create_database("bank", 0).await.unwrap();
    lab.shard_collection(NS, &[0.into(), 1_000_000.into()], &[0, 1, 0]).await.unwrap();
    Workload::start(lab, NS, 4).await.unwrap()
}

async fn transfers(workload: &Workload, more: u64) {
    let goal = workload.summary().transfers + more;
    until(LIMIT, || async { (workload.summary().transfers >= goal).then_some(()) })
        .await
        .unwrap_or_else(|| panic!("no {more} transfers in time: {:?}", workload.summary()));
}

async fn adds_up(lab: &Lab, workload: &Workload) {
    let time: Timestamp = workload.acknowledged();
    assert_eq!(total_at(lab, NS, time).await.unwrap(), workload.summary().total, "at {time}");
}

/// Stops it, and compares what is there with what was acknowledged.
async fn settled(lab: &Lab, workload: Workload) {
    let summary = workload.stop().await.unwrap();
    eprintln!("{summary:?}");
    let mut notes = 0;
    let mut balances = 0;
    for shard in lab.topology().shards.iter() {
        for document in
            snapshot::find(shard, &Gossip::default(), NS, snapshot::ReadAt::Majority, doc! {}).await.unwrap()
        {
            match document.get_i64("balance") {
                Ok(balance) => balances += balance,
                Err(_) => notes += 1,
            }
        }
    }
    assert_eq!(notes, summary.inserts);
    assert_eq!(balances, summary.total);
    assert!(summary.held > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_add_up_at_every_acknowledged_time() {
    let lab = Lab::builder().start().await.unwrap();
    let workload = banking(&lab).await;
    for _ in 0..5 {
        transfers(&workload, 10).await;
        adds_up(&lab, &workload).await;
    }
    settled(&lab, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_survive_migrations_with_auth() {
    let lab = Lab::builder().auth(true).start().await.unwrap();
    let workload = banking(&lab).await;
    for to in ["rs0", "rs1"] {
        transfers(&workload, 5).await;
        lab.move_range(NS, 0, to).await.unwrap();
        transfers(&workload, 5).await;
        adds_up(&lab, &workload).await;
    }
    settled(&lab, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_survive_step_downs_and_kills() {
    let lab = Lab::builder().start().await.unwrap();
    let workload = banking(&lab).await;
    transfers(&workload, 5).await;
    lab.shard(0).step_down().await.unwrap();
    transfers(&workload, 5).await;
    lab.shard(1).kill(0).await.unwrap();
    lab.shard(1).restart(0).await.unwrap();
    transfers(&workload, 5).await;
    lab.config().step_down().await.unwrap();
    transfers(&workload, 5).await;
    adds_up(&lab, &workload).await;
    settled(&lab, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_survive_the_loss_of_primaries() {
    let lab = Lab::builder().members(3).cuttable(true).start().await.unwrap();
    let workload = banking(&lab).await;
    transfers(&workload, 5).await;
    let dead = lab.shard(0).kill_primary().await.unwrap();
    transfers(&workload, 5).await;
    lab.shard(0).restart(dead).await.unwrap();
    let lonely = lab.shard(1).primary().await.unwrap();
    lab.shard(1).cut(lonely).await.unwrap();
    transfers(&workload, 5).await;
    lab.shard(1).mend(lonely).await.unwrap();
    let frozen = lab.shard(0).wait_for_primary(LIMIT).await.unwrap();
    lab.shard(0).freeze(frozen).await.unwrap();
    transfers(&workload, 5).await;
    lab.shard(0).thaw(frozen).await.unwrap();
    for shard in lab.shards() {
        shard.wait_for_all(LIMIT).await.unwrap();
    }
    adds_up(&lab, &workload).await;
    settled(&lab, workload).await;
}
