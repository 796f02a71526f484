//! `/metrics` of a running server: beside the API, or on an address of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use stillpoint_catalog::sqlite::SqliteCatalog;
use stillpoint_catalog::{Catalog, Cluster};
use stillpoint_core::checkpoint::{Checkpoint, Found, Part, PartId, PutBack, Released, State, Token};
use stillpoint_core::stream::{BlobId, CaptureReport, Gap, GapCause, Segment, Stream};
use stillpoint_core::{CheckpointId, ClusterId, ClusterTime, OpTime};

use crate::support::{Operator, Server};

const CONFIG: &str = "[server]\nlisten = \"127.0.0.1:0\"\n[checkpoint]\ninterval = \"off\"\n";
/// Not to be seen on the page.
const HOST: &str = "shard0.internal:27018";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn time(seconds: u32) -> ClusterTime {
    ClusterTime::new(seconds, 1)
}

/// A catalog with a cluster that nobody can reach, and what was stored of it before.
async fn seeded() -> Operator {
    let operator = Operator::with_project();
    let open = SqliteCatalog::open_with_key_file(&operator.path("stillpoint.db"), &operator.path("stillpoint.key"));
    let catalog = open.unwrap();
    let (created, id) = (at(1_000), ClusterId::new(at(1_000), 1));
    let cluster = Cluster {
        id,
        project: catalog.project_named("p").await.unwrap().unwrap().id,
        name: "Cluster \"0\"".into(),
        identity: "identity".into(),
        uri: "mongodb://backup:clusters-secret@127.0.0.1:1/?replicaSet=cfg".into(),
        created,
    };
    operator.secret("clusters-secret");
    catalog.add_cluster(&cluster).await.unwrap();
    let lease = catalog.claim_lease(id, "t", created, Duration::from_secs(60)).await.unwrap().unwrap();
    for part in [PartId::Shard("rs 0".into()), PartId::ConfigServers] {
        let stream = Stream {
            cluster: id,
            part: part.clone(),
            replica_set: "rs".into(),
            from: time(2_000),
            complete_from: time(2_000),
            since: time(2_000),
            began: created,
            ended: None,
            unresolved: None,
            kept_from: None,
        };
        catalog.begin_stream(&lease, &stream, None).await.unwrap();
        let segment = Segment {
            cluster: id,
            part: part.clone(),
            blob: BlobId([7; 32]),
            previous: None,
            first: OpTime::new(time(2_000), 1),
            last: OpTime::new(time(2_100), 1),
            entries: 40,
            bytes: 5_000,
            stored: 600,
            sealed: at(2_101),
            tokens: Vec::new(),
            open: Vec::new(),
        };
        catalog.append_segment(&lease, &segment).await.unwrap();
        let report = CaptureReport {
            at: at(2_105),
            stored: Some(time(2_100)),
            majority: Some(time(2_104)),
            oldest: Some(time(1_500)),
            behind_bytes: Some(10),
            trouble: Some((at(2_102), format!("{HOST} does not answer"))),
            halted: false,
        };
        catalog.report_capture(id, &part, &report).await.unwrap();
    }
    let gap = Gap {
        part: PartId::ConfigServers,
        after: time(2_010),
        until: time(3_000),
        cause: GapCause::SegmentMissing,
        found: at(2_050),
        detail: HOST.into(),
    };
    catalog.add_gap(id, &gap).await.unwrap();
    catalog.queue_checkpoint(&completed(id)).await.unwrap();
    catalog.release_lease(&lease).await.unwrap();
    operator
}

fn completed(cluster: ClusterId) -> Checkpoint {
    let token = Token { attempt: 1, time: time(2_060), discovered: true, discovered_at: Some(at(2_065)) };
    let part = Part { id: PartId::ConfigServers, replica_set: "cfg".into(), term: Some(1), token: Some(token) };
    Checkpoint {
        state: State::Completed,
        parts: vec![part],
        clock: Some(time(2_059)),
        cut: Some(time(2_060)),
        found: Some(Found { running: true, settings: "{}".into(), seen: time(2_058), from: HOST.into() }),
        held_since: Some(at(2_058)),
        released: Some(Released { at: at(2_062), how: PutBack::AsFound }),
        ended: Some(at(2_065)),
        ..Checkpoint::queued(CheckpointId::new(at(2_058), 1), cluster, at(2_058))
    }
}

/// From a series with its labels to its value.
type Samples = BTreeMap<String, f64>;

/// Reads a page as Prometheus reads it, and no less strictly.
fn parse(page: &str) -> Samples {
    let mut samples = Samples::new();
    let mut families = BTreeSet::new();
    let mut lines = page.lines().peekable();
    let name_of = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        assert!(end > 0 && !text.starts_with(|c: char| c.is_ascii_digit()), "no name: {text}");
        text[..end].to_owned()
    };
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert_eq!(lines.next(), None, "something after the end");
            assert!(page.ends_with("# EOF\n"));
            return samples;
        }
        let help = line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("a family begins with its help: {line}"));
        let family = name_of(help);
        let sentence = help[family.len()..].trim();
        assert!(sentence.ends_with('.') && !sentence.ends_with(".."), "{help}");
        assert_eq!(lines.next(), Some(format!("# TYPE {family} gauge").as_str()));
        assert!(families.insert(family.clone()), "{family} is there twice");
        let before = samples.len();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            assert_eq!(name_of(line), family);
            let (series, value) = line.rsplit_once(' ').unwrap();
            labels(&series[family.len()..]);
            let value: f64 = value.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(value.is_finite(), "{line}");
            assert_eq!(samples.insert(series.to_owned(), value), None, "{series} is there twice");
        }
        assert!(samples.len() > before, "{family} has no value");
    }
    panic!("no end: {page}");
}

/// `{name="value",…}`, with `\\`, `\"` and `\n` in values.
fn labels(text: &str) {
    let mut rest = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).expect(text);
    let mut names = BTreeSet::new();
    loop {
        let (name, value) = rest.split_once("=\"").expect(text);
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && names.insert(name), "{text}");
        let mut escape = false;
        let end = value.char_indices().find_map(|(at, c)| {
            assert!(!escape || matches!(c, '\\' | '"' | 'n'), "{text}");
            let done = c == '"' && !escape;
            escape = c == '\\' && !escape;
            done.then_some(at)
        });
        rest = &value[end.expect(text) + 1..];
        if rest.is_empty() {
            return;
        }
        rest = rest.strip_prefix(',').expect(text);
    }
}

/// The figures that the seeded catalog has.
fn has_the_seeded(samples: &Samples) {
    let cluster = r#"project="p",cluster="Cluster \"0\"""#;
    for (part, gaps) in [("shard-rs%200", 0.0), ("config", 1.0)] {
        for (name, value) in [
            ("stored_bytes", 600.0),
            ("stored_oplog_bytes", 5_000.0),
            ("stored_segments", 1.0),
            ("stored_entries", 40.0),
            ("capture_stored_timestamp_seconds", 2_100.0),
        ] {
            let series = format!("stillpoint_{name}{{{cluster},part=\"{part}\"}}");
            assert_eq!(samples.get(&series), Some(&value), "{series} in {samples:#?}");
        }
        let missing = format!("stillpoint_gaps{{{cluster},part=\"{part}\",cause=\"SEGMENT_MISSING\"}}");
        assert_eq!(samples[&missing], gaps);
        assert_eq!(samples[&missing.replace("SEGMENT_MISSING", "ROLLED_OVER")], 0.0);
    }
    for (name, value) in [
        ("checkpoint_last_completed_timestamp_seconds", 2_062.0),
        ("checkpoint_last_failed", 0.0),
        ("checkpoint_discovery_seconds", 3.0),
        ("balancer_held_seconds", 0.0),
    ] {
        assert_eq!(samples[&format!("stillpoint_{name}{{{cluster}}}")], value, "{name}");
    }
    assert!(samples[&format!("stillpoint_checkpoint_age_seconds{{{cluster}}}")] > 1e9);
    assert_eq!(samples[&format!("stillpoint_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_are_beside_the_api_and_need_no_credentials() {
    let operator = seeded().await;
    let server = Server::start(&operator);
    let reply = server.request("GET", "/metrics", "");
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    let (head, page) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    has_the_seeded(&parse(page));
    assert!(!page.contains("internal"), "{page}");

    let open = server.request("GET", "/metrics?a=b", "Accept: application/openmetrics-text;version=1.0.0\r\n");
    assert!(
        open.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{open}"
    );
    has_the_seeded(&parse(open.split_once("\r\n\r\n").unwrap().1));

    let head = server.request("HEAD", "/metrics", "");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("\r\ncontent-length: "), "{head}");
    assert_eq!(head.split_once("\r\n\r\n").unwrap().1, "");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let reply = server.request(method, "/metrics", "");
        assert!(reply.starts_with("HTTP/1.1 405 ") && reply.contains("\r\nallow: GET, HEAD\r\n"), "{reply}");
    }
    for path in ["/metrics/", "/metrics/x", "//metrics"] {
        assert!(server.get(path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    assert!(server.get("/api/atlas/v1.0/groups").starts_with("HTTP/1.1 401 "), "the API is there, too");
    server.stops();
    let trail = operator.json(&["audit"]);
    assert!(!trail.to_string().contains("/metrics"), "{trail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_an_address_of_their_own_the_figures_are_there_only() {
    let operator = seeded().await;
    operator.configure(&format!("{CONFIG}[metrics]\nlisten = \"127.0.0.1:0\"\n"));
    let server = Server::start(&operator);
    assert!(server.get("/metrics").starts_with("HTTP/1.1 404 "));
    let log = server.log();
    let (address, _) = log.split_once("metrics are at http://").unwrap().1.split_once("/metrics").unwrap();
    let own = |method, path| server.request_at(address, method, path, "");
    let reply = own("GET", "/metrics");
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    has_the_seeded(&parse(reply.split_once("\r\n\r\n").unwrap().1));
    assert!(own("POST", "/metrics").starts_with("HTTP/1.1 405 "));
    for path in ["/", "/api", "/api/docs", "/api/openapi.json", "/api/atlas/v1.0/groups"] {
        assert!(own("GET", path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    server.stops();
}

#[test]
fn an_address_for_the_figures_that_is_taken_is_named_with_its_setting() {
    let operator = Operator::new();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    operator.configure(&format!("{CONFIG}[metrics]\nlisten = \"{address}\"\n"));
    operator.run(&["serve"]).fails(1, &format!("{address} is in use")).fails(1, "metrics.listen");
    assert_eq!(operator.names(), ["stillpoint.toml"], "nothing was made");
}
