//! The whole way: from nothing to a checkpoint, over a cluster that asks for a password.

use serde_json::{Value, json};
use stillpoint_lab::Lab;

use crate::support::{Operator, Server};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn from_nothing_to_a_checkpoint() {
    let lab = Lab::builder().auth(true).start().await.unwrap();
    let operator = Operator::with_project();
    operator.secret(&lab.stillpoint_user().unwrap().password);
    // Not even then is a secret in the log.
    operator
        .configure("[server]\nlisten = \"127.0.0.1:0\"\n[checkpoint]\ninterval = \"off\"\n[log]\nfilter = \"trace\"\n");
    let project = operator.json(&["project", "list"])[0]["id"].clone();
    std::fs::write(operator.path("uri"), format!("  {}\n", lab.uri())).unwrap();

    let added = operator.json(&["cluster", "add", "-p", "p", "--name", "Cluster0", "--uri-file", "uri"]);
    assert_eq!(keys(&added), ["id", "name", "project", "created", "parts"]);
    assert_eq!((&added["name"], &added["project"]), (&json!("Cluster0"), &project));
    assert_eq!(
        added["parts"],
        json!([
            {"replicaSetName": "rs0", "typeName": "REPLICA_SET", "shardName": "rs0"},
            {"replicaSetName": "rs1", "typeName": "REPLICA_SET", "shardName": "rs1"},
            {"replicaSetName": "cfg", "typeName": "CONFIG_SERVER_REPLICA_SET"},
        ])
    );
    assert_eq!(operator.json(&["cluster", "show", "-p", "p", "Cluster0"]), added);
    let ran = operator.run(&["cluster", "show", "-p", "p", "Cluster0"]);
    assert!(ran.lines().contains(&"the config servers  cfg") && ran.stdout.contains("shard rs1 "), "{ran:?}");
    let mut listed = added.clone();
    listed.as_object_mut().unwrap().remove("parts");
    assert_eq!(operator.clusters(), std::slice::from_ref(&listed));
    let list = operator.run(&["cluster", "list", "-p", "p"]);
    assert!(list.lines()[1].ends_with("Cluster0"), "{list:?}");

    let doctor = operator.run(&["doctor", "-p", "p", "-c", "Cluster0"]);
    doctor.ok();
    for part in ["shard rs0", "shard rs1", "the config servers"] {
        assert!(doctor.stdout.contains(&format!("{part}: the user \"stillpoint\" may do all that")), "{doctor:?}");
    }

    without_a_server(&operator);
    let server = Server::start(&operator);
    let path = format!("/api/atlas/v1.0/groups/{}/clusters/Cluster0/backupCheckpoints", project.as_str().unwrap());
    assert!(server.get(&path).starts_with("HTTP/1.1 401"), "it answers, and wants a key");
    with_a_server(&operator, &added, &project);
    while_one_is_under_way(&operator, &lab).await;
    server.stops();
    after_the_server(&operator);

    let removed = operator.json(&["cluster", "remove", "-p", "p", "Cluster0"]);
    assert_eq!(removed, listed);
    assert!(operator.clusters().is_empty());
    operator.run(&["cluster", "show", "-p", "p", "Cluster0"]).fails(1, "there is no cluster");
}

/// The words of `checkpoint VERB` on the one cluster.
fn checkpoint<'a>(verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["checkpoint", verb, "-p", "p", "-c", "Cluster0"], more].concat()
}

fn without_a_server(operator: &Operator) {
    for more in [&[][..], &["--no-wait"], &["--json"]] {
        let ran = operator.run(&checkpoint("take", more));
        ran.fails(1, "no server is running on this catalog: start `stillpoint serve`");
    }
    assert_eq!(operator.json(&checkpoint("list", &[])), json!([]), "nothing was queued");
    let status = operator.json(&["status"]);
    assert_eq!(keys(&status), ["clusters"]);
    let [cluster] = &status["clusters"].as_array().unwrap()[..] else { panic!("{status}") };
    assert_eq!(
        keys(cluster),
        [
            "project",
            "cluster",
            "server",
            "newest",
            "lastCompleted",
            "balancerNotPutBack",
            "nextDue",
            "capture",
            "gaps",
            "snapshots",
            "restores",
            "drills",
            "attention"
        ]
    );
    assert_eq!((&cluster["project"], &cluster["cluster"]), (&json!("p"), &json!("Cluster0")));
    assert_eq!((&cluster["server"], &cluster["newest"]), (&json!(null), &json!(null)));
    let ran = operator.run(&["status"]);
    let lines = ran.lines();
    assert!(
        lines[0].starts_with("PROJECT") && lines[1].contains("NOT RUNNING") && lines[1].ends_with("never"),
        "{ran:?}"
    );
}

fn with_a_server(operator: &Operator, cluster: &Value, project: &Value) {
    let ran = operator.run(&checkpoint("take", &["--json"]));
    let taken = ran.json();
    let told: Vec<_> = ran.stderr.lines().collect();
    assert!(told.contains(&"completed"), "progress is on standard error: {ran:?}");
    assert_eq!(
        keys(&taken),
        ["clusterId", "completed", "groupId", "id", "links", "parts", "restorable", "started", "timestamp"]
    );
    assert_eq!((&taken["clusterId"], &taken["groupId"]), (&cluster["id"], project));
    assert_eq!(taken["restorable"], false);
    let parts = taken["parts"].as_array().unwrap();
    let of = |field: &str| parts.iter().map(|part| part[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("replicaSetName"), ["rs0", "rs1", "cfg"]);
    assert_eq!(of("tokenDiscovered"), [true, true, true]);

    let id = taken["id"].as_str().unwrap();
    assert_eq!(operator.json(&checkpoint("show", &[id])), taken);
    assert_eq!(operator.json(&checkpoint("list", &[])), json!([taken]));
    let shown = operator.run(&checkpoint("show", &[id]));
    for says in [id, "COMPLETED", "as it was found, after ", "the config servers", "restorable"] {
        assert!(shown.stdout.contains(says), "{says}: {shown:?}");
    }

    let second = operator.run(&checkpoint("take", &[]));
    assert!(second.ok().stdout.contains("COMPLETED") && second.stderr.contains("completed"), "{second:?}");
    let list = operator.json(&checkpoint("list", &[]));
    assert_eq!((list.as_array().unwrap().len(), &list[1]["id"]), (2, &taken["id"]), "newest first");
    assert_eq!(operator.json(&checkpoint("list", &["--limit", "1"])), json!([list[0]]));
    let table = operator.run(&checkpoint("list", &[]));
    assert!(table.lines()[0].starts_with("ID ") && table.lines()[2].starts_with(id), "{table:?}");

    let queued = operator.json(&checkpoint("take", &["--no-wait"]));
    assert_eq!(queued["stillpoint"], json!({"state": "QUEUED"}));
    let queued = queued["id"].as_str().unwrap().to_owned();
    wait_until_ended(operator, &queued);

    let status = operator.json(&["status"]);
    let cluster = &status["clusters"][0];
    assert!(cluster["server"].is_string(), "{status}");
    assert_eq!(cluster["newest"], cluster["lastCompleted"]);
    assert_eq!(
        keys(&cluster["newest"]),
        ["id", "state", "started", "completed", "cut", "balancerHeldSince", "failure", "trouble"]
    );
    assert_eq!((&cluster["newest"]["id"], &cluster["newest"]["state"]), (&json!(queued), &json!("COMPLETED")));
    let ran = operator.run(&["status"]);
    assert!(ran.lines()[1].contains(&format!("COMPLETED {queued}")), "{ran:?}");

    let deleted = operator.json(&checkpoint("delete", &[id]));
    assert_eq!(deleted, taken);
    for verb in ["show", "delete"] {
        let ran = operator.run(&checkpoint(verb, &[id]));
        ran.fails(1, "`stillpoint checkpoint list --project p --cluster Cluster0` lists them");
    }
    assert_eq!(operator.json(&checkpoint("list", &[])).as_array().unwrap().len(), 2);
}

/// A shard that does not answer keeps a checkpoint under way.
async fn while_one_is_under_way(operator: &Operator, lab: &Lab) {
    lab.shard(1).freeze(0).await.unwrap();
    let queued = operator.json(&checkpoint("take", &["--no-wait"]));
    let id = queued["id"].as_str().unwrap();
    operator.run(&checkpoint("take", &[])).fails(1, &format!("checkpoint {id} of this cluster is not yet finished"));
    operator.run(&checkpoint("delete", &[id])).fails(1, "the checkpoint is in use");
    operator
        .run(&["cluster", "remove", "-p", "p", "Cluster0"])
        .fails(1, "of it is under way; `stillpoint status` says how far it is");
    let status = operator.json(&["status"]);
    assert_eq!(status["clusters"][0]["newest"]["id"], id, "{status}");
    assert_ne!(status["clusters"][0]["lastCompleted"]["id"], id);
    assert!(status["clusters"][0]["nextDue"].is_null(), "{status}");
    lab.shard(1).thaw(0).await.unwrap();
    wait_until_ended(operator, id);
    operator.run(&checkpoint("delete", &[id])).ok();
}

fn wait_until_ended(operator: &Operator, id: &str) {
    let since = std::time::Instant::now();
    loop {
        let shown = operator.json(&checkpoint("show", &[id]));
        // A completed one has nothing to add to the published document.
        if ["null", "\"FAILED\""].contains(&shown["stillpoint"]["state"].to_string().as_str()) {
            return;
        }
        assert!(since.elapsed().as_secs() < 45, "{}", operator.json(&["status"]));
    }
}

fn after_the_server(operator: &Operator) {
    let status = operator.run(&["status"]);
    assert!(status.lines()[1].contains("NOT RUNNING"), "{status:?}");
    operator.run(&checkpoint("take", &[])).fails(1, "no server is running");
    assert_eq!(operator.json(&checkpoint("list", &[])).as_array().unwrap().len(), 2);
}
