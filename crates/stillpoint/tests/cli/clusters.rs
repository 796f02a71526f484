//! `stillpoint cluster`, as far as no cluster is needed: how a connection string is given, and what is
//! said of one that leads nowhere good.

use crate::support::{Fake, Operator};

const PASSWORD: &str = "correct-horse-battery";

#[test]
fn the_connection_string_comes_from_one_place() {
    let operator = Operator::with_project();
    let add = ["cluster", "add", "-p", "p", "--name", "c"];
    operator.run(&add).fails(2, "name the config servers with --uri-file FILE");
    operator.run(&[&add[..], &["--uri", "-", "--uri-file", "f"]].concat()).fails(2, "cannot be used with");
    operator.run(&[&add[..], &["--uri-file", "missing"]].concat()).fails(1, "missing cannot be read");

    // Each of these is read: it is the string in it that is refused.
    let bad = "postgres://host/";
    let says = "it must begin with mongodb:// or mongodb+srv://";
    std::fs::write(operator.path("uri"), format!("{bad}\n")).unwrap();
    operator.run(&[&add[..], &["--uri", bad]].concat()).fails(1, says);
    operator.run(&[&add[..], &["--uri-file", "uri"]].concat()).fails(1, says);
    operator.run_with(&[&add[..], &["--uri", "-"]].concat(), bad, &[]).fails(1, says);
    operator.run_with(&add, "", &[("STILLPOINT_CLUSTER_URI", bad)]).fails(1, says);
    operator.run_with(&[&add[..], &["--uri", "-"]].concat(), "", &[]).fails(1, says);
    // What is said on the command line wins over the environment.
    let other = &[("STILLPOINT_CLUSTER_URI", "mongodb://127.0.0.1:1/")];
    operator.run_with(&[&add[..], &["--uri-file", "uri"]].concat(), "", other).fails(1, says);
    operator.run_with(&["doctor", "-p", "p", "-c", "c"], "", other).fails(1, "there is no cluster \"c\"");
    assert!(operator.clusters().is_empty());
}

#[test]
fn names_and_projects_are_looked_at_first() {
    let operator = Operator::with_project();
    let add = |project: &str, name: &str| {
        operator.run(&["cluster", "add", "-p", project, "--name", name, "--uri", "mongodb://127.0.0.1:1/"])
    };
    for name in ["", "a/b", "a b", "ä", "..", ".hidden"] {
        add("p", name).fails(2, "cannot be a cluster's name");
    }
    add("q", "c").fails(1, "there is no project \"q\"; `stillpoint project list` lists them");
    for verb in ["show", "remove"] {
        operator.run(&["cluster", verb, "-p", "p", "c"]).fails(1, "`stillpoint cluster list --project p` lists them");
    }
    operator
        .run(&["checkpoint", "take", "-p", "p", "-c", "c"])
        .fails(1, "there is no cluster \"c\"; `stillpoint cluster list --project p` lists them");
}

#[test]
fn no_part_of_a_password_is_shown_when_the_string_is_not_understood() {
    let operator = Operator::with_project();
    operator.secret(PASSWORD);
    let (head, tail) = PASSWORD.split_at(10);
    operator.secret(tail);
    operator.secret(head);
    for uri in [
        format!("mongodb://stillpoint:{PASSWORD}@"),
        format!("mongodb://stillpoint:{PASSWORD}@/"),
        format!("mongodb://stillpoint:{PASSWORD}@host:port/"),
        format!("mongodb://stillpoint:{PASSWORD}@host/?replicaSet="),
        format!("mongodb://stillpoint:{PASSWORD}@host/?w=-7"),
        format!("mongodb://stillpoint:{PASSWORD}@host/?tls=maybe"),
        format!("mongodb://stillpoint:{PASSWORD}@host/?nonsense"),
        format!("mongodb://stillpoint:{PASSWORD}@host/?authMechanism=nonsense"),
        format!("mongodb://stillpoint:{PASSWORD}"),
        format!("mongodb://stillpoint:{PASSWORD}/?replicaSet=cfg"),
        format!("mongodb://stillpoint:{head}/{tail}@host/"),
        format!("mongodb://stillpoint:{head}@{tail}@host/"),
        format!("mongodb://stillpoint:{head}:{tail}@host/"),
        format!("mongodb://stillpoint:{head}?{tail}@host/"),
        format!("mongodb://stillpoint:{head}#{tail}@host/"),
        format!("mongodb://stillpoint:{head}%{tail}@host/"),
        format!("mongodb://stillpoint:{head}[{tail}@host/"),
        format!("mongodb://stillpoint:{head},{tail}@host/"),
        format!("mongodb+srv://stillpoint:{PASSWORD}@a.invalid,b.invalid/"),
        format!("mongodb+srv://stillpoint:{PASSWORD}@localhost/"),
        format!("mongodb://stillpoint:{PASSWORD}@127.0.0.1:1/?tls=true&tlsCAFile=missing.pem"),
    ] {
        let ran = operator.run_with(&["cluster", "add", "-p", "p", "--name", "c", "--uri", "-"], &uri, &[]);
        assert!(ran.code == 1 && ran.stdout.is_empty() && ran.stderr.contains("error: "), "{uri}: {ran:?}");
    }
    assert!(operator.clusters().is_empty());
}

#[test]
fn a_host_that_is_not_there_is_named() {
    let operator = Operator::with_project();
    operator.add_is_refused(
        "mongodb://127.0.0.1:1/?replicaSet=cfg",
        &["the cluster was not added", "127.0.0.1:1 cannot be reached", "check the host, the port, the network"],
    );
    operator.add_is_refused("mongodb://nowhere.invalid/", &["nowhere.invalid:27017 cannot be reached"]);
}

#[test]
fn something_that_is_no_mongodb_is_refused() {
    let operator = Operator::with_project();
    let web = Fake::web_server();
    operator.add_is_refused(&web.uri(), &[&format!("{} cannot be reached", web.address)]);
}

#[test]
fn an_old_cluster_is_refused_as_too_old() {
    let operator = Operator::with_project();
    for (wire_version, release) in [(7, "4.0"), (8, "4.2")] {
        let old = Fake::config_server(wire_version);
        let says = format!("{} runs MongoDB {release}: stillpoint needs 4.4 or later", old.address);
        operator.add_is_refused(&old.uri(), &[&says]);
        let ran = operator.run(&["doctor", "--uri", &old.uri()]);
        ran.fails_with_result(1, "1 problem keeps checkpoints from being taken");
        assert!(ran.stdout.contains(&says), "{ran:?}");
    }
}

#[test]
fn a_mongos_is_refused_with_what_to_name_instead() {
    let operator = Operator::with_project();
    let mongos = Fake::mongos();
    operator.add_is_refused(&mongos.uri(), &[&format!("{} is a mongos: name the config servers", mongos.address)]);
}

#[test]
fn a_server_of_no_replica_set_is_refused() {
    let operator = Operator::with_project();
    let alone = Fake::answering(bson::doc! {
        "ismaster": true, "isWritablePrimary": true, "minWireVersion": 0, "maxWireVersion": 17, "ok": 1,
        "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
    });
    operator.add_is_refused(&alone.uri(), &["is not a member of a replica set"]);
}
