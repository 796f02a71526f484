//! Writers that die, and what is left of them.

use std::process::{Command, Stdio};
use std::time::Duration;

use futures::TryStreamExt;
use stillpoint_vault::{Options, Vault, is_leftover};

use crate::support::{Home, MIB, catalog, content, names, now, put};

const WRITER: &str = "STILLPOINT_TEST_WRITER";

/// Not a test by itself: the process that is killed below.
#[test]
fn writer_process() {
    let Ok(url) = std::env::var(WRITER) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let vault = Vault::create_or_open(&Options::new(url), catalog(1), now(), 7).await.unwrap();
        for seed in 0.. {
            put(&vault, &format!("oplog/a/{seed:010}"), content(seed, 2 * MIB)).await;
        }
    });
}

#[tokio::test]
async fn of_a_killed_writer_every_blob_is_whole_and_the_rest_is_swept() {
    let home = Home::folder(false);
    let mut written = 0;
    let mut left = 0;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crashes::writer_process", "--exact"])
            .env(WRITER, &home.options.url)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(150 + 37 * round)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let Ok(vault) = home.open().await else { continue };
        for name in names(&vault, "oplog").await {
            assert!(!is_leftover(&name), "{name}");
            let id = name.rsplit('-').next().unwrap().parse().unwrap();
            assert_eq!(vault.get(&name, id).await.unwrap().len(), 2 * MIB, "{name}");
            vault.delete(&name).await.unwrap();
            written += 1;
        }
        for leftover in vault.leftovers().try_collect::<Vec<_>>().await.unwrap() {
            vault.delete(&leftover.name).await.unwrap();
            left += 1;
        }
        assert_eq!(vault.leftovers().try_collect::<Vec<_>>().await.unwrap(), []);
    }
    assert!(written > 0, "the writers came to write");
    println!("{written} blobs were whole, {left} leftovers were swept");
}

#[tokio::test]
async fn leftovers_are_found_wherever_they_are_and_are_in_no_list() {
    let home = Home::folder(false);
    let vault = home.create().await;
    let (name, _) = put(&vault, "oplog/a/b", content(1, 10)).await;
    let (left, top) = (format!("{name}#1"), "vault.json#2".to_owned());
    std::fs::write(home.file(&left), b"half").unwrap();
    std::fs::write(home.file(&top), b"ha").unwrap();
    let mut found: Vec<_> = vault.leftovers().try_collect().await.unwrap();
    found.sort_by_key(|listed| listed.bytes);
    assert_eq!(found.iter().map(|listed| listed.name.clone()).collect::<Vec<_>>(), [top, left]);
    assert_eq!(names(&vault, "").await, [name.clone(), "vault.json".to_owned()]);
    put(&vault, "oplog/a/b", content(1, 10)).await;
    for leftover in found {
        vault.delete(&leftover.name).await.unwrap();
        vault.delete(&leftover.name).await.unwrap();
    }
    assert_eq!(vault.leftovers().try_collect::<Vec<_>>().await.unwrap(), []);
    assert_eq!(names(&vault, "oplog").await, [name]);
}

#[tokio::test]
async fn nothing_is_written_where_the_disk_is_no_longer_mounted() {
    let home = Home::folder(false);
    let vault = home.create().await;
    let folder = home.file("vault.json").parent().unwrap().to_owned();
    std::fs::rename(&folder, folder.with_extension("elsewhere")).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let refused = vault.put("oplog/a", content(1, 10)).await.unwrap_err();
    assert!(refused.is_transient() && refused.to_string().contains("mounted"), "{refused}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[tokio::test]
async fn a_server_that_dies_and_comes_back_is_waited_for() {
    let mut home = Home::s3(false);
    let vault = home.create().await;
    home.server().kill().unwrap();
    let (written, ()) = tokio::join!(put(&vault, "oplog/a", content(1, 6 * MIB)), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        home.server().restart().unwrap();
    });
    assert_eq!(vault.get(&written.0, written.1).await.unwrap(), content(1, 6 * MIB));
}

/// From now on nothing is synced that this thread, or one that it starts, asks for: as with a disk that fails.
#[cfg(target_os = "linux")]
fn fail_syncs() {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let step = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    // See seccomp(2). What the filter looks at begins with the system call's number.
    let mut steps = [
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        step(BPF_JMP | BPF_JEQ | BPF_K, 1, libc::SYS_fsync as u32),
        step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EIO as u32),
        step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel reads the filter, which lives until both have returned; only this thread is changed.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// What is in its place may not survive a power cut: whoever put it there may have failed right after.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_is_there_already_is_stored_only_once_it_is_synced() {
    let home = Home::folder(false);
    let vault = home.create().await;
    let (name, _) = put(&vault, "oplog/a/b", content(1, 10)).await;
    let options = home.options.clone();
    let on_a_failing_disk = std::thread::spawn(move || {
        fail_syncs();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let vault = Vault::open(&options, None).await.unwrap();
            [vault.put("oplog/a/b", content(1, 10)).await, vault.put("oplog/a/c", content(2, 10)).await]
        })
    });
    for stored in on_a_failing_disk.join().unwrap() {
        let refused = stored.unwrap_err();
        assert!(refused.is_transient(), "{refused}");
    }
    assert_eq!(put(&vault, "oplog/a/b", content(1, 10)).await.0, name);
}
