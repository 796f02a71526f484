//! OAuth 2.0 client credentials (RFC 6749 §4.4) for service accounts: bearer tokens for v2, and their
//! revocation (RFC 7009).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use ring::digest::{SHA256, digest};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use stillpoint_catalog::{AccessToken, CatalogError, Credential, CredentialKind};
use subtle::ConstantTimeEq;

use crate::error::Refusal;
use crate::gate::{LONGEST_LOGIN, claimed, only};
use crate::operations::Call;
use crate::respond::{AuditNote, Reply};

/// How long a token is good for, in seconds.
pub const LIFETIME_S: u32 = 3_600;
/// Grants are short forms; a token is 43 characters.
const LONGEST_FORM: usize = 4_096;

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

/// Gives a token to a service account that has proved who it is.
pub async fn token(call: &Call<'_>) -> Result<Reply, Refusal> {
    let account = match client(call).await? {
        Ok(account) => account,
        Err(reply) => return Ok(reply),
    };
    match field(call, "grant_type") {
        Ok(Some(grant)) if grant == "client_credentials" => {}
        Ok(Some(_)) => {
            return refused(call, &account, "unsupported_grant_type", "grant_type must be client_credentials");
        }
        Ok(None) => return refused(call, &account, "invalid_request", "grant_type is missing"),
        Err(why) => return refused(call, &account, "invalid_request", why),
    }

    let token = new_token(call);
    let expires = call.now + jiff::SignedDuration::from_secs(LIFETIME_S.into());
    let kept = AccessToken { hash: hash(&token), account: account.id, expires };
    match call.catalog().create_token(&kept, &account.proof, call.now).await {
        Ok(()) => {}
        // Deleted, or given another secret, since it proved who it is.
        Err(CatalogError::Gone(_)) => return invalid_client(call, Some(account.login)),
        Err(error) => return Err(error.into()),
    }
    let document = TokenDocument { access_token: token, expires_in: LIFETIME_S, token_type: "Bearer" };
    reply(call, StatusCode::OK, &document, AuditNote { actor: Some(account.login), error: None })
}

/// Ends a token. Whether there was one is not said (RFC 7009 §2.2).
pub async fn revoke(call: &Call<'_>) -> Result<Reply, Refusal> {
    let account = match client(call).await? {
        Ok(account) => account,
        Err(reply) => return Ok(reply),
    };
    match field(call, "token") {
        Ok(Some(token)) => call.catalog().revoke_token(account.id, &hash(&token)).await?,
        Ok(None) => return refused(call, &account, "invalid_request", "token is missing"),
        Err(why) => return refused(call, &account, "invalid_request", why),
    }
    let note = AuditNote { actor: Some(account.login), error: None };
    Ok(Reply { status: StatusCode::OK, written: None, headers: no_store(), audit: Some(note) })
}

/// The service account that the request is of, or the reply to whoever is none.
async fn client(call: &Call<'_>) -> Result<Result<Credential, Reply>, Refusal> {
    let Some((id, secret)) = basic(call.headers) else { return Ok(Err(invalid_client(call, None)?)) };
    let found = match id.len() <= LONGEST_LOGIN {
        true => call.catalog().credential(CredentialKind::ServiceAccount, &id).await?,
        false => None,
    };
    // An unknown client takes the same way.
    let nobody = SecretString::from(proof(""));
    let right = found.as_ref().map_or(&nobody, |account| &account.proof).expose_secret();
    let same = bool::from(proof(&secret).as_bytes().ct_eq(right.as_bytes()));
    match found {
        Some(account) if same => {
            call.may_come_in(&account)?;
            Ok(Ok(account))
        }
        found => Ok(Err(invalid_client(call, Some(claimed(found.as_ref())))?)),
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
    let plain = |text| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    Some((plain(id)?, plain(secret)?))
}

/// The one value of a field of the form.
fn field(call: &Call<'_>, name: &str) -> Result<Option<String>, &'static str> {
    let media_type = only(call.headers, CONTENT_TYPE).unwrap_or_default();
    if !media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    {
        return Err("the body must be application/x-www-form-urlencoded");
    }
    if call.body.len() > LONGEST_FORM {
        return Err("the body is too long");
    }
    let mut values = form_urlencoded::parse(&call.body).filter(|(key, _)| key == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err("a field is repeated"),
        (value, None) => Ok(value.map(|value| value.into_owned())),
    }
}

/// 256 bits of chance.
fn new_token(call: &Call<'_>) -> String {
    let mut bytes = [0; 32];
    for piece in bytes.chunks_mut(8) {
        piece.copy_from_slice(&call.chance().to_le_bytes());
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

fn refused(call: &Call<'_>, account: &Credential, error: &'static str, why: &'static str) -> Result<Reply, Refusal> {
    let note = AuditNote { actor: Some(account.login.clone()), error: Some(error) };
    reply(call, StatusCode::BAD_REQUEST, &OauthError { error, error_description: why }, note)
}

fn invalid_client(call: &Call<'_>, actor: Option<String>) -> Result<Reply, Refusal> {
    let error = "invalid_client";
    let document = OauthError {
        error,
        error_description: "the client id or its secret is wrong, or was not given with HTTP Basic",
    };
    let reply = reply(call, StatusCode::UNAUTHORIZED, &document, AuditNote { actor, error: Some(error) })?;
    Ok(reply.with(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"MMS Public API\"")))
}

fn reply<T: Serialize>(call: &Call<'_>, status: StatusCode, document: &T, note: AuditNote) -> Result<Reply, Refusal> {
    let mut reply = call.one(status, document)?;
    reply.headers.extend(no_store());
    reply.audit = Some(note);
    Ok(reply)
}

/// A token is nobody's to keep (RFC 6749 §5.1).
fn no_store() -> Vec<(http::HeaderName, HeaderValue)> {
    vec![(CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}
