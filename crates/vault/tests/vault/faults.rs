//! An S3 server that fails: every call ends in success or in the right error, within the limits, and
//! nobody ever sees a part of a blob.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use stillpoint_lab_s3::{Fault, What};
use stillpoint_vault::{Vault, VaultError};

use crate::support::{Home, MIB, content, master, names, now, put};

/// What a request may take; a part of a large blob takes a good second of it on a slow machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than that.
const TOO_LATE: What = What::Delay { millis: 6_000 };
/// More than any call waits with that patience.
const BOUND: Duration = Duration::from_secs(60);

async fn home() -> (Home, Vault) {
    let home = Home::s3(true).waiting(PATIENCE);
    let vault = home.create().await;
    (home, vault)
}

/// Puts, reads, lists and deletes a small and a large blob under `fault`, all of which must succeed.
async fn all_goes_well(what: &str, fault: impl Fn() -> Fault) {
    let (mut home, vault) = home().await;
    for bytes in [1_000, 11 * MIB] {
        let before = home.server().hits().unwrap();
        home.server().add(fault()).unwrap();
        let (name, id) = put(&vault, "oplog/a", content(1, bytes)).await;
        assert_eq!(vault.get(&name, id).await.unwrap(), content(1, bytes), "{what}");
        assert_eq!(names(&vault, "oplog").await, std::slice::from_ref(&name), "{what}");
        vault.delete(&name).await.unwrap();
        assert!(home.server().hits().unwrap() > before, "{what}: the fault hit something");
        home.server().clear().unwrap();
        assert_eq!(names(&vault, "oplog").await, [""; 0], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_server_are_outlasted() {
    for (status, code) in [(500, "InternalError"), (503, "SlowDown")] {
        for method in ["PUT", "GET", "DELETE"] {
            all_goes_well(code, || Fault::refuse(status, code).on(method, "").times(3)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_replies_are_asked_for_again() {
    for method in ["PUT", "GET", "DELETE"] {
        all_goes_well(method, || Fault::new(TOO_LATE).on(method, "").times(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_replies_are_no_failure() {
    for method in ["PUT", "GET", "DELETE"] {
        all_goes_well(method, || Fault::new(What::LoseReply).on(method, "").times(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_requests_and_replies_are_begun_again() {
    all_goes_well("request", || Fault::new(What::CutRequest { bytes: 500 }).on("PUT", "").times(2)).await;
    all_goes_well("request", || Fault::new(What::CutRequest { bytes: 0 }).on("PUT", "").times(2)).await;
    all_goes_well("reply", || Fault::new(What::CutReply { bytes: 500 }).on("GET", "oplog/").times(2)).await;
    all_goes_well("list", || Fault::new(What::CutReply { bytes: 20 }).on("GET", "list-type").times(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_an_upload_in_parts_may_fail() {
    let (mut home, vault) = home().await;
    let steps: [(&str, Fault); 7] = [
        ("begin", Fault::refuse(500, "InternalError").on("POST", "uploads").times(2)),
        ("begin, lost", Fault::new(What::LoseReply).on("POST", "uploads").times(1)),
        ("part", Fault::refuse(503, "SlowDown").on("PUT", "partNumber=2").times(2)),
        ("part, cut", Fault::new(What::CutRequest { bytes: 2_000_000 }).on("PUT", "partNumber=2").times(2)),
        ("part, late", Fault::new(TOO_LATE).on("PUT", "partNumber=3").times(1)),
        ("end", Fault::refuse(500, "InternalError").on("POST", "uploadId").times(2)),
        ("end, lost", Fault::new(What::LoseReply).on("POST", "uploadId").times(1)),
    ];
    for (seed, (step, fault)) in steps.into_iter().enumerate() {
        let left = home.server().unfinished_uploads().unwrap();
        let hits = home.server().hits().unwrap();
        home.server().add(fault).unwrap();
        let (name, id) = put(&vault, "oplog/a", content(seed as u64, 11 * MIB)).await;
        assert!(home.server().hits().unwrap() > hits, "{step}");
        home.server().clear().unwrap();
        assert_eq!(vault.get(&name, id).await.unwrap(), content(seed as u64, 11 * MIB), "{step}");
        // Of one whose beginning was never heard of nobody knows the id.
        let lost = usize::from(step == "begin, lost");
        assert_eq!(home.server().unfinished_uploads().unwrap() - left, lost, "{step}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_fails_for_good_is_aborted_and_leaves_nothing() {
    for fault in [
        Fault::new(What::CutRequest { bytes: 2_000_000 }).on("PUT", "partNumber=2"),
        Fault::refuse(500, "InternalError").on("POST", "uploadId"),
        Fault::refuse(403, "AccessDenied").on("PUT", "partNumber=2"),
    ] {
        let (mut home, vault) = home().await;
        home.server().add(fault.clone()).unwrap();
        let begun = Instant::now();
        let failed = vault.put("oplog/a", content(1, 11 * MIB)).await.unwrap_err();
        assert!(matches!(failed, VaultError::Unavailable { .. } | VaultError::Refused { .. }), "{failed}");
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
        assert_eq!(home.server().unfinished_uploads().unwrap(), 0, "{fault:?}");
        assert_eq!(names(&vault, "oplog").await, [""; 0]);
        home.server().clear().unwrap();
        put(&vault, "oplog/a", content(1, 11 * MIB)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_for_good_ends_in_a_retryable_error_within_the_limits() {
    for what in [
        What::Refuse { status: 503, code: "SlowDown".into() },
        What::Delay { millis: 60_000 },
        What::LoseReply,
        What::CutReply { bytes: 3 },
    ] {
        let mut home = Home::s3(true).impatient();
        let vault = home.create().await;
        let (name, id) = put(&vault, "oplog/a", content(1, 1_000)).await;
        home.server().add(Fault::new(what.clone()).on("GET", "")).unwrap();
        home.server().add(Fault::new(what.clone()).on("PUT", "")).unwrap();
        home.server().add(Fault::new(what.clone()).on("HEAD", "")).unwrap();
        home.server().add(Fault::new(what.clone()).on("DELETE", "")).unwrap();
        let cut = matches!(what, What::CutReply { .. });
        let begun = Instant::now();
        let calls = [vault.get(&name, id).await.map(drop), vault.list("oplog").try_collect::<Vec<_>>().await.map(drop)];
        for failed in calls {
            assert!(failed.as_ref().is_err_and(VaultError::is_transient), "{what:?}: {failed:?}");
        }
        // The reply to these has no body to cut.
        if !cut {
            let calls = [vault.put("oplog/b", content(2, 1_000)).await.map(drop), vault.delete(&name).await];
            for failed in calls {
                assert!(failed.as_ref().is_err_and(VaultError::is_transient), "{what:?}: {failed:?}");
            }
        }
        assert!(begun.elapsed() < BOUND, "{what:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_change_on_the_way_are_read_again_and_damaged_ones_are_damaged() {
    let (mut home, vault) = home().await;
    for bytes in [1_000, 11 * MIB] {
        let (name, id) = put(&vault, "oplog/a", content(1, bytes)).await;
        home.server().add(Fault::new(What::Corrupt { at: 500 }).on("GET", "oplog/").times(1)).unwrap();
        assert_eq!(vault.get(&name, id).await.unwrap(), content(1, bytes));
        home.server().add(Fault::new(What::Corrupt { at: 500 }).on("GET", "oplog/")).unwrap();
        assert!(matches!(vault.get(&name, id).await, Err(VaultError::Damaged { .. })));
        home.server().clear().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_gives_wrong_bytes_for_a_while_is_outlasted() {
    let mut home = Home::s3(true);
    home.options.limits.reread_time = Duration::from_secs(20);
    let vault = home.create().await;
    let (name, id) = put(&vault, "oplog/a", content(1, 1_000)).await;
    // At first, at once, and after 0.5 and 1 s; after 2 s it is right.
    home.server().add(Fault::new(What::Corrupt { at: 500 }).on("GET", "oplog/").times(4)).unwrap();
    let begun = Instant::now();
    assert_eq!(vault.get(&name, id).await.unwrap(), content(1, 1_000));
    assert_eq!(home.server().hits().unwrap(), 4);
    assert!(begun.elapsed() >= Duration::from_millis(3_500), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_is_made_and_rotated_although_the_reply_is_lost() {
    let mut home = Home::s3(true).impatient();
    home.server().add(Fault::new(What::LoseReply).on("PUT", "vault.json").times(1)).unwrap();
    let vault = home.create().await;
    home.server().add(Fault::new(What::LoseReply).on("PUT", "vault.json").times(1)).unwrap();
    vault.rotate(&master("b"), now()).await.unwrap();
    home.server().add(Fault::new(What::Delay { millis: 1500 }).on("PUT", "vault.json").times(1)).unwrap();
    vault.rotate(&master("c"), now()).await.unwrap();
    home.options.master_key = Some(master("c"));
    assert_eq!(home.open().await.unwrap().id(), vault.id());
    assert_eq!(home.server().hits().unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_several_pages_goes_on_where_it_broke_off() {
    let (mut home, vault) = home().await;
    put(&vault, "oplog/a/0", content(1, 10)).await;
    let expected: Vec<String> = (1..=2500).map(|number| format!("oplog/a/{number:05}")).collect();
    for name in &expected {
        std::fs::write(home.file(name), b"x").unwrap();
    }
    home.server().add(Fault::new(What::CutReply { bytes: 5_000 }).on("GET", "list-type").after(2).times(2)).unwrap();
    let listed = names(&vault, "oplog").await;
    assert_eq!(home.server().hits().unwrap(), 2);
    assert_eq!(listed.len(), 2501);
    assert!(expected.iter().all(|name| listed.binary_search(name).is_ok()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_blob_is_written_again_and_again_there_is_all_of_it_or_nothing() {
    let (mut home, vault) = home().await;
    home.server().add(Fault::new(What::CutRequest { bytes: 1_500_000 }).on("PUT", "oplog/").after(1).times(4)).unwrap();
    let reader = vault.clone();
    let (done, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let watch = tokio::spawn(async move {
        let mut seen = 0;
        while stopped.try_recv().is_err() {
            for name in names(&reader, "oplog").await {
                let id = name.rsplit('-').next().unwrap().parse().unwrap();
                assert_eq!(reader.get(&name, id).await.unwrap().len(), 11 * MIB);
                seen += 1;
            }
        }
        seen
    });
    for seed in 0..4 {
        put(&vault, "oplog/a", content(seed, 11 * MIB)).await;
    }
    done.send(()).unwrap();
    println!("{} reads while writing", watch.await.unwrap());
    assert_eq!(names(&vault, "oplog").await.len(), 4);
}
