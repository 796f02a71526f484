//! Restores as files: asked for like others, shown with their links to those who may, and each downloaded once.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use stillpoint_api::{Body, Limits, Options, Peer, Settings};
use stillpoint_catalog::{AuditEntry, Catalog};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::{File, Gone, Part, Point, Restore, State, Target};
use stillpoint_core::{ClusterId, ClusterTime, RestoreId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::coverage;
use crate::support::{
    BATCH, CHECKPOINT, CLUSTER, GROUP, Lab, OWNER, READER, Reply, SNAPSHOT, completed, finished_restore, limits, time,
};

const ACCEPT: (&str, &str) = ("accept", "application/vnd.atlas.2023-01-01+json");
const JSON: (&str, &str) = ("content-type", "application/json");
/// The restore that has files, and its jobs: of the shard, and of the config servers.
const FILES: &str = "6b94183187d9d64b6f2868f0";
const SHARD_JOB: &str = "6b94183187d9d64b6f2868f1";
const CONFIG_JOB: &str = "6b94183187d9d64b6f2868f2";
const LIMIT: Duration = Duration::from_secs(10);

fn collections() -> [String; 3] {
    [("atlas/v1.0", "Cluster0"), ("atlas/v2", "Cluster0"), ("public/v1.0", CLUSTER)]
        .map(|(prefix, cluster)| format!("/api/{prefix}/groups/{GROUP}/clusters/{cluster}/restoreJobs"))
}

fn cluster() -> ClusterId {
    CLUSTER.parse().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the files have in them: the second is more than fits between a server and a client that does not read.
fn contents() -> [Vec<u8>; 2] {
    let some: Vec<_> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    [b"of the shard".to_vec(), some.repeat(40)]
}

/// A restore whose files are ready, since the present of the lab, and can be downloaded for two hours.
fn ready() -> Restore {
    let jobs: [RestoreId; 2] = [SHARD_JOB.parse().unwrap(), CONFIG_JOB.parse().unwrap()];
    let names = ["Cluster0-shard.archive.gz", "Cluster0-config.archive.gz"];
    let old = finished_restore();
    let parts =
        old.parts.into_iter().zip(jobs).zip(contents().into_iter().zip(names)).map(|((part, job), (bytes, name))| {
            let sha256 = hex(digest(&SHA256, &bytes).as_ref());
            let file = Some(File { name: name.into(), bytes: bytes.len() as u64, sha256, gone: None });
            Part { job, shard: None, file, ..part }
        });
    Restore {
        id: FILES.parse().unwrap(),
        parts: parts.collect(),
        ended: Some(time("2026-11-24T12:00:00Z")),
        target: Target::Download { hours: 2 },
        options: Default::default(),
        verification: None,
        ..finished_restore()
    }
}

fn place(lab: &Lab, job: &str) -> PathBuf {
    lab.folder.path().join("downloads").join(File::stored_as(job.parse().unwrap()))
}

async fn with_files() -> Lab {
    let lab = Lab::new().await;
    std::fs::create_dir(lab.folder.path().join("downloads")).unwrap();
    for (job, bytes) in [SHARD_JOB, CONFIG_JOB].into_iter().zip(contents()) {
        std::fs::write(place(&lab, job), bytes).unwrap();
    }
    lab.catalog.queue_restore(&ready(), None).await.unwrap();
    lab
}

async fn job(lab: &Lab, key: &str, job: &str) -> Value {
    let reply = lab.ask_with(key, "GET", &format!("{}/{job}", collections()[0]), &[], "").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

/// The path of a job's link, as its document has it.
async fn link(lab: &Lab, of: &str) -> String {
    let shown = job(lab, OWNER, of).await;
    shown["delivery"]["url"].as_str().unwrap().strip_prefix("http://backup.example.net").unwrap().to_owned()
}

fn token_of(link: &str) -> &str {
    link.strip_prefix("/api/downloads/").unwrap()
}

/// The reply to whoever has the link and nothing else, while it is sent.
async fn begin(lab: &Lab, method: Method, link: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(link).header("host", "backup.example.net");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let peer = Peer { address: "203.0.113.9:4000".parse().unwrap(), tls: false };
    lab.interface.answer(request.body(Full::<Bytes>::default()).unwrap(), peer).await
}

/// The whole of it.
async fn ask(lab: &Lab, method: Method, link: &str, headers: &[(&str, &str)]) -> (Reply, Bytes) {
    let (parts, body) = begin(lab, method, link, headers).await.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&bytes).into_owned();
    (Reply { status: parts.status, headers: parts.headers, body }, bytes)
}

async fn get(lab: &Lab, link: &str) -> (Reply, Bytes) {
    ask(lab, Method::GET, link, &[]).await
}

/// The status, the error's code, and its sentence.
fn refusal(reply: &Reply) -> (u16, String, String) {
    let json = reply.json();
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    (reply.status.as_u16(), text("errorCode"), text("detail"))
}

fn gone(why: &str) -> (u16, String, String) {
    let text =
        format!("The file of this link is gone: {why}. Ask for a new restore job with the delivery method HTTP.");
    (410, "DOWNLOAD_GONE".into(), text)
}

/// Waits until the catalog says what became of a file.
async fn until_gone(lab: &Lab, job: &str) -> Gone {
    let begun = Instant::now();
    loop {
        let restore = lab.catalog.download(job.parse().unwrap()).await.unwrap().unwrap();
        let part = restore.parts.iter().find(|part| part.job.to_string() == job).unwrap();
        if let Some(gone) = part.file.as_ref().unwrap().gone
            && !place(lab, job).exists()
        {
            return gone;
        }
        assert!(begun.elapsed() < LIMIT, "it is not noted, or not deleted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks again until it is nobody else's turn.
async fn begin_in_turn(lab: &Lab, link: &str) -> Response<Body> {
    let begun = Instant::now();
    loop {
        let reply = begin(lab, Method::GET, link, &[]).await;
        if reply.status() != StatusCode::CONFLICT {
            return reply;
        }
        assert!(begun.elapsed() < LIMIT, "the turn is not given up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn files_are_asked_for_on_every_surface_at_every_kind_of_point() {
    for collection in collections() {
        let lab = Lab::new().await;
        coverage::make_restorable(&lab).await;
        let cut = completed(CHECKPOINT.parse().unwrap()).cut.unwrap().seconds;
        coverage::store(&lab, cut + 100).await;
        let post = async |delivery: &Value, point: &Value| {
            let mut body = point.clone();
            body["delivery"] = delivery.clone();
            lab.ask_with(OWNER, "POST", &collection, &[ACCEPT, JSON], &body.to_string()).await
        };
        let http = json!({"methodName": "HTTP", "expirationHours": 7, "maxDownloads": 1});
        for (point, time, parts) in [
            (json!({"checkpointId": CHECKPOINT}), ClusterTime::new(cut, 1), 3),
            (json!({"oplogTs": cut + 7, "oplogInc": 3}), ClusterTime::new(cut + 7, 3), 3),
            (json!({"pointInTimeUTCMillis": i64::from(cut + 9) * 1_000}), ClusterTime::new(cut + 9, 0), 3),
        ] {
            let reply = post(&http, &point).await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            let kept = lab.catalog.unfinished_restore(cluster()).await.unwrap().unwrap();
            assert_eq!((kept.target.clone(), kept.time), (Target::Download { hours: 7 }, time));
            assert!(!kept.options.verify, "there is no target to be compared");
            let list = reply.json();
            assert_eq!(list["results"].as_array().unwrap().len(), parts);
            for (shown, part) in list["results"].as_array().unwrap().iter().zip(&kept.parts) {
                assert_eq!((&shown["id"], &shown["statusName"]), (&json!(part.job), &json!("IN_PROGRESS")));
                let delivery = json!({"expirationHours": 7, "maxDownloads": 1, "methodName": "HTTP"});
                assert_eq!((&shown["delivery"], &shown["hashes"]), (&delivery, &json!([])), "no link before its time");
                assert_eq!(lab.catalog.download(part.job).await.unwrap().as_ref(), Some(&kept));
            }
            let again = post(&json!({"methodName": "HTTP"}), &point).await;
            assert_eq!(refusal(&again).1, "ATLAS_CLUSTER_RESTORE_IN_PROGRESS");
            lab.catalog.cancel_restore(cluster(), kept.id, time_now()).await.unwrap();
        }
        let usual = post(&json!({"methodName": "HTTP"}), &json!({"checkpointId": CHECKPOINT})).await.json();
        assert_eq!(usual["results"][0]["delivery"]["expirationHours"], 24);
        let refused =
            post(&json!({"methodName": "HTTP", "maxDownloads": 2}), &json!({"checkpointId": CHECKPOINT})).await;
        assert_eq!(refusal(&refused).2, "Invalid attribute delivery.maxDownloads specified.");
    }
    // A snapshot of another time.
    let lab = Lab::new().await;
    coverage::begin(&lab, &[PartId::Shard("Cluster0-shard-0".into()), PartId::ConfigServers], 1_500_000_000).await;
    let body = json!({"snapshotId": SNAPSHOT, "delivery": {"methodName": "HTTP"}}).to_string();
    let reply = lab.ask_with(OWNER, "POST", &collections()[0], &[JSON], &body).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let kept = lab.catalog.unfinished_restore(cluster()).await.unwrap().unwrap();
    assert_eq!((kept.point, kept.parts.len()), (Point::Snapshot(SNAPSHOT.parse().unwrap()), 2));
    // It takes an owner, as every restore does.
    let reply = lab.ask_with(READER, "POST", &collections()[0], &[JSON], &body).await;
    assert_eq!(refusal(&reply).1, "ACCESS_FORBIDDEN");
}

fn time_now() -> jiff::Timestamp {
    time("2026-11-24T12:00:00Z")
}

#[tokio::test]
async fn a_job_that_is_ready_shows_its_link_its_hash_and_its_size() {
    let lab = with_files().await;
    let token = lab.catalog.download_token(SHARD_JOB.parse().unwrap());
    let token = secrecy::ExposeSecret::expose_secret(&token);
    let delivery = json!({
        "expirationHours": 2,
        "expires": "2026-11-24T14:00:00Z",
        "maxDownloads": 1,
        "methodName": "HTTP",
        "statusName": "READY",
        "url": format!("http://backup.example.net/api/downloads/{token}"),
    });
    let hash = hex(digest(&SHA256, b"of the shard").as_ref());
    let hashes = json!([{"fileName": "Cluster0-shard.archive.gz", "hash": hash, "typeName": "SHA256"}]);
    for collection in collections() {
        let of = async |key: &str, path: &str| {
            let reply = lab.ask_with(key, "GET", path, &[ACCEPT], "").await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            reply.json()
        };
        let item = format!("{collection}/{SHARD_JOB}");
        let shown = of(OWNER, &item).await;
        assert_eq!((&shown["delivery"], &shown["hashes"]), (&delivery, &hashes));
        assert_eq!((&shown["statusName"], &shown["batchId"]), (&json!("FINISHED"), &json!(FILES)));
        assert_eq!(shown["stillpoint"]["fileSize"], 12);
        assert!(shown["stillpoint"].get("verification").is_none());
        assert!(shown["delivery"].as_object().unwrap().keys().is_sorted());
        let list = of(OWNER, &format!("{collection}?batchId={FILES}")).await;
        assert_eq!(list["results"][0]["delivery"], delivery);
        assert_ne!(list["results"][1]["delivery"]["url"], delivery["url"], "each has its own");
        // Who may not ask for a restore gets no data by reading of one.
        for path in [item, format!("{collection}?batchId={FILES}")] {
            let shown = of(READER, &path).await;
            assert!(!shown.to_string().contains("/api/downloads/"), "{shown}");
            let shown = shown.get("results").map_or(&shown, |results| &results[0]).clone();
            assert_eq!((&shown["delivery"]["statusName"], &shown["hashes"]), (&json!("READY"), &hashes));
        }
    }
    let public_url = Some("https://backup.example.org/here".parse().unwrap());
    let elsewhere = Lab::with(Settings { public_url, ..Settings::default() }).await;
    elsewhere.catalog.queue_restore(&ready(), None).await.unwrap();
    let shown = job(&elsewhere, OWNER, SHARD_JOB).await;
    let url = shown["delivery"]["url"].as_str().unwrap();
    assert!(url.starts_with("https://backup.example.org/here/api/downloads/"), "{url}");
    assert!(!url.contains(token), "the link is of one key file");
    // One into a cluster has none of it.
    let other = job(&lab, OWNER, &finished_restore().parts[0].job.to_string()).await;
    assert_eq!((&other["batchId"], &other["hashes"]), (&json!(BATCH), &json!([])));
    assert!(other["delivery"].get("url").is_none() && other["delivery"].get("statusName").is_none());
}

#[tokio::test]
async fn a_file_is_downloaded_once_by_its_link_alone() {
    let lab = with_files().await;
    for (of, bytes) in [SHARD_JOB, CONFIG_JOB].into_iter().zip(contents()) {
        let link = link(&lab, of).await;
        let file = ready().parts.into_iter().find(|part| part.job.to_string() == of).unwrap().file.unwrap();
        let (head, nothing) = ask(&lab, Method::HEAD, &link, &[]).await;
        let (reply, got) = get(&lab, &link).await;
        assert_eq!((head.status.as_u16(), nothing.len(), reply.status.as_u16()), (200, 0, 200));
        assert!(got == bytes, "{} bytes", got.len());
        let hash = digest(&SHA256, &got);
        for (name, value) in [
            ("content-type", "application/gzip".to_owned()),
            ("content-length", bytes.len().to_string()),
            ("content-disposition", format!("attachment; filename=\"{}\"", file.name)),
            ("repr-digest", format!("sha-256=:{}:", STANDARD.encode(hash))),
            ("cache-control", "no-store".into()),
            ("accept-ranges", "bytes".into()),
            ("etag", format!("\"{}\"", hex(hash.as_ref()))),
        ] {
            assert_eq!((head.header(name), reply.header(name)), (Some(value.as_str()), Some(value.as_str())), "{name}");
        }
        assert_eq!(reply.header("content-encoding"), None);

        // From its last byte on it is gone, whether or not that is noted already.
        for method in [Method::GET, Method::GET] {
            let (reply, _) = ask(&lab, method, &link, &[]).await;
            assert_eq!(refusal(&reply), gone("it has been downloaded"));
        }
        let when = Gone::Downloaded(time("2026-11-24T12:00:00.250Z"));
        assert_eq!(until_gone(&lab, of).await, when);
        let (reply, _) = get(&lab, &link).await;
        assert_eq!(refusal(&reply), gone("it has been downloaded"));
        assert_eq!(ask(&lab, Method::HEAD, &link, &[]).await.0.status, 410);
        let shown = job(&lab, OWNER, of).await;
        assert_eq!(shown["delivery"]["statusName"], "MAX_DOWNLOADS_EXCEEDED");
        assert!(shown["delivery"].get("url").is_none());
        assert_eq!(shown["hashes"][0]["hash"], file.sha256, "what was downloaded can still be checked");
    }
}

#[tokio::test]
async fn a_link_is_written_nowhere() {
    let lab = with_files().await;
    let link = link(&lab, SHARD_JOB).await;
    let token = token_of(&link).to_owned();
    let mut replies = vec![get(&lab, &format!("{link}/")).await.0, ask(&lab, Method::POST, &link, &[]).await.0];
    let wrong = format!("/api/downloads/{token}/");
    let login = lab.login_with(OWNER, "wrong", &Method::GET, &wrong).await;
    replies.push(ask(&lab, Method::GET, &wrong, &[("authorization", &login)]).await.0);
    replies.push(lab.ask(OWNER, "GET", &wrong).await);
    let (first, _) = get(&lab, &link).await;
    assert_eq!(first.status, 200);
    replies.push(get(&lab, &link).await.0);
    replies.push(get(&lab, &format!("/api/downloads/{}", "0".repeat(88))).await.0);
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    assert_eq!(statuses, [401, 405, 401, 404, 410, 404]);
    for reply in &replies {
        assert!(!reply.body.contains(&token) && !format!("{:?}", reply.headers).contains(&token), "{reply:?}");
    }
    until_gone(&lab, SHARD_JOB).await;
    let trail = lab.audit().await;
    assert!(!format!("{trail:?}").contains(&token[24..]), "{trail:?}");
    let download = |entry: &&AuditEntry| entry.action.contains(SHARD_JOB);
    let entry = trail.iter().find(download).expect("who downloaded it is known by the address");
    assert_eq!((entry.from.as_deref(), entry.status), (Some("203.0.113.9"), Some(200)));
    assert!(trail.iter().any(|entry| entry.action == "GET /api/downloads/"), "the wrong password is: {trail:?}");
}

#[tokio::test]
async fn a_download_that_breaks_off_is_begun_again_or_gone_on_with() {
    let lab = with_files().await;
    let link = link(&lab, CONFIG_JOB).await;
    let whole = &contents()[1];
    let mut reply = begin(&lab, Method::GET, &link, &[]).await;
    let piece = reply.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(piece.len() < whole.len() && whole.starts_with(&piece));
    // While it goes on nobody else gets it; its headers anybody may see.
    let (second, _) = get(&lab, &link).await;
    let sentence = "The file is being downloaded. Try again if that breaks off.";
    assert_eq!(refusal(&second), (409, "DOWNLOAD_IN_PROGRESS".into(), sentence.into()));
    assert_eq!(ask(&lab, Method::HEAD, &link, &[]).await.0.status, 200);
    let mut other = begin(&lab, Method::GET, &self::link(&lab, SHARD_JOB).await, &[]).await;
    assert_eq!(other.status(), 200, "another file is another matter");
    other.body_mut().frame().await.unwrap().unwrap();
    drop(reply);

    let again = begin_in_turn(&lab, &link).await;
    assert_eq!(again.status(), 200);
    drop(again);
    drop(begin_in_turn(&lab, &link).await);
    // Of a part that is not the last nothing is used up.
    let tag = format!("\"{}\"", hex(digest(&SHA256, whole).as_ref()));
    let length = whole.len();
    let ranged = async |range: &str, tag: &str| {
        let begun = Instant::now();
        loop {
            let (reply, bytes) = ask(&lab, Method::GET, &link, &[("range", range), ("if-range", tag)]).await;
            if reply.status != 409 {
                return (reply, bytes);
            }
            assert!(begun.elapsed() < LIMIT, "the turn is not given up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (reply, bytes) = ranged("bytes=1000-1999", &tag).await;
    assert_eq!((reply.status.as_u16(), &bytes[..]), (206, &whole[1000..2000]));
    assert_eq!(reply.header("content-range"), Some(format!("bytes 1000-1999/{length}").as_str()));
    assert_eq!(reply.header("content-length"), Some("1000"));
    let (reply, _) = ranged(&format!("bytes={length}-"), &tag).await;
    assert_eq!((reply.status.as_u16(), refusal(&reply).1.as_str()), (416, "RANGE_NOT_SATISFIABLE"));
    assert_eq!(reply.header("content-range"), Some(format!("bytes */{length}").as_str()));
    // Nor of one from its end alone.
    let (reply, _) = ranged(&format!("bytes={}-", length - 1), &tag).await;
    assert_eq!(reply.status, 206);
    let (reply, bytes) = ranged(&format!("bytes=0-{}", length - 1_001), &tag).await;
    assert_eq!((reply.status.as_u16(), bytes.len()), (206, length - 1_000));
    let (head, _) = ask(&lab, Method::HEAD, &link, &[("range", "bytes=5-6")]).await;
    assert_eq!((head.status.as_u16(), head.header("content-range")), (200, None), "a range is one of a GET's");
    // The rest is the end of it.
    let (reply, bytes) = ranged(&format!("bytes={}-", length - 1_000), &tag).await;
    assert_eq!((reply.status.as_u16(), &bytes[..]), (206, &whole[length - 1_000..]));
    until_gone(&lab, CONFIG_JOB).await;
    assert_eq!(refusal(&get(&lab, &link).await.0), gone("it has been downloaded"));
}

#[tokio::test]
async fn what_was_begun_for_another_file_is_begun_anew() {
    let lab = with_files().await;
    let link = link(&lab, SHARD_JOB).await;
    let headers = [("range", "bytes=3-"), ("if-range", "\"another\"")];
    let (reply, bytes) = ask(&lab, Method::GET, &link, &headers).await;
    assert_eq!((reply.status.as_u16(), &bytes[..]), (200, &b"of the shard"[..]));
}

#[tokio::test]
async fn a_link_ends_with_its_time() {
    let lab = with_files().await;
    let link = link(&lab, SHARD_JOB).await;
    lab.pass(7_199);
    assert_eq!(ask(&lab, Method::HEAD, &link, &[]).await.0.status, 200);
    lab.pass(1);
    assert_eq!(refusal(&get(&lab, &link).await.0), gone("its time is over"));
    // Who keeps it notes that, and then deletes the file.
    let expired = Gone::Expired(time("2026-11-24T14:00:00Z"));
    lab.catalog.end_download(SHARD_JOB.parse().unwrap(), expired).await.unwrap();
    let shown = job(&lab, OWNER, SHARD_JOB).await;
    assert_eq!(shown["delivery"]["statusName"], "EXPIRED");
    assert!(shown["delivery"].get("url").is_none());
    assert_eq!(refusal(&get(&lab, &link).await.0), gone("its time is over"));
}

#[tokio::test]
async fn a_link_that_is_none_is_not_found() {
    let lab = with_files().await;
    let link = link(&lab, SHARD_JOB).await;
    let of_nobody = lab.catalog.download_token("000000000000000000000000".parse().unwrap());
    let of_nobody = secrecy::ExposeSecret::expose_secret(&of_nobody);
    let of_another = lab.catalog.download_token(finished_restore().parts[0].job);
    let of_another = secrecy::ExposeSecret::expose_secret(&of_another);
    let mut last = token_of(&link).to_owned();
    last.replace_range(87.., if last.ends_with('0') { "1" } else { "0" });
    for token in [SHARD_JOB, &last, of_nobody, of_another, "x", "%00", "..%2f..", &token_of(&link)[..87]] {
        let (reply, _) = get(&lab, &format!("/api/downloads/{token}")).await;
        assert_eq!(refusal(&reply), (404, "DOWNLOAD_NOT_FOUND".into(), "No file has this link.".into()), "{token}");
    }
    // Nor is one that is not yet ready.
    let lab = Lab::new().await;
    let mut loading = Restore { state: State::Loading, ended: None, ..ready() };
    loading.parts[1].file = None;
    lab.catalog.queue_restore(&loading, None).await.unwrap();
    let token = lab.catalog.download_token(SHARD_JOB.parse().unwrap());
    let link = format!("/api/downloads/{}", secrecy::ExposeSecret::expose_secret(&token));
    assert_eq!(get(&lab, &link).await.0.status, 404);
    let shown = job(&lab, OWNER, SHARD_JOB).await;
    assert!(shown["delivery"].get("url").is_none() && shown["delivery"].get("statusName").is_none(), "{shown}");
}

#[tokio::test]
async fn who_cancels_takes_the_links_back() {
    let lab = with_files().await;
    let (link, other) = (link(&lab, SHARD_JOB).await, link(&lab, CONFIG_JOB).await);
    let item = format!("{}/{SHARD_JOB}", collections()[0]);
    let cancelled = lab.ask_with(OWNER, "DELETE", &item, &[], "").await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    let shown = cancelled.json();
    assert_eq!((&shown["statusName"], &shown["stillpoint"]["cancelled"]), (&json!("KILLED"), &json!(true)));
    for link in [link, other] {
        assert_eq!(refusal(&get(&lab, &link).await.0), gone("its restore was cancelled, or could not be done"));
    }
    let again = lab.ask_with(OWNER, "DELETE", &item, &[], "").await;
    assert_eq!(refusal(&again).1, "RESTORE_JOB_ENDED");
}

#[tokio::test]
async fn a_file_that_is_not_what_was_noted_is_not_sent() {
    let lab = with_files().await;
    let (link, other) = (link(&lab, SHARD_JOB).await, link(&lab, CONFIG_JOB).await);
    std::fs::remove_file(place(&lab, SHARD_JOB)).unwrap();
    std::fs::write(place(&lab, CONFIG_JOB), "short").unwrap();
    for link in [link, other] {
        assert_eq!(refusal(&get(&lab, &link).await.0), gone("it is not to be found on the server"));
    }
}

/// By the limits of the file, not of its connection: nothing is read from that at all.
#[tokio::test]
async fn who_takes_nothing_does_not_hold_the_file() {
    let lab = with_files().await;
    let link = link(&lab, CONFIG_JOB).await;
    tokio::time::pause();
    let mut slow = begin(&lab, Method::GET, &link, &[]).await;
    slow.body_mut().frame().await.unwrap().unwrap();
    let since = tokio::time::Instant::now();
    loop {
        let reply = begin(&lab, Method::GET, &link, &[]).await;
        if reply.status() == StatusCode::OK {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(120), "it holds it");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(since.elapsed() > Duration::from_secs(30), "it was given up at once");
    let broken = slow.into_body().collect().await.map(|_| ()).unwrap_err();
    assert!(broken.to_string().contains("too slowly"), "{broken}");
}

#[tokio::test]
async fn who_takes_the_last_piece_too_late_does_not_get_it() {
    let lab = with_files().await;
    let link = link(&lab, CONFIG_JOB).await;
    tokio::time::pause();
    let mut slow = begin(&lab, Method::GET, &link, &[]).await;
    let mut left = contents()[1].len();
    // One piece is taken from the file at a time: the last is the one that brings it to its end.
    let broken = loop {
        if left <= 128 << 10 {
            tokio::time::sleep(Duration::from_secs(120)).await;
        }
        match slow.body_mut().frame().await.expect("all of it was sent") {
            Ok(frame) => left -= frame.into_data().unwrap().len(),
            Err(broken) => break broken,
        }
    };
    assert!(left > 0 && broken.to_string().contains("too slowly"), "{left}: {broken}");
    assert_eq!(begin_in_turn(&lab, &link).await.status(), 200, "it can be begun again");
}

#[tokio::test]
async fn who_takes_a_little_now_and_then_does_not_hold_the_file() {
    let lab = with_files().await;
    let link = link(&lab, CONFIG_JOB).await;
    tokio::time::pause();
    let since = tokio::time::Instant::now();
    let mut slow = begin(&lab, Method::GET, &link, &[]).await;
    let broken = loop {
        match slow.body_mut().frame().await.expect("all of it was sent") {
            Ok(_) => tokio::time::sleep(Duration::from_secs(50)).await,
            Err(broken) => break broken,
        }
    };
    assert!(broken.to_string().contains("too slowly"), "{broken}");
    // Ten minutes, and what 40 MiB take at 64 KiB a second.
    let took = since.elapsed();
    assert!(took > Duration::from_secs(1_190) && took < Duration::from_secs(1_390), "{took:?}");
    drop(slow);
    assert_eq!(begin_in_turn(&lab, &link).await.status(), 200, "it can be begun again");
}

/// Over a real connection.
#[tokio::test]
async fn a_connection_takes_a_file_and_is_given_up_if_it_does_not() {
    let lab = with_files().await;
    let (small, large) = (link(&lab, SHARD_JOB).await, link(&lab, CONFIG_JOB).await);
    let limits = Limits { header: Duration::from_millis(300), idle: Duration::from_millis(300), ..limits() };
    let server = lab.serve(Options { limits, tls: None }).await;
    let open = async |link: &str| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET {link} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    };
    let rest = async |mut stream: TcpStream| {
        let mut read = Vec::new();
        let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut read)).await.expect("it does not end");
        let head = read.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        (String::from_utf8(read[..head].to_vec()).unwrap(), read[head..].to_vec())
    };
    let (head, body) = rest(open(&small).await).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\ncontent-length: 12\r\n"), "{head}");
    assert_eq!(body, b"of the shard");
    until_gone(&lab, SHARD_JOB).await;

    // One that does not read is given up, and what it began can be begun again.
    let idle = open(&large).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    let (_, got) = loop {
        let (head, body) = rest(open(&large).await).await;
        if head.starts_with("HTTP/1.1 200") {
            break (head, body);
        }
        assert!(head.starts_with("HTTP/1.1 409") && begun.elapsed() < LIMIT, "{head}");
    };
    assert!(got == contents()[1], "{} bytes", got.len());
    until_gone(&lab, CONFIG_JOB).await;
    let (_, part) = rest(idle).await;
    assert!(part.len() < got.len(), "{}", part.len());
}

/// The limit is for what does not go on, not for what takes long.
#[tokio::test]
async fn a_connection_that_takes_a_file_slowly_is_not_given_up() {
    let lab = with_files().await;
    let link = link(&lab, CONFIG_JOB).await;
    let (header, idle) = (Duration::from_millis(200), Duration::from_millis(800));
    let limits = Limits { header, idle, ..limits() };
    let server = lab.serve(Options { limits, tls: None }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!("GET {link} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut read, mut piece) = (0, vec![0; 1 << 20]);
    loop {
        let n = tokio::time::timeout(LIMIT, stream.read(&mut piece)).await.expect("nothing comes").unwrap();
        if n == 0 {
            break;
        }
        read += n;
        // Some 4 s in all.
        tokio::time::sleep(Duration::from_micros(n as u64 / 10)).await;
    }
    assert!(read > contents()[1].len(), "{read} bytes: it was cut off");
}
