//! Errors of the API: one table of codes, and where a catalog's error becomes one of them.
//!
//! A handler gives a [`Refusal`]; how it is written (pretty, in an envelope, with what a surface
//! adds) is the gate's affair, see [`crate::gate`]. Nothing here may name a host, a connection string
//! or a file.

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Serialize;
use stillpoint_catalog::CatalogError;

macro_rules! codes {
    ($($code:ident $status:ident $name:literal $sentence:literal)*) => {
        /// Everything that can be answered instead of what was asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $($code),* }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$code),*];

            /// The status, the code's name, and its sentence with a `%s` for each parameter.
            pub fn row(self) -> (StatusCode, &'static str, &'static str) {
                match self { $(Code::$code => (StatusCode::$status, $name, $sentence)),* }
            }
        }
    };
}

codes! {
    InvalidQueryParameter BAD_REQUEST "INVALID_QUERY_PARAMETER" "Invalid query parameter %s specified."
    InvalidAttribute BAD_REQUEST "INVALID_ATTRIBUTE" "Invalid attribute %s specified."
    RestoreIntoItself BAD_REQUEST "INVALID_ATTRIBUTE" "Invalid attribute %s specified: a cluster is not restored into itself. Name one that is empty."
    MissingAttribute BAD_REQUEST "MISSING_ATTRIBUTE" "The required attribute %s was not specified."
    InvalidEnumValue BAD_REQUEST "INVALID_ENUM_VALUE" "An invalid enumeration value %s was specified."
    InvalidCheckpointInterval BAD_REQUEST "INVALID_CLUSTER_CHECKPOINT_INTERVAL" "Invalid cluster checkpoint interval %s: it must be 15, 30 or 60 minutes."
    InvalidJson BAD_REQUEST "INVALID_JSON" "The request body must be a JSON object."
    MalformedJson BAD_REQUEST "MALFORMED_JSON" "The request body is not well-formed JSON."
    InvalidHost BAD_REQUEST "VALIDATION_ERROR" "The Host header is missing or not valid."
    UserUnauthorized UNAUTHORIZED "USER_UNAUTHORIZED" "You are not authorized for this resource."
    NotInGroup UNAUTHORIZED "NOT_IN_GROUP" "The current user is not in the group %s."
    AccessForbidden FORBIDDEN "ACCESS_FORBIDDEN" "This API key may not do this in group %s."
    IpAddressNotOnAccessList FORBIDDEN "IP_ADDRESS_NOT_ON_ACCESS_LIST" "IP address %s is not allowed to access this resource."
    SnapshotNotComplete FORBIDDEN "CANNOT_MODIFY_SNAPSHOT" "Snapshot %s of cluster %s cannot be modified: it is not complete."
    SnapshotUnfinished FORBIDDEN "CANNOT_MODIFY_SNAPSHOT" "Snapshot %s of cluster %s cannot be deleted: it is not yet finished."
    SnapshotNeeded FORBIDDEN "CANNOT_MODIFY_SNAPSHOT" "Snapshot %s of cluster %s cannot be deleted: the oldest checkpoints and times that are kept are restored from it."
    SnapshotNewest FORBIDDEN "CANNOT_MODIFY_SNAPSHOT" "Snapshot %s of cluster %s cannot be deleted: the next one goes on from it. Delete it when there is a newer one."
    SnapshotStays FORBIDDEN "CANNOT_MODIFY_SNAPSHOT" "Snapshot %s of cluster %s cannot be deleted: it is marked doNotDelete. Set that to false first."
    SnapshotRestored FORBIDDEN "CANNOT_MODIFY_SNAPSHOT" "Snapshot %s of cluster %s cannot be deleted: a restore that is not yet finished may go on from it."
    InvalidGroupId NOT_FOUND "INVALID_GROUP_ID" "An invalid group ID %s was specified."
    InvalidClusterId NOT_FOUND "INVALID_CLUSTER_ID" "An invalid cluster ID %s was specified."
    InvalidCheckpointId NOT_FOUND "INVALID_CHECKPOINT_ID" "An invalid checkpoint ID %s was specified."
    GroupNotFound NOT_FOUND "GROUP_NOT_FOUND" "No group with ID %s exists."
    ClusterNotFound NOT_FOUND "CLUSTER_NOT_FOUND" "No cluster named %s exists in group %s."
    CheckpointNotFound NOT_FOUND "CHECKPOINT_NOT_FOUND" "No checkpoint with ID %s exists for cluster %s."
    SnapshotNotFound NOT_FOUND "SNAPSHOT_NOT_FOUND" "No snapshot with ID %s exists for cluster %s."
    RestoreJobNotFound NOT_FOUND "RESTORE_JOB_NOT_FOUND" "No restore job with ID %s exists for cluster %s."
    DownloadNotFound NOT_FOUND "DOWNLOAD_NOT_FOUND" "No file has this link."
    ResourceNotFound NOT_FOUND "RESOURCE_NOT_FOUND" "Cannot find resource %s."
    MethodNotAllowed METHOD_NOT_ALLOWED "METHOD_NOT_ALLOWED" "This resource does not have the method %s."
    InvalidVersionDate NOT_ACCEPTABLE "INVALID_VERSION_DATE" "The Accept header asks for no version that this resource has. Ask for application/vnd.atlas.%s+json or a later date."
    CheckpointUnderWay CONFLICT "CHECKPOINT_IN_PROGRESS" "Checkpoint %s of cluster %s is not yet finished."
    SnapshotUnderWay CONFLICT "SNAPSHOT_IN_PROGRESS" "Snapshot %s of cluster %s is not yet finished."
    RestoreInProgress CONFLICT "ATLAS_CLUSTER_RESTORE_IN_PROGRESS" "A restore of cluster %s is in progress."
    RestoreEnded CONFLICT "RESTORE_JOB_ENDED" "Restore job %s of cluster %s has ended: there is nothing to be cancelled."
    DownloadInProgress CONFLICT "DOWNLOAD_IN_PROGRESS" "The file is being downloaded. Try again if that breaks off."
    NoCheckpointForRestore CONFLICT "NO_CHECKPOINT_FOR_PIT_RESTORE" "Cluster %s cannot be restored to %s: %s"
    VersionGone GONE "VERSION_GONE" "The version of %s of this resource is no longer served. Ask for a later date."
    DownloadGone GONE "DOWNLOAD_GONE" "The file of this link is gone: %s. Ask for a new restore job with the delivery method HTTP."
    BodyTooLarge PAYLOAD_TOO_LARGE "PAYLOAD_TOO_LARGE" "The request body is larger than %s bytes."
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "UNSUPPORTED_MEDIA_TYPE" "The request body must be application/json."
    RangeNotSatisfiable RANGE_NOT_SATISFIABLE "RANGE_NOT_SATISFIABLE" "The range begins behind the end of the file, which has %s bytes."
    RateLimited TOO_MANY_REQUESTS "RATE_LIMITED" "Too many requests: try again in %s seconds."
    // Of the API as a whole; the resources that give it are not there yet.
    BackupConfigNotFound NOT_FOUND "BACKUP_CONFIG_NOT_FOUND" "No backup configuration exists for cluster %s in group %s."
    Unexpected INTERNAL_SERVER_ERROR "UNEXPECTED_ERROR" "Unexpected error."
    Unavailable SERVICE_UNAVAILABLE "UNEXPECTED_ERROR" "The server cannot answer this just now. Try again later."
}

impl Code {
    pub fn status(self) -> StatusCode {
        self.row().0
    }

    /// The field or the parameter of the request that it is about.
    fn field(self, parameters: &[String]) -> Option<&str> {
        match self {
            Code::InvalidQueryParameter | Code::InvalidAttribute | Code::MissingAttribute | Code::RestoreIntoItself => {
                parameters.first().map(String::as_str)
            }
            Code::InvalidEnumValue => Some("delivery.methodName"),
            Code::InvalidCheckpointInterval => Some("clusterCheckpointIntervalMin"),
            _ => None,
        }
    }
}

/// A code with what it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.detail())]
pub struct Refusal {
    code: Code,
    parameters: Vec<String>,
    /// A challenge, a `Retry-After`, an `Allow`.
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What an error looks like.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Error")]
pub struct ErrorDocument<'a> {
    /// On v2 only, with status 400.
    #[serde(skip_serializing_if = "Option::is_none")]
    bad_request_detail: Option<BadRequestDetail<'a>>,
    /// A sentence.
    pub detail: String,
    /// The HTTP status.
    pub error: u16,
    /// What programs should tell errors apart by.
    pub error_code: &'static str,
    /// What the sentence is about, in its order.
    pub parameters: &'a [String],
    /// The HTTP status as a phrase.
    pub reason: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct BadRequestDetail<'a> {
    fields: Vec<FieldViolation<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FieldViolation<'a> {
    description: String,
    field: &'a str,
}

impl Refusal {
    /// A refusal with one parameter for each `%s` of the code's sentence.
    pub fn new<const N: usize>(code: Code, parameters: [&str; N]) -> Refusal {
        debug_assert_eq!(code.row().2.matches("%s").count(), N, "{code:?}");
        Refusal { code, parameters: parameters.map(shortened).into(), headers: Vec::new() }
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Refusal {
        self.headers.push((name, value));
        self
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
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

    /// `fields` for a surface that names what is wrong with a bad request once more.
    pub fn document(&self, fields: bool) -> ErrorDocument<'_> {
        let (status, name, _) = self.code.row();
        let wrong = self.code.field(&self.parameters);
        let violations =
            || wrong.map(|field| FieldViolation { description: self.detail(), field }).into_iter().collect();
        ErrorDocument {
            bad_request_detail: (fields && status == StatusCode::BAD_REQUEST)
                .then(|| BadRequestDetail { fields: violations() }),
            detail: self.detail(),
            error: status.as_u16(),
            error_code: name,
            parameters: &self.parameters,
            reason: status.canonical_reason().unwrap_or_default(),
        }
    }
}

/// Parameters repeat what the client sent: not more of it than helps.
pub fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl From<CatalogError> for Refusal {
    /// For what no client can do anything about. What a handler can say more of, it says itself.
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
