//! Errors of the API: one table of codes, and where a catalog's error becomes one of them.
//!
//! A handler gives a [`Refusal`]; how it is written (pretty, in an envelope) is the gate's affair,
//! see [`crate::auth`]. Nothing here may name a host, a connection string or a file.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use stillpoint_catalog::CatalogError;

/// Everything that can be answered instead of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    InvalidQueryParameter,
    InvalidAttribute,
    InvalidJson,
    MalformedJson,
    InvalidHost,
    UserUnauthorized,
    AccessForbidden,
    IpAddressNotOnAccessList,
    InvalidGroupId,
    InvalidCheckpointId,
    GroupNotFound,
    ClusterNotFound,
    CheckpointNotFound,
    ResourceNotFound,
    MethodNotAllowed,
    CheckpointUnderWay,
    BodyTooLarge,
    UnsupportedMediaType,
    Unexpected,
    Unavailable,
}

impl Code {
    /// The status, the code's name, and its sentence with a `%s` for each parameter.
    #[rustfmt::skip]
    pub fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Code::InvalidQueryParameter => (S::BAD_REQUEST, "INVALID_QUERY_PARAMETER", "Invalid query parameter %s specified."),
            Code::InvalidAttribute => (S::BAD_REQUEST, "INVALID_ATTRIBUTE", "Invalid attribute %s specified."),
            Code::InvalidJson => (S::BAD_REQUEST, "INVALID_JSON", "The request body must be a JSON object."),
            Code::MalformedJson => (S::BAD_REQUEST, "MALFORMED_JSON", "The request body is not well-formed JSON."),
            Code::InvalidHost => (S::BAD_REQUEST, "VALIDATION_ERROR", "The Host header is missing or not valid."),
            Code::UserUnauthorized => (S::UNAUTHORIZED, "USER_UNAUTHORIZED", "You are not authorized for this resource."),
            Code::AccessForbidden => (S::FORBIDDEN, "ACCESS_FORBIDDEN", "This API key may not do this in group %s."),
            Code::IpAddressNotOnAccessList => (S::FORBIDDEN, "IP_ADDRESS_NOT_ON_ACCESS_LIST", "IP address %s is not allowed to access this resource."),
            Code::InvalidGroupId => (S::NOT_FOUND, "INVALID_GROUP_ID", "An invalid group ID %s was specified."),
            Code::InvalidCheckpointId => (S::NOT_FOUND, "INVALID_CHECKPOINT_ID", "An invalid checkpoint ID %s was specified."),
            Code::GroupNotFound => (S::NOT_FOUND, "GROUP_NOT_FOUND", "No group with ID %s exists."),
            Code::ClusterNotFound => (S::NOT_FOUND, "CLUSTER_NOT_FOUND", "No cluster named %s exists in group %s."),
            Code::CheckpointNotFound => (S::NOT_FOUND, "CHECKPOINT_NOT_FOUND", "No checkpoint with ID %s exists for cluster %s."),
            Code::ResourceNotFound => (S::NOT_FOUND, "RESOURCE_NOT_FOUND", "Cannot find resource %s."),
            Code::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "This resource does not have the method %s."),
            Code::CheckpointUnderWay => (S::CONFLICT, "CHECKPOINT_IN_PROGRESS", "Checkpoint %s of cluster %s is not yet finished."),
            Code::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", "The request body is larger than %s bytes."),
            Code::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", "The request body must be application/json."),
            Code::Unexpected => (S::INTERNAL_SERVER_ERROR, "UNEXPECTED_ERROR", "Unexpected error."),
            Code::Unavailable => (S::SERVICE_UNAVAILABLE, "UNEXPECTED_ERROR", "The server cannot answer this just now. Try again later."),
        }
    }

    pub fn status(self) -> StatusCode {
        self.row().0
    }
}

/// A code with what it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.detail())]
pub struct Refusal {
    code: Code,
    parameters: Vec<String>,
}

/// The document of an error. Its fields are in alphabetical order, as are those of all documents.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorDocument<'a> {
    pub detail: String,
    pub error: u16,
    pub error_code: &'static str,
    pub parameters: &'a [String],
    pub reason: &'static str,
}

impl Refusal {
    /// A refusal with one parameter for each `%s` of the code's sentence.
    pub fn new<const N: usize>(code: Code, parameters: [&str; N]) -> Refusal {
        debug_assert_eq!(code.row().2.matches("%s").count(), N, "{code:?}");
        Refusal { code, parameters: parameters.map(shortened).into() }
    }

    pub fn code(&self) -> Code {
        self.code
    }

    fn detail(&self) -> String {
        let mut pieces = self.code.row().2.split("%s");
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for (parameter, piece) in self.parameters.iter().zip(pieces) {
            text.push_str(parameter);
            text.push_str(piece);
        }
        text
    }

    pub fn document(&self) -> ErrorDocument<'_> {
        let (status, name, _) = self.code.row();
        ErrorDocument {
            detail: self.detail(),
            error: status.as_u16(),
            error_code: name,
            parameters: &self.parameters,
            reason: status.canonical_reason().unwrap_or_default(),
        }
    }
}

/// Parameters repeat what the client sent: not more of it than helps.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl From<CatalogError> for Refusal {
    /// For what no client can do anything about. What a route can say more of, it says itself.
    fn from(error: CatalogError) -> Refusal {
        tracing::error!(%error, "the catalog failed a request");
        match error {
            CatalogError::Store(_) | CatalogError::AnotherServer(_) | CatalogError::Fenced => {
                Refusal::new(Code::Unavailable, [])
            }
            _ => Refusal::new(Code::Unexpected, []),
        }
    }
}

impl IntoResponse for Refusal {
    /// Only notes the refusal: the gate writes it, since it knows how the client wants it written.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.code.status();
        response.extensions_mut().insert(self);
        response
    }
}
