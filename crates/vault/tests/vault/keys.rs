//! Master keys and their rotation.

use stillpoint_vault::{MasterKey, Vault, VaultError};

use crate::support::{Home, content, master, names, now, put};

fn homes() -> [Home; 2] {
    [Home::folder(true), Home::s3(true)]
}

#[tokio::test]
async fn the_wrong_key_no_key_and_a_key_too_many_are_told_apart() {
    for mut home in homes() {
        home.create().await;
        let (right, wrong) = (master("a"), master("b"));
        home.options.master_key = Some(wrong.clone());
        for refused in [home.open().await, home.try_create().await] {
            let refused = refused.unwrap_err().to_string();
            for part in
                ["was sealed with master key", &right.fingerprint(), "the one in KEY_b is", &wrong.fingerprint()]
            {
                assert!(refused.contains(part), "{refused}");
            }
        }
        home.options.master_key = None;
        let refused = home.open().await.unwrap_err();
        assert!(matches!(&refused, VaultError::NoMasterKey { sealed_with, .. } if *sealed_with == right.fingerprint()));
    }
    for mut home in [Home::folder(false), Home::s3(false)] {
        home.create().await;
        home.options.master_key = Some(master("a"));
        assert!(matches!(home.open().await, Err(VaultError::NotEncrypted { .. })));
    }
}

#[tokio::test]
async fn after_a_rotation_the_old_key_opens_nothing_and_no_blob_was_rewritten() {
    for mut home in homes() {
        let vault = home.create().await;
        let (old, id) = put(&vault, "oplog/a", content(1, 300)).await;
        let before = std::fs::read(home.file(&old)).unwrap();
        let other = home.open().await.unwrap();

        let rotation = vault.rotate(&master("b"), now()).await.unwrap();
        assert_eq!((rotation.fingerprint, rotation.data_key), (master("b").fingerprint(), 2));
        assert!(matches!(home.open().await, Err(VaultError::WrongKey { .. })));
        assert_eq!(std::fs::read(home.file(&old)).unwrap(), before);
        home.options.master_key = Some(master("b"));
        let opened = home.open().await.unwrap();
        let (new, new_id) = put(&vault, "oplog/b", content(2, 300)).await;
        assert_eq!(std::fs::read(home.file(&new)).unwrap()[8..12], [0, 0, 0, 2], "sealed with the new data key");
        for vault in [&vault, &opened] {
            assert_eq!(vault.get(&old, id).await.unwrap(), content(1, 300));
            assert_eq!(vault.get(&new, new_id).await.unwrap(), content(2, 300));
        }
        assert_eq!(put(&opened, "oplog/a", content(1, 300)).await.0, old, "a content keeps its name");

        // Who has it open since before goes on with what it knows.
        put(&other, "oplog/c", content(3, 300)).await;
        assert_eq!(other.get(&old, id).await.unwrap(), content(1, 300));
        assert!(matches!(other.get(&new, new_id).await, Err(VaultError::WrongKey { .. })));
        assert_eq!(names(&opened, "oplog").await.len(), 3);
    }
}

#[tokio::test]
async fn a_rotation_back_and_forth_leaves_every_blob_readable() {
    let mut home = Home::folder(true);
    let mut blobs = Vec::new();
    for (round, digit) in ["b", "a", "c"].iter().enumerate() {
        let vault = home.create().await;
        blobs.push(put(&vault, "oplog/a", content(round as u64, 50)).await);
        vault.rotate(&master(digit), now()).await.unwrap();
        home.options.master_key = Some(master(digit));
    }
    let vault = home.open().await.unwrap();
    for (round, (name, id)) in blobs.iter().enumerate() {
        assert_eq!(vault.get(name, *id).await.unwrap(), content(round as u64, 50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_rotations_at_once_one_wins_and_its_key_opens() {
    for mut home in homes() {
        let one = home.create().await;
        let two = home.open().await.unwrap();
        let (b, c) = (master("b"), master("c"));
        let (first, second) = tokio::join!(one.rotate(&b, now()), two.rotate(&c, now()));
        let winner = match (&first, &second) {
            (Ok(_), Err(VaultError::Conflict { .. } | VaultError::WrongKey { .. })) => b,
            (Err(VaultError::Conflict { .. } | VaultError::WrongKey { .. }), Ok(_)) => c,
            other => panic!("{other:?}"),
        };
        home.options.master_key = Some(winner);
        home.open().await.unwrap();
    }
}

#[tokio::test]
async fn a_rotation_that_cannot_be_is_refused() {
    let plain = Home::folder(false).create().await;
    assert!(plain.rotate(&master("b"), now()).await.is_err());
    let home = Home::folder(true);
    let same = home.create().await.rotate(&master("a"), now()).await;
    assert!(matches!(same, Err(VaultError::SameKey { .. })), "{same:?}");
}

#[tokio::test]
async fn a_changed_key_in_vault_json_does_not_open() {
    let home = Home::folder(true);
    home.create().await;
    let text = std::fs::read_to_string(home.file("vault.json")).unwrap();
    let at = text.find("\"key\": \"").unwrap() + 20;
    home.change("vault.json", |bytes| bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' });
    assert!(matches!(home.open().await, Err(VaultError::BadManifest { .. })));
}

#[tokio::test]
async fn no_secret_is_in_the_vault_or_shown() {
    let home = Home::folder(true);
    let vault = home.create().await;
    let shown = format!("{vault:?} {:?} {}", home.options, std::fs::read_to_string(home.file("vault.json")).unwrap());
    assert!(!shown.contains(&"a".repeat(16)), "{shown}");
}

/// One vault that was written by format 1, so that no later version fails to read it.
#[tokio::test]
async fn a_vault_of_format_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1");
    if std::env::var_os("STILLPOINT_WRITE_FIXTURE").is_some() {
        std::fs::remove_dir_all(&fixture).ok();
        let mut options = stillpoint_vault::Options::new(format!("file:{}", fixture.display()));
        options.master_key = Some(master("a"));
        let vault = Vault::create_or_open(&options, crate::support::catalog(1), now(), 7).await.unwrap();
        put(&vault, "oplog/first", content(1, 50)).await;
        vault.rotate(&master("b"), now()).await.unwrap();
        put(&vault, "oplog/second", content(2, 50)).await;
    }
    std::fs::create_dir(folder.path().join("oplog")).unwrap();
    std::fs::copy(fixture.join("vault.json"), folder.path().join("vault.json")).unwrap();
    for entry in std::fs::read_dir(fixture.join("oplog")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join("oplog").join(entry.file_name())).unwrap();
    }
    let mut options = stillpoint_vault::Options::new(format!("file:{}", folder.path().display()));
    options.master_key = Some(MasterKey::from_text("KEY", &"b".repeat(64).into()).unwrap());
    let vault = Vault::open(&options, None).await.unwrap();
    let found = names(&vault, "oplog").await;
    for (name, seed) in found.iter().zip([1, 2]) {
        let id = name.rsplit('-').next().unwrap().parse().unwrap();
        assert_eq!(vault.get(name, id).await.unwrap(), content(seed, 50), "{name}");
    }
    assert_eq!(found.len(), 2);
}
