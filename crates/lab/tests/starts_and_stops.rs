//! A lab comes up quickly, and leaves no process and no folder behind.

use stillpoint_lab::Lab;

#[tokio::test]
async fn a_lab_starts_and_leaves_no_process() {
    let begin = std::time::Instant::now();
    let lab = Lab::builder().start().await.unwrap();
    eprintln!("up after {:?}", begin.elapsed());
    let pids = lab.pids().await;
    assert_eq!(pids.len(), 3);
    drop(lab);
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}

#[tokio::test]
async fn members_users_and_proxies_together() {
    let begin = std::time::Instant::now();
    let lab = Lab::builder()
        .shards(1)
        .members(3)
        .config_members(1)
        .auth(true)
        .cuttable(true)
        .test_commands(true)
        .start()
        .await
        .unwrap();
    eprintln!("up after {:?}", begin.elapsed());
    let names = lab.config().client().list_database_names().await.unwrap();
    assert!(names.contains(&"config".to_owned()));
}
