//! What moves on a real cluster is seen, and what is quiet is quiet.

use std::time::Duration;

use bson::doc;
use secrecy::SecretString;
use stillpoint_lab::Lab;
use stillpoint_mongo::{ClusterLink, movement};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_seen_on_both_shards_for_as_long_as_it_lasts() -> anyhow::Result<()> {
    // With authorization: the least-privileged user must be able to see it.
    let lab = Lab::builder().auth(true).test_commands(true).start().await?;
    lab.create_database("bank", 0).await?;
    lab.shard_collection("bank.accounts", &[0.into()], &[0, 0]).await?;
    let link = ClusterLink::connect(&SecretString::from(lab.uri())).await?;
    let parts = link.parts().await?;
    assert_eq!(movement::look(&parts).await?, Vec::<String>::new());

    let held = lab.hold_migration("bank.accounts", 0, "rs1").await?;
    let moving = movement::look(&parts).await?;
    for expected in [
        "_configsvrMoveRange of bank.accounts on the config servers",
        "_shardsvrMoveRange of bank.accounts on shard rs0",
        "a chunk being received on shard rs1",
        "a migration of bank.accounts on shard rs0",
    ] {
        assert!(moving.iter().any(|seen| seen == expected), "{expected} is not in {moving:?}");
    }

    held.release().await?;
    let quiet = stillpoint_lab::wait::until(LIMIT, || async {
        movement::look(&parts).await.is_ok_and(|moving| moving.is_empty()).then_some(())
    });
    assert!(quiet.await.is_some(), "it never became quiet");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ddl_operation_is_seen_for_as_long_as_it_lasts() -> anyhow::Result<()> {
    let lab = Lab::builder().auth(true).test_commands(true).start().await?;
    lab.create_database("bank", 0).await?;
    let link = ClusterLink::connect(&SecretString::from(lab.uri())).await?;
    let parts = link.parts().await?;

    let fail_point = |mode: &str| doc! {"configureFailPoint": "hangBeforeRunningCoordinatorInstance", "mode": mode};
    lab.shard(0).run("admin", fail_point("alwaysOn")).await?;
    // It hangs before its coordinator's document is written: what shows is the command itself.
    let create = lab.shard_collection("bank.accounts", &[], &[0]);
    let seen = stillpoint_lab::wait::until(LIMIT, || async {
        let moving = movement::look(&parts).await.ok()?;
        moving.contains(&"_shardsvrCreateCollection of bank.accounts on shard rs0".to_owned()).then_some(())
    });
    let watched = async {
        let seen = seen.await;
        lab.shard(0).run("admin", fail_point("off")).await?;
        anyhow::ensure!(seen.is_some(), "it was never seen");
        Ok(())
    };
    tokio::try_join!(create, watched)?;
    assert_eq!(movement::look(&parts).await?, Vec::<String>::new());
    Ok(())
}
