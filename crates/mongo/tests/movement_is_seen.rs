//! What moves on a real cluster is seen, and what is quiet is quiet.

use secrecy::SecretString;
use stillpoint_lab::Lab;
use stillpoint_mongo::{ClusterLink, movement};

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
    let quiet = stillpoint_lab::wait::until(std::time::Duration::from_secs(20), || async {
        movement::look(&parts).await.is_ok_and(|moving| moving.is_empty()).then_some(())
    });
    assert!(quiet.await.is_some(), "it never became quiet");
    Ok(())
}
