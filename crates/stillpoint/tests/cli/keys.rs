//! `stillpoint key` and `stillpoint service-account`

use serde_json::{Value, json};

use crate::support::Operator;

/// Makes a key, whose secrets nothing may print from then on.
fn create(operator: &Operator, more: &[&str]) -> Value {
    let words = [&["--json", "key", "create", "-p", "p"], more].concat();
    let ran = operator.run_unseen(&words, "", &[]);
    assert_eq!(ran.stderr, "");
    let key = ran.json();
    let (public, private) = (key["publicKey"].as_str().unwrap(), key["privateKey"].as_str().unwrap());
    operator.secret(private);
    operator.secret(&stillpoint_api::ha1(public, private));
    key
}

#[test]
fn a_key_is_shown_once_and_never_again() {
    let operator = Operator::with_project();
    let project = operator.json(&["project", "list"])[0]["id"].clone();
    let key =
        create(&operator, &["--role", "GROUP_OWNER", "--access-list", "192.0.2.7", "--access-list", "2001:db8::/32"]);
    let fields: Vec<_> = key.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["id", "publicKey", "project", "role", "roles", "accessList", "created", "privateKey"]);
    assert_eq!((&key["role"], &key["project"]), (&json!("GROUP_OWNER"), &project));
    assert_eq!(key["accessList"], json!(["192.0.2.7/32", "2001:db8::/32"]));
    let open = create(&operator, &["--role", "GROUP_READ_ONLY"]);
    assert_eq!(open["accessList"], json!([]));

    let list = operator.json(&["key", "list", "-p", "p"]);
    let mut shown = [key.clone(), open];
    for key in &mut shown {
        key.as_object_mut().unwrap().remove("privateKey").unwrap();
    }
    assert_eq!(list, json!(shown));
    let ran = operator.run(&["key", "list", "-p", "p"]);
    let lines = ran.lines();
    assert!(lines[0].starts_with("PUBLIC KEY") && lines.len() == 3, "{ran:?}");
    assert!(lines[1].contains("192.0.2.7/32, 2001:db8::/32") && lines[2].contains("anywhere"), "{ran:?}");

    let public = key["publicKey"].as_str().unwrap();
    assert_eq!(operator.json(&["key", "delete", "-p", "p", public]), json!({"publicKey": public}));
    operator.run(&["key", "delete", "-p", "p", public]).fails(1, "`stillpoint key list --project p` lists them");
    assert_eq!(operator.json(&["key", "list", "-p", "p"]).as_array().unwrap().len(), 1);
}

#[test]
fn for_people_the_private_key_is_on_standard_output_alone() {
    let operator = Operator::with_project();
    let ran = operator.run_unseen(&["key", "create", "-p", "p", "--role", "GROUP_OWNER"], "", &[]);
    let word = |n: usize| ran.lines()[n].split_whitespace().last().unwrap().to_owned();
    assert_eq!((word(0).len(), word(1).len()), (8, 36), "{}", ran.stdout);
    assert!(ran.stdout.contains("not shown again") && ran.stderr.is_empty());
    operator.secret(&word(1));
    assert_eq!(operator.json(&["key", "list", "-p", "p"])[0]["publicKey"], word(0));
}

#[test]
fn a_project_is_named_by_its_id_too_and_keys_stay_in_theirs() {
    let operator = Operator::with_project();
    let other = operator.json(&["project", "create", "other"]);
    let key = create(&operator, &["--role", "GROUP_OWNER"]);
    let public = key["publicKey"].as_str().unwrap();
    let id = key["project"].as_str().unwrap();
    assert_eq!(operator.json(&["key", "list", "--project", id])[0]["publicKey"], public);
    assert_eq!(operator.json(&["key", "list", "--project", "other"]), json!([]));
    operator.run(&["key", "delete", "-p", other["id"].as_str().unwrap(), public]).fails(1, "there is no key");
    assert_eq!(operator.json(&["key", "list", "-p", "p"]).as_array().unwrap().len(), 1);
}

#[test]
fn what_is_no_role_or_address_is_refused() {
    let operator = Operator::with_project();
    for (more, says) in [
        (vec!["--role", "ADMIN"], "use GROUP_READ_ONLY or GROUP_OWNER"),
        (vec!["--role", "group_owner"], "use GROUP_READ_ONLY or GROUP_OWNER"),
        (vec![], "--role"),
        (vec!["--role", "GROUP_OWNER", "--access-list", "192.0.2.0/33"], "write it as 192.0.2.7 or 192.0.2.0/24"),
        (vec!["--role", "GROUP_OWNER", "--access-list", "example.net"], "write it as 192.0.2.7 or 192.0.2.0/24"),
        (vec!["--role", "GROUP_OWNER", "--access-list", ""], "write it as 192.0.2.7 or 192.0.2.0/24"),
    ] {
        operator.run(&[&["key", "create", "-p", "p"][..], &more].concat()).fails(2, says);
    }
    operator
        .run(&["key", "create", "-p", "nowhere", "--role", "GROUP_OWNER"])
        .fails(1, "there is no project \"nowhere\"; `stillpoint project list` lists them");
    assert_eq!(operator.json(&["key", "list", "-p", "p"]), json!([]));
}

#[test]
fn a_service_account_is_shown_once_and_never_again() {
    let operator = Operator::with_project();
    let words = ["--json", "service-account", "create", "-p", "p", "--role", "GROUP_OWNER"];
    let account = operator.run_unseen(&words, "", &[]).json();
    let (id, secret) = (account["clientId"].as_str().unwrap(), account["clientSecret"].as_str().unwrap());
    assert!(id.starts_with("mdb_sa_id_") && secret.starts_with("mdb_sa_sk_"), "{id}");
    operator.secret(secret);
    operator.secret(&stillpoint_api::oauth::proof(secret));
    let list = operator.json(&["service-account", "list", "-p", "p"]);
    assert_eq!((&list[0]["clientId"], list.as_array().unwrap().len()), (&account["clientId"], 1));
    assert_eq!(operator.json(&["key", "list", "-p", "p"]), json!([]), "it is no key");
    operator.run(&["key", "delete", "-p", "p", id]).fails(1, "there is no key");
    assert_eq!(operator.json(&["service-account", "delete", "-p", "p", id]), json!({"clientId": id}));
    operator
        .run(&["service-account", "rotate", "-p", "p", id])
        .fails(1, "`stillpoint service-account list --project p` lists them");
}

#[test]
fn a_key_is_rotated_and_keeps_its_name_and_roles() {
    let operator = Operator::with_project();
    let key = create(&operator, &["--role", "GROUP_OWNER"]);
    let public = key["publicKey"].as_str().unwrap();
    let rotated = operator.run_unseen(&["--json", "key", "rotate", "-p", "p", public], "", &[]).json();
    operator.secret(rotated["privateKey"].as_str().unwrap());
    assert_ne!(rotated["privateKey"], key["privateKey"]);
    for field in ["id", "publicKey", "roles", "created"] {
        assert_eq!(rotated[field], key[field]);
    }

    let changed = operator.json(&["key", "access-list", "-p", "p", public, "192.0.2.7", "2001:db8::/32"]);
    assert_eq!(changed["accessList"], json!(["192.0.2.7/32", "2001:db8::/32"]));
    assert_eq!(operator.json(&["key", "list", "-p", "p"])[0], changed);
    operator.run(&["key", "access-list", "-p", "p", public]).ok();
    assert_eq!(operator.json(&["key", "list", "-p", "p"])[0]["accessList"], json!([]));
}

#[test]
fn roles_are_given_and_taken_within_an_organisation() {
    let operator = Operator::with_project();
    let key = create(&operator, &["--role", "GROUP_OWNER"]);
    let public = key["publicKey"].as_str().unwrap();
    operator.run(&["project", "create", "second"]).ok();
    operator.run(&["organization", "create", "acme"]).ok();
    operator.run(&["project", "create", "theirs", "--organization", "acme"]).ok();

    operator.run(&["key", "grant", "-p", "second", public, "--role", "GROUP_READ_ONLY"]).ok();
    let listed = operator.json(&["key", "list", "-p", "second"]);
    assert_eq!((&listed[0]["role"], listed[0]["roles"].as_array().unwrap().len()), (&json!("GROUP_READ_ONLY"), 2));
    operator
        .run(&["key", "grant", "-p", "theirs", public, "--role", "GROUP_OWNER"])
        .fails(1, "the project belongs to another organisation");
    operator.run(&["key", "grant", "-p", "p", "nobodyaa", "--role", "GROUP_OWNER"]).fails(1, "there is no key");
    operator.run(&["key", "revoke", "-p", "p", public]).ok();
    operator.run(&["key", "revoke", "-p", "second", public]).fails(1, "it is its last role: delete the key");
    assert_eq!(operator.json(&["key", "list", "-p", "p"]), json!([]));
    assert_eq!(operator.json(&["key", "list", "-p", "second"])[0]["publicKey"], public);
}

#[test]
fn what_was_done_is_in_the_audit_trail() {
    let operator = Operator::with_project();
    let key = create(&operator, &["--role", "GROUP_OWNER"]);
    let public = key["publicKey"].as_str().unwrap();
    operator.run(&["key", "delete", "-p", "p", public]).ok();
    operator.run(&["key", "delete", "-p", "p", public]).fails(1, "there is no key");
    let trail = operator.json(&["audit"]);
    let actions: Vec<_> = trail.as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    let project = key["project"].as_str().unwrap();
    let expected = [
        format!("key delete {public}"),
        format!("key create {public} in {project}"),
        format!("project create {project}"),
    ];
    assert_eq!(actions, expected, "newest first, and only what was done");
    assert!(trail[0]["actor"].as_str().unwrap().starts_with("uid "), "{trail}");
    assert_eq!(operator.json(&["audit", "--limit", "1"]).as_array().unwrap().len(), 1);
    assert!(operator.run(&["audit"]).lines()[1].contains(&format!("key delete {public}")));
}
