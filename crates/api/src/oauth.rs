//! OAuth 2.0 client credentials (RFC 6749 §4.4) for service accounts: bearer tokens for v2, and their
//! revocation (RFC 7009).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderValue, PRAGMA, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use ring::digest::{SHA256, digest};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use stillpoint_catalog::{AccessToken, CatalogError, Credential, CredentialKind};
use subtle::ConstantTimeEq;

use crate::error::Refusal;
use crate::gate::{LONGEST_LOGIN, claimed};
use crate::headers::{media_type, only};
use crate::operations::Call;
use crate::respond::{AuditNote, Reply};

/// How long a token is good for, in seconds.
pub const LIFETIME_S: u32 = 3_600;

/// The answer to a grant (RFC 6749 §5.1).
#[derive(Debug, Serialize, JsonSchema)]
pub struct TokenDocument {
    /// To be sent as `Authorization: Bearer …`, on v2.
    access_token: String,
    /// Seconds.
    expires_in: u32,
    token_type: &'static str,
}

/// Why there is none (RFC 6749 §5.2).
#[derive(Debug, Serialize, JsonSchema)]
pub struct OauthError {
    error: &'static str,
    error_description: &'static str,
}

/// What a service account's secret is checked against: SHA-256, in hex. The secret is random and long,
/// so that it needs no slower hash.
pub fn proof(secret: &str) -> String {
    hex::encode(digest(&SHA256, secret.as_bytes()))
}

/// What a token is known by.
pub fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// The token of an `Authorization: Bearer` header.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then_some(token.trim())
}

/// Gives a token to a service account.
pub async fn token(call: &Call) -> Result<Reply, Refusal> {
    let account = call.credential()?;
    match field(call, "grant_type") {
        Ok(Some(grant)) if grant == "client_credentials" => {}
        Ok(Some(_)) => return refused(call, "unsupported_grant_type", "grant_type must be client_credentials"),
        Ok(None) => return refused(call, "invalid_request", "grant_type is missing"),
        Err(why) => return refused(call, "invalid_request", why),
    }

    let token = URL_SAFE_NO_PAD.encode(call.interface.outside.random());
    let expires = call.now + jiff::SignedDuration::from_secs(LIFETIME_S.into());
    let kept = AccessToken { hash: hash(&token), account: account.id, expires };
    match call.catalog().create_token(&kept, &account.proof, call.now).await {
        Ok(()) => {}
        // Deleted, or given another secret, since it proved who it is.
        Err(CatalogError::Gone(_)) => return invalid_client(call, claimed(Some(account))),
        Err(error) => return Err(error.into()),
    }
    let document = TokenDocument { access_token: token, expires_in: LIFETIME_S, token_type: "Bearer" };
    reply(call, StatusCode::OK, &document)
}

/// Ends a token. Whether there was one is not said (RFC 7009 §2.2).
pub async fn revoke(call: &Call) -> Result<Reply, Refusal> {
    match field(call, "token") {
        Ok(Some(token)) => call.catalog().revoke_token(call.credential()?.id, &hash(&token)).await?,
        Ok(None) => return refused(call, "invalid_request", "token is missing"),
        Err(why) => return refused(call, "invalid_request", why),
    }
    Ok(Reply { status: StatusCode::OK, written: None, file: None, headers: no_store(), audit: None })
}

/// The service account that a request is of, or the reply to whoever is none.
pub async fn client(call: &Call) -> Result<Result<Arc<Credential>, Reply>, Refusal> {
    let given = basic(call.headers()).filter(|(id, _)| id.len() <= LONGEST_LOGIN);
    let Some((id, secret)) = given else { return Ok(Err(invalid_client(call, claimed(None))?)) };
    let found = call.catalog().credential(CredentialKind::ServiceAccount, &id).await?;
    // An unknown client takes the same way.
    let nobody = SecretString::from(proof(""));
    let right = found.as_ref().map_or(&nobody, |account| &account.proof).expose_secret();
    let same = bool::from(proof(&secret).as_bytes().ct_eq(right.as_bytes()));
    match found {
        Some(account) if same => Ok(Ok(Arc::new(account))),
        found => Ok(Err(invalid_client(call, claimed(found.as_ref()))?)),
    }
}

/// Client id and secret (RFC 6749 §2.3.1: both form-encoded before they are joined).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, text) = only(headers, AUTHORIZATION)?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain =
        |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8().ok().map(|text| text.into_owned());
    Some((plain(id)?, plain(secret)?))
}

/// The one value of a field of the form.
fn field(call: &Call, name: &str) -> Result<Option<String>, &'static str> {
    if !media_type(call.headers()).eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err("the body must be application/x-www-form-urlencoded");
    }
    let mut values = form_urlencoded::parse(&call.body).filter(|(key, _)| key == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err("a field is repeated"),
        (value, None) => Ok(value.map(|value| value.into_owned())),
    }
}

fn refused(call: &Call, error: &'static str, why: &'static str) -> Result<Reply, Refusal> {
    let reply = reply(call, StatusCode::BAD_REQUEST, &OauthError { error, error_description: why })?;
    Ok(Reply { audit: Some(AuditNote { action: None, actor: None, error: Some(error), refused: false }), ..reply })
}

fn invalid_client(call: &Call, actor: String) -> Result<Reply, Refusal> {
    let (error, why) = ("invalid_client", "the client id or its secret is wrong, or was not given with HTTP Basic");
    let reply = reply(call, StatusCode::UNAUTHORIZED, &OauthError { error, error_description: why })?;
    let challenge = HeaderValue::from_static("Basic realm=\"MMS Public API\"");
    let note = AuditNote { action: None, actor: Some(actor), error: Some(error), refused: true };
    Ok(Reply { audit: Some(note), ..reply.with(WWW_AUTHENTICATE, challenge) })
}

fn reply<T: Serialize>(call: &Call, status: StatusCode, document: &T) -> Result<Reply, Refusal> {
    let mut reply = call.one(status, document)?;
    reply.headers.extend(no_store());
    Ok(reply)
}

/// A token is nobody's to keep (RFC 6749 §5.1).
fn no_store() -> Vec<(http::HeaderName, HeaderValue)> {
    vec![(CACHE_CONTROL, HeaderValue::from_static("no-store")), (PRAGMA, HeaderValue::from_static("no-cache"))]
}
