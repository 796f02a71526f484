//! Keys, service accounts, their roles and tokens.

use super::*;
use secrecy::{ExposeSecret, SecretString};
use stillpoint_catalog::{AccessToken, CatalogError, TOKENS_PER_ACCOUNT};

/// A service account with the login of a key, to show that they do not meet.
fn account(project: &Project, n: u64) -> Credential {
    Credential { kind: CredentialKind::ServiceAccount, ..key(project, "abcdefgh", n) }
}

fn token(account: &Credential, n: u8, second: i64) -> AccessToken {
    AccessToken { hash: [n; 32], account: account.id, expires: at(second) }
}

async fn another_organization(catalog: &dyn Catalog) -> Project {
    let other = Organization { id: OrganizationId::new(at(5), 5), name: "other".into(), created: at(5) };
    catalog.create_organization(&other).await.unwrap();
    let project = Project { organization: other.id, ..project(catalog, 5).await };
    catalog.create_project(&project).await.unwrap();
    project
}

pub async fn credentials_read_back_with_everything_in_them(catalog: &dyn Catalog) {
    let (one, two) = (with_project(catalog, 1).await, with_project(catalog, 2).await);
    let both = [(one.id, Role::GroupReadOnly), (two.id, Role::GroupOwner)].into();
    let owner = Credential { roles: both, ..key(&one, "zzowneraa", 1) };
    let reader = Credential { access_list: vec![], ..key(&one, "aareader", 2) };
    let account = account(&one, 3);
    for credential in [&reader, &owner, &account] {
        catalog.create_credential(credential).await.unwrap();
    }
    let found = catalog.credential(CredentialKind::Key, "zzowneraa").await.unwrap().unwrap();
    assert_eq!(found, owner);
    assert_eq!(found.proof.expose_secret(), HA1);
    let of = async |kind, project: &Project| catalog.credentials(kind, project.id).await.unwrap();
    assert_eq!(of(CredentialKind::Key, &one).await, [owner.clone(), reader], "by creation");
    assert_eq!(of(CredentialKind::Key, &two).await, [owner]);
    assert_eq!(of(CredentialKind::ServiceAccount, &one).await, std::slice::from_ref(&account));
    assert_eq!(catalog.credential(CredentialKind::Key, "ZZOWNERAA").await.unwrap(), None);
    assert_eq!(catalog.credential(CredentialKind::Key, &account.login).await.unwrap(), None);
}

pub async fn a_login_is_taken_once_for_its_kind(catalog: &dyn Catalog) {
    let project = with_project(catalog, 1).await;
    let kept = key(&project, "abcdefgh", 1);
    catalog.create_credential(&kept).await.unwrap();
    let refused = catalog.create_credential(&key(&project, "abcdefgh", 2)).await;
    assert!(matches!(refused, Err(CatalogError::Duplicate { kind: "key", .. })), "{refused:?}");
    catalog.create_credential(&account(&project, 3)).await.unwrap();
    assert_eq!(catalog.credentials(CredentialKind::Key, project.id).await.unwrap(), [kept]);
}

pub async fn a_credential_of_no_organisation_or_project_is_refused(catalog: &dyn Catalog) {
    let (kept, missing) = (with_project(catalog, 1).await, project(catalog, 9).await);
    let refused = catalog.create_credential(&key(&missing, "abcdefgh", 1)).await;
    assert!(matches!(refused, Err(CatalogError::Gone("project"))), "{refused:?}");
    let nowhere = Credential { organization: OrganizationId::new(at(9), 9), ..key(&kept, "abcdefgh", 1) };
    let refused = catalog.create_credential(&nowhere).await;
    assert!(matches!(refused, Err(CatalogError::Gone("organisation"))), "{refused:?}");
    let elsewhere = another_organization(catalog).await;
    let foreign = Credential { organization: elsewhere.organization, ..key(&kept, "abcdefgh", 1) };
    let refused = catalog.create_credential(&foreign).await;
    assert!(matches!(refused, Err(CatalogError::AnotherOrganization)), "{refused:?}");
    assert_eq!(catalog.credential(CredentialKind::Key, "abcdefgh").await.unwrap(), None, "nothing half-written");
}

pub async fn roles_are_given_changed_and_taken_within_the_organisation(catalog: &dyn Catalog) {
    let (one, two) = (with_project(catalog, 1).await, with_project(catalog, 2).await);
    let elsewhere = another_organization(catalog).await;
    let key = key(&one, "abcdefgh", 1);
    catalog.create_credential(&key).await.unwrap();
    let roles = async || catalog.credential(CredentialKind::Key, "abcdefgh").await.unwrap().unwrap().roles;
    catalog.grant(key.id, two.id, Some(Role::GroupReadOnly)).await.unwrap();
    catalog.grant(key.id, one.id, Some(Role::GroupReadOnly)).await.unwrap();
    assert_eq!(roles().await, [(one.id, Role::GroupReadOnly), (two.id, Role::GroupReadOnly)].into());
    catalog.grant(key.id, one.id, None).await.unwrap();
    assert_eq!(roles().await, [(two.id, Role::GroupReadOnly)].into());
    let refused = catalog.grant(key.id, two.id, None).await;
    assert!(matches!(refused, Err(CatalogError::LastRole)), "{refused:?}");
    let refused = catalog.grant(key.id, elsewhere.id, Some(Role::GroupOwner)).await;
    assert!(matches!(refused, Err(CatalogError::AnotherOrganization)), "{refused:?}");
    let refused = catalog.grant(CredentialId::new(at(9), 9), one.id, Some(Role::GroupOwner)).await;
    assert!(matches!(refused, Err(CatalogError::Gone(_))), "{refused:?}");
    assert_eq!(roles().await, [(two.id, Role::GroupReadOnly)].into());
}

pub async fn rotating_and_deleting_end_what_was_before(catalog: &dyn Catalog) {
    let project = with_project(catalog, 1).await;
    let (first, second) = (account(&project, 1), Credential { login: "second".into(), ..account(&project, 2) });
    for (n, account) in [(1, &first), (2, &second)] {
        catalog.create_credential(account).await.unwrap();
        catalog.create_token(&token(account, n, 60), &account.proof, at(0)).await.unwrap();
    }
    let list = ["192.0.2.0/24".parse().unwrap()];
    assert!(catalog.restrict_credential(first.id, &list).await.unwrap());
    let restricted = catalog.credential(CredentialKind::ServiceAccount, &first.login).await.unwrap().unwrap();
    assert_eq!(restricted, Credential { access_list: list.into(), ..first.clone() });
    let other: SecretString = "another".into();
    assert!(catalog.rotate_credential(first.id, &other).await.unwrap());
    let rotated = catalog.credential(CredentialKind::ServiceAccount, &first.login).await.unwrap().unwrap();
    assert_eq!(rotated.proof.expose_secret(), "another");
    assert_eq!(catalog.token(&[1; 32]).await.unwrap(), None);
    assert!(catalog.token(&[2; 32]).await.unwrap().is_some(), "another's token stays");

    assert!(catalog.delete_credential(second.id).await.unwrap());
    assert!(!catalog.delete_credential(second.id).await.unwrap());
    assert!(!catalog.rotate_credential(second.id, &other).await.unwrap());
    assert!(!catalog.restrict_credential(second.id, &list).await.unwrap());
    assert_eq!(catalog.token(&[2; 32]).await.unwrap(), None);
    assert_eq!(catalog.credential(CredentialKind::ServiceAccount, "second").await.unwrap(), None);
}

pub async fn a_token_is_its_accounts_until_it_is_revoked(catalog: &dyn Catalog) {
    let project = with_project(catalog, 1).await;
    let (mine, other) = (account(&project, 1), Credential { login: "other".into(), ..account(&project, 2) });
    for account in [&mine, &other] {
        catalog.create_credential(account).await.unwrap();
    }
    catalog.create_token(&token(&mine, 7, 60), &mine.proof, at(0)).await.unwrap();
    assert_eq!(catalog.token(&[7; 32]).await.unwrap(), Some((mine.clone(), at(60))));
    assert_eq!(catalog.token(&[8; 32]).await.unwrap(), None);
    catalog.revoke_token(other.id, &[7; 32]).await.unwrap();
    assert!(catalog.token(&[7; 32]).await.unwrap().is_some(), "another account cannot");
    catalog.revoke_token(mine.id, &[7; 32]).await.unwrap();
    assert_eq!(catalog.token(&[7; 32]).await.unwrap(), None);
}

pub async fn tokens_are_bounded_and_those_that_ended_go(catalog: &dyn Catalog) {
    let project = with_project(catalog, 1).await;
    let account = account(&project, 1);
    catalog.create_credential(&account).await.unwrap();
    let ends = |n: usize| 1_000 + n as i64;
    let hash = |n: usize| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        hash
    };
    let new = |n: usize| AccessToken { hash: hash(n), account: account.id, expires: at(ends(n)) };
    for n in 0..=TOKENS_PER_ACCOUNT {
        catalog.create_token(&new(n), &account.proof, at(0)).await.unwrap();
    }
    assert_eq!(catalog.token(&hash(0)).await.unwrap(), None, "the first to end made room");
    assert!(catalog.token(&hash(1)).await.unwrap().is_some());
    catalog.create_token(&new(9_000), &account.proof, at(ends(TOKENS_PER_ACCOUNT))).await.unwrap();
    for n in 0..=TOKENS_PER_ACCOUNT {
        assert_eq!(catalog.token(&hash(n)).await.unwrap(), None, "{n} has ended");
    }
}

pub async fn a_token_is_given_only_for_the_secret_that_counts_now(catalog: &dyn Catalog) {
    let project = with_project(catalog, 1).await;
    let account = account(&project, 1);
    let late = async || catalog.create_token(&token(&account, 1, 60), &account.proof, at(0)).await;
    assert!(matches!(late().await, Err(CatalogError::Gone(_))), "there is no such account");
    catalog.create_credential(&account).await.unwrap();
    late().await.unwrap();
    catalog.rotate_credential(account.id, &"another".into()).await.unwrap();
    assert!(matches!(late().await, Err(CatalogError::Gone(_))), "rotated since its secret was checked");
    assert_eq!(catalog.token(&[1; 32]).await.unwrap(), None);
}
