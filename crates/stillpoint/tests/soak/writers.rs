//! What the workload does not do: updates and deletes of many, collections that come and go, and
//! transactions too large for one entry.

use std::time::Duration;

use bson::{Document, doc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stillpoint_lab::Lab;
use stillpoint_lab::endpoint::Topology;
use stillpoint_lab::transaction::Transaction;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const PAUSE: Duration = Duration::from_millis(50);
const BETWEEN_LARGE: Duration = Duration::from_secs(5);
/// Two of these are more than an entry takes.
const LARGE: usize = 9 << 20;
/// Beyond all that the workload writes.
const FAR: i64 = 1 << 42;

#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    pub rounds: u64,
    pub large: u64,
}

/// Writes until it is told to stop. What a fault undoes is left undone.
pub fn start(lab: &Lab, seed: u64, stop: watch::Receiver<bool>) -> JoinHandle<Written> {
    let clients: Vec<_> = lab.shards().iter().map(|shard| shard.client().clone()).collect();
    let (topology, stop_large) = (lab.topology(), stop.clone());
    tokio::spawn(async move {
        let many = async {
            let (mut rng, mut rounds) = (StdRng::seed_from_u64(seed), 0);
            while !*stop.borrow() {
                let client = &clients[rng.random_range(0..clients.len())];
                rounds += u64::from(change_many(client, &mut rng).await.is_ok());
                sleep(PAUSE).await;
            }
            rounds
        };
        let large = async {
            let (mut large, mut stopped) = (0, stop_large);
            for number in 0.. {
                let pause = sleep(BETWEEN_LARGE);
                tokio::select! { () = pause => {} _ = stopped.wait_for(|stop| *stop) => break }
                large += u64::from(large_transaction(&topology, number).await.is_ok());
            }
            large
        };
        let (rounds, large) = tokio::join!(many, large);
        Written { rounds, large }
    })
}

async fn change_many(client: &mongodb::Client, rng: &mut StdRng) -> mongodb::error::Result<()> {
    let name = format!("c{}", rng.random_range(0..3));
    let collection = client.database("churn").collection::<Document>(&name);
    let number: i32 = rng.random();
    match rng.random_range(0..8) {
        0..4 => {
            let documents = (0..20).map(|n| doc! {"n": n, "number": number, "text": "x".repeat(100)});
            collection.insert_many(documents).await.map(drop)
        }
        4 | 5 => collection
            .update_many(doc! {"n": {"$lt": 5}}, doc! {"$inc": {"n": 1}, "$set": {"u": number}})
            .await
            .map(drop),
        6 => collection.delete_many(doc! {"n": {"$gt": 12}}).await.map(drop),
        _ => collection.drop().await,
    }
}

/// On one shard more than an entry takes, on the other a little.
async fn large_transaction(topology: &Topology, number: i64) -> anyhow::Result<()> {
    let large =
        |id: i64| doc! {"insert": "accounts", "documents": [{"_id": id, "kind": "large", "text": "x".repeat(LARGE)}]};
    let mut transaction = Transaction::begin(topology);
    let mut written = Ok(());
    for (shard, id) in [("rs0", -FAR - 2 * number), ("rs0", -FAR - 2 * number - 1), ("rs1", FAR + number)] {
        let statement = match shard {
            "rs0" => large(id),
            _ => doc! {"insert": "accounts", "documents": [{"_id": id, "kind": "small"}]},
        };
        written = transaction.run(shard, "bank", statement).await.map(drop);
        if written.is_err() {
            break;
        }
    }
    match written {
        Ok(()) if number % 3 == 2 => transaction.prepare().await?.abort().await,
        Ok(()) => transaction.prepare().await?.commit().await.map(drop),
        Err(error) => {
            transaction.abort().await?;
            Err(error)
        }
    }
}
