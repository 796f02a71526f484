//! `stillpoint vault`

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use stillpoint_vault::MasterKey;

use crate::support::{Operator, Store};

const CHECK: [&str; 2] = ["vault", "check"];

#[test]
fn without_a_vault_there_is_nothing_to_show() {
    let operator = Operator::with_project();
    for words in [&["vault", "show"][..], &CHECK] {
        operator.run(words).fails(1, "there is no vault at file:");
    }
    operator.run(&["vault", "check", "-p", "p"]).fails(2, "--cluster");
}

#[tokio::test]
async fn a_check_ends_with_1_as_long_as_something_is_lost() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    let segments = store.fill().await;
    let whole = operator.run(&CHECK);
    assert!(whole.lines()[0].contains("4 segments, 40 entries") && whole.stderr.is_empty(), "{whole:?}");

    let (missing, damaged) = (store.file(&segments[0]), store.file(&segments[3]));
    std::fs::rename(&missing, operator.path("backup")).unwrap();
    let content = std::fs::read(&damaged).unwrap();
    std::fs::write(&damaged, &content[..content.len() - 1]).unwrap();
    let ran = operator.run(&CHECK);
    ran.fails_with_result(1, "1 missing and 1 damaged: put them back from a backup of the vault");
    let name = segments[0].name();
    assert!(ran.stdout.contains(&format!("from 11:1 to 20:1: {name}: it is not in the vault")), "{ran:?}");
    assert!(ran.stdout.contains("nothing between 40:1 and 50:2 can be restored"), "{ran:?}");
    assert!(ran.stderr.contains("a stored segment is lost"), "{ran:?}");

    let ran = operator.run(&["--json", "vault", "check", "-p", "p", "-c", "c"]);
    ran.fails_with_result(1, "1 missing and 1 damaged");
    let report = ran.result();
    assert_eq!((&report["missing"], &report["damaged"], &report["segments"]), (&json!(1), &json!(1), &json!(4)));
    assert_eq!((&report["faults"][0]["fault"], &report["faults"][0]["name"]), (&json!("MISSING"), &json!(name)));
    assert_eq!((&report["faults"][1]["part"], &report["faults"][1]["from"]), (&json!("rs0"), &json!("41:1")));
    assert_eq!(store.catalog.gaps(store.cluster.id).await.unwrap().len(), 2);

    std::fs::rename(operator.path("backup"), &missing).unwrap();
    std::fs::write(&damaged, &content).unwrap();
    let ran = operator.run(&CHECK);
    assert_eq!(ran.ok().stdout.matches("whole again").count(), 2, "{ran:?}");
    assert!(store.catalog.gaps(store.cluster.id).await.unwrap().is_empty());
}

/// A file that holds a key.
fn key_file(operator: &Operator, name: &str, byte: u8) -> MasterKey {
    let hex = format!("{byte:02x}").repeat(32);
    operator.secret(&hex);
    std::fs::write(operator.path(name), hex).unwrap();
    std::fs::set_permissions(operator.path(name), PermissionsExt::from_mode(0o600)).unwrap();
    MasterKey::from_file(&operator.path(name)).unwrap()
}

fn use_key(operator: &Operator, name: &str) {
    operator.configure(&format!("[vault]\nmaster_key_file = \"{name}\"\n"));
}

#[tokio::test]
async fn a_rotated_key_opens_the_vault_and_the_old_one_does_not() {
    let operator = Operator::with_project();
    let old = key_file(&operator, "old", 7);
    let new = key_file(&operator, "new", 8);
    let store = Store::with_key(&operator, Some(old.clone())).await;
    store.fill().await;
    operator.run(&CHECK).fails(1, "name the file that has it");
    use_key(&operator, "old");
    let rotate = |file: &str| operator.run(&["vault", "rotate-key", "--new-key-file", file]);
    rotate("missing").fails(1, "the master key file missing cannot be read");
    rotate("old").fails(1, "has this master key");
    assert_eq!(operator.json(&["vault", "show"])["masterKey"], old.fingerprint());

    let ran = rotate("new");
    let text = &ran.ok().stdout;
    assert!(text.contains(&new.fingerprint()), "{ran:?}");
    assert!(text.contains("vault.master_key_file = \"") && text.contains("restart `stillpoint serve`"), "{ran:?}");
    let audit = operator.json(&["audit"]);
    assert_eq!(audit[0]["action"], format!("vault rotate-key {}", new.fingerprint()));

    for words in [&["vault", "show"][..], &CHECK, &["oplog", "export", "-p", "p", "-c", "c", "--part", "rs0"]] {
        let says = format!("was sealed with master key {}; the one in ", new.fingerprint());
        operator.run(words).fails(1, &says).fails(1, &old.fingerprint());
    }
    use_key(&operator, "new");
    operator.run(&CHECK).ok();
    let shown = operator.json(&["vault", "show"]);
    assert_eq!((&shown["masterKey"], &shown["encrypted"]), (&json!(new.fingerprint()), &json!(true)));
    let shown = operator.run(&["vault", "show"]);
    assert!(shown.ok().stdout.contains(&new.fingerprint()) && shown.stdout.contains("/vault"), "{shown:?}");
}

#[tokio::test]
async fn a_vault_that_is_not_encrypted_has_no_key_to_rotate() {
    let operator = Operator::with_project();
    let store = Store::new(&operator).await;
    store.fill().await;
    key_file(&operator, "new", 8);
    operator.run(&["vault", "rotate-key", "--new-key-file", "new"]).fails(1, "is not encrypted");
    let shown = operator.json(&["vault", "show"]);
    assert_eq!((&shown["masterKey"], &shown["encrypted"]), (&json!(null), &json!(false)));
}
