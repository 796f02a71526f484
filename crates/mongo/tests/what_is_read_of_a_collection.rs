//! A collection that is read: each batch has a limit of time, and all of them together none; and none is long.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, doc};
use secrecy::SecretString;
use stillpoint_lab::{Lab, ReplicaSet};
use stillpoint_mongo::snapshot::{Order, ReadError, When};
use stillpoint_mongo::{ClusterLink, MongoError, PartLink};
use tokio::time::timeout;

/// Of one batch, and some more for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const BUSY: Duration = Duration::from_secs(15);
/// Documents of a megabyte, of which a batch has sixteen at most.
const DOCUMENTS: usize = 64;

async fn fill(set: &ReplicaSet) -> Result<[u8; 16]> {
    for from in (0..DOCUMENTS).step_by(16) {
        let large = Binary { subtype: BinarySubtype::Generic, bytes: vec![0; 1 << 20] };
        let documents: Vec<_> = (from..from + 16).map(|n| doc! {"_id": n as i32, "large": large.clone()}).collect();
        // It is read as of a time at which a majority has all of it.
        set.run("shop", doc! {"insert": "large", "documents": documents, "writeConcern": {"w": "majority"}}).await?;
    }
    uuid_of(set, "large").await
}

async fn uuid_of(set: &ReplicaSet, name: &str) -> Result<[u8; 16]> {
    let listed = set.run("shop", doc! {"listCollections": 1, "filter": {"name": name}}).await?;
    let first = listed.get_document("cursor")?.get_array("firstBatch")?[0].as_document().context("no collection")?;
    match first.get_document("info")?.get("uuid") {
        Some(Bson::Binary(uuid)) => Ok(uuid.bytes.as_slice().try_into()?),
        _ => anyhow::bail!("no UUID: {first}"),
    }
}

/// Every further batch takes so long.
async fn slow(set: &ReplicaSet, time: Duration) -> Result<()> {
    let data = doc! {"failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": time.as_millis() as i64,
    "namespace": "shop.large"};
    set.run("admin", doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data}).await.map(drop)
}

/// How many documents came, what ended them, and how long the last batch and all of them took.
async fn read(part: &PartLink, uuid: [u8; 16]) -> Result<(usize, Option<ReadError>, Duration, Duration)> {
    let begun = Instant::now();
    let at = part.committed().await?;
    let mut documents = part.documents("shop", uuid, When::At(at), Order::ById { from: None }).await?;
    let mut found = 0;
    loop {
        let asked = Instant::now();
        match documents.next().await {
            Ok(Some(batch)) => found += batch.documents().count(),
            Ok(None) => return Ok((found, None, asked.elapsed(), begun.elapsed())),
            Err(why) => return Ok((found, Some(why), asked.elapsed(), begun.elapsed())),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_batch_may_not_take_as_long_as_all_of_them_may() -> Result<()> {
    let lab = Lab::builder().test_commands(true).start().await?;
    let uuids = [fill(lab.shard(0)).await?, fill(lab.shard(1)).await?];
    let parts = ClusterLink::connect(&SecretString::from(lab.uri())).await?.parts().await?;
    // One does not get its second batch in time; the other gets each of four, and they take longer in all.
    slow(lab.shard(0), LIMIT + BUSY * 2).await?;
    slow(lab.shard(1), LIMIT * 3 / 10).await?;
    let both = async { tokio::try_join!(read(&parts[0], uuids[0]), read(&parts[1], uuids[1])) };
    let (stuck, slow) = timeout(LIMIT * 2, both).await.context("it is read still")??;
    let (found, why, last, _) = stuck;
    assert!(matches!(why, Some(ReadError::Mongo(MongoError::TooSlow { .. }))), "{why:?}");
    assert!(found > 0 && found < DOCUMENTS && last >= LIMIT && last < LIMIT + BUSY, "{found} {last:?}");
    let (found, why, _, all) = slow;
    assert!(why.is_none() && found == DOCUMENTS, "{found} {why:?}");
    assert!(all > LIMIT, "it was not slow: {all:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_short_whatever_the_length_of_its_documents() -> Result<()> {
    let lab = Lab::builder().shards(1).start().await?;
    let set = lab.shard(0);
    let part = ClusterLink::connect(&SecretString::from(lab.uri())).await?.parts().await?.swap_remove(0);
    // The server's own batches would be of 16 MiB. One of a hundred documents is all of the first that it sends unasked.
    for (number, length) in [(100, 10), (101, 10), (102, 10), (60_000, 10), (8_000, 2_000)] {
        let name = format!("of{number}");
        let text = "x".repeat(length);
        for from in (0..number).step_by(2_000) {
            let documents = (from..number.min(from + 2_000)).map(|n| doc! {"_id": n, "text": &text});
            let documents: Vec<_> = documents.collect();
            set.run("shop", doc! {"insert": &name, "documents": documents, "writeConcern": {"w": "majority"}}).await?;
        }
        let uuid = uuid_of(set, &name).await?;
        let at = part.committed().await?;
        let mut documents = part.documents("shop", uuid, When::At(at), Order::ById { from: None }).await?;
        let (mut found, mut longest) = (Vec::new(), 0);
        while let Some(batch) = documents.next().await? {
            let mut bytes = 0;
            for document in batch.documents() {
                let document = document.map_err(anyhow::Error::msg)?;
                bytes += document.as_bytes().len();
                found.push(document.get_i32("_id")?);
            }
            longest = longest.max(bytes);
        }
        assert!(found.into_iter().eq(0..number), "{name}");
        assert!(longest <= 3 << 20, "{name}: a batch of {longest} bytes");
        // Nor so short that there would be one for every few.
        assert!(longest > 1 << 20 || number < 200, "{name}: none above {longest} bytes");
    }
    Ok(())
}
