//! A user who may not do all that is needed: the missing action is named, and the commands that are
//! printed, run as they are, mend it.

use bson::{Document, doc};
use serde_json::Value;
use stillpoint_lab::Lab;

use crate::support::{Operator, Ran, Server, command};

fn doctor(operator: &Operator, uri: &str) -> Ran {
    operator.run_with(&["--json", "doctor", "--uri", "-"], uri, &[])
}

fn problems(ran: &Ran) -> Vec<Value> {
    let findings = ran.result()["findings"].as_array().unwrap().clone();
    findings.into_iter().filter(|finding| finding["level"] == "problem").collect()
}

/// Runs what the doctor prints, on each part that it prints it for.
async fn obey(lab: &Lab, problems: &[Value]) {
    for part in lab.parts() {
        let name = match part.name() {
            "cfg" => "the config servers".to_owned(),
            shard => format!("shard {shard}"),
        };
        let of_part = problems.iter().filter(|problem| problem["part"] == name.as_str());
        for line in of_part.flat_map(|problem| problem["remedy"].as_array().unwrap()) {
            let Some(printed) = command(line.as_str().unwrap()) else { continue };
            part.run(&printed.database, printed.command).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_missing_is_named_and_what_is_printed_grants_it() {
    let lab = Lab::builder().auth(true).start().await.unwrap();
    let operator = Operator::with_project();
    operator.secret(&lab.stillpoint_user().unwrap().password);
    let uri = lab.uri();
    assert!(problems(doctor(&operator, &uri).ok()).is_empty());

    // Without the role of its own: nothing of it is left on the parts.
    for part in lab.parts() {
        part.run("admin", doc! {"dropRole": "stillpoint"}).await.unwrap();
    }
    let client = mongodb::Client::with_uri_str(lab.shard(0).uri()).await.unwrap();
    let coordinators = client.database("config").collection::<Document>("system.sharding_ddl_coordinators");
    coordinators.find_one(doc! {}).await.expect_err("the built-in roles do not cover system collections");
    let refused = operator.add_is_refused(
        &uri,
        &[
            "stop the balancer (action `internal` on the cluster)",
            "db.getSiblingDB(\"admin\").runCommand({createRole: \"stillpoint\"",
            "grantRolesToUser: \"stillpoint\"",
        ],
    );
    assert!(
        refused
            .stderr
            .contains("remove balancer settings that were not there before (action `remove` on config.settings)")
    );
    let ran = doctor(&operator, &uri);
    ran.fails_with_result(1, "keep");
    let found = problems(&ran);
    let parts: Vec<_> = found.iter().map(|problem| problem["part"].as_str().unwrap()).collect();
    assert_eq!(parts, ["shard rs0", "shard rs1", "the config servers"], "{ran:?}");
    for problem in &found {
        let ddl = "see the DDL operations under way (action `find` on config.system.sharding_ddl_coordinators)";
        assert!(problem["what"].as_str().unwrap().contains(ddl), "{problem}");
    }
    obey(&lab, &found).await;
    let ran = doctor(&operator, &uri);
    assert!(problems(&ran).is_empty(), "{ran:?}");

    // Without a built-in role, on one part, while its own role is there but grants too little.
    let role = doc! {"updateRole": "stillpoint", "roles": ["clusterMonitor"]};
    lab.shard(1).run("admin", role).await.unwrap();
    let revoke = doc! {"revokeRolesFromUser": "stillpoint", "roles": ["backup"]};
    lab.shard(1).run("admin", revoke).await.unwrap();
    let ran = doctor(&operator, &uri);
    ran.fails_with_result(1, "1 problem keeps");
    let [problem] = &problems(&ran)[..] else { panic!("{ran:?}") };
    assert_eq!(problem["part"], "shard rs1");
    let says = "the user \"stillpoint\" may not read the collections (action `find` on every collection); nor write a note \
                into the oplog (action `appendOplogNote` on the cluster)";
    assert_eq!(problem["what"], says);
    let remedy: Vec<_> = problem["remedy"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(remedy.iter().any(|line| line.contains("updateRole instead of createRole")), "{remedy:?}");
    // As that line says.
    let mut create = command(remedy[0]).unwrap();
    let mut update = doc! {"updateRole": create.command.remove("createRole").unwrap()};
    update.extend(create.command);
    lab.shard(1).run("admin", update).await.unwrap();
    assert!(problems(&doctor(&operator, &uri)).is_empty());

    // Without anything at all, on the config servers: not even the shards can be found then.
    let revoke = doc! {"updateUser": "stillpoint", "roles": []};
    lab.config().run("admin", revoke).await.unwrap();
    operator.add_is_refused(&uri, &["the user \"stillpoint\" may not read the oplog", "createRole"]);
    let ran = doctor(&operator, &uri);
    let [problem] = &problems(&ran)[..] else { panic!("one problem, one finding: {ran:?}") };
    assert_eq!(problem["part"], "the config servers");
    let mut grant = problem["remedy"].as_array().unwrap().iter().filter_map(|line| command(line.as_str().unwrap()));
    let grant = grant.next_back().unwrap();
    assert!(grant.command.contains_key("grantRolesToUser"), "{grant:?}");
    lab.config().run(&grant.database, grant.command).await.unwrap();
    assert!(problems(&doctor(&operator, &uri)).is_empty());

    operator.run_with(&["cluster", "add", "-p", "p", "--name", "c", "--uri", "-"], &uri, &[]).ok();
}

/// All that capture and a checkpoint need, one by one: resource and action, and how a missing one is named.
fn needs() -> Vec<(Document, &'static str, &'static str)> {
    let cluster = || doc! {"cluster": true};
    let collection = |db: &str, collection: &str| doc! {"db": db, "collection": collection};
    vec![
        (collection("local", "oplog.rs"), "find", "(action `find` on local.oplog.rs)"),
        (collection("local", "oplog.rs"), "collStats", "(action `collStats` on local.oplog.rs)"),
        (collection("", ""), "find", "(action `find` on every collection)"),
        (collection("", "system.views"), "find", "(action `find` on system.views of every database)"),
        (cluster(), "appendOplogNote", "(action `appendOplogNote` on the cluster)"),
        (cluster(), "inprog", "(action `inprog` on the cluster)"),
        (cluster(), "replSetGetStatus", "(action `replSetGetStatus` on the cluster)"),
        (cluster(), "internal", "(action `internal` on the cluster)"),
        (collection("config", ""), "find", "(action `find` on the database config)"),
        (
            collection("config", "system.sharding_ddl_coordinators"),
            "find",
            "(action `find` on config.system.sharding_ddl_coordinators)",
        ),
        (collection("config", "settings"), "insert", "(action `insert` on config.settings)"),
        (collection("config", "settings"), "update", "(action `update` on config.settings)"),
        (collection("config", "settings"), "remove", "(action `remove` on config.settings)"),
    ]
}

/// A role with all of them but one.
async fn grant_all_but(lab: &Lab, command: &str, left_out: Option<usize>) {
    let kept = needs().into_iter().enumerate().filter(|(n, _)| Some(*n) != left_out);
    let privileges: Vec<_> =
        kept.map(|(_, (resource, action, _))| doc! {"resource": resource, "actions": [action]}).collect();
    for part in lab.parts() {
        part.run("admin", doc! {command: "exact", "privileges": &privileges, "roles": []}).await.unwrap();
    }
}

#[tokio::test]
async fn each_privilege_is_needed_and_they_are_enough() {
    let lab = Lab::builder().shards(1).auth(true).start().await.unwrap();
    let operator = Operator::with_project();
    operator.secret(&lab.stillpoint_user().unwrap().password);
    let uri = lab.uri();
    grant_all_but(&lab, "createRole", None).await;
    for part in lab.parts() {
        part.run("admin", doc! {"updateUser": "stillpoint", "roles": ["exact"]}).await.unwrap();
    }
    for (n, (_, action, says)) in needs().into_iter().enumerate() {
        grant_all_but(&lab, "updateRole", Some(n)).await;
        let ran = doctor(&operator, &uri);
        assert_eq!(ran.code, 1, "{says}: {ran:?}");
        for problem in problems(&ran) {
            let what = problem["what"].as_str().unwrap();
            let named = |action: &str| what.matches(&format!("(action `{action}")).count();
            // To read `config` is to read its `settings` too, so that one may stand there twice.
            assert!(what.contains(says) && named("") == named(action), "{says}: {what}");
        }
    }
    grant_all_but(&lab, "updateRole", None).await;
    assert!(problems(doctor(&operator, &uri).ok()).is_empty());
    operator.run_with(&["cluster", "add", "-p", "p", "--name", "c", "--uri", "-"], &uri, &[]).ok();
    let server = Server::start(&operator);
    operator.run(&["checkpoint", "take", "-p", "p", "-c", "c"]).ok();
    server.stops();
}
