//! Every query parameter, every piece of a path and every field of a body, in every wrong form: each has
//! a defined answer, and none is an unexpected error.
//!
//! What there is to try comes from the description of the interface, so that nothing new is left out.

use http::{Method, Request};
use http_body_util::Full;
use stillpoint_api::operations::{Query, Route};

use crate::support::{BATCH, CHECKPOINT, CLUSTER, GROUP, JOB, Lab, OWNER, Reply, SNAPSHOT};

/// What no id and no name is.
fn wrong_segments() -> Vec<String> {
    let long = "a".repeat(3_000);
    let id = "6b8cd3c380eef5349ef77af";
    [
        "%00",
        "%2F",
        "%2e%2e",
        "%ff",
        "%c3%28",
        "%20",
        "%25",
        "%0d%0aX:%20y",
        "..%2f..",
        "%7b%7d",
        "-1",
        "null",
        "*",
        &format!("{id}%00"),
        &format!("{id}%2F"),
        &format!("{id}g"),
        id,
        &format!("{id}77"),
        &long,
    ]
    .map(str::to_owned)
    .to_vec()
}

const WRONG_BOOLEANS: &[&str] =
    &["", "=", "=1", "=TRUE", "=yes", "=true%00", "=%ff", "=%2F", "=true,false", "=[]", "=null", "=%74rue%20"];
const WRONG_NUMBERS: &[&str] = &[
    "",
    "=",
    "=0",
    "=-1",
    "=+1",
    "=1.0",
    "=1e1",
    "=x",
    "=99999999999999999999",
    "=2147483648",
    "=%31%00",
    "=%ff",
    "=%2F",
    "=0x1",
    "=null",
    "=%D9%A1",
];

const WRONG_IDS: &[&str] = &[
    "",
    "=",
    "=1",
    "=all",
    "=6b94183187d9d64b6f2868b",
    "=6b94183187d9d64b6f2868bg",
    "=6b94183187d9d64b6f2868b80",
    "=6b94183187d9d64b6f2868%00",
    "=%ff",
    "=%2F",
    "=null",
];

async fn ask(lab: &Lab, route: &Route, path: &str, body: &[u8]) -> Reply {
    let method = route.operation.method.clone();
    let login = lab.login(OWNER, &method, path).await;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", login)
        .header("accept", "application/vnd.atlas.2023-01-01+json")
        .header("content-type", "application/json");
    lab.send(request.body(Full::from(body.to_vec())).unwrap()).await
}

fn on_surfaces() -> impl Iterator<Item = Route> {
    Route::all().into_iter().filter(|route| route.surface.is_some())
}

fn right(name: &str) -> &'static str {
    match name {
        "groupId" => GROUP,
        "clusterName" => "Cluster0",
        "clusterId" => CLUSTER,
        "checkpointId" => CHECKPOINT,
        "snapshotId" => SNAPSHOT,
        "jobId" => JOB,
        other => panic!("what is {other}?"),
    }
}

fn names(path: &str) -> Vec<&str> {
    path.split(['{', '}']).skip(1).step_by(2).collect()
}

fn filled(route: &Route, wrong: Option<(&str, &str)>) -> String {
    let mut path = route.path.clone();
    for name in names(&route.path) {
        let value = wrong.filter(|(other, _)| *other == name).map_or(right(name), |(_, value)| value);
        path = path.replace(&format!("{{{name}}}"), value);
    }
    path
}

#[tokio::test]
async fn every_piece_of_every_path() {
    let lab = Lab::new().await;
    let mut tried = 0;
    for route in on_surfaces() {
        for name in names(&route.path) {
            for value in wrong_segments() {
                let reply = ask(&lab, &route, &filled(&route, Some((name, &value))), b"").await;
                let code = reply.json()["errorCode"].as_str().unwrap().to_owned();
                let expected = match name {
                    "groupId" => "INVALID_GROUP_ID",
                    "clusterId" => "INVALID_CLUSTER_ID",
                    "clusterName" => "CLUSTER_NOT_FOUND",
                    "snapshotId" => "SNAPSHOT_NOT_FOUND",
                    "jobId" => "RESTORE_JOB_NOT_FOUND",
                    _ => "INVALID_CHECKPOINT_ID",
                };
                assert_eq!((reply.status.as_u16(), code.as_str()), (404, expected), "{} {value}", route.path);
                assert!(reply.body.len() < 4_000, "not more of it is repeated than helps");
                tried += 1;
            }
            // Nothing at all is another path.
            let reply = ask(&lab, &route, &filled(&route, Some((name, ""))), b"").await;
            assert_eq!(reply.json()["errorCode"], "RESOURCE_NOT_FOUND", "{}", route.path);
        }
    }
    assert!(tried > 1_000);
}

#[tokio::test]
async fn every_query_parameter() {
    let lab = Lab::new().await;
    for route in on_surfaces().filter(|route| route.operation.method == Method::GET) {
        let mut parameters = vec![("pretty", WRONG_BOOLEANS), ("envelope", WRONG_BOOLEANS)];
        if route.operation.query.is_list() {
            parameters.extend([
                ("includeCount", WRONG_BOOLEANS),
                ("pageNum", WRONG_NUMBERS),
                ("itemsPerPage", WRONG_NUMBERS),
            ]);
        }
        if route.operation.query == Query::ListOfSnapshots {
            parameters.push(("completed", WRONG_BOOLEANS));
        }
        if route.operation.query == Query::ListOfRestoreJobs {
            parameters.push(("batchId", WRONG_IDS));
        }
        let path = filled(&route, None);
        for (name, wrong) in parameters {
            let values = wrong.iter().map(|value| format!("{name}{value}"));
            let right = match name {
                "batchId" => BATCH,
                "pageNum" | "itemsPerPage" => "1",
                _ => "true",
            };
            let repeated = [format!("{name}={right}&{name}={right}"), format!("{name}={right}&x&{name}")];
            let long = [format!("{name}={}", "1".repeat(5_000))];
            for query in values.chain(repeated).chain(long) {
                let reply = ask(&lab, &route, &format!("{path}?{query}"), b"").await;
                let json = reply.json();
                assert_eq!(reply.status, 400, "{} {query}", route.path);
                assert_eq!(json["errorCode"], "INVALID_QUERY_PARAMETER", "{} {query}", route.path);
                assert_eq!(json["parameters"], serde_json::json!([name]), "{} {query}", route.path);
            }
            let reply = ask(&lab, &route, &format!("{path}?{name}={right}&unknown=%ff&&=&%00"), b"").await;
            assert_eq!(reply.status, 200, "what is unknown is ignored: {} {name}: {}", route.path, reply.body);
        }
        for (query, not_its) in [
            ("pageNum=x", !route.operation.query.is_list()),
            ("completed=x", route.operation.query != Query::ListOfSnapshots),
            ("batchId=x", route.operation.query != Query::ListOfRestoreJobs),
        ] {
            if not_its {
                let reply = ask(&lab, &route, &format!("{path}?{query}"), b"").await;
                assert_eq!(reply.status, 200, "no parameter of it: {} {query}", route.path);
            }
        }
    }
}

#[tokio::test]
async fn every_field_of_every_body() {
    let values = [
        "null",
        "true",
        "\"\"",
        "\"x\"",
        "\"15\"",
        "[]",
        "[15]",
        "{}",
        "-1",
        "1.5",
        "1e99",
        "4294967311",
        "18446744073709551616",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "99999",
    ];
    let bodies: &[&[u8]] = &[
        b"[]",
        b"null",
        b"1",
        b"\"x\"",
        b"{",
        b"{}{}",
        b"{\"a\"}",
        b"{'a':1}",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"{\"a\":\"\xff\"}",
        b"\0",
        b"{\"a\":1}",
        b"{\"\":1}",
        b"{\"\\u0000\":1}",
        b"{\"a/b\":1}",
    ];
    for route in on_surfaces() {
        let Some(body) = &route.operation.body else { continue };
        let lab = Lab::new().await;
        let path = filled(&route, None);
        let before = lab.get(&format!("/api/atlas/v1.0/groups/{GROUP}/clusters/Cluster0/snapshotSchedule")).await.body;
        let fields: Vec<String> = (body.schema)()["properties"]
            .as_object()
            .map(|properties| properties.keys().cloned().collect())
            .unwrap_or_default();
        let of_fields = fields.iter().flat_map(|field| {
            let each = values
                .iter()
                .filter(move |value| !(field == "doNotDelete" && **value == "true"))
                .map(move |value| format!("{{\"{field}\":{value}}}").into_bytes());
            each.chain([format!("{{\"{field}\":15,\"{field}\":15}}").into_bytes()])
        });
        for body in of_fields.chain(bodies.iter().map(|body| body.to_vec())) {
            let reply = ask(&lab, &route, &path, &body).await;
            let code = reply.json()["errorCode"].as_str().unwrap_or_default().to_owned();
            let text = String::from_utf8_lossy(&body).into_owned();
            assert_eq!(reply.status, 400, "{} {text}: {}", route.path, reply.body);
            let known = [
                "INVALID_ATTRIBUTE",
                "INVALID_JSON",
                "MALFORMED_JSON",
                "MISSING_ATTRIBUTE",
                "INVALID_CLUSTER_CHECKPOINT_INTERVAL",
            ];
            assert!(known.contains(&code.as_str()), "{} {text}: {code}", route.path);
        }
        let after = lab.get(&format!("/api/atlas/v1.0/groups/{GROUP}/clusters/Cluster0/snapshotSchedule")).await.body;
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn every_code_reads_as_it_is_published() {
    use stillpoint_api::error::{Code, Refusal};
    let lines: Vec<_> = Code::ALL
        .iter()
        .map(|code| {
            let (status, name, sentence) = code.row();
            let refusal = match sentence.matches("%s").count() {
                0 => Refusal::new(*code, []),
                1 => Refusal::new(*code, ["ONE"]),
                2 => Refusal::new(*code, ["ONE", "TWO"]),
                _ => Refusal::new(*code, ["ONE", "TWO", "THREE"]),
            };
            format!("{} {name} {}", status.as_u16(), serde_json::to_string(&refusal.document(false)).unwrap())
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    400 INVALID_QUERY_PARAMETER {"detail":"Invalid query parameter ONE specified.","error":400,"errorCode":"INVALID_QUERY_PARAMETER","parameters":["ONE"],"reason":"Bad Request"}
    400 INVALID_ATTRIBUTE {"detail":"Invalid attribute ONE specified.","error":400,"errorCode":"INVALID_ATTRIBUTE","parameters":["ONE"],"reason":"Bad Request"}
    400 INVALID_ATTRIBUTE {"detail":"Invalid attribute ONE specified: a cluster is not restored into itself. Name one that is empty.","error":400,"errorCode":"INVALID_ATTRIBUTE","parameters":["ONE"],"reason":"Bad Request"}
    400 MISSING_ATTRIBUTE {"detail":"The required attribute ONE was not specified.","error":400,"errorCode":"MISSING_ATTRIBUTE","parameters":["ONE"],"reason":"Bad Request"}
    400 INVALID_ENUM_VALUE {"detail":"An invalid enumeration value ONE was specified.","error":400,"errorCode":"INVALID_ENUM_VALUE","parameters":["ONE"],"reason":"Bad Request"}
    400 INVALID_CLUSTER_CHECKPOINT_INTERVAL {"detail":"Invalid cluster checkpoint interval ONE: it must be 15, 30 or 60 minutes.","error":400,"errorCode":"INVALID_CLUSTER_CHECKPOINT_INTERVAL","parameters":["ONE"],"reason":"Bad Request"}
    400 INVALID_JSON {"detail":"The request body must be a JSON object.","error":400,"errorCode":"INVALID_JSON","parameters":[],"reason":"Bad Request"}
    400 MALFORMED_JSON {"detail":"The request body is not well-formed JSON.","error":400,"errorCode":"MALFORMED_JSON","parameters":[],"reason":"Bad Request"}
    400 VALIDATION_ERROR {"detail":"The Host header is missing or not valid.","error":400,"errorCode":"VALIDATION_ERROR","parameters":[],"reason":"Bad Request"}
    401 USER_UNAUTHORIZED {"detail":"You are not authorized for this resource.","error":401,"errorCode":"USER_UNAUTHORIZED","parameters":[],"reason":"Unauthorized"}
    401 NOT_IN_GROUP {"detail":"The current user is not in the group ONE.","error":401,"errorCode":"NOT_IN_GROUP","parameters":["ONE"],"reason":"Unauthorized"}
    403 ACCESS_FORBIDDEN {"detail":"This API key may not do this in group ONE.","error":403,"errorCode":"ACCESS_FORBIDDEN","parameters":["ONE"],"reason":"Forbidden"}
    403 IP_ADDRESS_NOT_ON_ACCESS_LIST {"detail":"IP address ONE is not allowed to access this resource.","error":403,"errorCode":"IP_ADDRESS_NOT_ON_ACCESS_LIST","parameters":["ONE"],"reason":"Forbidden"}
    403 CANNOT_MODIFY_SNAPSHOT {"detail":"Snapshot ONE of cluster TWO cannot be modified: it is not complete.","error":403,"errorCode":"CANNOT_MODIFY_SNAPSHOT","parameters":["ONE","TWO"],"reason":"Forbidden"}
    403 CANNOT_MODIFY_SNAPSHOT {"detail":"Snapshot ONE of cluster TWO cannot be deleted: it is not yet finished.","error":403,"errorCode":"CANNOT_MODIFY_SNAPSHOT","parameters":["ONE","TWO"],"reason":"Forbidden"}
    403 CANNOT_MODIFY_SNAPSHOT {"detail":"Snapshot ONE of cluster TWO cannot be deleted: the oldest checkpoints and times that are kept are restored from it.","error":403,"errorCode":"CANNOT_MODIFY_SNAPSHOT","parameters":["ONE","TWO"],"reason":"Forbidden"}
    403 CANNOT_MODIFY_SNAPSHOT {"detail":"Snapshot ONE of cluster TWO cannot be deleted: the next one goes on from it. Delete it when there is a newer one.","error":403,"errorCode":"CANNOT_MODIFY_SNAPSHOT","parameters":["ONE","TWO"],"reason":"Forbidden"}
    403 CANNOT_MODIFY_SNAPSHOT {"detail":"Snapshot ONE of cluster TWO cannot be deleted: it is marked doNotDelete. Set that to false first.","error":403,"errorCode":"CANNOT_MODIFY_SNAPSHOT","parameters":["ONE","TWO"],"reason":"Forbidden"}
    403 CANNOT_MODIFY_SNAPSHOT {"detail":"Snapshot ONE of cluster TWO cannot be deleted: a restore that is not yet finished may go on from it.","error":403,"errorCode":"CANNOT_MODIFY_SNAPSHOT","parameters":["ONE","TWO"],"reason":"Forbidden"}
    404 INVALID_GROUP_ID {"detail":"An invalid group ID ONE was specified.","error":404,"errorCode":"INVALID_GROUP_ID","parameters":["ONE"],"reason":"Not Found"}
    404 INVALID_CLUSTER_ID {"detail":"An invalid cluster ID ONE was specified.","error":404,"errorCode":"INVALID_CLUSTER_ID","parameters":["ONE"],"reason":"Not Found"}
    404 INVALID_CHECKPOINT_ID {"detail":"An invalid checkpoint ID ONE was specified.","error":404,"errorCode":"INVALID_CHECKPOINT_ID","parameters":["ONE"],"reason":"Not Found"}
    404 GROUP_NOT_FOUND {"detail":"No group with ID ONE exists.","error":404,"errorCode":"GROUP_NOT_FOUND","parameters":["ONE"],"reason":"Not Found"}
    404 CLUSTER_NOT_FOUND {"detail":"No cluster named ONE exists in group TWO.","error":404,"errorCode":"CLUSTER_NOT_FOUND","parameters":["ONE","TWO"],"reason":"Not Found"}
    404 CHECKPOINT_NOT_FOUND {"detail":"No checkpoint with ID ONE exists for cluster TWO.","error":404,"errorCode":"CHECKPOINT_NOT_FOUND","parameters":["ONE","TWO"],"reason":"Not Found"}
    404 SNAPSHOT_NOT_FOUND {"detail":"No snapshot with ID ONE exists for cluster TWO.","error":404,"errorCode":"SNAPSHOT_NOT_FOUND","parameters":["ONE","TWO"],"reason":"Not Found"}
    404 RESTORE_JOB_NOT_FOUND {"detail":"No restore job with ID ONE exists for cluster TWO.","error":404,"errorCode":"RESTORE_JOB_NOT_FOUND","parameters":["ONE","TWO"],"reason":"Not Found"}
    404 DOWNLOAD_NOT_FOUND {"detail":"No file has this link.","error":404,"errorCode":"DOWNLOAD_NOT_FOUND","parameters":[],"reason":"Not Found"}
    404 RESOURCE_NOT_FOUND {"detail":"Cannot find resource ONE.","error":404,"errorCode":"RESOURCE_NOT_FOUND","parameters":["ONE"],"reason":"Not Found"}
    405 METHOD_NOT_ALLOWED {"detail":"This resource does not have the method ONE.","error":405,"errorCode":"METHOD_NOT_ALLOWED","parameters":["ONE"],"reason":"Method Not Allowed"}
    406 INVALID_VERSION_DATE {"detail":"The Accept header asks for no version that this resource has. Ask for application/vnd.atlas.ONE+json or a later date.","error":406,"errorCode":"INVALID_VERSION_DATE","parameters":["ONE"],"reason":"Not Acceptable"}
    409 CHECKPOINT_IN_PROGRESS {"detail":"Checkpoint ONE of cluster TWO is not yet finished.","error":409,"errorCode":"CHECKPOINT_IN_PROGRESS","parameters":["ONE","TWO"],"reason":"Conflict"}
    409 SNAPSHOT_IN_PROGRESS {"detail":"Snapshot ONE of cluster TWO is not yet finished.","error":409,"errorCode":"SNAPSHOT_IN_PROGRESS","parameters":["ONE","TWO"],"reason":"Conflict"}
    409 ATLAS_CLUSTER_RESTORE_IN_PROGRESS {"detail":"A restore of cluster ONE is in progress.","error":409,"errorCode":"ATLAS_CLUSTER_RESTORE_IN_PROGRESS","parameters":["ONE"],"reason":"Conflict"}
    409 RESTORE_JOB_ENDED {"detail":"Restore job ONE of cluster TWO has ended: there is nothing to be cancelled.","error":409,"errorCode":"RESTORE_JOB_ENDED","parameters":["ONE","TWO"],"reason":"Conflict"}
    409 DOWNLOAD_IN_PROGRESS {"detail":"The file is being downloaded. Try again if that breaks off.","error":409,"errorCode":"DOWNLOAD_IN_PROGRESS","parameters":[],"reason":"Conflict"}
    409 NO_CHECKPOINT_FOR_PIT_RESTORE {"detail":"Cluster ONE cannot be restored to TWO: THREE","error":409,"errorCode":"NO_CHECKPOINT_FOR_PIT_RESTORE","parameters":["ONE","TWO","THREE"],"reason":"Conflict"}
    410 VERSION_GONE {"detail":"The version of ONE of this resource is no longer served. Ask for a later date.","error":410,"errorCode":"VERSION_GONE","parameters":["ONE"],"reason":"Gone"}
    410 DOWNLOAD_GONE {"detail":"The file of this link is gone: ONE. Ask for a new restore job with the delivery method HTTP.","error":410,"errorCode":"DOWNLOAD_GONE","parameters":["ONE"],"reason":"Gone"}
    413 PAYLOAD_TOO_LARGE {"detail":"The request body is larger than ONE bytes.","error":413,"errorCode":"PAYLOAD_TOO_LARGE","parameters":["ONE"],"reason":"Payload Too Large"}
    415 UNSUPPORTED_MEDIA_TYPE {"detail":"The request body must be application/json.","error":415,"errorCode":"UNSUPPORTED_MEDIA_TYPE","parameters":[],"reason":"Unsupported Media Type"}
    416 RANGE_NOT_SATISFIABLE {"detail":"The range begins behind the end of the file, which has ONE bytes.","error":416,"errorCode":"RANGE_NOT_SATISFIABLE","parameters":["ONE"],"reason":"Range Not Satisfiable"}
    429 RATE_LIMITED {"detail":"Too many requests: try again in ONE seconds.","error":429,"errorCode":"RATE_LIMITED","parameters":["ONE"],"reason":"Too Many Requests"}
    404 BACKUP_CONFIG_NOT_FOUND {"detail":"No backup configuration exists for cluster ONE in group TWO.","error":404,"errorCode":"BACKUP_CONFIG_NOT_FOUND","parameters":["ONE","TWO"],"reason":"Not Found"}
    500 UNEXPECTED_ERROR {"detail":"Unexpected error.","error":500,"errorCode":"UNEXPECTED_ERROR","parameters":[],"reason":"Internal Server Error"}
    503 UNEXPECTED_ERROR {"detail":"The server cannot answer this just now. Try again later.","error":503,"errorCode":"UNEXPECTED_ERROR","parameters":[],"reason":"Service Unavailable"}
    "#);
}
