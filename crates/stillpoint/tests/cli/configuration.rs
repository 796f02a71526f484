//! The configuration, the catalog and the key file: each that cannot be used is named, and nothing is
//! written.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Operator, Server};

#[test]
fn an_unknown_key_is_named() {
    let operator = Operator::new();
    operator.configure("[server]\nlitsen = \"127.0.0.1:0\"\n");
    for words in [vec!["serve"], vec!["status"], vec!["project", "create", "p"]] {
        operator.run(&words).fails(1, "litsen");
    }
    operator.configure("");
    operator.run_with(&["status"], "", &[("STILLPOINT_SERVER__LITSEN", "1")]).fails(1, "litsen");
    assert_eq!(operator.names(), ["stillpoint.toml"]);
}

#[test]
fn text_that_is_no_toml_is_refused() {
    let operator = Operator::new();
    operator.configure("[server\nlisten = 1");
    operator.run(&["status"]).fails(1, "the configuration: ");
    operator.configure("[server]\nlisten = \"nowhere\"\n");
    operator.run(&["status"]).fails(1, "listen");
}

#[test]
fn the_file_is_named_on_the_command_line_or_in_the_environment() {
    let operator = Operator::new();
    std::fs::create_dir(operator.path("etc")).unwrap();
    std::fs::write(operator.path("etc/other.toml"), "[catalog]\nurl = \"sqlite:other.db\"\n").unwrap();
    operator.run(&["--config", "etc/other.toml", "project", "create", "p"]).ok();
    assert!(operator.path("etc/other.db").exists() && !operator.path("stillpoint.db").exists());
    let ran = operator.run_with(&["project", "list"], "", &[("STILLPOINT_CONFIG", "etc/other.toml")]);
    assert_eq!(ran.lines().len(), 2);

    operator.run(&["status", "--config", "missing.toml"]).fails(1, "missing.toml cannot be read");
    let ran = operator.run_with(&["status"], "", &[("STILLPOINT_CATALOG__URL", "mongodb://u:pw@host/")]);
    ran.fails(1, "catalog.url must be sqlite:FILE");
    assert!(!ran.stderr.contains("pw"), "{ran:?}");
}

#[test]
fn a_public_address_without_tls_is_refused_unless_asked_for() {
    let operator = Operator::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080"] {
        operator.configure(&format!("[server]\nlisten = \"{address}\"\n"));
        operator.run(&["serve"]).fails(1, "can be reached by others, without TLS").fails(1, "server.allow_plain_http");
    }
    // Of an address that is not this machine's, nothing but the refusal is lifted.
    operator.configure("[server]\nlisten = \"192.0.2.1:8080\"\nallow_plain_http = true\n");
    operator.run(&["serve"]).fails(1, "cannot listen on 192.0.2.1:8080");
    operator.configure("[server]\nlisten = \"192.0.2.1:8080\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n");
    operator.run(&["serve"]).fails(1, "cert.pem");
    operator.configure("[server]\ntls_cert = \"cert.pem\"\n");
    operator.run(&["serve"]).fails(1, "set both or none");
    assert_eq!(operator.names(), ["stillpoint.toml"], "nothing was made");
}

#[test]
fn a_busy_port_is_named() {
    let operator = Operator::new();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    operator.configure(&format!("[server]\nlisten = \"{address}\"\n"));
    operator.run(&["serve"]).fails(1, &format!("{address} is in use"));
    assert_eq!(operator.names(), ["stillpoint.toml"], "nothing was made");
}

#[test]
fn a_server_starts_on_nothing_and_stops_when_told() {
    let operator = Operator::new();
    let server = Server::start(&operator);
    assert_eq!(operator.run(&["status"]).lines(), ["no cluster yet: `stillpoint cluster add` adds one"]);
    // A second one on the same catalog, on another port.
    operator.run(&["serve"]).fails(1, "another `stillpoint serve` has this catalog open");
    server.stops();
    let server = Server::start(&operator);
    server.kill_9();
    Server::start(&operator).stops();
    for file in ["stillpoint.db", "stillpoint.key"] {
        let mode = std::fs::metadata(operator.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

/// Every way into the catalog.
const ALL: [&[&str]; 5] = [
    &["serve"],
    &["status"],
    &["project", "create", "another"],
    &["key", "list", "-p", "p"],
    &["checkpoint", "list", "-p", "p", "-c", "c"],
];

/// All fail alike and change nothing.
fn refused(operator: &Operator, says: &str) {
    let files = || operator.names().into_iter().map(|name| (std::fs::read(operator.path(&name)).ok(), name)).collect();
    let before: Vec<_> = files();
    for words in ALL {
        let ran = operator.run(words);
        assert!(ran.stderr.contains(says) && ran.code == 1 && ran.stdout.is_empty(), "no {says:?} in {ran:?}");
        assert!(files() == before, "{ran:?} has changed something");
    }
}

#[test]
fn a_corrupt_key_file_is_refused() {
    let operator = Operator::with_project();
    let right = std::fs::read_to_string(operator.path("stillpoint.key")).unwrap();
    operator.secret(right.trim().rsplit(':').next().unwrap());
    for corrupt in ["", "hello\n", &right[..40], &right.replace("v1", "v9")] {
        std::fs::write(operator.path("stillpoint.key"), corrupt).unwrap();
        refused(&operator, "stillpoint.key is corrupt");
    }
    let last = if right.ends_with("0\n") { "1\n" } else { "0\n" };
    std::fs::write(operator.path("stillpoint.key"), format!("{}{last}", &right[..right.len() - 2])).unwrap();
    refused(&operator, "sealed with another key, or damaged");

    std::fs::write(operator.path("stillpoint.key"), &right).unwrap();
    std::fs::set_permissions(operator.path("stillpoint.key"), PermissionsExt::from_mode(0o644)).unwrap();
    refused(&operator, "run `chmod 600` on it");
    std::fs::remove_file(operator.path("stillpoint.key")).unwrap();
    refused(&operator, "put it back from its backup");
}

#[test]
fn a_catalog_that_cannot_be_used_is_refused() {
    let operator = Operator::with_project();
    let right = std::fs::read(operator.path("stillpoint.db")).unwrap();
    std::fs::write(operator.path("stillpoint.db"), "no database at all ".repeat(300)).unwrap();
    refused(&operator, "stillpoint.db cannot be opened");

    // The format stands in the header, big-endian, at byte 60 (SQLite's `user_version`).
    let mut newer = right.clone();
    newer[60..64].copy_from_slice(&99u32.to_be_bytes());
    std::fs::write(operator.path("stillpoint.db"), newer).unwrap();
    refused(&operator, "written by a newer stillpoint (format 99");

    std::fs::write(operator.path("stillpoint.db"), right).unwrap();
    assert_eq!(operator.run(&["project", "list"]).lines().len(), 2);
}

#[test]
fn proxies_limits_and_retention_are_checked() {
    let operator = Operator::with_project();
    for (text, says) in [
        ("[server]\ntrusted_proxies = [\"10.0.0.0/33\"]\n", "192.0.2.0/24"),
        ("[server]\nconnections = 0\n", "server.connections must be from 1 to 100000"),
        ("[audit]\nkeep_days = 0\n", "audit.keep_days must be from 1"),
        ("[audit]\nentries = 0\n", "audit.entries from 1"),
        ("[server]\nv1_rate_limit = -1\n", "v1_rate_limit"),
    ] {
        operator.configure(text);
        operator.run(&["status"]).fails(1, says);
    }
    operator.configure("[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]\nv1_rate_limit = 100\n");
    operator.run(&["status"]).ok();
    operator.run_with(&["status"], "", &[("STILLPOINT_SERVER__TRUSTED_PROXIES", "10.0.0.0/8,::1")]).ok();
    operator.run_with(&["status"], "", &[("STILLPOINT_SERVER__TRUSTED_PROXIES", "nowhere")]).fails(1, "192.0.2.7");
}

#[test]
fn the_openapi_document_is_printed_with_the_configured_url() {
    let operator = Operator::new();
    operator.configure("[server]\npublic_url = \"https://backup.example.net/\"\n");
    for document in [operator.json(&["openapi"]), serde_json::from_str(&operator.run(&["openapi"]).stdout).unwrap()] {
        assert_eq!(
            (&document["openapi"], &document["servers"][0]["url"]),
            (&"3.1.0".into(), &"https://backup.example.net".into())
        );
        let path = "/api/atlas/v1.0/groups/{groupId}/clusters/{clusterName}/backupCheckpoints/{checkpointId}";
        assert!(document["paths"][path]["get"].is_object());
    }
    assert_eq!(operator.names(), ["stillpoint.toml"], "nothing was made");
}
