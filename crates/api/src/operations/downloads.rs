//! Files that are downloaded: by a link that is the credential itself.
//!
//! The link is in the documents of restore jobs, for those who may ask for a restore. Nothing else of this server
//! says it: neither the log nor the audit trail nor an error.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_RANGE, RANGE,
};
use http::{HeaderMap, Method, StatusCode};
use stillpoint_core::RestoreId;
use stillpoint_core::restore::{File, Standing};

use super::{Access, Call, Operation, Query};
use crate::error::{Code, Refusal};
use crate::headers::only;
use crate::respond::{AuditNote, Reply};
use crate::sending::Turn;

const PREFIX: &str = "/api/downloads/";
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

pub const OPERATIONS: &[Operation] = &[Operation {
    id: "getDownload",
    method: Method::GET,
    path: "/api/downloads/{token}",
    access: Access::Open,
    summary: "Download a file of a restore job",
    about: "The link is the `delivery.url` of a restore job with the delivery method `HTTP`, and the only credential: \
            whoever has it has the file. It is good for one download, until its `delivery.expires`. A download that \
            breaks off may be begun again, or be gone on with by a `Range` of bytes; a HEAD does not use it up. One \
            download of a file is done at a time.",
    tag: "Common",
    query: Query::Nothing,
    body: None,
    status: StatusCode::OK,
    document: Some(|_| schemars::json_schema!({"type": "string", "format": "binary"})),
    refusals: &[Code::DownloadNotFound, Code::DownloadInProgress, Code::DownloadGone, Code::RangeNotSatisfiable],
    versions: &[],
    handler: |call| Box::pin(download(call)),
}];

/// Where a job's file is to be had.
pub fn url(base: &str, token: &str) -> String {
    [base, PREFIX, token].concat()
}

/// A path as it may be told to others.
pub fn without_token(path: &str) -> &str {
    if path.starts_with(PREFIX) { PREFIX } else { path }
}

const DOWNLOADED: &str = "it has been downloaded";

async fn download(call: &Call) -> Result<Reply, Refusal> {
    let not_found = || Refusal::new(Code::DownloadNotFound, []);
    let gone = |why: &str| Refusal::new(Code::DownloadGone, [why]);
    let job = call.catalog().job_of_token(call.parameter("token")).ok_or_else(not_found)?;
    // Before the record is read: while somebody else downloads it, that may change.
    let is_head = call.head.method == Method::HEAD;
    let turn = match is_head {
        true => None,
        false => Some(Turn::take(&call.interface, job).map_err(|taken| match taken.over {
            true => gone(DOWNLOADED),
            false => Refusal::new(Code::DownloadInProgress, []),
        })?),
    };
    let restore = call.catalog().download(job).await?.ok_or_else(not_found)?;
    let part = restore.parts.iter().find(|part| part.job == job).ok_or_else(not_found)?;
    match restore.standing(part, call.now) {
        Some(Standing::Ready(_)) => {}
        Some(Standing::Downloaded(_)) => return Err(gone(DOWNLOADED)),
        Some(Standing::Expired(_)) => return Err(gone("its time is over")),
        Some(Standing::Withdrawn) => return Err(gone("its restore was cancelled, or could not be done")),
        Some(Standing::Preparing) | None => return Err(not_found()),
    }
    let file = part.file.as_ref().ok_or_else(not_found)?;
    // A range is one of a GET's.
    let range = if is_head { None } else { range(call.headers(), file)? };
    let headers = headers(file, range.as_ref())?;
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let reply = Reply { status, headers, ..Reply::nothing() };
    let Some(turn) = turn else { return Ok(reply) };
    let path = call.interface.outside.settings.downloads.join(File::stored_as(job));
    let opened = open(&path, file.bytes).await.map_err(|error| {
        tracing::error!(%job, %error, "a file that is to be downloaded is not there");
        gone("it is not to be found on the server")
    })?;
    let unexpected = |error: std::io::Error| {
        tracing::error!(%job, %error, "a file that is to be downloaded cannot be read");
        Refusal::new(Code::Unavailable, [])
    };
    let sending = turn.send(path, opened, range.unwrap_or(0..file.bytes), file.bytes).await.map_err(unexpected)?;
    Ok(Reply { file: Some(sending), audit: Some(noted(job)), ..reply })
}

/// Who has the link is not known; from where the file is asked for is.
fn noted(job: RestoreId) -> AuditNote {
    let action = Some(format!("GET {PREFIX} (restore job {job})"));
    AuditNote { action, actor: None, error: None, refused: false }
}

async fn open(path: &PathBuf, bytes: u64) -> std::io::Result<tokio::fs::File> {
    let file = tokio::fs::File::open(path).await?;
    match file.metadata().await?.len() == bytes {
        true => Ok(file),
        false => Err(std::io::Error::new(ErrorKind::InvalidData, "it does not have the size that was noted")),
    }
}

fn headers(file: &File, range: Option<&Range<u64>>) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
    let text = |text: String| HeaderValue::try_from(text).map_err(|_| Refusal::new(Code::Unexpected, []));
    let digest = hex::decode(&file.sha256).map_err(|_| Refusal::new(Code::Unexpected, []))?;
    let length = range.map_or(file.bytes, |range| range.end - range.start);
    let mut headers = vec![
        (CONTENT_TYPE, HeaderValue::from_static("application/gzip")),
        (CONTENT_LENGTH, length.into()),
        // The name has nothing that is to be escaped in it.
        (CONTENT_DISPOSITION, text(format!("attachment; filename=\"{}\"", file.name))?),
        (REPR_DIGEST, text(format!("sha-256=:{}:", STANDARD.encode(digest)))?),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (ETAG, text(etag(file))?),
    ];
    if let Some(Range { start, end }) = range {
        headers.push((CONTENT_RANGE, text(format!("bytes {start}-{}/{}", end - 1, file.bytes))?));
    }
    Ok(headers)
}

fn etag(file: &File) -> String {
    format!("\"{}\"", file.sha256)
}

/// The part of a file that is asked for, if that is one that begins somewhere. Of other forms, and for another file
/// than this, all of it is sent, as is every server's right.
fn range(headers: &HeaderMap, file: &File) -> Result<Option<Range<u64>>, Refusal> {
    if headers.get(IF_RANGE).is_some_and(|wanted| wanted.as_bytes() != etag(file).as_bytes()) {
        return Ok(None);
    }
    let asked = only(headers, RANGE).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let Some((first, last)) = asked else { return Ok(None) };
    let Some(first) = number(first) else { return Ok(None) };
    let last = match last {
        "" => u64::MAX,
        last => match number(last) {
            Some(last) if last >= first => last,
            _ => return Ok(None),
        },
    };
    if first >= file.bytes {
        let length = HeaderValue::try_from(format!("bytes */{}", file.bytes));
        let refusal = Refusal::new(Code::RangeNotSatisfiable, [&file.bytes.to_string()]);
        return Err(length.map_or(refusal.clone(), |length| refusal.with(CONTENT_RANGE, length)));
    }
    Ok(Some(first..last.saturating_add(1).min(file.bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> File {
        File { name: "a.archive.gz".into(), bytes: 1_000, sha256: "0f".repeat(32), gone: None }
    }

    fn of(range_: &str, if_range: Option<&str>) -> Result<Option<Range<u64>>, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range_.parse().unwrap());
        if let Some(tag) = if_range {
            headers.insert(IF_RANGE, tag.parse().unwrap());
        }
        range(&headers, &file()).map_err(|refusal| refusal.code())
    }

    #[test]
    fn a_range_is_one_that_begins_somewhere() {
        for (text, expected) in [
            ("bytes=0-", Some(0..1_000)),
            ("bytes=999-", Some(999..1_000)),
            ("bytes=10-19", Some(10..20)),
            ("bytes=10-10", Some(10..11)),
            ("bytes=10-5000", Some(10..1_000)),
            ("bytes=10-18446744073709551615", Some(10..1_000)),
            // All of it, then.
            ("bytes=-5", None),
            ("bytes=10-9", None),
            ("bytes=0-1,5-6", None),
            ("bytes=+1-2", None),
            ("bytes=1-x", None),
            ("bytes=99999999999999999999-", None),
            ("rows=1-2", None),
            ("bytes", None),
        ] {
            assert_eq!(of(text, None), Ok(expected), "{text}");
        }
        assert_eq!(of("bytes=1000-", None), Err(Code::RangeNotSatisfiable));
        assert_eq!(of("bytes=7-", Some(&etag(&file()))), Ok(Some(7..1_000)));
        assert_eq!(of("bytes=7-", Some("\"another\"")), Ok(None), "what was begun is not this file");
    }

    #[test]
    fn a_token_is_told_to_nobody() {
        assert_eq!(without_token("/api/downloads/0123"), PREFIX);
        assert_eq!(without_token("/api/downloads/0123/"), PREFIX);
        assert_eq!(without_token("/api/docs"), "/api/docs");
        assert_eq!(url("https://h/x", "01"), "https://h/x/api/downloads/01");
    }
}
