//! A cluster's data as of a time, as files: asked for over the API, downloaded by their links, and held against the
//! source as it was then.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use bson::{Document, doc};
use digest_auth::{AuthContext, HttpMethod};
use flate2::read::GzDecoder;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use stillpoint_core::ClusterTime;
use stillpoint_lab::snapshot::{ReadAt, find};
use stillpoint_lab::wait::until;
use stillpoint_lab::workload::Workload;
use stillpoint_lab::{Lab, ReplicaSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::archive::{Archive, assert_alike, described, mongorestore};
use crate::captured::server_of;
use crate::restore::{checkpoint, job, much, timestamp, until_job};
use crate::snapshots::{ask, complete, furnish};
use crate::support::{NS, SOON, Server, lab_of};

const LIMIT: Duration = Duration::from_secs(60);

/// A client of the API with a key of the cluster's project.
struct Client {
    port: u16,
    public: String,
    private: String,
    collection: String,
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.head))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Client {
    async fn new(server: &Server) -> Client {
        let key = server.json(&["key", "create", "--project", "tests", "--role", "GROUP_OWNER"]).await;
        let text = |name: &str| key[name].as_str().unwrap_or_else(|| panic!("{key}")).to_owned();
        let projects = server.json(&["project", "list"]).await;
        let project = projects[0]["id"].as_str().unwrap_or_else(|| panic!("{projects}"));
        Client {
            port: server.port(),
            public: text("publicKey"),
            private: text("privateKey"),
            collection: format!("/api/atlas/v1.0/groups/{project}/clusters/Cluster0/restoreJobs"),
        }
    }

    /// A request as it is, to its end.
    async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}",
            self.port
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        timeout(LIMIT, stream.read_to_end(&mut read)).await.expect("it does not end").unwrap();
        let end = read.windows(4).position(|end| end == b"\r\n\r\n").expect("no reply") + 4;
        let head = String::from_utf8(read[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head, body: read.split_off(end) }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let challenge = self.send("GET", "/api", "", "").await;
        let mut prompt = digest_auth::parse(challenge.header("www-authenticate").unwrap()).unwrap();
        let of_method = HttpMethod::from(method.to_owned());
        let context = AuthContext::new_with_method(&self.public, &self.private, path, None::<&[u8]>, of_method);
        let login = prompt.respond(&context).unwrap();
        let reply = self.send(method, path, &format!("Authorization: {login}\r\n"), body).await;
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        reply.json()
    }

    /// Asks for files as of a checkpoint; the batch.
    async fn request(&self, checkpoint: &str) -> String {
        let body = json!({"checkpointId": checkpoint, "delivery": {"methodName": "HTTP", "expirationHours": 1}});
        let list = self.ask("POST", &self.collection, &body.to_string()).await;
        list["results"][0]["batchId"].as_str().unwrap().to_owned()
    }

    /// The jobs of a batch, once they have ended.
    async fn ended(&self, batch: &str) -> Vec<Value> {
        let path = format!("{}?batchId={batch}", self.collection);
        let look = || async {
            let jobs = self.ask("GET", &path, "").await["results"].as_array().unwrap().clone();
            jobs.iter().all(|job| job["statusName"] != "IN_PROGRESS").then_some(jobs)
        };
        until(LIMIT, look).await.expect("it does not end")
    }

    async fn download(&self, url: &str) -> Reply {
        let path = url.strip_prefix(&format!("http://127.0.0.1:{}", self.port)).unwrap_or_else(|| panic!("{url}"));
        self.send("GET", path, "", "").await
    }
}

pub fn folder(server: &Server) -> PathBuf {
    server.folder().join("data").join("stillpoint.downloads")
}

fn files(server: &Server) -> Vec<String> {
    let Ok(listed) = std::fs::read_dir(folder(server)) else { return Vec::new() };
    listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn archive(client: &Client, job: &Value) -> Archive {
    unpacked(&downloaded(client, job).await)
}

/// A job's file: it is what its document says.
async fn downloaded(client: &Client, job: &Value) -> Vec<u8> {
    let reply = client.download(job["delivery"]["url"].as_str().unwrap()).await;
    assert_eq!(reply.status, 200, "{}", reply.head);
    let hash: String = digest(&SHA256, &reply.body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&job["hashes"][0]["hash"], &job["hashes"][0]["typeName"]), (&json!(hash), &json!("SHA256")));
    assert_eq!(job["stillpoint"]["fileSize"], reply.body.len());
    let name = format!("attachment; filename=\"{}\"", job["hashes"][0]["fileName"].as_str().unwrap());
    assert_eq!(reply.header("content-disposition"), Some(name.as_str()));
    reply.body
}

pub fn unpacked(file: &[u8]) -> Archive {
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    Archive::read(&bytes)
}

/// The documents of a part as of a time, against what the part itself says of it.
async fn assert_as_of(archive: &Archive, set: &ReplicaSet, lab: &Lab, time: ClusterTime, collections: &[&str]) {
    let gossip = lab.topology().gossip().await.unwrap();
    for ns in collections {
        let at = ReadAt::Time(timestamp(time));
        let mut expected = find(set.endpoint(), &gossip, ns, at, doc! {}).await.unwrap();
        let (db, name) = ns.split_once('.').unwrap();
        let found = archive.documents(db, name).iter().map(|bytes| Document::from_reader(&bytes[..]).unwrap());
        let mut found: Vec<_> = found.collect();
        for documents in [&mut expected, &mut found] {
            documents.sort_by_cached_key(Document::to_string);
        }
        assert!(found == expected && !found.is_empty(), "{ns}: {} of {}", found.len(), expected.len());
    }
}

/// `mongorestore` makes of it what `furnish` made, where it is on PATH.
async fn assert_taken_by_the_tool(server: &Server, file: &[u8], set: &ReplicaSet) {
    let path = server.folder().join("downloaded.gz");
    std::fs::write(&path, file).unwrap();
    let target = Lab::plain_replica_set().await.unwrap();
    let from = format!("--archive={}", path.display());
    if mongorestore(&["--gzip", &from, "--nsInclude", "shop.*"], &target).await {
        assert_alike(&described(set, "shop").await, &described(&target, "shop").await);
    }
}

#[tokio::test]
async fn each_part_is_downloaded_once_as_it_was() {
    let lab = lab_of(Lab::builder()).await;
    for shard in lab.shards() {
        furnish(shard).await;
    }
    let (mut server, _) = server_of(&lab).await;
    let workload = Workload::start(&lab, NS, 4).await.unwrap();
    complete(&server, ask(&server).await).await;
    let (id, cut) = checkpoint(&server).await;
    let client = Client::new(&server).await;
    let batch = client.request(&id).await;
    let jobs = client.ended(&batch).await;
    workload.stop().await.unwrap();

    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(folder(&server)), files(&server).len()), (0o700, 3));
    for file in files(&server) {
        assert!(file.ends_with(".archive.gz") && mode(folder(&server).join(&file)) == 0o600, "{file}");
    }
    // The command line shows the same links.
    let shown = job(&server, &batch).await;
    for (part, job) in shown["parts"].as_array().unwrap().iter().zip(&jobs) {
        assert_eq!((&part["file"]["url"], &part["file"]["state"]), (&job["delivery"]["url"], &json!("READY")));
        assert_eq!(part["file"]["sha256"], job["hashes"][0]["hash"]);
    }
    // A server that was restarted knows them, too.
    server.stop().await;
    server.serve(None).await;
    let parts = ["shard-rs0", "shard-rs1", "config"];
    for (job, part) in jobs.iter().zip(parts) {
        assert_eq!((&job["statusName"], &job["stillpoint"]["part"]), (&json!("FINISHED"), &json!(part)), "{job}");
        let file = downloaded(&client, job).await;
        let archive = unpacked(&file);
        match part {
            "shard-rs0" => assert_as_of(&archive, lab.shard(0), &lab, cut, &[NS, "shop.goods", "shop.words"]).await,
            "shard-rs1" => assert_as_of(&archive, lab.shard(1), &lab, cut, &[NS, "shop.clustered"]).await,
            _ => assert_as_of(&archive, lab.config(), &lab, cut, &["config.chunks", "config.databases"]).await,
        }
        if part == "shard-rs1" {
            assert_taken_by_the_tool(&server, &file, lab.shard(1)).await;
        }
        let again = client.download(job["delivery"]["url"].as_str().unwrap()).await;
        assert_eq!((again.status, &again.json()["errorCode"]), (410, &json!("DOWNLOAD_GONE")));
    }
    until(SOON, || async { files(&server).is_empty().then_some(()) }).await.expect("files are left");
    for job in client.ended(&batch).await {
        assert_eq!(job["delivery"]["statusName"], "MAX_DOWNLOADS_EXCEEDED");
    }
    // Whoever reads the log, or the audit trail, has no link.
    let trail = server.json(&["audit"]).await.to_string();
    for job in &jobs {
        let url = job["delivery"]["url"].as_str().unwrap();
        let secret = &url[url.len() - 64..];
        assert!(!server.log().contains(secret) && !trail.contains(secret), "a link is told");
        assert!(trail.contains(job["id"].as_str().unwrap()), "{trail}");
    }
}

#[tokio::test]
async fn files_are_made_to_their_end_after_a_crash_at_every_step() {
    let lab = lab_of(Lab::builder()).await;
    much(&lab, 5_000).await;
    let (mut server, _) = server_of(&lab).await;
    complete(&server, ask(&server).await).await;
    let (id, cut) = checkpoint(&server).await;
    let client = Client::new(&server).await;
    server.configure("scheduled = false", "scheduled = false\nparts_at_once = 1");
    server.stop().await;
    server.serve(Some("download-begun")).await;
    let restore = ["restore", "--project", "tests", "--cluster", "Cluster0", "--checkpoint", &id, "--download"];
    let asked = server.json(&[&restore[..], &["--no-wait"]].concat()).await;
    let batch = asked["id"].as_str().unwrap().to_owned();
    server.crashed().await;
    // One part after the other: what is ready stays, and is not made again.
    let mut seen = Vec::new();
    for ready in 1..=2 {
        // A file that was being written is overwritten.
        let unfinished = shown_jobs(&server, &batch).await.into_iter().find(|job| !seen.contains(job)).unwrap();
        std::fs::write(folder(&server).join(format!("{unfinished}.archive.gz.partial")), "half").unwrap();
        server.serve(Some("file-ready")).await;
        server.crashed().await;
        let shown = job(&server, &batch).await;
        let parts = shown["parts"].as_array().unwrap();
        let done = parts.iter().filter(|part| !part["file"].is_null()).count();
        assert_eq!((done, &shown["state"]), (ready, &json!("LOADING")), "{shown}");
        assert!(parts.iter().all(|part| part["file"]["url"].is_null()), "no link before all are ready: {shown}");
        seen = parts_ready(&server);
        assert_eq!(seen.len(), ready);
    }
    let before: Vec<_> = seen.iter().map(|job| modified(&server, job)).collect();
    server.serve(None).await;
    let jobs = client.ended(&batch).await;
    let after: Vec<_> = seen.iter().map(|job| modified(&server, job)).collect();
    assert_eq!(before, after, "they were made again");
    for (i, job) in jobs[..2].iter().enumerate() {
        let archive = archive(&client, job).await;
        assert_as_of(&archive, lab.shard(i), &lab, cut, &["shop.much"]).await;
    }
    // What is not downloaded goes with a cancellation.
    let path = format!("{}/{}", client.collection, jobs[2]["id"].as_str().unwrap());
    assert_eq!(client.ask("DELETE", &path, "").await["statusName"], "KILLED");
    until(SOON, || async { files(&server).is_empty().then_some(()) }).await.expect("files are left");
    assert_eq!(client.download(jobs[2]["delivery"]["url"].as_str().unwrap()).await.status, 410);
    let killed = until_job(&server, &batch, |job| job["state"] == "KILLED").await;
    assert_eq!(killed["parts"][2]["file"]["state"], "WITHDRAWN");
}

/// The jobs of a batch, from what the catalog has.
async fn shown_jobs(server: &Server, batch: &str) -> Vec<String> {
    use stillpoint_catalog::Catalog;
    let restore = server.catalog().restore(server.cluster(), batch.parse().unwrap()).await.unwrap().unwrap();
    restore.parts.iter().map(|part| part.job.to_string()).collect()
}

/// The jobs whose files are in their place.
fn parts_ready(server: &Server) -> Vec<String> {
    let ready = files(server).into_iter().filter_map(|name| Some(name.strip_suffix(".archive.gz")?.to_owned()));
    ready.collect()
}

fn modified(server: &Server, job: &str) -> std::time::SystemTime {
    std::fs::metadata(folder(server).join(format!("{job}.archive.gz"))).unwrap().modified().unwrap()
}

#[tokio::test]
async fn the_command_line_asks_for_files_and_prints_their_links() {
    let lab = lab_of(Lab::builder()).await;
    let (server, _) = server_of(&lab).await;
    let snapshot = complete(&server, ask(&server).await).await;
    let id = snapshot.id.to_string();
    let restore = ["restore", "--project", "tests", "--cluster", "Cluster0", "--snapshot", &id, "--download"];
    let ran = server.run(&[&restore[..], &["--link-hours", "2"]].concat(), &[]).await;
    assert!(ran.status.success(), "{}{}", ran.out, ran.err);
    let links: Vec<_> = ran.out.split_whitespace().filter(|word| word.contains("/api/downloads/")).collect();
    assert_eq!(links.len(), 3, "{}", ran.out);
    let client = Client::new(&server).await;
    for link in links {
        let reply = client.download(link).await;
        assert_eq!(reply.status, 200, "{}", reply.head);
        assert!(!unpacked(&reply.body).collections.is_empty());
    }
    // A restore into files has no target, and takes all of each part.
    for more in [&["--to", "mongodb://h"][..], &["--only", "shop"], &["--dry-run"], &["--link-hours", "0"]] {
        let refused = server.run(&[&restore[..], more].concat(), &[]).await;
        assert!(!refused.status.success() && refused.out.is_empty(), "{more:?}: {}", refused.out);
    }
    let ran = server.run(&[&restore[..], &["--no-wait", "--json"]].concat(), &[]).await;
    let asked: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err));
    let done = until_job(&server, asked["id"].as_str().unwrap(), |job| job["state"] == "FINISHED").await;
    assert!(done["expires"].is_string() && done["target"] == "files", "{done}");
}
