//! `stillpoint key`

use secrecy::SecretString;
use serde_json::{Value, json};
use stillpoint_catalog::ApiKey;
use stillpoint_core::KeyId;

use crate::cli::KeyCommand;
use crate::config::Config;
use crate::context::{chance, now, open_catalog, project};
use crate::error::CliError;
use crate::output::{Output, table};

pub async fn run(config: &Config, output: &Output, command: KeyCommand) -> Result<(), CliError> {
    let catalog = open_catalog(config)?;
    match command {
        KeyCommand::Create { of, role, access_list } => {
            let project = project(&*catalog, &of.project).await?;
            let (public, private) = (public_part(), private_part());
            let key = ApiKey {
                id: KeyId::new(now(), chance()),
                project: project.id,
                ha1: SecretString::from(stillpoint_api::ha1(&public, &private)),
                public,
                role,
                access_list,
                created: now(),
            };
            catalog.create_key(&key).await?;
            let mut shown = document(&key);
            shown["privateKey"] = private.clone().into();
            output.print(&shown, || {
                format!("public key   {}\nprivate key  {private}\n\nThe private key is not shown again.", key.public)
            });
        }
        KeyCommand::List { of } => {
            let project = project(&*catalog, &of.project).await?;
            let keys = catalog.keys(project.id).await?;
            let documents: Vec<_> = keys.iter().map(document).collect();
            output.print(&documents.into(), || {
                let row =
                    |key: &ApiKey| vec![key.public.clone(), key.role.to_string(), from(key), key.created.to_string()];
                table(&["PUBLIC KEY", "ROLE", "FROM", "CREATED"], &keys.iter().map(row).collect::<Vec<_>>())
            });
        }
        KeyCommand::Delete { of, public_key } => {
            let project = project(&*catalog, &of.project).await?;
            if !catalog.delete_key(project.id, &public_key).await? {
                let list = format!("key list --project {}", project.name);
                return Err(CliError::NotFound { kind: "key", name: public_key, list });
            }
            output.print(&json!({"publicKey": public_key}), || format!("deleted {public_key}"));
        }
    }
    Ok(())
}

fn document(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "publicKey": key.public,
        "project": key.project,
        "role": key.role,
        "accessList": key.access_list,
        "created": key.created,
    })
}

fn from(key: &ApiKey) -> String {
    match key.access_list.as_slice() {
        [] => "anywhere".into(),
        list => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
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
}
