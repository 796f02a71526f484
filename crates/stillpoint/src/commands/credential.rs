//! `stillpoint key` and `stillpoint service-account`

use secrecy::SecretString;
use serde_json::{Value, json};
use stillpoint_catalog::{Catalog, Credential, CredentialKind, Project};
use stillpoint_core::CredentialId;

use crate::cli::{CredentialCommand, OfProject};
use crate::config::Config;
use crate::context::{self, audited, chance, now, open_catalog};
use crate::error::CliError;
use crate::output::{Output, table};

/// What the two kinds are called.
struct Words {
    /// As a command, and in sentences.
    command: &'static str,
    name: &'static str,
    login: &'static str,
    secret: &'static str,
    login_field: &'static str,
    secret_field: &'static str,
}

const KEY: Words = Words {
    command: "key",
    name: "key",
    login: "public key",
    secret: "private key",
    login_field: "publicKey",
    secret_field: "privateKey",
};

const SERVICE_ACCOUNT: Words = Words {
    command: "service-account",
    name: "service account",
    login: "client id",
    secret: "client secret",
    login_field: "clientId",
    secret_field: "clientSecret",
};

pub async fn run(
    config: &Config,
    output: &Output,
    kind: CredentialKind,
    command: CredentialCommand,
) -> Result<(), CliError> {
    let words = match kind {
        CredentialKind::Key => &KEY,
        CredentialKind::ServiceAccount => &SERVICE_ACCOUNT,
    };
    let catalog = open_catalog(config)?;
    let catalog = &*catalog;
    match command {
        CredentialCommand::Create { of, role, access_list } => {
            let project = context::project(catalog, &of.project).await?;
            let (login, secret, proof) = new(kind);
            let credential = Credential {
                id: CredentialId::new(now(), chance()),
                kind,
                organization: project.organization,
                login,
                proof,
                roles: [(project.id, role)].into(),
                access_list,
                created: now(),
            };
            catalog.create_credential(&credential).await?;
            audited(catalog, format!("{} create {} in {}", words.command, credential.login, project.id)).await;
            show_secret(output, words, document(words, &credential, &project), &credential.login, &secret);
        }
        CredentialCommand::List { of } => {
            let project = context::project(catalog, &of.project).await?;
            let found = catalog.credentials(kind, project.id).await?;
            let documents: Vec<_> = found.iter().map(|credential| document(words, credential, &project)).collect();
            output.print(&documents.into(), || {
                let row = |one: &Credential| {
                    let role = one.roles.get(&project.id).map(ToString::to_string).unwrap_or_default();
                    vec![one.login.clone(), role, from(one), one.created.to_string()]
                };
                let login = words.login.to_ascii_uppercase();
                table(&[&login, "ROLE", "FROM", "CREATED"], &found.iter().map(row).collect::<Vec<_>>())
            });
        }
        CredentialCommand::Grant { of, login, role } => {
            let project = context::project(catalog, &of.project).await?;
            let found = catalog.credential(kind, &login).await?;
            let found = found.ok_or_else(|| not_found(words, &login, &project))?;
            catalog.grant(found.id, project.id, Some(role)).await?;
            audited(catalog, format!("{} grant {login} {role} in {}", words.command, project.id)).await;
            let changed = json!({words.login_field: login, "project": project.id, "role": role});
            output.print(&changed, || format!("{login} is {role} in {}", project.name));
        }
        CredentialCommand::Revoke { of, login } => {
            let (project, found) = find(catalog, kind, words, &of, &login).await?;
            catalog.grant(found.id, project.id, None).await?;
            audited(catalog, format!("{} revoke {login} in {}", words.command, project.id)).await;
            let changed = json!({words.login_field: login, "project": project.id, "role": null});
            output.print(&changed, || format!("{login} has no role in {} any more", project.name));
        }
        CredentialCommand::AccessList { of, login, access_list } => {
            let (project, found) = find(catalog, kind, words, &of, &login).await?;
            if !catalog.restrict_credential(found.id, &access_list).await? {
                return Err(not_found(words, &login, &project));
            }
            let changed = Credential { access_list, ..found };
            audited(catalog, format!("{} access-list {login}: {}", words.command, from(&changed))).await;
            output.print(&document(words, &changed, &project), || format!("{login} may come from {}", from(&changed)));
        }
        CredentialCommand::Rotate { of, login } => {
            let (project, found) = find(catalog, kind, words, &of, &login).await?;
            let (secret, proof) = new_secret(kind, &login);
            if !catalog.rotate_credential(found.id, &proof).await? {
                return Err(not_found(words, &login, &project));
            }
            audited(catalog, format!("{} rotate {login}", words.command)).await;
            show_secret(output, words, document(words, &found, &project), &login, &secret);
        }
        CredentialCommand::Delete { of, login } => {
            let (project, found) = find(catalog, kind, words, &of, &login).await?;
            if !catalog.delete_credential(found.id).await? {
                return Err(not_found(words, &login, &project));
            }
            audited(catalog, format!("{} delete {login}", words.command)).await;
            output.print(&json!({words.login_field: login}), || format!("deleted {login}"));
        }
    }
    Ok(())
}

/// One that has a role in the project.
async fn find(
    catalog: &dyn Catalog,
    kind: CredentialKind,
    words: &Words,
    of: &OfProject,
    login: &str,
) -> Result<(Project, Credential), CliError> {
    let project = context::project(catalog, &of.project).await?;
    let found = catalog.credential(kind, login).await?.filter(|found| found.roles.contains_key(&project.id));
    let found = found.ok_or_else(|| not_found(words, login, &project))?;
    Ok((project, found))
}

fn not_found(words: &Words, login: &str, project: &Project) -> CliError {
    let list = format!("{} list --project {}", words.command, project.name);
    CliError::NotFound { kind: words.name, name: login.into(), list }
}

fn document(words: &Words, credential: &Credential, project: &Project) -> Value {
    let roles = credential.roles.iter().map(|(project, role)| json!({"project": project, "role": role}));
    json!({
        "id": credential.id,
        words.login_field: credential.login,
        "project": project.id,
        "role": credential.roles.get(&project.id),
        "roles": roles.collect::<Vec<_>>(),
        "accessList": credential.access_list,
        "created": credential.created,
    })
}

fn show_secret(output: &Output, words: &Words, mut document: Value, login: &str, secret: &str) {
    document[words.secret_field] = secret.into();
    output.print(&document, || {
        let width = words.secret.len();
        let Words { login: name, secret: what, .. } = words;
        format!("{name:width$}  {login}\n{what}  {secret}\n\nThe {what} is not shown again.")
    });
}

fn from(credential: &Credential) -> String {
    match credential.access_list.as_slice() {
        [] => "anywhere".into(),
        list => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// A login, a secret, and what the secret is checked against.
fn new(kind: CredentialKind) -> (String, String, SecretString) {
    let login = match kind {
        CredentialKind::Key => public_part(),
        // As clients know it.
        CredentialKind::ServiceAccount => format!("mdb_sa_id_{}", CredentialId::new(now(), chance())),
    };
    let (secret, proof) = new_secret(kind, &login);
    (login, secret, proof)
}

fn new_secret(kind: CredentialKind, login: &str) -> (String, SecretString) {
    match kind {
        CredentialKind::Key => {
            let secret = private_part();
            let proof = stillpoint_api::ha1(login, &secret);
            (secret, proof.into())
        }
        CredentialKind::ServiceAccount => {
            let secret = format!("mdb_sa_sk_{}", letters(40));
            let proof = stillpoint_api::oauth::proof(&secret);
            (secret, proof.into())
        }
    }
}

/// Eight letters, as clients know it.
fn public_part() -> String {
    let mut bits = chance();
    let letter = |_| {
        let letter = char::from(b'a' + (bits % 26) as u8);
        bits /= 26;
        letter
    };
    (0..8).map(letter).collect()
}

/// Letters and digits, nearly six bits of chance each.
fn letters(count: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..count).map(|_| char::from(ALPHABET[(chance() % 62) as usize])).collect()
}

/// A random UUID (version 4), as clients know it: 122 bits of chance.
fn private_part() -> String {
    let high = (chance() & 0xffff_ffff_ffff_0fff) | 0x4000;
    let low = (chance() & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    let digits = format!("{high:016x}{low:016x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_form_that_clients_know() {
        assert!(public_part().len() == 8 && public_part().bytes().all(|b| b.is_ascii_lowercase()));
        let private = private_part();
        let lengths: Vec<_> = private.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(private.as_bytes()[14] == b'4' && b"89ab".contains(&private.as_bytes()[19]), "{private}");
        assert_ne!(private, private_part());
    }

    #[test]
    fn service_accounts_have_the_form_that_clients_know() {
        let (id, secret, _) = new(CredentialKind::ServiceAccount);
        assert!(id.strip_prefix("mdb_sa_id_").is_some_and(|id| id.parse::<CredentialId>().is_ok()), "{id}");
        let random = secret.strip_prefix("mdb_sa_sk_").unwrap();
        assert!(random.len() == 40 && random.bytes().all(|b| b.is_ascii_alphanumeric()), "{secret}");
        assert_ne!(secret, new(CredentialKind::ServiceAccount).1);
    }
}
