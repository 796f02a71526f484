//! What the commands share: the opened catalog, and names turned into records.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use stillpoint_catalog::sqlite::SqliteCatalog;
use stillpoint_catalog::{AuditEntry, Catalog, CatalogError, Cluster, Project};
use stillpoint_core::ProjectId;
use stillpoint_engine::Depot;
use stillpoint_vault::{Options, Vault, VaultError};
use tokio::time::timeout;

use crate::cli::{OfCluster, UriArgs};
use crate::config::Config;
use crate::error::CliError;

/// The catalog, which must be there: a command that was given in the wrong folder must not make one.
pub fn open_catalog(config: &Config) -> Result<Arc<dyn Catalog>, CliError> {
    let path = config.catalog_file()?;
    match path.exists() {
        true => open_or_make_catalog(config),
        false => Err(CliError::Failed(format!(
            "there is no catalog at {}: name the configuration with --config, or begin with `stillpoint project create`",
            std::path::absolute(&path).unwrap_or(path).display()
        ))),
    }
}

/// For what one begins with.
pub fn open_or_make_catalog(config: &Config) -> Result<Arc<dyn Catalog>, CliError> {
    Ok(Arc::new(SqliteCatalog::open_with_key_file(&config.catalog_file()?, &config.key_file())?))
}

/// The vault, for reading: it must be there, and be this catalog's.
pub async fn open_vault(config: &Config, catalog: &dyn Catalog) -> Result<Vault, CliError> {
    let vault = Vault::open(&config.vault()?, Some(catalog.id().await?)).await?;
    // Another one than before would have none of the segments.
    catalog.bind_vault(vault.id()).await?;
    Ok(vault)
}

/// How long the start of a server waits for its vault.
const VAULT_WITHIN: Duration = Duration::from_secs(10);

/// For the server: made if there is none yet, and tried out. One that does not answer now is opened later.
pub async fn depot(config: &Config, catalog: Arc<dyn Catalog>) -> Result<Depot, CliError> {
    let id = catalog.id().await?;
    let options = config.vault()?;
    let depot = Depot::new(move || {
        let (options, catalog) = (options.clone(), catalog.clone());
        Box::pin(async move {
            // Where there was one before, no new one is made: its disk may not be mounted.
            if catalog.vault().await.map_err(|e| unnoted(&options, &e))?.is_some() {
                bind(&*catalog, &options, &Vault::open(&options, Some(id)).await?).await?;
            }
            let vault = Vault::create_or_open(&options, id, now(), chance()).await?;
            bind(&*catalog, &options, &vault).await?;
            Ok(vault)
        })
    });
    match timeout(VAULT_WITHIN, depot.vault()).await {
        Ok(Ok(vault)) => {
            tracing::info!("the vault is {}{}", vault.place(), if vault.is_encrypted() { ", encrypted" } else { "" });
        }
        // No vault where there was one: its disk may be mounted in a moment.
        Ok(Err(e)) if e.is_transient() || matches!(e, VaultError::NoVault { .. }) => {
            tracing::error!("the vault cannot be used yet, trying again: {e}");
        }
        Ok(Err(e)) => return Err(e.into()),
        Err(_) => tracing::error!("the vault does not answer, trying again"),
    }
    Ok(depot)
}

async fn bind(catalog: &dyn Catalog, options: &Options, vault: &Vault) -> Result<(), VaultError> {
    catalog.bind_vault(vault.id()).await.map_err(|e| unnoted(options, &e))
}

fn unnoted(options: &Options, why: &CatalogError) -> VaultError {
    let vault = options.url.clone();
    match why {
        CatalogError::Store(_) => {
            VaultError::Unavailable { vault, doing: "get noted in the catalog".into(), why: why.to_string() }
        }
        _ => VaultError::Settings { vault, why: why.to_string() },
    }
}

/// The one place where the command line looks at the clock.
#[expect(clippy::disallowed_methods, reason = "from here it goes in to all others")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Random bits that nobody can guess.
pub fn chance() -> u64 {
    rand::random()
}

/// Records what a command has done. The command stays done if that fails.
pub async fn audited(catalog: &dyn Catalog, action: String) {
    let uid = std::fs::metadata("/proc/self").map(|data| data.uid());
    let actor = uid.map_or("the command line".to_owned(), |uid| format!("uid {uid}, command line"));
    let entry = AuditEntry { actor: Some(actor), ..AuditEntry::done(now(), action) };
    if let Err(error) = catalog.append_audit(std::slice::from_ref(&entry)).await {
        tracing::warn!(%error, action = entry.action, "this was done, but could not be recorded in the audit trail");
    }
}

/// A project by its name, or else by its id.
pub async fn project(catalog: &dyn Catalog, text: &str) -> Result<Project, CliError> {
    if let Some(project) = catalog.project_named(text).await? {
        return Ok(project);
    }
    if let Ok(id) = text.parse::<ProjectId>()
        && let Some(project) = catalog.project(id).await?
    {
        return Ok(project);
    }
    Err(CliError::NotFound { kind: "project", name: text.into(), list: "project list".into() })
}

pub async fn cluster(catalog: &dyn Catalog, project: &Project, name: &str) -> Result<Cluster, CliError> {
    let found = catalog.cluster_named(project.id, name).await?;
    found.ok_or_else(|| CliError::NotFound {
        kind: "cluster",
        name: name.into(),
        list: format!("cluster list --project {}", project.name),
    })
}

pub async fn of_cluster(catalog: &dyn Catalog, of: &OfCluster) -> Result<(Project, Cluster), CliError> {
    let project = project(catalog, &of.project.project).await?;
    let cluster = cluster(catalog, &project, &of.cluster).await?;
    Ok((project, cluster))
}

fn standard_input() -> Result<String, CliError> {
    let mut text = String::new();
    let read = std::io::stdin().take(64 * 1024).read_to_string(&mut text);
    read.map_err(|why| CliError::File { path: "standard input".into(), why })?;
    Ok(text)
}

/// The connection string that was given, if any.
pub fn uri(args: &UriArgs) -> Result<Option<SecretString>, CliError> {
    let text = match (&args.uri, &args.uri_file) {
        (Some(uri), _) if uri == "-" => standard_input()?,
        (None, Some(path)) if path.as_os_str() == "-" => standard_input()?,
        (Some(uri), _) => uri.clone(),
        (None, Some(path)) => {
            std::fs::read_to_string(path).map_err(|why| CliError::File { path: path.clone(), why })?
        }
        // Not an argument's default, or it would conflict with what is said on the command line.
        (None, None) => match std::env::var("STILLPOINT_CLUSTER_URI") {
            Ok(uri) => uri,
            Err(_) => return Ok(None),
        },
    };
    Ok(Some(SecretString::from(text.trim())))
}
