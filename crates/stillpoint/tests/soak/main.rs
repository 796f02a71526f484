//! A real cluster under load, its members, the server and the vault failing at random; and at the end
//! everything that is stored is compared with the oplogs, and the bank's money is counted in every checkpoint.
//!
//! `SECONDS=600 cargo test -p stillpoint --test soak` runs it longer than a minute; `SEED=…` repeats what an
//! earlier run chose.

mod bank;
#[path = "../cluster/captured.rs"]
#[expect(dead_code, reason = "the cluster tests use all of it")]
mod captured;
mod chaos;
#[path = "../cluster/support.rs"]
#[expect(dead_code, reason = "the cluster tests use all of it")]
mod support;
mod writers;

use std::time::Duration;

use bson::doc;
use futures::future::try_join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stillpoint_core::checkpoint::{Reason, State};
use stillpoint_lab::{Lab, ReplicaSet, Workload};
use stillpoint_lab_s3 as s3;
use stillpoint_vault::{Options, S3, Vault};
use tokio::sync::watch;
use tokio::time::Instant;

use captured::{assert_all, assert_stored_tokens, prepared, prepared_of};
use chaos::Chaos;
use support::{LIMITS, NS, Server, lab_of, set_of};

/// From the last fault until all is stored: the longest pause between two tries, and then some.
const SETTLE: Duration = Duration::from_secs(120);
const PREFIX: &str = "soak";
/// Why no checkpoint may fail: nobody else touches the balancer here, no chunk moves, no shard comes or goes, and
/// no oplog is overwritten.
const NEVER: [Reason; 5] = [
    Reason::TokenTooEarly,
    Reason::BalancerStartedByOthers,
    Reason::BalancerHistoryLost,
    Reason::DataMoving,
    Reason::PartsChanged,
];

#[test]
fn s3_server_process() {
    s3::serve_if_asked();
}

fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number")),
        Err(_) => default,
    }
}

#[tokio::test]
async fn whatever_fails_meanwhile_what_is_stored_is_the_oplogs() {
    let seed = from_environment("SEED", rand::rng().random());
    let seconds = from_environment("SECONDS", 60);
    eprintln!("SEED={seed} SECONDS={seconds}");
    let mut rng = StdRng::seed_from_u64(seed);

    let lab = lab_of(Lab::builder().members(3).config_members(3)).await;
    for set in lab.parts() {
        keep_oplog(set).await;
    }
    let s3 = s3::Server::start(s3::TEST).unwrap();
    let options = vault_options(&s3);
    let server = serve(&lab, &s3).await;

    let workload = Workload::start_seeded(&lab, NS, 4, rng.random()).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let writers = writers::start(&lab, rng.random(), stopped);

    // From this one every checkpoint can be gone back to.
    bank::ask(&server).await;
    let first = bank::settled(&server).await;
    assert!(first.iter().all(|snapshot| snapshot.is_sound()), "{first:?}");

    let mut chaos = Chaos::new(&lab, server, s3, rng);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        chaos.act().await;
    }
    let (server, _s3) = chaos.end().await;

    let summary = workload.stop().await.unwrap();
    stop.send(true).unwrap();
    let written = writers.await.unwrap();
    eprintln!("{summary:?} {written:?}");
    assert!(summary.held > 0 && written.rounds > 0 && written.large > 0);

    // Everything before its tokens is stored once it has completed.
    let last = server.complete().await;
    let vault = Vault::open(&options, None).await.unwrap();
    let captured = assert_all(&lab, &server, &vault, SETTLE).await;
    // A read that met wrong bytes noted a gap, which is there until all is read again.
    bank::is_whole(&server, &vault).await;
    assert_eq!(server.gaps().await, []);
    let records = server.records().await;
    assert!(records.iter().any(|record| record.id == last.id));
    let completed: Vec<_> = records.iter().filter(|record| record.state == State::Completed).collect();
    completed.iter().for_each(|record| assert_stored_tokens(record, &captured));
    for (part, captured) in &captured {
        let open = prepared_of(&captured.open);
        assert_eq!(open, prepared(set_of(&lab, part)).await, "{part}");
        assert_eq!(open, [], "{part}: the workload has ended all");
        eprintln!(
            "{part}: {} entries of {} bytes in {} segments, open {:?}",
            captured.entries,
            captured.bytes,
            captured.segments.len(),
            captured.open
        );
    }
    for record in records.iter().rev() {
        if let (Some(failure), Some(ended)) = (&record.failure, record.ended) {
            eprintln!("{:.1} to {ended:.1}: {:?}, {}", record.started, failure.reason, failure.detail);
            assert!(!NEVER.contains(&failure.reason), "{record:?}");
        }
    }
    let counted = bank::count(&lab, &server, &vault, &records, summary.total).await;
    eprintln!("{} of {} checkpoints completed, the money is right in {counted}", completed.len(), records.len());
}

/// Enough that nothing is overwritten before it is compared.
async fn keep_oplog(set: &ReplicaSet) {
    let members = 0..set.members();
    let resized = try_join_all(members.map(async |i| {
        let resize = doc! {"replSetResizeOplog": 1, "size": 50_000.0};
        set.endpoint().connect(i).await?.run("admin", resize).await
    }));
    resized.await.unwrap();
}

async fn serve(lab: &Lab, s3: &s3::Server) -> Server {
    let vault = format!(
        "\n[vault]\nurl = \"s3://{}/{PREFIX}\"\n\n[vault.s3]\nendpoint = \"{}\"\nregion = \"us-east-1\"\n\
         access_key_id = \"{}\"\nsecret_access_key_file = \"secret\"\nallow_http = true\npath_style = true\n\n\
         [capture]\nseal_after = \"1s\"\n",
        s3::BUCKET,
        s3.endpoint(),
        s3::ACCESS_KEY_ID
    );
    let mut server = Server::installed(&format!("interval = \"off\"\n{LIMITS}{vault}"));
    std::fs::write(server.folder().join("secret"), s3::SECRET_ACCESS_KEY).unwrap();
    server.serve(None).await;
    server.add_cluster(lab).await;
    server
}

fn vault_options(s3: &s3::Server) -> Options {
    let mut options = Options::new(format!("s3://{}/{PREFIX}", s3::BUCKET));
    options.s3 = S3 {
        endpoint: Some(s3.endpoint()),
        region: Some("us-east-1".into()),
        access_key_id: Some(s3::ACCESS_KEY_ID.into()),
        secret_access_key: Some(s3::SECRET_ACCESS_KEY.into()),
        session_token: None,
        allow_http: true,
        path_style: true,
    };
    options
}
