//! What becomes of a server whose vault cannot be used.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Operator, Server};

fn key_file(operator: &Operator, name: &str, digit: char) {
    let secret = digit.to_string().repeat(64);
    operator.secret(&secret);
    fs::write(operator.path(name), secret).unwrap();
    fs::set_permissions(operator.path(name), fs::Permissions::from_mode(0o600)).unwrap();
}

fn configure(operator: &Operator, vault: &str) {
    operator.configure(&format!("[server]\nlisten = \"127.0.0.1:0\"\n\n[vault]\n{vault}\n"));
}

/// A vault that takes connections and never says a word. What refuses them may be given up before the server's
/// patience ends.
fn silent_vault(operator: &Operator) -> TcpListener {
    operator.secret("secret-of-the-bucket");
    fs::write(operator.path("secret"), "secret-of-the-bucket").unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    configure(
        operator,
        &format!(
            "url = \"s3://bucket/prefix\"\ns3 = {{ endpoint = \"{endpoint}\", region = \"here\", access_key_id = \"me\", \
             secret_access_key_file = \"secret\", allow_http = true, path_style = true }}"
        ),
    );
    silent
}

#[test]
fn a_server_comes_up_though_its_vault_does_not_answer() {
    let operator = Operator::with_project();
    let _silent = silent_vault(&operator);
    let server = Server::start(&operator);
    assert!(server.log().contains("the vault does not answer, trying again"), "{}", server.log());
    assert!(server.get("/api/docs").contains("200"));
    server.stops();
}

#[test]
fn a_server_that_is_stopped_while_it_starts_ends_as_one_that_ran() {
    let operator = Operator::with_project();
    let silent = silent_vault(&operator);
    let server = Server::begin(&operator);
    // It waits for its vault now.
    let _connection = silent.accept().unwrap();
    let log = server.stops();
    assert!(log.contains("stopped before it had started") && !log.contains("listens on"), "{log}");
}

#[test]
fn a_wrong_master_key_is_named_at_the_start() {
    let operator = Operator::with_project();
    key_file(&operator, "master.key", 'a');
    configure(&operator, "master_key_file = \"master.key\"");
    let server = Server::start(&operator);
    assert!(server.log().contains(", encrypted"), "{}", server.log());
    server.stops();

    key_file(&operator, "other.key", 'b');
    configure(&operator, "master_key_file = \"other.key\"");
    let ran = operator.run(&["serve"]);
    ran.fails(1, "was sealed with master key");
    assert!(ran.stderr.contains("other.key is "), "{ran:?}");
    configure(&operator, "");
    operator.run(&["serve"]).fails(1, "name the file that has it");
    operator.secret(&"c".repeat(64));
    operator.run_with(&["serve"], "", &[("STILLPOINT_MASTER_KEY", &"c".repeat(64))]).fails(1, "$STILLPOINT_MASTER_KEY");
}

#[test]
fn a_vault_that_is_gone_or_anothers_is_not_replaced_by_an_empty_one() {
    let operator = Operator::with_project();
    configure(&operator, "");
    Server::start(&operator).stops();

    fs::rename(operator.path("vault"), operator.path("elsewhere")).unwrap();
    let server = Server::start(&operator);
    assert!(server.log().contains("is its disk mounted?"), "{}", server.log());
    server.stops();
    assert!(!operator.path("vault").exists());

    let other = Operator::with_project();
    configure(&other, &format!("url = \"file:{}\"", operator.path("elsewhere").display()));
    other.run(&["serve"]).fails(1, "belongs to another catalog");
}
