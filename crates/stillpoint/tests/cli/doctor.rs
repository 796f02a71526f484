//! `stillpoint doctor` on a cluster that is well.

use stillpoint_lab::Lab;

use crate::support::Operator;

#[tokio::test]
async fn every_part_is_looked_at() {
    let lab = Lab::builder().shards(1).start().await.unwrap();
    let operator = Operator::new();
    std::fs::write(operator.path("uri"), lab.uri()).unwrap();
    let ran = operator.run(&["doctor", "--uri-file", "uri"]);
    for part in ["shard rs0", "the config servers"] {
        for says in [
            "MongoDB ",
            "its clock agrees",
            "all 1 members are healthy",
            "its oplog reaches back",
            "it asks for no user",
        ] {
            let line = ran.lines().into_iter().find(|line| line.contains(&format!("{part}: {says}")));
            assert!(line.is_some(), "{part} {says}: {ran:?}");
        }
    }
    assert!(!ran.stdout.contains("PROBLEM") && ran.stderr.is_empty(), "{ran:?}");

    let document = operator.json(&["doctor", "--uri-file", "uri"]);
    let findings = document["findings"].as_array().unwrap();
    for finding in findings {
        let fields: Vec<_> = finding.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["level", "part", "what", "remedy"]);
        assert!(["good", "warning"].contains(&finding["level"].as_str().unwrap()), "{finding}");
        assert_eq!(finding["level"] == "good", finding["remedy"].as_array().unwrap().is_empty(), "{finding}");
    }
    assert_eq!(operator.names(), ["stillpoint.toml", "uri"], "no catalog is needed, so none is made");

    operator.run(&["doctor"]).fails(2, "name a cluster with --project and --cluster");
    operator.run(&["doctor", "-p", "p", "-c", "c"]).fails(1, "there is no catalog");
    operator.run(&["project", "create", "other"]).ok();
    operator.run(&["doctor", "-p", "p", "-c", "c"]).fails(1, "there is no project \"p\"");
}
