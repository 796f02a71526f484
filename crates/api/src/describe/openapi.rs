//! The OpenAPI 3.1 document.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Map, Value, json};

use crate::error::{Code, ErrorDocument};
use crate::oauth::OauthError;
use crate::operations::{Access, Operation, Query, Route};
use crate::query::{HIGHEST_PAGE, MOST_PER_PAGE};
use crate::surface::{ClusterBy, Surface};
use crate::version::Version;

const ABOUT: &str = "Checkpoints of sharded MongoDB clusters, as clients of MongoDB Atlas, Ops Manager and Cloud \
                     Manager know them. The same resources are on three surfaces: Atlas v1.0, Atlas v2, and Ops \
                     Manager. Query parameters that are not known are ignored.";

/// The document, for clients that reach the server at `base`.
pub fn openapi(base: &str) -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .with_transform(NeverNull)
        .into_generator();
    let error = generator.subschema_for::<ErrorDocument>();
    let oauth_error = generator.subschema_for::<OauthError>();

    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in Route::all() {
        let described = operation(&route, &mut generator, &error, &oauth_error);
        let method = route.operation.method.as_str().to_ascii_lowercase();
        paths.entry(route.path).or_default().insert(method, described);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "stillpoint",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base}],
        "tags": tags(),
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "digest": {
                    "type": "http",
                    "scheme": "digest",
                    "description": "A key's public part as the user, its private part as the password (RFC 7616, MD5, \
                                    qop=auth).",
                },
                "serviceAccount": {
                    "type": "oauth2",
                    "description": "Service accounts, on v2.",
                    "flows": {"clientCredentials": {"tokenUrl": "/api/oauth/token", "scopes": {}}},
                },
                "clientSecret": {"type": "http", "scheme": "basic", "description": "A client id and its secret."},
            },
        },
    })
}

fn tags() -> Vec<Value> {
    let mut names: Vec<&str> = Vec::new();
    for route in Route::all() {
        if !names.contains(&route.operation.tag) {
            names.push(route.operation.tag);
        }
    }
    names.into_iter().map(|name| json!({"name": name})).collect()
}

fn operation(route: &Route, generator: &mut SchemaGenerator, error: &Schema, oauth_error: &Schema) -> Value {
    let operation = route.operation;
    let id = operation_id(route);
    let mut described = json!({
        "operationId": id,
        "summary": operation.summary,
        "description": about(operation, route.surface),
        "tags": [operation.tag],
        "security": security(operation.access, route.surface),
        "parameters": parameters(route),
        "responses": responses(route, generator, error, oauth_error),
    });
    if let Some(body) = &operation.body {
        let schema = (body.schema)();
        described["requestBody"] = json!({"required": body.required, "content": {body.media_type: {"schema": schema}}});
    }
    described
}

/// v2 has the published ids; elsewhere the surface's name keeps them apart.
fn operation_id(route: &Route) -> String {
    let id = route.operation.id;
    let suffix = match route.surface {
        None => "",
        Some(surface) if surface.versioned => "",
        Some(surface) if surface.cluster == ClusterBy::Id => "OpsManager",
        Some(_) => "V1",
    };
    let alias = if route.path.contains("/backupConfigs/") { "OfBackupConfig" } else { "" };
    format!("{id}{alias}{suffix}")
}

fn about(operation: &Operation, surface: Option<&Surface>) -> String {
    let who = match operation.access {
        Access::Open => "Open to everybody.".to_owned(),
        Access::Client => "For service accounts.".to_owned(),
        Access::SignedIn => "For every key and service account.".to_owned(),
        Access::Project(role) => format!("Needs `{role}` in the project."),
    };
    let version = match surface.is_some_and(|surface| surface.versioned) {
        true => {
            "Ask for a version by date, as in `Accept: application/vnd.atlas.2023-01-01+json`: a date is answered \
                 with the newest version not after it."
        }
        false => "",
    };
    [operation.about, &who, version].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

fn security(access: Access, surface: Option<&Surface>) -> Value {
    match access {
        Access::Open => json!([]),
        Access::Client => json!([{"clientSecret": []}]),
        _ if surface.is_some_and(|surface| surface.bearer) => json!([{"digest": []}, {"serviceAccount": []}]),
        _ => json!([{"digest": []}]),
    }
}

fn parameters(route: &Route) -> Vec<Value> {
    let id = json!({"type": "string", "pattern": "^[0-9a-f]{24}$"});
    let mut parameters: Vec<_> = route
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let (schema, what) = match name {
                "groupId" => (id.clone(), "The project."),
                "clusterId" => (id.clone(), "The cluster, by its id."),
                "clusterName" => (json!({"type": "string", "minLength": 1}), "The cluster, by its name."),
                "snapshotId" => (id.clone(), "The snapshot."),
                "jobId" => (id.clone(), "The restore job."),
                "token" => (json!({"type": "string", "minLength": 1}), "The secret of the link."),
                _ => (id.clone(), "The checkpoint."),
            };
            json!({"name": name, "in": "path", "required": true, "schema": schema, "description": what})
        })
        .collect();
    let mut query = |name: &str, schema: Value, what: &str| {
        parameters.push(json!({"name": name, "in": "query", "schema": schema, "description": what}));
    };
    let operation = route.operation;
    if operation.query != Query::Nothing {
        query("pretty", json!({"type": "boolean", "default": false}), "Whether the reply is indented.");
        let wrapped = "Whether the reply is wrapped in an object with its HTTP status, for clients that cannot see it.";
        query("envelope", json!({"type": "boolean", "default": false}), wrapped);
    }
    if operation.query.is_list() {
        let number =
            |default: u64, most: u64| json!({"type": "integer", "minimum": 1, "maximum": most, "default": default});
        query("pageNum", number(1, HIGHEST_PAGE), "The page, counted from 1.");
        query("itemsPerPage", number(100, MOST_PER_PAGE), "How many items a page has.");
        query("includeCount", json!({"type": "boolean", "default": true}), "Whether `totalCount` is told.");
    }
    if operation.query == Query::ListOfSnapshots {
        let which = json!({"type": "string", "enum": ["all", "true", "false"], "default": "true"});
        query("completed", which, "Whether those that are complete are listed, those that are not, or all.");
    }
    if operation.query == Query::ListOfRestoreJobs {
        query("batchId", id.clone(), "The restore whose jobs are listed; without it, those of all.");
    }
    parameters
}

fn responses(route: &Route, generator: &mut SchemaGenerator, error: &Schema, oauth_error: &Schema) -> Value {
    let operation = route.operation;
    let versioned = route.surface.is_some_and(|surface| surface.versioned);
    let mut responses = Map::new();

    let success = match operation.document {
        Some(document) if operation.id == "getDownload" => {
            json!({"description": "Done.", "content": {"application/gzip": {"schema": document(generator)}}})
        }
        Some(document) => {
            let schema = match operation.query {
                Query::Common => enveloped(&document(generator)),
                _ => document(generator).into(),
            };
            let media_types: Vec<_> = match versioned {
                true => operation.versions.iter().map(Version::media_type).collect(),
                false => vec!["application/json".to_owned()],
            };
            let content: Map<_, _> =
                media_types.into_iter().map(|media_type| (media_type, json!({"schema": schema}))).collect();
            json!({"description": "Done.", "content": content})
        }
        None if operation.id == "getReference" => {
            json!({"description": "Done.", "content": {"text/html": {"schema": {"type": "string"}}}})
        }
        None => json!({"description": "Done."}),
    };
    responses.insert(operation.status.as_str().into(), success.clone());
    if operation.id == "getDownload" {
        responses.insert(StatusCode::PARTIAL_CONTENT.as_str().into(), success);
    }
    if operation.method == Method::POST && route.surface.is_some() {
        made(route, &mut responses[operation.status.as_str()]);
    }

    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in refusals(operation, versioned) {
        let (status, name, _) = code.row();
        let names = by_status.entry(status.as_u16()).or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for (status, names) in by_status {
        let phrase = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
        let description = format!("{phrase}: `{}`.", names.join("`, `"));
        let schema = match operation.query {
            Query::Nothing => error.clone().into(),
            _ => enveloped(error),
        };
        responses.insert(
            status.to_string(),
            json!({"description": description, "content": {"application/json": {"schema": schema}}}),
        );
    }
    if operation.access == Access::Client {
        for (status, what) in [("400", "The grant is not one."), ("401", "`invalid_client`: the client is not known.")]
        {
            let schema = match responses.get(status) {
                Some(other) => json!({"anyOf": [oauth_error, other["content"]["application/json"]["schema"]]}),
                None => oauth_error.clone().into(),
            };
            let content = json!({"application/json": {"schema": schema}});
            responses.insert(status.into(), json!({"description": what, "content": content}));
        }
    }
    Value::Object(responses)
}

/// All codes that an operation may be answered with.
fn refusals(operation: &Operation, versioned: bool) -> Vec<Code> {
    let mut codes = vec![Code::InvalidHost, Code::Unexpected, Code::Unavailable];
    if operation.query != Query::Nothing {
        codes.push(Code::InvalidQueryParameter);
    }
    if operation.access != Access::Open {
        codes.extend([Code::IpAddressNotOnAccessList, Code::RateLimited]);
    }
    if operation.access.needs_credential() {
        codes.push(Code::UserUnauthorized);
    }
    if let Access::Project(_) = operation.access {
        codes.extend([Code::NotInGroup, Code::AccessForbidden, Code::InvalidGroupId, Code::GroupNotFound]);
    }
    if versioned {
        codes.extend([Code::InvalidVersionDate, Code::VersionGone]);
    }
    if operation.path.contains("{cluster}") {
        codes.extend([Code::InvalidClusterId, Code::ClusterNotFound]);
    }
    if operation.path.contains("{checkpointId}") {
        codes.extend([Code::InvalidCheckpointId, Code::CheckpointNotFound]);
    }
    if operation.path.contains("{snapshotId}") {
        codes.push(Code::SnapshotNotFound);
    }
    if operation.path.contains("{jobId}") {
        codes.push(Code::RestoreJobNotFound);
    }
    if let Some(body) = &operation.body {
        codes.push(Code::BodyTooLarge);
        if body.media_type == "application/json" {
            codes.extend([Code::InvalidAttribute, Code::InvalidJson, Code::MalformedJson, Code::UnsupportedMediaType]);
        }
    }
    codes.extend(operation.refusals);
    codes
}

/// With `envelope=true` a document comes wrapped; but a list has its status in itself.
fn enveloped(schema: &Schema) -> Value {
    json!({"anyOf": [schema, {
        "type": "object",
        "description": "With `envelope=true`.",
        "properties": {"content": schema, "status": {"type": "integer"}},
        "required": ["content", "status"],
    }]})
}

/// Where to go from what was made: one document, or a list of which the first is as good as any.
fn made(route: &Route, response: &mut Value) {
    let id = match route.operation.query.is_list() {
        true => "$response.body#/results/0/id",
        false => "$response.body#/id",
    };
    if route.operation.status == StatusCode::CREATED {
        response["headers"] = json!({"Location": {"description": "The new resource.", "schema": {"type": "string"}}});
    }
    let mut parameters = Map::new();
    for segment in route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')) {
        parameters.insert(segment.into(), format!("$request.path.{segment}").into());
    }
    let mut links = Map::new();
    for operation in crate::operations::all() {
        let Some(name) = operation.path.strip_prefix(route.operation.path).and_then(|rest| rest.strip_prefix("/{"))
        else {
            continue;
        };
        parameters.insert(name.trim_end_matches('}').into(), id.into());
        let id = operation_id(&Route { surface: route.surface, path: route.path.clone(), operation });
        let link = json!({"operationId": id, "parameters": parameters});
        links.insert(operation.method.as_str().to_ascii_lowercase(), link);
    }
    response["links"] = links.into();
}

/// A field that is left out is never null.
#[derive(Debug, Clone)]
struct NeverNull;

impl Transform for NeverNull {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [kind] = types.as_slice() {
                let kind = kind.clone();
                schema.insert("type".into(), kind);
            }
        }
        if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
            choices.retain(|choice| choice["type"] != "null");
            if let [Value::Object(only)] = choices.as_slice() {
                let only = only.clone();
                schema.remove("anyOf");
                for (name, value) in only {
                    schema.insert(name, value);
                }
            }
        }
    }
}
