//! Whose a vault is, and how it is made.

use futures::future::join_all;
use stillpoint_vault::{Vault, VaultError};

use crate::support::{Home, catalog, content, now, put};

fn homes() -> [Home; 2] {
    [Home::folder(true), Home::s3(true)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_that_make_it_at_once_all_open_the_same_vault() {
    for home in homes() {
        let made = (0..6).map(|chance| Vault::create_or_open(&home.options, catalog(1), now(), chance));
        let vaults: Vec<Vault> = join_all(made).await.into_iter().map(Result::unwrap).collect();
        assert!(vaults.iter().all(|vault| vault.id() == vaults[0].id()));
        let (name, id) = put(&vaults[0], "oplog/a", content(1, 10)).await;
        for vault in &vaults {
            assert_eq!(vault.get(&name, id).await.unwrap(), content(1, 10), "they have the same keys");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_catalogs_at_once_one_gets_the_place() {
    for home in homes() {
        let made = (1..=2).map(|owner| Vault::create_or_open(&home.options, catalog(owner), now(), owner));
        let made = join_all(made).await;
        assert_eq!(made.iter().filter(|vault| vault.is_ok()).count(), 1);
        let refused = made.iter().find_map(|vault| vault.as_ref().err()).unwrap();
        assert!(matches!(refused, VaultError::Owner { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_vault_of_another_catalog_is_refused_and_left_alone() {
    for home in homes() {
        let vault = home.create().await;
        for refused in [
            Vault::open(&home.options, Some(catalog(2))).await,
            Vault::create_or_open(&home.options, catalog(2), now(), 9).await,
        ] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, VaultError::Owner { .. }), "{refused}");
            assert!(refused.to_string().contains("belongs to another catalog"), "{refused}");
        }
        let anyones = Vault::open(&home.options, None).await.unwrap();
        assert_eq!((anyones.id(), anyones.owner()), (vault.id(), catalog(1)));
    }
}

#[tokio::test]
async fn there_is_no_vault_until_one_is_made_and_then_it_stays() {
    for home in homes() {
        assert!(matches!(home.open().await, Err(VaultError::NoVault { .. })));
        let id = home.create().await.id();
        assert_eq!(home.create().await.id(), id);
        assert_eq!(home.open().await.unwrap().id(), id);
    }
}

#[tokio::test]
async fn a_place_that_holds_something_else_is_no_place_for_a_new_vault() {
    for home in homes() {
        let name = put(&home.create().await, "oplog/a", content(1, 10)).await.0;
        std::fs::remove_file(home.file("vault.json")).unwrap();
        let refused = home.try_create().await.unwrap_err();
        assert!(matches!(&refused, VaultError::NotEmpty { found, .. } if *found == name), "{refused}");
    }
}

#[tokio::test]
async fn a_newer_or_broken_vault_json_is_refused_by_name() {
    for home in homes() {
        home.create().await;
        home.change("vault.json", |bytes| *bytes = br#"{"format": 2}"#.to_vec());
        for refused in [home.try_create().await, home.open().await] {
            assert!(matches!(refused, Err(VaultError::Format { found: 2, .. })), "{refused:?}");
        }
        home.change("vault.json", |bytes| bytes.truncate(5));
        for refused in [home.try_create().await, home.open().await] {
            assert!(matches!(refused, Err(VaultError::BadManifest { .. })), "{refused:?}");
        }
    }
}
