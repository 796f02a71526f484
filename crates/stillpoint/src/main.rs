//! The binary: command line, configuration, and the wiring of the rooms.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed,
//! 2 wrong use.
//!
//! # Layout
//! - [`cli`]: the command line's grammar
//! - [`config`]: `stillpoint.toml` and the environment
//! - [`commands`]: one file for each command
//! - [`metrics`]: figures for Prometheus
//! - [`memory`]: what the allocator keeps
//! - [`context`]: what the commands share: the opened catalog, names to records
//! - [`output`]: tables for people, JSON for programs
//! - [`error`]: what the command line says when it fails

mod cli;
mod commands;
mod config;
mod context;
mod error;
mod memory;
mod metrics;
mod output;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use error::CliError;
use stillpoint_catalog::CredentialKind;

fn main() -> ExitCode {
    let cli = Cli::parse();
    memory::give_back_large_blocks();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: no runtime: {e}");
            return ExitCode::from(1);
        }
    };
    let done = runtime.block_on(run(cli));
    // Whatever is still under way (a blocked look-up of a name, say) must not hold the exit up.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let config = config::load(cli.config.as_deref())?;
    match cli.command {
        Command::Serve => commands::serve::run(config).await,
        command => {
            commands::log_to_standard_error();
            let output = output::Output { json: cli.json };
            match command {
                Command::Serve => Ok(()),
                Command::Project(command) => commands::project::run(&config, &output, command).await,
                Command::Organization(command) => commands::organization::run(&config, &output, command).await,
                Command::Key(command) => {
                    commands::credential::run(&config, &output, CredentialKind::Key, command).await
                }
                Command::ServiceAccount(command) => {
                    commands::credential::run(&config, &output, CredentialKind::ServiceAccount, command).await
                }
                Command::Cluster(command) => commands::cluster::run(&config, &output, command).await,
                Command::Checkpoint(command) => commands::checkpoint::run(&config, &output, command).await,
                Command::Snapshot(command) => commands::snapshot::run(&config, &output, command).await,
                Command::Verify { point, against } => commands::verify::run(&config, &output, point, against).await,
                Command::Export { point, parts, only, out, archive, with_orphans } => {
                    let wanted = commands::export::Wanted { point, parts, only, with_orphans };
                    commands::export::run(&config, &output, wanted, out, archive).await
                }
                Command::Cat { point, parts, ns, id, with_orphans } => {
                    commands::cat::run(&config, point, parts, ns, id, with_orphans).await
                }
                Command::Diff { point, to, parts, only, documents } => {
                    commands::diff::run(&config, &output, point, to, parts, only, documents).await
                }
                Command::Restore(args) => commands::restore::run(&config, &output, args).await,
                Command::RestoreJob(command) => commands::restore_job::run(&config, &output, command).await,
                Command::Drill(command) => commands::drill::run(&config, &output, command).await,
                Command::Oplog(command) => commands::oplog::run(&config, &output, command).await,
                Command::Vault(command) => commands::vault::run(&config, &output, command).await,
                Command::Status { check } => commands::status::run(&config, &output, check).await,
                Command::Doctor(args) => commands::doctor::run(&config, &output, args).await,
                Command::Audit { limit } => commands::audit::run(&config, &output, limit).await,
                Command::Openapi => {
                    let document = stillpoint_api::describe::openapi(&config.base_url());
                    output.print(&document, || format!("{document:#}"));
                    Ok(())
                }
            }
        }
    }
}
