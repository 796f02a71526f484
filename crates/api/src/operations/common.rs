//! What is there once, not on each surface: tokens, and the description of the interface.

use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::{Access, Call, Operation, Query, RequestBody};
use crate::describe::{openapi, reference};
use crate::error::{Code, Refusal};
use crate::oauth;
use crate::respond::{JSON, Reply, Written};

const FORM: &str = "application/x-www-form-urlencoded";
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
        body: Some(RequestBody { media_type: FORM, required: true, schema: grant_schema }),
        status: StatusCode::OK,
        document: Some(|generator| generator.subschema_for::<oauth::TokenDocument>()),
        refusals: &[Code::BodyTooLarge],
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
        body: Some(RequestBody { media_type: FORM, required: true, schema: revocation_schema }),
        status: StatusCode::OK,
        document: None,
        refusals: &[Code::BodyTooLarge],
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

fn description(call: &Call<'_>) -> Result<Reply, Refusal> {
    Ok(call.style.written(StatusCode::OK, JSON, openapi(&call.base).to_string().into_bytes())?.into())
}

fn page(call: &Call<'_>) -> Result<Reply, Refusal> {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let page: Written = call.style.written(StatusCode::OK, html, reference(&openapi(&call.base)).into_bytes())?;
    // It asks for nothing from anywhere.
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'");
    Ok(Reply::from(page).with(CONTENT_SECURITY_POLICY, policy))
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
