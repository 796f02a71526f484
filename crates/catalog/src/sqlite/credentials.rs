//! Rows of keys, service accounts and their tokens.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};
use secrecy::{ExposeSecret, SecretString};
use stillpoint_core::{CredentialId, OrganizationId, ProjectId, Role};

use super::rows::{all, corrupt, execute, one, parsed};
use super::{store, unless_gone, unless_taken};
use crate::seal::Sealer;
use crate::{AccessToken, CatalogError, Credential, CredentialKind, Result, TOKENS_PER_ACCOUNT};

/// What a proof is sealed for: it opens for no other credential.
fn owner(kind: CredentialKind, login: &str) -> String {
    format!("{} {login}", kind.name())
}

impl CredentialKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            CredentialKind::Key => "key",
            CredentialKind::ServiceAccount => "service account",
        }
    }

    fn column(self) -> &'static str {
        match self {
            CredentialKind::Key => "KEY",
            CredentialKind::ServiceAccount => "SERVICE_ACCOUNT",
        }
    }

    fn of(column: &str) -> Result<CredentialKind> {
        [CredentialKind::Key, CredentialKind::ServiceAccount]
            .into_iter()
            .find(|kind| kind.column() == column)
            .ok_or_else(|| corrupt("a credential", format!("unknown kind {column}")))
    }
}

fn credential_of(connection: &Connection, row: &Row, sealer: &Sealer) -> Result<Credential> {
    let login: String = row.get("login").map_err(store)?;
    let kind = CredentialKind::of(&row.get::<_, String>("kind").map_err(store)?)?;
    let sealed: Vec<u8> = row.get("proof_sealed").map_err(store)?;
    let access_list: String = row.get("access_list").map_err(store)?;
    let id: CredentialId = parsed(row, "id")?;
    let roles = roles(connection, &id.to_string())?;
    Ok(Credential {
        id,
        kind,
        organization: parsed(row, "organization")?,
        proof: sealer.open(&owner(kind, &login), &sealed)?,
        roles,
        access_list: serde_json::from_str(&access_list).map_err(|e| corrupt(owner(kind, &login), e))?,
        created: parsed(row, "created")?,
        login,
    })
}

pub fn insert(transaction: &Transaction, sealer: &Sealer, credential: &Credential) -> Result<()> {
    let Credential { kind, login, .. } = credential;
    execute(
        transaction,
        "INSERT INTO credentials (id, kind, organization, login, proof_sealed, access_list, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            credential.id.to_string(),
            kind.column(),
            credential.organization.to_string(),
            login,
            sealer.seal(&owner(*kind, login), credential.proof.expose_secret())?,
            list_text(&credential.access_list)?,
            credential.created.to_string()
        ],
    )
    .map_err(|e| {
        let taken = || CatalogError::Duplicate { kind: kind.name(), name: login.clone() };
        unless_gone(e, "organisation", |e| unless_taken(e, taken))
    })?;
    let mut roles = credential.roles.iter();
    roles.try_for_each(|(project, role)| grant(transaction, credential.id, *project, Some(*role)))
}

/// What is opened in the place of a proof that is not there.
pub struct Decoy(Vec<u8>);

const DECOY: &str = "nobody";

impl Decoy {
    pub fn new(sealer: &Sealer) -> Result<Decoy> {
        // As long as an HA1.
        Ok(Decoy(sealer.seal(DECOY, &"0".repeat(32))?))
    }
}

/// One that is not there takes as long as one that is, for whoever guesses logins.
pub fn by_login(
    connection: &Connection,
    sealer: &Sealer,
    decoy: &Decoy,
    kind: CredentialKind,
    login: &str,
) -> Result<Option<Credential>> {
    let sql = "SELECT * FROM credentials WHERE kind = ?1 AND login = ?2";
    let found = one(connection, sql, params![kind.column(), login], |row| credential_of(connection, row, sealer))?;
    if found.is_none() {
        roles(connection, login)?;
        sealer.open(DECOY, &decoy.0)?;
    }
    Ok(found)
}

fn roles(connection: &Connection, id: &str) -> Result<BTreeMap<ProjectId, Role>> {
    let found = all(connection, "SELECT * FROM roles WHERE credential = ?1", params![id], |row| {
        Ok((parsed(row, "project")?, parsed(row, "role")?))
    })?;
    Ok(found.into_iter().collect())
}

pub fn of_project(
    connection: &Connection,
    sealer: &Sealer,
    kind: CredentialKind,
    project: ProjectId,
) -> Result<Vec<Credential>> {
    let sql = "SELECT credentials.* FROM roles JOIN credentials ON credentials.id = roles.credential
               WHERE roles.project = ?1 AND kind = ?2 ORDER BY id";
    all(connection, sql, params![project.to_string(), kind.column()], |row| credential_of(connection, row, sealer))
}

/// `AnotherOrganization` unless the project is the credential's organisation's.
pub fn grant(transaction: &Transaction, id: CredentialId, project: ProjectId, role: Option<Role>) -> Result<()> {
    let organization = |sql, of: String| -> Result<Option<OrganizationId>> {
        one(transaction, sql, params![of], |row| parsed(row, "organization"))
    };
    let holder = organization("SELECT organization FROM credentials WHERE id = ?1", id.to_string())?;
    let owner = organization("SELECT organization FROM projects WHERE id = ?1", project.to_string())?;
    match (holder, owner) {
        (None, _) => return Err(CatalogError::Gone("key or service account")),
        (_, None) => return Err(CatalogError::Gone("project")),
        (holder, owner) if holder != owner => return Err(CatalogError::AnotherOrganization),
        _ => {}
    }
    let done = match role {
        Some(role) => execute(
            transaction,
            "INSERT INTO roles (credential, project, role) VALUES (?1, ?2, ?3)
             ON CONFLICT (credential, project) DO UPDATE SET role = ?3",
            params![id.to_string(), project.to_string(), role.name()],
        ),
        None => execute(
            transaction,
            "DELETE FROM roles WHERE credential = ?1 AND project = ?2",
            params![id.to_string(), project.to_string()],
        ),
    };
    done.map_err(store)?;
    match roles(transaction, &id.to_string())?.is_empty() {
        true => Err(CatalogError::LastRole),
        false => Ok(()),
    }
}

pub fn rotate(transaction: &Transaction, sealer: &Sealer, id: CredentialId, proof: &SecretString) -> Result<bool> {
    let sql = "SELECT kind, login FROM credentials WHERE id = ?1";
    let found = one(transaction, sql, params![id.to_string()], |row| {
        let kind = CredentialKind::of(&row.get::<_, String>("kind").map_err(store)?)?;
        Ok(owner(kind, &row.get::<_, String>("login").map_err(store)?))
    })?;
    let Some(owner) = found else { return Ok(false) };
    let sealed = sealer.seal(&owner, proof.expose_secret())?;
    let sql = "UPDATE credentials SET proof_sealed = ?2 WHERE id = ?1";
    execute(transaction, sql, params![id.to_string(), sealed]).map_err(store)?;
    execute(transaction, "DELETE FROM tokens WHERE account = ?1", params![id.to_string()]).map_err(store)?;
    Ok(true)
}

pub fn restrict(transaction: &Transaction, id: CredentialId, access_list: &[IpNet]) -> Result<bool> {
    let sql = "UPDATE credentials SET access_list = ?2 WHERE id = ?1";
    let changed = execute(transaction, sql, params![id.to_string(), list_text(access_list)?]);
    Ok(changed.map_err(store)? > 0)
}

fn list_text(access_list: &[IpNet]) -> Result<String> {
    serde_json::to_string(access_list).map_err(|e| corrupt("an access list", e))
}

pub fn delete(transaction: &Transaction, id: CredentialId) -> Result<bool> {
    let gone = execute(transaction, "DELETE FROM credentials WHERE id = ?1", params![id.to_string()]);
    Ok(gone.map_err(store)? > 0)
}

pub fn insert_token(
    transaction: &Transaction,
    sealer: &Sealer,
    token: &AccessToken,
    proof: &SecretString,
    now: Timestamp,
) -> Result<()> {
    let account = token.account.to_string();
    let sql = "SELECT * FROM credentials WHERE id = ?1";
    let found = one(transaction, sql, params![account], |row| credential_of(transaction, row, sealer))?;
    // Rotated or deleted since its secret was checked.
    if found.is_none_or(|found| found.proof.expose_secret() != proof.expose_secret()) {
        return Err(CatalogError::Gone("service account"));
    }
    execute(transaction, "DELETE FROM tokens WHERE expires_ms <= ?1", params![now.as_millisecond()]).map_err(store)?;
    let sql = "DELETE FROM tokens WHERE hash IN (
                   SELECT hash FROM tokens WHERE account = ?1 ORDER BY expires_ms DESC LIMIT -1 OFFSET ?2)";
    execute(transaction, sql, params![account, TOKENS_PER_ACCOUNT as i64 - 1]).map_err(store)?;
    let sql = "INSERT INTO tokens (hash, account, expires_ms) VALUES (?1, ?2, ?3)";
    execute(transaction, sql, params![token.hash, account, token.expires.as_millisecond()]).map(drop).map_err(store)
}

pub fn token(connection: &Connection, sealer: &Sealer, hash: &[u8; 32]) -> Result<Option<(Credential, Timestamp)>> {
    let sql = "SELECT credentials.*, expires_ms FROM tokens JOIN credentials ON credentials.id = account
               WHERE hash = ?1";
    one(connection, sql, params![hash], |row| {
        let expires: i64 = row.get("expires_ms").map_err(store)?;
        let expires = Timestamp::from_millisecond(expires).map_err(|e| corrupt("an access token", e))?;
        Ok((credential_of(connection, row, sealer)?, expires))
    })
}

pub fn delete_token(transaction: &Transaction, account: CredentialId, hash: &[u8; 32]) -> Result<()> {
    let sql = "DELETE FROM tokens WHERE hash = ?1 AND account = ?2";
    execute(transaction, sql, params![hash, account.to_string()]).map(drop).map_err(store)
}
