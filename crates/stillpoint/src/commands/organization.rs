//! `stillpoint organization`

use serde_json::{Value, json};
use stillpoint_catalog::Organization;
use stillpoint_core::OrganizationId;

use super::check_name;
use crate::cli::OrganizationCommand;
use crate::config::Config;
use crate::context::{audited, chance, now, open_catalog, open_or_make_catalog};
use crate::error::CliError;
use crate::output::{Output, table};

pub async fn run(config: &Config, output: &Output, command: OrganizationCommand) -> Result<(), CliError> {
    match command {
        OrganizationCommand::Create { name } => {
            check_name("organisation", &name)?;
            let catalog = open_or_make_catalog(config)?;
            let organization = Organization { id: OrganizationId::new(now(), chance()), name, created: now() };
            catalog.create_organization(&organization).await?;
            audited(&*catalog, format!("organization create {}", organization.id)).await;
            output.print(&document(&organization), || organization.id.to_string());
        }
        OrganizationCommand::List => {
            let organizations = open_catalog(config)?.organizations().await?;
            let documents: Vec<_> = organizations.iter().map(document).collect();
            output.print(&documents.into(), || {
                let rows: Vec<_> = organizations.iter().map(|o| vec![o.id.to_string(), o.name.clone()]).collect();
                table(&["ID", "NAME"], &rows)
            });
        }
    }
    Ok(())
}

fn document(organization: &Organization) -> Value {
    json!({"id": organization.id, "name": organization.name})
}
