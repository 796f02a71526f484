//! Clusters that are real but cannot be added: each refusal names what is wrong, and leaves nothing.

use stillpoint_lab::Lab;

use crate::support::Operator;

#[tokio::test]
async fn what_is_wrong_with_a_connection_string_is_named() {
    let lab = Lab::builder().auth(true).start().await.unwrap();
    let operator = Operator::with_project();
    let password = lab.stillpoint_user().unwrap().password.clone();
    operator.secret(&password);
    let uri = lab.uri();

    let wrong = "not-the-password";
    operator.secret(wrong);
    operator.add_is_refused(&uri.replace(&password, wrong), &["refused the user name or the password", "createRole"]);
    operator.add_is_refused(&uri.replace("//stillpoint:", "//nobody:"), &["refused the user name or the password"]);
    let anonymous = lab.config().endpoint().connection_string(None);
    operator.add_is_refused(&anonymous, &["names no user, and the part asks for one", "createUser"]);

    let shard = &lab.shard(0).endpoint().addresses[0];
    operator.add_is_refused(&lab.shard(0).uri(), &[&format!("{shard} is not a config server"), "\"rs0\""]);
    let config = &lab.config().endpoint().addresses[0];
    operator.add_is_refused(
        &uri.replace("replicaSet=cfg", "replicaSet=configRepl"),
        &[&format!("{config} is a member of \"cfg\", but the connection string says replicaSet=configRepl")],
    );

    // A right one is added once, whatever the name and the project.
    let add = |project: &str, name: &str| {
        operator.run_with(&["cluster", "add", "-p", project, "--name", name, "--uri", "-"], &uri, &[])
    };
    add("p", "Cluster0").ok();
    operator.run(&["project", "create", "q"]).ok();
    add("p", "Cluster0").fails(1, "a cluster named \"Cluster0\" exists already");
    add("p", "again").fails(1, "this cluster is kept already, as \"Cluster0\"");
    add("q", "Cluster0").fails(1, "this cluster is kept already, as \"Cluster0\"");
    assert_eq!(operator.clusters().len(), 1);
    assert!(operator.json(&["cluster", "list", "-p", "q"]).as_array().unwrap().is_empty());

    // A part that goes down later.
    lab.shard(1).kill(0).await.unwrap();
    operator.run(&["cluster", "show", "-p", "p", "Cluster0"]).ok();
    let ran = operator.run(&["doctor", "-p", "p", "-c", "Cluster0"]);
    ran.fails_with_result(1, "1 problem keeps checkpoints from being taken");
    assert!(ran.stdout.contains("shard rs1: ") && ran.stdout.contains("cannot be reached"), "{ran:?}");
}

#[tokio::test]
async fn a_plain_replica_set_is_refused() {
    let set = Lab::plain_replica_set().await.unwrap();
    let operator = Operator::with_project();
    let says = format!(
        "{} is not a config server but a member of the plain replica set \"plain\"",
        set.endpoint().addresses[0]
    );
    operator.add_is_refused(&set.uri(), &[&says]);
    operator.add_is_refused(&set.uri().replace("/?replicaSet=plain", "/"), &[&says]);
}

#[tokio::test]
async fn a_cluster_with_a_shard_down_or_without_any_is_refused() {
    let lab = Lab::builder().shards(1).start().await.unwrap();
    let operator = Operator::with_project();
    lab.shard(0).kill(0).await.unwrap();
    operator.add_is_refused(
        &lab.uri(),
        &[
            "the cluster was not added",
            "shard rs0 cannot be reached",
            "check the host, the port, the network and that a primary is elected",
        ],
    );
    lab.config().kill(0).await.unwrap();
    operator.add_is_refused(&lab.uri(), &[&format!("{} cannot be reached", lab.config().endpoint().addresses[0])]);
    drop(lab);

    let empty = Lab::builder().shards(0).start().await.unwrap();
    operator.add_is_refused(&empty.uri(), &["the cluster has no shard", "sh.addShard"]);
}
