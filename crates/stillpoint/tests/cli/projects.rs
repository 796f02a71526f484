//! `stillpoint project` and `stillpoint organization`

use serde_json::json;

use crate::support::Operator;

#[test]
fn a_project_is_made_and_listed() {
    let operator = Operator::new();
    let id = operator.run(&["project", "create", "bank"]).ok().stdout.trim().to_owned();
    let other = operator.json(&["project", "create", "Acme_2.prod"]);
    assert_eq!(other.as_object().unwrap().len(), 2);
    assert_eq!(other["name"], "Acme_2.prod");
    for id in [&id, other["id"].as_str().unwrap()] {
        assert!(id.len() == 24 && id.bytes().all(|b| b"0123456789abcdef".contains(&b)), "{id}");
    }
    let list = operator.json(&["project", "list"]);
    assert_eq!(list, json!([{"id": other["id"], "name": "Acme_2.prod"}, {"id": id, "name": "bank"}]));
    let ran = operator.run(&["project", "list"]);
    let lines = ran.lines();
    assert!(lines[0].starts_with("ID ") && lines[0].ends_with("NAME"), "{ran:?}");
    assert!(lines[2].starts_with(&id) && lines[2].ends_with("bank"), "{ran:?}");
}

#[test]
fn a_command_that_only_reads_makes_no_catalog() {
    let operator = Operator::new();
    for words in [vec!["project", "list"], vec!["status"], vec!["audit"], vec!["key", "list", "-p", "p"]] {
        operator.run(&words).fails(1, "there is no catalog at ").fails(1, "name the configuration with --config");
    }
    assert_eq!(operator.names(), ["stillpoint.toml"], "nothing was made");
    operator.run(&["organization", "create", "acme"]).ok();
    assert_eq!(operator.run(&["project", "list"]).lines(), ["ID  NAME"]);
}

#[test]
fn a_name_is_taken_once() {
    let operator = Operator::new();
    operator.run(&["project", "create", "bank"]).ok();
    operator.run(&["project", "create", "bank"]).fails(1, "a project named \"bank\" exists already");
    assert_eq!(operator.json(&["project", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn names_that_do_not_fit_into_a_path_are_refused() {
    let operator = Operator::new();
    let long = "x".repeat(65);
    for name in ["", " ", "a b", "a/b", "..", ".a", "ä", "a\nb", "a?b", "a%20b", &long] {
        operator.run(&["project", "create", "--", name]).fails(2, "cannot be a project's name: use 1 to 64 letters");
    }
    assert_eq!(operator.names(), ["stillpoint.toml"], "nothing was made");
    operator.run(&["project", "create", &long[1..]]).ok();
}

#[test]
fn an_organisation_is_there_and_others_are_made() {
    let operator = Operator::with_project();
    assert_eq!(operator.json(&["organization", "list"])[0]["name"], "default");
    let made = operator.json(&["organization", "create", "acme"]);
    operator.run(&["organization", "create", "acme"]).fails(1, "an organisation named \"acme\" exists already");
    operator.run(&["organization", "create", "a/b"]).fails(2, "cannot be an organisation's name");
    assert_eq!(operator.json(&["organization", "list"])[0], made, "by name");
    operator
        .run(&["project", "create", "q", "--organization", "nowhere"])
        .fails(1, "there is no organisation \"nowhere\"; `stillpoint organization list` lists them");
    operator.run(&["project", "create", "theirs", "--organization", "acme"]).ok();
}
