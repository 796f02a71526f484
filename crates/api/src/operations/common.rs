//! What is there once, not on each surface: tokens, and the description of the interface.

use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::{Access, Call, Operation, Query, RequestBody};
use crate::error::Refusal;
use crate::oauth;
use crate::respond::Reply;

const FORM: &str = "application/x-www-form-urlencoded";
/// A token is 43 characters.
const LONGEST_FORM: usize = 4_096;
const TAG: &str = "Common";

pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "createToken",
        method: Method::POST,
        path: "/api/oauth/token",
        access: Access::Client,
        summary: "Get an access token",
        about: "A service account sends its client id and secret with HTTP Basic, and gets a bearer token for v2.",
        tag: TAG,
        query: Query::Nothing,
        body: Some(RequestBody { media_type: FORM, required: true, largest: LONGEST_FORM, schema: grant_schema }),
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<oauth::TokenDocument>()),
        refusals: &[],
        versions: &[],
        handler: |call| Box::pin(oauth::token(call)),
    },
    Operation {
        id: "revokeToken",
        method: Method::POST,
        path: "/api/oauth/revoke",
        access: Access::Client,
        summary: "End an access token",
        about: "Of the service account itself, with HTTP Basic as above.",
        tag: TAG,
        query: Query::Nothing,
        body: Some(RequestBody { media_type: FORM, required: true, largest: LONGEST_FORM, schema: revocation_schema }),
        status: StatusCode::OK,
        document: None,
        refusals: &[],
        versions: &[],
        handler: |call| Box::pin(oauth::revoke(call)),
    },
    Operation {
        id: "getOpenapi",
        method: Method::GET,
        path: "/api/openapi.json",
        access: Access::Open,
        summary: "This interface as an OpenAPI document",
        about: "",
        tag: TAG,
        query: Query::Nothing,
        body: None,
        status: StatusCode::OK,
        document: Some(|_| schemars::json_schema!({"type": "object"})),
        refusals: &[],
        versions: &[],
        handler: |call| Box::pin(async { description(call) }),
    },
    Operation {
        id: "getReference",
        method: Method::GET,
        path: "/api/docs",
        access: Access::Open,
        summary: "This interface as a page to read",
        about: "",
        tag: TAG,
        query: Query::Nothing,
        body: None,
        status: StatusCode::OK,
        document: None,
        refusals: &[],
        versions: &[],
        handler: |call| Box::pin(async { page(call) }),
    },
];

fn description(call: &Call) -> Result<Reply, Refusal> {
    let interface = &call.interface;
    // Without a public URL, one that is relative to where the document was found.
    let base = interface.outside.settings.public_url.as_ref().map_or("/", |url| url.as_str());
    Ok(interface.described.document(base, call.style)?.into())
}

fn page(call: &Call) -> Result<Reply, Refusal> {
    // It asks for nothing from anywhere.
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'");
    Ok(Reply::from(call.interface.described.page(call.style)?).with(CONTENT_SECURITY_POLICY, policy))
}

fn grant_schema() -> Value {
    json!({
        "type": "object",
        "properties": {"grant_type": {"type": "string", "enum": ["client_credentials"]}},
        "required": ["grant_type"],
    })
}

fn revocation_schema() -> Value {
    json!({"type": "object", "properties": {"token": {"type": "string"}}, "required": ["token"]})
}
