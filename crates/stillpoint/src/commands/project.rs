//! `stillpoint project`

use serde_json::{Value, json};
use stillpoint_catalog::Project;
use stillpoint_core::ProjectId;

use super::check_name;
use crate::cli::ProjectCommand;
use crate::config::Config;
use crate::context::{audited, chance, now, open_catalog, open_or_make_catalog};
use crate::error::CliError;
use crate::output::{Output, table};

pub async fn run(config: &Config, output: &Output, command: ProjectCommand) -> Result<(), CliError> {
    match command {
        ProjectCommand::Create { name, organization } => {
            check_name("project", &name)?;
            let catalog = open_or_make_catalog(config)?;
            let owner = catalog.organizations().await?.into_iter().find(|owner| owner.name == organization);
            let Some(owner) = owner else {
                let list = "organization list".into();
                return Err(CliError::NotFound { kind: "organisation", name: organization, list });
            };
            let id = ProjectId::new(now(), chance());
            let project = Project { id, organization: owner.id, name, created: now() };
            catalog.create_project(&project).await?;
            audited(&*catalog, format!("project create {}", project.id)).await;
            output.print(&document(&project), || project.id.to_string());
        }
        ProjectCommand::List => {
            let projects = open_catalog(config)?.projects().await?;
            let documents: Vec<_> = projects.iter().map(document).collect();
            output.print(&documents.into(), || {
                let rows: Vec<_> = projects.iter().map(|p| vec![p.id.to_string(), p.name.clone()]).collect();
                table(&["ID", "NAME"], &rows)
            });
        }
    }
    Ok(())
}

fn document(project: &Project) -> Value {
    json!({"id": project.id, "name": project.name})
}
