//! What each command says of itself.

use crate::support::Operator;

#[test]
fn every_command_says_what_it_does() {
    let operator = Operator::new();
    for (command, says) in [
        ("", "Checkpoints and point-in-time restore for sharded MongoDB clusters"),
        ("serve", "Run the server"),
        ("project", "Projects"),
        ("project create", "Make a project"),
        ("project list", "List the projects"),
        ("key", "API keys"),
        ("key create", "Its secret is shown once"),
        ("key list", "without their secrets"),
        ("key grant", "a further project"),
        ("key revoke", "Take its role"),
        ("key access-list", "Replace the addresses"),
        ("key rotate", "a new secret"),
        ("key delete", "refused from then on"),
        ("organization", "Organisations"),
        ("organization create", "Make an organisation"),
        ("organization list", "List the organisations"),
        ("service-account", "Service accounts, for OAuth"),
        ("audit", "Who did what"),
        ("openapi", "OpenAPI 3.1"),
        ("cluster", "sharded clusters"),
        ("cluster add", "Examine a cluster and look after it"),
        ("cluster list", "List a project's clusters"),
        ("cluster show", "Show a cluster and its parts"),
        ("cluster remove", "Forget a cluster"),
        ("diff", "Compare two points in time"),
        ("checkpoint", "Checkpoints of a cluster"),
        ("checkpoint take", "Take a checkpoint now"),
        ("checkpoint list", "newest first"),
        ("checkpoint show", "Show a checkpoint"),
        ("checkpoint delete", "Delete a checkpoint"),
        ("snapshot", "Snapshots of a cluster"),
        ("snapshot take", "Take a snapshot now"),
        ("snapshot list", "newest first"),
        ("snapshot show", "Show a snapshot"),
        ("snapshot keep", "until you say otherwise"),
        ("snapshot expire", "when the schedule has said"),
        ("snapshot delete", "that nothing needs"),
        ("restore", "or as files to be downloaded"),
        ("restore", "--link-hours"),
        ("restore-job show", "the links of what can be downloaded"),
        ("restore-job cancel", "also those that are ready"),
        ("oplog", "The stored oplogs"),
        ("oplog list", "List what is stored of each part"),
        ("oplog export", "exactly as the server wrote them"),
        ("vault", "where the oplogs are stored"),
        ("vault show", "Show where the vault is"),
        ("vault check", "Read everything in the vault"),
        ("vault rotate-key", "Seal an encrypted vault with a new master key"),
        ("status", "Whether a server runs"),
        ("status", "how capture stands"),
        ("doctor", "Examine a cluster"),
        ("drill", "restored into a throw-away cluster"),
        ("drill run", "Ends with 1 if it does not pass"),
        ("drill schedule", "Set when a cluster's drills are"),
        ("drill list", "the newest 100 are kept"),
        ("drill show", "Show a drill"),
    ] {
        let words: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let ran = operator.run(&words);
        ran.ok();
        assert!(ran.stdout.contains(says) && ran.stderr.is_empty(), "{ran:?}");
        for global in ["--config", "--json"] {
            assert!(ran.stdout.contains(global), "{ran:?}");
        }
    }
    assert_eq!(operator.names(), ["stillpoint.toml"], "help makes nothing");
}

#[test]
fn the_version_is_on_standard_output() {
    let ran = Operator::new().run(&["--version"]);
    assert_eq!(ran.ok().stdout.trim(), concat!("stillpoint ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_use_ends_with_2_and_says_how() {
    let operator = Operator::new();
    for (words, says) in [
        (vec!["chekpoint"], "chekpoint"),
        (vec!["status", "--jsno"], "--jsno"),
        (vec!["project", "create"], "<NAME>"),
        (vec!["key", "create", "--role", "GROUP_OWNER"], "--project"),
        (vec!["checkpoint", "show", "-p", "p", "-c", "c", "not-an-id"], "24 hexadecimal digits"),
        (vec!["checkpoint", "list", "-p", "p", "-c", "c", "--limit=-1"], "--limit"),
        (vec!["snapshot", "show", "-p", "p", "-c", "c", "not-an-id"], "24 hexadecimal digits"),
        (vec!["doctor", "--project", "p"], "--cluster"),
        (vec!["oplog", "export", "-p", "p", "-c", "c"], "--part"),
        (vec!["verify", "-p", "p", "-c", "c"], "--checkpoint <ID>|--snapshot <ID>|--at <TIME>"),
        (
            vec!["verify", "-p", "p", "-c", "c", "--at", "7:1", "--snapshot", "6a0000000000000000000000"],
            "cannot be used",
        ),
        (vec!["diff", "-p", "p", "-c", "c", "--at", "7:1"], "--to-checkpoint <ID>|--to-snapshot <ID>|--to-at <TIME>"),
        (vec!["diff", "-p", "p", "-c", "c", "--to-at", "7:1"], "--checkpoint <ID>|--snapshot <ID>|--at <TIME>"),
        (vec!["drill", "schedule", "-p", "p", "-c", "c", "--every", "7w"], "write it as 7d, 12h or 30m"),
        (vec!["drill", "schedule", "-p", "p", "-c", "c", "--every", "7d", "--off"], "cannot be used"),
        (vec!["drill", "schedule", "-p", "p", "-c", "c", "--off", "--folder", "/tmp"], "cannot be used"),
        (vec!["drill", "show", "-p", "p", "-c", "c", "not-an-id"], "24 hexadecimal digits"),
        (vec!["vault", "rotate-key"], "--new-key-file"),
        (vec!["vault", "check", "-c", "c"], "--project"),
    ] {
        operator.run(&words).fails(2, says);
    }
    let bare = operator.run(&[]);
    assert!(bare.code == 2 && bare.stdout.is_empty() && bare.stderr.contains("Usage:"), "{bare:?}");
    assert_eq!(operator.names(), ["stillpoint.toml"]);
}
