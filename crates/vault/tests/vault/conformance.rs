//! What every kind of vault does.

use futures::TryStreamExt;
use futures::future::join_all;
use stillpoint_core::stream::BlobId;
use stillpoint_vault::{Listed, VaultError};

use crate::support::{Home, MIB, content, names, put};

/// Makes a test of each of these functions for each kind of vault.
macro_rules! conformance {
    ($($test:ident)*) => {
        conformance!(@ folder_plain Home::folder(false), $($test)*);
        conformance!(@ folder_encrypted Home::folder(true), $($test)*);
        conformance!(@ s3_plain Home::s3(false), $($test)*);
        conformance!(@ s3_encrypted Home::s3(true), $($test)*);
    };
    (@ $kind:ident $home:expr, $($test:ident)*) => {
        mod $kind {
            use crate::support::Home;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test($home).await;
                }
            )*
        }
    };
}

conformance! {
    what_was_put_is_got_back_and_listed_and_gone_after_it_was_deleted
    a_content_that_is_there_is_not_written_again
    no_damaged_byte_goes_unnoticed_and_a_damaged_blob_can_be_put_again
    a_cut_or_lengthened_blob_is_damaged
    a_blob_in_the_place_of_another_is_damaged
    what_is_too_large_is_not_read
    names_that_cannot_be_are_refused
    a_vault_that_is_gone_is_not_taken_for_an_empty_one
    a_list_has_every_name_of_its_prefix_and_no_other
    the_same_blob_may_be_put_and_read_by_many_at_once
}

async fn what_was_put_is_got_back_and_listed_and_gone_after_it_was_deleted(home: Home) {
    let vault = home.create().await;
    assert_eq!(vault.is_encrypted(), home.is_encrypted());
    let more = if home.is_encrypted() { 40 } else { 12 };
    for (seed, bytes) in [0, 1, 70_000, 5 * MIB - more, 5 * MIB - more + 1, 11 * MIB].into_iter().enumerate() {
        let content = content(seed as u64, bytes);
        let place = "oplog/0a/shard-a%2Fb%20c/0000000007-0000000012";
        let stored = vault.put(place, content.clone()).await.unwrap();
        assert_eq!(stored.stored, (bytes + more) as u64);
        let name = format!("{place}-{}", stored.blob);
        assert_eq!(vault.get(&name, stored.blob).await.unwrap(), content, "{bytes} bytes");
        assert_eq!(home.open().await.unwrap().get(&name, stored.blob).await.unwrap(), content);

        let listed: Vec<Listed> = vault.list("oplog/0a").try_collect().await.unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!((&listed[0].name, listed[0].bytes), (&name, stored.stored));
        assert!(listed[0].modified.as_second() > 1_700_000_000);

        vault.delete(&name).await.unwrap();
        vault.delete(&name).await.unwrap();
        assert!(matches!(vault.get(&name, stored.blob).await, Err(VaultError::Missing { .. })));
        assert_eq!(names(&vault, "oplog").await, [""; 0]);
    }
    assert_eq!(names(&vault, "").await, ["vault.json"], "nor are probes left");
}

async fn a_content_that_is_there_is_not_written_again(home: Home) {
    let vault = home.create().await;
    let (name, _) = put(&vault, "oplog/a", content(1, 1000)).await;
    let state = || (std::fs::read(home.file(&name)).unwrap(), home.file(&name).metadata().unwrap().modified().unwrap());
    let before = state();
    assert_eq!(put(&vault, "oplog/a", content(1, 1000)).await.0, name);
    assert_eq!(state(), before);
}

async fn no_damaged_byte_goes_unnoticed_and_a_damaged_blob_can_be_put_again(home: Home) {
    let vault = home.create().await;
    let (name, id) = put(&vault, "oplog/a", content(1, 300)).await;
    let whole = std::fs::read(home.file(&name)).unwrap();
    let last = whole.len() - 1;
    for at in (0..30).chain([100, last - 16, last]) {
        home.change(&name, |bytes| bytes[at] ^= 0x10);
        let refused = vault.get(&name, id).await;
        let key_id = home.is_encrypted() && (8..12).contains(&at);
        match refused {
            Err(VaultError::Damaged { .. }) if !key_id => {}
            Err(VaultError::UnknownKey { .. }) if key_id => {}
            other => panic!("byte {at}: {other:?}"),
        }
        assert_eq!(put(&vault, "oplog/a", content(1, 300)).await.0, name);
        assert_eq!(vault.get(&name, id).await.unwrap(), content(1, 300), "byte {at}");
    }
}

async fn a_cut_or_lengthened_blob_is_damaged(home: Home) {
    let vault = home.create().await;
    let (name, id) = put(&vault, "oplog/a", content(1, 300)).await;
    let whole = std::fs::read(home.file(&name)).unwrap();
    for bytes in [0, 1, 11, 12, 39, 40, 150, whole.len() - 1, whole.len() + 1] {
        home.change(&name, |stored| stored.resize(bytes, 0));
        let refused = vault.get(&name, id).await;
        assert!(matches!(refused, Err(VaultError::Damaged { .. })), "{bytes}: {refused:?}");
        put(&vault, "oplog/a", content(1, 300)).await;
        assert_eq!(vault.get(&name, id).await.unwrap(), content(1, 300), "{bytes}");
    }
}

async fn a_blob_in_the_place_of_another_is_damaged(home: Home) {
    let vault = home.create().await;
    let (one, id) = put(&vault, "oplog/a", content(1, 300)).await;
    let (two, _) = put(&vault, "oplog/b", content(2, 300)).await;
    let other = std::fs::read(home.file(&two)).unwrap();
    home.change(&one, |bytes| *bytes = other);
    let refused = vault.get(&one, id).await;
    assert!(matches!(refused, Err(VaultError::Damaged { .. })), "{refused:?}");
}

async fn what_is_too_large_is_not_read(mut home: Home) {
    let (name, id) = put(&home.create().await, "oplog/a", content(1, 2_000)).await;
    home.options.limits.most = 1_000;
    let vault = home.open().await.unwrap();
    let refused = vault.get(&name, id).await;
    assert!(matches!(refused, Err(VaultError::TooLarge { most: 1_000, .. })), "{refused:?}");
    let refused = vault.put("oplog/b", content(1, 1_001)).await;
    assert!(matches!(refused, Err(VaultError::TooLarge { bytes: 1_001, .. })), "{refused:?}");
    let (name, id) = put(&vault, "oplog/b", content(1, 1_000)).await;
    assert_eq!(vault.get(&name, id).await.unwrap(), content(1, 1_000));
}

async fn names_that_cannot_be_are_refused(home: Home) {
    let vault = home.create().await;
    let long = "x".repeat(241);
    for place in ["", "/a", "a//b", "a/../b", "../b", "a b", "a#1", "a?b", "ä", "probe/a", "vault.json/a", &long] {
        let refused = vault.put(place, content(1, 1)).await;
        assert!(matches!(refused, Err(VaultError::Name { .. })), "{place}: {refused:?}");
    }
    let (name, _) = put(&vault, "oplog/a", content(1, 1)).await;
    let other = vault.get(&name, BlobId([7; 32])).await;
    assert!(matches!(other, Err(VaultError::Name { .. })), "{other:?}");
    for name in ["", "vault.json", "../x", "/oplog"] {
        assert!(matches!(vault.delete(name).await, Err(VaultError::Name { .. })), "{name}");
    }
}

async fn a_vault_that_is_gone_is_not_taken_for_an_empty_one(home: Home) {
    let vault = home.create().await;
    let (name, id) = put(&vault, "oplog/a", content(1, 1)).await;
    std::fs::remove_file(home.file("vault.json")).unwrap();
    std::fs::remove_file(home.file(&name)).unwrap();
    let read = vault.get(&name, id).await;
    assert!(matches!(read, Err(VaultError::Unavailable { .. })), "{read:?}");
    let listed = vault.list("oplog").try_collect::<Vec<_>>().await;
    assert!(matches!(listed, Err(VaultError::Unavailable { .. })), "{listed:?}");
    if home.is_folder() {
        let written = vault.put("oplog/b", content(2, 1)).await;
        assert!(written.as_ref().is_err_and(VaultError::is_transient), "{written:?}");
    }
}

async fn a_list_has_every_name_of_its_prefix_and_no_other(home: Home) {
    let vault = home.create().await;
    let mut expected = Vec::new();
    for number in 0..30 {
        expected.push(put(&vault, &format!("oplog/a/{number:010}"), content(number, 10)).await.0);
    }
    expected.sort();
    put(&vault, "oplog/ab/x", content(1, 10)).await;
    put(&vault, "other/a/x", content(1, 10)).await;
    assert_eq!(names(&vault, "oplog/a").await, expected);
    assert_eq!(names(&vault, "oplog").await.len(), 31);
    assert_eq!(names(&vault, "nothing/here").await, [""; 0]);
}

async fn the_same_blob_may_be_put_and_read_by_many_at_once(home: Home) {
    let vault = home.create().await;
    let puts = join_all((0..8).map(|_| put(&vault, "oplog/a", content(1, 300_000)))).await;
    let reads = join_all(puts.iter().map(|(name, id)| vault.get(name, *id))).await;
    for read in reads {
        assert_eq!(read.unwrap(), content(1, 300_000));
    }
    assert_eq!(names(&vault, "oplog").await, [puts[0].0.clone()]);
}
