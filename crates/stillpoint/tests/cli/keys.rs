//! `stillpoint key`

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
    assert_eq!(fields, ["id", "publicKey", "project", "role", "accessList", "created", "privateKey"]);
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
