//! Schemathesis: requests of every kind, right and wrong, made from a description of the API; each reply
//! must be as described.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::digest_client::DigestClient;
use crate::packages::python;
use crate::process::run;
use crate::seed::{CLUSTER, TARGET, account, owner};
use crate::server::{Server, tells_no_secret};

const LIMIT: Duration = Duration::from_secs(300);
/// Any other is as good; this one makes a failure come again.
const SEED: &str = "20261124";
/// Of each kind, for each operation.
const EXAMPLES: &str = "25";
/// Of version 2 a client may make 1,200 requests at once, and 500 more after a minute.
const V2_RATE: &str = "1100/m";
/// So that they are not many more in all.
const V2_EXAMPLES: &str = "10";
/// Known to Schemathesis; few, since it tries each of them.
const CHECKPOINTS: usize = 20;
const PHASES: [&str; 4] = ["Examples", "Coverage", "Fuzzing", "Stateful"];

/// Runs it with a description; `published` if that is another's.
fn schemathesis(server: &Server, description: &Path, published: bool, arguments: &[&str]) {
    let seed = &server.seed;
    let known = json!({
        "groupId": [seed.project], "clusterName": [CLUSTER], "clusterId": [seed.cluster],
        "checkpointId": seed.checkpoints[..CHECKPOINTS], "snapshotId": seed.snapshots, "jobId": seed.jobs,
    });
    // In a body: other checkpoints than are deleted, and a snapshot that cannot be.
    let checkpoints = &seed.checkpoints[CHECKPOINTS..][..3];
    let known_to_bodies = json!({
        "checkpointId": checkpoints, "checkPointId": checkpoints, "snapshotId": seed.snapshots.last().as_slice(),
        "targetGroupId": [seed.project], "targetClusterId": [seed.target], "targetClusterName": [TARGET],
    });
    let mut command = python();
    command.args(["-m", "schemathesis.cli", "run", "--url", &server.base, "--seed", SEED]);
    command.args(["--max-examples", EXAMPLES, "--phases", &PHASES.join(",").to_lowercase()]);
    command.args(["--continue-on-failure", "--generation-database", "none", "--no-color"]);
    // Else it takes a request without `Authorization` for a wrong one, and then logs it in.
    command.args(["--generation-with-security-parameters", "false"]);
    command.args(arguments).arg(description);
    // What it keeps goes with the server.
    command.current_dir(server.folder()).env("SCHEMATHESIS_HOOKS", "schemathesis_hooks");
    command.envs([("CLIENT_OWNER", owner()), ("CLIENT_ACCOUNT", account()), ("CLIENT_KNOWN", known.to_string())]);
    command.env("CLIENT_KNOWN_TO_BODIES", known_to_bodies.to_string());
    if published {
        command.env("CLIENT_PUBLISHED", "1");
    }
    let ended = run(command, LIMIT);
    tells_no_secret(&format!("{ended:?}"));
    server.has_told_no_secret();
    let printed = ended.ok();
    // One that saw nothing but errors ends well, with a warning.
    assert!(!printed.contains("WARNINGS"), "{printed}");
    for phase in PHASES {
        assert!(printed.contains(&format!("✅ {phase}")), "{phase}: {printed}");
    }
}

async fn own(arguments: &[&str]) {
    let server = Server::with_a_cluster_that_fails_at_once().await;
    let url = format!("{}/api/openapi.json", server.base);
    let reply = DigestClient::new(&owner()).send("GET", &url, "", None).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let description = server.folder().join("openapi.json");
    std::fs::write(&description, reply.text).unwrap();
    // A link is good once, which is not what Schemathesis takes for a right answer to a right request.
    for expected in [200, 410] {
        let url = format!("{}/api/downloads/{}", server.base, server.seed.links[0]);
        assert_eq!(DigestClient::new(&owner()).send("GET", &url, "", None).await.status, expected);
    }
    let arguments = [&["--exclude-operation-id", "getDownload"], arguments].concat();
    schemathesis(&server, &description, false, &arguments);
}

#[tokio::test]
async fn its_own_description() {
    own(&["--exclude-path-regex", "^/api/atlas/v2/"]).await;
}

#[tokio::test]
async fn its_own_description_of_version_2() {
    // A restore is asked for in many forms: those are tried on the other surfaces.
    let few = ["--exclude-operation-id", "createGroupClusterRestoreJob"];
    let few = [few, ["--rate-limit", V2_RATE], ["--max-examples", V2_EXAMPLES]].concat();
    own(&[&["--include-path-regex", "^/api/atlas/v2/"], &few[..]].concat()).await;
}

/// The part of the published description of version 2 that the server has. It is not ours to copy, so it
/// is there for some only.
#[tokio::test]
async fn the_published_description() {
    let Some(description) = published() else { return };
    let server = Server::with_a_cluster_that_fails_at_once().await;
    let arguments = [
        ["--include-path-regex", "backupCheckpoints|snapshotSchedule"],
        // It lacks the methods that the server has beyond it.
        ["--exclude-checks", "unsupported_method,allow_header_conformance"],
    ];
    schemathesis(&server, &description, true, arguments.as_flattened());
}

/// What lies in `../shared/openapi`, seen from the workspace's root.
fn published() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/openapi");
    let mut files = std::fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "json"))
}
