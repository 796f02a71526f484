//! `stillpoint doctor`

use serde_json::json;
use stillpoint_mongo::doctor::{Finding, Level, examine};

use crate::cli::DoctorArgs;
use crate::config::Config;
use crate::context::{self, now, open_catalog};
use crate::error::CliError;
use crate::output::Output;

pub async fn run(config: &Config, output: &Output, args: DoctorArgs) -> Result<(), CliError> {
    let uri = match (&args.project, &args.cluster, context::uri(&args.uri)?) {
        (Some(project), Some(cluster), _) => {
            let catalog = open_catalog(config)?;
            let project = context::project(&*catalog, project).await?;
            context::cluster(&*catalog, &project, cluster).await?.uri
        }
        (_, _, Some(uri)) => uri,
        _ => {
            let how = "name a cluster with --project and --cluster, or its config servers with --uri-file FILE";
            return Err(CliError::Usage(how.into()));
        }
    };
    let findings = examine(&uri, now()).await;
    output.print(&json!({ "findings": findings }), || text(&findings));
    match findings.iter().filter(|finding| finding.level == Level::Problem).count() {
        0 => Ok(()),
        1 => Err(CliError::Failed("1 problem keeps checkpoints from being taken".into())),
        n => Err(CliError::Failed(format!("{n} problems keep checkpoints from being taken"))),
    }
}

pub fn text(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let level = match finding.level {
            Level::Good => "ok     ",
            Level::Warning => "warning",
            Level::Problem => "PROBLEM",
        };
        let part = finding.part.as_ref().map(|part| format!("{part}: ")).unwrap_or_default();
        // An error from below names its part already.
        let what = finding.what.strip_prefix(&part).unwrap_or(&finding.what);
        lines.push(format!("{level}  {part}{what}"));
        lines.extend(finding.remedy.iter().map(|remedy| format!("           {remedy}")));
    }
    lines.join("\n")
}
