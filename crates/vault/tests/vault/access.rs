//! What is said when something is missing or not allowed.

use std::time::{Duration, Instant};

use stillpoint_lab_s3::Fault;
use stillpoint_vault::{Options, Vault, VaultError};

use crate::support::{Home, catalog, later, names};

#[tokio::test]
async fn wrong_credentials_are_told_from_unknown_ones() {
    let mut home = Home::s3(false).impatient();
    home.options.s3.secret_access_key = Some("another".into());
    let refused = home.try_create().await.unwrap_err();
    assert!(matches!(refused, VaultError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("the secret access key is not the one of this access key id"), "{refused}");
    assert!(!refused.to_string().contains("another"), "{refused}");

    home.options.s3.access_key_id = Some("UNKNOWN".into());
    let refused = home.try_create().await.unwrap_err();
    assert!(matches!(refused, VaultError::Refused { .. }), "{refused}");
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_named() {
    let mut home = Home::s3(false);
    home.options.url = "s3://no-such-bucket/vault".into();
    for refused in [home.try_create().await, home.open().await] {
        let refused = refused.unwrap_err();
        assert!(matches!(&refused, VaultError::NoBucket { bucket, .. } if bucket == "no-such-bucket"), "{refused}");
    }
}

#[tokio::test]
async fn each_right_that_is_missing_is_named_at_once() {
    for (method, target, doing) in [
        ("PUT", "probe/", "write probe/"),
        ("GET", "prefix/probe/", "read probe/"),
        ("GET", "list-type=2&prefix=some%2Fprefix%2Fprobe", "list probe/"),
        ("DELETE", "probe/", "delete probe/"),
        ("GET", "vault.json", "read vault.json"),
    ] {
        let mut home = Home::s3(false);
        home.server().add(Fault::refuse(403, "AccessDenied").on(method, target)).unwrap();
        let refused = home.try_create().await.unwrap_err();
        assert!(matches!(refused, VaultError::Refused { .. }), "{method} {target}: {refused}");
        assert!(refused.to_string().contains(&format!("not allowed to {doing}")), "{refused}");
        home.server().clear().unwrap();
        let vault = home.create().await;
        // What could not be deleted then is deleted once it is old.
        let probes = names(&vault, "probe").await.len();
        assert_eq!(probes, usize::from(target.contains("probe") && method != "PUT"), "{method} {target}");
        Vault::create_or_open(&home.options, catalog(1), later(), 7).await.unwrap();
        assert_eq!(names(&vault, "probe").await, [""; 0]);
    }
}

#[tokio::test]
async fn reading_asks_for_no_right_to_write() {
    let mut home = Home::s3(false);
    home.create().await;
    for method in ["PUT", "POST", "DELETE"] {
        home.server().add(Fault::refuse(403, "AccessDenied").on(method, "")).unwrap();
    }
    home.open().await.unwrap();
}

#[tokio::test]
async fn nobody_there_and_nobody_answering_end_within_the_limits() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let closed_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for endpoint in [
        format!("http://127.0.0.1:{silent_port}"),
        format!("https://127.0.0.1:{silent_port}"),
        format!("http://127.0.0.1:{closed_port}"),
    ] {
        let mut home = Home::s3(false).impatient();
        home.options.s3.endpoint = Some(endpoint);
        let begun = Instant::now();
        let refused = home.try_create().await.unwrap_err();
        assert!(refused.is_transient(), "{refused}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_file_is_no_folder_for_a_vault() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut home = Home::folder(false);
    for url in [format!("file:{}", file.path().display()), format!("file:{}/below", file.path().display())] {
        home.options = Options::new(url);
        let refused = home.try_create().await.unwrap_err();
        assert!(matches!(refused, VaultError::Url { .. } | VaultError::Unavailable { .. }), "{refused}");
    }
}
