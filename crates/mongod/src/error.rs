//! What can go wrong, told so that an operator knows what to do.

use std::path::PathBuf;
use std::process::ExitStatus;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("there is no mongod on the PATH of this process")]
    NoBinary,
    #[error("{path} cannot be run: {why}")]
    NotRun { path: PathBuf, why: std::io::Error },
    #[error("{path} does not say which version of mongod it is: {why}")]
    NoVersion { path: PathBuf, why: String },
    #[error("{path}: {why}")]
    File { path: PathBuf, why: std::io::Error },
    #[error("no free port between 20000 and 32000")]
    NoPort,
    #[error("port {0} was taken by another program")]
    PortTaken(u16),
    #[error("mongod on port {port} did not start ({}); its log ends with\n{log}", ended(.status))]
    NotStarted { port: u16, status: Option<ExitStatus>, log: String },
    #[error("mongod on port {port} ended ({status}); its log ends with\n{log}")]
    Ended { port: u16, status: ExitStatus, log: String },
}

fn ended(status: &Option<ExitStatus>) -> String {
    status.map_or_else(|| "no answer".to_owned(), |status| status.to_string())
}
